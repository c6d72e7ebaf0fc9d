//! What can go wrong with the audit log.

use std::path::PathBuf;

/// An error of the audit log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The signing key cannot be read or made.
    #[error("the signing key {path}: {problem}")]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong, and what would help.
        problem: String,
    },
    /// The log is not what its last checkpoint says. Nothing is appended to it any more, so that
    /// no new signature covers the damage up.
    #[error(
        "the audit log is damaged: {problem}; changes are refused. 'palimpsest audit verify' says \
         more; restore the store from a backup"
    )]
    Damaged {
        /// What does not fit.
        problem: String,
    },
    /// A checkpoint, a receipt or a manifest, or the key to verify it, is not one, or not what it
    /// should be.
    #[error("{what} is not valid: {problem}")]
    Note {
        /// "the checkpoint", "the verifier key".
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}
