//! Phi-3 and Phi-4 mini (Abdin et al. 2024): Llama with query, key and value in one matrix, and
//! gate and up in one.

use super::super::Error;
use super::super::config::{Config, Family, Fields, Part, RopeScaling, unsupported};
use super::layout::{Layout, Linear, Mlp, Qkv, Up};
use super::llama::{self, Defaults, common};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            norm_eps: 1e-5,
            part: Part::Either(1.0),
            ..Defaults::of(Family::Phi3)
        },
    )?;
    // Its configuration class knows longrope and no other, which is not computed here.
    let rope = config
        .attention
        .first()
        .and_then(|layer| layer.rope.as_ref());
    if rope.is_some_and(|rope| rope.scaling != RopeScaling::None) {
        let field = ["rope_scaling", "rope_parameters"].map(|name| fields.get(name));
        let found = field.into_iter().flatten().next();
        let found = found.unwrap_or(&serde_json::Value::Null);
        return Err(unsupported("rope_scaling", found, "none"));
    }
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
        let down = Linear::new(&format!("{p}.mlp.down_proj"), d, m, false);
        layer.mlp = Mlp::dense(
            Up::Fused(Linear::new(
                &format!("{p}.mlp.gate_up_proj"),
                2 * m,
                d,
                false,
            )),
            down,
        );
    }
    layout
}
