//! The coordinator: cuts jobs into tasks, leases them to workers, and keeps what comes back.
//!
//! [`Core`] is a pure state machine; [`Coordinator`] drives it: one actor feeds it events, writes
//! its changes to the store, and only then lets anything of it be seen.

mod core;
mod driver;
mod event;
mod invariants;
mod job;
mod plan;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod transaction;
mod views;

pub use self::core::{Answer, Core, Limits};
pub use driver::{Coordinator, Disk, Error, Surroundings};
pub use event::{
    Closing, CommittedResult, Effect, Event, LeaseKey, Millis, NewJob, Refusal, Session,
};
pub use invariants::{Invariant, violations};
pub use job::is_terminal;
pub use plan::{noise_factor, summary, tasks, units};
pub use transaction::Transaction;
