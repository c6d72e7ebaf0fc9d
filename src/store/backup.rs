//! Copies of a whole store: taken while a coordinator has it, and made a store again.
//!
//! A backup needs nobody's help: the log's files only grow at the end, checkpoints and objects
//! never change, and what must not be removed meanwhile is kept by a lock. The batches are copied
//! first, then the objects: whatever a batch refers to was there before it.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::folder::{remove_folder, set_aside, sync_folder, write_whole};
use super::format::{self, BACKUP, Found, RESTORING};
use super::lock::{lock, occupy};
use super::log::Files;
use super::log::entry::{Next, Reader};
use super::place::Place;
use super::{AUDIT_KEY, Error, FORMAT, Options, bucket, lineage, place};
use crate::objects::{Bucket, Listed, ObjectStore};

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The store's format.
    pub format: u32,
    /// The sequence number of the first batch that is not in it.
    pub next: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of them.
    pub object_bytes: u64,
    /// Objects that were copied: the others were there from an earlier backup.
    #[serde(default)]
    pub copied: u64,
}

/// Writes a backup of the store in `path` into the folder `to`: a new one, or one that holds an
/// earlier backup of it, whose objects are kept: all of them are read, and one that has rotted is
/// copied again. The store may be in use, also by another process, and need not be writable. All
/// that was acknowledged before the call is in it, with the objects themselves, also those of a
/// bucket, which the options then have to name. `progress` is told the bytes that were copied.
///
/// # Errors
/// [`Error::NotAStore`], [`Error::Format`], [`Error::NotEmpty`], [`Error::DamagedLog`],
/// [`Error::OtherBackup`] when the earlier one has what the store has not, [`Error::Object`] when an
/// object does not have its digest, [`Error::Elsewhere`], [`Error::NoSpace`], [`Error::Io`]. An
/// earlier backup in the folder stays what it was.
pub fn backup(
    path: &Path,
    to: &Path,
    options: &Options,
    mut progress: impl FnMut(u64),
) -> Result<Backup, Error> {
    check_is_store(path)?;
    let bucket = place::read_only(path, options)?;
    let _shared = occupy(path, false, "the removal of old files")?;
    let earlier = to.join(BACKUP).exists();
    if !earlier && !is_empty(to)? {
        return Err(Error::NotEmpty {
            path: to.to_owned(),
        });
    }
    fs::create_dir_all(to).map_err(Error::io("create", to))?;
    let _lock = lock(to)?;
    let (new, log, old) = (to.join("log.new"), to.join("log"), to.join("log.old"));
    remove_folder(&new)?;
    if !log.exists() && old.exists() {
        // A backup was killed between the two renames below.
        fs::rename(&old, &log).map_err(Error::io("rename", &old))?;
    }
    let mut made = Backup {
        format: format::number(path)?,
        ..Backup::default()
    };
    let readable = !earlier || lineage::check(path, to)?;
    if !earlier {
        // From now on it is one that can be gone on with, though not restored: it has no format.
        write_manifest(to, &made)?;
    }
    copy_log(path, &new, &mut made, &mut progress)?;
    copy_objects(path, bucket.as_ref(), to, &mut made, &mut progress)?;
    copy_key(path, to)?;
    copy_place(path, to)?;
    // One of the two logs is there whole at every moment.
    remove_folder(&old)?;
    if !readable {
        let kept = set_aside(&log, "damaged")?;
        tracing::warn!(kept = %kept.display(), "the log of the earlier backup was damaged");
    } else if log.exists() {
        fs::rename(&log, &old).map_err(Error::io("rename", &log))?;
    }
    fs::rename(&new, &log).map_err(Error::io("rename", &new))?;
    let records = to.join("records");
    if records.exists() {
        // Somebody worked in a backup, with a program that let them: it is of another log now.
        let kept = set_aside(&records, "old")?;
        tracing::warn!(kept = %kept.display(), "a backup has no index: what was there is kept");
    }
    sync_folder(to)?;
    remove_folder(&old)?;
    // The store may have got a newer one meanwhile, before the first batch that needs it.
    made.format = format::number(path)?;
    format::write(to, made.format)?;
    write_manifest(to, &made)?;
    Ok(made)
}

fn write_manifest(to: &Path, made: &Backup) -> Result<(), Error> {
    let manifest = serde_json::to_vec_pretty(made).unwrap_or_default();
    write_whole(&to.join(BACKUP), &manifest)?;
    sync_folder(to)
}

/// Makes a backup a store in the folder `to`, which must be empty or not there, or have what an
/// earlier call has left that was ended. The index is made when the store is opened. With a bucket
/// in the options its objects are put there too, where they are not there still.
///
/// # Errors
/// [`Error::NotAStore`] when there is no log in it, [`Error::Format`], [`Error::NotEmpty`],
/// [`Error::DamagedLog`] and [`Error::Object`] when the backup is damaged, [`Error::NoSpace`],
/// [`Error::Io`].
pub fn restore(
    from: &Path,
    to: &Path,
    options: &Options,
    mut progress: impl FnMut(u64),
) -> Result<Backup, Error> {
    check_is_store(from)?;
    let (mark, log) = (to.join(RESTORING), to.join("log"));
    let begun = mark.exists() && !to.join("FORMAT").exists();
    if !begun && !is_empty(to)? {
        return Err(Error::NotEmpty {
            path: to.to_owned(),
        });
    }
    fs::create_dir_all(to).map_err(Error::io("create", to))?;
    let lock = lock(to)?;
    // By it, and the missing format, nobody takes the folder for a store before it is one.
    write_whole(&mark, b"")?;
    sync_folder(to)?;
    // What an earlier call has copied of it, and nobody has opened.
    remove_folder(&log)?;
    let mut made = Backup {
        format: format::number(from)?,
        ..Backup::default()
    };
    copy_log(from, &log, &mut made, &mut progress)?;
    copy_objects(from, None, to, &mut made, &mut progress)?;
    copy_key(from, to)?;
    copy_place(from, to)?;
    // Last: without it the folder is no store.
    format::write(to, made.format)?;
    fs::remove_file(&mark).map_err(Error::io("remove", &mark))?;
    if options.bucket.is_some() {
        drop(lock);
        bucket::push(to, options, |_| ())?;
    }
    Ok(made)
}

