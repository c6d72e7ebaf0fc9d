//! Why something waits, in words.

use uuid::Uuid;

use super::core::Core;
use super::job::{Job, is_terminal};
use super::placement::Unfit;
use super::worker::Worker;
use crate::proto::v1::JobState;

/// Most failed tasks that are told of.
const SHOWN: usize = 5;

impl Core {
    /// Why the tasks of a job in memory are not running, the most important reason first.
    pub fn explain(&self, id: Uuid) -> Option<Vec<String>> {
        let job = self.jobs.get(&id)?;
        let mut reasons = Vec::new();
        match job.state {
            JobState::Succeeded => reasons.push("The job is done.".to_owned()),
            JobState::Failed => reasons.push(format!(
                "The job has ended; {} units failed.",
                job.failed.len()
            )),
            JobState::Cancelled => reasons.push("The job was cancelled.".to_owned()),
            _ => self.explain_open(job, &mut reasons),
        }
        if job.tally.quarantined > 0 {
            reasons.push(format!(
                "{} tasks are in quarantine, because several workers were lost while they ran \
                 them: 'palimpsest job requeue {id}' gives them another round, 'palimpsest job \
                 cancel {id}' gives them up.",
                job.tally.quarantined
            ));
        }
        let failures = job
            .tasks
            .iter()
            .enumerate()
            .filter(|(_, task)| !task.last_failure().is_empty());
        for (n, task) in failures.take(SHOWN) {
            reasons.push(format!("Task {n} failed before: {}.", task.last_failure()));
        }
        Some(reasons)
    }

    /// Whether a job in memory is open and there is no worker for it.
    pub fn lacks_workers(&self, id: Uuid) -> bool {
        let open = |job: &Job| !is_terminal(job.state);
        let mut workers = self.workers.values();
        self.jobs.get(&id).is_some_and(open) && !workers.any(|worker| worker.session.is_some())
    }

    fn explain_open(&self, job: &Job, reasons: &mut Vec<String>) {
        let tally = job.tally;
        let connected: Vec<(&str, &Worker)> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.session.is_some())
            .map(|(name, worker)| (&**name, worker))
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
        let second = job
            .tasks
            .iter()
            .filter(|task| task.second.is_some())
            .count();
        if second > 0 {
            reasons.push(format!(
                "{second} tasks run on two workers, because they take far longer than the others \
                 did: the first result counts."
            ));
        }
        self.explain_workers(job, &connected, reasons);
        let ready = job.pending.len() + job.delayed.len();
        if tally.waiting - tally.quarantined > ready as u64 {
            self.explain_stage(job, reasons);
        }
        if job.queued {
            self.explain_turn(job, reasons);
        }
        if !job.delayed.is_empty() {
            reasons.push(format!(
                "{} tasks wait for another attempt after a failure.",
                job.delayed.len()
            ));
        }
    }

    /// What the tasks of later stages wait for.
    fn explain_stage(&self, job: &Job, reasons: &mut Vec<String>) {
        let open = job.stages.open();
        let Some(it) = job.stages.get(open) else {
            return;
        };
        reasons.push(format!(
            "The tasks of later stages wait for stage {open} ({}): {} of {} units open.",
            it.stage.name,
            it.stage.units - it.units_done,
            it.stage.units
        ));
    }

    /// Why the workers that there are take none of it.
    fn explain_workers(&self, job: &Job, connected: &[(&str, &Worker)], reasons: &mut Vec<String>) {
        let excluded: Vec<_> = connected
            .iter()
            .filter_map(|(name, worker)| Some((name, worker.excluded.as_ref()?)))
            .collect();
        for (name, why) in &excluded {
            reasons.push(format!(
                "Worker {name} gets no leases, because {why}: 'palimpsest worker readmit {name}' \
                 lets it have some again."
            ));
        }
        let working = connected.len() - excluded.len();
        let room = connected.iter().filter(|(_, worker)| worker.has_room());
        if working > 0 && room.clone().count() == 0 {
            reasons.push(format!(
                "All {working} connected workers are busy or draining."
            ));
        }
        let Some(task) = job.pending.first().map(|n| &job.tasks[*n as usize]) else {
            return;
        };
        let now = connected.iter().map(|(_, worker)| worker.last_heard).max();
        let unfit = |what| {
            let now = now.unwrap_or_default();
            let unfit = |worker: &&(&str, &Worker)| self.unfit(job, task, worker.1, now) == what;
            connected.iter().filter(unfit).count()
        };
        for (what, why) in [
            (Unfit::Dtype, "do not compute in its number format"),
            (Unfit::Memory, "have too little memory for its model"),
            (Unfit::Lifetime, "will be taken away before a task is done"),
        ] {
            let count = unfit(Some(what));
            if count > 0 {
                reasons.push(format!("{count} of {} workers {why}.", connected.len()));
            }
        }
    }

    /// Who comes first.
    fn explain_turn(&self, job: &Job, reasons: &mut Vec<String>) {
        let due: Vec<Uuid> = self.queue.due().take_while(|id| *id != job.id).collect();
        let waiting = |own: bool| {
            let ahead = due.iter().filter_map(|id| self.jobs.get(id));
            let ahead = ahead.filter(|other| (other.owner == job.owner) == own);
            ahead.map(|other| other.pending.len()).sum::<usize>()
        };
        let own = waiting(true);
        if own > 0 {
            reasons.push(format!(
                "{own} waiting tasks of other jobs come first, by their priority and age."
            ));
        }
        let others = self.queue.owners_before(&job.owner);
        if !others.is_empty() {
            let (leases, weight) = self.queue.share_of(&job.owner);
            let names: Vec<_> = others
                .iter()
                .map(|(name, leases)| format!("'{name}' ({leases} leases)"))
                .collect();
            reasons.push(format!(
                "Owner '{}' holds {leases} leases at a weight of {weight}: {} come first.",
                job.owner,
                names.join(", ")
            ));
        }
        let cold = self.workers.values().filter(|worker| worker.has_room());
        if !is_terminal(job.state) && cold.clone().count() > 0 {
            let loaded = cold.filter(|worker| worker.has_loaded(&job.model.name));
            if loaded.count() == 0 {
                reasons.push(format!(
                    "No worker with room has {} loaded: for up to {} s jobs of loaded models go \
                     first.",
                    job.model.name,
                    self.limits.affinity / 1000
                ));
            }
        }
    }
}
