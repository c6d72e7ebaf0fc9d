//! Qwen 2, 2.5 and 3 (Yang et al. 2024, 2025): Llama with biases on query, key and value (2), or
//! with a norm on every query and key head and an explicit head width (3), and with experts in the
//! place of all or some MLPs (3, MoE).

use super::super::Error;
use super::super::config::{Config, Experts, Family, Fields, QkNorm, Routing, unsupported};
use super::layout::Layout;
use super::llama::{self, Defaults, attention_bias, common};
use super::mixtral::{experts, mixture};

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

pub fn qwen3_moe(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            kv_heads: Some(4),
            ..Defaults::of(Family::Qwen3Moe)
        },
    )?;
    attention_bias(fields, &mut config)?;
    config.qk_norm = QkNorm::Heads;
    // Qwen 2's: written in the published files, and read by nothing.
    fields.get("max_window_layers");
    let on = fields.flag("use_sliding_window", false)?;
    let window = fields.size_or("sliding_window", Some(4096))?;
    for layer in &mut config.attention {
        layer.window = window.filter(|_| on);
    }
    let found = Experts {
        inner: fields.maybe_size("moe_intermediate_size")?.unwrap_or(768),
        routing: match fields.flag("norm_topk_prob", false)? {
            true => Routing::Normalised,
            false => Routing::Softmax,
        },
        layers: sparse_layers(fields, config.layers)?,
        ..experts(fields, &config, 128, 8)?
    };
    config.experts = (found.count > 0 && found.layers.contains(&true)).then_some(found);
    Ok(config)
}

/// Which layers have experts: every `decoder_sparse_step`-th, but those of `mlp_only_layers`.
fn sparse_layers(fields: &Fields<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    let step = fields.maybe_size("decoder_sparse_step")?.unwrap_or(1);
    if step == 0 {
        return Err(unsupported("decoder_sparse_step", &0.into(), "1 or more"));
    }
    let mut sparse: Vec<bool> = (1..=layers).map(|l| l.is_multiple_of(step)).collect();
    let Some(value) = fields.get("mlp_only_layers") else {
        return Ok(sparse);
    };
    let wrong = || unsupported("mlp_only_layers", value, "a list of layers, from 0");
    for layer in value.as_array().ok_or_else(wrong)? {
        let layer = layer.as_u64().ok_or_else(wrong)?;
        // Of a layer that there is not, transformers takes no notice.
        if let Some(sparse) = usize::try_from(layer).ok().and_then(|l| sparse.get_mut(l)) {
            *sparse = false;
        }
    }
    Ok(sparse)
}

pub fn moe_layout(config: &Config) -> Layout {
    let mut layout = llama::layout(config);
    for (l, layer) in layout.layers.iter_mut().enumerate() {
        if let Some(experts) = config.experts_of(l) {
            let names = ["gate", "gate_proj", "up_proj", "down_proj"];
            layer.mlp = mixture(config, experts, &format!("model.layers.{l}.mlp"), names);
        }
    }
    layout
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
