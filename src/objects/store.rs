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

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CHUNK, Digest, Error};

/// A folder of objects. Cloning it is cheap; clones, and other processes, may use it at once.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    root: Arc<Path>,
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
        let store = Self { root: root.into() };
        store.sweep()?;
        Ok(store)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The object's file, whether it is there or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.root.join(&name[..2]).join(&name[2..])
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
    /// refers to the object.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read or flushed.
    pub fn durable_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let size = self.size(digest)?;
        if size.is_some() {
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
        let path = self.partial_path(digest);
        let Some(file) = open_locked(&path)? else {
            return Err(Error::Busy { digest: *digest });
        };
        let mut hasher = Box::new(blake3::Hasher::new());
        hasher
            .update_reader(&file)
            .map_err(Error::io("read", &path))?;
        Ok(Partial {
            store: self.clone(),
            digest: *digest,
            path,
            file,
            hasher,
        })
    }

    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.to_string())
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
    fn place(&self, from: &Path, digest: &Digest) -> Result<(), Error> {
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
        let folder = self.root.join("tmp");
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

/// An object on its way in. Dropped, it leaves what has come so far, to go on from later.
#[derive(Debug)]
pub struct Partial {
    store: ObjectStore,
    digest: Digest,
    path: PathBuf,
    /// Locked.
    file: File,
    /// Has seen the file's bytes; its count is how many there are. Boxed for its 2 KB: writers are
    /// moved between threads with every piece.
    hasher: Box<blake3::Hasher>,
}

impl Partial {
    /// The object.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes that are there.
    pub fn size(&self) -> u64 {
        self.hasher.count()
    }

    /// Whether the bytes that are there are the object.
    pub fn is_whole(&self) -> bool {
        Digest::from(self.hasher.finalize()) == self.digest
    }

    /// Adds bytes to the end, which `offset` must name.
    ///
    /// # Errors
    /// [`Error::Offset`]; [`Error::NoSpace`] or [`Error::Io`], after which the bytes that were
    /// there before are still there.
    pub fn append(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let size = self.size();
        if offset != size {
            return Err(Error::Offset {
                digest: self.digest,
                offset,
                committed: size,
            });
        }
        if let Err(error) = self.file.write_all_at(bytes, size) {
            // Some of the bytes may have been written, and they are not hashed. Should they stay,
            // the next writer's digest is wrong, and it begins anew.
            let _ = self.file.set_len(size);
            return Err(Error::io("write", &self.path)(error));
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Checks the digest and stores the object. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Mismatch`], after which nothing is left; [`Error::NoSpace`] or [`Error::Io`].
    pub fn finish(self) -> Result<(), Error> {
        let actual = Digest::from(self.hasher.finalize());
        if actual != self.digest {
            let expected = self.digest;
            self.discard()?;
            return Err(Error::Mismatch { expected, actual });
        }
        if let Err(error) = self.file.sync_all() {
            // What the disk holds now is unknown, though the system may read it back as if it
            // were whole: not to be gone on from.
            let failed = Error::io("flush", &self.path)(error);
            self.discard()?;
            return Err(failed);
        }
        self.store.place(&self.path, &self.digest)
    }

    /// Removes what has come so far.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be removed.
    pub fn discard(self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(Error::io("remove", self.path))
    }
}

/// A file of `tmp/`, removed when it is dropped without being kept.
struct NewFile {
    path: PathBuf,
    /// Locked.
    file: File,
    kept: bool,
}

impl NewFile {
    fn create(store: &ObjectStore) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", std::process::id());
            let path = store.root.join("tmp").join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                // If it was swept before it was locked, the next name is tried.
                Ok(file) => {
                    if lock(&file, &path)? && is_at(&file, &path)? {
                        let kept = false;
                        return Ok(Self { path, file, kept });
                    }
                }
                // A process of the same number wrote here, on another host or before a restart.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", path)(error)),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(bytes)
            .map_err(Error::io("write", &self.path))
    }

    fn keep(mut self, store: &ObjectStore, digest: &Digest) -> Result<(), Error> {
        self.file
            .sync_all()
            .map_err(Error::io("flush", &self.path))?;
        store.place(&self.path, digest)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            // If it cannot be removed, the next `open` sweeps it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens the file of a partial object, making it if need be, and locks it; none if someone else
/// has it.
fn open_locked(path: &Path) -> Result<Option<File>, Error> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("create", path))?;
        if !lock(&file, path)? {
            return Ok(None);
        }
        // Between opening and locking, the writer before may have renamed or removed the file:
        // what is locked then is a finished object, and must not be written.
        if is_at(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// Locks a file for as long as it is open; false if someone else has it.
fn lock(file: &File, path: &Path) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

/// Whether `path` still names this open file.
fn is_at(file: &File, path: &Path) -> Result<bool, Error> {
    let open = file.metadata().map_err(Error::io("read", path))?;
    match fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("flush", path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    fn store() -> (tempfile::TempDir, ObjectStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(folder.path().join("objects")).unwrap();
        (folder, store)
    }

    /// Files in `tmp/` and `partial/`.
    fn unfinished(store: &ObjectStore) -> usize {
        ["tmp", "partial"]
            .iter()
            .map(|folder| fs::read_dir(store.root().join(folder)).unwrap().count())
            .sum()
    }

    #[test]
    fn bytes_are_stored_under_their_name_and_read_only() {
        let (_folder, store) = store();
        let digest = store.put(b"Paris").unwrap();
        assert_eq!(digest, Digest::of(b"Paris"));
        assert_eq!(store.size(&digest).unwrap(), Some(5));
        assert_eq!(store.read(&digest).unwrap(), b"Paris");
        let name = digest.to_string();
        let path = store.root().join(&name[..2]).join(&name[2..]);
        assert_eq!(fs::read(&path).unwrap(), b"Paris");
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o444);
        assert_eq!(store.put(b"Paris").unwrap(), digest);
        assert_eq!(unfinished(&store), 0);
    }

    #[test]
    fn a_file_is_stored_as_its_bytes_are() {
        let (folder, store) = store();
        let bytes: Vec<u8> = (0..2 * CHUNK + 17).map(|i| (i % 253) as u8).collect();
        let path = folder.path().join("source");
        fs::write(&path, &bytes).unwrap();
        let (digest, size) = store.put_file(&path).unwrap();
        assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
        assert_eq!(store.read(&digest).unwrap(), bytes);

        let missing = folder.path().join("missing");
        let message = store.put_file(&missing).unwrap_err().to_string();
        assert!(
            message.contains("missing") && message.contains("No such file"),
            "{message}"
        );
        assert_eq!(unfinished(&store), 0);
    }

    #[test]
    fn a_missing_object_is_named() {
        let (_folder, store) = store();
        let digest = Digest::of(b"nothing");
        assert!(!store.contains(&digest).unwrap());
        assert!(
            store
                .read(&digest)
                .unwrap_err()
                .to_string()
                .contains(&digest.to_string())
        );
        assert!(matches!(
            store.open_object(&digest),
            Err(Error::NotFound { .. })
        ));
        assert!(matches!(store.verify(&digest), Err(Error::NotFound { .. })));
    }

    #[test]
    fn damage_is_found_and_put_repairs_what_changed_size() {
        let (_folder, store) = store();
        let digest = store.put(b"the Eiffel Tower").unwrap();
        store.verify(&digest).unwrap();
        let path = store.path(&digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"the Eiffel Towel").unwrap();
        let message = store.read(&digest).unwrap_err().to_string();
        assert!(
            message.contains("damaged") && message.contains(path.to_str().unwrap()),
            "{message}"
        );
        assert!(matches!(store.verify(&digest), Err(Error::Corrupt { .. })));

        fs::write(&path, b"cut").unwrap();
        store.put(b"the Eiffel Tower").unwrap();
        store.verify(&digest).unwrap();
    }

    #[test]
    fn a_partial_object_survives_its_writer_and_is_gone_on_with() {
        let (_folder, store) = store();
        let bytes = vec![7; 100];
        let digest = Digest::of(&bytes);
        assert_eq!(store.partial_size(&digest).unwrap(), 0);
        let mut partial = store.partial(&digest).unwrap();
        partial.append(0, &bytes[..60]).unwrap();
        drop(partial);

        let store = ObjectStore::open(store.root()).unwrap();
        assert_eq!(store.partial_size(&digest).unwrap(), 60);
        assert!(!store.contains(&digest).unwrap());
        let mut partial = store.partial(&digest).unwrap();
        assert!(matches!(
            partial.append(59, &bytes[..1]),
            Err(Error::Offset { committed: 60, .. })
        ));
        partial.append(60, &bytes[60..]).unwrap();
        partial.finish().unwrap();
        assert_eq!(store.read(&digest).unwrap(), bytes);
        assert_eq!(store.partial_size(&digest).unwrap(), 0);
        assert_eq!(unfinished(&store), 0);
    }

    #[test]
    fn bytes_of_another_name_are_discarded() {
        let (_folder, store) = store();
        let digest = Digest::of(b"right");
        let mut partial = store.partial(&digest).unwrap();
        partial.append(0, b"wrong").unwrap();
        let message = partial.finish().unwrap_err().to_string();
        assert!(message.contains("discarded"), "{message}");
        assert!(
            message.contains(&Digest::of(b"wrong").to_string()),
            "{message}"
        );
        assert!(!store.contains(&digest).unwrap());
        assert_eq!(unfinished(&store), 0);
    }

    #[test]
    fn a_partial_object_has_one_writer_at_a_time() {
        let (_folder, store) = store();
        let digest = Digest::of(b"once");
        let mut first = store.partial(&digest).unwrap();
        assert!(matches!(store.partial(&digest), Err(Error::Busy { .. })));
        first.append(0, b"once").unwrap();
        first.finish().unwrap();
        // The one that comes after begins a file of its own: the finished one is not written.
        let mut second = store.partial(&digest).unwrap();
        assert_eq!(second.size(), 0);
        second.append(0, b"once").unwrap();
        assert_eq!(store.read(&digest).unwrap(), b"once");
        second.finish().unwrap();
        assert_eq!(store.read(&digest).unwrap(), b"once");
    }

    #[test]
    fn many_writers_of_the_same_bytes_all_succeed() {
        let (_folder, store) = store();
        let bytes = vec![3; 300_000];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| store.put(&bytes).unwrap());
            }
        });
        assert_eq!(store.read(&Digest::of(&bytes)).unwrap(), bytes);
        assert_eq!(unfinished(&store), 0);
    }

    #[test]
    fn opening_sweeps_leftovers_of_dead_writers_only() {
        let (_folder, store) = store();
        fs::write(store.root().join("tmp/999999-0"), b"leftover").unwrap();
        let mut living = NewFile::create(&store).unwrap();
        living.write(b"alive").unwrap();
        ObjectStore::open(store.root()).unwrap();
        assert_eq!(unfinished(&store), 1);
        living.keep(&store, &Digest::of(b"alive")).unwrap();
        assert_eq!(store.read(&Digest::of(b"alive")).unwrap(), b"alive");
    }

    /// The other process of the next test: this test program again, for that one test.
    const OTHER: &str = "PALIMPSEST_TEST_OBJECTS_OTHER";

    #[test]
    fn two_processes_may_share_a_folder() {
        let bytes = |n: u32| n.to_le_bytes().repeat(1000);
        if let Some(root) = std::env::var_os(OTHER) {
            let store = ObjectStore::open(root).unwrap();
            for n in 0..50 {
                store.put(&bytes(n)).unwrap();
            }
            return;
        }
        let (_folder, store) = store();
        let mut other = Command::new(std::env::current_exe().unwrap())
            .args(["two_processes_may_share_a_folder", "--nocapture"])
            .env(OTHER, store.root())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        for n in 0..50 {
            store.put(&bytes(n)).unwrap();
            // Sweeps while the other writes.
            ObjectStore::open(store.root()).unwrap();
        }
        assert!(other.wait().unwrap().success());
        for n in 0..50 {
            assert_eq!(store.read(&Digest::of(&bytes(n))).unwrap(), bytes(n));
        }
        assert_eq!(unfinished(&store), 0);
    }

    #[test]
    fn a_full_disk_is_said_and_leaves_nothing_half_done() {
        let full = Error::io("write", "/data/objects/tmp/1-0")(io::Error::from_raw_os_error(28));
        assert!(matches!(full, Error::NoSpace { .. }));
        let message = full.to_string();
        assert!(
            message.contains("/data/objects/tmp/1-0") && message.contains("free some"),
            "{message}"
        );

        // /dev/full accepts an open and refuses every write with "no space left".
        let (_folder, store) = store();
        let digest = Digest::of(b"1234");
        let mut partial = store.partial(&digest).unwrap();
        partial.append(0, b"12").unwrap();
        let real = std::mem::replace(
            &mut partial.file,
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
        );
        assert!(matches!(
            partial.append(2, b"34"),
            Err(Error::NoSpace { .. })
        ));
        assert_eq!(partial.size(), 2);
        partial.file = real;
        partial.append(2, b"34").unwrap();
        partial.finish().unwrap();
        assert_eq!(store.read(&digest).unwrap(), b"1234");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let message = ObjectStore::open(file.join("objects"))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("cannot create") && message.contains("file/objects"),
            "{message}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        /// However an object is cut, and wherever its writers stop, it arrives whole.
        #[test]
        fn pieces_make_the_object(pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..12)) {
            let (_folder, store) = store();
            let whole: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
            let digest = Digest::of(&whole);
            let mut partial = store.partial(&digest).unwrap();
            for (piece, stop) in &pieces {
                partial.append(partial.size(), piece).unwrap();
                if *stop {
                    drop(partial);
                    partial = store.partial(&digest).unwrap();
                }
            }
            partial.finish().unwrap();
            prop_assert_eq!(store.read(&digest).unwrap(), whole);
        }
    }
}
