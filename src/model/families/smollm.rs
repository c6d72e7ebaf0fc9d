//! SmolLM3 (Bakouch et al. 2025): Llama whose every fourth layer sees no positions (Yang et al.
//! 2025, *RoPE to NoPE and back again*).

use serde_json::Value;

use super::super::Error;
use super::super::config::{Config, Family, Fields, unsupported};
use super::llama::{Defaults, attention_bias, common};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            kv_heads: Some(4),
            theta: 2_000_000.0,
            tied: true,
            ..Defaults::of(Family::SmolLm3)
        },
    )?;
    attention_bias(fields, &mut config)?;
    config.biases.mlp = fields.flag("mlp_bias", false)?;
    let turned = turned(fields, config.layers)?;
    // Qwen's: written in the published file, and read by nothing.
    fields.get("max_window_layers");
    let on = fields.flag("use_sliding_window", false)?;
    let window = fields.maybe_size("sliding_window")?.filter(|_| on);
    let sliding = fields
        .sliding_layers(config.layers)?
        .unwrap_or_else(|| turned.iter().map(|turned| !turned).collect());
    if let (Some(types), None, true) = (fields.get("layer_types"), window, sliding.contains(&true))
    {
        let supported = "full_attention alone where use_sliding_window is off";
        return Err(unsupported("layer_types", types, supported));
    }
    for (l, layer) in config.attention.iter_mut().enumerate() {
        layer.window = window.filter(|_| sliding[l]);
        layer.rope = layer.rope.take().filter(|_| turned[l]);
    }
    Ok(config)
}

/// Whether each layer has a rotary embedding: `no_rope_layers`, which holds 1 for those that have,
/// or all but every so many-th.
fn turned(fields: &Fields<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    let every = fields.maybe_size("no_rope_layer_interval")?.unwrap_or(4);
    let Some(value) = fields.get("no_rope_layers") else {
        if every == 0 {
            let supported = "1 or more";
            return Err(unsupported("no_rope_layer_interval", &0.into(), supported));
        }
        return Ok((1..=layers).map(|l| !l.is_multiple_of(every)).collect());
    };
    let one = |value: &Value| match value.as_u64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    };
    let list = value.as_array().filter(|list| list.len() >= layers);
    let turned = list.and_then(|list| list.iter().take(layers).map(one).collect());
    turned.ok_or_else(|| {
        let supported = format!("at least {layers} times 0 or 1");
        unsupported("no_rope_layers", value, &supported)
    })
}
