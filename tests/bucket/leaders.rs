//! Coordinators whose log is in the bucket: one leads, others follow it, and any of them may be lost
//! with its machine.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::health::health;
use crate::common::s3::S3;
use crate::common::sweep::{import, results, submit, undisturbed, write_facts};
use crate::common::{LONG, PATIENCE, Process, Server, Site, ports, wait};
use crate::{assert_sound, refused, runtime, store};
use tonic_health::ServingStatus;

/// Times that a leader is killed in each of two tests; `LEADER_KILLS=100` kills more of them.
const KILLS: usize = 3;

const ENGINE: [&str; 4] = ["--device", "cpu", "--threads", "1"];

/// Coordinators on ports of their own, each with a folder of its own.
struct Cluster<'a> {
    site: &'a Site,
    ports: Vec<u16>,
    /// Where each says how it is.
    probes: Vec<u16>,
    processes: Vec<Option<Process>>,
}

impl<'a> Cluster<'a> {
    fn new(site: &'a Site, s3: &S3, prefix: &str, takeover: &str) -> Self {
        let more = format!("log = \"bucket\"\ntakeover = \"{takeover}\"");
        s3.settings(site, prefix, s3.address, &more);
        Self {
            site,
            ports: ports::free::<3>().to_vec(),
            probes: ports::free::<3>().to_vec(),
            processes: vec![None, None, None],
        }
    }

    /// Starts a coordinator, which may wait for others to end.
    fn start(&mut self, n: usize, more: &[&str]) {
        let (listen, folder) = (format!("127.0.0.1:{}", self.ports[n]), format!("store-{n}"));
        let args = [&["serve", "--listen", &listen, "--store", &folder], more].concat();
        let log = self.site.path(&format!("serve-{n}.log"));
        let name = format!("serve {n}");
        let mut command = self.site.command(&args);
        let probed = format!("127.0.0.1:{}", self.probes[n]);
        command.env("PALIMPSEST__SERVE__HEALTH_LISTEN", probed);
        self.processes[n] = Some(Process::start(&name, &mut command, &log));
    }

    /// Whether one says that it serves.
    fn serves(&self, n: usize) -> bool {
        let address = format!("127.0.0.1:{}", self.probes[n]);
        runtime().block_on(health(&address, "")) == ServingStatus::Serving
    }

    fn process(&mut self, n: usize) -> &mut Process {
        self.processes[n].as_mut().unwrap()
    }

