//! Folders to write in beside a destination, on the disk that has room for it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::Error;
use super::source::io as failed_to_write;

/// A folder that was made for this, under a name that nothing had, and is removed with all that is
/// in it when the handle is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a folder beside `to`, whose own folder is made if it is not there: `OUT.what-1234`,
    /// or a name like it.
    ///
    /// # Errors
    /// [`Error::Export`] when it cannot be made.
    pub fn beside(to: &Path, what: &str) -> Result<Self, Error> {
        if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(failed_to_write(parent))?;
        }
        let mut number = std::process::id();
        loop {
            let mut name: OsString = to.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{what}-{number}"));
            let path = to.with_file_name(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                // Somebody's.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    number = number.wrapping_add(1);
                }
                Err(error) => return Err(failed_to_write(&path)(error)),
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "could not be removed");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_there_is_somebodys_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("deep/out");
        let first = Scratch::beside(&to, "partial").unwrap();
        let second = Scratch::beside(&to, "partial").unwrap();
        fs::write(first.path().join("file"), b"mine").unwrap();
        let gone = second.path().to_owned();
        drop(second);
        assert!(!gone.exists() && first.path().join("file").exists());
    }
}
