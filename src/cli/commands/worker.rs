//! `palimpsest worker`: a worker for a coordinator, and what can be said to those that run.
#![allow(clippy::disallowed_methods)] // the program owns its tasks

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::cli::commands::{serve, status};
use crate::cli::connection::{Connection, Need};
use crate::cli::engines::engines;
use crate::cli::flags::{Flags, flag};
use crate::cli::host::host_name;
use crate::cli::output;
use crate::cli::signals::Asked;
use crate::client::{Client, Credentials};
use crate::config::{ClientConfig, Config, WorkerConfig};
use crate::objects::{Bound, ObjectStore};
use crate::proto::v1;
use crate::telemetry::exposition::Sample;
use crate::telemetry::metrics;
use crate::wire::names;
use crate::worker::{self, Company, Engine, Options};

/// How old the size of the cache may be.
const CACHE_AGE: Duration = Duration::from_secs(60);

/// Flags of `worker`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    work: WorkArgs,
}

/// What can be done with workers that run. A worker is named as `palimpsest worker list` shows it.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the workers of a coordinator
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Let a worker finish what it has begun, hand the rest back and leave
    Drain {
        /// The worker
        worker: String,
    },
    /// Give leases again to a worker that was excluded because its tasks kept failing
    Readmit {
        /// The worker
        worker: String,
    },
}

/// Flags of a worker that is to work.
#[derive(Debug, clap::Args)]
struct WorkArgs {
    /// The coordinator's address
    #[arg(long, value_name = "ADDRESS")]
    coordinator: Option<String>,
    /// The device: auto, cpu, cuda, cuda:N; several of a kind, as cuda:0,cuda:1, or all, over which
    /// models are spread
    #[arg(long)]
    device: Option<String>,
    /// A model and leases of its own for each device
    #[arg(long)]
    per_device: bool,
    /// Try the device on random models first, and end where it computes wrongly
    #[arg(long)]
    try_device: bool,
    /// Threads of a CPU operation; 0 for one a core
    #[arg(long)]
    threads: Option<u32>,
    /// Memory for the activations of a batch, such as 4GiB
    #[arg(long)]
    memory: Option<String>,
    /// The folder of fetched objects
    #[arg(long, value_name = "FOLDER")]
    cache: Option<String>,
    /// The worker's name; made up if it is not given
    #[arg(long)]
    id: Option<String>,
    /// Leases to hold at a time
    #[arg(long)]
    credits: Option<u32>,
    /// How long a running task may go on once the worker is to leave, such as 25s
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// When the worker will be taken away: RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    valid_until: Option<String>,
    /// Leave after having had nothing to do for this long, such as 5m
    #[arg(long, value_name = "DURATION")]
    idle_exit: Option<String>,
    /// Compute nothing, and take this many milliseconds for every unit: for trying the system
    #[arg(long, hide = true, value_name = "MILLISECONDS")]
    fake: Option<u64>,
}

impl Args {
    /// Whether it is a worker that is to run, and not something about others.
    pub fn works(&self) -> bool {
        self.command.is_none()
    }

    /// Adds what was given to the settings.
    pub fn flags(&self, flags: &mut Flags) {
        if self.works() {
            self.work.flags(flags);
        }
    }
}

impl WorkArgs {
    fn flags(&self, flags: &mut Flags) {
        flag(flags, "worker.coordinator", &self.coordinator);
        flag(flags, "worker.device", &self.device);
        flag(flags, "worker.per_device", &self.per_device.then_some(true));
        flag(flags, "worker.try_device", &self.try_device.then_some(true));
        flag(flags, "worker.threads", &self.threads);
        flag(flags, "worker.memory", &self.memory);
        flag(flags, "worker.cache", &self.cache);
        flag(flags, "worker.id", &self.id);
        flag(flags, "worker.credits", &self.credits);
        flag(flags, "worker.drain_timeout", &self.drain_timeout);
        flag(flags, "worker.valid_until", &self.valid_until);
        flag(flags, "worker.idle_exit", &self.idle_exit);
    }
}

