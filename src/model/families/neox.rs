//! GPT-NeoX and Pythia (Black et al. 2022; Biderman et al. 2023): partial rotary, query, key and
//! value packed head by head, serial or parallel residual.

use super::super::Error;
use super::super::config::{
    Activation, Config, Family, Fields, Part, Residual, Rope, Sizes, head_dim,
};
use super::layout::{Layer, Layout, Linear, Mlp, Norm, Qkv, Up, parameter};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let layers = fields.layers("num_hidden_layers")?;
    let width = fields.size("hidden_size")?;
    let heads = fields.size("num_attention_heads")?;
    let head_dim = head_dim(width, heads, "num_attention_heads")?;
    let attention_bias = fields.flag("attention_bias", true)?;
    let theta = fields.positive("rotary_emb_base", 10_000.0)?;
    let partial = fields.positive("rotary_pct", 0.25)?;
    let rope = Rope::read(fields, theta, head_dim, Part::Own(partial), None)?;
    let sizes = Sizes {
        layers,
        width,
        heads,
        head_dim,
        inner: fields.size("intermediate_size")?,
        vocab: fields.size("vocab_size")?,
        context: fields.size("max_position_embeddings")?,
    };
    let mut config = Config::plain(Family::GptNeoX, sizes, fields.eos(Family::GptNeoX)?);
    config.norm_eps = fields.positive("layer_norm_eps", 1e-5)?;
    config.activation = fields.activation("hidden_act", Activation::Gelu)?;
    if fields.flag("use_parallel_residual", true)? {
        config.residual = Residual::Parallel;
    }
    config.biases.qkv = attention_bias;
    config.biases.o = attention_bias;
    config.tied = fields.flag("tie_word_embeddings", false)?;
    config.turn(&rope);
    Ok(config)
}

pub fn layout(config: &Config) -> Layout {
    let (d, m) = (config.width, config.inner);
    let biases = config.biases;
    let norm = |name: String| Norm::new(config.norm, &name, d);
    let layer = |l: usize| {
        let p = format!("gpt_neox.layers.{l}");
        let a = format!("{p}.attention");
        Layer {
            attn_norm: Some(norm(format!("{p}.input_layernorm"))),
            attn_post_norm: None,
            mlp_norm: Some(norm(format!("{p}.post_attention_layernorm"))),
            mlp_post_norm: None,
            qkv: Qkv::ByHead(Linear::new(
                &format!("{a}.query_key_value"),
                3 * d,
                d,
                biases.qkv,
            )),
            q_norm: None,
            k_norm: None,
            o: Linear::new(&format!("{a}.dense"), d, d, biases.o),
            sinks: None,
            mlp: Mlp::dense(
                Up::Plain(Linear::new(&format!("{p}.mlp.dense_h_to_4h"), m, d, true)),
                Linear::new(&format!("{p}.mlp.dense_4h_to_h"), d, m, true),
            ),
        }
    };
    Layout {
        embedding: parameter("gpt_neox.embed_in.weight".into(), [config.vocab, d]),
        embedding_norm: None,
        positions: None,
        layers: (0..config.layers).map(layer).collect(),
        final_norm: norm("gpt_neox.final_layer_norm".into()),
        head: (!config.tied).then(|| Linear::new("embed_out", config.vocab, d, false)),
        head_bias: None,
    }
}
