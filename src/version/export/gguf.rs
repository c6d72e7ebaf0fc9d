//! A version as a LoRA adapter for llama.cpp.
//!
//! The form is that of its `convert_lora_to_gguf.py`: `adapter.type = lora`, and for every matrix
//! `NAME.lora_a` of `[rank, inner]` and `NAME.lora_b` of `[width, rank]`, scaled by
//! `alpha / rank`, which is one here.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::super::Error;
use super::adapter::{bytes, turned};
use super::source::{Source, io};
use crate::model::Family;

const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
/// Types of metadata values and of tensors.
const FLOAT32: u32 = 6;
const STRING: u32 = 8;
const F32: u32 = 0;

/// Writes the adapter for a model of this [`architecture`].
pub fn write(source: &Source<'_>, architecture: &str, path: &Path) -> Result<(), Error> {
    let joined = source.joined()?;
    let rank = joined.first().map_or(0, |factor| factor.rank);
    let mut tensors = Vec::new();
    for factor in &joined {
        let name = format!("blk.{}.ffn_down.weight", factor.layer);
        // Sizes are written innermost first.
        let (a, b) = ([factor.inner, factor.rank], [factor.rank, factor.width]);
        tensors.push((format!("{name}.lora_a"), a, bytes(&turned(factor))));
        tensors.push((format!("{name}.lora_b"), b, bytes(&factor.left)));
    }
    let mut head = Vec::new();
    head.extend(b"GGUF");
    head.extend(VERSION.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    let texts = [
        ("general.type", "adapter"),
        ("general.architecture", architecture),
        ("general.name", source.base_name),
        ("adapter.type", "lora"),
    ];
    head.extend((texts.len() as u64 + 1).to_le_bytes());
    for (key, value) in texts {
        text(&mut head, key);
        head.extend(STRING.to_le_bytes());
        text(&mut head, value);
    }
    text(&mut head, "adapter.lora.alpha");
    head.extend(FLOAT32.to_le_bytes());
    head.extend((rank as f32).to_le_bytes());
    let mut offset = 0;
    for (name, sizes, data) in &tensors {
        text(&mut head, name);
        head.extend((sizes.len() as u32).to_le_bytes());
        for size in sizes {
            head.extend((*size as u64).to_le_bytes());
        }
        head.extend(F32.to_le_bytes());
        head.extend((offset as u64).to_le_bytes());
        offset += data.len().next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    let mut file = BufWriter::new(File::create(path).map_err(io(path))?);
    file.write_all(&head).map_err(io(path))?;
    for (_, _, data) in &tensors {
        let padding = data.len().next_multiple_of(ALIGNMENT) - data.len();
        file.write_all(data)
            .and_then(|()| file.write_all(&[0; ALIGNMENT][..padding]))
            .map_err(io(path))?;
    }
    file.into_inner()
        .map_err(|error| io(path)(error.into_error()))?
        .sync_all()
        .map_err(io(path))
}

fn text(head: &mut Vec<u8>, text: &str) {
    head.extend((text.len() as u64).to_le_bytes());
    head.extend(text.as_bytes());
}

/// What llama.cpp calls a family, where it has it.
pub fn architecture(family: Family) -> Option<&'static str> {
    Some(match family {
        Family::Gpt2 => "gpt2",
        Family::GptJ => "gptj",
        Family::GptNeoX => "gptneox",
        Family::Llama | Family::Mistral => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
        Family::Gemma2 => "gemma2",
        Family::Gemma3 => "gemma3",
        Family::Phi3 => "phi3",
        // One architecture there, with a window or without.
        Family::Olmo2 | Family::Olmo3 => "olmo2",
        Family::SmolLm3 => "smollm3",
        Family::Granite => "granite",
        Family::Phi => "phi2",
        Family::StableLm => "stablelm",
        Family::StarCoder2 => "starcoder2",
        Family::Cohere => "command-r",
        Family::Cohere2 => "cohere2",
        Family::Falcon => "falcon",
        Family::Bloom => "bloom",
        Family::Qwen3Moe => "qwen3moe",
        // Without a layer that can be edited there is nothing to adapt.
        Family::Mixtral | Family::GptOss => return None,
        Family::Opt | Family::GptNeo => return None,
    })
}
