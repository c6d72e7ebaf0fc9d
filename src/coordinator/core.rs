//! The scheduler as a pure state machine: [`Core::apply`] takes an event and the time, changes
//! the state, and says what is to be done. It opens no file, no socket and no clock, so that every
//! history can be replayed.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::event::{
    Closing, CommittedResult, Effect, Event, LeaseKey, Millis, NewJob, Refusal, Session,
};
use super::invariants::Invariant;
use super::job::{Job, Tally, Task, is_over, is_terminal, millis};
use crate::proto::v1::connect_response::Message;
use crate::proto::v1::{self, FailureClass, JobState, TaskState};
use crate::store::{Change, DivergenceRecord, ResultRecord, Snapshot, SpecRecord};

/// What the core may decide by.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time between a worker's heartbeats.
    pub heartbeat: Millis,
    /// A worker that was not heard of for this long is lost, and so are its leases.
    pub worker_timeout: Millis,
    /// Counted failures of a task before it has failed for good.
    pub attempts: u32,
    /// Distinct workers lost on a task before it is poison.
    pub poison: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            heartbeat: 2_000,
            worker_timeout: 10_000,
            attempts: 4,
            poison: 3,
        }
    }
}

/// A task's wait after its first failure; doubled by each one more.
const BACKOFF: Millis = 500;

/// The state of the scheduler.
#[derive(Debug)]
pub struct Core {
    pub(super) limits: Limits,
    /// By identifier, which orders them by creation.
    pub(super) jobs: BTreeMap<Uuid, Job>,
    pub(super) requests: HashMap<String, Uuid>,
    /// By the name they gave themselves.
    pub(super) workers: BTreeMap<String, Worker>,
    pub(super) sessions: HashMap<Session, String>,
    pub(super) epoch: u64,
}

/// A worker in memory.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) session: Option<Session>,
    pub(super) capabilities: v1::Capabilities,
    pub(super) credits: u32,
    pub(super) draining: bool,
    pub(super) last_heard: Millis,
    pub(super) connected_at: Millis,
    /// Its leases, with the steps since the last commit and the rate it reports.
    pub(super) leases: BTreeMap<(Uuid, u32), Held>,
    pub(super) units_committed: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) epoch: u64,
    pub(super) steps: u64,
    pub(super) rate: f64,
}

/// What the core did for a request that has an answer.
pub type Answer = Result<Option<Uuid>, Refusal>;

