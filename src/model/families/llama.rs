//! Llama (Touvron et al. 2023) and Mistral (Jiang et al. 2023): RMS norm, rotary, grouped queries,
//! gated MLP. Most later families are this one with options, so its reading of the common fields is
//! theirs too.

use super::super::Error;
use super::super::config::{
    self, Activation, Biases, Config, Family, Fields, NormKind, Part, QkNorm, Rope, Sizes,
};
use super::layout::{Layer, Layout, Linear, Mlp, Norm, Qkv, Up, parameter};

/// What a family that shares Llama's field names sets for itself.
pub struct Defaults {
    pub family: Family,
    /// The `head_dim` where the file has none: `None` for `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    /// The key and value heads where the file does not name them: `None` for as many as there are
    /// query heads, which is also what `null` means.
    pub kv_heads: Option<usize>,
    pub norm: NormKind,
    /// The name of what is added below the root of a norm, and its value.
    pub norm_field: &'static str,
    pub norm_eps: f64,
    pub activation: Activation,
    pub gated: bool,
    pub theta: f64,
    /// Which entry of `rope_parameters` to read, where it has one for each kind of layer.
    pub rope_kind: Option<&'static str>,
    /// Which part of every head is turned.
    pub part: Part,
    /// Whether the vocabulary projection is the token embedding unless the file says otherwise.
    pub tied: bool,
}

impl Defaults {
    /// Llama's own, for `family`.
    pub fn of(family: Family) -> Self {
        Self {
            family,
            head_dim: None,
            kv_heads: None,
            norm: NormKind::Rms,
            norm_field: "rms_norm_eps",
            norm_eps: 1e-6,
            activation: Activation::Silu,
            gated: true,
            theta: 10_000.0,
            rope_kind: None,
            part: Part::Whole,
            tied: false,
        }
    }
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
    let sizes = Sizes {
        layers,
        width,
        heads,
        head_dim,
        inner: fields.size("intermediate_size")?,
        vocab: fields.size("vocab_size")?,
        context: fields.size("max_position_embeddings")?,
    };
    let mut config = Config::plain(defaults.family, sizes, fields.eos(defaults.family)?);
    config.kv_heads = (fields.size_or("num_key_value_heads", defaults.kv_heads)?).unwrap_or(heads);
    config.norm = defaults.norm;
    config.norm_eps = fields.positive(defaults.norm_field, defaults.norm_eps)?;
    config.activation = fields.activation("hidden_act", defaults.activation)?;
    config.gated = defaults.gated;
    config.biases = Biases {
        qkv: false,
        o: false,
        mlp: false,
        head: false,
    };
    config.tied = fields.flag("tie_word_embeddings", defaults.tied)?;
    config.turn(&rope);
    Ok(config)
}

/// `attention_bias`: biases on query, key, value and output.
pub fn attention_bias(fields: &Fields<'_>, config: &mut Config) -> Result<(), Error> {
    let bias = fields.flag("attention_bias", false)?;
    config.biases.qkv = bias;
    config.biases.o = bias;
    Ok(())
}

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(fields, &Defaults::of(Family::Llama))?;
    attention_bias(fields, &mut config)?;
    config.biases.mlp = fields.flag("mlp_bias", false)?;
    Ok(config)
}

pub fn mistral(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            kv_heads: Some(8),
            ..Defaults::of(Family::Mistral)
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
        let qk_norm = |name: &str, heads: usize| {
            let width = match config.qk_norm {
                QkNorm::None => return None,
                QkNorm::Heads => hd,
                QkNorm::Whole => heads * hd,
            };
            Some(Norm::new(
                config.norm,
                &format!("{p}.self_attn.{name}"),
                width,
            ))
        };
        Layer {
            attn_norm: Some(norm(format!("{p}.input_layernorm"))),
            attn_post_norm: None,
            mlp_norm: (config.mlp_norm).then(|| norm(format!("{p}.post_attention_layernorm"))),
            mlp_post_norm: None,
            qkv: Qkv::Separate(Box::new([
                attn("q_proj", q),
                attn("k_proj", kv),
                attn("v_proj", kv),
            ])),
            q_norm: qk_norm("q_norm", config.heads),
            k_norm: qk_norm("k_norm", config.kv_heads),
            o: Linear::new(&format!("{p}.self_attn.o_proj"), d, q, biases.o),
            sinks: None,
            mlp: Mlp::dense(
                Up::Gated(Box::new([mlp("gate_proj"), mlp("up_proj")])),
                Linear::new(&format!("{p}.mlp.down_proj"), d, m, biases.mlp),
            ),
        }
    };
    Layout {
        embedding: parameter("model.embed_tokens.weight".into(), [config.vocab, d]),
        embedding_norm: None,
        positions: None,
        layers: (0..config.layers).map(layer).collect(),
        final_norm: norm("model.norm".into()),
        head: (!config.tied).then(|| Linear::new("lm_head", config.vocab, d, biases.head)),
        head_bias: None,
    }
}
