//! The core's state as others see it: jobs, tasks and workers.

use std::collections::BTreeSet;
use std::ops::Bound::{self, Excluded, Unbounded};

use prost::Message as _;
use uuid::Uuid;

use super::core::Core;
use super::ended::Ended;
use super::event::LeaseKey;
use super::job::{Job, timestamp};
use crate::proto::v1;
use crate::work;

/// Which jobs a list is of: those that pass all of it. What is empty passes every job.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// States of the contract.
    pub states: BTreeSet<i32>,
    /// The owner.
    pub owner: String,
    /// The model's resource name.
    pub model: String,
    /// The word of the kind of work.
    pub kind: Option<String>,
    /// In small letters: in the job's display name, or the end of its own.
    pub text: String,
}

impl JobFilter {
    fn is_empty(&self) -> bool {
        let Self {
            states,
            owner,
            model,
            kind,
            text,
        } = self;
        let named = [owner, model, text].into_iter().any(|it| !it.is_empty());
        states.is_empty() && !named && kind.is_none()
    }

    /// Whether a job passes whose record is `job`, but for its state and its name: those of an open
    /// job are not in it.
    fn passes(&self, id: Uuid, state: v1::JobState, job: &v1::Job) -> bool {
        (self.states.is_empty() || self.states.contains(&(state as i32)))
            && (self.owner.is_empty() || self.owner == job.owner)
            && (self.model.is_empty() || self.model == job.model)
            && (self.kind.as_deref()).is_none_or(|it| work::of(job).is_some_and(|w| w.word() == it))
            && (self.text.is_empty()
                || ends_name(id, &self.text)
                || has_text(&job.display_name, &self.text))
    }
}

/// Whether a name has a text in it, which is in small letters. Most names are ASCII, and many are
/// looked at: these without a copy of each.
fn has_text(name: &str, text: &str) -> bool {
    if !name.is_ascii() {
        return name.to_lowercase().contains(text);
    }
    let same = |part: &[u8]| part.eq_ignore_ascii_case(text.as_bytes());
    name.as_bytes().windows(text.len().max(1)).any(same)
}

/// Whether `jobs/{id}` ends in a text.
fn ends_name(id: Uuid, text: &str) -> bool {
    let mut written = Uuid::encode_buffer();
    let id: &str = id.hyphenated().encode_lower(&mut written);
    match text.len() > id.len() {
        true => text
            .strip_suffix(id)
            .is_some_and(|rest| "jobs/".ends_with(rest)),
        false => id.ends_with(text),
    }
}

/// A job as lists have it.
enum Listed<'a> {
    Open(&'a Job),
    Ended(&'a Ended),
}

impl Listed<'_> {
    fn passes(&self, id: Uuid, filter: &JobFilter) -> bool {
        match self {
            Listed::Open(job) => filter.passes(id, job.state, &job.shown),
            Listed::Ended(job) => filter.passes(id, job.summary.state(), &job.summary),
        }
    }

    fn summary(&self) -> v1::Job {
        match self {
            Listed::Open(job) => job.summary(),
            Listed::Ended(job) => job.summary.clone(),
        }
    }
}

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

    /// The jobs of a range, the newest first.
    fn newest(
        &self,
        range: (Bound<Uuid>, Bound<Uuid>),
    ) -> impl Iterator<Item = (Uuid, Listed<'_>)> {
        let mut open = self.jobs.range(range).rev().peekable();
        let mut ended = self.ended.range(range).rev().peekable();
        std::iter::from_fn(move || {
            let of_ended = match (open.peek(), ended.peek()) {
                (Some((open, _)), Some((ended, _))) => ended > open,
                (open, _) => open.is_none(),
            };
            match of_ended {
                true => ended.next().map(|(&id, job)| (id, Listed::Ended(job))),
                false => open.next().map(|(&id, job)| (id, Listed::Open(job))),
            }
        })
    }

    /// Jobs before one that pass a filter, the newest first: at most `limit`, and none behind the
    /// first that exceeds `bytes` bytes of them together. And how many pass it in all.
    pub fn page_of_jobs(
        &self,
        before: Option<Uuid>,
        limit: usize,
        bytes: usize,
        filter: &JobFilter,
    ) -> (Vec<(Uuid, v1::Job)>, u64) {
        if filter.is_empty() {
            let all = self.jobs.len() + self.ended.len();
            return (self.jobs_before(before, limit, bytes), all as u64);
        }
        // In one walk: what costs is to look at every job.
        let (mut found, mut size, mut all) = (Vec::new(), 0, 0);
        for (id, job) in self.newest((Unbounded, Unbounded)) {
            if !job.passes(id, filter) {
                continue;
            }
            all += 1;
            if before.is_none_or(|before| id < before) && found.len() < limit && size <= bytes {
                let shown = job.summary();
                size += shown.encoded_len();
                found.push((id, shown));
            }
        }
        (found, all)
    }

    /// All jobs before one, the newest first, within the same bounds.
    pub fn jobs_before(
        &self,
        before: Option<Uuid>,
        limit: usize,
        bytes: usize,
    ) -> Vec<(Uuid, v1::Job)> {
        let range = (Unbounded, before.map_or(Unbounded, Excluded));
        let (mut found, mut size) = (Vec::new(), 0);
        for (id, job) in self.newest(range).take(limit) {
            if size > bytes {
                break;
            }
            let shown = job.summary();
            size += shown.encoded_len();
            found.push((id, shown));
        }
        found
    }

    /// Tasks of a job in memory from one on, with their numbers: at most `limit`, in one of these
    /// states of the contract, or in any where there are none.
    pub fn tasks(
        &self,
        id: Uuid,
        from: u32,
        limit: usize,
        states: &BTreeSet<i32>,
    ) -> Option<Vec<(u32, v1::Task)>> {
        let job = self.jobs.get(&id)?;
        let tasks = (from..job.tasks.len() as u32).map(|n| (n, job.task(n)));
        let wanted = |it: &(u32, v1::Task)| states.is_empty() || states.contains(&it.1.state);
        Some(tasks.filter(wanted).take(limit).collect())
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
            measured_rate: worker.rates.all.unwrap_or_default(),
            valid_until: worker.valid_until.map(timestamp),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_a_name_whatever_its_capitals_and_at_the_end_of_a_jobs_name() {
        for (name, text, found) in [
            ("Sweep of Rome", "rome", true),
            ("Sweep of Rome", "romes", false),
            ("ÄRGER", "ärg", true),
            ("a", "ab", false),
            ("", "a", false),
        ] {
            assert_eq!(has_text(name, text), found, "{name:?} {text:?}");
        }
        let id = Uuid::from_u128(0xab);
        for (text, found) in [
            ("0ab", true),
            ("jobs/00000000-0000-0000-0000-0000000000ab", true),
            ("s/00000000-0000-0000-0000-0000000000ab", true),
            ("xjobs/00000000-0000-0000-0000-0000000000ab", false),
            ("jobs/0ab", false),
        ] {
            assert_eq!(ends_name(id, text), found, "{text:?}");
        }
    }
}
