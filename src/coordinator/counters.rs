//! What the core has done since it was started, in numbers.

use std::collections::BTreeMap;

use crate::proto::v1::FailureClass;

/// What was done since the start. Not kept: what is durable is in the records.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) units: u64,
    pub(super) tasks: u64,
    pub(super) multiply_adds: f64,
    pub(super) leases: u64,
    pub(super) retries: u64,
    pub(super) divergences: u64,
    pub(super) failures: BTreeMap<FailureClass, u64>,
}

impl Counters {
    /// A lease ended before its task was done.
    pub(super) fn failed(&mut self, class: FailureClass) {
        *self.failures.entry(class).or_default() += 1;
    }
}
