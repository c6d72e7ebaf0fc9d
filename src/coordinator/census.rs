//! The core in numbers: what it has, and what it has done since it was started.

use super::core::Core;
use super::ended;
use super::job::is_terminal;
use crate::proto::v1::{self, FailureClass};

impl Core {
    /// Jobs, tasks and workers in numbers. Takes time for every open job and worker, not for every
    /// task.
    pub fn census(&self) -> v1::SchedulerStatus {
        let mut jobs = self.ended.states.clone();
        let mut counts = self.ended.counts;
        let mut queue_depth = 0;
        for job in self.jobs.values() {
            *jobs.entry(job.state).or_default() += 1;
            ended::add(&mut counts, &job.counts());
            let tally = job.tally;
            if !is_terminal(job.state) {
                queue_depth += tally.waiting - tally.quarantined;
            }
        }
        let mut status = v1::SchedulerStatus {
            jobs: jobs
                .into_iter()
                .map(|(state, count)| v1::JobStateCount {
                    state: state as i32,
                    count,
                })
                .collect(),
            counts: Some(counts),
            queue_depth,
            units_committed: self.counters.units,
            tasks_completed: self.counters.tasks,
            multiply_adds: self.counters.multiply_adds,
            leases_given: self.counters.leases,
            retries: self.counters.retries,
            divergences: self.counters.divergences,
            failures: self.counters.failures.iter().map(failure_count).collect(),
            ..Default::default()
        };
        self.count_workers(&mut status);
        status
    }

    fn count_workers(&self, status: &mut v1::SchedulerStatus) {
        let mut workers = v1::WorkerCounts::default();
        for worker in self.workers.values() {
            status.leases += worker.leases.len() as u64;
            status.steps_per_second += worker.leases.values().map(|held| held.rate).sum::<f64>();
            if !worker.leases.is_empty() {
                status.measured_rate += worker.rates.all.unwrap_or_default();
            }
            let count = match (worker.session.is_some(), worker.draining) {
                (false, _) => &mut workers.away,
                (true, _) if worker.excluded.is_some() => &mut workers.excluded,
                (true, true) => &mut workers.draining,
                (true, false) if worker.leases.is_empty() => &mut workers.idle,
                (true, false) => &mut workers.busy,
            };
            *count += 1;
        }
        status.workers = Some(workers);
    }
}

fn failure_count((class, count): (&FailureClass, &u64)) -> v1::FailureCount {
    v1::FailureCount {
        failure_class: *class as i32,
        count: u32::try_from(*count).unwrap_or(u32::MAX),
    }
}
