//! `palimpsest rollback`, `tag`, `branch` and `refs`: where names point.

use std::io::Write;
use std::process::ExitCode;

use super::connection::{Connection, ConnectionArgs, Need};
use super::{model, output, version};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::plot::table::{Align, Table};
use crate::proto::v1;
use crate::version::digest_of;

/// Flags of `rollback`.
#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
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
    common: Common,
}

/// Flags of `tag` and `branch`.
#[derive(Debug, clap::Args)]
pub struct NameArgs {
    /// Its name: lower-case letters, digits, '.', '_' and '-'
    name: String,
    /// The version it points at
    #[arg(default_value = "main")]
    version: String,
    /// Move it if it is there already
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

/// Flags of `refs`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Flags of what changes versions.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Why, for the history and the audit log
    #[arg(long, value_name = "TEXT")]
    pub(super) why: Option<String>,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    pub(super) model: Option<String>,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

impl RollbackArgs {
    /// The flags of the connection.
    pub fn connection(&self) -> &ConnectionArgs {
        &self.common.connection
    }
}

impl NameArgs {
    /// The flags of the connection.
    pub fn connection(&self) -> &ConnectionArgs {
        &self.common.connection
    }
}

impl ListArgs {
    /// The flags of the connection.
    pub fn connection(&self) -> &ConnectionArgs {
        &self.connection
    }
}

/// Moves a branch.
pub async fn rollback(args: RollbackArgs, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        move_ref(client, &args).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn move_ref(client: &Client, args: &RollbackArgs) -> anyhow::Result<()> {
    let model = model::choose(client, args.common.model.as_deref()).await?;
    let asked = v1::Ref {
        name: format!("{model}/refs/{}", args.reference),
        version: version::name(&model, &args.to),
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
    eprintln!(
        "{} moved from {} to {}; nothing was deleted",
        args.reference,
        version::brief(&moved.previous_version),
        version::brief(&now.version)
    );
    println!("{}", now.version);
    Ok(())
}

/// Makes, or moves, a tag or a branch.
pub async fn name(
    args: NameArgs,
    kind: v1::RefKind,
    config: &ClientConfig,
) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        put_ref(client, &args, kind).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn put_ref(client: &Client, args: &NameArgs, kind: v1::RefKind) -> anyhow::Result<()> {
    let model = model::choose(client, args.common.model.as_deref()).await?;
    let asked = v1::Ref {
        name: format!("{model}/refs/{}", args.name),
        version: version::name(&model, &args.version),
        kind: kind as i32,
        why: args.common.why.clone().unwrap_or_default(),
        ..Default::default()
    };
    let refs = version::refs(client, &model).await?;
    let now = if args.force && refs.iter().any(|found| found.name == asked.name) {
        let request = v1::UpdateRefRequest {
            r#ref: Some(asked),
            force: true,
        };
        client
            .versions()
            .update_ref(request)
            .await?
            .into_inner()
            .r#ref
    } else {
        let request = v1::CreateRefRequest {
            parent: model,
            ref_id: args.name.clone(),
            r#ref: Some(asked),
        };
        client
            .versions()
            .create_ref(request)
            .await?
            .into_inner()
            .r#ref
    };
    let now = now.unwrap_or_default();
    eprintln!("{} points at {}", args.name, version::brief(&now.version));
    println!("{}", now.version);
    Ok(())
}

/// Prints the refs of a model.
pub async fn list(args: ListArgs, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        print(client, &args).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn print(client: &Client, args: &ListArgs) -> anyhow::Result<()> {
    let model = model::choose(client, args.model.as_deref()).await?;
    let refs = version::refs(client, &model).await?;
    let mut out = std::io::stdout().lock();
    let kind = |found: &v1::Ref| output::word(found.kind().as_str_name(), "REF_KIND_");
    if args.json {
        for found in &refs {
            let object = serde_json::json!({
                "name": found.name, "version": found.version, "kind": kind(found),
                "etag": found.etag, "author": found.author, "why": found.why,
                "time": version::timestamp(found.update_time.as_ref()),
            });
            writeln!(out, "{object}")?;
        }
        return Ok(());
    }
    let mut table = Table::new(&[
        ("REF", Align::Left),
        ("KIND", Align::Left),
        ("VERSION", Align::Left),
        ("ETAG", Align::Left),
        ("MOVED", Align::Left),
        ("BY", Align::Left),
        ("WHY", Align::Left),
    ]);
    for found in &refs {
        table.row([
            digest_of(&found.name),
            &kind(found),
            version::brief(&found.version),
            &found.etag,
            &output::time(found.update_time.as_ref()),
            &found.author,
            &found.why,
        ]);
    }
    output::print_table(&mut out, &table)
}