/// Works until it is asked to stop, or says something to workers that run.
pub async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(command) => manage(command, &config.client).await,
        None => work(args.work, config.worker).await,
    }
}

async fn manage(command: Command, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let connection = Connection::open(config, Need::Records).await?;
    let done = say(command, connection.client()).await;
    connection.close().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn say(command: Command, client: &Client) -> anyhow::Result<()> {
    let resource = |worker: &str| {
        let id = worker.strip_prefix("workers/").unwrap_or(worker);
        format!("workers/{id}")
    };
    match command {
        Command::List { json } => {
            let workers = client.all_workers().await?;
            if !json {
                return Ok(output::print_table(&status::worker_table(&workers))?);
            }
            for worker in &workers {
                output::json(&status::worker_json(worker))?;
            }
        }
        Command::Drain { worker, .. } => {
            let name = resource(&worker);
            let request = v1::DrainWorkerRequest { name };
            let answer = client.workers().drain_worker(request).await?.into_inner();
            let worker = answer.worker.unwrap_or_default();
            show!("{} draining, {} leases", worker.name, worker.leases.len())?;
        }
        Command::Readmit { worker, .. } => {
            let name = resource(&worker);
            let request = v1::ReadmitWorkerRequest { name };
            let answer = client.workers().readmit_worker(request).await?.into_inner();
            show!("{} readmitted", answer.worker.unwrap_or_default().name)?;
        }
    }
    Ok(())
}

async fn work(args: WorkArgs, settings: WorkerConfig) -> anyhow::Result<ExitCode> {
    let bound = settings.cache_size.map(|size| Bound {
        bytes: size.bytes(),
        setting: "worker.cache_size",
    });
    let objects = ObjectStore::open(&settings.cache)?.as_cache(bound)?;
    let engines = chosen(&args, &settings, &objects)?;
    if let Some(address) = settings.metrics_listen {
        metrics::install(metrics::Program::Worker);
        serve::expose(address, sample(objects.clone(), settings.device.as_str()))?;
    }
    let host = host_name();
    let id = match &settings.id {
        Some(id) => id.to_string(),
        None => format!("{host}-{}-{}", std::process::id(), random_suffix()),
    };
    let others = Company::of(engines.len());
    let options = |engine: usize| Options {
        id: match engines.len() {
            1 => id.clone(),
            _ => names::numbered(&id, &format!("-{engine}")),
        },
        credits: settings.credits,
        cache: settings.cache.clone(),
        drain_timeout: settings.drain_timeout,
        valid_until: settings.valid_until.map(Into::into),
        idle_exit: settings.idle_exit,
        others: others.clone(),
    };
    // Lazily: a worker may be started before its coordinator.
    let credentials = Credentials {
        ca: settings.ca.as_deref(),
        certificate: settings.certificate.as_deref().zip(settings.key.as_deref()),
        token_file: settings.token_file.as_deref(),
        insecure: settings.insecure,
    };
    let client = Client::connect_lazy(settings.coordinator.as_str(), &credentials)?;
    let all: Vec<Options> = (0..engines.len()).map(options).collect();
    let mut asked = Asked::listen();
    let shutdown = CancellationToken::new();
    let mut working = JoinSet::new();
    for (engine, options) in engines.into_iter().zip(all) {
        tracing::info!(
            worker = options.id,
            device = engine.capabilities().device,
            coordinator = settings.coordinator.as_str(),
            valid_until = settings.valid_until.map(tracing::field::display),
            "working"
        );
        let (client, objects) = (client.clone(), objects.clone());
        working.spawn(worker::run(
            client,
            objects,
            engine,
            options,
            shutdown.clone(),
        ));
    }
    tokio::select! {
        ended = all_ended(&mut working, &shutdown) => ended?,
        () = asked.wait() => {
            shutdown.cancel();
            tokio::select! {
                ended = all_ended(&mut working, &shutdown) => ended?,
                () = asked.wait() => {
                    tracing::warn!("asked twice: leaving at once");
                    // Without what libtorch does at a program's end, which would pull the floor from
                    // under the engine's threads. What they have not handed in is computed elsewhere.
                    signal_hook::low_level::exit(1);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for the end of all. Where one ends in an error, the others are asked to stop: a process
/// that half works looks as if it did.
async fn all_ended(
    working: &mut JoinSet<Result<(), worker::Error>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let mut first = Ok(());
    while let Some(ended) = working.join_next().await {
        let ended = ended.map_err(anyhow::Error::from);
        if let Err(error) = ended.and_then(|ended| Ok(ended?)) {
            shutdown.cancel();
            match &first {
                Ok(()) => first = Err(error),
                Err(_) => tracing::error!(%error, "another worker of this process ended, too"),
            }
        }
    }
    first
}

/// Looks up, for the metrics, what is not counted as it happens. The folder of objects is looked
/// through once a minute, and when something was evicted.
#[cfg_attr(not(feature = "torch"), allow(unused_variables))]
fn sample(objects: ObjectStore, devices: &str) -> Sample {
    #[cfg(feature = "torch")]
    let gpus = worker::Gpus::among(devices).map(Arc::new);
    // When, and what was evicted until then.
    let looked: Arc<Mutex<Option<(Instant, u64)>>> = Arc::default();
    Arc::new(move || {
        let (objects, looked) = (objects.clone(), looked.clone());
        #[cfg(feature = "torch")]
        let gpus = gpus.clone();
        async move {
            metrics::RESIDENT_BYTES.set([], metrics::resident_bytes() as f64);
            #[cfg(feature = "torch")]
            if let Some(gpus) = gpus {
                let _ = blocking(move || gpus.sample()).await;
            }
            let evicted = objects.evicted();
            let old = {
                let mut looked = looked.lock().unwrap_or_else(PoisonError::into_inner);
                let before = looked.map_or(0, |(_, evicted)| evicted);
                metrics::WORKER_CACHE_EVICTED.add([], evicted.saturating_sub(before));
                let old = looked.is_none_or(|(at, _)| at.elapsed() > CACHE_AGE);
                let old = old || evicted > before;
                if old {
                    *looked = Some((Instant::now(), evicted));
                }
                old
            };
            if old && let Ok(Ok(listed)) = blocking(move || objects.list()).await {
                let bytes: u64 = listed.iter().map(|object| object.size).sum();
                metrics::WORKER_CACHE_BYTES.set([], bytes as f64);
            }
        }
        .boxed()
    })
}

fn chosen(
    args: &WorkArgs,
    settings: &WorkerConfig,
    objects: &ObjectStore,
) -> anyhow::Result<Vec<Box<dyn Engine>>> {
    if let Some(milliseconds) = args.fake {
        return Ok(vec![Box::new(worker::Fake {
            unit_time: Duration::from_millis(milliseconds),
        })]);
    }
    let (device, threads) = (settings.device.as_str(), settings.threads);
    let bytes = settings.memory.bytes();
    let engines = engines(device, settings.per_device, threads, bytes, Some(objects))?;
    #[cfg(feature = "torch")]
    if settings.try_device {
        trust(device, !settings.per_device)?;
    }
    Ok(engines)
}

/// Ends a worker whose device computes wrongly, before anybody gets its results.
#[cfg(feature = "torch")]
fn trust(device: &str, together: bool) -> anyhow::Result<()> {
    use worker::TrialOutcome;

    for trial in worker::try_devices(device, together, false)? {
        match trial.outcome {
            TrialOutcome::Right(found) => tracing::info!(trial = trial.name, found, "tried"),
            TrialOutcome::Wrong(what) | TrialOutcome::NotTried(what) => anyhow::bail!(
                "worker.try_device: {}: {what}; 'palimpsest doctor --bench --device {device}' says what helps",
                trial.name
            ),
        }
    }
    Ok(())
}

fn random_suffix() -> String {
    uuid::Uuid::now_v7().simple().to_string()[26..].to_owned()
}