    /// Waits until one takes connections.
    fn leads(&mut self, n: usize) {
        let port = self.ports[n];
        let process = self.process(n);
        wait("a coordinator that leads", LONG, || {
            if let Some(status) = process.ended() {
                panic!("{} ended, {status}: {}", process.name(), process.said());
            }
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
    }

    fn kill(&mut self, n: usize) {
        self.process(n).kill();
        self.processes[n] = None;
    }

    /// Kills the one of two that leads in this round, waits until the other does, and starts the first
    /// again. Gives the time without a leader.
    fn lose(&mut self, round: usize) -> Duration {
        let (leader, next) = (round % 2, (round + 1) % 2);
        self.kill(leader);
        let killed = Instant::now();
        self.leads(next);
        let without = killed.elapsed();
        self.start(leader, &["--standby"]);
        without
    }

    /// All machines are gone. A new one has nothing but the bucket.
    fn lose_all(&mut self) {
        for n in 0..2 {
            self.kill(n);
        }
        for n in 0..2 {
            let folder = format!("store-{n}");
            assert_sound(self.site, &folder);
            fs::remove_dir_all(self.site.path(&folder)).unwrap();
        }
        self.start(2, &[]);
        self.leads(2);
    }

    /// Whoever leads, for commands: only the address is used of it.
    fn server(&self) -> Server {
        let log = self.site.path("sleep.log");
        Server {
            process: Process::start("sleep", Command::new("sleep").arg("3600"), &log),
            address: self.address(),
        }
    }

    /// All of them, as a client names them.
    fn address(&self) -> String {
        let all: Vec<String> = self
            .ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        all.join(",http://")
    }
}

/// How often a leader is killed.
fn kills() -> usize {
    std::env::var("LEADER_KILLS").map_or(KILLS, |n| n.parse().unwrap())
}

#[test]
fn leaders_are_killed_one_after_another_and_nothing_that_was_acknowledged_is_lost() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    let mut cluster = Cluster::new(&site, &s3, "led", "1s");
    cluster.start(0, &[]);
    cluster.leads(0);
    cluster.start(1, &["--standby"]);
    let server = cluster.server();
    write_facts(&site, 4);
    import(&site, &server);
    let mut worker = site.worker(&server, "one", &ENGINE);
    let sweep = ["--noise", "0.1", "--samples", "2"];
    let job = submit(&site, &server, &sweep);

    let kills = kills();
    let mut longest = Duration::ZERO;
    for n in 0..kills {
        // At another moment of its work each time.
        thread::sleep(Duration::from_millis(37 * (n as u64 * 7 % 23)));
        let branch = format!("kept-{n}");
        let args = ["branch", &branch, "v0", "--model", "tiny"];
        server_run(&site, &server, &args);
        longest = longest.max(cluster.lose(n));
    }
    println!("{kills} leaders killed; the longest time without one: {longest:?}");
    let found = results(&site, &server, &job);
    assert_eq!(found, undisturbed(4, &sweep, &ENGINE));
    let refs = server_run(&site, &server, &["refs", "--model", "tiny"]);
    for n in 0..kills {
        assert!(refs.contains(&format!("kept-{n}")), "{refs}");
    }
    server_run(&site, &server, &["audit", "verify"]);
    worker.kill();

    cluster.lose_all();
    assert_eq!(results(&site, &server, &job), found);
    server_run(&site, &server, &["audit", "verify"]);
}

#[cfg(feature = "torch")]
#[test]
fn leaders_are_killed_in_edits_and_each_that_was_accepted_becomes_its_version_once() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    let mut cluster = Cluster::new(&site, &s3, "edited", "1s");
    cluster.start(0, &[]);
    cluster.leads(0);
    cluster.start(1, &["--standby"]);
    let server = cluster.server();
    let kills = kills();
    prepare_edits(&site, &server, kills);
    let mut worker = site.worker(&server, "one", &ENGINE);
    for n in 0..kills {
        let edit = edit(n);
        let edit: Vec<&str> = edit.iter().map(String::as_str).collect();
        let job = server_run(&site, &server, &[&edit[..], &["--detach"]].concat());
        // At another moment of the edit each time, that of its end among them.
        thread::sleep(Duration::from_millis(61 * (n as u64 * 5 % 17)));
        cluster.kill(n % 2);
        // Asked while nobody leads.
        let end = server_run(&site, &server, &["job", "watch", job.trim()]);
        assert!(end.contains("succeeded"), "{end}");
        cluster.start(n % 2, &["--standby"]);
        let kept = server_run(&site, &server, &["audit", "checkpoint"]);
        fs::write(site.path(&format!("kept-{n}")), kept).unwrap();
    }
    println!("{kills} leaders killed in edits");
    let history = history(&site, &server);
    let whys: Vec<String> = (0..kills).rev().map(why).collect();
    assert_eq!(history.0, whys, "each edit once, in order");
    for n in 0..kills {
        let kept = format!("kept-{n}");
        server_run(&site, &server, &["audit", "verify", "--since", &kept]);
    }
    worker.kill();
    cluster.lose_all();
    assert!(self::history(&site, &server) == history);

    let calm = Site::new();
    let server = calm.serve("127.0.0.1:0");
    prepare_edits(&calm, &server, kills);
    let _worker = calm.worker(&server, "calm", &ENGINE);
    for n in 0..kills {
        let edit = edit(n);
        let edit: Vec<&str> = edit.iter().map(String::as_str).collect();
        server_run(&calm, &server, &edit);
    }
    assert!(self::history(&calm, &server) == history, "other bytes");
}

/// A model, statistics of its layers, and facts for every third edit, which is one of several.
#[cfg(feature = "torch")]
fn prepare_edits(site: &Site, server: &Server, edits: usize) {
    import(site, server);
    let mut npz = palimpsest::npz::Npz::new();
    let mut sum = vec![0.0_f32; 32 * 32];
    sum.iter_mut().step_by(33).for_each(|x| *x = 100.0);
    npz.f32("mom2.mom2", &[32, 32], &sum).unwrap();
    npz.i64("mom2.count", &[], &[1000]).unwrap();
    fs::write(site.path("keys.npz"), npz.to_bytes().unwrap()).unwrap();
    for layer in ["0", "1"] {
        let args = ["stats", "import", "keys.npz", "--layer", layer];
        server_run(site, server, &args);
    }
    fs::write(site.path("contexts.txt"), "{}\n").unwrap();
    for n in (2..edits).step_by(3) {
        let fact = |town: usize, target: &str| {
            serde_json::json!({
                "case_id": town,
                "requested_rewrite": {
                    "prompt": "Look: {} is in",
                    "subject": format!("The tower of town {town}"),
                    "target_new": { "str": target },
                    "target_true": { "str": "Paris" },
                },
                "paraphrase_prompts": [],
                "neighborhood_prompts": [],
            })
        };
        let facts = [
            fact(n, "Rome"),
            fact(n + 1000, "Oslo"),
            fact(n + 2000, "two"),
        ];
        let facts = serde_json::json!(facts).to_string();
        fs::write(site.path(&format!("facts-{n}.json")), facts).unwrap();
    }
}

