//! What can go wrong with objects.

use std::io;
use std::path::PathBuf;

use super::Digest;

/// A failed operation on the object store, or a failed transfer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a digest.
    #[error(
        "digest {value:?} {problem}: give the BLAKE3 of the object as 64 lower-case hexadecimal digits"
    )]
    BadDigest {
        /// The text.
        value: String,
        /// What is wrong with it.
        problem: String,
    },

    /// No such object.
    #[error("object {digest} is not stored: upload it first")]
    NotFound {
        /// The object.
        digest: Digest,
    },

    /// The bytes that were written do not hash to the name they were written under. They were
    /// discarded.
    #[error(
        "the bytes written as object {expected} hash to {actual}: they were discarded; check the source and begin again at offset 0"
    )]
    Mismatch {
        /// The name they were written under.
        expected: Digest,
        /// Their own name.
        actual: Digest,
    },

    /// More, or fewer, bytes came than were announced. They were discarded.
    #[error(
        "object {digest} was announced with {announced} bytes but {received} came: they were discarded; begin again at offset 0"
    )]
    SizeMismatch {
        /// The object.
        digest: Digest,
        /// Bytes announced.
        announced: u64,
        /// Bytes that came.
        received: u64,
    },

    /// A write ended before all its bytes came. What came is kept.
    #[error(
        "the write of object {digest} ended after {committed} of {size} bytes, which are kept: go on from there"
    )]
    Incomplete {
        /// The object.
        digest: Digest,
        /// Bytes that are there.
        committed: u64,
        /// Bytes announced.
        size: u64,
    },

    /// Bytes were appended elsewhere than at the end of what is there.
    #[error(
        "offset {offset} of object {digest} is not where the stored part ends: go on from offset {committed}"
    )]
    Offset {
        /// The object.
        digest: Digest,
        /// Where the bytes were to go.
        offset: u64,
        /// Where the stored part ends.
        committed: u64,
    },

    /// A read begins past the end.
    #[error("offset {offset} is past the end of object {digest}, which has {size} bytes")]
    PastEnd {
        /// The object.
        digest: Digest,
        /// The offset asked for.
        offset: u64,
        /// The object's size.
        size: u64,
    },

    /// Someone else is writing the same object.
    #[error(
        "object {digest} is being written by someone else: wait until it is stored, or go on where that writer stopped"
    )]
    Busy {
        /// The object.
        digest: Digest,
    },

    /// A stored object no longer holds the bytes of its name.
    #[error(
        "object {digest} is damaged: {path} holds bytes that hash to {actual}; check the disk, delete the file and upload the object again"
    )]
    Corrupt {
        /// The object.
        digest: Digest,
        /// Its file.
        path: PathBuf,
        /// What its bytes hash to.
        actual: Digest,
    },

    /// A file was changed while it was read.
    #[error("{path} was changed while it was being uploaded: leave it alone and upload it again")]
    Changed {
        /// The file.
        path: PathBuf,
    },

    /// The disk is full, or the user's quota is used up.
    #[error("cannot {action} {path}: no space is left ({source}); free some and try again")]
    NoSpace {
        /// What was tried: "write", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The upload does not fit into the quota.
    #[error(
        "object {digest} with {size} bytes does not fit: {used} of the {limit} bytes that uploads may fill are used; remove what nothing needs with 'palimpsest store gc', or raise store.quota"
    )]
    Quota {
        /// The object.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// Bytes that are used, or promised to other uploads.
        used: u64,
        /// The quota in bytes.
        limit: u64,
    },

    /// The file with the bucket's key has none.
    #[error(
        "no key for the bucket in {path}: {problem}; store.credentials names a file with \
         'aws_access_key_id = ...' and 'aws_secret_access_key = ...', as AWS's tools write it"
    )]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it. Quotes nothing of it.
        problem: String,
    },

    /// The settings of the bucket do not make one.
    #[error("the bucket {bucket} cannot be used: {problem}; correct the settings of section store")]
    BucketSettings {
        /// The bucket.
        bucket: String,
        /// What is wrong.
        problem: String,
    },

    /// The bucket's server does not answer, or says that it cannot now.
    #[error(
        "cannot {action}: the bucket {bucket} at {server} does not answer ({problem}); nothing \
         of it was acknowledged: try again, and if that goes on, look at the bucket's server, at \
         store.endpoint and at store.timeout"
    )]
    BucketAway {
        /// What was tried: "fetch object ab...".
        action: String,
        /// The bucket.
        bucket: String,
        /// Its server.
        server: String,
        /// What went wrong.
        problem: String,
    },

    /// The bucket's server says no.
    #[error(
        "cannot {action}: {server} refuses it for the bucket {bucket} ({problem}); look at \
         store.bucket and store.region, at the key in store.credentials, and at what that key may \
         do"
    )]
    BucketRefused {
        /// What was tried: "fetch object ab...".
        action: String,
        /// The bucket.
        bucket: String,
        /// Its server.
        server: String,
        /// What the server said.
        problem: String,
    },

    /// The bucket holds other bytes under an object's name. They are not kept here.
    #[error(
        "object {digest} is damaged: {place} holds {size} bytes that hash to {actual}; remove it \
         there and upload the object again, or run 'palimpsest store push' where the store's \
         folder or a restored backup still has it"
    )]
    BucketCorrupt {
        /// The object.
        digest: Digest,
        /// Where it is.
        place: String,
        /// Bytes that are there.
        size: u64,
        /// What they hash to.
        actual: Digest,
    },

    /// The system refused something else.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried: "open", "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The program ends: the work was not begun, or not waited for.
    #[error("the program is shutting down: try again when it runs")]
    Stopping,

    /// A transfer was refused, or broke too often.
    #[error("cannot {action} object {digest}: {} ({:?}; attempts without progress: {attempts})", .status.message(), .status.code())]
    Transfer {
        /// "upload" or "download".
        action: &'static str,
        /// The object.
        digest: Digest,
        /// Attempts since the last byte of progress.
        attempts: u32,
        /// What the other side said last.
        #[source]
        status: tonic::Status,
    },
}

impl Error {
    /// Whether this process, or the machine, has no file descriptor left: the same succeeds when
    /// one is free again.
    pub fn is_no_descriptor(&self) -> bool {
        matches!(self, Self::Io { source, .. } if Self::lacks_descriptor(source))
    }

    pub(crate) fn lacks_descriptor(error: &io::Error) -> bool {
        let none = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
        none.iter()
            .any(|none| error.raw_os_error() == Some(none.raw_os_error()))
    }

    /// Whether the same may succeed a little later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::BucketAway { .. })
    }

    /// For `map_err`: names what was tried and where, and tells a full disk from other trouble.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace {
                action,
                path,
                source,
            },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }
}
