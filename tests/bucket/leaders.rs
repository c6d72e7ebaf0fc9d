//! Coordinators whose log is in the bucket: one leads, others follow it, and any of them may be lost
//! with its machine.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::health::health;
use crate::common::sweep::{import, results, submit, undisturbed, write_facts};
use crate::common::{LONG, PATIENCE, Process, Server, Site, ports, wait};
use crate::s3::S3;
use crate::{assert_sound, refused, runtime, store};
use tonic_health::ServingStatus;

/// Times that a leader is killed; `LEADER_KILLS=100` kills more of them.
const KILLS: usize = 3;

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

#[test]
fn leaders_are_killed_one_after_another_and_nothing_that_was_acknowledged_is_lost() {
    let Some(s3) = S3::start() else { return };
    let site = Site::new();
    let mut cluster = Cluster::new(&site, &s3, "led", "1s");
    cluster.start(0, &[]);
    cluster.leads(0);
    cluster.start(1, &["--standby"]);
    // The process of the first stands for whoever leads: only the address is used of it.
    let dummy = Process::start(
        "sleep",
        Command::new("sleep").arg("3600"),
        &site.path("sleep.log"),
    );
    let server = Server {
        process: dummy,
        address: cluster.address(),
    };
    write_facts(&site, 4);
    import(&site, &server);
    let mut worker = site.worker(&server, "one", &["--device", "cpu", "--threads", "1"]);
    let sweep = ["--noise", "0.1", "--samples", "2"];
    let job = submit(&site, &server, &sweep);

    let kills = std::env::var("LEADER_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    let mut longest = Duration::ZERO;
    for n in 0..kills {
        let (leader, next) = (n % 2, (n + 1) % 2);
        // At another moment of its work each time.
        thread::sleep(Duration::from_millis(37 * (n as u64 * 7 % 23)));
        let branch = format!("kept-{n}");
        let args = [
            "branch",
            &branch,
            "v0",
            "--model",
            "tiny",
            "--server",
            &server.url(),
        ];
        site.run(&args, LONG);
        cluster.kill(leader);
        let killed = Instant::now();
        cluster.leads(next);
        longest = longest.max(killed.elapsed());
        cluster.start(leader, &["--standby"]);
    }
    println!("{kills} leaders killed; the longest time without one: {longest:?}");
    let found = results(&site, &server, &job);
    assert_eq!(
        found,
        undisturbed(4, &sweep, &["--device", "cpu", "--threads", "1"])
    );
    let refs = site.run(
        &["refs", "--model", "tiny", "--server", &server.url()],
        PATIENCE,
    );
    for n in 0..kills {
        assert!(refs.contains(&format!("kept-{n}")), "{refs}");
    }
    site.run(&["audit", "verify", "--server", &server.url()], PATIENCE);
    worker.kill();

    // All machines are gone. A new one has nothing but the bucket.
    cluster.kill(0);
    cluster.kill(1);
    for folder in ["store-0", "store-1"] {
        assert_sound(&site, folder);
        fs::remove_dir_all(site.path(folder)).unwrap();
    }
    cluster.start(2, &[]);
    cluster.leads(2);
    assert_eq!(results(&site, &server, &job), found);
    site.run(&["audit", "verify", "--server", &server.url()], PATIENCE);
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
    let Some(s3) = S3::start() else { return };
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
