//! One file a family: which fields its configuration has, and what its tensors are called.
//!
//! All families are decoders that differ in the options of [`Config`] and in the names and the packing of their
//! weights; the arithmetic is shared (`block.rs`). Names and shapes are known without libtorch, so that a checkpoint
//! can be checked before anything is computed.

mod gemma;
mod gpt2;
mod gptj;
mod llama;
mod neox;
mod phi3;
mod qwen;

use serde_json::{Map, Value};

use super::Error;
use super::config::{Config, Family, Fields, NormKind, unsupported};

/// One tensor of a checkpoint, by its canonical name: the one transformers gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// For instance `model.layers.0.mlp.down_proj.weight`.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

/// The weight and bias of a linear map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linear {
    /// `[out, in]`, or `[in, out]` when `transposed`.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    /// GPT-2 stores its matrices as `[in, out]`.
    pub transposed: bool,
}

/// The weight and bias of a normalisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Norm {
    /// Scale, `[width]`.
    pub weight: Parameter,
    /// Shift, `[width]`; layer norm only.
    pub bias: Option<Parameter>,
}

/// How a checkpoint packs query, key and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Qkv {
    /// Three maps.
    Separate(Box<[Linear; 3]>),
    /// One map; its outputs are all queries, then all keys, then all values.
    Fused(Linear),
    /// One map; its outputs are query, key and value of head 0, then of head 1 ... (GPT-NeoX).
    ByHead(Linear),
}

/// How a checkpoint packs what the MLP reads with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Up {
    /// One map and a non-linearity.
    Plain(Linear),
    /// Gate and up, apart.
    Gated(Box<[Linear; 2]>),
    /// Gate, then up, as the outputs of one map (Phi-3).
    Fused(Linear),
}

/// The tensors of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Before attention.
    pub attn_norm: Norm,
    /// On the output of attention.
    pub attn_post_norm: Option<Norm>,
    /// Before the MLP; `None` where the MLP reads what attention reads (GPT-J).
    pub mlp_norm: Option<Norm>,
    /// On the output of the MLP.
    pub mlp_post_norm: Option<Norm>,
    /// Query, key, value.
    pub qkv: Qkv,
    /// On every query head, `[head_dim]`.
    pub q_norm: Option<Norm>,
    /// On every key head, `[head_dim]`.
    pub k_norm: Option<Norm>,
    /// The attention's output.
    pub o: Linear,
    /// First half of the MLP.
    pub up: Up,
    /// Second half of the MLP: the matrix that edits change.
    pub down: Linear,
}

/// Every tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Token embedding, `[vocab, width]`.
    pub embedding: Parameter,
    /// Position embedding, `[context, width]`.
    pub positions: Option<Parameter>,
    /// One entry a block.
    pub layers: Vec<Layer>,
    /// Before the vocabulary projection.
    pub final_norm: Norm,
    /// The vocabulary projection; `None` when it is the token embedding.
    pub head: Option<Linear>,
    /// The bias of a vocabulary projection whose matrix is the token embedding, `[vocab]` (GPT-J).
    pub head_bias: Option<Parameter>,
}

impl Layout {
    /// The tensors a model of this configuration has.
    pub fn new(config: &Config) -> Self {
        match config.family {
            Family::Gpt2 => gpt2::layout(config),
            Family::GptJ => gptj::layout(config),
            Family::GptNeoX => neox::layout(config),
            Family::Llama | Family::Mistral => llama::layout(config),
            Family::Qwen2 | Family::Qwen3 => llama::layout(config),
            Family::Gemma2 | Family::Gemma3 => gemma::layout(config),
            Family::Phi3 => phi3::layout(config),
        }
    }

    /// All parameters, in the order of the computation.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let mut all = vec![&self.embedding];
        all.extend(&self.positions);
        for layer in &self.layers {
            layer.attn_norm.collect(&mut all);
            match &layer.qkv {
                Qkv::Separate(maps) => maps.iter().for_each(|map| map.collect(&mut all)),
                Qkv::Fused(map) | Qkv::ByHead(map) => map.collect(&mut all),
            }
            for norm in [&layer.q_norm, &layer.k_norm].into_iter().flatten() {
                norm.collect(&mut all);
            }
            layer.o.collect(&mut all);
            let norms = [&layer.attn_post_norm, &layer.mlp_norm];
            for norm in norms.into_iter().flatten() {
                norm.collect(&mut all);
            }
            match &layer.up {
                Up::Plain(map) | Up::Fused(map) => map.collect(&mut all),
                Up::Gated(maps) => maps.iter().for_each(|map| map.collect(&mut all)),
            }
            layer.down.collect(&mut all);
            if let Some(norm) = &layer.mlp_post_norm {
                norm.collect(&mut all);
            }
        }
        self.final_norm.collect(&mut all);
        if let Some(head) = &self.head {
            head.collect(&mut all);
        }
        all.extend(&self.head_bias);
        all
    }
}

