//! What is in the folder, and what of it is removed.

use std::fs::{self, File, FileTimes};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::SystemTime;

use super::lock::lock;
use super::{CHUNK, Digest, Error, ObjectStore};

/// A stored object, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub digest: Digest,
    /// Its file.
    pub path: PathBuf,
    /// Bytes that are there.
    pub size: u64,
    /// When it was last stored, or found stored by someone who meant to refer to it.
    pub touched: SystemTime,
}

impl ObjectStore {
    /// All stored objects.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        Self::list_in(self.root())
    }

    /// All stored objects in a folder that someone else may have open. Nothing is changed there.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be read.
    pub fn list_in(root: &Path) -> Result<Vec<Listed>, Error> {
        let mut listed = Vec::new();
        for first in 0..=u8::MAX {
            let shard = format!("{first:02x}");
            read_folder(&root.join(&shard), &shard, &mut listed)?;
        }
        Ok(listed)
    }

    /// All unfinished uploads.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read.
    pub fn list_partial(&self) -> Result<Vec<Listed>, Error> {
        let mut listed = Vec::new();
        read_folder(&self.root().join("partial"), "", &mut listed)?;
        Ok(listed)
    }

    /// Removes an object that nobody has stored or found since `before`; false if someone has.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_untouched(&self, digest: &Digest, before: SystemTime) -> Result<bool, Error> {
        let _alone = self
            .finding()
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let path = self.path(digest);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let touched = metadata.modified().map_err(Error::io("read", &path))?;
        if touched >= before {
            return Ok(false);
        }
        fs::remove_file(&path).map_err(Error::io("remove", path))?;
        Ok(true)
    }

    /// Removes an unfinished upload; false if someone is writing it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_partial(&self, digest: &Digest) -> Result<bool, Error> {
        let path = self.partial_path(digest);
        let file = match File::options().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        if !lock(&file, &path)? {
            return Ok(false);
        }
        fs::remove_file(&path).map_err(Error::io("remove", path))?;
        Ok(true)
    }

    /// Stores a copy of another folder's object. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file holds other bytes, which are then not kept;
    /// [`Error::Busy`], [`Error::NoSpace`], [`Error::Io`].
    pub fn copy_from(&self, digest: &Digest, path: &Path) -> Result<(), Error> {
        let mut source = File::open(path).map_err(Error::io("open", path))?;
        // What an earlier attempt has left may be of other bytes.
        self.remove_partial(digest)?;
        let mut copy = self.partial(digest)?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match source.read(&mut buffer).map_err(Error::io("read", path))? {
                0 => break,
                n => copy.append(copy.size(), &buffer[..n])?,
            }
        }
        copy.finish().map_err(|error| match error {
            Error::Mismatch { expected, actual } => Error::Corrupt {
                digest: expected,
                path: path.to_owned(),
                actual,
            },
            error => error,
        })
    }

    /// Says that an object was found now.
    #[allow(clippy::disallowed_methods)] // The age of files is counted by the system's clock.
    pub(super) fn touch(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        let now = FileTimes::new().set_modified(SystemTime::now());
        match File::open(&path).and_then(|file| file.set_times(now)) {
            // Another user's, in a folder that is shared: its owner collects it, or nobody.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            touched => touched.map_err(Error::io("touch", path)),
        }
    }
}

fn read_folder(folder: &Path, prefix: &str, listed: &mut Vec<Listed>) -> Result<(), Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", folder)(error)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Ok(digest) = format!("{prefix}{name}").parse() else {
            // Not ours.
            continue;
        };
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            // Finished or removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        listed.push(Listed {
            digest,
            size: metadata.len(),
            touched: metadata.modified().map_err(Error::io("read", &path))?,
            path,
        });
    }
    Ok(())
}
