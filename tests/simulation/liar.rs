//! A worker that lies: it speaks the protocol, and says what is not so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use palimpsest::client::Client;
use palimpsest::proto::v1::connect_request::Message as Says;
use palimpsest::proto::v1::connect_response::Message as Hears;
use palimpsest::proto::v1::unit_result::Outcome;
use palimpsest::proto::v1::{self, FailureClass, ListTasksRequest, TaskState};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::dice::Dice;
use super::site::Site;
use super::{engine, network};

type Key = (String, u64);

/// Lies until there is peace.
pub async fn run(site: Arc<Site>, host: String) -> turmoil::Result {
    let generation = site.generation(&host);
    let mut dice = site.dice(&format!("{host}-{generation}"));
    let mut names = 0;
    while !site.is_peaceful() {
        // Sometimes under its old name, as if it had only lost its stream.
        if dice.once_in(2) {
            names += 1;
        }
        let name = format!("{host}-{generation}-{names}");
        Liar::new(&site, name, &mut dice).tell().await;
        sleep(Duration::from_millis(dice.among(10..=800))).await;
    }
    // Its stream is closed now; what it held goes to others.
    std::future::pending().await
}

struct Liar<'a> {
    site: &'a Arc<Site>,
    name: String,
    dice: &'a mut Dice,
    client: Client,
    out: mpsc::UnboundedSender<v1::ConnectRequest>,
    requests: Option<mpsc::UnboundedReceiver<v1::ConnectRequest>>,
    leases: BTreeMap<Key, v1::Lease>,
    /// Most credits it has granted on this stream.
    credits: u32,
    /// What was sent and not answered, by lease and unit.
    unanswered: BTreeMap<(Key, u64), VecDeque<Vec<u8>>>,
    /// What it was told to be a unit's result.
    taken: Vec<(Key, u64, Vec<u8>)>,
    forgeries: u64,
}

impl<'a> Liar<'a> {
    fn new(site: &'a Arc<Site>, name: String, dice: &'a mut Dice) -> Self {
        let (out, requests) = mpsc::unbounded_channel();
        Self {
            site,
            name,
            dice,
            client: network::client(site.theme.coordinators()),
            out,
            requests: Some(requests),
            leases: BTreeMap::new(),
            credits: 0,
            unanswered: BTreeMap::new(),
            taken: Vec::new(),
            forgeries: 0,
        }
    }

    /// One stream, to its end.
    async fn tell(&mut self) {
        self.credits = self.dice.among(1..=4) as u32;
        let held = match self.dice.once_in(3) {
            true => vec![v1::LeaseKey {
                task: format!("jobs/{}/tasks/0", uuid::Uuid::nil()),
                epoch: self.dice.below(100),
            }],
            false => Vec::new(),
        };
        self.say(Says::Hello(v1::Hello {
            worker_id: self.name.clone(),
            protocol: 1,
            held,
            credits: self.credits,
            ..Default::default()
        }));
        let requests = UnboundedReceiverStream::new(self.requests.take().expect("once"));
        let mut workers = self.client.workers();
        let opened = timeout(Duration::from_secs(3), workers.connect(requests)).await;
        let Ok(Ok(response)) = opened else {
            return;
        };
        let mut inbox = response.into_inner();
        self.site.say(&self.name, "lies");
        while !self.site.is_peaceful() {
            let pause = Duration::from_millis(self.dice.among(5..=150));
            match timeout(pause, inbox.message()).await {
                Ok(Ok(Some(response))) => self.hear(response),
                Ok(Ok(None)) => return,
                Ok(Err(status)) => {
                    return self
                        .site
                        .say(&self.name, format!("is told {:?}", status.code()));
                }
                Err(_) => {
                    if !self.misbehave().await {
                        return;
                    }
                }
            }
        }
    }

    fn hear(&mut self, response: v1::ConnectResponse) {
        match response.message {
            Some(Hears::Lease(lease)) => {
                let Some(key) = lease.key.clone().map(|key| (key.task, key.epoch)) else {
                    return;
                };
                let units: Vec<u64> = lease.units.iter().map(|unit| unit.unit).collect();
                self.site
                    .say(&self.name, format!("holds {units:?}, epoch {}", key.1));
                self.leases.insert(key, lease);
                let (held, credits) = (self.leases.len(), self.credits);
                let mut ledger = self.site.ledger.lock().expect("no panic");
                ledger.must(held <= credits as usize, || {
                    format!("I6: {held} leases for {credits} credits")
                });
            }
            Some(Hears::CancelLease(cancel)) => {
                let key = cancel.lease.map(|key| (key.task, key.epoch));
                self.leases.remove(&key.unwrap_or_default());
            }
            Some(Hears::CommitAck(ack)) => {
                let key = ack
                    .lease
                    .map(|key| (key.task, key.epoch))
                    .unwrap_or_default();
                let sent = self
                    .unanswered
                    .get_mut(&(key.clone(), ack.unit))
                    .and_then(VecDeque::pop_front);
                let mut ledger = self.site.ledger.lock().expect("no panic");
                ledger.must(sent.is_some(), || {
                    format!("nothing was sent for {ack:?}", ack = (&key, ack.unit))
                });
                let (job, bytes) = (job_of(&key.0), sent.unwrap_or_default());
                if ack.accepted {
                    ledger.acknowledge(job, ack.unit, &bytes);
                    drop(ledger);
                    self.site
                        .say(&self.name, format!("got unit {} taken", ack.unit));
                    self.taken.push((key, ack.unit, bytes));
                } else {
                    // The lease is stale, the protocol says.
                    self.leases.remove(&key);
                }
            }
            _ => {}
        }
    }

