//! `palimpsest locate`: where the effects of a sweep peak, and so where an edit of its facts goes.

use std::process::ExitCode;

use super::connection::{Connection, ConnectionArgs, Need};
use super::job;
use crate::config::ClientConfig;

/// Flags of `locate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The tracing job: its identifier, an unambiguous end of it, or latest
    #[arg(default_value = "latest")]
    job: String,
    /// Over the facts of this relation alone
    #[arg(long)]
    relation: Option<String>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

/// Reads the job's results and says where they peak.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let connection = Connection::open(config, Need::Records).await?;
    let client = connection.client().clone();
    let located = job::locate(&client, &args.job, args.relation.as_deref(), args.json).await;
    drop(client);
    connection.close().await;
    located.map(|()| ExitCode::SUCCESS)
}
