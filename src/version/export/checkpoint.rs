//! An edited model as a folder that transformers loads as it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Value, json};

use super::super::{Error, Matrix};
use super::source::{Source, failed, io};
use super::tensors::{self, Entry};
use crate::model::Checkpoint;

/// Writes the folder. A base of safetensors keeps its files, with the edited matrices' bytes in
/// their places; a GGUF base is written out, dequantised.
pub fn write(source: &Source<'_>, folder: &Path) -> Result<(), Error> {
    let matrices = source.matrices()?;
    let checkpoint = source.base.checkpoint();
    if checkpoint.path().is_dir() {
        copy(checkpoint, &matrices, folder)
    } else {
        expand(checkpoint, &matrices, folder)
    }
}

fn copy(
    checkpoint: &Checkpoint,
    matrices: &BTreeMap<String, Matrix>,
    folder: &Path,
) -> Result<(), Error> {
    let mut placed = 0;
    for from in checkpoint.files() {
        let to = folder.join(from.file_name().unwrap_or_default());
        // Opened anew, so that a copy of a write-protected object can be written.
        let mut reader = File::open(from).map_err(io(from))?;
        let mut writer = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&to)
            .map_err(io(&to))?;
        std::io::copy(&mut reader, &mut writer).map_err(io(&to))?;
        if to
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            placed += replace(&writer, &to, matrices)?;
        }
        writer.sync_all().map_err(io(&to))?;
    }
    if placed != matrices.len() {
        let problem = format!("has {placed} of {} edited matrices", matrices.len());
        return Err(failed(folder, problem));
    }
    Ok(())
}

/// Puts edited matrices in their places in a copied file, and says how many it has.
fn replace(file: &File, path: &Path, matrices: &BTreeMap<String, Matrix>) -> Result<usize, Error> {
    // The length of the header, the header, the elements.
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).map_err(io(path))?;
    let length = u64::from_le_bytes(length);
    let mut header = vec![0; length as usize];
    file.read_exact_at(&mut header, 8).map_err(io(path))?;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&header)
        .map_err(|error| failed(path, format!("has a header that is not JSON: {error}")))?;
    let start = 8 + length;
    let mut placed = 0;
    for (name, info) in header {
        // Files may leave the model's prefix out.
        let is_it = |canonical: &&String| {
            **canonical == name
                || canonical
                    .split_once('.')
                    .is_some_and(|(_, bare)| bare == name)
        };
        let Some(canonical) = matrices.keys().find(is_it) else {
            continue;
        };
        let offset = |n: usize| info["data_offsets"][n].as_u64().map(|at| at as usize);
        let (Some(from), Some(to)) = (offset(0), offset(1)) else {
            return Err(failed(path, format!("does not say where {name} is")));
        };
        let bytes = &matrices[canonical].bytes;
        if bytes.len() != to - from {
            let problem = format!("holds {name} in {} bytes, not {}", to - from, bytes.len());
            return Err(failed(path, problem));
        }
        file.write_all_at(bytes, start + from as u64)
            .map_err(io(path))?;
        placed += 1;
    }
    Ok(placed)
}

fn expand(
    checkpoint: &Checkpoint,
    matrices: &BTreeMap<String, Matrix>,
    folder: &Path,
) -> Result<(), Error> {
    let config = checkpoint.config();
    let infos: Vec<_> = checkpoint.tensors().collect();
    let mut json = config.json.clone();
    let widest = infos.iter().map(|info| info.dtype.size()).max();
    let dtype = match infos.first() {
        Some(first) if widest != Some(4) => match first.dtype.name() {
            "F16" => "float16",
            _ => "bfloat16",
        },
        _ => "float32",
    };
    json.insert("torch_dtype".to_owned(), dtype.into());
    let tokenizer = checkpoint.tokenizer();
    let word = |id: Option<&u32>| id.and_then(|id| tokenizer.token(*id));
    let bos = config.json.get("bos_token_id").and_then(Value::as_u64);
    let bos = bos.map(|id| id as u32);
    let kept = tokenizer.kept();
    let mut about_tokens = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": word(bos.as_ref()),
        "eos_token": word(tokenizer.eos().first()),
        "model_max_length": config.context,
        "clean_up_tokenization_spaces": false,
    });
    for (name, value) in [
        ("pad_token", word(kept.pad.as_ref())),
        ("unk_token", word(kept.unknown.as_ref())),
        ("chat_template", kept.chat_template.clone()),
    ] {
        if let Some(value) = value {
            about_tokens[name] = value.into();
        }
    }
    if !kept.named_templates.is_empty() {
        // As transformers has several: a list with names, of which `default` is the one without.
        let default = kept.chat_template.iter().map(|text| ("default", text));
        let named = kept.named_templates.iter();
        let all = default.chain(named.map(|(name, text)| (name.as_str(), text)));
        about_tokens["chat_template"] = all
            .map(|(name, template)| json!({"name": name, "template": template}))
            .collect();
    }
    let generation = json!({
        "eos_token_id": tokenizer.eos(), "bos_token_id": bos, "pad_token_id": kept.pad,
    });
    for (name, text) in [
        ("config.json", format!("{:#}\n", Value::from(json))),
        ("tokenizer.json", tokenizer.to_json().to_owned()),
        ("tokenizer_config.json", format!("{about_tokens:#}\n")),
        ("generation_config.json", format!("{generation:#}\n")),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(io(&path))?;
    }
    let entries: Vec<Entry> = infos
        .iter()
        .map(|info| Entry {
            name: info.name.clone(),
            dtype: info.dtype.name(),
            size: info.shape.iter().product::<usize>() * info.dtype.size(),
            shape: info.shape.clone(),
        })
        .collect();
    let path = folder.join("model.safetensors");
    // transformers asks which framework wrote the file.
    tensors::write(&path, &[("format", "pt")], &entries, |n| {
        let name = &infos[n].name;
        match matrices.get(name) {
            Some(matrix) => Ok(Cow::Owned(matrix.bytes.clone())),
            None => Ok(checkpoint.tensor(name)?.bytes),
        }
    })
}
