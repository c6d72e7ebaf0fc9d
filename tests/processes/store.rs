//! The store under everything that can befall it: older formats, full and read-only disks,
//! backups while it is in use, collection beside uploads.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::{LONG, PATIENCE, Process, Server, Site, fixture, wait};
use palimpsest::client::{self, Client};
use palimpsest::objects::{Digest, ObjectStore};
use serde_json::Value;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Whether all that `expected` has is in `found`, which may have more.
fn has(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => expected
            .iter()
            .all(|(key, value)| found.get(key).is_some_and(|found| has(found, value))),
        _ => found == expected,
    }
}

fn write_facts(site: &Site, count: usize) {
    let lines: String = (0..count)
        .map(|n| {
            let subject = format!("The tower of town {n}");
            let prompt = format!("{subject} stands in the country of");
            serde_json::json!({ "prompt": prompt, "subject": subject }).to_string() + "\n"
        })
        .collect();
    fs::write(site.path("facts.jsonl"), lines).unwrap();
}

fn import(site: &Site, server: &Server, model: &str) {
    let (model, url) = (fixture(model), server.url());
    let args = [
        "model",
        "import",
        model.to_str().unwrap(),
        "--name",
        "tiny",
        "--server",
        &url,
    ];
    site.run(&args, PATIENCE);
}

fn submit(site: &Site, server: &Server) -> String {
    let url = server.url();
    let args = [
        "trace",
        "--facts",
        "facts.jsonl",
        "--noise",
        "0.1",
        "--samples",
        "2",
        "--detach",
        "--server",
        &url,
    ];
    site.run(&args, PATIENCE).trim().to_owned()
}

fn results(site: &Site, server: &Server, job: &str) -> String {
    let url = server.url();
    site.run(&["job", "watch", job, "--server", &url], LONG);
    site.run(
        &["job", "results", job, "--json", "--server", &url],
        PATIENCE,
    )
}

fn units_done(site: &Site, server: &Server) -> u64 {
    let out = site.run(
        &["job", "list", "--json", "--server", &server.url()],
        PATIENCE,
    );
    lines(&out)[0]["units_done"].as_u64().unwrap()
}

/// Runs a `store` command that prints JSON, and gives that and whether it succeeded.
fn store(site: &Site, args: &[&str]) -> (Value, bool) {
    let args = [&["store"], args, &["--json"]].concat();
    let out = site.command(&args).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    let json = String::from_utf8(out.stdout).unwrap();
    let value = serde_json::from_str(json.trim()).unwrap_or_else(|_| Value::String(said));
    (value, out.status.success())
}

fn assert_sound(site: &Site, folder: &str) -> Value {
    let (report, sound) = store(site, &["verify", "--store", folder]);
    assert!(sound, "{report:#}");
    report
}

#[test]
fn a_store_of_format_1_is_read_whole() {
    let site = Site::new();
    let fixture = fixture("store-format-1");
    let zip = fs::File::open(fixture.join("store.zip")).unwrap();
    let mut zip = zip::ZipArchive::new(zip).unwrap();
    zip.extract(site.path("store")).unwrap();

    let (refused, sound) = store(&site, &["verify", "--store", "store"]);
    assert!(
        !sound && refused.to_string().contains("format 1"),
        "{refused}"
    );
    let list = ["job", "list", "--json", "--store", "store"];
    // Twice: as it was, and with the log that the first opening wrote.
    for _ in 0..2 {
        let mut expected = lines(&fs::read_to_string(fixture.join("jobs.jsonl")).unwrap());
        for job in &mut expected {
            // Printed in the zone of whoever reads it.
            job.as_object_mut().unwrap().remove("create_time");
        }
        let found = lines(&site.run(&list, PATIENCE));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!(has(found, expected), "{found:#} is not {expected:#}");
        }
        let mut read = 0;
        for job in &expected {
            let id = job["name"].as_str().unwrap().trim_start_matches("jobs/");
            let Ok(expected) = fs::read_to_string(fixture.join(format!("{id}.jsonl"))) else {
                continue;
            };
            let args = ["job", "results", id, "--json", "--store", "store"];
            let found = lines(&site.run(&args, PATIENCE));
            let expected = lines(&expected);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!(has(found, expected), "{found:#} is not {expected:#}");
                read += 1;
            }
        }
        assert_eq!(read, 13);
    }
    assert_eq!(
        fs::read_to_string(site.path("store/FORMAT")).unwrap(),
        "2\n"
    );
    let report = assert_sound(&site, "store");
    assert_eq!(report["records"]["jobs"], 5);
    assert_eq!(report["records"]["results"], 15);
}

