//! GPT-Neo (Black et al. 2021): GPT-2 with scores that are not scaled, and a window in the layers
//! that are local.

use serde_json::Value;

use super::super::Error;
use super::super::config::{Activation, Config, Family, Fields, Sizes, head_dim, unsupported};
use super::gpt2;
use super::layout::{Layout, Linear, Mlp, Qkv, Up};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let layers = fields.layers("num_layers")?;
    let width = fields.size("hidden_size")?;
    let heads = fields.size("num_heads")?;
    // transformers' `attribute_map` has them for the same things.
    fields.same(&[
        ("num_hidden_layers", layers),
        ("num_attention_heads", heads),
    ])?;
    let sizes = Sizes {
        layers,
        width,
        heads,
        head_dim: head_dim(width, heads, "num_heads")?,
        inner: fields.maybe_size("intermediate_size")?.unwrap_or(4 * width),
        vocab: fields.size("vocab_size")?,
        context: fields.size("max_position_embeddings")?,
    };
    let mut config = Config::plain(Family::GptNeo, sizes, fields.eos(Family::GptNeo)?);
    config.norm_eps = fields.positive("layer_norm_epsilon", 1e-5)?;
    config.activation = fields.activation("activation_function", Activation::GeluTanh)?;
    config.score_scale = 1.0;
    config.biases.qkv = false;
    config.tied = fields.flag("tie_word_embeddings", true)?;
    let window = fields.maybe_size("window_size")?.unwrap_or(256);
    for (layer, local) in config.attention.iter_mut().zip(local(fields, layers)?) {
        layer.window = local.then_some(window);
    }
    Ok(config)
}

/// Whether each layer is local: `attention_types` has lists of kinds, each with how often it stands
/// there.
fn local(fields: &Fields<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    let default = serde_json::json!([[["global", "local"], 12]]);
    let types = fields.get("attention_types").unwrap_or(&default);
    let wrong = |field: &str, found: &Value| {
        let supported = format!("global or local for each of {layers} layers");
        unsupported(field, found, &supported)
    };
    let expanded = || -> Option<Vec<bool>> {
        let mut all = Vec::new();
        for item in types.as_array()? {
            let kinds = item.get(0).and_then(kinds)?;
            let times = item.get(1)?.as_u64()?;
            // No more than one list too many, however often it is to stand there.
            for _ in (0..times).take_while(|_| !kinds.is_empty()) {
                if all.len() > layers {
                    break;
                }
                all.extend(&kinds);
            }
        }
        Some(all)
    };
    let local = expanded().filter(|all| all.len() == layers);
    let local = local.ok_or_else(|| wrong("attention_types", types))?;
    // What they come to, which is written down too.
    match fields.get("attention_layers") {
        Some(named) if kinds(named).as_ref() != Some(&local) => {
            Err(wrong("attention_layers", named))
        }
        _ => Ok(local),
    }
}

fn kinds(list: &Value) -> Option<Vec<bool>> {
    let kind = |kind: &Value| match kind.as_str() {
        Some("global") => Some(false),
        Some("local") => Some(true),
        _ => None,
    };
    list.as_array()?.iter().map(kind).collect()
}

pub fn layout(config: &Config) -> Layout {
    let (d, m) = (config.width, config.inner);
    let mut layout = gpt2::layout(config);
    for (l, layer) in layout.layers.iter_mut().enumerate() {
        let h = format!("transformer.h.{l}");
        let attn = |name: &str, bias| {
            let name = format!("{h}.attn.attention.{name}");
            Linear::new(&name, d, d, bias)
        };
        let qkv = ["q_proj", "k_proj", "v_proj"].map(|name| attn(name, false));
        layer.qkv = Qkv::Separate(Box::new(qkv));
        layer.o = attn("out_proj", true);
        layer.mlp = Mlp::dense(
            Up::Plain(Linear::new(&format!("{h}.mlp.c_fc"), m, d, true)),
            Linear::new(&format!("{h}.mlp.c_proj"), d, m, true),
        );
    }
    layout
}
