//! Objects as files in a folder.
//!
//! ```text
//! ab/cdef...          an object, whose name begins with ab: read-only, never changed
//! partial/abcdef...   the part of an object that has come so far; kept over restarts
//! tmp/1234-5          an object being written by process 1234
//! ```
//!
//! An object appears under its name in one step, after its bytes are on the disk: they are
//! written elsewhere and hashed on the way, flushed, and renamed; then the folder is flushed, so
//! that the name survives a crash too. Whoever sees the name sees the whole object.
//!
//! Several processes may share a folder. Every file being written is locked by its writer (the
//! system drops the lock with the process), so that nobody takes a living writer's file for a
//! leftover, and no two append to the same partial object. Two that write the same object at
//! once, each its own copy, both succeed: the second rename replaces equal bytes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::lock::{is_at, lock, sync_folder};
use super::new_file::NewFile;
use super::quota::{Admission, Quota};
use super::{CHUNK, Digest, Error, Partial};

/// A folder of objects. Cloning it is cheap; clones, and other processes, may use it at once.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    quota: Quota,
    /// Held by whoever finds an object stored and says so, and alone by whoever removes one that
    /// nobody has found lately: between the look and the removal nobody can find it.
    finding: RwLock<()>,
}

impl ObjectStore {
    /// Opens the store in `root`, which is made if it is not there, and removes what writers that
    /// died have left. Partial objects are kept: their uploads can go on.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::NoSpace`] when the folder cannot be made, read or written.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, Error> {
        let root = root.as_ref();
        fs::create_dir_all(root).map_err(Error::io("create", root))?;
        // All folders are made, and flushed, now: storing an object later need not ask whether
        // its folder's own name is durable.
        let shards = (0..=u8::MAX).map(|first| format!("{first:02x}"));
        for folder in shards.chain(["partial".into(), "tmp".into()]) {
            let path = root.join(folder);
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("create", path)(error));
                }
                _ => {}
            }
        }
        sync_folder(root)?;
        let store = Self {
            shared: Arc::new(Shared {
                root: root.to_owned(),
                quota: Quota::default(),
                finding: RwLock::new(()),
            }),
        };
        store.sweep()?;
        Ok(store)
    }

    /// The store with a limit for uploads, in bytes. To be set before it is cloned.
    #[must_use]
    pub fn with_quota(self, limit: Option<u64>) -> Self {
        Self {
            shared: Arc::new(Shared {
                root: self.shared.root.clone(),
                quota: Quota::new(limit),
                finding: RwLock::new(()),
            }),
        }
    }

    /// Makes sure that an upload of `size` bytes fits, together with those under way. What it
    /// takes is counted until the answer is dropped.
    ///
    /// # Errors
    /// [`Error::Quota`]; [`Error::Io`] when the folder cannot be read.
    pub fn admit(&self, digest: &Digest, size: u64) -> Result<Admission, Error> {
        self.shared.quota.admit(self, digest, size)
    }

    pub(super) fn finding(&self) -> &RwLock<()> {
        &self.shared.finding
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// The object's file, whether it is there or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.root().join(&name[..2]).join(&name[2..])
    }

    /// Whether the object is stored.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read.
    pub fn contains(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.size(digest)?.is_some())
    }

    /// The object's size in bytes; none when it is not stored.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Like [`ObjectStore::size`], and what it finds is durable: another process may have renamed
    /// the object into place and not yet flushed the folder. To be asked before something durable
    /// refers to the object; it counts as touched now, and is not collected for a while.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read or flushed.
    pub fn durable_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let _finding = self
            .shared
            .finding
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let size = self.size(digest)?;
        if size.is_some() {
            self.touch(digest)?;
            self.sync_folder_of(digest)?;
        }
        Ok(size)
    }

    /// Stores bytes and gives their name. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NoSpace`] or [`Error::Io`]; nothing is left behind then.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        if self.durable_size(&digest)? != Some(bytes.len() as u64) {
            let mut new = NewFile::create(self)?;
            new.write(bytes)?;
            new.keep(self, &digest)?;
        }
        Ok(digest)
    }

    /// Stores a copy of a file and gives its name and size. Durable when it returns. To find out
    /// first whether a large file is stored already, ask [`Digest::of_file`] and
    /// [`ObjectStore::contains`].
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::NoSpace`] or [`Error::Io`] when the
    /// store cannot be written. Nothing is left behind then.
    pub fn put_file(&self, path: &Path) -> Result<(Digest, u64), Error> {
        let mut source = File::open(path).map_err(Error::io("open", path))?;
        let mut new = NewFile::create(self)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            match source.read(&mut buffer).map_err(Error::io("read", path))? {
                0 => break,
                n => {
                    hasher.update(&buffer[..n]);
                    new.write(&buffer[..n])?;
                }
            }
        }
        let digest = hasher.finalize().into();
        new.keep(self, &digest)?;
        Ok((digest, hasher.count()))
    }

    /// The object's bytes, whose digest is checked. For objects that fit in memory.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Corrupt`] when the file holds other bytes; [`Error::Io`].
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.open_object(digest)?
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", self.path(digest)))?;
        self.expect(digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// The object's file, open for reading. The bytes are not checked: whoever receives them
    /// hashes them.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Io`].
    pub fn open_object(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound { digest: *digest },
            _ => Error::io("open", path)(error),
        })
    }

    /// Reads the whole object to see that it still holds the bytes of its name.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Corrupt`] when the file holds other bytes; [`Error::Io`].
    pub fn verify(&self, digest: &Digest) -> Result<(), Error> {
        if !self.contains(digest)? {
            return Err(Error::NotFound { digest: *digest });
        }
        self.expect(digest, Digest::of_file(&self.path(digest))?)
    }

    /// How many bytes of an object that is not whole yet are there; 0 when there are none.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read.
    pub fn partial_size(&self, digest: &Digest) -> Result<u64, Error> {
        let path = self.partial_path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Begins to write an object piece by piece, or goes on where an earlier writer stopped; what
    /// is there already is read again, to hash it.
    ///
    /// # Errors
    /// [`Error::Busy`] while another writer has it; [`Error::NoSpace`] or [`Error::Io`].
    pub fn partial(&self, digest: &Digest) -> Result<Partial, Error> {
        Partial::open(self, digest)
    }

    pub(super) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("partial").join(digest.to_string())
    }

    fn expect(&self, digest: &Digest, actual: Digest) -> Result<(), Error> {
        if actual == *digest {
            return Ok(());
        }
        Err(Error::Corrupt {
            digest: *digest,
            path: self.path(digest),
            actual,
        })
    }

    /// Gives a file whose bytes are on the disk the object's name, and flushes the folder.
    pub(super) fn place(&self, from: &Path, digest: &Digest) -> Result<(), Error> {
        let to = self.path(digest);
        fs::rename(from, &to).map_err(Error::io("create", &to))?;
        // Against accidents only. Not before the rename: a partial object that a crash left
        // read-only could not be opened to go on.
        fs::set_permissions(&to, Permissions::from_mode(0o444))
            .map_err(Error::io("write-protect", &to))?;
        self.sync_folder_of(digest)
    }

    fn sync_folder_of(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        // An object's path has its shard as parent.
        path.parent().map_or(Ok(()), sync_folder)
    }

    /// Removes temporary files whose writers are gone.
    fn sweep(&self) -> Result<(), Error> {
        let folder = self.root().join("tmp");
        for entry in fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            let path = entry.map_err(Error::io("read", &folder))?.path();
            let file = match OpenOptions::new().write(true).open(&path) {
                Ok(file) => file,
                // Its writer has finished meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("open", path)(error)),
            };
            // A lock that cannot be had belongs to a living writer.
            if lock(&file, &path)? && is_at(&file, &path)? {
                tracing::info!(path = %path.display(), "removing what a dead writer has left");
                fs::remove_file(&path).map_err(Error::io("remove", path))?;
            }
        }
        Ok(())
    }
}
