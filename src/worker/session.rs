//! The lease loop: one stream to the coordinator, opened again whenever it breaks.
#![allow(clippy::disallowed_methods)] // the owner of the worker's clock and tasks

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::{Instrument, Span};

use super::computing::Computing;
use super::engine::{Engine, Files, failure};
use super::files;
use crate::client::Client;
use crate::objects::ObjectStore;
use crate::proto::v1::connect_request::Message as Request;
use crate::proto::v1::connect_response::Message as Response;
use crate::proto::v1::{self, FailureClass};
use crate::telemetry::metrics::{
    WORKER_CONNECTED, WORKER_FAILURES, WORKER_LEASE_SECONDS, WORKER_LEASES, WORKER_RECONNECTS,
    WORKER_UNITS,
};
use crate::telemetry::traces;
use crate::wire::class_name;

/// The protocol that this worker speaks.
const PROTOCOL: u32 = 1;
/// First and longest wait before a broken stream is opened again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// How long it takes to hand leases back, ahead of the time when the worker is taken away.
const HAND_BACK: Duration = Duration::from_secs(5);

/// Steps of an edit are told at once, but no more often than this.
const STEP_PACE: Duration = Duration::from_millis(200);

/// How a worker is to behave.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its identifier: new for every process.
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
}

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator does not want this worker.
    #[error("the coordinator refused this worker: {0}")]
    Refused(String),
    /// The engine's thread panicked, or could not be started.
    #[error("the engine failed: {0}")]
    Engine(String),
}

/// Works until `shutdown`, then hands back what does not finish in time.
///
/// # Errors
/// [`Error::Refused`] when another attempt would be refused again, [`Error::Engine`].
pub async fn run(
    client: Client,
    objects: ObjectStore,
    engine: Box<dyn Engine>,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let (to_engine, engine_inbox) = mpsc::unbounded_channel();
    let (reports, engine_outbox) = mpsc::unbounded_channel();
    let capabilities = engine.capabilities();
    let loaded = Arc::new(std::sync::Mutex::new(engine.loaded()));
    let computing = Computing::start(engine, engine_inbox, reports, loaded.clone())
        .map_err(|error| Error::Engine(error.to_string()))?;
    let mut session = Session {
        client,
        objects,
        options,
        capabilities,
        loaded,
        leases: BTreeMap::new(),
        queue: VecDeque::new(),
        running: None,
        told: None,
        unacknowledged: BTreeMap::new(),
        to_engine,
        engine_outbox,
        draining: false,
        drain_deadline: None,
        idle_deadline: None,
        fetched: mpsc::unbounded_channel(),
    };
    let ended = session.work(shutdown).await;
    for lease in session.leases.values() {
        lease.shared.cancelled.store(true, Ordering::Relaxed);
    }
    drop(session);
    let joined = computing.join().await;
    ended?;
    joined
}

/// A lease's name on the wire.
pub(super) type Key = (String, u64);

/// What the session and the engine's thread both see of a lease.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) cancelled: AtomicBool,
    /// Steps since the last commit.
    pub(super) steps: AtomicU64,
    /// Steps in all.
    pub(super) total: AtomicU64,
    /// The newest steps of the edit that is being computed.
    pub(super) edit: std::sync::Mutex<Option<v1::EditProgress>>,
}

struct Held {
    lease: Arc<v1::Lease>,
    shared: Arc<Shared>,
    /// Set when the engine is through with it; sent once every commit is acknowledged.
    ended: Option<v1::TaskEnd>,
    /// When the engine began with it.
    begun: Option<Instant>,
    /// Its span, and that of the engine's work on it.
    span: Span,
    computing: Option<Span>,
}

pub(super) struct Work {
    pub(super) key: Key,
    pub(super) lease: Arc<v1::Lease>,
    pub(super) files: Files,
    pub(super) shared: Arc<Shared>,
}

