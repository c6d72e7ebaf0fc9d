//! Who gets what: the next task for a worker with room.

use std::sync::Arc;

use uuid::Uuid;

use super::core::Core;
use super::event::Millis;
use super::job::{Effects, Job};
use super::stages::Progress;
use super::task::Task;
use super::worker::Worker;
use crate::proto::v1::{self, JobState, TaskState};

/// Jobs that are looked at for one whose model is loaded, and idle workers for which others' waiting
/// leases are looked through at a time.
const LOOKED_AT: usize = 16;
/// A job's last tasks get second leases when this part of all is done ...
const MOSTLY_DONE: f64 = 0.9;
/// ... and they run this many times longer than its tasks usually do.
const STRAGGLING: u64 = 3;
/// Of the last tasks each worker should get that many parts, so that none is left with much when the
/// others have nothing ...
const PARTS_OF_REST: usize = 2;
/// ... but none that takes a smaller part of a task's usual time, for a lease has its own cost; where
/// no worker's rate is known, none of fewer multiply-adds, a second of one core. Of a stage whose
/// leases cost much of themselves the part is larger.
const LEAST_PART: f64 = 0.1;
const LEAST_PART_DEAR: f64 = 0.25;
const LEAST_COST: f64 = 1.5e10;
/// A task is cut again for a worker on which it would take this many times too long.
const TOO_LONG: f64 = 2.0;

/// Why a worker cannot run a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It does not compute in the job's number format.
    Dtype,
    /// Its device's memory does not hold the model.
    Memory,
    /// It will be taken away before the task is done.
    Lifetime,
}

/// How well a task fits a worker; the smaller the better.
type Fit = (bool, bool, usize);

impl Core {
    /// Gives waiting tasks to workers with room.
    pub(super) fn assign(&mut self, effects: &mut Effects) {
        while self.stirred && !self.idle.is_empty() && !self.queue.is_empty() {
            let Some((id, n, worker)) = self.choose(effects.now) else {
                self.stirred = false;
                return;
            };
            self.fit_size(id, n, &worker, effects.now);
            self.give(id, n, &worker, effects);
        }
    }

    /// The next task and its worker. The jobs come in the order in which they are due, but while
    /// the first has been served lately, one whose model is loaded may go before it.
    fn choose(&self, now: Millis) -> Option<(Uuid, u32, Arc<str>)> {
        let mut fallback = None;
        for (at, id) in self.queue.due().enumerate() {
            if at >= LOOKED_AT && fallback.is_some() {
                break;
            }
            let job = self.jobs.get(&id)?;
            let &n = job.pending.first()?;
            let Some((worker, (_, cold, _))) = self.best_worker(job, n, now) else {
                continue;
            };
            let patient = now.saturating_sub(job.served) < self.limits.affinity;
            if !cold || (!patient && fallback.is_none()) {
                return Some((id, n, worker));
            }
            fallback.get_or_insert((id, n, worker));
        }
        fallback
    }

    /// The worker with room on which a task is best placed: one that was not lost on it before,
    /// that has the model loaded, and the emptiest of those, so that a short job is spread over
    /// all.
    fn best_worker(&self, job: &Job, n: u32, now: Millis) -> Option<(Arc<str>, Fit)> {
        let task = &job.tasks[n as usize];
        let mut best: Option<(Arc<str>, Fit)> = None;
        for (leases, name) in &self.idle {
            let Some(worker) = self.workers.get(name) else {
                continue;
            };
            if self.unfit(job, task, worker, now).is_some() {
                continue;
            }
            let fit = (
                task.lost(name),
                !worker.has_loaded(&job.model.name),
                *leases,
            );
            if best.as_ref().is_none_or(|(_, before)| fit < *before) {
                best = Some((name.clone(), fit));
            }
            if !fit.0 && !fit.1 {
                break; // the rest are fuller
            }
        }
        best
    }

