//! The embedded store: jobs, tasks, results and models as records in sled, bulk in the object
//! folder beside it.
//!
//! A change is durable when [`Store::commit`] returns: objects first, then one atomic batch, then
//! one flush for all that was committed together.

mod error;
mod keys;
mod records;
mod versions;

pub use error::Error;
pub use records::{
    Change, DivergenceRecord, JobRecord, ResultRecord, SpecRecord, TaskPlan, TaskRecord, Value,
};
pub use versions::Record;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fs2::FileExt;
use prost::Message;
use uuid::Uuid;

use crate::objects::{Digest, ObjectStore};
use crate::proto::v1;

/// The format that this program writes.
pub const FORMAT: u32 = 1;

/// Values up to this many bytes lie in the database itself.
const INLINE_LIMIT: usize = 4 << 10;

/// An open store. One process at a time.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    database: sled::Db,
    objects: ObjectStore,
    flushes: AtomicU64,
    /// Held, not read: the lock goes with the file handle, also when the process is killed.
    _lock: File,
}

/// A unit that has a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedUnit {
    /// Its job.
    pub job: Uuid,
    /// Its number.
    pub unit: u64,
    /// The first eight bytes of the result's digest.
    pub digest: u64,
    /// Whether the result is a failure.
    pub failed: bool,
}

