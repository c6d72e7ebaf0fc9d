//! Versions as files that other programs load.
//!
//! Every form is written into a folder beside its destination and renamed there when it is whole.

mod adapter;
mod checkpoint;
mod gguf;
mod source;
mod tensors;

use std::fs;
use std::path::Path;

pub use self::source::Source;
use self::source::{failed, io};
use super::Error;

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
