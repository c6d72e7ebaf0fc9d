//! A folder as transformers writes it: configuration, tokenizer, and weights in one safetensors
//! file or in shards.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde_json::{Map, Value};

use super::super::config::{Config, generation_eos};
use super::super::{Error, families};
use super::tensor::{DType, TensorData, TensorInfo};
use super::{mmap, mxfp4};
use crate::text::utf8;

/// Files that describe a model beside its weights, in the order of [`Folder::files`]. Only the
/// first must exist to open a checkpoint's weights; the rest is carried along for those who export
/// it.
const DESCRIPTIONS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    INDEX,
];

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// How the names of the two tensors end that one of MXFP4 is kept in.
const BLOCKS: &str = "_blocks";
const SCALES: &str = "_scales";

/// An opened folder.
pub struct Folder {
    path: PathBuf,
    shards: Vec<Shard>,
    /// Name in the file -> where it lies.
    entries: BTreeMap<String, Entry>,
}

struct Shard {
    path: PathBuf,
    map: Mmap,
}

struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    place: Place,
    /// Where the scales are of a tensor in MXFP4, whose blocks are at its place.
    scales: Option<Place>,
}

#[derive(Clone)]
struct Place {
    shard: usize,
    /// Byte range in the shard's map.
    range: std::ops::Range<usize>,
}