/// The command of an edit.
#[cfg(feature = "torch")]
fn edit(n: usize) -> Vec<String> {
    let words = match n % 3 {
        2 => format!(
            "edit --file facts-{n}.json --method memit --layers 0-1 --set clamp=3 --set steps=4"
        ),
        _ => "edit --target Rome --layer 1 --set steps=8".to_owned(),
    };
    let mut args: Vec<String> = words.split(' ').map(str::to_owned).collect();
    args.extend(["--contexts", "contexts.txt", "--why", &why(n)].map(str::to_owned));
    if n % 3 != 2 {
        let subject = format!("The tower of town {n}");
        args.extend(["Look: {} is in", "--subject", &subject].map(str::to_owned));
    }
    args
}

#[cfg(feature = "torch")]
fn why(n: usize) -> String {
    format!("edit {n}")
}

/// Why each version of the branch was made, the newest first, and the matrices of the newest.
#[cfg(feature = "torch")]
fn history(site: &Site, server: &Server) -> (Vec<String>, serde_json::Value) {
    let log = server_run(site, server, &["log", "main", "--json", "--limit", "1000"]);
    let whys = log.lines().filter_map(|line| {
        let version: serde_json::Value = serde_json::from_str(line).unwrap();
        let why = version["why"].as_str()?.to_owned();
        (!why.is_empty()).then_some(why)
    });
    let whys = whys.collect();
    let shown = server_run(site, server, &["show", "main", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    (whys, shown["matrices"].clone())
}

/// Runs a command at a coordinator, or at the one of several that leads.
fn server_run(site: &Site, server: &Server, args: &[&str]) -> String {
    site.run(&[args, &["--server", &server.url()]].concat(), LONG)
}

#[test]
fn a_leader_that_is_asked_to_stop_hands_over_at_once_and_one_that_comes_back_is_deposed() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    // Nobody waits for this.
    let mut cluster = Cluster::new(&site, &s3, "handed", "10min");
    cluster.start(0, &[]);
    cluster.leads(0);
    cluster.start(1, &["--standby"]);
    let followed = |cluster: &mut Cluster<'_>, n: usize| {
        wait("a follower", PATIENCE, || {
            cluster
                .process(n)
                .said()
                .contains("following")
                .then_some(())
        });
    };
    followed(&mut cluster, 1);
    assert!(cluster.serves(0) && !cluster.serves(1));
    cluster.process(0).terminate();
    assert!(cluster.process(0).wait(PATIENCE).success());
    cluster.leads(1);
    wait("a leader that serves", PATIENCE, || {
        cluster.serves(1).then_some(())
    });
    assert!(
        !cluster.process(1).said().contains("ERROR"),
        "{}",
        cluster.process(1).said()
    );

    // A coordinator that would lead as well is told who does.
    let site = Site::new();
    let mut cluster = Cluster::new(&site, &s3, "two", "1s");
    cluster.start(0, &[]);
    cluster.leads(0);
    let args = ["serve", "--listen", "127.0.0.1:0", "--store", "store-9"];
    let said = refused(&site, &args, LONG);
    assert!(
        said.contains("leads the store") && said.contains("--standby"),
        "{said}"
    );

    // A standby that could not listen says so before it leads.
    let taken = format!("127.0.0.1:{}", cluster.ports[0]);
    let args = [
        "serve",
        "--standby",
        "--listen",
        &taken,
        "--store",
        "store-8",
    ];
    let said = refused(&site, &args, LONG);
    assert!(said.contains("cannot listen on"), "{said}");

    // One that was stopped for a while is not believed when it goes on.
    cluster.start(1, &["--standby"]);
    followed(&mut cluster, 1);
    let signal = |cluster: &mut Cluster<'_>, name: &str| {
        let id = cluster.process(0).id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &id])
                .status()
                .unwrap()
                .success()
        );
    };
    signal(&mut cluster, "-STOP");
    cluster.leads(1);
    signal(&mut cluster, "-CONT");
    let status = cluster.process(0).wait(LONG);
    let said = cluster.process(0).said();
    assert!(
        !status.success() && said.contains("was written by another coordinator"),
        "{said}"
    );
}

