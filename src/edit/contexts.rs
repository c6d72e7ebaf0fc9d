//! Texts that stand before the sentence, so that a subject's key is not that of one prompt.

use super::Error;
use crate::model::{Draw, Model, sample};

/// Choose each token among so many (Meng et al. 2022, their release).
const TOP_K: usize = 5;
/// How often a text that turns out blank is drawn anew.
const ATTEMPTS: u64 = 8;

/// Which texts to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextPlan {
    /// `(length in tokens with the start token, how many)`.
    pub lengths: Vec<(usize, usize)>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for ContextPlan {
    /// As published: 10 of length 5 and 10 of length 10.
    fn default() -> Self {
        Self {
            lengths: vec![(5, 10), (10, 10)],
            seed: 0,
        }
    }
}

/// `{}` alone, and texts drawn from the model, each as `text. {}`.
///
/// # Errors
/// [`Error::Cancelled`] when `go_on` says no; [`Error::Model`] for lengths that do not fit the model, or a tokenizer
/// without a start token.
pub fn sample_contexts(
    model: &Model,
    plan: &ContextPlan,
    mut go_on: impl FnMut() -> bool,
) -> Result<Vec<String>, Error> {
    let mut contexts = vec!["{}".to_owned()];
    let mut seed = plan.seed;
    for &(tokens, count) in &plan.lengths {
        let wanted = contexts.len() + count;
        let mut attempts = 0;
        while contexts.len() < wanted && attempts < ATTEMPTS {
            let draw = Draw {
                rows: wanted - contexts.len(),
                tokens,
                top_k: Some(TOP_K),
                seed,
            };
            let mut cancelled = false;
            let drawn = sample(model, &draw, || {
                cancelled = !go_on();
                !cancelled
            })?;
            if cancelled {
                return Err(Error::Cancelled);
            }
            seed = seed.wrapping_add(draw.rows as u64);
            attempts += 1;
            for ids in drawn {
                // A model may end its text at once: only what is text counts.
                let eos = model.tokenizer().eos();
                let kept: Vec<u32> = ids.into_iter().filter(|id| !eos.contains(id)).collect();
                let text = model.tokenizer().decode(&kept)?;
                let text = text.replace("\n\n", " ").replace(['{', '}'], "");
                if !text.trim().is_empty() {
                    contexts.push(format!("{text}. {{}}"));
                }
            }
        }
    }
    Ok(contexts)
}
