//! Moves a store's objects, and its log, from its folder into a bucket, and back.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::catch_up::open_records;
use super::examine::Reach;
use super::folder::AUDIT_KEY;
use super::follow::probe;
use super::format::{self, Found};
use super::formats::SHARED;
use super::log::Files;
use super::log::shared::Shared;
use super::place::{Place, claim};
use super::{Error, Options, Store, keys};
use crate::objects::{Bucket, BucketSettings, Digest, ObjectStore, Shelf};

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
    let (lock, index, log) = open_records(path)?;
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

    let store = Store::assemble(
        path,
        lock,
        index,
        log,
        objects.with_bucket(bucket)?,
        format::number(path)?,
    );
    store.check_whole(&there)?;
    Place::new(owner, settings, true).write(path)?;
    Ok(moved)
}

/// [`push`], and puts the log there too: several coordinators may follow it from then on.
///
/// # Errors
/// Those of [`push`]; [`Error::Overwrites`]; [`Error::LogInBucket`] when it is there already;
/// [`Error::OtherSharedLog`] when another is.
pub fn push_log(
    path: &Path,
    options: &Options,
    progress: impl FnMut(u64),
) -> Result<MovedObjects, Error> {
    let in_folder = Options {
        log: None,
        ..options.clone()
    };
    if Place::read(path)?.is_some_and(|place| place.has_log()) {
        return Err(Error::LogInBucket {
            path: path.to_owned(),
        });
    }
    let moved = push(path, &in_folder, progress)?;
    let shelf: Arc<dyn Shelf> = Arc::new(Bucket::new(settings(path, options)?.clone())?);
    probe(&*shelf)?;
    let (_lock, _index, mut log) = open_records(path)?;
    log.rotate()?;
    let shared = Shared::new(shelf, u64::MAX);
    let files = Files::list(&path.join("log"))?;
    files.check_there(&path.join("log"))?;
    shared.check_within(&files, path)?;
    shared.take_in(&files)?;
    let key = path.join(AUDIT_KEY);
    if let Ok(bytes) = fs::read(&key) {
        shared.shelf().create(AUDIT_KEY, &bytes)?;
    }
    format::write(path, SHARED)?;
    // It is there since the objects were put into the bucket.
    let place = Place::read(path)?.ok_or(Error::NoBucket)?;
    place.with_log(true).write(path)?;
    // Last: until then nobody else can go on with it.
    shared.show(&files)?;
    Ok(moved)
}

/// Makes a store's folder the place of its log again, if it is not: nobody goes on with the one in the
/// bucket.
///
/// # Errors
/// [`Error::Led`] when somebody leads; those of [`Store::open`] and of the bucket.
pub fn pull_log(path: &Path, options: &Options) -> Result<MovedObjects, Error> {
    settings(path, options)?;
    let nothing = MovedObjects::default();
    let Some(place) = Place::read(path)?.filter(Place::has_log) else {
        return Ok(nothing);
    };
    let sharing = options.log.as_ref().ok_or(Error::LogInBucket {
        path: path.to_owned(),
    })?;
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let to = format!("{} on {}", whole.display(), sharing.name);
    match Store::open_with(path, options.clone()) {
        Ok(store) => {
            store.take_out(&to)?;
            store.close()?;
        }
        // An earlier call was ended before it could note that it had done it.
        Err(Error::TakenOut { to: there, .. }) if there == to => {}
        Err(error) => return Err(error),
    }
    place.with_log(false).write(path)?;
    Ok(nothing)
}

/// Fetches from the bucket what a store's folder lacks, and makes the folder the place of the
/// store's objects, and of its log, if that is in the bucket. The bucket keeps them. Nobody may have
/// the store. `progress` is told the bytes that were fetched.
///
/// # Errors
/// [`Error::NoBucket`] without one in the options; those of [`Store::open`] and of the bucket.
pub fn pull(
    path: &Path,
    options: &Options,
    mut progress: impl FnMut(u64),
) -> Result<MovedObjects, Error> {
    settings(path, options)?;
    pull_log(path, options)?;
    let unbounded = Options {
        cache_size: None,
        log: None,
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
    let known = path.join("FORMAT").exists() && format::find(path)? != Found::WithoutLog;
    if !known {
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
