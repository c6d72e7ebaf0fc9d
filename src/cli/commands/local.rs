//! `palimpsest local`: a coordinator and a worker in one process, for the programs of one user on
//! one machine.
#![allow(clippy::disallowed_methods)] // the program owns its tasks

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::oneshot;

use crate::api::listener::{Connections, Listener};
use crate::cli::commands::console::{Here, PORT};
use crate::cli::commands::serve::write_whole;
use crate::cli::commands::store::options;
use crate::cli::connection::embedded_engines;
use crate::cli::flags::{Flags, flag};
use crate::cli::joined::Notice;
use crate::cli::output;
use crate::cli::signals::asked_to_stop;
use crate::client::Client;
use crate::config::{ClientConfig, Config, Listen};
use crate::embedded::Embedded;

/// Connections that may be open at a time: notebooks and commands of one user.
const CONNECTIONS: usize = 256;
/// How long the worker may take to leave what it does. What it did not hand in is computed again.
const LEAVING: Duration = Duration::from_secs(5);

/// Flags of `local`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A socket to listen on, as unix:PATH, or an address of this machine; by default a socket in
    /// the store's folder
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Listen>,
    /// The folder of everything that is kept
    #[arg(long, value_name = "FOLDER")]
    store: Option<String>,
    /// The device of the worker: auto, cpu, cuda, cuda:N; several of a kind, as cuda:0,cuda:1, or
    /// all, over which models are spread
    #[arg(long)]
    device: Option<String>,
    /// A model and leases of its own for each device
    #[arg(long)]
    per_device: bool,
    /// Threads of a CPU operation; 0 for one a core
    #[arg(long)]
    threads: Option<u32>,
    /// Memory for the activations of a batch, such as 4GiB
    #[arg(long)]
    memory: Option<String>,
    /// Serve the console too, at this port of this machine; 0 for a free one
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = PORT)]
    console: Option<u16>,
    /// Leave when the standard input has ended and nobody is connected any more: so it goes with
    /// the program that started it, however that ends
    #[arg(long)]
    until_stdin_closes: bool,
    /// Write the address into this file once it is listened on
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

impl Args {
    /// Adds what was given to the settings: they are those of a coordinator inside a command.
    pub fn flags(&self, flags: &mut Flags) {
        flag(flags, "client.store", &self.store);
        flag(flags, "client.device", &self.device);
        flag(flags, "client.per_device", &self.per_device.then_some(true));
        flag(flags, "client.threads", &self.threads);
        flag(flags, "client.memory", &self.memory);
    }
}

/// Serves until it is asked to stop, or left alone.
pub async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    // From now on: who started it may end at any moment.
    let left = args.until_stdin_closes.then(end_of_input);
    let settings = config.client;
    let embedded = Embedded::start(&settings.store, options(&config.store))?;
    embedded.work(embedded_engines(&settings)?);
    let (listener, folder) = listen(args.listen, &settings.store).await?;
    let address = listener.address()?;
    let connections = listener.connections();
    embedded.listen(listener);
    let notice = match address.starts_with("unix:") {
        true => Some(Notice::write(&settings.store, &address)?),
        // Whoever has the port after this process would be joined.
        false => None,
    };
    let mut console = match args.console {
        Some(port) => Some(Here::serve(port, &named(&embedded, &settings)).await?),
        None => None,
    };
    tracing::info!(%address, store = %settings.store.display(), "serving");
    if let Some(file) = &args.port_file {
        write_whole(file, &address)?;
    }
    show!("{address}")?;
    if let Some(console) = &console {
        show!("{}", console.address)?;
    }
    output::flush()?;
    let console_ended = async {
        match &mut console {
            Some(console) => console.ended().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        () = asked_to_stop() => Ok(ExitCode::SUCCESS),
        () = alone(left, connections) => Ok(ExitCode::SUCCESS),
        ended = console_ended => Err(ended.map_or_else(Into::into, |()| anyhow::anyhow!("the console ended by itself"))),
        why = embedded.worker_failed() => Err(anyhow::anyhow!(why).context("the worker stopped")),
    };
    tracing::info!("stopping");
    drop(notice);
    if let Some(console) = console {
        console.stop().await;
    }
    // What was acknowledged is durable; a computation that cannot be interrupted is left behind.
    if tokio::time::timeout(LEAVING, embedded.stop())
        .await
        .is_err()
    {
        tracing::info!("the worker was cut");
    }
    drop(folder);
    ended
}

/// The coordinator's client, in the name of its user.
fn named(embedded: &Embedded, settings: &ClientConfig) -> Client {
    let client = embedded.client().clone();
    client.with_user(settings.user.as_deref())
}

/// Listens where it was said, or at a socket in the store's folder; in a folder of its own, which
/// is given too, where that has too long a name or takes no sockets.
async fn listen(
    listen: Option<Listen>,
    store: &Path,
) -> anyhow::Result<(Listener, Option<tempfile::TempDir>)> {
    match listen {
        Some(listen) if !listen.is_inside() => {
            bail!(
                "--listen {listen}: give unix:PATH or a loopback address; 'palimpsest serve' serves other machines"
            )
        }
        Some(Listen::Address(address)) => Ok((Listener::bind(address, None, CONNECTIONS)?, None)),
        Some(Listen::Socket(path)) => Ok((Listener::bind_socket(&path, CONNECTIONS)?, None)),
        None => {
            let path = std::path::absolute(store)?.join("local.socket");
            if let Ok(Listen::Socket(path)) = Listen::socket(path)
                && let Ok(listener) = Listener::bind_socket(&path, CONNECTIONS)
            {
                return Ok((listener, None));
            }
            let folder = tempfile::Builder::new().prefix("palimpsest-").tempdir();
            let folder = folder.context("no folder for a socket: name one with --listen")?;
            let path = folder.path().join("socket");
            Ok((Listener::bind_socket(&path, CONNECTIONS)?, Some(folder)))
        }
    }
}

/// Tells when the standard input has ended.
fn end_of_input() -> oneshot::Receiver<()> {
    let (ended, told) = oneshot::channel();
    // A thread: reading cannot be given up, and holds up no end of the process.
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut bytes = [0; 1024];
        while matches!(input.read(&mut bytes), Ok(1..)) {}
        let _ = ended.send(());
    });
    told
}

/// Waits for the end of the input, if that is waited for, and then for all who joined.
async fn alone(left: Option<oneshot::Receiver<()>>, connections: Connections) {
    match left {
        None => std::future::pending().await,
        Some(left) => {
            let _ = left.await;
            connections.none().await;
        }
    }
}
