//! `palimpsest serve`: a coordinator.
#![allow(clippy::disallowed_methods)] // the program owns its tasks

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use futures::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::api::descriptors;
use crate::api::error::Error;
use crate::api::gate::{Bounds, Gate};
use crate::api::health::Health;
use crate::api::listener::{Audience, Listener, Reserved};
use crate::api::overview::Overview;
use crate::api::server::{self, ServeOptions};
use crate::auth::{ServerFiles, ServerTls, Tokens};
use crate::cli::commands::store::options;
use crate::cli::flags::{Flags, flag};
use crate::cli::signals::Asked;
use crate::cli::submit;
use crate::config::{Config, EditConfig, Listen, ServeConfig};
use crate::coordinator::{self, Coordinator, Limits};
use crate::proto::v1;
use crate::store::{Follower, Options, Store};
use crate::telemetry::exposition::{Exposition, Sample};
use crate::telemetry::metrics;
use crate::web::{self, Door, Hosts};

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address and port to listen on, port 0 for a free one; or a socket, as unix:PATH
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The folder of everything that is kept
    #[arg(long, value_name = "FOLDER")]
    store: Option<String>,
    /// Listen beyond this machine without TLS, or without asking who calls
    #[arg(long)]
    insecure: bool,
    /// Where the log is in a bucket: wait for as long as another coordinator leads, and take over
    /// when it is gone
    #[arg(long)]
    standby: bool,
    /// Write the address into this file once it is listened on
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

impl Args {
    /// Adds what was given to the settings.
    pub fn flags(&self, flags: &mut Flags) {
        flag(flags, "serve.listen", &self.listen);
        flag(flags, "serve.store", &self.store);
        flag(flags, "serve.insecure", &self.insecure.then_some(true));
    }
}

/// Serves until it is asked to stop.
pub async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    // Also while it opens the store, or begins to lead.
    let mut asked = Asked::listen();
    let settings = config.serve;
    let limits = Limits {
        heartbeat: settings.heartbeat_interval.as_millis() as u64,
        worker_timeout: settings.lease_duration.as_millis() as u64,
        attempts: settings.max_attempts,
        poison: settings.poison_workers as usize,
        ageing: settings.priority_age.as_millis() as u64,
        weights: settings.owner_weights.0.clone(),
        affinity: settings.affinity_wait.as_millis() as u64,
        task_seconds: settings.task_time.as_secs_f64(),
        speculate: settings.speculate,
        jobs_per_owner: settings.max_open_jobs.into(),
        units_per_owner: settings.max_open_units.into(),
        gates: gates(&config.edit),
        gate_texts: gate_texts(&config.edit)?,
    };
    // Before the store, whose recovery may take a while: probes are to be told that it goes on.
    let health = Health::recovering().await;
    let probes = settings.health_listen.map(server::bind).transpose()?;
    if let Some(incoming) = probes {
        let address = incoming.local_addr()?;
        tracing::info!(%address, "answering probes");
        let probed = server::serve_health(health.clone(), incoming, std::future::pending());
        tokio::spawn(probed);
    }
    if settings.metrics_listen.is_some() {
        metrics::install(metrics::Program::Coordinator);
    }
    // What can be wrong with the settings is found before this one leads, not then.
    let tls = tls(&settings)?;
    let places = places(&settings);
    let gate = gate(&settings, places)?;
    let guarded = gate.is_guarded();
    let options = options(&config.store);
    let (store, ports) = tokio::select! {
        opened = open(&settings, options, args.standby) => opened?,
        () = asked.wait() => return Ok(ExitCode::SUCCESS),
    };
    let store = Arc::new(store);
    let (coordinator, mut actor) = Coordinator::start(store.clone(), limits)?;
    let overview = Overview::new(coordinator.clone());
    if let Some(port) = ports.metrics {
        show(port, overview.sample())?;
    }
    let open_to = |listener: Listener| match guarded {
        true => listener.guarded(),
        false => listener,
    };
    let listen = |port: Reserved| -> anyhow::Result<Listener> {
        Ok(open_to(port.listen(tls.clone(), places)?))
    };
    let mut listener = match ports.main {
        Main::Port(port) => listen(port)?,
        Main::Socket(path) => open_to(Listener::bind_socket(&path, places)?),
    };
    let address = listener.address()?;
    let workers = match ports.workers {
        None => futures::stream::empty().left_stream(),
        Some(port) => {
            listener = listener.audience(Audience::People);
            let workers = listen(port)?.audience(Audience::Workers);
            tracing::info!(address = %workers.address()?, "serving workers");
            workers.incoming().right_stream()
        }
    };
    let incoming = futures::stream::select(listener.incoming(), workers);
    health.serves().await;
    tracing::info!(%address, store = %settings.store.display(), "serving");
    if let Some(file) = &args.port_file {
        write_whole(file, &address)?;
    }
    let stop = CancellationToken::new();
    let stopped = || stop.clone().cancelled_owned();
    let serve_options = ServeOptions {
        gate,
        health: health.clone(),
        streams: settings.streams_per_connection,
        overview,
    };
    let web = match ports.web.zip(settings.web_listen) {
        None => futures::future::ok(()).left_future(),
        Some((port, address)) => {
            let listener = listen(port)?.audience(Audience::People);
            tracing::info!(address = %listener.address()?, "serving the console");
            let services = server::services(coordinator.clone(), serve_options.clone())?;
            let door = door(&settings, address, tls.clone());
            web::serve(services, door, listener.incoming(), stopped()).right_future()
        }
    };
    let serving = server::serve_with(coordinator, serve_options, incoming, stopped());
    let mut serving = tokio::spawn(async { tokio::try_join!(serving, web).map(drop) });
    if let Some(tls) = tls {
        tokio::spawn(reload(tls, stopped()));
    }
    tokio::select! {
        () = asked.wait() => {}
        ended = &mut serving => {
            ended??;
            anyhow::bail!("the server ended by itself");
        }
        ended = &mut actor => {
            ended??;
            anyhow::bail!("the coordinator ended by itself");
        }
    }
    tracing::info!("stopping");
    health.drains().await;
    stop.cancel();
    // What was acknowledged is durable already; open streams are cut, and come back to the next
    // coordinator.
    if tokio::time::timeout(settings.shutdown_grace, serving)
        .await
        .is_err()
    {
        tracing::info!("open streams were cut");
    }
    tokio::task::spawn_blocking(move || store.leave()).await??;
    Ok(ExitCode::SUCCESS)
}

