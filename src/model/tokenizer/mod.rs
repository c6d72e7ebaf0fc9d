//! Text to token ids and back, with the exact bytes of the text each token covers.

mod gguf;
mod pieces;
mod settings;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use gguf::GgufVocabulary;
pub use settings::unused_setting;

use std::path::Path;

use serde_json::{Map, Value};

use super::Error;
use crate::caught::caught;
use crate::text::utf8;
use pieces::Pieces;

/// Longest token of a vocabulary, bytes as it stands there; thirty times those of any model that
/// there is. What workers say of texts is held against it.
pub const LONGEST_TOKEN: usize = 4096;

/// A text as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, special tokens included where the model's own tokenizer adds them.
    pub ids: Vec<u32>,
    /// For each token the range of bytes of the text it stands for, leading space included; empty
    /// for added tokens.
    pub offsets: Vec<(usize, usize)>,
}

/// A model's tokenizer.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Pieces,
    eos: Vec<u32>,
    /// Ids from here on have no embedding: some tokenizers know more tokens than their text model.
    vocab: usize,
    /// The tokenizer.json it was made from.
    json: String,
    kept: Kept,
}

/// What the metadata of a GGUF file say beside the tokenizer itself: not used here, and kept for
/// exports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// `<unk>`.
    pub unknown: Option<u32>,
    /// What texts are filled up with.
    pub pad: Option<u32>,
    /// How a conversation is written as one text, in Jinja.
    pub chat_template: Option<String>,
    /// Further templates with their names (`tool_use`), as some models have them.
    pub named_templates: Vec<(String, String)>,
}

