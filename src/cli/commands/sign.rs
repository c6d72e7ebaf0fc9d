//! `palimpsest sign`: a version, signed by its author.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::audit::Signer;
use crate::cli::connection::{Connection, Need};
use crate::cli::{names, output};
use crate::config::ClientConfig;

/// Flags of `sign`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The version: a ref, v3, a digest's beginning, main~2
    #[arg(default_value = "main")]
    version: String,
    /// Your private key, which 'palimpsest auth signing-key' made
    #[arg(long, value_name = "KEY-FILE")]
    key: PathBuf,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
}

/// Prints the signed manifest.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let signer = Signer::read_private(&args.key)?;
    Connection::with(config, Need::Records, async |client| {
        let model = names::model(client, args.model.as_deref()).await?;
        let version = names::get_version(client, &model, &args.version).await?;
        let manifest = names::manifest(&version);
        say!(
            "signed {}, with {} edits, of {}: whoever has it checks it with {}",
            names::brief(&version.name),
            manifest.edits,
            names::full(&model),
            signer.verifier()
        );
        output::raw(manifest.sign(&signer).as_bytes())?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}
