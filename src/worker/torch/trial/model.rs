//! A model of random weights, made for trying a device: no download, and any size.

use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

use crate::model::{Checkpoint, Config, Layout};

/// Tokens: every byte, and the end of a text.
const VOCABULARY: usize = 257;

/// How large a model is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    pub inner: usize,
}

/// A family's options for a model of this size, as transformers writes them.
pub(super) fn config(family: &str, size: Size) -> Value {
    match family {
        "gpt2" => json!({
            "model_type": "gpt2", "n_embd": size.width, "n_layer": size.layers, "n_head": size.heads, "n_inner": size.inner,
            "n_positions": 128, "vocab_size": VOCABULARY,
        }),
        _ => json!({
            "model_type": "llama", "hidden_size": size.width, "num_hidden_layers": size.layers, "num_attention_heads": size.heads,
            "num_key_value_heads": size.heads / 4, "intermediate_size": size.inner, "max_position_embeddings": 128,
            "vocab_size": VOCABULARY, "tie_word_embeddings": true,
        }),
    }
}

/// Writes such a model to a folder. The same on every machine.
pub(super) fn write(folder: &Path, config: Value) -> anyhow::Result<Checkpoint> {
    std::fs::write(folder.join("config.json"), config.to_string())?;
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string())?;
    let Value::Object(fields) = config else {
        anyhow::bail!("a configuration is an object");
    };
    let layout = Layout::new(&Config::from_json(fields)?);
    tch::manual_seed(1);
    let weights: Vec<(String, Tensor)> = layout
        .parameters()
        .into_iter()
        .map(|parameter| {
            let shape: Vec<i64> = parameter.shape.iter().map(|&n| n as i64).collect();
            let random = Tensor::randn(&shape, (Kind::Float, Device::Cpu));
            let weight = match (shape.as_slice(), parameter.name.ends_with(".bias")) {
                (_, true) => random * 0.1,
                ([_], false) => random * 0.1 + 1.0,
                _ if parameter.name.contains("emb") || parameter.name.contains("wte") => {
                    random * 0.2
                }
                // At least as many terms as a sum has, so that states do not grow.
                (shape, false) => {
                    random * (shape.iter().max().copied().unwrap_or(1) as f64).powf(-0.5)
                }
            };
            (parameter.name.clone(), weight)
        })
        .collect();
    Tensor::write_safetensors(&weights, folder.join("model.safetensors"))
        .context("the random model cannot be written")?;
    Ok(Checkpoint::open(folder)?)
}

/// A tokenizer whose tokens are bytes.
fn tokenizer() -> Value {
    // Printable bytes stand for themselves, the others for characters from 256 up (Radford et al.
    // 2019).
    let mut others = 256..;
    let mut vocabulary: Map<String, Value> = (0..=255u8)
        .map(|byte| {
            let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
            let code = match printable {
                true => u32::from(byte),
                false => others.next().unwrap_or_default(),
            };
            let character = char::from_u32(code).unwrap_or_default();
            (character.to_string(), json!(byte))
        })
        .collect();
    let end = "<|endoftext|>";
    vocabulary.insert(end.to_owned(), json!(256));
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{
            "id": 256, "content": end, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true
        }],
        "pre_tokenizer": bytes, "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []
        },
    })
}
