//! A model's shape and options, read from the `config.json` that transformers writes.
//!
//! Nothing in that file is passed over: a field is used, or it is in the table of those that cannot
//! change inference (`unused.rs`), or it is an error; `generation.rs` is the same for
//! `generation_config.json`. A wrong guess here would give a model that runs and is subtly another
//! one. What an absent field means, and which of two counts, is as in transformers' configuration
//! classes (version 5.23).

mod fields;
mod generation;
mod options;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod published;
mod rope;
mod unused;

pub(crate) use generation::eos as generation_eos;
pub use generation::unused_by_generate;
pub use options::{Activation, Biases, Experts, Family, NormKind, QkNorm, Residual, Routing};
pub use rope::{Rope, RopeScaling};
pub use unused::reason;

use serde_json::{Map, Value};

use super::Error;
use fields::LARGEST;
pub(crate) use fields::{Fields, unsupported};
pub(crate) use rope::Part;

/// Experts of all layers: four times those of any model that there is. Each has tensors of its own,
/// which are listed.
const MOST_EXPERTS: usize = 100_000;

/// What differs between the attention of one layer and another.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerAttention {
    /// A token sees itself and the `window - 1` tokens before it; everything before it when `None`.
    pub window: Option<usize>,
    /// The rotary embedding, `None` where positions are learned vectors, and in layers that see no
    /// positions (SmolLM3).
    pub rope: Option<Rope>,
}

/// A model's shape and options. Sizes are counts of scalars unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The model family.
    pub family: Family,
    /// Number of blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Inner width of the MLP: the key of an edit has this many channels.
    pub inner: usize,
    /// The experts that some blocks, or all, have in the place of an MLP.
    pub experts: Option<Experts>,
    /// Rows of the token embedding.
    pub vocab: usize,
    /// The most tokens the model takes.
    pub context: usize,
    /// Kind of every normalisation layer.
    pub norm: NormKind,
    /// Added to the variance or mean square before its root is taken.
    pub norm_eps: f64,
    /// Non-linearity of the MLP.
    pub activation: Activation,
    /// Whether the MLP is `down(act(gate(x)) * up(x))` instead of `down(act(up(x)))`.
    pub gated: bool,
    /// How a block adds up.
    pub residual: Residual,
    /// Whether the MLP reads through a norm of its own; else it reads what attention reads (GPT-J).
    pub mlp_norm: bool,
    /// How queries and keys are normalised before rotary.
    pub qk_norm: QkNorm,
    /// Attention scores are `scale * q.k`.
    pub score_scale: f64,
    /// Attention scores become `cap * tanh(score / cap)` (Gemma 2).
    pub score_cap: Option<f64>,
    /// Vocabulary logits become `cap * tanh(logit / cap)` (Gemma 2).
    pub logit_cap: Option<f64>,
    /// Factor on the vocabulary logits (Granite, Cohere).
    pub logit_scale: Option<f64>,
    /// Factor on the token embedding, in the embedding itself: noise comes after it (Gemma).
    pub embedding_scale: Option<f64>,
    /// Factor on the token embedding where it enters block 0: noise comes before it (Granite).
    pub input_scale: Option<f64>,
    /// Factor on what attention and MLP add to the residual stream (Granite).
    pub residual_scale: Option<f64>,
    /// Whether a head's scores fall with the distance of a key, by a slope of its own, instead of
    /// positions (BLOOM).
    pub alibi: bool,
    /// Whether every head has a score of its own for a key that has no value and that every query
    /// sees: what it takes of the softmax goes nowhere (gpt-oss).
    pub sinks: bool,
    /// Rows of the position embedding before that of the first token (OPT).
    pub position_offset: usize,
    /// Which linear maps have a bias.
    pub biases: Biases,
    /// Whether the vocabulary projection is the token embedding.
    pub tied: bool,
    /// One entry a block.
    pub attention: Vec<LayerAttention>,
    /// End-of-text token ids of the configuration.
    pub eos: Vec<u32>,
    /// The configuration as transformers would write it.
    pub json: Map<String, Value>,
}

/// The sizes that every family names, whatever it calls them.
pub(crate) struct Sizes {
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub inner: usize,
    pub vocab: usize,
    pub context: usize,
}

