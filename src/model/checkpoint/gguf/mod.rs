//! A GGUF file, llama.cpp's format: metadata, tokenizer and weights in one, or in parts of which the
//! first has all but the other parts' weights.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Names, orientations and row
//! orders are turned into those of transformers here, so that nothing further on knows where a
//! model came from.

mod architectures;
mod header;
mod metadata;
mod names;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use safetensors::View;
use serde_json::json;

use super::super::Error;
use super::super::config::Config;
use super::super::tokenizer::{GgufVocabulary, Tokenizer};
use super::tensor::{DType, TensorData, TensorInfo};
use architectures::Architecture;
use header::{Header, ROPE_FREQS, TYPES, malformed};
use metadata::Refused;
use names::{Stored, Turned, stored};

/// Names of the tokens that end a continuation, the end of a text first: what tokens fill up a gap
/// in a file of code, or come between files, end it as well for llama.cpp.
const ENDS: [&str; 6] = ["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"];

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

pub use header::part_of;

/// llama.cpp's names of the architectures that are read.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    architectures::ARCHITECTURES.iter().map(|it| it.name)
}

/// An opened file, with its other parts.
pub struct File {
    header: Header,
    architecture: &'static Architecture,
}

impl File {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut header = Header::open(path)?;
        let architecture = Architecture::named(&header.architecture)?;
        header.family = architecture.family;
        let file = Self {
            header,
            architecture,
        };
        file.check()?;
        Ok(file)
    }

    /// What can be wrong with the file whatever the model.
    fn check(&self) -> Result<(), Error> {
        let prefix = format!("{}.", self.architecture.name);
        let context = self.header.maybe_number(&self.header.key("context_length"));
        for (key, value) in self.header.metadata() {
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
        for (part, name, info) in self.header.stored() {
            let sizes = info.shape.dims().iter();
            let elements = sizes.copied().try_fold(1usize, usize::checked_mul);
            let bytes = elements.and_then(|elements| {
                let blocks = elements.checked_div(info.ggml_dtype.block_size())?;
                blocks.checked_mul(info.ggml_dtype.type_size())
            });
            let end = bytes
                .and_then(|bytes| (bytes as u64).checked_add(info.offset))
                .and_then(|end| end.checked_add(part.content.tensor_data_offset));
            if end.is_none_or(|end| end > part.map.len() as u64) {
                let reason = format!("tensor `{name}` ends beyond the file: it is cut short");
                return Err(malformed(&part.path, reason));
            }
            if !READABLE.contains(&info.ggml_dtype) {
                return Err(Error::TensorType {
                    path: part.path.clone(),
                    name: name.clone(),
                    found: format!("{:?}", info.ggml_dtype),
                    supported: TYPES,
                });
            }
        }
        Ok(())
    }

    /// The file, or those that the model was split into, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        let parts = self.header.parts().iter();
        parts.map(|part| part.path.clone()).collect()
    }

    /// The configuration transformers would have for this model.
    pub fn config(&self) -> Result<Config, Error> {
        let embedding = self.header.find("token_embd.weight");
        let vocab = embedding
            .and_then(|(_, info)| info.shape.dims().first().copied())
            .ok_or_else(|| {
                malformed(
                    &self.header.path,
                    "has no tensor `token_embd.weight`".into(),
                )
            })?;
        let mut json = self.architecture.config(&self.header)?;
        for (field, value) in [
            ("vocab_size", json!(vocab)),
            (
                "tie_word_embeddings",
                json!(!self.header.has("output.weight")),
            ),
            (
                "eos_token_id",
                json!(self.header.token_id("tokenizer.ggml.eos_token_id")?),
            ),
            (
                "bos_token_id",
                json!(self.header.token_id("tokenizer.ggml.bos_token_id")?),
            ),
            (
                "pad_token_id",
                json!(self.header.token_id("tokenizer.ggml.padding_token_id")?),
            ),
        ] {
            json.insert(field.to_owned(), value);
        }
        Config::from_json(json)
    }

    /// The chat templates that have names, by name.
    fn named_templates(&self) -> Vec<(String, String)> {
        let mut named: Vec<(String, String)> = (self.header.metadata().iter())
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
            let list = self.header.list(key)?;
            let strings = list.iter().map(|value| value.to_string().cloned());
            strings.collect::<Result<_, _>>().map_err(|source| {
                malformed(
                    &self.header.path,
                    format!("`{key}` must hold strings only: {source}"),
                )
            })
        };
        let id = |name: &str| {
            self.header
                .token_id(&format!("tokenizer.ggml.{name}_token_id"))
        };
        let flag = |name: &str| {
            let key = format!("tokenizer.ggml.{name}");
            match self.header.metadata().get(&key) {
                Some(Value::Bool(flag)) => Some(*flag),
                _ => None,
            }
        };
        let key = "tokenizer.ggml.token_type";
        let types = self.header.list(key)?.iter().map(|value| match value {
            Value::I32(kind) => Ok(i64::from(*kind)),
            Value::U32(kind) => Ok(i64::from(*kind)),
            other => Err(malformed(
                &self.header.path,
                format!("`{key}` holds {other:?}"),
            )),
        });
        let key = "tokenizer.ggml.scores";
        let scores = self.header.list(key)?.iter().map(|value| {
            value
                .to_f32()
                .map_err(|source| malformed(&self.header.path, format!("`{key}`: {source}")))
        });
        let pre = match self.header.metadata().get("tokenizer.ggml.pre") {
            Some(Value::String(pre)) => Some(pre.clone()),
            _ => None,
        };
        Tokenizer::from_gguf(GgufVocabulary {
            model: self.header.text("tokenizer.ggml.model")?.to_owned(),
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
            chat_template: match self.header.metadata().get("tokenizer.chat_template") {
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
        // Read as the rule that they came from.
        let infos = (self.header.stored()).filter(|(_, name, _)| *name != ROPE_FREQS);
        Ok(infos
            .map(|(_, name, info)| {
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
        let (part, stored) = self.header.find(name).ok_or_else(missing)?;
        if *turned == Turned::PlusOne && info.dtype != DType::F32 {
            return Err(Error::TensorType {
                path: part.path.clone(),
                name: name.clone(),
                found: format!("{:?}", stored.ggml_dtype),
                supported: "F32, as llama.cpp writes norms",
            });
        }
        let mut bytes = match stored.ggml_dtype {
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => {
                let from = (part.content.tensor_data_offset + stored.offset) as usize;
                let size = stored.shape.elem_count() * info.dtype.size();
                // Inside the file: `check` saw to it.
                Cow::Borrowed(&part.map[from..from + size])
            }
            // candle's own bytes of the expanded tensor.
            _ => Cow::Owned(View::data(&self.header.expand(name)?).into_owned()),
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
}

/// The element type a tensor is read as.
fn dtype(stored: GgmlDType) -> DType {
    match stored {
        GgmlDType::F16 => DType::F16,
        GgmlDType::BF16 => DType::BF16,
        _ => DType::F32,
    }
}
