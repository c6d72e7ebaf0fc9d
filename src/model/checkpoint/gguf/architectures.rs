//! llama.cpp's architectures: which family each is, and what its metadata say as transformers would
//! write it. What llama.cpp's converter writes is the source.

use serde_json::{Map, Value, json};

use super::super::super::Error;
use super::super::super::config::{self, Family};
use super::header::Header;

/// One of them.
pub struct Architecture {
    /// Its name in a file.
    pub name: &'static str,
    /// What it is.
    pub family: Family,
    /// What it reads of metadata that others have no use for.
    pub reads: &'static [&'static str],
    /// Its configuration, but for what all have.
    fields: fn(&Header) -> Result<Value, Error>,
}

const SCALES: &[&str] = &[
    "attention.scale",
    "embedding_scale",
    "logit_scale",
    "residual_scale",
];
/// The base of the layers that have a window; older files leave Gemma 3's out.
const LOCAL: &str = "rope.freq_base_swa";
const WINDOW: &str = "attention.sliding_window";
const PARALLEL: &str = "use_parallel_residual";
/// transformers' name of how much of a head is rotated.
const PART: &str = "partial_rotary_factor";

/// Those that are read, Llama's first: files of Mistral's are of that architecture too.
pub const ARCHITECTURES: [Architecture; 18] = [
    of("llama", Family::Llama, &[], llama),
    of("gpt2", Family::Gpt2, &[], gpt2),
    of("qwen2", Family::Qwen2, &[], qwen2),
    of("qwen3", Family::Qwen3, &[], qwen3),
    of(
        "gemma2",
        Family::Gemma2,
        &[WINDOW, "attn_logit_softcapping", "final_logit_softcapping"],
        gemma2,
    ),
    of("gemma3", Family::Gemma3, &[WINDOW, LOCAL], gemma3),
    of("phi3", Family::Phi3, &[WINDOW], phi3),
    of("phi2", Family::Phi, &[], phi2),
    of("olmo2", Family::Olmo2, &[], olmo2),
    of("smollm3", Family::SmolLm3, &[], smollm3),
    of("granite", Family::Granite, SCALES, granite),
    of("stablelm", Family::StableLm, &[PARALLEL], stablelm),
    of("starcoder2", Family::StarCoder2, &[], starcoder2),
    of("command-r", Family::Cohere, &["logit_scale"], command_r),
    of(
        "cohere2",
        Family::Cohere2,
        &["logit_scale", WINDOW],
        cohere2,
    ),
    of("falcon", Family::Falcon, &[], falcon),
    of("gptneox", Family::GptNeoX, &[PARALLEL], gptneox),
    of("bloom", Family::Bloom, &[], bloom),
];

const fn of(
    name: &'static str,
    family: Family,
    reads: &'static [&'static str],
    fields: fn(&Header) -> Result<Value, Error>,
) -> Architecture {
    Architecture {
        name,
        family,
        reads,
        fields,
    }
}

impl Architecture {
    /// That of a file, by the name that the file gives.
    ///
    /// # Errors
    /// [`Error::UnknownFamily`] names those that there are.
    pub fn named(name: &str) -> Result<&'static Self, Error> {
        let found = ARCHITECTURES.iter().find(|it| it.name == name);
        found.ok_or_else(|| Error::UnknownFamily {
            found: name.to_owned(),
            supported: format!(
                "{} as GGUF; other families as safetensors",
                ARCHITECTURES.map(|it| it.name).join(", ")
            ),
        })
    }

    /// The configuration that transformers would have, but for vocabulary and special tokens.
    pub fn config(&self, file: &Header) -> Result<Map<String, Value>, Error> {
        let mut json = Map::from_iter([
            ("model_type".to_owned(), self.family.model_type().into()),
            (
                "architectures".to_owned(),
                json!([self.family.architecture()]),
            ),
        ]);
        if let Value::Object(fields) = (self.fields)(file)? {
            json.extend(fields);
        }
        Ok(json)
    }
}

