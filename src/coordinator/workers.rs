//! The workers as the core knows them: who is connected, what they hold, and how they do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::core::Core;
use super::event::{Closing, Effect, LeaseKey, Millis, Refusal, Session};
use super::job::{Effects, millis};
use crate::proto::v1::connect_response::Message;
use crate::proto::v1::{self, FailureClass};

/// Ended leases after which a worker's older ones count for half.
const MEMORY: u32 = 64;
/// Failures before a worker can be out of line.
const FAILURES: u32 = 5;
/// A worker is out of line when this part of its leases fails, and a quarter of that part with the
/// others.
const OUT_OF_LINE: f64 = 0.5;
/// Shorter tasks and cheaper ones say little about a worker's speed.
const TELLING: (Millis, f64) = (200, 1e9);
/// How much the newest measurement counts in a rate.
const NEWEST: f64 = 0.3;

/// A worker in memory.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) session: Option<Session>,
    /// Whose it is: who opened its newest stream; empty where nobody is asked.
    pub(super) principal: String,
    pub(super) capabilities: v1::Capabilities,
    pub(super) credits: u32,
    pub(super) draining: bool,
    /// When it will be taken away.
    pub(super) valid_until: Option<Millis>,
    pub(super) last_heard: Millis,
    pub(super) connected_at: Millis,
    pub(super) leases: BTreeMap<(Uuid, u32), Held>,
    pub(super) units_committed: u64,
    /// Why it gets no more leases, when it fails far more often than the others.
    pub(super) excluded: Option<String>,
    pub(super) outcomes: Outcomes,
    /// Multiply-adds a second, from the tasks it has done.
    pub(super) rate: Option<f64>,
    /// When a lease of it last ended: those that wait begin no sooner.
    pub(super) last_end: Millis,
    /// How many leases it is listed with among the idle.
    pub(super) listed: Option<usize>,
}

/// A lease as its worker has it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) epoch: u64,
    /// Steps since the last commit, and steps a second, as it reports them.
    pub(super) steps: u64,
    pub(super) rate: f64,
    /// The newest steps of the edit that it computes.
    pub(super) edit: Option<Box<v1::EditProgress>>,
    pub(super) since: Millis,
    /// When the worker last spoke of it.
    pub(super) seen: Millis,
    /// Units it has committed.
    pub(super) units: u32,
    /// Whether the worker had the model loaded when it got it: its time is that of the task alone.
    pub(super) warm: bool,
}

/// How a worker's newest leases ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcomes {
    pub(super) good: u32,
    pub(super) bad: u32,
}

impl Outcomes {
    fn total(self) -> u32 {
        self.good + self.bad
    }

    fn bad_part(self) -> f64 {
        f64::from(self.bad) / f64::from(self.total().max(1))
    }

    fn note(&mut self, good: bool) {
        if self.total() >= MEMORY {
            self.good /= 2;
            self.bad /= 2;
        }
        self.good += u32::from(good);
        self.bad += u32::from(!good);
    }
}

/// Measured multiply-adds a second by device, for workers that have none of their own yet.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<String, f64>);

fn blend(rate: &mut Option<f64>, measured: f64) {
    let before = rate.unwrap_or(measured);
    *rate = Some(before + NEWEST * (measured - before));
}

impl Held {
    pub(super) fn new(epoch: u64, now: Millis) -> Self {
        Self {
            epoch,
            steps: 0,
            rate: 0.0,
            edit: None,
            since: now,
            seen: now,
            units: 0,
            warm: false,
        }
    }
}

impl Worker {
    /// A worker that is known only by the leases it holds.
    pub(super) fn absent(now: Millis) -> Self {
        Self {
            session: None,
            principal: String::new(),
            capabilities: v1::Capabilities::default(),
            credits: 0,
            draining: false,
            valid_until: None,
            last_heard: now,
            connected_at: now,
            leases: BTreeMap::new(),
            units_committed: 0,
            excluded: None,
            outcomes: Outcomes::default(),
            rate: None,
            last_end: 0,
            listed: None,
        }
    }

