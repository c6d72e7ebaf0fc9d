//! Files that their writers lock, so that nobody takes a living writer's file for a leftover.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Error;

/// Locks a file for as long as it is open; false if someone else has it.
pub(super) fn lock(file: &File, path: &Path) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

/// Opens a file, making it if need be, and locks it; none if someone else has it.
pub(super) fn open_locked(path: &Path) -> Result<Option<File>, Error> {
    open(path, |file| lock(file, path))
}

/// [`open_locked`], together with all who open it so: it waits for who has it alone.
pub(super) fn open_shared(path: &Path) -> Result<Option<File>, Error> {
    open(path, |file| {
        file.lock_shared().map_err(Error::io("lock", path))?;
        Ok(true)
    })
}

fn open(path: &Path, take: impl Fn(&File) -> Result<bool, Error>) -> Result<Option<File>, Error> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("create", path))?;
        if !take(&file)? {
            return Ok(None);
        }
        // Between opening and locking, who had it may have renamed or removed the file: what is
        // locked then is a finished object, and must not be written, or nothing that others see.
        if is_at(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// Whether `path` still names this open file.
pub(super) fn is_at(file: &File, path: &Path) -> Result<bool, Error> {
    let open = file.metadata().map_err(Error::io("read", path))?;
    match fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

pub(super) fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("flush", path))
}
