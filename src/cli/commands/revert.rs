//! `palimpsest revert`: an edit taken out of a branch, or facts out of an edit of many.

use std::process::ExitCode;

use super::edit::mass;
use crate::cli::change::{self, ChangeArgs};
use crate::cli::connection::{Connection, Need};
use crate::cli::{follow, names, submit};
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
    /// A fact that is taken out of an edit of many: its case id, its subject, or #N, its place in
    /// the edit as `show` gives it; may be given again. The edit is computed again without it, from
    /// the keys and residuals that it keeps, and stands where it stood
    #[arg(long = "fact", value_name = "CASE_OR_SUBJECT")]
    facts: Vec<String>,
    /// With --fact: what came of it as JSON, one object a line
    #[arg(long, requires = "facts")]
    json: bool,
    #[command(flatten)]
    common: ChangeArgs,
}

/// Takes an edit out.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    if !args.facts.is_empty() {
        let embedded = config.server.is_none();
        return Connection::with(config, Need::Work, async |client| {
            take_facts_out(client, &args, embedded).await
        })
        .await;
    }
    Connection::with(config, Need::Records, async |client| {
        take_out(client, &args).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

/// Has an edit of many computed again without some of its facts.
async fn take_facts_out(client: &Client, args: &Args, embedded: bool) -> anyhow::Result<ExitCode> {
    let model = names::model(client, args.common.model.as_deref()).await?;
    let edit = names::edit(client, &model, &args.edit).await?;
    let count = args.facts.len();
    let display_name = format!("{count} facts out of edit {}", names::brief(&edit.name));
    let without = v1::mass_edit_spec::Without {
        edit: edit.name,
        facts: args.facts.clone(),
        ..Default::default()
    };
    let spec = v1::MassEditSpec {
        without: Some(without),
        ref_id: args.reference.clone(),
        why: args.common.why.clone().unwrap_or_default(),
        ..Default::default()
    };
    let job = v1::Job {
        version: names::version(&model, &args.reference),
        model,
        spec: Some(spec.into()),
        display_name,
        priority: submit::ATTENDED,
        ..Default::default()
    };
    let job = submit::create(client, submit::request(job)).await?;
    let Some(job) = follow::to_end(client, &job.name, embedded).await? else {
        return Ok(ExitCode::from(130));
    };
    mass::show(client, &args.reference, args.json, &job).await
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
