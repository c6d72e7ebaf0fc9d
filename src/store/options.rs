//! How a store is opened.

use crate::objects::BucketSettings;

/// How a store is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Most bytes of objects that uploads may come to.
    pub quota: Option<u64>,
    /// The bucket in which the objects are; none when they are in the folder.
    pub bucket: Option<BucketSettings>,
    /// Most bytes of objects in the folder, where there is a bucket.
    pub cache_size: Option<u64>,
}
