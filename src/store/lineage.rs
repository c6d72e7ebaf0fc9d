//! Whether one log goes on from another: before a backup takes the place of an earlier one.

use std::fs;
use std::path::Path;

use super::log::Files;
use super::{AUDIT_KEY, Error};

/// Sees that the store in `path` has all that the log of the backup in `to` has. False when that
/// log is damaged, so that only the key of the audit log tells that it is of the same store.
///
/// # Errors
/// [`Error::OtherBackup`], [`Error::DamagedLog`] of the store, [`Error::Io`].
pub(super) fn check(path: &Path, to: &Path) -> Result<bool, Error> {
    let other = |what: String| Error::OtherBackup {
        path: to.to_owned(),
        what,
    };
    let (ours, theirs) = (audit_key(path)?, audit_key(to)?);
    if theirs.is_some() && ours != theirs {
        return Err(other("its audit log is signed with another key".to_owned()));
    }
    let end = match Files::list(&to.join("log")).and_then(|files| files.end()) {
        Ok(end) => end,
        Err(Error::DamagedLog { .. }) if theirs.is_some() => return Ok(false),
        Err(error) => return Err(error),
    };
    let Some(mark) = end.mark else {
        return Ok(true);
    };
    let last = end.next - 1;
    let files = Files::list(&path.join("log"))?;
    match files.mark_of(last)? {
        Some(found) if found == mark => Ok(true),
        Some(_) => Err(other(format!("batch {last} of its log is another"))),
        // The store's log was shortened since, and the key is the same.
        None if last < files.first() => Ok(true),
        None => Err(other(format!(
            "its log has {last} batches, and the store's ends before that"
        ))),
    }
}

fn audit_key(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let path = path.join(AUDIT_KEY);
    match fs::read(&path) {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}
