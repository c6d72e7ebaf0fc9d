//! How a vocabulary writes the bytes of its tokens.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

/// A vocabulary's way of writing bytes.
#[derive(Clone)]
pub enum Pieces {
    /// GPT-2's: every byte is one printable character.
    ByteLevel(Arc<HashMap<char, u8>>),
    /// SentencePiece's: a space is `▁`, and a byte that is in no token is `<0xHH>`.
    SentencePiece,
    /// As is.
    Plain,
}

impl Pieces {
    /// Tells the way from a tokenizer.json's decoder.
    pub fn of(json: &Value) -> Self {
        let decoder = &json["decoder"];
        let mut kinds = vec![decoder["type"].as_str().unwrap_or_default()];
        if let Some(list) = decoder["decoders"].as_array() {
            kinds.extend(list.iter().filter_map(|part| part["type"].as_str()));
        }
        if kinds.contains(&"ByteLevel") {
            Pieces::ByteLevel(Arc::new(byte_characters()))
        } else if kinds.contains(&"ByteFallback") || kinds.contains(&"Metaspace") {
            Pieces::SentencePiece
        } else {
            Pieces::Plain
        }
    }

    /// The bytes of a token of the vocabulary.
    pub fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            Pieces::ByteLevel(bytes) => token
                .chars()
                .map(|c| bytes.get(&c).copied())
                .collect::<Option<_>>()
                .unwrap_or_else(|| token.as_bytes().to_vec()),
            Pieces::SentencePiece => {
                let hex = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
                match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => vec![byte],
                    None => token.replace('▁', " ").into_bytes(),
                }
            }
            Pieces::Plain => token.as_bytes().to_vec(),
        }
    }
}

/// GPT-2's table: printable Latin-1 bytes are themselves, the other 68 are the characters from
/// U+0100 on, in order.
fn byte_characters() -> HashMap<char, u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = ('\u{100}'..).take(256);
    (0..=u8::MAX)
        .filter_map(|byte| {
            let character = if printable(byte) {
                char::from(byte)
            } else {
                others.next()?
            };
            Some((character, byte))
        })
        .collect()
}
