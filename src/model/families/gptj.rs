//! GPT-J (Wang and Komatsuzaki 2021): attention and MLP side by side behind one norm, interleaved
//! partial rotary.

use serde_json::Value;

use super::super::Error;
use super::super::config::{
    Activation, Biases, Config, Family, Fields, Residual, Rope, Sizes, head_dim,
};
use super::layout::{Layer, Layout, Linear, Mlp, Norm, Qkv, Up, parameter};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    fields.fixed("rotary", &Value::Bool(true))?;
    fields.fixed("scale_attn_weights", &Value::Bool(true))?;
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
    let dims = fields.maybe_size("rotary_dim")?.unwrap_or(64);
    // transformers 5 writes the defaults here; the model itself reads rotary_dim only.
    fields.get("rope_parameters");
    let mut rope = Rope::plain(10_000.0, dims, 1.0);
    rope.interleaved = true;
    let sizes = Sizes {
        layers,
        width,
        heads,
        head_dim: head_dim(width, heads, "n_head")?,
        inner: fields.maybe_size("n_inner")?.unwrap_or(4 * width),
        vocab: fields.size("vocab_size")?,
        context,
    };
    let mut config = Config::plain(Family::GptJ, sizes, fields.eos(Family::GptJ)?);
    config.norm_eps = fields.positive("layer_norm_epsilon", 1e-5)?;
    config.activation = fields.activation("activation_function", Activation::GeluTanh)?;
    config.residual = Residual::Parallel;
    config.mlp_norm = false;
    config.biases = Biases {
        qkv: false,
        o: false,
        mlp: true,
        head: true,
    };
    config.tied = fields.flag("tie_word_embeddings", false)?;
    config.turn(&rope);
    Ok(config)
}

pub fn layout(config: &Config) -> Layout {
    let (d, m) = (config.width, config.inner);
    let norm = |name: String| Norm::new(config.norm, &name, d);
    let layer = |l: usize| {
        let h = format!("transformer.h.{l}");
        let qkv = |name: &str| Linear::new(&format!("{h}.attn.{name}"), d, d, false);
        Layer {
            attn_norm: Some(norm(format!("{h}.ln_1"))),
            attn_post_norm: None,
            mlp_norm: None,
            mlp_post_norm: None,
            qkv: Qkv::Separate(Box::new([qkv("q_proj"), qkv("k_proj"), qkv("v_proj")])),
            q_norm: None,
            k_norm: None,
            o: Linear::new(&format!("{h}.attn.out_proj"), d, d, false),
            sinks: None,
            mlp: Mlp::dense(
                Up::Plain(Linear::new(&format!("{h}.mlp.fc_in"), m, d, true)),
                Linear::new(&format!("{h}.mlp.fc_out"), d, m, true),
            ),
        }
    };
    Layout {
        embedding: parameter("transformer.wte.weight".into(), [config.vocab, d]),
        embedding_norm: None,
        positions: None,
        layers: (0..config.layers).map(layer).collect(),
        final_norm: norm("transformer.ln_f".into()),
        head: (!config.tied).then(|| Linear::new("lm_head", config.vocab, d, true)),
        head_bias: (config.tied).then(|| parameter("lm_head.bias".into(), [config.vocab])),
    }
}
