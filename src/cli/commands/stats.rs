//! `palimpsest stats`: what the inputs of the edited matrices look like over ordinary text.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::cli::connection::{Connection, Need};
use crate::cli::layers::{self, Layers};
use crate::cli::submit::parse_dtype;
use crate::cli::{follow, key_statistics, names, output};
use crate::client::{self, Client};
use crate::config::ClientConfig;
use crate::datasets::pieces;
use crate::objects::{self, Digest};
use crate::plot::table::{Align, Table};
use crate::proto::v1;

/// Most tokens that are drawn for one collection: far more than the widest matrix needs.
const MOST_DRAWN: u64 = 1 << 30;

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
    /// Withdraw some: no edit is computed with them from now on
    Delete(DeleteArgs),
}

/// Flags of `stats collect`.
#[derive(Debug, clap::Args)]
pub struct CollectArgs {
    /// Texts: plain text (one document a file), JSON lines or a JSON list of strings or of objects
    /// with 'text'
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "self_sample")]
    corpus: Vec<PathBuf>,
    /// Draw so many tokens from the model itself instead
    #[arg(long, value_name = "N", conflicts_with_all = ["corpus", "tokens"])]
    self_sample: Option<u64>,
    /// Seed of what is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Layers, such as 5, 3,5, 4-8 or 3..8 (where 8 is not among them)
    #[arg(long, value_parser = layers::parse)]
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
}

/// Flags of `stats delete`.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Their digest, the beginning of it, or their name
    statistics: String,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
}

/// Runs a subcommand.
pub async fn run(command: Command, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    match command {
        Command::Collect(args) => {
            // A file that cannot be read is said before a store is opened.
            let text = text(&args)?;
            Connection::with(config, Need::Work, async |client| {
                collect(client, &args, text).await
            })
            .await
        }
        Command::Import(args) => {
            Connection::with(config, Need::Records, async |client| {
                import(client, &args).await?;
                Ok(ExitCode::SUCCESS)
            })
            .await
        }
        Command::List(args) => {
            Connection::with(config, Need::Records, async |client| {
                list(client, &args).await?;
                Ok(ExitCode::SUCCESS)
            })
            .await
        }
        Command::Delete(args) => {
            Connection::with(config, Need::Records, async |client| {
                delete(client, &args).await?;
                Ok(ExitCode::SUCCESS)
            })
            .await
        }
    }
}

async fn collect(client: &Client, args: &CollectArgs, text: Text) -> anyhow::Result<ExitCode> {
    let model = names::model(client, args.model.as_deref()).await?;
    let (pieces, corpus, source) = match text {
        Text::Drawn(tokens) => (
            key_statistics::drawn(tokens, args.seed),
            None,
            format!("{tokens} tokens drawn from the model, seed {}", args.seed),
        ),
        Text::Corpus(laid) => {
            client::upload(client.objects(), &laid.digest, laid.file.path(), |_| {})
                .await
                .context("cannot store the corpus with the coordinator")?;
            let corpus = v1::Corpus {
                digest: laid.digest.to_string(),
                size: laid.size,
            };
            let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
            let names: Vec<_> = args.corpus.iter().filter_map(name).collect();
            (laid.pieces, Some(corpus), names.join(", "))
        }
    };
    let spec = v1::StatsSpec {
        pieces,
        layers: args.layers.0.clone(),
        length: args.length,
        dtype: parse_dtype(&args.dtype)? as i32,
        source,
        corpus,
    };
    let (ended, made) = key_statistics::make(client, &model, spec).await?;
    if let Some(made) = made {
        show(&made)?;
    }
    Ok(follow::exit_code(&ended))
}

async fn import(client: &Client, args: &ImportArgs) -> anyhow::Result<()> {
    let model = names::model(client, args.model.as_deref()).await?;
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
    let model = names::model(client, args.model.as_deref()).await?;
    let found = client.all_statistics(&model).await?;
    if !args.json {
        return show(&found);
    }
    for one in &found {
        let line = serde_json::json!({
            "name": one.name, "version": one.version, "layer": one.layer, "tokens": one.tokens,
            "channels": one.channels, "corpus": one.corpus, "source": one.source, "size": one.size,
            "spectrum": one.spectrum.map(|it| serde_json::json!({
                "trace": it.trace, "largest": it.largest, "smallest": it.smallest,
                "effective_rank": it.effective_rank, "rank": it.rank, "rank_99": it.rank_99,
            })),
            "author": one.author, "submitted": one.submitted,
            "time": names::timestamp(one.create_time.as_ref()),
        });
        output::json(&line)?;
    }
    Ok(())
}

async fn delete(client: &Client, args: &DeleteArgs) -> anyhow::Result<()> {
    let model = names::model(client, args.model.as_deref()).await?;
    let asked = std::slice::from_ref(&args.statistics);
    let found = key_statistics::full_names(client, &model, asked).await?;
    let name = found.into_iter().next().unwrap_or_default();
    let request = v1::DeleteStatisticsRequest {
        name,
        why: args.why.clone(),
    };
    let gone = client.statistics().delete_statistics(request).await?;
    show(&gone.into_inner().statistics)
}

fn show(statistics: &[v1::Statistics]) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        ("LAYER", Align::Right),
        ("TOKENS", Align::Right),
        ("CHANNELS", Align::Right),
        ("RANK", Align::Right),
        ("EFFECTIVE", Align::Right),
        ("SOURCE", Align::Left),
        ("BY", Align::Left),
        ("MADE", Align::Left),
        ("DIGEST", Align::Left),
    ]);
    for one in statistics {
        table.row([
            one.layer.to_string(),
            one.tokens.to_string(),
            one.channels.to_string(),
            spread(one, |it| it.rank.to_string()),
            spread(one, |it| format!("{:.1}", it.effective_rank)),
            one.source.clone(),
            match one.submitted {
                true => format!("{} (may not edit)", one.author),
                false => one.author.clone(),
            },
            output::time(one.create_time.as_ref()),
            names::brief(&one.name).to_owned(),
        ]);
    }
    Ok(output::print_table(&table)?)
}

/// What is known of how the keys spread; a dash where nothing is.
fn spread(one: &v1::Statistics, word: impl Fn(&v1::KeySpectrum) -> String) -> String {
    one.spectrum.as_ref().map_or_else(|| "-".to_owned(), word)
}

/// What statistics are collected over.
enum Text {
    /// So many tokens drawn from the model.
    Drawn(u64),
    /// Texts, laid down in a file.
    Corpus(pieces::Corpus),
}

fn text(args: &CollectArgs) -> anyhow::Result<Text> {
    match args.self_sample {
        Some(0) => bail!(
            "--self-sample 0: draw at least one token; some ten a channel of the edited matrix are needed"
        ),
        Some(tokens) if tokens > MOST_DRAWN => bail!(
            "--self-sample {tokens}: {MOST_DRAWN} tokens at most; some ten a channel of the edited matrix are needed"
        ),
        Some(tokens) => Ok(Text::Drawn(tokens)),
        None => Ok(Text::Corpus(pieces::lay_down(&args.corpus, args.tokens)?)),
    }
}
