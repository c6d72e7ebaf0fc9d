//! Whole machines in a simulated network: coordinator, workers and clients as they are, over the
//! real services and the real store, in one thread and on one clock. A seed decides all that goes
//! wrong, and repeats it.
//!
//! Each theme runs many seeds. `SIMULATION_SEEDS=1000` runs more of them; `SIMULATION=crashes:17`
//! runs one and prints what happened in it, which a failing test prints of its seed too.
//!
//! What is checked at every step: the core's own invariants, which panic in a debug build, and
//! what clients and liars were told, which no crash may take back. At the end every job is whole,
//! its results are those of the engine's function, and the store holds all that was acknowledged.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // a test owns its time and its tasks

mod chaos;
mod client;
#[path = "../common/dice.rs"]
mod dice;
mod engine;
mod leaders;
mod ledger;
mod liar;
mod machines;
mod network;
mod plan;
#[path = "../common/shelf.rs"]
mod shelf;
mod site;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chaos::Chaos;
use palimpsest::invariants::violations;
use plan::Theme;
use site::Site;

/// Seeds that a theme runs.
const SEEDS: u64 = 100;
/// How long a run may take, in simulated time: three minutes of peace are enough for any job.
const DURATION: Duration = Duration::from_secs(200);
/// When the simulated world begins: in September 2020.
const EPOCH: Duration = Duration::from_secs(1_600_000_000);

#[test]
fn kills_of_everything_at_any_moment_lose_nothing_and_change_no_result() {
    seeds(Theme::Crashes);
}

#[test]
fn late_held_and_lost_messages_lose_nothing_and_change_no_result() {
    seeds(Theme::Network);
}

#[test]
fn workers_that_lie_get_nothing_taken_but_what_they_were_leased() {
    seeds(Theme::Liars);
}

#[test]
fn everything_at_once_loses_nothing() {
    seeds(Theme::Everything);
}

#[test]
fn leaders_that_lose_their_machine_or_their_bucket_are_replaced_and_nothing_is_lost() {
    seeds(Theme::Leaders);
}

#[test]
fn a_seed_repeats_its_run() {
    for (theme, seed) in [
        (Theme::Everything, 1),
        (Theme::Everything, 2),
        (Theme::Liars, 8),
    ] {
        let (first, second) = (run(theme, seed), run(theme, seed));
        let differs = first
            .iter()
            .zip(&second)
            .position(|(one, other)| one != other);
        if let Some(at) = differs {
            panic!(
                "{}:{seed} differs at line {at}:\n{}\nor\n{}",
                theme.name(),
                first[at.saturating_sub(5)..first.len().min(at + 3)].join("\n"),
                second[at.saturating_sub(5)..second.len().min(at + 3)].join("\n"),
            );
        }
        assert_eq!(first.len(), second.len());
        assert!(first.len() > 30, "nothing happened:\n{}", first.join("\n"));
    }
}

/// Runs the seeds of a theme.
fn seeds(theme: Theme) {
    if let Ok(one) = std::env::var("SIMULATION") {
        let (name, seed) = one.split_once(':').expect("SIMULATION=THEME:SEED");
        if name == theme.name() {
            let trace = run(theme, seed.parse().expect("a number"));
            println!("{}", trace.join("\n"));
        }
        return;
    }
    // Two coordinators, each with its waits for the bucket, take longer.
    let usual = if theme.shares() { SEEDS / 5 } else { SEEDS };
    let seeds = std::env::var("SIMULATION_SEEDS").map_or(usual, |n| n.parse().expect("a number"));
    let mut simulated = Duration::ZERO;
    for seed in 0..seeds {
        let trace = run(theme, seed);
        let last = trace.last().and_then(|line| line.split_whitespace().next());
        let millis = last.and_then(|at| at.parse().ok()).unwrap_or_default();
        simulated += Duration::from_millis(millis);
    }
    println!(
        "{seeds} runs of '{}', {simulated:?} simulated",
        theme.name()
    );
}

/// Runs one seed and gives what happened.
fn run(theme: Theme, seed: u64) -> Vec<String> {
    let site = Site::new(theme, seed);
    let _witness = Witness(site.clone());
    let mut dice = site.dice("topology");
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + EPOCH)
        .tick_duration(Duration::from_millis(5))
        .simulation_duration(DURATION)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(1 << 14)
        .enable_random_order()
        .build();

    for host in theme.coordinators() {
        let shared = site.clone();
        sim.host(*host, move || machines::coordinator(shared.clone(), host));
    }
    let mut machines = Vec::new();
    for n in 0..dice.among(2..=3) {
        let (shared, host) = (site.clone(), format!("worker-{n}"));
        machines.push(host.clone());
        sim.host(host.clone().as_str(), move || {
            machines::worker(shared.clone(), host.clone())
        });
    }
    if theme.liars() {
        for n in 0..dice.among(1..=2) {
            let (shared, host) = (site.clone(), format!("liar-{n}"));
            machines.push(host.clone());
            sim.host(host.clone().as_str(), move || {
                liar::run(shared.clone(), host.clone())
            });
        }
    }
    let mut peers = machines.clone();
    for n in 0..dice.among(1..=2) {
        let host = format!("client-{n}");
        peers.push(host.clone());
        sim.client(host.as_str(), client::run(site.clone(), host.clone()));
    }

    let mut chaos = Chaos::new(site.clone(), machines, peers);
    loop {
        chaos.act(&mut sim);
        for host in site.ended() {
            sim.bounce(host.as_str());
        }
        let over = sim.step().unwrap_or_else(|error| panic!("{error}"));
        if let Some(broken) = site.ledger.lock().unwrap().broken.take() {
            panic!("{broken}");
        }
        if over {
            break;
        }
    }
    site.freeze_store();
    drop(sim);
    let mut ledger = site.ledger.lock().unwrap();
    ledger.audit(site.open_store());
    assert_eq!(ledger.broken, None);
    for (invariant, count) in violations() {
        assert_eq!(count, 0, "{invariant:?}");
    }
    std::mem::take(&mut ledger.trace)
}

/// Says which seed it was, and what happened in it, when a run fails.
struct Witness(Arc<Site>);

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (theme, seed) = (self.0.theme.name(), self.0.seed);
            let trace = match self.0.ledger.lock() {
                Ok(ledger) => ledger.trace.clone(),
                Err(poisoned) => poisoned.into_inner().trace.clone(),
            };
            let from = trace.len().saturating_sub(150);
            eprintln!("{}", trace[from..].join("\n"));
            eprintln!("this was seed {seed} of '{theme}': SIMULATION={theme}:{seed} repeats it");
        }
    }
}
