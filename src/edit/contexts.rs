//! Texts that stand before the sentence, so that a subject's key is not that of one prompt.

use super::Error;
use crate::model::{Draw, Model, Sampling, generate, sample};

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

/// What the texts of a mass edit begin with.
const OPENINGS: [&str; 5] = ["The", "Therefore", "Because", "I", "You"];
/// Their length in tokens, the opening and a start token included.
const OPENING_TOKENS: usize = 10;

/// `{}` alone, and for a mass edit one text after each of five openings, as `text. {}`.
///
/// # Errors
/// As [`sample_contexts`].
pub fn sample_openings(
    model: &Model,
    seed: u64,
    mut go_on: impl FnMut() -> bool,
) -> Result<Vec<String>, Error> {
    let tokenizer = model.tokenizer();
    let mut contexts = vec!["{}".to_owned()];
    for (n, opening) in (0..).zip(OPENINGS) {
        let before = tokenizer.encode(opening)?.ids;
        let sampling = Sampling {
            temperature: 1.0,
            top_k: Some(TOP_K),
            seed: seed.wrapping_add(n),
            max_tokens: OPENING_TOKENS.saturating_sub(before.len()).max(1),
        };
        let mut cancelled = false;
        let drawn = generate(model, &before, &sampling, |_| {
            cancelled = !go_on();
            !cancelled
        })?;
        if cancelled {
            return Err(Error::Cancelled);
        }
        let eos = tokenizer.eos();
        let kept: Vec<u32> = drawn
            .ids
            .into_iter()
            .filter(|id| !eos.contains(id))
            .collect();
        // What a token says may depend on those before it.
        let whole = tokenizer.decode(&[before.as_slice(), &kept].concat())?;
        let added = whole
            .strip_prefix(&tokenizer.decode(&before)?)
            .unwrap_or(&whole);
        let text = format!("{opening}{added}");
        let text = text.replace(['{', '}'], " ").replace('\n', " ");
        contexts.push(format!("{}. {{}}", text.trim_end()));
    }
    Ok(contexts)
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
