//! Shows what a model says after prompts.

use crate::cli::output;
use crate::proto::v1::{self, unit_result::Outcome};

/// Prints completions, each after its prompt. What failed is said on standard error.
pub fn print(results: &[v1::UnitResult], json: bool) -> anyhow::Result<()> {
    for result in results {
        match &result.outcome {
            Some(Outcome::Completion(completion)) if json => {
                let line = serde_json::json!({
                    "prompt": completion.prompt, "text": completion.text,
                    "token_ids": completion.token_ids, "ended": completion.ended,
                });
                output::json(&line)?;
            }
            Some(Outcome::Completion(completion)) => {
                show!("{}{}", completion.prompt, completion.text)?;
            }
            Some(Outcome::Failure(failure)) => {
                say!("prompt {}: {}", result.unit + 1, failure.message);
            }
            _ => {}
        }
    }
    Ok(())
}
