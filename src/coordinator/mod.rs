//! The coordinator: cuts jobs into tasks, leases them to workers, and keeps what comes back.
//!
//! [`Core`] is a pure state machine; [`Coordinator`] drives it: one actor feeds it events, writes
//! its changes to the store, and only then lets anything of it be seen.

mod answers;
mod census;
mod check;
mod core;
mod driver;
mod ended;
mod event;
mod explain;
mod invariants;
mod items;
mod job;
mod leases;
mod limits;
mod load;
mod placement;
mod plan;
mod queue;
mod restore;
mod task;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod transaction;
mod views;
mod workers;

pub use self::core::{Answer, Core, Done};
pub use driver::{Coordinator, Disk, Error, Surroundings};
pub use event::{
    Closing, CommittedResult, Effect, Event, LeaseKey, Millis, NewJob, Refusal, Session,
};
pub use invariants::{Invariant, violations};
pub use items::{Items, Malformed};
pub use job::is_terminal;
pub use limits::Limits;
pub use plan::{
    TASK_COST, items_object, name_object, noise_factor, object_field, pack, summary, tasks, units,
    unpack,
};
pub use restore::Restoring;
pub use transaction::Transaction;
