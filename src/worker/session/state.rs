//! What a worker knows of itself and its leases, and what it says of both.
#![allow(clippy::disallowed_methods)] // of the owner of the worker's clock

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::files::Fetcher;
use super::super::prepare::Prepared;
use super::super::work::{Key, Report, Work, to_key};
use super::held::{Fetched, Held};
use crate::proto::v1;
use crate::proto::v1::connect_request::Message as Request;
use crate::telemetry::metrics::Part;
use crate::wire::names;

/// The protocol that this worker speaks.
const PROTOCOL: u32 = 1;
/// How long it takes to hand leases back, ahead of the time when the worker is taken away.
pub(super) const HAND_BACK: Duration = Duration::from_secs(5);

/// How a worker is to behave.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its identifier: new for every process. Where another process goes by it too, the one that
    /// said so later has it, and this worker goes on as `{id}.2`.
    pub id: String,
    /// Leases to hold at a time: one that runs, the others so that the engine never waits.
    pub credits: u32,
    /// Where fetched objects and laid-out checkpoints go.
    pub cache: PathBuf,
    /// How long a running task may go on after the worker was asked to leave.
    pub drain_timeout: Duration,
    /// When the worker will be taken away, where that is known.
    pub valid_until: Option<std::time::SystemTime>,
    /// How long to stay with nothing to do; for ever if there is no limit.
    pub idle_exit: Option<Duration>,
    /// The other workers of the process.
    pub others: Company,
}

/// The workers of one process, which leave for want of work together, and share the machine's
/// memory.
#[derive(Clone, Debug)]
pub struct Company {
    /// How many there are.
    pub workers: u64,
    /// Leases that they hold, and when one of them last took or ended some.
    leases: Arc<Mutex<(usize, Instant)>>,
}

impl Company {
    /// Of so many.
    pub fn of(workers: usize) -> Self {
        Self {
            workers: workers.max(1) as u64,
            leases: Arc::new(Mutex::new((0, Instant::now()))),
        }
    }

    /// Since when none of them has a lease; `None` while one has.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        (leases.0 == 0).then_some(leases.1)
    }

    /// Notes that one of them holds so many leases now, and how many it held before.
    pub(super) fn note(&self, before: usize, now: usize) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        *leases = (leases.0 + now - before, Instant::now());
    }
}

impl Default for Company {
    fn default() -> Self {
        Self::of(1)
    }
}

/// What a worker knows between two streams and during one.
pub(super) struct Session {
    pub fetcher: Fetcher,
    pub options: Options,
    /// How often another process took this worker's identifier.
    pub renamed: u32,
    pub capabilities: v1::Capabilities,
    pub loaded: Arc<std::sync::Mutex<Vec<String>>>,
    pub leases: BTreeMap<Key, Held>,
    /// This worker's part of the process's streams and leases, for the metrics.
    pub connected: Part,
    pub holding: Part,
    /// How many leases the others of the process were told of.
    pub noted: usize,
    /// Leases that wait for the engine, in the order in which they came.
    pub queue: VecDeque<(Key, Option<Prepared>)>,
    pub running: Option<Key>,
    /// When the last heartbeat was sent.
    pub told: Option<Instant>,
    /// Commits that were not acknowledged, by lease and unit: repeated on every new stream.
    pub unacknowledged: BTreeMap<(Key, u64), v1::Commit>,
    pub to_engine: mpsc::UnboundedSender<Work>,
    pub engine_outbox: mpsc::UnboundedReceiver<Report>,
    pub draining: bool,
    pub drain_deadline: Option<Instant>,
    pub fetched: (
        mpsc::UnboundedSender<Fetched>,
        mpsc::UnboundedReceiver<Fetched>,
    ),
}

impl Session {
    /// The identifier that this worker goes by.
    fn id(&self) -> String {
        let first = &self.options.id;
        match self.renamed {
            0 => first.clone(),
            times => names::numbered(first, &format!(".{}", u64::from(times) + 1)),
        }
    }

