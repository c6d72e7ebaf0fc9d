//! `palimpsest model`: import and look at models.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::connection::{Connection, Need};
use crate::cli::{model_folder, names, output};
use crate::client::{self, Client};
use crate::config::ClientConfig;
use crate::model::{Checkpoint, families, gguf_part};
use crate::objects::{self, Digest, ObjectStore};
use crate::plot::table::{Align, Table};
use crate::proto::v1;

/// Subcommands of `model`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Import a checkpoint: a Hugging Face folder, a GGUF file or one of its parts, or hf:ORG/NAME
    Import {
        /// DIR, FILE.gguf or hf:ORG/NAME
        source: String,
        /// What to call it; made from the source's name if it is not given
        #[arg(long)]
        name: Option<String>,
    },
    /// List the models
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a model with its files and tensors
    Show {
        /// The model
        model: String,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs a subcommand.
pub async fn run(command: Command, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    // A checkpoint that cannot be read is said before a store is made for it.
    let prepared = match &command {
        Command::Import { source, name, .. } => Some(prepare(source, name.as_deref())?),
        _ => None,
    };
    let connection = Connection::open(config, Need::Records).await?;
    let client = connection.client().clone();
    let done = match (command, prepared) {
        (_, Some((id, path, model))) => {
            import(&client, connection.objects(), id, &path, model).await
        }
        (Command::List { json, .. }, _) => list(&client, json).await,
        (Command::Show { model, json, .. }, _) => show(&client, &model, json).await,
        (Command::Import { .. }, None) => unreachable!("an import is prepared"),
    };
    drop(client);
    connection.close().await;
    done.map(|()| ExitCode::SUCCESS)
}

/// Reads a checkpoint whole: every tensor is checked and digested before anything is stored.
fn prepare(source: &str, name: Option<&str>) -> anyhow::Result<(String, PathBuf, v1::Model)> {
    let path = match source.strip_prefix("hf:") {
        Some(repository) => fetch_from_hub(repository)?,
        None => PathBuf::from(source),
    };
    let id = match name {
        Some(name) => name.to_owned(),
        None => identifier_of(source),
    };
    model_folder::check(&path)?;
    let checkpoint = Checkpoint::open(&path)?;
    model_folder::check_links(&path, checkpoint.files())?;
    let config = checkpoint.config();
    let infos: Vec<_> = checkpoint.tensors().cloned().collect();
    let bar = ProgressBar::new(infos.len() as u64)
        .with_style(style("checking {bar:30} {pos}/{len} tensors"));
    let mut tensors = Vec::with_capacity(infos.len());
    let (mut parameters, mut in_blocks) = (0, 0);
    for info in &infos {
        let data = checkpoint.tensor(&info.name)?;
        data.check_finite(&info.name)?;
        let dimensions: Vec<u64> = data.shape.iter().map(|&n| n as u64).collect();
        let count: u64 = dimensions.iter().product();
        parameters += count;
        // Matrices of the blocks: the multiply-adds that a token takes in them, of experts in those
        // that it goes to.
        if dimensions.len() >= 2 && info.name.split('.').any(|part| part.parse::<u32>().is_ok()) {
            let layer = families::layer_of_experts(&info.name);
            in_blocks += match layer.and_then(|layer| config.experts_of(layer)) {
                Some(experts) => count * experts.chosen as u64 / experts.count as u64,
                None => count,
            };
        }
        tensors.push(v1::model::Tensor {
            tensor_name: info.name.clone(),
            dtype: data.dtype.name().to_owned(),
            dimensions,
            digest: Digest::of(&data.bytes).to_string(),
        });
        checkpoint.release(&info.name);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let files = checkpoint
        .files()
        .iter()
        .map(|file| {
            let file_name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            Ok(v1::model::File {
                file_name,
                digest: Digest::of_file(file)?.to_string(),
                size: std::fs::metadata(file)?.len(),
                source_path: std::fs::canonicalize(file)?.to_string_lossy().into_owned(),
            })
        })
        .collect::<anyhow::Result<_>>()
        .with_context(|| format!("cannot read the files of {}", path.display()))?;
    let model = v1::Model {
        family: config.family.model_type().to_owned(),
        shape: Some(v1::model::Shape {
            layers: config.layers as u32,
            width: config.width as u32,
            heads: config.heads as u32,
            vocabulary: config.vocab as u32,
            context: config.context as u32,
            parameters,
            block_parameters: in_blocks / config.layers.max(1) as u64,
        }),
        files,
        tensors,
        ..Default::default()
    };
    Ok((id, path, model))
}

async fn import(
    client: &Client,
    embedded: Option<ObjectStore>,
    id: String,
    path: &Path,
    model: v1::Model,
) -> anyhow::Result<()> {
    let total = model.files.iter().map(|file| file.size).sum();
    let bar = ProgressBar::new(total).with_style(style(
        "storing {bar:30} {bytes}/{total_bytes} {bytes_per_sec}",
    ));
    let mut before = 0;
    for file in &model.files {
        let digest: Digest = file.digest.parse()?;
        let source = Path::new(&file.source_path);
        let stored = match &embedded {
            Some(store) => store_here(store, digest, source, file.size).await,
            None => {
                let show = |sent| bar.set_position(before + sent);
                client::upload(client.objects(), &digest, source, show).await
            }
        };
        stored.with_context(|| format!("cannot store {}", source.display()))?;
        before += file.size;
    }
    bar.finish_and_clear();
    let request = v1::CreateModelRequest {
        model_id: id,
        model: Some(model),
    };
    let model = client
        .models()
        .create_model(request)
        .await?
        .into_inner()
        .model
        .unwrap_or_default();
    let shape = model.shape.unwrap_or_default();
    say!(
        "imported {} from {}: {}, {} layers, {} parameters",
        model.name,
        path.display(),
        model.family,
        shape.layers,
        output::grouped(shape.parameters)
    );
    show!("{}", model.name)?;
    Ok(())
}

/// Stores a file in the store of the coordinator inside this command: copied by the kernel, which
/// on file systems that can do so shares its blocks in place of copying them.
async fn store_here(
    store: &ObjectStore,
    digest: Digest,
    path: &Path,
    size: u64,
) -> Result<(), objects::Error> {
    let (store, path) = (store.clone(), path.to_owned());
    objects::blocking(move || {
        let _admitted = store.admit(&digest, size)?;
        store.put_file(&digest, &path)
    })
    .await
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let models = client.all_models().await?;
    if json {
        for model in &models {
            output::json(&to_json(model))?;
        }
        return Ok(());
    }
    let mut table = Table::new(&[
        ("MODEL", Align::Left),
        ("FAMILY", Align::Left),
        ("LAYERS", Align::Right),
        ("WIDTH", Align::Right),
        ("PARAMETERS", Align::Right),
        ("IMPORTED", Align::Left),
    ]);
    for model in &models {
        let shape = model.shape.unwrap_or_default();
        table.row([
            model.name.trim_start_matches("models/").to_owned(),
            model.family.clone(),
            shape.layers.to_string(),
            shape.width.to_string(),
            output::grouped(shape.parameters),
            output::time(model.create_time.as_ref()),
        ]);
    }
    Ok(output::print_table(&table)?)
}

async fn show(client: &Client, name: &str, json: bool) -> anyhow::Result<()> {
    let name = names::model(client, Some(name)).await?;
    let model = client
        .models()
        .get_model(v1::GetModelRequest { name })
        .await?
        .into_inner();
    let model = model.model.unwrap_or_default();
    if json {
        output::json(&to_json(&model))?;
        return Ok(());
    }
    let shape = model.shape.unwrap_or_default();
    show!("model       {}", model.name.trim_start_matches("models/"))?;
    show!("family      {}", model.family)?;
    show!("layers      {}", shape.layers)?;
    show!("width       {}", shape.width)?;
    show!("heads       {}", shape.heads)?;
    show!(
        "vocabulary  {}",
        output::grouped(u64::from(shape.vocabulary))
    )?;
    show!("context     {}", output::grouped(u64::from(shape.context)))?;
    show!("parameters  {}", output::grouped(shape.parameters))?;
    show!("imported    {}", output::time(model.create_time.as_ref()))?;
    show!("digest      {}", model.digest)?;
    show!("")?;
    let mut files = Table::new(&[
        ("FILE", Align::Left),
        ("SIZE", Align::Right),
        ("DIGEST", Align::Left),
    ]);
    for file in &model.files {
        files.row([
            file.file_name.clone(),
            output::bytes(file.size),
            file.digest.clone(),
        ]);
    }
    output::print_table(&files)?;
    show!("")?;
    let mut tensors = Table::new(&[
        ("TENSOR", Align::Left),
        ("TYPE", Align::Left),
        ("SHAPE", Align::Right),
        ("DIGEST", Align::Left),
    ]);
    for tensor in &model.tensors {
        let shape: Vec<String> = tensor.dimensions.iter().map(u64::to_string).collect();
        tensors.row([
            tensor.tensor_name.clone(),
            tensor.dtype.clone(),
            shape.join(" x "),
            tensor.digest.clone(),
        ]);
    }
    Ok(output::print_table(&tensors)?)
}

fn to_json(model: &v1::Model) -> serde_json::Value {
    let shape = model.shape.unwrap_or_default();
    serde_json::json!({
        "name": model.name,
        "family": model.family,
        "layers": shape.layers,
        "width": shape.width,
        "heads": shape.heads,
        "vocabulary": shape.vocabulary,
        "context": shape.context,
        "parameters": shape.parameters,
        "digest": model.digest,
        "files": model.files.iter().map(|file| serde_json::json!({
            "file_name": file.file_name, "digest": file.digest, "size": file.size,
        })).collect::<Vec<_>>(),
        "tensors": model.tensors.iter().map(|tensor| serde_json::json!({
            "name": tensor.tensor_name, "dtype": tensor.dtype, "shape": tensor.dimensions,
            "digest": tensor.digest,
        })).collect::<Vec<_>>(),
    })
}

/// A model's identifier from where it comes: `…/SmolLM2-135M.Q4_1.gguf` is `smollm2-135m.q4_1`.
fn identifier_of(source: &str) -> String {
    let last = source
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let whole = last.strip_suffix(".gguf").unwrap_or(last);
    let last = gguf_part(last).map_or(whole, |(stem, _, _)| stem);
    let letters: String = last
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .collect();
    letters.trim_start_matches(['.', '_', '-']).to_owned()
}

/// Fetches a checkpoint from the hub into its own cache, and gives the folder.
fn fetch_from_hub(repository: &str) -> anyhow::Result<PathBuf> {
    let failed = || format!("cannot fetch {repository} from the hub");
    let api = hf_hub::api::sync::Api::new().with_context(failed)?;
    let files = api.model(repository.to_owned());
    let info = files.info().with_context(failed)?;
    let mut folder = None;
    let wanted = |name: &str| {
        let plain = !name.contains('/');
        let weights = name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
        plain
            && (weights
                || matches!(
                    name,
                    "config.json"
                        | "generation_config.json"
                        | "tokenizer.json"
                        | "tokenizer_config.json"
                ))
    };
    for file in info.siblings.iter().filter(|file| wanted(&file.rfilename)) {
        let path = files.get(&file.rfilename).with_context(failed)?;
        folder = path.parent().map(Path::to_owned);
    }
    folder.with_context(|| format!("{repository} has no safetensors checkpoint"))
}

fn style(template: &str) -> ProgressStyle {
    // The template is this file's own; a wrong one would show as no bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_after_its_source() {
        assert_eq!(
            identifier_of("/x/SmolLM2-135M.Q4_1.gguf"),
            "smollm2-135m.q4_1"
        );
        assert_eq!(identifier_of("/x/Big-00002-of-00003.gguf"), "big");
        assert_eq!(identifier_of("hf:openai/GPT2-XL"), "gpt2-xl");
        assert_eq!(identifier_of("models/My Model/"), "my-model");
    }
}
