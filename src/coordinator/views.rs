//! The core's state as others see it: jobs, tasks, workers, and why something waits.

use uuid::Uuid;

use super::core::Core;
use super::event::LeaseKey;
use super::job::{is_terminal, timestamp};
use crate::proto::v1::{self, JobState, TaskState};

impl Core {
    /// A job with its counts, as lists show it.
    pub fn job(&self, id: Uuid) -> Option<v1::Job> {
        self.jobs.get(&id).map(|job| job.summary(id))
    }

    /// A job with its facts or prompts.
    pub fn full_job(&self, id: Uuid) -> Option<v1::Job> {
        let job = self.jobs.get(&id)?;
        Some(v1::Job {
            spec: job.spec.spec.clone(),
            ..job.summary(id)
        })
    }

    /// Jobs before one, the newest first.
    pub fn jobs_before(&self, before: Option<Uuid>, limit: usize) -> Vec<(Uuid, v1::Job)> {
        let end = before.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.jobs
            .range((std::ops::Bound::Unbounded, end))
            .rev()
            .take(limit)
            .map(|(&id, job)| (id, job.summary(id)))
            .collect()
    }

    /// Tasks of a job from one on.
    pub fn tasks(&self, id: Uuid, from: u32, limit: usize) -> Option<Vec<v1::Task>> {
        let job = self.jobs.get(&id)?;
        let last = job.tasks.len().min((from as usize).saturating_add(limit));
        Some(
            (from as usize..last)
                .map(|n| job.task(id, n as u32))
                .collect(),
        )
    }

    /// How a job's running tasks go.
    pub fn progress(&self, id: Uuid) -> v1::JobProgress {
        let mut progress = v1::JobProgress::default();
        for worker in self.workers.values() {
            let mut any = false;
            for (_, held) in worker.leases.iter().filter(|((job, _), _)| *job == id) {
                progress.steps_running += held.steps;
                progress.steps_per_second += held.rate;
                any = true;
            }
            progress.workers += u32::from(any);
        }
        progress
    }

    /// Workers after a name, in order.
    pub fn workers(&self, after: &str, limit: usize) -> Vec<v1::Worker> {
        let start = (
            std::ops::Bound::Excluded(after.to_owned()),
            std::ops::Bound::Unbounded,
        );
        self.workers
            .range(start)
            .take(limit)
            .map(|(name, worker)| v1::Worker {
                name: format!("workers/{name}"),
                capabilities: Some(worker.capabilities.clone()),
                connected: worker.session.is_some(),
                draining: worker.draining,
                credits: worker.credits,
                leases: worker
                    .leases
                    .iter()
                    .map(|(&(job, task), held)| v1::LeaseProgress {
                        lease: Some(
                            LeaseKey {
                                job,
                                task,
                                epoch: held.epoch,
                            }
                            .to_proto(),
                        ),
                        steps: held.steps,
                        steps_per_second: held.rate,
                    })
                    .collect(),
                connect_time: Some(timestamp(worker.connected_at)),
                units_committed: worker.units_committed,
            })
            .collect()
    }

    /// Why a job's tasks are not running, the most important reason first.
    pub fn explain(&self, id: Uuid) -> Option<Vec<String>> {
        let job = self.jobs.get(&id)?;
        let tally = job.tally;
        let mut reasons = Vec::new();
        match job.state {
            JobState::Succeeded => reasons.push("The job is done.".to_owned()),
            JobState::Failed => {
                reasons.push(format!(
                    "The job has ended; {} units failed.",
                    job.failed.len()
                ));
            }
            JobState::Cancelled => reasons.push("The job was cancelled.".to_owned()),
            _ => {
                let connected: Vec<_> = self
                    .workers
                    .values()
                    .filter(|w| w.session.is_some())
                    .collect();
                if connected.is_empty() {
                    reasons.push(
                        "No worker is connected: start one with 'palimpsest worker --coordinator ADDR'."
                            .to_owned(),
                    );
                } else if tally.leased > 0 {
                    reasons.push(format!(
                        "{} tasks run, {} wait.",
                        tally.leased, tally.waiting
                    ));
                }
                if !connected.is_empty() && connected.iter().all(|w| !w.has_room()) {
                    reasons.push(format!(
                        "All {} connected workers are busy or draining.",
                        connected.len()
                    ));
                }
                if job.tasks.iter().any(|t| t.state == TaskState::Blocked) {
                    reasons.push(
                        "The scale of the noise is being found; the other tasks wait for it."
                            .to_owned(),
                    );
                }
                let ahead: u64 = self
                    .jobs
                    .iter()
                    .filter(|(other, o)| {
                        let before = (std::cmp::Reverse(o.spec.priority), **other)
                            < (std::cmp::Reverse(job.spec.priority), id);
                        before && !is_terminal(o.state)
                    })
                    .map(|(_, o)| o.tally.waiting)
                    .sum();
                if ahead > 0 {
                    reasons.push(format!("{ahead} waiting tasks of other jobs come first."));
                }
                if !job.delayed.is_empty() {
                    reasons.push(format!(
                        "{} tasks wait for another attempt after a failure.",
                        job.delayed.len()
                    ));
                }
            }
        }
        let failures = job
            .tasks
            .iter()
            .enumerate()
            .filter(|(_, t)| !t.last_failure.is_empty());
        for (n, task) in failures.take(5) {
            reasons.push(format!("Task {n} failed before: {}.", task.last_failure));
        }
        Some(reasons)
    }
}