impl Config {
    /// GPT-2's kind of model, from which the others are so many steps away: layer norms, a plain
    /// MLP, biases everywhere but in the head, learned positions, no option on.
    pub(crate) fn plain(family: Family, sizes: Sizes, eos: Vec<u32>) -> Self {
        Self {
            family,
            layers: sizes.layers,
            width: sizes.width,
            heads: sizes.heads,
            kv_heads: sizes.heads,
            head_dim: sizes.head_dim,
            inner: sizes.inner,
            experts: None,
            vocab: sizes.vocab,
            context: sizes.context,
            norm: NormKind::Layer,
            norm_eps: 1e-5,
            activation: Activation::GeluTanh,
            gated: false,
            residual: Residual::Serial,
            mlp_norm: true,
            qk_norm: QkNorm::None,
            score_scale: (sizes.head_dim as f64).sqrt().recip(),
            score_cap: None,
            logit_cap: None,
            logit_scale: None,
            embedding_scale: None,
            input_scale: None,
            residual_scale: None,
            alibi: false,
            sinks: false,
            position_offset: 0,
            biases: Biases {
                qkv: true,
                o: true,
                mlp: true,
                head: false,
            },
            tied: true,
            attention: vec![
                LayerAttention {
                    window: None,
                    rope: None
                };
                sizes.layers
            ],
            eos,
            json: Map::new(),
        }
    }

    /// Gives all layers a rotary embedding.
    pub(crate) fn turn(&mut self, rope: &Rope) {
        for layer in &mut self.attention {
            layer.rope = Some(rope.clone());
        }
    }

    /// The experts of a block; `None` where it has an MLP.
    pub fn experts_of(&self, layer: usize) -> Option<&Experts> {
        let experts = self.experts.as_ref();
        experts.filter(|experts| experts.layers.get(layer) == Some(&true))
    }

    /// Refuses a layer that has no one key: the experts of a mixture have a second matrix each, and
    /// a token's inputs to those that it goes to are as many keys.
    ///
    /// # Errors
    /// [`Error::Mixture`].
    pub fn has_key(&self, layer: usize) -> Result<(), Error> {
        match self.experts_of(layer) {
            Some(_) => Err(self.no_key(layer)),
            None => Ok(()),
        }
    }

    pub(crate) fn no_key(&self, layer: usize) -> Error {
        let experts = self.experts_of(layer);
        let (experts, chosen) = experts.map_or((0, 0), |it| (it.count, it.chosen));
        let dense = (0..self.layers).filter(|&layer| self.experts_of(layer).is_none());
        Error::Mixture {
            family: self.family.model_type(),
            layer,
            experts,
            chosen,
            dense: dense.collect(),
        }
    }

    /// Relations between fields that no single field can break.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (field, value) in [
            ("width", self.width),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("inner", self.inner),
            ("vocab", self.vocab),
            ("context", self.context),
        ] {
            if value == 0 || value > LARGEST {
                let supported = format!("1 to {LARGEST}");
                return Err(unsupported(field, &value.into(), &supported));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(unsupported(
                "num_key_value_heads",
                &self.kv_heads.into(),
                &format!("a divisor of the {} attention heads", self.heads),
            ));
        }
        if let Some(experts) = &self.experts {
            let most = MOST_EXPERTS / self.layers.max(1);
            for (field, value, most) in [
                ("num_experts", experts.count, most),
                ("num_experts_per_tok", experts.chosen, experts.count),
                ("the experts' inner width", experts.inner, LARGEST),
            ] {
                if value == 0 || value > most {
                    return Err(unsupported(field, &value.into(), &format!("1 to {most}")));
                }
            }
        }
        for layer in &self.attention {
            if let Some(rope) = &layer.rope {
                rope.check(self.head_dim)?;
            }
            if layer.window == Some(0) {
                return Err(unsupported(
                    "sliding_window",
                    &0.into(),
                    "1 or more, or null",
                ));
            }
        }
        Ok(())
    }
}

/// `width / heads`, which must come out even. `field` is the family's name for the number of heads.
pub(crate) fn head_dim(width: usize, heads: usize, field: &str) -> Result<usize, Error> {
    if heads == 0 || !width.is_multiple_of(heads) {
        let supported = format!("a divisor of the width, {width}");
        return Err(unsupported(field, &heads.into(), &supported));
    }
    Ok(width / heads)
}