    /// Says something that may not be so. Gives false when the stream is over.
    async fn misbehave(&mut self) -> bool {
        let held: Vec<Key> = self.leases.keys().cloned().collect();
        let lease = match held.is_empty() {
            true => None,
            false => self.leases.get(self.dice.pick(&held)).cloned(),
        };
        match (self.dice.below(16), lease) {
            (0..=3, Some(lease)) => self.commit_fairly(&lease, false),
            (4, Some(lease)) => self.commit_fairly(&lease, true),
            (5, _) => self.commit_again(),
            (6, Some(lease)) => self.commit_with_a_wrong_epoch(&lease),
            (7, Some(lease)) => self.commit_what_was_not_leased(&lease),
            (8, _) => self.commit_for_another().await,
            (9, Some(lease)) => self.end_early(&lease),
            (10, lease) => self.boast(lease),
            (11, _) => {
                let credits = *self.dice.pick(&[0, 1, 2, 8, u32::MAX]);
                self.credits = self.credits.max(credits);
                self.say(Says::Credits(v1::Credits { credits }));
            }
            (12, _) if self.dice.once_in(3) => return self.talk_nonsense(),
            (13, _) if self.dice.once_in(3) => {
                self.site.say(&self.name, "falls silent");
                sleep(Duration::from_millis(self.dice.among(500..=4_000))).await;
            }
            (14, _) if self.dice.once_in(4) => self.say(Says::Drain(v1::Drain {
                reason: "so it says".to_owned(),
            })),
            (15, _) if self.dice.once_in(4) => return false,
            _ => self.say(Says::Heartbeat(v1::Heartbeat::default())),
        }
        true
    }

    /// Commits a unit of a lease, with its result or, `forged`, with another.
    fn commit_fairly(&mut self, lease: &v1::Lease, forged: bool) {
        let results = engine::results(lease);
        if results.is_empty() {
            return;
        }
        let mut result = self.dice.pick(&results).clone();
        // The scale of the noise decides every later result: forged, all of them would differ.
        let preparatory = matches!(result.outcome, Some(Outcome::NoiseLevel(_)));
        if forged && !preparatory {
            self.alter(&mut result);
        }
        self.commit(key_of(lease), &result, true);
        if self.dice.once_in(3) {
            self.commit(key_of(lease), &result, true);
        }
    }

    /// Commits a unit that is committed, with the same result or another.
    fn commit_again(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let (key, unit, bytes) = self.dice.pick(&self.taken).clone();
        let mut result = v1::UnitResult::decode(bytes.as_slice()).expect("its own");
        let other = self.dice.once_in(2);
        if other {
            self.alter(&mut result);
        }
        debug_assert_eq!(result.unit, unit);
        self.commit(key, &result, !other);
    }

    fn commit_with_a_wrong_epoch(&mut self, lease: &v1::Lease) {
        let (task, epoch) = key_of(lease);
        let epoch = match self.dice.below(3) {
            0 => epoch.saturating_sub(1),
            1 => epoch + 1,
            _ => u64::MAX,
        };
        self.commit_foul(lease, (task, epoch), None);
    }

    fn commit_what_was_not_leased(&mut self, lease: &v1::Lease) {
        let leased: Vec<u64> = lease.units.iter().map(|unit| unit.unit).collect();
        let unit = *self.dice.pick(&[0, 1, 5, 17, 1_000_000, u64::MAX]);
        if !leased.contains(&unit) {
            self.commit_foul(lease, key_of(lease), Some(unit));
        }
    }

    /// Learns what another worker holds, and commits that.
    async fn commit_for_another(&mut self) {
        let names = self.site.ledger.lock().expect("no panic").names();
        if names.is_empty() {
            return;
        }
        let parent = self.dice.pick(&names).clone();
        let request = ListTasksRequest {
            parent,
            ..Default::default()
        };
        let mut jobs = self.client.jobs();
        let answer = timeout(Duration::from_secs(1), jobs.list_tasks(request)).await;
        let Ok(Ok(response)) = answer else {
            return;
        };
        let own = format!("workers/{}", self.name);
        let tasks = response.into_inner().tasks;
        let other = tasks
            .into_iter()
            .find(|task| task.state() == TaskState::Leased && task.worker != own);
        if let Some(task) = other {
            let key = (task.name, task.epoch);
            self.commit_foul(&v1::Lease::default(), key, Some(task.first_unit));
        }
    }

