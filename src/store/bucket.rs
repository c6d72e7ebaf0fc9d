//! Where a store's objects are: in its folder, or in a bucket.
//!
//! The file `BUCKET` in the folder says so, and the bucket says by its owner's mark whose objects
//! it has. Neither is taken for granted: a store whose objects are elsewhere than the settings say
//! is not opened, for it would seem to have lost them. [`push`] and [`pull`] move them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::examine::Reach;
use super::format::{self, Found};
use super::log::sync_folder;
use super::{Error, Options, Store, backup, keys};
use crate::objects::{Bound, Bucket, BucketSettings, Digest, ObjectStore};

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
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MovedObjects {
    /// Objects that the store has.
    pub objects: u64,
    /// Bytes of them.
    pub object_bytes: u64,
    /// Objects that were copied: the others were there.
    pub copied: u64,
    /// Bytes of them.
    pub copied_bytes: u64,
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
        backup::write_whole(&path.join(PLACE), &text)?;
        sync_folder(path)
    }

    /// The same store, with all its objects in its folder.
    pub(super) fn in_folder(self) -> Self {
        Self {
            whole: false,
            ..self
        }
    }

    fn new(store: Uuid, bucket: &BucketSettings, whole: bool) -> Self {
        Self {
            bucket: bucket.url(),
            server: bucket.server(),
            store,
            whole,
        }
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

/// Sees that the store's objects are where the settings say, and gives the store of them.
pub(super) fn open(path: &Path, options: &Options) -> Result<ObjectStore, Error> {
    let place = Place::read(path)?;
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
fn claim(path: &Path, place: Option<Place>, bucket: &Bucket) -> Result<Uuid, Error> {
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

/// Puts into the bucket what a store's folder has and the bucket lacks, sees that every object that
/// a record needs is there, and makes it the place of the store's objects. Nobody may have the
/// store. What was put there stays if it breaks off. `progress` is told the bytes that are there.
///
/// # Errors
/// [`Error::NoBucket`] without one in the options; [`Error::OtherOwner`]; [`Error::BucketLacks`]
/// when objects are in neither; those of [`Store::open`].
pub fn push(
    path: &Path,
    options: &Options,
    mut progress: impl FnMut(u64),
) -> Result<MovedObjects, Error> {
    let settings = settings(path, options)?;
    let bucket = Bucket::new(settings.clone())?;
    let place = Place::read(path)?;
    let objects = ObjectStore::open(path.join("objects"))?;
    let (lock, index, log) = super::open_records(path)?;
    let owner = claim(path, place.clone(), &bucket)?;
    let mut there: HashMap<Digest, u64> = bucket
        .list()?
        .iter()
        .map(|it| (it.digest, it.size))
        .collect();
    let mut moved = MovedObjects::default();
    let sending = objects.root().join("sending");
    fs::create_dir_all(&sending).map_err(Error::io("create", &sending))?;
    for object in objects.list()? {
        if there.get(&object.digest) != Some(&object.size) {
            // Not to spread what a disk has damaged.
            objects.verify(&object.digest)?;
            let unfinished = sending.join(object.digest.to_string());
            bucket.upload(&object.digest, &object.path, &unfinished)?;
            there.insert(object.digest, object.size);
            moved.copied += 1;
            moved.copied_bytes += object.size;
        }
        progress(moved.copied_bytes);
    }
    moved.objects = there.len() as u64;
    moved.object_bytes = there.values().sum();

    let store = Store::assemble(path, lock, index, log, objects.with_bucket(bucket)?);
    store.check_whole(&there)?;
    Place::new(owner, settings, true).write(path)?;
    Ok(moved)
}

/// Fetches from the bucket what a store's folder lacks, and makes the folder the place of the
/// store's objects. The bucket keeps them. Nobody may have the store. `progress` is told the bytes
/// that were fetched.
///
/// # Errors
/// [`Error::NoBucket`] without one in the options; those of [`Store::open`] and of the bucket.
pub fn pull(
    path: &Path,
    options: &Options,
    mut progress: impl FnMut(u64),
) -> Result<MovedObjects, Error> {
    settings(path, options)?;
    let unbounded = Options {
        cache_size: None,
        ..options.clone()
    };
    let store = Store::open_with(path, unbounded)?;
    let mut moved = MovedObjects::default();
    for object in store.objects.list()? {
        moved.objects += 1;
        moved.object_bytes += object.size;
        if !object.path.exists() {
            store.objects.local(&object.digest)?;
            moved.copied += 1;
            moved.copied_bytes += object.size;
            progress(moved.copied_bytes);
        }
    }
    let place = Place::read(path)?;
    if let Some(place) = place {
        place.in_folder().write(path)?;
    }
    Ok(moved)
}

fn settings<'a>(path: &Path, options: &'a Options) -> Result<&'a BucketSettings, Error> {
    if !path.join("FORMAT").exists() || format::find(path)? != Found::Current {
        return Err(Error::NotAStore {
            path: path.to_owned(),
        });
    }
    options.bucket.as_ref().ok_or(Error::NoBucket)
}

impl Store {
    /// Sees that what records need is among these objects.
    fn check_whole(&self, there: &HashMap<Digest, u64>) -> Result<(), Error> {
        let mut missing: BTreeMap<Digest, String> = BTreeMap::new();
        for entry in self.index.range(Vec::new()..) {
            let (key, value) = entry?;
            let mut look = |reach| {
                if let Reach::Needed(digest) = reach
                    && !there.contains_key(&digest)
                {
                    missing.insert(digest, keys::printable(&key));
                }
            };
            match self.examine(&key, &value, &mut look) {
                // An object that names others, and is itself one of those that are missing.
                Err(Error::Object(crate::objects::Error::NotFound { digest })) => {
                    missing.insert(digest, keys::printable(&key));
                }
                examined => drop(examined?),
            }
        }
        match missing.pop_first() {
            None => Ok(()),
            Some((digest, key)) => Err(Error::BucketLacks {
                objects: missing.len() as u64 + 1,
                digest,
                key,
            }),
        }
    }
}
