//! Starts the program as its users do, for tests over whole processes.
//!
//! Nothing here outlives its test: processes are killed when their handles are dropped, and show
//! what they said when the test has failed.

// Every test program compiles this file for itself and uses a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods)]

pub mod dice;
pub mod health;
pub mod ports;
pub mod require;
pub mod s3;
pub mod slurm;
pub mod sweep;
pub mod web;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that is not computing. A bound for what hangs, not a promise: the
/// machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// As [`PATIENCE`], for what computes.
pub const LONG: Duration = Duration::from_secs(300);

/// Waits until `ready` gives something.
///
/// # Panics
/// After `patience`, naming `what`.
pub fn wait<T>(what: &str, patience: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A tiny model of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A running process.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command. What it prints goes into `log`, behind what is there.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).unwrap();
        let errors = out.try_clone().unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Kills it (SIGKILL): it gets no chance to put anything in order.
    pub fn kill(&mut self) {
        // Fails only for a process that has ended.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) {
        let status = Command::new("kill")
            .args(["-TERM", &self.id().to_string()])
            .status();
        assert!(status.unwrap().success(), "{} has ended already", self.name);
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait(&what, patience, || self.child.try_wait().unwrap())
    }

    /// The newest address behind these words in what it says.
    pub fn address_after(&self, words: &str) -> String {
        wait(words, PATIENCE, || {
            let said = self.said();
            let line = said.lines().rev().find(|line| line.contains(words))?;
            let at = line.find("address=")?;
            let rest = &line[at + "address=".len()..];
            Some(rest.split_whitespace().next()?.to_owned())
        })
    }

    /// What it has printed so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.said());
        } else {
            no_secret(&self.name, &self.said());
        }
    }
}

/// A folder of its own for a coordinator with its store, workers and clients.
#[derive(Clone)]
pub struct Site {
    folder: Arc<tempfile::TempDir>,
    /// The command that runs programs for this site; empty for none.
    through: Vec<String>,
}

impl Site {
    /// An empty folder.
    pub fn new() -> Self {
        Self {
            folder: Arc::new(tempfile::tempdir().unwrap()),
            through: Vec::new(),
        }
    }

    /// The same folder, with programs run through a command: `ip netns exec NAME`.
    pub fn through(&self, command: &[&str]) -> Self {
        Self {
            folder: Arc::clone(&self.folder),
            through: command.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program, run in the folder, deaf to settings of whoever runs the tests.
    pub fn command(&self, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_palimpsest");
        let mut command = match self.through.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PALIMPSEST") {
                command.env_remove(name);
            }
        }
        for (name, folder) in [
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_DATA_HOME", "data"),
            ("XDG_CACHE_HOME", "cache"),
        ] {
            command.env(name, self.path(folder));
        }
        command
            .env("NO_COLOR", "1")
            .current_dir(self.folder.path())
            .args(args);
        command
    }

    /// A new token of somebody, which a coordinator takes whose `serve.tokens` is "tokens".
    pub fn token(&self, role: &str, principal: &str) -> String {
        let issue = ["auth", "token", "tokens", "--role", role];
        let issue = [&issue[..], &["--principal", principal]].concat();
        self.run(&issue, PATIENCE).trim().to_owned()
    }

    /// Runs a command to its end and gives what it printed to standard output.
    ///
    /// # Panics
    /// When it fails, with what it said, or takes longer than `patience`.
    pub fn run(&self, args: &[&str], patience: Duration) -> String {
        let (out, log) = (tempfile::tempfile().unwrap(), self.path("command.log"));
        let mut child = Process {
            name: args.join(" "),
            child: self
                .command(args)
                .stdin(Stdio::null())
                .stdout(out.try_clone().unwrap())
                .stderr(File::create(&log).unwrap())
                .spawn()
                .unwrap(),
            log,
        };
        let status = child.wait(patience);
        assert!(status.success(), "palimpsest {}: {status}", args.join(" "));
        read_whole(out)
    }

    /// Starts a coordinator on the store `store` in the folder and waits until it serves. Port 0
    /// takes a free one; to start again after a kill, give the address that it had.
    pub fn serve(&self, listen: &str) -> Server {
        let port_file = self.path("address");
        let _ = fs::remove_file(&port_file);
        let mut process = self.start_serving(listen);
        let address = wait("the coordinator's address", PATIENCE, || {
            if let Some(status) = process.ended() {
                panic!("serve ended: {status}");
            }
            fs::read_to_string(&port_file).ok()
        });
        Server {
            process,
            address: address.trim().to_owned(),
        }
    }

    /// [`Site::serve`] without the wait.
    pub fn start_serving(&self, listen: &str) -> Process {
        let (store, file) = (self.path("store"), self.path("address"));
        let listen = match listen {
            "127.0.0.1:0" => format!("127.0.0.1:{}", ports::free::<1>()[0]),
            told => told.to_owned(),
        };
        let args = [
            "serve",
            "--listen",
            &listen,
            "--store",
            store.to_str().unwrap(),
            "--port-file",
            file.to_str().unwrap(),
        ];
        Process::start("serve", &mut self.command(&args), &self.path("serve.log"))
    }

    /// Starts a worker with a cache of its own.
    pub fn worker(&self, server: &Server, id: &str, more: &[&str]) -> Process {
        self.worker_of(&server.url(), id, more)
    }

    /// [`Site::worker`] for a coordinator that has this address where the worker is.
    pub fn worker_of(&self, url: &str, id: &str, more: &[&str]) -> Process {
        let cache = self.path(&format!("cache-{id}"));
        let args = [
            &[
                "worker",
                "--coordinator",
                url,
                "--id",
                id,
                "--cache",
                cache.to_str().unwrap(),
            ],
            more,
        ];
        Process::start(
            id,
            &mut self.command(&args.concat()),
            &self.path(&format!("{id}.log")),
        )
    }
}

/// Nobody logs what lets somebody in: not a token, not a private key.
///
/// # Panics
/// When `text` has one.
pub fn no_secret(whose: &str, text: &str) {
    assert!(
        !text.contains("PRIVATE KEY"),
        "a private key is in what {whose} said"
    );
    let token = |rest: &str| rest.bytes().take(64).filter(u8::is_ascii_hexdigit).count() == 64;
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("palimpsest_") {
        assert!(!token(after), "a token is in what {whose} said");
        rest = after;
    }
}

/// What is at a path of an HTTP server.
pub fn get(address: &str, path: &str) -> (String, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn read_whole(mut file: File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// A coordinator that serves.
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Where it listens: `127.0.0.1:7461`.
    pub address: String,
}

impl Server {
    /// Its address as flags take it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
