//! Qwen 2, 2.5 and 3 (Yang et al. 2024, 2025): Llama with biases on query, key and value (2), or
//! with a norm on every query and key head and an explicit head width (3).

use super::super::Error;
use super::super::config::{Config, Family, Fields, QkNorm};
use super::llama::{Defaults, attention_bias, common};

pub fn qwen2(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            kv_heads: Some(32),
            ..Defaults::of(Family::Qwen2)
        },
    )?;
    config.biases.qkv = true;
    windows(fields, &mut config)?;
    Ok(config)
}

pub fn qwen3(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            head_dim: Some(128),
            kv_heads: Some(32),
            ..Defaults::of(Family::Qwen3)
        },
    )?;
    attention_bias(fields, &mut config)?;
    config.qk_norm = QkNorm::Heads;
    windows(fields, &mut config)?;
    Ok(config)
}

/// `use_sliding_window` gives the layers from `max_window_layers` up a window, unless `layer_types`
/// says which.
fn windows(fields: &Fields<'_>, config: &mut Config) -> Result<(), Error> {
    let on = fields.flag("use_sliding_window", false)?;
    let window = fields.size_or("sliding_window", Some(4096))?;
    let window = window.filter(|_| on);
    let first = fields.maybe_size("max_window_layers")?.unwrap_or(28);
    let sliding = fields
        .sliding_layers(config.layers)?
        .unwrap_or_else(|| (0..config.layers).map(|l| l >= first).collect());
    for (layer, sliding) in config.attention.iter_mut().zip(sliding) {
        layer.window = window.filter(|_| sliding);
    }
    Ok(())
}
