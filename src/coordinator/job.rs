//! A job in the core's memory: its tasks, what they have committed, and what of it is written.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use prost::Message as _;
use uuid::Uuid;

use super::event::{Effect, LeaseKey, Millis, NewJob, Time};
use super::reuse;
use super::stages::Stages;
use super::task::{Holder, Tally, Task, is_over};
use crate::invariants::Invariant;
use crate::objects::Digest;
use crate::proto::v1::{self, FailureClass, JobState, TaskState};
use crate::store::{CachedResult, Change, FailedUnit, JobRecord, ResultRecord, UnitRef, Value};
use crate::text;
use crate::wire;
use crate::work::{self, Found, Items, Keys, Needs};

/// How many durations of tasks a job remembers, for their median.
const DURATIONS: usize = 101;

/// What an event sets in motion: the time it happened at, and the effects so far.
pub(super) struct Effects {
    pub(super) now: Millis,
    pub(super) date: Millis,
    pub(super) all: Vec<Effect>,
}

impl Effects {
    pub(super) fn time(&self) -> Time {
        Time {
            now: self.now,
            date: self.date,
        }
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.all.push(effect);
    }
}

/// Most bytes of why a stage failed in what the units of the later ones say.
const FAILURE_BYTES: usize = 500;

/// A job in memory.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: Uuid,
    /// The normalised job, without its many parts.
    pub(super) spec: v1::Job,
    /// What lists show of it, but for what changes.
    pub(super) shown: v1::Job,
    /// Its many parts: facts, prompts.
    pub(super) items: Items,
    /// The model, without tensors.
    pub(super) model: v1::Model,
    pub(super) needs: Needs,
    pub(super) owner: Arc<str>,
    pub(super) state: JobState,
    pub(super) stages: Stages,
    pub(super) tasks: Vec<Task>,
    pub(super) tally: Tally,
    /// Tasks that wait for a worker.
    pub(super) pending: BTreeSet<u32>,
    /// Tasks that wait for their next attempt, by the time of it.
    pub(super) delayed: BTreeSet<(Millis, u32)>,
    /// First bytes of the digest of every committed unit; 0 for none.
    committed: Vec<u64>,
    /// Units that are committed, of those that are results.
    units_done: u64,
    /// The committed units whose result is a failure.
    pub(super) failed: BTreeSet<u64>,
    /// The first failure of the newest stage that has one.
    pub(super) first_failure: Option<FailedUnit>,
    /// Units that are results: the first ones. What only prepares them has numbers after that.
    pub(super) units: u64,
    /// Units whose result is that of a unit of an earlier job.
    pub(super) cached: u64,
    /// None when no other job can use the results.
    pub(super) keys: Option<Keys>,
    /// What the units of earlier stages told.
    pub(super) found: Found,
    /// Who asked for it.
    pub(super) principal: String,
    pub(super) request_id: String,
    pub(super) request_digest: String,
    pub(super) created: Millis,
    pub(super) started: Option<Millis>,
    pub(super) ended: Option<Millis>,
    /// The newest date of all that happened to it: what comes later is not dated earlier, though
    /// the machine's clock was set back.
    pub(super) newest: Millis,
    pub(super) sequence: u64,
    /// When a worker last took a task of it. Not kept: it only orders what comes next.
    pub(super) served: Millis,
    /// How long its newest tasks ran, in milliseconds. Not kept: it is measured again.
    pub(super) durations: VecDeque<Millis>,
    /// Whether it counts among the open jobs of its owner.
    pub(super) open: bool,
    /// Whether the queue has it among those with a task to give.
    pub(super) queued: bool,
    /// Tasks whose records are to be written.
    dirty: BTreeSet<u32>,
}