    /// Whether a stream of this principal may be this worker's. While the worker is there, or has
    /// leases, the stream must be of its principal; while it is there, of its process: that comes back
    /// on a new stream before the coordinator has seen the old one break.
    fn may_be(&self, hello: &v1::Hello, principal: &str) -> bool {
        let told = hello.capabilities.clone().unwrap_or_default();
        let process = |it: &v1::Capabilities| (it.host.clone(), it.pid);
        match self.session {
            None if self.leases.is_empty() => true,
            // After a restart of the coordinator nobody knows yet whose its leases are.
            None => self.principal.is_empty() || self.principal == principal,
            Some(_) => self.principal == principal && process(&self.capabilities) == process(&told),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.session.is_some()
            && !self.draining
            && self.excluded.is_none()
            && self.leases.len() < self.credits as usize
    }

    /// Whether it has a model in memory.
    pub(super) fn has_loaded(&self, model: &str) -> bool {
        self.capabilities.loaded_models.iter().any(|it| it == model)
    }

    pub(super) fn cancel_lease(&self, key: LeaseKey, effects: &mut Vec<Effect>) {
        if let Some(session) = self.session {
            let lease = Some(key.to_proto());
            let cancel = Message::CancelLease(v1::CancelLease { lease });
            effects.push(send(session, cancel));
        }
    }

    fn keys(&self) -> Vec<LeaseKey> {
        let keys = self.leases.iter().map(|(&(job, task), held)| LeaseKey {
            job,
            task,
            epoch: held.epoch,
        });
        keys.collect()
    }

    /// The lease that it works on: the one that it has told steps or results of, or else the oldest,
    /// because it works on one at a time and in order. The others wait, and are not to blame when it
    /// is lost.
    fn running(&self) -> Option<LeaseKey> {
        let told = |key: &LeaseKey| {
            let held = self.leases.get(&(key.job, key.task));
            held.is_some_and(|held| held.steps > 0 || held.units > 0)
        };
        let keys = self.keys();
        keys.into_iter().min_by_key(|key| (!told(key), key.epoch))
    }
}

pub(super) fn send(session: Session, message: Message) -> Effect {
    Effect::Send(session, Box::new(message))
}

impl Core {
    pub(super) fn worker_of(&mut self, session: Session, now: Millis) -> Option<&mut Worker> {
        let worker = self.workers.get_mut(self.sessions.get(&session)?)?;
        worker.last_heard = now;
        Some(worker)
    }

    /// To be called after a worker has changed: whether it is among the idle follows from that.
    pub(super) fn list(&mut self, name: &Arc<str>) {
        let Some(worker) = self.workers.get_mut(name) else {
            return;
        };
        let listed = worker.has_room().then_some(worker.leases.len());
        if listed == worker.listed {
            return;
        }
        if let Some(before) = std::mem::replace(&mut worker.listed, listed) {
            self.idle.remove(&(before, name.clone()));
        }
        if let Some(leases) = listed {
            self.idle.insert((leases, name.clone()));
            self.stirred = true;
        }
    }

