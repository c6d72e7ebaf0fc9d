//! gpt-oss (OpenAI 2025): experts in the place of every MLP, with biases and clamped gates; a sink
//! in the softmax of every head; every second layer has a window; Yarn.

use serde_json::Value;

use super::super::Error;
use super::super::config::{Config, Experts, Family, Fields, NormKind, Routing, unsupported};
use super::layout::{self, Layout, Linear, Mlp, parameter};
use super::llama::{self, Defaults, common};
use super::mixtral::experts;

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            head_dim: Some(64),
            kv_heads: Some(8),
            norm: NormKind::RmsScaledWide,
            norm_eps: 1e-5,
            theta: 150_000.0,
            ..Defaults::of(Family::GptOss)
        },
    )?;
    // Without either, transformers stretches by 32 from 4096 tokens: every file has one.
    if ["rope_scaling", "rope_parameters"]
        .iter()
        .all(|name| fields.get(name).is_none())
    {
        return Err(Error::MissingField {
            field: "rope_scaling".to_owned(),
            family: Family::GptOss.model_type(),
        });
    }
    let bias = fields.flag("attention_bias", true)?;
    config.biases.qkv = bias;
    config.biases.o = bias;
    config.sinks = true;
    let window = fields.size_or("sliding_window", Some(128))?;
    let sliding = fields
        .sliding_layers(config.layers)?
        .unwrap_or_else(|| (0..config.layers).map(|l| l % 2 == 0).collect());
    if let (None, true) = (window, sliding.contains(&true)) {
        let supported = "a number where layers are of sliding_attention";
        return Err(unsupported("sliding_window", &Value::Null, supported));
    }
    for (layer, sliding) in config.attention.iter_mut().zip(sliding) {
        layer.window = window.filter(|_| sliding);
    }
    // The experts have an activation of their own, whatever this says.
    fields.fixed("hidden_act", &"silu".into())?;
    for (field, value) in [("swiglu_alpha", 1.702), ("swiglu_limit", 7.0)] {
        let found = fields.positive(field, value)?;
        if found != value {
            return Err(unsupported(field, &found.into(), &value.to_string()));
        }
    }
    packed(fields)?;
    let found = experts(fields, &config, 128, 4)?;
    // What the published files say beside, and transformers does not read.
    fields.same(&[("experts_per_token", found.chosen)])?;
    fields.get("initial_context_length");
    config.experts = Some(Experts {
        routing: Routing::AmongChosen,
        clamped: true,
        ..found
    });
    Ok(config)
}

/// How the experts are quantised: not at all, or in MXFP4, which is read as bfloat16.
fn packed(fields: &Fields<'_>) -> Result<(), Error> {
    let name = "quantization_config";
    let Some(value) = fields.get(name) else {
        return Ok(());
    };
    let method = value.get("quant_method").and_then(Value::as_str);
    let Some(map) = value.as_object().filter(|_| method == Some("mxfp4")) else {
        return Err(unsupported(name, value, "none, or quant_method mxfp4"));
    };
    let fields = Fields::new("gpt_oss mxfp4", map);
    // Which tensors are packed is seen in the file.
    for name in ["quant_method", "modules_to_not_convert", "dequantize"] {
        fields.get(name);
    }
    fields.finish()
}

pub fn layout(config: &Config) -> Layout {
    let d = config.width;
    let mut layout = llama::layout(config);
    for (l, layer) in layout.layers.iter_mut().enumerate() {
        let p = format!("model.layers.{l}");
        layer.sinks = Some(parameter(format!("{p}.self_attn.sinks"), [config.heads]));
        let Some(&Experts { count, inner, .. }) = config.experts_of(l) else {
            continue;
        };
        let stacked = |name: &str, inp, out| Linear {
            weight: parameter(format!("{p}.mlp.experts.{name}"), [count, inp, out]),
            bias: Some(parameter(
                format!("{p}.mlp.experts.{name}_bias"),
                [count, out],
            )),
            transposed: true,
        };
        layer.mlp = Mlp::Mixture(layout::Mixture {
            router: Linear::new(&format!("{p}.mlp.router"), count, d, true),
            experts: layout::Experts::Stacked {
                gate_up: stacked("gate_up_proj", d, 2 * inner),
                down: stacked("down_proj", inner, d),
            },
        });
    }
    layout
}
