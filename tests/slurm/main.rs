//! The batch scripts of `deploy/slurm` on a real Slurm, which each test starts for itself; skipped
//! with a message where there is none.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;

use common::s3::{ID, S3, SECRET, write_key};
use common::slurm::Slurm;
use common::{LONG, PATIENCE, Site, fixture, wait};

/// Facts of the sweeps, traced in three kinds each.
const FACTS: usize = 80;
const UNITS: u64 = 3 * FACTS as u64;

/// A site with so many facts and a coordinator's settings, and the sweep's results when nothing
/// happens to it: of one command that does everything by itself.
fn site(facts: usize) -> (Site, String) {
    let site = Site::new();
    let settings = "[serve]\nheartbeat_interval = \"100ms\"\nlease_duration = \"1s\"\n";
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    let lines: String = (0..facts)
        .map(|n| {
            let subject = format!("The tower of town {n}");
            let prompt = format!("{subject} stands in the country of");
            serde_json::json!({ "prompt": prompt, "subject": subject }).to_string() + "\n"
        })
        .collect();
    fs::write(site.path("facts.jsonl"), lines).unwrap();
    let llama = fixture("llama");
    let import = [
        "model",
        "import",
        llama.to_str().unwrap(),
        "--name",
        "llama",
    ];
    site.run(&import, PATIENCE);
    let alone = ["trace", "--json", "--threads", "1", "--device", "cpu"];
    let expected = site.run(&[&alone, SETTINGS].concat(), LONG);
    assert_eq!(expected.lines().count(), 3 * facts);
    (site, expected)
}

/// What is asked of the sweep, in flags.
const SETTINGS: &[&str] = &[
    "--facts",
    "facts.jsonl",
    "--noise",
    "0.5",
    "--samples",
    "20",
    "--window",
    "2",
];

fn script(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("deploy/slurm")
        .join(name)
        .to_str()
        .unwrap()
        .to_owned()
}

/// Units of the newest job that are done, asked for with these flags; 0 before there is one, or a
/// coordinator.
fn units_done(site: &Site, flags: &[&str]) -> u64 {
    let out = site
        .command(&[&["job", "list", "--json"], flags].concat())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let job = text
        .lines()
        .next()
        .and_then(|line| serde_json::from_str(line).ok());
    job.map_or(0, |job: serde_json::Value| {
        job["units_done"].as_u64().unwrap_or(0)
    })
}

