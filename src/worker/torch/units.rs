//! The loop over the units of a lease: the same for every kind of work.

use std::panic::{self, AssertUnwindSafe};

use super::super::engine::{Sink, failure, result};
use crate::causal;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, FailureClass};
use crate::wire;

/// Why a unit has no result.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The lease was taken back.
    Cancelled,
    /// The unit asks for what cannot be done, on any worker.
    Unit(String),
    /// This worker cannot go on; another may.
    Here(v1::Failure),
}

impl Stopped {
    /// This worker cannot go on, for a reason that may pass.
    pub(super) fn transient(what: impl ToString) -> Self {
        Self::Here(failure(FailureClass::Transient, what.to_string()))
    }
}

/// A kind of work, on a model that is in memory.
pub(super) trait Kind {
    /// How many of these units, from the first on, are computed in one go. At least 1.
    fn together(&self, units: &[v1::LeasedUnit]) -> usize {
        let _ = units;
        1
    }

    /// The outcomes of some units, in their order.
    ///
    /// # Errors
    /// [`Stopped::Unit`] is the outcome of each of them.
    fn compute(
        &mut self,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Outcome>, Stopped>;
}

/// Computes the units of a lease, in order, and hands in what comes out of each.
///
/// # Errors
/// What kept this worker from going on.
pub(super) fn run(
    kind: &mut dyn Kind,
    units: &[v1::LeasedUnit],
    fingerprint: &v1::Fingerprint,
    sink: &mut dyn Sink,
) -> Result<(), v1::Failure> {
    let mut rest = units;
    while !rest.is_empty() && !sink.cancelled() {
        let (now, after) = rest.split_at(kind.together(rest).clamp(1, rest.len()));
        match kind.compute(now, sink) {
            Ok(outcomes) => {
                for (unit, outcome) in now.iter().zip(outcomes) {
                    sink.commit(result(unit.unit, finite(outcome)), fingerprint.clone());
                }
            }
            Err(Stopped::Cancelled) => break,
            Err(Stopped::Here(failure)) => return Err(failure),
            Err(Stopped::Unit(what)) => {
                for unit in now {
                    let outcome = Outcome::Failure(failure(FailureClass::Invalid, what.as_str()));
                    sink.commit(result(unit.unit, outcome), fingerprint.clone());
                }
            }
        }
        rest = after;
    }
    Ok(())
}

/// Runs the work of a lease. Where libtorch finds no memory for it, that is the lease's failure and
/// not the end of the worker: tch turns libtorch's exceptions into panics unless every call is the
/// checked one. All other panics go on.
pub(super) fn within_memory(
    work: impl FnOnce() -> Result<(), v1::Failure>,
) -> Result<(), v1::Failure> {
    // A model whose matrices were lent knows it, and makes them again.
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(ended) => ended,
        Err(payload) if causal::is_out_of_memory(&*payload) => Err(failure(
            FailureClass::OutOfMemory,
            "out of memory on this worker's device: use shorter texts, fewer of them at a time, or a \
             larger device",
        )),
        Err(payload) => panic::resume_unwind(payload),
    }
}

/// A lease whose units are not of the kind that its settings are for.
pub(super) fn mixed(unit: &v1::LeasedUnit) -> Stopped {
    let what = match &unit.spec {
        None => "is of a kind that this worker does not know: upgrade the worker",
        Some(_) => "is of another kind than the settings of its lease: upgrade the older side",
    };
    let what = format!("unit {} {what}", unit.unit);
    Stopped::Here(failure(FailureClass::Invalid, what))
}

/// What goes out of an outcome: a result with a number that is none is a failure of its unit, here
/// for every kind of work, whatever the code behind it looks for itself.
fn finite(outcome: Outcome) -> Outcome {
    match wire::not_finite(&outcome) {
        None => outcome,
        Some((field, value)) => Outcome::Failure(failure(
            FailureClass::Invalid,
            format!(
                "{field} is {value}: the arithmetic left the finite numbers; use float32, and less \
                 noise, a lower learning rate or a lower clamp"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept(Vec<v1::UnitResult>);

    impl Sink for Kept {
        fn commit(&mut self, result: v1::UnitResult, _: v1::Fingerprint) {
            self.0.push(result);
        }
        fn advance(&mut self, _: u64) {}
        fn cancelled(&self) -> bool {
            self.0.len() >= 5
        }
        fn put(&mut self, _: &[u8]) -> Result<String, v1::Failure> {
            panic!("nothing is stored here")
        }
    }

    /// Two units at a time: those from 10 on cannot be done, those from 20 on give NaN, those from
    /// 30 on stop the worker.
    struct Pairs;

    impl Kind for Pairs {
        fn together(&self, _: &[v1::LeasedUnit]) -> usize {
            2
        }
        fn compute(
            &mut self,
            units: &[v1::LeasedUnit],
            _: &mut dyn Sink,
        ) -> Result<Vec<Outcome>, Stopped> {
            let level = |scale| Outcome::NoiseLevel(v1::NoiseLevel { scale });
            match units[0].unit {
                10..20 => Err(Stopped::Unit("no".to_owned())),
                20..30 => Ok(vec![level(f64::NAN), level(1.0)]),
                30.. => Err(Stopped::transient("a wall")),
                _ => Ok(units.iter().map(|_| level(0.5)).collect()),
            }
        }
    }

    fn results(units: &[u64]) -> (Result<(), v1::Failure>, Vec<(u64, String)>) {
        let unit = |&unit: &u64| v1::LeasedUnit { unit, spec: None };
        let units: Vec<v1::LeasedUnit> = units.iter().map(unit).collect();
        let mut kept = Kept::default();
        let ended = run(&mut Pairs, &units, &v1::Fingerprint::default(), &mut kept);
        let said = |result: v1::UnitResult| match result.outcome {
            Some(Outcome::NoiseLevel(level)) => (result.unit, level.scale.to_string()),
            Some(Outcome::Failure(failure)) => (result.unit, failure.message),
            other => panic!("{other:?}"),
        };
        (ended, kept.0.into_iter().map(said).collect())
    }

    #[test]
    fn every_unit_has_its_outcome_in_order_until_the_lease_is_taken_back() {
        let (ended, said) = results(&[1, 2, 3, 10, 11, 4, 5]);
        ended.unwrap();
        let numbers: Vec<u64> = said.iter().map(|(unit, _)| *unit).collect();
        assert_eq!(numbers, [1, 2, 3, 10, 11, 4], "then it is cancelled");
        assert_eq!(said[4].1, "no", "both of the pair");
        let (ended, said) = results(&[1, 2, 30, 3]);
        assert_eq!(ended.unwrap_err().message, "a wall");
        assert_eq!(said.len(), 2);
    }

    #[test]
    fn running_out_of_memory_is_the_leases_failure_and_other_panics_go_on() {
        let full = within_memory(|| panic!("CUDA out of memory. Tried to allocate 20 MiB"));
        assert_eq!(full.unwrap_err().failure_class(), FailureClass::OutOfMemory);
        let other = panic::catch_unwind(|| within_memory(|| panic!("a fault")));
        assert!(other.is_err());
    }

    #[test]
    fn no_result_with_a_number_that_is_none_leaves_the_worker() {
        let (ended, said) = results(&[20, 21]);
        ended.unwrap();
        assert!(said[0].1.starts_with("scale is NaN: "), "{said:?}");
        assert_eq!(said[1].1, "1");
    }
}