impl Core {
    /// An empty scheduler.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            jobs: BTreeMap::new(),
            requests: HashMap::new(),
            workers: BTreeMap::new(),
            sessions: HashMap::new(),
            epoch: 0,
        }
    }

    /// The scheduler as the store remembers it (I10). Workers that held leases have
    /// `worker_timeout` from now to come back and go on with them.
    pub fn restore(
        limits: Limits,
        snapshot: Snapshot,
        mut model: impl FnMut(&str) -> v1::Model,
        now: Millis,
    ) -> Self {
        let mut core = Self::new(limits);
        core.epoch = snapshot.epoch;
        for (id, record, spec) in snapshot.jobs {
            let summary = record.job.unwrap_or_default();
            let spec_job = spec.job.unwrap_or_default();
            let mut job = Job::new(
                NewJob {
                    id,
                    model: model(&spec_job.model),
                    job: spec_job,
                    tasks: spec.tasks,
                    request_id: record.request_id,
                    request_digest: record.request_digest,
                },
                summary.create_time.map_or(0, millis),
            );
            job.state = summary.state();
            job.started = summary.start_time.map(millis);
            job.ended = summary.end_time.map(millis);
            job.sequence = summary.last_sequence;
            job.noise_scale = record.noise_scale;
            if !job.request_id.is_empty() {
                core.requests.insert(job.request_id.clone(), id);
            }
            core.jobs.insert(id, job);
        }
        for (id, unit, digest, failed) in snapshot.units {
            if let Some(job) = core.jobs.get_mut(&id) {
                job.count_unit(unit, digest, failed);
            }
        }
        for (id, n, record) in snapshot.tasks {
            let Some(job) = core.jobs.get_mut(&id) else {
                continue;
            };
            let Some(task) = job.tasks.get_mut(n as usize) else {
                continue;
            };
            task.epoch = record.epoch;
            task.worker.clone_from(&record.worker);
            task.failures = record
                .failures
                .iter()
                .map(|f| (f.failure_class, f.count))
                .collect();
            task.last_failure.clone_from(&record.last_failure);
            task.lost_workers = record.lost_workers.iter().cloned().collect();
            job.set_state(n, record.state());
            if record.state() == TaskState::Leased {
                let worker = core
                    .workers
                    .entry(record.worker.clone())
                    .or_insert_with(|| Worker::absent(now));
                worker.leases.insert(
                    (id, n),
                    Held {
                        epoch: record.epoch,
                        steps: 0,
                        rate: 0.0,
                    },
                );
            }
        }
        for job in core.jobs.values_mut() {
            // Tasks that wait only for a preparatory one have no record of their own.
            let prepared = |task: &Task| !task.plan.preparatory || task.state == TaskState::Done;
            if job.noise_scale.is_some() && job.tasks.iter().all(prepared) {
                job.unblock();
            }
        }
        core.check();
        core
    }

    /// Takes an event. Gives the answer to whoever asked, and what is to be done.
    pub fn apply(&mut self, event: Event, now: Millis) -> (Answer, Vec<Effect>) {
        let mut effects = Vec::new();
        let answer = self.handle(event, now, &mut effects);
        if answer.is_ok() {
            self.assign(now, &mut effects);
        }
        #[cfg(debug_assertions)]
        self.check();
        (answer, effects)
    }

    fn handle(&mut self, event: Event, now: Millis, effects: &mut Vec<Effect>) -> Answer {
        match event {
            Event::Submit(new) => return self.submit(*new, now, effects).map(Some),
            Event::Cancel(job) => self.cancel(job, now, effects)?,
            Event::Hello {
                session,
                hello,
                held,
            } => {
                self.hello(session, *hello, &held, now, effects);
            }
            Event::Credits(session, credits) => {
                if let Some(worker) = self.worker_of(session, now) {
                    worker.credits = credits;
                }
            }
            Event::Heartbeat {
                session,
                leases,
                loaded,
            } => {
                self.heartbeat(session, &leases, loaded, now, effects);
            }
            Event::Commit {
                session,
                lease,
                unit,
                result,
            } => {
                self.commit(session, lease, unit, result, now, effects);
            }
            Event::TaskEnd {
                session,
                lease,
                failure,
            } => {
                self.task_end(session, lease, failure, now, effects);
            }
            Event::Drain(session) => {
                if let Some(worker) = self.worker_of(session, now) {
                    worker.draining = true;
                }
            }
            Event::Gone(session) => self.gone(session),
            Event::Tick => self.tick(now, effects),
        }
        Ok(None)
    }

    // ---- Requests of clients ----

    fn submit(
        &mut self,
        new: NewJob,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) -> Result<Uuid, Refusal> {
        if let Some(&id) = self.requests.get(&new.request_id) {
            return if self.jobs[&id].request_digest == new.request_digest {
                Ok(id)
            } else {
                Err(Refusal::RequestIdReused {
                    request_id: new.request_id,
                    job: id,
                })
            };
        }
        let id = new.id;
        if !new.request_id.is_empty() {
            self.requests.insert(new.request_id.clone(), id);
        }
        let spec = SpecRecord {
            job: Some(new.job.clone()),
            tasks: new.tasks.clone(),
        };
        effects.push(Effect::Change(Change::Spec(id, spec)));
        let mut job = Job::new(new, now);
        job.event(
            id,
            v1::job_event::Event::State(JobState::Queued as i32),
            now,
            effects,
        );
        job.finish_if_ended(id, now, effects);
        job.save(id, effects);
        self.jobs.insert(id, job);
        Ok(id)
    }

    fn cancel(&mut self, id: Uuid, now: Millis, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        let job = self.jobs.get_mut(&id).ok_or(Refusal::NoSuchJob(id))?;
        if is_terminal(job.state) {
            return Ok(());
        }
        for n in 0..job.tasks.len() as u32 {
            let task = &job.tasks[n as usize];
            if is_over(task.state) {
                continue;
            }
            if task.state == TaskState::Leased {
                let key = LeaseKey {
                    job: id,
                    task: n,
                    epoch: task.epoch,
                };
                if let Some(worker) = self.workers.get_mut(&task.worker) {
                    worker.leases.remove(&(id, n));
                    worker.cancel_lease(key, effects);
                }
            }
            job.set_state(n, TaskState::Cancelled);
            job.save_task(id, n, now, effects);
        }
        job.state = JobState::Cancelled;
        job.ended = Some(now);
        job.event(
            id,
            v1::job_event::Event::State(job.state as i32),
            now,
            effects,
        );
        job.save(id, effects);
        Ok(())
    }

    // ---- Messages of workers ----

    fn hello(
        &mut self,
        session: Session,
        hello: v1::Hello,
        held: &[LeaseKey],
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let name = hello.worker_id;
        let worker = self
            .workers
            .entry(name.clone())
            .or_insert_with(|| Worker::absent(now));
        if let Some(old) = worker.session.replace(session) {
            self.sessions.remove(&old);
            effects.push(Effect::Close(old, Closing::Replaced));
        }
        self.sessions.insert(session, name);
        worker.capabilities = hello.capabilities.unwrap_or_default();
        worker.credits = hello.credits;
        worker.draining = false;
        worker.last_heard = now;
        worker.connected_at = now;

        let mut adopted = Vec::new();
        let mut dropped = Vec::new();
        for (&(job, task), lease) in &worker.leases {
            let key = LeaseKey {
                job,
                task,
                epoch: lease.epoch,
            };
            if held.contains(&key) {
                adopted.push(key)
            } else {
                dropped.push(key)
            }
        }
        effects.push(send(
            session,
            Message::Welcome(v1::Welcome {
                adopted: adopted.iter().map(LeaseKey::to_proto).collect(),
                heartbeat_interval_ms: self.limits.heartbeat as u32,
            }),
        ));
        // A lease that never reached the worker, because the stream broke under it, is nobody's
        // fault.
        for key in dropped {
            self.release(
                key,
                FailureClass::Preempted,
                "the lease did not reach the worker",
                now,
                effects,
            );
        }
    }

    fn heartbeat(
        &mut self,
        session: Session,
        leases: &[(LeaseKey, u64, f64)],
        loaded: Vec<String>,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(worker) = self.worker_of(session, now) else {
            return;
        };
        worker.capabilities.loaded_models = loaded;
        for &(key, steps, rate) in leases {
            match worker.leases.get_mut(&(key.job, key.task)) {
                Some(held) if held.epoch == key.epoch => {
                    held.steps = steps;
                    held.rate = rate;
                    effects.push(Effect::Wake(key.job));
                }
                // It works on what it no longer holds: the cancellation was lost on the way.
                _ => worker.cancel_lease(key, effects),
            }
        }
    }

    fn commit(
        &mut self,
        session: Session,
        key: LeaseKey,
        unit: u64,
        result: CommittedResult,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(name) = self.sessions.get(&session).cloned() else {
            return;
        };
        if let Some(worker) = self.worker_of(session, now)
            && let Some(held) = worker.leases.get_mut(&(key.job, key.task))
        {
            held.steps = 0;
        }
        let accepted = self.commit_unit(&name, key, unit, result, now, effects);
        let lease = Some(key.to_proto());
        effects.push(send(
            session,
            Message::CommitAck(v1::CommitAck {
                lease,
                unit,
                accepted,
            }),
        ));
    }

    /// Whether the unit has this result now, from this commit or an earlier one.
    fn commit_unit(
        &mut self,
        worker: &str,
        key: LeaseKey,
        unit: u64,
        result: CommittedResult,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(job) = self.jobs.get_mut(&key.job) else {
            return false;
        };
        if let Some(&before) = job.committed.get(&unit) {
            if before != result.digest_prefix {
                let record = DivergenceRecord {
                    digest: result.digest,
                    worker: worker.to_owned(),
                    fingerprint: result.fingerprint,
                };
                effects.push(Effect::Change(Change::Divergence(key.job, unit, record)));
            }
            return before == result.digest_prefix;
        }
        let Some(task) = job.tasks.get(key.task as usize) else {
            return false;
        };
        let current = task.state == TaskState::Leased
            && task.epoch == key.epoch
            && task.worker == worker
            && (task.plan.first_unit..task.plan.first_unit + task.plan.units).contains(&unit);
        if !current {
            return false;
        }
        Invariant::I2.check(task.epoch == key.epoch, || format!("{key:?}"));
        let record = ResultRecord {
            value: None,
            epoch: key.epoch,
            worker: worker.to_owned(),
            fingerprint: result.fingerprint,
            failed: result.failed,
        };
        let scale = result.noise_scale;
        job.commit(
            key.job,
            unit,
            result.bytes,
            result.digest_prefix,
            record,
            now,
            effects,
        );
        if job.tasks[key.task as usize].plan.preparatory && scale.is_some() {
            job.noise_scale = scale;
        }
        job.save(key.job, effects);
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.units_committed += 1;
        }
        true
    }

    fn task_end(
        &mut self,
        session: Session,
        key: LeaseKey,
        failure: Option<v1::Failure>,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(worker) = self.worker_of(session, now) else {
            return;
        };
        match worker.leases.get(&(key.job, key.task)) {
            Some(held) if held.epoch == key.epoch => {}
            _ => return,
        }
        match failure {
            Some(failure) => {
                self.release(key, failure.failure_class(), &failure.message, now, effects);
            }
            None => {
                let job = &self.jobs[&key.job];
                let task = &job.tasks[key.task as usize];
                if task.units_done == task.plan.units {
                    self.complete(key, now, effects);
                } else {
                    let what = "the worker ended the task without all its results";
                    self.release(key, FailureClass::Transient, what, now, effects);
                }
            }
        }
    }

    fn gone(&mut self, session: Session) {
        // Its leases stay until the timeout: most broken streams come back with them.
        if let Some(name) = self.sessions.remove(&session)
            && let Some(worker) = self.workers.get_mut(&name)
            && worker.session == Some(session)
        {
            worker.session = None;
        }
    }

    fn tick(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        for job in self.jobs.values_mut() {
            while let Some(&(at, n)) = job.delayed.first() {
                if at > now {
                    break;
                }
                job.delayed.pop_first();
                job.pending.insert(n);
            }
        }
        let timeout = self.limits.worker_timeout;
        let lost: Vec<String> = self
            .workers
            .iter()
            .filter(|(_, w)| now.saturating_sub(w.last_heard) > timeout)
            .map(|(name, _)| name.clone())
            .collect();
        for name in lost {
            let Some(worker) = self.workers.get_mut(&name) else {
                continue;
            };
            if let Some(session) = worker.session.take() {
                self.sessions.remove(&session);
                effects.push(Effect::Close(session, Closing::Silent));
            }
            let keys: Vec<_> = worker
                .leases
                .iter()
                .map(|(&(job, task), held)| LeaseKey {
                    job,
                    task,
                    epoch: held.epoch,
                })
                .collect();
            for key in keys {
                let what = format!("worker {name} was lost");
                self.release(key, FailureClass::WorkerLost, &what, now, effects);
            }
            self.workers.remove(&name);
        }
    }

    // ---- Tasks ----

    /// Takes a lease back and decides what becomes of its task.
    fn release(
        &mut self,
        key: LeaseKey,
        class: FailureClass,
        what: &str,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let id = key.job;
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let task = &mut job.tasks[key.task as usize];
        if let Some(worker) = self.workers.get_mut(&task.worker) {
            worker.leases.remove(&(id, key.task));
        }
        if task.units_done == task.plan.units {
            return self.complete(key, now, effects);
        }
        *task.failures.entry(class as i32).or_default() += 1;
        task.last_failure = what.to_owned();
        if class == FailureClass::WorkerLost {
            task.lost_workers.insert(task.worker.clone());
        }
        let counted: u32 = [
            FailureClass::Transient,
            FailureClass::OutOfMemory,
            FailureClass::Unspecified,
        ]
        .iter()
        .filter_map(|class| task.failures.get(&(*class as i32)))
        .sum();
        let poison = task.lost_workers.len() >= self.limits.poison;
        let permanent = class == FailureClass::Invalid;
        if permanent || poison || counted >= self.limits.attempts {
            Invariant::I7.check(permanent || poison || counted > 0, || {
                format!("{key:?} {class:?}")
            });
            let (class, what) = if poison {
                let lost = task
                    .lost_workers
                    .iter()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ");
                (
                    FailureClass::Poison,
                    format!("the workers {lost} were lost while they ran this task"),
                )
            } else {
                (class, what.to_owned())
            };
            job.fail_task(id, key.task, class, &what, now, effects);
            job.finish_if_ended(id, now, effects);
            job.save(id, effects);
            return;
        }
        job.set_state(key.task, TaskState::Pending);
        let delay = match class {
            FailureClass::WorkerLost | FailureClass::Preempted => 0,
            _ => BACKOFF << counted.min(6),
        };
        if delay > 0 {
            job.pending.remove(&key.task);
            job.delayed.insert((now + delay, key.task));
        }
        job.save_task(id, key.task, now, effects);
        job.save(id, effects);
    }

    /// Ends a lease all of whose units are committed.
    fn complete(&mut self, key: LeaseKey, now: Millis, effects: &mut Vec<Effect>) {
        let id = key.job;
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Some(worker) = self.workers.get_mut(&job.tasks[key.task as usize].worker) {
            worker.leases.remove(&(id, key.task));
        }
        let task = &job.tasks[key.task as usize];
        let mut units = task.plan.first_unit..task.plan.first_unit + task.plan.units;
        let failed = units.all(|unit| job.failed.contains(&unit));
        let preparatory = task.plan.preparatory;
        job.set_state(key.task, TaskState::Done);
        job.save_task(id, key.task, now, effects);
        if preparatory {
            if job.noise_scale.is_some() && !failed {
                job.unblock();
            } else {
                let what = "the scale of the noise could not be found: see the preparatory task";
                for n in 0..job.tasks.len() as u32 {
                    if job.tasks[n as usize].state == TaskState::Blocked {
                        job.fail_task(id, n, FailureClass::Invalid, what, now, effects);
                    }
                }
            }
        }
        job.finish_if_ended(id, now, effects);
        job.save(id, effects);
    }

    /// Gives waiting tasks to workers with room, the jobs in order of priority and age.
    fn assign(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let mut order: Vec<(std::cmp::Reverse<i32>, Uuid)> = self
            .jobs
            .iter()
            .filter(|(_, job)| !job.pending.is_empty() && !is_terminal(job.state))
            .map(|(&id, job)| (std::cmp::Reverse(job.spec.priority), id))
            .collect();
        if order.is_empty() {
            return;
        }
        order.sort_unstable();
        for (_, id) in order {
            // A worker that was not lost on it before, and the emptiest of those, so that a short
            // job is spread over all.
            while let Some(job) = self.jobs.get_mut(&id) {
                let Some(&n) = job.pending.first() else { break };
                let lost = &job.tasks[n as usize].lost_workers;
                let Some((name, worker)) = self
                    .workers
                    .iter_mut()
                    .filter(|(_, worker)| worker.has_room())
                    .min_by_key(|(name, worker)| (lost.contains(*name), worker.leases.len()))
                else {
                    break;
                };
                let Some(session) = worker.session else { break };
                self.epoch += 1;
                let epoch = self.epoch;
                worker.leases.insert(
                    (id, n),
                    Held {
                        epoch,
                        steps: 0,
                        rate: 0.0,
                    },
                );
                Invariant::I6.check(worker.leases.len() <= worker.credits as usize, || {
                    name.clone()
                });
                let task = &mut job.tasks[n as usize];
                task.epoch = epoch;
                task.worker.clone_from(name);
                job.set_state(n, TaskState::Leased);
                if job.state == JobState::Queued {
                    job.state = JobState::Running;
                    job.started = Some(now);
                    job.event(
                        id,
                        v1::job_event::Event::State(job.state as i32),
                        now,
                        effects,
                    );
                }
                job.save_task(id, n, now, effects);
                job.save(id, effects);
                effects.push(Effect::Change(Change::Epoch(epoch)));
                let key = LeaseKey {
                    job: id,
                    task: n,
                    epoch,
                };
                effects.push(send(session, Message::Lease(job.lease(key))));
            }
        }
    }

    /// Every invariant that can be seen in the state. Cheap enough for tests and debug builds.
    pub fn check(&self) {
        for (id, job) in &self.jobs {
            let mut tally = Tally::default();
            for (n, task) in job.tasks.iter().enumerate() {
                *tally.of(task.state) += 1;
                let holder = self.workers.get(&task.worker);
                let held = holder.and_then(|w| w.leases.get(&(*id, n as u32)));
                Invariant::I2.check(
                    (task.state == TaskState::Leased)
                        == held.is_some_and(|held| held.epoch == task.epoch),
                    || {
                        format!(
                            "jobs/{id}/tasks/{n} is {:?}, its worker holds {held:?}",
                            task.state
                        )
                    },
                );
            }
            Invariant::I5.check(tally == job.tally, || {
                format!("{tally:?}, counted {:?}", job.tally)
            });
            Invariant::I4.check(
                !is_terminal(job.state) || tally.waiting + tally.leased == 0,
                || format!("jobs/{id} has ended with {tally:?}"),
            );
        }
        for (name, worker) in &self.workers {
            for key in worker.leases.keys() {
                let leased = self.jobs.get(&key.0).is_some_and(|job| {
                    let task = &job.tasks[key.1 as usize];
                    task.state == TaskState::Leased && task.worker == *name
                });
                Invariant::I2.check(leased, || format!("{name} holds {key:?}"));
            }
        }
    }

    fn worker_of(&mut self, session: Session, now: Millis) -> Option<&mut Worker> {
        let worker = self.workers.get_mut(self.sessions.get(&session)?)?;
        worker.last_heard = now;
        Some(worker)
    }
}

impl Worker {
    /// A worker that is known only by the leases it holds.
    fn absent(now: Millis) -> Self {
        Self {
            session: None,
            capabilities: v1::Capabilities::default(),
            credits: 0,
            draining: false,
            last_heard: now,
            connected_at: now,
            leases: BTreeMap::new(),
            units_committed: 0,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.session.is_some() && !self.draining && self.leases.len() < self.credits as usize
    }

    fn cancel_lease(&self, key: LeaseKey, effects: &mut Vec<Effect>) {
        if let Some(session) = self.session {
            let lease = Some(key.to_proto());
            effects.push(send(
                session,
                Message::CancelLease(v1::CancelLease { lease }),
            ));
        }
    }
}

fn send(session: Session, message: Message) -> Effect {
    Effect::Send(session, Box::new(message))
}
