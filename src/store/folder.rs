//! Files and folders of a store: made, replaced and removed so that a crash leaves the one or the
//! other.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::Error;

/// The file of the audit log's signing key, in the store's folder. A backup takes it along: without
/// it the audit log of the restored store would take no further entry, and so the store no change.
pub const AUDIT_KEY: &str = "audit.key";

/// Makes a folder's names durable.
pub fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("flush", path))
}

/// Writes a file anew: under its name is the old one or the new one, whole. Durable once its
/// folder is.
///
/// # Errors
/// [`Error::Io`], [`Error::NoSpace`], [`Error::ReadOnly`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)
        .and_then(|()| File::open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(Error::io("write", path))
}

/// Renames what is to be replaced, and cannot be made again, to a name beside it that nothing has:
/// `records` to `records.old`, then to `records.old.2`. Gives that name.
///
/// # Errors
/// [`Error::Io`], [`Error::ReadOnly`].
pub fn set_aside(path: &Path, suffix: &str) -> Result<PathBuf, Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    let first = path.with_file_name(name);
    let mut number = 1;
    let mut to = first.clone();
    while fs::symlink_metadata(&to).is_ok() {
        number += 1;
        to = first.with_extension(format!("{suffix}.{number}"));
    }
    fs::rename(path, &to).map_err(Error::io("rename", path))?;
    Ok(to)
}

/// Removes a folder with all that is in it, if it is there.
pub fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
