//! The core's state as others see it: jobs, tasks and workers.

use std::ops::Bound::{Excluded, Unbounded};

use prost::Message as _;
use uuid::Uuid;

use super::core::Core;
use super::event::LeaseKey;
use super::job::timestamp;
use crate::proto::v1;
use crate::work;

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
        let mut full = v1::Job {
            stages: job.stages.views(),
            // Lists leave texts out; here they are.
            spec: job.spec.spec.clone(),
            ..job.summary()
        };
        if let Some(work) = work::of_mut(&mut full) {
            work.count_parts(job.items.len() as u64);
        }
        work::unpack(&mut full, &job.items);
        Some(full)
    }

    /// Jobs before one, the newest first: at most `limit`, and none behind the first that exceeds
    /// `bytes` bytes of them together.
    pub fn jobs_before(
        &self,
        before: Option<Uuid>,
        limit: usize,
        bytes: usize,
    ) -> Vec<(Uuid, v1::Job)> {
        let range = (Unbounded, before.map_or(Unbounded, Excluded));
        let mut open = self.jobs.range(range).rev().peekable();
        let mut ended = self.ended.range(range).rev().peekable();
        let (mut found, mut total) = (Vec::new(), 0);
        while found.len() < limit && total <= bytes {
            let newest = (open.peek().map(|it| it.0), ended.peek().map(|it| it.0));
            let next = match newest {
                (Some(one), Some(other)) if one < other => None,
                (Some(_), _) => open.next(),
                (None, _) => None,
            };
            let next = match next {
                Some((&id, job)) => Some((id, job.summary())),
                None => ended.next().map(|(&id, job)| (id, job.summary.clone())),
            };
            let Some(next) = next else {
                break;
            };
            total += next.1.encoded_len();
            found.push(next);
        }
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
        let job = self.jobs.get(&id);
        let mut progress = v1::JobProgress {
            stage: job.and_then(|job| job.stages.view(job.stages.open())),
            ..Default::default()
        };
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

    /// Units of an earlier stage that a live lease may read the results of.
    ///
    /// # Errors
    /// Why it may not, in words.
    pub fn earlier_units(
        &self,
        lease: LeaseKey,
        asked: &v1::UnitRange,
    ) -> Result<std::ops::Range<u64>, String> {
        let job = self.jobs.get(&lease.job);
        let task = job.and_then(|job| job.tasks.get(lease.task as usize));
        let (Some(job), Some(task)) = (job, task) else {
            return Err("the job has ended: drop the lease".to_owned());
        };
        if !task.holders().any(|holder| holder.epoch == lease.epoch) {
            return Err("the lease is not live: drop it".to_owned());
        }
        let end = asked.first_unit.checked_add(asked.units);
        let stage = job.stages.get(asked.stage);
        let (Some(end), Some(stage)) = (end, stage) else {
            return Err(format!("jobs/{} has no such units", job.id));
        };
        let units = asked.first_unit..end;
        let within = stage.stage.range();
        if asked.stage >= task.stage || units.start < within.start || units.end > within.end {
            return Err(format!(
                "units {} to {end} are not of a stage before the lease's own, which is {}",
                units.start, task.stage
            ));
        }
        Ok(units)
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
