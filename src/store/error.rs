//! What can go wrong with the store.

use std::io;
use std::path::PathBuf;

/// An error of the embedded store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the store open.
    #[error(
        "the store {path} is in use by another process: use that coordinator with --server, \
         or stop it, or choose another folder with --store"
    )]
    Busy {
        /// The store's folder.
        path: PathBuf,
    },
    /// The store was written by a version this one does not know.
    #[error(
        "the store {path} has format {found}, this program reads format {known}: \
         use the version of palimpsest that wrote it, or a newer one"
    )]
    Format {
        /// The store's folder.
        path: PathBuf,
        /// What the store says.
        found: String,
        /// What this program reads.
        known: u32,
    },
    /// A file or folder could not be used.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database failed. Its errors are sticky: stop, repair the cause, start again.
    #[error("the database in {path} failed: {source}")]
    Database {
        /// The database's folder.
        path: PathBuf,
        /// Why.
        source: sled::Error,
    },
    /// A record does not decode or contradicts another.
    #[error("the record {key} is damaged: {what}")]
    Damaged {
        /// Its key, printable.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// An object that a record names could not be read.
    #[error(transparent)]
    Object(#[from] crate::objects::Error),
}
