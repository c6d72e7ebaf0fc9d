//! Which coordinator a command talks to: one at an address, or one inside the command.
#![allow(clippy::disallowed_methods)] // who waits for a coordinator has a clock

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{ArgMatches, Args, FromArgMatches};

use super::engines::engines;
use super::flags::{Flags, flag};
use super::joined;
use crate::client::{Client, Credentials, Error};
use crate::config::{Addresses, ClientConfig};
use crate::embedded::Embedded;
use crate::objects::ObjectStore;
use crate::store;
use crate::worker::Engine;

/// How long one of several coordinators is waited for, where nobody says otherwise: longer than a
/// take-over needs.
const TAKING_OVER: Duration = Duration::from_secs(60);
/// How long to wait before they are asked again.
const PAUSE: Duration = Duration::from_millis(300);

// Flags of every command that talks to a coordinator. (As a doc comment it would be taken for what
// each of these commands is about.)
#[derive(Debug, Args)]
#[command(next_help_heading = "Coordinator")]
struct ConnectionArgs {
    /// The coordinator's address, such as http://127.0.0.1:7461, or those of several that follow
    /// one log, separated by commas; without it the command runs a coordinator and a worker inside
    /// itself
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
    /// The store of the coordinator inside the command
    #[arg(long, value_name = "FOLDER")]
    store: Option<String>,
    /// The device of the worker inside the command: auto, cpu, cuda, cuda:N; several of a kind, as
    /// cuda:0,cuda:1, or all, over which models are spread
    #[arg(long)]
    device: Option<String>,
    /// A model and leases of its own for each of those devices
    #[arg(long)]
    per_device: bool,
    /// Threads of that worker; 0 for one a core
    #[arg(long)]
    threads: Option<u32>,
    /// Memory for that worker's activations, such as 4GiB
    #[arg(long)]
    memory: Option<String>,
}

/// Gives a command, or its subcommands if it has some, the flags of the connection. `worker` alone
/// runs a worker; a command that also has subcommands, as `edit`, takes them itself too.
pub fn with_flags(command: clap::Command) -> clap::Command {
    let itself = !command.has_subcommands() || command.get_name() == "edit";
    let command = command.mut_subcommands(with_flags);
    match itself {
        true => ConnectionArgs::augment_args(command),
        false => command,
    }
}

/// Adds to the settings what was given of the connection, where the command takes it.
pub fn flags(matches: &ArgMatches, flags: &mut Flags) -> anyhow::Result<()> {
    let inner = std::iter::successors(Some(matches), |it| it.subcommand().map(|(_, it)| it));
    let Some(command) = inner.last() else {
        return Ok(());
    };
    // Where the command does not have the flags, their group is never there. (That it is not even
    // known is said by builds with debug assertions alone.)
    if !matches!(command.try_contains_id("ConnectionArgs"), Ok(true)) {
        return Ok(());
    }
    let given = ConnectionArgs::from_arg_matches(command)?;
    flag(flags, "client.server", &given.server);
    flag(flags, "client.store", &given.store);
    flag(flags, "client.device", &given.device);
    flag(
        flags,
        "client.per_device",
        &given.per_device.then_some(true),
    );
    flag(flags, "client.threads", &given.threads);
    flag(flags, "client.memory", &given.memory);
    Ok(())
}

/// How the store of a coordinator inside a command is opened. Commands are given the settings of
/// their own section only; the program says this once, before it runs one.
static STORE: OnceLock<store::Options> = OnceLock::new();

/// Says how the store of a coordinator inside a command is opened.
pub fn open_stores_with(options: store::Options) {
    // There is one set of settings in a process.
    let _ = STORE.set(options);
}

/// A coordinator to talk to.
pub struct Connection {
    client: Client,
    console: Option<String>,
    embedded: Option<Embedded>,
}

/// Whether a command needs a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It reads or writes records only.
    Records,
    /// It waits for work to be done.
    Work,
}

