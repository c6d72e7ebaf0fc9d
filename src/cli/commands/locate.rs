//! `palimpsest locate`: where the effects of a sweep peak, and so where an edit of its facts goes.

use std::process::ExitCode;

use crate::cli::connection::{Connection, Need};
use crate::cli::{names, output, results};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::plot::terminal_width;

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
}

/// Reads the job's results and says where they peak.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        locate(&args, client).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn locate(args: &Args, client: &Client) -> anyhow::Result<()> {
    let name = names::job(client, &args.job).await?;
    let sites = results::sites(client, &name, args.relation.as_deref()).await?;
    match args.json {
        true => sites.json(&mut output::JsonLines)?,
        false => {
            let mut out = Vec::new();
            sites.report(&mut out, terminal_width(), output::colour())?;
            output::raw(&out)?;
        }
    }
    Ok(())
}
