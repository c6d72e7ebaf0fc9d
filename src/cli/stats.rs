//! `palimpsest stats`: what the inputs of the edited matrices look like over ordinary text.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

use super::connection::{Connection, ConnectionArgs, Need};
use super::trace::parse_dtype;
use super::{follow, job, model, output};
use crate::client::{self, Client};
use crate::config::ClientConfig;
use crate::objects::{self, Digest};
use crate::plot::table::{Align, Table};
use crate::proto::v1::{self, job::Spec, unit_result::Outcome};

/// Text of a piece: some 16,000 tokens.
const PIECE_BYTES: usize = 64 << 10;
/// Tokens of a piece that is drawn from the model.
const PIECE_TOKENS: u64 = 8192;
/// Bytes of text that one request may carry.
const CORPUS_BYTES: usize = 3 << 20;

/// Subcommands of `stats`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Collect them over texts, or over text drawn from the model
    Collect(Box<CollectArgs>),
    /// Take a file of the ROME release
    Import(ImportArgs),
    /// Show what there is
    #[command(alias = "show")]
    List(ListArgs),
}

/// Flags of `stats collect`.
#[derive(Debug, clap::Args)]
pub struct CollectArgs {
    /// Texts: plain text (one document a file), JSON lines or a JSON list of strings or of objects with 'text'
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "self_sample")]
    corpus: Vec<PathBuf>,
    /// Draw so many tokens from the model itself instead
    #[arg(long, value_name = "N", conflicts_with_all = ["corpus", "tokens"])]
    self_sample: Option<u64>,
    /// Seed of what is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Layers, such as 5, 3,5 or 3..8 (8 is not among them)
    #[arg(long, value_parser = parse_layers)]
    layers: Layers,
    /// Stop after about so many tokens of the corpus
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Tokens a text is cut to
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    length: u32,
    /// f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Flags of `stats import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// A .npz file with mom2.mom2 and mom2.count
    file: PathBuf,
    /// The layer that it is of
    #[arg(long)]
    layer: u32,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Flags of `stats list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// One JSON object an artefact
    #[arg(long)]
    json: bool,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Some layers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layers(Vec<u32>);

fn parse_layers(text: &str) -> Result<Layers, String> {
    let number = |text: &str| {
        let parsed = text.trim().parse::<u32>();
        parsed.map_err(|_| format!("'{text}' is no layer: give 5, 3,5 or 3..8"))
    };
    let mut layers = Vec::new();
    for part in text.split(',') {
        match part.split_once("..") {
            Some((from, to)) => layers.extend(number(from)?..number(to)?),
            None => layers.push(number(part)?),
        }
    }
    if layers.is_empty() || layers.len() > 1000 {
        return Err(format!(
            "'{text}' names {} layers: give 1 to 1000",
            layers.len()
        ));
    }
    Ok(Layers(layers))
}

impl Command {
    /// The flags of the connection.
    pub fn connection(&self) -> &ConnectionArgs {
        match self {
            Self::Collect(args) => &args.connection,
            Self::Import(args) => &args.connection,
            Self::List(args) => &args.connection,
        }
    }
}

/// Runs a subcommand.
pub async fn run(command: Command, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    match command {
        Command::Collect(args) => {
            // A file that cannot be read is said before a store is opened.
            let pieces = pieces(&args)?;
            let connection = Connection::open(config, Need::Work).await?;
            let done = collect(connection.client(), &args, pieces).await;
            connection.close().await;
            done
        }
        Command::Import(args) => {
            let connection = Connection::open(config, Need::Records).await?;
            let done = import(connection.client(), &args).await;
            connection.close().await;
            done.map(|()| ExitCode::SUCCESS)
        }
        Command::List(args) => {
            let connection = Connection::open(config, Need::Records).await?;
            let done = list(connection.client(), &args).await;
            connection.close().await;
            done.map(|()| ExitCode::SUCCESS)
        }
    }
}

/// Collects statistics of some layers over text drawn from the model: what an edit that needs them asks for.
pub(super) async fn self_sample(
    client: &Client,
    model: &str,
    layer: u32,
    tokens: u64,
) -> anyhow::Result<()> {
    let spec = v1::StatsSpec {
        pieces: drawn(tokens, 1),
        layers: vec![layer],
        length: 256,
        source: format!("{tokens} tokens drawn from the model, seed 1"),
        ..Default::default()
    };
    let (_, made) = make(client, model, spec).await?;
    made.map(|_| ())
        .context("the key statistics could not be collected")
}

async fn collect(
    client: &Client,
    args: &CollectArgs,
    pieces: Vec<v1::StatsUnit>,
) -> anyhow::Result<ExitCode> {
    let model = model::choose(client, args.model.as_deref()).await?;
    let source = match args.self_sample {
        Some(tokens) => format!("{tokens} tokens drawn from the model, seed {}", args.seed),
        None => {
            let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
            args.corpus
                .iter()
                .filter_map(name)
                .collect::<Vec<_>>()
                .join(", ")
        }
    };
    let spec = v1::StatsSpec {
        pieces,
        layers: args.layers.0.clone(),
        length: args.length,
        dtype: parse_dtype(&args.dtype)? as i32,
        source,
    };
    let (ended, made) = make(client, &model, spec).await?;
    if let Some(made) = made {
        show(&made)?;
    }
    Ok(job::exit_code(&ended))
}

/// Runs a statistics job to its end, and makes its artefacts if it succeeded.
async fn make(
    client: &Client,
    model: &str,
    spec: v1::StatsSpec,
) -> anyhow::Result<(v1::Job, Option<Vec<v1::Statistics>>)> {
    let request = v1::CreateJobRequest {
        job: Some(v1::Job {
            model: model.to_owned(),
            spec: Some(Spec::Stats(spec)),
            ..Default::default()
        }),
        request_id: uuid::Uuid::now_v7().to_string(),
        validate_only: false,
    };
    let created = client.jobs().create_job(request).await?.into_inner();
    let name = created.job.unwrap_or_default().name;
    let ended = tokio::select! {
        ended = follow::follow(client, &name) => ended?,
        () = super::asked_to_stop() => {
            let request = v1::CancelJobRequest { name };
            client.jobs().cancel_job(request).await?;
            bail!("cancelled");
        }
    };
    if ended.state() != v1::JobState::Succeeded {
        job::present(client, &ended.name, &job::Format::default()).await?;
        return Ok((ended, None));
    }
    let request = v1::CreateStatisticsRequest {
        source: Some(v1::create_statistics_request::Source::Job(name)),
    };
    let made = client
        .statistics()
        .create_statistics(request)
        .await?
        .into_inner();
    Ok((ended, Some(made.statistics)))
}

async fn import(client: &Client, args: &ImportArgs) -> anyhow::Result<()> {
    let model = model::choose(client, args.model.as_deref()).await?;
    let path = args.file.clone();
    let digest = objects::blocking(move || Digest::of_file(&path))
        .await
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    client::upload(client.objects(), &digest, &args.file, |_| {})
        .await
        .with_context(|| format!("cannot store {}", args.file.display()))?;
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let file = v1::create_statistics_request::File {
        model,
        layer: args.layer,
        digest: digest.to_string(),
        source: name.into_owned(),
    };
    let request = v1::CreateStatisticsRequest {
        source: Some(v1::create_statistics_request::Source::File(file)),
    };
    let made = client
        .statistics()
        .create_statistics(request)
        .await?
        .into_inner();
    show(&made.statistics)
}

async fn list(client: &Client, args: &ListArgs) -> anyhow::Result<()> {
    let model = model::choose(client, args.model.as_deref()).await?;
    let request = v1::ListStatisticsRequest { parent: model };
    let found = client
        .statistics()
        .list_statistics(request)
        .await?
        .into_inner();
    if !args.json {
        return show(&found.statistics);
    }
    let mut out = std::io::stdout().lock();
    for one in &found.statistics {
        let line = serde_json::json!({
            "name": one.name, "version": one.version, "layer": one.layer, "tokens": one.tokens,
            "channels": one.channels, "corpus": one.corpus, "source": one.source, "size": one.size,
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn show(statistics: &[v1::Statistics]) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        ("LAYER", Align::Right),
        ("TOKENS", Align::Right),
        ("CHANNELS", Align::Right),
        ("SOURCE", Align::Left),
        ("MADE", Align::Left),
        ("DIGEST", Align::Left),
    ]);
    for one in statistics {
        table.row([
            one.layer.to_string(),
            one.tokens.to_string(),
            one.channels.to_string(),
            one.source.clone(),
            output::time(one.create_time.as_ref()),
            super::version::brief(&one.name).to_owned(),
        ]);
    }
    output::print_table(&mut std::io::stdout().lock(), &table)
}

/// Prints what a piece of a corpus gave.
pub fn print(out: &mut impl Write, result: &v1::UnitResult) -> anyhow::Result<()> {
    match &result.outcome {
        Some(Outcome::StatsShard(shard)) => {
            writeln!(out, "piece {}: {} tokens", result.unit + 1, shard.tokens)?;
        }
        Some(Outcome::Failure(failure)) => {
            eprintln!("piece {}: {}", result.unit + 1, failure.message);
        }
        _ => {}
    }
    Ok(())
}

/// The units of a job: texts that lie together, or draws.
fn pieces(args: &CollectArgs) -> anyhow::Result<Vec<v1::StatsUnit>> {
    if let Some(tokens) = args.self_sample {
        if tokens == 0 {
            bail!(
                "--self-sample 0: draw at least one token; some ten a channel of the edited matrix are needed"
            );
        }
        return Ok(drawn(tokens, args.seed));
    }
    let mut documents = Vec::new();
    for path in &args.corpus {
        documents.extend(read(path)?);
    }
    let mut pieces: Vec<v1::StatsUnit> = Vec::new();
    let (mut bytes, mut total) = (usize::MAX, 0);
    // English runs at some four bytes a token.
    let most = args.tokens.map_or(usize::MAX, |tokens| tokens as usize * 4);
    for mut document in documents {
        if total >= most {
            break;
        }
        if document.len() > most - total {
            let end = (0..=most - total)
                .rev()
                .find(|&at| document.is_char_boundary(at));
            document.truncate(end.unwrap_or_default());
        }
        if document.trim().is_empty() {
            continue;
        }
        total += document.len();
        let size = document.len();
        match pieces.last_mut() {
            Some(piece) if bytes.saturating_add(size) <= PIECE_BYTES => {
                piece.documents.push(document);
                bytes += size;
            }
            _ => {
                bytes = size;
                pieces.push(v1::StatsUnit {
                    documents: vec![document],
                    ..Default::default()
                });
            }
        }
    }
    if pieces.is_empty() {
        bail!("the corpus holds no text");
    }
    if total > CORPUS_BYTES {
        bail!(
            "the corpus has {total} bytes of text, a request carries {CORPUS_BYTES}: give --tokens {} or less",
            CORPUS_BYTES / 4
        );
    }
    Ok(pieces)
}

fn drawn(tokens: u64, seed: u64) -> Vec<v1::StatsUnit> {
    let count = tokens.div_ceil(PIECE_TOKENS);
    (0..count)
        .map(|n| v1::StatsUnit {
            self_sample: PIECE_TOKENS.min(tokens - n * PIECE_TOKENS),
            // Rows of a piece take the seeds after its own.
            seed: seed.wrapping_add(n * PIECE_TOKENS),
            ..Default::default()
        })
        .collect()
}

/// The documents of a file.
fn read(path: &Path) -> anyhow::Result<Vec<String>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    if !extension.starts_with("json") {
        return Ok(vec![text]);
    }
    let mut documents = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let value = value.with_context(|| format!("{} is not JSON", path.display()))?;
        let list = match value {
            Value::Array(list) => list,
            one => vec![one],
        };
        for document in list {
            match (
                document.as_str(),
                document.get("text").and_then(Value::as_str),
            ) {
                (Some(text), _) | (None, Some(text)) => documents.push(text.to_owned()),
                (None, None) => bail!(
                    "{}: document {} is neither a text nor an object with a field 'text'",
                    path.display(),
                    documents.len() + 1
                ),
            }
        }
    }
    Ok(documents)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_numbers_and_ranges() {
        assert_eq!(parse_layers("5").unwrap().0, [5]);
        assert_eq!(parse_layers("3..6,9").unwrap().0, [3, 4, 5, 9]);
        for wrong in ["", "a", "6..3", "1..2000"] {
            assert!(parse_layers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn draws_add_up_and_no_two_pieces_share_a_seed() {
        let pieces = drawn(20_000, 7);
        assert_eq!(pieces.iter().map(|p| p.self_sample).sum::<u64>(), 20_000);
        assert_eq!(pieces[1].seed, 7 + PIECE_TOKENS);
    }
}
