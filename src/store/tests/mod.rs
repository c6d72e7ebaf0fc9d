//! The store as its users see it.
#![allow(clippy::disallowed_methods)] // a test owns its time

mod kept;

use std::fs::{self, File};
use std::sync::atomic::AtomicBool;

use uuid::Uuid;

use std::path::{Path, PathBuf};

use super::catch_up::shorten;
use super::lock::occupy;
use super::log::Files;
use super::values::INLINE_LIMIT;
use super::*;
use crate::objects::{Digest, ObjectStore};
use crate::proto::v1;

fn result(text: &str) -> Change {
    let bytes = bytes::Bytes::from(text.to_owned());
    Change::Result(Uuid::from_u128(1), 0, ResultRecord::default(), bytes)
}

#[test]
fn a_committed_change_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["small".to_owned(), "large".repeat(INLINE_LIMIT)] {
        Store::open(folder.path())
            .unwrap()
            .commit(&[result(&text)])
            .unwrap();
        let store = Store::open(folder.path()).unwrap();
        let results = store.results(Uuid::from_u128(1), 0, 10, 1 << 20).unwrap();
        assert_eq!(results[0].2, text.as_bytes());
    }
}

#[test]
fn a_store_opened_twice_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Store::open(folder.path()).unwrap();
    assert!(matches!(
        Store::open(folder.path()),
        Err(Error::Busy { .. })
    ));
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    fs::write(folder.path().join("FORMAT"), "999\n").unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("format 999"), "{error}");
    assert_eq!(
        fs::read_to_string(folder.path().join("FORMAT")).unwrap(),
        "999\n"
    );
    for torn in ["", "no number"] {
        fs::write(folder.path().join("FORMAT"), torn).unwrap();
        let error = Store::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("holds no number") && error.contains("backup"),
            "{error}"
        );
    }
}

#[test]
fn a_result_that_was_altered_on_disk_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let text = "x".repeat(INLINE_LIMIT + 1);
    store.commit(&[result(&text)]).unwrap();
    let path = store.objects().path(&Digest::of(text.as_bytes()));
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(&path, permissions).unwrap();
    fs::write(&path, "y".repeat(INLINE_LIMIT + 1)).unwrap();
    assert!(store.results(Uuid::from_u128(1), 0, 10, 1 << 20).is_err());
}

#[test]
fn pages_of_results_respect_both_limits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let job = Uuid::from_u128(7);
    let changes: Vec<_> = (0..10)
        .map(|unit| Change::Result(job, unit, ResultRecord::default(), vec![1; 100].into()))
        .collect();
    store.commit(&changes).unwrap();
    assert_eq!(store.results(job, 0, 3, 1 << 20).unwrap().len(), 3);
    assert_eq!(store.results(job, 8, 30, 1 << 20).unwrap().len(), 2);
    assert_eq!(store.results(job, 0, 30, 250).unwrap().len(), 2);
    assert_eq!(store.results(job, 0, 30, 1).unwrap().len(), 1);
}

fn event(sequence: u64) -> Change {
    let event = v1::JobEvent {
        sequence,
        ..Default::default()
    };
    Change::Event(Uuid::from_u128(1), event)
}

fn events(store: &Store) -> u64 {
    store
        .events(Uuid::from_u128(1), 0, usize::MAX)
        .unwrap()
        .len() as u64
}

/// A closed store with so many events, committed one by one, and a large result.
fn with_events(count: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store
        .commit(&[result(&"large".repeat(INLINE_LIMIT))])
        .unwrap();
    for sequence in 1..=count {
        store.commit(&[event(sequence)]).unwrap();
    }
    folder
}

