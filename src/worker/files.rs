//! Where a model's files are on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::blocking::blocking;
use crate::client::Client;
use crate::objects::{self, Digest, ObjectStore};
use crate::proto::v1;

/// Why a model's files could not be had.
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
    /// The folder of the model could not be laid out.
    #[error("cannot lay out {path}: {source}")]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
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
