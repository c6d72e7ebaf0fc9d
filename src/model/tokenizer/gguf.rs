//! The tokenizer in a GGUF file's metadata, rewritten as a `tokenizer.json`.

use serde_json::{Map, Value, json};

use super::super::Error;

/// `tokenizer.ggml.token_type`: a token that stands for no text.
const CONTROL: i64 = 3;
/// A token matched in the text before anything else.
const USER_DEFINED: i64 = 4;
/// SentencePiece's `<unk>`.
const UNKNOWN: i64 = 2;

/// Texts of tokens that end a continuation, as in llama.cpp's list (`special_eog_ids`), without
/// those of architectures that are not read here.
const ENDS: &[&str] = &[
    "</s>",
    "<EOT>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<eos>",
    "<|end_of_text|>",
    "<|end|>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|im_end|>",
    "[EOS]",
    "[EOT]",
    "_<EOT>",
];

/// `tokenizer.ggml.*` of a GGUF file.
#[derive(Debug, Clone, Default)]
pub struct GgufVocabulary {
    /// `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub model: String,
    /// How text is cut before merging; byte-level BPE only.
    pub pre: Option<String>,
    /// Every token, by id.
    pub tokens: Vec<String>,
    /// `"left right"`, best first; byte-level BPE only.
    pub merges: Vec<String>,
    /// Kind of every token: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub types: Vec<i64>,
    /// Rank of every token; SentencePiece only.
    pub scores: Vec<f32>,
    /// Start-of-text id.
    pub bos: Option<u32>,
    /// Ids that the file names as ends of a text, of a turn and of a message.
    pub eos: Vec<u32>,
    /// `<unk>`.
    pub unknown: Option<u32>,
    /// What texts are filled up with.
    pub pad: Option<u32>,
    /// How a conversation is written as one text, in Jinja.
    pub chat_template: Option<String>,
    /// Further templates with their names.
    pub named_templates: Vec<(String, String)>,
    /// Whether a text starts with `bos`; what the kind of tokenizer does by itself where the file
    /// does not say.
    pub add_bos: Option<bool>,
    /// Whether a text ends with `eos`.
    pub add_eos: bool,
    /// Whether a space is put before the text; SentencePiece only.
    pub add_space_prefix: bool,
    /// Whether runs of spaces become one.
    pub remove_extra_whitespaces: bool,
}

/// How one kind of byte-level BPE cuts a text.
struct Cut {
    normalizer: Value,
    pre_tokenizer: Value,
    /// Take a whole word that is a token, whatever the merges say.
    ignore_merges: bool,
    add_bos: bool,
}