/// A copy of a folder with everything in it.
fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copied(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Every file of a folder with its bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

fn last_segment(folder: &Path) -> PathBuf {
    let files = Files::list(&folder.join("log")).unwrap();
    files.segments.last().unwrap().1.clone()
}

#[test]
fn what_a_crash_takes_from_the_index_comes_back_from_the_log() {
    let folder = with_events(5);
    let old = tempfile::tempdir().unwrap();
    copied(&folder.path().join("records"), old.path());
    let store = Store::open(folder.path()).unwrap();
    for sequence in 6..=9 {
        store.commit(&[event(sequence)]).unwrap();
    }
    drop(store);
    let records = folder.path().join("records");
    // An index of some time ago, and none at all.
    for index in [Some(old.path()), None] {
        fs::remove_dir_all(&records).unwrap();
        if let Some(index) = index {
            copied(index, &records);
        }
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(events(&store), 9);
        assert_eq!(store.results(Uuid::from_u128(1), 0, 9, 1).unwrap().len(), 1);
    }
}

#[test]
fn a_batch_torn_by_a_crash_is_cut_off_and_the_ones_before_are_there() {
    let folder = with_events(0);
    let old = tempfile::tempdir().unwrap();
    copied(&folder.path().join("records"), old.path());
    let store = Store::open(folder.path()).unwrap();
    store.commit(&[event(1)]).unwrap();
    let path = last_segment(folder.path());
    let whole = fs::metadata(&path).unwrap().len();
    store.commit(&[event(2)]).unwrap();
    drop(store);
    let bytes = fs::read(&path).unwrap();
    let records = folder.path().join("records");
    for cut in [whole + 1, whole + 30, bytes.len() as u64 - 1] {
        // The index cannot have had the batch: it is told after the log's flush.
        fs::remove_dir_all(&records).unwrap();
        copied(old.path(), &records);
        fs::write(&path, &bytes[..cut as usize]).unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(events(&store), 1, "cut at {cut}");
        store.commit(&[event(2)]).unwrap();
        drop(store);
        assert_eq!(events(&Store::open(folder.path()).unwrap()), 2);
    }
}

#[test]
fn a_log_that_lost_what_the_index_has_seen_is_damage_and_left_alone() {
    let folder = with_events(3);
    let path = last_segment(folder.path());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let log = contents(&folder.path().join("log"));
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::DamagedLog { .. }), "{error}");
    assert!(error.to_string().contains("--from index"), "{error}");
    assert_eq!(contents(&folder.path().join("log")), log);

    // The remedy that the error names.
    rebuild(folder.path(), From::Index, |_| ()).unwrap();
    assert_eq!(events(&Store::open(folder.path()).unwrap()), 3);
}

#[test]
fn a_changed_byte_in_the_log_is_damage_and_left_alone() {
    let folder = with_events(20);
    fs::remove_dir_all(folder.path().join("records")).unwrap();
    let path = last_segment(folder.path());
    let bytes = fs::read(&path).unwrap();
    for at in (0..bytes.len() / 2).step_by(97) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert!(
            matches!(error, Error::DamagedLog { .. }),
            "byte {at}: {error}"
        );
        assert_eq!(fs::read(&path).unwrap(), changed);
    }
    fs::write(&path, &bytes).unwrap();
    rebuild(folder.path(), From::Log, |_| ()).unwrap();
    assert_eq!(events(&Store::open(folder.path()).unwrap()), 20);
}

#[test]
fn an_index_cut_or_changed_anywhere_is_refused_or_complete_and_can_be_rebuilt() {
    let folder = with_events(300);
    let whole = tempfile::tempdir().unwrap();
    copied(folder.path(), whole.path());
    let records = whole.path().join("records");
    let length = fs::metadata(records.join("db")).unwrap().len();
    let (mut refused, mut complete) = (0, 0);
    for n in 1..12 {
        for cut in [true, false] {
            let trial = tempfile::tempdir().unwrap();
            copied(whole.path(), trial.path());
            let db = trial.path().join("records/db");
            let mut bytes = fs::read(&db).unwrap();
            let at = (length * n / 12) as usize;
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 0x55;
            }
            fs::write(&db, &bytes).unwrap();
            let log = contents(&trial.path().join("log"));
            match Store::open(trial.path()) {
                Ok(store) => {
                    complete += 1;
                    assert_eq!(events(&store), 300, "at {at}");
                    continue;
                }
                Err(error) => {
                    refused += 1;
                    assert!(matches!(error, Error::DamagedIndex { .. }), "{error}");
                    assert!(error.to_string().contains("store rebuild"), "{error}");
                }
            }
            assert_eq!(contents(&trial.path().join("log")), log);
            rebuild(trial.path(), From::Log, |_| ()).unwrap();
            assert_eq!(events(&Store::open(trial.path()).unwrap()), 300);
        }
    }
    println!("{refused} refused, {complete} complete");
}

