//! `palimpsest guide`: the guides, in the terminal.

use std::process::ExitCode;

use clap::builder::{PossibleValue, PossibleValuesParser};
use serde_json::json;

use crate::cli::output;
use crate::guide::{GUIDES, Guide};
use crate::plot::table::{Align, Table};

/// Flags of `guide`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The guide; a list of them if it is not given
    #[arg(value_parser = names())]
    name: Option<String>,
    /// One JSON object a guide; with its text if it is named
    #[arg(long)]
    json: bool,
}

fn names() -> PossibleValuesParser {
    let value = |guide: &Guide| PossibleValue::new(guide.name).help(guide.about);
    PossibleValuesParser::new(GUIDES.iter().map(value))
}

/// Prints a guide, or which there are.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let named = |guide: &&Guide| Some(guide.name) == args.name.as_deref();
    match GUIDES.iter().find(named) {
        Some(guide) if args.json => output::json(&json!({
            "name": guide.name, "title": guide.title(), "about": guide.about, "text": guide.text,
        }))?,
        Some(guide) => output::styled(guide.text)?,
        None if args.json => {
            for guide in GUIDES {
                output::json(&json!({
                    "name": guide.name, "title": guide.title(), "about": guide.about,
                }))?;
            }
        }
        None => {
            let mut table = Table::new(&[("GUIDE", Align::Left), ("ABOUT", Align::Left)]);
            for guide in GUIDES {
                table.row([guide.name, guide.about]);
            }
            output::print_table(&table)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
