//! A GGUF file, llama.cpp's format: metadata, tokenizer and weights in one.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Names, orientations and row
//! orders are turned into those of transformers here, so that nothing further on knows where a
//! model came from.

mod architectures;
mod metadata;
mod names;

use std::borrow::Cow;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};
use memmap2::Mmap;
use safetensors::View;
use serde_json::json;

use super::super::Error;
use super::super::config::{Config, Rope, RopeScaling};
use super::super::tokenizer::{GgufVocabulary, Tokenizer};
use super::mmap;
use super::tensor::{DType, TensorData, TensorInfo};
use crate::caught::caught;
use architectures::Architecture;
use metadata::Refused;
use names::{Stored, Turned, stored};

/// Frequency divisors some Llama files carry as a tensor instead of metadata.
const ROPE_FREQS: &str = "rope_freqs.weight";

/// Names of the tokens that end a continuation, the end of a text first: what tokens fill up a gap
/// in a file of code, or come between files, end it as well for llama.cpp.
const ENDS: [&str; 6] = ["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"];

/// [`READABLE`] for messages, as llama.cpp writes them.
const TYPES: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K";

/// Storage types that can be read.
const READABLE: [GgmlDType; 13] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

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

/// llama.cpp's names of the architectures that are read.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    architectures::ARCHITECTURES.iter().map(|it| it.name)
}

/// An opened file.
pub struct File {
    path: PathBuf,
    map: Mmap,
    content: Content,
    architecture: &'static Architecture,
}

impl File {
    pub fn open(path: &Path) -> Result<Self, Error> {
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
        let key = "general.architecture";
        let named = match content.metadata.get(key) {
            Some(Value::String(named)) => named,
            Some(other) => {
                return Err(malformed(
                    path,
                    format!("`{key}` is {other:?}, not a string"),
                ));
            }
            None => return Err(malformed(path, format!("has no `{key}`"))),
        };
        let file = Self {
            path: path.to_owned(),
            architecture: Architecture::named(named)?,
            map,
            content,
        };
        file.check()?;
        Ok(file)
    }

    /// What can be wrong with the file whatever the model.
    fn check(&self) -> Result<(), Error> {
        if let Some(parts) = self.maybe_number("split.count")
            && parts > 1.0
        {
            let reason =
                format!("is one of {parts} parts; join them with `llama-gguf-split --merge`");
            return Err(malformed(&self.path, reason));
        }
        let prefix = format!("{}.", self.architecture.name);
        let context = self.maybe_number(&self.key("context_length"));
        for (key, value) in &self.content.metadata {
            let held = match (
                key.strip_prefix(&prefix),
                key.strip_prefix("tokenizer.ggml."),
            ) {
                (Some(field), _) if self.architecture.reads.contains(&field) => Ok(()),
                (Some(field), _) => metadata::check(field, value, context),
                (_, Some(field)) => metadata::check_tokenizer(field, value),
                _ => Ok(()),
            };
            match held {
                Ok(()) => {}
                Err(Refused::Unknown) => {
                    return Err(Error::UnknownField {
                        field: key.clone(),
                        found: format!("{value:?}"),
                        family: self.architecture.family.model_type(),
                    });
                }
                Err(Refused::Supported(supported)) => {
                    return Err(Error::UnsupportedValue {
                        field: key.clone(),
                        found: format!("{value:?}"),
                        supported,
                    });
                }
            }
        }
        for (name, info) in &self.content.tensor_infos {
            let sizes = info.shape.dims().iter();
            let elements = sizes.copied().try_fold(1usize, usize::checked_mul);
            let bytes = elements.and_then(|elements| {
                let blocks = elements.checked_div(info.ggml_dtype.block_size())?;
                blocks.checked_mul(info.ggml_dtype.type_size())
            });
            let end = bytes
                .and_then(|bytes| (bytes as u64).checked_add(info.offset))
                .and_then(|end| end.checked_add(self.content.tensor_data_offset));
            if end.is_none_or(|end| end > self.map.len() as u64) {
                let reason = format!("tensor `{name}` ends beyond the file: it is cut short");
                return Err(malformed(&self.path, reason));
            }
            if !READABLE.contains(&info.ggml_dtype) {
                return Err(Error::TensorType {
                    path: self.path.clone(),
                    name: name.clone(),
                    found: format!("{:?}", info.ggml_dtype),
                    supported: TYPES,
                });
            }
        }
        Ok(())
    }

    /// The configuration transformers would have for this model.
    pub fn config(&self) -> Result<Config, Error> {
        let vocab = self
            .content
            .tensor_infos
            .get("token_embd.weight")
            .and_then(|info| info.shape.dims().first().copied())
            .ok_or_else(|| malformed(&self.path, "has no tensor `token_embd.weight`".into()))?;
        let mut json = self.architecture.config(self)?;
        for (field, value) in [
            ("vocab_size", json!(vocab)),
            ("tie_word_embeddings", json!(!self.has("output.weight"))),
            (
                "eos_token_id",
                json!(self.token_id("tokenizer.ggml.eos_token_id")?),
            ),
            (
                "bos_token_id",
                json!(self.token_id("tokenizer.ggml.bos_token_id")?),
            ),
            (
                "pad_token_id",
                json!(self.token_id("tokenizer.ggml.padding_token_id")?),
            ),
        ] {
            json.insert(field.to_owned(), value);
        }
        Config::from_json(json)
    }

