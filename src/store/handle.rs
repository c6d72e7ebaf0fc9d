//! An open store: its log, its index and its objects together.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::format::{self, Found};
use super::index::Index;
use super::lock::{lock, occupy};
use super::log::{self, Files, Log, checkpoint};
use super::{Batch, Change, Error, Options, place, rebuild};
use crate::objects::ObjectStore;

/// A new checkpoint is written when the log behind the one before is this many times as long as
/// the checkpoint, and at least [`LONG_LOG`].
const LOG_OVER_CHECKPOINT: u64 = 4;
const LONG_LOG: u64 = 512 << 20;

/// An open store. One process at a time.
#[derive(Debug)]
pub struct Store {
    pub(super) path: PathBuf,
    pub(super) index: Index,
    pub(super) objects: ObjectStore,
    /// Held from a batch's entry in the log until the index has it, so that the index has all
    /// batches before a checkpoint that begins.
    log: Mutex<Log>,
    flushes: AtomicU64,
    /// A checkpoint that is being written, and whether it is to be left.
    checkpoint: Mutex<Option<JoinHandle<()>>>,
    closing: Arc<AtomicBool>,
    /// Held, not read: the lock goes with the file handle, also when the process is killed.
    _lock: File,
}

impl Store {
    /// Opens the store in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process has it, [`Error::Format`] when it is of a newer
    /// format, [`Error::DamagedLog`] and [`Error::DamagedIndex`] when it cannot be read,
    /// [`Error::Elsewhere`] and [`Error::OnlyInFolder`] when its objects are elsewhere than the
    /// options say, [`Error::OtherOwner`] and [`Error::BucketEmptied`] when the bucket does not have
    /// them, [`Error::NoSpace`], [`Error::ReadOnly`], [`Error::Io`]. The log and the objects are
    /// left as they were.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, Options::default())
    }

    /// [`Store::open`] with options.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open_with(path: &Path, options: Options) -> Result<Self, Error> {
        let (lock, index, log) = open_records(path)?;
        let objects = place::open(path, &options)?;
        Ok(Self::assemble(path, lock, index, log, objects))
    }

    pub(super) fn assemble(
        path: &Path,
        lock: File,
        index: Index,
        log: Log,
        objects: ObjectStore,
    ) -> Self {
        Self {
            path: path.to_owned(),
            index,
            objects,
            log: Mutex::new(log),
            flushes: AtomicU64::new(0),
            checkpoint: Mutex::new(None),
            closing: Arc::default(),
            _lock: lock,
        }
    }

    /// The store's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The object folder.
    pub fn objects(&self) -> &ObjectStore {
        &self.objects
    }

    /// Flushes of the log since the store was opened.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Writes changes as one atomic batch and returns when they are durable.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`], [`Error::Database`] or [`Error::Object`]; nothing of the
    /// batch is then to be acknowledged, and the store takes nothing more.
    pub fn commit(&self, changes: &[Change]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.keep_all(changes)?;
        let batch = Batch {
            writes: self.encode(changes)?,
            records: None,
        };
        let mut log = self.log();
        let sequence = log.append(&batch)?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.index.apply(batch.writes, sequence + 1)?;
        if log.is_long() {
            log.rotate()?;
            self.checkpoint_if_long(log.next())?;
        }
        Ok(())
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        // A panic in between leaves a batch in the log that the index may lack, as a crash does;
        // the log itself refuses to go on after a failed write.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a checkpoint before batch `next`, which begins a file of the log, on a thread of its
    /// own, unless the log is still short or one is being written.
    fn checkpoint_if_long(&self, next: u64) -> Result<(), Error> {
        let folder = self.path.join("log");
        let files = Files::list(&folder)?;
        let mut long = 0;
        for (_, path) in &files.segments {
            long += log::size(path)?;
        }
        let last = match &files.checkpoint {
            Some((_, path)) => log::size(path)?,
            None => 0,
        };
        let mut running = self
            .checkpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let idle = running.as_ref().is_none_or(JoinHandle::is_finished);
        if long >= LONG_LOG.max(LOG_OVER_CHECKPOINT * last) && idle {
            let (store, index) = (self.path.clone(), self.index.clone());
            let closing = self.closing.clone();
            *running = Some(std::thread::spawn(move || {
                match shorten(&store, &index, next, &closing) {
                    Ok(true) => tracing::info!(before = next, "the log was shortened"),
                    Ok(false) => {}
                    // The log stays long, and nothing else is wrong.
                    Err(error) => tracing::warn!(%error, "the log could not be shortened"),
                }
            }));
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        let running = self
            .checkpoint
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = running.take() {
            // It has said what went wrong.
            let _ = thread.join();
        }
        // The next start has less to apply; if it fails, that start does the work.
        let _ = self.index.flush();
    }
}

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
            format::write(path)?;
        }
        Found::WithoutLog => {
            tracing::info!(path = %path.display(), "the store is of format 1: writing its log");
            let index = Index::open(&path.join("records"))?;
            rebuild::log_from_index(&folder, &index, 1)?;
            format::write(path)?;
        }
    }
    let index = Index::open(&path.join("records"))?;
    let log = catch_up(path, &index)?;
    Ok((lock, index, log))
}

/// Applies to the index what the log has and it has not, and opens the log's end.
fn catch_up(path: &Path, index: &Index) -> Result<Log, Error> {
    let folder = path.join("log");
    let files = Files::list(&folder)?;
    let mut position = index.position()?;
    let mut applied = 0_u64;
    if position.is_none_or(|position| position < files.first()) {
        // The index is new, or older than what is left of the log.
        if let Some((sequence, path)) = &files.checkpoint {
            index.clear()?;
            checkpoint::read(path, |batch| index.apply(batch.writes, 0))?;
            index.apply(Vec::new(), *sequence)?;
            position = Some(*sequence);
        } else if files.first() > 1 || position.is_some() {
            return Err(Error::DamagedLog {
                path: folder,
                offset: 0,
                what: "its first files are missing".to_owned(),
            });
        }
    }
    let from = position.unwrap_or(1);
    let end = files.replay(from, |sequence, batch| {
        applied += 1;
        index.apply(batch.writes, sequence + 1)
    })?;
    if from > end.next {
        let last = files.segments.last().map(|(_, path)| path.clone());
        return Err(Error::DamagedLog {
            path: last.unwrap_or(folder),
            offset: end.torn.unwrap_or_default(),
            what: format!(
                "it ends before batch {}, but the index has seen batch {}",
                end.next,
                from - 1
            ),
        });
    }
    if applied > 0 {
        tracing::info!(batches = applied, "applied the end of the log to the index");
    }
    Log::resume(&folder, &files, end)
}

/// Writes a checkpoint before batch `next` and removes what it replaces, unless a backup is being
/// made. False if it was left.
pub(super) fn shorten(
    path: &Path,
    index: &Index,
    next: u64,
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
    match checkpoint::write(&folder, next, records) {
        Err(Error::Occupied { .. }) => return Ok(false),
        written => written?,
    };
    // An older index would have nothing to be brought up from.
    index.flush()?;
    let _alone = occupy(path, true, "a backup")?;
    for path in Files::list(&folder)?.obsolete {
        fs::remove_file(&path).map_err(Error::io("remove", path))?;
    }
    Ok(true)
}
