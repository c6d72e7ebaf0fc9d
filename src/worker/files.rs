//! What a lease needs on this machine: the model's files, and facts and a corpus that lie in objects.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

use super::engine::Files;
use crate::blocking::blocking;
use crate::client::{self, Client};
use crate::objects::{self, Digest, ObjectStore, Pin};
use crate::proto::v1;
use crate::version::base_version;

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
    /// A part of a corpus could not be fetched or read.
    #[error("cannot get the corpus {digest} from byte {offset} on: {problem}")]
    Part {
        /// Its digest.
        digest: String,
        /// Where the part begins.
        offset: u64,
        /// Why not.
        problem: String,
    },
    /// The key statistics of an edit could not be fetched.
    #[error("cannot get the key statistics {digest}: {problem}")]
    Statistics {
        /// Their object.
        digest: String,
        /// Why not.
        problem: String,
    },
    /// What a version is made of could not be fetched or read.
    #[error("cannot get {version}: {problem}")]
    Version {
        /// The version.
        version: String,
        /// Why not.
        problem: String,
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

/// Gets what a lease needs: its model as [`checkpoint`] lays it out, and its corpus. They stay until
/// the answer is dropped.
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
    let mut pins = Vec::new();
    Ok(Files {
        checkpoint: checkpoint(client, objects, cache, &model, &mut pins).await?,
        corpus: match named {
            Some(named) => Some(corpus(client, objects, named, &mut pins).await?),
            None => None,
        },
        pins,
    })
}

/// Fetches an object of `size` bytes. It stays here until the answer is dropped.
async fn object(
    client: &Client,
    objects: &ObjectStore,
    digest: Digest,
    size: u64,
) -> Result<Pin, objects::Error> {
    let store = objects.clone();
    // Before it is looked for: it may be here, and be evicted.
    let pin = objects::blocking(move || store.pin(&digest)).await?;
    client::download(client.objects(), &digest, size, objects, |_| {}).await?;
    Ok(pin)
}

/// Fetches an object of `size` bytes and reads it.
async fn read(
    client: &Client,
    objects: &ObjectStore,
    digest: Digest,
    size: u64,
) -> Result<Vec<u8>, objects::Error> {
    let _pin = object(client, objects, digest, size).await?;
    let store = objects.clone();
    objects::blocking(move || store.read(&digest)).await
}

async fn corpus(
    client: &Client,
    objects: &ObjectStore,
    named: &v1::Corpus,
    pins: &mut Vec<Pin>,
) -> Result<PathBuf, Error> {
    let failed = |source| Error::Corpus {
        digest: named.digest.clone(),
        source: Box::new(source),
    };
    let digest: Digest = named.digest.parse().map_err(failed)?;
    let pin = object(client, objects, digest, named.size).await;
    pins.push(pin.map_err(failed)?);
    Ok(objects.path(&digest))
}

