//! Continuing a text, one token at a time.

use tch::{Kind, Tensor};

use super::Error;
use super::decoder::Model;
use super::hook::{Pass, Plain};
use super::key_value::KeyValue;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 takes the most probable token; above, logits are divided by it before the softmax.
    pub temperature: f64,
    /// Choose among so many of the most probable tokens; `None` for all.
    pub top_k: Option<usize>,
    /// Start of the random numbers: the same seed, prompt and device give the same text.
    pub seed: u64,
    /// The most tokens to add.
    pub max_tokens: usize,
}

/// Why a continuation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model ended the text.
    Eos,
    /// `max_tokens` were added.
    MaxTokens,
    /// The context is full.
    Context,
    /// `on_token` asked for it.
    Caller,
}

/// A continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The added tokens, without an end-of-text token.
    pub ids: Vec<u32>,
    /// Why there are no more.
    pub stop: Stop,
}

/// Continues `ids`. Every added token is handed to `on_token` as it comes; `false` from there ends
/// the text.
///
/// # Errors
/// Before any work: [`Error::Context`] for a prompt that leaves no room, [`Error::TokenId`], and
/// [`Error::Argument`] for an empty prompt, a negative temperature or a `top_k` of 0.
/// [`Error::Overflow`] where logits are no numbers.
pub fn generate(
    model: &Model,
    ids: &[u32],
    sampling: &Sampling,
    mut on_token: impl FnMut(u32) -> bool,
) -> Result<Generated, Error> {
    let mut sampler = Sampler::new(sampling)?;
    if ids.is_empty() {
        return Err(Error::Argument {
            argument: "prompt",
            found: "empty".into(),
            remedy: "give at least one token".into(),
        });
    }
    let mut next = model.ids(ids)?;
    let context = model.config().context;
    let mut past: Vec<KeyValue> = Vec::new();
    let mut added = Vec::new();
    tch::no_grad(|| {
        loop {
            if added.len() == sampling.max_tokens {
                return Ok(Generated {
                    ids: added,
                    stop: Stop::MaxTokens,
                });
            }
            let logits = extend(model, &next, &mut past);
            model.check_finite(&logits, ids.len() + added.len())?;
            let id = sampler.next(&logits)?;
            if model.tokenizer().eos().contains(&id) {
                return Ok(Generated {
                    ids: added,
                    stop: Stop::Eos,
                });
            }
            added.push(id);
            let stop = if !on_token(id) {
                Some(Stop::Caller)
            } else if ids.len() + added.len() == context + 1 {
                Some(Stop::Context)
            } else {
                None
            };
            if let Some(stop) = stop {
                return Ok(Generated { ids: added, stop });
            }
            next = Tensor::from_slice(&[i64::from(id)])
                .unsqueeze(0)
                .to_device(model.device());
        }
    })
}

/// Runs the tokens `[1, tokens]` after those of `past`, adds theirs to it, and gives the last one's
/// logits, `[vocab]`.
fn extend(model: &Model, ids: &Tensor, past: &mut Vec<KeyValue>) -> Tensor {
    let before = past.first().map_or(0, KeyValue::tokens);
    let layers = model.config().layers;
    let mut x = model.add_positions(&model.embed(ids), before);
    for layer in 0..layers {
        let pass = Pass {
            past: past.get(layer),
            // Nobody reads the other tokens' last hidden state.
            queries: (layer + 1 == layers).then_some(1),
        };
        let step = model.block(layer, &x, pass, &mut Plain);
        x = step.hidden;
        match past.get_mut(layer) {
            Some(past) => *past = past.then(&step.kv),
            None => past.push(step.kv),
        }
    }
    model.logits(&x).view(-1)
}

/// Chooses tokens.
struct Sampler {
    temperature: f64,
    top_k: Option<usize>,
    /// State of SplitMix64 (Steele, Lea and Flood 2014): short, well tested, and the same
    /// everywhere.
    state: u64,
}

impl Sampler {
    fn new(sampling: &Sampling) -> Result<Self, Error> {
        let refused = |argument, found: String, remedy: &str| Error::Argument {
            argument,
            found,
            remedy: remedy.into(),
        };
        let temperature = sampling.temperature;
        if !(temperature.is_finite() && temperature >= 0.0) {
            let remedy = "use 0 for the most probable token, or a number above 0";
            return Err(refused("temperature", temperature.to_string(), remedy));
        }
        if sampling.top_k == Some(0) {
            let remedy = "use 1 or more, or leave it out for all tokens";
            return Err(refused("top_k", "0".into(), remedy));
        }
        Ok(Self {
            temperature,
            top_k: sampling.top_k,
            state: sampling.seed,
        })
    }

    /// A token from logits `[vocab]`.
    fn next(&mut self, logits: &Tensor) -> Result<u32, Error> {
        if self.temperature == 0.0 {
            return Ok(logits.argmax(-1, false).int64_value(&[]) as u32);
        }
        let logits: Vec<f32> = Vec::try_from(&logits.to_kind(Kind::Float))?;
        Ok(self.choose(&logits))
    }

    /// Draws in double precision on the CPU, so that the draw itself does not depend on the device.
    fn choose(&mut self, logits: &[f32]) -> u32 {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // Equal logits: the lower id first, so that a cut-off is not left to chance.
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        order.truncate(self.top_k.unwrap_or(usize::MAX));
        let top = order.first().map_or(0.0, |&id| f64::from(logits[id]));
        let weight = |id: usize| ((f64::from(logits[id]) - top) / self.temperature).exp();
        let total: f64 = order.iter().map(|&id| weight(id)).sum();
        let mut left = uniform(&mut self.state) * total;
        for &id in &order {
            left -= weight(id);
            if left < 0.0 {
                return id as u32;
            }
        }
        // Rounding may leave a crumb: it belongs to the last candidate.
        order.last().map_or(0, |&id| id as u32)
    }
}

/// The next number in `[0, 1)`: the upper 53 bits of SplitMix64.
pub(super) fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}
