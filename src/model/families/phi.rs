//! Phi-1, 1.5 and 2 (Gunasekar et al. 2023; Li et al. 2023): attention and MLP side by side behind
//! one norm, partial rotary, biases everywhere.

use super::super::Error;
use super::super::config::{Activation, Biases, Config, Family, Fields, NormKind, Part, Residual};
use super::layout::{Layout, Linear, Mlp, Norm, Up, parameter};
use super::llama::{self, Defaults, common};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            norm: NormKind::Layer,
            norm_field: "layer_norm_eps",
            norm_eps: 1e-5,
            activation: Activation::GeluTanh,
            gated: false,
            part: Part::Either(0.5),
            ..Defaults::of(Family::Phi)
        },
    )?;
    config.residual = Residual::Parallel;
    config.mlp_norm = false;
    config.biases = Biases {
        qkv: true,
        o: true,
        mlp: true,
        head: true,
    };
    Ok(config)
}

pub fn layout(config: &Config) -> Layout {
    let (d, m) = (config.width, config.inner);
    let mut layout = llama::layout(config);
    for (l, layer) in layout.layers.iter_mut().enumerate() {
        let p = format!("model.layers.{l}");
        let q = config.heads * config.head_dim;
        layer.o = Linear::new(&format!("{p}.self_attn.dense"), d, q, true);
        layer.mlp = Mlp::dense(
            Up::Plain(Linear::new(&format!("{p}.mlp.fc1"), m, d, true)),
            Linear::new(&format!("{p}.mlp.fc2"), d, m, true),
        );
    }
    layout.final_norm = Norm::new(config.norm, "model.final_layernorm", d);
    layout.head_bias = (config.tied).then(|| parameter("lm_head.bias".into(), [config.vocab]));
    layout
}
