//! StarCoder 2 (Lozhkov et al. 2024): Llama with layer norms, a plain MLP, biases and a window.

use serde_json::Value;

use super::super::Error;
use super::super::config::{Activation, Config, Family, Fields, NormKind};
use super::layout::{Layout, Linear, Mlp, Up};
use super::llama::{self, Defaults, common};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            kv_heads: Some(2),
            norm: NormKind::Layer,
            norm_field: "norm_epsilon",
            norm_eps: 1e-5,
            activation: Activation::GeluTanh,
            gated: false,
            tied: true,
            ..Defaults::of(Family::StarCoder2)
        },
    )?;
    // What the published files have of the first StarCoder's, and transformers does not read.
    fields.fixed("mlp_type", &"default".into())?;
    fields.fixed("norm_type", &"layer_norm".into())?;
    fields.fixed("scale_attn_weights", &Value::Bool(true))?;
    for name in [
        "activation_function",
        "attention_softmax_in_fp32",
        "layer_norm_epsilon",
        "scale_attention_softmax_in_fp32",
    ] {
        fields.get(name);
    }
    let bias = fields.flag("use_bias", true)?;
    config.biases.qkv = bias;
    config.biases.o = bias;
    config.biases.mlp = bias;
    let window = fields.maybe_size("sliding_window")?;
    for layer in &mut config.attention {
        layer.window = window;
    }
    Ok(config)
}

pub fn layout(config: &Config) -> Layout {
    let (d, m, bias) = (config.width, config.inner, config.biases.mlp);
    let mut layout = llama::layout(config);
    for (l, layer) in layout.layers.iter_mut().enumerate() {
        let mlp = format!("model.layers.{l}.mlp");
        layer.mlp = Mlp::dense(
            Up::Plain(Linear::new(&format!("{mlp}.c_fc"), m, d, bias)),
            Linear::new(&format!("{mlp}.c_proj"), d, m, bias),
        );
    }
    layout
}