    /// Whether there is a tensor of this name.
    fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    fn flag(&self, field: &str) -> Option<bool> {
        match self.content.metadata.get(&self.key(field)) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// `rope_scaling` as transformers writes it, from metadata or from the frequency tensor of
    /// Llama 3.
    fn rope_scaling(
        &self,
        theta: f64,
        head_dim: usize,
        context: usize,
    ) -> Result<serde_json::Value, Error> {
        let kind = self.key("rope.scaling.type");
        let factor = self
            .maybe_decimal("rope.scaling.factor")
            .filter(|it| *it != 0.0);
        let kind = match self.content.metadata.get(&kind) {
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
    fn llama3(
        &self,
        theta: f64,
        head_dim: usize,
        context: usize,
    ) -> Result<serde_json::Value, Error> {
        let divisors: Vec<f32> = self
            .expand(ROPE_FREQS)?
            .to_vec1()
            .map_err(|source| self.unreadable(ROPE_FREQS, &source))?;
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

    /// The chat templates that have names, by name.
    fn named_templates(&self) -> Vec<(String, String)> {
        let mut named: Vec<(String, String)> = (self.content.metadata.iter())
            .filter_map(|(key, value)| match value {
                Value::String(text) => {
                    let name = key.strip_prefix("tokenizer.chat_template.")?;
                    Some((name.to_owned(), text.clone()))
                }
                _ => None,
            })
            .collect();
        named.sort();
        named
    }

    /// The tokenizer rebuilt from the metadata.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        let strings = |key: &str| -> Result<Vec<String>, Error> {
            let list = self.list(key)?;
            let strings = list.iter().map(|value| value.to_string().cloned());
            strings.collect::<Result<_, _>>().map_err(|source| {
                malformed(
                    &self.path,
                    format!("`{key}` must hold strings only: {source}"),
                )
            })
        };
        let id = |name: &str| self.token_id(&format!("tokenizer.ggml.{name}_token_id"));
        let flag = |name: &str| match self.content.metadata.get(&format!("tokenizer.ggml.{name}")) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        };
        let key = "tokenizer.ggml.token_type";
        let types = self.list(key)?.iter().map(|value| match value {
            Value::I32(kind) => Ok(i64::from(*kind)),
            Value::U32(kind) => Ok(i64::from(*kind)),
            other => Err(malformed(&self.path, format!("`{key}` holds {other:?}"))),
        });
        let key = "tokenizer.ggml.scores";
        let scores = self.list(key)?.iter().map(|value| {
            value
                .to_f32()
                .map_err(|source| malformed(&self.path, format!("`{key}`: {source}")))
        });
        let pre = match self.content.metadata.get("tokenizer.ggml.pre") {
            Some(Value::String(pre)) => Some(pre.clone()),
            _ => None,
        };
        Tokenizer::from_gguf(GgufVocabulary {
            model: self.text("tokenizer.ggml.model")?.to_owned(),
            pre,
            tokens: strings("tokenizer.ggml.tokens")?,
            merges: strings("tokenizer.ggml.merges")?,
            types: types.collect::<Result<_, _>>()?,
            scores: scores.collect::<Result<_, _>>()?,
            bos: id("bos")?,
            eos: ENDS
                .iter()
                .filter_map(|name| id(name).transpose())
                .collect::<Result<_, _>>()?,
            unknown: id("unknown")?,
            pad: id("padding")?,
            chat_template: match self.content.metadata.get("tokenizer.chat_template") {
                Some(Value::String(template)) => Some(template.clone()),
                _ => None,
            },
            named_templates: self.named_templates(),
            add_bos: flag("add_bos_token"),
            add_eos: flag("add_eos_token").unwrap_or(false),
            add_space_prefix: flag("add_space_prefix").unwrap_or(true),
            remove_extra_whitespaces: flag("remove_extra_whitespaces").unwrap_or(false),
        })
    }

    /// The tensors by canonical name and in transformers' orientation.
    pub fn tensors(&self, config: &Config) -> Result<Vec<TensorInfo>, Error> {
        let known = stored(config);
        let infos = self.content.tensor_infos.iter();
        // Read as the rule that they came from.
        let infos = infos.filter(|(name, _)| *name != ROPE_FREQS);
        Ok(infos
            .map(|(name, info)| {
                let known = known.iter().find(|it| it.name == *name);
                let mut shape = info.shape.dims().to_vec();
                if known.is_some_and(|it| it.turned == Turned::Transposed) {
                    shape.reverse();
                }
                TensorInfo {
                    name: known.map_or(name, |it| &it.parameter.name).clone(),
                    dtype: dtype(info.ggml_dtype),
                    shape,
                }
            })
            .collect())
    }

    /// The contents of a tensor of [`File::tensors`].
    pub fn read(&self, info: &TensorInfo, config: &Config) -> Result<TensorData<'_>, Error> {
        let missing = || Error::NoSuchTensor {
            name: info.name.clone(),
        };
        let known = stored(config);
        let Stored { name, turned, .. } = (known.iter())
            .find(|it| it.parameter.name == info.name)
            .ok_or_else(missing)?;
        let stored = self.content.tensor_infos.get(name).ok_or_else(missing)?;
        if *turned == Turned::PlusOne && info.dtype != DType::F32 {
            return Err(Error::TensorType {
                path: self.path.clone(),
                name: name.clone(),
                found: format!("{:?}", stored.ggml_dtype),
                supported: "F32, as llama.cpp writes norms",
            });
        }
        let mut bytes = match stored.ggml_dtype {
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => {
                let from = (self.content.tensor_data_offset + stored.offset) as usize;
                let size = stored.shape.elem_count() * info.dtype.size();
                // Inside the file: `check` saw to it.
                Cow::Borrowed(&self.map[from..from + size])
            }
            // candle's own bytes of the expanded tensor.
            _ => Cow::Owned(View::data(&self.expand(name)?).into_owned()),
        };
        if let Some(back) = turned.back(&bytes, &info.shape, info.dtype.size(), config) {
            bytes = back.into();
        }
        Ok(TensorData {
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes,
        })
    }

