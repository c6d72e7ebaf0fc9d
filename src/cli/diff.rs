//! `palimpsest diff`: what differs between two versions.

use std::io::Write;
use std::process::ExitCode;

use super::connection::{Connection, ConnectionArgs, Need};
use super::{model, output, version};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::plot::table::{Align, Table};
use crate::proto::v1;

/// Flags of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One version: a ref, v3, a digest's beginning, main~2
    left: String,
    /// The other
    #[arg(default_value = "main")]
    right: String,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

/// Prints the differences.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let connection = Connection::open(config, Need::Records).await?;
    let done = print(&args, connection.client()).await;
    connection.close().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn print(args: &Args, client: &Client) -> anyhow::Result<()> {
    let model = model::choose(client, args.model.as_deref()).await?;
    let request = v1::CompareVersionsRequest {
        left: version::name(&model, &args.left),
        right: version::name(&model, &args.right),
    };
    let found = client
        .versions()
        .compare_versions(request)
        .await?
        .into_inner();
    let (left, right) = (
        found.left.clone().unwrap_or_default(),
        found.right.clone().unwrap_or_default(),
    );
    let mut out = std::io::stdout().lock();
    if args.json {
        let edits = |edits: &[v1::Edit]| -> Vec<serde_json::Value> {
            edits.iter().map(version::edit_to_json).collect()
        };
        let object = serde_json::json!({
            "left": left.name,
            "right": right.name,
            "left_edits": edits(&found.left_edits),
            "right_edits": edits(&found.right_edits),
            "matrices": found.matrices.iter().map(|matrix| serde_json::json!({
                "tensor": matrix.tensor_name, "layer": matrix.layer,
                "left_digest": matrix.left_digest, "right_digest": matrix.right_digest,
                "difference_norm": matrix.difference_norm, "base_norm": matrix.base_norm,
            })).collect::<Vec<_>>(),
        });
        writeln!(out, "{object}")?;
        return Ok(());
    }
    for (sign, found, edits) in [
        ('-', &left, &found.left_edits),
        ('+', &right, &found.right_edits),
    ] {
        writeln!(
            out,
            "{sign} v{} {}",
            found.number,
            version::brief(&found.name)
        )?;
        for edit in edits {
            let id = version::brief(&edit.name);
            writeln!(out, "{sign}   edit {id}: {}", version::fact(edit))?;
        }
    }
    if found.matrices.is_empty() {
        writeln!(out, "the same weights, bit for bit")?;
        return Ok(());
    }
    let mut table = Table::new(&[
        ("MATRIX", Align::Left),
        ("DIFFERENCE", Align::Right),
        ("OF ITS NORM", Align::Right),
        ("LEFT", Align::Left),
        ("RIGHT", Align::Left),
    ]);
    for matrix in &found.matrices {
        let share = matrix.difference_norm / matrix.base_norm.max(f64::MIN_POSITIVE);
        table.row([
            matrix.tensor_name.clone(),
            format!("{:.4}", matrix.difference_norm),
            format!("{:.2} %", 100.0 * share),
            version::brief(&matrix.left_digest).to_owned(),
            version::brief(&matrix.right_digest).to_owned(),
        ]);
    }
    writeln!(out)?;
    output::print_table(&mut out, &table)
}
