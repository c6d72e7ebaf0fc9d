//! A coordinator whose objects are in an S3-compatible bucket: a server process of its own (moto),
//! which `deploy/setup.sh` installs. Where it is missing, nothing is tested and that is said.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // a test owns its clock

#[path = "../common/mod.rs"]
mod common;
mod leaders;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use common::s3::{Proxy, S3, SECRET, python, write_key};
use common::sweep::{import, results, submit, write_facts};
use common::{PATIENCE, Process, Server, Site, ports, wait};
use palimpsest::client::{self, Client};
use palimpsest::objects::{Digest, ObjectStore};
use palimpsest::proto::v1::{ReadObjectRequest, WriteObjectRequest};
use serde_json::Value;
use tonic_types::StatusExt;

const MIB: u64 = 1 << 20;

fn bytes(length: u64) -> Vec<u8> {
    (0..length as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

async fn objects(
    url: &str,
) -> palimpsest::proto::v1::object_service_client::ObjectServiceClient<client::Signed> {
    Client::connect(url).await.unwrap().objects()
}

/// Uploads bytes as a client does, and gives their name.
fn upload(site: &Site, server: &Server, bytes: &[u8]) -> Digest {
    let (digest, path) = (Digest::of(bytes), site.path("source"));
    fs::write(&path, bytes).unwrap();
    runtime().block_on(async {
        let objects = objects(&server.url()).await;
        client::upload(objects, &digest, &path, |_| {})
            .await
            .unwrap();
    });
    digest
}

/// Runs a command that fails, and gives what it said. It takes less than `patience`.
fn refused(site: &Site, args: &[&str], patience: Duration) -> String {
    let mut child = Process::start(
        "a command",
        &mut site.command(args),
        &site.path("refused.log"),
    );
    let status = child.wait(patience);
    let said = child.said();
    assert!(!status.success(), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    said
}

fn serve_refused(site: &Site, patience: Duration) -> String {
    refused(
        site,
        &["serve", "--listen", "127.0.0.1:0", "--store", "store"],
        patience,
    )
}

/// Runs a `store` command that prints JSON.
fn store(site: &Site, args: &[&str]) -> (Value, bool) {
    let args = [&["store"], args, &["--json"]].concat();
    let Output {
        stdout,
        stderr,
        status,
    } = site.command(&args).output().unwrap();
    let json = serde_json::from_slice(&stdout);
    let said = String::from_utf8(stderr).unwrap();
    (json.unwrap_or(Value::String(said)), status.success())
}

fn assert_sound(site: &Site, folder: &str) -> Value {
    let (report, sound) = store(site, &["verify", "--store", folder]);
    assert!(sound, "{report:#}");
    report
}

fn lose_folder(site: &Site) {
    fs::remove_dir_all(site.path("store/objects")).unwrap();
}

/// All files under a folder, with their bytes.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    files.sort_unstable();
    files
}

#[test]
fn a_sweep_is_in_the_bucket_and_is_read_from_there_when_the_folder_is_lost() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    s3.settings(&site, "a/b", s3.address, "");
    write_facts(&site, 4);
    let mut server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let mut worker = site.worker(&server, "one", &["--device", "cpu", "--threads", "1"]);
    let sweep = ["--noise", "0.1", "--samples", "2"];
    let job = submit(&site, &server, &sweep);
    let before = results(&site, &server, &job);
    assert_eq!(before.lines().count(), 12);
    let export = |name: &str, server: &Server| {
        let args = [
            "export",
            name,
            "--ref",
            "v0",
            "--format",
            "safetensors",
            "--server",
            &server.url(),
        ];
        site.run(&args, PATIENCE);
        files(&site.path(name))
    };
    let exported = export("first", &server);
    assert!(!exported.is_empty());

    // What the folder has under a name, the bucket has.
    let kept = s3.list("a/b");
    let here = ObjectStore::list_in(&site.path("store/objects")).unwrap();
    assert!(here.len() >= 3, "{here:?}");
    for object in &here {
        assert_eq!(
            s3.object("a/b", &object.digest).unwrap(),
            fs::read(&object.path).unwrap()
        );
    }
    assert_eq!(kept.len(), here.len());

    server.process.kill();
    worker.kill();
    lose_folder(&site);
    let server = site.serve("127.0.0.1:0");
    let again = site.run(
        &["job", "results", &job, "--json", "--server", &server.url()],
        PATIENCE,
    );
    assert_eq!(again, before);
    assert!(export("second", &server) == exported);
    // A worker that has nothing yet opens the model.
    let _worker = site.worker(&server, "two", &["--device", "cpu", "--threads", "1"]);
    let afresh = submit(&site, &server, &[&sweep[..], &["--no-cache"]].concat());
    assert_eq!(results(&site, &server, &afresh).lines().count(), 12);
    drop(server);

    // A coordinator and a worker inside a command, on the same store.
    lose_folder(&site);
    let inside = ["job", "results", &job, "--json", "--store", "store"];
    assert_eq!(site.run(&inside, PATIENCE), before);
    let generate = [
        "generate",
        "The capital of France is",
        "--max-tokens",
        "2",
        "--store",
        "store",
        "--device",
        "cpu",
        "--threads",
        "1",
    ];
    let said = site.run(&generate, PATIENCE);
    lose_folder(&site);
    assert_eq!(site.run(&generate, PATIENCE), said);
    lose_folder(&site);
    let report = assert_sound(&site, "store");
    assert_eq!(report["bucket"], "s3://pal/a/b");
    assert!(report["objects"].as_u64().unwrap() >= kept.len() as u64);
}

#[test]
fn objects_move_between_folder_and_bucket_and_nothing_is_lost_on_the_way() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let large = upload(&site, &server, &bytes(20 * MIB));
    drop(server);
    let sound = assert_sound(&site, "store");
    assert_eq!(sound["bucket"], Value::Null);

    // Nobody takes a bucket for granted that has nothing yet.
    s3.settings(&site, "moved", s3.address, "");
    let said = serve_refused(&site, PATIENCE);
    assert!(
        said.contains("store push") && said.contains("in its folder only"),
        "{said}"
    );
    let (pushed, done) = store(&site, &["push", "--store", "store"]);
    assert!(done, "{pushed}");
    assert_eq!(pushed["copied"], pushed["objects"]);
    assert_eq!(
        s3.list("moved").len() as u64,
        pushed["objects"].as_u64().unwrap()
    );
    assert_eq!(s3.object("moved", &large).unwrap(), bytes(20 * MIB));
    let (again, done) = store(&site, &["push", "--store", "store"]);
    assert!(done && again["copied"] == 0, "{again}");
    assert_eq!(assert_sound(&site, "store")["objects"], sound["objects"]);

    // Another store does not get the same prefix.
    let other = Site::new();
    s3.settings(&other, "moved", s3.address, "");
    let said = serve_refused(&other, PATIENCE);
    assert!(
        said.contains("another store") && said.contains("prefix"),
        "{said}"
    );

    // A backup is whole though the folder has nothing, and makes the store again.
    lose_folder(&site);
    let (backup, done) = store(&site, &["backup", "copy", "--store", "store"]);
    assert!(done && backup["objects"] == pushed["objects"], "{backup}");
    let owner = s3.ask("GET", "/pal/moved/owner", b"").1;
    let (restored, done) = store(&site, &["restore", "copy", "--store", "restored"]);
    assert!(done, "{restored}");
    assert_eq!(assert_sound(&site, "restored")["bucket"], "s3://pal/moved");
    assert_eq!(s3.ask("GET", "/pal/moved/owner", b"").1, owner);

    // The setting is gone, and the objects are in the bucket.
    let settings = fs::read(site.path("palimpsest.toml")).unwrap();
    fs::remove_file(site.path("palimpsest.toml")).unwrap();
    let said = serve_refused(&site, PATIENCE);
    assert!(
        said.contains("s3://pal/moved") && said.contains("store pull"),
        "{said}"
    );
    let (alone, done) = store(&site, &["restore", "copy", "--store", "alone"]);
    assert!(done, "{alone}");
    assert_eq!(assert_sound(&site, "alone")["bucket"], Value::Null);
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    let (pulled, done) = store(&site, &["pull", "--store", "store"]);
    assert!(done && pulled["copied"] == pulled["objects"], "{pulled}");
    fs::remove_file(site.path("palimpsest.toml")).unwrap();
    assert_eq!(assert_sound(&site, "store")["objects"], sound["objects"]);

    // A bucket that was emptied is named, and what is nowhere.
    s3.settings(&site, "moved", s3.address, "");
    assert!(store(&site, &["push", "--store", "store"]).1);
    lose_folder(&site);
    for digest in s3.list("moved") {
        s3.ask("DELETE", &format!("/pal/moved/objects/{digest}"), b"");
    }
    s3.ask("DELETE", "/pal/moved/owner", b"");
    let said = serve_refused(&site, PATIENCE);
    assert!(said.contains("emptied"), "{said}");
    let (lacking, done) = store(&site, &["push", "--store", "store"]);
    assert!(
        !done
            && lacking
                .to_string()
                .contains("neither in the bucket nor in the folder"),
        "{lacking}"
    );
}