pub(super) enum Report {
    Commit(v1::Commit),
    Ended(Key, Option<v1::Failure>),
    /// There is more to tell of a lease than at the last heartbeat.
    Step,
    /// Bytes to be stored with the coordinator, and who waits for their digest.
    Put(Vec<u8>, std::sync::mpsc::Sender<Result<String, String>>),
}

/// The files of a lease, and the lease with all that it only named.
type Fetched = (Key, Result<(Files, v1::Lease), files::Error>);

struct Session {
    client: Client,
    objects: ObjectStore,
    options: Options,
    capabilities: v1::Capabilities,
    loaded: Arc<std::sync::Mutex<Vec<String>>>,
    leases: BTreeMap<Key, Held>,
    /// Leases that wait for the engine, in the order in which they came.
    queue: VecDeque<(Key, Option<Files>)>,
    running: Option<Key>,
    /// When the last heartbeat was sent.
    told: Option<Instant>,
    /// Commits that were not acknowledged, by lease and unit: repeated on every new stream.
    unacknowledged: BTreeMap<(Key, u64), v1::Commit>,
    to_engine: mpsc::UnboundedSender<Work>,
    engine_outbox: mpsc::UnboundedReceiver<Report>,
    draining: bool,
    drain_deadline: Option<Instant>,
    /// When a worker that holds no lease leaves; none while it holds one.
    idle_deadline: Option<Instant>,
    fetched: (
        mpsc::UnboundedSender<Fetched>,
        mpsc::UnboundedReceiver<Fetched>,
    ),
}

enum StreamEnd {
    /// Open another.
    Broken(Status),
    /// Everything is handed in or back.
    Drained,
}

