//! A real Slurm of a test's own: munge, a controller and two nodes, started on this machine and
//! stopped with the test.
//!
//! Needs Debian's `slurm-wlm` and `munge` (`deploy/setup.sh --slurm`) and root, because the nodes
//! start jobs as other users.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::require::skip;
use super::{LONG, PATIENCE, Process, Site, wait};

/// A Slurm of this test's own.
pub struct Slurm {
    folder: tempfile::TempDir,
    daemons: Vec<Process>,
}

impl Slurm {
    /// Starts it; none where it cannot be had, with the reason on standard error.
    pub fn start() -> Option<Self> {
        for program in ["munged", "slurmctld", "slurmd"] {
            if !Path::new("/usr/sbin").join(program).exists() {
                let why = format!("no {program}: run deploy/setup.sh --slurm");
                skip("slurm", why);
                return None;
            }
        }
        // SAFETY of the test, not of memory: who owns this process is in its status file.
        let status = fs::read_to_string("/proc/self/status").unwrap();
        if !status.lines().any(|line| line.starts_with("Uid:\t0\t0")) {
            skip("slurm", "Slurm's nodes need root to start jobs");
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

    /// A file of its folder; `slurm.conf` is what `SLURM_CONF` has to name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self) {
        let [controller, n1, n2] = super::ports::free();
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
    pub fn ask(&self, program: &str, args: &[&str]) -> Result<String, String> {
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
    pub fn tell(&self, program: &str, args: &[&str]) -> String {
        let said = self.ask(program, args);
        said.unwrap_or_else(|error| panic!("{program} {}: {error}", args.join(" ")))
    }

    /// Submits a script of `deploy/slurm` from the site's folder, with what users export. Gives
    /// the job's number.
    pub fn submit(&self, site: &Site, exports: &[(&str, &str)], args: &[&str]) -> String {
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
    pub fn field(&self, job: &str, name: &str) -> String {
        let shown = self.tell("scontrol", &["--oneliner", "show", "job", job]);
        let prefix = format!("{name}=");
        let value = shown
            .split_whitespace()
            .find_map(|word| word.strip_prefix(&prefix));
        value
            .unwrap_or_else(|| panic!("no {name} in {shown}"))
            .to_owned()
    }

    /// Waits until a field of a job has a value.
    pub fn wait_for(&self, job: &str, name: &str, value: &str) {
        wait(&format!("{name}={value} of job {job}"), LONG, || {
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
