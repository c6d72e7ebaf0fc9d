//! StableLM 3B and 2 (Bellagente et al. 2024): Llama with layer norms and partial rotary, serial or
//! parallel residual.

use super::super::Error;
use super::super::config::{Config, Family, Fields, NormKind, Part, Residual};
use super::llama::{Defaults, common};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            kv_heads: Some(32),
            norm: NormKind::Layer,
            norm_field: "layer_norm_eps",
            norm_eps: 1e-5,
            part: Part::Either(0.25),
            ..Defaults::of(Family::StableLm)
        },
    )?;
    config.biases.qkv = fields.flag("use_qkv_bias", false)?;
    if fields.flag("use_parallel_residual", false)? {
        config.residual = Residual::Parallel;
        config.mlp_norm = false;
    }
    Ok(config)
}