#[test]
fn workers_that_slurm_cancels_queues_again_and_warns_change_no_byte() {
    let Some(slurm) = Slurm::start() else { return };
    let (site, expected) = site(FACTS);
    let server = site.serve("127.0.0.1:0");
    let url = server.url();
    let sweep = script("sweep.sh");
    let exports = [
        ("PALIMPSEST__CLIENT__SERVER", url.as_str()),
        ("PALIMPSEST_MODEL", fixture("llama").to_str().unwrap()),
        ("PALIMPSEST_FOLDER", "run"),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let exports: Vec<(&str, &str)> = exports.iter().map(|(n, v)| (*n, v.as_str())).collect();

    let worker = script("worker.sh");
    let array = [
        "--array=0-2",
        "--time=10",
        "--output=worker-%a.log",
        &worker,
    ];
    let coordinator = [("PALIMPSEST__WORKER__COORDINATOR", url.as_str())];
    let array = slurm.submit(&site, &coordinator, &array);
    let [cancelled, requeued, warned] = [0, 1, 2].map(|task| format!("{array}_{task}"));
    for task in [&cancelled, &requeued, &warned] {
        slurm.wait_for(task, "JobState", "RUNNING");
    }
    let args = ["--nodes=2", "--time=10", "--output=sweep.log", &sweep];
    let job = slurm.submit(&site, &exports, &[&args, SETTINGS].concat());
    wait("the first units", LONG, || {
        (units_done(&site, &["--server", &url]) > 5).then_some(())
    });

    slurm.tell("scancel", &[&cancelled]);
    slurm.tell("scontrol", &["requeue", &requeued]);
    // As Slurm sends it a minute before the end.
    slurm.tell("scancel", &["--batch", "--signal=TERM", &warned]);
    let done = units_done(&site, &["--server", &url]);
    assert!(done < UNITS, "the sweep was over before it was disturbed");

    slurm.wait_for(&job, "JobState", "COMPLETED");
    assert_eq!(
        fs::read_to_string(site.path("run/results.jsonl")).unwrap(),
        expected
    );

    slurm.wait_for(&cancelled, "JobState", "CANCELLED");
    for task in [&requeued, &warned] {
        slurm.wait_for(task, "JobState", "RUNNING");
        assert_eq!(slurm.field(task, "Restarts"), "1", "{task}");
    }
    let said = fs::read_to_string(site.path("worker-2.log")).unwrap();
    assert!(said.contains("out of time, queued again"), "{said}");
    // The worker knows when Slurm will take it away.
    let ends = slurm.tell(
        "squeue",
        &["--noheader", "--jobs", &warned, "--Format=EndTime"],
    );
    let said = wait("the worker's second start", PATIENCE, || {
        let said = fs::read_to_string(site.path("worker-2.log")).unwrap();
        (said.matches("valid_until=").count() == 2).then_some(said)
    });
    let (_, last) = said.rsplit_once("valid_until=").unwrap();
    let told: jiff::Timestamp = last.split_whitespace().next().unwrap().parse().unwrap();
    let ends: jiff::civil::DateTime = ends.trim().parse().unwrap();
    let ends = ends
        .to_zoned(jiff::tz::TimeZone::system())
        .unwrap()
        .timestamp();
    assert_eq!(told, ends);
}

#[test]
fn a_sweep_with_a_coordinator_of_its_own_goes_on_when_slurm_queues_it_again() {
    let Some(slurm) = Slurm::start() else { return };
    let (site, expected) = site(FACTS);
    let exports = [
        ("PALIMPSEST_MODEL", fixture("llama").to_str().unwrap()),
        ("PALIMPSEST_HEAD", "127.0.0.1"),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let exports: Vec<(&str, &str)> = exports.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let sweep = script("sweep.sh");
    let args = ["--nodes=2", "--time=10", "--output=sweep.log", &sweep];
    let job = slurm.submit(&site, &exports, &[&args, SETTINGS].concat());
    let folder = site.path(&format!("palimpsest-{job}"));
    let url = wait("the coordinator's address", PATIENCE, || {
        let address = fs::read_to_string(folder.join("address")).ok()?;
        Some(format!("https://127.0.0.1:{}", address.rsplit_once(':')?.1))
    });
    let config = folder.join("tls/submitter-root.toml");
    let config = config.to_str().unwrap();
    wait("the first units", LONG, || {
        (units_done(&site, &["--config", config, "--server", &url]) > 5).then_some(())
    });
    slurm.tell("scancel", &["--batch", "--signal=TERM", &job]);

    slurm.wait_for(&job, "JobState", "COMPLETED");
    let said = fs::read_to_string(site.path("sweep.log")).unwrap();
    assert_eq!(slurm.field(&job, "Restarts"), "1", "{said}");
    assert!(said.contains("out of time, queued again"), "{said}");
    assert_eq!(
        fs::read_to_string(folder.join("results.jsonl")).unwrap(),
        expected
    );
    // It is one sweep, not two.
    let accepted: Vec<&str> = said
        .lines()
        .filter(|line| line.ends_with("accepted"))
        .collect();
    assert_eq!(accepted.len(), 2, "{said}");
    assert_eq!(accepted[0], accepted[1], "{said}");
    // Both nodes' workers took their leave before the coordinator went, and nothing is left.
    let left = slurm.tell("squeue", &["--noheader"]);
    assert_eq!(left, "");
}

#[test]
fn a_sweep_whose_log_is_in_a_bucket_goes_on_when_its_first_node_is_lost_with_its_disk() {
    let Some(slurm) = Slurm::start() else { return };
    let Some(s3) = S3::start() else { return };
    let (site, expected) = site(FACTS / 2);
    write_key(&site, ID, SECRET);
    let disk = site.path("disk");
    fs::create_dir(&disk).unwrap();
    let path = |name: &str| site.path(name).to_str().unwrap().to_owned();
    let exports = [
        ("PALIMPSEST_MODEL", path_of(&fixture("llama"))),
        ("PALIMPSEST_HEAD", "127.0.0.1".to_owned()),
        ("PALIMPSEST_FOLDER", path("run")),
        ("PALIMPSEST__STORE__LOG", "bucket".to_owned()),
        ("PALIMPSEST__STORE__BUCKET", "s3://pal/slurm".to_owned()),
        (
            "PALIMPSEST__STORE__ENDPOINT",
            format!("http://{}", s3.address),
        ),
        ("PALIMPSEST__STORE__CREDENTIALS", path("key")),
        ("PALIMPSEST__STORE__TAKEOVER", "1s".to_owned()),
        ("TMPDIR", path_of(&disk)),
    ];
    let exports: Vec<(&str, &str)> = exports.iter().map(|(n, v)| (*n, v.as_str())).collect();
    // One node at a time, so that the second run has to be on another than the first.
    let node = |name: &str, state: &str| {
        let name = format!("NodeName={name}");
        let state = format!("State={state}");
        slurm.tell("scontrol", &["update", &name, &state, "Reason=test"]);
    };
    node("n2", "DRAIN");
    let sweep = script("sweep.sh");
    let args = ["--nodes=1", "--time=10", "--output=sweep.log", &sweep];
    let job = slurm.submit(&site, &exports, &[&args, SETTINGS].concat());
    let address = || fs::read_to_string(site.path("run/address")).ok();
    let first = wait("the coordinator's address", PATIENCE, address);
    let url = format!("https://127.0.0.1:{}", first.rsplit_once(':').unwrap().1);
    let config = path("run/tls/submitter-root.toml");
    wait("the first units", LONG, || {
        (units_done(&site, &["--config", &config, "--server", &url]) > 5).then_some(())
    });
    let copy = disk.join(format!("palimpsest-{job}"));
    assert!(copy.join("log").exists());

    node("n1", "DOWN");
    // It would come back by itself: it is there, and says so.
    node("n1", "DRAIN");
    wait("the coordinator's end", PATIENCE, || {
        let at = first.trim().replace("0.0.0.0", "127.0.0.1");
        std::net::TcpStream::connect(at).is_err().then_some(())
    });
    let _ = fs::remove_dir_all(&disk);
    fs::create_dir(&disk).unwrap();
    assert!(!site.path("run/results.jsonl").exists());
    node("n2", "RESUME");
    slurm.wait_for(&job, "JobState", "COMPLETED");
    let said = fs::read_to_string(site.path("sweep.log")).unwrap();
    assert_eq!(slurm.field(&job, "Restarts"), "1", "{said}");
    assert_eq!(slurm.field(&job, "BatchHost"), "n2", "{said}");
    let results = fs::read_to_string(site.path("run/results.jsonl")).unwrap();
    assert_eq!(results, expected);
    // It is one sweep, and nothing of it stays on a node's disk.
    let accepted: Vec<&str> = said
        .lines()
        .filter(|line| line.ends_with("accepted"))
        .collect();
    assert_eq!(accepted.len(), 2, "{said}");
    assert_eq!(accepted[0], accepted[1], "{said}");
    assert!(!copy.exists(), "{said}");
}

fn path_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
