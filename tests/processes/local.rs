//! Servers of one's own: a coordinator and a worker in one process on a socket, joined by whoever
//! comes to the store, gone with who started them; and coordinators on sockets.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::{LONG, PATIENCE, Process, Site, fixture, wait};

/// `palimpsest local`, whose standard input is held here.
struct Own {
    child: Child,
    address: String,
}

impl Own {
    fn start(site: &Site, more: &[&str]) -> Self {
        let args = [&["local", "--threads", "1", "--device", "cpu"], more].concat();
        let log = fs::File::create(site.path("local.log")).unwrap();
        let mut child = site
            .command(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let said = fs::read_to_string(site.path("local.log")).unwrap();
        assert!(!line.is_empty(), "local has no address: {said}");
        Self {
            child,
            address: line.trim().to_owned(),
        }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn store(site: &Site) -> std::path::PathBuf {
    site.path("data/palimpsest")
}

#[test]
fn a_server_of_ones_own_is_joined_and_goes_with_who_started_it() {
    let site = Site::new();
    let mut own = Own::start(&site, &["--until-stdin-closes"]);
    let socket = store(&site).join("local.socket");
    assert_eq!(own.address, format!("unix:{}", socket.display()));
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Commands without an address find it by the store that it has.
    let model = fixture("llama");
    let import = [
        "model",
        "import",
        model.to_str().unwrap(),
        "--name",
        "llama",
    ];
    site.run(&import, PATIENCE);
    let said = site.run(&["generate", "The tower", "--max-tokens", "2"], LONG);
    assert!(said.starts_with("The tower"), "{said}");
    let status = site.run(&["status", "--server", &own.address], PATIENCE);
    assert!(status.contains("1 idle"), "{status}");
    assert!(status.contains("1 succeeded"), "{status}");
    // Whoever has joined is not left alone: it stays for them.
    let log = site.path("watch.log");
    let mut other = Process::start("other", &mut site.command(&["audit", "watch"]), &log);
    wait("the joined command", PATIENCE, || {
        other.said().contains("models").then_some(())
    });
    drop(own.child.stdin.take());
    thread::sleep(Duration::from_millis(500));
    assert!(!own.has_ended());
    other.kill();
    wait("the server's end", PATIENCE, || {
        own.has_ended().then_some(())
    });
    assert!(!socket.exists());
    assert!(!store(&site).join("local.address").exists());
    let log = site.run(&["log"], PATIENCE);
    assert!(log.contains("v0"), "{log}");
}

#[test]
fn what_a_killed_server_leaves_is_in_nobodys_way() {
    let site = Site::new();
    let mut own = Own::start(&site, &[]);
    let address = own.address.clone();
    own.child.kill().unwrap();
    own.child.wait().unwrap();
    assert!(store(&site).join("local.socket").exists());
    assert!(store(&site).join("local.address").exists());
    // A command finds nobody, and does it itself.
    site.run(&["job", "list"], PATIENCE);
    let again = Own::start(&site, &[]);
    assert_eq!(again.address, address);
    // One store has one server.
    let second = site.command(&["local"]).stdin(Stdio::null()).output();
    let said = String::from_utf8(second.unwrap().stderr).unwrap();
    assert!(said.contains("another process"), "{said}");
    drop(again);
    let outside = ["local", "--listen", "0.0.0.0:0"];
    let refused = site.command(&outside).stdin(Stdio::null()).output();
    let said = String::from_utf8(refused.unwrap().stderr).unwrap();
    assert!(
        said.contains("give unix:PATH or a loopback address"),
        "{said}"
    );
}

#[test]
fn a_store_with_a_long_name_has_its_socket_elsewhere() {
    let site = Site::new();
    let long = site.path(&"deep/".repeat(30));
    let mut own = Own::start(&site, &["--store", long.to_str().unwrap()]);
    assert!(own.address.len() < 108, "{}", own.address);
    let listed = ["job", "list", "--store", long.to_str().unwrap()];
    site.run(&listed, PATIENCE);
    let folder = own.address.strip_prefix("unix:").unwrap().to_owned();
    let folder = std::path::Path::new(&folder).parent().unwrap().to_owned();
    let status = std::process::Command::new("kill")
        .args(["-TERM", &own.child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
    wait("its end", PATIENCE, || own.has_ended().then_some(()));
    assert!(!folder.exists());
}

#[test]
fn a_coordinator_on_a_socket_serves_workers_and_commands() {
    let site = Site::new();
    let socket = site.path("s");
    let listen = format!("unix:{}", socket.display());
    let server = site.serve(&listen);
    assert_eq!(server.address, listen);
    let worker = site.worker_of(&listen, "w", &["--fake", "0"]);
    wait("the worker", PATIENCE, || {
        let listed = site.run(&["worker", "list", "--server", &listen], PATIENCE);
        listed.contains("idle").then_some(())
    });
    let another = site.path("another");
    let another = [
        "serve",
        "--listen",
        &listen,
        "--store",
        another.to_str().unwrap(),
    ];
    let refused = site.command(&another).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("another coordinator listens there"), "{said}");
    drop(worker);
    server.process.terminate();
    let away = site
        .command(&["status", "--server", "unix:nowhere"])
        .output();
    let said = String::from_utf8(away.unwrap().stderr).unwrap();
    assert!(
        said.contains("no coordinator answers at unix:nowhere"),
        "{said}"
    );
}
