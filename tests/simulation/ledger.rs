//! What the machines of a run were told, and whether it was ever taken back.

use std::collections::{BTreeMap, BTreeSet};

use palimpsest::coordinator::is_terminal;
use palimpsest::objects::Digest;
use palimpsest::proto::v1::{self, Job, JobEvent, JobState, job_event};
use palimpsest::store::Store;
use prost::Message;

use super::engine;

/// What the machines of a run were told. Every entry was acknowledged by the coordinator, so that
/// no crash may lose it (I3).
#[derive(Debug, Default)]
pub struct Ledger {
    /// What happened, in words that are the same in every run of a seed.
    pub trace: Vec<String>,
    /// The first promise that was broken.
    pub broken: Option<String>,
    jobs: BTreeMap<String, Account>,
    /// By request id.
    requests: BTreeMap<String, String>,
    /// What liars sent, by job and unit: whether it may be the unit's result.
    forged: BTreeMap<(String, u64), Vec<Forged>>,
    /// Results that workers were told to be the unit's.
    acknowledged: BTreeMap<(String, u64), Vec<u8>>,
}

/// The bytes of a result that a liar sent, and whether it may be the unit's.
type Forged = (Vec<u8>, bool);

/// What was known of a job at some moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floor {
    events: u64,
    committed: u64,
    ended: Option<JobState>,
    cancelled: bool,
}

impl Floor {
    /// So many events, and nothing else.
    pub fn events(events: u64) -> Self {
        Self {
            events,
            ..Self::default()
        }
    }
}

/// What is known of a job.
#[derive(Debug, Default)]
struct Account {
    events: Vec<JobEvent>,
    committed: BTreeSet<u64>,
    ended: Option<JobState>,
    cancelled: bool,
    results: BTreeMap<u64, Vec<u8>>,
}

impl Ledger {
    /// Notes that a promise was broken, unless it holds.
    pub fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    /// A client was told that its request made this job.
    pub fn accepted(&mut self, request_id: &str, name: &str) {
        let before = self
            .requests
            .entry(request_id.to_owned())
            .or_insert_with(|| name.to_owned())
            .clone();
        self.must(before == name, || {
            format!("the request {request_id} made {before}, and then {name}")
        });
        self.jobs.entry(name.to_owned()).or_default();
    }

    /// Jobs that were acknowledged.
    pub fn names(&self) -> Vec<String> {
        self.jobs.keys().cloned().collect()
    }

    /// A client was told that the job is cancelled, or has ended otherwise.
    pub fn cancelled(&mut self, job: &Job) {
        self.must(is_terminal(job.state()), || {
            format!("{} was cancelled and is {:?}", job.name, job.state())
        });
        self.account(&job.name).cancelled = true;
    }

    /// What is known of a job at this moment: what is asked for from now on is not older.
    pub fn floor(&self, job: &str) -> Floor {
        let account = self.jobs.get(job);
        account.map_or_else(Floor::default, |account| Floor {
            events: account.events.len() as u64,
            committed: account.committed.len() as u64,
            ended: account.ended,
            cancelled: account.cancelled,
        })
    }

    /// A client that asked when this was known saw the job.
    pub fn saw(&mut self, job: &Job, floor: Floor) {
        let counts = job.counts.unwrap_or_default();
        let sum = counts.tasks_pending
            + counts.tasks_leased
            + counts.tasks_done
            + counts.tasks_failed
            + counts.tasks_cancelled;
        self.must(sum == counts.tasks, || format!("I5: {counts:?}"));
        // One preparatory unit is not among those that are counted.
        let kept = job.last_sequence >= floor.events && counts.units_done + 1 >= floor.committed;
        self.must(kept, || {
            let (name, last) = (&job.name, job.last_sequence);
            format!("I3: {name} had {floor:?}, and now {last} events and {counts:?}")
        });
        self.must(floor.ended.is_none_or(|state| state == job.state()), || {
            format!("I4: {} had {floor:?} and is {:?}", job.name, job.state())
        });
        self.must(!floor.cancelled || is_terminal(job.state()), || {
            format!("I3: {} was cancelled and is {:?}", job.name, job.state())
        });
        if is_terminal(job.state()) {
            self.account(&job.name).ended = Some(job.state());
        }
    }

    /// A watcher was told of an event.
    pub fn event(&mut self, job: &str, event: JobEvent) {
        let account = self.account(job);
        let at = event.sequence as usize;
        if let Some(before) = account.events.get(at.wrapping_sub(1)) {
            let before = before.clone();
            self.must(before == event, || {
                format!("I3: event {at} of {job} was {before:?} and is {event:?}")
            });
            return;
        }
        let known = account.events.len();
        let over = account
            .events
            .iter()
            .rev()
            .find_map(|event| match event.event {
                Some(job_event::Event::State(state)) => Some(state),
                _ => None,
            });
        let over = over.and_then(|state| JobState::try_from(state).ok());
        let twice = match &event.event {
            Some(job_event::Event::UnitCommitted(unit)) => !account.committed.insert(*unit),
            _ => false,
        };
        account.events.push(event.clone());
        self.must(at == known + 1, || {
            format!("event {at} of {job} came after event {known}")
        });
        self.must(!twice, || format!("I1: {job} commits twice: {event:?}"));
        self.must(!over.is_some_and(is_terminal), || {
            format!("I4: {job} was {over:?}, and then came {event:?}")
        });
    }

