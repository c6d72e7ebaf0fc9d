//! Looks for everything that can be wrong with a store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use serde::Serialize;
use uuid::Uuid;

use super::examine::{Reach, Record};
use super::folder::remove_folder;
use super::format::{self, Found};
use super::index::Index;
use super::lock::lock;
use super::log::{self, Files, Log, checkpoint};
use super::rebuild::read_into;
use super::values::unit_of;
use super::{Batch, Error, FORMAT, JobRecord, Options, SpecRecord, Store, TaskRecord, keys};
use crate::objects::{Digest, Listed, ObjectStore};
use crate::proto::v1::{JobState, TaskState};

/// Most problems that are told one by one.
const TOLD: usize = 1000;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: a record's key, an object, a file of the log.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Records by their kind.
    pub records: BTreeMap<String, u64>,
    /// Batches in the log, behind its checkpoint.
    pub batches: u64,
    /// Bytes of the log with its checkpoint.
    pub log_bytes: u64,
    /// Objects that records reach.
    pub objects: u64,
    /// Bytes of them.
    pub object_bytes: u64,
    /// Objects that no record reaches.
    pub orphans: u64,
    /// Bytes of them.
    pub orphan_bytes: u64,
    /// The bucket in which the objects are and whose bytes were read; none when they are in the
    /// folder.
    pub bucket: Option<String>,
    /// What is wrong, at most 1,000 of it.
    pub problems: Vec<Problem>,
    /// How much is wrong.
    pub problem_count: u64,
}

impl Report {
    /// Whether something is told of a place.
    pub(super) fn tells_of(&self, place: &str) -> bool {
        self.problems.iter().any(|problem| problem.place == place)
    }

    pub(super) fn problem(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < TOLD {
            self.problems.push(Problem {
                place: place.into(),
                what: what.into(),
            });
        }
    }

    fn error(&mut self, key: &[u8], error: &Error) {
        let (place, what) = match error {
            Error::Damaged { key, what } => (key.clone(), what.clone()),
            error => (keys::printable(key), error.to_string()),
        };
        self.problem(place, what);
    }
}

