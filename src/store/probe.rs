//! A look at a store from outside, which changes nothing in it.

use std::fs::File;
use std::io;
use std::path::Path;

use fs2::FileExt;

use super::format::{self, Found};
use super::{Error, FORMAT};

/// What is in a store's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The store's format; none where there is no store.
    pub format: Option<u32>,
    /// Whether a process has it open.
    pub open: bool,
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
        });
    }
    let format = match format::find(path)? {
        Found::Nothing => None,
        Found::WithoutLog => Some(1),
        Found::Current => Some(FORMAT),
    };
    let lock_path = path.join("LOCK");
    let open = match File::options().write(true).open(&lock_path) {
        Ok(lock) => FileExt::try_lock_exclusive(&lock).is_err(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(Error::io("open the store's lock", &lock_path)(error)),
    };
    Ok(Probe { format, open })
}
