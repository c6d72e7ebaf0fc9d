//! What a GGUF file says of itself: its metadata by name, and the tensors that stand for some.

use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use memmap2::Mmap;
use serde_json::json;

use super::super::super::Error;
use super::super::super::config::{Family, Rope, RopeScaling};
use super::super::mmap;
use super::metadata;
use crate::caught::caught;

/// Frequency divisors some Llama files carry as a tensor instead of metadata.
pub const ROPE_FREQS: &str = "rope_freqs.weight";

/// Storage types that can be read, for messages, as llama.cpp writes them.
pub const TYPES: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K";

/// Storage types that candle does not know, by their number in ggml.
const UNREADABLE: &[(u32, &str)] = &[
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// One file: its metadata and its list of tensors.
pub struct Part {
    pub path: PathBuf,
    pub map: Mmap,
    pub content: Content,
}

impl Part {
    /// Maps a file and reads what stands before its tensors.
    fn open(path: &Path) -> Result<Self, Error> {
        let map = mmap::map(path)?;
        // Some nonsensical headers, such as an alignment of zero, make candle's reader panic.
        let content = match caught(|| Content::read(&mut Cursor::new(&map[..]))) {
            Some(Ok(content)) => content,
            Some(Err(source)) => return Err(malformed(path, unreadable(&said(&source)))),
            None => {
                let reason = "its GGUF header makes no sense: get the file anew";
                return Err(malformed(path, reason.into()));
            }
        };
        Ok(Self {
            path: path.to_owned(),
            map,
            content,
        })
    }

    /// Metadata of a model in several files, which are counts.
    fn split(&self, field: &str) -> Option<u64> {
        let number = metadata::number(self.content.metadata.get(field)?)?;
        (number >= 0.0).then_some(number as u64)
    }
}

/// A model's files, what they say of it, and where its tensors are.
pub struct Header {
    /// The file that has the metadata.
    pub path: PathBuf,
    /// That file and those that follow it, if the model was split.
    parts: Vec<Part>,
    /// `general.architecture`, which metadata of the model begin with.
    pub architecture: String,
    /// For messages.
    pub family: Family,
}

impl Header {
    /// Opens a file, and those beside it that belong to it where it is one of several, whichever of
    /// them it is. The family is Llama's until it is known.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let parts = parts(Part::open(path)?)?;
        let mut header = Self {
            path: parts[0].path.clone(),
            parts,
            architecture: String::new(),
            family: Family::Llama,
        };
        header.architecture = header.text("general.architecture")?.to_owned();
        Ok(header)
    }

    /// The files, the one with the metadata first.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What the model's first file says, by name.
    pub fn metadata(&self) -> &HashMap<String, Value> {
        &self.parts[0].content.metadata
    }

    /// All tensors, with the file that each is in.
    pub fn stored(&self) -> impl Iterator<Item = (&Part, &String, &TensorInfo)> {
        self.parts.iter().flat_map(|part| {
            let infos = part.content.tensor_infos.iter();
            infos.map(move |(name, info)| (part, name, info))
        })
    }

    /// A tensor, with the file that it is in.
    pub fn find(&self, name: &str) -> Option<(&Part, &TensorInfo)> {
        let mut parts = self.parts.iter();
        parts.find_map(|part| Some((part, part.content.tensor_infos.get(name)?)))
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub fn flag(&self, field: &str) -> Option<bool> {
        match self.metadata().get(&self.key(field)) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// `rope_scaling` as transformers writes it, from metadata or from the frequency tensor of
    /// Llama 3.
    pub fn rope_scaling(
        &self,
        theta: f64,
        head_dim: usize,
        context: usize,
    ) -> Result<serde_json::Value, Error> {
        let kind = self.key("rope.scaling.type");
        let factor = self
            .maybe_decimal("rope.scaling.factor")
            .filter(|it| *it != 0.0);
        let kind = match self.metadata().get(&kind) {
            Some(Value::String(kind)) => kind.as_str(),
            // llama.cpp's default kind is the linear one, with a factor of 1.
            _ if factor.is_some_and(|factor| factor != 1.0) => "linear",
            _ => "none",
        };
        let has_freqs = self.has(ROPE_FREQS);
        match (kind, has_freqs) {
            ("none", false) => Ok(serde_json::Value::Null),
            ("none", true) => self.llama3(theta, head_dim, context),
            ("linear", false) => {
                Ok(json!({"rope_type": "linear", "factor": self.decimal("rope.scaling.factor")?}))
            }
            ("yarn", false) => Ok(json!({
                "rope_type": "yarn",
                "factor": self.decimal("rope.scaling.factor")?,
                "original_max_position_embeddings": self.size("rope.scaling.original_context_length")?,
            })),
            (other, _) => Err(self.unsupported(
                "rope.scaling.type",
                other,
                "none, linear, yarn, or none with Llama 3's rope_freqs tensor",
            )),
        }
    }

    /// Finds which of Llama 3's published scalings the file's frequency divisors are. The file
    /// keeps the divisors only, while transformers, and so an export, wants the rule they came
    /// from.
    pub fn llama3(
        &self,
        theta: f64,
        head_dim: usize,
        context: usize,
    ) -> Result<serde_json::Value, Error> {
        let divisors: Vec<f32> = self
            .expand(ROPE_FREQS)?
            .to_vec1()
            .map_err(|source| no_tensor(&self.path, ROPE_FREQS, &source))?;
        let plain = Rope::plain(theta, head_dim, 1.0).frequencies();
        for factor in [8.0, 16.0, 32.0] {
            let (low, high, original) = (1.0, 4.0, 8192.0);
            let rule = RopeScaling::Llama3 {
                factor,
                low,
                high,
                original,
            };
            let fits = |(pair, (divisor, &frequency)): (usize, (&f32, &f32))| {
                (divisor / rule.divisor(pair, frequency) - 1.0).abs() < 1e-3
            };
            if divisors.len() == plain.len() && divisors.iter().zip(&plain).enumerate().all(fits) {
                return Ok(json!({
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": low,
                    "high_freq_factor": high,
                    "original_max_position_embeddings": original as usize,
                }));
            }
        }
        let reason = format!(
            "`{ROPE_FREQS}` is none of Llama 3's scalings (factor 8, 16 or 32 of 8192) \
             of a {context}-token model; use its safetensors"
        );
        Err(malformed(&self.path, reason))
    }

    /// A tensor as single precision, whatever its storage type.
    pub fn expand(&self, name: &str) -> Result<candle_core::Tensor, Error> {
        let Some((part, _)) = self.find(name) else {
            return Err(Error::NoSuchTensor { name: name.into() });
        };
        let mut reader = Cursor::new(&part.map[..]);
        part.content
            .tensor(&mut reader, name, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu))
            .map_err(|source| no_tensor(&part.path, name, &source))
    }

    pub fn key(&self, field: &str) -> String {
        format!("{}.{field}", self.architecture)
    }

    pub fn text(&self, key: &str) -> Result<&str, Error> {
        match self.metadata().get(key) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(malformed(
                &self.path,
                format!("`{key}` is {other:?}, not a string"),
            )),
            None => Err(malformed(&self.path, format!("has no `{key}`"))),
        }
    }

    /// An array, empty where there is none.
    pub fn list(&self, key: &str) -> Result<&[Value], Error> {
        match self.metadata().get(key) {
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(malformed(&self.path, format!("`{key}` is not an array"))),
            None => Ok(&[]),
        }
    }

    pub fn token_id(&self, key: &str) -> Result<Option<u32>, Error> {
        self.metadata()
            .get(key)
            .map(|value| {
                let id = value.to_u64().ok().and_then(|id| u32::try_from(id).ok());
                id.ok_or_else(|| {
                    malformed(&self.path, format!("`{key}` is {value:?}, not a token id"))
                })
            })
            .transpose()
    }

    pub fn maybe_size(&self, field: &str) -> Result<Option<usize>, Error> {
        let key = self.key(field);
        self.metadata()
            .get(&key)
            .map(|value| {
                let size = value.to_u64().ok().and_then(|n| usize::try_from(n).ok());
                size.ok_or_else(|| {
                    self.unsupported(field, format!("{value:?}"), "one whole number")
                })
            })
            .transpose()
    }

    pub fn size(&self, field: &str) -> Result<usize, Error> {
        self.maybe_size(field)?.ok_or_else(|| Error::MissingField {
            field: self.key(field),
            family: self.family.model_type(),
        })
    }

    pub fn maybe_number(&self, key: &str) -> Option<f64> {
        metadata::number(self.metadata().get(key)?)
    }

    pub fn maybe_decimal(&self, field: &str) -> Option<f64> {
        self.maybe_number(&self.key(field))
    }

    pub fn decimal(&self, field: &str) -> Result<f64, Error> {
        self.maybe_decimal(field)
            .ok_or_else(|| Error::MissingField {
                field: self.key(field),
                family: self.family.model_type(),
            })
    }

    pub fn unsupported(&self, field: &str, found: impl ToString, supported: &str) -> Error {
        Error::UnsupportedValue {
            field: self.key(field),
            found: found.to_string(),
            supported: supported.to_owned(),
        }
    }
}

