//! Coordinators that share a log, reduced to their stores: several processes follow it, lead it,
//! write to it, and are killed at any step, while requests to the bucket are lost, come late, or are
//! carried out and not answered. What any of them acknowledged is there at the end, once, whoever
//! leads then, and all of them have the same history (I14).
//!
//! `LEADERS=17` runs one seed and prints what happened in it; `SIMULATION_SEEDS=1000` runs more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palimpsest::objects::Shelf as _;
use palimpsest::proto::v1;
use palimpsest::store::{Change, Error, Follower, Look, Options, Sharing, Store, Vigil};

use super::dice::Dice;
use super::shelf::{Fate, Reach, Things};

/// Steps of a run, and those after which nothing goes wrong any more.
const STEPS: usize = 240;
const PEACE: usize = 180;

#[test]
fn whatever_becomes_of_leaders_and_requests_one_history_has_all_that_was_acknowledged() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    // What runs aside otherwise runs in its place here, and a seed repeats its run.
    let _here = runtime.enter();
    if let Ok(one) = std::env::var("LEADERS") {
        let said = Run::new(one.parse().expect("a number")).play();
        return println!("{}", said.join("\n"));
    }
    let seeds: u64 = std::env::var("SIMULATION_SEEDS").map_or(20, |n| n.parse().expect("a number"));
    let mut counts = Counts::default();
    for seed in 0..seeds {
        let run = Run::new(seed);
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut run = run;
            let said = run.play();
            (said, run.counts)
        }));
        match said {
            Ok((_, of_it)) => counts.add(&of_it),
            Err(panic) => {
                eprintln!("this was LEADERS={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{seeds} runs: {counts:?}");
    // A test in which nothing happens holds nothing.
    assert!(counts.taken_over > 3 * seeds, "{counts:?}");
    assert!(counts.deposed > seeds / 2, "{counts:?}");
    assert!(counts.acknowledged > 100 * seeds, "{counts:?}");
    assert!(counts.came_late > seeds, "{counts:?}");
}

/// A machine whose requests have the fate that is set for the next ones that make something.
struct Tried {
    folder: tempfile::TempDir,
    reach: Arc<Reach>,
    fate: Arc<Mutex<Fate>>,
}

impl Tried {
    fn new(things: &Arc<Mutex<Things>>) -> Self {
        let fate = Arc::new(Mutex::new(Fate::Done));
        let of_it = fate.clone();
        let reach = Reach::new(things, move |kind, name| match kind {
            "create" if name.starts_with("log/batches") => *of_it.lock().unwrap(),
            _ => Fate::Done,
        });
        Self {
            folder: tempfile::tempdir().unwrap(),
            reach,
            fate,
        }
    }

    fn options(&self, file_batches: u64) -> Options {
        let mut options = Run::options(&self.reach, "a machine");
        options.log.as_mut().unwrap().file_batches = file_batches;
        options
    }

    fn follow(&self) -> Follower {
        Follower::open(self.folder.path(), self.options(1000)).unwrap()
    }

    fn lead(&self, file_batches: u64) -> Store {
        Store::open_with(self.folder.path(), self.options(file_batches)).unwrap()
    }
}

/// Looks until it leads, or until a look fails.
fn look(vigil: &mut Vigil, follower: &mut Follower) -> Result<(), Error> {
    for _ in 0..100 {
        if vigil.look(follower)? == Look::Leads {
            return Ok(());
        }
    }
    panic!("it never leads");
}

fn names(store: &Store) -> Vec<String> {
    let models = store.models("", usize::MAX).unwrap();
    models.into_iter().map(|model| model.name).collect()
}

#[test]
fn a_take_over_of_which_it_was_not_told_keeps_nobody_from_leading() {
    for fate in [Fate::Lost, Fate::Unanswered] {
        let things = Arc::default();
        let (one, other) = (Tried::new(&things), Tried::new(&things));
        let leader = one.lead(1000);
        leader.commit(&[thing(1)]).unwrap();
        let (mut follower, mut vigil) = (other.follow(), Vigil::default());
        *other.fate.lock().unwrap() = fate;
        let told = look(&mut vigil, &mut follower).unwrap_err();
        assert!(told.may_pass(), "{told}");
        *other.fate.lock().unwrap() = Fate::Done;
        let goes_on = leader.commit(&[thing(2)]);
        match fate {
            // It is seen to go on, and then to end.
            Fate::Lost => goes_on.unwrap(),
            _ => assert!(is_deposed(&goes_on.unwrap_err())),
        }
        drop(leader);
        look(&mut vigil, &mut follower).unwrap();
        let store = Store::of_leader(follower).unwrap();
        store.commit(&[thing(3)]).unwrap();
        let there = if fate == Fate::Lost { 3 } else { 2 };
        assert_eq!(names(&store).len(), there);
    }
}

#[test]
fn a_copy_that_is_damaged_is_begun_again_and_one_that_has_more_than_the_bucket_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _here = runtime.enter();
    let things: Arc<Mutex<Things>> = Arc::default();
    let one = Tried::new(&things);
    let store = one.lead(5);
    for n in 1..=100 {
        store.commit(&[thing(n)]).unwrap();
    }
    let all = names(&store);
    store.leave().unwrap();
    drop(store);
    let log = one.folder.path().join("log");
    let newest = || {
        let files = std::fs::read_dir(&log)
            .unwrap()
            .map(|it| it.unwrap().path());
        files
            .filter(|it| it.extension().is_some_and(|it| it == "log"))
            .max()
            .unwrap()
    };
    for damage in [
        // Killed between two steps of beginning the copy again; or the disk has lost something.
        (|log, _| std::fs::remove_dir_all(log).unwrap()) as fn(&std::path::Path, PathBuf),
        |_, newest| std::fs::remove_file(newest).unwrap(),
        |log, _| std::fs::write(log.with_file_name("records").join("db"), "nothing").unwrap(),
    ] {
        damage(&log, newest());
        let store = one.lead(5);
        assert_eq!(names(&store), all);
        store.leave().unwrap();
    }
    let newest = things.lock().unwrap().names("log/batches").pop().unwrap();
    one.reach.remove(&[newest]).unwrap();
    let refused = Follower::open(one.folder.path(), one.options(5))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("the bucket has nothing from there on"),
        "{refused}"
    );
}