#[test]
fn a_bucket_that_does_not_answer_is_an_error_soon_and_nothing_is_acknowledged() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    let closed = SocketAddr::from(([127, 0, 0, 1], ports::free::<1>()[0]));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [closed, silent.local_addr().unwrap()] {
        s3.settings(&site, "away", address, "timeout = \"500ms\"");
        let said = serve_refused(&site, Duration::from_secs(20));
        assert!(
            said.contains("does not answer") && said.contains("store.endpoint"),
            "{said}"
        );
        assert!(said.contains(&address.to_string()), "{said}");
    }
    // Well after it was up, too.
    let proxy = Proxy::start(s3.address, u64::MAX);
    s3.settings(&site, "away", proxy.address, "timeout = \"500ms\"");
    let server = site.serve("127.0.0.1:0");
    let content = bytes(3000);
    let digest = Digest::of(&content);
    let write = || {
        runtime().block_on(async {
            let message = WriteObjectRequest {
                digest: digest.to_string(),
                size: 3000,
                offset: 0,
                data: content.clone(),
            };
            let mut objects = objects(&server.url()).await;
            let answer = objects.write_object(tokio_stream::iter([message]));
            tokio::time::timeout(PATIENCE, answer).await.unwrap()
        })
    };
    proxy.silent.store(true, Ordering::Relaxed);
    let status = write().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "BUCKET_AWAY");
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    assert!(status.message().contains("store.endpoint"), "{status:?}");
    assert!(
        ObjectStore::list_in(&site.path("store/objects"))
            .unwrap()
            .is_empty()
    );
    // Status says so, in place of sizes that nobody knows.
    let status = || site.run(&["status", "--server", &server.url()], PATIENCE);
    wait("status to say why", PATIENCE, || {
        let said = status();
        (said.contains("\nnot known ") && said.contains("does not answer")).then_some(())
    });
    proxy.silent.store(false, Ordering::Relaxed);
    wait("the bucket to answer again", PATIENCE, || write().ok());
    assert_eq!(s3.object("away", &digest).unwrap(), content);
    wait("status to know", PATIENCE, || {
        let said = status();
        (said.contains(" in 1 object,") && !said.contains("not known")).then_some(())
    });
}

