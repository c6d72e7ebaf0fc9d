//! Who has a store: one process alone, and beside it what only reads.

use std::fs::File;
use std::path::Path;

use fs2::FileExt;

use super::Error;

/// Takes the store's lock.
pub fn lock(path: &Path) -> Result<File, Error> {
    let lock_path = path.join("LOCK");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(Error::io("open the store's lock", &lock_path))?;
    lock.try_lock_exclusive().map_err(|_| Error::Busy {
        path: path.to_owned(),
    })?;
    Ok(lock)
}

/// Locks what a backup and the removal of files lock against each other: shared by backups.
pub fn occupy(path: &Path, alone: bool, what: &'static str) -> Result<File, Error> {
    let lock_path = path.join("BUSY");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(Error::io("open", &lock_path))?;
    let locked = if alone {
        FileExt::try_lock_exclusive(&lock)
    } else {
        FileExt::try_lock_shared(&lock)
    };
    locked.map_err(|_| Error::Occupied {
        path: path.to_owned(),
        what,
    })?;
    Ok(lock)
}
