//! The batch scripts of `deploy/slurm` on a real Slurm: munge, a controller and two nodes, started
//! on this machine by each test for itself and stopped with it.
//!
//! Needs Debian's `slurm-wlm` and `munge` (`deploy/setup.sh --slurm`) and root, because the nodes
//! start jobs as other users; skipped with a message without them.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{PATIENCE, Process, Site, fixture, wait};

/// Long enough for a sweep, and for Slurm to start again what it queued again.
const SWEEP: Duration = Duration::from_secs(300);
/// Facts of the sweeps, traced in three kinds each.
const FACTS: usize = 80;
const UNITS: u64 = 3 * FACTS as u64;

/// A Slurm of this test's own.
struct Slurm {
    folder: tempfile::TempDir,
    daemons: Vec<Process>,
}

impl Slurm {
    /// Starts it; none where it cannot be had, with the reason on standard error.
    fn start() -> Option<Self> {
        for program in ["munged", "slurmctld", "slurmd"] {
            if !Path::new("/usr/sbin").join(program).exists() {
                eprintln!("skipped: no {program}: run deploy/setup.sh --slurm");
                return None;
            }
        }
        // SAFETY of the test, not of memory: who owns this process is in its status file.
        let status = fs::read_to_string("/proc/self/status").unwrap();
        if !status.lines().any(|line| line.starts_with("Uid:\t0\t0")) {
            eprintln!("skipped: Slurm's nodes need root to start jobs");
            return None;
        }
        let mut slurm = Self {
            folder: tempfile::tempdir().unwrap(),
            daemons: Vec::new(),
        };
        // munge wants a folder that everyone may pass through.
        fs::set_permissions(slurm.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        slurm.configure();
        let path = |name: &str| slurm.path(name).to_str().unwrap().to_owned();
        let munge = [
            "--foreground".to_owned(),
            format!("--socket={}", path("munge.socket")),
            format!("--key-file={}", path("munge.key")),
            format!("--seed-file={}", path("munge.seed")),
            format!("--pid-file={}", path("munge.pid")),
        ];
        let munge: Vec<&str> = munge.iter().map(String::as_str).collect();
        slurm.daemon("munged", "/usr/sbin/munged", &munge);
        let socket = slurm.path("munge.socket");
        wait("munge's socket", PATIENCE, || socket.exists().then_some(()));
        slurm.daemon("slurmctld", "/usr/sbin/slurmctld", &["-D"]);
        for node in ["n1", "n2"] {
            slurm.daemon(node, "/usr/sbin/slurmd", &["-D", "-N", node]);
        }
        wait("two idle nodes", PATIENCE, || {
            let nodes = slurm
                .ask("sinfo", &["--noheader", "--Node", "--format=%N %t"])
                .ok()?;
            (nodes == "n1 idle\nn2 idle\n").then_some(())
        });
        Some(slurm)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self) {
        // All three at once, so that they differ.
        let ports = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [controller, n1, n2] = ports.map(|port| port.local_addr().unwrap().port());
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let host = host.trim().split('.').next().unwrap();
        let folder = self.folder.path().display();
        // Nodes with more processors than this machine may have; credentials that expire soon,
        // because a job that was queued again waits for that.
        let settings = format!(
            "ClusterName=palimpsest\n\
             SlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={controller}\n\
             SlurmUser=root\nSlurmdUser=root\n\
             AuthType=auth/munge\nCredType=cred/munge\n\
             AuthInfo=socket={folder}/munge.socket,cred_expire=5\n\
             StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool-%n\n\
             SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd-%n.pid\n\
             PlugStackConfig={folder}/plugstack.conf\n\
             SlurmdParameters=config_overrides\n\
             ProctrackType=proctrack/pgid\nTaskPlugin=task/none\n\
             JobAcctGatherType=jobacct_gather/none\nMpiDefault=none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\n\
             SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1\n\
             ReturnToService=2\nKillWait=20\nMailProg=/bin/true\n\
             NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=8\n\
             NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=8\n\
             PartitionName=all Nodes=n1,n2 Default=YES State=UP\n"
        );
        fs::write(self.path("slurm.conf"), settings).unwrap();
        fs::write(self.path("plugstack.conf"), "").unwrap();
        for name in ["state", "spool-n1", "spool-n2"] {
            fs::create_dir(self.path(name)).unwrap();
        }
        let mut key = [0; 1024];
        let mut random = fs::File::open("/dev/urandom").unwrap();
        random.read_exact(&mut key).unwrap();
        fs::write(self.path("munge.key"), key).unwrap();
        fs::set_permissions(self.path("munge.key"), fs::Permissions::from_mode(0o400)).unwrap();
    }

    fn daemon(&mut self, name: &str, program: &str, args: &[&str]) {
        let log = self.path(&format!("{name}.log"));
        let mut command = Command::new(program);
        command
            .env("SLURM_CONF", self.path("slurm.conf"))
            .args(args);
        self.daemons.push(Process::start(name, &mut command, &log));
    }

    /// What one of Slurm's commands says; what it complains of when it fails.
    fn ask(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let out = Command::new(program)
            .env("SLURM_CONF", self.path("slurm.conf"))
            .args(args)
            .output()
            .unwrap();
        match out.status.success() {
            true => Ok(String::from_utf8(out.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }

    /// Runs one of Slurm's commands.
    fn tell(&self, program: &str, args: &[&str]) -> String {
        let said = self.ask(program, args);
        said.unwrap_or_else(|error| panic!("{program} {}: {error}", args.join(" ")))
    }

    /// Submits a script of `deploy/slurm` from the site's folder, with what users export. Gives
    /// the job's number.
    fn submit(&self, site: &Site, exports: &[(&str, &str)], args: &[&str]) -> String {
        // The program's own environment, for another program.
        let program = site.command(&[]);
        let mut command = Command::new("sbatch");
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let out = command
            .env("SLURM_CONF", self.path("slurm.conf"))
            .env("PALIMPSEST_PROGRAM", program.get_program())
            .env("PALIMPSEST__WORKER__DEVICE", "cpu")
            .envs(exports.iter().copied())
            .current_dir(site.path(""))
            .arg("--parsable")
            .args(args)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "sbatch: {error}");
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// A field of a job, such as `JobState` or `Restarts`.
    fn field(&self, job: &str, name: &str) -> String {
        let shown = self.tell("scontrol", &["--oneliner", "show", "job", job]);
        let prefix = format!("{name}=");
        let value = shown
            .split_whitespace()
            .find_map(|word| word.strip_prefix(&prefix));
        value
            .unwrap_or_else(|| panic!("no {name} in {shown}"))
            .to_owned()
    }

    fn wait_for(&self, job: &str, name: &str, value: &str) {
        wait(&format!("{name}={value} of job {job}"), SWEEP, || {
            let is = self.field(job, name);
            let failed = name == "JobState" && matches!(is.as_str(), "FAILED" | "TIMEOUT");
            let output = || fs::read_to_string(self.field(job, "StdOut"));
            assert!(!failed, "job {job} is {is}: {:?}", output());
            (is == value).then_some(())
        });
    }
}

impl Drop for Slurm {
    /// Jobs outlive the daemons, so they go first: everything that has this Slurm's settings in
    /// its environment.
    fn drop(&mut self) {
        let marker = format!("SLURM_CONF={}", self.path("slurm.conf").display());
        let ours: Vec<u32> = self.daemons.iter().map(Process::id).collect();
        for _ in 0..5 {
            let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
                let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
                let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
                let marked = environment
                    .split(|&byte| byte == 0)
                    .any(|variable| variable == marker.as_bytes());
                (marked && !ours.contains(&id)).then(|| id.to_string())
            });
            let left: Vec<String> = processes.collect();
            if left.is_empty() {
                break;
            }
            // Fails for those that have just ended.
            let _ = Command::new("kill").arg("-KILL").args(left).output();
        }
        self.daemons.reverse();
        self.daemons.clear();
    }
}

/// A site with facts and a coordinator's settings, and the sweep's results when nothing happens to
/// it: of one command that does everything by itself.
fn site() -> (Site, String) {
    let site = Site::new();
    let settings = "[serve]\nheartbeat_interval = \"100ms\"\nlease_duration = \"1s\"\n";
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    let facts: String = (0..FACTS)
        .map(|n| {
            let subject = format!("The tower of town {n}");
            let prompt = format!("{subject} stands in the country of");
            serde_json::json!({ "prompt": prompt, "subject": subject }).to_string() + "\n"
        })
        .collect();
    fs::write(site.path("facts.jsonl"), facts).unwrap();
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
    let expected = site.run(&[&alone, SETTINGS].concat(), SWEEP);
    assert_eq!(expected.lines().count() as u64, UNITS);
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
    let (site, expected) = site();
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
    wait("the first units", SWEEP, || {
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
    let (site, expected) = site();
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
    wait("the first units", SWEEP, || {
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
