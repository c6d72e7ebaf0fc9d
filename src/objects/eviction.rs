//! The bound of a folder whose objects can be fetched again: a worker's, and the coordinator's
//! where there is a bucket.
//!
//! Before bytes are written that would take the folder over its bound, the objects that were used
//! longest ago are removed. When an object was used is the time of access of its file, which is set
//! here, whatever the file system does about it: so the order outlives the process.
//!
//! Who uses an object by its path pins it first. A pin is a file of its own, locked by all who have
//! the object pinned, in whichever process; who removes the object locks that file alone. Who has
//! the object's file open needs no pin: its bytes stay until it is closed.

use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::cache::{Bound, Cache};
use super::listing::modified;
use super::lock::{is_at, lock, open_locked, open_shared};
use super::{Digest, Error, ObjectStore};

/// How exactly it is known when an object was used: a file's times are not set for every read.
const USE_AGE: Duration = Duration::from_secs(60);

/// This part of the bound is freed beyond what is needed, and may be written before the folder is
/// looked through again: it is not looked through for every object that comes, and what other
/// processes write there is noticed.
const STEP: u64 = 32;

/// An object that stays where it is, once it is there, until this is dropped. It need not be there
/// yet.
#[derive(Debug)]
pub struct Pin {
    /// Locked, with its path; none where nothing is ever evicted.
    file: Option<(File, PathBuf)>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let Some((file, path)) = &self.file else {
            return;
        };
        // Others who have it pinned keep the file. One that is left is swept later.
        if matches!(lock(file, path), Ok(true)) && matches!(is_at(file, path), Ok(true)) {
            let _ = fs::remove_file(path);
        }
    }
}

impl ObjectStore {
    /// The store as a cache: what is here can be fetched again. Objects are removed when the folder
    /// would pass the bound. Without a bound nothing is removed here, but another process that
    /// shares the folder may do so. To be set before it is cloned, and after the bucket.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::NoSpace`] when the folder cannot be read or written.
    pub fn as_cache(self, bound: Option<Bound>) -> Result<Self, Error> {
        let folder = self.root().join("using");
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        self.sweep(&folder)?;
        let store = self.with_cache(Cache {
            bound,
            room: Mutex::default(),
            evicted: AtomicU64::new(0),
        });
        // It may have been smaller the last time.
        store.make_room(1);
        Ok(store)
    }

    /// Keeps an object from being evicted, by whichever process, from when it is here. To be had
    /// before its path is asked for.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::NoSpace`] when the folder cannot be written.
    pub fn pin(&self, digest: &Digest) -> Result<Pin, Error> {
        if self.cache().is_none() {
            return Ok(Pin { file: None });
        }
        let path = self.using_path(digest);
        // Nobody has it alone for longer than it takes to remove a file.
        let file = open_shared(&path)?;
        Ok(Pin {
            file: file.map(|file| (file, path)),
        })
    }

    /// Bytes that were evicted since the store was opened.
    pub fn evicted(&self) -> u64 {
        self.cache()
            .map_or(0, |cache| cache.evicted.load(Ordering::Relaxed))
    }

    /// Makes room for bytes that are about to be written. What is in the way and cannot be removed
    /// is said, and fails nobody's work.
    pub(super) fn make_room(&self, bytes: u64) {
        let Some((cache, bound)) = self.cache().and_then(|it| Some((it, it.bound?))) else {
            return;
        };
        let mut room = cache.room.lock().unwrap_or_else(PoisonError::into_inner);
        if room.bytes < bytes {
            let step = bound.bytes / STEP;
            match self.evict(cache, bound, bytes) {
                Ok(taken) => {
                    let left = bound.bytes.checked_sub(taken.saturating_add(bytes));
                    if left.is_none() && !room.told {
                        tracing::warn!(
                            folder = %self.root().display(),
                            bytes = taken + bytes,
                            bound = bound.bytes,
                            "what is in use or on its way takes more than {} allows: set it higher",
                            bound.setting
                        );
                    }
                    room.told = left.is_none();
                    room.bytes = bytes + left.unwrap_or(step).min(step);
                }
                Err(error) => {
                    tracing::warn!(%error, "{} may be passed: nothing is evicted", bound.setting);
                    room.bytes = bytes + step;
                }
            }
        }
        room.bytes -= bytes;
    }