    /// A client read a result.
    pub fn result(&mut self, job: &str, request: &v1::Job, unit: u64, bytes: Vec<u8>) {
        let account = self.account(job);
        let before = account
            .results
            .entry(unit)
            .or_insert_with(|| bytes.clone())
            .clone();
        self.must(before == bytes, || {
            format!("I3: the result of unit {unit} of {job} has changed")
        });
        let key = (job.to_owned(), unit);
        if let Some(told) = self.acknowledged.get(&key) {
            let same = *told == bytes;
            self.must(same, || {
                format!("I3: unit {unit} of {job} has another result than was acknowledged")
            });
        }
        if bytes == engine::expected(request, unit) {
            return;
        }
        let forged = self.forged.get(&key).into_iter().flatten();
        let verdict = forged
            .filter(|(sent, _)| *sent == bytes)
            .any(|(_, fair)| *fair);
        self.must(verdict, || {
            let result = v1::UnitResult::decode(bytes.as_slice());
            format!("I2: unit {unit} of {job} has a result that nobody could commit: {result:?}")
        });
    }

    /// A liar sends a result. `fair`: under a lease of its own, so that it may be taken.
    pub fn forge(&mut self, job: &str, unit: u64, bytes: &[u8], fair: bool) {
        let sent = self.forged.entry((job.to_owned(), unit)).or_default();
        sent.push((bytes.to_vec(), fair));
    }

    /// A worker was told that the unit has this result.
    pub fn acknowledge(&mut self, job: &str, unit: u64, bytes: &[u8]) {
        let key = (job.to_owned(), unit);
        let foul = self.forged.get(&key).into_iter().flatten();
        let foul = foul.clone().any(|(sent, fair)| sent == bytes && !fair)
            && !foul.clone().any(|(sent, fair)| sent == bytes && *fair);
        self.must(!foul, || {
            format!("I2: a result of unit {unit} of {job} was taken without a current lease")
        });
        let before = self.acknowledged.insert(key, bytes.to_vec());
        self.must(before.is_none_or(|before| before == bytes), || {
            format!("I1: two results of unit {unit} of {job} were acknowledged")
        });
    }

    /// The store that the coordinator left is all that was acknowledged.
    pub fn audit(&mut self, opened: Result<Store, palimpsest::store::Error>) {
        let store = match opened {
            Ok(store) => store,
            Err(error) => return self.must(false, || format!("the store is lost: {error}")),
        };
        for name in self.names() {
            let id = name.trim_start_matches("jobs/").parse().expect("an id");
            let results = store
                .results(id, 0, usize::MAX, usize::MAX)
                .expect("results");
            let stored: BTreeMap<u64, Vec<u8>> = results
                .into_iter()
                .map(|(unit, _, bytes)| (unit, bytes))
                .collect();
            let told = self
                .acknowledged
                .range((name.clone(), 0)..=(name.clone(), u64::MAX));
            let told = told.map(|((_, unit), bytes)| (*unit, bytes.clone()));
            let told: Vec<_> = told.chain(self.jobs[&name].results.clone()).collect();
            for (unit, bytes) in told {
                self.must(stored.get(&unit) == Some(&bytes), || {
                    format!("I3: the store lost the result of unit {unit} of {name}")
                });
            }
            let events = store.events(id, 0, usize::MAX).expect("events");
            let account = &self.jobs[&name];
            let same = events[..account.events.len()] == account.events[..];
            let units: BTreeSet<u64> = stored.keys().copied().collect();
            let commits: Vec<u64> = events
                .iter()
                .filter_map(|event| match event.event {
                    Some(job_event::Event::UnitCommitted(unit)) => Some(unit),
                    _ => None,
                })
                .collect();
            let once = commits.len() == units.len() && commits.iter().all(|u| units.contains(u));
            let gapless = events
                .iter()
                .enumerate()
                .all(|(n, event)| event.sequence == n as u64 + 1);
            self.must(same, || format!("I3: the store has other events of {name}"));
            self.must(once, || {
                format!("I1: {name} has the results {units:?} and the commits {commits:?}")
            });
            self.must(gapless, || format!("{name} has a gap in its events"));
            let diverged = store.divergences(id).expect("divergences");
            // Whole machines compute the same bytes: what diverges was forged, under a lease that
            // was live. What comes under none writes nothing.
            let unforged = diverged.into_iter().find(|(unit, record)| {
                let forged = self.forged.get(&(name.clone(), *unit));
                let digest = |(bytes, _): &Forged| Digest::of(bytes).to_string();
                !forged.is_some_and(|sent| sent.iter().any(|it| digest(it) == record.digest))
            });
            self.must(unforged.is_none(), || {
                format!("{name}: nobody forged the divergence {unforged:?}")
            });
        }
    }

    fn account(&mut self, job: &str) -> &mut Account {
        self.jobs.entry(job.to_owned()).or_default()
    }
}