#[test]
fn a_shortened_log_gives_the_same_store_and_an_older_index_is_made_again() {
    let folder = with_events(5);
    let old = tempfile::tempdir().unwrap();
    copied(&folder.path().join("records"), old.path());
    let store = Store::open(folder.path()).unwrap();
    store.commit(&[event(6)]).unwrap();
    let next = {
        let mut log = store.log();
        log.rotate().unwrap();
        log.next()
    };
    // Batches go on while the checkpoint is written.
    store.commit(&[event(7)]).unwrap();
    assert!(
        shorten(
            folder.path(),
            &store.index,
            next,
            None,
            None,
            &AtomicBool::new(false)
        )
        .unwrap()
    );
    store.commit(&[event(8)]).unwrap();
    drop(store);
    let files = Files::list(&folder.path().join("log")).unwrap();
    assert_eq!((files.first(), files.segments.len()), (next, 1));
    assert_eq!(files.obsolete, Vec::<PathBuf>::new());
    assert_eq!(
        verify(folder.path(), &Options::default(), |_, _, _| ())
            .unwrap()
            .batches,
        2
    );

    let records = folder.path().join("records");
    for index in [Some(old.path()), None] {
        fs::remove_dir_all(&records).unwrap();
        if let Some(index) = index {
            copied(index, &records);
        }
        assert_eq!(events(&Store::open(folder.path()).unwrap()), 8);
    }
}

#[test]
fn a_checkpoint_left_at_the_end_of_the_program_removes_nothing() {
    let folder = with_events(5);
    let store = Store::open(folder.path()).unwrap();
    store.log().rotate().unwrap();
    let next = store.log().next();
    let log = contents(&folder.path().join("log"));
    assert!(
        !shorten(
            folder.path(),
            &store.index,
            next,
            None,
            None,
            &AtomicBool::new(true)
        )
        .unwrap()
    );
    assert_eq!(contents(&folder.path().join("log")), log);
}

#[test]
fn a_backup_of_a_store_in_use_has_all_that_was_acknowledged_and_is_brought_up() {
    let folder = with_events(5);
    let site = tempfile::tempdir().unwrap();
    let (to, restored) = (site.path().join("backup"), site.path().join("restored"));
    let store = Store::open(folder.path()).unwrap();
    let first = backup(folder.path(), &to, &Options::default(), |_| ()).unwrap();
    assert_eq!((first.objects, first.copied), (1, 1));
    store.commit(&[event(6)]).unwrap();
    let second = backup(folder.path(), &to, &Options::default(), |_| ()).unwrap();
    assert_eq!((second.objects, second.copied), (1, 0));
    assert_eq!(second.next, first.next + 1);
    drop(store);

    restore(&to, &restored, &Options::default(), |_| ()).unwrap();
    let store = Store::open(&restored).unwrap();
    assert_eq!(events(&store), 6);
    assert_eq!(store.results(Uuid::from_u128(1), 0, 9, 1).unwrap().len(), 1);
    drop(store);
    assert!(matches!(
        restore(&to, &restored, &Options::default(), |_| ()),
        Err(Error::NotEmpty { .. })
    ));
    assert!(matches!(
        backup(folder.path(), &restored, &Options::default(), |_| ()),
        Err(Error::NotEmpty { .. })
    ));
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let folder = with_events(5);
    let site = tempfile::tempdir().unwrap();
    let to = site.path().join("backup");
    backup(folder.path(), &to, &Options::default(), |_| ()).unwrap();
    let object = ObjectStore::list_in(&to.join("objects")).unwrap().remove(0);
    fs::remove_file(&object.path).unwrap();
    fs::write(&object.path, b"other").unwrap();
    let restored = site.path().join("restored");
    let error = restore(&to, &restored, &Options::default(), |_| ()).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
    assert!(!restored.join("FORMAT").exists());
}

