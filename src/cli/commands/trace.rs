//! `palimpsest trace`: submit a causal-tracing sweep and follow it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use prost::Message as _;

use crate::causal::{Compat, Direction, Engine, Metric, Paths, Receiver};
use crate::cli::connection::{Connection, Need};
use crate::cli::results::{self, Format};
use crate::cli::submit::{self, JobArgs};
use crate::config::ClientConfig;
use crate::datasets::{corpus, facts};
use crate::proto::v1;
use crate::wire;

/// Flags of `trace`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The text up to the answer: "The Space Needle is in downtown"
    #[arg(required_unless_present = "facts", conflicts_with = "facts")]
    prompt: Option<String>,
    /// The subject as it stands in the prompt, or for {} in it: "The Space Needle"
    #[arg(long, requires = "prompt")]
    subject: Option<String>,
    /// The expected answer; a fact that the model answers otherwise is not traced
    #[arg(long, requires = "prompt")]
    attribute: Option<String>,
    /// A file of facts: known_1000, CounterFact, zsRE or a relation, as JSON or JSON lines
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,
    /// Take only the first N facts of the file
    #[arg(long, value_name = "N", requires = "facts")]
    limit: Option<usize>,
    /// hidden, mlp, attn, hidden_severed_mlp, hidden_severed_attn, resid_pre (the residual before a
    /// block), resid_mid (between its attention and MLP), head (what an attention head gives before
    /// the output projection), head_q, head_k, head_v (its query, key, value), head_pattern, all of
    /// them with _all at every token at once; neuron (of an MLP, the one with the largest estimate:
    /// with --engine attribution); separated by commas
    #[arg(long, value_delimiter = ',', default_value = "hidden,mlp,attn")]
    kinds: Vec<String>,
    /// Path patching: head and head_all act along the paths into these alone, separated by commas:
    /// 9.6.q is the query of head 6 of layer 9; k and v are of key-value heads
    #[arg(long, value_name = "RECEIVERS", value_delimiter = ',')]
    receivers: Vec<Receiver>,
    /// Hold the MLPs on these paths as the other heads are held: the direct paths alone
    #[arg(long, requires = "receivers")]
    frozen_mlps: bool,
    /// What corrupts: noise; counterfactual: the prompt of another fact with the same relation and
    /// template and another answer, or the fact's own `corrupted`; pairs: only the facts' own
    #[arg(
        long,
        value_name = "noise|counterfactual|pairs",
        default_value = "noise"
    )]
    corrupt: String,
    /// The prompt that corrupts this one, of as many tokens: corrupts by pairs
    #[arg(long, value_name = "PROMPT", requires = "prompt")]
    corrupted: Option<String>,
    /// The answer that logit_difference compares with; else the answer to the corrupted prompt
    #[arg(long, value_name = "ANSWER", requires = "prompt")]
    foil: Option<String>,
    /// denoising: clean states into the corrupted run; noising: corrupted ones into the clean run
    #[arg(long, value_name = "denoising|noising", default_value_t = Direction::Denoising)]
    direction: Direction,
    /// probability, log_probability, logit_difference, kl, rank, separated by commas
    #[arg(
        long,
        value_name = "METRICS",
        value_delimiter = ',',
        default_value = "probability"
    )]
    metrics: Vec<Metric>,
    /// Read the answers whole, by the mean over their tokens, each behind those before it; else by
    /// their first token
    #[arg(long)]
    whole_answers: bool,
    /// s3 unless given. A standard deviation; s<k>: k times that of the subjects' embeddings; u<a>:
    /// uniform; m or t<df>: Gaussian or Student-t with the embeddings' covariance over
    /// --noise-corpus. What is drawn is added to the embeddings; with replace: before the rule it
    /// takes their place
    #[arg(long, value_name = "RULE")]
    noise: Option<String>,
    /// The corpus of the rules m and t<df>: a text a line, JSON lines, or a JSON list of texts
    #[arg(long, value_name = "FILE")]
    noise_corpus: Option<PathBuf>,
    /// Noise samples a cell: 10 unless given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
    /// Seed of the noise, and of the choice of other prompts
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Layers in the window of the MLP and attention kinds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// exact; plain: one full forward pass a cell; attribution: first-order estimates of all cells
    /// by gradients, in the time of a few passes
    #[arg(
        long,
        value_name = "exact|plain|attribution",
        default_value_t = Engine::Exact
    )]
    engine: Engine,
    /// Attribution: the mean of the gradients over S inputs between the two runs
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    integrated: Option<u32>,
    /// Attribution: magnitudes over gradients that leave out one layer each, so that effects of
    /// opposite sign do not cancel; they have no sign
    #[arg(long)]
    grad_drop: bool,
    /// Attribution: patch exactly the K cells of each grid with the largest estimates of the first
    /// metric, and K others by chance, and say how good the estimates are
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    verify: Option<u32>,
    /// paper-code: hold severed paths at the values of another noise draw, as the published code
    #[arg(long, value_name = "none|paper-code", default_value_t = Compat::None)]
    compat: Compat,
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    format: Format,
}

