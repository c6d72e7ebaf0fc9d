//! Phi-3 and Phi-4 mini (Abdin et al. 2024): Llama with query, key and value in one matrix, and
//! gate and up in one.

use super::super::Error;
use super::super::config::{Config, Family, Fields};
use super::layout::{Layout, Linear, Qkv, Up};
use super::llama::{self, Defaults, common};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            family: Family::Phi3,
            head_dim: None,
            kv_heads: None,
            norm_eps: 1e-5,
            theta: 10_000.0,
            rope_kind: None,
            tied: false,
        },
    )?;
    let window = fields.maybe_size("sliding_window")?;
    for layer in &mut config.attention {
        layer.window = window;
    }
    Ok(config)
}

pub fn layout(config: &Config) -> Layout {
    let (d, m) = (config.width, config.inner);
    let qkv = (config.heads + 2 * config.kv_heads) * config.head_dim;
    let mut layout = llama::layout(config);
    for (l, layer) in layout.layers.iter_mut().enumerate() {
        let p = format!("model.layers.{l}");
        layer.qkv = Qkv::Fused(Linear::new(
            &format!("{p}.self_attn.qkv_proj"),
            qkv,
            d,
            false,
        ));
        layer.up = Up::Fused(Linear::new(
            &format!("{p}.mlp.gate_up_proj"),
            2 * m,
            d,
            false,
        ));
    }
    layout
}