/// The files that a model was split into, by one of them: llama.cpp calls them
/// `NAME-00001-of-00003.gguf` and so on.
fn parts(one: Part) -> Result<Vec<Part>, Error> {
    let count = match one.split("split.count") {
        None | Some(0 | 1) => return Ok(vec![one]),
        Some(count) => count,
    };
    let given_path = one.path.clone();
    let name = given_path.file_name().unwrap_or_default().to_string_lossy();
    let named = part_of(&name).filter(|(_, _, of)| *of == count);
    let (Some(folder), Some((stem, given, _))) = (given_path.parent(), named) else {
        let reason = format!(
            "is one of {count} parts: put them into one folder under the names that llama.cpp gives \
             them, NAME-00001-of-{count:05}.gguf and so on"
        );
        return Err(malformed(&one.path, reason));
    };
    let mut one = Some(one);
    let mut parts = Vec::new();
    for number in 1..=count {
        let path = folder.join(format!("{stem}-{number:05}-of-{count:05}.gguf"));
        let part = match one.take_if(|_| number == given) {
            Some(one) => one,
            None if !path.exists() => {
                let reason = format!(
                    "its part {number} of {count}, {}, is not beside it: put all parts into one folder",
                    path.display()
                );
                return Err(malformed(&given_path, reason));
            }
            None => Part::open(&path)?,
        };
        let says = (part.split("split.no"), part.split("split.count"));
        if says != (Some(number - 1), Some(count)) {
            let reason = format!(
                "is not part {number} of {count}, which its name says: get the parts anew, of one model"
            );
            return Err(malformed(&path, reason));
        }
        parts.push(part);
    }
    let mut names = HashSet::new();
    let infos = parts.iter().flat_map(|part| {
        let names = part.content.tensor_infos.keys();
        names.map(move |name| (part, name))
    });
    for (part, name) in infos {
        if !names.insert(name) {
            let reason = format!("holds tensor `{name}`, which another part holds too");
            return Err(malformed(&part.path, reason));
        }
    }
    let wanted = parts[0].split("split.tensors.count");
    if wanted.is_some_and(|wanted| wanted != names.len() as u64) {
        let reason = format!(
            "its {count} parts hold {} tensors in place of {}: get them anew, of one model",
            names.len(),
            wanted.unwrap_or_default()
        );
        return Err(malformed(&parts[0].path, reason));
    }
    Ok(parts)
}

