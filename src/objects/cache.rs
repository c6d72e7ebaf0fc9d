//! What a folder knows whose objects can be fetched again.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// How many bytes a folder may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The bytes, of whole objects and of those that are on their way.
    pub bytes: u64,
    /// The setting that says so.
    pub setting: &'static str,
}

/// What a folder has whose objects may vanish.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) bound: Option<Bound>,
    pub(super) room: Mutex<Room>,
    pub(super) evicted: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Room {
    /// Bytes that may be written before the folder is looked through again.
    pub(super) bytes: u64,
    /// Whether it was said that what is in use takes more than the bound.
    pub(super) told: bool,
}