#[test]
fn wrong_bytes_in_the_bucket_are_named_and_neither_served_nor_kept() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    s3.settings(&site, "wrong", s3.address, "");
    let server = site.serve("127.0.0.1:0");
    // One that comes with one answer, and one that comes in parts.
    let digests = [bytes(5000), bytes(20 * MIB)].map(|it| upload(&site, &server, &it));
    drop(server);
    lose_folder(&site);
    for digest in digests {
        let mut wrong = s3.object("wrong", &digest).unwrap();
        *wrong.last_mut().unwrap() ^= 1;
        let path = format!("/pal/wrong/objects/{digest}");
        assert_eq!(s3.ask("PUT", &path, &wrong).0, 200);
    }
    let server = site.serve("127.0.0.1:0");
    for digest in digests {
        let status = runtime().block_on(async {
            let request = ReadObjectRequest {
                digest: digest.to_string(),
                offset: 0,
            };
            objects(&server.url())
                .await
                .read_object(request)
                .await
                .unwrap_err()
        });
        assert_eq!(status.code(), tonic::Code::DataLoss);
        let place = format!("s3://pal/wrong/objects/{digest}");
        assert!(status.message().contains(&place), "{status:?}");
    }
    drop(server);
    assert!(
        ObjectStore::list_in(&site.path("store/objects"))
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        fs::read_dir(site.path("store/objects/tmp"))
            .unwrap()
            .count(),
        0
    );
    let (report, sound) = store(&site, &["verify", "--store", "store"]);
    assert!(!sound && report["problem_count"] == 2, "{report:#}");

    // A copy that the disk damaged is fetched again.
    let content = bytes(7000);
    let server = site.serve("127.0.0.1:0");
    let digest = upload(&site, &server, &content);
    drop(server);
    let name = digest.to_string();
    let path = site.path("store/objects").join(&name[..2]).join(&name[2..]);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"torn").unwrap();
    let (report, sound) = store(&site, &["verify", "--store", "store"]);
    assert!(!sound && report["problem_count"] == 3, "{report:#}");
}

