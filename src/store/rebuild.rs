//! Makes the index again from the log, or the log from the index.

use std::fs;
use std::path::{Path, PathBuf};

use super::folder::{remove_folder, set_aside, sync_folder};
use super::format::{self, Found};
use super::index::{Index, Position};
use super::lock::lock;
use super::log::{self, End, Files, Log, checkpoint};
use super::place::Place;
use super::{Error, FORMAT, Write};

/// What the store is rebuilt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// From the log, which holds everything that was acknowledged: the index is made again.
    Log,
    /// From the index, when the log is damaged. What was acknowledged in the last seconds before
    /// a crash may be in the log alone, and is lost then.
    Index,
    /// From the log, unless the index has seen batches that the log has lost.
    Newest,
}

/// What was rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Records.
    pub records: u64,
    /// The sequence number of the next batch.
    pub next: u64,
    /// What it was made of: [`From::Log`] or [`From::Index`].
    pub from: From,
    /// Where that lies which was there before; none where all of it is in what it was made of.
    pub kept: Option<PathBuf>,
}

/// Makes the index of the store in a folder again from its log, or the log from its index.
/// `progress` is told how many batches were read. What was there before is replaced when the new
/// one is whole. An index that the log has all of is removed then; any other, and a log, is kept
/// beside the new one. Objects, in the folder or in a bucket, are not touched.
///
/// # Errors
/// [`Error::Busy`], [`Error::NotAStore`], [`Error::IsBackup`], [`Error::DamagedLog`] or
/// [`Error::DamagedIndex`] of that which it is rebuilt from, [`Error::NoSpace`], [`Error::Io`].
/// [`Error::DamagedLog`] also when the log lacks what the index has. All is as it was then.
pub fn rebuild(path: &Path, from: From, progress: impl FnMut(u64)) -> Result<Rebuilt, Error> {
    if !path.join("FORMAT").exists() {
        return Err(Error::NotAStore {
            path: path.to_owned(),
        });
    }
    let _lock = lock(path)?;
    match format::find(path)? {
        Found::Current => {}
        Found::Backup => {
            return Err(Error::IsBackup {
                path: path.to_owned(),
            });
        }
        Found::Nothing | Found::WithoutLog => {
            return Err(Error::Format {
                path: path.to_owned(),
                found: "1, which has no log to rebuild from".to_owned(),
                known: FORMAT,
            });
        }
    }
    let shared = Place::read(path)?.is_some_and(|place| place.has_log());
    match from {
        // What the bucket's log has is not made up here: an empty folder gets it from there.
        From::Index if shared => Err(Error::LogInBucket {
            path: path.to_owned(),
        }),
        From::Newest if !shared && is_ahead(path)? => log_beside_index(path),
        From::Log | From::Newest => index_from_log(path, progress),
        From::Index => log_beside_index(path),
    }
}