impl Session {
    async fn work(&mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut wait = BACKOFF.0;
        loop {
            let opened = Instant::now();
            let ended = self.stream(&shutdown).await;
            WORKER_CONNECTED.set([], 0.0);
            match ended {
                Ok(StreamEnd::Drained) => return Ok(()),
                Ok(StreamEnd::Broken(status)) | Err(status) => match status.code() {
                    Code::FailedPrecondition
                    | Code::InvalidArgument
                    | Code::Aborted
                    | Code::Unauthenticated
                    | Code::PermissionDenied => {
                        return Err(Error::Refused(status.message().to_owned()));
                    }
                    _ => tracing::warn!(reason = status.message(), "no stream to the coordinator"),
                },
            }
            if opened.elapsed() > BACKOFF.1 {
                wait = BACKOFF.0;
            }
            if shutdown.is_cancelled() {
                // There is nobody to hand the leases back to: the coordinator takes them itself.
                return Ok(());
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(BACKOFF.1);
            WORKER_RECONNECTS.add([], 1);
        }
    }

    /// Opens a stream and works until it ends.
    async fn stream(&mut self, shutdown: &CancellationToken) -> Result<StreamEnd, Status> {
        let (sender, receiver) = mpsc::unbounded_channel::<v1::ConnectRequest>();
        let out = Outbox(sender);
        out.send(Request::Hello(self.hello()));
        let requests = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        let mut inbox = self.client.workers().connect(requests).await?.into_inner();
        let mut beat = tokio::time::interval(Duration::from_secs(2));
        let mut retire = self.retirement();
        if self.draining {
            out.send(drain_message());
        }
        // Time without a coordinator is not time without work.
        self.idle_deadline = None;
        loop {
            self.idle_deadline = match self.options.idle_exit {
                Some(limit) if self.leases.is_empty() => {
                    self.idle_deadline.or_else(|| Some(Instant::now() + limit))
                }
                _ => None,
            };
            tokio::select! {
                // In this order: what comes with the clock is rare and must not wait for a flood;
                // what the coordinator says, such as that a lease is taken back, comes before more
                // results of it. It answers results only, so neither of the two starves the other.
                biased;
                () = shutdown.cancelled(), if !self.draining => self.drain("asked to stop", &out),
                () = &mut retire, if !self.draining => self.drain("its time is nearly up", &out),
                () = until(self.idle_deadline), if !self.draining => self.drain("nothing to do", &out),
                () = until(self.drain_deadline), if self.draining => self.hand_back(&out),
                _ = beat.tick() => self.heartbeat(&out),
                message = inbox.next() => match message {
                    None => return Ok(StreamEnd::Broken(Status::unavailable("the stream was closed"))),
                    Some(Err(status)) => return Ok(StreamEnd::Broken(status)),
                    Some(Ok(response)) => match response.message {
                        Some(Response::Welcome(welcome)) => {
                            let interval = u64::from(welcome.heartbeat_interval_ms.max(10));
                            beat = tokio::time::interval(Duration::from_millis(interval));
                            self.welcome(&welcome, &out);
                        }
                        Some(Response::Lease(lease)) => self.take(lease, &out),
                        Some(Response::CommitAck(ack)) => self.acknowledged(&ack, &out),
                        Some(Response::CancelLease(cancel)) => {
                            if let Some(key) = cancel.lease.map(|k| (k.task, k.epoch)) {
                                self.forget(&key);
                            }
                        }
                        Some(Response::Drain(drain)) => self.drain(&drain.reason, &out),
                        None => {}
                    },
                },
                report = self.engine_outbox.recv() => match report {
                    Some(report) => self.report(report, &out),
                    None => return Ok(StreamEnd::Drained), // the engine panicked: `run` says so
                },
                Some(fetched) = self.fetched.1.recv() => self.fetched(fetched, &out),
            }
            self.feed_engine();
            WORKER_LEASES.set([], self.leases.len() as f64);
            if self.draining && self.leases.is_empty() {
                // The stream is closed by dropping the sender; what was sent still arrives.
                drop(out);
                let _ = tokio::time::timeout(HAND_BACK, inbox.next()).await;
                return Ok(StreamEnd::Drained);
            }
        }
    }

    fn hello(&self) -> v1::Hello {
        let held = self.leases.keys().map(to_key).collect();
        v1::Hello {
            worker_id: self.options.id.clone(),
            protocol: PROTOCOL,
            capabilities: Some(v1::Capabilities {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                loaded_models: self.loaded(),
                device_memory: match self.capabilities.device_memory {
                    0 if self.capabilities.device.starts_with("cpu") => host_memory(),
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

    fn welcome(&mut self, welcome: &v1::Welcome, out: &Outbox) {
        WORKER_CONNECTED.set([], 1.0);
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

    fn take(&mut self, lease: v1::Lease, out: &Outbox) {
        let Some(key) = lease.key.clone().map(|k| (k.task, k.epoch)) else {
            return;
        };
        if self.draining {
            out.send(end(
                &key,
                Some(failure(FailureClass::Preempted, "the worker is leaving")),
            ));
            return;
        }
        tracing::info!(
            task = key.0,
            epoch = key.1,
            units = lease.units.len(),
            "lease taken"
        );
        let span = lease_span(&lease);
        let held = Held {
            lease: Arc::new(lease.clone()),
            shared: Arc::default(),
            ended: None,
            begun: None,
            span: span.clone(),
            computing: None,
        };
        self.leases.insert(key.clone(), held);
        self.queue.push_back((key.clone(), None));
        let (client, objects) = (self.client.clone(), self.objects.clone());
        let (cache, fetched) = (self.options.cache.clone(), self.fetched.0.clone());
        let fetching = async move {
            let get = async {
                let mut files = files::fetch(&client, &objects, &cache, &lease).await?;
                let mut lease = files::complete(&client, &objects, lease).await?;
                let statistics = files::statistics(&client, &objects, &mut lease).await?;
                files.pins.extend(statistics);
                Ok((files, lease))
            };
            // The session may have ended meanwhile.
            let _ = fetched.send((key, get.await));
        };
        tokio::spawn(fetching.instrument(span));
    }

    fn fetched(&mut self, (key, fetched): Fetched, out: &Outbox) {
        let key = &key;
        match fetched {
            Ok((files, lease)) => {
                if let Some(held) = self.leases.get_mut(key) {
                    held.lease = Arc::new(lease);
                }
                if let Some(entry) = self.queue.iter_mut().find(|(queued, _)| queued == key) {
                    entry.1 = Some(files);
                }
            }
            Err(error) => {
                self.queue.retain(|(queued, _)| queued != key);
                let failure = failure(FailureClass::Transient, error.to_string());
                self.ended(key, Some(failure), out);
            }
        }
    }

    fn feed_engine(&mut self) {
        if self.running.is_some() {
            return;
        }
        // In the order in which they came, but a lease whose files are still on their way does
        // not hold up one whose files are there.
        let Some(at) = self.queue.iter().position(|(_, files)| files.is_some()) else {
            return;
        };
        let Some((key, Some(files))) = self.queue.remove(at) else {
            return;
        };
        let Some(held) = self.leases.get_mut(&key) else {
            return;
        };
        held.begun = Some(Instant::now());
        if traces::are_on() {
            held.computing =
                Some(tracing::info_span!(target: traces::TARGET, parent: &held.span, "compute"));
        }
        let (lease, shared) = (held.lease.clone(), held.shared.clone());
        self.running = Some(key.clone());
        // Fails only when the thread panicked, which the closed outbox tells.
        let _ = self.to_engine.send(Work {
            key,
            lease,
            files,
            shared,
        });
    }

    fn report(&mut self, report: Report, out: &Outbox) {
        match report {
            Report::Commit(commit) => {
                let key = commit.lease.as_ref().map(|k| (k.task.clone(), k.epoch));
                let Some(key) = key.filter(|key| self.leases.contains_key(key)) else {
                    return;
                };
                out.send(Request::Commit(commit.clone()));
                WORKER_UNITS.add([], 1);
                self.unacknowledged.insert((key, commit.unit), commit);
            }
            Report::Ended(key, failure) => {
                self.running = None;
                if let Some(begun) = self.leases.get(&key).and_then(|held| held.begun) {
                    WORKER_LEASE_SECONDS.observe([], begun.elapsed().as_secs_f64());
                }
                self.ended(&key, failure, out);
            }
            // Whoever watches an edit sees its steps as they come, not at the next beat.
            Report::Step => {
                if self.told.is_none_or(|told| told.elapsed() > STEP_PACE) {
                    self.heartbeat(out);
                }
            }
            Report::Put(bytes, answer) => {
                let (client, objects) = (self.client.clone(), self.objects.clone());
                tokio::spawn(async move {
                    let stored = files::keep(&client, &objects, bytes).await;
                    // The engine may have been dropped meanwhile.
                    let _ = answer.send(stored.map_err(|error| error.to_string()));
                });
            }
        }
    }

    fn ended(&mut self, key: &Key, failure: Option<v1::Failure>, out: &Outbox) {
        if let Some(failure) = &failure {
            WORKER_FAILURES.add([class_name(failure.failure_class())], 1);
            tracing::warn!(task = key.0, class = ?failure.failure_class(), "{}", failure.message);
        }
        if let Some(held) = self.leases.get_mut(key) {
            held.computing = None;
            held.ended = Some(v1::TaskEnd {
                lease: Some(to_key(key)),
                failure,
                trace_parent: traces::trace_parent(&held.span),
            });
            self.finish(key, out);
        }
    }

    fn acknowledged(&mut self, ack: &v1::CommitAck, out: &Outbox) {
        let Some(key) = ack.lease.clone().map(|k| (k.task, k.epoch)) else {
            return;
        };
        self.unacknowledged.remove(&(key.clone(), ack.unit));
        if ack.accepted {
            self.finish(&key, out);
        } else {
            self.forget(&key);
        }
    }

    /// Ends a lease that the engine is through with and whose commits are all acknowledged.
    fn finish(&mut self, key: &Key, out: &Outbox) {
        let open = self
            .unacknowledged
            .range((key.clone(), 0)..=(key.clone(), u64::MAX))
            .next();
        if open.is_some() {
            return;
        }
        if let Some(end) = self.leases.get(key).and_then(|held| held.ended.clone()) {
            out.send(Request::TaskEnd(end));
            self.leases.remove(key);
        }
    }

    /// Drops a lease that the coordinator took back.
    fn forget(&mut self, key: &Key) {
        if let Some(held) = self.leases.remove(key) {
            tracing::info!(task = key.0, epoch = key.1, "lease dropped");
            held.shared.cancelled.store(true, Ordering::Relaxed);
        }
        self.queue.retain(|(queued, _)| queued != key);
        self.unacknowledged.retain(|(lease, _), _| lease != key);
    }

    fn heartbeat(&mut self, out: &Outbox) {
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

    /// Takes no more work; what has not begun goes back at once.
    fn drain(&mut self, reason: &str, out: &Outbox) {
        tracing::info!(reason, "draining");
        self.draining = true;
        let mut time = self.options.drain_timeout;
        if let Some(until) = self.options.valid_until {
            time = time.min(
                until
                    .elapsed()
                    .err()
                    .map_or(Duration::ZERO, |e| e.duration()),
            );
        }
        self.drain_deadline = Some(Instant::now() + time.saturating_sub(HAND_BACK));
        out.send(drain_message());
        for (key, _) in std::mem::take(&mut self.queue) {
            self.ended(
                &key,
                Some(failure(FailureClass::Preempted, "the worker is leaving")),
                out,
            );
        }
    }

    /// The time to finish is over: what runs goes back. Its committed units stay.
    fn hand_back(&mut self, out: &Outbox) {
        self.drain_deadline = None;
        for key in self.leases.keys().cloned().collect::<Vec<_>>() {
            if let Some(held) = self.leases.get(&key) {
                held.shared.cancelled.store(true, Ordering::Relaxed);
            }
            if self
                .leases
                .get(&key)
                .is_some_and(|held| held.ended.is_none())
            {
                let left = failure(
                    FailureClass::Preempted,
                    "the worker left before it was done",
                );
                self.ended(&key, Some(left), out);
            }
        }
    }

    /// Ends when the worker should begin to drain, because it will be taken away.
    fn retirement(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let Some(until) = self.options.valid_until else {
            return Box::pin(std::future::pending());
        };
        let left = until
            .elapsed()
            .err()
            .map_or(Duration::ZERO, |e| e.duration());
        Box::pin(tokio::time::sleep(
            left.saturating_sub(self.options.drain_timeout),
        ))
    }
}

struct Outbox(mpsc::UnboundedSender<v1::ConnectRequest>);

impl Outbox {
    fn send(&self, message: Request) {
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

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

pub(super) fn to_key(key: &Key) -> v1::LeaseKey {
    v1::LeaseKey {
        task: key.0.clone(),
        epoch: key.1,
    }
}

fn end(key: &Key, failure: Option<v1::Failure>) -> Request {
    Request::TaskEnd(v1::TaskEnd {
        lease: Some(to_key(key)),
        failure,
        trace_parent: String::new(),
    })
}

/// The span of a lease on this worker, from when it was taken to its end, below that of the coordinator.
fn lease_span(lease: &v1::Lease) -> Span {
    if !traces::are_on() || lease.trace_parent.is_empty() {
        return Span::none();
    }
    let task = lease.key.as_ref().map_or("", |key| key.task.as_str());
    let units = lease.units.len();
    let span = tracing::info_span!(
        target: traces::TARGET,
        parent: None,
        "task",
        otel.kind = "consumer",
        task,
        units
    );
    traces::set_parent(&span, &lease.trace_parent);
    span
}

fn drain_message() -> Request {
    Request::Drain(v1::Drain {
        reason: "the worker was asked to stop".to_owned(),
    })
}
