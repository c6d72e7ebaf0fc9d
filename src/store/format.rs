//! What is in a store's folder, and which format it has.

use std::fs;
use std::io;
use std::path::Path;

use super::Error;
use super::folder::{AUDIT_KEY, sync_folder, write_whole};
use super::formats::{FORMAT, WITH_LOG, WITHOUT_LOG};
use super::log::{Files, size};

/// The file that says that a folder holds a backup, and of what.
pub const BACKUP: &str = "BACKUP";

/// The file that a folder has while a backup is being made a store in it.
pub const RESTORING: &str = "RESTORING";

/// What is in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing of a store, or one that was begun and never took a batch.
    Nothing,
    /// A store of format 1.
    WithoutLog,
    /// A store that this program works in.
    Current,
    /// A backup of one: read, and never worked in.
    Backup,
}

/// Looks at a folder.
///
/// # Errors
/// [`Error::Format`] when the store's format is newer, [`Error::NoFormat`] when it is none,
/// [`Error::Unfinished`] when there are parts of
/// a store without one, [`Error::Io`].
pub fn find(path: &Path) -> Result<Found, Error> {
    let format_path = path.join("FORMAT");
    let text = match fs::read_to_string(&format_path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if is_untouched(path)? {
                Ok(Found::Nothing)
            } else {
                Err(Error::Unfinished {
                    path: path.to_owned(),
                    why: match path.join(RESTORING).exists() {
                        true => {
                            "'palimpsest store restore' was ended before it was done: run it \
                                 again, it goes on"
                        }
                        false => {
                            "a copy that broke off? Copy it again, or restore a backup into \
                                  another folder"
                        }
                    },
                })
            };
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => "not text".to_owned(),
        Err(error) => return Err(Error::io("read", &format_path)(error)),
    };
    match text.trim().parse() {
        Ok(WITH_LOG..=FORMAT) if path.join(BACKUP).exists() => Ok(Found::Backup),
        Ok(WITH_LOG..=FORMAT) => Ok(Found::Current),
        Ok(WITHOUT_LOG) => Ok(Found::WithoutLog),
        Ok(newer) => Err(Error::Format {
            path: path.to_owned(),
            found: newer.to_string(),
            known: FORMAT,
        }),
        Err(_) => Err(Error::NoFormat {
            path: path.to_owned(),
            found: text.trim().chars().take(20).collect(),
        }),
    }
}

/// Whether a folder without a format may become a new store: the format is written behind an empty
/// log and before anything else.
fn is_untouched(path: &Path) -> Result<bool, Error> {
    if ["records", AUDIT_KEY, RESTORING, BACKUP]
        .iter()
        .any(|name| path.join(name).exists())
    {
        return Ok(false);
    }
    let files = Files::list(&path.join("log"))?;
    let mut bytes = 0;
    for (_, path) in &files.segments {
        bytes += size(path)?;
    }
    Ok(files.checkpoint.is_none() && files.obsolete.is_empty() && bytes == 0)
}

/// The format of a store that this program works in, or of its backup. One that is about to become a
/// store has that of a new one.
///
/// # Errors
/// [`Error::Io`].
pub fn number(path: &Path) -> Result<u32, Error> {
    let format_path = path.join("FORMAT");
    match fs::read_to_string(&format_path) {
        Ok(text) => Ok(text.trim().parse().unwrap_or(WITH_LOG)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(WITH_LOG),
        Err(error) => Err(Error::io("read", &format_path)(error)),
    }
}

/// Says that the store in a folder has a format. Durable when it returns.
///
/// # Errors
/// [`Error::Io`], [`Error::NoSpace`].
pub fn write(path: &Path, format: u32) -> Result<(), Error> {
    write_whole(&path.join("FORMAT"), format!("{format}\n").as_bytes())?;
    sync_folder(path)
}