/// Verifies the store, or the backup, in a folder, which nobody may have open: the log is whole and
/// gives the index, every record decodes and fits the others, every object that is reached is there
/// and has its digest; where there is a bucket, there, and the copy in the folder too. `progress`
/// is told what is looked at, how much of it was, and how much there is where that is known.
///
/// # Errors
/// [`Error::Busy`], [`Error::NotAStore`], [`Error::Format`], and whatever keeps the store from
/// being opened. What is wrong inside it is told in the report.
pub fn verify(
    path: &Path,
    options: &Options,
    mut progress: impl FnMut(&'static str, u64, Option<u64>),
) -> Result<Report, Error> {
    if !path.join("FORMAT").exists() {
        return Err(Error::NotAStore {
            path: path.to_owned(),
        });
    }
    let scratch = path.join("records.verify");
    let store = match format::find(path)? {
        // Opening applies to the index what a crash took from it.
        Found::Current => Store::open_with(path, options.clone())?,
        Found::Backup => open_backup(path, &scratch)?,
        Found::Nothing | Found::WithoutLog => {
            return Err(Error::Format {
                path: path.to_owned(),
                found: "1; open it once, with 'palimpsest job list' say, which writes its log"
                    .to_owned(),
                known: FORMAT,
            });
        }
    };
    let report = verify_store(&store, path, &mut progress);
    store.close()?;
    remove_folder(&scratch)?;
    report
}

/// Opens a backup, to be read, with an index that is made for it in a folder of its own.
fn open_backup(path: &Path, scratch: &Path) -> Result<Store, Error> {
    let lock = lock(path)?;
    let folder = path.join("log");
    let files = Files::list(&folder)?;
    files.check_there(&folder)?;
    remove_folder(scratch)?;
    let index = Index::open(scratch)?;
    let end = read_into(&index, &files, |_| ())?;
    let log = Log::resume(&folder, &files, end)?;
    let objects = ObjectStore::open(path.join("objects"))?;
    let format = format::number(path)?;
    Ok(Store::assemble(path, lock, index, log, objects, format))
}

fn verify_store(
    store: &Store,
    path: &Path,
    progress: &mut impl FnMut(&'static str, u64, Option<u64>),
) -> Result<Report, Error> {
    let mut report = Report {
        bucket: store.objects.bucket().map(ToString::to_string),
        ..Report::default()
    };
    let expected = read_log(path, &mut report, progress)?;
    let listed = store.objects.list()?;
    let there = listed.iter().map(|object| object.digest).collect();
    let reached = store.verify_records(expected, &there, &mut report, progress)?;
    store.verify_histories(&mut report, progress)?;
    store.verify_objects(listed, &there, &reached, &mut report, progress)?;
    Ok(report)
}

/// Keys and values, each by its hash: a store's records need not fit in memory.
type Hashes = HashMap<[u8; 16], u64>;

fn key_hash(key: &[u8]) -> [u8; 16] {
    let hash = blake3::hash(key);
    *hash.as_bytes().first_chunk().unwrap_or(&[0; 16])
}

/// What the log says that the index should hold; none when the log has lost its beginning.
fn read_log(
    path: &Path,
    report: &mut Report,
    progress: &mut impl FnMut(&'static str, u64, Option<u64>),
) -> Result<Option<Hashes>, Error> {
    let folder = path.join("log");
    let files = Files::list(&folder)?;
    if let Err(error) = files.check_there(&folder) {
        report.problem("log", error.to_string());
        return Ok(None);
    }
    let mut hashes = Hashes::new();
    let mut apply = |batch: Batch| {
        for write in batch.writes {
            let key = key_hash(&write.key);
            match write.value {
                Some(value) => hashes.insert(key, Digest::of(&value).prefix()),
                None => hashes.remove(&key),
            };
        }
    };
    let mut from = 1;
    if let Some((sequence, path)) = &files.checkpoint {
        report.log_bytes += log::size(path)?;
        checkpoint::read(path, |batch| {
            apply(batch);
            Ok(())
        })?;
        from = *sequence;
    }
    for (_, path) in &files.segments {
        report.log_bytes += log::size(path)?;
    }
    let mut batches = 0;
    files.replay(from, |_, batch| {
        apply(batch);
        batches += 1;
        progress("log", batches, None);
        Ok(())
    })?;
    report.batches = batches;
    Ok(Some(hashes))
}

/// The objects that records reach.
#[derive(Default)]
struct Reached {
    /// Those that must be there, each with the key of a record that needs it.
    needed: HashMap<Digest, Vec<u8>>,
    /// Objects whose digests stand in records.
    mentioned: HashSet<Digest>,
}

/// What is known of a job when all records were read.
#[derive(Default)]
struct Seen {
    job: Option<JobRecord>,
    spec: Option<SpecRecord>,
    /// The tasks that have a record.
    tasks: BTreeMap<u32, TaskRecord>,
    /// Units with a result, and whether it is a failure.
    results: BTreeMap<u64, bool>,
    divergences: Vec<u64>,
    events: u64,
    first_event: Option<u64>,
    last_event: u64,
}

impl Store {
    fn verify_records(
        &self,
        mut expected: Option<Hashes>,
        there: &HashSet<Digest>,
        report: &mut Report,
        progress: &mut impl FnMut(&'static str, u64, Option<u64>),
    ) -> Result<Reached, Error> {
        let mut reached = Reached::default();
        let mut jobs: BTreeMap<Uuid, Seen> = BTreeMap::new();
        let mut epoch = 0;
        let mut answers = Vec::new();
        let total = expected.as_ref().map(|expected| expected.len() as u64);
        for (count, entry) in self.index.range(Vec::new()..).enumerate() {
            let (key, value) = entry?;
            progress("records", count as u64, total);
            let hash = expected.as_mut().map(|it| it.remove(&key_hash(&key)));
            match hash {
                // There is nothing to compare it with.
                None => {}
                Some(Some(hash)) if hash == Digest::of(&value).prefix() => {}
                Some(Some(_)) => report.problem(keys::printable(&key), "the index has another record than the log; 'palimpsest store rebuild' corrects it"),
                Some(None) => report.problem(keys::printable(&key), "it is in the index and not in the log; 'palimpsest store rebuild' corrects it"),
            }
            let record = self.examine(&key, &value, |reach| match reach {
                Reach::Needed(digest) => {
                    reached.needed.entry(digest).or_insert_with(|| key.to_vec());
                }
                Reach::Mentioned(digest) => {
                    // What is no object's is not kept: texts may be full of digits.
                    if there.contains(&digest) {
                        reached.mentioned.insert(digest);
                    }
                }
            });
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    report.error(&key, &error);
                    continue;
                }
            };
            *report.records.entry(record.kind().to_owned()).or_default() += 1;
            match record {
                Record::Job(id, job) => jobs.entry(id).or_default().job = Some(job),
                Record::Spec(id, spec) => jobs.entry(id).or_default().spec = Some(spec),
                Record::Task(id, n, task) => {
                    let tasks = &mut jobs.entry(id).or_default().tasks;
                    tasks.insert(n, task);
                }
                Record::Result(id, unit, result) => {
                    let results = &mut jobs.entry(id).or_default().results;
                    results.insert(unit, result.failed);
                    // One in an object is hashed with the objects.
                    let inline = result.value.as_ref().is_some_and(|v| v.inline.is_some());
                    if (inline || result.source.is_some())
                        && let Err(error) = self.result_bytes(&key, unit, &result)
                    {
                        report.error(&key, &error);
                    }
                    if let Some(source) = &result.source {
                        match unit_of(&key, source) {
                            Ok((job, unit)) => answers.push((key.to_vec(), job, unit)),
                            Err(error) => report.error(&key, &error),
                        }
                    }
                }
                Record::Divergence(id, unit) => jobs.entry(id).or_default().divergences.push(unit),
                Record::Event(id, sequence) => {
                    let seen = jobs.entry(id).or_default();
                    seen.events += 1;
                    seen.first_event.get_or_insert(sequence);
                    seen.last_event = sequence;
                }
                Record::Cached(job, unit) => answers.push((key.to_vec(), job, unit)),
                Record::Epoch(newest) => epoch = newest,
                Record::Model | Record::Version(_) => {}
            }
        }
        let left = expected.map_or(0, |expected| expected.len());
        if left > 0 {
            let what = format!(
                "{left} records of the log are not in the index; 'palimpsest store rebuild' \
                 corrects it"
            );
            report.problem("records", what);
        }
        for (key, job, unit) in answers {
            if !jobs
                .get(&job)
                .is_some_and(|seen| seen.results.contains_key(&unit))
            {
                let what = format!("it names unit {unit} of jobs/{job}, which has no result");
                report.problem(keys::printable(&key), what);
            }
        }
        for (id, seen) in jobs {
            seen.check(&format!("jobs/{id}"), epoch, report);
        }
        Ok(reached)
    }

    fn verify_objects(
        &self,
        listed: Vec<Listed>,
        there: &HashSet<Digest>,
        reached: &Reached,
        report: &mut Report,
        progress: &mut impl FnMut(&'static str, u64, Option<u64>),
    ) -> Result<(), Error> {
        let total = listed.iter().map(|object| object.size).sum();
        let mut bytes = 0;
        for object in listed {
            let digest = &object.digest;
            if reached.needed.contains_key(digest) || reached.mentioned.contains(digest) {
                report.objects += 1;
                report.object_bytes += object.size;
            } else {
                report.orphans += 1;
                report.orphan_bytes += object.size;
            }
            if let Err(error) = self.objects.verify(&object.digest) {
                report.problem(format!("objects/{}", object.digest), error.to_string());
            }
            bytes += object.size;
            progress("bytes of objects", bytes, Some(total));
        }
        let mut missing: Vec<_> = reached
            .needed
            .iter()
            .filter(|(digest, _)| !there.contains(digest))
            .collect();
        missing.sort_unstable();
        for (digest, key) in missing {
            let what = format!(
                "it is missing, and the record {} needs it; upload it again, or restore a backup",
                keys::printable(key)
            );
            report.problem(format!("objects/{digest}"), what);
        }
        Ok(())
    }
}

impl Seen {
    fn check(&self, name: &str, epoch: u64, report: &mut Report) {
        let (Some(job), Some(spec)) = (&self.job, &self.spec) else {
            let missing = if self.job.is_none() { "record" } else { "spec" };
            return report.problem(name, format!("its {missing} is missing"));
        };
        let summary = job.job.clone().unwrap_or_default();

        let (first, last) = (self.first_event.unwrap_or(1), self.last_event);
        if first != 1 || self.events != last {
            let what = format!(
                "its events are not 1 to {last} without a gap: there are {}, from {first} on",
                self.events
            );
            report.problem(name, what);
        }
        if summary.last_sequence > last {
            let what = format!(
                "its newest event is {}, but the events end with {last}",
                summary.last_sequence
            );
            report.problem(name, what);
        }

        let state = summary.state();
        let ended = matches!(
            state,
            JobState::Succeeded | JobState::Failed | JobState::Cancelled
        );
        // A task may be cut in two after its job was accepted: both records say how.
        let mut plans = spec.tasks.clone();
        for (n, task) in &self.tasks {
            let next = plans.len() == *n as usize;
            match (plans.get_mut(*n as usize), &task.plan) {
                (Some(plan), Some(cut)) => plan.clone_from(cut),
                (None, Some(cut)) if next => plans.push(cut.clone()),
                (Some(_), None) => {}
                (None, _) => {
                    let what = format!("it is no task of a job with {}", plans.len());
                    report.problem(format!("{name}/tasks/{n}"), what);
                }
            }
        }
        let tasks = plans.len();
        let (mut waiting, mut leased, mut done, mut failed, mut cancelled) = (0, 0, 0, 0, 0);
        let (mut in_tasks, mut units) = (0, 0);
        let shown = summary.counts.unwrap_or_default().units;
        for (n, plan) in plans.iter().enumerate() {
            let task = self.tasks.get(&(n as u32));
            let mut state = task.map_or(TaskState::Pending, TaskRecord::state);
            // What waited when its job was cancelled went with it, without a record of its own.
            let over = matches!(state, TaskState::Done | TaskState::Failed);
            if !over && summary.state() == JobState::Cancelled {
                state = TaskState::Cancelled;
            }
            let task_epoch = task.map_or(0, |task| task.epoch.max(task.second_epoch));
            let range = plan.first_unit..plan.first_unit + plan.units;
            let results = self.results.range(range).count() as u64;
            in_tasks += results;
            // Units that only prepare results have the numbers after those that are.
            units += plan.units.min(shown.saturating_sub(plan.first_unit));
            if task_epoch > epoch {
                let what = format!("its epoch is {task_epoch}, but the newest is {epoch}");
                report.problem(format!("{name}/tasks/{n}"), what);
            }
            match state {
                TaskState::Leased => leased += 1,
                TaskState::Done => done += 1,
                TaskState::Failed => failed += 1,
                TaskState::Cancelled => cancelled += 1,
                _ => waiting += 1,
            }
            if matches!(state, TaskState::Done | TaskState::Failed) && results != plan.units {
                let what = format!("it is over with {results} results for {} units", plan.units);
                report.problem(format!("{name}/tasks/{n}"), what);
            }
        }
        let outside = self.results.len() as u64 - in_tasks;
        if outside > 0 {
            report.problem(
                name,
                format!("{outside} results are of no unit of its tasks"),
            );
        }
        for unit in &self.divergences {
            if !self.results.contains_key(unit) {
                let what = format!("unit {unit} has a divergence, but no result to diverge from");
                report.problem(name, what);
            }
        }

        if !ended {
            return;
        }
        // A job that goes on is counted again when the store is opened.
        if waiting + leased > 0 {
            let what = format!("it has ended with {waiting} tasks waiting and {leased} leased");
            report.problem(name, what);
        }
        let failures = self.results.values().filter(|failed| **failed).count() as u64;
        if state == JobState::Succeeded && failures > 0 {
            report.problem(name, format!("it succeeded with {failures} failures"));
        }
        let counts = summary.counts.unwrap_or_default();
        for (what, says, is) in [
            ("tasks", counts.tasks, tasks as u64),
            ("tasks done", counts.tasks_done, done),
            ("tasks failed", counts.tasks_failed, failed),
            ("tasks cancelled", counts.tasks_cancelled, cancelled),
            ("units", counts.units, units),
        ] {
            if says != is {
                report.problem(name, format!("it counts {says} {what}, but there are {is}"));
            }
        }
    }
}
