//! What all machines of a simulation share: the plan, the folders, the ledger.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palimpsest::coordinator::Limits;
use palimpsest::proto::v1;
use palimpsest::store::{Change, Store};
use tokio_util::sync::CancellationToken;

use super::dice::Dice;
use super::ledger::Ledger;
use super::plan::Theme;

/// The model's shape. Large in name, so that a sweep of a few facts is cut into as many tasks.
pub const SHAPE: v1::model::Shape = v1::model::Shape {
    layers: 30,
    width: 8192,
    heads: 64,
    vocabulary: 50_000,
    context: 1024,
    parameters: 7_000_000_000,
    block_parameters: 2_000_000_000,
};

/// What all machines of a simulation share.
pub struct Site {
    pub theme: Theme,
    pub seed: u64,
    pub ledger: Mutex<Ledger>,
    /// Set when nothing is to go wrong any more.
    pub peace: AtomicBool,
    folder: tempfile::TempDir,
    stores: AtomicU64,
    /// How far the coordinator's clock is off, in milliseconds.
    pub skew: AtomicU64,
    generations: Mutex<HashMap<String, u64>>,
    leaving: Mutex<HashMap<String, CancellationToken>>,
}

impl Site {
    /// A folder in memory, where there is one, with a store that knows one model.
    pub fn new(theme: Theme, seed: u64) -> Arc<Self> {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let site = Arc::new(Self {
            theme,
            seed,
            ledger: Mutex::default(),
            peace: AtomicBool::new(false),
            folder: folder.expect("a folder"),
            stores: AtomicU64::new(0),
            skew: AtomicU64::new(0),
            generations: Mutex::default(),
            leaving: Mutex::default(),
        });
        let store = Store::open(&site.store()).expect("a new store");
        let weights = vec![seed as u8; 40_000];
        let digest = store.objects().put(&weights).expect("an object");
        let file = v1::model::File {
            file_name: "weights".to_owned(),
            digest: digest.to_string(),
            size: weights.len() as u64,
            source_path: "/nowhere/weights".to_owned(),
        };
        let model = v1::Model {
            name: "models/tiny".to_owned(),
            family: "llama".to_owned(),
            shape: Some(SHAPE),
            files: vec![file],
            digest: "0".repeat(64),
            ..Default::default()
        };
        let model = Change::Model("tiny".to_owned(), model);
        store.commit(&[model]).expect("a model");
        site
    }

    /// The times of a machine on which everything is quick, and no patience that a worker could
    /// exhaust by being disturbed.
    pub fn limits(&self) -> Limits {
        let quick = |mut limits: Limits| {
            limits.heartbeat = 200;
            limits.worker_timeout = 1_500;
            limits.attempts = self.theme.attempts();
            limits.poison = 1_000;
            limits.task_seconds = 0.5;
            limits
        };
        quick(Limits::default())
    }

    /// The coordinator's store as it is now.
    pub fn store(&self) -> PathBuf {
        let number = self.stores.load(Ordering::Relaxed);
        self.folder.path().join(format!("store-{number}"))
    }

    /// The coordinator is about to be killed: its store is what lies on the disk at this moment,
    /// before a destructor can put anything in order.
    pub fn freeze_store(&self) {
        let before = self.store();
        self.stores.fetch_add(1, Ordering::Relaxed);
        copy_folder(&before, &self.store());
    }

    /// The coordinator has ended; stores that are not its own any more are removed.
    pub fn sweep_stores(&self) {
        let number = self.stores.load(Ordering::Relaxed);
        for old in 0..number {
            // Gone already, most of them.
            let _ = fs::remove_dir_all(self.folder.path().join(format!("store-{old}")));
        }
    }

    /// A worker's cache, which outlives its process.
    pub fn cache(&self, host: &str) -> PathBuf {
        self.folder.path().join(format!("cache-{host}"))
    }

    /// The number of this start of a host's program, from 0.
    pub fn generation(&self, host: &str) -> u64 {
        let mut generations = self.generations.lock().expect("no panic");
        let next = generations.entry(host.to_owned()).or_default();
        *next += 1;
        *next - 1
    }

    /// The signal that asks a worker to leave, for its new process.
    pub fn leaving(&self, host: &str) -> CancellationToken {
        let token = CancellationToken::new();
        let mut leaving = self.leaving.lock().expect("no panic");
        leaving.insert(host.to_owned(), token.clone());
        token
    }

    /// Asks a worker to leave.
    pub fn ask_to_leave(&self, host: &str) {
        if let Some(token) = self.leaving.lock().expect("no panic").get(host) {
            token.cancel();
        }
    }

    /// Whether nothing is to go wrong any more.
    pub fn is_peaceful(&self) -> bool {
        self.peace.load(Ordering::Relaxed)
    }

    /// Dice of one part of the run.
    pub fn dice(&self, part: &str) -> Dice {
        Dice::new(self.seed, part)
    }

    /// Writes a line into the trace.
    pub fn say(&self, who: &str, what: impl AsRef<str>) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        self.say_at(at, who, what);
    }

    /// The same from outside of the simulated machines.
    pub fn say_at(&self, at: Duration, who: &str, what: impl AsRef<str>) {
        let line = format!("{:>6} {who}: {}", at.as_millis(), what.as_ref());
        self.ledger.lock().expect("no panic").trace.push(line);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&source, &copy);
        } else {
            fs::copy(&source, &copy).expect("a copy");
        }
    }
}