#[test]
fn a_store_whose_coordinator_was_killed_is_sound_and_each_damage_is_named() {
    let site = Site::new();
    write_facts(&site, 40);
    let mut server = site.serve("127.0.0.1:0");
    import(&site, &server, "gemma2");
    let _worker = site.worker(&server, "one", &["--fake", "10"]);
    submit(&site, &server);
    wait("the first units", PATIENCE, || {
        (units_done(&site, &server) > 5).then_some(())
    });
    let (busy, _) = store(&site, &["verify", "--store", "store"]);
    assert!(
        busy.to_string().contains("in use by another process"),
        "{busy}"
    );
    server.process.kill();
    let report = assert_sound(&site, "store");
    assert!(report["records"]["results"].as_u64().unwrap() > 5);

    let object = object_files(&site.path("store")).pop().unwrap();
    let bytes = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    let (report, sound) = store(&site, &["verify", "--store", "store"]);
    assert!(
        !sound && report.to_string().contains("it is missing"),
        "{report:#}"
    );
    fs::write(&object, &bytes[1..]).unwrap();
    let (report, sound) = store(&site, &["verify", "--store", "store"]);
    assert!(
        !sound && report.to_string().contains("is damaged"),
        "{report:#}"
    );
    fs::write(&object, &bytes).unwrap();

    // The index is lost: made again, as the log has it.
    fs::write(site.path("store/records/db"), b"no database").unwrap();
    let (_, rebuilt) = store(&site, &["rebuild", "--store", "store"]);
    assert!(rebuilt);
    assert_sound(&site, "store");
    let (nothing, _) = store(&site, &["verify", "--store", "elsewhere"]);
    assert!(
        nothing.to_string().contains("there is no store in"),
        "{nothing}"
    );
    assert!(!site.path("elsewhere").exists());
}

/// The files of all objects.
fn object_files(store: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for shard in fs::read_dir(store.join("objects")).unwrap() {
        let shard = shard.unwrap().path();
        if shard.file_name().unwrap().len() == 2 {
            files.extend(
                fs::read_dir(shard)
                    .unwrap()
                    .map(|file| file.unwrap().path()),
            );
        }
    }
    files
}

