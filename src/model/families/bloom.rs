//! BLOOM (BigScience Workshop 2022): scores that fall with distance instead of positions, a norm on
//! the embeddings, query, key and value packed head by head.

use serde_json::Value;

use super::super::Error;
use super::super::config::{Config, Family, Fields, Sizes, head_dim};
use super::layout::{Layer, Layout, Linear, Mlp, Norm, Qkv, Up, parameter};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    fields.fixed(
        "apply_residual_connection_post_layernorm",
        &Value::Bool(false),
    )?;
    // Published files have some of these names, the configuration class others.
    let named = |one: &'static str, other| match fields.get(one) {
        Some(_) => one,
        None => other,
    };
    let layers = fields.layers(named("n_layer", "num_hidden_layers"))?;
    let width = fields.size(named("n_embed", "hidden_size"))?;
    let heads = fields.size(named("n_head", "num_attention_heads"))?;
    fields.same(&[
        ("num_hidden_layers", layers),
        ("hidden_size", width),
        ("num_attention_heads", heads),
    ])?;
    let inner = 4 * width;
    fields.same(&[("n_inner", inner)])?;
    // Of the program that trained it.
    for name in [
        "attention_softmax_in_fp32",
        "bias_dropout_fusion",
        "masked_softmax_fusion",
        "offset_alibi",
        "skip_bias_add",
        "skip_bias_add_qkv",
        "slow_but_exact",
    ] {
        fields.get(name);
    }
    let sizes = Sizes {
        layers,
        width,
        heads,
        head_dim: head_dim(width, heads, "n_head")?,
        inner,
        vocab: fields.size("vocab_size")?,
        // As it was trained: no table of positions bounds it.
        context: fields.maybe_size("seq_length")?.unwrap_or(2048),
    };
    let mut config = Config::plain(Family::Bloom, sizes, fields.eos(Family::Bloom)?);
    config.norm_eps = fields.positive("layer_norm_epsilon", 1e-5)?;
    config.alibi = true;
    config.tied = fields.flag("tie_word_embeddings", true)?;
    Ok(config)
}

pub fn layout(config: &Config) -> Layout {
    let (d, m) = (config.width, config.inner);
    let norm = |name: String| Norm::new(config.norm, &name, d);
    let layer = |l: usize| {
        let h = format!("transformer.h.{l}");
        let map = |name: &str, out, inp| Linear::new(&format!("{h}.{name}"), out, inp, true);
        Layer {
            attn_norm: Some(norm(format!("{h}.input_layernorm"))),
            attn_post_norm: None,
            mlp_norm: Some(norm(format!("{h}.post_attention_layernorm"))),
            mlp_post_norm: None,
            qkv: Qkv::ByHead(map("self_attention.query_key_value", 3 * d, d)),
            q_norm: None,
            k_norm: None,
            o: map("self_attention.dense", d, d),
            sinks: None,
            mlp: Mlp::dense(
                Up::Plain(map("mlp.dense_h_to_4h", m, d)),
                map("mlp.dense_4h_to_h", d, m),
            ),
        }
    };
    Layout {
        embedding: parameter(
            "transformer.word_embeddings.weight".into(),
            [config.vocab, d],
        ),
        embedding_norm: Some(norm("transformer.word_embeddings_layernorm".into())),
        positions: None,
        layers: (0..config.layers).map(layer).collect(),
        final_norm: norm("transformer.ln_f".into()),
        head: (!config.tied).then(|| Linear::new("lm_head", config.vocab, d, false)),
        head_bias: None,
    }
}
