//! `tokenizer_config.json`: what it says otherwise than `tokenizer.json`.
//!
//! transformers lays it over the tokenizer. What it does so with is done here: tokens that are
//! added, their flags, and the space before a byte-level text. What cannot be told for sure (its
//! versions 4 and 5 differ) is refused where the two files disagree. Of all other fields
//! [`unused_setting`] says why they change no token of a prompt; one that nobody knows is an
//! attribute of the Python object and no more (`PreTrainedTokenizerBase`, 4.0 to 5.23).
//!
//! Before 2023 the same stood in `special_tokens_map.json` and `added_tokens.json`. They count
//! where `tokenizer_config.json` has no `added_tokens_decoder`, as in transformers.

use serde_json::{Map, Value, json};

use super::super::Error;

/// Fields that name a token which transformers matches in a text before anything else.
const SPECIAL: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Classes of tokenizers that put the space before a text where their settings say so, in every
/// version.
const BYTE_LEVEL: [&str; 4] = [
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "GPTNeoXTokenizer",
    "GPTNeoXTokenizerFast",
];

/// Fields with one reason to leave them unused.
const UNUSED: &[(&str, &[&str])] = &[
    (
        "says where the file came from",
        &[
            "name_or_path",
            "_commit_hash",
            "auto_map",
            "processor_class",
            "backend",
            "is_local",
            "local_files_only",
        ],
    ),
    (
        "names a class: the tokenizer.json says what it does (but see add_prefix_space)",
        &[
            "tokenizer_class",
            "slow_tokenizer_class",
            "use_fast",
            "tokenizer_type",
        ],
    ),
    (
        "fills up, cuts or bounds texts: none is filled up or cut here, and the model's own context bounds them",
        &[
            "max_length",
            "max_len",
            "model_max_length",
            "pad_to_multiple_of",
            "pad_token_type_id",
            "padding_side",
            "stride",
            "truncation_side",
            "truncation_strategy",
            "truncation",
        ],
    ),
    (
        "is about conversations, which only exports carry on",
        &[
            "chat_template",
            "default_chat_template",
            "response_schema",
            "use_default_system_prompt",
        ],
    ),
    (
        "changes decoded text, where ours is the bytes of the tokens",
        &[
            "clean_up_tokenization_spaces",
            "errors",
            "spaces_between_special_tokens",
            "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
        ],
    ),
    (
        "is of the slow tokenizer that tokenizer.json was made from, and is in there",
        &[
            "byte_fallback",
            "do_lower_case",
            "fix_mistral_regex",
            "from_slow",
            "keep_accents",
            "legacy",
            "merges_file",
            "sp_model_kwargs",
            "special_tokens_map_file",
            "tokenizer_file",
            "trim_offsets",
            "unicode_normalizer",
            "vocab_file",
            "vocab_size",
        ],
    ),
    (
        "says which arrays a call gives back",
        &["model_input_names", "return_token_type_ids", "verbose"],
    ),
];

/// Why a field of a `tokenizer_config.json` changes no token of a prompt; [`None`] for one that is
/// used, and for one that no tokenizer reads.
pub fn unused_setting(field: &str) -> Option<&'static str> {
    let row = UNUSED.iter().find(|(_, fields)| fields.contains(&field));
    row.map(|(because, _)| *because)
}

