//! Drawing many texts at once, of one length, from nothing but a model.
//!
//! [`super::generate`] continues one text and ends where the model ends it. Here the rows of a batch go on in lockstep,
//! through an end of text into the next, as the model's training texts did: that is what statistics
//! over a model's own text want, and what makes drawing them affordable.

use tch::{Kind, Tensor};

use super::decoder::Model;
use super::generate::uniform;
use super::hook::{Pass, Plain};
use super::key_value::KeyValue;
use super::{Error, Tokenizer};

/// What to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    /// Texts.
    pub rows: usize,
    /// Tokens of each, the start token included. At least 1.
    pub tokens: usize,
    /// Choose among so many of the most probable tokens; `None` for all.
    pub top_k: Option<usize>,
    /// Start of the random numbers: row `r` uses `seed + r`.
    pub seed: u64,
}

impl Tokenizer {
    /// The token that a text begins with when there is nothing before it: what the tokenizer itself
    /// puts there, else `<|endoftext|>`, which stood between training texts, else one that ends a
    /// text. `None` where there is none of these.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn start(&self) -> Result<Option<u32>, Error> {
        let added = self.encode("")?.ids.first().copied();
        let between = || self.id("<|endoftext|>");
        Ok(added.or_else(between).or(self.eos().first().copied()))
    }
}

/// Draws texts from the model, each as its token ids after the start token. Each row depends on its
/// own seed alone, up to the last bits of a batch of another size. `go_on` is asked before every
/// token; `false` ends with what there is.
///
/// # Errors
/// [`Error::Argument`] for a length of 0, a `top_k` of 0, or a tokenizer without any token to start from;
/// [`Error::Context`] where the rows are longer than the model's context; [`Error::Overflow`] where logits are no numbers.
pub fn sample(
    model: &Model,
    draw: &Draw,
    mut go_on: impl FnMut() -> bool,
) -> Result<Vec<Vec<u32>>, Error> {
    let refused = |argument, found: String, remedy: &str| Error::Argument {
        argument,
        found,
        remedy: remedy.into(),
    };
    if draw.tokens == 0 {
        return Err(refused("tokens", "0".into(), "use 1 or more"));
    }
    if draw.top_k == Some(0) {
        let remedy = "use 1 or more, or leave it out for all tokens";
        return Err(refused("top_k", "0".into(), remedy));
    }
    let context = model.config().context;
    if draw.tokens > context {
        let tokens = draw.tokens;
        return Err(Error::Context { tokens, context });
    }
    let start = model.tokenizer().start()?.ok_or_else(|| {
        let remedy = "this tokenizer has no token to start from: give texts instead";
        refused("start token", "missing".into(), remedy)
    })?;
    let mut next = model.ids(&[start])?.repeat([draw.rows as i64, 1]);
    let mut states: Vec<u64> = (0..draw.rows as u64)
        .map(|row| draw.seed.wrapping_add(row))
        .collect();
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); draw.rows];
    let mut past: Vec<KeyValue> = Vec::new();
    tch::no_grad(|| {
        for drawn in 1..draw.tokens {
            if draw.rows == 0 || !go_on() {
                break;
            }
            let logits = extend(model, &next, &mut past);
            model.check_finite(&logits, drawn)?;
            let ids = choose(&logits, draw.top_k, &mut states)?;
            for (row, &id) in rows.iter_mut().zip(&ids) {
                row.push(id);
            }
            let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
            next = Tensor::from_slice(&ids)
                .unsqueeze(1)
                .to_device(model.device());
        }
        Ok(rows)
    })
}

/// Logits `[rows, vocab]` after one more token a row, which becomes part of the past.
fn extend(model: &Model, ids: &Tensor, past: &mut Vec<KeyValue>) -> Tensor {
    let before = past.first().map_or(0, KeyValue::tokens);
    let mut x = model.add_positions(&model.embed(ids), before);
    for layer in 0..model.config().layers {
        let pass = Pass {
            past: past.get(layer),
            queries: None,
        };
        let step = model.block(layer, &x, pass, &mut Plain);
        x = step.hidden;
        match past.get_mut(layer) {
            Some(past) => *past = past.then(&step.kv),
            None => past.push(step.kv),
        }
    }
    model.logits(&x).select(1, 0)
}

/// One token a row, drawn in double precision on the CPU.
fn choose(logits: &Tensor, top_k: Option<usize>, states: &mut [u64]) -> Result<Vec<u32>, Error> {
    let vocab = logits.size()[1];
    let (values, ids) = match top_k {
        Some(k) => {
            let (values, ids) = logits.f_topk((k as i64).min(vocab), 1, true, true)?;
            (values, Some(ids))
        }
        None => (logits.shallow_clone(), None),
    };
    let candidates = values.size()[1] as usize;
    let values: Vec<f32> = Vec::try_from(&values.to_kind(Kind::Float).reshape([-1]))?;
    let ids: Option<Vec<i64>> = ids
        .map(|ids| Vec::try_from(&ids.reshape([-1])))
        .transpose()?;
    let mut chosen = Vec::with_capacity(states.len());
    for (row, state) in states.iter_mut().enumerate() {
        let logits = &values[row * candidates..(row + 1) * candidates];
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: f32| (f64::from(logit) - f64::from(top)).exp();
        let total: f64 = logits.iter().map(|&logit| weight(logit)).sum();
        let mut left = uniform(state) * total;
        // Rounding may leave a crumb: it belongs to the last candidate.
        let place = logits
            .iter()
            .position(|&logit| {
                left -= weight(logit);
                left < 0.0
            })
            .unwrap_or(candidates - 1);
        chosen.push(match &ids {
            Some(ids) => ids[row * candidates + place] as u32,
            None => place as u32,
        });
    }
    Ok(chosen)
}
