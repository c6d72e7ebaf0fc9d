//! What repairs, restores and copies, and what it leaves alone.

use super::*;

const OPTIONS: Options = Options {
    quota: None,
    bucket: None,
    cache_size: None,
    log: None,
};

fn copy(from: &Path, to: &Path) -> Result<Backup, Error> {
    backup(from, to, &OPTIONS, |_| ())
}

fn put_back(from: &Path, to: &Path) -> Result<Backup, Error> {
    restore(from, to, &OPTIONS, |_| ())
}

/// Where something is wrong, beside the jobs, which these stores lack.
fn problems(folder: &Path) -> Vec<String> {
    let report = verify(folder, &OPTIONS, |_, _, _| ()).unwrap();
    let places = report.problems.into_iter().map(|problem| problem.place);
    places.filter(|place| !place.starts_with("jobs/")).collect()
}

fn add(folder: &Path, sequences: std::ops::RangeInclusive<u64>) {
    let store = Store::open(folder).unwrap();
    for sequence in sequences {
        store.commit(&[event(sequence)]).unwrap();
    }
}

fn count(folder: &Path) -> u64 {
    events(&Store::open(folder).unwrap())
}

/// An empty store of another life, with an audit log of its own.
fn other_store(folder: &Path) {
    drop(Store::open(folder).unwrap());
    fs::write(folder.join(AUDIT_KEY), "another key").unwrap();
}

#[test]
fn an_index_is_never_replaced_by_what_a_log_lost() {
    // The log is gone, and it is an older copy of itself.
    for lost in [true, false] {
        let folder = with_events(3);
        let log = folder.path().join("log");
        let older = tempfile::tempdir().unwrap();
        copied(&log, &older.path().join("log"));
        add(folder.path(), 4..=6);
        fs::remove_dir_all(&log).unwrap();
        if !lost {
            copied(&older.path().join("log"), &log);
        }
        let records = contents(&folder.path().join("records")).len();
        for _ in 0..2 {
            let error = rebuild(folder.path(), From::Log, |_| ()).unwrap_err();
            assert!(error.to_string().contains("--from index"), "{error}");
        }
        assert!(!folder.path().join("records.new").exists());
        assert_eq!(contents(&folder.path().join("records")).len(), records);
        // Left to itself it takes what has more, and keeps the log that it replaces.
        let made = rebuild(folder.path(), From::Newest, |_| ()).unwrap();
        assert_eq!((made.from, made.kept.is_some()), (From::Index, !lost));
        assert_eq!(count(folder.path()), 6);
        let made = rebuild(folder.path(), From::Newest, |_| ()).unwrap();
        assert_eq!((made.from, made.kept), (From::Log, None));
    }
}

#[test]
fn what_is_rebuilt_keeps_what_it_cannot_make_again_and_nothing_else() {
    let folder = with_events(5);
    assert_eq!(
        rebuild(folder.path(), From::Log, |_| ()).unwrap().kept,
        None
    );
    // Each log that is replaced, under a name of its own.
    for name in ["log.damaged", "log.damaged.2"] {
        let made = rebuild(folder.path(), From::Index, |_| ()).unwrap();
        assert_eq!(made.kept, Some(folder.path().join(name)));
    }
    // An index that cannot be read may have had more than the log.
    let db = folder.path().join("records/db");
    fs::write(&db, b"rotten").unwrap();
    let made = rebuild(folder.path(), From::Log, |_| ()).unwrap();
    assert_eq!(made.kept, Some(folder.path().join("records.old")));
    assert_eq!(fs::read(made.kept.unwrap().join("db")).unwrap(), b"rotten");
    assert_eq!(count(folder.path()), 5);
}

#[test]
fn a_log_without_a_format_is_never_taken_for_no_store() {
    let folder = with_events(3);
    fs::remove_file(folder.path().join("FORMAT")).unwrap();
    fs::remove_dir_all(folder.path().join("records")).unwrap();
    let before = contents(&folder.path().join("log"));
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Unfinished { .. }), "{error}");
    assert_eq!(contents(&folder.path().join("log")), before);
    // Nor are the other parts of one.
    fs::remove_dir_all(folder.path().join("log")).unwrap();
    fs::write(folder.path().join(AUDIT_KEY), "key").unwrap();
    assert!(Store::open(folder.path()).is_err());
    assert!(!folder.path().join("log").exists());
}