    pub(super) fn hello(
        &mut self,
        session: Session,
        hello: v1::Hello,
        held: &[LeaseKey],
        principal: String,
        effects: &mut Effects,
    ) {
        let name: Arc<str> = hello.worker_id.as_str().into();
        let present = self.workers.get(&name);
        if present.is_some_and(|worker| !worker.may_be(&hello, &principal)) {
            return effects.push(Effect::Close(session, Closing::Taken));
        }
        let worker = self
            .workers
            .entry(name.clone())
            .or_insert_with(|| Worker::absent(effects.now));
        if let Some(old) = worker.session.replace(session) {
            self.sessions.remove(&old);
            effects.push(Effect::Close(old, Closing::Replaced));
        }
        self.sessions.insert(session, name.clone());
        worker.principal = principal;
        worker.capabilities = hello.capabilities.unwrap_or_default();
        worker.credits = hello.credits;
        worker.draining = false;
        worker.valid_until = hello.valid_until.map(millis);
        worker.last_heard = effects.now;
        worker.connected_at = effects.now;
        for lease in worker.leases.values_mut() {
            lease.seen = effects.now;
        }
        let (adopted, dropped): (Vec<_>, Vec<_>) = worker
            .keys()
            .into_iter()
            .partition(|key| held.contains(key));
        let welcome = v1::Welcome {
            adopted: adopted.iter().map(LeaseKey::to_proto).collect(),
            heartbeat_interval_ms: self.limits.heartbeat as u32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        effects.push(send(session, Message::Welcome(welcome)));
        self.list(&name);
        self.stirred = true;
        // A lease that never reached the worker, because the stream broke under it, is nobody's
        // fault.
        let what = "the lease did not reach the worker";
        for key in dropped {
            self.release(key, FailureClass::Preempted, what, effects);
        }
    }

    pub(super) fn credits(&mut self, session: Session, credits: u32, now: Millis) {
        if let Some(worker) = self.worker_of(session, now) {
            worker.credits = credits;
        }
        self.relist(session);
    }

    /// Something of a worker is being looked at: until then it says nothing more.
    pub(super) fn alive(&mut self, session: Session, now: Millis) {
        if let Some(worker) = self.worker_of(session, now) {
            for held in worker.leases.values_mut() {
                held.seen = now;
            }
        }
    }

    pub(super) fn drains(&mut self, session: Session, now: Millis) {
        if let Some(worker) = self.worker_of(session, now) {
            worker.draining = true;
        }
        self.relist(session);
    }

    fn relist(&mut self, session: Session) {
        if let Some(name) = self.sessions.get(&session).cloned() {
            self.list(&name);
        }
    }

    /// Asks a worker to finish what it has and leave.
    pub(super) fn ask_drain(&mut self, name: &str, effects: &mut Effects) -> Result<(), Refusal> {
        let missing = || Refusal::NoSuchWorker(name.to_owned());
        let worker = self.workers.get_mut(name).ok_or_else(missing)?;
        let session = worker.session.ok_or_else(missing)?;
        worker.draining = true;
        let reason = "asked to through the coordinator".to_owned();
        effects
            .all
            .push(send(session, Message::Drain(v1::Drain { reason })));
        self.list(&name.into());
        Ok(())
    }

    /// Lets a worker that was excluded have leases again.
    pub(super) fn readmit(&mut self, name: &str) -> Result<(), Refusal> {
        let missing = || Refusal::NoSuchWorker(name.to_owned());
        let worker = self.workers.get_mut(name).ok_or_else(missing)?;
        worker.excluded = None;
        worker.outcomes = Outcomes::default();
        self.list(&name.into());
        Ok(())
    }

    pub(super) fn heartbeat(
        &mut self,
        session: Session,
        leases: Vec<(LeaseKey, v1::LeaseProgress)>,
        loaded: Vec<String>,
        effects: &mut Effects,
    ) {
        let timeout = self.limits.worker_timeout;
        let Some(worker) = self.worker_of(session, effects.now) else {
            return;
        };
        let stirred = worker.capabilities.loaded_models != loaded;
        worker.capabilities.loaded_models = loaded;
        for (key, told) in leases {
            match worker.leases.get_mut(&(key.job, key.task)) {
                Some(held) if held.epoch == key.epoch => {
                    held.steps = told.steps;
                    held.rate = told.steps_per_second;
                    held.edit = told.edit.map(Box::new);
                    held.seen = effects.now;
                    effects.push(Effect::Wake(key.job));
                }
                // It works on what it no longer holds: the cancellation was lost on the way.
                _ => worker.cancel_lease(key, &mut effects.all),
            }
        }
        let silent = |held: &Held| effects.now.saturating_sub(held.seen) > timeout;
        let forgotten: Vec<_> = worker
            .leases
            .iter()
            .filter(|(_, held)| silent(held))
            .map(|(&(job, task), held)| LeaseKey {
                job,
                task,
                epoch: held.epoch,
            })
            .collect();
        self.stirred |= stirred;
        for key in forgotten {
            let what = "the worker does not work on it";
            self.release(key, FailureClass::Preempted, what, effects);
        }
    }

    pub(super) fn gone(&mut self, session: Session) {
        // Its leases stay until the timeout: most broken streams come back with them.
        let Some(name) = self.sessions.remove(&session) else {
            return;
        };
        if let Some(worker) = self.workers.get_mut(&name)
            && worker.session == Some(session)
        {
            worker.session = None;
        }
        self.list(&name);
    }

    pub(super) fn tick(&mut self, effects: &mut Effects) {
        self.stirred = true;
        let late: Vec<Uuid> = self
            .jobs
            .values()
            .filter(|job| {
                job.delayed
                    .first()
                    .is_some_and(|&(at, _)| at <= effects.now)
            })
            .map(|job| job.id)
            .collect();
        for id in late {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.end_delays(effects.now);
            }
            self.touch(id, effects);
        }
        let timeout = self.limits.worker_timeout;
        let lost: Vec<Arc<str>> = self
            .workers
            .iter()
            .filter(|(_, w)| effects.now.saturating_sub(w.last_heard) > timeout)
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
            let keys = worker.keys();
            // What the lease has committed is not computed again: the next begins where it broke
            // off. A task that kills workers kills one without a commit before long.
            let blamed = worker.running().filter(|key| {
                let held = worker.leases.get(&(key.job, key.task));
                held.is_some_and(|held| held.units == 0)
            });
            self.list(&name);
            for key in keys {
                let task = self.jobs.get_mut(&key.job);
                if let Some(job) = task.filter(|_| Some(key) == blamed) {
                    let trouble = job.tasks[key.task as usize].trouble();
                    trouble.lost_workers.insert(name.to_string());
                }
                let what = format!("worker {name} was lost");
                self.release(key, FailureClass::WorkerLost, &what, effects);
            }
            self.workers.remove(&name);
        }
    }

