//! Leases from their first unit to their end: commits, failures, and what becomes of a task.
//!
//! A task has one live lease, or two when the first takes far longer than the other tasks of its
//! job. A commit is accepted under either (I2), and the first result of a unit is its result (I1).

use std::sync::Arc;

use uuid::Uuid;

use super::core::Core;
use super::event::{Closing, CommittedResult, Effect, LeaseKey, Millis, Session};
use super::job::{Effects, Job};
use super::reuse::may_answer;
use super::task::Holder;
use super::worker::{Held, send};
use crate::invariants::Invariant;
use crate::proto::v1::connect_response::Message;
use crate::proto::v1::{self, FailureClass, TaskState};
use crate::store::{Change, DivergenceRecord, ResultRecord};
use crate::work;

/// A task's wait after its first failure; doubled by each one more.
const BACKOFF: Millis = 500;

/// What the coordinator makes of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is the unit's result, from now on or from before.
    Accepted,
    /// The lease is not live.
    Stale,
    /// The unit has another result.
    Diverges,
    /// It is no result of this unit: why.
    Unfit(String),
}

/// A lease that was taken off its worker and its task.
struct TakenOff {
    worker: Arc<str>,
    held: Held,
    /// When the worker was through with the lease before it.
    last_end: Millis,
    /// Whether the task has another live lease.
    another: bool,
}

impl Core {
    pub(super) fn commit(
        &mut self,
        session: Session,
        key: LeaseKey,
        unit: u64,
        result: CommittedResult,
        effects: &mut Effects,
    ) {
        let Some(name) = self.sessions.get(&session).cloned() else {
            return;
        };
        if let Some(worker) = self.worker_of(session, effects.now)
            && let Some(held) = worker.leases.get_mut(&(key.job, key.task))
        {
            held.steps = 0;
            held.edit = None;
            held.seen = effects.now;
        }
        let verdict = self.judge(&name, key, unit, result, effects);
        if let Verdict::Unfit(what) = verdict {
            let what = format!(
                "the result of unit {unit} of jobs/{} is not one: {what}",
                key.job
            );
            self.note_outcome(&name, false);
            self.release(key, FailureClass::Transient, &what, effects);
            let close = Effect::Close(session, Closing::Unfit(what));
            effects.push(close);
            return;
        }
        let ack = v1::CommitAck {
            lease: Some(key.to_proto()),
            unit,
            accepted: verdict == Verdict::Accepted,
        };
        effects.push(send(session, Message::CommitAck(ack)));
        // A worker drops a lease whose result was not accepted.
        if verdict == Verdict::Diverges && self.is_live(key, &name) {
            let what = format!("unit {unit} came out otherwise than the result it has");
            self.note_outcome(&name, false);
            self.release(key, FailureClass::Transient, &what, effects);
        }
    }

    fn is_live(&self, key: LeaseKey, worker: &str) -> bool {
        let task = self
            .jobs
            .get(&key.job)
            .and_then(|job| job.tasks.get(key.task as usize));
        task.is_some_and(|task| task.is_held(key.epoch, worker))
    }

    fn judge(
        &mut self,
        name: &Arc<str>,
        key: LeaseKey,
        unit: u64,
        result: CommittedResult,
        effects: &mut Effects,
    ) -> Verdict {
        let job = self.jobs.get_mut(&key.job);
        let before = match &job {
            Some(job) => job.committed(unit),
            None => result.before,
        };
        if before == Some(Job::mark(result.digest_prefix)) {
            return Verdict::Accepted;
        }
        let Some(job) = job else {
            return Verdict::Stale;
        };
        let Some(task) = job.tasks.get(key.task as usize) else {
            return Verdict::Stale;
        };
        if !task.is_held(key.epoch, name) || !task.range().contains(&unit) {
            return Verdict::Stale;
        }
        if let Err(what) = job.accept(unit, result.outcome.as_deref()) {
            return Verdict::Unfit(what);
        }
        if before.is_some() {
            let record = DivergenceRecord {
                digest: result.digest,
                worker: name.to_string(),
                fingerprint: result.fingerprint,
            };
            let change = Change::Divergence(key.job, unit, record);
            effects.push(Effect::Change(change));
            self.counters.divergences += 1;
            return Verdict::Diverges;
        }
        Invariant::I2.check(task.holders().any(|it| it.epoch == key.epoch), || {
            format!("{key:?}")
        });
        let record = ResultRecord {
            value: None,
            epoch: key.epoch,
            worker: name.to_string(),
            fingerprint: result.fingerprint,
            failed: result.failed,
            source: None,
            landed: result.landed.clone(),
        };
        let reusable = !record.failed && may_answer(record.fingerprint.as_ref());
        let (bytes, digest) = (result.bytes, result.digest_prefix);
        job.commit(key.task, unit, bytes, digest, record, effects);
        let mut computed = true;
        if let (Some(work), Some(outcome)) = (work::of(&job.spec), &result.outcome) {
            work.note(outcome, &mut job.found);
            computed = work.was_computed(outcome);
        }
        if let Some(landed) = result.landed {
            job.found.land(landed.version, landed.etag);
        }
        if reusable && let Some(digest) = job.digest_of(unit) {
            let change = Change::Cached(digest, key.job, unit);
            effects.push(Effect::Change(change));
        }
        self.counters.units += 1;
        if let Some(worker) = self.workers.get_mut(name) {
            worker.units_committed += 1;
            if let Some(held) = worker.leases.get_mut(&(key.job, key.task)) {
                held.units += 1;
                held.computed += u32::from(computed);
            }
        }
        self.dirty.insert(key.job);
        Verdict::Accepted
    }