#[test]
fn nothing_that_a_record_reaches_and_nothing_young_is_collected() {
    let folder = with_events(1);
    let store = Store::open(folder.path()).unwrap();
    let objects = store.objects();
    let file = objects.put(b"a model's file").unwrap();
    let model = v1::Model {
        // Large: its record lies in an object, which names another.
        tensors: vec![v1::model::Tensor::default(); INLINE_LIMIT],
        files: vec![v1::model::File {
            digest: file.to_string(),
            ..Default::default()
        }],
        ..Default::default()
    };
    store
        .commit(&[Change::Model("m".to_owned(), model)])
        .unwrap();
    let orphan = objects.put(b"nobody's").unwrap();
    let mut partial = objects.partial(&Digest::of(b"never finished")).unwrap();
    partial.append(0, b"never").unwrap();
    drop(partial);
    let hour = std::time::Duration::from_secs(3600);
    let now = std::time::SystemTime::now();
    let past = Grace { before: now - hour };
    let future = Grace { before: now + hour };

    let kept = store.sweep(store.garbage(past).unwrap()).unwrap();
    assert_eq!((kept.reached, kept.young, kept.removed), (3, 1, 0));
    let counted = store.garbage(future).unwrap().counted();
    assert_eq!(
        (counted.removed, counted.removed_bytes, counted.partial),
        (1, 8, 1)
    );
    assert!(objects.contains(&orphan).unwrap());
    assert_eq!(
        store.sweep(store.garbage(future).unwrap()).unwrap(),
        counted
    );
    assert!(!objects.contains(&orphan).unwrap());
    objects.verify(&file).unwrap();
    let again = store.sweep(store.garbage(future).unwrap()).unwrap();
    assert_eq!((again.reached, again.removed, again.partial), (3, 0, 0));
}

#[test]
fn an_old_object_that_is_stored_again_is_young() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let digest = store.objects().put(b"once and again").unwrap();
    let path = store.objects().path(&digest);
    let old = std::time::SystemTime::UNIX_EPOCH;
    let file = File::open(&path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(old))
        .unwrap();
    let grace = Grace {
        before: old + std::time::Duration::from_secs(1000),
    };
    assert_eq!(store.garbage(grace).unwrap().counted().removed, 1);
    store.objects().put(b"once and again").unwrap();
    assert_eq!(
        store.sweep(store.garbage(grace).unwrap()).unwrap().removed,
        0
    );
    assert!(store.objects().contains(&digest).unwrap());
}

#[test]
fn a_backup_and_a_collection_do_not_go_on_together() {
    let folder = with_events(1);
    let store = Store::open(folder.path()).unwrap();
    let _backup = occupy(folder.path(), false, "").unwrap();
    let grace = Grace {
        before: std::time::SystemTime::UNIX_EPOCH,
    };
    let error = store.garbage(grace).unwrap_err();
    assert!(error.to_string().contains("a backup goes on"), "{error}");
}

/// A completion as the coordinator writes it: a result, two events, the task, the job.
fn completion(n: u64) -> Vec<Change> {
    let job = Uuid::from_u128(1);
    let result = bytes::Bytes::from(vec![n as u8; 1500]);
    vec![
        Change::Result(job, n, ResultRecord::default(), result),
        event(2 * n + 1),
        event(2 * n + 2),
        Change::Task(job, n as u32, TaskRecord::default()),
        Change::Job(job, JobRecord::default()),
    ]
}

/// How much is made durable in a second: `cargo test --release --lib measured -- --ignored
/// --nocapture`.
#[test]
#[ignore = "measures"]
fn measured_group_commits() {
    for group in [1, 16, 256, 1024] {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let store = Store::open(folder.path()).unwrap();
        let start = std::time::Instant::now();
        let mut done = 0;
        while start.elapsed().as_secs() < 3 {
            let changes: Vec<_> = (done..done + group).flat_map(completion).collect();
            store.commit(&changes).unwrap();
            done += group;
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{group:5} completions a batch: {:7.0} batches/s, {:8.0} completions/s, {} flushes",
            store.flushes() as f64 / seconds,
            done as f64 / seconds,
            store.flushes()
        );
    }
}
