//! Jobs that have ended: they never change again, and a coordinator has more of them by the day. In
//! memory is what lists show; their tasks and units are in the store.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::job::Job;
use crate::proto::v1::{self, JobState};

/// An ended job as it is remembered.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) summary: v1::Job,
    pub(super) request_digest: String,
}

/// The ended jobs, and what they come to.
#[derive(Debug, Default)]
pub(super) struct EndedJobs {
    by_id: BTreeMap<Uuid, Ended>,
    /// How many there are of each state.
    pub(super) states: BTreeMap<JobState, u64>,
    pub(super) counts: v1::JobCounts,
}

impl EndedJobs {
    pub(super) fn insert(&mut self, id: Uuid, ended: Ended) {
        *self.states.entry(ended.summary.state()).or_default() += 1;
        add(&mut self.counts, &ended.summary.counts.unwrap_or_default());
        self.by_id.insert(id, ended);
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&Ended> {
        self.by_id.get(&id)
    }

    /// Those in a range of identifiers, in order.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn range(
        &self,
        range: impl std::ops::RangeBounds<Uuid>,
    ) -> impl DoubleEndedIterator<Item = (&Uuid, &Ended)> {
        self.by_id.range(range)
    }
}

impl Ended {
    pub(super) fn new(job: Job) -> Self {
        Self {
            summary: job.summary(),
            request_digest: job.request_digest,
        }
    }
}

/// Adds the counts of one job to those of several.
pub(super) fn add(sum: &mut v1::JobCounts, job: &v1::JobCounts) {
    sum.tasks += job.tasks;
    sum.tasks_pending += job.tasks_pending;
    sum.tasks_leased += job.tasks_leased;
    sum.tasks_done += job.tasks_done;
    sum.tasks_failed += job.tasks_failed;
    sum.tasks_cancelled += job.tasks_cancelled;
    sum.tasks_quarantined += job.tasks_quarantined;
    sum.units += job.units;
    sum.units_done += job.units_done;
    sum.units_failed += job.units_failed;
    sum.units_cached += job.units_cached;
    sum.stages += job.stages;
    sum.stages_done += job.stages_done;
}
