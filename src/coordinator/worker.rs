//! A worker as the core knows it: who it is, what it holds, and how it does.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::event::{Effect, LeaseKey, Millis, Session};
use crate::proto::v1;
use crate::proto::v1::connect_response::Message;

/// Ended leases after which a worker's older ones count for half.
const MEMORY: u32 = 64;
/// How much the newest measurement counts in a rate.
const NEWEST: f64 = 0.3;

/// A worker in memory.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) session: Option<Session>,
    /// Whose it is: who opened its newest stream; empty where nobody is asked.
    pub(super) principal: String,
    pub(super) capabilities: v1::Capabilities,
    pub(super) credits: u32,
    pub(super) draining: bool,
    /// When it will be taken away, as it said: a date.
    pub(super) valid_until: Option<Millis>,
    /// The same by the clock of leases.
    pub(super) lives_until: Option<Millis>,
    pub(super) last_heard: Millis,
    /// The date.
    pub(super) connected_at: Millis,
    pub(super) leases: BTreeMap<(Uuid, u32), Held>,
    pub(super) units_committed: u64,
    /// Why it gets no more leases, when it fails far more often than the others.
    pub(super) excluded: Option<String>,
    pub(super) outcomes: Outcomes,
    /// Multiply-adds a second, from the tasks it has done.
    pub(super) rates: Rates,
    /// When a lease of it last ended: those that wait begin no sooner.
    pub(super) last_end: Millis,
    /// How many leases it is listed with among the idle.
    pub(super) listed: Option<usize>,
}

/// A lease as its worker has it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) epoch: u64,
    /// Steps since the last commit, and steps a second, as it reports them.
    pub(super) steps: u64,
    pub(super) rate: f64,
    /// The newest steps of the edit that it computes.
    pub(super) edit: Option<Box<v1::EditProgress>>,
    pub(super) since: Millis,
    /// When the worker last spoke of it.
    pub(super) seen: Millis,
    /// Units it has committed.
    pub(super) units: u32,
    /// Those of them that took more than a look.
    pub(super) computed: u32,
    /// Whether the worker had the model loaded when it got it: its time is that of the task alone.
    pub(super) warm: bool,
}

/// How a worker's newest leases ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcomes {
    pub(super) good: u32,
    pub(super) bad: u32,
}

impl Outcomes {
    pub(super) fn total(self) -> u32 {
        self.good + self.bad
    }

    pub(super) fn bad_part(self) -> f64 {
        f64::from(self.bad) / f64::from(self.total().max(1))
    }

    pub(super) fn note(&mut self, good: bool) {
        if self.total() >= MEMORY {
            self.good /= 2;
            self.bad /= 2;
        }
        self.good += u32::from(good);
        self.bad += u32::from(!good);
    }
}

/// Measured multiply-adds a second: of all work together, which is for people, and of each kind of
/// stage. What a unit costs is an estimate, and another one in each: one that is too high makes a
/// worker look fast, and must not be believed of other stages.
#[derive(Debug, Default)]
pub(super) struct Rates {
    pub(super) all: Option<f64>,
    stages: BTreeMap<&'static str, f64>,
}

impl Rates {
    pub(super) fn note(&mut self, stage: &'static str, measured: f64) {
        let blend = |before: f64| before + NEWEST * (measured - before);
        self.all = Some(self.all.map_or(measured, blend));
        let of_stage = self.stages.entry(stage).or_insert(measured);
        *of_stage = blend(*of_stage);
    }

    pub(super) fn of(&self, stage: &str) -> Option<f64> {
        self.stages.get(stage).copied()
    }

    /// That of the slowest stage, for those that were not measured: a task that is too small costs
    /// a message, one that is too large leaves others without work.
    pub(super) fn least(&self) -> Option<f64> {
        self.stages.values().copied().reduce(f64::min)
    }

    pub(super) fn stages(&self) -> impl Iterator<Item = &'static str> {
        self.stages.keys().copied()
    }
}

impl Held {
    pub(super) fn new(epoch: u64, now: Millis) -> Self {
        Self {
            epoch,
            steps: 0,
            rate: 0.0,
            edit: None,
            since: now,
            seen: now,
            units: 0,
            computed: 0,
            warm: false,
        }
    }
}

impl Worker {
    /// A worker that is known only by the leases it holds.
    pub(super) fn absent(now: Millis) -> Self {
        Self {
            session: None,
            principal: String::new(),
            capabilities: v1::Capabilities::default(),
            credits: 0,
            draining: false,
            valid_until: None,
            lives_until: None,
            last_heard: now,
            connected_at: now,
            leases: BTreeMap::new(),
            units_committed: 0,
            excluded: None,
            outcomes: Outcomes::default(),
            rates: Rates::default(),
            last_end: 0,
            listed: None,
        }
    }

    /// Whether a stream of this principal may be this worker's. While the worker is there, or has
    /// leases, the stream must be of its principal; while it is there, of its process: that comes
    /// back on a new stream before the coordinator has seen the old one break.
    pub(super) fn may_be(&self, hello: &v1::Hello, principal: &str) -> bool {
        let told = hello.capabilities.clone().unwrap_or_default();
        let process = |it: &v1::Capabilities| (it.host.clone(), it.pid);
        match self.session {
            None if self.leases.is_empty() => true,
            // After a restart of the coordinator nobody knows yet whose its leases are.
            None => self.principal.is_empty() || self.principal == principal,
            Some(_) => self.principal == principal && process(&self.capabilities) == process(&told),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.takes_leases() && self.leases.len() < self.credits as usize
    }

    /// Whether it is given leases, when it has room.
    pub(super) fn takes_leases(&self) -> bool {
        self.session.is_some() && !self.draining && self.excluded.is_none()
    }

    /// Whether it has a model in memory.
    pub(super) fn has_loaded(&self, model: &str) -> bool {
        self.capabilities.loaded_models.iter().any(|it| it == model)
    }

    pub(super) fn cancel_lease(&self, key: LeaseKey, effects: &mut Vec<Effect>) {
        if let Some(session) = self.session {
            let lease = Some(key.to_proto());
            let cancel = Message::CancelLease(v1::CancelLease { lease });
            effects.push(send(session, cancel));
        }
    }

    pub(super) fn keys(&self) -> Vec<LeaseKey> {
        let keys = self.leases.iter().map(|(&(job, task), held)| LeaseKey {
            job,
            task,
            epoch: held.epoch,
        });
        keys.collect()
    }

    /// The lease that it works on: the one that it has told steps or results of, or else the
    /// oldest, because it works on one at a time and in order. The others wait, and are not to
    /// blame when it is lost.
    pub(super) fn running(&self) -> Option<LeaseKey> {
        let told = |key: &LeaseKey| {
            let held = self.leases.get(&(key.job, key.task));
            held.is_some_and(|held| held.steps > 0 || held.units > 0)
        };
        let keys = self.keys();
        keys.into_iter().min_by_key(|key| (!told(key), key.epoch))
    }
}

pub(super) fn send(session: Session, message: Message) -> Effect {
    Effect::Send(session, Box::new(message))
}
