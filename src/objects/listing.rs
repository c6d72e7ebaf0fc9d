//! What is in the folder and in the bucket, and what of it is removed.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::lock::{is_at, lock, sync_folder};
use super::store::path_in;
use super::{Bucket, CHUNK, Digest, Error, ObjectStore};

/// A stored object, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub digest: Digest,
    /// Its file; where there is a bucket, whether it is there or not.
    pub path: PathBuf,
    /// Bytes that are there.
    pub size: u64,
    /// When it was last stored, or found stored by someone who meant to refer to it.
    pub touched: SystemTime,
    /// When its file was last used, as far as that is noted.
    pub used: SystemTime,
}

impl ObjectStore {
    /// All stored objects: where there is a bucket, those that it has, and those that only the
    /// folder has.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be read; those of the bucket.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        Self::list_from(self.root(), self.bucket())
    }

    /// [`ObjectStore::list`] of a folder that someone else may have open.
    ///
    /// # Errors
    /// Those of [`ObjectStore::list`].
    pub fn list_from(root: &Path, bucket: Option<&Bucket>) -> Result<Vec<Listed>, Error> {
        let here = Self::list_in(root)?;
        let Some(bucket) = bucket else {
            return Ok(here);
        };
        let mut listed: HashMap<Digest, Listed> =
            here.into_iter().map(|it| (it.digest, it)).collect();
        for kept in bucket.list()? {
            let entry = listed.entry(kept.digest).or_insert_with(|| Listed {
                digest: kept.digest,
                path: path_in(root, &kept.digest),
                size: kept.size,
                touched: kept.stored,
                used: kept.stored,
            });
            entry.size = kept.size;
            entry.touched = entry.touched.max(kept.stored);
        }
        let mut found = Vec::new();
        read_folder(&root.join("found"), "", &mut found)?;
        for mark in found {
            if let Some(entry) = listed.get_mut(&mark.digest) {
                entry.touched = entry.touched.max(mark.touched);
            }
        }
        let mut listed: Vec<Listed> = listed.into_values().collect();
        listed.sort_unstable_by_key(|it| it.digest);
        Ok(listed)
    }

    /// Stores an object of a bucket, copied from a folder if that has it. Durable when it returns.
    ///
    /// # Errors
    /// Those of [`ObjectStore::copy_from`] and [`ObjectStore::local`].
    pub fn fetch_from(&self, digest: &Digest, path: &Path, bucket: &Bucket) -> Result<(), Error> {
        if path.exists() {
            match self.copy_from(digest, path) {
                // The bucket may still have the right bytes.
                Err(Error::Corrupt { .. }) => {}
                // It was evicted meanwhile.
                Err(Error::Io { .. }) if !path.exists() => {}
                copied => return copied,
            }
        }
        self.fetch(digest, bucket)
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

    /// Removes a listed object that nobody has stored or found since `before`, here and in the
    /// bucket; false if someone has.
    ///
    /// # Errors
    /// [`Error::Io`]; those of the bucket.
    pub fn remove_untouched(&self, digest: &Digest, before: SystemTime) -> Result<bool, Error> {
        // Between the look and the removal nobody can find it.
        let _lock = self.locks().lock(digest);
        let (path, mark) = (self.path(digest), self.found_path(digest));
        let (here, found) = (modified(&path)?, modified(&mark)?);
        if here.max(found) >= Some(before) || (here.is_none() && self.bucket().is_none()) {
            return Ok(false);
        }
        // What is here counts as in the bucket too: it goes first.
        for path in [&path, &mark] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", path)(error));
                }
                _ => {}
            }
        }
        if let Some(bucket) = self.bucket() {
            sync_folder(self.folder_of(&path))?;
            bucket.remove(digest)?;
        }
        Ok(true)
    }

    /// Removes what says of objects in the bucket that somebody found them, where that was before.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forget_found(&self, before: SystemTime) -> Result<(), Error> {
        let mut found = Vec::new();
        read_folder(&self.root().join("found"), "", &mut found)?;
        for mark in found {
            let _lock = self.locks().lock(&mark.digest);
            if modified(&mark.path)?.is_some_and(|touched| touched < before) {
                fs::remove_file(&mark.path).map_err(Error::io("remove", &mark.path))?;
            }
        }
        Ok(())
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
        // Its writer may have finished meanwhile, and another begun.
        if !lock(&file, &path)? || !is_at(&file, &path)? {
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

    /// Says that an object was found now, in the folder; false if it is not there any more.
    pub(super) fn touch(&self, digest: &Digest) -> Result<bool, Error> {
        let path = self.path(digest);
        let times = FileTimes::new().set_modified(now());
        match File::open(&path).and_then(|file| file.set_times(times)) {
            // Another user's, in a folder that is shared: its owner collects it, or nobody.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            touched => touched.map(|()| true).map_err(Error::io("touch", path)),
        }
    }

    /// Says that an object was found now, in the bucket, which keeps no such time.
    pub(super) fn mark_found(&self, digest: &Digest) -> Result<(), Error> {
        self.mark_found_at(digest, now())
    }

    /// [`ObjectStore::mark_found`] for a time that has passed.
    pub(super) fn mark_found_at(&self, digest: &Digest, time: SystemTime) -> Result<(), Error> {
        let path = self.found_path(digest);
        File::create(&path)
            .and_then(|file| file.set_times(FileTimes::new().set_modified(time)))
            .map_err(Error::io("touch", path))
    }
}

#[allow(clippy::disallowed_methods)] // The age of files is counted by the system's clock.
fn now() -> SystemTime {
    SystemTime::now()
}

/// When a file was changed; none when it is not there.
pub(super) fn modified(path: &Path) -> Result<Option<SystemTime>, Error> {
    match fs::metadata(path).and_then(|found| found.modified()) {
        Ok(touched) => Ok(Some(touched)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
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
        if !metadata.is_file() {
            // A folder that is named like an object is none of ours either.
            continue;
        }
        let touched = metadata.modified().map_err(Error::io("read", &path))?;
        listed.push(Listed {
            digest,
            size: metadata.len(),
            touched,
            used: metadata
                .accessed()
                .map_or(touched, |used| used.max(touched)),
            path,
        });
    }
    Ok(())
}