#[test]
fn a_backup_taken_while_a_sweep_runs_goes_on_to_the_same_bytes() {
    let site = Site::new();
    let settings = "[serve]\nheartbeat_interval = \"100ms\"\nlease_duration = \"1s\"\n";
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    write_facts(&site, 60);
    let server = site.serve("127.0.0.1:0");
    import(&site, &server, "gemma2");
    // So slow that the sweep goes on while the backup is made, however busy the machine is.
    let mut slow = site.worker(&server, "slow", &["--fake", "300"]);
    let job = submit(&site, &server);
    wait("the first units", PATIENCE, || {
        (units_done(&site, &server) > 5).then_some(())
    });
    let before = units_done(&site, &server);
    let (made, done) = store(&site, &["backup", "backup", "--store", "store"]);
    assert!(done, "{made}");
    slow.kill();
    let _quick = site.worker(&server, "quick", &["--fake", "1"]);
    let expected = results(&site, &server, &job);
    // Once more, into the same folder: objects that are there are not copied again.
    let (again, done) = store(&site, &["backup", "backup-2", "--store", "store"]);
    assert!(done, "{again}");
    let (again, done) = store(&site, &["backup", "backup-2", "--store", "store"]);
    assert!(done && again["copied"] == 0, "{again}");
    drop(server);

    let other = Site::new();
    let backup = site.path("backup");
    let args = ["restore", backup.to_str().unwrap(), "--store", "store"];
    let (restored, done) = store(&other, &args);
    assert!(done, "{restored}");
    assert_sound(&other, "store");
    let server = other.serve("127.0.0.1:0");
    let kept = units_done(&other, &server);
    assert!(
        (before..180).contains(&kept),
        "{before} were acknowledged, {kept} restored"
    );
    let _worker = other.worker(&server, "two", &["--fake", "1"]);
    assert_eq!(results(&other, &server, &job), expected);
    write_facts(&other, 1);
    // It takes new work, which its audit log must take an entry of, and signs as the first did.
    submit(&other, &server);
    let url = server.url();
    other.run(&["audit", "verify", "--server", &url], PATIENCE);
    let key = |site: &Site| fs::read(site.path("store/audit.key")).unwrap();
    assert_eq!(key(&other), key(&site));
    let mode = fs::metadata(other.path("store/audit.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_backup_that_was_killed_at_its_end_is_the_earlier_one() {
    let site = Site::new();
    let list = ["job", "list", "--store", "store"];
    site.run(&list, PATIENCE);
    let (made, done) = store(&site, &["backup", "backup", "--store", "store"]);
    assert!(done, "{made}");
    fs::rename(site.path("backup/log"), site.path("backup/log.old")).unwrap();
    let (restored, done) = store(&site, &["restore", "backup", "--store", "first"]);
    assert!(done && restored["next"] == made["next"], "{restored}");
    let (again, done) = store(&site, &["backup", "backup", "--store", "store"]);
    assert!(done && site.path("backup/log").is_dir(), "{again}");
    // Without any log it is no backup, and no empty store is made of it.
    fs::remove_dir_all(site.path("backup/log")).unwrap();
    let (refused, done) = store(&site, &["restore", "backup", "--store", "second"]);
    assert!(
        !done && refused.to_string().contains("there is no store in"),
        "{refused}"
    );
    assert!(!site.path("second/FORMAT").exists());
}

#[test]
fn collection_beside_a_coordinator_keeps_what_is_reached_or_young() {
    let site = Site::new();
    let mut server = site.serve("127.0.0.1:0");
    import(&site, &server, "gemma2");
    let url = server.url();
    let gc = |more: &[&str]| store(&site, &[&["gc", "--server", &url], more].concat());
    let (kept, done) = gc(&[]);
    assert!(done && kept["removed"] == 0, "{kept}");
    let reached = kept["reached"].as_u64().unwrap();
    assert!(reached > 0);
    let (refused, done) = gc(&["--min-age", "1min"]);
    assert!(
        !done && refused.to_string().contains("at least 10 minutes"),
        "{refused}"
    );

    // An object that nothing names, and that nobody touched for a day.
    let store_objects = ObjectStore::open(site.path("store/objects")).unwrap();
    let orphan = store_objects.put(b"nobody's").unwrap();
    let (young, _) = gc(&[]);
    assert_eq!((&young["young"], &young["removed"]), (&1.into(), &0.into()));
    let file = fs::File::open(store_objects.path(&orphan)).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH;
    file.set_times(fs::FileTimes::new().set_modified(old))
        .unwrap();
    let (counted, _) = gc(&["--dry-run"]);
    assert_eq!(counted["removed"], 1);
    assert!(store_objects.contains(&orphan).unwrap());
    let (removed, _) = gc(&[]);
    assert_eq!(
        (&removed["removed"], &removed["removed_bytes"]),
        (&1.into(), &8.into())
    );
    assert!(!store_objects.contains(&orphan).unwrap());
    // Nothing goes without an entry that names who had it removed (I12).
    let audited = site.run(&["audit", "list", "--json", "--server", &url], PATIENCE);
    let audited = lines(&audited);
    let by = |action: &str| {
        let entry = audited.iter().find(|entry| entry["action"] == action);
        entry.map(|entry| entry["principal"].clone())
    };
    assert!(by("objects.collect").is_some(), "{audited:?}");
    assert_eq!(by("objects.collect"), by("models.create"));
    server.process.kill();
    let report = assert_sound(&site, "store");
    assert_eq!(report["orphans"], 0);
    assert_eq!(report["objects"].as_u64().unwrap(), reached);
}

#[test]
fn an_upload_over_the_quota_is_refused_with_what_to_do() {
    let site = Site::new();
    fs::write(site.path("palimpsest.toml"), "[store]\nquota = \"20KiB\"\n").unwrap();
    let server = site.serve("127.0.0.1:0");
    let (model, url) = (fixture("gemma2"), server.url());
    let args = ["model", "import", model.to_str().unwrap(), "--server", &url];
    let out = site.command(&args).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success());
    assert!(said.contains("of the 20480 bytes"), "{said}");
    assert!(
        said.contains("palimpsest store gc") && said.contains("store.quota"),
        "{said}"
    );
}

#[test]
fn an_object_arrives_both_ways_though_the_coordinator_is_killed_in_the_middle() {
    let site = Site::new();
    let bytes: Vec<u8> = (0..96_u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (source, digest) = (site.path("source"), Digest::of(&bytes));
    fs::write(&source, &bytes).unwrap();
    let mut server = site.serve("127.0.0.1:0");
    let url = server.url();
    let cache = ObjectStore::open(site.path("cache")).unwrap();
    for download in [false, true] {
        // Told once, when a good part has come; then the least that a later attempt begins with.
        let (came, part) = std::sync::mpsc::channel();
        let (killed, least) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
        let progress = |done: u64| {
            if killed.load(Ordering::SeqCst) {
                least.fetch_min(done, Ordering::SeqCst);
            } else if done > 16 << 20 {
                // The receiver goes after the first.
                let _ = came.send(());
            }
        };
        let transfer = || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let objects = Client::connect(&url).await.unwrap().objects();
                let size = bytes.len() as u64;
                if download {
                    client::download(objects, &digest, size, &cache, progress).await
                } else {
                    client::upload(objects, &digest, &source, progress).await
                }
            })
        };
        std::thread::scope(|scope| {
            let done = scope.spawn(transfer);
            part.recv_timeout(PATIENCE).unwrap();
            server.process.kill();
            killed.store(true, Ordering::SeqCst);
            server = site.serve(&server.address);
            done.join().unwrap().unwrap();
        });
        let least = least.load(Ordering::SeqCst);
        assert!(
            least > 1 << 20,
            "went on from {least}, download: {download}"
        );
    }
    cache.verify(&digest).unwrap();
    drop(server);
    let stored = ObjectStore::open(site.path("store/objects")).unwrap();
    stored.verify(&digest).unwrap();
}