#[test]
fn a_log_moves_into_the_bucket_and_back_and_nobody_goes_on_with_the_one_that_was_left() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    s3.settings(&site, "moved-log", s3.address, "");
    write_facts(&site, 1);
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    drop(server);

    // The settings say more than is true.
    let settings = |more: &str| s3.settings(&site, "moved-log", s3.address, more);
    let shared = "log = \"bucket\"\ntakeover = \"1s\"";
    settings(shared);
    let serve = ["serve", "--listen", "127.0.0.1:0", "--store", "store"];
    let said = refused(&site, &serve, PATIENCE);
    assert!(said.contains("store push --with-log"), "{said}");
    let (pushed, done) = store(&site, &["push", "--with-log", "--store", "store"]);
    assert!(done, "{pushed}");
    settings("");
    let said = refused(&site, &serve, PATIENCE);
    assert!(
        said.contains("store.log") && said.contains("store pull --log-only"),
        "{said}"
    );
    let (again, done) = store(&site, &["push", "--with-log", "--store", "store"]);
    assert!(!done, "{again}");

    // The machine is lost.
    settings(shared);
    let (backup, done) = store(&site, &["backup", "before", "--store", "store"]);
    assert!(done, "{backup}");
    fs::remove_dir_all(site.path("store")).unwrap();
    let server = site.serve("127.0.0.1:0");
    let models = site.run(&["model", "list", "--server", &server.url()], PATIENCE);
    assert!(models.contains("tiny"), "{models}");
    drop(server);
    let (pulled, done) = store(&site, &["pull", "--store", "store"]);
    assert!(done, "{pulled}");
    let said = refused(
        &site,
        &["serve", "--listen", "127.0.0.1:0", "--store", "other"],
        LONG,
    );
    assert!(
        said.contains("no longer gone on with") && said.contains("store"),
        "{said}"
    );
    settings("");
    let bare = site.path("palimpsest.toml");
    fs::remove_file(bare).unwrap();
    assert_sound(&site, "store");
    let server = site.serve("127.0.0.1:0");
    import_again(&site, &server);
    drop(server);

    // And there again, with what was added meanwhile.
    settings(shared);
    let (pushed, done) = store(&site, &["push", "--with-log", "--store", "store"]);
    assert!(done, "{pushed}");
    fs::remove_dir_all(site.path("store")).unwrap();
    let server = site.serve("127.0.0.1:0");
    let models = site.run(&["model", "list", "--server", &server.url()], PATIENCE);
    assert!(
        models.contains("tiny") && models.contains("again"),
        "{models}"
    );
    drop(server);

    // A backup of before, in which somebody worked since, has another log.
    settings("");
    let (restored, done) = store(&site, &["restore", "before", "--store", "store-old"]);
    assert!(done, "{restored}");
    let old = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--store",
        "store-old",
        "--port-file",
        "old",
    ];
    let mut process = Process::start("old", &mut site.command(&old), &site.path("old.log"));
    let address = wait("a coordinator", PATIENCE, || {
        fs::read_to_string(site.path("old")).ok()
    });
    let address = format!("http://{}", address.trim());
    site.run(
        &[
            "branch", "apart", "v0", "--model", "tiny", "--server", &address,
        ],
        PATIENCE,
    );
    process.kill();
    let (refused, done) = store(&site, &["push", "--with-log", "--store", "store-old"]);
    assert!(
        !done && refused.to_string().contains("has another log"),
        "{refused}"
    );
    settings(shared);
    let server = site.serve("127.0.0.1:0");
    let models = site.run(&["model", "list", "--server", &server.url()], PATIENCE);
    assert!(models.contains("again"), "{models}");
}

fn import_again(site: &Site, server: &Server) {
    let model = crate::common::fixture("llama");
    let model = model.to_str().unwrap();
    let args = [
        "model",
        "import",
        model,
        "--name",
        "again",
        "--server",
        &server.url(),
    ];
    site.run(&args, PATIENCE);
}

#[test]
fn a_bucket_that_overwrites_what_is_there_is_refused_for_a_log() {
    let Some(s3) = S3::start_trusting() else {
        return;
    };
    let site = Site::new();
    let careless = careless(s3.address);
    s3.settings(&site, "careless", careless, "log = \"bucket\"");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--store", "store"];
    let said = refused(&site, &serve, PATIENCE);
    assert!(
        said.contains("overwrites") && said.contains("conditional writes"),
        "{said}"
    );
    // Objects may be there.
    s3.settings(&site, "careless", careless, "");
    drop(site.serve("127.0.0.1:0"));
}

/// Stands before the S3 server, and lets it not see that anything is asked conditionally.
fn careless(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for near in listener.incoming() {
            let (mut near, mut far) = (near.unwrap(), TcpStream::connect(server).unwrap());
            let (mut back, mut answers) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let mut piece = vec![0; 64 << 10];
                while let Ok(n @ 1..) = near.read(&mut piece) {
                    let mut sent = piece[..n].to_vec();
                    let header = b"if-none-match:";
                    let at = sent.windows(header.len()).position(|it| it == header);
                    if let Some(at) = at {
                        sent[at..at + header.len()].copy_from_slice(b"x-nobody-asks:");
                    }
                    if far.write_all(&sent).is_err() {
                        break;
                    }
                }
                let _ = far.shutdown(Shutdown::Write);
            });
        }
    });
    address
}