impl Linear {
    fn new(prefix: &str, out: usize, inp: usize, bias: bool) -> Self {
        Self {
            weight: parameter(format!("{prefix}.weight"), [out, inp]),
            bias: bias.then(|| parameter(format!("{prefix}.bias"), [out])),
            transposed: false,
        }
    }

    fn collect<'a>(&'a self, all: &mut Vec<&'a Parameter>) {
        all.push(&self.weight);
        all.extend(&self.bias);
    }
}

impl Norm {
    fn new(kind: NormKind, prefix: &str, width: usize) -> Self {
        let bias = kind == NormKind::Layer;
        Self {
            weight: parameter(format!("{prefix}.weight"), [width]),
            bias: bias.then(|| parameter(format!("{prefix}.bias"), [width])),
        }
    }

    fn collect<'a>(&'a self, all: &mut Vec<&'a Parameter>) {
        all.push(&self.weight);
        all.extend(&self.bias);
    }
}

fn parameter(name: String, shape: impl Into<Vec<usize>>) -> Parameter {
    Parameter {
        name,
        shape: shape.into(),
    }
}

impl Config {
    /// Reads the contents of a `config.json`.
    ///
    /// # Errors
    /// [`Error::UnknownFamily`], [`Error::UnsupportedValue`], [`Error::MissingField`] and [`Error::UnknownField`],
    /// each naming the field.
    pub fn from_json(json: Map<String, Value>) -> Result<Self, Error> {
        let found = match json.get("model_type") {
            Some(Value::String(name)) => name.as_str(),
            Some(other) => return Err(unsupported("model_type", other, "a string")),
            None => "",
        };
        let family = Family::ALL
            .into_iter()
            .find(|family| family.model_type() == found)
            .ok_or_else(|| Error::UnknownFamily {
                found: found.to_owned(),
                supported: Family::ALL.map(Family::model_type).join(", "),
            })?;
        let fields = Fields::new(family.model_type(), &json);
        let mut config = config(family, &fields)?;
        fields.finish()?;
        config.check()?;
        config.json = json;
        Ok(config)
    }
}

/// Reads the fields of a family's configuration.
fn config(family: Family, fields: &Fields<'_>) -> Result<Config, Error> {
    match family {
        Family::Gpt2 => gpt2::config(fields),
        Family::GptJ => gptj::config(fields),
        Family::GptNeoX => neox::config(fields),
        Family::Llama => llama::config(fields),
        Family::Mistral => llama::mistral(fields),
        Family::Qwen2 => qwen::qwen2(fields),
        Family::Qwen3 => qwen::qwen3(fields),
        Family::Gemma2 => gemma::gemma2(fields),
        Family::Gemma3 => gemma::gemma3(fields),
        Family::Phi3 => phi3::config(fields),
    }
}

/// What a checkpoint's tensor names may lack, or have before them, and still be this family's.
pub(crate) fn prefix(family: Family) -> &'static str {
    match family {
        Family::Gpt2 | Family::GptJ => "transformer.",
        Family::GptNeoX => "gpt_neox.",
        _ => "model.",
    }
}

/// Tensors that old files carry although they are no weights: causal masks and rotary frequencies.
pub(crate) fn is_buffer(name: &str) -> bool {
    [
        ".attn.bias",
        ".attn.masked_bias",
        ".attention.bias",
        ".attention.masked_bias",
        ".rotary_emb.inv_freq",
        ".attn.attention.bias",
        ".embed_positions",
    ]
    .iter()
    .any(|suffix| name.ends_with(suffix))
}

/// Whether a name is that of a vocabulary projection.
pub(crate) fn is_head(name: &str) -> bool {
    ["lm_head.", "embed_out."]
        .iter()
        .any(|head| name.starts_with(head))
}

/// The name of a vocabulary projection's matrix.
pub(crate) fn head(family: Family) -> &'static str {
    match family {
        Family::GptNeoX => "embed_out.weight",
        _ => "lm_head.weight",
    }
}