#[test]
fn of_two_who_read_an_object_at_once_one_fetches_it() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    let proxy = Proxy::start(s3.address, 20 * MIB);
    s3.settings(&site, "twice", proxy.address, "");
    let server = site.serve("127.0.0.1:0");
    let size = 24 * MIB;
    let content = bytes(size);
    let digest = upload(&site, &server, &content);
    drop(server);
    lose_folder(&site);
    let server = site.serve("127.0.0.1:0");
    let before = proxy.down.load(Ordering::Relaxed);
    thread::scope(|scope| {
        for name in ["one", "two", "three"] {
            let (url, path) = (server.url(), site.path(name));
            let content = &content;
            scope.spawn(move || {
                runtime().block_on(async {
                    let cache = ObjectStore::open(path).unwrap();
                    let objects = objects(&url).await;
                    client::download(objects, &digest, size, &cache, |_| {})
                        .await
                        .unwrap();
                    assert!(cache.read(&digest).unwrap() == *content);
                });
            });
        }
    });
    let fetched = proxy.down.load(Ordering::Relaxed) - before;
    assert!(
        (size..size + size / 2).contains(&fetched),
        "{fetched} bytes"
    );
}

#[test]
fn the_folder_stays_within_its_bound_and_everything_can_be_read() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    let bound = 5 * MIB;
    s3.settings(&site, "bound", s3.address, "cache_size = \"5MiB\"");
    let folder = site.path("store/objects");
    let within = || {
        let listed = ObjectStore::list_in(&folder).unwrap();
        let taken: u64 = listed.iter().map(|object| object.size).sum();
        assert!(taken <= bound, "{taken} bytes");
    };
    let mut server = site.serve("127.0.0.1:0");
    import(&site, &server);
    within();
    let contents: Vec<_> = (0..6).map(|n| bytes(2 * MIB + n)).collect();
    let mut digests = Vec::new();
    for content in &contents {
        digests.push(upload(&site, &server, content));
        within();
    }
    // Larger than the bound, and in the way of nothing.
    let large = bytes(7 * MIB);
    let large = (upload(&site, &server, &large), large);
    assert!(server.process.said().contains("store.cache_size allows"));
    let read = |server: &Server, digest: Digest, content: &[u8], name: &str| {
        let cache = ObjectStore::open(site.path(name)).unwrap();
        runtime().block_on(async {
            let objects = objects(&server.url()).await;
            let size = content.len() as u64;
            client::download(objects, &digest, size, &cache, |_| {})
                .await
                .unwrap();
        });
        assert!(cache.read(&digest).unwrap() == content);
    };
    for round in ["first", "second"] {
        for (digest, content) in digests.iter().zip(&contents) {
            read(&server, *digest, content, round);
            within();
        }
        // Evicted before the end of the process, or of the round.
        server = {
            drop(server);
            site.serve("127.0.0.1:0")
        };
        within();
    }
    read(&server, large.0, &large.1, "large");
    // It goes for the next that needs the room.
    read(&server, digests[0], &contents[0], "third");
    within();
    // All of a sweep, from a model whose files were evicted.
    write_facts(&site, 4);
    let _worker = site.worker(&server, "one", &["--fake", "1"]);
    let job = submit(&site, &server, &["--noise", "0.1"]);
    assert_eq!(results(&site, &server, &job).lines().count(), 12);
    within();
    drop(server);
    // What nothing reaches, and was evicted, is in the bucket alone, and collected there.
    let gc = |more: &[&str]| store(&site, &[&["gc", "--store", "store"], more].concat()).0;
    assert_eq!(gc(&[])["young"], 7);
    assert_eq!(gc(&["--min-age", "0s"])["removed"], 7);
    assert!(digests.iter().all(|it| s3.object("bound", it).is_none()));
    assert_sound(&site, "store");

    // A model that is larger than the bound is opened by the paths of its files.
    let export = |name: &str| {
        let args = ["export", name, "--ref", "v0", "--format", "safetensors"];
        site.run(&[&args[..], &["--store", "store"]].concat(), PATIENCE);
        files(&site.path(name))
    };
    let exported = export("roomy");
    s3.settings(&site, "bound", s3.address, "cache_size = \"20KiB\"");
    assert!(export("narrow") == exported && !exported.is_empty());

    // To bring all objects home, the bound is not kept.
    let (pulled, done) = store(&site, &["pull", "--store", "store"]);
    assert!(done, "{pulled}");
    let here = ObjectStore::list_in(&folder).unwrap().len() as u64;
    assert_eq!(pulled["objects"], here);
}

