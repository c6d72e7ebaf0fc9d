//! A coordinator and a worker inside this process, on the same code and the same protocol as
//! between machines: only the connections are pipes in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Endpoint;

use crate::api::server;
use crate::client::Client;
use crate::coordinator::{self, Coordinator, Limits};
use crate::objects::ObjectStore;
use crate::store::{self, Store};
use crate::worker::{self, Engine, Options};

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
        })
    }

    /// Starts a worker beside the coordinator. It uses the store's own objects.
    pub fn work(&self, engine: Box<dyn Engine>) {
        let store = self.coordinator.store();
        let options = Options {
            id: format!("embedded-{}", std::process::id()),
            credits: 2,
            cache: store.path().join("embedded"),
            drain_timeout: Duration::ZERO,
            valid_until: None,
            idle_exit: None,
        };
        let objects = store.objects().clone();
        let (client, shutdown) = (self.client.clone(), self.worker_shutdown.clone());
        self.worker.spawn(async move {
            if let Err(error) = worker::run(client, objects, engine, options, shutdown).await {
                tracing::error!(%error, "the worker inside this process stopped");
            }
        });
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
        drop(self.coordinator);
        self.server_shutdown.cancel();
        self.server.close();
        // Streams of requests that nobody reads any more do not hold up the end: what they said
        // is durable or was not acknowledged.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.server.wait()).await;
    }
}
