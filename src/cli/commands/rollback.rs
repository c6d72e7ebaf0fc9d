//! `palimpsest rollback`: a branch moved to another version, back or forth.

use std::process::ExitCode;

use crate::cli::change::ChangeArgs;
use crate::cli::connection::{Connection, Need};
use crate::cli::names;
use crate::client::Client;
use crate::config::ClientConfig;
use crate::proto::v1;

/// Flags of `rollback`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The version to go to, back or forth: v3, a digest's beginning, a tag, main~2
    #[arg(long, value_name = "VERSION")]
    to: String,
    /// The branch that is moved
    #[arg(long = "ref", value_name = "REF", default_value = "main")]
    reference: String,
    /// Only if the branch has this etag: 'palimpsest refs' shows it
    #[arg(long)]
    etag: Option<String>,
    #[command(flatten)]
    common: ChangeArgs,
}

/// Moves a branch.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        move_ref(client, &args).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn move_ref(client: &Client, args: &Args) -> anyhow::Result<()> {
    let model = names::model(client, args.common.model.as_deref()).await?;
    let asked = v1::Ref {
        name: format!("{model}/refs/{}", args.reference),
        version: names::version(&model, &args.to),
        etag: args.etag.clone().unwrap_or_default(),
        why: args.common.why.clone().unwrap_or_default(),
        ..Default::default()
    };
    let request = v1::UpdateRefRequest {
        r#ref: Some(asked),
        force: false,
    };
    let moved = client.versions().update_ref(request).await?.into_inner();
    let now = moved.r#ref.unwrap_or_default();
    say!(
        "{} moved from {} to {}; nothing was deleted",
        args.reference,
        names::brief(&moved.previous_version),
        names::brief(&now.version)
    );
    show!("{}", now.version)?;
    Ok(())
}
