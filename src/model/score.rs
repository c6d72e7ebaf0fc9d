//! How probable a model finds given continuations.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::decoder::{Model, Pass, Plain};
use super::{Error, Tokenizer};

/// Most tokens of one batch: what keeps the activations of a batch small on every device.
const BATCH_TOKENS: usize = 2048;

/// A prompt and what comes after it, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// The prompt's tokens, with those the tokenizer adds. At least 1.
    pub prompt: Vec<u32>,
    /// The tokens after them. At least 1.
    pub target: Vec<u32>,
}

/// What a model thinks of a continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// `-ln p` of each target token after the prompt and the target tokens before it.
    pub losses: Vec<f64>,
    /// Whether each target token is the most probable one there.
    pub likeliest: Vec<bool>,
}

impl Score {
    /// Mean of [`Score::losses`], in nats a token.
    pub fn nll(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }
}

impl Tokenizer {
    /// A prompt and its continuation as tokens. `target` gets a space before it where it begins with none.
    ///
    /// The two are read as one text, so that a tokenizer which marks the beginning of a text does so once.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty prompt or target, and where the prompt's last token would be another one with
    /// the target behind it, such as after a prompt that ends in a space.
    pub fn continuation(&self, prompt: &str, target: &str) -> Result<Continuation, Error> {
        let refused = |argument, found: String, remedy: &str| Error::Argument {
            argument,
            found,
            remedy: remedy.into(),
        };
        if target.trim().is_empty() {
            return Err(refused("target", format!("{target:?}"), "give a word"));
        }
        let before = self.encode(prompt)?.ids;
        if before.is_empty() {
            return Err(refused("prompt", "empty".into(), "give at least one word"));
        }
        let space = if target.starts_with(char::is_whitespace) {
            ""
        } else {
            " "
        };
        let whole = self.encode(&format!("{prompt}{space}{target}"))?.ids;
        match whole.strip_prefix(before.as_slice()) {
            Some(after) if !after.is_empty() => Ok(Continuation {
                target: after.to_vec(),
                prompt: before,
            }),
            _ => Err(refused(
                "prompt",
                format!("{prompt:?}"),
                "its last token changes when the target follows: end it with a whole word",
            )),
        }
    }
}

/// Scores continuations, each alone. Rows of one shape share a batch.
///
/// # Errors
/// [`Error::Argument`] for an empty prompt or target, [`Error::TokenId`], [`Error::Context`].
pub fn score(model: &Model, continuations: &[Continuation]) -> Result<Vec<Score>, Error> {
    let mut shapes: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (index, continuation) in continuations.iter().enumerate() {
        let shape = (continuation.prompt.len(), continuation.target.len());
        if shape.0 == 0 || shape.1 == 0 {
            return Err(Error::Argument {
                argument: "continuation",
                found: format!("{} tokens after {}", shape.1, shape.0),
                remedy: "give at least one of each".into(),
            });
        }
        shapes.entry(shape).or_default().push(index);
    }
    let mut scores: Vec<Option<Score>> = vec![None; continuations.len()];
    let _no_grad = tch::no_grad_guard();
    for ((prompt, target), rows) in shapes {
        for rows in rows.chunks((BATCH_TOKENS / (prompt + target)).max(1)) {
            let ids = rows.iter().map(|&row| {
                let Continuation { prompt, target } = &continuations[row];
                // Nothing is read behind the last target token.
                model.ids(&[prompt, &target[..target.len() - 1]].concat())
            });
            let ids: Vec<Tensor> = ids.collect::<Result<_, _>>()?;
            let wanted: Vec<i64> = rows
                .iter()
                .flat_map(|&row| &continuations[row].target)
                .map(|&id| {
                    let _checked = model.ids(&[id])?;
                    Ok(i64::from(id))
                })
                .collect::<Result<_, Error>>()?;
            let wanted = Tensor::from_slice(&wanted)
                .view([rows.len() as i64, target as i64, 1])
                .to_device(model.device());
            let log = last_log_probabilities(model, &Tensor::cat(&ids, 0), target as i64);
            let losses: Vec<f64> = numbers(&log.gather(2, &wanted, false).neg())?;
            let likeliest: Vec<f64> = numbers(&log.argmax(2, true).eq_tensor(&wanted))?;
            for (n, &row) in rows.iter().enumerate() {
                let at = n * target..(n + 1) * target;
                scores[row] = Some(Score {
                    losses: losses[at.clone()].to_vec(),
                    likeliest: likeliest[at].iter().map(|&x| x > 0.5).collect(),
                });
            }
        }
    }
    Ok(scores.into_iter().flatten().collect())
}

/// Log-probabilities of the next token after each of the last `queries` tokens of `ids`, `[rows, tokens]`:
/// `[rows, queries, vocab]` in float32.
pub fn last_log_probabilities(model: &Model, ids: &Tensor, queries: i64) -> Tensor {
    let layers = model.config().layers;
    let mut x = model.enter(&model.embed(ids), 0);
    for layer in 0..layers {
        let pass = Pass {
            past: None,
            queries: (layer + 1 == layers).then_some(queries),
        };
        x = model.block(layer, &x, pass, &mut Plain).hidden;
    }
    model.logits(&x).log_softmax(-1, Kind::Float)
}

fn numbers(values: &Tensor) -> Result<Vec<f64>, Error> {
    Ok(Vec::try_from(
        &values.to_kind(Kind::Double).reshape([-1]).contiguous(),
    )?)
}
