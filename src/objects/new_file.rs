//! Objects on their way in, all at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock::{is_at, lock};
use super::{Digest, Error, ObjectStore};

/// A file of `tmp/`, removed when it is dropped without being kept.
pub(super) struct NewFile {
    store: ObjectStore,
    path: PathBuf,
    /// Locked.
    file: File,
    kept: bool,
}

impl NewFile {
    pub(super) fn create(store: &ObjectStore) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", std::process::id());
            let path = store.root().join("tmp").join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                // If it was swept before it was locked, the next name is tried.
                Ok(file) => {
                    if lock(&file, &path)? && is_at(&file, &path)? {
                        return Ok(Self {
                            store: store.clone(),
                            path,
                            file,
                            kept: false,
                        });
                    }
                }
                // A process of the same number wrote here, on another host or before a restart.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", path)(error)),
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.store.make_room(bytes.len() as u64);
        self.file
            .write_all(bytes)
            .map_err(Error::io("write", &self.path))
    }

    /// Takes a file of `size` bytes over.
    pub(super) fn copy(&mut self, from: &mut File, size: u64) -> Result<(), Error> {
        self.store.make_room(size);
        let copied = io::copy(from, &mut self.file);
        copied.map(|_| ()).map_err(Error::io("write", &self.path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keep(self, digest: &Digest) -> Result<(), Error> {
        self.flush()?;
        self.store.place(&self.path, digest)?;
        self.done()
    }

    /// [`NewFile::keep`] for bytes that came from the bucket, under the object's lock.
    pub(super) fn keep_copy(self, digest: &Digest) -> Result<(), Error> {
        self.flush()?;
        self.store.place_here(&self.path, digest)?;
        self.done()
    }

    fn flush(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io("flush", &self.path))
    }

    fn done(mut self) -> Result<(), Error> {
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
