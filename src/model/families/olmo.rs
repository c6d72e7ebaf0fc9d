//! OLMo 2 and 3 (OLMo Team 2024, 2025): Llama with norms behind attention and MLP instead of before
//! them, and over all queries and all keys of a token; three of four layers have a window (3).

use serde_json::Value;

use super::super::Error;
use super::super::config::{Config, Family, Fields, NormKind, QkNorm, Rope, unsupported};
use super::layout::{Layout, Norm};
use super::llama::{self, Defaults, attention_bias, common};

pub fn olmo2(fields: &Fields<'_>) -> Result<Config, Error> {
    olmo(fields, Defaults::of(Family::Olmo2))
}

pub fn olmo3(fields: &Fields<'_>) -> Result<Config, Error> {
    let theta = 500_000.0;
    let mut config = olmo(
        fields,
        Defaults {
            theta,
            rope_kind: Some("full_attention"),
            ..Defaults::of(Family::Olmo3)
        },
    )?;
    match fields.get("rope_parameters") {
        Some(kinds) if kinds.get("full_attention").is_none() => {
            let supported = "an object for each kind of layer";
            return Err(unsupported("rope_parameters", kinds, supported));
        }
        Some(_) => {}
        // What it is for the layers with a window then, transformers' versions do not agree on.
        None => {
            let found = fields.positive("rope_theta", theta)?;
            if found != theta {
                let supported = "500000, or rope_parameters for each kind of layer";
                return Err(unsupported("rope_theta", &found.into(), supported));
            }
        }
    }
    let window = fields.size_or("sliding_window", Some(4096))?;
    let sliding = fields
        .sliding_layers(config.layers)?
        .unwrap_or_else(|| (0..config.layers).map(|l| (l + 1) % 4 != 0).collect());
    if let (None, true) = (window, sliding.contains(&true)) {
        let supported = "a number where layers are of sliding_attention";
        return Err(unsupported("sliding_window", &Value::Null, supported));
    }
    let local = Rope::of_kind(
        fields,
        "sliding_attention",
        theta,
        config.head_dim,
        config.context,
    )?;
    for (layer, sliding) in config.attention.iter_mut().zip(sliding) {
        if sliding {
            layer.window = window;
            layer.rope = Some(local.clone());
        }
    }
    Ok(config)
}

/// What both generations share.
fn olmo(fields: &Fields<'_>, defaults: Defaults) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            norm: NormKind::RmsScaledWide,
            norm_eps: 1e-5,
            ..defaults
        },
    )?;
    attention_bias(fields, &mut config)?;
    config.qk_norm = QkNorm::Whole;
    Ok(config)
}

pub fn layout(config: &Config) -> Layout {
    let mut layout = llama::layout(config);
    for (l, layer) in layout.layers.iter_mut().enumerate() {
        layer.attn_norm = None;
        layer.attn_post_norm = layer.mlp_norm.take();
        let name = format!("model.layers.{l}.post_feedforward_layernorm");
        layer.mlp_post_norm = Some(Norm::new(config.norm, &name, config.width));
    }
    layout
}
