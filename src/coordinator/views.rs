//! The core's state as others see it: jobs, tasks and workers.

use uuid::Uuid;

use super::core::Core;
use super::event::LeaseKey;
use super::job::timestamp;
use super::plan;
use crate::proto::v1;

impl Core {
    /// A job with its counts, as lists show it.
    pub fn job(&self, id: Uuid) -> Option<v1::Job> {
        self.jobs.get(&id).map(|job| job.summary())
    }

    /// A job with its facts or prompts, unless they lie in an object.
    pub fn full_job(&self, id: Uuid) -> Option<v1::Job> {
        let job = self.jobs.get(&id)?;
        let mut full = job.summary();
        plan::unpack(&mut full, &job.items);
        Some(full)
    }

    /// Jobs before one, the newest first.
    pub fn jobs_before(&self, before: Option<Uuid>, limit: usize) -> Vec<(Uuid, v1::Job)> {
        let end = before.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.jobs
            .range((std::ops::Bound::Unbounded, end))
            .rev()
            .take(limit)
            .map(|(&id, job)| (id, job.summary()))
            .collect()
    }

    /// Tasks of a job from one on.
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
