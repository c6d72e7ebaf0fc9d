//! Collects objects that nothing reaches.
//!
//! An object is kept as long as a record has its digest in it, in whatever field, or an object that
//! holds a record. What no record names is kept for a grace period after it was last stored, asked
//! for or found stored already: a client uploads a model's files before it creates the model, and a
//! large value is stored before the batch that refers to it.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use super::examine::Reach;
use super::lock::{Occupation, occupy};
use super::{Error, Store};
use crate::objects::Listed;

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

/// What nothing reaches and nobody touched lately, found and not removed yet. No backup begins
/// while it is there.
#[derive(Debug)]
pub struct Garbage {
    grace: Grace,
    counted: Collected,
    objects: Vec<Listed>,
    partial: Vec<Listed>,
    /// Held, not read.
    _alone: Occupation,
}

impl Garbage {
    /// What would be removed.
    pub fn counted(&self) -> Collected {
        self.counted
    }
}

impl fmt::Display for Collected {
    /// What is removed, for the audit log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} objects with {} bytes, {} unfinished uploads with {} bytes",
            self.removed, self.removed_bytes, self.partial, self.partial_bytes
        )
    }
}

impl Store {
    /// Looks for what nothing reaches and nobody touched since [`Grace::before`]. With a bucket the
    /// objects are those of the bucket.
    ///
    /// # Errors
    /// [`Error::Occupied`] while a backup is made, [`Error::Damaged`] when a record cannot be read:
    /// what it reaches is not known. [`Error::Object`] when the objects cannot be listed.
    pub fn garbage(&self, grace: Grace) -> Result<Garbage, Error> {
        let alone = occupy(&self.path, true, "a backup")?;
        // Marked after the listing: an object that is listed and then referred to is seen here.
        let listed = self.objects.list()?;
        let there: HashSet<_> = listed.iter().map(|object| object.digest).collect();
        let mut reached = HashSet::new();
        for entry in self.index.range(Vec::new()..) {
            let (key, value) = entry?;
            self.examine(&key, &value, |reach| match reach {
                Reach::Needed(digest) | Reach::Mentioned(digest) => {
                    // What is no object's is not kept: texts may be full of digits.
                    if there.contains(&digest) {
                        reached.insert(digest);
                    }
                }
            })?;
        }
        let mut counted = Collected::default();
        let mut objects = Vec::new();
        for object in listed {
            if reached.contains(&object.digest) {
                counted.reached += 1;
            } else if object.touched >= grace.before {
                counted.young += 1;
            } else {
                counted.removed += 1;
                counted.removed_bytes += object.size;
                objects.push(object);
            }
        }
        let mut partial = self.objects.list_partial()?;
        partial.retain(|part| part.touched < grace.before);
        counted.partial = partial.len() as u64;
        counted.partial_bytes = partial.iter().map(|part| part.size).sum();
        Ok(Garbage {
            grace,
            counted,
            objects,
            partial,
            _alone: alone,
        })
    }

    /// Removes it, but for what somebody has touched meanwhile: an object of a bucket from the
    /// folder and from there. Safe beside commits and uploads.
    ///
    /// # Errors
    /// [`Error::Object`] when one cannot be removed; those before it are gone.
    pub fn sweep(&self, garbage: Garbage) -> Result<Collected, Error> {
        let Garbage {
            grace,
            mut counted,
            objects,
            partial,
            _alone,
        } = garbage;
        for object in objects {
            if !self
                .objects
                .remove_untouched(&object.digest, grace.before)?
            {
                counted.young += 1;
                counted.removed -= 1;
                counted.removed_bytes -= object.size;
            }
        }
        self.objects.forget_found(grace.before)?;
        for part in partial {
            if !self.objects.remove_partial(&part.digest)? {
                counted.partial -= 1;
                counted.partial_bytes -= part.size;
            }
        }
        Ok(counted)
    }
}