#[test]
fn a_store_that_was_begun_and_took_nothing_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("log")).unwrap();
    fs::write(folder.path().join("log/00000000000000000001.log"), b"").unwrap();
    assert_eq!(count(folder.path()), 0);
}

#[test]
fn a_restore_that_was_ended_is_named_and_goes_on() {
    let (folder, site) = (with_events(4), tempfile::tempdir().unwrap());
    let (to, restored) = (site.path().join("backup"), site.path().join("restored"));
    copy(folder.path(), &to).unwrap();
    put_back(&to, &restored).unwrap();
    // As it was before its last steps.
    fs::remove_file(restored.join("FORMAT")).unwrap();
    fs::write(restored.join("RESTORING"), b"").unwrap();
    let error = Store::open(&restored).unwrap_err().to_string();
    assert!(error.contains("store restore"), "{error}");
    put_back(&to, &restored).unwrap();
    assert_eq!(count(&restored), 4);
    assert!(!restored.join("RESTORING").exists());
}

#[test]
fn a_backup_is_not_replaced_by_that_of_another_store_or_another_state() {
    let (folder, site) = (with_events(3), tempfile::tempdir().unwrap());
    fs::write(folder.path().join(AUDIT_KEY), "a key").unwrap();
    let to = site.path().join("backup");
    copy(folder.path(), &to).unwrap();
    // A copy that went a way of its own, and one that is of before.
    let (fork, early) = (site.path().join("fork"), site.path().join("early"));
    copied(folder.path(), &fork);
    copied(folder.path(), &early);
    add(folder.path(), 4..=6);
    copy(folder.path(), &to).unwrap();
    add(&fork, 7..=9);
    let empty = site.path().join("empty");
    other_store(&empty);
    let before = contents(&to);
    for other in [&empty, &fork, &early] {
        let error = copy(other, &to).unwrap_err();
        assert!(matches!(error, Error::OtherBackup { .. }), "{error}");
        assert_eq!(contents(&to), before);
    }
    add(folder.path(), 7..=7);
    assert_eq!(copy(folder.path(), &to).unwrap().copied, 0);
}

#[test]
fn a_backup_goes_on_when_the_log_was_shortened_meanwhile() {
    let (folder, site) = (with_events(3), tempfile::tempdir().unwrap());
    let (to, restored) = (site.path().join("backup"), site.path().join("restored"));
    for round in 0..3 {
        copy(folder.path(), &to).unwrap();
        // The one after the last that the backup has, and a later one.
        add(folder.path(), 4..=3 + round);
        let store = Store::open(folder.path()).unwrap();
        let (next, before) = {
            let mut log = store.log();
            log.rotate().unwrap();
            (log.next(), log.mark())
        };
        let going_on = AtomicBool::new(false);
        assert!(shorten(folder.path(), &store.index, next, before, None, &going_on).unwrap());
    }
    copy(folder.path(), &to).unwrap();
    put_back(&to, &restored).unwrap();
    assert_eq!(count(&restored), 5);
}

#[test]
fn a_rotten_object_of_a_backup_is_copied_again() {
    let (folder, site) = (with_events(1), tempfile::tempdir().unwrap());
    let (to, restored) = (site.path().join("backup"), site.path().join("restored"));
    copy(folder.path(), &to).unwrap();
    let object = ObjectStore::list_in(&to.join("objects")).unwrap().remove(0);
    let mut bytes = fs::read(&object.path).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(&object.path).unwrap();
    fs::write(&object.path, bytes).unwrap();
    let place = format!("objects/{}", object.digest);
    assert!(problems(&to).contains(&place));
    assert_eq!(copy(folder.path(), &to).unwrap().copied, 1);
    assert!(!problems(&to).contains(&place));
    assert!(!to.join("records").exists() && !to.join("records.verify").exists());
    put_back(&to, &restored).unwrap();
}

