//! `palimpsest man`: the command line, for readers.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::cli::output;

/// Flags of `man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the pages of all commands go, such as /usr/local/share/man/man1; without it the
    /// program's own page goes to standard output
    folder: Option<PathBuf>,
}

/// Writes the manual.
pub fn run(args: &Args, command: clap::Command) -> anyhow::Result<ExitCode> {
    match &args.folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)
                .and_then(|()| clap_mangen::generate_to(command, folder))
                .with_context(|| format!("cannot write the manual to {}", folder.display()))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            output::raw(&page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
