//! Texts that are decoded in parts.

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
