//! The core in a world of its own: what the store would hold, and workers as they are seen from
//! outside. After every event the invariants are checked, and now and then that a core rebuilt
//! from what was written is the one that wrote it (I10).

mod failures;
mod histories;
mod placement;
mod reuse;
mod stages;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::*;
use crate::proto::v1::connect_response::Message;
use crate::proto::v1::{self, FailureClass, JobState};
use crate::store::{Change, CommittedUnit, JobRecord, ResultRecord, SpecRecord, TaskRecord};
use crate::work::{self, Items};

const ATTEMPTS: u32 = 3;

/// A lease on which a worker has taken so many steps, one a second.
fn progress(steps: u64) -> v1::LeaseProgress {
    v1::LeaseProgress {
        steps,
        steps_per_second: 1.0,
        ..Default::default()
    }
}

fn limits() -> Limits {
    Limits {
        heartbeat: 100,
        worker_timeout: 1_000,
        attempts: ATTEMPTS,
        poison: 2,
        weights: [("heavy".to_owned(), 2.0)].into(),
        ..Limits::default()
    }
}

/// What the store would hold.
#[derive(Clone, Debug, Default)]
struct Shadow {
    specs: BTreeMap<Uuid, SpecRecord>,
    jobs: BTreeMap<Uuid, JobRecord>,
    tasks: BTreeMap<(Uuid, u32), TaskRecord>,
    results: BTreeMap<(Uuid, u64), (ResultRecord, bytes::Bytes)>,
    events: BTreeMap<Uuid, u64>,
    dates: BTreeMap<Uuid, Millis>,
    epoch: u64,
}

impl Shadow {
    fn write(&mut self, change: Change) {
        match change {
            Change::Spec(id, spec) => {
                assert!(
                    self.specs.insert(id, spec).is_none(),
                    "a spec was written twice"
                );
            }
            Change::Job(id, record) => {
                let job = record.job.as_ref().unwrap();
                let dates = [job.create_time, job.start_time, job.end_time];
                let dates: Vec<_> = dates.into_iter().flatten().map(job::millis).collect();
                assert!(
                    dates.is_sorted(),
                    "it began before it was made, or ended before it began"
                );
                self.jobs.insert(id, record);
            }
            Change::Task(id, n, record) => {
                self.tasks.insert((id, n), record);
            }
            Change::Result(id, unit, record, bytes) => {
                let before = self.results.insert((id, unit), (record, bytes));
                assert!(before.is_none(), "I1: unit {unit} was committed twice");
            }
            Change::Event(id, event) => {
                let last = self.events.entry(id).or_default();
                assert_eq!(event.sequence, *last + 1, "events without a gap");
                *last = event.sequence;
                let date = job::millis(event.time.unwrap());
                let last = self.dates.entry(id).or_default();
                assert!(date >= *last, "a later event has an earlier date");
                *last = date;
            }
            Change::Epoch(epoch) => {
                assert!(epoch > self.epoch, "epochs only grow");
                self.epoch = epoch;
            }
            Change::Divergence(..)
            | Change::Model(..)
            | Change::Cached(..)
            | Change::Record(_)
            | Change::Removed(_) => {}
        }
    }

    /// Every unit of the stages before that of a lease has a durable result (I13).
    fn check_stages(&self, lease: &v1::Lease) {
        let key = LeaseKey::from_proto(lease.key.as_ref().unwrap()).unwrap();
        let mut job = self.specs[&key.job].job.clone().unwrap();
        let items = work::pack(&mut job);
        for stage in work::stages(&job, &items) {
            if stage.range().contains(&lease.units[0].unit) {
                return;
            }
            for unit in stage.range() {
                let known = self.results.contains_key(&(key.job, unit));
                assert!(known, "I13: unit {unit} has no result, {key:?} is leased");
            }
        }
    }

    /// The core that a coordinator would find after a restart.
    fn restore(&self, now: Millis) -> Core {
        let mut restoring = Restoring::new(limits(), self.epoch, now);
        for (id, record) in &self.jobs {
            if is_terminal(record.job.as_ref().unwrap().state()) {
                restoring.ended(*id, record.clone());
            } else {
                self.read(*id, &mut restoring);
            }
        }
        restoring.finish()
    }

