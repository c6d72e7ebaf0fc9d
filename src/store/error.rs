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
    /// The folder holds no store.
    #[error("there is no store in {path}: give the folder of one with --store")]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// The store was written by a version this one does not know.
    #[error(
        "the store {path} has format {found}, this program reads format {known} and those before: \
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
    /// The file FORMAT says nothing that any version wrote.
    #[error(
        "the store {path} has a file FORMAT that holds no number but '{found}', a copy that broke off? \
         Copy the store again or restore a backup; nothing in it was changed"
    )]
    NoFormat {
        /// The store's folder.
        path: PathBuf,
        /// What the file holds.
        found: String,
    },
    /// There are parts of a store in the folder, and no whole one.
    #[error(
        "{path} holds parts of a store and no file FORMAT, which is written last ({why}); nothing \
         in it was changed"
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
        /// What may have happened, and what to do.
        why: &'static str,
    },
    /// The folder holds a backup.
    #[error(
        "{path} holds a backup, which is kept as it is: make a store of it with 'palimpsest store \
         restore {path} --store FOLDER'. If it is a copy that is to be worked in, remove the file \
         BACKUP there"
    )]
    IsBackup {
        /// The folder.
        path: PathBuf,
    },
    /// A backup would take the place of one that has something else.
    #[error(
        "{path} holds the backup of another store, or of another state of this one: {what}. \
         Nothing was changed: choose another folder"
    )]
    OtherBackup {
        /// The backup's folder.
        path: PathBuf,
        /// How it is seen.
        what: String,
    },
    /// The index was made of another log than the one beside it.
    #[error(
        "the index {path} is not of the log beside it: batch {batch} of that log is another than \
         the one that the index has. Put back the log, or the index, that was there; or make the \
         index again from this log with 'palimpsest store rebuild', which keeps the one that is \
         there under another name"
    )]
    OtherLog {
        /// The index's folder.
        path: PathBuf,
        /// The sequence number of the batch.
        batch: u64,
    },
    /// The disk is full, or the user's quota is used up.
    #[error(
        "cannot {action} {path}: no space is left ({source}); nothing that was acknowledged is \
         lost: free some and start again"
    )]
    NoSpace {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store may not be written.
    #[error(
        "cannot {action} {path}: {source}; the store has to be writable: check the folder's owner \
         and mode, and that its disk is not mounted read-only"
    )]
    ReadOnly {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
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
    /// The index failed. Its errors are sticky: stop, repair the cause, start again.
    #[error(
        "the index {path} failed: {source}; start again, nothing that was acknowledged is lost"
    )]
    Database {
        /// The index's folder.
        path: PathBuf,
        /// Why.
        source: sled::Error,
    },
    /// The index cannot be read, or does not agree with the log.
    #[error(
        "the index {path} is damaged: {what}; 'palimpsest store rebuild' makes it again from the \
         log, which holds everything"
    )]
    DamagedIndex {
        /// The index's folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The log cannot be read.
    #[error(
        "the log {path} is damaged at byte {offset}: {what}; restore a backup with \
         'palimpsest store restore', or go on from the index with 'palimpsest store rebuild --from index'"
    )]
    DamagedLog {
        /// The file of the log.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A record does not decode or contradicts another.
    #[error("the record {key} is damaged: {what}; 'palimpsest store verify' looks for more")]
    Damaged {
        /// Its key, printable.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A batch is larger than the log can hold.
    #[error("a batch of {bytes} bytes is more than the log can hold at once (4 GiB)")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A folder that is to be written has something in it.
    #[error("{path} is not empty: choose a folder that does not exist yet")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Something else goes on with the store.
    #[error("{what} goes on in the store {path}: wait for its end, then try again")]
    Occupied {
        /// The store's folder.
        path: PathBuf,
        /// What goes on.
        what: &'static str,
    },
    /// The objects are in a bucket, and the settings do not name it.
    #[error(
        "the objects of the store {path} are in the bucket {bucket} at {server}, and store.bucket \
         {setting}: set store.bucket, store.endpoint and store.credentials to that one. To leave \
         it, run 'palimpsest store pull' with these settings first. If the bucket was copied or \
         has another address, 'palimpsest store push' looks whether all is there and takes the \
         new one"
    )]
    Elsewhere {
        /// The store's folder.
        path: PathBuf,
        /// The bucket.
        bucket: String,
        /// Its server.
        server: String,
        /// What the setting is instead.
        setting: String,
    },
    /// The objects are in the folder, and the settings name a bucket.
    #[error(
        "{objects} objects of the store {path}, {bytes} bytes, are in its folder only, and \
         store.bucket is {bucket}: run 'palimpsest store push', which puts them there, or leave \
         store.bucket unset"
    )]
    OnlyInFolder {
        /// The store's folder.
        path: PathBuf,
        /// Objects.
        objects: u64,
        /// Bytes of them.
        bytes: u64,
        /// The bucket of the settings.
        bucket: String,
    },
    /// The bucket has another store's objects.
    #[error(
        "the bucket {bucket} holds the objects of another store ({owner}): give this one a prefix \
         of its own in store.bucket. If that store is gone for good, remove the object 'owner' \
         under the prefix, and try again"
    )]
    OtherOwner {
        /// The bucket.
        bucket: String,
        /// The other store's identifier.
        owner: String,
    },
    /// The bucket no longer says that it has this store's objects.
    #[error(
        "the bucket {bucket} at {server} does not say that it has this store's objects: was it \
         emptied, or is it another? 'palimpsest store push' puts there what the folder has, and \
         names what is missing then; 'palimpsest store restore' makes the store from a backup"
    )]
    BucketEmptied {
        /// The bucket.
        bucket: String,
        /// Its server.
        server: String,
    },
    /// Neither the bucket nor the folder has all objects.
    #[error(
        "{objects} objects are neither in the bucket nor in the folder: {digest}, say, which the \
         record {key} needs. Nothing was changed but that the others are in the bucket: copy them \
         into the bucket or the folder, or restore a backup"
    )]
    BucketLacks {
        /// How many.
        objects: u64,
        /// One of them.
        digest: crate::objects::Digest,
        /// A record that needs it.
        key: String,
    },
    /// Another coordinator writes the log.
    #[error(
        "batch {batch} of the log was written by another coordinator, which leads now: this one \
         acknowledges nothing more and ends. Started again, it follows"
    )]
    Deposed {
        /// The batch that this one was to write.
        batch: u64,
    },
    /// Nobody knows yet which batch of a number there is.
    #[error(
        "whether batch {batch} of the log in {bucket} was written cannot be said yet: nothing of it was \
         acknowledged"
    )]
    Unclear {
        /// Where the log is.
        bucket: String,
        /// The sequence number.
        batch: u64,
    },
    /// A leader could not write for so long that another may lead.
    #[error(
        "the log could not be written for so long that another coordinator may lead: this one \
         acknowledges nothing more and ends. Look at the bucket's server and at store.endpoint; \
         started again, it follows"
    )]
    Silenced,
    /// Another coordinator leads.
    #[error(
        "the coordinator {leader} leads the store {bucket}, and goes on writing: use that one with \
         --server, or wait for its end with 'palimpsest serve --standby'"
    )]
    Led {
        /// Where the store's log is.
        bucket: String,
        /// Who leads.
        leader: String,
    },
    /// What follows on the copy of the log in the folder is in a checkpoint only.
    #[error("the copy of the log is so old that it has to be begun again")]
    Behind,
    /// The bucket lets a second writer replace what a first has made.
    #[error(
        "{bucket} overwrites what is there already when it is asked not to (If-None-Match: *), so \
         that two coordinators could write over each other: leave the log in the folder \
         (store.log = \"folder\"), or take a server that has conditional writes"
    )]
    Overwrites {
        /// The bucket.
        bucket: String,
    },
    /// The settings say that the log is in the bucket, and it is in the folder.
    #[error(
        "the log of the store {path} is in its folder, and store.log says that it is in {place}: \
         run 'palimpsest store push --with-log', which moves it there, or set store.log = \"folder\""
    )]
    LogInFolder {
        /// The store's folder.
        path: PathBuf,
        /// The bucket.
        place: String,
    },
    /// The settings say that the log is in the folder, and it is in the bucket.
    #[error(
        "the log of the store {path} is in the bucket, and store.log does not say so: set store.log = \
         \"bucket\", or run 'palimpsest store pull --log-only', which moves it into the folder"
    )]
    LogInBucket {
        /// The store's folder.
        path: PathBuf,
    },
    /// The log was moved out of the bucket.
    #[error(
        "the log in {bucket} is no longer gone on with: 'palimpsest store pull' has moved it into the \
         folder {to}. Use the store there; 'palimpsest store push --with-log' there brings it back"
    )]
    TakenOut {
        /// The bucket.
        bucket: String,
        /// The folder that has it.
        to: String,
    },
    /// The log in the bucket is not whole.
    #[error(
        "the log in {bucket} is damaged at batch {batch}: {what}. Bring back what the bucket had, from \
         its versions say, or restore a backup"
    )]
    DamagedSharedLog {
        /// The bucket.
        bucket: String,
        /// The sequence number.
        batch: u64,
        /// What is wrong.
        what: String,
    },
    /// The copy in the folder is of another log.
    #[error(
        "the folder {path} has another log than that in {bucket}: batch {batch} is another. Nothing was \
         changed: give an empty folder, and all is fetched from there; or a prefix of its own for this \
         one in store.bucket"
    )]
    OtherSharedLog {
        /// The store's folder.
        path: PathBuf,
        /// The bucket.
        bucket: String,
        /// The sequence number.
        batch: u64,
    },
    /// There is no bucket in the settings.
    #[error("no bucket is named: set store.bucket and store.credentials")]
    NoBucket,
    /// An object that a record names could not be read.
    #[error(transparent)]
    Object(#[from] crate::objects::Error),
}

impl Error {
    /// For `map_err`: names what was tried and where, and tells a full disk and a read-only one
    /// from other trouble.
    pub(super) fn io(
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
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly {
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

    /// Whether this process, or the machine, has no file descriptor left: the same succeeds when
    /// one is free again.
    pub fn is_no_descriptor(&self) -> bool {
        match self {
            Self::Object(error) => error.is_no_descriptor(),
            Self::Io { source, .. } => crate::objects::Error::lacks_descriptor(source),
            _ => false,
        }
    }

    /// Whether the same may succeed a little later: a bucket is away, or busy.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Object(error) => error.may_pass(),
            Self::Unclear { .. } => true,
            _ => false,
        }
    }

    /// Whether the disk was full.
    pub fn is_no_space(&self) -> bool {
        matches!(
            self,
            Self::NoSpace { .. } | Self::Object(crate::objects::Error::NoSpace { .. })
        )
    }
}