    /// Why a worker cannot have a task, if it cannot.
    pub(super) fn unfit(
        &self,
        job: &Job,
        task: &Task,
        worker: &Worker,
        now: Millis,
    ) -> Option<Unfit> {
        let capabilities = &worker.capabilities;
        let dtypes = &capabilities.dtypes;
        let any = dtypes.is_empty() || job.needs.dtype == v1::Dtype::Unspecified;
        if !any && !dtypes.contains(&(job.needs.dtype as i32)) {
            return Some(Unfit::Dtype);
        }
        let memory = capabilities.device_memory;
        if memory > 0 && job.needs.memory > memory {
            return Some(Unfit::Memory);
        }
        // Cut to what it can do in the usual time, a task takes no longer than that.
        let until = worker.lives_until?;
        let usual = self.limits.task_seconds;
        let rate = self.rate(worker, job.stage_name(task));
        let time = rate.map_or(usual, |rate| task.cost / rate);
        let end = now + (time.min(TOO_LONG * usual) * 1e3) as Millis;
        (end > until).then_some(Unfit::Lifetime)
    }

    /// Cuts a task so that the worker is through with it in about the usual time and, where few are
    /// left, so that all workers have something to do to the end.
    fn fit_size(&mut self, id: Uuid, n: u32, worker: &Arc<str>, now: Millis) {
        let usual = self.limits.task_seconds;
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let task = &job.tasks[n as usize];
        let worker = self.workers.get(worker);
        let rate = worker.and_then(|it| self.rate(it, job.stage_name(task)));
        let by_time = rate
            .filter(|rate| task.cost / rate > TOO_LONG * usual)
            .map(|rate| usual * rate);
        let by_rest = self.share_of_rest(job, task, rate, now);
        let by_rest = by_rest.filter(|share| task.cost > *share);
        let most = by_time.into_iter().chain(by_rest).reduce(f64::min);
        // What is begun stays whole: of one half everything might be done.
        let Some(most) = most.filter(|_| task.units_done == 0) else {
            return;
        };
        let grain = job.stages.get(task.stage).map_or(1, |it| it.stage.grain) as f64;
        let units = f64::from(task.units) * most / task.cost / grain;
        let units = units.floor().max(1.0) * grain;
        if units < f64::from(task.units)
            && let Some(job) = self.jobs.get_mut(&id)
        {
            job.split(n, units as u32);
        }
    }

    /// What a worker should take at a time of the last tasks that wait, in multiply-adds: as more is
    /// done, ever smaller parts. `None` where there is more to do than that matters, where only one
    /// worker has the model in memory, and where leases cost much and nobody knows how long units take.
    fn share_of_rest(&self, job: &Job, task: &Task, rate: Option<f64>, now: Millis) -> Option<f64> {
        let few = |tasks: usize, workers: usize| tasks <= workers * PARTS_OF_REST;
        let dear = job.stages.get(task.stage).is_none_or(|it| it.stage.dear);
        if (dear && rate.is_none()) || !few(job.pending.len(), self.workers.len()) {
            return None; // they need not be counted
        }
        let able = self.workers.values().filter(|worker| {
            worker.takes_leases()
                && worker.has_loaded(&job.model.name)
                && self.unfit(job, task, worker, now).is_none()
        });
        let able = able.count();
        let mut waiting = 0;
        let mut jobs = self.queue.due().filter_map(|id| self.jobs.get(&id));
        let much = jobs.any(|job| {
            waiting += job.pending.len();
            !few(waiting, able)
        });
        if able < 2 || much {
            return None;
        }
        let left = job.pending.iter().map(|&n| job.tasks[n as usize].cost);
        let share = left.sum::<f64>() / (able * PARTS_OF_REST) as f64;
        let part = if dear { LEAST_PART_DEAR } else { LEAST_PART };
        let least = rate.map_or(0.0, |rate| rate * self.limits.task_seconds * part);
        Some(share.max(least).max(LEAST_COST))
    }

