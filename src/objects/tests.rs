//! The object folder as a whole: what is stored, cut off, gone on with, shared, and evicted.
#![allow(clippy::disallowed_methods)] // a test owns its clock

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::new_file::NewFile;
use super::*;

fn store() -> (tempfile::TempDir, ObjectStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(folder.path().join("objects")).unwrap();
    (folder, store)
}

/// Files in `tmp/` and `partial/`.
fn unfinished(store: &ObjectStore) -> usize {
    ["tmp", "partial"]
        .iter()
        .map(|folder| fs::read_dir(store.root().join(folder)).unwrap().count())
        .sum()
}

#[test]
fn a_folder_that_is_named_like_an_object_is_none() {
    let (_folder, store) = store();
    let digest = store.put(b"Paris").unwrap();
    let other = Digest::of(b"Lyon");
    let name = other.to_string();
    fs::create_dir_all(store.root().join(&name[..2]).join(&name[2..])).unwrap();
    assert_eq!(store.size(&other).unwrap(), None);
    let listed: Vec<Digest> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|it| it.digest)
        .collect();
    assert_eq!(listed, [digest]);
}

#[test]
fn bytes_are_stored_under_their_name_and_read_only() {
    let (_folder, store) = store();
    let digest = store.put(b"Paris").unwrap();
    assert_eq!(digest, Digest::of(b"Paris"));
    assert_eq!(store.size(&digest).unwrap(), Some(5));
    assert_eq!(store.read(&digest).unwrap(), b"Paris");
    let name = digest.to_string();
    let path = store.root().join(&name[..2]).join(&name[2..]);
    assert_eq!(fs::read(&path).unwrap(), b"Paris");
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o444);
    assert_eq!(store.put(b"Paris").unwrap(), digest);
    assert_eq!(unfinished(&store), 0);
}

#[test]
fn a_file_is_stored_as_its_bytes_are() {
    let (folder, store) = store();
    let bytes: Vec<u8> = (0..2 * CHUNK + 17).map(|i| (i % 253) as u8).collect();
    let path = folder.path().join("source");
    fs::write(&path, &bytes).unwrap();
    let digest = Digest::of(&bytes);
    for _ in 0..2 {
        store.put_file(&digest, &path).unwrap();
        assert_eq!(store.read(&digest).unwrap(), bytes);
    }

    let other = Digest::of(b"other");
    let changed = store.put_file(&other, &path);
    assert!(matches!(changed, Err(Error::Changed { .. })), "{changed:?}");
    assert!(!store.contains(&other).unwrap());

    let missing = folder.path().join("missing");
    let message = store.put_file(&other, &missing).unwrap_err().to_string();
    assert!(
        message.contains("missing") && message.contains("No such file"),
        "{message}"
    );
    assert_eq!(unfinished(&store), 0);
}