    pub(super) fn task_end(
        &mut self,
        session: Session,
        key: LeaseKey,
        failure: Option<v1::Failure>,
        effects: &mut Effects,
    ) {
        let Some(name) = self.sessions.get(&session).cloned() else {
            return;
        };
        if self.worker_of(session, effects.now).is_none() || !self.is_live(key, &name) {
            return;
        }
        match failure {
            Some(failure) => {
                let class = failure.failure_class();
                if matches!(class, FailureClass::Transient | FailureClass::OutOfMemory) {
                    self.note_outcome(&name, false);
                }
                self.release(key, class, &failure.message, effects);
            }
            None => {
                let task = &self.jobs[&key.job].tasks[key.task as usize];
                if task.units_done == task.units {
                    self.note_outcome(&name, true);
                    self.complete(key, effects);
                } else {
                    let what = "the worker ended the task without all its results";
                    self.note_outcome(&name, false);
                    self.release(key, FailureClass::Transient, what, effects);
                }
            }
        }
    }

    /// Takes an edit's lease back: what it was computed on is no longer where its ref is.
    pub(super) fn rebase(
        &mut self,
        key: LeaseKey,
        version: String,
        etag: String,
        effects: &mut Effects,
    ) {
        let Some(job) = self.jobs.get_mut(&key.job) else {
            return;
        };
        let what = format!("the ref moved to {version}: the edit is computed again on that");
        job.found.land(version, etag);
        self.recall_leases(key.job, key.task, effects);
        if let Some(job) = self.jobs.get_mut(&key.job) {
            let trouble = job.tasks[key.task as usize].trouble();
            *trouble
                .failures
                .entry(FailureClass::Preempted as i32)
                .or_default() += 1;
            trouble.last_failure = what;
            job.set_state(key.task, TaskState::Pending);
            job.tell(key.task, effects);
        }
        self.touch(key.job, effects);
    }

    /// Gives a task to a worker, beside the lease it may have.
    pub(super) fn give(&mut self, id: Uuid, n: u32, name: &Arc<str>, effects: &mut Effects) {
        let (Some(job), Some(worker)) = (self.jobs.get_mut(&id), self.workers.get_mut(name)) else {
            return;
        };
        let Some(session) = worker.session else {
            return;
        };
        self.epoch += 1;
        self.counters.leases += 1;
        let key = LeaseKey {
            job: id,
            task: n,
            epoch: self.epoch,
        };
        let mut held = Held::new(key.epoch, effects.now);
        held.warm = worker.has_loaded(&job.model.name);
        worker.leases.insert((id, n), held);
        let within = worker.leases.len() <= worker.credits as usize;
        Invariant::I6.check(within, || name.to_string());
        let holder = Holder {
            epoch: key.epoch,
            worker: name.clone(),
        };
        let task = &mut job.tasks[n as usize];
        if task.state == TaskState::Leased {
            task.second = Some(Box::new(holder));
        } else {
            task.lease = Some(holder);
            job.set_state(n, TaskState::Leased);
        }
        job.served = effects.now;
        job.settle(effects);
        job.tell(n, effects);
        let lease = job.lease(key);
        self.queue.lease_given(&job.owner);
        effects.push(send(session, Message::Lease(lease)));
        self.touch(id, effects);
        self.list(name);
    }

