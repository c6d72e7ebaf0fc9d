//! The lease loop: one stream to the coordinator, opened again whenever it breaks.
#![allow(clippy::disallowed_methods)] // the owner of the worker's clock and tasks

mod leases;
mod leaving;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use self::leases::{Fetched, Held};
use self::leaving::{drain_message, until};
use super::computing::Computing;
use super::engine::Engine;
use super::files::Fetcher;
use super::prepare::Prepared;
use super::work::{Error, Key, Report, Work, to_key};
use crate::client::Client;
use crate::objects::ObjectStore;
use crate::proto::v1;
use crate::proto::v1::connect_request::Message as Request;
use crate::proto::v1::connect_response::Message as Response;
use crate::telemetry::metrics::{WORKER_CONNECTED, WORKER_LEASES, WORKER_RECONNECTS};
use crate::wire::names;

/// The protocol that this worker speaks.
const PROTOCOL: u32 = 1;
/// First and longest wait before a broken stream is opened again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// How long it takes to hand leases back, ahead of the time when the worker is taken away.
const HAND_BACK: Duration = Duration::from_secs(5);

/// How a worker is to behave.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its identifier: new for every process. Where another process goes by it too, the one that said
    /// so later has it, and this worker goes on as `{id}.2`.
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
        fetcher: Fetcher {
            client,
            objects,
            cache: options.cache.clone(),
        },
        options,
        renamed: 0,
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

struct Session {
    fetcher: Fetcher,
    options: Options,
    /// How often another process took this worker's identifier.
    renamed: u32,
    capabilities: v1::Capabilities,
    loaded: Arc<std::sync::Mutex<Vec<String>>>,
    leases: BTreeMap<Key, Held>,
    /// Leases that wait for the engine, in the order in which they came.
    queue: VecDeque<(Key, Option<Prepared>)>,
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
                    Code::Aborted | Code::AlreadyExists => self.rename(status.message()),
                    Code::FailedPrecondition
                    | Code::InvalidArgument
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
        let mut inbox = self
            .fetcher
            .client
            .workers()
            .connect(requests)
            .await?
            .into_inner();
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

    /// The identifier that this worker goes by.
    fn id(&self) -> String {
        let first = &self.options.id;
        match self.renamed {
            0 => first.clone(),
            times => {
                let number = format!(".{}", u64::from(times) + 1);
                let room = names::LONGEST_IDENTIFIER - number.len();
                format!("{}{number}", first.get(..room).unwrap_or(first))
            }
        }
    }

    /// Goes on under another identifier: another process goes by this one, and has the leases that
    /// were held under it. Whoever that is, it is no reason to stop working.
    fn rename(&mut self, reason: &str) {
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

    fn hello(&self) -> v1::Hello {
        let held = self.leases.keys().map(to_key).collect();
        v1::Hello {
            worker_id: self.id(),
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
