//! Which format a store has.
//!
//! 1 had the records in the database alone. 2 has the log beside it.

use std::fs;
use std::io;
use std::path::Path;

use super::Error;
use super::folder::{sync_folder, write_whole};
use super::log::Files;

/// The format that this program writes.
pub const FORMAT: u32 = 2;
/// The format without a log.
const WITHOUT_LOG: u32 = 1;

/// What is in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No store, or one that was not finished.
    Nothing,
    /// A store of format 1.
    WithoutLog,
    /// A store of today's format.
    Current,
}

/// Reads the format of the store in a folder.
///
/// # Errors
/// [`Error::Format`] when it is newer, [`Error::NotAStore`] when there are records without one,
/// [`Error::Io`].
pub fn find(path: &Path) -> Result<Found, Error> {
    let format_path = path.join("FORMAT");
    let text = match fs::read_to_string(&format_path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The format is written last.
            let has_records = path.join("records").exists();
            let has_batches = Files::list(&path.join("log"))?;
            let is_new =
                !has_records && has_batches.checkpoint.is_none() && has_batches.segments.len() <= 1;
            return if is_new {
                Ok(Found::Nothing)
            } else {
                Err(Error::Format {
                    path: path.to_owned(),
                    found: "unknown (the file FORMAT is missing)".to_owned(),
                    known: FORMAT,
                })
            };
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => "not text".to_owned(),
        Err(error) => return Err(Error::io("read", &format_path)(error)),
    };
    match text.trim().parse() {
        Ok(FORMAT) => Ok(Found::Current),
        Ok(WITHOUT_LOG) => Ok(Found::WithoutLog),
        _ => Err(Error::Format {
            path: path.to_owned(),
            found: text.trim().chars().take(20).collect(),
            known: FORMAT,
        }),
    }
}

/// Says that the store in a folder has today's format. Durable when it returns.
///
/// # Errors
/// [`Error::Io`], [`Error::NoSpace`].
pub fn write(path: &Path) -> Result<(), Error> {
    write_whole(&path.join("FORMAT"), format!("{FORMAT}\n").as_bytes())?;
    sync_folder(path)
}
