//! A job in the core's memory: its tasks, what they have committed, and what of it is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost::Message as _;
use uuid::Uuid;

use super::event::{Effect, LeaseKey, Millis, NewJob};
use super::invariants::Invariant;
use super::plan;
use crate::proto::v1::{self, FailureClass, JobState, TaskState};
use crate::store::{Change, JobRecord, ResultRecord, TaskPlan, TaskRecord};

/// A job in memory.
#[derive(Debug)]
pub(super) struct Job {
    /// The normalised job, with its facts or prompts.
    pub(super) spec: v1::Job,
    /// The model, without tensors.
    pub(super) model: v1::Model,
    pub(super) state: JobState,
    pub(super) tasks: Vec<Task>,
    /// Tasks that wait for a worker.
    pub(super) pending: BTreeSet<u32>,
    /// Tasks that wait for their next attempt, by the time of it.
    pub(super) delayed: BTreeSet<(Millis, u32)>,
    /// First bytes of the digest of every committed unit, preparatory ones too.
    pub(super) committed: HashMap<u64, u64>,
    /// The committed units whose result is a failure.
    pub(super) failed: BTreeSet<u64>,
    pub(super) units: u64,
    pub(super) tally: Tally,
    pub(super) noise_scale: Option<f64>,
    pub(super) request_id: String,
    pub(super) request_digest: String,
    pub(super) created: Millis,
    pub(super) started: Option<Millis>,
    pub(super) ended: Option<Millis>,
    pub(super) sequence: u64,
}

/// How many tasks stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) waiting: u64,
    pub(super) leased: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
}

/// A task in memory.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) plan: TaskPlan,
    pub(super) state: TaskState,
    pub(super) epoch: u64,
    pub(super) worker: String,
    pub(super) failures: BTreeMap<i32, u32>,
    pub(super) last_failure: String,
    pub(super) lost_workers: BTreeSet<String>,
    pub(super) units_done: u64,
}

impl Job {
    pub(super) fn new(new: NewJob, now: Millis) -> Self {
        let prepared = !new.tasks.iter().any(|plan| plan.preparatory);
        let tasks: Vec<Task> = new
            .tasks
            .into_iter()
            .map(|plan| Task {
                state: if prepared || plan.preparatory {
                    TaskState::Pending
                } else {
                    TaskState::Blocked
                },
                plan,
                epoch: 0,
                worker: String::new(),
                failures: BTreeMap::new(),
                last_failure: String::new(),
                lost_workers: BTreeSet::new(),
                units_done: 0,
            })
            .collect();
        let pending = (0..tasks.len() as u32)
            .filter(|n| tasks[*n as usize].state == TaskState::Pending)
            .collect();
        Self {
            units: plan::units(&new.job),
            spec: new.job,
            model: new.model,
            state: JobState::Queued,
            tally: Tally {
                waiting: tasks.len() as u64,
                ..Tally::default()
            },
            tasks,
            pending,
            delayed: BTreeSet::new(),
            committed: HashMap::new(),
            failed: BTreeSet::new(),
            noise_scale: None,
            request_id: new.request_id,
            request_digest: new.request_digest,
            created: now,
            started: None,
            ended: None,
            sequence: 0,
        }
    }

    /// Moves a task to a state, with all that counts by it.
    pub(super) fn set_state(&mut self, n: u32, state: TaskState) {
        let task = &mut self.tasks[n as usize];
        Invariant::I4.check(!is_over(task.state) || task.state == state, || {
            format!("task {n} goes from {:?} to {state:?}", task.state)
        });
        *self.tally.of(task.state) -= 1;
        *self.tally.of(state) += 1;
        task.state = state;
        if state == TaskState::Pending {
            self.pending.insert(n);
        } else {
            self.pending.remove(&n);
            self.delayed.retain(|(_, delayed)| *delayed != n);
        }
    }

    pub(super) fn unblock(&mut self) {
        for n in 0..self.tasks.len() as u32 {
            if self.tasks[n as usize].state == TaskState::Blocked {
                self.set_state(n, TaskState::Pending);
            }
        }
    }

    pub(super) fn task_of_unit(&self, unit: u64) -> Option<usize> {
        if unit >= self.units {
            return self.tasks.iter().position(|task| task.plan.preparatory);
        }
        let skip = self.tasks.partition_point(|task| task.plan.preparatory);
        let after = self.tasks[skip..].partition_point(|task| task.plan.first_unit <= unit) + skip;
        after.checked_sub(1)
    }