    /// A core with nothing but one job, whether it has ended or not.
    fn one(&self, id: Uuid) -> Core {
        let mut restoring = Restoring::new(limits(), 0, 0);
        self.read(id, &mut restoring);
        restoring.finish()
    }

    fn read(&self, id: Uuid, restoring: &mut Restoring) {
        let (record, spec) = (self.jobs[&id].clone(), self.specs[&id].clone());
        restoring.job(id, record, spec, Items::default(), v1::Model::default());
        for ((_, n), record) in self.tasks.range((id, 0)..=(id, u32::MAX)) {
            restoring.task(id, *n, record);
        }
        for ((_, unit), (record, bytes)) in self.results.range((id, 0)..=(id, u64::MAX)) {
            restoring.unit(&CommittedUnit {
                job: id,
                unit: *unit,
                digest: match (&record.source, &record.value) {
                    (Some(_), Some(value)) => {
                        let digest: crate::objects::Digest = value.digest.parse().unwrap();
                        digest.prefix()
                    }
                    _ => crate::objects::Digest::of(bytes).prefix(),
                },
                failed: record.failed,
                cached: record.source.is_some(),
            });
        }
    }
}

/// A worker as the core knows it from outside: a name, a stream, the leases it was sent.
#[derive(Clone, Debug, Default)]
struct Peer {
    session: Option<Session>,
    leases: Vec<v1::Lease>,
}

struct World {
    core: Core,
    shadow: Shadow,
    now: Millis,
    /// How far the machine's clock is from the one that leases are counted by.
    set: i64,
    sessions: u64,
    jobs: Vec<Uuid>,
    peers: BTreeMap<usize, Peer>,
    acknowledged: BTreeSet<(String, u64)>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Submit {
        facts: u8,
        sort: Sort,
        owner: u8,
    },
    Cancel(u8),
    Requeue(u8),
    Hello {
        worker: u8,
        credits: u8,
        forgets: bool,
    },
    Gone(u8),
    Commit {
        worker: u8,
        unit: u8,
        failed: bool,
        stale: bool,
    },
    End {
        worker: u8,
        failure: Option<u8>,
    },
    Drain(u8),
    AskDrain(u8),
    Readmit(u8),
    Heartbeat(u8),
    Wait(u16),
    SetClock(i16),
    Restart,
}

/// Jobs of one stage, of two and of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// A sweep whose noise is given.
    Plain,
    /// A sweep whose noise is measured first.
    Spread,
    /// Key statistics: pieces, then their sums.
    Stats,
    /// Edits one after the other; whether they go on without one that failed.
    Sequence(bool),
}

fn new_job(id: Uuid, facts: u8, sort: Sort) -> NewJob {
    let edit = |n| v1::EditTask {
        request: Some(v1::EditRequest {
            subject: format!("fact {n}"),
            ..Default::default()
        }),
        ..Default::default()
    };
    let fact = |n| v1::Fact {
        prompt: format!("fact {n} is"),
        subject: format!("fact {n}"),
        ..Default::default()
    };
    let spec = v1::TraceSpec {
        facts: (0..facts).map(fact).collect(),
        kinds: vec![1, 2],
        noise: if sort == Sort::Spread { "s3" } else { "0.1" }.to_owned(),
        samples: 10,
        window: 10,
        ..Default::default()
    };
    let spec = match sort {
        Sort::Plain | Sort::Spread => spec.into(),
        Sort::Stats => {
            let piece = v1::StatsUnit {
                self_sample: 1_000_000,
                ..Default::default()
            };
            v1::StatsSpec {
                pieces: vec![piece; facts.into()],
                layers: vec![1, 2],
                ..Default::default()
            }
            .into()
        }
        Sort::Sequence(keep_going) => v1::EditSpec {
            tasks: (0..facts).map(edit).collect(),
            ref_id: "main".to_owned(),
            keep_going,
            ..Default::default()
        }
        .into(),
    };
    let mut job = v1::Job {
        spec: Some(spec),
        ..Default::default()
    };
    // So dear that every fact is a task of its own.
    let shape = v1::model::Shape {
        layers: 48,
        width: 1600,
        vocabulary: 50_000,
        block_parameters: 1 << 33,
        parameters: 1 << 33,
        ..Default::default()
    };
    let items = work::pack(&mut job);
    let tasks = tasks(&job, &items, &shape, &TASK_COST.into());
    NewJob {
        id,
        model: v1::Model::default(),
        tasks,
        job,
        items,
        principal: String::new(),
        request_id: String::new(),
        request_digest: String::new(),
        earlier: Vec::new(),
    }
}

