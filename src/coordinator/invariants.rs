//! The invariants of the system, by the ids that code, tests and metrics quote.

use std::sync::atomic::{AtomicU64, Ordering};

/// What always holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// At most one committed result a unit.
    I1,
    /// An accepted commit carries the current epoch.
    I2,
    /// Acknowledged means durable.
    I3,
    /// Terminal states are final.
    I4,
    /// pending + leased + done + failed + cancelled = total.
    I5,
    /// Leases of a worker never exceed its credits.
    I6,
    /// Uncounted failure classes never exhaust retries.
    I7,
    /// restart(state) = state.
    I10,
    /// No unit of a stage runs before every unit of the stages before has a durable result.
    I13,
}

const ALL: [Invariant; 9] = [
    Invariant::I1,
    Invariant::I2,
    Invariant::I3,
    Invariant::I4,
    Invariant::I5,
    Invariant::I6,
    Invariant::I7,
    Invariant::I10,
    Invariant::I13,
];

static VIOLATIONS: [AtomicU64; ALL.len()] = [const { AtomicU64::new(0) }; ALL.len()];

impl Invariant {
    /// As code, tests and metrics quote it.
    pub fn id(self) -> &'static str {
        match self {
            Self::I1 => "I1",
            Self::I2 => "I2",
            Self::I3 => "I3",
            Self::I4 => "I4",
            Self::I5 => "I5",
            Self::I6 => "I6",
            Self::I7 => "I7",
            Self::I10 => "I10",
            Self::I13 => "I13",
        }
    }

    /// Counts a violation. In a debug build it panics.
    #[track_caller]
    pub fn check(self, holds: bool, what: impl FnOnce() -> String) {
        if holds {
            return;
        }
        VIOLATIONS[self as usize].fetch_add(1, Ordering::Relaxed);
        let what = what();
        tracing::error!(invariant = ?self, "violated: {what}");
        debug_assert!(holds, "{self:?} violated: {what}");
    }
}

/// Violations since the program started, for every invariant.
pub fn violations() -> impl Iterator<Item = (Invariant, u64)> {
    ALL.into_iter()
        .map(|i| (i, VIOLATIONS[i as usize].load(Ordering::Relaxed)))
}
