//! Where a store's objects are: in its folder, or in a bucket.
//!
//! The file `BUCKET` in the folder says so, and the bucket says by its owner's mark whose objects
//! it has. Neither is taken for granted: a store whose objects are elsewhere than the settings say
//! is not opened, for it would seem to have lost them.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::folder::{sync_folder, write_whole};
use super::{Error, Options};
use crate::objects::{Bound, Bucket, BucketSettings, ObjectStore};

/// The file that says where the objects are.
pub(super) const PLACE: &str = "BUCKET";

/// What that file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The bucket, as `s3://NAME/PREFIX`.
    bucket: String,
    /// Its server.
    server: String,
    /// The store's identifier, by which the bucket knows its owner. It stays for ever.
    store: Uuid,
    /// Whether all objects are there. Until then, and after they were fetched, all are in the
    /// folder.
    whole: bool,
    /// Whether the log is there too: the one in the folder is a copy then.
    #[serde(default)]
    log: bool,
}

impl Place {
    /// What the file in a store's folder, or in a backup, says; none when its objects were never in
    /// a bucket.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let file = path.join(PLACE);
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", file)(error)),
        };
        let broken = |error: serde_json::Error| Error::io("read", file)(error.into());
        serde_json::from_slice(&bytes).map(Some).map_err(broken)
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        write_whole(&path.join(PLACE), &text)?;
        sync_folder(path)
    }

    /// The same store, with all its objects in its folder.
    pub(super) fn in_folder(self) -> Self {
        Self {
            whole: false,
            log: false,
            ..self
        }
    }

    pub(super) fn new(store: Uuid, bucket: &BucketSettings, whole: bool) -> Self {
        Self {
            bucket: bucket.url(),
            server: bucket.server(),
            store,
            whole,
            log: false,
        }
    }

    /// The same store, whose log is there too, or is not.
    pub(super) fn with_log(self, log: bool) -> Self {
        Self { log, ..self }
    }

    /// Whether the log is there too.
    pub(super) fn has_log(&self) -> bool {
        self.log
    }

    fn is(&self, bucket: &BucketSettings) -> bool {
        (&self.bucket, &self.server) == (&bucket.url(), &bucket.server())
    }
}

/// The bucket of a store that is not being opened, but only read: by a backup.
pub(super) fn read_only(path: &Path, options: &Options) -> Result<Option<Bucket>, Error> {
    let place = Place::read(path)?.filter(|place| place.whole);
    match (&options.bucket, place) {
        (_, None) => Ok(None),
        (Some(settings), Some(place)) if place.is(settings) => {
            let bucket = Bucket::new(settings.clone())?;
            check_owner(&bucket, &place)?;
            Ok(Some(bucket))
        }
        (_, Some(place)) => Err(elsewhere(path, place, options.bucket.as_ref())),
    }
}

/// Whether a folder is to have the copy of a log in a bucket, and was left before there was one: the
/// format is written behind it.
pub(super) fn is_unfinished_copy(path: &Path) -> Result<bool, Error> {
    let has_log = Place::read(path)?.is_some_and(|place| place.has_log());
    Ok(has_log && !path.join("FORMAT").exists())
}

/// Sees that a store whose settings say that its log is in the bucket has it there. A folder in which
/// there is nothing yet becomes a copy of the store that has the bucket, or its first.
pub(super) fn share(path: &Path, options: &Options, is_new: bool) -> Result<(), Error> {
    let Some(settings) = &options.bucket else {
        return Ok(()); // The caller has its own place for the log, and knows.
    };
    let place = Place::read(path)?;
    match place {
        Some(place) if place.log && !place.is(settings) => {
            Err(elsewhere(path, place, Some(settings)))
        }
        Some(place) if place.log => check_owner(&Bucket::new(settings.clone())?, &place),
        _ if !is_new => Err(Error::LogInFolder {
            path: path.to_owned(),
            place: settings.url(),
        }),
        place => {
            let bucket = Bucket::new(settings.clone())?;
            let known = bucket.owner()?.and_then(|owner| owner.parse().ok());
            let place = known
                .map(|owner| Place::new(owner, settings, true))
                .or(place);
            let store = claim(path, place, &bucket)?;
            Place::new(store, settings, true).with_log(true).write(path)
        }
    }
}

/// Sees that the store's objects are where the settings say, and gives the store of them.
pub(super) fn open(path: &Path, options: &Options) -> Result<ObjectStore, Error> {
    let place = Place::read(path)?;
    if options.log.is_none() && place.as_ref().is_some_and(Place::has_log) {
        return Err(Error::LogInBucket {
            path: path.to_owned(),
        });
    }
    let objects = ObjectStore::open(path.join("objects"))?.with_quota(options.quota);
    let Some(settings) = &options.bucket else {
        return match place.filter(|place| place.whole) {
            Some(place) => Err(elsewhere(path, place, None)),
            None => Ok(objects),
        };
    };
    match place {
        Some(place) if place.whole && !place.is(settings) => {
            Err(elsewhere(path, place, Some(settings)))
        }
        Some(place) if place.whole => {
            let bucket = Bucket::new(settings.clone())?;
            check_owner(&bucket, &place)?;
            copies(objects, bucket, options)
        }
        place => {
            let here = objects.list()?;
            if !here.is_empty() {
                return Err(Error::OnlyInFolder {
                    path: path.to_owned(),
                    objects: here.len() as u64,
                    bytes: here.iter().map(|object| object.size).sum(),
                    bucket: settings.url(),
                });
            }
            let bucket = Bucket::new(settings.clone())?;
            let store = claim(path, place, &bucket)?;
            Place::new(store, settings, true).write(path)?;
            copies(objects, bucket, options)
        }
    }
}

/// The folder as a cache of the bucket.
fn copies(objects: ObjectStore, bucket: Bucket, options: &Options) -> Result<ObjectStore, Error> {
    let objects = objects.with_bucket(bucket)?;
    let Some(bytes) = options.cache_size else {
        return Ok(objects);
    };
    let setting = "store.cache_size";
    Ok(objects.as_cache(Some(Bound { bytes, setting }))?)
}

/// Makes the bucket this store's, if it is nobody's.
pub(super) fn claim(path: &Path, place: Option<Place>, bucket: &Bucket) -> Result<Uuid, Error> {
    let owner = bucket.owner()?;
    let place = place.unwrap_or_else(|| Place::new(Uuid::now_v7(), bucket.settings(), false));
    // Before the mark: after a crash in between, the mark would be nobody's.
    place.write(path)?;
    match owner {
        Some(owner) if owner == place.store.to_string() => {}
        Some(owner) => return Err(other_owner(bucket, owner)),
        None => bucket.set_owner(&place.store.to_string())?,
    }
    Ok(place.store)
}

fn check_owner(bucket: &Bucket, place: &Place) -> Result<(), Error> {
    match bucket.owner()? {
        Some(owner) if owner == place.store.to_string() => Ok(()),
        Some(owner) => Err(other_owner(bucket, owner)),
        None => Err(Error::BucketEmptied {
            bucket: bucket.to_string(),
            server: bucket.settings().server(),
        }),
    }
}

fn other_owner(bucket: &Bucket, owner: String) -> Error {
    Error::OtherOwner {
        bucket: bucket.to_string(),
        owner,
    }
}

fn elsewhere(path: &Path, place: Place, settings: Option<&BucketSettings>) -> Error {
    Error::Elsewhere {
        path: path.to_owned(),
        bucket: place.bucket,
        server: place.server,
        setting: settings.map_or("is not set".to_owned(), |settings| {
            format!("is {} at {}", settings.url(), settings.server())
        }),
    }
}
