//! The embedded store: jobs, tasks, results and models as records, bulk in the object folder
//! beside them.
//!
//! ```text
//! FORMAT    the format's number
//! LOCK      locked by the process that has the store
//! BUSY      locked by what must not go on beside a backup
//! VERIFIED  when it was verified last
//! log/      every change, in order: the truth
//! records/  the index of it, in sled
//! objects/  large values, model files: all of them, or copies of those that were used
//! BUCKET    which bucket has all of them, if one has
//! ```
//!
//! The log may be in the bucket too ([`Sharing`]): then the one in the folder is a copy of it, and
//! of several coordinators that follow it one leads.
//!
//! A change is durable when [`Store::commit`] returns: objects first, then one entry of the log
//! for all that is committed together, and one flush of it. Then it is applied to the index, from
//! which everything is read. The index is flushed in its own time: what a crash takes from it is
//! applied again when the store is opened.

mod backup;
mod bucket;
mod cache;
mod catch_up;
mod content;
mod error;
mod examine;
mod folder;
mod follow;
mod format;
mod formats;
mod gc;
mod handle;
mod histories;
mod index;
mod keys;
mod lineage;
mod lists;
mod lock;
mod log;
pub mod manifest;
mod options;
mod packed;
mod place;
mod probe;
mod read;
mod rebuild;
mod recent;
mod record;
mod records;
mod sled_memory;
mod statistics;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod usage;
mod values;
mod verify;
mod versions;

pub use backup::{Backup, backup, restore};
pub use bucket::{MovedObjects, pull, pull_log, push, push_log};
pub use cache::CachedResult;
pub use content::{Content, STRIDE};
pub use error::Error;
pub use folder::AUDIT_KEY;
pub use follow::{Follower, Look, Vigil};
pub use formats::FORMAT;
pub use gc::{Collected, GRACE, Garbage, Grace};
pub use handle::Store;
pub use options::{Options, Sharing};
pub use probe::{Check, Probe, note_check, probe};
pub use read::CommittedUnit;
pub use rebuild::{From, Rebuilt, rebuild};
pub use record::{Record, RecordKey};
pub use records::{
    Batch, Change, DivergenceRecord, FailedUnit, JobRecord, Landed, ResultRecord, SpecRecord,
    TaskPlan, TaskRecord, UnitRef, Value, Write,
};
pub use usage::Usage;
pub use verify::{Problem, Report, verify};
