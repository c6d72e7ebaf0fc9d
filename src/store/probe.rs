//! A look at a store from outside, which changes nothing in it, and the note that such looks find
//! of the last time that somebody verified it.

use std::fs::File;
use std::io;
use std::path::Path;

use fs2::FileExt;
use jiff::Timestamp;

use super::Error;
use super::format::{self, Found};

/// The file of that note.
const NOTE: &str = "VERIFIED";

/// When a store was verified, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// When.
    pub time: Timestamp,
    /// How many problems were found.
    pub problems: u64,
}

/// What is in a store's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The store's format; none where there is no store.
    pub format: Option<u32>,
    /// Whether a process has it open.
    pub open: bool,
    /// When it was verified last; none where nobody did, or nobody could note it.
    pub checked: Option<Check>,
}

/// Notes that the store in a folder was verified.
///
/// # Errors
/// [`Error::Io`].
pub fn note_check(path: &Path, check: Check) -> Result<(), Error> {
    let note = path.join(NOTE);
    let text = format!("{} {}\n", check.time, check.problems);
    std::fs::write(&note, text).map_err(Error::io("write", &note))
}

/// The note, where it can be understood: it is of no consequence.
fn last_check(path: &Path) -> Option<Check> {
    let text = std::fs::read_to_string(path.join(NOTE)).ok()?;
    let (time, problems) = text.trim().split_once(' ')?;
    Some(Check {
        time: time.parse().ok()?,
        problems: problems.parse().ok()?,
    })
}

/// Looks at the store in a folder, which somebody may have open.
///
/// # Errors
/// [`Error::Format`] when it cannot be read by this program, [`Error::Io`].
pub fn probe(path: &Path) -> Result<Probe, Error> {
    if !path.exists() {
        return Ok(Probe {
            format: None,
            open: false,
            checked: None,
        });
    }
    let format = match format::find(path)? {
        Found::Nothing => None,
        Found::WithoutLog => Some(1),
        Found::Current | Found::Backup => Some(format::number(path)?),
    };
    let lock_path = path.join("LOCK");
    let open = match File::options().write(true).open(&lock_path) {
        Ok(lock) => FileExt::try_lock_exclusive(&lock).is_err(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(Error::io("open the store's lock", &lock_path)(error)),
    };
    Ok(Probe {
        format,
        open,
        checked: last_check(path),
    })
}
