//! Shows what a model says after prompts.

use std::io::Write;

use crate::proto::v1::{self, unit_result::Outcome};

/// Prints completions, each after its prompt. What failed is said on standard error.
pub fn print(out: &mut impl Write, results: &[v1::UnitResult], json: bool) -> anyhow::Result<()> {
    for result in results {
        match &result.outcome {
            Some(Outcome::Completion(completion)) if json => {
                let line = serde_json::json!({
                    "prompt": completion.prompt, "text": completion.text,
                    "token_ids": completion.token_ids, "ended": completion.ended,
                });
                writeln!(out, "{line}")?;
            }
            Some(Outcome::Completion(completion)) => {
                writeln!(out, "{}{}", completion.prompt, completion.text)?;
            }
            Some(Outcome::Failure(failure)) => {
                eprintln!("prompt {}: {}", result.unit + 1, failure.message);
            }
            _ => {}
        }
    }
    Ok(())
}
