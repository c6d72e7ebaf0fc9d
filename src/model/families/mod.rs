//! One file a family: which fields its configuration has, and what its tensors are called.
//!
//! All families are decoders that differ in the options of [`Config`] and in the names and the
//! packing of their weights; the arithmetic is shared (`block.rs`). Names and shapes are known
//! without libtorch, so that a checkpoint can be checked before anything is computed.

mod bloom;
mod cohere;
mod falcon;
mod gemma;
mod gpt2;
mod gptj;
mod gptneo;
mod gptoss;
mod granite;
mod layout;
mod llama;
mod mixtral;
mod neox;
mod olmo;
mod opt;
mod phi;
mod phi3;
mod qwen;
mod smollm;
mod stablelm;
mod starcoder2;

use serde_json::{Map, Value};

use super::Error;
use super::config::{Config, Family, Fields, unsupported};

pub use layout::{Dense, Experts, Layer, Layout, Linear, Mixture, Mlp, Norm, Parameter, Qkv, Up};

impl Layout {
    /// The tensors a model of this configuration has.
    pub fn new(config: &Config) -> Self {
        match config.family {
            Family::Gpt2 => gpt2::layout(config),
            Family::GptJ => gptj::layout(config),
            Family::GptNeoX => neox::layout(config),
            Family::Llama | Family::Mistral => llama::layout(config),
            Family::Qwen2 | Family::Qwen3 => llama::layout(config),
            Family::SmolLm3 | Family::Granite | Family::StableLm => llama::layout(config),
            Family::Cohere | Family::Cohere2 => llama::layout(config),
            Family::Olmo2 | Family::Olmo3 => olmo::layout(config),
            Family::Opt => opt::layout(config),
            Family::GptNeo => gptneo::layout(config),
            Family::Phi => phi::layout(config),
            Family::StarCoder2 => starcoder2::layout(config),
            Family::Falcon => falcon::layout(config),
            Family::Bloom => bloom::layout(config),
            Family::Gemma2 | Family::Gemma3 => gemma::layout(config),
            Family::Phi3 => phi3::layout(config),
            Family::Mixtral => mixtral::layout(config),
            Family::Qwen3Moe => qwen::moe_layout(config),
            Family::GptOss => gptoss::layout(config),
        }
    }
}

impl Config {
    /// Reads the contents of a `config.json`.
    ///
    /// # Errors
    /// [`Error::UnknownFamily`], [`Error::UnsupportedValue`], [`Error::MissingField`] and [`Error::UnknownField`],
    /// each naming the field.
    pub fn from_json(json: Map<String, Value>) -> Result<Self, Error> {
        let (by, found): (fn(Family) -> &'static str, _) = match json.get("model_type") {
            Some(Value::String(name)) => (Family::model_type, name.as_str()),
            Some(other) => return Err(unsupported("model_type", other, "a string")),
            // Files of 2019 have no such field (distilgpt2's first one): the class says what the
            // model is.
            None => {
                let class = json.get("architectures").and_then(|list| list[0].as_str());
                (Family::architecture, class.unwrap_or_default())
            }
        };
        let family = Family::ALL
            .into_iter()
            .find(|family| by(*family) == found)
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
        Family::Olmo2 => olmo::olmo2(fields),
        Family::Olmo3 => olmo::olmo3(fields),
        Family::SmolLm3 => smollm::config(fields),
        Family::Granite => granite::config(fields),
        Family::Opt => opt::config(fields),
        Family::GptNeo => gptneo::config(fields),
        Family::Phi => phi::config(fields),
        Family::StableLm => stablelm::config(fields),
        Family::StarCoder2 => starcoder2::config(fields),
        Family::Cohere => cohere::cohere(fields),
        Family::Cohere2 => cohere::cohere2(fields),
        Family::Falcon => falcon::config(fields),
        Family::Bloom => bloom::config(fields),
        Family::Mixtral => mixtral::config(fields),
        Family::Qwen3Moe => qwen::qwen3_moe(fields),
        Family::GptOss => gptoss::config(fields),
    }
}

/// What a checkpoint's tensor names may lack, or have before them, and still be this family's.
pub(crate) fn prefix(family: Family) -> &'static str {
    match family {
        Family::Gpt2 | Family::GptJ | Family::GptNeo => "transformer.",
        Family::Falcon | Family::Bloom => "transformer.",
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

/// The layer whose experts a tensor is of, by its canonical name.
pub(crate) fn layer_of_experts(name: &str) -> Option<usize> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let layer = rest.contains(".experts.").then(|| layer.parse().ok());
    layer.flatten()
}

/// The name of a vocabulary projection's matrix.
pub(crate) fn head(family: Family) -> &'static str {
    match family {
        Family::GptNeoX => "embed_out.weight",
        _ => "lm_head.weight",
    }
}
