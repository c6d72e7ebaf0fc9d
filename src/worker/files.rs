//! What a lease needs on this machine: the model's files, and facts and a corpus that lie in objects.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

use super::engine::Files;
use crate::blocking::blocking;
use crate::client::Client;
use crate::objects::{self, Digest, ObjectStore};
use crate::proto::v1;

/// Why a lease's files could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file's object could not be fetched or kept.
    #[error("cannot get the file '{file}' of {model}: {source}")]
    Object {
        /// The file.
        file: String,
        /// The model.
        model: String,
        /// Why not.
        source: Box<objects::Error>,
    },
    /// The facts of a sweep could not be fetched or read.
    #[error("cannot get the facts {digest}: {problem}")]
    Facts {
        /// Their object.
        digest: String,
        /// Why not.
        problem: String,
    },
    /// The corpus could not be fetched or kept.
    #[error("cannot get the corpus {digest}: {source}")]
    Corpus {
        /// Its digest.
        digest: String,
        /// Why not.
        source: Box<objects::Error>,
    },
    /// The folder of the model could not be laid out.
    #[error("cannot lay out {path}: {source}")]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Gets what a lease needs: its model as [`checkpoint`] lays it out, and its corpus.
///
/// # Errors
/// When one of them cannot be had.
pub async fn fetch(
    client: &Client,
    objects: &ObjectStore,
    cache: &Path,
    lease: &v1::Lease,
) -> Result<Files, Error> {
    let model = lease.model.clone().unwrap_or_default();
    let named = match &lease.settings {
        Some(v1::lease::Settings::Trace(trace)) => trace.noise_corpus.as_ref(),
        _ => None,
    };
    Ok(Files {
        checkpoint: checkpoint(client, objects, cache, &model).await?,
        corpus: match named {
            Some(named) => Some(corpus(client, objects, named).await?),
            None => None,
        },
    })
}

async fn corpus(
    client: &Client,
    objects: &ObjectStore,
    named: &v1::Corpus,
) -> Result<PathBuf, Error> {
    let failed = |source| Error::Corpus {
        digest: named.digest.clone(),
        source: Box::new(source),
    };
    let digest: Digest = named.digest.parse().map_err(failed)?;
    objects::download(client.objects(), &digest, named.size, objects, |_| {})
        .await
        .map_err(failed)?;
    Ok(objects.path(&digest))
}

/// Lays a model out as a checkpoint under `cache` and gives the path to open. A file that is seen
/// where it was imported from is used from there if its digest fits; others are fetched.
///
/// # Errors
/// When a file can be had from neither place, or the folder cannot be written.
pub async fn checkpoint(
    client: &Client,
    objects: &ObjectStore,
    cache: &Path,
    model: &v1::Model,
) -> Result<PathBuf, Error> {
    let folder = cache.join("checkpoints").join(&model.digest);
    let layout = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Layout { path, source }
    };
    fs::create_dir_all(&folder).map_err(layout(&folder))?;
    for file in &model.files {
        let object = |source| Error::Object {
            file: file.file_name.clone(),
            model: model.name.clone(),
            source: Box::new(source),
        };
        let digest: Digest = file.digest.parse().map_err(object)?;
        let source = match shared(file, &digest).await {
            Some(path) => path,
            None => {
                if !objects.contains(&digest).map_err(object)? {
                    tracing::info!(model = model.name, file = file.file_name, "fetching");
                    objects::download(client.objects(), &digest, file.size, objects, |_| {})
                        .await
                        .map_err(object)?;
                }
                objects.path(&digest)
            }
        };
        link(&source, &folder.join(&file.file_name)).map_err(layout(&folder))?;
    }
    Ok(match model.files.as_slice() {
        [only] if only.file_name.ends_with(".gguf") => folder.join(&only.file_name),
        _ => folder,
    })
}

/// Fetches what the units of a lease name only, and gives the lease with it in its place.
///
/// # Errors
/// [`Error::Facts`].
pub async fn complete(
    client: &Client,
    objects: &ObjectStore,
    mut lease: v1::Lease,
) -> Result<v1::Lease, Error> {
    for unit in &mut lease.units {
        let Some(v1::leased_unit::Spec::Noise(noise)) = &mut unit.spec else {
            continue;
        };
        if noise.facts_object.is_empty() {
            continue;
        }
        let failed = |problem: String| Error::Facts {
            digest: noise.facts_object.clone(),
            problem,
        };
        let object = |error: objects::Error| failed(error.to_string());
        let digest: Digest = noise.facts_object.parse().map_err(object)?;
        if !objects.contains(&digest).map_err(object)? {
            objects::download(client.objects(), &digest, noise.facts_size, objects, |_| {})
                .await
                .map_err(object)?;
        }
        let store = objects.clone();
        let read = move || store.read(&digest);
        let bytes = objects::blocking(read).await.map_err(object)?;
        let list = v1::FactList::decode(bytes.as_slice()).map_err(|e| failed(e.to_string()))?;
        noise.subjects = list.facts.into_iter().map(|fact| fact.subject).collect();
    }
    Ok(lease)
}

/// The path a file was imported from, when these very bytes are there.
async fn shared(file: &v1::model::File, digest: &Digest) -> Option<PathBuf> {
    let path = PathBuf::from(&file.source_path);
    let digest = *digest;
    let size = file.size;
    blocking(move || {
        let found = fs::metadata(&path).ok()?;
        let fits = found.len() == size && Digest::of_file(&path).ok()? == digest;
        fits.then_some(path)
    })
    .await
    .ok()?
}

/// Makes `to` a link to `from`, also when another worker does the same at this moment.
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    let from = fs::canonicalize(from)?;
    if fs::read_link(to).is_ok_and(|target| target == from) {
        return Ok(());
    }
    let temporary = to.with_extension(format!("{}.link", std::process::id()));
    let _ = fs::remove_file(&temporary); // of a process of the same number that was killed here
    std::os::unix::fs::symlink(&from, &temporary)?;
    fs::rename(&temporary, to)
}
