//! Versions as files that other programs load.
//!
//! Every form is written into a folder beside its destination and renamed there when it is whole.

mod adapter;
mod checkpoint;
mod gguf;
mod tensors;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Base, Error, Factor, Matrix, by_tensor};
use crate::proto::v1;

/// A form of export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A folder that transformers' `from_pretrained` loads: the edited model.
    Safetensors,
    /// A folder that PEFT loads onto the base model: a LoRA adapter.
    Peft,
    /// A LoRA adapter that llama.cpp loads onto the base model.
    GgufLora,
    /// The factors of every edit, as `palimpsest edit import` reads them.
    Factors,
}

impl Format {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Safetensors, Self::Peft, Self::GgufLora, Self::Factors];

    /// What users call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Peft => "peft",
            Self::GgufLora => "gguf-lora",
            Self::Factors => "factors",
        }
    }

    /// Whether it is a folder; otherwise it is a file.
    pub fn is_folder(self) -> bool {
        matches!(self, Self::Safetensors | Self::Peft)
    }
}

/// A version with all that an export needs.
#[derive(Debug)]
pub struct Source<'a> {
    /// Its base.
    pub base: &'a Base,
    /// The version.
    pub version: &'a v1::Version,
    /// The factors of each of its edits, in order, with the edit's digest.
    pub edits: &'a [(String, Vec<Factor>)],
    /// What the base is called where it came from.
    pub base_name: &'a str,
}

impl Source<'_> {
    /// All factors, in order.
    fn factors(&self) -> Vec<Factor> {
        self.edits
            .iter()
            .flat_map(|(_, factors)| factors.iter().cloned())
            .collect()
    }

    /// Every matrix that differs from the base, materialised and held against its digest (I11).
    fn matrices(&self) -> Result<BTreeMap<String, Matrix>, Error> {
        let factors = self.factors();
        let grouped = by_tensor(&factors);
        self.version
            .matrices
            .iter()
            .map(|described| {
                let name = described.tensor_name.as_str();
                let factors = grouped.get(name).map_or(&[][..], Vec::as_slice);
                Ok((name.to_owned(), self.base.verified(described, factors)?))
            })
            .collect()
    }

    /// What all edits together add to each matrix: one factor a matrix, its ranks those of the
    /// edits behind each other, padded with zeros to the same rank everywhere.
    fn joined(&self) -> Vec<Factor> {
        let factors = self.factors();
        let grouped = by_tensor(&factors);
        let rank_of = |parts: &Vec<&Factor>| parts.iter().map(|part| part.rank).sum::<usize>();
        let rank = grouped.values().map(rank_of).max().unwrap_or_default();
        let mut joined: Vec<Factor> = grouped
            .into_iter()
            .map(|(tensor, parts)| {
                let first = parts[0];
                let mut all = Factor {
                    tensor: tensor.to_owned(),
                    layer: first.layer,
                    width: first.width,
                    inner: first.inner,
                    rank,
                    left: vec![0.0; first.width * rank],
                    right: vec![0.0; first.inner * rank],
                };
                let mut before = 0;
                for part in parts {
                    for (to, from) in [(&mut all.left, &part.left), (&mut all.right, &part.right)] {
                        for (row, ranks) in from.chunks_exact(part.rank).enumerate() {
                            let at = row * rank + before;
                            to[at..at + part.rank].copy_from_slice(ranks);
                        }
                    }
                    before += part.rank;
                }
                all
            })
            .collect();
        joined.sort_by_key(|factor| factor.layer);
        joined
    }
}

/// Writes a version in a form. `to` must not exist yet.
///
/// # Errors
/// [`Error::Export`] when it cannot be written or there is nothing to write;
/// [`Error::Materialised`] when a matrix is not what its version says.
pub fn write(source: &Source<'_>, format: Format, to: &Path) -> Result<(), Error> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(failed(
            to,
            "is there already: choose another name".to_owned(),
        ));
    }
    if format != Format::Safetensors && source.edits.is_empty() {
        let what = "would be empty: the version has no edits; only --format safetensors writes one";
        return Err(failed(to, what.to_owned()));
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = to.with_file_name(name);
    remove(&partial)?;
    if format.is_folder() {
        fs::create_dir_all(&partial).map_err(io(&partial))?;
    } else if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(io(parent))?;
    }
    let written = match format {
        Format::Safetensors => checkpoint::write(source, &partial),
        Format::Peft => adapter::write(source, &partial),
        Format::GgufLora => gguf::write(source, &partial),
        Format::Factors => adapter::write_factors(source, &partial),
    };
    let renamed = written.and_then(|()| fs::rename(&partial, to).map_err(io(to)));
    if renamed.is_err() {
        // The first error is the one to tell.
        let _ = remove(&partial);
    }
    renamed
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).map_err(io(path)),
        Ok(_) => fs::remove_file(path).map_err(io(path)),
        Err(_) => Ok(()),
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path: PathBuf = path.to_owned();
    move |error| failed(&path, format!("cannot be written: {error}"))
}

fn failed(path: &Path, problem: String) -> Error {
    Error::Export {
        path: path.to_owned(),
        problem,
    }
}