/// `more` over what Llama's configuration and those of its kin have.
fn with(file: &Header, eps: &str, more: Value) -> Result<Value, Error> {
    let width = file.size("embedding_length")?;
    let heads = file.size("attention.head_count")?;
    let head_dim = head_dim(file, width, heads)?;
    let theta = file.maybe_decimal("rope.freq_base").unwrap_or(10_000.0);
    let context = file.size("context_length")?;
    let (field, eps) = match eps {
        "rms_norm_eps" => ("attention.layer_norm_rms_epsilon", eps),
        other => ("attention.layer_norm_epsilon", other),
    };
    let mut json = json!({
        "num_hidden_layers": file.size("block_count")?,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": file.maybe_size("attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": head_dim,
        "intermediate_size": file.size("feed_forward_length")?,
        "max_position_embeddings": context,
        "rope_theta": theta,
        "rope_scaling": file.rope_scaling(theta, head_dim, context)?,
    });
    json[eps] = file.decimal(field)?.into();
    let field = "rope.dimension_count";
    match file.maybe_size(field)? {
        // Those that rotate a part of a head say in `more` how much of it.
        Some(other) if other != head_dim && more.get(PART).is_none() => {
            let supported = format!("the head's {head_dim}");
            return Err(file.unsupported(field, other, &supported));
        }
        _ => {}
    }
    if let (Some(json), Value::Object(more)) = (json.as_object_mut(), more) {
        json.extend(more);
        json.retain(|_, value| !value.is_null());
    }
    Ok(json)
}

fn head_dim(file: &Header, width: usize, heads: usize) -> Result<usize, Error> {
    let head_dim = match file.maybe_size("attention.key_length")? {
        Some(head_dim) => head_dim,
        None => config::head_dim(width, heads, &file.key("attention.head_count"))?,
    };
    match file.maybe_size("attention.value_length")? {
        Some(other) if other != head_dim => {
            let supported = format!("the head's {head_dim}");
            Err(file.unsupported("attention.value_length", other, &supported))
        }
        _ => Ok(head_dim),
    }
}

/// Heads of their own keys: what has no `head_count_kv`, or that of its heads.
fn all_heads(file: &Header) -> Result<usize, Error> {
    let heads = file.size("attention.head_count")?;
    let field = "attention.head_count_kv";
    match file.maybe_size(field)? {
        Some(other) if other != heads => Err(file.unsupported(field, other, &heads.to_string())),
        _ => Ok(heads),
    }
}

fn gpt2(file: &Header) -> Result<Value, Error> {
    Ok(json!({
        "n_layer": file.size("block_count")?,
        "n_embd": file.size("embedding_length")?,
        "n_head": all_heads(file)?,
        "n_positions": file.size("context_length")?,
        "n_inner": file.size("feed_forward_length")?,
        "layer_norm_epsilon": file.decimal("attention.layer_norm_epsilon")?,
        "activation_function": "gelu_new",
    }))
}

fn llama(file: &Header) -> Result<Value, Error> {
    with(
        file,
        "rms_norm_eps",
        json!({
            "hidden_act": "silu",
            "attention_bias": file.has("blk.0.attn_q.bias"),
            "mlp_bias": file.has("blk.0.ffn_down.bias"),
        }),
    )
}

fn qwen2(file: &Header) -> Result<Value, Error> {
    with(
        file,
        "rms_norm_eps",
        json!({ "hidden_act": "silu", "use_sliding_window": false }),
    )
}

fn qwen3(file: &Header) -> Result<Value, Error> {
    with(
        file,
        "rms_norm_eps",
        json!({
            "hidden_act": "silu",
            "use_sliding_window": false,
            "attention_bias": file.has("blk.0.attn_q.bias"),
        }),
    )
}

