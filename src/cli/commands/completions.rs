//! `palimpsest completions`: the command line, for shells.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::cli::output;

/// Flags of `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints what a shell completes `palimpsest` by.
pub fn run(args: &Args, mut command: clap::Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "palimpsest", &mut script);
    output::raw(&script)?;
    Ok(ExitCode::SUCCESS)
}