#[test]
fn a_missing_object_is_named() {
    let (_folder, store) = store();
    let digest = Digest::of(b"nothing");
    assert!(!store.contains(&digest).unwrap());
    assert!(
        store
            .read(&digest)
            .unwrap_err()
            .to_string()
            .contains(&digest.to_string())
    );
    assert!(matches!(
        store.open_object(&digest),
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(store.verify(&digest), Err(Error::NotFound { .. })));
}

#[test]
fn damage_is_found_and_put_repairs_what_changed_size() {
    let (_folder, store) = store();
    let digest = store.put(b"the Eiffel Tower").unwrap();
    store.verify(&digest).unwrap();
    let path = store.path(&digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"the Eiffel Towel").unwrap();
    let message = store.read(&digest).unwrap_err().to_string();
    assert!(
        message.contains("damaged") && message.contains(path.to_str().unwrap()),
        "{message}"
    );
    assert!(matches!(store.verify(&digest), Err(Error::Corrupt { .. })));

    fs::write(&path, b"cut").unwrap();
    store.put(b"the Eiffel Tower").unwrap();
    store.verify(&digest).unwrap();
}

#[test]
fn a_damaged_object_is_not_said_to_be_there_and_is_replaced_by_the_right_bytes() {
    let (_folder, store) = store();
    let bytes = vec![5; 3000];
    let digest = store.put(&bytes).unwrap();
    let path = store.path(&digest);
    let mut rotten = bytes.clone();
    rotten[1000] ^= 1;
    for damaged in [&b""[..], &rotten] {
        assert_eq!(store.durable_size(&digest).unwrap(), Some(3000));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, damaged).unwrap();
        assert_eq!(store.durable_size(&digest).unwrap(), None);
        // Nor to one who opens the store now.
        let opened = ObjectStore::open(store.root()).unwrap();
        assert_eq!(opened.durable_size(&digest).unwrap(), None);
        let mut partial = store.partial(&digest).unwrap();
        partial.append(0, &bytes).unwrap();
        partial.finish().unwrap();
        assert_eq!(store.read(&digest).unwrap(), bytes);
    }
    // Bytes that are put heal it too.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, &rotten).unwrap();
    store.put(&bytes).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_partial_object_survives_its_writer_and_is_gone_on_with() {
    let (_folder, store) = store();
    let bytes = vec![7; 100];
    let digest = Digest::of(&bytes);
    assert_eq!(store.partial_size(&digest).unwrap(), 0);
    let mut partial = store.partial(&digest).unwrap();
    partial.append(0, &bytes[..60]).unwrap();
    drop(partial);

    let store = ObjectStore::open(store.root()).unwrap();
    assert_eq!(store.partial_size(&digest).unwrap(), 60);
    assert!(!store.contains(&digest).unwrap());
    let mut partial = store.partial(&digest).unwrap();
    assert!(matches!(
        partial.append(59, &bytes[..1]),
        Err(Error::Offset { committed: 60, .. })
    ));
    partial.append(60, &bytes[60..]).unwrap();
    partial.finish().unwrap();
    assert_eq!(store.read(&digest).unwrap(), bytes);
    assert_eq!(store.partial_size(&digest).unwrap(), 0);
    assert_eq!(unfinished(&store), 0);
}

#[test]
fn bytes_of_another_name_are_discarded() {
    let (_folder, store) = store();
    let digest = Digest::of(b"right");
    let mut partial = store.partial(&digest).unwrap();
    partial.append(0, b"wrong").unwrap();
    let message = partial.finish().unwrap_err().to_string();
    assert!(message.contains("discarded"), "{message}");
    assert!(
        message.contains(&Digest::of(b"wrong").to_string()),
        "{message}"
    );
    assert!(!store.contains(&digest).unwrap());
    assert_eq!(unfinished(&store), 0);
}

#[test]
fn a_partial_object_has_one_writer_at_a_time() {
    let (_folder, store) = store();
    let digest = Digest::of(b"once");
    let mut first = store.partial(&digest).unwrap();
    assert!(matches!(store.partial(&digest), Err(Error::Busy { .. })));
    first.append(0, b"once").unwrap();
    first.finish().unwrap();
    // The one that comes after begins a file of its own: the finished one is not written.
    let mut second = store.partial(&digest).unwrap();
    assert_eq!(second.size(), 0);
    second.append(0, b"once").unwrap();
    assert_eq!(store.read(&digest).unwrap(), b"once");
    second.finish().unwrap();
    assert_eq!(store.read(&digest).unwrap(), b"once");
}

#[test]
fn many_writers_of_the_same_bytes_all_succeed() {
    let (_folder, store) = store();
    let bytes = vec![3; 300_000];
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| store.put(&bytes).unwrap());
        }
    });
    assert_eq!(store.read(&Digest::of(&bytes)).unwrap(), bytes);
    assert_eq!(unfinished(&store), 0);
}

#[test]
fn opening_sweeps_leftovers_of_dead_writers_only() {
    let (_folder, store) = store();
    fs::write(store.root().join("tmp/999999-0"), b"leftover").unwrap();
    let mut living = NewFile::create(&store).unwrap();
    living.write(b"alive").unwrap();
    ObjectStore::open(store.root()).unwrap();
    assert_eq!(unfinished(&store), 1);
    living.keep(&Digest::of(b"alive")).unwrap();
    assert_eq!(store.read(&Digest::of(b"alive")).unwrap(), b"alive");
}

/// The other process of the next test: this test program again, for that one test.
const OTHER: &str = "PALIMPSEST_TEST_OBJECTS_OTHER";

