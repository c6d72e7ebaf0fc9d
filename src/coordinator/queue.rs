//! Which job is next. Owners share the workers by their weights: the owner with the fewest leases
//! for its weight comes first. Among the jobs of one owner the priority decides, and age makes up
//! for it: a job that has waited `ageing` milliseconds longer goes before one of a priority higher
//! by one.
//!
//! All of it follows from the jobs and their leases, so a restart changes no share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::event::Millis;
use super::job::{Job, is_terminal};
use super::limits::Limits;

/// Where a job stands among those of its owner; the smallest comes first.
type Rank = (i64, i128, Uuid);

/// The owners with their jobs.
#[derive(Debug)]
pub(super) struct Queue {
    ageing: Millis,
    weights: BTreeMap<String, f64>,
    owners: BTreeMap<Arc<str>, Owner>,
}

#[derive(Debug, Default)]
struct Owner {
    weight: f64,
    leases: u64,
    /// Jobs with a task to give.
    ready: BTreeSet<Rank>,
    /// Jobs that have not ended, and their units.
    jobs: u64,
    units: u64,
}

impl Owner {
    fn share(&self) -> f64 {
        self.leases as f64 / self.weight
    }
}

impl Queue {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            ageing: limits.ageing,
            weights: limits.weights.clone(),
            owners: BTreeMap::new(),
        }
    }

    fn rank(&self, job: &Job) -> Rank {
        let (priority, created) = (job.spec.priority, i128::from(job.created));
        if self.ageing == 0 {
            (-i64::from(priority), created, job.id)
        } else {
            let ahead = i128::from(priority) * i128::from(self.ageing);
            (0, created - ahead, job.id)
        }
    }

    fn owner(&mut self, name: &Arc<str>) -> &mut Owner {
        let weight = self.weights.get(&**name).copied().unwrap_or(1.0);
        self.owners.entry(name.clone()).or_insert_with(|| Owner {
            weight,
            ..Owner::default()
        })
    }

    /// Counts a job among the open ones of its owner.
    pub(super) fn open(&mut self, job: &mut Job) {
        let owner = self.owner(&job.owner);
        owner.jobs += 1;
        owner.units += job.units;
        job.open = true;
    }

    /// Open jobs and their units.
    pub(super) fn open_of(&self, owner: &str) -> (u64, u64) {
        let owner = self.owners.get(owner);
        owner.map_or((0, 0), |owner| (owner.jobs, owner.units))
    }

    /// Puts a job that has changed where it belongs, and says whether it came among the ready.
    pub(super) fn place(&mut self, job: &mut Job) -> bool {
        let ended = is_terminal(job.state);
        let ready = !ended && !job.pending.is_empty();
        let rank = self.rank(job);
        let owner = self.owner(&job.owner);
        if ended && job.open {
            owner.jobs -= 1;
            owner.units -= job.units;
            job.open = false;
        }
        if ready && !job.queued {
            owner.ready.insert(rank);
        } else if !ready && job.queued {
            owner.ready.remove(&rank);
        }
        let came = ready && !job.queued;
        job.queued = ready;
        // Owners come and go; one of whom nothing is left is forgotten.
        if owner.jobs == 0 && owner.leases == 0 && owner.ready.is_empty() {
            self.owners.remove(&job.owner);
        }
        came
    }

    pub(super) fn lease_given(&mut self, owner: &Arc<str>) {
        self.owner(owner).leases += 1;
    }

    pub(super) fn lease_ended(&mut self, owner: &Arc<str>) {
        let owner = self.owner(owner);
        owner.leases = owner.leases.saturating_sub(1);
    }

    /// Jobs with a task to give, in the order in which they are due.
    pub(super) fn due(&self) -> impl Iterator<Item = Uuid> {
        let mut owners: Vec<&Owner> = self
            .owners
            .values()
            .filter(|owner| !owner.ready.is_empty())
            .collect();
        owners.sort_by(|a, b| {
            let oldest = |owner: &Owner| owner.ready.first().copied();
            a.share()
                .total_cmp(&b.share())
                .then_with(|| oldest(a).cmp(&oldest(b)))
        });
        owners
            .into_iter()
            .flat_map(|owner| &owner.ready)
            .map(|&(_, _, id)| id)
    }

    /// Whether no job has a task to give.
    pub(super) fn is_empty(&self) -> bool {
        self.owners.values().all(|owner| owner.ready.is_empty())
    }

    /// Leases of an owner, and what it is due for each.
    pub(super) fn share_of(&self, owner: &str) -> (u64, f64) {
        let owner = self.owners.get(owner);
        owner.map_or((0, 1.0), |owner| (owner.leases, owner.weight))
    }

    /// Owners with tasks to give that come before one now.
    pub(super) fn owners_before(&self, name: &str) -> Vec<(Arc<str>, u64)> {
        let share = self.owners.get(name).map_or(0.0, Owner::share);
        self.owners
            .iter()
            .filter(|(other, owner)| &***other != name && !owner.ready.is_empty())
            .filter(|(_, owner)| owner.share() < share)
            .map(|(other, owner)| (other.clone(), owner.leases))
            .collect()
    }
}
