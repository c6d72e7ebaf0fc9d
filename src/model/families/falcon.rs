//! Falcon (Almazrouei et al. 2023): keys and values shared by all heads or by groups of them,
//! attention and MLP side by side behind one norm or two.

use serde_json::Value;

use super::super::Error;
use super::super::config::{
    Activation, Config, Family, Fields, Part, Residual, Rope, Sizes, head_dim, unsupported,
};
use super::layout::{Layer, Layout, Linear, Mlp, Norm, Qkv, Up, parameter};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    fields.fixed("alibi", &Value::Bool(false))?;
    fields.fixed(
        "apply_residual_connection_post_layernorm",
        &Value::Bool(false),
    )?;
    let width = fields.size("hidden_size")?;
    let heads = fields.size("num_attention_heads")?;
    let head_dim = head_dim(width, heads, "num_attention_heads")?;
    let rope = Rope::read(fields, 10_000.0, head_dim, Part::Whole, None)?;
    let sizes = Sizes {
        layers: fields.layers("num_hidden_layers")?,
        width,
        heads,
        head_dim,
        inner: fields.maybe_size("ffn_hidden_size")?.unwrap_or(4 * width),
        vocab: fields.size("vocab_size")?,
        context: fields
            .maybe_size("max_position_embeddings")?
            .unwrap_or(2048),
    };
    let mut config = Config::plain(Family::Falcon, sizes, fields.eos(Family::Falcon)?);
    config.norm_eps = fields.positive("layer_norm_epsilon", 1e-5)?;
    config.activation = fields.activation("activation", Activation::Gelu)?;
    let new = fields.flag("new_decoder_architecture", false)?;
    let shared = fields.flag("multi_query", true)?;
    let named = fields.maybe_size("num_kv_heads")?.unwrap_or(heads);
    config.kv_heads = match (new, shared) {
        (true, _) => named,
        (false, true) => 1,
        (false, false) => {
            fields.same(&[("num_kv_heads", heads)])?;
            heads
        }
    };
    if fields.flag("parallel_attn", true)? {
        config.residual = Residual::Parallel;
    } else if new {
        let supported = "true with new_decoder_architecture";
        return Err(unsupported("parallel_attn", &false.into(), supported));
    }
    // How ffn_hidden_size came about (Falcon 2).
    fields.get("ff_factor");
    let norms = fields.maybe_size("num_ln_in_parallel_attn")?;
    config.mlp_norm = match (config.residual, norms) {
        (Residual::Serial, _) => true,
        (Residual::Parallel, None) => new,
        (Residual::Parallel, Some(1)) => false,
        (Residual::Parallel, Some(2)) if new => true,
        (Residual::Parallel, Some(other)) => {
            let supported = "1, or 2 with new_decoder_architecture";
            return Err(unsupported(
                "num_ln_in_parallel_attn",
                &other.into(),
                supported,
            ));
        }
    };
    let bias = fields.flag("bias", false)?;
    config.biases.qkv = bias;
    config.biases.o = bias;
    config.biases.mlp = bias;
    config.tied = fields.flag("tie_word_embeddings", true)?;
    config.turn(&rope);
    Ok(config)
}

pub fn layout(config: &Config) -> Layout {
    let (d, m, biases) = (config.width, config.inner, config.biases);
    let packed = (config.heads + 2 * config.kv_heads) * config.head_dim;
    let norm = |name: String| Norm::new(config.norm, &name, d);
    // Of two side by side, each has a name of its own.
    let names = match (config.residual, config.mlp_norm) {
        (Residual::Parallel, true) => ["ln_attn", "ln_mlp"],
        _ => ["input_layernorm", "post_attention_layernorm"],
    };
    let layer = |l: usize| {
        let h = format!("transformer.h.{l}");
        let attn = |name: &str, out, inp, bias| {
            Linear::new(&format!("{h}.self_attention.{name}"), out, inp, bias)
        };
        let mlp =
            |name: &str, out, inp| Linear::new(&format!("{h}.mlp.{name}"), out, inp, biases.mlp);
        let [first, second] = names.map(|name| norm(format!("{h}.{name}")));
        Layer {
            attn_norm: Some(first),
            attn_post_norm: None,
            mlp_norm: config.mlp_norm.then_some(second),
            mlp_post_norm: None,
            qkv: Qkv::ByHead(attn("query_key_value", packed, d, biases.qkv)),
            q_norm: None,
            k_norm: None,
            o: attn("dense", d, d, biases.o),
            sinks: None,
            mlp: Mlp::dense(
                Up::Plain(mlp("dense_h_to_4h", m, d)),
                mlp("dense_4h_to_h", d, m),
            ),
        }
    };
    Layout {
        embedding: parameter(
            "transformer.word_embeddings.weight".into(),
            [config.vocab, d],
        ),
        embedding_norm: None,
        positions: None,
        layers: (0..config.layers).map(layer).collect(),
        final_norm: norm("transformer.ln_f".into()),
        head: (!config.tied).then(|| Linear::new("lm_head", config.vocab, d, false)),
        head_bias: None,
    }
}
