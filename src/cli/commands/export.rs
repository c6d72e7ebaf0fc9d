//! `palimpsest export`: a version as files that other programs load.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use indicatif::ProgressBar;

use crate::audit::Signer;
use crate::cli::connection::{Connection, Need};
use crate::cli::names;
use crate::client::{self, Client};
use crate::config::ClientConfig;
use crate::model::is_gguf;
use crate::objects::{Digest, ObjectStore};
use crate::proto::v1;
use crate::version::Base;
use crate::version::Factor;
use crate::version::export::{self, Format, Scratch, Seal, Source};

/// Flags of `export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to: a folder for safetensors and peft, a file for gguf-lora and factors
    out: PathBuf,
    /// The version: a ref, v3, a digest's beginning, main~2
    #[arg(long = "ref", value_name = "VERSION", default_value = "main")]
    version: String,
    /// safetensors: the whole edited model for transformers, vLLM ...; peft: a LoRA adapter for
    /// the base; gguf-lora: the same for llama.cpp; factors: for 'palimpsest edit import'
    #[arg(long, default_value = "safetensors")]
    format: String,
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    /// Sign what is written with this key of yours: a manifest of the version and of every file,
    /// which 'palimpsest verify-manifest' checks anywhere
    #[arg(long, value_name = "KEY-FILE")]
    sign: Option<PathBuf>,
}

/// Writes the files.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let Some(format) = Format::ALL.into_iter().find(|f| f.name() == args.format) else {
        let names = Format::ALL.map(Format::name).join(", ");
        bail!("--format '{}': use {names}", args.format);
    };
    check_place(&args.out, format)?;
    let signer = args.sign.as_deref().map(Signer::read_private).transpose()?;
    let connection = Connection::open(config, Need::Records).await?;
    let done = write(&args, format, signer, &connection).await;
    connection.close().await;
    done.map(|()| ExitCode::SUCCESS)
}

/// A place that cannot be written to is refused before a model is fetched for it.
fn check_place(out: &Path, format: Format) -> anyhow::Result<()> {
    let shown = out.display();
    if std::fs::symlink_metadata(out).is_ok() {
        bail!("{shown} is there already: choose another name");
    }
    if !format.is_folder() && out.as_os_str().as_encoded_bytes().ends_with(b"/") {
        bail!(
            "{shown} names a folder, {} is one file: leave the slash out",
            format.name()
        );
    }
    let parents = out.ancestors().skip(1);
    match parents.into_iter().find(|parent| parent.exists()) {
        Some(parent) if !parent.is_dir() => bail!(
            "{shown} cannot be written: {} is a file, not a folder",
            parent.display()
        ),
        _ => Ok(()),
    }
}

async fn write(
    args: &Args,
    format: Format,
    signer: Option<Signer>,
    connection: &Connection,
) -> anyhow::Result<()> {
    let client = connection.client();
    let model = names::model(client, args.model.as_deref()).await?;
    let found = names::get_version(client, &model, &args.version).await?;
    let request = v1::GetModelRequest {
        name: model.clone(),
    };
    let model = client.models().get_model(request).await?.into_inner();
    let model = model.model.unwrap_or_default();
    // Beside the destination, which has room for a model.
    let folder = Scratch::beside(&args.out, "sources")?;
    let objects = match connection.objects() {
        Some(objects) => objects,
        None => ObjectStore::open(folder.path().join("objects"))?,
    };
    let mut wanted: Vec<(String, u64)> = model
        .files
        .iter()
        .map(|file| (file.digest.clone(), file.size))
        .collect();
    let mut edits = Vec::new();
    for edit in client.all_edits(&found.name).await? {
        for factor in &edit.factors {
            let bytes = Factor::bytes(factor);
            let bytes = bytes.with_context(|| format!("{} has no size", factor.tensor_name))?;
            wanted.push((factor.digest.clone(), bytes));
        }
        edits.push((names::full(&edit.name).to_owned(), edit.factors));
    }
    fetch(client, &objects, &wanted).await?;
    let (out, layout) = (args.out.clone(), folder.path().join("checkpoint"));
    let version_name = found.name.clone();
    let seal = signer.map(|signer| Seal {
        manifest: names::manifest(&found),
        signer,
    });
    let of_gguf = model.files.iter().any(|file| is_gguf(&file.file_name));
    let base_name = base_name(&model);
    let name = base_name.clone();
    let written = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        let base = Base::open(&objects, &layout, &model)?;
        let edits: Vec<(String, Vec<Factor>)> = edits
            .into_iter()
            .map(|(id, factors)| Ok((id, read(&objects, &factors)?)))
            .collect::<anyhow::Result<_>>()?;
        let source = Source {
            base: &base,
            version: &found,
            edits: &edits,
            base_name: &name,
        };
        Ok(export::write(&source, format, &out, seal.as_ref())?)
    });
    written.await??;
    say!(
        "wrote {} of {} as {}",
        names::brief(&version_name),
        args.version,
        format.name()
    );
    if format.name() == "peft" && of_gguf {
        say!(
            "adapter_config.json names the base {base_name}: PEFT loads none from a GGUF file, so put the Hugging Face \
             model's name or folder there"
        );
    }
    if args.sign.is_some() {
        let manifest = export::manifest_of(&args.out, format.is_folder());
        say!("signed: {}", manifest.display());
    }
    show!("{}", args.out.display())?;
    Ok(())
}

fn read(objects: &ObjectStore, factors: &[v1::LowRankFactor]) -> anyhow::Result<Vec<Factor>> {
    let read = |factor: &v1::LowRankFactor| {
        let digest: Digest = factor.digest.parse()?;
        Ok(Factor::from_proto(factor, &objects.read(&digest)?)?)
    };
    factors.iter().map(read).collect()
}

/// Fetches objects that are not here.
async fn fetch(
    client: &Client,
    objects: &ObjectStore,
    wanted: &[(String, u64)],
) -> anyhow::Result<()> {
    let bar = ProgressBar::new(wanted.iter().map(|(_, size)| size).sum());
    for (digest, size) in wanted {
        let digest: Digest = digest.parse()?;
        let before = bar.position();
        client::download(client.objects(), &digest, *size, objects, |bytes| {
            bar.set_position(before + bytes);
        })
        .await?;
        bar.set_position(bar.position().max(*size));
    }
    bar.finish_and_clear();
    Ok(())
}

/// What another program finds the base by: its folder, where it was imported from one. A GGUF file
/// is none that PEFT loads a base from; then the model's own name, which its user puts the base's
/// in place of.
fn base_name(model: &v1::Model) -> String {
    let first = model.files.first().map(|file| Path::new(&file.source_path));
    let folder = match model.files.len() {
        1 => None,
        _ => first.and_then(Path::parent),
    };
    let name = model.name.trim_start_matches("models/");
    folder.map_or(name.to_owned(), |folder| folder.display().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_written_to_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let said = |name: &str, format| {
            let held = check_place(&at(name), format);
            held.map_err(|error| error.to_string()).unwrap_err()
        };
        std::fs::write(at("file"), b"mine").unwrap();
        assert!(said("file", Format::Factors).contains("is there already"));
        assert!(said("out/", Format::Factors).contains("leave the slash out"));
        assert!(said("file/deep/out", Format::Peft).contains("file is a file, not a folder"));
        assert!(check_place(&at("out/"), Format::Peft).is_ok());
        assert!(check_place(&at("no/such/deep"), Format::Factors).is_ok());
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
            assert!(said("dangling", Format::Factors).contains("is there already"));
        }
    }
}