#[test]
fn a_log_without_its_checkpoint_is_not_backed_up_and_can_be_made_again() {
    let (folder, site) = (with_events(3), tempfile::tempdir().unwrap());
    rebuild(folder.path(), From::Index, |_| ()).unwrap();
    add(folder.path(), 4..=5);
    let files = Files::list(&folder.path().join("log")).unwrap();
    fs::remove_file(files.checkpoint.unwrap().1).unwrap();
    // Its index has it all.
    assert_eq!(count(folder.path()), 5);
    assert!(problems(folder.path()).iter().any(|it| it == "log"));
    let error = copy(folder.path(), &site.path().join("backup")).unwrap_err();
    assert!(error.to_string().contains("--from index"), "{error}");
    rebuild(folder.path(), From::Index, |_| ()).unwrap();
    copy(folder.path(), &site.path().join("backup")).unwrap();
}

#[test]
fn an_index_is_not_taken_for_that_of_another_log() {
    let folder = with_events(3);
    let fork = tempfile::tempdir().unwrap();
    copied(folder.path(), fork.path());
    add(folder.path(), 4..=6);
    add(fork.path(), 7..=10);
    let log = folder.path().join("log");
    fs::remove_dir_all(&log).unwrap();
    copied(&fork.path().join("log"), &log);
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::OtherLog { .. }), "{error}");
    let made = rebuild(folder.path(), From::Log, |_| ()).unwrap();
    assert!(made.kept.unwrap().join("db").exists());
    assert_eq!(count(folder.path()), 7);
}

#[test]
fn a_log_that_begins_with_a_checkpoint_has_an_index_of_its_own_too() {
    let folder = with_events(3);
    rebuild(folder.path(), From::Index, |_| ()).unwrap();
    let fork = tempfile::tempdir().unwrap();
    copied(folder.path(), fork.path());
    assert_eq!(count(folder.path()), 3);
    // Another log of as many batches, whose last is another.
    let other = with_events(2);
    add(other.path(), 9..=9);
    rebuild(other.path(), From::Index, |_| ()).unwrap();
    let log = folder.path().join("log");
    fs::remove_dir_all(&log).unwrap();
    copied(&other.path().join("log"), &log);
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::OtherLog { .. }), "{error}");
}

#[test]
fn nobody_works_in_a_backup() {
    let (folder, site) = (with_events(3), tempfile::tempdir().unwrap());
    let to = site.path().join("backup");
    copy(folder.path(), &to).unwrap();
    let before = contents(&to);
    let refused = [
        Store::open(&to).map(drop),
        rebuild(&to, From::Log, |_| ()).map(drop),
        rebuild(&to, From::Index, |_| ()).map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::IsBackup { .. }), "{error}");
    }
    assert_eq!(contents(&to), before);
    // A backup of a backup is one.
    copy(&to, &site.path().join("second")).unwrap();
}

#[test]
fn a_backup_that_was_ended_the_first_time_goes_on() {
    let (folder, site) = (with_events(3), tempfile::tempdir().unwrap());
    let (to, restored) = (site.path().join("backup"), site.path().join("restored"));
    copy(folder.path(), &to).unwrap();
    for missing in ["FORMAT", "log"] {
        let path = to.join(missing);
        match path.is_dir() {
            true => fs::rename(&path, to.join("log.new")).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
        assert!(put_back(&to, &restored).is_err());
    }
    copy(folder.path(), &to).unwrap();
    put_back(&to, &restored).unwrap();
    assert_eq!(count(&restored), 3);
}

#[test]
fn texts_of_digits_cost_a_collection_nothing() {
    let digits = b"0123456789abcdef".repeat(250_000);
    let mut mentioned = 0;
    super::super::examine::mentions(&digits, &mut |_| mentioned += 1);
    assert_eq!(mentioned, 2);
}

#[test]
fn a_digest_is_found_wherever_a_record_may_have_it() {
    use super::super::examine::{Reach, mentions};
    let digest = Digest::of(b"object");
    for text in [
        format!("@{digest}"),
        // The key of the next field looks like a digit.
        format!("@{digest}2"),
        format!("models/m/edits/{digest}"),
        format!("{{\"digest\":\"{digest}\"}}"),
        format!("digest {digest}, and more"),
    ] {
        let mut found = Vec::new();
        mentions(text.as_bytes(), &mut |reach| found.push(reach));
        assert!(found.contains(&Reach::Mentioned(digest)), "{text}");
    }
}
