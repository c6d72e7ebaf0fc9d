//! What the core may decide by.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::event::Millis;
use crate::proto::v1;

/// Times, bounds and weights.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time between a worker's heartbeats.
    pub heartbeat: Millis,
    /// A worker that was not heard of for this long is lost, and so are its leases.
    pub worker_timeout: Millis,
    /// Counted failures of a task before it has failed for good.
    pub attempts: u32,
    /// Distinct workers lost on a task, each before it had committed a unit of it, before it is
    /// poison.
    pub poison: usize,
    /// The age that makes up for one step of priority, among the jobs of one owner; 0 for none.
    pub ageing: Millis,
    /// How much of the workers an owner is due, against the others. 1 where nothing is said.
    pub weights: BTreeMap<String, f64>,
    /// How long a job lets workers pass to jobs whose model they have loaded.
    pub affinity: Millis,
    /// How long a task should run on the worker that gets it, in seconds.
    pub task_seconds: f64,
    /// Whether tasks that take far longer than the others of their job get a second lease.
    pub speculate: bool,
    /// Jobs of one owner that may be open at a time.
    pub jobs_per_owner: u64,
    /// Units of one owner's open jobs, those that are done included.
    pub units_per_owner: u64,
    /// What an edit must pass where its request does not say.
    pub gates: v1::EditGates,
    /// Texts of the coordinator's own whose perplexity edits are judged by, as an object has them.
    /// It is stored for every job that needs it.
    pub gate_texts: Option<Arc<Vec<u8>>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            heartbeat: 2_000,
            worker_timeout: 10_000,
            attempts: 4,
            poison: 3,
            ageing: 600_000,
            weights: BTreeMap::new(),
            affinity: 10_000,
            task_seconds: 20.0,
            speculate: true,
            jobs_per_owner: 1_000,
            units_per_owner: 50_000_000,
            gates: v1::EditGates::default(),
            gate_texts: None,
        }
    }
}