    /// Takes leases that wait behind others back for workers that have none: what a task costs is an
    /// estimate, and a worker that was given too much is not waited for while others are idle.
    pub(super) fn share_waiting(&mut self, effects: &mut Effects) {
        let free = self.idle.iter().take_while(|(leases, _)| *leases == 0);
        let free = free.take(LOOKED_AT).map(|(_, name)| name.clone());
        for name in free.collect::<Vec<_>>() {
            let Some((id, n)) = self.waiting_for(&name, effects.now) else {
                continue;
            };
            self.recall_leases(id, n, effects);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.set_state(n, TaskState::Pending);
                job.tell(n, effects);
            }
            self.touch(id, effects);
            self.assign(effects);
        }
    }

    /// The dearest task whose lease waits behind another one of its worker, of those that this worker
    /// can do with a model that it has in memory.
    fn waiting_for(&self, name: &Arc<str>, now: Millis) -> Option<(Uuid, u32)> {
        let free = self.workers.get(name)?;
        let waiting = self.workers.values().filter_map(|worker| {
            // One that is away may come back in the middle of them.
            if worker.leases.len() < 2 || worker.session.is_none() {
                return None;
            }
            // They are worked on in the order in which they were given.
            let (key, held) = worker.leases.iter().max_by_key(|(_, held)| held.epoch)?;
            (held.steps == 0 && held.rate == 0.0).then_some(*key)
        });
        let fits = waiting.filter_map(|(id, n)| {
            let job = self.jobs.get(&id)?;
            let task = job.tasks.get(n as usize)?;
            let untouched = task.units_done == 0 && task.second.is_none();
            let fit = job.state == JobState::Running
                && free.has_loaded(&job.model.name)
                && !task.lost(name)
                && self.unfit(job, task, free, now).is_none();
            (untouched && fit).then_some((id, n, task.cost))
        });
        let dearest = fits.max_by(|(.., one), (.., other)| one.total_cmp(other));
        dearest.map(|(id, n, _)| (id, n))
    }

    /// Gives the last tasks of a job that take far longer than the others a second lease. The first
    /// valid commit of a unit is its result; the lease that ends later is taken back.
    pub(super) fn speculate(&mut self, effects: &mut Effects) {
        if self.idle.is_empty() {
            return;
        }
        let late: Vec<Uuid> = self
            .jobs
            .values()
            .filter(|job| job.state == JobState::Running && is_late(job))
            .map(|job| job.id)
            .collect();
        for id in late {
            for n in self.stragglers(id, effects.now) {
                let Some(job) = self.jobs.get(&id) else {
                    continue;
                };
                let held = job.tasks[n as usize].lease.as_ref().map(|it| &it.worker);
                // Behind another lease it would only wait.
                let free = self.idle.iter().take_while(|(leases, _)| *leases == 0);
                let found = free.map(|(_, name)| name).find(|name| {
                    let task = &job.tasks[n as usize];
                    let fits = |worker| self.unfit(job, task, worker, effects.now).is_none();
                    Some(*name) != held
                        && !task.lost(name)
                        && self.workers.get(*name).is_some_and(fits)
                });
                if let Some(worker) = found.cloned() {
                    self.give(id, n, &worker, effects);
                }
            }
        }
    }

    /// Tasks with one lease that has run for several times the median.
    fn stragglers(&self, id: Uuid, now: Millis) -> Vec<u32> {
        let median = self.jobs.get(&id).and_then(Job::median_duration);
        // Below a heartbeat nothing is known of how a task goes.
        let usual = median.unwrap_or_default().max(self.limits.heartbeat);
        let mut found = Vec::new();
        for worker in self.workers.values() {
            for (&(job, n), held) in worker.leases.range((id, 0)..=(id, u32::MAX)) {
                let time = now.saturating_sub(held.since.max(worker.last_end));
                let task = &self.jobs[&job].tasks[n as usize];
                // One that has all its results only has to say so.
                let open = task.second.is_none() && task.units_done < task.units;
                if open && time > STRAGGLING * usual {
                    found.push(n);
                }
            }
        }
        found.sort_unstable();
        found
    }
}

/// Whether a job is nearly done and nothing of it waits.
fn is_late(job: &Job) -> bool {
    let stage = job.stages.get(job.stages.open());
    let done = stage.map_or(0.0, Progress::ended_part);
    job.pending.is_empty()
        && job.delayed.is_empty()
        && job.tally.leased > 0
        && done >= MOSTLY_DONE
        && !job.durations.is_empty()
}
