//! A log and the index beside it: the index is brought up to the log, and the log is shortened to
//! what the index has.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::folder::set_aside;
use super::format::{self, Found};
use super::formats::WITH_LOG;
use super::index::{Index, Position};
use super::lock::{lock, occupy};
use super::log::entry::Mark;
use super::log::shared::Shared;
use super::log::{Files, Log, checkpoint};
use super::{Error, rebuild};

/// Opens what the records are in: locks the store, and brings its index up to its log.
pub(super) fn open_records(path: &Path) -> Result<(File, Index, Log), Error> {
    fs::create_dir_all(path).map_err(Error::io("create the store's folder", path))?;
    // Before anything is touched.
    let lock = lock(path)?;
    let folder = path.join("log");
    match format::find(path)? {
        Found::Current => {}
        Found::Nothing => {
            Log::create(&folder, 1)?;
            format::write(path, WITH_LOG)?;
        }
        Found::Backup => {
            return Err(Error::IsBackup {
                path: path.to_owned(),
            });
        }
        Found::WithoutLog => {
            tracing::info!(path = %path.display(), "the store is of format 1: writing its log");
            let index = Index::open(&path.join("records"))?;
            let begin = Position {
                next: 1,
                mark: None,
            };
            rebuild::log_from_index(&folder, &index, begin)?;
            format::write(path, WITH_LOG)?;
        }
    }
    let index = Index::open(&path.join("records"))?;
    let (index, log) = catch_up(path, index)?;
    Ok((lock, index, log))
}

/// Applies to the index what the log has and it has not, and opens the log's end. An index that is
/// older than what is left of the log is set aside, and made again.
pub(super) fn catch_up(path: &Path, index: Index) -> Result<(Index, Log), Error> {
    let (folder, records) = (path.join("log"), path.join("records"));
    let files = Files::list(&folder)?;
    let position = index.position()?;
    let ready = position.filter(|position| position.next >= files.first());
    let Some(position) = ready else {
        files.check_there(&folder)?;
        let index = match position {
            Some(position) if position != Position::UNFINISHED => {
                index.close()?;
                let kept = set_aside(&records, "old")?;
                tracing::warn!(
                    kept = %kept.display(),
                    "the index is older than what is left of the log: it is made again"
                );
                Index::open(&records)?
            }
            _ => index,
        };
        let log = fill(&folder, &files, &index)?;
        return Ok((index, log));
    };
    if let Err(error) = files.check_there(&folder) {
        if files.segments.is_empty() {
            return Err(error);
        }
        // The index has what they had.
        tracing::warn!(%error, "no backup can be made of it until then");
    }
    check_same_log(&files, &records, position)?;
    let mut applied = 0_u64;
    let end = files.replay(position.next, |place, batch| {
        applied += 1;
        index.apply(batch.writes, Position::behind(place))
    })?;
    if position.next > end.next {
        let last = files.segments.last().map(|(_, path)| path.clone());
        return Err(Error::DamagedLog {
            path: last.unwrap_or(folder),
            offset: end.torn.unwrap_or_default(),
            what: format!(
                "it ends before batch {}, but the index has seen batch {}",
                end.next,
                position.next - 1
            ),
        });
    }
    if applied > 0 {
        tracing::info!(batches = applied, "applied the end of the log to the index");
    }
    Ok((index, Log::resume(&folder, &files, end)?))
}

/// Sees that the last batch that an index has is that of the log beside it.
pub(super) fn check_same_log(
    files: &Files,
    records: &Path,
    position: Position,
) -> Result<(), Error> {
    let Some(mark) = position.mark.filter(|_| position.next > 0) else {
        return Ok(());
    };
    let batch = position.next - 1;
    match files.mark_of(batch) {
        Ok(Some(found)) if found != mark => Err(Error::OtherLog {
            path: records.to_owned(),
            batch,
        }),
        // Damage is told by whoever needs what is damaged.
        Ok(_) | Err(Error::DamagedLog { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Fills an index that is to hold what a log holds, and opens the log's end.
fn fill(folder: &Path, files: &Files, index: &Index) -> Result<Log, Error> {
    index.clear()?;
    let end = rebuild::read_into(index, files, |_| ())?;
    Log::resume(folder, files, end)
}

/// Writes a checkpoint before batch `next`, also into the bucket of a shared log, and removes what it
/// replaces, unless a backup is being made. False if it was left.
pub(super) fn shorten(
    path: &Path,
    index: &Index,
    next: u64,
    before: Option<Mark>,
    shared: Option<&Shared>,
    closing: &AtomicBool,
) -> Result<bool, Error> {
    let folder = path.join("log");
    let records = index.range(Vec::new()..).map(|entry| {
        if closing.load(Ordering::Relaxed) {
            let what = "the end of the program";
            let path = path.to_owned();
            return Err(Error::Occupied { path, what });
        }
        rebuild::write_of(entry)
    });
    match checkpoint::write(&folder, next, before, records) {
        Err(Error::Occupied { .. }) => return Ok(false),
        written => written?,
    };
    // An older index would have nothing to be brought up from.
    index.flush()?;
    if let Some(shared) = shared {
        shared.shorten(next, &checkpoint::path(&folder, next))?;
    }
    let _alone = occupy(path, true, "a backup")?;
    for path in Files::list(&folder)?.obsolete {
        fs::remove_file(&path).map_err(Error::io("remove", path))?;
    }
    Ok(true)
}
