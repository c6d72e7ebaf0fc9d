//! Texts that are decoded in parts, and what a `tokenizer_config.json` lays over a tokenizer.

use serde_json::{Value, json};

use super::{GgufVocabulary, Tokenizer};

/// A SentencePiece vocabulary, whose decoder takes away the space before a text.
fn sentence_piece() -> Tokenizer {
    let tokens = [
        "<unk>", "<s>", "</s>", "<0xE2>", "<0x82>", "<0xAC>", "▁", "a", "b", "▁a", "▁b",
    ];
    Tokenizer::from_gguf(GgufVocabulary {
        model: "llama".into(),
        tokens: tokens.map(String::from).to_vec(),
        scores: vec![0.0; tokens.len()],
        types: vec![2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1],
        bos: Some(1),
        eos: vec![2],
        unknown: Some(0),
        add_bos: Some(false),
        add_space_prefix: true,
        ..GgufVocabulary::default()
    })
    .unwrap()
}

#[test]
fn a_gguf_files_continuations_end_where_llama_cpps_do() {
    let tokens = [
        "<s>",
        "a",
        "</s>",
        "<|eot_id|>",
        "<|im_end|>",
        "<|im_start|>",
    ];
    let ends = |eos: &[u32]| {
        let vocabulary = GgufVocabulary {
            model: "llama".into(),
            tokens: tokens.map(String::from).to_vec(),
            scores: vec![0.0; tokens.len()],
            types: vec![3, 1, 3, 3, 4, 3],
            eos: eos.to_vec(),
            add_bos: Some(false),
            ..GgufVocabulary::default()
        };
        Tokenizer::from_gguf(vocabulary).unwrap().eos().to_vec()
    };
    // What the file names comes first: it is the token that an export calls the end.
    assert_eq!(ends(&[4, 1]), [4, 1, 2, 3]);
    assert_eq!(ends(&[]), [2, 3, 4]);
}

#[test]
fn what_is_continued_keeps_the_space_of_its_first_token() {
    let tokenizer = sentence_piece();
    let prompt = tokenizer.encode("a b").unwrap().ids;
    assert_eq!(tokenizer.decode(&prompt).unwrap(), "a b");
    assert_eq!(tokenizer.decode_after(&prompt, &[9, 8]).unwrap(), " ab");
    assert_eq!(tokenizer.decode_after(&prompt, &[]).unwrap(), "");
    assert_eq!(tokenizer.decode_after(&[], &[9]).unwrap(), "a");
}

#[test]
fn a_character_that_a_prompt_leaves_open_is_completed_by_what_follows() {
    let tokenizer = sentence_piece();
    // The euro sign's first byte in the prompt, the other two in what follows.
    assert_eq!(tokenizer.decode_after(&[9, 3], &[4, 5, 8]).unwrap(), "€b");
}

#[test]
fn an_id_without_a_token_is_no_text() {
    let tokenizer = sentence_piece();
    assert_eq!(tokenizer.decode(&[9, 500, 8]).unwrap(), "ab");
    assert_eq!(tokenizer.decode_after(&[9], &[500, 10]).unwrap(), " b");
}

/// A byte-level tokenizer of seven tokens.
fn byte_level() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        },
        "post_processor": null,
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "\u{120}": 2, "\u{120}a": 3, "<": 4, ">": 5, "<s>": 6},
            "merges": [["\u{120}", "a"]],
        },
    })
}

fn laid_over(settings: Value) -> Result<Tokenizer, String> {
    let settings = settings.as_object().unwrap();
    Tokenizer::with_settings(byte_level().to_string(), settings, vec![])
        .map_err(|error| error.to_string())
}

#[test]
fn a_prefix_space_of_the_settings_is_put_or_refused() {
    let ids = |settings| laid_over(settings).unwrap().encode("a").unwrap().ids;
    assert_eq!(ids(json!({})), [0]);
    let gpt2 = json!({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": true});
    assert_eq!(ids(gpt2), [3]);
    let same = json!({"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": false});
    assert_eq!(ids(same), [0]);
    let other = json!({"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": true});
    let said = laid_over(other).unwrap_err();
    assert!(said.contains("`add_prefix_space` is true"), "{said}");
}

#[test]
fn tokens_of_the_settings_are_matched_whole_or_refused() {
    let ids = |settings| laid_over(settings).unwrap().encode("a<s>b").unwrap().ids;
    let token = |content: &str| json!({"content": content, "special": true});
    assert_eq!(ids(json!({"bos_token": "<s>"})), [0, 6, 1]);
    assert_eq!(ids(json!({"bos_token": {"content": "<s>"}})), [0, 6, 1]);
    assert_eq!(
        ids(json!({"additional_special_tokens": ["<s>"]})),
        [0, 6, 1]
    );
    assert_eq!(
        ids(json!({"added_tokens_decoder": {"6": token("<s>")}})),
        [0, 6, 1]
    );
    let new = laid_over(json!({"added_tokens_decoder": {"7": token("ab")}})).unwrap();
    assert_eq!(new.encode("aabb").unwrap().ids, [0, 7, 1]);
    for (id, content) in [("5", "<s>"), ("3", "<tool>"), ("9", "<tool>")] {
        let said = laid_over(json!({"added_tokens_decoder": {id: token(content)}})).unwrap_err();
        assert!(
            said.contains("added_tokens_decoder") && said.contains(content),
            "{said}"
        );
    }
}

/// A folder with the byte-level tokenizer and other files.
fn in_folder(files: &[(&str, Value)]) -> Result<Tokenizer, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("tokenizer.json"),
        byte_level().to_string(),
    )
    .unwrap();
    for (name, file) in files {
        std::fs::write(folder.path().join(name), file.to_string()).unwrap();
    }
    Tokenizer::from_folder(folder.path(), vec![]).map_err(|error| error.to_string())
}