/// What both of Gemma's have. The largest of each scales queries by the width over the heads
/// instead of the width of a head, which no metadata say: llama.cpp knows them by their blocks.
fn gemma(file: &Header, largest: usize, more: Value) -> Result<Value, Error> {
    let (width, heads) = (
        file.size("embedding_length")?,
        file.size("attention.head_count")?,
    );
    let scalar = match file.size("block_count")? == largest {
        true => config::head_dim(width, heads, &file.key("attention.head_count"))?,
        false => head_dim(file, width, heads)?,
    };
    let mut json = with(file, "rms_norm_eps", more)?;
    json["hidden_activation"] = "gelu_pytorch_tanh".into();
    json["query_pre_attn_scalar"] = scalar.into();
    json["sliding_window"] = file.size(WINDOW)?.into();
    Ok(json)
}

fn gemma2(file: &Header) -> Result<Value, Error> {
    let cap = |field, default| file.maybe_decimal(field).unwrap_or(default);
    gemma(
        file,
        46,
        json!({
            "attn_logit_softcapping": cap("attn_logit_softcapping", 50.0),
            "final_logit_softcapping": cap("final_logit_softcapping", 30.0),
        }),
    )
}

fn gemma3(file: &Header) -> Result<Value, Error> {
    gemma(
        file,
        62,
        json!({
            "rope_local_base_freq": file.maybe_decimal(LOCAL).unwrap_or(10_000.0),
            "sliding_window_pattern": 6,
        }),
    )
}

fn phi3(file: &Header) -> Result<Value, Error> {
    if file.has("rope_factors_long.weight") {
        return Err(file.unsupported("rope.scaling.type", "longrope", "none"));
    }
    // 0 is none.
    let window = file.maybe_size(WINDOW)?.filter(|it| *it > 0);
    with(
        file,
        "rms_norm_eps",
        json!({ "hidden_act": "silu", "sliding_window": window, PART: part(file)? }),
    )
}

fn phi2(file: &Header) -> Result<Value, Error> {
    with(
        file,
        "layer_norm_eps",
        json!({ "hidden_act": "gelu_new", PART: part(file)? }),
    )
}

fn olmo2(file: &Header) -> Result<Value, Error> {
    with(file, "rms_norm_eps", json!({ "hidden_act": "silu" }))
}

fn smollm3(file: &Header) -> Result<Value, Error> {
    with(
        file,
        "rms_norm_eps",
        json!({
            "hidden_act": "silu",
            "no_rope_layer_interval": 4,
            "use_sliding_window": false,
            "mlp_bias": file.has("blk.0.ffn_down.bias"),
            "attention_bias": file.has("blk.0.attn_q.bias"),
        }),
    )
}

fn granite(file: &Header) -> Result<Value, Error> {
    let scale = |field| file.maybe_decimal(field).filter(|it| *it != 0.0);
    with(
        file,
        "rms_norm_eps",
        json!({
            "hidden_act": "silu",
            "attention_bias": file.has("blk.0.attn_q.bias"),
            "mlp_bias": file.has("blk.0.ffn_down.bias"),
            "attention_multiplier": scale("attention.scale"),
            "embedding_multiplier": scale("embedding_scale"),
            "residual_multiplier": scale("residual_scale"),
            "logits_scaling": scale("logit_scale"),
        }),
    )
}

fn stablelm(file: &Header) -> Result<Value, Error> {
    if file.has("blk.0.attn_q_norm.weight") {
        return Err(file.unsupported("attn_q_norm", "a norm of each head", "none"));
    }
    with(
        file,
        "layer_norm_eps",
        json!({
            "hidden_act": "silu",
            "use_qkv_bias": file.has("blk.0.attn_q.bias"),
            "use_parallel_residual": file.flag(PARALLEL).unwrap_or(false),
            PART: part(file)?,
        }),
    )
}

