//! How much a store takes of its disk.

use std::fs;
use std::path::Path;

use super::{Error, Store, keys};

/// What a store takes, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the log and the index.
    pub record_bytes: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of the objects.
    pub object_bytes: u64,
    /// Bytes that are free on the disk.
    pub free_bytes: u64,
    /// Models.
    pub models: u64,
    /// Versions of models, without those that were imported.
    pub versions: u64,
}

impl Store {
    /// Looks up what the store takes. Reads every folder of the objects: not for every request.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Object`], [`Error::Database`].
    pub fn usage(&self) -> Result<Usage, Error> {
        let count = |letter: u8| {
            let mut records = 0;
            for entry in self.index.prefix(&[letter]) {
                entry?;
                records += 1;
            }
            Ok::<u64, Error>(records)
        };
        let objects = self.objects().list()?;
        let path = self.path();
        Ok(Usage {
            record_bytes: bytes_of(&path.join("log"))? + bytes_of(&path.join("records"))?,
            objects: objects.len() as u64,
            object_bytes: objects.iter().map(|object| object.size).sum(),
            free_bytes: fs2::available_space(path)
                .map_err(Error::io("look up the space of", path))?,
            models: count(keys::MODEL)?,
            versions: count(keys::VERSION)?,
        })
    }
}

/// Bytes of the files under a folder. What vanishes meanwhile counts for nothing.
fn bytes_of(folder: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes += bytes_of(&entry.path())?,
            Ok(metadata) => bytes += metadata.len(),
            Err(_) => {}
        }
    }
    Ok(bytes)
}
