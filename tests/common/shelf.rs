//! A shelf in memory, between which and its users anything may go wrong.
#![allow(dead_code)] // each program that has it uses a part

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palimpsest::objects::{Error, Shelf};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out and answered.
    Done,
    /// It is carried out, and the answer is lost.
    Unanswered,
    /// Nothing happens now; what it was to make is made later, if it can be made then.
    Late,
    /// Nothing happens.
    Lost,
}

/// What lies on the shelf, whoever looks.
#[derive(Debug, Default)]
pub struct Things {
    named: BTreeMap<String, Vec<u8>>,
    late: Vec<(String, Vec<u8>)>,
}

impl Things {
    /// Requests that are still on their way.
    pub fn late(&self) -> usize {
        self.late.len()
    }

    /// Lets one of the requests that are on their way arrive. What it makes, nobody hears of.
    pub fn arrive(&mut self, n: usize) {
        let (name, bytes) = self.late.remove(n);
        self.named.entry(name).or_insert(bytes);
    }

    /// Names in a folder.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let folder = format!("{folder}/");
        let names = self.named.keys().filter(|name| name.starts_with(&folder));
        names.cloned().collect()
    }
}

/// Decides what becomes of a request of this kind for this name.
type Fates = Box<dyn FnMut(&str, &str) -> Fate + Send>;

/// The shelf as one process reaches it.
pub struct Reach {
    things: Arc<Mutex<Things>>,
    fates: Mutex<Fates>,
    /// How long a request takes.
    latency: Duration,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reach")
    }
}

impl Reach {
    pub fn new(
        things: &Arc<Mutex<Things>>,
        fates: impl FnMut(&str, &str) -> Fate + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            things: things.clone(),
            fates: Mutex::new(Box::new(fates)),
            latency: Duration::ZERO,
        })
    }

    /// A shelf of its own, on which nothing goes wrong and each request takes so long.
    pub fn slow(latency: Duration) -> Arc<Self> {
        Arc::new(Self {
            things: Arc::default(),
            fates: Mutex::new(Box::new(|_, _| Fate::Done)),
            latency,
        })
    }

    /// Lets the time go by that so many requests take, of which a bucket is asked 16 at a time.
    fn travel(&self, requests: usize) {
        if !self.latency.is_zero() {
            std::thread::sleep(self.latency * requests.div_ceil(16) as u32);
        }
    }

    /// Carries a request out as its fate will have it. `late` is what is made when it comes late.
    fn ask<T>(
        &self,
        kind: &str,
        name: &str,
        late: Option<&[u8]>,
        act: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T,
    ) -> Result<T, Error> {
        let fate = (self.fates.lock().expect("no panic"))(kind, name);
        let mut things = self.things.lock().expect("no panic");
        let away = || Error::BucketAway {
            action: format!("{kind} {name}"),
            bucket: "in memory".to_owned(),
            server: "nowhere".to_owned(),
            problem: "a seed wills it".to_owned(),
        };
        match (fate, late) {
            (Fate::Done, _) => Ok(act(&mut things.named)),
            (Fate::Unanswered, _) => {
                act(&mut things.named);
                Err(away())
            }
            (Fate::Late, Some(bytes)) => {
                things.late.push((name.to_owned(), bytes.to_vec()));
                Err(away())
            }
            (Fate::Late | Fate::Lost, _) => Err(away()),
        }
    }
}

impl Shelf for Reach {
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, Error> {
        self.travel(1);
        self.ask("create", name, Some(bytes), |named| {
            let new = !named.contains_key(name);
            named.entry(name.to_owned()).or_insert(bytes.to_vec());
            new
        })
    }

    fn put(&self, name: &str, file: &Path) -> Result<(), Error> {
        self.travel(1);
        let bytes = fs::read(file).expect("a file");
        self.ask("put", name, None, |named| {
            named.insert(name.to_owned(), bytes);
        })
    }

    fn get(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.travel(names.len());
        let one = |name: &String| self.ask("get", name, None, |named| named.get(name).cloned());
        names.iter().map(one).collect()
    }

    fn fetch(&self, name: &str, file: &Path) -> Result<bool, Error> {
        self.travel(1);
        let found = self.ask("fetch", name, None, |named| named.get(name).cloned())?;
        if let Some(bytes) = &found {
            fs::write(file, bytes).expect("a file");
        }
        Ok(found.is_some())
    }

    fn list(&self, folder: &str, behind: &str, most: usize) -> Result<Vec<String>, Error> {
        self.travel(1);
        let folder = format!("{folder}/");
        self.ask("list", &folder, None, |named| {
            let from = Bound::Excluded(format!("{folder}{behind}"));
            let names = named.range((from, Bound::Unbounded));
            names
                .map_while(|(name, _)| name.strip_prefix(&folder))
                .take(most)
                .map(str::to_owned)
                .collect()
        })
    }

    fn remove(&self, names: &[String]) -> Result<(), Error> {
        self.travel(names.len());
        let mut one = |name: &String| {
            self.ask("remove", name, None, |named| {
                named.remove(name);
            })
        };
        names.iter().try_for_each(&mut one)
    }

    fn place(&self) -> String {
        "a shelf in memory".to_owned()
    }
}
