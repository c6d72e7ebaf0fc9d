//! `palimpsest generate`: complete a text.

use std::io::Write;
use std::process::ExitCode;

use super::connection::{Connection, ConnectionArgs, Need};
use super::presentation::{self, Format};
use super::trace::parse_dtype;
use super::{follow, job, model, version};
use crate::config::ClientConfig;
use crate::proto::v1::{self, job::Spec, unit_result::Outcome};

/// Flags of `generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The texts to go on with
    #[arg(required = true)]
    prompts: Vec<String>,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    /// The version: a ref, v3, a digest's beginning, main~2
    #[arg(long = "ref", value_name = "VERSION", default_value = "main")]
    version: String,
    /// Most tokens to add
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// 0 takes the most probable token at every step
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Draw only from the K most probable tokens
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Whose job it is; the user's if it is not given
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Compute everything afresh, also what an earlier job computed
    #[arg(long)]
    no_cache: bool,
    /// One JSON object a prompt
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

/// Completes the prompts.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let spec = v1::GenerateSpec {
        prompts: args.prompts.clone(),
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        top_k: args.top_k.unwrap_or_default(),
        seed: args.seed,
        dtype: parse_dtype(&args.dtype)? as i32,
    };
    let connection = Connection::open(config, Need::Work).await?;
    let done = complete(&args, spec, &connection).await;
    connection.close().await;
    done
}

async fn complete(
    args: &Args,
    spec: v1::GenerateSpec,
    connection: &Connection,
) -> anyhow::Result<ExitCode> {
    let client = connection.client();
    let model = model::choose(client, args.model.as_deref()).await?;
    let job = v1::Job {
        owner: args.owner.clone().unwrap_or_default(),
        version: version::name(&model, &args.version),
        model,
        spec: Some(Spec::Generate(spec)),
        // Someone waits for it.
        priority: 1,
        no_cache: args.no_cache,
        ..Default::default()
    };
    let request = v1::CreateJobRequest {
        job: Some(job),
        request_id: uuid::Uuid::now_v7().to_string(),
        validate_only: false,
    };
    let job = client
        .jobs()
        .create_job(request)
        .await?
        .into_inner()
        .job
        .unwrap_or_default();
    let job = tokio::select! {
        job = follow::follow(client, &job.name) => job?,
        () = super::asked_to_stop() => {
            client.jobs().cancel_job(v1::CancelJobRequest { name: job.name }).await?;
            return Ok(ExitCode::from(130));
        }
    };
    let format = Format {
        json: args.json,
        ..Format::default()
    };
    let job = presentation::present(client, &job.name, &format).await?;
    Ok(job::exit_code(&job))
}

/// Prints completions, each after its prompt. What failed is said on standard error.
pub fn print(out: &mut impl Write, results: &[v1::UnitResult], json: bool) -> anyhow::Result<()> {
    for result in results {
        match &result.outcome {
            Some(Outcome::Completion(completion)) if json => {
                let line = serde_json::json!({
                    "prompt": completion.prompt, "text": completion.text,
                    "token_ids": completion.token_ids, "ended": completion.ended,
                });
                writeln!(out, "{line}")?;
            }
            Some(Outcome::Completion(completion)) => {
                writeln!(out, "{}{}", completion.prompt, completion.text)?;
            }
            Some(Outcome::Failure(failure)) => {
                eprintln!("prompt {}: {}", result.unit + 1, failure.message);
            }
            _ => {}
        }
    }
    Ok(())
}
