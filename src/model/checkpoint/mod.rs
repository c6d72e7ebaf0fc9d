//! A model's files: its configuration, its tokenizer and its tensors by canonical name, checked against each other
//! when they are opened.
//!
//! Two sources are read: a folder as transformers writes it (`config.json`, `tokenizer.json`, safetensors in one
//! file or in shards) and a single GGUF file. Both give the same names and orientations, those of transformers.

mod gguf;
mod mmap;
mod safetensors;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Error;
use super::config::Config;
use super::families::{self, Layout, Parameter};
use super::tokenizer::Tokenizer;

/// How a tensor's elements are stored, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 single.
    F32,
    /// IEEE 754 half.
    F16,
    /// The upper half of a single.
    BF16,
}

impl DType {
    /// Bytes an element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }

    /// The name safetensors uses.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known of a tensor without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Canonical name.
    pub name: String,
    /// Element type of [`Checkpoint::tensor`]; `F32` for the quantised types of GGUF.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

/// A tensor's contents.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorData<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Elements, row-major, little-endian; borrowed from the file where it stores them so.
    pub bytes: Cow<'a, [u8]>,
}

impl TensorData<'_> {
    /// The elements as single precision.
    pub fn to_f32(&self) -> Vec<f32> {
        self.elements().collect()
    }

    /// Refuses infinities and NaNs: a forward pass would spread them without a word.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the first such element; `name` is used there.
    pub fn check_finite(&self, name: &str) -> Result<(), Error> {
        match self.elements().enumerate().find(|(_, x)| !x.is_finite()) {
            None => Ok(()),
            Some((index, value)) => Err(Error::NotFinite {
                name: name.to_owned(),
                index,
                value,
            }),
        }
    }

    fn elements(&self) -> Box<dyn Iterator<Item = f32> + '_> {
        let pairs = || self.bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        match self.dtype {
            DType::F32 => Box::new(
                self.bytes
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            ),
            DType::F16 => Box::new(pairs().map(|b| half::f16::from_le_bytes(b).to_f32())),
            DType::BF16 => Box::new(pairs().map(|b| half::bf16::from_le_bytes(b).to_f32())),
        }
    }
}

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
    /// Opens a folder as transformers writes it, or a GGUF file, and checks every tensor's presence, type and shape
    /// against the configuration. Weights are mapped, not read.
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
            let files = vec![path.to_owned()];
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
}

/// Whether a configuration says that the vocabulary projection is the token embedding, and the file holds another one.
/// The stored one counts then, as in transformers 5 (transformers#42612) and vLLM.
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