impl Connection {
    /// Connects to the configured server or to the `palimpsest local` that has the store, or starts
    /// one inside this process, with a worker if there will be work.
    pub async fn open(config: &ClientConfig, need: Need) -> anyhow::Result<Self> {
        let console = config.console.as_ref();
        let console = console.map(|console| console.as_str().trim_end_matches('/').to_owned());
        if let Some(server) = &config.server {
            let client = reach(server, config).await?;
            let client = client.with_user(config.user.as_deref());
            return Ok(Self {
                client,
                console,
                embedded: None,
            });
        }
        // A server of one's own has the store: a notebook's.
        if let Some(address) = joined::address(&config.store)
            && let Ok(client) = Client::connect(&address).await
        {
            return Ok(Self {
                client: client.with_user(config.user.as_deref()),
                console,
                embedded: None,
            });
        }
        let options = STORE.get().cloned().unwrap_or_default();
        let embedded = Embedded::start(&config.store, options)?;
        if need == Need::Work {
            embedded.work(embedded_engines(config)?);
        }
        Ok(Self {
            client: embedded.client().clone().with_user(config.user.as_deref()),
            console,
            embedded: Some(embedded),
        })
    }

    /// Opens a connection, does something with its client, and ends it.
    pub async fn with<T>(
        config: &ClientConfig,
        need: Need,
        act: impl AsyncFnOnce(&Client) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let connection = Self::open(config, need).await?;
        let done = connection.wait(act(connection.client())).await;
        connection.close().await;
        done
    }

    /// Waits for something that a worker may have to do, or for the worker inside this process to
    /// fail.
    pub async fn wait<T>(
        &self,
        done: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let Some(embedded) = &self.embedded else {
            return done.await;
        };
        tokio::select! {
            biased;
            done = done => done,
            why = embedded.worker_failed() => Err(anyhow::anyhow!(why))
                .context("the worker inside this command stopped; 'palimpsest job watch latest' goes on with its job"),
        }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Says that a job was accepted, and where its page is.
    pub fn say_accepted(&self, job: &str) {
        match &self.console {
            Some(console) => say!("{job} accepted: {console}/{job}"),
            None => say!("{job} accepted"),
        }
    }

    /// The objects of the coordinator inside this process.
    pub fn objects(&self) -> Option<ObjectStore> {
        self.embedded
            .as_ref()
            .map(|embedded| embedded.objects().clone())
    }

    /// Whether the coordinator runs inside this process.
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Ends what runs inside this process.
    pub async fn close(self) {
        drop(self.client);
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

/// Connects to a coordinator, which may be about to start or to take over.
async fn reach(server: &Addresses, config: &ClientConfig) -> Result<Client, Error> {
    let patience = config.patience.unwrap_or(match server.are_several() {
        true => TAKING_OVER,
        false => Duration::ZERO,
    });
    let mut since: Option<Instant> = None;
    loop {
        let error = match Client::connect_with(server.as_str(), &credentials(config)).await {
            Err(error @ Error::Connect { may_pass: true, .. }) => error,
            connected => {
                let client = connected?;
                return Ok(match config.patience {
                    Some(patience) => client.with_patience(patience),
                    None => client,
                });
            }
        };
        match since {
            None if patience > Duration::ZERO => {
                say!("{error} It is waited for, {patience:?} at most");
                since = Some(Instant::now());
            }
            Some(since) if since.elapsed() < patience => {}
            _ => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What a command shows of itself.
pub fn credentials(config: &ClientConfig) -> Credentials<'_> {
    Credentials {
        ca: config.ca.as_deref(),
        certificate: config.certificate.as_deref().zip(config.key.as_deref()),
        token_file: config.token_file.as_deref(),
        insecure: config.insecure,
    }
}

/// The engines of the workers inside this process.
pub fn embedded_engines(config: &ClientConfig) -> anyhow::Result<Vec<Box<dyn Engine>>> {
    let memory = config.memory.bytes();
    engines(
        config.device.as_str(),
        config.per_device,
        config.threads,
        memory,
        None,
    )
    .context("the worker inside this command")
}