impl Tokenizer {
    /// Reads the `tokenizer.json` of a folder, with what its `tokenizer_config.json`, or the files
    /// that stood in its place before, lay over it.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Tokenizer`] where the tokenizers library refuses the file or the two disagree.
    pub fn from_folder(folder: &Path, eos: Vec<u32>) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = folder.join(name);
            utf8::read(&path).map_err(|source| Error::Io { path, source })
        };
        if !folder.join("tokenizer.json").is_file() {
            return Err(Error::Malformed {
                path: folder.to_owned(),
                reason: "has no tokenizer.json: write it with \
                         AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
                    .to_owned(),
            });
        }
        let json = read("tokenizer.json")?;
        let object = |name: &str| {
            if !folder.join(name).is_file() {
                return Ok(Map::new());
            }
            serde_json::from_str(&read(name)?)
                .map_err(|source| Error::Tokenizer(format!("{name} is no JSON object: {source}")))
        };
        let fields: Map<String, Value> = serde_json::from_str(&json).map_err(unusable)?;
        let settings = settings::with_legacy(
            object("tokenizer_config.json")?,
            object("special_tokens_map.json")?,
            &object("added_tokens.json")?,
            &fields,
        );
        Self::with_settings(json, &settings, eos)
    }

    /// A `tokenizer.json` with what a `tokenizer_config.json` lays over it.
    fn with_settings(
        json: String,
        settings: &Map<String, Value>,
        eos: Vec<u32>,
    ) -> Result<Self, Error> {
        let mut fields: Map<String, Value> = serde_json::from_str(&json).map_err(unusable)?;
        settings::apply(&mut fields, settings)?;
        let tokenizer = Self::from_fields(fields, json, eos)?;
        let bos = settings.get("bos_token");
        let bos = bos.and_then(|token| token.as_str().or(token["content"].as_str()));
        if let (Some(Value::Bool(wanted)), Some(bos)) = (settings.get("add_bos_token"), bos) {
            let first = tokenizer.encode("")?.ids.first().copied();
            if (first.is_some() && first == tokenizer.id(bos)) != *wanted {
                let problem = format!(
                    "is {wanted}, tokenizer.json does otherwise, and which counts depends on the version of \
                     transformers: make the two files agree (saving the tokenizer anew does)"
                );
                return Err(settings::refused("add_bos_token", &problem));
            }
        }
        Ok(tokenizer)
    }

    /// Rebuilds a tokenizer from the metadata of a GGUF file.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] naming a kind of tokenizer that cannot be rebuilt exactly.
    pub fn from_gguf(vocabulary: GgufVocabulary) -> Result<Self, Error> {
        let eos = vocabulary.ends();
        let mut tokenizer = Self::from_json(vocabulary.to_json()?.to_string(), eos)?;
        tokenizer.kept = Kept {
            unknown: vocabulary.unknown,
            pad: vocabulary.pad,
            chat_template: vocabulary.chat_template,
            named_templates: vocabulary.named_templates,
        };
        Ok(tokenizer)
    }

    /// Reads the contents of a `tokenizer.json`; `eos` are the ids that end a text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizers library refuses it.
    pub fn from_json(json: String, eos: Vec<u32>) -> Result<Self, Error> {
        let fields = serde_json::from_str(&json).map_err(unusable)?;
        Self::from_fields(fields, json, eos)
    }

    /// From the fields of a `tokenizer.json`, which was read from `json`.
    fn from_fields(
        mut fields: Map<String, Value>,
        json: String,
        eos: Vec<u32>,
    ) -> Result<Self, Error> {
        let dropout = fields
            .get("model")
            .and_then(|model| model["dropout"].as_f64());
        if let Some(dropout) = dropout.filter(|dropout| *dropout != 0.0) {
            let problem = format!("`model.dropout` is {dropout}: a text would be cut at random");
            return Err(unusable(problem + ", set it to null"));
        }
        // A prompt is never cut or filled up here, whatever the file was last used for.
        fields.insert("truncation".into(), Value::Null);
        fields.insert("padding".into(), Value::Null);
        if let Some(processor) = fields.get_mut("post_processor") {
            keep_spaces(processor);
        }
        if let Some(token) = too_long(&fields) {
            let start: String = token.chars().take(20).collect();
            let problem = format!(
                "token {start:?}... has {} bytes, {LONGEST_TOKEN} are the most",
                token.len()
            );
            return Err(unusable(problem + ": leave it out of the vocabulary"));
        }
        let value = Value::Object(fields);
        let inner =
            library(|| tokenizers::Tokenizer::from_bytes(value.to_string())).map_err(unusable)?;
        if let Some(token) = ends_texts(&inner) {
            let problem = format!("`post_processor` puts {token} behind every text");
            return Err(unusable(
                problem
                    + ": a prompt that ends itself cannot be continued, take it out of the template",
            ));
        }
        Ok(Self {
            pieces: Pieces::of(&value),
            inner,
            eos,
            vocab: usize::MAX,
            json,
            kept: Kept::default(),
        })
    }

    /// Makes ids of `vocab` and more an error.
    pub(crate) fn limit(&mut self, vocab: usize) {
        self.vocab = vocab;
    }

    /// Encodes a text, with the special tokens the model's own tokenizer adds.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], and [`Error::TokenId`] for a token the model has no embedding of.
    pub fn encode(&self, text: &str) -> Result<Encoding, Error> {
        let encoding = library(|| self.inner.encode(text, true))
            .map_err(|source| Error::Tokenizer(format!("cannot encode {text:?}: {source}")))?;
        let ids = encoding.get_ids().to_vec();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
            return Err(Error::TokenId {
                id: id.into(),
                vocab: self.vocab,
            });
        }
        let lengths: Vec<usize> = ids.iter().map(|&id| self.bytes(id).len()).collect();
        let mut offsets = encoding.get_offsets().to_vec();
        split_shared(&mut offsets, &lengths);
        Ok(Encoding { ids, offsets })
    }

    /// Decodes ids to text, special tokens included; bytes that are not whole characters become
    /// U+FFFD. An id without a token is no text, as in transformers: embeddings are padded to rows
    /// that no token has.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        library(|| self.inner.decode(ids, false))
            .map_err(|source| Error::Tokenizer(format!("cannot decode {ids:?}: {source}")))
    }

    /// The text that `ids` add to the text of `before`. Some tokenizers take away the space before
    /// a text's first token: so what is continued is decoded with what comes before it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn decode_after(&self, before: &[u32], ids: &[u32]) -> Result<String, Error> {
        let first = self.decode(before)?;
        let mut whole = self.decode(&[before, ids].concat())?;
        // They part before the end of the first where it ends inside a character that the ids
        // complete.
        let pairs = first.char_indices().zip(whole.chars());
        let parted = pairs.into_iter().find(|((_, a), b)| a != b);
        let from = parted.map_or(first.len(), |((at, _), _)| at);
        Ok(whole.split_off(from.min(whole.len())))
    }

    /// The text of one token, with its leading space; bytes that are not whole characters become
    /// U+FFFD. Empty for an id that is no token.
    pub fn piece(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.bytes(id)).into_owned()
    }

    /// The bytes one token stands for.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.inner.id_to_token(id) else {
            return Vec::new();
        };
        let added = self.inner.get_added_vocabulary();
        if added.simple_id_to_token(id).is_some() {
            return token.into_bytes();
        }
        self.pieces.bytes(&token)
    }

    /// Ids that end a text.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// The id of a token given as the vocabulary writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token as the vocabulary writes it, by its id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// What a GGUF file says beside the tokenizer itself.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The tokenizer as a `tokenizer.json`: the file it came from, or the one it was rebuilt as.
    pub fn to_json(&self) -> &str {
        &self.json
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("tokens", &self.inner.get_vocab_size(true))
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

fn unusable(problem: impl std::fmt::Display) -> Error {
    Error::Tokenizer(format!("tokenizer.json is not usable: {problem}"))
}

/// Makes a post-processor report offsets with the spaces a token covers, so that ranges tile the
/// text.
fn keep_spaces(processor: &mut Value) {
    match processor {
        Value::Object(map) => {
            if let Some(trim) = map.get_mut("trim_offsets") {
                *trim = Value::Bool(false);
            }
            map.values_mut().for_each(keep_spaces);
        }
        Value::Array(list) => list.iter_mut().for_each(keep_spaces),
        _ => {}
    }
}

/// A token that is longer than any of a real vocabulary, if there is one.
fn too_long(fields: &Map<String, Value>) -> Option<String> {
    let model = fields.get("model").map(|model| &model["vocab"]);
    let long = |text: &&str| text.len() > LONGEST_TOKEN;
    let of_model = match model {
        Some(Value::Object(tokens)) => tokens.keys().map(String::as_str).find(long),
        Some(Value::Array(tokens)) => tokens.iter().filter_map(|it| it[0].as_str()).find(long),
        _ => None,
    };
    let added = fields.get("added_tokens").and_then(Value::as_array);
    let mut added = added.into_iter().flatten();
    let of_added = || added.find_map(|it| it["content"].as_str().filter(long));
    of_model.or_else(of_added).map(str::to_owned)
}

/// The token that the template puts behind every text, if it does: what is traced or continued then
/// stands behind an end.
fn ends_texts(tokenizer: &tokenizers::Tokenizer) -> Option<String> {
    let text = tokenizers::Token::new(0, "x".to_owned(), (0, 1));
    let text = tokenizers::Encoding::from_tokens(vec![text], 0);
    let encoding = library(|| tokenizer.post_process(text, None, true)).ok()?;
    let special = encoding.get_special_tokens_mask();
    let text = special.iter().rposition(|&special| special == 0)?;
    encoding.get_tokens().get(text + 1).cloned()
}

/// Calls the tokenizers library, which takes much of a file on trust, and panics over some that
/// make no sense: merges that are shorter than the prefix they should have, say.
fn library<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match caught(call) {
        Some(result) => result.map_err(|error| error.to_string()),
        None => Err(
            "the tokenizers library fails on it: its merges, prefixes and tokens do not fit \
                     together"
                .to_owned(),
        ),
    }
}

/// The tokenizers library gives every token that holds part of a character the range of the whole
/// character. Divides such shared ranges by the tokens' own lengths where these add up.
fn split_shared(offsets: &mut [(usize, usize)], lengths: &[usize]) {
    let mut from = 0;
    while from < offsets.len() {
        let (start, mut end) = offsets[from];
        let mut to = from + 1;
        while to < offsets.len() && offsets[to].0 < end && offsets[to].1 > offsets[to].0 {
            end = end.max(offsets[to].1);
            to += 1;
        }
        let shared = to - from > 1;
        if shared && lengths[from..to].iter().sum::<usize>() == end - start {
            let mut at = start;
            for (offset, length) in offsets[from..to].iter_mut().zip(&lengths[from..to]) {
                *offset = (at, at + length);
                at += length;
            }
        }
        from = to;
    }
}
