//! `palimpsest refs`: where names point.

use std::process::ExitCode;

use crate::cli::connection::{Connection, Need};
use crate::cli::{names, output};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::plot::table::{Align, Table};
use crate::proto::v1;
use crate::version::digest_of;

/// Flags of `refs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
}

/// Prints the refs of a model.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        print(client, &args).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn print(client: &Client, args: &Args) -> anyhow::Result<()> {
    let model = names::model(client, args.model.as_deref()).await?;
    let refs = client.all_refs(&model).await?;
    let kind = |found: &v1::Ref| output::word(found.kind().as_str_name(), "REF_KIND_");
    if args.json {
        for found in &refs {
            let object = serde_json::json!({
                "name": found.name, "version": found.version, "kind": kind(found),
                "etag": found.etag, "author": found.author, "why": found.why,
                "time": names::timestamp(found.update_time.as_ref()),
            });
            output::json(&object)?;
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
            names::brief(&found.version),
            &found.etag,
            &output::time(found.update_time.as_ref()),
            &found.author,
            &found.why,
        ]);
    }
    Ok(output::print_table(&table)?)
}
