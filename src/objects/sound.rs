//! Which stored objects were read whole and had their digest, so that not every question reads them
//! again.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Digest;

/// Objects that are remembered, at most: some megabytes.
const REMEMBERED: usize = 1 << 16;

/// By what a file is told from one that was written over it: its number, size and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileState {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for FileState {
    fn from(found: &Metadata) -> Self {
        Self {
            inode: found.ino(),
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// The files that had their digest when this process read them last.
#[derive(Debug, Default)]
pub(super) struct Sound {
    files: Mutex<HashMap<Digest, FileState>>,
}

impl Sound {
    /// Whether the file of an object is the one that had its digest.
    pub(super) fn has(&self, digest: &Digest, file: FileState) -> bool {
        self.files().get(digest) == Some(&file)
    }

    /// Remembers that the file of an object has its digest.
    pub(super) fn note(&self, digest: &Digest, file: FileState) {
        let mut files = self.files();
        if files.len() >= REMEMBERED {
            // They are read once more, each when it is asked for.
            files.clear();
        }
        files.insert(*digest, file);
    }

    /// Forgets an object, whose file was found to have other bytes.
    pub(super) fn forget(&self, digest: &Digest) {
        self.files().remove(digest);
    }

    fn files(&self) -> MutexGuard<'_, HashMap<Digest, FileState>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
