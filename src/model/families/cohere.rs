//! Command R and R7B (Cohere 2024): attention and MLP side by side behind one layer norm without
//! bias, interleaved rotary, a factor on the logits; every fourth layer sees everything and no
//! positions, the others have a window (R7B).

use serde_json::Value;

use super::super::Error;
use super::super::config::{Config, Family, Fields, NormKind, Residual, unsupported};
use super::llama::{Defaults, attention_bias, common};

pub fn cohere(fields: &Fields<'_>) -> Result<Config, Error> {
    command(fields, Family::Cohere, 500_000.0)
}

pub fn cohere2(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = command(fields, Family::Cohere2, 10_000.0)?;
    // What the published files say beside, and transformers does not read.
    for (field, value) in [
        (
            "order_of_interleaved_layers",
            Value::from("local_attn_first"),
        ),
        ("position_embedding_type", Value::from("rope_gptj")),
        ("rotary_pct", Value::from(1.0)),
        ("use_embedding_sharing", Value::Bool(true)),
        ("use_gated_activation", Value::Bool(true)),
        ("use_parallel_block", Value::Bool(true)),
        ("use_parallel_embedding", Value::Bool(false)),
    ] {
        fields.fixed(field, &value)?;
    }
    let every = fields
        .maybe_size("sliding_window_pattern")?
        .unwrap_or(4)
        .max(1);
    fields.same(&[("layer_switch", every)])?;
    let window = fields.size_or("sliding_window", Some(4096))?;
    let sliding = fields.sliding_layers(config.layers)?.unwrap_or_else(|| {
        (1..=config.layers)
            .map(|l| !l.is_multiple_of(every))
            .collect()
    });
    if window.is_none() {
        return Err(unsupported("sliding_window", &Value::Null, "a number"));
    }
    for (layer, sliding) in config.attention.iter_mut().zip(sliding) {
        layer.window = window.filter(|_| sliding);
        layer.rope = layer.rope.take().filter(|_| sliding);
    }
    Ok(config)
}

/// What both generations share.
fn command(fields: &Fields<'_>, family: Family, theta: f64) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            norm: NormKind::LayerWithoutBias,
            norm_field: "layer_norm_eps",
            norm_eps: 1e-5,
            theta,
            tied: true,
            ..Defaults::of(family)
        },
    )?;
    attention_bias(fields, &mut config)?;
    config.residual = Residual::Parallel;
    config.mlp_norm = false;
    config.logit_scale = Some(fields.positive("logit_scale", 0.0625)?);
    for rope in config
        .attention
        .iter_mut()
        .filter_map(|layer| layer.rope.as_mut())
    {
        rope.interleaved = true;
    }
    Ok(config)
}
