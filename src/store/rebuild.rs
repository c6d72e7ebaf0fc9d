//! Makes the index again from the log, or the log from the index.

use std::fs;
use std::path::Path;

use super::folder::{remove_folder, sync_folder};
use super::format::{self, Found};
use super::index::Index;
use super::lock::lock;
use super::log::{Files, Log, checkpoint};
use super::{Error, FORMAT, Write};

/// What the store is rebuilt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// From the log, which holds everything that was acknowledged: the index is made again.
    Log,
    /// From the index, when the log is damaged. What was acknowledged in the last seconds before
    /// a crash may be in the log alone, and is lost then.
    Index,
}

/// What was rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Records.
    pub records: u64,
    /// The sequence number of the next batch.
    pub next: u64,
}

/// Makes the index of the store in a folder again from its log, or the log from its index.
/// `progress` is told how many batches were read. What was there before is replaced when the new
/// one is whole; a log is kept beside it, as `log.damaged`. Objects, in the folder or in a bucket, are not
/// touched.
///
/// # Errors
/// [`Error::Busy`], [`Error::NotAStore`], [`Error::DamagedLog`] or [`Error::DamagedIndex`] of that
/// which it is rebuilt from, [`Error::NoSpace`], [`Error::Io`].
pub fn rebuild(path: &Path, from: From, progress: impl FnMut(u64)) -> Result<Rebuilt, Error> {
    if !path.join("FORMAT").exists() {
        return Err(Error::NotAStore {
            path: path.to_owned(),
        });
    }
    let _lock = lock(path)?;
    if format::find(path)? != Found::Current {
        return Err(Error::Format {
            path: path.to_owned(),
            found: "1, which has no log to rebuild from".to_owned(),
            known: FORMAT,
        });
    }
    match from {
        From::Log => index_from_log(path, progress),
        From::Index => log_beside_index(path),
    }
}

fn index_from_log(path: &Path, mut progress: impl FnMut(u64)) -> Result<Rebuilt, Error> {
    let (records, new, old) = (
        path.join("records"),
        path.join("records.new"),
        path.join("records.old"),
    );
    for leftover in [&new, &old] {
        remove_folder(leftover)?;
    }
    let files = Files::list(&path.join("log"))?;
    let index = Index::open(&new)?;
    let mut batches = 0;
    let mut from = 1;
    if let Some((sequence, path)) = &files.checkpoint {
        checkpoint::read(path, |batch| {
            batches += 1;
            progress(batches);
            index.apply(batch.writes, 0)
        })?;
        from = *sequence;
    } else if files.first() > 1 {
        return Err(Error::DamagedLog {
            path: path.join("log"),
            offset: 0,
            what: "its first files are missing".to_owned(),
        });
    }
    index.apply(Vec::new(), from)?;
    let end = files.replay(from, |sequence, batch| {
        batches += 1;
        progress(batches);
        index.apply(batch.writes, sequence + 1)
    })?;
    let mut count = 0;
    for entry in index.range(Vec::new()..) {
        entry?;
        count += 1;
    }
    index.flush()?;
    drop(index);
    if records.exists() {
        fs::rename(&records, &old).map_err(Error::io("rename", &records))?;
    }
    fs::rename(&new, &records).map_err(Error::io("rename", &new))?;
    sync_folder(path)?;
    remove_folder(&old)?;
    Ok(Rebuilt {
        records: count,
        next: end.next,
    })
}

fn log_beside_index(path: &Path) -> Result<Rebuilt, Error> {
    let (log, new, damaged) = (
        path.join("log"),
        path.join("log.new"),
        path.join("log.damaged"),
    );
    let index = Index::open(&path.join("records"))?;
    let next = index.position()?.ok_or_else(|| Error::DamagedIndex {
        path: path.join("records"),
        what: "it does not say up to where it goes".to_owned(),
    })?;
    remove_folder(&new)?;
    let records = log_from_index(&new, &index, next)?;
    if log.exists() {
        remove_folder(&damaged)?;
        fs::rename(&log, &damaged).map_err(Error::io("rename", &log))?;
    }
    fs::rename(&new, &log).map_err(Error::io("rename", &new))?;
    sync_folder(path)?;
    Ok(Rebuilt { records, next })
}

/// Writes a log in a folder whose checkpoint is the index as it stands, and gives the number of
/// its records. What was in the folder is removed.
pub(super) fn log_from_index(folder: &Path, index: &Index, next: u64) -> Result<u64, Error> {
    remove_folder(folder)?;
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let records = checkpoint::write(folder, next, index.range(Vec::new()..).map(write_of))?;
    Log::create(folder, next)?;
    index.apply(Vec::new(), next)?;
    index.flush()?;
    Ok(records)
}

/// A record of the index as one that is to be set.
pub(super) fn write_of(entry: Result<(sled::IVec, sled::IVec), Error>) -> Result<Write, Error> {
    let (key, value) = entry?;
    Ok(Write {
        key: key.to_vec(),
        value: Some(value.to_vec()),
    })
}