impl GgufVocabulary {
    /// The ids that end a continuation: those that the file names, then those of tokens whose text
    /// is an end. So does llama.cpp: many files name one end where their model has several (a turn
    /// of a chat, a message to a tool, a document).
    pub(super) fn ends(&self) -> Vec<u32> {
        let texts = (0..).zip(&self.tokens);
        let by_text = texts
            .filter(|(_, text)| ENDS.contains(&text.as_str()))
            .map(|(id, _)| id);
        let mut ends: Vec<u32> = Vec::new();
        for id in self.eos.iter().copied().chain(by_text) {
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
        ends
    }

    /// The `tokenizer.json` that does the same.
    pub(super) fn to_json(&self) -> Result<Value, Error> {
        let tokens = self.tokens.len();
        for (what, length) in [
            ("token_type", self.types.len()),
            ("scores", self.scores.len()),
        ] {
            if length != 0 && length != tokens {
                return Err(refused(format!(
                    "{tokens} tokens, but {length} entries of {what}"
                )));
            }
        }
        if self.add_eos {
            return Err(refused(
                "add_eos_token is true; a prompt that ends itself cannot be continued".into(),
            ));
        }
        if self.remove_extra_whitespaces {
            return Err(refused(
                "remove_extra_whitespaces is true, which is not supported".into(),
            ));
        }
        match self.model.as_str() {
            "gpt2" => self.byte_level(),
            "llama" => self.sentence_piece(),
            other => Err(refused(format!(
                "tokenizer.ggml.model is `{other}`; supported: gpt2 (byte-level BPE), llama (SentencePiece BPE)"
            ))),
        }
    }

    fn byte_level(&self) -> Result<Value, Error> {
        let cut = Cut::of(self.pre.as_deref())?;
        if self.merges.is_empty() {
            return Err(refused(
                "byte-level BPE needs tokenizer.ggml.merges: without, every text falls into single bytes".into(),
            ));
        }
        let merges = self.merges.iter().map(|merge| {
            merge
                .split_once(' ')
                .map(|(left, right)| json!([left, right]))
                .ok_or_else(|| refused(format!("merge `{merge}` is not two tokens and a space")))
        });
        let merges: Vec<Value> = merges.collect::<Result<_, _>>()?;
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added_tokens(),
            "normalizer": cut.normalizer,
            "pre_tokenizer": cut.pre_tokenizer,
            "post_processor": self.template(cut.add_bos)?,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": cut.ignore_merges,
                "vocab": self.vocabulary()?,
                "merges": merges,
            },
        }))
    }

    /// SentencePiece's BPE joins the neighbours whose union has the best score. As a list of merges
    /// that is: every way to cut a token in two tokens, best score of the whole first.
    fn sentence_piece(&self) -> Result<Value, Error> {
        if self.scores.is_empty() {
            return Err(refused(
                "a SentencePiece vocabulary needs tokenizer.ggml.scores".into(),
            ));
        }
        let vocabulary = self.vocabulary()?;
        let skipped = |id: usize| {
            matches!(
                self.types.get(id),
                Some(&(CONTROL | UNKNOWN | USER_DEFINED))
            )
        };
        let part = |text: &str| {
            let id = vocabulary.get(text)?.as_u64()? as usize;
            (!skipped(id)).then_some(id)
        };
        let mut merges = Vec::new();
        for (id, token) in self
            .tokens
            .iter()
            .enumerate()
            .filter(|(id, _)| !skipped(*id))
        {
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(l), Some(r)) = (part(left), part(right)) {
                    merges.push((self.scores[id], id, l, r, left, right));
                }
            }
        }
        merges.sort_by(|a, b| {
            b.0.total_cmp(&a.0)
                .then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
        });
        let merges: Vec<_> = merges.iter().map(|m| json!([m.4, m.5])).collect();
        let unknown = self.unknown.and_then(|id| self.tokens.get(id as usize));
        let mut normalizers =
            vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.add_space_prefix {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added_tokens(),
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null,
            "post_processor": self.template(true)?,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": unknown,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": true,
                "byte_fallback": true,
                "ignore_merges": false,
                "vocab": vocabulary,
                "merges": merges,
            },
        }))
    }

    /// Token -> id.
    fn vocabulary(&self) -> Result<Map<String, Value>, Error> {
        let mut map = Map::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(other) = map.insert(token.clone(), id.into()) {
                return Err(refused(format!(
                    "token {token:?} is both id {other} and id {id}"
                )));
            }
        }
        Ok(map)
    }

    /// Control and user-defined tokens, which are matched in the text as they stand.
    fn added_tokens(&self) -> Vec<Value> {
        let kinds = self.types.iter().zip(&self.tokens).enumerate();
        kinds
            .filter(|(_, (kind, _))| matches!(**kind, CONTROL | UNKNOWN | USER_DEFINED))
            .map(|(id, (kind, token))| {
                json!({
                    "id": id,
                    "content": token,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": *kind != USER_DEFINED,
                })
            })
            .collect()
    }

    /// Puts the start-of-text token first, where the file or else the kind of tokenizer wants it.
    fn template(&self, default: bool) -> Result<Value, Error> {
        if !self.add_bos.unwrap_or(default) {
            return Ok(Value::Null);
        }
        let token = self.bos.and_then(|id| self.tokens.get(id as usize));
        let (Some(id), Some(token)) = (self.bos, token) else {
            return Err(refused(
                "a start-of-text token is to be added, but bos_token_id names none".into(),
            ));
        };
        let start = json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
        Ok(json!({
            "type": "TemplateProcessing",
            "single": [start, text("A", 0)],
            "pair": [start, text("A", 0), text("B", 1)],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
        }))
    }
}

