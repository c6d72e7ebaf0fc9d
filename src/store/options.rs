//! How a store is opened.

use std::sync::Arc;
use std::time::Duration;

use super::Error;
use crate::objects::{Bucket, BucketSettings, Shelf};

/// How a store is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Most bytes of objects that uploads may come to.
    pub quota: Option<u64>,
    /// The bucket in which the objects are; none when they are in the folder.
    pub bucket: Option<BucketSettings>,
    /// Most bytes of objects in the folder, where there is a bucket.
    pub cache_size: Option<u64>,
    /// How the log is shared with other coordinators; none when it is in the folder.
    pub log: Option<Sharing>,
}

/// How a log is shared with other coordinators, of which one leads.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// Where the log is; in the bucket of the objects where there is none here.
    pub shelf: Option<Arc<dyn Shelf>>,
    /// What people call this coordinator.
    pub name: String,
    /// How long the leader may say nothing before another takes over.
    pub takeover: Duration,
    /// Batches that lie in the bucket one by one before they are put into one file. A coordinator
    /// that starts on a new machine reads as many one by one.
    pub file_batches: u64,
}

impl Sharing {
    /// In the bucket of the objects.
    pub fn new(name: String, takeover: Duration) -> Self {
        Self {
            shelf: None,
            name,
            takeover,
            file_batches: 4096,
        }
    }
}

impl Options {
    /// Where a shared log is.
    pub(super) fn shelf(&self) -> Result<Arc<dyn Shelf>, Error> {
        let given = self.log.as_ref().and_then(|log| log.shelf.clone());
        match (given, &self.bucket) {
            (Some(shelf), _) => Ok(shelf),
            (None, Some(settings)) => Ok(Arc::new(Bucket::new(settings.clone())?)),
            (None, None) => Err(Error::NoBucket),
        }
    }
}
