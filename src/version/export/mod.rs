//! Versions as files that other programs load.
//!
//! Every form is written into a folder beside its destination, made for it under a name that
//! nothing has, and renamed when it is whole. What is there already, at the destination or beside
//! it, stays.

mod adapter;
mod checkpoint;
mod gguf;
mod scratch;
mod source;
mod tensors;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

pub use self::scratch::Scratch;
pub use self::source::Source;
use self::source::{failed, io};
use super::Error;
use crate::audit::{Manifest, Signer};

/// What a signed manifest is called in a folder; beside a file it has the file's name before it.
pub const MANIFEST: &str = "palimpsest.manifest";

/// What an author signs an export with.
#[derive(Debug)]
pub struct Seal {
    /// The manifest of the version, without files.
    pub manifest: Manifest,
    /// The author's key.
    pub signer: Signer,
}

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

/// Where the manifest of what was written there is: in the folder, beside the file.
pub fn manifest_of(to: &Path, is_folder: bool) -> PathBuf {
    if is_folder {
        return to.join(MANIFEST);
    }
    let mut name: OsString = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{MANIFEST}"));
    to.with_file_name(name)
}

/// Writes a version in a form, with a signed manifest of its files where there is a seal. `to` must
/// not exist yet, nor a manifest for it.
///
/// # Errors
/// [`Error::Export`] when it cannot be written or there is nothing to write;
/// [`Error::Materialised`] when a matrix is not what its version says.
pub fn write(
    source: &Source<'_>,
    format: Format,
    to: &Path,
    seal: Option<&Seal>,
) -> Result<(), Error> {
    let beside = seal.map(|_| manifest_of(to, format.is_folder()));
    for path in beside.iter().map(PathBuf::as_path).chain([to]) {
        if fs::symlink_metadata(path).is_ok() {
            let what = "is there already: choose another name";
            return Err(failed(path, what.to_owned()));
        }
    }
    if format != Format::Safetensors && source.edits.is_empty() {
        let what = "would be empty: the version has no edits; only --format safetensors writes one";
        return Err(failed(to, what.to_owned()));
    }
    let family = source.base.checkpoint().config().family;
    let architecture = gguf::architecture(family);
    if let (Format::GgufLora, None) = (format, architecture) {
        let what =
            format!("would be read by nobody: llama.cpp has no {family}; write --format peft");
        return Err(failed(to, what));
    }
    let scratch = Scratch::beside(to, "partial")?;
    let partial = scratch.path().join(to.file_name().unwrap_or_default());
    if format.is_folder() {
        fs::create_dir(&partial).map_err(io(&partial))?;
    }
    match format {
        Format::Safetensors => checkpoint::write(source, &partial),
        Format::Peft => adapter::write(source, &partial),
        Format::GgufLora => gguf::write(source, architecture.unwrap_or_default(), &partial),
        Format::Factors => adapter::write_factors(source, &partial),
    }?;
    let Some((seal, beside)) = seal.zip(beside) else {
        return put_in_place(&partial, to, format.is_folder());
    };
    let note = seal_files(seal, &partial, format.is_folder()).map_err(io(&partial))?;
    if format.is_folder() {
        let manifest = partial.join(MANIFEST);
        fs::write(&manifest, note).map_err(io(&manifest))?;
        return put_in_place(&partial, to, true);
    }
    let manifest = manifest_of(&partial, false);
    fs::write(&manifest, note).map_err(io(&manifest))?;
    put_in_place(&manifest, &beside, false)?;
    put_in_place(&partial, to, false).inspect_err(|_| _ = fs::remove_file(&beside))
}

/// The signed manifest of what was written.
fn seal_files(seal: &Seal, written: &Path, is_folder: bool) -> std::io::Result<String> {
    let (folder, mut names) = match is_folder {
        true => (written, BTreeSet::new()),
        false => (
            written.parent().unwrap_or(written),
            BTreeSet::from([name_of(written)]),
        ),
    };
    if is_folder {
        for entry in fs::read_dir(folder)? {
            names.insert(name_of(&entry?.path()));
        }
    }
    let manifest = seal.manifest.clone().with_files(folder, &names)?;
    Ok(manifest.sign(&seal.signer))
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Gives what was written its name, unless something has it by now.
fn put_in_place(partial: &Path, to: &Path, is_folder: bool) -> Result<(), Error> {
    let taken = || {
        let what = "is there by now, and was not when the export began: choose another name";
        failed(to, what.to_owned())
    };
    if is_folder {
        // A folder with something in it is not replaced.
        return match fs::symlink_metadata(to) {
            Ok(_) => Err(taken()),
            Err(_) => fs::rename(partial, to).map_err(io(to)),
        };
    }
    match fs::hard_link(partial, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(taken()),
        // A file system without links.
        Err(_) if fs::symlink_metadata(to).is_err() => fs::rename(partial, to).map_err(io(to)),
        Err(_) => Err(taken()),
    }
}
