//! A model's shape and options, read from the `config.json` that transformers writes.
//!
//! Nothing in that file is passed over: a field is used, or it is in the table of those that cannot change
//! inference (`unused.rs`), or it is an error. A wrong guess here would give a model that runs and is subtly another one.
//! What an absent field means, and which of two counts, is as in transformers' configuration classes (version 5.23).

mod fields;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod published;
mod rope;
mod unused;

pub use rope::{Rope, RopeScaling};
pub use unused::reason;

use serde_json::{Map, Value};

use super::Error;
use fields::LARGEST;
pub(crate) use fields::{Fields, token_ids};
pub(crate) use rope::Around;

/// The model families there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// OpenAI GPT-2.
    Gpt2,
    /// EleutherAI GPT-J.
    GptJ,
    /// EleutherAI GPT-NeoX and Pythia.
    GptNeoX,
    /// Meta Llama 1 to 3, and models of its shape (SmolLM2, TinyLlama ...).
    Llama,
    /// Mistral 7B and its kin.
    Mistral,
    /// Alibaba Qwen 2 and 2.5.
    Qwen2,
    /// Alibaba Qwen 3, dense.
    Qwen3,
    /// Google Gemma 2.
    Gemma2,
    /// Google Gemma 3, text only.
    Gemma3,
    /// Microsoft Phi-3 and Phi-4 mini.
    Phi3,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 10] = [
        Family::Gpt2,
        Family::GptJ,
        Family::GptNeoX,
        Family::Llama,
        Family::Mistral,
        Family::Qwen2,
        Family::Qwen3,
        Family::Gemma2,
        Family::Gemma3,
        Family::Phi3,
    ];

    /// The `model_type` of transformers.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Gpt2 => "gpt2",
            Family::GptJ => "gptj",
            Family::GptNeoX => "gpt_neox",
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Gemma2 => "gemma2",
            Family::Gemma3 => "gemma3_text",
            Family::Phi3 => "phi3",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.model_type())
    }
}

/// How a normalisation layer normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Subtract the mean, divide by the standard deviation, scale by `weight`, add `bias`.
    Layer,
    /// Divide by the root mean square, scale by `weight`.
    Rms,
    /// As `Rms`, scaled by `1 + weight` (Gemma).
    RmsPlusOne,
}

/// The non-linearity of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Gaussian error linear unit, exact.
    Gelu,
    /// Its tanh approximation.
    GeluTanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// What the MLP of a block reads, and what the block adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// `x' = x + attn(norm(x))`, `out = x' + mlp(norm(x'))`.
    Serial,
    /// `out = x + attn(norm(x)) + mlp(norm(x))`.
    Parallel,
}

/// Which linear maps of a block have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// Query, key and value.
    pub qkv: bool,
    /// The attention's output.
    pub o: bool,
    /// Every matrix of the MLP.
    pub mlp: bool,
    /// The vocabulary projection.
    pub head: bool,
}

/// What differs between the attention of one layer and another.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerAttention {
    /// A token sees itself and the `window - 1` tokens before it; everything before it when `None`.
    pub window: Option<usize>,
    /// The rotary embedding, `None` where positions are learned vectors.
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
    /// Whether a block has norms on the outputs of attention and MLP as well (Gemma).
    pub post_norms: bool,
    /// Whether every query and key head is RMS-normalised before rotary (Qwen 3, Gemma 3).
    pub qk_norm: bool,
    /// Attention scores are `scale * q.k`.
    pub score_scale: f64,
    /// Attention scores become `cap * tanh(score / cap)` (Gemma 2).
    pub score_cap: Option<f64>,
    /// Vocabulary logits become `cap * tanh(logit / cap)` (Gemma 2).
    pub logit_cap: Option<f64>,
    /// Factor on the token embedding where it enters block 0 (Gemma).
    pub embedding_scale: Option<f64>,
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

impl Config {
    /// Whether positions are learned vectors added to the token embeddings.
    pub fn learned_positions(&self) -> bool {
        self.attention.iter().all(|layer| layer.rope.is_none())
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

/// An [`Error::UnsupportedValue`].
pub(crate) fn unsupported(field: &str, found: &Value, supported: &str) -> Error {
    Error::UnsupportedValue {
        field: field.to_owned(),
        found: found.to_string(),
        supported: supported.to_owned(),
    }
}
