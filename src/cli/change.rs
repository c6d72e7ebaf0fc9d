//! What every change of a model's versions has: its flags, and what it came to.

use super::{names, output};
use crate::proto::v1;

/// Flags of what changes versions.
#[derive(Debug, clap::Args)]
pub struct ChangeArgs {
    /// Why, for the history and the audit log
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    pub model: Option<String>,
}

/// Says what a branch came to, and prints the version.
///
/// # Errors
/// That it cannot be printed.
pub fn say(made: &v1::Version, branch: &str) -> Result<(), output::Error> {
    for warning in &made.warnings {
        say!("warning: {warning}");
    }
    let edits = match made.edit_count {
        1 => "1 edit".to_owned(),
        count => format!("{count} edits"),
    };
    let brief = names::brief(&made.name);
    say!("{branch} is at v{} {brief}, with {edits}", made.number);
    show!("{}", made.name)
}
