//! `palimpsest generate`: complete a text.

use std::process::ExitCode;

use crate::cli::connection::{Connection, Need};
use crate::cli::follow;
use crate::cli::receipt_file::ReceiptFile;
use crate::cli::results::{self, Format};
use crate::cli::signals::asked_to_stop;
use crate::cli::submit::{self, ATTENDED, JobArgs};
use crate::config::ClientConfig;
use crate::proto::v1;

/// Flags of `generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The texts to go on with
    #[arg(required = true)]
    prompts: Vec<String>,
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
    /// One JSON object a prompt
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    job: JobArgs,
}

/// Completes the prompts.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    args.job.check(config)?;
    let spec = v1::GenerateSpec {
        prompts: args.prompts.clone(),
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        top_k: args.top_k.unwrap_or_default(),
        seed: args.seed,
        dtype: args.job.dtype()? as i32,
    };
    let connection = Connection::open(config, Need::Work).await?;
    let done = connection.wait(complete(&args, spec, &connection)).await;
    connection.close().await;
    done
}

async fn complete(
    args: &Args,
    spec: v1::GenerateSpec,
    connection: &Connection,
) -> anyhow::Result<ExitCode> {
    let client = connection.client();
    let model = args.job.model(client).await?;
    let job = args.job.job(&model, spec.into(), ATTENDED);
    let job = submit::create(client, args.job.request(job)).await?;
    if args.job.detach {
        show!("{}", job.name)?;
        return Ok(ExitCode::SUCCESS);
    }
    let job = tokio::select! {
        job = follow::follow(client, &job.name) => job?,
        () = asked_to_stop() => {
            client.jobs().cancel_job(v1::CancelJobRequest { name: job.name }).await?;
            return Ok(ExitCode::from(130));
        }
    };
    let format = Format {
        json: args.json,
        ..Format::default()
    };
    let job = results::present(client, &job.name, &format).await?;
    ReceiptFile::save(client, &job.name, args.job.receipt.as_deref()).await?;
    Ok(follow::exit_code(&job))
}
