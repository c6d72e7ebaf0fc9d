//! The lease loop: one stream to the coordinator, opened again whenever it breaks.
#![allow(clippy::disallowed_methods)] // the owner of the worker's clock and tasks

mod held;
mod leases;
mod leaving;
mod state;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

pub use self::state::{Company, Options};

use self::leaving::{drain_message, until};
use self::state::{HAND_BACK, Outbox, Session};
use super::computing::Computing;
use super::engine::Engine;
use super::files::Fetcher;
use super::leased::LastVersion;
use super::work::Error;
use crate::client::Client;
use crate::objects::ObjectStore;
use crate::proto::v1;
use crate::proto::v1::connect_request::Message as Request;
use crate::proto::v1::connect_response::Message as Response;
use crate::telemetry::metrics::{Part, WORKER_CONNECTED, WORKER_LEASES, WORKER_RECONNECTS};

/// First and longest wait before a broken stream is opened again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

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
            last: LastVersion::default(),
        },
        options,
        renamed: 0,
        capabilities,
        loaded,
        leases: BTreeMap::new(),
        connected: Part::of(&WORKER_CONNECTED),
        holding: Part::of(&WORKER_LEASES),
        noted: 0,
        queue: VecDeque::new(),
        running: None,
        told: None,
        unacknowledged: BTreeMap::new(),
        to_engine,
        engine_outbox,
        draining: false,
        drain_deadline: None,
        fetched: mpsc::unbounded_channel(),
    };
    let ended = session.work(shutdown).await;
    session.options.others.note(session.noted, 0);
    for lease in session.leases.values() {
        lease.shared.cancelled.store(true, Ordering::Relaxed);
    }
    drop(session);
    let joined = computing.join().await;
    ended?;
    joined
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
            self.connected.set(0.0);
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
        self.options.others.note(0, 0);
        loop {
            let leases = self.leases.len();
            if leases != self.noted {
                self.options.others.note(self.noted, leases);
                self.noted = leases;
            }
            let idle_since = self.options.others.idle_since();
            let idle_deadline = idle_since
                .zip(self.options.idle_exit)
                .map(|(at, it)| at + it);
            tokio::select! {
                // In this order: what comes with the clock is rare and must not wait for a flood;
                // what the coordinator says, such as that a lease is taken back, comes before more
                // results of it. It answers results only, so neither of the two starves the other.
                biased;
                () = shutdown.cancelled(), if !self.draining => self.drain("asked to stop", &out),
                () = &mut retire, if !self.draining => self.drain("its time is nearly up", &out),
                () = until(idle_deadline), if !self.draining => {
                    // Another of the process may have had something meanwhile.
                    if self.options.others.idle_since() == idle_since {
                        self.drain("nothing to do", &out);
                    }
                }
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
            self.holding.set(self.leases.len() as f64);
            if self.draining && self.leases.is_empty() {
                // The stream is closed by dropping the sender; what was sent still arrives.
                drop(out);
                let _ = tokio::time::timeout(HAND_BACK, inbox.next()).await;
                return Ok(StreamEnd::Drained);
            }
        }
    }
}
