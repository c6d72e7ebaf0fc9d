//! `palimpsest trace`: submit a causal-tracing sweep and follow it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use prost::Message as _;

use super::connection::{Connection, ConnectionArgs, Need};
use super::presentation::{self, Format};
use super::{model, version};
use crate::causal::Compat;
use crate::client::{self, Client};
use crate::config::ClientConfig;
use crate::objects::Digest;
use crate::proto::v1::{self, job::Spec};
use crate::{corpus, facts, wire};

/// Facts of more bytes travel as an object.
pub const INLINE_BYTES: usize = 1 << 20;
/// A sweep that someone waits for in its own process goes before what an earlier process left.
pub const ATTENDED: i32 = 1;

/// Flags of `trace`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The text up to the answer: "The Space Needle is in downtown"
    #[arg(required_unless_present = "facts", conflicts_with = "facts")]
    prompt: Option<String>,
    /// The subject as it stands in the prompt: "The Space Needle"
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
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    /// The version: a ref, v3, a digest's beginning, main~2
    #[arg(long = "ref", value_name = "VERSION", default_value = "main")]
    version: String,
    /// hidden, mlp, attn, hidden_severed_mlp, hidden_severed_attn, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "hidden,mlp,attn")]
    kinds: Vec<String>,
    /// A standard deviation; s<k>: k times that of the subjects' embeddings; u<a>: uniform; m or
    /// t<df>: Gaussian or Student-t with the embeddings' covariance over --noise-corpus. What is
    /// drawn is added to the embeddings; with replace: before the rule it takes their place
    #[arg(long, value_name = "RULE", default_value = "s3")]
    noise: String,
    /// The corpus of the rules m and t<df>: a text a line, JSON lines, or a JSON list of texts
    #[arg(long, value_name = "FILE")]
    noise_corpus: Option<PathBuf>,
    /// Noise samples a cell
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Seed of the noise
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Layers in the window of the MLP and attention kinds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// exact, or plain: one full forward pass a cell
    #[arg(long, default_value = "exact")]
    engine: String,
    /// paper-code: hold severed paths at the values of another noise draw, as the published code
    #[arg(long, value_name = "none|paper-code", default_value_t = Compat::None)]
    compat: Compat,
    /// f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Whose job it is; the user's if it is not given
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// What to call the job
    #[arg(long)]
    name: Option<String>,
    /// The request's own name: asked again by the same name, the sweep that there is is followed
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Compute everything afresh, also what an earlier job computed
    #[arg(long)]
    no_cache: bool,
    /// Submit and print the job's name, without following it
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

/// Submits a sweep, follows it and presents its results.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let spec = v1::TraceSpec {
        facts: facts(&args)?,
        kinds: args
            .kinds
            .iter()
            .map(|kind| parse_kind(kind))
            .collect::<anyhow::Result<_>>()?,
        noise: args.noise.clone(),
        samples: args.samples,
        seed: Some(args.seed),
        window: args.window,
        engine: match args.engine.as_str() {
            "exact" => v1::Engine::Exact,
            "plain" => v1::Engine::Plain,
            other => bail!("--engine '{other}': use exact or plain"),
        } as i32,
        dtype: parse_dtype(&args.dtype)? as i32,
        compat: wire::compat_to_proto(args.compat) as i32,
        ..Default::default()
    };
    let texts = match &args.noise_corpus {
        Some(file) => Some(corpus::read(file)?),
        None => None,
    };
    if args.detach && config.server.is_none() {
        bail!("--detach needs a coordinator that stays: give --server ADDRESS");
    }
    let connection = Connection::open(config, Need::Work).await?;
    let done = submit(&args, spec, texts, &connection).await;
    connection.close().await;
    done
}

async fn submit(
    args: &Args,
    mut spec: v1::TraceSpec,
    texts: Option<Vec<String>>,
    connection: &Connection,
) -> anyhow::Result<ExitCode> {
    let client = connection.client();
    let model = model::choose(client, args.model.as_deref()).await?;
    if let Some(texts) = texts {
        spec.noise_corpus = Some(store_corpus(client, &texts).await?);
    }
    if spec.encoded_len() > INLINE_BYTES {
        let facts = std::mem::take(&mut spec.facts);
        let list = v1::FactList { facts }.encode_to_vec();
        let digest = store(client, &list).await;
        let digest = digest.context("cannot store the facts with the coordinator")?;
        spec.facts_object = digest.to_string();
    }
    let job = v1::Job {
        owner: args.owner.clone().unwrap_or_default(),
        version: version::name(&model, &args.version),
        model,
        spec: Some(Spec::Trace(spec)),
        display_name: args.name.clone().unwrap_or_default(),
        priority: if connection.is_embedded() {
            ATTENDED
        } else {
            0
        },
        no_cache: args.no_cache,
        ..Default::default()
    };
    let request = v1::CreateJobRequest {
        job: Some(job),
        request_id: args
            .request_id
            .clone()
            .unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
        validate_only: false,
    };
    let job = client
        .jobs()
        .create_job(request)
        .await?
        .into_inner()
        .job
        .unwrap_or_default();
    if args.detach {
        println!("{}", job.name);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{} accepted", job.name);
    presentation::follow(client, &job, connection, &args.format).await
}

/// Stores a corpus with the coordinator, unless it is there.
async fn store_corpus(client: &Client, texts: &[String]) -> anyhow::Result<v1::Corpus> {
    let bytes = corpus::to_bytes(texts);
    let digest = store(client, &bytes).await;
    Ok(v1::Corpus {
        digest: digest
            .context("cannot store the corpus with the coordinator")?
            .to_string(),
        size: bytes.len() as u64,
    })
}

/// Stores an object with the coordinator: what does not fit a request.
pub async fn store(client: &Client, bytes: &[u8]) -> anyhow::Result<Digest> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(bytes)?;
    let digest = Digest::of(bytes);
    client::upload(client.objects(), &digest, file.path(), |_| {}).await?;
    Ok(digest)
}

fn facts(args: &Args) -> anyhow::Result<Vec<v1::Fact>> {
    if let Some(prompt) = &args.prompt {
        let subject = args
            .subject
            .clone()
            .context("--subject is missing: name the words of the prompt that the fact is about")?;
        return Ok(vec![v1::Fact {
            prompt: prompt.clone(),
            subject,
            attribute: args.attribute.clone(),
            ..Default::default()
        }]);
    }
    let Some(file) = &args.facts else {
        bail!("give a prompt, or --facts FILE")
    };
    let mut facts = facts::read(file)?;
    facts.truncate(args.limit.unwrap_or(usize::MAX));
    Ok(facts.into_iter().map(v1::Fact::from).collect())
}

fn parse_kind(text: &str) -> anyhow::Result<i32> {
    let names: Vec<_> = wire::KINDS.into_iter().map(wire::kind_name).collect();
    match wire::named_kind(text.trim()) {
        Some(kind) => Ok(kind as i32),
        None => bail!("--kinds '{text}': use {}", names.join(", ")),
    }
}

/// A number format by its name.
pub fn parse_dtype(text: &str) -> anyhow::Result<v1::Dtype> {
    match text {
        "f32" => Ok(v1::Dtype::F32),
        "bf16" => Ok(v1::Dtype::Bf16),
        "f16" => Ok(v1::Dtype::F16),
        other => bail!("--dtype '{other}': use f32, bf16 or f16"),
    }
}
