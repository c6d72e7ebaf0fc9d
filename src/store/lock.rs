//! Who has a store: one process alone, and beside it what only reads.

use std::fs::File;
use std::io;
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

/// Held by a backup, or by what removes files: the one does not go on beside the other.
#[derive(Debug)]
pub struct Occupation {
    /// Locked; none in a folder that nobody can write to.
    _file: Option<File>,
}

/// Locks what a backup and the removal of files lock against each other: shared by backups. A
/// backup needs no right to write: on a file system that is read-only nobody removes files either.
///
/// # Errors
/// [`Error::Occupied`] with what the other does, [`Error::ReadOnly`], [`Error::Io`].
pub fn occupy(path: &Path, alone: bool, what: &'static str) -> Result<Occupation, Error> {
    let lock_path = path.join("BUSY");
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if alone || !is_refusal(&error) => {
            return Err(Error::io("open", &lock_path)(error));
        }
        Err(refusal) => match File::open(&lock_path) {
            Ok(file) => file,
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && refusal.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                return Ok(Occupation { _file: None });
            }
            Err(_) => return Err(Error::io("open", &lock_path)(refusal)),
        },
    };
    let locked = if alone {
        FileExt::try_lock_exclusive(&file)
    } else {
        FileExt::try_lock_shared(&file)
    };
    locked.map_err(|_| Error::Occupied {
        path: path.to_owned(),
        what,
    })?;
    Ok(Occupation { _file: Some(file) })
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    )
}
