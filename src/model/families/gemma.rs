//! Gemma 2 and 3, text (Gemma Team 2024, 2025): norms before and after each half of a block, scaled
//! embeddings, alternating windows; soft caps (2) or head norms and two rotary bases (3).

use serde_json::Value;

use super::super::Error;
use super::super::config::{
    Activation, Config, Family, Fields, NormKind, QkNorm, Rope, unsupported,
};
use super::layout::{Layout, Norm};
use super::llama::{self, Defaults, attention_bias, common};

pub fn gemma2(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = gemma(fields, Family::Gemma2, 10_000.0)?;
    config.score_cap = cap(fields, "attn_logit_softcapping", Some(50.0))?;
    config.logit_cap = cap(fields, "final_logit_softcapping", Some(30.0))?;
    let window = fields.maybe_size("sliding_window")?.unwrap_or(4096);
    // The first files name it twice.
    fields.same(&[("sliding_window_size", window)])?;
    let sliding = fields
        .sliding_layers(config.layers)?
        .unwrap_or_else(|| (0..config.layers).map(|l| l % 2 == 0).collect());
    for (layer, sliding) in config.attention.iter_mut().zip(sliding) {
        layer.window = sliding.then_some(window);
    }
    Ok(config)
}

pub fn gemma3(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = gemma(fields, Family::Gemma3, 1_000_000.0)?;
    config.qk_norm = QkNorm::Heads;
    config.score_cap = cap(fields, "attn_logit_softcapping", None)?;
    config.logit_cap = cap(fields, "final_logit_softcapping", None)?;
    let window = fields.maybe_size("sliding_window")?.unwrap_or(4096);
    let old_pattern = fields.maybe_size("_sliding_window_pattern")?;
    let pattern = fields.maybe_size("sliding_window_pattern")?;
    let pattern = pattern.or(old_pattern).unwrap_or(6).max(1);
    let sliding = fields
        .sliding_layers(config.layers)?
        .unwrap_or_else(|| (0..config.layers).map(|l| (l + 1) % pattern != 0).collect());
    let local = fields.positive("rope_local_base_freq", 10_000.0)?;
    let local = Rope::of_kind(
        fields,
        "sliding_attention",
        local,
        config.head_dim,
        config.context,
    )?;
    for (layer, sliding) in config.attention.iter_mut().zip(sliding) {
        if sliding {
            layer.window = Some(window);
            layer.rope = Some(local.clone());
        }
    }
    Ok(config)
}

/// What both generations share.
fn gemma(fields: &Fields<'_>, family: Family, theta: f64) -> Result<Config, Error> {
    // Gemma 2 has one rotary embedding for all layers and no entry of that name.
    let defaults = Defaults {
        head_dim: Some(256),
        kv_heads: Some(4),
        norm: NormKind::RmsPlusOne,
        theta,
        rope_kind: Some("full_attention"),
        tied: true,
        ..Defaults::of(family)
    };
    let mut config = common(fields, &defaults)?;
    fields.fixed("use_bidirectional_attention", &Value::Bool(false))?;
    // `hidden_act` of these files is a leftover: the models compute with `hidden_activation`.
    config.activation = fields.activation("hidden_activation", Activation::GeluTanh)?;
    let scalar = fields.positive("query_pre_attn_scalar", 256.0)?;
    config.score_scale = scalar.sqrt().recip();
    config.embedding_scale = Some((config.width as f64).sqrt());
    attention_bias(fields, &mut config)?;
    Ok(config)
}

/// A soft cap: a number above 0, or `null` for none.
fn cap(fields: &Fields<'_>, field: &str, default: Option<f64>) -> Result<Option<f64>, Error> {
    match fields.maybe_number(field)? {
        Some(cap) if cap <= 0.0 => {
            Err(unsupported(field, &cap.into(), "a number above 0, or null"))
        }
        None if fields.has(field) => Ok(None),
        found => Ok(found.or(default)),
    }
}

pub fn layout(config: &Config) -> Layout {
    let mut layout = llama::layout(config);
    for (l, layer) in layout.layers.iter_mut().enumerate() {
        let norm = |name: &str| {
            let name = format!("model.layers.{l}.{name}");
            Some(Norm::new(config.norm, &name, config.width))
        };
        layer.attn_post_norm = norm("post_attention_layernorm");
        layer.mlp_norm = norm("pre_feedforward_layernorm");
        layer.mlp_post_norm = norm("post_feedforward_layernorm");
    }
    layout
}
