//! What the session and the engine hand each other.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, mpsc};

use super::prepare::Prepared;
use crate::proto::v1;

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator does not want this worker.
    #[error("the coordinator refused this worker: {0}")]
    Refused(String),
    /// The engine's thread panicked, or could not be started.
    #[error("the engine failed: {0}")]
    Engine(String),
}

/// A lease's name on the wire: its task and its epoch.
pub(super) type Key = (String, u64);

/// A key as it travels.
pub(super) fn to_key(key: &Key) -> v1::LeaseKey {
    v1::LeaseKey {
        task: key.0.clone(),
        epoch: key.1,
    }
}

/// What the session and the engine's thread both see of a lease.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The lease was taken back.
    pub cancelled: Arc<AtomicBool>,
    /// Steps since the last commit.
    pub steps: AtomicU64,
    /// Steps in all.
    pub total: AtomicU64,
    /// The newest steps of the edit that is being computed.
    pub edit: Mutex<Option<v1::EditProgress>>,
}

/// A lease for the engine.
pub(super) struct Work {
    pub key: Key,
    pub ready: Prepared,
    pub shared: Arc<Shared>,
}

/// What the engine says of a lease.
pub(super) enum Report {
    Commit(v1::Commit),
    Ended(Key, Option<v1::Failure>),
    /// There is more to tell of a lease than at the last heartbeat.
    Step,
    /// Bytes to be stored with the coordinator, and where their digest is waited for.
    Put(Vec<u8>, mpsc::Sender<Result<String, String>>),
}