impl Job {
    pub(super) fn new(new: NewJob, time: Time) -> Self {
        let stages = Stages::new(work::stages(&new.job, &new.items), &new.tasks);
        let tasks: Vec<Task> = new
            .tasks
            .iter()
            .map(|plan| {
                let stage = stages.of_unit(plan.first_unit);
                let state = [TaskState::Blocked, TaskState::Pending][usize::from(stage == 0)];
                Task::new(plan, stage, state)
            })
            .collect();
        let pending = (0..tasks.len() as u32)
            .filter(|n| tasks[*n as usize].state == TaskState::Pending)
            .collect();
        let (spec, items) = (new.job, new.items);
        Self {
            id: new.id,
            owner: spec.owner.as_str().into(),
            keys: reuse::keys(&spec, &new.model),
            cached: 0,
            needs: work::needs(&spec, &new.model.shape.unwrap_or_default()),
            shown: work::summary(&spec, &items),
            spec,
            items,
            model: new.model,
            state: JobState::Queued,
            tally: Tally {
                waiting: tasks.len() as u64,
                ..Tally::default()
            },
            tasks,
            pending,
            delayed: BTreeSet::new(),
            committed: vec![0; stages.units() as usize],
            units_done: 0,
            failed: BTreeSet::new(),
            first_failure: None,
            units: stages.results(),
            stages,
            found: Found::default(),
            principal: new.principal,
            request_id: new.request_id,
            request_digest: new.request_digest,
            created: time.date,
            started: None,
            ended: None,
            newest: time.date,
            sequence: 0,
            served: time.now,
            durations: VecDeque::new(),
            open: false,
            queued: false,
            dirty: BTreeSet::new(),
        }
    }

