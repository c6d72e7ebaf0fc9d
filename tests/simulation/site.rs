//! What all machines of a simulation share: the plan, the folders, the ledger.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palimpsest::coordinator::Limits;
use palimpsest::proto::v1;
use palimpsest::store::{Change, Options, Sharing, Store};
use tokio_util::sync::CancellationToken;

use super::dice::Dice;
use super::ledger::Ledger;
use super::plan::Theme;
use super::shelf::{Fate, Reach, Things};

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
    pub peace: Arc<AtomicBool>,
    folder: tempfile::TempDir,
    stores: AtomicU64,
    /// How far the coordinator's clock is off, in milliseconds.
    pub skew: AtomicU64,
    generations: Mutex<HashMap<String, u64>>,
    leaving: Mutex<HashMap<String, CancellationToken>>,
    /// What lies in the bucket, where coordinators share their log.
    pub bucket: Arc<Mutex<Things>>,
    /// Hosts whose way to the bucket is cut.
    pub cut_off: Arc<Mutex<BTreeSet<String>>>,
    /// Hosts whose process has ended by itself.
    ended: Mutex<Vec<String>>,
    /// Folders that the coordinators of a shared log have had.
    machines: Mutex<HashMap<String, u64>>,
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
            peace: Arc::new(AtomicBool::new(false)),
            folder: folder.expect("a folder"),
            stores: AtomicU64::new(0),
            skew: AtomicU64::new(0),
            generations: Mutex::default(),
            leaving: Mutex::default(),
            bucket: Arc::default(),
            cut_off: Arc::default(),
            ended: Mutex::default(),
            machines: Mutex::default(),
        });
        let store = site.open_store().expect("a new store");
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
        store.leave().expect("left");
        site
    }

    /// The store, when no coordinator has it and nothing goes wrong.
    pub fn open_store(&self) -> Result<Store, palimpsest::store::Error> {
        if !self.theme.shares() {
            return Store::open(&self.store());
        }
        let folder = self.new_machine("nobody");
        Store::open_with(
            &folder,
            Self::sharing(Reach::new(&self.bucket, |_, _| Fate::Done)),
        )
    }

    fn sharing(reach: Arc<Reach>) -> Options {
        Options {
            log: Some(Sharing {
                shelf: Some(reach),
                file_batches: 40,
                ..Sharing::new("simulated".to_owned(), Duration::from_millis(1_500))
            }),
            ..Options::default()
        }
    }

    /// The folder of a coordinator that shares its log, and how it opens it. Every third start is on a
    /// new machine.
    pub fn shared_store(&self, host: &'static str) -> (PathBuf, Options) {
        let generation = self.generation(&format!("{host}'s store"));
        let mut dice = self.dice(&format!("{host}'s bucket {generation}"));
        let folder = match generation == 0 || dice.once_in(3) {
            true => self.new_machine(host),
            false => self.machine(host),
        };
        let (cut_off, dice) = (self.cut_off.clone(), Mutex::new(dice));
        let peace = self.peace.clone();
        let reach = Reach::new(&self.bucket, move |kind, _| {
            if cut_off.lock().expect("no panic").contains(host) {
                return Fate::Lost;
            }
            let mut dice = dice.lock().expect("no panic");
            if peace.load(Ordering::Relaxed) || !dice.once_in(60) {
                return Fate::Done;
            }
            match (kind, dice.below(3)) {
                ("create", 0) => Fate::Late,
                (_, 1) => Fate::Unanswered,
                _ => Fate::Lost,
            }
        });
        (folder, Self::sharing(reach))
    }

    fn machine(&self, host: &str) -> PathBuf {
        let machines = self.machines.lock().expect("no panic");
        let number = machines.get(host).copied().unwrap_or_default();
        self.folder.path().join(format!("{host}-{number}"))
    }

    /// An empty folder, but for the objects, which all have in common.
    fn new_machine(&self, host: &str) -> PathBuf {
        *self
            .machines
            .lock()
            .expect("no panic")
            .entry(host.to_owned())
            .or_default() += 1;
        let (folder, objects) = (self.machine(host), self.folder.path().join("objects"));
        fs::create_dir_all(&folder).expect("a folder");
        fs::create_dir_all(&objects).expect("a folder");
        std::os::unix::fs::symlink(&objects, folder.join("objects")).expect("a link");
        folder
    }

    /// A host's process has ended by itself, and is to be started again.
    pub fn restart(&self, host: &str) {
        self.ended.lock().expect("no panic").push(host.to_owned());
    }

    /// The hosts whose process has ended by itself since.
    pub fn ended(&self) -> Vec<String> {
        std::mem::take(&mut *self.ended.lock().expect("no panic"))
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
        if self.theme.shares() {
            return; // What counts is in the bucket.
        }
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
