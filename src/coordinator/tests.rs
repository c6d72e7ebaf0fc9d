//! Random histories of the core: the invariants hold after every event, nothing acknowledged is
//! ever taken back, and a core rebuilt from what was written is the one that wrote it (I10).

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::proto::v1::connect_response::Message;
use crate::proto::v1::{self, FailureClass, JobState};
use crate::store::{Change, JobRecord, ResultRecord, Snapshot, SpecRecord, TaskRecord};

const LIMITS: Limits = Limits {
    heartbeat: 100,
    worker_timeout: 1_000,
    attempts: 3,
    poison: 2,
};

/// What the store would hold.
#[derive(Clone, Debug, Default)]
struct Shadow {
    specs: BTreeMap<Uuid, SpecRecord>,
    jobs: BTreeMap<Uuid, JobRecord>,
    tasks: BTreeMap<(Uuid, u32), TaskRecord>,
    results: BTreeMap<(Uuid, u64), (ResultRecord, bytes::Bytes)>,
    events: BTreeMap<Uuid, u64>,
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
            }
            Change::Epoch(epoch) => {
                assert!(epoch > self.epoch, "epochs only grow");
                self.epoch = epoch;
            }
            Change::Divergence(..) | Change::Model(..) | Change::Record(_) => {}
        }
    }

    fn snapshot(&self) -> Snapshot {
        let digest = |bytes: &bytes::Bytes| crate::objects::Digest::of(bytes).prefix();
        Snapshot {
            jobs: self
                .jobs
                .iter()
                .map(|(id, r)| (*id, r.clone(), self.specs[id].clone()))
                .collect(),
            tasks: self
                .tasks
                .iter()
                .map(|((id, n), r)| (*id, *n, r.clone()))
                .collect(),
            units: self
                .results
                .iter()
                .map(|((id, unit), (r, bytes))| (*id, *unit, digest(bytes), r.failed))
                .collect(),
            epoch: self.epoch,
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
    sessions: u64,
    jobs: Vec<Uuid>,
    peers: BTreeMap<usize, Peer>,
    acknowledged: BTreeSet<(String, u64)>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Submit {
        facts: u8,
        spread: bool,
    },
    Cancel(u8),
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
    Heartbeat(u8),
    Wait(u16),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..6u8, any::<bool>()).prop_map(|(facts, spread)| Step::Submit { facts, spread }),
        1 => any::<u8>().prop_map(Step::Cancel),
        4 => (0..4u8, 0..4u8, any::<bool>())
            .prop_map(|(worker, credits, forgets)| Step::Hello { worker, credits, forgets }),
        2 => (0..4u8).prop_map(Step::Gone),
        16 => (0..4u8, any::<u8>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(worker, unit, failed, stale)| Step::Commit { worker, unit, failed, stale }),
        8 => (0..4u8, prop::option::weighted(0.3, 1..7u8))
            .prop_map(|(worker, failure)| Step::End { worker, failure }),
        1 => (0..4u8).prop_map(Step::Drain),
        2 => (0..4u8).prop_map(Step::Heartbeat),
        4 => (0..1500u16).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

fn new_job(id: Uuid, facts: u8, spread: bool) -> NewJob {
    let fact = |n| v1::Fact {
        prompt: format!("fact {n} is"),
        subject: format!("fact {n}"),
        ..Default::default()
    };
    let spec = v1::TraceSpec {
        facts: (0..facts).map(fact).collect(),
        kinds: vec![1, 2],
        noise: if spread { "s3" } else { "0.1" }.to_owned(),
        samples: 10,
        window: 10,
        ..Default::default()
    };
    let job = v1::Job {
        spec: Some(v1::job::Spec::Trace(spec)),
        ..Default::default()
    };
    // So dear that every fact is a task of its own.
    let shape = v1::model::Shape {
        layers: 48,
        width: 1600,
        vocabulary: 50_000,
        block_parameters: 1 << 33,
        ..Default::default()
    };
    NewJob {
        id,
        model: v1::Model::default(),
        tasks: tasks(&job, &shape),
        job,
        request_id: String::new(),
        request_digest: String::new(),
    }
}

impl World {
    fn new() -> Self {
        Self {
            core: Core::new(LIMITS),
            shadow: Shadow::default(),
            now: 1_000_000,
            sessions: 0,
            jobs: Vec::new(),
            peers: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    fn apply(&mut self, event: Event) {
        let (_, effects) = self.core.apply(event, self.now);
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
        self.core.check();
    }

    fn receive(&mut self, session: Session, message: Message) {
        let Some(peer) = self.peers.values_mut().find(|p| p.session == Some(session)) else {
            return;
        };
        match message {
            Message::Lease(lease) => {
                assert!(!lease.units.is_empty(), "a lease without work");
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
            Step::Submit { facts, spread } => {
                let id = Uuid::from_u128(self.jobs.len() as u128 + 1);
                self.jobs.push(id);
                self.apply(Event::Submit(Box::new(new_job(id, facts, spread))));
            }
            Step::Cancel(n) => {
                if let Some(&id) = self.jobs.get(n as usize % self.jobs.len().max(1)) {
                    self.apply(Event::Cancel(id));
                }
            }
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
                self.apply(Event::Hello {
                    session,
                    hello: Box::new(hello),
                    held,
                });
            }
            Step::Gone(worker) => {
                let peer = self.peers.entry(worker.into()).or_default();
                if let Some(session) = peer.session.take() {
                    self.apply(Event::Gone(session));
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
                self.apply(Event::TaskEnd {
                    session,
                    lease,
                    failure,
                });
            }
            Step::Drain(worker) => {
                if let Some(session) = self.peers.entry(worker.into()).or_default().session {
                    self.apply(Event::Drain(session));
                }
            }
            Step::Heartbeat(worker) => {
                if let Some((session, lease)) = self.lease_of(worker) {
                    let lease = LeaseKey::from_proto(lease.key.as_ref().unwrap()).unwrap();
                    let leases = vec![(lease, 1, 1.0)];
                    self.apply(Event::Heartbeat {
                        session,
                        leases,
                        loaded: Vec::new(),
                    });
                }
            }
            Step::Wait(time) => {
                self.now += Millis::from(time);
                self.apply(Event::Tick);
            }
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
        let outcome = match &unit.spec {
            _ if failed => v1::unit_result::Outcome::Failure(v1::Failure::default()),
            Some(v1::leased_unit::Spec::Noise(_)) => {
                v1::unit_result::Outcome::NoiseLevel(v1::NoiseLevel { scale: 0.5 })
            }
            _ => v1::unit_result::Outcome::Grid(v1::Grid::default()),
        };
        let result = v1::UnitResult {
            unit: unit.unit,
            outcome: Some(outcome),
        };
        let bytes = bytes::Bytes::from(prost::Message::encode_to_vec(&result));
        let result = CommittedResult::new(bytes, &result, None);
        let before = self.shadow.results.len();
        let known = self.shadow.results.contains_key(&(key.job, unit.unit));
        self.apply(Event::Commit {
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
        let views = |core: &Core| {
            let jobs = core.jobs_before(None, usize::MAX);
            let tasks = jobs
                .iter()
                .map(|(id, _)| core.tasks(*id, 0, usize::MAX))
                .collect::<Vec<_>>();
            (jobs, tasks)
        };
        let before = views(&self.core);
        self.core = Core::restore(
            LIMITS,
            self.shadow.snapshot(),
            |_| v1::Model::default(),
            self.now,
        );
        self.core.check();
        assert_eq!(views(&self.core), before, "I10");
        for peer in self.peers.values_mut() {
            peer.session = None;
        }
    }

    /// One good worker comes and everything ends.
    fn finish(&mut self) {
        for _ in 0..2_000 {
            self.run(Step::Wait(1_100));
            let open = self
                .jobs
                .iter()
                .any(|id| !is_terminal(self.core.job(*id).unwrap().state()));
            if !open {
                return;
            }
            self.run(Step::Hello {
                worker: 9,
                credits: 3,
                forgets: false,
            });
            while let Some((_, lease)) = self.lease_of(9) {
                for unit in 0..lease.units.len() as u8 {
                    self.commit(9, unit, false, false);
                }
                if self.lease_of(9).is_some_and(|(_, after)| after == lease) {
                    self.run(Step::End {
                        worker: 9,
                        failure: None,
                    });
                }
            }
        }
        panic!("the jobs do not end: {:?}", self.core);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_invariants_and_comes_to_an_end(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        world.finish();
        world.restart();
        for (job, unit) in &world.acknowledged {
            let id: Uuid = job.strip_prefix("jobs/").unwrap().parse().unwrap();
            prop_assert!(world.shadow.results.contains_key(&(id, *unit)), "I3: {job} unit {unit}");
        }
        for id in &world.jobs {
            let job = world.core.job(*id).unwrap();
            let counts = job.counts.unwrap();
            if job.state() != JobState::Cancelled {
                prop_assert_eq!(counts.units_done, counts.units, "every unit has ended");
            }
        }
    }
}

fn world_with_a_job(facts: u8) -> (World, Uuid) {
    let mut world = World::new();
    world.run(Step::Submit {
        facts,
        spread: false,
    });
    let id = world.jobs[0];
    (world, id)
}

#[test]
fn a_task_that_loses_several_distinct_workers_is_poison() {
    let (mut world, id) = world_with_a_job(1);
    for worker in 0..2 {
        world.run(Step::Hello {
            worker,
            credits: 1,
            forgets: true,
        });
        world.run(Step::Gone(worker));
        world.run(Step::Wait(1_200));
    }
    let task = world.core.tasks(id, 0, 1).unwrap().remove(0);
    assert_eq!(task.state(), v1::TaskState::Failed);
    assert!(
        task.last_failure.contains("w0, w1"),
        "{}",
        task.last_failure
    );
    assert_eq!(world.core.job(id).unwrap().state(), JobState::Failed);
}

#[test]
fn a_task_handed_back_any_number_of_times_is_not_failed() {
    let (mut world, id) = world_with_a_job(1);
    world.run(Step::Hello {
        worker: 0,
        credits: 1,
        forgets: true,
    });
    for _ in 0..50 {
        world.run(Step::End {
            worker: 0,
            failure: Some(FailureClass::Preempted as u8),
        });
    }
    assert_eq!(
        world.core.tasks(id, 0, 1).unwrap()[0].state(),
        v1::TaskState::Leased
    );
}

#[test]
fn a_task_that_keeps_failing_fails_after_its_attempts_and_says_why() {
    let (mut world, id) = world_with_a_job(1);
    world.run(Step::Hello {
        worker: 0,
        credits: 1,
        forgets: true,
    });
    for _ in 0..LIMITS.attempts {
        world.run(Step::End {
            worker: 0,
            failure: Some(FailureClass::Transient as u8),
        });
        for _ in 0..100 {
            world.run(Step::Heartbeat(0));
            world.run(Step::Wait(900));
            let session = world.peers[&0].session.unwrap();
            world.apply(Event::Heartbeat {
                session,
                leases: Vec::new(),
                loaded: Vec::new(),
            });
        }
    }
    assert_eq!(
        world.core.tasks(id, 0, 1).unwrap()[0].state(),
        v1::TaskState::Failed
    );
    assert!(
        world
            .core
            .explain(id)
            .unwrap()
            .iter()
            .any(|reason| reason.contains("tried"))
    );
}

#[test]
fn a_second_result_of_a_unit_is_accepted_if_equal_and_a_divergence_if_not() {
    let (mut world, id) = world_with_a_job(1);
    world.run(Step::Hello {
        worker: 0,
        credits: 1,
        forgets: true,
    });
    let (session, lease) = world.lease_of(0).unwrap();
    let key = LeaseKey::from_proto(lease.key.as_ref().unwrap()).unwrap();
    let mut accepted = Vec::new();
    let mut divergences = 0;
    for text in ["one", "one", "two"] {
        let grid = v1::Grid {
            answer: text.to_owned(),
            ..Default::default()
        };
        let outcome = Some(v1::unit_result::Outcome::Grid(grid));
        let result = v1::UnitResult { unit: 0, outcome };
        let bytes = bytes::Bytes::from(prost::Message::encode_to_vec(&result));
        let result = CommittedResult::new(bytes, &result, None);
        let event = Event::Commit {
            session,
            lease: key,
            unit: 0,
            result,
        };
        for effect in world.core.apply(event, world.now).1 {
            match effect {
                Effect::Change(Change::Divergence(job, unit, _)) => {
                    assert_eq!((job, unit), (id, 0));
                    divergences += 1;
                }
                Effect::Send(_, message) => {
                    if let Message::CommitAck(ack) = *message {
                        accepted.push(ack.accepted);
                    }
                }
                _ => {}
            }
        }
    }
    assert_eq!((accepted, divergences), (vec![true, true, false], 1));
}

#[test]
fn a_request_repeated_with_its_id_makes_one_job() {
    let mut core = Core::new(LIMITS);
    let submit = |core: &mut Core, id: u128, digest: &str| {
        let new = NewJob {
            request_id: "again".to_owned(),
            request_digest: digest.to_owned(),
            ..new_job(Uuid::from_u128(id), 1, false)
        };
        core.apply(Event::Submit(Box::new(new)), 0).0
    };
    assert_eq!(submit(&mut core, 1, "a"), Ok(Some(Uuid::from_u128(1))));
    assert_eq!(submit(&mut core, 2, "a"), Ok(Some(Uuid::from_u128(1))));
    assert!(matches!(
        submit(&mut core, 3, "b"),
        Err(Refusal::RequestIdReused { .. })
    ));
    assert_eq!(core.jobs_before(None, 10).len(), 1);
}
