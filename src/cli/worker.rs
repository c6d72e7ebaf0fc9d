//! `palimpsest worker`: a worker for a coordinator.

use std::process::ExitCode;
use std::time::Duration;

#[cfg(not(feature = "torch"))]
use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::{Flags, asked_to_stop, flag};
use crate::client::{Client, endpoint};
use crate::config::{Config, WorkerConfig};
use crate::objects::ObjectStore;
use crate::worker::{self, Engine, Options};

/// How long a running task may go on after the worker was asked to stop.
const DRAIN: Duration = Duration::from_secs(25);

/// Flags of `worker`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The coordinator's address
    #[arg(long, value_name = "ADDRESS")]
    coordinator: Option<String>,
    /// The device: auto, cpu, cuda, cuda:N
    #[arg(long)]
    device: Option<String>,
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
    /// Adds what was given to the settings.
    pub fn flags(&self, flags: &mut Flags) {
        flag(flags, "worker.coordinator", &self.coordinator);
        flag(flags, "worker.device", &self.device);
        flag(flags, "worker.threads", &self.threads);
        flag(flags, "worker.memory", &self.memory);
        flag(flags, "worker.cache", &self.cache);
        flag(flags, "worker.id", &self.id);
        flag(flags, "worker.credits", &self.credits);
        flag(flags, "worker.valid_until", &self.valid_until);
        flag(flags, "worker.idle_exit", &self.idle_exit);
    }
}

/// Works until it is asked to stop.
pub async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let settings = config.worker;
    let engine = engine(&args, &settings)?;
    let objects = ObjectStore::open(&settings.cache)?;
    let host = host_name();
    let id = match &settings.id {
        Some(id) => id.to_string(),
        None => format!("{host}-{}-{}", std::process::id(), random_suffix()),
    };
    let options = Options {
        id,
        credits: settings.credits,
        cache: settings.cache.clone(),
        drain_timeout: DRAIN,
        valid_until: settings.valid_until.map(Into::into),
        idle_exit: settings.idle_exit,
    };
    // Lazily: a worker may be started before its coordinator.
    let client = Client::new(endpoint(settings.coordinator.as_str())?.connect_lazy());
    tracing::info!(
        worker = options.id,
        coordinator = settings.coordinator.as_str(),
        valid_until = settings.valid_until.map(tracing::field::display),
        "working"
    );
    let shutdown = CancellationToken::new();
    let working = tokio::spawn(worker::run(
        client,
        objects,
        engine,
        options,
        shutdown.clone(),
    ));
    tokio::pin!(working);
    tokio::select! {
        ended = &mut working => ended??,
        () = asked_to_stop() => {
            shutdown.cancel();
            tokio::select! {
                ended = &mut working => ended??,
                () = asked_to_stop() => tracing::warn!("asked twice: leaving at once"),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn engine(args: &Args, settings: &WorkerConfig) -> anyhow::Result<Box<dyn Engine>> {
    if let Some(milliseconds) = args.fake {
        return Ok(Box::new(worker::Fake {
            unit_time: Duration::from_millis(milliseconds),
        }));
    }
    real_engine(settings)
}

#[cfg(feature = "torch")]
fn real_engine(settings: &WorkerConfig) -> anyhow::Result<Box<dyn Engine>> {
    let memory = settings.memory.bytes();
    Ok(Box::new(worker::Torch::new(
        settings.device.as_str(),
        settings.threads,
        memory,
    )?))
}

#[cfg(not(feature = "torch"))]
fn real_engine(_settings: &WorkerConfig) -> anyhow::Result<Box<dyn Engine>> {
    Err(anyhow::anyhow!("build it with the feature 'torch'"))
        .context("this palimpsest was built without an engine")
}

/// The host's name in the letters of an identifier.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let letters: String = name
        .trim()
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '-'
            }
        })
        .take(30)
        .collect();
    let letters = letters.trim_matches('-');
    if letters.is_empty() {
        "worker".to_owned()
    } else {
        letters.to_owned()
    }
}

fn random_suffix() -> String {
    uuid::Uuid::now_v7().simple().to_string()[26..].to_owned()
}
