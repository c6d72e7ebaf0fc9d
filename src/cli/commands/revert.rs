//! `palimpsest revert`: an edit taken out of a branch.

use std::process::ExitCode;

use crate::cli::change::{self, ChangeArgs};
use crate::cli::connection::{Connection, Need};
use crate::cli::names;
use crate::client::Client;
use crate::config::ClientConfig;
use crate::proto::v1;

/// Flags of `revert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The edit: its digest or the beginning of it
    edit: String,
    /// The branch that it is taken out of
    #[arg(long = "ref", value_name = "REF", default_value = "main")]
    reference: String,
    #[command(flatten)]
    common: ChangeArgs,
}

/// Takes an edit out.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        take_out(client, &args).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn take_out(client: &Client, args: &Args) -> anyhow::Result<()> {
    let model = names::model(client, args.common.model.as_deref()).await?;
    let request = v1::RevertEditRequest {
        name: names::edit(client, &model, &args.edit).await?.name,
        ref_id: args.reference.clone(),
        etag: String::new(),
        why: args.common.why.clone().unwrap_or_default(),
    };
    let made = client.versions().revert_edit(request).await?.into_inner();
    change::say(&made.version.unwrap_or_default(), &args.reference)?;
    Ok(())
}
