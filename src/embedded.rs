//! A coordinator and a worker inside this process, on the same code and the same protocol as
//! between machines: only the connections are pipes in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Endpoint;

use crate::api::listener::Listener;
use crate::api::server;
use crate::blocking::blocking;
use crate::client::Client;
use crate::coordinator::{self, Coordinator, Limits};
use crate::objects::ObjectStore;
use crate::store::{self, Store};
use crate::worker::{self, Company, Engine, Options};

/// Bytes that a pipe holds before its writer waits.
const PIPE: usize = 1 << 20;

/// Leases held by a process that was killed are free at once: the store's lock says that it is
/// gone. What someone waits for goes before whatever an earlier process left, however old.
fn limits() -> Limits {
    Limits {
        heartbeat: 250,
        worker_timeout: 2_000,
        ageing: 0,
        ..Limits::default()
    }
}

/// The running coordinator and worker.
#[derive(Debug)]
pub struct Embedded {
    client: Client,
    coordinator: Coordinator,
    worker_shutdown: CancellationToken,
    server_shutdown: CancellationToken,
    worker: TaskTracker,
    server: TaskTracker,
    /// Why a worker stopped before it was asked to.
    failed: watch::Sender<Option<String>>,
}

impl Embedded {
    /// Opens a store and serves it in this process.
    ///
    /// # Errors
    /// When the store or its audit log cannot be opened.
    pub fn start(
        store: &std::path::Path,
        options: store::Options,
    ) -> Result<Self, coordinator::Error> {
        let store = Arc::new(Store::open_with(store, options)?);
        let (coordinator, actor) = Coordinator::start(store, limits())?;
        let (pipes, incoming) = mpsc::unbounded_channel::<DuplexStream>();
        let server_shutdown = CancellationToken::new();
        let server = TaskTracker::new();
        let incoming = UnboundedReceiverStream::new(incoming).map(Ok::<_, io::Error>);
        let (serving, stopped) = (coordinator.clone(), server_shutdown.clone());
        server.spawn(async move {
            if let Err(error) = server::serve(serving, incoming, stopped.cancelled_owned()).await {
                tracing::error!(%error, "the coordinator inside this process stopped");
            }
        });
        server.spawn(actor);
        let channel = Endpoint::from_static("http://embedded").connect_with_connector_lazy(
            tower::service_fn(move |_| {
                let (near, far) = tokio::io::duplex(PIPE);
                let sent = pipes.send(far);
                async move {
                    sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
                    Ok::<_, io::Error>(TokioIo::new(near))
                }
            }),
        );
        Ok(Self {
            client: Client::new(channel),
            coordinator,
            worker_shutdown: CancellationToken::new(),
            server_shutdown,
            worker: TaskTracker::new(),
            server,
            failed: watch::Sender::new(None),
        })
    }

    /// Starts a worker for each engine beside the coordinator. They use the store's own objects.
    pub fn work(&self, engines: Vec<Box<dyn Engine>>) {
        let others = Company::of(engines.len());
        for (n, engine) in engines.into_iter().enumerate() {
            self.work_with(engine, n, &others);
        }
    }

    fn work_with(&self, engine: Box<dyn Engine>, n: usize, others: &Company) {
        let store = self.coordinator.store();
        let id = format!("embedded-{}", std::process::id());
        let options = Options {
            id: match n {
                0 => id,
                _ => format!("{id}-{n}"),
            },
            credits: 2,
            cache: store.path().join("embedded"),
            drain_timeout: Duration::ZERO,
            valid_until: None,
            idle_exit: None,
            others: others.clone(),
        };
        let objects = store.objects().clone();
        let (client, shutdown) = (self.client.clone(), self.worker_shutdown.clone());
        let failed = self.failed.clone();
        self.worker.spawn(async move {
            if let Err(error) = worker::run(client, objects, engine, options, shutdown).await {
                failed.send_replace(Some(error.to_string()));
            }
        });
    }

    /// Serves connections from outside this process, too.
    pub fn listen(&self, listener: Listener) {
        let serving = self.coordinator.clone();
        let stopped = self.server_shutdown.clone();
        self.server.spawn(async move {
            let incoming = listener.incoming();
            if let Err(error) = server::serve(serving, incoming, stopped.cancelled_owned()).await {
                tracing::error!(%error, "connections are not served any more");
            }
        });
    }

    /// Waits until a worker of this process stops before it was asked to, and says why. Nobody else
    /// is there to do its work: what waits for that would wait for ever.
    pub async fn worker_failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(why)) => why.clone(),
            // Its sender is here, in `self`.
            _ => std::future::pending().await,
        }
    }

    /// The client of this coordinator.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The objects of the store.
    pub fn objects(&self) -> &ObjectStore {
        self.coordinator.store().objects()
    }

    /// Hands back what the worker holds, then closes the store.
    pub async fn stop(self) {
        self.worker_shutdown.cancel();
        self.worker.close();
        self.worker.wait().await;
        drop(self.client);
        let store = self.coordinator.store().clone();
        drop(self.coordinator);
        self.server_shutdown.cancel();
        self.server.close();
        // Streams of requests that nobody reads any more do not hold up the end: what they said
        // is durable or was not acknowledged.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.server.wait()).await;
        let left = blocking(move || store.leave()).await;
        if let Ok(Err(error)) = left {
            // The next one waits then until it is sure that nobody leads.
            tracing::warn!(%error, "it could not be said that this coordinator ends");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::proto::v1::{self, unit_result::Outcome};
    use crate::store::Change;
    use crate::worker::{Prepared, Sink};

    /// An engine that answers every unit with what no unit asked for.
    struct Astray;

    impl Engine for Astray {
        fn capabilities(&self) -> v1::Capabilities {
            v1::Capabilities::default()
        }

        fn loaded(&self) -> Vec<String> {
            Vec::new()
        }

        fn run(
            &mut self,
            _ready: &Prepared,
            units: &[v1::LeasedUnit],
            sink: &mut dyn Sink,
        ) -> Result<(), v1::Failure> {
            for unit in units {
                let outcome = Outcome::NoiseLevel(v1::NoiseLevel { scale: 1.0 });
                let result = v1::UnitResult {
                    unit: unit.unit,
                    outcome: Some(outcome),
                };
                sink.commit(result, v1::Fingerprint::default());
            }
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_for_a_worker_that_stopped_is_told_why() {
        let folder = tempfile::tempdir().unwrap();
        let model = v1::Model {
            name: "models/none".to_owned(),
            ..Default::default()
        };
        let store = Store::open(folder.path()).unwrap();
        let known = Change::Model("none".to_owned(), model);
        store.commit(&[known]).unwrap();
        drop(store);
        let here = Embedded::start(folder.path(), store::Options::default()).unwrap();
        here.work(vec![Box::new(Astray)]);
        let spec = v1::GenerateSpec {
            prompts: vec!["a".to_owned()],
            ..Default::default()
        };
        let job = v1::Job {
            model: "models/none".to_owned(),
            spec: Some(spec.into()),
            ..Default::default()
        };
        let request = v1::CreateJobRequest {
            job: Some(job),
            ..Default::default()
        };
        here.client().jobs().create_job(request).await.unwrap();
        let why = tokio::time::timeout(Duration::from_secs(60), here.worker_failed());
        let why = why.await.unwrap();
        assert!(why.contains("it is no completion"), "{why}");
        here.stop().await;
    }
}
