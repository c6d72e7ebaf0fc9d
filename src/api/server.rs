//! The gRPC server: all services on one listener.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};
use tower::Layer;

use super::audit::Audit;
use super::error::Error;
use super::gate::{Gate, Guarded};
use super::health::Health;
use super::jobs::Jobs;
use super::metering::{Metered, Metering};
use super::models::Models;
use super::objects::Objects;
use super::overview::Overview;
use super::statistics::StatisticsOf;
use super::store::StoreRecords;
use super::versions::Versions;
use super::workers::Workers;
use crate::coordinator::Coordinator;
use crate::proto;
use crate::proto::v1::audit_service_server::AuditServiceServer;
use crate::proto::v1::job_service_server::JobServiceServer;
use crate::proto::v1::model_service_server::ModelServiceServer;
use crate::proto::v1::object_service_server::ObjectServiceServer;
use crate::proto::v1::statistics_service_server::StatisticsServiceServer;
use crate::proto::v1::status_service_server::StatusServiceServer;
use crate::proto::v1::store_service_server::StoreServiceServer;
use crate::proto::v1::version_service_server::VersionServiceServer;
use crate::proto::v1::worker_service_server::WorkerServiceServer;

/// The largest message that is taken or sent.
pub const MESSAGE_LIMIT: usize = 4 << 20;

/// Streams that a connection may have open at a time, where nobody says otherwise.
pub const STREAMS: u32 = 256;
/// Headers of a request in bytes.
const HEADERS: u32 = 16 << 10;
/// Streams that a client may have reset before they were looked at (CVE-2023-44487).
const RESETS: usize = 20;
/// How often a silent connection is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));

/// Binds an address. Port 0 takes a free one, which the incoming connections tell.
///
/// # Errors
/// [`Error::Bind`].
pub fn bind(address: SocketAddr) -> Result<TcpIncoming, Error> {
    // `serve_with_incoming` leaves Nagle's algorithm on unless the listener is told: measured at
    // 23 calls a second instead of 35,000.
    TcpIncoming::bind(address)
        .map(|incoming| incoming.with_nodelay(Some(true)))
        .map_err(|error| Error::Bind {
            address,
            reason: error.to_string(),
        })
}

/// Serves a coordinator on incoming connections until `shutdown`. Streams that are open then are
/// ended; their clients come back to the next coordinator and lose nothing.
///
/// # Errors
/// [`Error::Transport`].
pub async fn serve<I, C, E>(
    coordinator: Coordinator,
    incoming: I,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error>
where
    I: Stream<Item = Result<C, E>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let options = ServeOptions {
        gate: Gate::open(),
        health: Health::serving().await,
        streams: STREAMS,
        overview: Overview::new(coordinator.clone()),
    };
    serve_with(coordinator, options, incoming, shutdown).await
}

/// [`serve`] in other ways.
///
/// # Errors
/// [`Error::Transport`].
pub async fn serve_with<I, C, E>(
    coordinator: Coordinator,
    options: ServeOptions,
    incoming: I,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error>
where
    I: Stream<Item = Result<C, E>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let streams = options.streams;
    Server::builder()
        .initial_stream_window_size(crate::client::WINDOW)
        .initial_connection_window_size(crate::client::WINDOW)
        .http2_keepalive_interval(Some(KEEP_ALIVE.0))
        .http2_keepalive_timeout(Some(KEEP_ALIVE.1))
        .http2_max_pending_accept_reset_streams(Some(RESETS))
        .http2_max_header_list_size(HEADERS)
        .max_concurrent_streams(streams)
        .serve_with_incoming_shutdown(services(coordinator, options)?, incoming, shutdown)
        .await
        .map_err(Error::Transport)
}

/// How a coordinator is served.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Whom it lets in.
    pub gate: Gate,
    /// What it says of its health.
    pub health: Health,
    /// Streams that a connection may have open at a time.
    pub streams: u32,
    /// What it says of itself as a whole.
    pub overview: Overview,
}

/// Serves grpc.health.v1 alone, without TLS, for probes that speak none.
///
/// # Errors
/// [`Error::Transport`].
pub async fn serve_health(
    health: Health,
    incoming: TcpIncoming,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .add_service(health.service())
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
        .map_err(Error::Transport)
}

/// All services, behind the gate, and counted: whatever the door through which a call comes.
pub type Services = Metered<Guarded<Routes>>;

/// The services of a coordinator.
///
/// # Errors
/// [`Error::Reflection`].
pub fn services(coordinator: Coordinator, options: ServeOptions) -> Result<Services, Error> {
    let gate = options.gate.audited(coordinator.clone());
    let store = Arc::clone(coordinator.store());
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let jobs = JobServiceServer::new(Jobs::new(coordinator.clone()))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let versions = VersionServiceServer::new(Versions::new(coordinator.clone()))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let statistics = StatisticsServiceServer::new(StatisticsOf::new(coordinator.clone()));
    let audit = AuditServiceServer::new(Audit::new(coordinator.clone()));
    let models = ModelServiceServer::new(Models::new(coordinator.clone()));
    let workers = WorkerServiceServer::new(Workers::new(coordinator.clone()))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let routes = Routes::new(options.health.service())
        .add_service(StatusServiceServer::new(options.overview))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(jobs)
        .add_service(workers)
        .add_service(StoreServiceServer::new(StoreRecords::new(coordinator)))
        .add_service(versions)
        .add_service(audit)
        .add_service(statistics)
        .add_service(models)
        .add_service(ObjectServiceServer::new(Objects::new(
            store.objects().clone(),
        )));
    Ok(Metering.layer(gate.layer(routes.prepare())))
}
