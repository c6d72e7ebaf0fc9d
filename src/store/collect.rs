//! Collects objects that nothing reaches.
//!
//! An object is kept as long as a record has its digest in it, in whatever field, or an object
//! that holds a record. What no record names is kept for a grace period after it was last stored, asked for or
//! found stored already: a client uploads a model's files before it creates the model, and a large
//! value is stored before the batch that refers to it.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::examine::Reach;
use super::{Error, Store, occupy};

/// The grace period if nothing is said.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);

/// How long objects that nothing reaches are kept.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// Those that were touched before are collected.
    pub before: SystemTime,
}

/// What was collected, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects that are reached.
    pub reached: u64,
    /// Objects that nothing reaches and that are kept because they are young.
    pub young: u64,
    /// Objects that were removed, or would be.
    pub removed: u64,
    /// Bytes of them.
    pub removed_bytes: u64,
    /// Unfinished uploads that were removed, or would be.
    pub partial: u64,
    /// Bytes of them.
    pub partial_bytes: u64,
}

impl Store {
    /// Removes what nothing reaches and nobody touched since [`Grace::before`]; with `dry_run`,
    /// only counts it. Safe beside commits and uploads.
    ///
    /// # Errors
    /// [`Error::Occupied`] while a backup is made, [`Error::Damaged`] when a record cannot be read:
    /// nothing is removed then, for what it reaches is not known. [`Error::Object`] when a file
    /// cannot be removed.
    pub fn collect(&self, grace: Grace, dry_run: bool) -> Result<Collected, Error> {
        let _alone = occupy(&self.path, true, "a backup")?;
        // Marked after the listing: an object that is listed and then referred to is seen here.
        let listed = self.objects.list()?;
        let mut reached = HashSet::new();
        for entry in self.index.range(Vec::new()..) {
            let (key, value) = entry?;
            self.examine(&key, &value, |reach| match reach {
                Reach::Needed(digest) | Reach::Mentioned(digest) => {
                    reached.insert(digest);
                }
            })?;
        }
        let mut collected = Collected::default();
        for object in listed {
            if reached.contains(&object.digest) {
                collected.reached += 1;
            } else if object.touched >= grace.before {
                collected.young += 1;
            } else if dry_run
                || self
                    .objects
                    .remove_untouched(&object.digest, grace.before)?
            {
                collected.removed += 1;
                collected.removed_bytes += object.size;
            } else {
                collected.young += 1;
            }
        }
        for partial in self.objects.list_partial()? {
            if partial.touched < grace.before
                && (dry_run || self.objects.remove_partial(&partial.digest)?)
            {
                collected.partial += 1;
                collected.partial_bytes += partial.size;
            }
        }
        Ok(collected)
    }
}