impl Store {
    /// Opens the store in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process has it, [`Error::Format`] when it is of another
    /// format, [`Error::Io`] and [`Error::Database`] when it cannot be read or written. The store
    /// is left as it was.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io {
                action,
                path,
                source,
            }
        };
        fs::create_dir_all(path).map_err(io("create the store's folder", path))?;
        let lock_path = path.join("LOCK");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io("open the store's lock", &lock_path))?;
        // Our own lock, before anything is touched: sled takes its own too late to protect the
        // clean-up below.
        lock.try_lock_exclusive().map_err(|_| Error::Busy {
            path: path.to_owned(),
        })?;

        let format_path = path.join("FORMAT");
        match fs::read_to_string(&format_path) {
            Ok(text) if text.trim() == FORMAT.to_string() => {}
            Ok(text) => {
                return Err(Error::Format {
                    path: path.to_owned(),
                    found: text.trim().chars().take(20).collect(),
                    known: FORMAT,
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let temporary = path.join("FORMAT.new");
                fs::write(&temporary, format!("{FORMAT}\n"))
                    .and_then(|()| File::open(&temporary)?.sync_all())
                    .and_then(|()| fs::rename(&temporary, &format_path))
                    .map_err(io("write", &format_path))?;
            }
            Err(error) => return Err(io("read", &format_path)(error)),
        }

        let records = path.join("records");
        sweep_unfinished_snapshots(&records)?;
        let database = open_database(&records).map_err(|source| Error::Database {
            path: records,
            source,
        })?;
        let objects = ObjectStore::open(path.join("objects"))?;
        Ok(Self {
            path: path.to_owned(),
            database,
            objects,
            flushes: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// The store's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The object folder.
    pub fn objects(&self) -> &ObjectStore {
        &self.objects
    }

    /// Flushes since the store was opened.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Writes changes as one atomic batch and returns when they are durable.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Object`]; nothing of the batch is then to be acknowledged.
    pub fn commit(&self, changes: &[Change]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for change in changes {
            let (key, value) = self.encode(change)?;
            batch.insert(key, value);
        }
        self.database
            .apply_batch(batch)
            .map_err(|e| self.database_error(e))?;
        self.database.flush().map_err(|e| self.database_error(e))?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Gives every job with its spec, in the order of their creation.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode; what `take` gives.
    pub fn each_job(
        &self,
        mut take: impl FnMut(Uuid, JobRecord, SpecRecord) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for entry in self.database.scan_prefix([keys::JOB]) {
            let (key, value) = entry.map_err(|e| self.database_error(e))?;
            let job = keys::job_of(&key)?;
            let record = decode::<JobRecord>(&key, &value)?;
            let spec_key = keys::spec(job);
            let spec = self.get(&spec_key)?.ok_or_else(|| Error::Damaged {
                key: keys::printable(&spec_key),
                what: "the job's spec is missing".to_owned(),
            })?;
            let spec = self.value(decode(&spec_key, &spec)?)?;
            take(job, record, decode(&spec_key, &spec)?)?;
        }
        Ok(())
    }

    /// Gives every task that has a record, by job and number.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode; what `take` gives.
    pub fn each_task(
        &self,
        mut take: impl FnMut(Uuid, u32, TaskRecord) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for entry in self.database.scan_prefix([keys::TASK]) {
            let (key, value) = entry.map_err(|e| self.database_error(e))?;
            let (job, n) = keys::task_of(&key)?;
            take(job, n, decode(&key, &value)?)?;
        }
        Ok(())
    }

    /// Gives every committed unit, by job and number.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode; what `take` gives.
    pub fn each_unit(
        &self,
        mut take: impl FnMut(CommittedUnit) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for entry in self.database.scan_prefix([keys::RESULT]) {
            let (key, value) = entry.map_err(|e| self.database_error(e))?;
            let (job, unit) = keys::unit_of(&key)?;
            let record = decode::<ResultRecord>(&key, &value)?;
            let digest = self.result_digest(&key, &record)?;
            take(CommittedUnit {
                job,
                unit,
                digest: digest.prefix(),
                failed: record.failed,
            })?;
        }
        Ok(())
    }

    /// The newest lease epoch.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its record is not a number.
    pub fn epoch(&self) -> Result<u64, Error> {
        let Some(value) = self.get(&keys::EPOCH)? else {
            return Ok(0);
        };
        let bytes = value.as_ref().try_into().map_err(|_| Error::Damaged {
            key: keys::printable(&keys::EPOCH),
            what: format!("{} bytes instead of 8", value.len()),
        })?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Events of a job after a sequence number, in order, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn events(&self, job: Uuid, after: u64, limit: usize) -> Result<Vec<v1::JobEvent>, Error> {
        let range = keys::event(job, after.saturating_add(1))..=keys::event(job, u64::MAX);
        self.database
            .range(range)
            .take(limit)
            .map(|entry| {
                let (key, value) = entry.map_err(|e| self.database_error(e))?;
                decode(&key, &value)
            })
            .collect()
    }

    /// Committed results of a job from a unit on, in the order of units: at most `limit`, and no
    /// more than `bytes` bytes unless one alone is larger. Gives the serialised results.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a result does not match its digest.
    pub fn results(
        &self,
        job: Uuid,
        from: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<(u64, ResultRecord, Vec<u8>)>, Error> {
        let mut results = Vec::new();
        let mut total = 0;
        for entry in self
            .database
            .range(keys::result(job, from)..=keys::result(job, u64::MAX))
        {
            let (key, value) = entry.map_err(|e| self.database_error(e))?;
            let (_, unit) = keys::unit_of(&key)?;
            let record = decode::<ResultRecord>(&key, &value)?;
            let digest = self.result_digest(&key, &record)?;
            let value = record.value.clone().unwrap_or_default();
            let result = self.value(value)?;
            if Digest::of(&result) != digest {
                return Err(Error::Damaged {
                    key: keys::printable(&key),
                    what: format!("its bytes do not have the digest {digest}"),
                });
            }
            total += result.len();
            if results.len() == limit || (total > bytes && !results.is_empty()) {
                break;
            }
            results.push((unit, record, result));
        }
        Ok(results)
    }

    /// Divergences of a job: unit and what was refused.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn divergences(&self, job: Uuid) -> Result<Vec<(u64, DivergenceRecord)>, Error> {
        self.database
            .scan_prefix(keys::divergences(job))
            .map(|entry| {
                let (key, value) = entry.map_err(|e| self.database_error(e))?;
                Ok((keys::unit_of(&key)?.1, decode(&key, &value)?))
            })
            .collect()
    }

    /// A model by its identifier.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the record does not decode.
    pub fn model(&self, id: &str) -> Result<Option<v1::Model>, Error> {
        let key = keys::model(id);
        let Some(value) = self.get(&key)? else {
            return Ok(None);
        };
        let bytes = self.value(decode(&key, &value)?)?;
        decode(&key, &bytes).map(Some)
    }

    /// Models in the order of their identifiers, after one, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn models(&self, after: &str, limit: usize) -> Result<Vec<v1::Model>, Error> {
        let first = keys::model(after);
        self.database
            .range(first.clone()..[keys::MODEL + 1].to_vec())
            .filter(|entry| {
                entry
                    .as_ref()
                    .map_or(true, |(key, _)| key.as_ref() != first)
            })
            .take(limit)
            .map(|entry| {
                let (key, value) = entry.map_err(|e| self.database_error(e))?;
                let bytes = self.value(decode(&key, &value)?)?;
                decode(&key, &bytes)
            })
            .collect()
    }

    fn encode(&self, change: &Change) -> Result<(Vec<u8>, Vec<u8>), Error> {
        Ok(match change {
            Change::Spec(job, spec) => (
                keys::spec(*job),
                self.keep(&spec.encode_to_vec())?.encode_to_vec(),
            ),
            Change::Job(job, record) => (keys::job(*job), record.encode_to_vec()),
            Change::Task(job, n, record) => (keys::task(*job, *n), record.encode_to_vec()),
            Change::Result(job, unit, record, bytes) => {
                let value = Some(self.keep(bytes)?);
                let record = ResultRecord {
                    value,
                    ..record.clone()
                };
                (keys::result(*job, *unit), record.encode_to_vec())
            }
            Change::Divergence(job, unit, record) => (
                keys::divergence(*job, *unit, &record.digest),
                record.encode_to_vec(),
            ),
            Change::Event(job, event) => (keys::event(*job, event.sequence), event.encode_to_vec()),
            Change::Epoch(epoch) => (keys::EPOCH.to_vec(), epoch.to_be_bytes().to_vec()),
            Change::Record(record) => record.encode(self)?,
            Change::Model(id, model) => (
                keys::model(id),
                self.keep(&model.encode_to_vec())?.encode_to_vec(),
            ),
        })
    }

    /// Makes bytes a value: large ones become a durable object before they are referred to.
    fn keep(&self, bytes: &[u8]) -> Result<Value, Error> {
        if bytes.len() <= INLINE_LIMIT {
            return Ok(Value {
                inline: Some(bytes.to_vec()),
                digest: Digest::of(bytes).to_string(),
            });
        }
        let digest = self.objects.put(bytes)?;
        Ok(Value {
            inline: None,
            digest: digest.to_string(),
        })
    }

    fn value(&self, value: Value) -> Result<Vec<u8>, Error> {
        match value.inline {
            Some(bytes) => Ok(bytes),
            None => {
                let digest = value.digest.parse::<Digest>().map_err(|e| Error::Damaged {
                    key: value.digest.clone(),
                    what: e.to_string(),
                })?;
                Ok(self.objects.read(&digest)?)
            }
        }
    }

    fn result_digest(&self, key: &[u8], record: &ResultRecord) -> Result<Digest, Error> {
        let digest = record.value.as_ref().map_or("", |value| &value.digest);
        digest.parse().map_err(|_| Error::Damaged {
            key: keys::printable(key),
            what: format!("'{digest}' is not a digest"),
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, Error> {
        self.database.get(key).map_err(|e| self.database_error(e))
    }

    fn database_error(&self, source: sled::Error) -> Error {
        Error::Database {
            path: self.path.join("records"),
            source,
        }
    }
}

fn decode<M: Message + Default>(key: &[u8], bytes: &[u8]) -> Result<M, Error> {
    M::decode(bytes).map_err(|e| Error::Damaged {
        key: keys::printable(key),
        what: e.to_string(),
    })
}

/// How long a database that was just closed may go on holding sled's own lock.
const LETTING_GO: Duration = Duration::from_secs(10);

/// Opens the database. Nobody else has the store, for its lock is ours; but sled's threads hold
/// sled's own lock for a moment after the database they served was dropped, so that one is waited for.
fn open_database(records: &Path) -> Result<sled::Db, sled::Error> {
    let mut waited = Duration::ZERO;
    loop {
        let opened = sled::Config::new()
            .path(records)
            // Every acknowledged change is flushed by `commit`; a timer would only add writes.
            .flush_every_ms(None)
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
fn sweep_unfinished_snapshots(records: &Path) -> Result<(), Error> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    };
    let entries = match fs::read_dir(records) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("read the folder", records)(error)),
    };
    for entry in entries {
        let path = entry.map_err(io("read the folder", records))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path).map_err(io("remove the unfinished snapshot", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn result(text: &str) -> Change {
        let bytes = bytes::Bytes::from(text.to_owned());
        Change::Result(Uuid::from_u128(1), 0, ResultRecord::default(), bytes)
    }

    #[test]
    fn a_committed_change_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["small".to_owned(), "large".repeat(INLINE_LIMIT)] {
            Store::open(folder.path())
                .unwrap()
                .commit(&[result(&text)])
                .unwrap();
            let store = Store::open(folder.path()).unwrap();
            let results = store.results(Uuid::from_u128(1), 0, 10, 1 << 20).unwrap();
            assert_eq!(results[0].2, text.as_bytes());
        }
    }

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
        Store::open(folder.path())
            .unwrap()
            .commit(&[result("kept")])
            .unwrap();
        let leftover = folder
            .path()
            .join("records")
            .join("snap.0000000000000BAD.generating");
        fs::write(&leftover, b"half").unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert!(!leftover.exists());
        assert_eq!(
            store
                .results(Uuid::from_u128(1), 0, 10, 1 << 20)
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn a_store_opened_twice_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Store::open(folder.path()).unwrap();
        assert!(matches!(
            Store::open(folder.path()),
            Err(Error::Busy { .. })
        ));
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        fs::write(folder.path().join("FORMAT"), "999\n").unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("format 999"), "{error}");
        assert_eq!(
            fs::read_to_string(folder.path().join("FORMAT")).unwrap(),
            "999\n"
        );
    }

    #[test]
    fn a_result_that_was_altered_on_disk_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let text = "x".repeat(INLINE_LIMIT + 1);
        store.commit(&[result(&text)]).unwrap();
        let path = store.objects().path(&Digest::of(text.as_bytes()));
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false)]
        permissions.set_readonly(false);
        fs::set_permissions(&path, permissions).unwrap();
        fs::write(&path, "y".repeat(INLINE_LIMIT + 1)).unwrap();
        assert!(store.results(Uuid::from_u128(1), 0, 10, 1 << 20).is_err());
    }

    #[test]
    fn pages_of_results_respect_both_limits() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let job = Uuid::from_u128(7);
        let changes: Vec<_> = (0..10)
            .map(|unit| Change::Result(job, unit, ResultRecord::default(), vec![1; 100].into()))
            .collect();
        store.commit(&changes).unwrap();
        assert_eq!(store.results(job, 0, 3, 1 << 20).unwrap().len(), 3);
        assert_eq!(store.results(job, 8, 30, 1 << 20).unwrap().len(), 2);
        assert_eq!(store.results(job, 0, 30, 250).unwrap().len(), 2);
        assert_eq!(store.results(job, 0, 30, 1).unwrap().len(), 1);
    }
}
