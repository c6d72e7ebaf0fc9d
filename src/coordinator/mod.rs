//! The coordinator: cuts jobs into tasks, leases them to workers, and keeps what comes back.
//!
//! [`Core`] is a pure state machine; [`Coordinator`] drives it: one actor feeds it events, writes
//! its changes to the store, and only then lets anything of it be seen.

mod census;
mod check;
mod core;
mod counters;
mod cut;
mod driver;
mod ended;
mod event;
mod explain;
mod handle;
mod identifiers;
mod job;
mod landing;
mod leases;
mod limits;
mod load;
mod placement;
mod queue;
mod refused;
mod restore;
mod reuse;
mod stages;
mod standby;
mod task;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod transaction;
mod views;
mod worker;
mod workers;

pub use self::core::{Core, Done, Reply};
pub use cut::{TASK_COST, TaskCosts, tasks};
pub use driver::{Disk, Surroundings};
pub use event::{
    Closing, CommittedResult, Effect, Event, LeaseKey, Millis, NewJob, Refusal, Session, Time,
};
pub use handle::{Coordinator, Error};
pub use job::is_terminal;
pub use landing::{Commit, judged};
pub use limits::Limits;
pub use refused::LastRefused;
pub use restore::Restoring;
pub use standby::lead;
pub use transaction::Transaction;
pub use views::JobFilter;