/// The name, number and count of a part by its file's name.
pub fn part_of(file_name: &str) -> Option<(&str, u64, u64)> {
    let (rest, count) = file_name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let whole = |digits: &str| match digits.len() {
        5 if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    };
    Some((stem, whole(number)?, whole(count)?))
}

fn no_tensor(path: &Path, name: &str, source: &candle_core::Error) -> Error {
    malformed(path, format!("tensor `{name}`: {}", said(source)))
}

/// What candle says, without the stack that it adds where one is asked for.
fn said(source: &candle_core::Error) -> String {
    match source {
        candle_core::Error::WithBacktrace { inner, .. } => said(inner),
        candle_core::Error::Context { inner, .. } | candle_core::Error::WithPath { inner, .. } => {
            said(inner)
        }
        other => other.to_string(),
    }
}

/// Why a header cannot be read. candle gives a type that it does not know by its number.
fn unreadable(said: &str) -> String {
    let number = said.strip_prefix("unknown dtype for tensor ");
    if let Some(number) = number.and_then(|number| number.trim().parse::<u32>().ok()) {
        let known = UNREADABLE.iter().find(|(at, _)| *at == number);
        let name = known.map_or_else(|| format!("type {number}"), |(_, name)| (*name).to_owned());
        return format!(
            "a tensor is stored as {name}; supported: {TYPES}. Use another quantisation of the model"
        );
    }
    format!(
        "not a readable GGUF file of version 2 or 3: {said}; if a download broke off, get it anew"
    )
}

pub fn malformed(path: &Path, reason: String) -> Error {
    Error::Malformed {
        path: path.to_owned(),
        reason,
    }
}