    /// Goes on under another identifier: another process goes by this one, and has the leases that
    /// were held under it. Whoever that is, it is no reason to stop working.
    pub(super) fn rename(&mut self, reason: &str) {
        let before = self.id();
        self.renamed = self.renamed.saturating_add(1);
        tracing::warn!(
            reason,
            "another process goes by the id {before}: this worker goes on as {}",
            self.id()
        );
        for key in self.leases.keys().cloned().collect::<Vec<_>>() {
            self.forget(&key);
        }
    }

    pub(super) fn hello(&self) -> v1::Hello {
        let held = self.leases.keys().map(to_key).collect();
        v1::Hello {
            worker_id: self.id(),
            protocol: PROTOCOL,
            capabilities: Some(v1::Capabilities {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                loaded_models: self.loaded(),
                device_memory: match self.capabilities.device_memory {
                    // The models of all are in it.
                    0 if self.capabilities.device.starts_with("cpu") => {
                        host_memory() / self.options.others.workers
                    }
                    known => known,
                },
                ..self.capabilities.clone()
            }),
            held,
            credits: if self.draining {
                0
            } else {
                self.options.credits
            },
            valid_until: self.options.valid_until.map(Into::into),
        }
    }

    fn loaded(&self) -> Vec<String> {
        self.loaded
            .lock()
            .map(|loaded| loaded.clone())
            .unwrap_or_default()
    }

    pub(super) fn welcome(&mut self, welcome: &v1::Welcome, out: &Outbox) {
        self.connected.set(1.0);
        let ours = env!("CARGO_PKG_VERSION");
        if !["", ours].contains(&welcome.version.as_str()) {
            tracing::warn!(
                coordinator = welcome.version,
                worker = ours,
                "the coordinator runs another version: upgrade the older of the two"
            );
        }
        let adopted: Vec<Key> = welcome
            .adopted
            .iter()
            .map(|k| (k.task.clone(), k.epoch))
            .collect();
        let stale: Vec<Key> = self
            .leases
            .keys()
            .filter(|key| !adopted.contains(key))
            .cloned()
            .collect();
        for key in stale {
            self.forget(&key);
        }
        for commit in self.unacknowledged.values() {
            out.send(Request::Commit(commit.clone()));
        }
        for key in adopted {
            self.finish(&key, out);
        }
    }

    pub(super) fn heartbeat(&mut self, out: &Outbox) {
        let leases = self
            .leases
            .iter()
            .map(|(key, held)| {
                let total = held.shared.total.load(Ordering::Relaxed) as f64;
                let seconds = held
                    .begun
                    .map_or(f64::INFINITY, |at| at.elapsed().as_secs_f64());
                v1::LeaseProgress {
                    lease: Some(to_key(key)),
                    steps: held.shared.steps.load(Ordering::Relaxed),
                    steps_per_second: total / seconds.max(0.1),
                    edit: held.shared.edit.lock().map_or(None, |edit| edit.clone()),
                }
            })
            .collect();
        self.told = Some(Instant::now());
        out.send(Request::Heartbeat(v1::Heartbeat {
            leases,
            loaded_models: self.loaded(),
        }));
    }
}

/// Where messages to the coordinator go.
pub(super) struct Outbox(pub mpsc::UnboundedSender<v1::ConnectRequest>);

impl Outbox {
    pub fn send(&self, message: Request) {
        // A closed stream is noticed by its reading side, which then opens another.
        let _ = self.0.send(v1::ConnectRequest {
            message: Some(message),
        });
    }
}

/// Memory of this machine in bytes; 0 where it cannot be told.
fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|rest| rest.trim().strip_suffix("kB"));
    kibibytes
        .and_then(|it| it.trim().parse::<u64>().ok())
        .unwrap_or_default()
        << 10
}
