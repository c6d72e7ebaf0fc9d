//! Objects on their way into a store: bytes, files, and copies from its bucket.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::new_file::NewFile;
use super::{Bucket, Digest, Error, ObjectStore};

/// How many objects are on their way to the bucket at a time when several are stored together.
const SENDERS: usize = 8;

impl ObjectStore {
    /// Fetches an object. The caller holds its lock.
    pub(super) fn fetch(&self, digest: &Digest, bucket: &Bucket) -> Result<(), Error> {
        let mut new = NewFile::create(self)?;
        let mut hasher = blake3::Hasher::new();
        let found = bucket.download(digest, |bytes| {
            hasher.update(bytes);
            new.write(bytes)
        })?;
        if !found {
            return Err(Error::NotFound { digest: *digest });
        }
        self.expect_there(bucket, digest, &hasher)?;
        new.keep_copy(digest)?;
        tracing::debug!(%digest, bytes = hasher.count(), "fetched from the bucket");
        Ok(())
    }

    /// Stores several at once: with a bucket, several are on their way at a time. Those that were
    /// stored before one failed stay.
    ///
    /// # Errors
    /// Those of [`ObjectStore::put`].
    pub fn put_all(&self, all: &[&[u8]]) -> Result<(), Error> {
        let senders = match self.bucket() {
            Some(_) => SENDERS.min(all.len()),
            None => 1,
        };
        let next = AtomicUsize::new(0);
        let send = || {
            while let Some(bytes) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.put(bytes)?;
            }
            Ok(())
        };
        if senders < 2 {
            return send();
        }
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..senders).map(|_| scope.spawn(send)).collect();
            let ends = senders.into_iter().map(|sender| match sender.join() {
                Ok(end) => end,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            // All are waited for, whatever one came to.
            ends.collect::<Vec<_>>().into_iter().collect()
        })
    }

    /// Stores bytes and gives their name. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NoSpace`] or [`Error::Io`], those of the bucket; nothing is left behind then.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        let found = {
            let _lock = self.locks().lock(&digest);
            // To ask the bucket takes as long as to give it the bytes.
            self.find(&digest, None)?
        };
        if found != Some(bytes.len() as u64) {
            let mut new = NewFile::create(self)?;
            new.write(bytes)?;
            new.keep(&digest)?;
        }
        Ok(digest)
    }

    /// Stores a copy of the file whose name `digest` is, unless it is stored. The kernel copies it,
    /// which on file systems that can do so makes the two share their blocks. Durable when it
    /// returns.
    ///
    /// # Errors
    /// [`Error::Changed`] when the file has other bytes; [`Error::NoSpace`] or [`Error::Io`]; those
    /// of the bucket. Nothing is left behind then.
    pub fn put_file(&self, digest: &Digest, path: &Path) -> Result<(), Error> {
        let mut source = File::open(path).map_err(Error::io("open", path))?;
        let size = source.metadata().map_err(Error::io("read", path))?.len();
        if self.durable_size(digest)? == Some(size) {
            return Ok(());
        }
        let mut new = NewFile::create(self)?;
        new.copy(&mut source, size)?;
        if Digest::of_file(new.path())? != *digest {
            return Err(Error::Changed { path: path.into() });
        }
        new.keep(digest)
    }
}
