//! Files of leases on this machine: objects, and models laid out as checkpoints.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tonic::Status;

use super::leased::LastVersion;
use crate::blocking::blocking;
use crate::client::{self, Client};
use crate::model::Checkpoint;
use crate::objects::{self, Digest, ObjectStore, Pin};
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
    /// The texts that edits are judged by could not be fetched or read.
    #[error("cannot get the texts {digest} that edits are judged by: {problem}")]
    GateTexts {
        /// Their digest.
        digest: String,
        /// Why not.
        problem: String,
    },
    /// The questions that edits are judged by could not be fetched or read.
    #[error("cannot get the questions {digest} that edits are judged by: {problem}")]
    GateQuestions {
        /// Their digest.
        digest: String,
        /// Why not.
        problem: String,
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
    /// What a unit needs of earlier stages could not be fetched or read.
    #[error("cannot get what an earlier stage found: {problem}")]
    Earlier {
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

/// Where a worker's files come from, and where they go.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    pub client: Client,
    pub objects: ObjectStore,
    /// The folder of laid-out checkpoints.
    pub cache: PathBuf,
    /// The version that was fetched last.
    pub last: LastVersion,
}

impl Fetcher {
    /// Fetches an object of `size` bytes. It stays here until the answer is dropped.
    pub async fn object(&self, digest: Digest, size: u64) -> Result<Pin, objects::Error> {
        let store = self.objects.clone();
        // Before it is looked for: it may be here, and be evicted.
        let pin = objects::blocking(move || store.pin(&digest)).await?;
        client::download(self.client.objects(), &digest, size, &self.objects, |_| {}).await?;
        Ok(pin)
    }

    /// The results of units of an earlier stage that a lease needs.
    pub async fn earlier_results(
        &self,
        lease: &v1::Lease,
        units: Option<v1::UnitRange>,
    ) -> Result<Vec<v1::UnitResult>, Status> {
        let request = v1::ReadResultsRequest {
            lease: lease.key.clone(),
            units,
        };
        let stream = self.client.workers().read_results(request).await?;
        let mut stream = stream.into_inner();
        let mut results = Vec::new();
        while let Some(page) = stream.message().await? {
            results.extend(page.results);
        }
        Ok(results)
    }

    /// Fetches an object of `size` bytes and reads it.
    pub async fn read(&self, digest: Digest, size: u64) -> Result<Vec<u8>, objects::Error> {
        let _pin = self.object(digest, size).await?;
        let store = self.objects.clone();
        objects::blocking(move || store.read(&digest)).await
    }

    /// At most `length` bytes of an object from `offset` on, of which nothing else is fetched.
    pub async fn part(&self, digest: &str, offset: u64, length: usize) -> Result<Vec<u8>, Status> {
        let request = v1::ReadObjectRequest {
            digest: digest.to_owned(),
            offset,
        };
        let mut stream = self
            .client
            .objects()
            .read_object(request)
            .await?
            .into_inner();
        let mut bytes = Vec::new();
        while bytes.len() < length {
            match stream.message().await? {
                Some(chunk) => bytes.extend_from_slice(&chunk.data),
                None => break,
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// A version and its factors, without their numbers.
    pub async fn version(
        &self,
        name: &str,
    ) -> Result<(v1::Version, Vec<v1::LowRankFactor>), Status> {
        let request = v1::GetVersionRequest {
            name: name.to_owned(),
            without_edits: true,
        };
        let mut versions = self.client.versions();
        let version = versions.get_version(request).await?.into_inner().version;
        let mut factors = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListFactorsRequest {
                parent: name.to_owned(),
                page_size: 1000,
                page_token,
            };
            let page = versions.list_factors(request).await?.into_inner();
            factors.extend(page.factors);
            if page.next_page_token.is_empty() {
                return Ok((version.unwrap_or_default(), factors));
            }
            page_token = page.next_page_token;
        }
    }

    /// The edits of a version, in order, without their contexts.
    pub async fn edits(&self, version: &str) -> Result<Vec<v1::Edit>, Status> {
        self.client.all_edits(version).await
    }

    /// Lays a model out as a checkpoint and gives the path to open. A file that is seen where it
    /// was imported from is used from there if its digest fits; others are fetched, and stay as
    /// long as the pins.
    ///
    /// # Errors
    /// When a file can be had from neither place, or the folder cannot be written.
    pub async fn checkpoint(
        &self,
        model: &v1::Model,
        cancelled: &Arc<AtomicBool>,
        pins: &mut Vec<Pin>,
    ) -> Result<PathBuf, Error> {
        let folder = self.cache.join("checkpoints").join(&model.digest);
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
            let source = match shared(file, digest, cancelled.clone()).await {
                Some(path) => path,
                None => {
                    tracing::debug!(model = model.name, file = file.file_name, "fetching");
                    let pin = self.object(digest, file.size).await;
                    pins.push(pin.map_err(failed)?);
                    self.objects.path(&digest)
                }
            };
            link(&source, &folder.join(&file.file_name)).map_err(layout(&folder))?;
        }
        let first = model.files.first().map(|file| file.file_name.as_str());
        Ok(Checkpoint::laid_out(&folder, first))
    }

    /// Stores bytes here and with the coordinator, and gives their digest.
    ///
    /// # Errors
    /// When either place does not take them.
    pub async fn keep(&self, bytes: Vec<u8>) -> Result<String, objects::Error> {
        let store = self.objects.clone();
        let stored = objects::blocking(move || {
            let digest = Digest::of(&bytes);
            let pin = store.pin(&digest)?;
            store.put(&bytes)?;
            Ok((digest, pin))
        });
        let (digest, _pin) = stored.await?;
        client::upload(
            self.client.objects(),
            &digest,
            &self.objects.path(&digest),
            |_| {},
        )
        .await?;
        Ok(digest.to_string())
    }
}

/// The path a file was imported from, when these very bytes are there.
async fn shared(
    file: &v1::model::File,
    digest: Digest,
    cancelled: Arc<AtomicBool>,
) -> Option<PathBuf> {
    let path = PathBuf::from(&file.source_path);
    let size = file.size;
    blocking(move || holds(&path, size, &digest, &cancelled).then_some(path))
        .await
        .ok()?
}

/// Whether a path is a regular file of these bytes. Whoever imported the model chose the path: a
/// device, a pipe or a file of the kernel's may never come to an end, or wait in being opened. So
/// nothing is opened that is not a regular file of the very size, which those of the kernel's do
/// not have, and no more of it is read; and nothing once the lease is taken back.
fn holds(path: &Path, size: u64, digest: &Digest, cancelled: &AtomicBool) -> bool {
    let fits = |found: &fs::Metadata| found.is_file() && found.len() == size;
    if size == 0 || !fs::metadata(path).is_ok_and(|found| fits(&found)) {
        return false;
    }
    let Ok(file) = File::open(path) else {
        return false;
    };
    // Of what was opened, not of what the path was a moment ago.
    if !file.metadata().is_ok_and(|found| fits(&found)) {
        return false;
    }
    let mut rest = file.take(size);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match rest.read(&mut buffer) {
            _ if cancelled.load(Ordering::Relaxed) => return false,
            Ok(0) => return Digest::from(hasher.finalize()) == *digest,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(_) => return false,
        };
    }
}

/// Makes `to` a link to `from`, also when another worker, of this process or another, does the same
/// at this moment.
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let from = fs::canonicalize(from)?;
    if fs::read_link(to).is_ok_and(|target| target == from) {
        return Ok(());
    }
    let mut name = to.as_os_str().to_owned();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}-{number}.link", std::process::id()));
    let temporary = PathBuf::from(name);
    let _ = fs::remove_file(&temporary); // of a process of the same number that was killed here
    std::os::unix::fs::symlink(&from, &temporary)?;
    fs::rename(&temporary, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_of_the_very_size_and_bytes_is_used_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let go_on = AtomicBool::new(false);
        let bytes = vec![7_u8; 3 << 20];
        let size = bytes.len() as u64;
        let digest = Digest::of(&bytes);
        let path = folder.path().join("model.bin");
        fs::write(&path, &bytes).unwrap();
        let linked = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &linked).unwrap();
        assert!(holds(&path, size, &digest, &go_on));
        assert!(holds(&linked, size, &digest, &go_on));
        assert!(!holds(&path, size - 1, &digest, &go_on));
        assert!(!holds(&path, size, &Digest::of(b"other"), &go_on));
        assert!(!holds(folder.path(), 4096, &digest, &go_on));
        assert!(!holds(&folder.path().join("none"), size, &digest, &go_on));
        // The lease was taken back: nothing more is read.
        assert!(!holds(&path, size, &digest, &AtomicBool::new(true)));
        // What never ends, or waits for somebody who writes, is not opened.
        let empty = Digest::of(b"");
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.is_ok_and(|status| status.success()));
        for path in [Path::new("/dev/zero"), Path::new("/dev/null"), &pipe] {
            for size in [0, 1, 1 << 40] {
                assert!(!holds(path, size, &empty, &go_on), "{}", path.display());
            }
        }
        assert!(!holds(Path::new("/proc/self/maps"), 0, &empty, &go_on));
    }

    #[test]
    fn files_are_laid_out_by_several_at_once() {
        let folder = tempfile::tempdir().unwrap();
        // Names that differ in their ends alone.
        let names = ["tokenizer.json", "tokenizer.model"];
        for name in names {
            fs::write(folder.path().join(name), name).unwrap();
        }
        for round in 0..50 {
            let to = folder.path().join(round.to_string());
            fs::create_dir(&to).unwrap();
            std::thread::scope(|scope| {
                for n in 0..8 {
                    let (to, from) = (&to, folder.path());
                    scope.spawn(move || {
                        let name = names[n % 2];
                        link(&from.join(name), &to.join(name)).unwrap();
                    });
                }
            });
            for name in names {
                assert_eq!(fs::read_to_string(to.join(name)).unwrap(), name);
            }
            assert_eq!(fs::read_dir(&to).unwrap().count(), 2, "nothing is left");
        }
    }
}