#[test]
fn two_processes_may_share_a_folder() {
    let bytes = |n: u32| n.to_le_bytes().repeat(1000);
    if let Some(root) = std::env::var_os(OTHER) {
        let store = ObjectStore::open(root).unwrap();
        for n in 0..50 {
            store.put(&bytes(n)).unwrap();
        }
        return;
    }
    let (_folder, store) = store();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["two_processes_may_share_a_folder", "--nocapture"])
        .env(OTHER, store.root())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    for n in 0..50 {
        store.put(&bytes(n)).unwrap();
        // Sweeps while the other writes.
        ObjectStore::open(store.root()).unwrap();
    }
    assert!(other.wait().unwrap().success());
    for n in 0..50 {
        assert_eq!(store.read(&Digest::of(&bytes(n))).unwrap(), bytes(n));
    }
    assert_eq!(unfinished(&store), 0);
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_half_done() {
    let full = Error::io("write", "/data/objects/tmp/1-0")(io::Error::from_raw_os_error(28));
    assert!(matches!(full, Error::NoSpace { .. }));
    let message = full.to_string();
    assert!(
        message.contains("/data/objects/tmp/1-0") && message.contains("free some"),
        "{message}"
    );

    // /dev/full accepts an open and refuses every write with "no space left".
    let (_folder, store) = store();
    let digest = Digest::of(b"1234");
    let mut partial = store.partial(&digest).unwrap();
    partial.append(0, b"12").unwrap();
    let real = std::mem::replace(
        &mut partial.file,
        OpenOptions::new().write(true).open("/dev/full").unwrap(),
    );
    assert!(matches!(
        partial.append(2, b"34"),
        Err(Error::NoSpace { .. })
    ));
    assert_eq!(partial.size(), 2);
    partial.file = real;
    partial.append(2, b"34").unwrap();
    partial.finish().unwrap();
    assert_eq!(store.read(&digest).unwrap(), b"1234");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let message = ObjectStore::open(file.join("objects"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("cannot create") && message.contains("file/objects"),
        "{message}"
    );
}

/// A folder that is a cache of at most so many bytes.
fn cache(root: &Path, bytes: u64) -> ObjectStore {
    let setting = "a.setting";
    ObjectStore::open(root)
        .and_then(|store| store.as_cache(Some(Bound { bytes, setting })))
        .unwrap()
}

/// Says of an object that it was used so many seconds ago.
fn age(store: &ObjectStore, digest: &Digest, seconds: u64) {
    age_file(&store.path(digest), seconds);
}

fn age_file(path: &Path, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    let file = fs::File::open(path).unwrap();
    let times = fs::FileTimes::new().set_accessed(then).set_modified(then);
    file.set_times(times).unwrap();
}

fn here(store: &ObjectStore) -> HashSet<Digest> {
    let listed = ObjectStore::list_in(store.root()).unwrap();
    listed.iter().map(|it| it.digest).collect()
}

#[test]
fn what_was_used_longest_ago_makes_room_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = cache(folder.path(), 4200);
    let put = |n: u8| store.put(&[n; 1000]).unwrap();
    let digests: Vec<Digest> = (0..4).map(put).collect();
    assert_eq!(here(&store).len(), 4);
    for (digest, seconds) in digests.iter().zip([400, 300, 200, 100]) {
        age(&store, digest, seconds);
    }
    // Without a byte read: the file system notes no use.
    store.local(&digests[0]).unwrap();
    store.open_object(&digests[1]).unwrap();
    let last = put(4);
    let left = HashSet::from([digests[0], digests[1], digests[3], last]);
    assert_eq!((here(&store), store.evicted()), (left, 1000));
    age(&store, &digests[1], 90);

    // The order is that of before, and a bound that is smaller than before is kept at once.
    drop(store);
    let store = cache(folder.path(), 2100);
    assert_eq!(here(&store), HashSet::from([digests[0], last]));
    assert!(matches!(
        store.read(&digests[2]),
        Err(Error::NotFound { .. })
    ));
    for n in 10..40 {
        store.put(&[n; 1000]).unwrap();
        assert!(here(&store).len() <= 2);
    }
}

#[test]
fn what_is_used_by_its_path_stays_and_what_is_open_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let (store, other) = (cache(folder.path(), 2100), cache(folder.path(), 2100));
    let pinned = Digest::of(&[0; 1000]);
    // Before it is here, by two.
    let pins = [&store, &other].map(|store| store.pin(&pinned).unwrap());
    store.put(&[0; 1000]).unwrap();
    let opened = store.put(&[1; 1000]).unwrap();
    let mut file = store.open_object(&opened).unwrap();
    for n in 2..8 {
        // Another process, as far as locks can tell.
        other.put(&[n; 1000]).unwrap();
    }
    assert!(here(&store).contains(&pinned) && !here(&store).contains(&opened));
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [1; 1000]);

    let [first, second] = pins;
    drop(first);
    other.put(&[8; 1000]).unwrap();
    assert!(here(&store).contains(&pinned));
    drop(second);
    age(&store, &pinned, 100);
    other.put(&[9; 1000]).unwrap();
    assert!(!here(&store).contains(&pinned));
    let using = fs::read_dir(folder.path().join("using")).unwrap();
    assert_eq!(using.count(), 0);
}

