//! `palimpsest revert` and `cherry-pick`: edits taken out of a branch, and added to one.

use std::process::ExitCode;

use super::connection::{Connection, ConnectionArgs, Need};
use super::refs::Common;
use super::{model, version};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::proto::v1;

/// Flags of `revert`.
#[derive(Debug, clap::Args)]
pub struct RevertArgs {
    /// The edit: its digest or the beginning of it
    edit: String,
    /// The branch that it is taken out of
    #[arg(long = "ref", value_name = "REF", default_value = "main")]
    reference: String,
    #[command(flatten)]
    common: Common,
}

/// Flags of `cherry-pick`.
#[derive(Debug, clap::Args)]
pub struct PickArgs {
    /// The edit: its digest or the beginning of it
    edit: String,
    /// The branch that takes it
    #[arg(long, value_name = "REF", default_value = "main")]
    onto: String,
    #[command(flatten)]
    common: Common,
}

impl RevertArgs {
    /// The flags of the connection.
    pub fn connection(&self) -> &ConnectionArgs {
        &self.common.connection
    }
}

impl PickArgs {
    /// The flags of the connection.
    pub fn connection(&self) -> &ConnectionArgs {
        &self.common.connection
    }
}

/// Takes an edit out.
pub async fn revert(args: RevertArgs, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        take_out(client, &args).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn take_out(client: &Client, args: &RevertArgs) -> anyhow::Result<()> {
    let model = model::choose(client, args.common.model.as_deref()).await?;
    let request = v1::RevertEditRequest {
        name: version::edit(client, &model, &args.edit).await?.name,
        ref_id: args.reference.clone(),
        etag: String::new(),
        why: args.common.why.clone().unwrap_or_default(),
    };
    let made = client.versions().revert_edit(request).await?.into_inner();
    say(&made.version.unwrap_or_default(), &args.reference);
    Ok(())
}

/// Adds an edit.
pub async fn cherry_pick(args: PickArgs, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        add(client, &args).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn add(client: &Client, args: &PickArgs) -> anyhow::Result<()> {
    let model = model::choose(client, args.common.model.as_deref()).await?;
    let request = v1::CherryPickEditRequest {
        name: version::edit(client, &model, &args.edit).await?.name,
        ref_id: args.onto.clone(),
        etag: String::new(),
        why: args.common.why.clone().unwrap_or_default(),
    };
    let made = client
        .versions()
        .cherry_pick_edit(request)
        .await?
        .into_inner();
    say(&made.version.unwrap_or_default(), &args.onto);
    Ok(())
}

/// Says what a branch came to, and prints the version.
pub fn say(made: &v1::Version, branch: &str) {
    for warning in &made.warnings {
        eprintln!("warning: {warning}");
    }
    let edits = match made.edits.len() {
        1 => "1 edit".to_owned(),
        count => format!("{count} edits"),
    };
    let brief = version::brief(&made.name);
    eprintln!("{branch} is at v{} {brief}, with {edits}", made.number);
    println!("{}", made.name);
}
