//! Llama (Touvron et al. 2023) and Mistral (Jiang et al. 2023): RMS norm, rotary, grouped queries,
//! gated MLP. Most later families are this one with options, so its reading of the common fields is
//! theirs too.

use serde_json::Map;

use super::super::Error;
use super::super::config::{
    self, Activation, Biases, Config, Family, Fields, LayerAttention, NormKind, Part, Residual,
    Rope,
};
use super::layout::{Layer, Layout, Linear, Norm, Qkv, Up, parameter};

/// What a family that shares Llama's field names sets for itself.
pub struct Defaults {
    pub family: Family,
    /// The `head_dim` where the file has none: `None` for `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    /// The key and value heads where the file does not name them: `None` for as many as there are
    /// query heads, which is also what `null` means.
    pub kv_heads: Option<usize>,
    pub norm_eps: f64,
    pub theta: f64,
    /// Which entry of `rope_parameters` to read, where it has one for each kind of layer.
    pub rope_kind: Option<&'static str>,
    /// Which part of every head is turned.
    pub part: Part,
    /// Whether the vocabulary projection is the token embedding unless the file says otherwise.
    pub tied: bool,
}

/// The fields with Llama's names; every layer sees everything.
pub fn common(fields: &Fields<'_>, defaults: &Defaults) -> Result<Config, Error> {
    let layers = fields.layers("num_hidden_layers")?;
    let width = fields.size("hidden_size")?;
    let heads = fields.size("num_attention_heads")?;
    let head_dim = match fields.maybe_size("head_dim")?.or(defaults.head_dim) {
        Some(head_dim) => head_dim,
        None => config::head_dim(width, heads, "num_attention_heads")?,
    };
    let rope = Rope::read(
        fields,
        defaults.theta,
        head_dim,
        defaults.part,
        defaults.rope_kind,
    )?;
    Ok(Config {
        family: defaults.family,
        layers,
        width,
        heads,
        kv_heads: (fields.size_or("num_key_value_heads", defaults.kv_heads)?).unwrap_or(heads),
        head_dim,
        inner: fields.size("intermediate_size")?,
        vocab: fields.size("vocab_size")?,
        context: fields.size("max_position_embeddings")?,
        norm: NormKind::Rms,
        norm_eps: fields.positive("rms_norm_eps", defaults.norm_eps)?,
        activation: fields.activation("hidden_act", Activation::Silu)?,
        gated: true,
        residual: Residual::Serial,
        post_norms: false,
        qk_norm: false,
        score_scale: (head_dim as f64).sqrt().recip(),
        score_cap: None,
        logit_cap: None,
        embedding_scale: None,
        biases: Biases {
            qkv: false,
            o: false,
            mlp: false,
            head: false,
        },
        tied: fields.flag("tie_word_embeddings", defaults.tied)?,
        attention: vec![
            LayerAttention {
                window: None,
                rope: Some(rope)
            };
            layers
        ],
        eos: fields.eos(defaults.family)?,
        json: Map::new(),
    })
}

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            family: Family::Llama,
            head_dim: None,
            kv_heads: None,
            norm_eps: 1e-6,
            theta: 10_000.0,
            rope_kind: None,
            part: Part::Whole,
            tied: false,
        },
    )?;
    let attention_bias = fields.flag("attention_bias", false)?;
    config.biases.qkv = attention_bias;
    config.biases.o = attention_bias;
    config.biases.mlp = fields.flag("mlp_bias", false)?;
    Ok(config)
}

pub fn mistral(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            family: Family::Mistral,
            head_dim: None,
            kv_heads: Some(8),
            norm_eps: 1e-6,
            theta: 10_000.0,
            rope_kind: None,
            part: Part::Whole,
            tied: false,
        },
    )?;
    let window = fields.size_or("sliding_window", Some(4096))?;
    for layer in &mut config.attention {
        layer.window = window;
    }
    Ok(config)
}

pub fn layout(config: &Config) -> Layout {
    let (d, m, hd) = (config.width, config.inner, config.head_dim);
    let (q, kv) = (config.heads * hd, config.kv_heads * hd);
    let biases = config.biases;
    let norm = |name: String| Norm::new(config.norm, &name, d);
    let layer = |l: usize| {
        let p = format!("model.layers.{l}");
        let attn =
            |name: &str, out| Linear::new(&format!("{p}.self_attn.{name}"), out, d, biases.qkv);
        let mlp = |name: &str| Linear::new(&format!("{p}.mlp.{name}"), m, d, biases.mlp);
        let head_norm = |name: &str| Norm::new(config.norm, &format!("{p}.self_attn.{name}"), hd);
        Layer {
            attn_norm: norm(format!("{p}.input_layernorm")),
            attn_post_norm: None,
            mlp_norm: Some(norm(format!("{p}.post_attention_layernorm"))),
            mlp_post_norm: None,
            qkv: Qkv::Separate(Box::new([
                attn("q_proj", q),
                attn("k_proj", kv),
                attn("v_proj", kv),
            ])),
            q_norm: config.qk_norm.then(|| head_norm("q_norm")),
            k_norm: config.qk_norm.then(|| head_norm("k_norm")),
            o: Linear::new(&format!("{p}.self_attn.o_proj"), d, q, biases.o),
            up: Up::Gated(Box::new([mlp("gate_proj"), mlp("up_proj")])),
            down: Linear::new(&format!("{p}.mlp.down_proj"), d, m, biases.mlp),
        }
    };
    Layout {
        embedding: parameter("model.embed_tokens.weight".into(), [config.vocab, d]),
        positions: None,
        layers: (0..config.layers).map(layer).collect(),
        final_norm: norm("model.norm".into()),
        head: (!config.tied).then(|| Linear::new("lm_head", config.vocab, d, false)),
        head_bias: None,
    }
}