    /// A tensor as single precision, whatever its storage type.
    fn expand(&self, name: &str) -> Result<candle_core::Tensor, Error> {
        let mut reader = Cursor::new(&self.map[..]);
        self.content
            .tensor(&mut reader, name, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu))
            .map_err(|source| self.unreadable(name, &source))
    }

    fn unreadable(&self, name: &str, source: &candle_core::Error) -> Error {
        malformed(&self.path, format!("tensor `{name}`: {}", said(source)))
    }

    fn key(&self, field: &str) -> String {
        format!("{}.{field}", self.architecture.name)
    }

    fn text(&self, key: &str) -> Result<&str, Error> {
        match self.content.metadata.get(key) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(malformed(
                &self.path,
                format!("`{key}` is {other:?}, not a string"),
            )),
            None => Err(malformed(&self.path, format!("has no `{key}`"))),
        }
    }

    /// An array, empty where there is none.
    fn list(&self, key: &str) -> Result<&[Value], Error> {
        match self.content.metadata.get(key) {
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(malformed(&self.path, format!("`{key}` is not an array"))),
            None => Ok(&[]),
        }
    }

    fn token_id(&self, key: &str) -> Result<Option<u32>, Error> {
        self.content
            .metadata
            .get(key)
            .map(|value| {
                let id = value.to_u64().ok().and_then(|id| u32::try_from(id).ok());
                id.ok_or_else(|| {
                    malformed(&self.path, format!("`{key}` is {value:?}, not a token id"))
                })
            })
            .transpose()
    }

    fn maybe_size(&self, field: &str) -> Result<Option<usize>, Error> {
        let key = self.key(field);
        self.content
            .metadata
            .get(&key)
            .map(|value| {
                let size = value.to_u64().ok().and_then(|n| usize::try_from(n).ok());
                size.ok_or_else(|| {
                    self.unsupported(field, format!("{value:?}"), "one whole number")
                })
            })
            .transpose()
    }

    fn size(&self, field: &str) -> Result<usize, Error> {
        self.maybe_size(field)?.ok_or_else(|| Error::MissingField {
            field: self.key(field),
            family: self.architecture.family.model_type(),
        })
    }

    fn maybe_number(&self, key: &str) -> Option<f64> {
        metadata::number(self.content.metadata.get(key)?)
    }

    fn maybe_decimal(&self, field: &str) -> Option<f64> {
        self.maybe_number(&self.key(field))
    }

    fn decimal(&self, field: &str) -> Result<f64, Error> {
        self.maybe_decimal(field)
            .ok_or_else(|| Error::MissingField {
                field: self.key(field),
                family: self.architecture.family.model_type(),
            })
    }

    fn unsupported(&self, field: &str, found: impl ToString, supported: &str) -> Error {
        Error::UnsupportedValue {
            field: self.key(field),
            found: found.to_string(),
            supported: supported.to_owned(),
        }
    }
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

/// The element type a tensor is read as.
fn dtype(stored: GgmlDType) -> DType {
    match stored {
        GgmlDType::F16 => DType::F16,
        GgmlDType::BF16 => DType::BF16,
        _ => DType::F32,
    }
}

fn malformed(path: &Path, reason: String) -> Error {
    Error::Malformed {
        path: path.to_owned(),
        reason,
    }
}
