//! `palimpsest branch`: another line of versions.

use std::process::ExitCode;

use crate::cli::connection::{Connection, Need};
use crate::cli::named_ref;
pub use crate::cli::named_ref::Args;
use crate::config::ClientConfig;
use crate::proto::v1::RefKind;

/// Makes, or moves, a branch.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    Connection::with(config, Need::Records, async |client| {
        named_ref::put(client, &args, RefKind::Branch).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}
