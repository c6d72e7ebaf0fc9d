//! What always holds of the state, and the state as text, for comparing two.

use std::fmt::Write;

use super::core::Core;
use super::job::is_terminal;
use super::task::Tally;
use crate::invariants::Invariant;
use crate::proto::v1::TaskState;

impl Core {
    /// Every invariant that can be seen in the state. It looks at every task: for tests and debug
    /// builds.
    pub fn check(&self) {
        for (id, job) in &self.jobs {
            let mut tally = Tally::default();
            for (n, task) in job.tasks.iter().enumerate() {
                tally.add(task.state);
                let live: Vec<_> = task.holders().collect();
                let leased = task.state == TaskState::Leased;
                Invariant::I2.check(leased != live.is_empty(), || {
                    format!("jobs/{id}/tasks/{n} is {:?}, held by {live:?}", task.state)
                });
                for holder in live {
                    let worker = self.workers.get(&holder.worker);
                    let held = worker.and_then(|w| w.leases.get(&(*id, n as u32)));
                    Invariant::I2.check(held.is_some_and(|it| it.epoch == holder.epoch), || {
                        format!("jobs/{id}/tasks/{n}: {holder:?}, but it holds {held:?}")
                    });
                }
                let pending = job.pending.contains(&(n as u32));
                let delayed = task.trouble.as_ref().and_then(|it| it.delayed_until);
                let waits = pending || delayed.is_some();
                Invariant::I5.check(waits == (task.state == TaskState::Pending), || {
                    format!("jobs/{id}/tasks/{n} is {:?}, waits: {waits}", task.state)
                });
            }
            for task in &job.tasks {
                let waits = matches!(task.state, TaskState::Blocked | TaskState::Cancelled);
                let failed = task.state == TaskState::Failed;
                let opened = task.stage <= job.stages.open();
                Invariant::I13.check(waits || failed || opened, || {
                    format!("jobs/{id}: a task of stage {} runs", task.stage)
                });
            }
            Invariant::I5.check(tally == job.tally, || {
                format!("{tally:?}, counted {:?}", job.tally)
            });
            Invariant::I4.check(
                !is_terminal(job.state) || tally.waiting + tally.leased == 0,
                || format!("jobs/{id} has ended with {tally:?}"),
            );
            let ready = !is_terminal(job.state) && !job.pending.is_empty();
            Invariant::I5.check(ready == job.queued, || {
                format!(
                    "jobs/{id} has a task to give: {ready}, is in the queue: {}",
                    job.queued
                )
            });
        }
        for (name, worker) in &self.workers {
            for (&(job, n), held) in &worker.leases {
                let task = self
                    .jobs
                    .get(&job)
                    .and_then(|job| job.tasks.get(n as usize));
                let held = task.is_some_and(|task| task.is_held(held.epoch, name));
                Invariant::I2.check(held, || format!("{name} holds jobs/{job}/tasks/{n}"));
            }
            let room = worker.has_room().then_some(worker.leases.len());
            let listed = room.is_none_or(|n| self.idle.contains(&(n, name.clone())));
            Invariant::I6.check(room == worker.listed && listed, || {
                format!("{name} has room: {room:?}, is listed: {:?}", worker.listed)
            });
        }
    }

    /// All that a restart must bring back, as text: two cores that remember the same give the same.
    /// Connections, rates and waits between attempts are not part of it; they are found anew.
    pub fn dump(&self) -> String {
        let mut text = format!("epoch {}\n", self.epoch);
        // Writing to a string does not fail.
        for (id, job) in &self.jobs {
            let _ = writeln!(
                text,
                "{:?} found {:?} request {:?} {:?} failed {:?} first {:?}",
                job.summary(),
                job.found,
                job.request_id,
                job.request_digest,
                job.failed,
                job.first_failure,
            );
            for n in 0..job.tasks.len() as u32 {
                let task = &job.tasks[n as usize];
                let lost = task.trouble.iter().flat_map(|it| &it.lost_workers);
                let lost: Vec<_> = lost.collect();
                let _ = writeln!(text, "  {:?} lost {lost:?}", job.task(n));
                for unit in task.range() {
                    let _ = write!(text, " {:x}", job.committed(unit).unwrap_or_default());
                }
                let _ = writeln!(text);
            }
            let _ = writeln!(text, "{id} {:?} {}", job.owner, job.items.len());
        }
        for (id, job) in self.ended.range(..) {
            let (summary, request) = (&job.summary, &job.request_digest);
            let _ = writeln!(text, "{id} has ended: {summary:?} request {request:?}");
        }
        for (name, worker) in &self.workers {
            for (key, held) in &worker.leases {
                let _ = writeln!(text, "{name} holds {key:?} under {}", held.epoch);
            }
        }
        text
    }
}
