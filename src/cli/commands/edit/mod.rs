//! `palimpsest edit`: change what a model knows.

mod import;
mod landed;
pub mod mass;
mod rewrite;

use std::process::ExitCode;

pub use rewrite::parse_number;

use crate::config::{ClientConfig, EditConfig};

/// Flags of `edit`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    rewrite: rewrite::Args,
}

/// Subcommands of `edit`.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a version of factors that were computed elsewhere
    Import(Box<import::Args>),
}

/// Rewrites facts, or runs a subcommand.
pub async fn run(
    args: Args,
    config: &ClientConfig,
    settings: &EditConfig,
) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(Command::Import(args)) => import::run(*args, config).await,
        None if mass::is_mass(args.rewrite.method()) => {
            mass::run(args.rewrite, config, settings).await
        }
        None => rewrite::run(args.rewrite, config, settings).await,
    }
}