    fn take_off(&mut self, key: LeaseKey) -> Option<TakenOff> {
        let job = self.jobs.get_mut(&key.job)?;
        let task = job.tasks.get_mut(key.task as usize)?;
        let holder = task.holders().find(|it| it.epoch == key.epoch)?.clone();
        let another = task.take_off(key.epoch);
        self.queue.lease_ended(&job.owner);
        let worker = self.workers.get_mut(&holder.worker);
        let last_end = worker.as_ref().map_or(0, |worker| worker.last_end);
        let held = worker.and_then(|worker| worker.leases.remove(&(key.job, key.task)));
        self.list(&holder.worker);
        Some(TakenOff {
            worker: holder.worker,
            held: held.unwrap_or(Held::new(key.epoch, 0)),
            last_end,
            another,
        })
    }

    /// Takes all leases of a task back and tells their workers.
    pub(super) fn recall_leases(&mut self, id: Uuid, n: u32, effects: &mut Effects) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if job.tasks[n as usize].state != TaskState::Leased {
            return;
        }
        for (key, holder) in job.live(n) {
            self.take_off(key);
            if let Some(worker) = self.workers.get(&holder.worker) {
                worker.cancel_lease(key, &mut effects.all);
            }
        }
    }

    /// Takes a lease back and decides what becomes of its task.
    pub(super) fn release(
        &mut self,
        key: LeaseKey,
        class: FailureClass,
        what: &str,
        effects: &mut Effects,
    ) {
        let (id, n) = (key.job, key.task);
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let task = &job.tasks[n as usize];
        if task.units_done == task.units {
            return self.complete(key, effects);
        }
        let Some(taken) = self.take_off(key) else {
            return;
        };
        self.counters.failed(class);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let trouble = job.tasks[n as usize].trouble();
        *trouble.failures.entry(class as i32).or_default() += 1;
        what.clone_into(&mut trouble.last_failure);
        let lost = trouble.lost_workers.len();
        let names: Vec<_> = trouble.lost_workers.iter().cloned().collect();
        let counted = job.tasks[n as usize].counted_failures();
        let permanent = class == FailureClass::Invalid;
        if permanent || (counted >= self.limits.attempts && !taken.another) {
            Invariant::I7.check(permanent || counted > 0, || format!("{key:?} {class:?}"));
            if taken.another {
                self.recall_leases(id, n, effects);
            }
            if let Some(job) = self.jobs.get_mut(&id) {
                job.fail_task(n, class, what, effects);
            }
        } else if taken.another {
            // The other lease goes on.
            job.tell(n, effects);
        } else if lost >= self.limits.poison {
            job.tasks[n as usize].trouble().last_failure = format!(
                "the workers {} were lost while they ran this task",
                names.join(", ")
            );
            job.set_state(n, TaskState::Quarantined);
            job.tell(n, effects);
        } else {
            self.counters.retries += 1;
            job.set_state(n, TaskState::Pending);
            match class {
                FailureClass::WorkerLost | FailureClass::Preempted => {}
                _ => job.delay(n, effects.now + (BACKOFF << counted.min(6))),
            }
            job.tell(n, effects);
        }
        self.touch(id, effects);
    }

    /// Ends a task all of whose units are committed.
    fn complete(&mut self, key: LeaseKey, effects: &mut Effects) {
        let (id, n) = (key.job, key.task);
        let Some(taken) = self.take_off(key) else {
            return;
        };
        if taken.another {
            self.recall_leases(id, n, effects);
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let task = &job.tasks[n as usize];
        let part = f64::from(taken.held.computed) / f64::from(task.units.max(1));
        let cost = task.cost * part;
        self.counters.tasks += 1;
        self.counters.multiply_adds += task.cost;
        let stage = task.stage;
        let name = job.stage_name(task);
        job.set_state(n, TaskState::Done);
        if job.stages.get(stage).is_some_and(|it| !it.stage.hidden) {
            let begun = taken.held.since.max(taken.last_end);
            job.note_duration(effects.now.saturating_sub(begun));
        }
        job.tell(n, effects);
        self.touch(id, effects);
        self.note_rate(&taken.worker, &taken.held, name, cost, effects.now);
    }
}