#[test]
fn tokens_of_the_files_of_before_2023_count_where_the_settings_name_none() {
    let ids = |files: &[(&str, Value)]| in_folder(files).unwrap().encode("a<s>ab").unwrap().ids;
    let apart = [0, 4, 5, 0, 1];
    let map = (
        "special_tokens_map.json",
        json!({"bos_token": {"content": "<s>", "lstrip": false}}),
    );
    let added = ("added_tokens.json", json!({"ab": 7, "<s>": 6}));
    // "s" is no token of this vocabulary.
    assert_eq!(ids(&[]), apart);
    assert_eq!(ids(std::slice::from_ref(&map)), [0, 6, 0, 1]);
    assert_eq!(ids(std::slice::from_ref(&added)), [0, 6, 7]);
    assert_eq!(ids(&[map.clone(), added.clone()]), [0, 6, 7]);
    let newer = ("tokenizer_config.json", json!({"added_tokens_decoder": {}}));
    assert_eq!(ids(&[newer, map, added]), apart);
    let elsewhere = ("added_tokens.json", json!({"<s>": 3}));
    let said = in_folder(&[elsewhere]).unwrap_err();
    assert!(said.contains("\"<s>\" token 3"), "{said}");
}

/// As in a copy of Mistral-7B-Instruct-v0.2's file, and the short ones of GPT-2's and Pythia's
/// families.
#[test]
fn every_field_of_published_settings_is_used_or_has_a_reason() {
    let flags = ["lstrip", "normalized", "rstrip", "single_word"];
    let used = [
        "add_bos_token",
        "add_eos_token",
        "add_prefix_space",
        "added_tokens_decoder",
        "additional_special_tokens",
        "bos_token",
        "eos_token",
        "extra_special_tokens",
        "mask_token",
        "cls_token",
        "pad_token",
        "sep_token",
        "split_special_tokens",
        "unk_token",
    ];
    for file in [
        json!({
            "add_bos_token": true, "add_eos_token": false, "added_tokens_decoder": {}, "additional_special_tokens": [],
            "bos_token": "<s>", "chat_template": "{{ bos_token }}", "clean_up_tokenization_spaces": false,
            "eos_token": "</s>", "legacy": true, "model_max_length": 1e30, "pad_token": null, "sp_model_kwargs": {},
            "spaces_between_special_tokens": false, "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>",
            "use_default_system_prompt": false,
        }),
        json!({
            "tokenizer_class": "LlamaTokenizer", "model_max_length": 2048, "padding_side": "left", "bos_token": "<s>",
            "eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": false,
            "special_tokens_map_file": "special_tokens_map.json",
        }),
        json!({
            "add_bos_token": false, "add_eos_token": false, "add_prefix_space": false, "bos_token": "<|endoftext|>",
            "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": null,
            "clean_up_tokenization_spaces": true, "tokenizer_class": "GPTNeoXTokenizer",
        }),
        json!({
            "add_prefix_space": false, "errors": "replace", "model_max_length": 32768, "split_special_tokens": false,
            "tokenizer_class": "Qwen2Tokenizer", "unk_token": null, "bos_token": null,
        }),
        json!({"model_max_length": 1024}),
    ] {
        for field in file.as_object().unwrap().keys() {
            let one = used.contains(&field.as_str()) != super::unused_setting(field).is_some();
            assert!(one, "{field}");
        }
    }
    assert!(
        flags
            .iter()
            .all(|flag| super::unused_setting(flag).is_none())
    );
}

#[test]
fn a_start_token_that_the_settings_want_and_the_tokenizer_does_not_put_is_refused() {
    let with = |wanted: bool| laid_over(json!({"bos_token": "<s>", "add_bos_token": wanted}));
    with(false).unwrap();
    let said = with(true).unwrap_err();
    assert!(said.contains("`add_bos_token` is true"), "{said}");
    let said = laid_over(json!({"add_eos_token": true})).unwrap_err();
    assert!(said.contains("add_eos_token"), "{said}");
}

#[test]
fn a_tokenizer_that_cuts_at_random_is_refused() {
    let mut json = byte_level();
    json["model"]["dropout"] = json!(0.1);
    let said = Tokenizer::from_json(json.to_string(), vec![])
        .unwrap_err()
        .to_string();
    assert!(said.contains("dropout"), "{said}");
}

#[test]
fn a_tokenizer_whose_template_ends_every_text_is_refused() {
    let template = |pieces: Value| {
        let mut json = byte_level();
        json["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": pieces,
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [6], "tokens": ["<s>"]}},
        });
        Tokenizer::from_json(json.to_string(), vec![])
    };
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let token = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    assert!(template(json!([text])).is_ok());
    assert!(template(json!([token, text])).is_ok());
    for pieces in [json!([text, token]), json!([token, text, token])] {
        let said = template(pieces).unwrap_err().to_string();
        assert!(
            said.contains("post_processor") && said.contains("<s>"),
            "{said}"
        );
    }
}
