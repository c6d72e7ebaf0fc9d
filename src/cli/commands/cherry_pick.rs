//! `palimpsest cherry-pick`: an edit of another branch added to one.

use std::process::ExitCode;

use crate::cli::change::{self, ChangeArgs};
use crate::cli::connection::{Connection, Need};
use crate::cli::names;
use crate::client::Client;
use crate::config::ClientConfig;
use crate::proto::v1;

/// Flags of `cherry-pick`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The edit: its digest or the beginning of it
    edit: String,
    /// The branch that takes it
    #[arg(long, value_name = "REF", default_value = "main")]
    onto: String,
    #[command(flatten)]
    common: ChangeArgs,
}

/// Adds an edit.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        add(client, &args).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn add(client: &Client, args: &Args) -> anyhow::Result<()> {
    let model = names::model(client, args.common.model.as_deref()).await?;
    let request = v1::CherryPickEditRequest {
        name: names::edit(client, &model, &args.edit).await?.name,
        ref_id: args.onto.clone(),
        etag: String::new(),
        why: args.common.why.clone().unwrap_or_default(),
    };
    let made = client
        .versions()
        .cherry_pick_edit(request)
        .await?
        .into_inner();
    change::say(&made.version.unwrap_or_default(), &args.onto)?;
    Ok(())
}