fn starcoder2(file: &Header) -> Result<Value, Error> {
    with(
        file,
        "norm_epsilon",
        json!({
            "hidden_act": "gelu_pytorch_tanh",
            "use_bias": file.has("blk.0.attn_q.bias"),
        }),
    )
}

/// What both generations of Command R have.
fn command(file: &Header) -> Result<Value, Error> {
    with(
        file,
        "layer_norm_eps",
        json!({
            "hidden_act": "silu",
            "logit_scale": file.decimal("logit_scale")?,
            "attention_bias": file.has("blk.0.attn_q.bias"),
        }),
    )
}

fn command_r(file: &Header) -> Result<Value, Error> {
    let mut json = command(file)?;
    json["use_qk_norm"] = file.has("blk.0.attn_q_norm.weight").into();
    Ok(json)
}

/// Which layers have the window is not said: every fourth has none, as in llama.cpp.
fn cohere2(file: &Header) -> Result<Value, Error> {
    let mut json = command(file)?;
    json["sliding_window"] = file.size(WINDOW)?.into();
    json["sliding_window_pattern"] = 4.into();
    Ok(json)
}

fn falcon(file: &Header) -> Result<Value, Error> {
    let width = file.size("embedding_length")?;
    let new = file.has("blk.0.attn_norm_2.weight");
    let keys = file.maybe_size("attention.head_count_kv")?.unwrap_or(1);
    Ok(json!({
        "num_hidden_layers": file.size("block_count")?,
        "hidden_size": width,
        "num_attention_heads": file.size("attention.head_count")?,
        "num_kv_heads": keys,
        "ffn_hidden_size": file.size("feed_forward_length")?,
        "max_position_embeddings": file.size("context_length")?,
        "layer_norm_epsilon": file.decimal("attention.layer_norm_epsilon")?,
        "rope_theta": file.maybe_decimal("rope.freq_base").unwrap_or(10_000.0),
        "new_decoder_architecture": new,
        "multi_query": !new && keys == 1,
        "parallel_attn": true,
        "alibi": false,
        "bias": file.has("blk.0.attn_qkv.bias"),
    }))
}

fn gptneox(file: &Header) -> Result<Value, Error> {
    all_heads(file)?;
    Ok(json!({
        "num_hidden_layers": file.size("block_count")?,
        "hidden_size": file.size("embedding_length")?,
        "num_attention_heads": file.size("attention.head_count")?,
        "intermediate_size": file.size("feed_forward_length")?,
        "max_position_embeddings": file.size("context_length")?,
        "layer_norm_eps": file.decimal("attention.layer_norm_epsilon")?,
        "rotary_emb_base": file.maybe_decimal("rope.freq_base").unwrap_or(10_000.0),
        "rotary_pct": part(file)?,
        "hidden_act": "gelu",
        "attention_bias": file.has("blk.0.attn_qkv.bias"),
        "use_parallel_residual": file.flag(PARALLEL).unwrap_or(true),
    }))
}

/// How much of a head is rotated.
fn part(file: &Header) -> Result<f64, Error> {
    let (width, heads) = (
        file.size("embedding_length")?,
        file.size("attention.head_count")?,
    );
    let head_dim = head_dim(file, width, heads)?;
    let turned = file.maybe_size("rope.dimension_count")?.unwrap_or(head_dim);
    Ok(turned as f64 / head_dim as f64)
}

fn bloom(file: &Header) -> Result<Value, Error> {
    let width = file.size("embedding_length")?;
    let inner = file.size("feed_forward_length")?;
    if inner != 4 * width {
        return Err(file.unsupported("feed_forward_length", inner, &(4 * width).to_string()));
    }
    Ok(json!({
        "n_layer": file.size("block_count")?,
        "hidden_size": width,
        "n_head": all_heads(file)?,
        "seq_length": file.size("context_length")?,
        "layer_norm_epsilon": file.decimal("attention.layer_norm_epsilon")?,
    }))
}