    /// What people call the stage of a task.
    pub(super) fn stage_name(&self, task: &Task) -> &'static str {
        self.stages.get(task.stage).map_or("", |it| it.stage.name)
    }

    /// Moves a task to a state, with all that counts by it.
    pub(super) fn set_state(&mut self, n: u32, state: TaskState) {
        let task = &mut self.tasks[n as usize];
        Invariant::I4.check(!is_over(task.state) || task.state == state, || {
            format!("task {n} goes from {:?} to {state:?}", task.state)
        });
        self.tally.remove(task.state);
        self.tally.add(state);
        if is_over(state) && !is_over(task.state) {
            self.stages.task_ended(task.stage);
        }
        task.state = state;
        if state != TaskState::Leased {
            task.second = None;
        }
        let delayed = task.trouble.as_mut().and_then(|it| it.delayed_until.take());
        if let Some(until) = delayed {
            self.delayed.remove(&(until, n));
        }
        if state == TaskState::Pending {
            self.pending.insert(n);
        } else {
            self.pending.remove(&n);
        }
    }

    /// Keeps a pending task back until a time.
    pub(super) fn delay(&mut self, n: u32, until: Millis) {
        self.pending.remove(&n);
        self.delayed.insert((until, n));
        self.tasks[n as usize].trouble().delayed_until = Some(until);
    }

    /// Lets tasks go whose wait is over.
    pub(super) fn end_delays(&mut self, now: Millis) {
        while let Some(&(until, n)) = self.delayed.first() {
            if until > now {
                break;
            }
            self.delayed.pop_first();
            self.tasks[n as usize].trouble().delayed_until = None;
            self.pending.insert(n);
        }
    }

    /// Opens the stages whose turn has come: each unit of those before has its result (I13). Where
    /// one failed that may not be left out, the stages after it fail with it. `told` says that it
    /// happens now, and not that it is found so after a restart.
    pub(super) fn open_stages(&mut self, mut told: Option<&mut Effects>) {
        while let Some(open) = self.stages.get(self.stages.open())
            && open.is_over()
            && self.stages.open() + 1 < self.stages.len()
        {
            let work = work::of(&self.spec);
            let needed = work.is_some_and(|it| !it.leaves_out_failures(&open.stage));
            if open.failed > 0 && needed {
                if let Some(effects) = told {
                    self.fail_later_stages(effects);
                }
                return;
            }
            self.stages.open_next();
            let number = self.stages.open();
            let next = self.stages.get(number);
            for n in next.map_or(0..0, |stage| stage.tasks()) {
                let task = &self.tasks[n as usize];
                if task.state != TaskState::Blocked {
                    continue;
                }
                // All of its units were answered by earlier jobs.
                if task.units_done == task.units {
                    self.set_state(n, TaskState::Done);
                    if let Some(effects) = told.as_deref_mut() {
                        self.tell(n, effects);
                    }
                } else {
                    self.set_state(n, TaskState::Pending);
                }
            }
            if let Some(effects) = told.as_deref_mut() {
                self.event(v1::job_event::Event::StageBegun(number), effects);
            }
        }
    }

    /// Fails the tasks of the stages after the open one: it has a unit that they cannot do without.
    fn fail_later_stages(&mut self, effects: &mut Effects) {
        let open = self.stages.open();
        let Some(stage) = self.stages.get(open).map(|it| it.stage.clone()) else {
            return;
        };
        let unit = self.failed.range(stage.range()).next();
        let unit = unit.copied().unwrap_or(stage.first_unit);
        // A unit that only prepares results has none that can be looked at.
        let why = match &self.first_failure {
            Some(first) if stage.range().contains(&first.unit) => {
                format!("unit {}: {}", first.unit, first.why)
            }
            _ => format!("see unit {unit}"),
        };
        let what = format!(
            "stage {open} ({}) has a unit that failed, and this one needs it: {why}",
            stage.name
        );
        for n in 0..self.tasks.len() as u32 {
            if self.tasks[n as usize].state == TaskState::Blocked {
                self.fail_task(n, FailureClass::Invalid, &what, effects);
            }
        }
    }

    /// Cuts a waiting task in two: it keeps its first `units`, and a new task takes the rest.
    pub(super) fn split(&mut self, n: u32, units: u32) {
        let task = &mut self.tasks[n as usize];
        let share = f64::from(units) / f64::from(task.units);
        let mut rest = task.plan();
        rest.first_unit += u64::from(units);
        rest.units -= u64::from(units);
        rest.cost *= 1.0 - share;
        task.units = units;
        task.cost *= share;
        task.recut = true;
        let mut rest = Task::new(&rest, task.stage, TaskState::Pending);
        rest.recut = true;
        // It has failed as often as the task it was part of.
        rest.trouble.clone_from(&task.trouble);
        rest.units_done = self.count_committed(rest.range());
        self.tasks[n as usize].units_done -= rest.units_done;
        let new = self.tasks.len() as u32;
        self.stages.add_task(rest.first_unit);
        self.tasks.push(rest);
        self.tally.add(TaskState::Pending);
        self.pending.insert(new);
        self.dirty.extend([n, new]);
    }

    fn count_committed(&self, units: std::ops::Range<u64>) -> u32 {
        units.filter(|unit| self.committed(*unit).is_some()).count() as u32
    }

    /// First bytes of the digest of a unit's result, if it has one.
    pub(super) fn committed(&self, unit: u64) -> Option<u64> {
        let digest = self.committed.get(unit as usize)?;
        Some(*digest).filter(|digest| *digest != 0)
    }

    /// As [`Job::committed`] keeps a digest: never 0, which means none.
    pub(super) fn mark(digest: u64) -> u64 {
        digest.max(1)
    }

    /// Counts a unit that has its result, as one of a task.
    pub(super) fn count_unit(&mut self, n: u32, unit: u64, digest: u64, failed: bool) {
        let before = self.committed(unit);
        Invariant::I1.check(before.is_none(), || {
            format!("unit {unit} is committed twice")
        });
        if let Some(place) = self.committed.get_mut(unit as usize) {
            *place = Self::mark(digest);
        }
        self.units_done += u64::from(unit < self.units);
        self.stages.count_unit(unit, failed);
        if failed {
            self.failed.insert(unit);
        }
        self.tasks[n as usize].units_done += 1;
    }

    /// Takes the results of earlier jobs for the units that they answer, and ends the tasks that
    /// have nothing left to do.
    pub(super) fn reuse(&mut self, earlier: Vec<(u64, CachedResult)>, effects: &mut Effects) {
        if earlier.is_empty() {
            return;
        }
        for (unit, answer) in earlier {
            let Some(n) = self.task_of(unit) else {
                continue;
            };
            self.count_unit(n, unit, answer.digest.prefix(), false);
            self.count_cached(unit);
            if let (Some(work), Some(told)) = (work::of(&self.spec), &answer.told) {
                work.note(told, &mut self.found);
            }
            let (job, of) = answer.source;
            let record = ResultRecord {
                value: Some(Value {
                    inline: None,
                    digest: answer.digest.to_string(),
                }),
                epoch: 0,
                worker: answer.worker,
                fingerprint: answer.fingerprint,
                failed: false,
                source: Some(UnitRef::new(job, of)),
                landed: None,
            };
            let change = Change::Result(self.id, unit, record, bytes::Bytes::new());
            effects.push(Effect::Change(change));
        }
        // One event for all of them: a million units may be answered at once.
        self.event(v1::job_event::Event::UnitsCached(self.cached), effects);
        for n in 0..self.tasks.len() as u32 {
            let task = &self.tasks[n as usize];
            // Those of a later stage end when it is opened.
            if task.units_done == task.units && task.stage <= self.stages.open() {
                self.set_state(n, TaskState::Done);
                self.tell(n, effects);
            }
        }
        self.open_stages(Some(effects));
        if self.tally.waiting == 0 {
            self.started = Some(self.dated(effects));
        }
    }

    /// Counts a unit whose result is that of a unit of an earlier job.
    pub(super) fn count_cached(&mut self, unit: u64) {
        self.cached += u64::from(unit < self.units);
        self.stages.count_cached(unit);
    }

    /// The task of a unit, as the job was cut when it was accepted: those of a stage are in the
    /// order of their units.
    fn task_of(&self, unit: u64) -> Option<u32> {
        let range = self.stages.get(self.stages.of_unit(unit))?.tasks();
        let tasks = &self.tasks[range.start as usize..range.end as usize];
        let after = tasks.partition_point(|task| task.first_unit <= unit);
        after.checked_sub(1).map(|n| n as u32 + range.start)
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn commit(
        &mut self,
        n: u32,
        unit: u64,
        bytes: bytes::Bytes,
        digest: u64,
        record: ResultRecord,
        effects: &mut Effects,
    ) {
        self.count_unit(n, unit, digest, record.failed);
        if record.failed {
            self.note_failure(unit, &bytes);
        }
        let change = Change::Result(self.id, unit, record, bytes);
        effects.push(Effect::Change(change));
        self.event(v1::job_event::Event::UnitCommitted(unit), effects);
    }

    /// Notes why a unit failed, where it is the first of its stage.
    fn note_failure(&mut self, unit: u64, bytes: &[u8]) {
        let noted = self.first_failure.as_ref().map(|first| first.unit);
        let stage = self.stages.of_unit(unit);
        if noted.is_some_and(|noted| self.stages.of_unit(noted) >= stage) {
            return;
        }
        let result = v1::UnitResult::decode(bytes).unwrap_or_default();
        if let Some(v1::unit_result::Outcome::Failure(failure)) = result.outcome {
            let why = text::cut(&failure.message, FAILURE_BYTES);
            self.first_failure = Some(FailedUnit { unit, why });
        }
    }

    /// Whether an outcome is one of this unit.
    pub(super) fn accept(
        &self,
        unit: u64,
        outcome: Option<&v1::unit_result::Outcome>,
    ) -> Result<(), String> {
        match (work::of(&self.spec), outcome) {
            (Some(_), Some(v1::unit_result::Outcome::Failure(_))) => Ok(()),
            (Some(work), Some(outcome)) => {
                if let Some((field, value)) = wire::not_finite(outcome) {
                    return Err(format!("its {field} is {value}"));
                }
                let shape = self.model.shape.unwrap_or_default();
                if let Some(what) = wire::out_of_range(outcome, &shape) {
                    return Err(format!("its {what}"));
                }
                work.accept(&self.items, unit, outcome, &shape)
            }
            _ => Err("it says nothing".to_owned()),
        }
    }

    /// The digest of all that decides a unit's value, where another job can use it.
    pub(super) fn digest_of(&self, unit: u64) -> Option<Digest> {
        let keys = self.keys.as_ref()?;
        reuse::key_of(keys, &self.spec, &self.items, unit, &self.found)
    }

    /// Ends a task for good: its open units get a failure as their result.
    pub(super) fn fail_task(
        &mut self,
        n: u32,
        class: FailureClass,
        what: &str,
        effects: &mut Effects,
    ) {
        for unit in self.tasks[n as usize].range() {
            if self.committed(unit).is_some() {
                continue;
            }
            let failure = v1::Failure {
                failure_class: class as i32,
                message: what.to_owned(),
            };
            let result = v1::UnitResult {
                unit,
                outcome: Some(v1::unit_result::Outcome::Failure(failure)),
            };
            let bytes = bytes::Bytes::from(result.encode_to_vec());
            let digest = Digest::of(&bytes).prefix();
            let record = ResultRecord {
                failed: true,
                ..ResultRecord::default()
            };
            self.commit(n, unit, bytes, digest, record, effects);
        }
        what.clone_into(&mut self.tasks[n as usize].trouble().last_failure);
        self.set_state(n, TaskState::Failed);
        self.tell(n, effects);
    }

    /// Brings the job's state up to that of its tasks.
    pub(super) fn settle(&mut self, effects: &mut Effects) {
        if is_terminal(self.state) {
            return;
        }
        let tally = self.tally;
        let idle = tally.leased == 0 && self.pending.is_empty() && self.delayed.is_empty();
        if tally.waiting + tally.leased == 0 {
            self.end(
                match self.failed.is_empty() {
                    true => JobState::Succeeded,
                    false => JobState::Failed,
                },
                effects,
            );
        } else if idle && tally.quarantined > 0 {
            self.set_job_state(JobState::Held, effects);
        } else if tally.leased > 0 || self.state == JobState::Held {
            let date = self.dated(effects);
            self.started.get_or_insert(date);
            self.set_job_state(JobState::Running, effects);
        }
    }

    pub(super) fn end(&mut self, state: JobState, effects: &mut Effects) {
        self.ended = Some(self.dated(effects));
        self.set_job_state(state, effects);
    }

    fn set_job_state(&mut self, state: JobState, effects: &mut Effects) {
        Invariant::I4.check(!is_terminal(self.state), || {
            format!("jobs/{} goes from {:?} to {state:?}", self.id, self.state)
        });
        if self.state != state {
            self.state = state;
            self.event(v1::job_event::Event::State(state as i32), effects);
        }
    }

    /// The date of what happens to it now: by the machine's clock, and not before what happened to
    /// it already.
    fn dated(&mut self, effects: &Effects) -> Millis {
        self.newest = self.newest.max(effects.date);
        self.newest
    }

    pub(super) fn event(&mut self, event: v1::job_event::Event, effects: &mut Effects) {
        self.sequence += 1;
        let event = v1::JobEvent {
            sequence: self.sequence,
            time: Some(timestamp(self.dated(effects))),
            event: Some(event),
        };
        effects
            .all
            .push(Effect::Change(Change::Event(self.id, event)));
        effects.push(Effect::Wake(self.id));
    }

    /// Tells of a task that came to a new state, and sees to it that it is written.
    pub(super) fn tell(&mut self, n: u32, effects: &mut Effects) {
        self.dirty.insert(n);
        let event = v1::job_event::Event::Task(self.task(n));
        self.event(event, effects);
    }

    /// The records of what changed since they were last asked for.
    pub(super) fn records(&mut self, changes: &mut Vec<Change>) {
        for n in std::mem::take(&mut self.dirty) {
            let record = self.tasks[n as usize].record();
            changes.push(Change::Task(self.id, n, record));
        }
        let record = JobRecord {
            job: Some(self.summary()),
            request_id: self.request_id.clone(),
            request_digest: self.request_digest.clone(),
            noise_scale: self.found.noise_scale,
            version: self.found.version.clone(),
            etag: self.found.etag.clone(),
            contexts: self.found.contexts.clone(),
            principal: self.principal.clone(),
            newest: self.newest,
            first_failure: self.first_failure.clone(),
        };
        changes.push(Change::Job(self.id, record));
    }

    /// The version that a unit runs on.
    pub(super) fn version_of(&self, unit: u64) -> &str {
        let named = work::of(&self.spec)
            .and_then(|work| work.version_of(&self.spec.version, &self.items, unit));
        let made = self.found.version.as_deref();
        named.or(made).unwrap_or(&self.spec.version)
    }

    /// What a worker is sent of a task: the units that have no result yet.
    pub(super) fn lease(&self, key: LeaseKey) -> v1::Lease {
        let range = self.tasks[key.task as usize].range();
        let version = self.version_of(range.start).to_owned();
        let work = work::of(&self.spec);
        let open = range.filter(|unit| self.committed(*unit).is_none());
        let units = open.filter_map(|unit| {
            let spec = work?.unit(&self.spec.version, &self.items, unit)?;
            let spec = Some(spec);
            Some(v1::LeasedUnit { unit, spec })
        });
        v1::Lease {
            key: Some(key.to_proto()),
            model: Some(self.model.clone()),
            units: units.collect(),
            noise_scale: self.found.noise_scale,
            version,
            trace_parent: self.spec.trace_parent.clone(),
            settings: work.map(|work| work.settings(&self.found)),
        }
    }

    /// The live leases of a task.
    pub(super) fn live(&self, n: u32) -> Vec<(LeaseKey, Holder)> {
        let key = |holder: &Holder| LeaseKey {
            job: self.id,
            task: n,
            epoch: holder.epoch,
        };
        self.tasks[n as usize]
            .holders()
            .map(|holder| (key(holder), holder.clone()))
            .collect()
    }

    pub(super) fn note_duration(&mut self, duration: Millis) {
        if self.durations.len() == DURATIONS {
            self.durations.pop_front();
        }
        self.durations.push_back(duration);
    }

    /// Half of the newest tasks ran for less.
    pub(super) fn median_duration(&self) -> Option<Millis> {
        let mut durations: Vec<_> = self.durations.iter().copied().collect();
        let middle = durations.len() / 2;
        (!durations.is_empty()).then(|| *durations.select_nth_unstable(middle).1)
    }

    pub(super) fn counts(&self) -> v1::JobCounts {
        let tally = self.tally;
        v1::JobCounts {
            tasks: self.tasks.len() as u64,
            tasks_pending: tally.waiting,
            tasks_leased: tally.leased,
            tasks_done: tally.done,
            tasks_failed: tally.failed,
            tasks_cancelled: tally.cancelled,
            tasks_quarantined: tally.quarantined,
            units: self.units,
            units_done: self.units_done,
            units_failed: self.failed.range(..self.units).count() as u64,
            units_cached: self.cached,
            stages: u64::from(self.stages.len()),
            stages_done: self.stages.done(),
        }
    }

    pub(super) fn summary(&self) -> v1::Job {
        v1::Job {
            name: format!("jobs/{}", self.id),
            state: self.state as i32,
            counts: Some(self.counts()),
            create_time: Some(timestamp(self.created)),
            start_time: self.started.map(timestamp),
            end_time: self.ended.map(timestamp),
            last_sequence: self.sequence,
            ..self.shown.clone()
        }
    }

    pub(super) fn task(&self, n: u32) -> v1::Task {
        let task = &self.tasks[n as usize];
        let name = |holder: &Holder| format!("workers/{}", holder.worker);
        let (lease, second) = (task.lease.as_ref(), task.second.as_deref());
        v1::Task {
            name: format!("jobs/{}/tasks/{n}", self.id),
            state: task.state as i32,
            first_unit: task.first_unit,
            unit_count: u64::from(task.units),
            units_done: u64::from(task.units_done),
            worker: lease.map(name).unwrap_or_default(),
            epoch: lease.map_or(0, |it| it.epoch),
            failures: task.failure_counts(),
            last_failure: task.last_failure().to_owned(),
            estimated_cost: task.cost,
            second_worker: second.map(name).unwrap_or_default(),
            second_epoch: second.map_or(0, |it| it.epoch),
            stage: task.stage,
        }
    }
}

/// Whether a job's state is final.
pub fn is_terminal(state: JobState) -> bool {
    matches!(
        state,
        JobState::Succeeded | JobState::Failed | JobState::Cancelled
    )
}

pub(super) fn timestamp(millis: Millis) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (millis / 1000) as i64,
        nanos: (millis % 1000) as i32 * 1_000_000,
    }
}

pub(super) fn millis(timestamp: prost_types::Timestamp) -> Millis {
    // What a worker says may be anything.
    let seconds = u64::try_from(timestamp.seconds).unwrap_or_default();
    let nanos = u64::try_from(timestamp.nanos).unwrap_or_default();
    seconds
        .saturating_mul(1000)
        .saturating_add(nanos / 1_000_000)
}