#[test]
fn what_came_late_behind_a_file_is_not_taken_for_a_batch_of_it() {
    let things: Arc<Mutex<Things>> = Arc::default();
    let (one, other) = (Tried::new(&things), Tried::new(&things));
    let store = one.lead(1000);
    for n in 1..=12 {
        store.commit(&[thing(n)]).unwrap();
    }
    let all = names(&store);
    store.leave().unwrap();
    drop(store);
    // Batches 6 to 10 are in a file, and the single ones were removed; what a take-over makes that
    // was on its way since then has the number 6. No file has the batches before.
    let name = |n: u64| format!("log/batches/{n:020}");
    let within: Vec<String> = (6..=10).map(name).collect();
    let bytes: Vec<Vec<u8>> = one
        .reach
        .get(&within)
        .unwrap()
        .into_iter()
        .flatten()
        .collect();
    let file = one.folder.path().join("file");
    std::fs::write(&file, bytes.concat()).unwrap();
    let segment = format!("log/segments/{:020}-{:020}", 6, 10);
    one.reach.put(&segment, &file).unwrap();
    one.reach.remove(&within[..4]).unwrap();
    let late = Tried::new(&Arc::default());
    let stranger = late.lead(1000);
    for n in 100..=110 {
        stranger.commit(&[thing(n)]).unwrap();
    }
    let theirs = late.reach.get(&[name(6)]).unwrap().remove(0).unwrap();
    assert!(one.reach.create(&name(6), &theirs).unwrap());
    assert_eq!(names(&other.lead(1000)), all);
}

