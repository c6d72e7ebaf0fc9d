//! An open store: its log, its index and its objects together.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::catch_up::{open_records, shorten};
use super::content::Contents;
use super::follow::{Follower, Look, MOST_SEGMENTS, Vigil};
use super::format;
use super::formats::DEFLATED;
use super::index::{Index, Position};
use super::log::{self, Files, Log};
use super::records::{Said, Sign};
use super::{Batch, Change, Error, Options, place};
use crate::blocking::{aside, in_place};
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
    /// Its format, which a record may raise.
    format: AtomicU32,
    /// What the versions that were asked for last have.
    pub(super) contents: Contents,
    /// A checkpoint that is being written, and whether it is to be left.
    checkpoint: Mutex<Option<JoinHandle<()>>>,
    closing: Arc<AtomicBool>,
    /// How often it has to write, so that others see that it leads; none where there are no others.
    signs: Option<Duration>,
    /// Held, not read: the lock goes with the file handle, also when the process is killed.
    _lock: File,
}

impl Store {
    /// Opens the store in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process has it, [`Error::Format`] when it is of a newer
    /// format, [`Error::Unfinished`] and [`Error::IsBackup`] when it is a part or a copy of one,
    /// [`Error::DamagedLog`], [`Error::DamagedIndex`] and [`Error::OtherLog`] when it cannot be read,
    /// [`Error::Elsewhere`] and [`Error::OnlyInFolder`] when its objects are elsewhere than the
    /// options say, [`Error::OtherOwner`] and [`Error::BucketEmptied`] when the bucket does not
    /// have them, [`Error::NoSpace`], [`Error::ReadOnly`], [`Error::Io`]. The log and the objects
    /// are left as they were.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, Options::default())
    }

    /// [`Store::open`] with options. Where the log is shared this waits until nobody else leads, for
    /// the time that a leader may be silent.
    ///
    /// # Errors
    /// Those of [`Store::open`]; [`Error::Led`] when somebody leads.
    pub fn open_with(path: &Path, options: Options) -> Result<Self, Error> {
        if options.log.is_some() {
            return Self::open_shared(path, options);
        }
        let (lock, index, log) = open_records(path)?;
        let objects = place::open(path, &options)?;
        let format = format::number(path)?;
        Ok(Self::assemble(path, lock, index, log, objects, format))
    }

    fn open_shared(path: &Path, options: Options) -> Result<Self, Error> {
        let mut follower = Follower::open(path, options)?;
        let mut vigil = Vigil::default();
        loop {
            match vigil.look(&mut follower)? {
                Look::Leads => return Self::of_leader(follower),
                Look::Again(_) if vigil.is_alive() => return Err(follower.led()),
                Look::Again(pause) => in_place(|| std::thread::sleep(pause)),
            }
        }
    }

    /// The store of a follower that leads.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn of_leader(follower: Follower) -> Result<Self, Error> {
        let objects = place::open(&follower.path, &follower.options)?;
        let format = format::number(&follower.path)?;
        let Follower {
            path,
            sharing,
            lock,
            index,
            log,
            ..
        } = follower;
        let mut store = Self::assemble(&path, lock, index, log, objects, format);
        store.signs = Some(sharing.takeover / 4);
        Ok(store)
    }

    pub(super) fn assemble(
        path: &Path,
        lock: File,
        index: Index,
        log: Log,
        objects: ObjectStore,
        format: u32,
    ) -> Self {
        Self {
            path: path.to_owned(),
            index,
            objects,
            log: Mutex::new(log),
            flushes: AtomicU64::new(0),
            format: AtomicU32::new(format),
            contents: Contents::default(),
            checkpoint: Mutex::new(None),
            closing: Arc::default(),
            signs: None,
            _lock: lock,
        }
    }

    /// Closes it, and returns when its index is nobody's any more.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Io`].
    pub(super) fn close(self) -> Result<(), Error> {
        let index = self.index.clone();
        drop(self);
        index.close()
    }

    /// The store's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The object folder.
    pub fn objects(&self) -> &ObjectStore {
        &self.objects
    }

    /// Its format, as `FORMAT` says it.
    pub fn format(&self) -> u32 {
        self.format.load(Ordering::Relaxed)
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
        // Each of these steps may be done again.
        patient(|| self.keep_all(changes))?;
        let batch = Batch {
            writes: patient(|| self.encode(changes))?,
            ..Batch::default()
        };
        let mut log = self.log();
        let needed = changes.iter().map(Change::format).max();
        if let Some(needed) = needed.filter(|&needed| needed > self.format()) {
            // Before the first record that an older program would read wrongly.
            patient(|| format::write(&self.path, needed))?;
            self.format.store(needed, Ordering::Relaxed);
        }
        self.append(&mut log, batch)?;
        self.tidy_if_long(&mut log)
    }

    fn append(&self, log: &mut Log, mut batch: Batch) -> Result<(), Error> {
        batch.leader = log.leader();
        let place = log.append(&batch, self.format() >= DEFLATED)?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.index.apply(batch.writes, Position::behind(place))
    }

    /// How often something has to be written, so that others see that this process leads; none where
    /// nobody else could.
    pub fn signs_every(&self) -> Option<Duration> {
        self.signs
    }

    /// Writes that this process leads still.
    ///
    /// # Errors
    /// Those of [`Store::commit`].
    pub fn sign(&self) -> Result<(), Error> {
        self.say(Said::Here, "")
    }

    /// Writes that this process leads no more, so that another takes over at once. Nothing may be
    /// committed afterwards. Does nothing where the log is in the folder.
    ///
    /// # Errors
    /// Those of [`Store::commit`].
    pub fn leave(&self) -> Result<(), Error> {
        match self.signs {
            Some(_) => self.say(Said::Left, ""),
            None => Ok(()),
        }
    }

    /// Writes that nobody goes on with the log in the bucket, for a folder has it.
    ///
    /// # Errors
    /// Those of [`Store::commit`].
    pub(super) fn take_out(&self, folder: &str) -> Result<(), Error> {
        self.say(Said::TakenOut, folder)
    }

    fn say(&self, said: Said, name: &str) -> Result<(), Error> {
        let sign = (said != Said::Here).then(|| Sign {
            said: said as i32,
            name: name.to_owned(),
            ..Sign::default()
        });
        let batch = Batch {
            sign,
            ..Batch::default()
        };
        let mut log = self.log();
        self.append(&mut log, batch)?;
        // The last one of a leader stays the last of its file: whoever opens the copy finds it.
        match said {
            Said::Here => self.tidy_if_long(&mut log),
            _ => {
                log.close();
                Ok(())
            }
        }
    }

    /// A small file that lies beside a shared log, for whoever leads; none where the log is in the
    /// folder.
    ///
    /// # Errors
    /// Those of the bucket.
    pub fn shared_file(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(shared) = self.log().shared().cloned() else {
            return Ok(None);
        };
        Ok(shared.shelf().get(&[name.to_owned()])?.pop().flatten())
    }

    /// Puts such a file there, and gives what is there instead, if somebody else was first. Does
    /// nothing where the log is in the folder.
    ///
    /// # Errors
    /// Those of the bucket.
    pub fn share_file(&self, name: &str, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some(shared) = self.log().shared().cloned() else {
            return Ok(None);
        };
        match shared.shelf().create(name, bytes)? {
            true => Ok(None),
            false => self.shared_file(name),
        }
    }

    /// Gives the index's database what it does not have yet. To be called now and then, so that a
    /// store that rests has an index that is whole, whatever becomes of the log.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Io`].
    pub fn settle(&self) -> Result<(), Error> {
        self.index.settle()
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        // A panic in between leaves a batch in the log that the index may lack, as a crash does;
        // the log itself refuses to go on after a failed write.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tidy_if_long(&self, log: &mut Log) -> Result<(), Error> {
        if log.is_long() {
            patient(|| log.rotate())?;
            patient(|| self.tidy(log))?;
        }
        Ok(())
    }

    /// Begins on a thread of its own, unless it goes on already, what is to be done when the log has
    /// begun another file: a checkpoint, if the log is long, and of a shared log the file before.
    fn tidy(&self, log: &Log) -> Result<(), Error> {
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
        let shared = log.shared().cloned();
        let many = shared.is_some() && files.segments.len() > MOST_SEGMENTS;
        let shorten_it = long >= LONG_LOG.max(LOG_OVER_CHECKPOINT * last) || many;
        let mut running = self
            .checkpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let idle = running.as_ref().is_none_or(JoinHandle::is_finished);
        if (shorten_it || shared.is_some()) && idle {
            let (store, index) = (self.path.clone(), self.index.clone());
            let closing = self.closing.clone();
            let (next, before) = (log.next(), log.mark());
            *running = aside(move || {
                let finished = files.segments.iter().filter(|(first, _)| *first < next);
                for (first, path) in finished {
                    let Some(shared) = &shared else { break };
                    if let Err(error) = shared.compact(*first, path) {
                        // They are read one by one then.
                        return tracing::warn!(%error, "batches could not be put into one file");
                    }
                }
                if !shorten_it {
                    return;
                }
                match shorten(&store, &index, next, before, shared.as_ref(), &closing) {
                    Ok(true) => tracing::info!(before = next, "the log was shortened"),
                    Ok(false) => {}
                    // The log stays long, and nothing else is wrong.
                    Err(error) => tracing::warn!(%error, "the log could not be shortened"),
                }
            });
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

/// Does a step of a commit, again and again while there is no file descriptor for it: that passes
/// when clients let theirs go, and is no reason to stop.
fn patient<T>(mut step: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut waits = 0_u64;
    loop {
        match step() {
            Err(error) if error.is_no_descriptor() => {
                waits += 1;
                // A line now and then, not one for each of many.
                if waits.is_power_of_two() {
                    tracing::error!(%error, waits, "the store waits for a file descriptor");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}