/// Submits a sweep, follows it and presents its results.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    args.job.check(config)?;
    let spec = v1::TraceSpec {
        facts: facts(&args)?,
        kinds: args
            .kinds
            .iter()
            .map(|kind| parse_kind(kind))
            .collect::<anyhow::Result<_>>()?,
        paths: (!args.receivers.is_empty()).then(|| {
            wire::paths_to_proto(&Paths {
                receivers: args.receivers.clone(),
                frozen_mlps: args.frozen_mlps,
            })
        }),
        corruption: corruption(&args)? as i32,
        direction: wire::direction_to_proto(args.direction) as i32,
        metrics: args
            .metrics
            .iter()
            .map(|&metric| wire::metric_to_proto(metric) as i32)
            .collect(),
        whole_answers: args.whole_answers,
        noise: args.noise.clone().unwrap_or_default(),
        samples: args.samples.unwrap_or_default(),
        seed: Some(args.seed),
        window: args.window,
        engine: wire::engine_to_proto(args.engine).0 as i32,
        attribution_steps: args.integrated.unwrap_or_default(),
        grad_drop: args.grad_drop,
        verify: args.verify.unwrap_or_default(),
        dtype: args.job.dtype()? as i32,
        compat: wire::compat_to_proto(args.compat) as i32,
        ..Default::default()
    };
    let texts = match &args.noise_corpus {
        Some(file) => Some(corpus::read(file)?),
        None => None,
    };
    let connection = Connection::open(config, Need::Work).await?;
    let done = connection
        .wait(sweep(&args, spec, texts, &connection))
        .await;
    connection.close().await;
    done
}

async fn sweep(
    args: &Args,
    mut spec: v1::TraceSpec,
    texts: Option<Vec<String>>,
    connection: &Connection,
) -> anyhow::Result<ExitCode> {
    let client = connection.client();
    let model = args.job.model(client).await?;
    if let Some(texts) = texts {
        let bytes = corpus::to_bytes(&texts);
        spec.noise_corpus = Some(v1::Corpus {
            digest: submit::store(client, &bytes, "corpus").await?.to_string(),
            size: bytes.len() as u64,
        });
    }
    if submit::is_large(&spec) {
        let facts = std::mem::take(&mut spec.facts);
        let list = v1::FactList { facts }.encode_to_vec();
        spec.facts_object = submit::store(client, &list, "facts").await?.to_string();
    }
    let priority = submit::sweep_priority(connection);
    let job = args.job.job(&model, spec.into(), priority);
    let job = submit::create(client, args.job.request(job)).await?;
    if args.job.detach {
        show!("{}", job.name)?;
        return Ok(ExitCode::SUCCESS);
    }
    connection.say_accepted(&job.name);
    let receipt = args.job.receipt.as_deref();
    results::follow(client, &job, connection, &args.format, receipt).await
}

fn facts(args: &Args) -> anyhow::Result<Vec<v1::Fact>> {
    if let Some(prompt) = &args.prompt {
        let subject = args
            .subject
            .clone()
            .context("--subject is missing: name the words of the prompt that the fact is about")?;
        if args
            .attribute
            .as_deref()
            .is_some_and(|it| it.trim().is_empty())
        {
            bail!(
                "--attribute is blank, which no answer is: give the expected answer, or leave it out"
            );
        }
        let fact = facts::of_prompt(prompt, &subject).map_err(|problem| anyhow!("{problem}"))?;
        return Ok(vec![v1::Fact {
            attribute: args.attribute.clone(),
            corrupted: args.corrupted.clone(),
            foil: args.foil.clone(),
            ..fact.into()
        }]);
    }
    let Some(file) = &args.facts else {
        bail!("give a prompt, or --facts FILE")
    };
    let mut facts = facts::read(file)?;
    facts.truncate(args.limit.unwrap_or(usize::MAX));
    Ok(facts.into_iter().map(v1::Fact::from).collect())
}

fn corruption(args: &Args) -> anyhow::Result<v1::Corruption> {
    Ok(match args.corrupt.as_str() {
        "noise" if args.corrupted.is_some() => v1::Corruption::Pairs,
        "noise" => v1::Corruption::Noise,
        "counterfactual" => v1::Corruption::Counterfactual,
        "pairs" => v1::Corruption::Pairs,
        other => bail!("--corrupt '{other}': use noise, counterfactual or pairs"),
    })
}

fn parse_kind(text: &str) -> anyhow::Result<i32> {
    let names: Vec<_> = wire::KINDS.into_iter().map(wire::kind_name).collect();
    match wire::named_kind(text.trim()) {
        Some(kind) => Ok(kind as i32),
        None => bail!("--kinds '{text}': use {}", names.join(", ")),
    }
}