/// What the files of before 2023 say, as settings: `special_tokens_map.json` over the settings, and
/// the tokens of `added_tokens.json` that the tokenizer.json does not add itself.
pub(super) fn with_legacy(
    mut settings: Map<String, Value>,
    special: Map<String, Value>,
    added: &Map<String, Value>,
    tokenizer: &Map<String, Value>,
) -> Map<String, Value> {
    if settings.contains_key("added_tokens_decoder") {
        return settings;
    }
    settings.extend(special);
    let text = |token: &Value| {
        token
            .as_str()
            .or(token["content"].as_str())
            .map(str::to_owned)
    };
    let named = SPECIAL
        .iter()
        .filter_map(|field| text(settings.get(*field)?));
    let lists = ["additional_special_tokens", "extra_special_tokens"];
    let lists = lists
        .iter()
        .filter_map(|field| settings.get(*field)?.as_array());
    let special: Vec<String> = named.chain(lists.flatten().filter_map(text)).collect();
    let list = tokenizer.get("added_tokens").and_then(Value::as_array);
    let has = |text: &String| {
        let mut list = list.into_iter().flatten();
        list.any(|token| token["content"] == *text)
    };
    let decoder: Map<String, Value> = added
        .iter()
        .filter(|(text, _)| !has(text))
        .map(|(text, id)| {
            let special = special.contains(text);
            let token = json!({"content": text, "special": special, "normalized": !special});
            (id.to_string(), token)
        })
        .collect();
    if !decoder.is_empty() {
        settings.insert("added_tokens_decoder".to_owned(), decoder.into());
    }
    settings
}

/// Lays the settings over a tokenizer.
pub(super) fn apply(
    tokenizer: &mut Map<String, Value>,
    settings: &Map<String, Value>,
) -> Result<(), Error> {
    if let Some(tokens) = settings.get("added_tokens_decoder") {
        let Some(tokens) = tokens.as_object() else {
            return Err(refused(
                "added_tokens_decoder",
                "is no object: give tokens by their id",
            ));
        };
        let mut tokens: Vec<(u64, &Value)> = (tokens.iter())
            .map(|(id, token)| Some((id.parse().ok()?, token)))
            .collect::<Option<_>>()
            .ok_or_else(|| refused("added_tokens_decoder", "holds what is no token id"))?;
        tokens.sort_by_key(|(id, _)| *id);
        for (id, token) in tokens {
            add(tokenizer, token, Some(id), None)?;
        }
    }
    for field in SPECIAL {
        if let Some(token) = settings.get(field).filter(|token| !token.is_null()) {
            add(tokenizer, token, None, Some(field))?;
        }
    }
    for field in ["additional_special_tokens", "extra_special_tokens"] {
        for token in settings
            .get(field)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            add(tokenizer, token, None, Some(field))?;
        }
    }
    if settings.get("split_special_tokens") == Some(&Value::Bool(true)) {
        return Err(refused(
            "split_special_tokens",
            "is true, which is not supported",
        ));
    }
    if settings.get("add_eos_token") == Some(&Value::Bool(true)) {
        return Err(refused(
            "add_eos_token",
            "is true: a prompt that ends itself cannot be continued, set it to false",
        ));
    }
    prefix_space(tokenizer, settings)
}

/// Makes a token one that is matched in the text as it stands. `id` is what the settings say;
/// `field` names a special token, which has only its text.
fn add(
    tokenizer: &mut Map<String, Value>,
    token: &Value,
    id: Option<u64>,
    field: Option<&str>,
) -> Result<(), Error> {
    let what = field.unwrap_or("added_tokens_decoder");
    let text = token.as_str().or(token["content"].as_str());
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return match field {
            // An empty text names no token.
            Some(_) => Ok(()),
            None => Err(refused(
                what,
                &format!("holds {token}, which has no `content`"),
            )),
        };
    };
    let known = known(tokenizer, text);
    let id = match (known, id) {
        (Some(known), Some(id)) if known != id => {
            let problem = format!("makes {text:?} token {id}, tokenizer.json token {known}");
            return Err(refused(what, &problem));
        }
        (Some(known), _) => known,
        (None, id) => {
            let next = next(tokenizer);
            if id.is_some_and(|id| id != next) {
                let problem = format!(
                    "adds {text:?} as token {}, which in tokenizer.json is another's or leaves a gap: its next is {next}",
                    id.unwrap_or_default()
                );
                return Err(refused(what, &problem));
            }
            next
        }
    };
    let added = tokenizer.entry("added_tokens").or_insert_with(|| json!([]));
    let Some(added) = added.as_array_mut() else {
        return Err(Error::Tokenizer(
            "tokenizer.json: `added_tokens` is no list".into(),
        ));
    };
    let place = added.iter().position(|other| other["content"] == text);
    if place.is_some() && field.is_some() && token.is_string() {
        return Ok(()); // named again, without any flags
    }
    let flag = |name: &str, default: bool| token[name].as_bool().unwrap_or(default);
    let special = field.is_some() || flag("special", false);
    let entry = json!({
        "id": id,
        "content": text,
        "single_word": flag("single_word", false),
        "lstrip": flag("lstrip", false),
        "rstrip": flag("rstrip", false),
        "normalized": flag("normalized", !special),
        "special": special,
    });
    match place {
        Some(place) => added[place] = entry,
        None => added.push(entry),
    }
    Ok(())
}