/// Lays a model out as a checkpoint under `cache` and gives the path to open. A file that is seen
/// where it was imported from is used from there if its digest fits; others are fetched, and stay as
/// long as the pins.
///
/// # Errors
/// When a file can be had from neither place, or the folder cannot be written.
async fn checkpoint(
    client: &Client,
    objects: &ObjectStore,
    cache: &Path,
    model: &v1::Model,
    pins: &mut Vec<Pin>,
) -> Result<PathBuf, Error> {
    let folder = cache.join("checkpoints").join(&model.digest);
    let layout = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Layout { path, source }
    };
    fs::create_dir_all(&folder).map_err(layout(&folder))?;
    for file in &model.files {
        let failed = |source| Error::Object {
            file: file.file_name.clone(),
            model: model.name.clone(),
            source: Box::new(source),
        };
        let digest: Digest = file.digest.parse().map_err(failed)?;
        let source = match shared(file, &digest).await {
            Some(path) => path,
            None => {
                tracing::debug!(model = model.name, file = file.file_name, "fetching");
                let pin = object(client, objects, digest, file.size).await;
                pins.push(pin.map_err(failed)?);
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
/// [`Error::Facts`], [`Error::Part`] and [`Error::Version`].
pub async fn complete(
    client: &Client,
    objects: &ObjectStore,
    mut lease: v1::Lease,
) -> Result<v1::Lease, Error> {
    if let Some(v1::lease::Settings::Stats(spec)) = &lease.settings {
        let corpus = spec.corpus.clone().unwrap_or_default();
        for unit in &mut lease.units {
            if let Some(v1::leased_unit::Spec::Stats(piece)) = &mut unit.spec
                && let Some(range) = piece.range.take()
            {
                piece.documents = texts(client, &corpus, &range).await?;
            }
        }
    }
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
        let bytes = read(client, objects, digest, noise.facts_size).await;
        let bytes = bytes.map_err(object)?;
        let list = v1::FactList::decode(bytes.as_slice()).map_err(|e| failed(e.to_string()))?;
        noise.subjects = list.facts.into_iter().map(|fact| fact.subject).collect();
    }
    lease.leased_version = version(client, objects, &lease).await?;
    Ok(lease)
}

/// The texts of a part of a corpus, of which nothing else is fetched.
async fn texts(
    client: &Client,
    corpus: &v1::Corpus,
    range: &v1::stats_unit::Range,
) -> Result<Vec<String>, Error> {
    let failed = |problem: String| Error::Part {
        digest: corpus.digest.clone(),
        offset: range.offset,
        problem,
    };
    let status = |status: tonic::Status| failed(status.message().to_owned());
    let request = v1::ReadObjectRequest {
        digest: corpus.digest.clone(),
        offset: range.offset,
    };
    let mut stream = client
        .objects()
        .read_object(request)
        .await
        .map_err(status)?
        .into_inner();
    let length = usize::try_from(range.length).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    while bytes.len() < length {
        match stream.message().await.map_err(status)? {
            Some(chunk) => bytes.extend_from_slice(&chunk.data),
            None => break,
        }
    }
    bytes.truncate(length);
    if Digest::of(&bytes).to_string() != range.digest {
        return Err(failed("what came is not what the job names".to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| failed(error.to_string()))?;
    crate::datasets::corpus::parse("the part", text).map_err(|error| failed(error.to_string()))
}

/// What the version of a lease is made of, with the numbers; none for the model as it was
/// imported.
///
/// # Errors
/// [`Error::Version`].
async fn version(
    client: &Client,
    objects: &ObjectStore,
    lease: &v1::Lease,
) -> Result<Option<v1::LeasedVersion>, Error> {
    let model = lease.model.as_ref();
    let (name, digest) = model.map_or(("", ""), |model| (&model.name, &model.digest));
    let base = base_version(name.trim_start_matches("models/"), digest);
    if lease.version.is_empty() || lease.version == base.name {
        return Ok(None);
    }
    let failed = |problem: String| Error::Version {
        version: lease.version.clone(),
        problem,
    };
    let status = |status: tonic::Status| failed(status.message().to_owned());
    let request = v1::GetVersionRequest {
        name: lease.version.clone(),
    };
    let mut versions = client.versions();
    let version = versions.get_version(request).await.map_err(status)?;
    let mut factors = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListFactorsRequest {
            parent: lease.version.clone(),
            page_size: 1000,
            page_token,
        };
        let page = versions
            .list_factors(request)
            .await
            .map_err(status)?
            .into_inner();
        factors.extend(page.factors);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    let object = |error: objects::Error| failed(error.to_string());
    for factor in &mut factors {
        let digest: Digest = factor.digest.parse().map_err(object)?;
        let size = (factor.width + factor.inner) * u64::from(factor.rank) * 4;
        let data = read(client, objects, digest, size).await;
        factor.data = data.map_err(object)?;
    }
    Ok(Some(v1::LeasedVersion {
        version: version.into_inner().version,
        factors,
    }))
}

/// Fetches the key statistics that a lease with edits names, and writes into it where they are: there
/// they stay until the answer is dropped.
///
/// # Errors
/// [`Error::Statistics`].
pub async fn statistics(
    client: &Client,
    objects: &ObjectStore,
    lease: &mut v1::Lease,
) -> Result<Option<Pin>, Error> {
    let spec = match &mut lease.settings {
        Some(v1::lease::Settings::Edit(spec)) => Some(spec),
        Some(v1::lease::Settings::Eval(spec)) => spec.edit_each.as_mut(),
        _ => None,
    };
    let Some(statistics) = spec.and_then(|spec| spec.statistics.as_mut()) else {
        return Ok(None);
    };
    let failed = |error: objects::Error| Error::Statistics {
        digest: statistics.digest.clone(),
        problem: error.to_string(),
    };
    let digest: Digest = statistics.digest.parse().map_err(failed)?;
    let pin = object(client, objects, digest, statistics.size).await;
    let pin = pin.map_err(failed)?;
    statistics.path = objects.path(&digest).display().to_string();
    Ok(Some(pin))
}

/// Stores bytes here and with the coordinator, and gives their digest.
///
/// # Errors
/// When either place does not take them.
pub async fn keep(
    client: &Client,
    objects: &ObjectStore,
    bytes: Vec<u8>,
) -> Result<String, objects::Error> {
    let store = objects.clone();
    let stored = objects::blocking(move || {
        let digest = Digest::of(&bytes);
        let pin = store.pin(&digest)?;
        store.put(&bytes)?;
        Ok((digest, pin))
    });
    let (digest, _pin) = stored.await?;
    client::upload(client.objects(), &digest, &objects.path(&digest), |_| {}).await?;
    Ok(digest.to_string())
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
