//! A model's files: its configuration, its tokenizer and its tensors by canonical name, checked
//! against each other when they are opened.
//!
//! Two sources are read: a folder as transformers writes it (`config.json`, `tokenizer.json`,
//! safetensors in one file or in shards) and GGUF, in one file or in parts. Both give the same names and
//! orientations, those of transformers.

mod gguf;
mod mmap;
mod mxfp4;
mod safetensors;
mod tensor;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Error;
use super::config::Config;
use super::families::{self, Layout, Parameter};
use super::tokenizer::Tokenizer;

pub use gguf::{architectures as gguf_architectures, part_of as gguf_part};
pub use tensor::{DType, TensorData, TensorInfo};

/// An opened model: everything but the arithmetic.
pub struct Checkpoint {
    path: PathBuf,
    config: Config,
    layout: Layout,
    tokenizer: Tokenizer,
    tensors: BTreeMap<String, TensorInfo>,
    source: Source,
    files: Vec<PathBuf>,
}

enum Source {
    Safetensors(safetensors::Folder),
    Gguf(Box<gguf::File>),
}

impl Checkpoint {
    /// Opens a folder as transformers writes it, or a GGUF file, and checks every tensor's
    /// presence, type and shape against the configuration. Weights are mapped, not read.
    ///
    /// # Errors
    /// Anything missing, malformed or not supported, by name.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })?;
        if metadata.is_dir() {
            let folder = safetensors::Folder::open(path)?;
            let config = folder.config()?;
            let eos = folder.eos(&config)?;
            let tokenizer = Tokenizer::from_folder(path, eos)?;
            let (found, files) = (folder.tensors(&config)?, folder.files());
            Self::new(
                path,
                config,
                tokenizer,
                found,
                Source::Safetensors(folder),
                files,
            )
        } else {
            let file = gguf::File::open(path)?;
            let config = file.config()?;
            let tokenizer = file.tokenizer()?;
            let found = file.tensors(&config)?;
            let files = file.files();
            Self::new(
                path,
                config,
                tokenizer,
                found,
                Source::Gguf(Box::new(file)),
                files,
            )
        }
    }

    /// What to open of a model whose files were laid out in a folder, in the order of
    /// [`Checkpoint::files`]: the folder, or the first of them where they are GGUF.
    pub fn laid_out(folder: &Path, first_file: Option<&str>) -> PathBuf {
        match first_file.filter(|name| is_gguf(name)) {
            Some(name) => folder.join(name),
            None => folder.to_owned(),
        }
    }

    fn new(
        path: &Path,
        mut config: Config,
        mut tokenizer: Tokenizer,
        found: Vec<TensorInfo>,
        source: Source,
        files: Vec<PathBuf>,
    ) -> Result<Self, Error> {
        let mut found: BTreeMap<_, _> = found.into_iter().map(|t| (t.name.clone(), t)).collect();
        if config.tied && has_its_own_head(path, &config, &found, &source)? {
            config.tied = false;
        }
        let layout = Layout::new(&config);
        let mut tensors = BTreeMap::new();
        for Parameter { name, shape } in layout.parameters() {
            let Some(info) = found.remove(name) else {
                return Err(Error::MissingTensor {
                    path: path.to_owned(),
                    name: name.clone(),
                    shape: shape.clone(),
                });
            };
            expect(path, &info, shape)?;
            tensors.insert(name.clone(), info);
        }
        // A projection that is stored a second time, equal to the embedding.
        let copy = config.tied.then(|| families::head(config.family));
        if let Some(name) = found.into_keys().find(|name| Some(name.as_str()) != copy) {
            return Err(Error::UnexpectedTensor {
                path: path.to_owned(),
                name,
                family: config.family.model_type(),
            });
        }
        tokenizer.limit(config.vocab);
        Ok(Self {
            path: path.to_owned(),
            config,
            layout,
            tokenizer,
            tensors,
            source,
            files,
        })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model's shape and options.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which tensor is what.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The second matrix of a layer's MLP, which edits change.
    ///
    /// # Errors
    /// [`Error::Mixture`].
    pub fn down_projection(&self, layer: usize) -> Result<&families::Linear, Error> {
        let down = self.layout.layers[layer].down();
        down.ok_or_else(|| self.config.no_key(layer))
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The files it is made of, in a fixed order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Every tensor, by name.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// Reads one tensor by its canonical name; quantised ones come out as `F32`.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`]; [`Error::Malformed`] where a quantised tensor cannot be expanded.
    pub fn tensor(&self, name: &str) -> Result<TensorData<'_>, Error> {
        let info = self.tensors.get(name).ok_or_else(|| Error::NoSuchTensor {
            name: name.to_owned(),
        })?;
        self.source.read(info, &self.config)
    }

    /// Frees what reading a tensor from a mapped file has taken of memory, once it is not needed any
    /// more. It can be read again.
    pub fn release(&self, name: &str) {
        if let Source::Safetensors(folder) = &self.source {
            folder.release(name);
        }
    }
}

/// Whether a file is GGUF, by its name.
pub fn is_gguf(file_name: &str) -> bool {
    file_name.ends_with(".gguf")
}

/// Whether a configuration says that the vocabulary projection is the token embedding, and the file
/// holds another one. The stored one counts then, as in transformers 5 (transformers#42612) and
/// vLLM.
fn has_its_own_head(
    path: &Path,
    config: &Config,
    found: &BTreeMap<String, TensorInfo>,
    source: &Source,
) -> Result<bool, Error> {
    let embedding = Layout::new(config).embedding;
    let both = (
        found.get(families::head(config.family)),
        found.get(&embedding.name),
    );
    let (Some(head), Some(stored)) = both else {
        return Ok(false);
    };
    expect(path, head, &embedding.shape)?;
    expect(path, stored, &embedding.shape)?;
    let (head, embedding) = (source.read(head, config)?, source.read(stored, config)?);
    Ok(match head.dtype == embedding.dtype {
        true => head.bytes != embedding.bytes,
        false => !head.elements().eq(embedding.elements()),
    })
}

/// Holds a tensor's shape against the configuration's.
fn expect(path: &Path, found: &TensorInfo, shape: &[usize]) -> Result<(), Error> {
    if found.shape == shape {
        return Ok(());
    }
    Err(Error::Shape {
        path: path.to_owned(),
        name: found.name.clone(),
        found: found.shape.clone(),
        expected: shape.to_owned(),
    })
}

impl Source {
    /// The contents of one of the source's tensors.
    fn read(&self, info: &TensorInfo, config: &Config) -> Result<TensorData<'_>, Error> {
        match self {
            Source::Safetensors(folder) => folder.read(info),
            Source::Gguf(file) => file.read(info, config),
        }
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("family", &self.config.family)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}