    pub(super) fn count_unit(&mut self, unit: u64, digest: u64, failed: bool) {
        let before = self.committed.insert(unit, digest);
        Invariant::I1.check(before.is_none(), || {
            format!("unit {unit} is committed twice")
        });
        if failed {
            self.failed.insert(unit);
        }
        if let Some(n) = self.task_of_unit(unit) {
            self.tasks[n].units_done += 1;
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn commit(
        &mut self,
        id: Uuid,
        unit: u64,
        bytes: bytes::Bytes,
        digest: u64,
        record: ResultRecord,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        self.count_unit(unit, digest, record.failed);
        effects.push(Effect::Change(Change::Result(id, unit, record, bytes)));
        self.event(id, v1::job_event::Event::UnitCommitted(unit), now, effects);
    }

    /// Ends a task for good: its open units get a failure as their result.
    pub(super) fn fail_task(
        &mut self,
        id: Uuid,
        n: u32,
        class: FailureClass,
        what: &str,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let plan = self.tasks[n as usize].plan.clone();
        for unit in plan.first_unit..plan.first_unit + plan.units {
            if self.committed.contains_key(&unit) {
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
            let digest = crate::objects::Digest::of(&bytes).prefix();
            let record = ResultRecord {
                failed: true,
                ..ResultRecord::default()
            };
            self.commit(id, unit, bytes, digest, record, now, effects);
        }
        self.tasks[n as usize].last_failure = what.to_owned();
        self.set_state(n, TaskState::Failed);
        self.save_task(id, n, now, effects);
        if plan.preparatory {
            let what = format!("the scale of the noise could not be found: {what}");
            for n in 0..self.tasks.len() as u32 {
                if self.tasks[n as usize].state == TaskState::Blocked {
                    self.fail_task(id, n, class, &what, now, effects);
                }
            }
        }
    }

    pub(super) fn finish_if_ended(&mut self, id: Uuid, now: Millis, effects: &mut Vec<Effect>) {
        if is_terminal(self.state) || self.tally.waiting + self.tally.leased > 0 {
            return;
        }
        self.state = if !self.failed.is_empty() {
            JobState::Failed
        } else {
            JobState::Succeeded
        };
        self.ended = Some(now);
        self.event(
            id,
            v1::job_event::Event::State(self.state as i32),
            now,
            effects,
        );
    }

    pub(super) fn event(
        &mut self,
        id: Uuid,
        event: v1::job_event::Event,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        self.sequence += 1;
        let event = v1::JobEvent {
            sequence: self.sequence,
            time: Some(timestamp(now)),
            event: Some(event),
        };
        effects.push(Effect::Change(Change::Event(id, event)));
        effects.push(Effect::Wake(id));
    }

    pub(super) fn save(&self, id: Uuid, effects: &mut Vec<Effect>) {
        let record = JobRecord {
            job: Some(plan::summary(&self.summary(id))),
            request_id: self.request_id.clone(),
            request_digest: self.request_digest.clone(),
            noise_scale: self.noise_scale,
        };
        effects.push(Effect::Change(Change::Job(id, record)));
    }

    pub(super) fn save_task(&mut self, id: Uuid, n: u32, now: Millis, effects: &mut Vec<Effect>) {
        let task = &self.tasks[n as usize];
        let record = TaskRecord {
            state: task.state as i32,
            epoch: task.epoch,
            worker: task.worker.clone(),
            failures: task.failure_counts(),
            last_failure: task.last_failure.clone(),
            lost_workers: task.lost_workers.iter().cloned().collect(),
        };
        effects.push(Effect::Change(Change::Task(id, n, record)));
        let event = v1::job_event::Event::Task(self.task(id, n));
        self.event(id, event, now, effects);
    }

    pub(super) fn lease(&self, key: LeaseKey) -> v1::Lease {
        let plan = &self.tasks[key.task as usize].plan;
        let open = (plan.first_unit..plan.first_unit + plan.units)
            .filter(|unit| !self.committed.contains_key(unit));
        let (settings, units) = plan::lease_units(&self.spec, open);
        v1::Lease {
            key: Some(key.to_proto()),
            model: Some(self.model.clone()),
            units,
            noise_scale: self.noise_scale,
            settings,
        }
    }

    pub(super) fn summary(&self, id: Uuid) -> v1::Job {
        let tally = self.tally;
        let preparatory = self.tasks.first().is_some_and(|task| task.plan.preparatory);
        let prepared = preparatory && self.tasks[0].units_done > 0;
        v1::Job {
            name: format!("jobs/{id}"),
            state: self.state as i32,
            counts: Some(v1::JobCounts {
                tasks: self.tasks.len() as u64,
                tasks_pending: tally.waiting,
                tasks_leased: tally.leased,
                tasks_done: tally.done,
                tasks_failed: tally.failed,
                tasks_cancelled: tally.cancelled,
                units: self.units,
                units_done: self.committed.len() as u64 - u64::from(prepared),
                units_failed: self.failed.range(..self.units).count() as u64,
            }),
            create_time: Some(timestamp(self.created)),
            start_time: self.started.map(timestamp),
            end_time: self.ended.map(timestamp),
            last_sequence: self.sequence,
            ..plan::summary(&self.spec)
        }
    }

    pub(super) fn task(&self, id: Uuid, n: u32) -> v1::Task {
        let task = &self.tasks[n as usize];
        v1::Task {
            name: format!("jobs/{id}/tasks/{n}"),
            state: task.state as i32,
            first_unit: task.plan.first_unit,
            unit_count: task.plan.units,
            units_done: task.units_done,
            worker: if task.worker.is_empty() {
                String::new()
            } else {
                format!("workers/{}", task.worker)
            },
            epoch: task.epoch,
            failures: task.failure_counts(),
            last_failure: task.last_failure.clone(),
            estimated_cost: task.plan.cost,
        }
    }
}

impl Task {
    pub(super) fn failure_counts(&self) -> Vec<v1::FailureCount> {
        self.failures
            .iter()
            .map(|(&failure_class, &count)| v1::FailureCount {
                failure_class,
                count,
            })
            .collect()
    }
}

impl Tally {
    pub(super) fn of(&mut self, state: TaskState) -> &mut u64 {
        match state {
            TaskState::Leased => &mut self.leased,
            TaskState::Done => &mut self.done,
            TaskState::Failed => &mut self.failed,
            TaskState::Cancelled => &mut self.cancelled,
            TaskState::Unspecified | TaskState::Blocked | TaskState::Pending => &mut self.waiting,
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

pub(super) fn is_over(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Done | TaskState::Failed | TaskState::Cancelled
    )
}

pub(super) fn timestamp(millis: Millis) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (millis / 1000) as i64,
        nanos: (millis % 1000) as i32 * 1_000_000,
    }
}

pub(super) fn millis(timestamp: prost_types::Timestamp) -> Millis {
    timestamp.seconds as u64 * 1000 + timestamp.nanos as u64 / 1_000_000
}