    /// Commits what must not be taken, whatever happens.
    fn commit_foul(&mut self, lease: &v1::Lease, key: Key, unit: Option<u64>) {
        let mut result = engine::results(lease)
            .into_iter()
            .next()
            .unwrap_or_default();
        result.unit = unit.unwrap_or(result.unit);
        if result.outcome.is_none() {
            result.outcome = Some(Outcome::Completion(v1::Completion::default()));
        }
        self.alter(&mut result);
        self.commit(key, &result, false);
    }

    fn end_early(&mut self, lease: &v1::Lease) {
        let key = key_of(lease);
        let classes = [
            None,
            Some(FailureClass::Unspecified),
            Some(FailureClass::Transient),
            Some(FailureClass::WorkerLost),
            Some(FailureClass::Preempted),
            Some(FailureClass::Backpressure),
            Some(FailureClass::OutOfMemory),
        ];
        let class = *self.dice.pick(&classes);
        self.site
            .say(&self.name, format!("ends epoch {} as {class:?}", key.1));
        self.leases.remove(&key);
        self.say(Says::TaskEnd(v1::TaskEnd {
            lease: Some(to_proto(&key)),
            failure: class.map(|class| v1::Failure {
                failure_class: class as i32,
                message: "so it says".to_owned(),
            }),
            trace_parent: "00-of-no-trace".to_owned(),
        }));
    }

    /// Reports progress that cannot be, of leases it has or has not.
    fn boast(&mut self, lease: Option<v1::Lease>) {
        let rates = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300];
        let key = lease.map_or((String::from("jobs/x/tasks/y"), 0), |lease| key_of(&lease));
        let key = match self.dice.below(3) {
            0 => (format!("jobs/{}/tasks/7", uuid::Uuid::nil()), 9),
            _ if key.0 == "jobs/x/tasks/y" => return,
            _ => key,
        };
        let progress = v1::LeaseProgress {
            lease: Some(to_proto(&key)),
            steps: u64::MAX,
            steps_per_second: *self.dice.pick(&rates),
            edit: None,
        };
        self.say(Says::Heartbeat(v1::Heartbeat {
            leases: vec![progress],
            loaded_models: vec!["models/none".to_owned()],
        }));
    }

    /// Sends what is not of the protocol. The coordinator ends the stream.
    fn talk_nonsense(&mut self) -> bool {
        let nonsense = [
            Says::Hello(v1::Hello::default()),
            Says::Commit(v1::Commit {
                result: b"\xff\xff\xff".to_vec(),
                ..Default::default()
            }),
            Says::TaskEnd(v1::TaskEnd {
                lease: Some(v1::LeaseKey {
                    task: "tasks/none".to_owned(),
                    epoch: 1,
                }),
                failure: None,
                trace_parent: String::new(),
            }),
        ];
        let nonsense = self.dice.pick(&nonsense).clone();
        self.site.say(&self.name, "talks nonsense");
        self.say(nonsense);
        true
    }

    /// Makes a result one that nobody else would send.
    fn alter(&mut self, result: &mut v1::UnitResult) {
        self.forgeries += 1;
        let mark = format!("forged by {} as number {}", self.name, self.forgeries);
        match &mut result.outcome {
            Some(Outcome::Grid(grid)) => grid.answer = mark,
            Some(Outcome::Completion(completion)) => completion.text = mark,
            Some(Outcome::NoiseLevel(level)) => level.scale += self.forgeries as f64,
            Some(Outcome::Failure(failure)) => failure.message = mark,
            _ => {}
        }
    }

    fn commit(&mut self, key: Key, result: &v1::UnitResult, fair: bool) {
        let bytes = result.encode_to_vec();
        let mut ledger = self.site.ledger.lock().expect("no panic");
        ledger.forge(job_of(&key.0), result.unit, &bytes, fair);
        drop(ledger);
        let what = if fair { "commits" } else { "commits foully" };
        self.site.say(
            &self.name,
            format!("{what} {}, epoch {}", result.unit, key.1),
        );
        let sent = self
            .unanswered
            .entry((key.clone(), result.unit))
            .or_default();
        sent.push_back(bytes.clone());
        self.say(Says::Commit(v1::Commit {
            lease: Some(to_proto(&key)),
            unit: result.unit,
            result: bytes,
            fingerprint: None,
        }));
    }

    fn say(&self, message: Says) {
        // A closed stream is noticed by its other half.
        let _ = self.out.send(v1::ConnectRequest {
            message: Some(message),
        });
    }
}

fn key_of(lease: &v1::Lease) -> Key {
    let key = lease.key.clone().unwrap_or_default();
    (key.task, key.epoch)
}

fn to_proto(key: &Key) -> v1::LeaseKey {
    v1::LeaseKey {
        task: key.0.clone(),
        epoch: key.1,
    }
}

/// The job of a task.
fn job_of(task: &str) -> &str {
    task.split("/tasks/").next().unwrap_or_default()
}
