//! Workers that come, go and are heard of: what changes in the core with each.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::core::Core;
use super::cut::{TASK_COST, TaskCosts};
use super::event::{Closing, Effect, LeaseKey, Millis, Refusal, Session};
use super::job::{Effects, millis};
use super::worker::{Held, Outcomes, Rates, Worker, send};
use crate::proto::v1::connect_response::Message;
use crate::proto::v1::{self, FailureClass};

/// Failures before a worker can be out of line.
const FAILURES: u32 = 5;
/// A worker is out of line when this part of its leases fails, and a quarter of that part with the
/// others.
const OUT_OF_LINE: f64 = 0.5;
/// Shorter tasks and cheaper ones say little about a worker's speed.
const TELLING: (Millis, f64) = (200, 1e9);

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
        let until = hello.valid_until.map(millis);
        let left = until.map(|until| until.saturating_sub(effects.date));
        worker.lives_until = left.map(|left| effects.now.saturating_add(left));
        worker.valid_until = until;
        worker.last_heard = effects.now;
        worker.connected_at = effects.date;
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

    /// Notes how fast a worker did a part of a task of a stage that is worth so many multiply-adds.
    pub(super) fn note_rate(
        &mut self,
        name: &Arc<str>,
        held: &Held,
        stage: &'static str,
        cost: f64,
        now: Millis,
    ) {
        let Some(worker) = self.workers.get_mut(name) else {
            return;
        };
        let time = now.saturating_sub(held.since.max(worker.last_end));
        worker.last_end = now;
        if !held.warm || time < TELLING.0 || cost < TELLING.1 {
            return;
        }
        let measured = cost / (time as f64 / 1e3);
        worker.rates.note(stage, measured);
        let device = worker.capabilities.device.clone();
        self.rates.entry(device).or_default().note(stage, measured);
    }

    /// Multiply-adds a second of a worker in a stage: its own, that of others with its device or,
    /// where nobody has done such a stage, that of the slowest that was done.
    pub(super) fn rate(&self, worker: &Worker, stage: &str) -> Option<f64> {
        let device = self.rates.get(&worker.capabilities.device);
        let measured = [Some(&worker.rates), device].into_iter().flatten();
        let mut of_stage = measured.clone().filter_map(|rates| rates.of(stage));
        of_stage
            .next()
            .or_else(|| measured.filter_map(Rates::least).next())
    }

    /// What an edit must pass where its request does not say.
    pub fn gates(&self) -> v1::EditGates {
        self.limits.gates
    }

    /// The texts of the coordinator's own that edits are judged by, as an object has them.
    pub fn gate_texts(&self) -> Option<Arc<Vec<u8>>> {
        self.limits.gate_texts.clone()
    }

    /// What a task should cost: the right time on the fastest worker there is. Slower ones are given
    /// parts of it.
    pub fn task_costs(&self) -> TaskCosts {
        let cost = |stage: &str| {
            let there = self.workers.values();
            there
                .filter(|worker| worker.session.is_some())
                .filter_map(|worker| self.rate(worker, stage))
                .max_by(f64::total_cmp)
                .map_or(TASK_COST, |rate| rate * self.limits.task_seconds)
        };
        let known: BTreeSet<_> = self.rates.values().flat_map(Rates::stages).collect();
        TaskCosts {
            stages: known
                .into_iter()
                .map(|stage| (stage, cost(stage)))
                .collect(),
            other: cost(""),
        }
    }
}
