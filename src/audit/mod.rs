//! The audit log: who changed what, when and why, in a log that proves itself.
//!
//! Entries are leaves of a Merkle tree ([`merkle`], RFC 6962). [`Log`] appends to it, in the same
//! batch as the change that an entry describes, and signs the new root; [`verify`] reads it whole
//! and says where it was cut, reordered or altered. The log's key also signs what jobs came to
//! ([`Receipt`]); authors sign what they made with keys of their own ([`Manifest`]).

mod error;
mod lines;
mod log;
mod manifest;
pub mod merkle;
mod note;
mod receipt;
mod verify;

pub use error::Error;
pub use log::{EntryDraft, Log, WHY_LIMIT};
pub use manifest::{Manifest, Matrix, Named};
pub use note::{Checkpoint, Signer};
pub use receipt::{CREATED, Receipt, Verified};
pub use verify::{Report, Verifier, leaf_hash, verify};
