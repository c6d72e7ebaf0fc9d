//! A version as what is added to its base: a LoRA adapter for PEFT, and the factors themselves.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::super::{Error, Factor};
use super::source::{Source, io};
use super::tensors::{self, Entry};

/// Writes a folder that PEFT loads: `W + B A` with `A = right^T`, `B = left` and a scale of one.
pub fn write(source: &Source<'_>, folder: &Path) -> Result<(), Error> {
    let joined = source.joined()?;
    let rank = joined.first().map_or(0, |factor| factor.rank);
    let modules: Vec<&str> = joined.iter().map(|factor| module(&factor.tensor)).collect();
    let layers = &source.base.checkpoint().layout().layers;
    let down = layers.iter().find_map(|layer| layer.down());
    let transposed = down.is_some_and(|down| down.transposed);
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source.base_name,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": modules,
        "fan_in_fan_out": transposed,
        "inference_mode": true,
        "init_lora_weights": true,
    });
    let path = folder.join("adapter_config.json");
    fs::write(&path, format!("{config:#}\n")).map_err(io(&path))?;
    let mut entries = Vec::new();
    let mut data = Vec::new();
    for factor in &joined {
        let module = module(&factor.tensor);
        for (side, rows, numbers) in [
            ("A", [factor.rank, factor.inner], turned(factor)),
            ("B", [factor.width, factor.rank], factor.left.clone()),
        ] {
            entries.push(entry(
                format!("base_model.model.{module}.lora_{side}.weight"),
                &rows,
            ));
            data.push(bytes(&numbers));
        }
    }
    let path = folder.join("adapter_model.safetensors");
    tensors::write(&path, &[("format", "pt")], &entries, |n| {
        Ok(data[n].as_slice().into())
    })
}

/// Writes the factors of every edit: `edit.N.NAME.left` and `.right`.
pub fn write_factors(source: &Source<'_>, path: &Path) -> Result<(), Error> {
    let mut entries = Vec::new();
    let mut data = Vec::new();
    for (n, (_, factors)) in source.edits.iter().enumerate() {
        for factor in factors {
            if factor.is_whole() {
                return Err(Error::Whole {
                    tensor: factor.tensor.clone(),
                });
            }
            for (side, rows, numbers) in [
                ("left", factor.width, &factor.left),
                ("right", factor.inner, &factor.right),
            ] {
                entries.push(entry(
                    format!("edit.{n}.{}.{side}", factor.tensor),
                    &[rows, factor.rank],
                ));
                data.push(bytes(numbers));
            }
        }
    }
    let ids: Vec<&str> = source.edits.iter().map(|(id, _)| id.as_str()).collect();
    let metadata = [
        ("base", source.version.base.as_str()),
        ("edits", &ids.join(",")),
    ];
    tensors::write(path, &metadata, &entries, |n| Ok(data[n].as_slice().into()))
}

/// `right^T`, `[rank, inner]`.
pub fn turned(factor: &Factor) -> Vec<f32> {
    let column = |k: usize| (0..factor.inner).map(move |row| factor.right[row * factor.rank + k]);
    (0..factor.rank).flat_map(column).collect()
}

pub fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

fn entry(name: String, shape: &[usize]) -> Entry {
    Entry {
        name,
        dtype: "F32",
        size: shape.iter().product::<usize>() * 4,
        shape: shape.to_vec(),
    }
}

/// The module that a weight belongs to.
fn module(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").unwrap_or(tensor)
}