    /// Notes how a lease ended that a worker held, and excludes a worker that is out of line.
    pub(super) fn note_outcome(&mut self, name: &Arc<str>, good: bool) {
        let Some(worker) = self.workers.get_mut(name) else {
            return;
        };
        worker.outcomes.note(good);
        let own = worker.outcomes;
        if good || own.bad < FAILURES || own.bad_part() < OUT_OF_LINE || worker.excluded.is_some() {
            return;
        }
        let mut others = Outcomes::default();
        for (other, worker) in &self.workers {
            if other != name && worker.session.is_some() && worker.excluded.is_none() {
                others.good += worker.outcomes.good;
                others.bad += worker.outcomes.bad;
            }
        }
        // Where there is nothing to compare with, the tasks may be to blame.
        if others.total() < FAILURES || others.bad_part() > own.bad_part() / 4.0 {
            return;
        }
        let why = format!(
            "{} of its last {} leases failed, of the other workers' {} of {}",
            own.bad,
            own.total(),
            others.bad,
            others.total()
        );
        tracing::warn!(worker = %name, why, "worker excluded");
        if let Some(worker) = self.workers.get_mut(name) {
            worker.excluded = Some(why);
        }
        self.list(name);
    }

    /// Notes how fast a worker did a part of a task that is worth so many multiply-adds.
    pub(super) fn note_rate(&mut self, name: &Arc<str>, held: &Held, cost: f64, now: Millis) {
        let Some(worker) = self.workers.get_mut(name) else {
            return;
        };
        let time = now.saturating_sub(held.since.max(worker.last_end));
        worker.last_end = now;
        if !held.warm || time < TELLING.0 || cost < TELLING.1 {
            return;
        }
        let measured = cost / (time as f64 / 1e3);
        blend(&mut worker.rate, measured);
        let device = worker.capabilities.device.clone();
        let mut rate = self.rates.0.get(&device).copied();
        blend(&mut rate, measured);
        self.rates.0.extend(rate.map(|rate| (device, rate)));
    }

    /// Multiply-adds a second of a worker: its own, or that of others with its device.
    pub(super) fn rate(&self, worker: &Worker) -> Option<f64> {
        let same = || self.rates.0.get(&worker.capabilities.device).copied();
        worker.rate.or_else(same)
    }

    /// What an edit must pass where its request does not say.
    pub fn gates(&self) -> v1::EditGates {
        self.limits.gates
    }

    /// What a task should cost, in multiply-adds: the right time on the fastest worker there is.
    /// Slower ones are given parts of it.
    pub fn task_cost(&self) -> f64 {
        self.workers
            .values()
            .filter(|worker| worker.session.is_some())
            .filter_map(|worker| self.rate(worker))
            .max_by(f64::total_cmp)
            .map_or(super::cut::TASK_COST, |rate| {
                rate * self.limits.task_seconds
            })
    }
}