#[test]
fn a_coordinator_killed_in_the_middle_of_an_upload_leaves_nothing_and_goes_on() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    let proxy = Proxy::start(s3.address, 6 * MIB);
    s3.settings(&site, "killed", proxy.address, "");
    let content = bytes(40 * MIB);
    let (digest, source) = (Digest::of(&content), site.path("source"));
    fs::write(&source, &content).unwrap();
    let mut server = site.serve("127.0.0.1:0");
    let url = server.url();
    let uploading = thread::spawn(move || {
        runtime().block_on(async {
            let objects = objects(&url).await;
            client::upload(objects, &digest, &source, |_| {}).await
        })
    });
    for round in 1..=2 {
        let passed = proxy.up.load(Ordering::Relaxed);
        wait("parts on their way", PATIENCE, || {
            (proxy.up.load(Ordering::Relaxed) > passed + 9 * MIB).then_some(())
        });
        server.process.kill();
        assert!(s3.object("killed", &digest).is_none(), "round {round}");
        assert!(
            ObjectStore::list_in(&site.path("store/objects"))
                .unwrap()
                .is_empty()
        );
        assert_eq!(s3.unfinished(), 1, "round {round}");
        server = site.serve(&server.address);
    }
    uploading.join().unwrap().unwrap();
    assert!(s3.object("killed", &digest).unwrap() == content);
    // What the killed ones left is cleared away.
    assert_eq!(s3.unfinished(), 0);
    drop(server);
    assert_sound(&site, "store");
}

#[test]
fn a_collection_takes_from_the_folder_and_from_the_bucket_and_is_in_the_audit_log() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    s3.settings(&site, "gc", s3.address, "quota = \"1MiB\"");
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let needed = s3.list("gc");
    let orphans = [bytes(5000), bytes(6000)].map(|it| upload(&site, &server, &it));
    // What is in the bucket counts, whatever the folder has.
    drop(server);
    lose_folder(&site);
    let server = site.serve("127.0.0.1:0");
    let path = site.path("large");
    fs::write(&path, bytes(1_000_000)).unwrap();
    let error = runtime().block_on(async {
        let objects = objects(&server.url()).await;
        let digest = Digest::of(&bytes(1_000_000));
        client::upload(objects, &digest, &path, |_| {})
            .await
            .unwrap_err()
    });
    assert!(error.to_string().contains("store.quota"), "{error}");
    // Found in the bucket, it counts as touched: the second one is here again.
    upload(&site, &server, &bytes(6000));
    drop(server);

    let gc = |more: &[&str]| store(&site, &[&["gc", "--store", "store"], more].concat()).0;
    assert_eq!(gc(&[])["young"], 2);
    assert_eq!(gc(&["--min-age", "0s", "--dry-run"])["removed"], 2);
    let removed = gc(&["--min-age", "0s"]);
    assert_eq!(
        (&removed["removed"], &removed["removed_bytes"]),
        (&2.into(), &11_000.into())
    );
    for digest in orphans {
        assert!(s3.object("gc", &digest).is_none());
    }
    let mut left = s3.list("gc");
    left.sort_unstable();
    let mut expected = needed;
    expected.sort_unstable();
    assert_eq!(left, expected);
    let log = site.run(&["audit", "list", "--json", "--store", "store"], PATIENCE);
    let entries: Vec<Value> = log
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    let entry = entries
        .iter()
        .find(|it| it["action"] == "objects.collect")
        .unwrap();
    let detail = entry["detail"].as_str().unwrap();
    assert!(detail.starts_with("2 objects with 11000 bytes"), "{entry}");
    site.run(&["audit", "verify", "--store", "store"], PATIENCE);
    assert_sound(&site, "store");
}

