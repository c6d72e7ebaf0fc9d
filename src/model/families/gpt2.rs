//! GPT-2 (Radford et al. 2019): learned positions, layer norm, matrices stored as `[in, out]`.

use serde_json::Value;

use super::super::Error;
use super::super::config::{Activation, Config, Family, Fields, Sizes, head_dim};
use super::layout::{Layer, Layout, Linear, Mlp, Norm, Qkv, Up, parameter};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    fields.fixed("scale_attn_weights", &Value::Bool(true))?;
    fields.fixed("scale_attn_by_inverse_layer_idx", &Value::Bool(false))?;
    let layers = fields.layers("n_layer")?;
    let width = fields.size("n_embd")?;
    let heads = fields.size("n_head")?;
    let context = fields.size("n_positions")?;
    // An old name of n_positions.
    fields.get("n_ctx");
    // transformers' `attribute_map` has them for the same things.
    fields.same(&[
        ("hidden_size", width),
        ("num_hidden_layers", layers),
        ("num_attention_heads", heads),
        ("max_position_embeddings", context),
    ])?;
    let sizes = Sizes {
        layers,
        width,
        heads,
        head_dim: head_dim(width, heads, "n_head")?,
        inner: fields.maybe_size("n_inner")?.unwrap_or(4 * width),
        vocab: fields.size("vocab_size")?,
        context,
    };
    let mut config = Config::plain(Family::Gpt2, sizes, fields.eos(Family::Gpt2)?);
    config.norm_eps = fields.positive("layer_norm_epsilon", 1e-5)?;
    config.activation = fields.activation("activation_function", Activation::GeluTanh)?;
    config.tied = fields.flag("tie_word_embeddings", true)?;
    Ok(config)
}

pub fn layout(config: &Config) -> Layout {
    let (d, m) = (config.width, config.inner);
    let norm = |name: String| Norm::new(config.norm, &name, d);
    let layer = |l: usize| {
        let h = format!("transformer.h.{l}");
        Layer {
            attn_norm: Some(norm(format!("{h}.ln_1"))),
            attn_post_norm: None,
            mlp_norm: Some(norm(format!("{h}.ln_2"))),
            mlp_post_norm: None,
            qkv: Qkv::Fused(conv1d(&format!("{h}.attn.c_attn"), 3 * d, d)),
            q_norm: None,
            k_norm: None,
            o: conv1d(&format!("{h}.attn.c_proj"), d, d),
            sinks: None,
            mlp: Mlp::dense(
                Up::Plain(conv1d(&format!("{h}.mlp.c_fc"), m, d)),
                conv1d(&format!("{h}.mlp.c_proj"), d, m),
            ),
        }
    };
    Layout {
        embedding: parameter("transformer.wte.weight".into(), [config.vocab, d]),
        embedding_norm: None,
        positions: Some(parameter(
            "transformer.wpe.weight".into(),
            [config.context, d],
        )),
        layers: (0..config.layers).map(layer).collect(),
        final_norm: norm("transformer.ln_f".into()),
        head: (!config.tied).then(|| Linear::new("lm_head", config.vocab, d, false)),
        head_bias: None,
    }
}

/// transformers' `Conv1D`: a linear map stored as `[in, out]`.
fn conv1d(prefix: &str, out: usize, inp: usize) -> Linear {
    let mut linear = Linear::new(prefix, out, inp, true);
    linear.weight.shape.reverse();
    linear.transposed = true;
    linear
}