impl Folder {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut folder = Self {
            path: path.to_owned(),
            shards: Vec::new(),
            entries: BTreeMap::new(),
        };
        // The single file first, as transformers: an index beside it was left by an earlier model
        // in the same folder.
        if path.join(SINGLE).is_file() {
            folder.add(path.join(SINGLE))?;
        } else if path.join(INDEX).is_file() {
            folder.open_shards()?;
        } else {
            return Err(malformed(path, nothing_to_read(path)));
        }
        folder.join_packed();
        Ok(folder)
    }

    /// Takes blocks of MXFP4 and their scales for the one tensor that they are.
    fn join_packed(&mut self) {
        let blocks = |name: &String| name.strip_suffix(BLOCKS).map(str::to_owned);
        let packed: Vec<String> = self.entries.keys().filter_map(blocks).collect();
        for name in packed {
            let names = [BLOCKS, SCALES].map(|ending| format!("{name}{ending}"));
            let found = names.each_ref().map(|name| self.entries.get(name));
            let [Some(blocks), Some(scales)] = found else {
                continue;
            };
            let bytes = (blocks.dtype, scales.dtype) == (Dtype::U8, Dtype::U8);
            let shape = mxfp4::shape(&blocks.shape, &scales.shape).filter(|_| bytes);
            let (Some(shape), false) = (shape, self.entries.contains_key(&name)) else {
                continue;
            };
            let joined = Entry {
                dtype: Dtype::U8,
                shape,
                place: blocks.place.clone(),
                scales: Some(scales.place.clone()),
            };
            names
                .iter()
                .for_each(|name| drop(self.entries.remove(name)));
            self.entries.insert(name, joined);
        }
    }

    /// Opens the shards an index names and holds them against it.
    fn open_shards(&mut self) -> Result<(), Error> {
        let index_path = self.path.join(INDEX);
        let index = read_object(&index_path)?;
        let places: BTreeMap<String, String> = index
            .get("weight_map")
            .and_then(|map| serde_json::from_value(map.clone()).ok())
            .ok_or_else(|| {
                let reason = "`weight_map` must be an object of tensor names and file names";
                malformed(&index_path, reason.into())
            })?;
        let names: BTreeSet<&String> = places.values().collect();
        for name in names {
            // A name from the index must not lead out of the folder.
            if Path::new(name).components().count() != 1 || name.starts_with('.') {
                let reason = format!("`weight_map` names `{name}`, which is not a plain file name");
                return Err(malformed(&index_path, reason));
            }
            let path = self.path.join(name);
            if !path.is_file() {
                let reason = format!("`weight_map` names the shard `{name}`, which does not exist");
                return Err(malformed(&index_path, reason));
            }
            self.add(path)?;
        }
        for (tensor, file) in &places {
            let shard = self
                .entries
                .get(tensor)
                .map(|e| &self.shards[e.place.shard].path);
            if shard != Some(&self.path.join(file)) {
                let reason = format!("`weight_map` places `{tensor}` in `{file}`, where it is not");
                return Err(malformed(&index_path, reason));
            }
        }
        Ok(())
    }

    /// Maps one file and takes up its tensors.
    fn add(&mut self, path: PathBuf) -> Result<(), Error> {
        let map = mmap::map(&path)?;
        let header = SafeTensors::read_metadata(&map)
            .map_err(|source| malformed(&path, impostor(&map).unwrap_or_else(|| broken(&source))));
        let (length, metadata) = header?;
        // The file starts with the header's length in eight bytes.
        let start = length + 8;
        let shard = self.shards.len();
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            let range = start + from..start + to;
            let entry = Entry {
                dtype: info.dtype,
                shape: info.shape.clone(),
                place: Place { shard, range },
                scales: None,
            };
            if entry.place.range.end > map.len() {
                let reason = format!("tensor `{name}` ends beyond the file");
                return Err(malformed(&path, reason));
            }
            if self.entries.insert(name.clone(), entry).is_some() {
                let reason = format!("tensor `{name}` is in an earlier shard too");
                return Err(malformed(&path, reason));
            }
        }
        self.shards.push(Shard { path, map });
        Ok(())
    }

    pub fn config(&self) -> Result<Config, Error> {
        Config::from_json(read_object(&self.path.join("config.json"))?)
    }

    /// End-of-text ids: those of `generation_config.json`, else the configuration's.
    pub fn eos(&self, config: &Config) -> Result<Vec<u32>, Error> {
        let path = self.path.join("generation_config.json");
        if !path.is_file() {
            return Ok(config.eos.clone());
        }
        // Python writes NaN, which is no JSON, where a sampling default is none.
        let named = generation_eos(&read_lenient(&path)?)?;
        Ok(named.unwrap_or_else(|| config.eos.clone()))
    }

    /// The tensors by canonical name, without buffers.
    pub fn tensors(&self, config: &Config) -> Result<Vec<TensorInfo>, Error> {
        let prefix = families::prefix(config.family);
        let mut tensors = Vec::with_capacity(self.entries.len());
        for (name, entry) in &self.entries {
            if families::is_buffer(name) {
                continue;
            }
            let dtype = match (entry.dtype, &entry.scales) {
                (Dtype::F32, _) => DType::F32,
                (Dtype::F16, _) => DType::F16,
                (Dtype::BF16, _) | (_, Some(_)) => DType::BF16,
                (other, None) => {
                    return Err(Error::TensorType {
                        path: self.shards[entry.place.shard].path.clone(),
                        name: name.clone(),
                        found: format!("{other:?}"),
                        supported: "F32, F16, BF16, and MXFP4 as blocks and scales of U8",
                    });
                }
            };
            let bare = name.starts_with(prefix) || families::is_head(name);
            let canonical = if bare {
                name.clone()
            } else {
                format!("{prefix}{name}")
            };
            if canonical != *name && self.entries.contains_key(&canonical) {
                let reason = format!("has both `{name}` and `{canonical}`, which are one tensor");
                return Err(malformed(&self.path, reason));
            }
            tensors.push(TensorInfo {
                name: canonical,
                dtype,
                shape: entry.shape.clone(),
            });
        }
        Ok(tensors)
    }

    /// The bytes of a tensor of [`Folder::tensors`].
    pub fn read(&self, info: &TensorInfo) -> Result<TensorData<'_>, Error> {
        let entry = self.entry(&info.name).ok_or_else(|| Error::NoSuchTensor {
            name: info.name.clone(),
        })?;
        Ok(TensorData {
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: match &entry.scales {
                Some(scales) => {
                    let (blocks, scales) = (self.bytes(&entry.place), self.bytes(scales));
                    Cow::Owned(mxfp4::expand(blocks, scales, &info.shape))
                }
                None => Cow::Borrowed(self.bytes(&entry.place)),
            },
        })
    }

    fn bytes(&self, place: &Place) -> &[u8] {
        &self.shards[place.shard].map[place.range.clone()]
    }

    /// Frees what reading a tensor has taken of memory.
    pub fn release(&self, name: &str) {
        if let Some(entry) = self.entry(name) {
            for place in std::iter::once(&entry.place).chain(&entry.scales) {
                mmap::release(&self.shards[place.shard].map, place.range.clone());
            }
        }
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        let bare = name.split_once('.').map_or("", |(_, bare)| bare);
        self.entries.get(name).or_else(|| self.entries.get(bare))
    }

    /// The description files there are, then the shards.
    pub fn files(&self) -> Vec<PathBuf> {
        let single = self.shards.iter().any(|shard| shard.path.ends_with(SINGLE));
        DESCRIPTIONS
            .iter()
            // An index beside a single file is another model's.
            .filter(|name| !(single && **name == INDEX))
            .map(|name| self.path.join(name))
            .filter(|path| path.is_file())
            .chain(self.shards.iter().map(|shard| shard.path.clone()))
            .collect()
    }
}

