//! The scheduler as the store remembers it (I10).

use std::sync::Arc;

use uuid::Uuid;

use super::core::Core;
use super::ended::Ended;
use super::event::{Millis, NewJob};
use super::job::{Job, is_terminal, millis};
use super::limits::Limits;
use super::task::{Task, is_over};
use super::worker::{Held, Worker};
use crate::proto::v1::{self, TaskState};
use crate::store::{CommittedUnit, JobRecord, SpecRecord, TaskRecord};
use crate::work::{self, Found, Items};

/// A scheduler that is being put together from records: of each job that is open first its own,
/// then the tasks that have one, in order, then the committed units; of each that has ended its
/// own.
#[derive(Debug)]
pub struct Restoring {
    core: Core,
    now: Millis,
    /// The job whose units come, with its tasks in the order of their units.
    order: Option<(Uuid, Vec<(u64, u32)>)>,
}

impl Restoring {
    /// Workers that held leases have `worker_timeout` from now to come back and go on with them.
    pub fn new(limits: Limits, epoch: u64, now: Millis) -> Self {
        let mut core = Core::new(limits);
        core.epoch = epoch;
        core.epoch_written = epoch;
        Self {
            core,
            now,
            order: None,
        }
    }

    /// A job that has ended.
    pub fn ended(&mut self, id: Uuid, record: JobRecord) {
        let mut summary = record.job.unwrap_or_default();
        work::shorten(&mut summary);
        if !record.request_id.is_empty() {
            self.core.requests.insert(record.request_id, id);
        }
        let request_digest = record.request_digest;
        let ended = Ended {
            summary,
            request_digest,
        };
        self.core.ended.insert(id, ended);
    }

    /// A job with all that is known of it, which its tasks and units follow. `items` are its parts,
    /// where they lie in an object of their own.
    pub fn job(
        &mut self,
        id: Uuid,
        record: JobRecord,
        spec: SpecRecord,
        items: Items,
        model: v1::Model,
    ) {
        let summary = record.job.unwrap_or_default();
        let mut job = spec.job.unwrap_or_default();
        let inline = work::pack(&mut job);
        let new = NewJob {
            id,
            job,
            items: if inline.is_empty() { items } else { inline },
            model,
            tasks: spec.tasks,
            principal: record.principal,
            request_id: record.request_id,
            request_digest: record.request_digest,
            earlier: Vec::new(),
        };
        let created = summary.create_time.map_or(0, millis);
        let mut job = Job::new(new, created.into());
        job.state = summary.state();
        job.started = summary.start_time.map(millis);
        job.ended = summary.end_time.map(millis);
        let dates = [
            record.newest,
            created,
            job.started.unwrap_or(0),
            job.ended.unwrap_or(0),
        ];
        job.newest = dates.into_iter().max().unwrap_or(created);
        job.sequence = summary.last_sequence;
        job.first_failure = record.first_failure;
        job.found = Found {
            noise_scale: record.noise_scale,
            version: record.version,
            etag: record.etag,
            contexts: record.contexts,
        };
        if !job.request_id.is_empty() {
            self.core.requests.insert(job.request_id.clone(), id);
        }
        self.core.jobs.insert(id, job);
    }

    /// What changed of a task since it was planned, or a task that was cut from another.
    pub fn task(&mut self, id: Uuid, n: u32, record: &TaskRecord) {
        let Some(job) = self.core.jobs.get_mut(&id) else {
            return;
        };
        if n as usize == job.tasks.len()
            && let Some(plan) = &record.plan
        {
            let stage = job.stages.of_unit(plan.first_unit);
            job.stages.add_task(plan.first_unit);
            job.tasks.push(Task::new(plan, stage, TaskState::Pending));
            job.tally.add(TaskState::Pending);
        }
        let Some(task) = job.tasks.get_mut(n as usize) else {
            return;
        };
        task.restore(record);
        job.set_state(n, record.state());
        for (key, holder) in job.live(n) {
            self.core.queue.lease_given(&job.owner);
            let worker = self.core.workers.entry(holder.worker);
            let worker = worker.or_insert_with(|| Worker::absent(self.now));
            let held = Held::new(key.epoch, self.now);
            worker.leases.insert((id, n), held);
        }
    }

    /// A unit that has its result.
    pub fn unit(&mut self, unit: &CommittedUnit) {
        let id = unit.job;
        let Some(job) = self.core.jobs.get_mut(&id) else {
            return;
        };
        if self.order.as_ref().is_none_or(|(of, _)| *of != id) {
            let tasks = job.tasks.iter().zip(0..);
            let mut order: Vec<_> = tasks.map(|(task, n)| (task.first_unit, n)).collect();
            order.sort_unstable();
            self.order = Some((id, order));
        }
        let Some((_, order)) = &self.order else {
            return;
        };
        let after = order.partition_point(|(first, _)| *first <= unit.unit);
        if let Some(&(_, n)) = after.checked_sub(1).and_then(|at| order.get(at)) {
            job.count_unit(n, unit.unit, unit.digest, unit.failed);
            if unit.cached {
                job.count_cached(unit.unit);
            }
        }
    }

    /// The scheduler.
    pub fn finish(mut self) -> Core {
        let ids: Vec<Uuid> = self.core.jobs.keys().copied().collect();
        for id in ids {
            let Some(job) = self.core.jobs.get_mut(&id) else {
                continue;
            };
            // Tasks that waited only for the stage before theirs, or went with their job, have no
            // record of their own.
            job.open_stages(None);
            if is_terminal(job.state) {
                for n in 0..job.tasks.len() as u32 {
                    if !is_over(job.tasks[n as usize].state) {
                        job.set_state(n, TaskState::Cancelled);
                    }
                }
            } else {
                self.core.queue.open(job);
            }
            self.core.queue.place(job);
        }
        let workers: Vec<Arc<str>> = self.core.workers.keys().cloned().collect();
        for name in workers {
            self.core.list(&name);
        }
        self.core.check();
        self.core
    }
}