#[test]
fn an_object_larger_than_the_bound_is_kept_until_another_needs_the_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = cache(folder.path(), 2100);
    let (small, large) = (store.put(&[1; 1000]).unwrap(), vec![2; 9000]);
    // Left by a writer that is gone, and being written.
    let mut left = store.partial(&Digest::of(b"left")).unwrap();
    left.append(0, &[3; 100]).unwrap();
    drop(left);
    let digest = Digest::of(&large);
    let mut partial = store.partial(&digest).unwrap();
    for (n, piece) in large.chunks(1000).enumerate() {
        partial.append(1000 * n as u64, piece).unwrap();
    }
    assert!(!store.contains(&small).unwrap());
    assert_eq!(store.partial_size(&Digest::of(b"left")).unwrap(), 0);
    assert_eq!(store.partial_size(&digest).unwrap(), 9000);
    partial.finish().unwrap();
    assert_eq!(store.read(&digest).unwrap(), large);
    let last = store.put(&[4; 1000]).unwrap();
    assert_eq!(here(&store), HashSet::from([last]));
}

#[test]
fn those_who_share_a_cache_are_never_left_without_what_they_use() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let root = folder.path();
            scope.spawn(move || {
                let store = cache(root, 2100);
                for n in 0..300 {
                    let bytes = [(n * (seed + 3) % 5) as u8; 1000];
                    let digest = Digest::of(&bytes);
                    let _pin = store.pin(&digest).unwrap();
                    // As if it were fetched.
                    store.put(&bytes).unwrap();
                    assert_eq!(fs::read(store.path(&digest)).unwrap(), bytes);
                    assert_eq!(store.read(&digest).unwrap(), bytes);
                }
            });
        }
    });
    let store = cache(folder.path(), 2100);
    assert!((1..=2).contains(&here(&store).len()));
}

#[test]
fn eviction_beside_a_bucket_leaves_uploads_and_what_a_collection_goes_by() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "aws_access_key_id = a\naws_secret_access_key = b\n").unwrap();
    // Nobody is there: nothing is asked of it.
    let bucket = Bucket::new(BucketSettings {
        name: "none".to_owned(),
        prefix: String::new(),
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        region: "us-east-1".to_owned(),
        credentials: key,
        ca: None,
        timeout: Duration::from_millis(100),
    })
    .unwrap();
    let root = folder.path().join("objects");
    let store = ObjectStore::open(&root).unwrap();
    let (old, new) = (
        store.put(&[1; 1000]).unwrap(),
        store.put(&[2; 1000]).unwrap(),
    );
    for (digest, seconds) in [(old, 200), (new, 100)] {
        age(&store, &digest, seconds);
    }
    let found = fs::metadata(store.path(&old)).unwrap().modified().unwrap();
    let mut upload = store.partial(&Digest::of(b"upload")).unwrap();
    upload.append(0, &[3; 500]).unwrap();
    drop(upload);
    age_file(&store.partial_path(&Digest::of(b"upload")), 300);
    let bound = Bound {
        bytes: 1600,
        setting: "a.setting",
    };
    let store = store.with_bucket(bucket).unwrap();
    let store = store.as_cache(Some(bound)).unwrap();
    assert_eq!(here(&store), HashSet::from([new]));
    assert_eq!(store.partial_size(&Digest::of(b"upload")).unwrap(), 500);
    let mark = fs::metadata(store.found_path(&old)).unwrap();
    assert_eq!(mark.modified().unwrap(), found);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// However an object is cut, and wherever its writers stop, it arrives whole.
    #[test]
    fn pieces_make_the_object(pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..12)) {
        let (_folder, store) = store();
        let whole: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
        let digest = Digest::of(&whole);
        let mut partial = store.partial(&digest).unwrap();
        for (piece, stop) in &pieces {
            partial.append(partial.size(), piece).unwrap();
            if *stop {
                drop(partial);
                partial = store.partial(&digest).unwrap();
            }
        }
        partial.finish().unwrap();
        prop_assert_eq!(store.read(&digest).unwrap(), whole);
    }
}