/// A mount namespace with a small disk in the site's folder `store`; none where the system does
/// not let this user make one. It goes with its process.
struct SmallDisk {
    holder: Process,
}

impl SmallDisk {
    fn new(site: &Site) -> Option<Self> {
        fs::create_dir(site.path("store")).unwrap();
        let script = format!(
            "mount -t tmpfs -o size=48m none {} && touch {} && exec sleep 600",
            site.path("store").display(),
            site.path("mounted").display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let mut holder = Process::start("small disk", &mut command, &site.path("disk.log"));
        let mounted = wait("the small disk", PATIENCE, || {
            let mounted = site.path("mounted").exists();
            (mounted || holder.ended().is_some()).then_some(mounted)
        });
        if !mounted {
            println!("skipped: no disk can be mounted here: {}", holder.said());
            return None;
        }
        Some(Self { holder })
    }

    /// A command inside it. The folder is entered there: one that was entered outside goes on
    /// showing what is outside.
    fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside
            .args(["--mount", &format!("--target={}", self.holder.id())])
            .args(["--", "sh", "-c", "cd \"$0\" && exec \"$@\""])
            .arg(command.get_current_dir().unwrap())
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    fn run(&self, site: &Site, script: &str) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(site.path(""));
        assert!(
            self.inside(&command).status().unwrap().success(),
            "{script}"
        );
    }
}