impl World {
    fn new() -> Self {
        Self {
            core: Core::new(limits()),
            shadow: Shadow::default(),
            now: 1_000_000,
            set: 0,
            sessions: 0,
            jobs: Vec::new(),
            peers: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    fn apply(&mut self, mut event: Event) -> Reply {
        if let Event::Commit {
            lease,
            unit,
            result,
            ..
        } = &mut event
            && self.core.has_ended(lease.job)
        {
            let before = self.shadow.one(lease.job);
            result.before = before.jobs[&lease.job].committed(*unit);
        }
        let time = Time {
            now: self.now,
            date: self.now.saturating_add_signed(self.set),
        };
        let (answer, effects) = self.core.apply(event, time);
        for effect in effects {
            match effect {
                Effect::Change(change) => self.shadow.write(change),
                Effect::Send(session, message) => self.receive(session, *message),
                Effect::Close(session, _) => {
                    for peer in self.peers.values_mut() {
                        if peer.session == Some(session) {
                            peer.session = None;
                        }
                    }
                }
                Effect::Wake(_) => {}
            }
        }
        for change in self.core.records() {
            self.shadow.write(change);
        }
        self.core.forget_ended();
        self.core.check();
        answer
    }

    fn submit(&mut self, new: NewJob) -> Uuid {
        let id = new.id;
        self.jobs.push(id);
        self.tell(Event::Submit(Box::new(new)));
        id
    }

    /// An event whose answer does not matter.
    fn tell(&mut self, event: Event) {
        let _ = self.apply(event);
    }

    fn next_id(&self) -> Uuid {
        Uuid::from_u128(self.jobs.len() as u128 + 1)
    }

    fn wait(&mut self, time: Millis) {
        self.now += time;
        self.tell(Event::Tick);
    }

    fn state(&self, id: Uuid) -> JobState {
        self.core.job(id).unwrap().state()
    }

    fn task(&self, id: Uuid, n: u32) -> v1::Task {
        let task = |core: &Core| core.tasks(id, n, 1, &BTreeSet::new()).unwrap().remove(0).1;
        match self.core.has_ended(id) {
            true => task(&self.shadow.one(id)),
            false => task(&self.core),
        }
    }

    /// The tasks of which a worker holds leases, in the order in which they came.
    fn held(&self, worker: u8) -> Vec<String> {
        let leases = self.peers.get(&worker.into()).map(|peer| &peer.leases);
        let keys = leases
            .into_iter()
            .flatten()
            .map(|it| it.key.clone().unwrap().task);
        keys.collect()
    }

    fn receive(&mut self, session: Session, message: Message) {
        let Some(peer) = self.peers.values_mut().find(|p| p.session == Some(session)) else {
            return;
        };
        match message {
            Message::Lease(lease) => {
                assert!(!lease.units.is_empty(), "a lease without work");
                self.shadow.check_stages(&lease);
                peer.leases.push(lease);
            }
            Message::CancelLease(cancel) => peer.leases.retain(|lease| lease.key != cancel.lease),
            Message::Welcome(welcome) => peer.leases.retain(|lease| {
                lease
                    .key
                    .as_ref()
                    .is_some_and(|key| welcome.adopted.contains(key))
            }),
            Message::CommitAck(ack) => {
                let key = ack.lease.unwrap();
                if ack.accepted {
                    let (job, _) = key.task.split_once("/tasks/").unwrap();
                    self.acknowledged.insert((job.to_owned(), ack.unit));
                } else {
                    peer.leases.retain(|lease| lease.key.as_ref() != Some(&key));
                }
            }
            Message::Drain(_) => {}
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Submit { facts, sort, owner } => {
                let mut new = new_job(self.next_id(), facts, sort);
                new.job.owner = ["", "heavy", "light"][owner as usize % 3].to_owned();
                new.job.priority = i32::from(owner) / 3;
                self.submit(new);
            }
            Step::Cancel(n) => {
                if let Some(&id) = self.jobs.get(n as usize % self.jobs.len().max(1)) {
                    self.tell(Event::Cancel(id));
                }
            }
            Step::Requeue(n) => {
                if let Some(&id) = self.jobs.get(n as usize % self.jobs.len().max(1)) {
                    self.tell(Event::Requeue(id));
                }
            }
            Step::AskDrain(worker) => self.tell(Event::AskDrain(format!("w{worker}"))),
            Step::Readmit(worker) => self.tell(Event::Readmit(format!("w{worker}"))),
            Step::Hello {
                worker,
                credits,
                forgets,
            } => {
                self.sessions += 1;
                let session = Session(self.sessions);
                let peer = self.peers.entry(worker.into()).or_default();
                peer.session = Some(session);
                if forgets {
                    peer.leases.clear();
                }
                let held = peer
                    .leases
                    .iter()
                    .filter_map(|lease| LeaseKey::from_proto(lease.key.as_ref()?))
                    .collect();
                let hello = v1::Hello {
                    worker_id: format!("w{worker}"),
                    credits: credits.into(),
                    ..Default::default()
                };
                self.tell(Event::Hello {
                    session,
                    hello: Box::new(hello),
                    held,
                    principal: String::new(),
                });
            }
            Step::Gone(worker) => {
                let peer = self.peers.entry(worker.into()).or_default();
                if let Some(session) = peer.session.take() {
                    self.tell(Event::Gone(session));
                }
            }
            Step::Commit {
                worker,
                unit,
                failed,
                stale,
            } => self.commit(worker, unit, failed, stale),
            Step::End { worker, failure } => {
                let Some((session, lease)) = self.lease_of(worker) else {
                    return;
                };
                let failure = failure.map(|class| v1::Failure {
                    failure_class: class.into(),
                    message: "tried".to_owned(),
                });
                self.peers.get_mut(&worker.into()).unwrap().leases.remove(0);
                let lease = LeaseKey::from_proto(lease.key.as_ref().unwrap()).unwrap();
                self.tell(Event::TaskEnd {
                    session,
                    lease,
                    failure,
                });
            }
            Step::Drain(worker) => {
                if let Some(session) = self.peers.entry(worker.into()).or_default().session {
                    self.tell(Event::Drain(session));
                }
            }
            Step::Heartbeat(worker) => {
                let peer = self.peers.entry(worker.into()).or_default();
                if let Some(session) = peer.session {
                    let key = |it: &v1::Lease| LeaseKey::from_proto(it.key.as_ref()?);
                    let keys = peer.leases.iter().filter_map(key);
                    let leases = keys.map(|key| (key, progress(1))).collect();
                    self.tell(Event::Heartbeat {
                        session,
                        leases,
                        loaded: Vec::new(),
                    });
                }
            }
            Step::Wait(time) => {
                self.now += Millis::from(time);
                self.tell(Event::Tick);
            }
            Step::SetClock(by) => self.set = i64::from(by) * 10,
            Step::Restart => self.restart(),
        }
    }

    fn lease_of(&self, worker: u8) -> Option<(Session, v1::Lease)> {
        let peer = self.peers.get(&worker.into())?;
        Some((peer.session?, peer.leases.first()?.clone()))
    }

    fn commit(&mut self, worker: u8, unit: u8, failed: bool, stale: bool) {
        let Some((session, lease)) = self.lease_of(worker) else {
            return;
        };
        let unit = &lease.units[unit as usize % lease.units.len()];
        let mut key = LeaseKey::from_proto(lease.key.as_ref().unwrap()).unwrap();
        if stale {
            key.epoch -= 1;
        }
        let outcome = match failed {
            true => v1::unit_result::Outcome::Failure(v1::Failure::default()),
            false => outcome(unit),
        };
        let result = v1::UnitResult {
            unit: unit.unit,
            outcome: Some(outcome),
        };
        let bytes = bytes::Bytes::from(prost::Message::encode_to_vec(&result));
        let result = CommittedResult::new(bytes, result, None);
        let before = self.shadow.results.len();
        let known = self.shadow.results.contains_key(&(key.job, unit.unit));
        self.tell(Event::Commit {
            session,
            lease: key,
            unit: unit.unit,
            result,
        });
        if stale && !known {
            assert_eq!(
                self.shadow.results.len(),
                before,
                "I2: a stale commit was taken"
            );
        }
    }

    /// The coordinator is killed and started again. Streams break, leases stay.
    fn restart(&mut self) {
        let before = self.core.dump();
        self.core = self.shadow.restore(self.now);
        self.core.check();
        assert_eq!(self.core.dump(), before, "I10");
        for peer in self.peers.values_mut() {
            peer.session = None;
        }
    }

    /// A worker does all that it holds.
    fn work_off(&mut self, worker: u8) {
        while let Some((_, lease)) = self.lease_of(worker) {
            for unit in 0..lease.units.len() as u8 {
                self.commit(worker, unit, false, false);
            }
            if self
                .lease_of(worker)
                .is_some_and(|(_, after)| after == lease)
            {
                self.run(Step::End {
                    worker,
                    failure: None,
                });
            }
        }
    }

    /// One good worker comes and everything ends.
    fn finish(&mut self) {
        for _ in 0..2_000 {
            self.run(Step::Wait(1_100));
            for n in 0..self.jobs.len() as u8 {
                self.run(Step::Requeue(n));
            }
            if self.jobs.iter().all(|id| is_terminal(self.state(*id))) {
                return;
            }
            self.run(Step::Hello {
                worker: 9,
                credits: 3,
                forgets: false,
            });
            self.work_off(9);
        }
        panic!("the jobs do not end: {:?}", self.core);
    }
}

/// What fits a unit.
fn outcome(unit: &v1::LeasedUnit) -> v1::unit_result::Outcome {
    use v1::leased_unit::Spec as Unit;
    use v1::unit_result::Outcome;
    let digest = || crate::objects::Digest::of(b"").to_string();
    match unit.spec.clone().unwrap() {
        Unit::Noise(_) => Outcome::NoiseLevel(v1::NoiseLevel { scale: 0.5 }),
        Unit::Trace(asked) => Outcome::Grid(v1::Grid {
            fact: asked.fact,
            kind: asked.kind,
            correct_prediction: true,
            layers: 1,
            ..Default::default()
        }),
        Unit::Stats(_) => Outcome::StatsShard(v1::StatsShard {
            sums: [1, 2]
                .map(|layer| v1::stats_shard::Sum {
                    layer,
                    digest: digest(),
                    ..Default::default()
                })
                .to_vec(),
            ..Default::default()
        }),
        Unit::StatsSum(asked) => Outcome::StatsSum(v1::StatsSum {
            layer: asked.layer,
            digest: digest(),
            ..Default::default()
        }),
        Unit::Edit(asked) => Outcome::Edit(v1::EditOutcome {
            probes: vec![v1::EditProbe {
                kind: v1::EditProbeKind::Rewrite as i32,
                prompt: crate::edit::Request::from(asked.request.clone().unwrap_or_default())
                    .text(),
                ..Default::default()
            }],
            edit: Some(v1::Edit {
                figures: ["rewrite.new.after", "rewrite.new.before"]
                    .map(|key| v1::NamedNumber {
                        key: key.into(),
                        value: 0.0,
                    })
                    .to_vec(),
                requests: asked.request.into_iter().collect(),
                factors: vec![v1::LowRankFactor::default()],
                ..Default::default()
            }),
            ..Default::default()
        }),
        other => panic!("no job here has a unit like {other:?}"),
    }
}

/// A world with a job of so many facts, each a task of its own.
fn world_with_a_job(facts: u8) -> (World, Uuid) {
    let mut world = World::new();
    let id = world.submit(new_job(Uuid::from_u128(1), facts, Sort::Plain));
    (world, id)
}

fn hello(worker: u8, credits: u8) -> Step {
    Step::Hello {
        worker,
        credits,
        forgets: true,
    }
}

fn failure(worker: u8, class: FailureClass) -> Step {
    Step::End {
        worker,
        failure: Some(class as u8),
    }
}