    /// Removes what was used longest ago, if the folder with so many more bytes would pass the
    /// bound, and gives the bytes that it takes then.
    fn evict(&self, cache: &Cache, bound: Bound, bytes: u64) -> Result<u64, Error> {
        let objects = Self::list_in(self.root())?;
        let partial = self.list_partial()?;
        let mut taken = self.new_bytes()?;
        let mut found: Vec<_> = (objects.into_iter().map(|object| (object, false)))
            .chain(partial.into_iter().map(|part| (part, true)))
            .collect();
        taken += found.iter().map(|(it, _)| it.size).sum::<u64>();
        if taken.saturating_add(bytes) <= bound.bytes {
            return Ok(taken);
        }
        let enough = (bound.bytes - bound.bytes / STEP).saturating_sub(bytes);
        found.sort_unstable_by_key(|(it, _)| it.used);
        let (mut removed, mut failed) = (0_u64, Ok(()));
        for (it, unfinished) in found {
            if taken <= enough {
                break;
            }
            let gone = match (unfinished, self.bucket()) {
                (false, _) => self.remove_copy(&it.digest),
                (true, None) => self.remove_partial(&it.digest),
                // A client's upload, which nobody else has.
                (true, Some(_)) => Ok(false),
            };
            match gone {
                Ok(true) => {
                    taken = taken.saturating_sub(it.size);
                    removed += it.size;
                }
                Ok(false) => {}
                // Another user's, perhaps: the next one may be ours.
                Err(error) => failed = Err(error),
            }
        }
        cache.evicted.fetch_add(removed, Ordering::Relaxed);
        tracing::debug!(bytes = removed, taken, "evicted");
        if taken.saturating_add(bytes) > bound.bytes {
            failed?;
        }
        Ok(taken)
    }

    /// Removes an object from the folder, not from the bucket; false if somebody is using it.
    fn remove_copy(&self, digest: &Digest) -> Result<bool, Error> {
        // To wait here while holding the lock of another object could be to wait for ever.
        let Some(_lock) = self.locks().try_lock(digest) else {
            return Ok(false);
        };
        let using = self.using_path(digest);
        let Some(_alone) = open_locked(&using)? else {
            return Ok(false);
        };
        let path = self.path(digest);
        let removed = self.keep_time(digest, &path).and_then(|()| {
            match fs::remove_file(&path) {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed.map_err(Error::io("remove", path)),
            }
        });
        fs::remove_file(&using).map_err(Error::io("remove", using))?;
        removed.map(|()| true)
    }

    /// Keeps the time when the object was stored or found beyond its file, where there is a bucket:
    /// by it, garbage is told from what somebody is about to refer to.
    fn keep_time(&self, digest: &Digest, path: &Path) -> Result<(), Error> {
        if self.bucket().is_none() {
            return Ok(());
        }
        let (here, found) = (modified(path)?, modified(&self.found_path(digest))?);
        match here {
            Some(time) if found < here => self.mark_found_at(digest, time),
            _ => Ok(()),
        }
    }

    /// Says of an object's file that it is used now, for the order in which objects are evicted.
    #[allow(clippy::disallowed_methods)] // The age of files is counted by the system's clock.
    pub(super) fn note_use(&self, file: &File) {
        if self.cache().is_none_or(|cache| cache.bound.is_none()) {
            return;
        }
        let now = SystemTime::now();
        let used = file.metadata().and_then(|it| it.accessed());
        let recent = used.is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age < USE_AGE));
        if !recent {
            // Where it cannot be set, the object is taken for older than it is.
            let _ = file.set_times(FileTimes::new().set_accessed(now));
        }
    }

    fn using_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("using").join(digest.to_string())
    }

    /// Bytes of what is being written all at once.
    fn new_bytes(&self) -> Result<u64, Error> {
        let folder = self.root().join("tmp");
        let mut bytes = 0;
        for entry in fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            // What has its name meanwhile counts there, or the next time.
            let metadata = entry.and_then(|entry| entry.metadata());
            bytes += metadata.map_or(0, |metadata| metadata.len());
        }
        Ok(bytes)
    }
}