/// What will be listened on.
#[derive(Debug)]
struct Ports {
    main: Main,
    workers: Option<Reserved>,
    web: Option<Reserved>,
    metrics: Option<Reserved>,
}

#[derive(Debug)]
enum Main {
    Port(Reserved),
    Socket(PathBuf),
}

impl Ports {
    fn reserve(settings: &ServeConfig) -> anyhow::Result<Self> {
        let main = match &settings.listen {
            Listen::Address(address) => Main::Port(Reserved::new(*address)?),
            Listen::Socket(path) => Main::Socket(path.clone()),
        };
        Ok(Self {
            main,
            workers: settings.worker_listen.map(Reserved::new).transpose()?,
            web: settings.web_listen.map(Reserved::new).transpose()?,
            metrics: settings.metrics_listen.map(for_metrics).transpose()?,
        })
    }
}

/// Opens the store: one whose log is shared when this process leads. It has its ports by then: one
/// that another process has is no reason to take over and fail.
async fn open(
    settings: &ServeConfig,
    options: Options,
    standby: bool,
) -> anyhow::Result<(Store, Ports)> {
    let folder = settings.store.clone();
    if options.log.is_none() {
        if standby {
            anyhow::bail!(
                "--standby: the store's log is in its folder, which one coordinator has alone: set \
                 store.log = \"bucket\""
            );
        }
        let open = move || Store::open_with(&folder, options);
        let store = tokio::task::spawn_blocking(open).await??;
        return Ok((store, Ports::reserve(settings)?));
    }
    let open = move || Follower::open(&folder, options);
    let follower = tokio::task::spawn_blocking(open).await??;
    let ports = Ports::reserve(settings)?;
    tracing::info!(leader = follower.leader(), "following the log");
    let store = coordinator::lead(follower, standby).await?;
    tracing::info!("leading");
    Ok((store, ports))
}

/// The gates that settings ask for.
fn gates(settings: &EditConfig) -> v1::EditGates {
    v1::EditGates {
        efficacy: settings.min_efficacy,
        neighbour_drift: settings.max_drift,
        norm: settings.max_norm,
        norm_warning: settings.warn_norm,
        ppl_ratio: None,
        server_ppl_ratio: settings.max_ppl_ratio,
        locality: settings.min_locality,
        // Questions are brought with a request: the coordinator has none of its own.
        downstream_drop: None,
    }
}

