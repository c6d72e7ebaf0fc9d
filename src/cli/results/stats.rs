//! Shows what pieces of a corpus gave.

use crate::proto::v1::{self, unit_result::Outcome};

/// Prints what a piece of a corpus gave.
pub fn print(result: &v1::UnitResult) -> anyhow::Result<()> {
    match &result.outcome {
        Some(Outcome::StatsShard(shard)) => {
            show!("piece {}: {} tokens", result.unit + 1, shard.tokens)?;
        }
        Some(Outcome::Failure(failure)) => {
            say!("piece {}: {}", result.unit + 1, failure.message);
        }
        _ => {}
    }
    Ok(())
}
