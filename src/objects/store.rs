//! Objects as files in a folder, and in a bucket where there is one.
//!
//! ```text
//! ab/cdef...          an object, whose name begins with ab: read-only, never changed
//! partial/abcdef...   the part of an object that has come so far; kept over restarts
//! tmp/1234-5          an object being written by process 1234
//! sending/abcdef...   which parts of an object lie in the bucket without being an object yet
//! found/abcdef...     when an object was found that only the bucket has
//! using/abcdef...     somebody uses an object by its path: it is not evicted
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
//!
//! With a bucket the folder is a copy of some of it. An object goes there first and appears under
//! its name in the folder when the bucket has it: what has a name here is in the bucket, and what
//! is removed goes from here first. What is not here is fetched when it is needed. The folder of
//! such a store is used by one process at a time. It can be bounded, as a worker's folder can,
//! whose objects the coordinator has; while nobody has the store, it may be removed to free the
//! space.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache::Cache;
use super::digest_lock::DigestLocks;
use super::lock::{is_at, lock, sync_folder};
use super::quota::{Admission, Held, Quota};
use super::sound::{FileState, Sound};
use super::{Bucket, Digest, Error};

/// A folder of objects, and perhaps a bucket. Cloning it is cheap; clones may use it at once, and
/// without a bucket other processes too.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    quota: Quota,
    locks: DigestLocks,
    sound: Sound,
    bucket: Option<Bucket>,
    cache: Option<Cache>,
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
                locks: DigestLocks::default(),
                sound: Sound::default(),
                bucket: None,
                cache: None,
            }),
        };
        store.sweep(&store.root().join("tmp"))?;
        Ok(store)
    }

    /// The store with a limit for uploads, in bytes. To be set before it is cloned.
    #[must_use]
    pub fn with_quota(self, limit: Option<u64>) -> Self {
        let quota = Quota::new(limit);
        self.with(|shared| Shared { quota, ..shared })
    }

    /// The store with a bucket, where its objects are. Whatever the folder has must be in it. To be
    /// set before it is cloned. Parts of objects that a crash left there are cleared away.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::NoSpace`] when the folder cannot be read or written.
    pub fn with_bucket(self, bucket: Bucket) -> Result<Self, Error> {
        for folder in ["sending", "found"] {
            let path = self.root().join(folder);
            fs::create_dir_all(&path).map_err(Error::io("create", path))?;
        }
        let folder = self.root().join("sending");
        for entry in fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            let path = entry.map_err(Error::io("read", &folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Ok(digest) = name.parse() else {
                continue;
            };
            match bucket.abandon(&digest, &path) {
                Ok(()) => tracing::info!(%digest, "parts that a crash left in the bucket are gone"),
                // They cost space, and nothing else.
                Err(error) => tracing::warn!(%error, "parts are left in the bucket for now"),
            }
        }
        let bucket = Some(bucket);
        Ok(self.with(|shared| Shared { bucket, ..shared }))
    }

    pub(super) fn with_cache(self, cache: Cache) -> Self {
        let cache = Some(cache);
        self.with(|shared| Shared { cache, ..shared })
    }

    /// A store that differs in something, and has nothing under way.
    fn with(self, change: impl FnOnce(Shared) -> Shared) -> Self {
        let same = Shared {
            root: self.shared.root.clone(),
            quota: self.shared.quota.clone(),
            locks: DigestLocks::default(),
            sound: Sound::default(),
            bucket: self.shared.bucket.clone(),
            cache: None,
        };
        Self {
            shared: Arc::new(change(same)),
        }
    }

    /// The bucket in which the objects are, if they are in one.
    pub fn bucket(&self) -> Option<&Bucket> {
        self.shared.bucket.as_ref()
    }

    /// Makes sure that an upload of `size` bytes fits, together with those under way. What it
    /// takes is counted until the answer is dropped.
    ///
    /// # Errors
    /// [`Error::Quota`]; [`Error::Io`] when the folder cannot be read.
    pub fn admit(&self, digest: &Digest, size: u64) -> Result<Admission, Error> {
        self.shared.quota.admit(digest, size, || {
            let (stored, partial) = (self.list()?, self.list_partial()?);
            Ok(Held {
                stored: stored.into_iter().map(|it| (it.digest, it.size)).collect(),
                partial: partial.into_iter().map(|it| (it.digest, it.size)).collect(),
            })
        })
    }

    /// What says how much the folder may have; none where it has the only copies.
    pub(super) fn cache(&self) -> Option<&Cache> {
        self.shared.cache.as_ref()
    }

    pub(super) fn locks(&self) -> &DigestLocks {
        &self.shared.locks
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// The object's file, whether it is there or not: see [`ObjectStore::local`].
    pub fn path(&self, digest: &Digest) -> PathBuf {
        path_in(self.root(), digest)
    }

    /// The object's file, which is there: what only the bucket has is fetched first. Of several who
    /// ask at once, one fetches it, and the others wait. It may be evicted before the path is used:
    /// see [`ObjectStore::pin`].
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::BucketCorrupt`] when the bucket holds other bytes, which are
    /// not kept; [`Error::BucketAway`], [`Error::BucketRefused`]; [`Error::NoSpace`],
    /// [`Error::Io`].
    pub fn local(&self, digest: &Digest) -> Result<PathBuf, Error> {
        let path = self.path(digest);
        if let Some(file) = self.open_here(digest)? {
            self.note_use(&file);
            return Ok(path);
        }
        let missing = || Error::NotFound { digest: *digest };
        let bucket = self.bucket().ok_or_else(missing)?;
        let _lock = self.locks().lock(digest);
        if self.size_here(digest)?.is_some() {
            return Ok(path);
        }
        self.fetch(digest, bucket)?;
        Ok(path)
    }

    /// Whether the object is stored.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read; those of the bucket.
    pub fn contains(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.size(digest)?.is_some())
    }

    /// The object's size in bytes; none when it is not stored.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read; those of the bucket.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        match (self.size_here(digest)?, self.bucket()) {
            (None, Some(bucket)) => bucket.size(digest),
            (here, _) => Ok(here),
        }
    }

    fn size_here(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// The object's file, open for reading; none when it is not here.
    fn open_here(&self, digest: &Digest) -> Result<Option<File>, Error> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    /// Whether the object's file, which is there, has its bytes: it is read once by this process,
    /// and again when it was written to.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read.
    fn is_sound(&self, digest: &Digest) -> Result<bool, Error> {
        let path = self.path(digest);
        let before = match fs::metadata(&path) {
            Ok(found) => FileState::from(&found),
            // Removed meanwhile, by another process.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        if self.shared.sound.has(digest, before) {
            return Ok(true);
        }
        let actual = Digest::of_file(&path)?;
        if let Err(error) = self.expect(digest, actual) {
            tracing::warn!(%error, "the object is taken for one that is not there");
            return Ok(false);
        }
        self.shared.sound.note(digest, before);
        Ok(true)
    }

    /// Says that an object was found now, in the folder; false if it is not there any more. What
    /// was known of its file stays known, though its times are others.
    fn touch_known(&self, digest: &Digest) -> Result<bool, Error> {
        if !self.touch(digest)? {
            return Ok(false);
        }
        self.note_sound(digest);
        Ok(true)
    }

    /// Says that the object's file, as it is now, has its bytes.
    fn note_sound(&self, digest: &Digest) {
        match fs::metadata(self.path(digest)) {
            Ok(found) => self.shared.sound.note(digest, FileState::from(&found)),
            Err(_) => self.shared.sound.forget(digest),
        }
    }

    /// Like [`ObjectStore::size`], and what it finds is durable, and has the object's bytes: a file
    /// that was damaged counts for none, so that it is uploaded again. (Another process may have
    /// renamed the object into place and not yet flushed the folder.) To be asked before something
    /// durable refers to the object; it counts as touched now, and is not collected for a while.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read or flushed; those of the bucket.
    pub fn durable_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        // Whoever removes an object must not do so between the look and the touch.
        let _lock = self.locks().lock(digest);
        self.find(digest, self.bucket())
    }

    /// [`ObjectStore::durable_size`], in the folder and in this bucket. The caller holds the
    /// object's lock.
    pub(super) fn find(
        &self,
        digest: &Digest,
        bucket: Option<&Bucket>,
    ) -> Result<Option<u64>, Error> {
        if let Some(size) = self.size_here(digest)? {
            let path = self.path(digest);
            if self.is_sound(digest)? {
                if self.touch_known(digest)? {
                    sync_folder(self.folder_of(&path))?;
                    return Ok(Some(size));
                }
            } else if self.bucket().is_some() {
                // A copy: the bucket has the object.
                fs::remove_file(&path).map_err(Error::io("remove", path))?;
            }
        }
        let size = match bucket {
            Some(bucket) => bucket.size(digest)?,
            None => None,
        };
        if size.is_some() {
            self.mark_found(digest)?;
        }
        Ok(size)
    }

    /// The object's bytes, whose digest is checked. For objects that fit in memory.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file holds other bytes and there is no bucket to fetch the right
    /// ones from; those of [`ObjectStore::local`].
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let mut fetched = false;
        loop {
            let mut bytes = Vec::new();
            self.open_object(digest)?
                .read_to_end(&mut bytes)
                .map_err(Error::io("read", self.path(digest)))?;
            match self.expect(digest, Digest::of(&bytes)) {
                Err(error) if self.bucket().is_some() && !fetched => {
                    tracing::warn!(%error, "fetching the object from the bucket again");
                    fetched = true;
                    let path = self.path(digest);
                    match fs::remove_file(&path) {
                        // Another reader was faster.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        removed => removed.map_err(Error::io("remove", path))?,
                    }
                }
                expected => return expected.map(|()| bytes),
            }
        }
    }

    /// The object's file, open for reading. The bytes are not checked: whoever receives them
    /// hashes them.
    ///
    /// # Errors
    /// Those of [`ObjectStore::local`].
    pub fn open_object(&self, digest: &Digest) -> Result<File, Error> {
        if let Some(file) = self.open_here(digest)? {
            self.note_use(&file);
            return Ok(file);
        }
        let _pin = self.pin(digest)?;
        self.local(digest)?;
        let missing = Error::NotFound { digest: *digest };
        self.open_here(digest)?.ok_or(missing)
    }

    /// Reads the whole object to see that it still holds the bytes of its name: in the folder, if
    /// it is there, and in the bucket, where there is one.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Corrupt`] when the file holds other bytes, and
    /// [`Error::BucketCorrupt`] when the bucket does; [`Error::Io`]; those of the bucket.
    pub fn verify(&self, digest: &Digest) -> Result<(), Error> {
        let missing = || Error::NotFound { digest: *digest };
        let _pin = self.pin(digest)?;
        if self.size_here(digest)?.is_some() {
            self.expect(digest, Digest::of_file(&self.path(digest))?)?;
        } else if self.bucket().is_none() {
            return Err(missing());
        }
        let Some(bucket) = self.bucket() else {
            return Ok(());
        };
        let mut hasher = blake3::Hasher::new();
        let found = bucket.download(digest, |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        if !found {
            return Err(missing());
        }
        self.expect_there(bucket, digest, &hasher)
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

    /// What says when an object was found that only the bucket has.
    pub(super) fn found_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("found").join(digest.to_string())
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

    /// Sees that what came from the bucket is the object.
    pub(super) fn expect_there(
        &self,
        bucket: &Bucket,
        digest: &Digest,
        came: &blake3::Hasher,
    ) -> Result<(), Error> {
        let actual = Digest::from(came.finalize());
        if actual == *digest {
            return Ok(());
        }
        Err(Error::BucketCorrupt {
            digest: *digest,
            place: bucket.place(digest),
            size: came.count(),
            actual,
        })
    }

    /// Gives a file whose bytes are on the disk to the bucket, where there is one, and then the
    /// object's name, and flushes the folder.
    pub(super) fn place(&self, from: &Path, digest: &Digest) -> Result<(), Error> {
        let _lock = self.locks().lock(digest);
        if let Some(bucket) = self.bucket() {
            let unfinished = self.root().join("sending").join(digest.to_string());
            bucket.upload(digest, from, &unfinished)?;
        }
        self.place_here(from, digest)
    }

    /// [`ObjectStore::place`] of what the bucket has. The caller holds the object's lock.
    pub(super) fn place_here(&self, from: &Path, digest: &Digest) -> Result<(), Error> {
        let to = self.path(digest);
        fs::rename(from, &to).map_err(Error::io("create", &to))?;
        // Against accidents only. Not before the rename: a partial object that a crash left
        // read-only could not be opened to go on.
        fs::set_permissions(&to, Permissions::from_mode(0o444))
            .map_err(Error::io("write-protect", &to))?;
        // Its bytes were hashed on their way.
        self.note_sound(digest);
        sync_folder(self.folder_of(&to))
    }

    /// The folder in which an object's file is.
    pub(super) fn folder_of<'a>(&'a self, path: &'a Path) -> &'a Path {
        path.parent().unwrap_or(self.root())
    }

    /// Removes files from a folder whose processes are gone.
    pub(super) fn sweep(&self, folder: &Path) -> Result<(), Error> {
        for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
            let path = entry.map_err(Error::io("read", &folder))?.path();
            let file = match OpenOptions::new().write(true).open(&path) {
                Ok(file) => file,
                // Who had it has finished meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("open", path)(error)),
            };
            // A lock that cannot be had belongs to a living process.
            if lock(&file, &path)? && is_at(&file, &path)? {
                tracing::info!(path = %path.display(), "removing what a dead process has left");
                fs::remove_file(&path).map_err(Error::io("remove", path))?;
            }
        }
        Ok(())
    }
}

/// An object's file in the folder `root`.
pub(super) fn path_in(root: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    root.join(&name[..2]).join(&name[2..])
}
