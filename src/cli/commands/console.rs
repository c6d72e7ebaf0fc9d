//! `palimpsest console`: the console on the user's own machine, in front of any coordinator, with
//! the user's own credentials.
#![allow(clippy::disallowed_methods)] // the program owns its tasks

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::descriptors;
use crate::api::error::Error;
use crate::api::listener::Listener;
use crate::cli::connection::{Connection, Need};
use crate::cli::output;
use crate::cli::signals::asked_to_stop;
use crate::client::Client;
use crate::config::ClientConfig;
use crate::web::{self, Door, Key, Remote};

/// Where it is served, where nobody says otherwise.
pub const PORT: &str = "7463";
/// Connections that may be open at a time. A browser has six for all its tabs.
const CONNECTIONS: usize = 2048;
/// How long a connection may stay on which the key was not shown. Longer than pages take to come
/// through a slow tunnel; the first call, with the key, comes right behind them.
const ADMISSION: Duration = Duration::from_secs(30);
/// How long calls under way may take to finish.
const LEAVING: Duration = Duration::from_secs(1);

/// Flags of `console`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port of this machine that it is served at; 0 for a free one
    #[arg(long, default_value = PORT)]
    port: u16,
    /// Open it in the browser
    #[arg(long)]
    open: bool,
}

/// Serves the console until it is asked to stop.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    // Without an engine there is still all that the store has.
    let need = match cfg!(feature = "torch") {
        true => Need::Work,
        false => Need::Records,
    };
    let connection = Connection::open(config, need).await?;
    let mut here = Here::serve(args.port, connection.client()).await?;
    if !web::is_built() {
        say!(
            "this program was built without the pages: run deploy/setup.sh where Node is, and build it again"
        );
    }
    show!("{}", here.address)?;
    output::flush()?;
    let shown = args.open.then(|| open(&here.address)).transpose();
    let shown = shown.unwrap_or_else(|error| {
        say!("no browser was opened ({error:#}): open the address above");
        None
    });
    let ended = connection
        .wait(async {
            tokio::select! {
                () = asked_to_stop() => Ok(ExitCode::SUCCESS),
                ended = here.ended() => match ended {
                    Ok(()) => bail!("the console ended by itself"),
                    Err(error) => Err(error.into()),
                },
            }
        })
        .await;
    drop(shown);
    here.stop().await;
    connection.close().await;
    ended
}

/// A console that is served on this machine.
#[derive(Debug)]
pub struct Here {
    /// Its address, with the key.
    pub address: String,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), Error>>,
}

impl Here {
    /// Serves a console in front of what a client calls, at a port of this machine.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn serve(port: u16, client: &Client) -> anyhow::Result<Self> {
        descriptors::raise_limit();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = match Listener::bind(address, None, CONNECTIONS) {
            // Everybody on this machine can come to it, and one of them has the key.
            Ok(listener) => listener.guarded_within(ADMISSION),
            Err(Error::Bind { reason, .. }) => bail!(
                "the console cannot be served at port {port} ({reason}): choose another, or 0 for one that is free"
            ),
            Err(error) => return Err(error.into()),
        };
        let key = Key::random().context("no random key")?;
        let address = format!("http://{}/#key={}", listener.address()?, key.as_str());
        let stop = CancellationToken::new();
        let serving = web::serve(
            Remote::new(client),
            Door::with_key(key),
            listener.incoming(),
            stop.clone().cancelled_owned(),
        );
        Ok(Self {
            address,
            stop,
            serving: tokio::spawn(serving),
        })
    }

    /// Waits until it ends by itself, which it does not unless it fails.
    pub async fn ended(&mut self) -> Result<(), Error> {
        match (&mut self.serving).await {
            Ok(ended) => ended,
            // It panicked, and said so.
            Err(_) => Ok(()),
        }
    }

    /// Ends it; streams that are open are cut.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if !self.serving.is_finished() {
            let _ = tokio::time::timeout(LEAVING, &mut self.serving).await;
        }
        self.serving.abort();
    }
}

/// Opens an address in the user's browser by a file that only they can read, which is there until
/// what is given is dropped: what a program is started with, everybody on the machine can see.
fn open(address: &str) -> anyhow::Result<tempfile::NamedTempFile> {
    let mut page = tempfile::Builder::new()
        .prefix("palimpsest-")
        .suffix(".html")
        .tempfile()
        .context("no file for it")?;
    writeln!(
        page,
        "<!doctype html><meta http-equiv=\"refresh\" content=\"0; url={address}\">"
    )?;
    page.flush()?;
    let mut opener = Command::new("xdg-open");
    opener.arg(page.path());
    opener.stdin(Stdio::null()).stdout(Stdio::null());
    // It is not waited for: it may be the browser itself.
    let started = opener.stderr(Stdio::null()).spawn();
    started.context("xdg-open cannot be started")?;
    Ok(page)
}