fn check_is_store(path: &Path) -> Result<(), Error> {
    if !path.join("FORMAT").exists() {
        return Err(Error::NotAStore {
            path: path.to_owned(),
        });
    }
    match format::find(path)? {
        Found::Current | Found::Backup => Ok(()),
        Found::Nothing | Found::WithoutLog => Err(Error::Format {
            path: path.to_owned(),
            found: "1; open it once, with 'palimpsest job list' say, which writes its log"
                .to_owned(),
            known: FORMAT,
        }),
    }
}

/// Whether a folder is not there, or has nothing in it but a lock.
fn is_empty(path: &Path) -> Result<bool, Error> {
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    entries.try_fold(true, |empty, entry| {
        let name = entry.map_err(Error::io("read", path))?.file_name();
        Ok(empty && name == "LOCK")
    })
}

/// Copies the log up to its last whole batch, and looks at every one.
fn copy_log(
    from: &Path,
    to: &Path,
    made: &mut Backup,
    progress: &mut impl FnMut(u64),
) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(Error::io("create", to))?;
    let mut log = from.join("log");
    if !log.exists() {
        log = from.join("log.old"); // a backup was killed when it had the new one all but in place
    }
    let files = Files::list(&log)?;
    if files.segments.is_empty() {
        // Every store has one. Without it, nothing would pass for all there was.
        return Err(Error::NotAStore {
            path: from.to_owned(),
        });
    }
    // A store that is open goes on by its index without them; a copy has only these.
    files.check_there(&log)?;
    if let Some((_, path)) = &files.checkpoint {
        super::log::checkpoint::read(path, |_| Ok(()))?;
        made.log_bytes += copy(path, to, u64::MAX)?;
        progress(made.log_bytes);
    }
    made.next = files.first();
    let last = files.segments.len().saturating_sub(1);
    for (n, (first, path)) in files.segments.iter().enumerate() {
        let mut reader = Reader::open(path)?;
        if *first != made.next {
            return Err(reader.damaged(format!("it does not begin with batch {}", made.next)));
        }
        loop {
            match reader.next()? {
                Next::Entry(sequence, _) if sequence == made.next => made.next += 1,
                Next::Entry(..) => return Err(reader.damaged("its batches are out of order")),
                Next::End => break,
                // A batch that is being written.
                Next::Torn if n == last => break,
                Next::Torn => return Err(reader.damaged("it ends inside a batch")),
            }
        }
        made.log_bytes += copy(path, to, reader.offset())?;
        progress(made.log_bytes);
    }
    sync_folder(to)
}

/// Copies the audit log's key, readable by its owner only as it is. A store that no coordinator
/// has opened has none.
fn copy_key(from: &Path, to: &Path) -> Result<(), Error> {
    let (from, to) = (from.join(AUDIT_KEY), to.join(AUDIT_KEY));
    let temporary = to.with_extension("new");
    match fs::copy(&from, &temporary) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !from.exists() => Ok(()),
        copied => copied
            .and_then(|_| File::open(&temporary)?.sync_all())
            .and_then(|()| fs::rename(&temporary, &to))
            .map_err(Error::io("write", &to)),
    }
}

/// Copies all objects, those of a bucket from the folder where that has them.
fn copy_objects(
    from: &Path,
    bucket: Option<&Bucket>,
    to: &Path,
    made: &mut Backup,
    progress: &mut impl FnMut(u64),
) -> Result<(), Error> {
    let to = ObjectStore::open(to.join("objects"))?;
    for object in ObjectStore::list_from(&from.join("objects"), bucket)? {
        made.objects += 1;
        made.object_bytes += object.size;
        if !is_sound(&to, &object)? {
            match bucket {
                Some(bucket) => to.fetch_from(&object.digest, &object.path, bucket)?,
                None => to.copy_from(&object.digest, &object.path)?,
            }
            made.copied += 1;
        }
        progress(made.log_bytes + made.object_bytes);
    }
    Ok(())
}

/// Whether a copy has an object, as it has to be.
fn is_sound(to: &ObjectStore, object: &Listed) -> Result<bool, Error> {
    if to.size(&object.digest)? != Some(object.size) {
        return Ok(false);
    }
    match to.verify(&object.digest) {
        Ok(()) => Ok(true),
        Err(error @ crate::objects::Error::Corrupt { .. }) => {
            tracing::warn!(%error, "copying the object again");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Says in a copy whose objects it has: with that, a restored store still owns its bucket. A copy
/// has them all itself.
fn copy_place(from: &Path, to: &Path) -> Result<(), Error> {
    match Place::read(from)? {
        Some(place) => place.in_folder().write(to),
        None => Ok(()),
    }
}

/// Copies the first `length` bytes of a file into a folder, under its own name. Durable when it
/// returns.
fn copy(path: &Path, folder: &Path, length: u64) -> Result<u64, Error> {
    let to = folder.join(path.file_name().unwrap_or_default());
    let source = File::open(path).map_err(Error::io("open", path))?;
    let mut target = File::create(&to).map_err(Error::io("create", &to))?;
    let copied =
        std::io::copy(&mut source.take(length), &mut target).map_err(Error::io("write", &to))?;
    target.sync_all().map_err(Error::io("flush", &to))?;
    Ok(copied)
}