/// The texts that settings judge edits by.
fn gate_texts(settings: &EditConfig) -> anyhow::Result<Option<Arc<Vec<u8>>>> {
    let Some(file) = &settings.gate_texts else {
        if let Some(ratio) = settings.max_ppl_ratio {
            anyhow::bail!(
                "edit.max_ppl_ratio = {ratio}: there are no texts to measure it by: name a file of texts in \
                 edit.gate_texts, or leave it out"
            );
        }
        return Ok(None);
    };
    let object = submit::gate_texts(file).context("edit.gate_texts")?;
    Ok(Some(Arc::new(object)))
}

/// Lets Prometheus fetch the metrics, until the process ends.
pub fn expose(address: SocketAddr, sample: Sample) -> anyhow::Result<()> {
    show(for_metrics(address)?, sample)
}

fn for_metrics(address: SocketAddr) -> anyhow::Result<Reserved> {
    Reserved::new(address).map_err(|error| match error {
        Error::Bind { reason, .. } => anyhow::anyhow!(
            "cannot listen on {address} for metrics ({reason}): choose another metrics_listen"
        ),
        error => error.into(),
    })
}

fn show(port: Reserved, sample: Sample) -> anyhow::Result<()> {
    let exposition = Exposition::new(port.bare()?, sample);
    tracing::info!(address = %exposition.local_addr()?, "showing metrics");
    tokio::spawn(exposition.serve());
    Ok(())
}

/// What connections are opened with.
fn tls(settings: &ServeConfig) -> anyhow::Result<Option<Arc<ServerTls>>> {
    let files = settings
        .tls_certificate
        .clone()
        .zip(settings.tls_key.clone());
    let Some((certificate, key)) = files else {
        return Ok(None);
    };
    let tls = ServerTls::load(ServerFiles {
        certificate,
        key,
        client_ca: settings.client_ca.clone(),
    })?;
    Ok(Some(Arc::new(tls)))
}

/// The way in to the console.
fn door(settings: &ServeConfig, address: SocketAddr, tls: Option<Arc<ServerTls>>) -> Door {
    let hosts = Hosts::at(address.ip())
        .with_names(settings.web_hosts.0.clone())
        .with_certificate(tls);
    Door::of_server(
        hosts,
        settings.client_ca.is_some(),
        settings.tokens.is_some(),
    )
}

/// Connections that each port may have: what the settings say, if the system lets this process open
/// enough files for them beside the store's.
fn places(settings: &ServeConfig) -> usize {
    let limit = descriptors::raise_limit();
    let asked = settings.max_connections as usize;
    let more = [settings.worker_listen, settings.web_listen];
    let ports = 1 + more.iter().flatten().count();
    let places = descriptors::connections(limit, asked, ports);
    if places < asked {
        tracing::warn!(
            limit,
            asked,
            places,
            "this process may open too few files for serve.max_connections: raise the hard limit \
             (ulimit -Hn, LimitNOFILE)"
        );
    }
    places
}

/// Whom the server lets in.
fn gate(settings: &ServeConfig, connections: usize) -> anyhow::Result<Gate> {
    let bounds = Bounds {
        streams: settings.streams_per_principal as usize,
        connections,
    };
    if settings.client_ca.is_none() && settings.tokens.is_none() {
        return Ok(Gate::open().with_bounds(bounds));
    }
    let tokens = settings.tokens.as_deref().map(Tokens::open).transpose()?;
    let gate = Gate::guarded(tokens.map(Arc::new));
    Ok(gate
        .with_rate(settings.requests_per_second)
        .with_bounds(bounds))
}

/// Loads certificates again whenever SIGHUP asks for it. A file that cannot be used changes
/// nothing: the coordinator goes on with what it has.
async fn reload(tls: Arc<ServerTls>, stopped: impl Future<Output = ()>) {
    use tokio::signal::unix::{SignalKind, signal};
    let mut asked = match signal(SignalKind::hangup()) {
        Ok(asked) => asked,
        Err(error) => return tracing::warn!(%error, "SIGHUP cannot be caught"),
    };
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => return,
            _ = asked.recv() => {}
        }
        match tls.reload() {
            Ok(()) => tracing::info!("certificates were loaded again"),
            Err(error) => tracing::error!(%error, "certificates stay as they were"),
        }
    }
}

/// Writes a file so that a reader sees all of it or nothing.
pub fn write_whole(file: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = file.with_extension("new");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, file))
        .with_context(|| format!("cannot write {}", file.display()))
}