/// Whether the index of a store has batches that its log has lost: at its end, at its beginning, or
/// all of them.
fn is_ahead(path: &Path) -> Result<bool, Error> {
    let (log, records) = (path.join("log"), path.join("records"));
    if !records.exists() {
        return Ok(false);
    }
    let position = match Index::open(&records) {
        Ok(index) => {
            let position = index.position();
            index.close()?;
            position
        }
        Err(error) => Err(error),
    };
    let next = match position {
        Ok(position) => position.map_or(0, |position| position.next),
        Err(Error::DamagedIndex { .. }) => 0,
        Err(error) => return Err(error),
    };
    let files = Files::list(&log)?;
    match files.end() {
        _ if next == 0 => Ok(false),
        _ if files.segments.is_empty() => Ok(true),
        Ok(end) if files.check_there(&log).is_err() => Ok(next >= end.next),
        Ok(end) => Ok(next > end.next),
        Err(Error::DamagedLog { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn index_from_log(path: &Path, progress: impl FnMut(u64)) -> Result<Rebuilt, Error> {
    let (log, records, new) = (
        path.join("log"),
        path.join("records"),
        path.join("records.new"),
    );
    let files = Files::list(&log)?;
    files.check_there(&log)?;
    // Of an attempt that was ended.
    remove_folder(&new)?;
    let index = Index::open(&new)?;
    let made = read_into(&index, &files, progress).and_then(|end| {
        let contained = is_contained(&records, &files, end)?;
        let mut count = 0;
        for entry in index.range(Vec::new()..) {
            entry?;
            count += 1;
        }
        Ok((end, contained, count))
    });
    index.close()?;
    let (end, contained, count) = match made {
        Ok(made) => made,
        Err(error) => {
            remove_folder(&new)?;
            return Err(error);
        }
    };
    let old = match records.exists() {
        true => Some(set_aside(&records, "old")?),
        false => None,
    };
    fs::rename(&new, &records).map_err(Error::io("rename", &new))?;
    sync_folder(path)?;
    let kept = match old {
        Some(old) if contained => {
            remove_folder(&old)?;
            None
        }
        old => old,
    };
    Ok(Rebuilt {
        records: count,
        next: end.next,
        from: From::Log,
        kept,
    })
}

/// Whether a log has all that an index was made of. An index that cannot be read, or does not say,
/// is taken for one that has more.
fn is_contained(records: &Path, files: &Files, end: End) -> Result<bool, Error> {
    if !records.exists() {
        return Ok(true);
    }
    let index = match Index::open(records) {
        Ok(index) => index,
        Err(Error::DamagedIndex { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    let position = index.position();
    index.close()?;
    match position {
        Ok(None) => Ok(true),
        Ok(Some(position)) if position.next > end.next => Err(Error::DamagedLog {
            path: files
                .segments
                .last()
                .map_or_else(PathBuf::new, |(_, path)| path.clone()),
            offset: end.torn.unwrap_or_default(),
            what: format!(
                "it ends before batch {}, but the index, which is kept, has seen batch {}",
                end.next,
                position.next - 1
            ),
        }),
        Ok(Some(Position {
            next,
            mark: Some(mark),
        })) if next > 0 => Ok(files.mark_of(next - 1)? == Some(mark)),
        Ok(Some(_)) | Err(Error::DamagedIndex { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Applies a whole log to an index that has nothing. `progress` is told how many batches were read.
///
/// # Errors
/// [`Error::DamagedLog`], [`Error::Database`], [`Error::Io`].
pub(super) fn read_into(
    index: &Index,
    files: &Files,
    mut progress: impl FnMut(u64),
) -> Result<End, Error> {
    let mut batches = 0;
    let mut from = 1;
    if let Some((sequence, path)) = &files.checkpoint {
        checkpoint::read(path, |batch| {
            batches += 1;
            progress(batches);
            index.apply(batch.writes, Position::UNFINISHED)
        })?;
        from = *sequence;
        let mark = checkpoint::before(path)?;
        index.apply(Vec::new(), Position { next: from, mark })?;
    }
    files.replay(from, |place, batch| {
        batches += 1;
        progress(batches);
        index.apply(batch.writes, Position::behind(place))
    })
}

fn log_beside_index(path: &Path) -> Result<Rebuilt, Error> {
    let (log, new, records) = (path.join("log"), path.join("log.new"), path.join("records"));
    let unplaced = |what: &str| Error::DamagedIndex {
        path: records.clone(),
        what: what.to_owned(),
    };
    if !records.exists() {
        return Err(unplaced("it is not there"));
    }
    let index = Index::open(&records)?;
    let position = index
        .position()?
        .filter(|position| position.next > 0)
        .ok_or_else(|| unplaced("it does not say up to where it goes"))?;
    // Of an attempt that was ended.
    remove_folder(&new)?;
    let count = log_from_index(&new, &index, position)?;
    let kept = match log.exists() {
        true => Some(set_aside(&log, "damaged")?),
        false => None,
    };
    fs::rename(&new, &log).map_err(Error::io("rename", &new))?;
    sync_folder(path)?;
    Ok(Rebuilt {
        records: count,
        next: position.next,
        from: From::Index,
        kept,
    })
}

/// Writes a log in a folder whose checkpoint is the index as it stands, and gives the number of
/// its records. Batches that are there are set aside.
pub(super) fn log_from_index(
    folder: &Path,
    index: &Index,
    position: Position,
) -> Result<u64, Error> {
    let mut bytes = 0;
    for (_, path) in &Files::list(folder)?.segments {
        bytes += log::size(path)?;
    }
    if bytes > 0 {
        set_aside(folder, "damaged")?;
    }
    remove_folder(folder)?;
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let Position { next, mark } = position;
    let all = index.range(Vec::new()..).map(write_of);
    let records = checkpoint::write(folder, next, mark, all)?;
    Log::create(folder, next)?;
    index.apply(Vec::new(), position)?;
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
