//! The index: every record by its key, in sled, and up to which batch of the log it goes. The last
//! batches are gathered in memory first, and it is flushed now and then; what a crash takes from it
//! is applied again from the log.

use std::fs;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::log::Place;
use super::log::entry::Mark;
use super::recent::{self, Bounds, Recent};
use super::{Error, Write, keys, sled_memory};
use crate::caught::caught;

/// How long a database that was just closed may go on holding sled's own lock.
const LETTING_GO: Duration = Duration::from_secs(10);
/// How often sled makes the index durable by itself: what was written since is what the next start
/// reads from the log.
const FLUSH_EVERY_MS: u64 = 10_000;

/// Up to where an index goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The sequence number of the batch that is to be applied next; 0 while a checkpoint is being
    /// read into the index.
    pub next: u64,
    /// The mark of the batch before that one, by which the index belongs to one log and to no
    /// other. None where it is not known, as in an index that an older program has written.
    pub mark: Option<Mark>,
}

impl Position {
    /// Behind a batch.
    pub fn behind(place: Place) -> Self {
        Self {
            next: place.sequence + 1,
            mark: Some(place.mark),
        }
    }

    /// Inside a checkpoint: an index that ends here is made again.
    pub const UNFINISHED: Self = Self {
        next: 0,
        mark: None,
    };
}

/// An open index.
#[derive(Clone, Debug)]
pub struct Index {
    database: sled::Db,
    /// Of batches that sled does not have yet.
    recent: Arc<Mutex<Recent>>,
    path: PathBuf,
    /// Records that were read: tests hold the cost of a call by it.
    #[cfg(test)]
    reads: Arc<std::sync::atomic::AtomicU64>,
}

impl Index {
    /// Opens the index in a folder, which is made if it is not there. The caller has the store's
    /// lock.
    ///
    /// # Errors
    /// [`Error::DamagedIndex`], [`Error::Io`], [`Error::NoSpace`], [`Error::ReadOnly`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        sweep_unfinished_snapshots(path)?;
        let damaged = |what: String| Error::DamagedIndex {
            path: path.to_owned(),
            what,
        };
        // sled checks some of what it reads by assertions.
        let opened = caught(|| open_database(path));
        let database = match opened {
            Some(Ok(database)) => database,
            Some(Err(sled::Error::Io(error))) if !is_about_content(&error) => {
                return Err(Error::io("open", path)(error));
            }
            Some(Err(error)) => return Err(damaged(error.to_string())),
            None => return Err(damaged("its files contradict each other".to_owned())),
        };
        Ok(Self {
            database,
            recent: Arc::default(),
            path: path.to_owned(),
            #[cfg(test)]
            reads: Arc::default(),
        })
    }

    /// Records that were read so far.
    #[cfg(test)]
    pub fn reads(&self) -> u64 {
        self.reads.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Notes that a record is read.
    fn note_read(&self) {
        #[cfg(test)]
        self.reads
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, Error> {
        self.note_read();
        if let Some(known) = self.recent().get(key) {
            return Ok(known);
        }
        self.database.get(key).map_err(|e| self.error(e))
    }

    /// Records in the order of their keys. The store's own position is not among them.
    pub fn range(
        &self,
        range: impl RangeBounds<Vec<u8>>,
    ) -> impl DoubleEndedIterator<Item = Result<recent::Entry, Error>> + '_ {
        self.within(recent::bounds(&range))
    }

    /// Records whose keys begin so.
    pub fn prefix(
        &self,
        prefix: &[u8],
    ) -> impl DoubleEndedIterator<Item = Result<recent::Entry, Error>> + '_ {
        self.within(recent::beginning_with(prefix))
    }

    fn within(
        &self,
        bounds: Bounds,
    ) -> impl DoubleEndedIterator<Item = Result<recent::Entry, Error>> + '_ {
        self.recent()
            .over(&bounds, self.database.range(bounds.clone()))
            .inspect(|_| self.note_read())
            .filter(|entry| {
                entry
                    .as_ref()
                    .map_or(true, |(key, _)| key.as_ref() != keys::POSITION)
            })
            .map(|entry| entry.map_err(|e| self.error(e)))
    }

    /// Up to where it goes; none for a new index.
    ///
    /// # Errors
    /// [`Error::DamagedIndex`].
    pub fn position(&self) -> Result<Option<Position>, Error> {
        let Some(value) = self.get(&keys::POSITION)? else {
            return Ok(None);
        };
        let split = value.split_first_chunk::<8>();
        let position = split.and_then(|(next, mark)| {
            Some(Position {
                next: u64::from_be_bytes(*next),
                mark: match mark {
                    [] => None,
                    mark => Some(mark.try_into().ok()?),
                },
            })
        });
        match position {
            Some(position) => Ok(Some(position)),
            None => Err(Error::DamagedIndex {
                path: self.path.clone(),
                what: format!("its position has {} bytes instead of 16", value.len()),
            }),
        }
    }

    /// Applies a batch, behind which the index stands then.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Io`].
    pub fn apply(&self, writes: Vec<Write>, position: Position) -> Result<(), Error> {
        let mut bytes = position.next.to_be_bytes().to_vec();
        bytes.extend(position.mark.into_iter().flatten());
        let mut recent = self.recent();
        for write in writes {
            recent.set(write.key, write.value);
        }
        recent.set(keys::POSITION.to_vec(), Some(bytes));
        match recent.end_batch() {
            true => self.give(&mut recent),
            false => Ok(()),
        }
    }

    /// Gives sled what it does not have yet, so that its own flushes take it.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Io`].
    pub fn settle(&self) -> Result<(), Error> {
        self.give(&mut self.recent())
    }

    fn give(&self, recent: &mut Recent) -> Result<(), Error> {
        let (batch, count) = recent.batch();
        if count > 0 {
            self.database
                .apply_batch(batch)
                .map_err(|e| self.error(e))?;
            recent.clear();
            sled_memory::free(count);
        }
        Ok(())
    }

    /// Closes it, and returns when its files are nobody's any more: they can be renamed then.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Io`].
    pub fn close(self) -> Result<(), Error> {
        self.flush()?;
        let path = self.path.join("db");
        drop(self.database);
        let Ok(file) = fs::File::open(&path) else {
            return Ok(());
        };
        let mut waited = Duration::ZERO;
        while fs2::FileExt::try_lock_exclusive(&file).is_err() && waited < LETTING_GO {
            let pause = Duration::from_millis(20);
            std::thread::sleep(pause);
            waited += pause;
        }
        Ok(())
    }

    /// Removes everything.
    pub fn clear(&self) -> Result<(), Error> {
        let mut recent = self.recent();
        recent.clear();
        self.database.clear().map_err(|e| self.error(e))
    }

    /// Makes what was applied durable.
    pub fn flush(&self) -> Result<(), Error> {
        self.settle()?;
        self.database.flush().map_err(|e| self.error(e))?;
        Ok(())
    }

    fn error(&self, error: sled::Error) -> Error {
        match error {
            sled::Error::Io(error) => Error::io("use the index", &self.path)(error),
            source => Error::Database {
                path: self.path.clone(),
                source,
            },
        }
    }
}