#[test]
fn a_full_disk_stops_the_coordinator_and_one_with_room_goes_on() {
    let site = Site::new();
    let Some(disk) = SmallDisk::new(&site) else {
        return;
    };
    write_facts(&site, 300);
    let serve = |listen: &str| {
        let _ = fs::remove_file(site.path("address"));
        let args = [
            "serve",
            "--listen",
            listen,
            "--store",
            "store",
            "--port-file",
            "address",
        ];
        let mut process = Process::start(
            "serve",
            &mut disk.inside(&site.command(&args)),
            &site.path("serve.log"),
        );
        let address = wait("the address", PATIENCE, || {
            assert!(process.ended().is_none(), "{}", process.said());
            fs::read_to_string(site.path("address")).ok()
        });
        Server { process, address }
    };
    let mut server = serve("127.0.0.1:0");
    import(&site, &server, "gemma2");
    let _worker = site.worker(&server, "one", &["--fake", "2"]);
    let job = submit(&site, &server);
    wait("the first units", PATIENCE, || {
        (units_done(&site, &server) > 5).then_some(())
    });
    let acknowledged = units_done(&site, &server);
    // All that is left of the disk's 48 MiB: never more, should it be another disk.
    let fill = "mountpoint -q store && dd if=/dev/zero of=store/ballast bs=4k count=12288; true";
    disk.run(&site, fill);
    let status = server.process.wait(PATIENCE);
    let said = server.process.said();
    assert!(!status.success(), "{said}");
    assert!(
        said.contains("no space is left") && said.contains("free some"),
        "{said}"
    );
    assert!(!said.contains("panicked"), "{said}");

    disk.run(&site, "rm store/ballast");
    let mut server = serve(&server.address);
    assert!(units_done(&site, &server) >= acknowledged);
    let expected = results(&site, &server, &job);
    assert_eq!(expected.lines().count(), 900);
    server.process.kill();
    let verify = ["store", "verify", "--store", "store"];
    let sound = disk.inside(&site.command(&verify)).output().unwrap();
    assert!(sound.status.success(), "{sound:?}");
}

#[test]
fn a_read_only_disk_is_said_and_left_alone() {
    let site = Site::new();
    let Some(disk) = SmallDisk::new(&site) else {
        return;
    };
    let list = ["job", "list", "--store", "store"];
    let made = disk.inside(&site.command(&list)).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    disk.run(&site, "mount -o remount,ro none store");
    let refused = disk.inside(&site.command(&list)).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success());
    assert!(said.contains("has to be writable"), "{said}");
    // Which a backup does not need.
    let backup = ["store", "backup", "backup", "--store", "store"];
    let made = disk.inside(&site.command(&backup)).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    site.run(&["store", "verify", "--store", "backup"], PATIENCE);
    site.run(
        &["store", "restore", "backup", "--store", "restored"],
        PATIENCE,
    );
}

/// With the real engine: what the pretended one makes up answers for nothing.
#[cfg(feature = "torch")]
#[test]
fn a_second_identical_sweep_is_answered_from_the_store_without_a_worker() {
    let site = Site::new();
    write_facts(&site, 4);
    let mut server = site.serve("127.0.0.1:0");
    import(&site, &server, "gemma2");
    let url = server.url();
    let sweep = |more: &[&str]| {
        let args = [
            "trace",
            "--facts",
            "facts.jsonl",
            "--noise",
            "s3",
            "--samples",
            "2",
            "--window",
            "2",
            "--json",
            "--server",
            &url,
        ];
        site.command(&[&args, more].concat()).output().unwrap()
    };
    let engine = ["--device", "cpu", "--threads", "1"];
    let mut worker = site.worker(&server, "one", &engine);
    let first = sweep(&[]);
    assert!(first.status.success(), "{first:?}");
    worker.kill();
    server.process.kill();
    let server = site.serve(&server.address);

    let second = sweep(&[]);
    assert!(second.status.success(), "{second:?}");
    assert_eq!(second.stdout, first.stdout);
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(
        said.contains("12 of 12 grids were answered from the store"),
        "{said}"
    );
    let show = site.run(&["job", "show", "latest", "--server", &url], PATIENCE);
    assert!(show.contains("12 answered from the store"), "{show}");
    // Some of it, as other units of another job.
    let part = sweep(&["--kinds", "mlp"]);
    let said = String::from_utf8(part.stderr).unwrap();
    assert!(said.contains("4 of 4 grids"), "{said}");
    let mlp: Vec<Value> = lines(&String::from_utf8(first.stdout.clone()).unwrap())
        .into_iter()
        .filter(|grid| grid["kind"] == "mlp")
        .collect();
    for (found, expected) in lines(&String::from_utf8(part.stdout).unwrap())
        .iter_mut()
        .zip(mlp)
    {
        found["unit"] = expected["unit"].clone();
        assert_eq!(*found, expected);
    }

    let afresh = ["--no-cache", "--detach"];
    assert!(sweep(&afresh).status.success());
    assert_eq!(units_done(&site, &server), 0);
    drop(server);
    let report = assert_sound(&site, "store");
    // 12 grids, their scale, and those again; 4 grids with the scale.
    assert_eq!(report["records"]["results"], 13 + 13 + 5);
    assert_eq!(report["records"]["cached units"], 13);
}