#[test]
fn credentials_that_are_wrong_or_half_are_named_and_never_told() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    let make = format!(
        "import boto3\n\
         iam = boto3.client('iam', endpoint_url='http://{}', region_name='us-east-1',\n\
         aws_access_key_id='x', aws_secret_access_key='x')\n\
         iam.create_user(UserName='pal')\n\
         iam.put_user_policy(UserName='pal', PolicyName='all', PolicyDocument='{{\"Version\": \"2012-10-17\",\
         \"Statement\": [{{\"Effect\": \"Allow\", \"Action\": \"s3:*\", \"Resource\": \"*\"}}]}}')\n\
         key = iam.create_access_key(UserName='pal')['AccessKey']\n\
         print(key['AccessKeyId'], key['SecretAccessKey'])\n",
        s3.address
    );
    let made = Command::new(python()).args(["-c", &make]).output().unwrap();
    let said = String::from_utf8(made.stdout).unwrap();
    let (id, secret) = said.trim().split_once(' ').expect("a key");
    assert_eq!(s3.ask("POST", "/moto-api/reset-auth", b"0").0, 200);

    // The server checks keys and signatures from here on.
    s3.settings(&site, "keys", s3.address, "");
    let said = serve_refused(&site, PATIENCE);
    assert!(
        said.contains("refuses") && said.contains("store.credentials"),
        "{said}"
    );
    assert!(said.contains("InvalidAccessKeyId"), "{said}");
    write_key(&site, id, SECRET);
    let said = serve_refused(&site, PATIENCE);
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");
    write_key(&site, id, secret);
    let server = site.serve("127.0.0.1:0");
    // In one piece, and in parts.
    let contents = [bytes(100), bytes(20 * MIB)];
    for content in &contents {
        upload(&site, &server, content);
    }
    drop(server);
    lose_folder(&site);
    let server = site.serve("127.0.0.1:0");
    for content in contents {
        let digest = Digest::of(&content);
        runtime().block_on(async {
            let cache = ObjectStore::open(site.path("cache")).unwrap();
            let (objects, size) = (objects(&server.url()).await, content.len() as u64);
            client::download(objects, &digest, size, &cache, |_| {})
                .await
                .unwrap();
        });
    }
    drop(server);

    for (key, named) in [
        (
            format!("aws_secret_access_key = {SECRET}\n"),
            "no aws_access_key_id",
        ),
        (
            "aws_access_key_id = AKIA\n".to_owned(),
            "no aws_secret_access_key",
        ),
        (SECRET.to_owned(), "line 1"),
    ] {
        fs::write(site.path("key"), key).unwrap();
        let said = serve_refused(&site, PATIENCE);
        assert!(
            said.contains(named) && said.contains("store.credentials"),
            "{said}"
        );
    }
    for (settings, named) in [
        ("bucket = \"s3://pal/x\"", "store.credentials"),
        ("credentials = \"key\"", "store.bucket"),
        (
            "bucket = \"pal/x\"\ncredentials = \"key\"",
            "s3://NAME/PREFIX",
        ),
        (
            "bucket = \"s3://pal//x\"\ncredentials = \"key\"",
            "single slashes",
        ),
        (
            "bucket = \"s3://pal\"\ncredentials = \"key\"\ntimeout = \"1ms\"",
            "store.timeout",
        ),
    ] {
        fs::write(
            site.path("palimpsest.toml"),
            format!("[store]\n{settings}\n"),
        )
        .unwrap();
        let said = serve_refused(&site, PATIENCE);
        assert!(said.contains(named), "{said}");
    }
}