/// Whether an error is about what a file holds, and not about the disk.
fn is_about_content(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::Other
    )
}

/// Opens the database. Nobody else has the store, for its lock is ours; but sled's threads hold
/// sled's own lock for a moment after the database they served was dropped, so that one is waited
/// for.
fn open_database(path: &Path) -> Result<sled::Db, sled::Error> {
    let mut waited = Duration::ZERO;
    loop {
        let opened = sled::Config::new()
            .path(path)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .cache_capacity(64 << 20)
            .open();
        match opened {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock") && waited < LETTING_GO =>
            {
                let pause = Duration::from_millis(20);
                std::thread::sleep(pause);
                waited += pause;
            }
            opened => return opened,
        }
    }
}

/// sled 0.34 writes `snap.*.generating` while it *opens*; killed there, every later open fails,
/// because its own clean-up looks for another suffix. Whole snapshots have other names.
fn sweep_unfinished_snapshots(path: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read the folder", path)(error)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io("read the folder", path))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path).map_err(Error::io("remove the unfinished snapshot", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Store;
    use super::*;

    #[test]
    fn opening_waits_for_a_database_that_is_being_let_go() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        let held = open_database(&folder.path().join("records")).unwrap();
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(held);
        });
        Store::open(folder.path()).unwrap();
        holder.join().unwrap();
    }

    #[test]
    fn a_snapshot_left_half_written_by_a_kill_does_not_stop_the_next_open() {
        let folder = tempfile::tempdir().unwrap();
        let write = Write {
            key: b"key".to_vec(),
            value: Some(b"kept".to_vec()),
        };
        let index = Index::open(folder.path()).unwrap();
        index.apply(vec![write], Position::UNFINISHED).unwrap();
        index.close().unwrap();
        let leftover = folder.path().join("snap.0000000000000BAD.generating");
        fs::write(&leftover, b"half").unwrap();
        let index = Index::open(folder.path()).unwrap();
        assert!(!leftover.exists());
        assert_eq!(index.get(b"key").unwrap().unwrap().as_ref(), b"kept");
    }
}