impl Cut {
    /// llama.cpp's names of pre-tokenizers, as the models' own tokenizer.json files write them.
    fn of(pre: Option<&str>) -> Result<Self, Error> {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let split = |regex: &str| {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
                bytes(false),
            ]})
        };
        let plain = |pre_tokenizer: Value| Cut {
            normalizer: Value::Null,
            pre_tokenizer,
            ignore_merges: false,
            add_bos: false,
        };
        // What is made of a letter and an accent is the one letter that has it.
        let composed = |pre_tokenizer: Value| Cut {
            normalizer: json!({"type": "NFC"}),
            ..plain(pre_tokenizer)
        };
        let digit_by_digit = || {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true},
                bytes(true),
            ]})
        };
        match pre {
            Some("gpt-2" | "phi-2") => Ok(plain(bytes(true))),
            // That of GPT-NeoX, which OLMo took over.
            Some("olmo") => Ok(composed(bytes(true))),
            Some("falcon") => Ok(plain(json!({"type": "Sequence", "pretokenizers": [
                {"type": "Punctuation", "behavior": "Contiguous"},
                bytes(true),
                {"type": "Digits", "individual_digits": false},
                {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": false},
            ]}))),
            Some("bloom") => Ok(plain(split(r" ?[^(\s|.,!?…。，、।۔،)]+"))),
            Some("smollm" | "starcoder" | "refact") => Ok(plain(digit_by_digit())),
            Some("command-r") => Ok(composed(digit_by_digit())),
            Some("llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1") => Ok(Cut {
                ignore_merges: true,
                add_bos: true,
                ..plain(split(LLAMA_3))
            }),
            Some("dbrx" | "smaug-bpe") => Ok(plain(split(LLAMA_3))),
            Some("qwen2" | "stablelm2") => Ok(composed(split(QWEN_2))),
            Some("deepseek-r1-qwen" | "megrez") => Ok(plain(split(QWEN_2))),
            Some("tekken") => Ok(Cut {
                ignore_merges: true,
                add_bos: true,
                ..plain(split(&by_case("", r"\p{N}")))
            }),
            Some("gpt-4o") => Ok(plain(split(&by_case(
                "(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"\p{N}{1,3}",
            )))),
            other => Err(refused(format!(
                "tokenizer.ggml.pre is `{}`; supported: {SUPPORTED}. Use the model's safetensors with its own \
                 tokenizer.json",
                other.unwrap_or("not set")
            ))),
        }
    }
}

/// Names of pre-tokenizers, for messages.
const SUPPORTED: &str = "gpt-2, phi-2, olmo, falcon, bloom, smollm, starcoder, refact, command-r, llama-bpe, falcon3, \
                         falcon-h1, dbrx, smaug-bpe, qwen2, stablelm2, deepseek-r1-qwen, megrez, tekken, gpt-4o";

/// Words with what stands before them, digits in threes, what is neither with the line's end.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with digits one by one.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The same with words cut where lower case turns to upper: `ending` may stand behind a word.
fn by_case(ending: &str, digits: &str) -> String {
    let (upper, lower) = (
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
    );
    let before = r"[^\r\n\p{L}\p{N}]?";
    format!(
        r"{before}{upper}*{lower}+{ending}|{before}{upper}+{lower}*{ending}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

fn refused(reason: String) -> Error {
    Error::Tokenizer(format!("GGUF metadata: {reason}"))
}