/// The id of a token, added or of the vocabulary.
fn known(tokenizer: &Map<String, Value>, text: &str) -> Option<u64> {
    let added = tokenizer.get("added_tokens").and_then(Value::as_array);
    let added = added
        .into_iter()
        .flatten()
        .find(|token| token["content"] == text);
    if let Some(token) = added {
        return token["id"].as_u64();
    }
    match &tokenizer.get("model")?["vocab"] {
        Value::Object(vocab) => vocab.get(text)?.as_u64(),
        Value::Array(vocab) => {
            let place = vocab.iter().position(|token| token[0] == text)?;
            Some(place as u64)
        }
        _ => None,
    }
}

/// The id that the library gives to a new token: the number of tokens, where ids have no gap.
fn next(tokenizer: &Map<String, Value>) -> u64 {
    let largest = |ids: &mut dyn Iterator<Item = u64>| ids.max().map_or(0, |id| id + 1);
    let added = tokenizer.get("added_tokens").and_then(Value::as_array);
    let added = largest(
        &mut added
            .into_iter()
            .flatten()
            .filter_map(|it| it["id"].as_u64()),
    );
    let vocab = match tokenizer.get("model").map(|model| &model["vocab"]) {
        Some(Value::Object(vocab)) => largest(&mut vocab.values().filter_map(Value::as_u64)),
        Some(Value::Array(vocab)) => vocab.len() as u64,
        _ => 0,
    };
    added.max(vocab)
}

/// `add_prefix_space`: whether a space is put before a text.
fn prefix_space(
    tokenizer: &mut Map<String, Value>,
    settings: &Map<String, Value>,
) -> Result<(), Error> {
    let Some(Value::Bool(wanted)) = settings.get("add_prefix_space") else {
        return Ok(());
    };
    let class = settings
        .get("tokenizer_class")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let byte_level = tokenizer
        .get_mut("pre_tokenizer")
        .filter(|it| it["type"] == "ByteLevel");
    if let Some(byte_level) = byte_level.filter(|_| BYTE_LEVEL.contains(&class)) {
        byte_level["add_prefix_space"] = (*wanted).into();
        return Ok(());
    }
    if puts_space(tokenizer) == *wanted {
        return Ok(());
    }
    let problem = format!(
        "is {wanted}, tokenizer.json does otherwise, and which counts depends on the version of transformers: make the \
         two files agree (saving the tokenizer anew does)"
    );
    Err(refused("add_prefix_space", &problem))
}

/// Whether a tokenizer.json puts a space before a text.
fn puts_space(tokenizer: &Map<String, Value>) -> bool {
    let mut parts = Vec::new();
    for (name, list) in [
        ("normalizer", "normalizers"),
        ("pre_tokenizer", "pretokenizers"),
    ] {
        if let Some(part) = tokenizer.get(name) {
            parts.push(part);
            parts.extend(part[list].as_array().into_iter().flatten());
        }
    }
    parts.into_iter().any(|part| match part["type"].as_str() {
        Some("Prepend") => true,
        Some("Metaspace") => match part["prepend_scheme"].as_str() {
            Some(scheme) => scheme != "never",
            None => part["add_prefix_space"].as_bool().unwrap_or(true),
        },
        Some("ByteLevel") => part["add_prefix_space"].as_bool().unwrap_or(true),
        _ => false,
    })
}

pub(super) fn refused(field: &str, problem: &str) -> Error {
    Error::Tokenizer(format!("tokenizer_config.json: `{field}` {problem}"))
}
