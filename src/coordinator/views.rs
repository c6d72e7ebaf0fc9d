//! The core's state as others see it: jobs, tasks and workers.

use std::cmp::Reverse;
use std::ops::Bound::{Excluded, Unbounded};

use uuid::Uuid;

use super::core::Core;
use super::event::LeaseKey;
use super::job::timestamp;
use super::plan;
use crate::proto::v1;

impl Core {
    /// Whether a job has ended and nothing but what lists show of it is in memory.
    pub fn has_ended(&self, id: Uuid) -> bool {
        self.ended.get(id).is_some()
    }

    /// A job with its counts, as lists show it.
    pub fn job(&self, id: Uuid) -> Option<v1::Job> {
        let ended = || self.ended.get(id).map(|job| job.summary.clone());
        self.jobs.get(&id).map(|job| job.summary()).or_else(ended)
    }

    /// A job in memory with its facts or prompts, unless they lie in an object.
    pub fn full_job(&self, id: Uuid) -> Option<v1::Job> {
        let job = self.jobs.get(&id)?;
        let mut full = job.summary();
        plan::unpack(&mut full, &job.items);
        Some(full)
    }

    /// Jobs before one, the newest first.
    pub fn jobs_before(&self, before: Option<Uuid>, limit: usize) -> Vec<(Uuid, v1::Job)> {
        let range = (Unbounded, before.map_or(Unbounded, Excluded));
        let open = self.jobs.range(range).rev().take(limit);
        let ended = self.ended.range(range).rev().take(limit);
        let mut found: Vec<_> = open.map(|(&id, job)| (id, job.summary())).collect();
        found.extend(ended.map(|(&id, job)| (id, job.summary.clone())));
        found.sort_unstable_by_key(|(id, _)| Reverse(*id));
        found.truncate(limit);
        found
    }

    /// Tasks of a job in memory from one on.
    pub fn tasks(&self, id: Uuid, from: u32, limit: usize) -> Option<Vec<v1::Task>> {
        let job = self.jobs.get(&id)?;
        let last = job.tasks.len().min((from as usize).saturating_add(limit));
        Some((from as usize..last).map(|n| job.task(n as u32)).collect())
    }

    /// How a job's running tasks go.
    pub fn progress(&self, id: Uuid) -> v1::JobProgress {
        let mut progress = v1::JobProgress::default();
        for worker in self.workers.values() {
            let mut any = false;
            for held in worker.leases.range((id, 0)..=(id, u32::MAX)).map(|it| it.1) {
                // What workers say of themselves: it may be anything.
                progress.steps_running = progress.steps_running.saturating_add(held.steps);
                progress.steps_per_second += held.rate;
                progress.edits.extend(held.edit.as_deref().cloned());
                any = true;
            }
            progress.workers += u32::from(any);
        }
        progress
    }

    /// Workers after a name, in order.
    pub fn workers(&self, after: &str, limit: usize) -> Vec<v1::Worker> {
        self.workers
            .iter()
            .skip_while(|(name, _)| ***name <= *after)
            .take(limit)
            .map(|(name, _)| self.worker(name).unwrap_or_default())
            .collect()
    }

    /// A worker.
    pub fn worker(&self, name: &str) -> Option<v1::Worker> {
        let worker = self.workers.get(name)?;
        let leases = worker.leases.iter().map(|(&(job, task), held)| {
            let key = LeaseKey {
                job,
                task,
                epoch: held.epoch,
            };
            v1::LeaseProgress {
                lease: Some(key.to_proto()),
                steps: held.steps,
                steps_per_second: held.rate,
                edit: held.edit.as_deref().cloned(),
            }
        });
        Some(v1::Worker {
            name: format!("workers/{name}"),
            capabilities: Some(worker.capabilities.clone()),
            connected: worker.session.is_some(),
            draining: worker.draining,
            credits: worker.credits,
            leases: leases.collect(),
            connect_time: Some(timestamp(worker.connected_at)),
            units_committed: worker.units_committed,
            excluded: worker.excluded.clone().unwrap_or_default(),
            measured_rate: worker.rate.unwrap_or_default(),
            valid_until: worker.valid_until.map(timestamp),
        })
    }
}
