//! OPT (Zhang et al. 2022): GPT-2's block with query, key and value apart, ReLU, and positions that
//! begin at row 2 of their table.

use serde_json::Value;

use super::super::Error;
use super::super::config::{Activation, Config, Family, Fields, Sizes, head_dim};
use super::layout::{Layer, Layout, Linear, Mlp, Norm, Qkv, Up, parameter};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    // OPT-350m's: norms behind the sums, embeddings of another width.
    fields.fixed("do_layer_norm_before", &Value::Bool(true))?;
    fields.fixed("_remove_final_layer_norm", &Value::Bool(false))?;
    fields.fixed("layer_norm_elementwise_affine", &Value::Bool(true))?;
    let width = fields.size("hidden_size")?;
    fields.same(&[("word_embed_proj_dim", width)])?;
    let heads = fields.size("num_attention_heads")?;
    let sizes = Sizes {
        layers: fields.layers("num_hidden_layers")?,
        width,
        heads,
        head_dim: head_dim(width, heads, "num_attention_heads")?,
        inner: fields.size("ffn_dim")?,
        vocab: fields.size("vocab_size")?,
        context: fields.size("max_position_embeddings")?,
    };
    let mut config = Config::plain(Family::Opt, sizes, fields.eos(Family::Opt)?);
    config.activation = fields.activation("activation_function", Activation::Relu)?;
    config.position_offset = 2;
    let bias = fields.flag("enable_bias", true)?;
    config.biases.qkv = bias;
    config.biases.o = bias;
    config.biases.mlp = bias;
    config.tied = fields.flag("tie_word_embeddings", true)?;
    Ok(config)
}

pub fn layout(config: &Config) -> Layout {
    let (d, m) = (config.width, config.inner);
    let norm = |name: String| Norm::new(config.norm, &name, d);
    let layer = |l: usize| {
        let p = format!("model.decoder.layers.{l}");
        let attn = |name: &str| {
            let name = format!("{p}.self_attn.{name}");
            Linear::new(&name, d, d, config.biases.qkv)
        };
        Layer {
            attn_norm: Some(norm(format!("{p}.self_attn_layer_norm"))),
            attn_post_norm: None,
            mlp_norm: Some(norm(format!("{p}.final_layer_norm"))),
            mlp_post_norm: None,
            qkv: Qkv::Separate(Box::new([attn("q_proj"), attn("k_proj"), attn("v_proj")])),
            q_norm: None,
            k_norm: None,
            o: attn("out_proj"),
            sinks: None,
            mlp: Mlp::dense(
                Up::Plain(Linear::new(&format!("{p}.fc1"), m, d, config.biases.mlp)),
                Linear::new(&format!("{p}.fc2"), d, m, config.biases.mlp),
            ),
        }
    };
    let rows = config.context + config.position_offset;
    Layout {
        embedding: parameter(
            "model.decoder.embed_tokens.weight".into(),
            [config.vocab, d],
        ),
        embedding_norm: None,
        positions: Some(parameter(
            "model.decoder.embed_positions.weight".into(),
            [rows, d],
        )),
        layers: (0..config.layers).map(layer).collect(),
        final_norm: norm("model.decoder.final_layer_norm".into()),
        head: (!config.tied).then(|| Linear::new("lm_head", config.vocab, d, false)),
        head_bias: None,
    }
}
