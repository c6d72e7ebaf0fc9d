//! A task in the core's memory. A sweep may have a million of them, so what most never need (their
//! failures, a second lease) lies behind a pointer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::Millis;
use crate::proto::v1::{self, FailureClass, TaskState};
use crate::store::{TaskPlan, TaskRecord};

/// A shard of a job.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) first_unit: u64,
    pub(super) units: u32,
    pub(super) units_done: u32,
    /// Estimated multiply-adds.
    pub(super) cost: f64,
    pub(super) state: TaskState,
    /// The stage that its units are of.
    pub(super) stage: u32,
    /// Whether it was cut again after the job was accepted: its plan is then kept with its record.
    pub(super) recut: bool,
    /// Its newest lease. Live while the state is `Leased`.
    pub(super) lease: Option<Holder>,
    /// A second live lease on another worker, given because the first takes too long.
    pub(super) second: Option<Box<Holder>>,
    pub(super) trouble: Option<Box<Trouble>>,
}

/// Who holds a task, and under which epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) epoch: u64,
    pub(super) worker: Arc<str>,
}

/// What went wrong with a task.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    /// Ended attempts by class of failure.
    pub(super) failures: BTreeMap<i32, u32>,
    pub(super) last_failure: String,
    /// The distinct workers that were lost while they ran it, before they had committed a unit of
    /// it.
    pub(super) lost_workers: BTreeSet<String>,
    /// When its next attempt may begin.
    pub(super) delayed_until: Option<Millis>,
}

impl Task {
    pub(super) fn new(plan: &TaskPlan, stage: u32, state: TaskState) -> Self {
        Self {
            first_unit: plan.first_unit,
            units: plan.units as u32,
            units_done: 0,
            cost: plan.cost,
            state,
            stage,
            recut: false,
            lease: None,
            second: None,
            trouble: None,
        }
    }

    pub(super) fn plan(&self) -> TaskPlan {
        TaskPlan {
            first_unit: self.first_unit,
            units: u64::from(self.units),
            cost: self.cost,
        }
    }

    pub(super) fn range(&self) -> std::ops::Range<u64> {
        self.first_unit..self.first_unit + u64::from(self.units)
    }

    /// The live leases, the newest last.
    pub(super) fn holders(&self) -> impl Iterator<Item = &Holder> {
        let live = self.state == TaskState::Leased;
        let second = self.second.as_deref();
        self.lease.iter().filter(move |_| live).chain(second)
    }

    /// Whether this is one of its live leases (I2).
    pub(super) fn is_held(&self, epoch: u64, worker: &str) -> bool {
        self.holders()
            .any(|holder| holder.epoch == epoch && *holder.worker == *worker)
    }

    /// Takes a live lease off. The task stays `Leased`; gives whether another lease is left.
    pub(super) fn take_off(&mut self, epoch: u64) -> bool {
        match self.second.take() {
            Some(second) if second.epoch == epoch => true,
            Some(second) => {
                self.lease = Some(*second);
                true
            }
            None => false,
        }
    }

    pub(super) fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    pub(super) fn last_failure(&self) -> &str {
        self.trouble.as_ref().map_or("", |it| &it.last_failure)
    }

    /// Whether this worker was lost while it held the task.
    pub(super) fn lost(&self, worker: &str) -> bool {
        let trouble = self.trouble.as_ref();
        trouble.is_some_and(|it| it.lost_workers.contains(worker))
    }

    /// Failures that count against the attempts of a task (I7).
    pub(super) fn counted_failures(&self) -> u32 {
        let Some(trouble) = &self.trouble else {
            return 0;
        };
        [
            FailureClass::Transient,
            FailureClass::OutOfMemory,
            FailureClass::Unspecified,
        ]
        .iter()
        .filter_map(|class| trouble.failures.get(&(*class as i32)))
        .sum()
    }

    pub(super) fn failure_counts(&self) -> Vec<v1::FailureCount> {
        self.trouble
            .iter()
            .flat_map(|trouble| &trouble.failures)
            .map(|(&failure_class, &count)| v1::FailureCount {
                failure_class,
                count,
            })
            .collect()
    }

    /// As the store keeps it.
    pub(super) fn record(&self) -> TaskRecord {
        let (epoch, worker) = parts(self.lease.as_ref());
        let (second_epoch, second_worker) = parts(self.second.as_deref());
        let lost = self.trouble.iter().flat_map(|it| &it.lost_workers);
        TaskRecord {
            state: self.state as i32,
            epoch,
            worker,
            failures: self.failure_counts(),
            last_failure: self.last_failure().to_owned(),
            lost_workers: lost.cloned().collect(),
            plan: self.recut.then(|| self.plan()),
            second_epoch,
            second_worker,
        }
    }

    /// Takes up what the store kept, except for the state.
    pub(super) fn restore(&mut self, record: &TaskRecord) {
        if let Some(plan) = &record.plan {
            self.first_unit = plan.first_unit;
            self.units = plan.units as u32;
            self.cost = plan.cost;
            self.recut = true;
        }
        let holder = |epoch, worker: &str| {
            (epoch > 0).then(|| Holder {
                epoch,
                worker: worker.into(),
            })
        };
        self.lease = holder(record.epoch, &record.worker);
        self.second = holder(record.second_epoch, &record.second_worker).map(Box::new);
        let none = record.failures.is_empty()
            && record.last_failure.is_empty()
            && record.lost_workers.is_empty();
        if !none {
            let counts = record.failures.iter().map(|f| (f.failure_class, f.count));
            *self.trouble() = Trouble {
                failures: counts.collect(),
                last_failure: record.last_failure.clone(),
                lost_workers: record.lost_workers.iter().cloned().collect(),
                delayed_until: None,
            };
        }
    }
}

fn parts(holder: Option<&Holder>) -> (u64, String) {
    holder.map_or((0, String::new()), |it| (it.epoch, it.worker.to_string()))
}

/// Whether a task's state is final.
pub(super) fn is_over(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Done | TaskState::Failed | TaskState::Cancelled
    )
}

/// How many tasks stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) waiting: u64,
    /// Of those that wait, how many are in quarantine.
    pub(super) quarantined: u64,
    pub(super) leased: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
}

impl Tally {
    pub(super) fn add(&mut self, state: TaskState) {
        *self.of(state) += 1;
        self.quarantined += u64::from(state == TaskState::Quarantined);
    }

    pub(super) fn remove(&mut self, state: TaskState) {
        *self.of(state) -= 1;
        self.quarantined -= u64::from(state == TaskState::Quarantined);
    }

    fn of(&mut self, state: TaskState) -> &mut u64 {
        match state {
            TaskState::Leased => &mut self.leased,
            TaskState::Done => &mut self.done,
            TaskState::Failed => &mut self.failed,
            TaskState::Cancelled => &mut self.cancelled,
            TaskState::Unspecified
            | TaskState::Blocked
            | TaskState::Pending
            | TaskState::Quarantined => &mut self.waiting,
        }
    }
}