/// Reads a file that must be a JSON object.
fn read_object(path: &Path) -> Result<Map<String, Value>, Error> {
    parse(path, &read(path)?)
}

/// [`read_object`], with `NaN` and infinities read as `null`.
fn read_lenient(path: &Path) -> Result<Map<String, Value>, Error> {
    let text = read(path)?;
    match parse(path, &text) {
        Ok(object) => Ok(object),
        Err(error) => match std::str::from_utf8(&text).map(without_nan) {
            Ok(text) => parse(path, text.as_bytes()),
            Err(_) => Err(error),
        },
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

fn parse(path: &Path, text: &[u8]) -> Result<Map<String, Value>, Error> {
    let found = utf8::text(text.to_vec()).map_err(|found| found.to_string());
    let object = found.and_then(|found| {
        serde_json::from_str(&found).map_err(|source| format!("not a JSON object: {source}"))
    });
    object.map_err(|problem| malformed(path, impostor(text).unwrap_or(problem)))
}

/// A JSON text whose numbers that are none are `null`; texts in quotes stay.
fn without_nan(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (n, part) in text.split('"').enumerate() {
        if n > 0 {
            out.push('"');
        }
        // A quote behind a backslash parts a text once more, which at worst changes a word inside
        // it.
        match n % 2 {
            0 => {
                out += &part
                    .replace("-Infinity", "null")
                    .replace("Infinity", "null")
                    .replace("NaN", "null")
            }
            _ => out += part,
        }
    }
    out
}

/// What stands in the place of a file that was never fetched.
fn impostor(bytes: &[u8]) -> Option<String> {
    let start = &bytes[..bytes.len().min(256)];
    let start = String::from_utf8_lossy(start)
        .trim_start()
        .to_ascii_lowercase();
    if start.starts_with("version https://git-lfs") {
        let help = "is a git-lfs pointer, not the file itself: run `git lfs pull` in its folder";
        return Some(help.to_owned());
    }
    let page =
        start.starts_with("<!doctype") || start.starts_with("<html") || start.starts_with("<?xml");
    page.then(|| "is a web page, not the file: its download failed, fetch it again".to_owned())
}

/// Why a header cannot be read, and what helps where that is known: mostly a download broke off.
fn broken(source: &SafeTensorError) -> String {
    use SafeTensorError as Of;
    let size = match source {
        Of::HeaderTooSmall | Of::InvalidHeaderLength => "; it is cut short or empty",
        Of::MetadataIncompleteBuffer => "; it is shorter or longer than its header says",
        _ => return format!("not a valid safetensors file: {source}"),
    };
    format!(
        "not a valid safetensors file: {source}{size}: if its download broke off, fetch it again"
    )
}

/// What a folder without weights holds, and what helps.
fn nothing_to_read(path: &Path) -> String {
    let has = |name: &str| path.join(name).is_file();
    let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
    if let Some(name) = pickled.into_iter().find(|name| has(name)) {
        return format!(
            "has {name} but no {SINGLE}; pickled weights can run code and are not read, save the model with \
             safe_serialization=True"
        );
    }
    if has("adapter_config.json") {
        let base = read_object(&path.join("adapter_config.json")).ok();
        let base = base.and_then(|it| {
            it.get("base_model_name_or_path")?
                .as_str()
                .map(str::to_owned)
        });
        let base = base.unwrap_or_else(|| "another model".to_owned());
        return format!(
            "is a PEFT adapter of {base:?}, not a model: import that model, or the two merged \
             (merge_and_unload, save_pretrained)"
        );
    }
    let mut names: Vec<String> = (std::fs::read_dir(path).into_iter().flatten().flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let ending = |ending: &str| names.iter().find(|name| name.ends_with(ending));
    if let Some(name) = ending(".gguf") {
        return format!("is a folder that holds {name:?}: name the file itself");
    }
    if let Some(name) = names.iter().find(|name| name.contains("-of-0")) {
        return format!("holds parts of a model ({name:?}) but no {INDEX}: fetch it too");
    }
    if let Some(name) = ending(".safetensors") {
        return format!("holds {name:?} but no {SINGLE}: rename it, if it is the whole model");
    }
    format!(
        "has neither {SINGLE} nor {INDEX}: name the folder of a model as save_pretrained writes it"
    )
}

fn malformed(path: &Path, reason: String) -> Error {
    Error::Malformed {
        path: path.to_owned(),
        reason,
    }
}
