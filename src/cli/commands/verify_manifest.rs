//! `palimpsest verify-manifest`: checks what an author signed, with nothing but a key.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use crate::audit::{Manifest, merkle};
use crate::cli::output;
use crate::text::utf8;
use crate::version::export::MANIFEST;

/// Flags of `verify-manifest`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder that 'palimpsest export --sign' wrote, the manifest beside a file of it, or what
    /// 'palimpsest sign' printed
    path: PathBuf,
    /// The author's key, as they gave it to you ('palimpsest auth signing-key' printed it)
    #[arg(long, value_name = "KEY")]
    key: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Checks a manifest and the files that it is of, and shows what it says.
///
/// # Errors
/// What does not hold.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let is_folder = args.path.is_dir();
    let file = match is_folder {
        true => args.path.join(MANIFEST),
        false => args.path.clone(),
    };
    let said = || file.display().to_string();
    let note = utf8::read(&file).with_context(said)?;
    let manifest = Manifest::verify(&note, &args.key).with_context(said)?;
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty());
    if !manifest.files.is_empty() {
        // A folder was written whole; beside a file there may be others.
        let is_of_it = |name: &str| is_folder && name != MANIFEST;
        let folder = folder.unwrap_or(Path::new("."));
        manifest.check_files(folder, is_of_it).with_context(said)?;
    }
    match args.json {
        true => output::json(&to_json(&manifest))?,
        false => print(&manifest)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(manifest: &Manifest) -> anyhow::Result<()> {
    show!("version  {}", manifest.version)?;
    show!("base     {}", manifest.base)?;
    for (name, value) in [
        ("parent", &manifest.parent),
        ("author", &manifest.author),
        ("time", &manifest.time),
        ("why", &manifest.why),
    ] {
        if !value.is_empty() {
            show!("{name:<9}{value}")?;
        }
    }
    show!("edits    {}", manifest.edits)?;
    for it in &manifest.matrices {
        show!("matrix   {} {} {}", it.digest, it.dtype, it.name)?;
    }
    for it in &manifest.files {
        show!(
            "file     {} {} {}",
            merkle::hex(&it.digest),
            it.size,
            it.name
        )?;
    }
    match manifest.files.len() {
        0 => say!("the manifest holds; it is of the version alone, without files"),
        1 => say!("the manifest holds, and its file is as it was signed"),
        files => say!("the manifest holds, and its {files} files are as they were signed"),
    }
    Ok(())
}

fn to_json(manifest: &Manifest) -> Value {
    let matrices = manifest.matrices.iter();
    let files = manifest.files.iter();
    json!({
        "version": manifest.version, "base": manifest.base, "parent": manifest.parent,
        "author": manifest.author, "time": manifest.time, "why": manifest.why, "edits": manifest.edits,
        "matrices": matrices
            .map(|it| json!({ "name": it.name, "dtype": it.dtype, "digest": it.digest }))
            .collect::<Vec<_>>(),
        "files": files
            .map(|it| json!({ "name": it.name, "size": it.size, "sha256": merkle::hex(&it.digest) }))
            .collect::<Vec<_>>(),
    })
}
