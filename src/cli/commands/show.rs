//! `palimpsest show`: a version or an edit.

use std::process::ExitCode;

use tonic::{Code, Status};

use crate::cli::connection::{Connection, Need};
use crate::cli::{names, output};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::plot::table::{Align, Table};
use crate::proto::v1;

/// Flags of `show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A version (a ref, v3, a digest's beginning, main~2) or an edit (a digest's beginning)
    #[arg(default_value = "main")]
    what: String,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints it.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        print(&args, client).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn print(args: &Args, client: &Client) -> anyhow::Result<()> {
    let model = names::model(client, args.model.as_deref()).await?;
    let is_edit = args.what.contains("/edits/");
    let found = if is_edit {
        None
    } else {
        match names::get_version(client, &model, &args.what).await {
            Ok(version) => Some(version),
            // It may be an edit's digest; if it is not, the version is what is missing.
            Err(error) => match names::edit(client, &model, &args.what).await {
                Ok(edit) => return edit_text(&edit, args.json),
                Err(_) => return Err(not_there(error, &args.what, &model)),
            },
        }
    };
    match found {
        Some(version) if args.json => {
            let version = names::whole_version(client, &version.name).await?;
            output::json(&names::to_json(&version))?;
        }
        Some(version) => version_text(client, &version).await?,
        None => {
            let edit = names::edit(client, &model, &args.what).await?;
            edit_text(&edit, args.json)?;
        }
    }
    Ok(())
}

fn not_there(error: anyhow::Error, what: &str, model: &str) -> anyhow::Error {
    match error.downcast_ref::<Status>() {
        Some(status) if status.code() == Code::NotFound => anyhow::anyhow!(
            "'{what}' is no version and no edit of {model}: 'palimpsest log' shows what there is"
        ),
        _ => error,
    }
}

/// A named value, unless it is empty.
fn line(name: &str, value: &str) -> Result<(), output::Error> {
    if value.is_empty() {
        return Ok(());
    }
    show!("{name:<12}{value}")
}

async fn version_text(client: &Client, found: &v1::Version) -> anyhow::Result<()> {
    line("version", names::full(&found.name))?;
    line("number", &format!("v{}", found.number))?;
    line("made by", &names::kind(found))?;
    line("edit", &found.subject_edit)?;
    line("parent", &found.parent)?;
    line("base", &found.base)?;
    line("author", &found.author)?;
    if found.create_time.is_some() {
        line("time", &output::time(found.create_time.as_ref()))?;
    }
    line("why", &found.why)?;
    for warning in &found.warnings {
        line("warning", warning)?;
    }
    let mut edits = Table::new(&[
        ("EDIT", Align::Left),
        ("METHOD", Align::Left),
        ("LAYERS", Align::Left),
        ("FACT", Align::Left),
    ]);
    let listed = client.all_edits(&found.name).await?;
    for edit in &listed {
        let layers: Vec<String> = edit.factors.iter().map(|f| f.layer.to_string()).collect();
        edits.row([
            names::brief(&edit.name).to_owned(),
            edit.method.clone(),
            layers.join(","),
            names::fact(edit),
        ]);
    }
    if !listed.is_empty() {
        show!("")?;
        output::print_table(&edits)?;
    }
    if !found.matrices.is_empty() {
        let mut matrices = Table::new(&[
            ("MATRIX", Align::Left),
            ("TYPE", Align::Left),
            ("DIGEST", Align::Left),
        ]);
        for matrix in &found.matrices {
            matrices.row([&matrix.tensor_name, &matrix.dtype, &matrix.digest]);
        }
        show!("")?;
        output::print_table(&matrices)?;
    }
    Ok(())
}

fn edit_text(edit: &v1::Edit, json: bool) -> anyhow::Result<()> {
    if json {
        output::json(&names::edit_to_json(edit))?;
        return Ok(());
    }
    line("edit", names::full(&edit.name))?;
    line(
        "state",
        &output::word(edit.state().as_str_name(), "EDIT_STATE_"),
    )?;
    for gate in &edit.failed_gates {
        line("failed", gate)?;
    }
    for (n, request) in edit.requests.iter().enumerate() {
        if edit.requests.len() > 1 {
            let id = request.id.as_deref().map(|id| format!(", id {id}"));
            line("fact", &format!("#{n}{}", id.unwrap_or_default()))?;
        }
        line("prompt", &request.prompt)?;
        line("subject", &request.subject)?;
        line("new answer", request.target_new.trim())?;
        line(
            "true answer",
            request.target_true.as_deref().unwrap_or_default().trim(),
        )?;
    }
    for warning in &edit.warnings {
        line("warning", warning)?;
    }
    line("method", &edit.method)?;
    line("layer", &edit.layer_choice)?;
    line("based on", names::full(&edit.based_on))?;
    line("stands for", &edit.replaces)?;
    for fact in &edit.left_out {
        line("without", &names::request(fact))?;
    }
    line("author", &edit.author)?;
    line("time", &output::time(edit.create_time.as_ref()))?;
    line("why", &edit.why)?;
    line("job", &edit.job)?;
    line(
        "contexts",
        &match edit.contexts.len() {
            0 => String::new(),
            n => format!("{n}, 'show --json' lists them"),
        },
    )?;
    let mut factors = Table::new(&[
        ("MATRIX", Align::Left),
        ("RANK", Align::Right),
        ("SHAPE", Align::Right),
        ("DIGEST", Align::Left),
    ]);
    for factor in &edit.factors {
        factors.row([
            factor.tensor_name.clone(),
            factor.rank.to_string(),
            format!("{} x {}", factor.width, factor.inner),
            factor.digest.clone(),
        ]);
    }
    show!("")?;
    output::print_table(&factors)?;
    for (title, list) in [("PARAMETER", &edit.parameters), ("FIGURE", &edit.figures)] {
        if list.is_empty() {
            continue;
        }
        let mut table = Table::new(&[(title, Align::Left), ("VALUE", Align::Right)]);
        for number in list {
            table.row([number.key.clone(), format!("{:.6}", number.value)]);
        }
        show!("")?;
        output::print_table(&table)?;
    }
    Ok(())
}
