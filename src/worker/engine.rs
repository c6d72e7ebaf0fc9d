//! What a worker computes with.

use std::time::Duration;

use super::prepare::Prepared;
use crate::proto::v1;
use crate::text;

/// Computes the units of a lease.
pub trait Engine: Send + 'static {
    /// What the worker tells the coordinator of itself: device, memory, threads.
    fn capabilities(&self) -> v1::Capabilities;

    /// The models that are in memory, `models/{model}`.
    fn loaded(&self) -> Vec<String>;

    /// How long the next unit is to take, for an engine that only pretends to compute. Such an
    /// engine has no thread: it is given one unit at a time, after that time on the runtime's
    /// clock, which a simulation may drive. An engine that computes says `None`, always.
    fn pretends(&mut self) -> Option<Duration> {
        None
    }

    /// Computes units of a lease, in order, and hands each result to the sink when it is there.
    /// Stops soon after [`Sink::cancelled`] says so.
    ///
    /// A unit that cannot be done is handed in with a failure as its result.
    ///
    /// # Errors
    /// What kept the engine from going on: the lease's open units are tried again elsewhere.
    fn run(
        &mut self,
        ready: &Prepared,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<(), v1::Failure>;
}

/// Where an engine's results and progress go.
pub trait Sink {
    /// A unit is done.
    fn commit(&mut self, result: v1::UnitResult, fingerprint: v1::Fingerprint);

    /// So many more cells or tokens are computed.
    fn advance(&mut self, steps: u64);

    /// A step of the unit's optimisation was measured; of at most so many.
    fn step(&mut self, unit: u64, most_steps: u32, step: v1::edit_progress::Step) {
        let _ = (unit, most_steps, step);
    }

    /// Whether the lease was taken back.
    fn cancelled(&self) -> bool;

    /// Stores bytes that are too many for a result as an object with the coordinator, and gives its
    /// digest. Takes as long as the way there.
    ///
    /// # Errors
    /// When they cannot be stored.
    fn put(&mut self, bytes: &[u8]) -> Result<String, v1::Failure>;
}

/// Most bytes of a failure's message. It is kept once for every unit of a task, and shown in lists.
const LONGEST_MESSAGE: usize = 4096;

/// A failure of a class. Its message is cut to [`LONGEST_MESSAGE`]: an error may repeat a prompt of
/// a mebibyte, and is the result of every unit that it keeps from having one.
pub fn failure(class: v1::FailureClass, message: impl AsRef<str>) -> v1::Failure {
    v1::Failure {
        failure_class: class as i32,
        message: text::cut(message.as_ref(), LONGEST_MESSAGE),
    }
}

/// A unit's result.
pub fn result(unit: u64, outcome: v1::unit_result::Outcome) -> v1::UnitResult {
    v1::UnitResult {
        unit,
        outcome: Some(outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_is_wrong_and_what_helps_in_a_few_kilobytes() {
        let what = format!("the prompt {:?} is too long: use less", "a".repeat(1 << 20));
        let failure = failure(v1::FailureClass::Invalid, what);
        assert!(failure.message.len() <= LONGEST_MESSAGE);
        assert!(failure.message.ends_with("is too long: use less"));
    }
}