#[derive(Debug, Default)]
struct Counts {
    acknowledged: u64,
    taken_over: u64,
    deposed: u64,
    killed: u64,
    came_late: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.taken_over += other.taken_over;
        self.deposed += other.deposed;
        self.killed += other.killed;
        self.came_late += other.came_late;
    }
}

/// What a process is at.
enum State {
    Down,
    Follows(Box<Follower>, Vigil),
    /// With what it is writing, until it knows that it is there.
    Leads(Box<Store>, Option<u64>),
}

struct Machine {
    folder: PathBuf,
    reach: Arc<Reach>,
    state: State,
}

struct Run {
    dice: Dice,
    things: Arc<Mutex<Things>>,
    trouble: Arc<Mutex<(Dice, bool)>>,
    machines: Vec<Machine>,
    folder: tempfile::TempDir,
    written: u64,
    acknowledged: BTreeSet<u64>,
    counts: Counts,
    said: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let things: Arc<Mutex<Things>> = Arc::default();
        let trouble = Arc::new(Mutex::new((Dice::new(seed, "trouble"), true)));
        let machines = (0..3).map(|n| {
            let trouble = trouble.clone();
            let reach = Reach::new(&things, move |kind, _| {
                let (dice, is_on) = &mut *trouble.lock().unwrap();
                if !*is_on || !dice.once_in(12) {
                    return Fate::Done;
                }
                match (kind, dice.below(3)) {
                    ("create", 0) => Fate::Late,
                    (_, 1) => Fate::Unanswered,
                    _ => Fate::Lost,
                }
            });
            Machine {
                folder: folder.path().join(format!("machine-{n}")),
                reach,
                state: State::Down,
            }
        });
        let machines = machines.collect();
        Self {
            dice: Dice::new(seed, "steps"),
            things,
            trouble,
            machines,
            folder,
            written: 0,
            acknowledged: BTreeSet::new(),
            counts: Counts::default(),
            said: Vec::new(),
        }
    }

    fn options(reach: &Arc<Reach>, name: &str) -> Options {
        Options {
            log: Some(Sharing {
                shelf: Some(reach.clone()),
                file_batches: 5,
                ..Sharing::new(name.to_owned(), Duration::from_secs(1))
            }),
            ..Options::default()
        }
    }

    fn play(&mut self) -> Vec<String> {
        for step in 0..STEPS {
            if step == PEACE {
                self.trouble.lock().unwrap().1 = false;
            }
            let n = self.dice.below(3) as usize;
            let trouble = step < PEACE;
            if trouble && self.dice.once_in(40) {
                self.counts.killed += 1;
                self.machines[n].state = State::Down;
                self.say(n, "is killed");
                continue;
            }
            let late = self.things.lock().unwrap().late();
            if late > 0 && self.dice.once_in(15) {
                let which = self.dice.below(late as u64) as usize;
                self.things.lock().unwrap().arrive(which);
                self.counts.came_late += 1;
                self.say(n, "hears nothing of a request that arrives");
            }
            // Some are faster than others for a while, so that leaders fall silent.
            let times = self.dice.among(1..=16);
            for _ in 0..times {
                self.step(n, step < PEACE);
            }
        }
        self.check();
        std::mem::take(&mut self.said)
    }

    fn say(&mut self, n: usize, what: impl AsRef<str>) {
        self.said.push(format!("machine {n} {}", what.as_ref()));
    }

    fn step(&mut self, n: usize, trouble: bool) {
        let state = std::mem::replace(&mut self.machines[n].state, State::Down);
        let state = match state {
            State::Down => {
                let machine = &self.machines[n];
                let options = Self::options(&machine.reach, &format!("machine {n}"));
                match Follower::open(&machine.folder, options) {
                    Ok(follower) => {
                        self.say(n, "follows");
                        State::Follows(Box::new(follower), Vigil::default())
                    }
                    Err(error) => {
                        assert!(error.may_pass(), "machine {n}: {error}");
                        State::Down
                    }
                }
            }
            State::Follows(mut follower, mut vigil) => match vigil.look(&mut follower) {
                Ok(Look::Again(_)) => State::Follows(follower, vigil),
                Ok(Look::Leads) => {
                    self.counts.taken_over += 1;
                    self.say(n, "leads");
                    match Store::of_leader(*follower) {
                        Ok(store) => State::Leads(Box::new(store), None),
                        Err(error) => {
                            assert!(error.may_pass(), "machine {n}: {error}");
                            State::Down
                        }
                    }
                }
                Err(error) => {
                    assert!(error.may_pass(), "machine {n}: {error}");
                    State::Follows(follower, vigil)
                }
            },
            State::Leads(store, writing) => self.write(n, store, writing, trouble),
        };
        self.machines[n].state = state;
    }

    /// A leader writes something, or goes on trying.
    fn write(&mut self, n: usize, store: Box<Store>, writing: Option<u64>, trouble: bool) -> State {
        if writing.is_none() && trouble && self.dice.once_in(60) {
            self.say(n, "leaves");
            let left = store.leave();
            if let Err(error) = left {
                assert!(
                    error.may_pass() || is_deposed(&error),
                    "machine {n}: {error}"
                );
            }
            return State::Down;
        }
        let number = writing.unwrap_or_else(|| {
            self.written += 1;
            self.written
        });
        match store.commit(&[thing(number)]) {
            Ok(()) => {
                assert!(self.acknowledged.insert(number));
                self.counts.acknowledged += 1;
                self.say(n, format!("acknowledges {number}"));
                State::Leads(store, None)
            }
            Err(error) if is_deposed(&error) => {
                self.counts.deposed += 1;
                self.say(n, format!("is deposed, and {number} is not acknowledged"));
                State::Down
            }
            Err(error) => {
                assert!(error.may_pass(), "machine {n}: {error}");
                State::Leads(store, Some(number))
            }
        }
    }

    /// All have one history, with all that was acknowledged.
    fn check(&mut self) {
        self.trouble.lock().unwrap().1 = false;
        for machine in &mut self.machines {
            machine.state = State::Down;
        }
        let mut histories = BTreeMap::new();
        let new = Machine {
            folder: self.folder.path().join("new"),
            reach: self.machines[0].reach.clone(),
            state: State::Down,
        };
        self.machines.push(new);
        for (n, machine) in self.machines.iter().enumerate() {
            let options = Self::options(&machine.reach, "the last");
            let store = Store::open_with(&machine.folder, options).unwrap();
            let things: Vec<String> = store
                .models("", usize::MAX)
                .unwrap()
                .into_iter()
                .map(|model| model.name)
                .collect();
            store.leave().unwrap();
            for number in &self.acknowledged {
                let name = format!("models/{}", id(*number));
                assert!(things.contains(&name), "machine {n} lacks {number}");
            }
            histories.insert(n, things);
        }
        let first = &histories[&0];
        for (n, things) in &histories {
            assert_eq!(things, first, "machine {n} has another history");
        }
        // What never was acknowledged may be there, and not much of it.
        assert!(first.len() <= self.written as usize);
        // Batches are put together, and the bucket does not fill with single ones.
        let things = self.things.lock().unwrap();
        let single = things.names("log/batches").len() as u64;
        let leaders = self.counts.taken_over + 5;
        let files = things.names("log/segments").len() as u64;
        let most = 3 * 5 + 2 * leaders + self.counts.came_late + files;
        assert!(single <= most, "{single} single ones, beside {files} files");
    }
}

fn is_deposed(error: &Error) -> bool {
    matches!(error, Error::Deposed { .. })
}

fn id(number: u64) -> String {
    format!("m{number:06}")
}

fn thing(number: u64) -> Change {
    let id = id(number);
    let model = v1::Model {
        name: format!("models/{id}"),
        ..Default::default()
    };
    Change::Model(id, model)
}
