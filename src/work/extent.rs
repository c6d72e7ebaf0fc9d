//! How much a text can be of tokens, and a token of text. A worker's word is held against it: the
//! coordinator has no tokenizer, but what no tokenizer gives is no result.

use crate::model::tokenizer::LONGEST_TOKEN;
use crate::proto::v1::model::Shape;

/// Most bytes of text that a token stands for. Bytes that are no characters are written as U+FFFD,
/// three bytes each.
pub(super) const TEXT_OF_A_TOKEN: usize = 3 * LONGEST_TOKEN;
/// Most tokens that a byte of text becomes: one, but normalisation (NFKC) writes some characters of
/// three bytes as thirty-three.
const TOKENS_OF_A_BYTE: usize = 12;
/// Most tokens that a tokenizer puts around a text.
const TOKENS_AROUND: usize = 64;

/// Most tokens of a text.
pub(super) fn most_tokens(text: &str) -> usize {
    text.len() * TOKENS_OF_A_BYTE + TOKENS_AROUND
}

/// Whether a text can be that of so many tokens, which come after others: these may have left a
/// character open.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn text_of(tokens: usize, text: &str) -> Result<(), String> {
    let most = match tokens {
        0 => 0,
        tokens => tokens * TEXT_OF_A_TOKEN + 3,
    };
    match text.len() > most {
        true => Err(format!(
            "has {} bytes of text, its {tokens} tokens can be {most} at most",
            text.len()
        )),
        false => Ok(()),
    }
}

/// Whether a model takes so many tokens. A shape that says nothing bounds nothing.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn in_context(tokens: usize, shape: &Shape) -> Result<(), String> {
    match shape.context > 0 && tokens > shape.context as usize {
        true => Err(format!(
            "has {tokens} tokens, the model's context {}",
            shape.context
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_no_tokenizer_gives_is_found_and_what_one_may_give_is_not() {
        assert_eq!(text_of(0, ""), Ok(()));
        assert!(text_of(0, "a").is_err());
        assert_eq!(text_of(1, &"a".repeat(LONGEST_TOKEN)), Ok(()));
        assert!(text_of(1, &"a".repeat(4 * LONGEST_TOKEN)).is_err());
        // An Arabic ligature that NFKC writes as eighteen characters.
        assert!(most_tokens("\u{fdfa}") > 33 + 2);
        let shape = |context| Shape {
            context,
            ..Default::default()
        };
        assert_eq!(in_context(8, &shape(8)), Ok(()));
        assert_eq!(in_context(8, &shape(0)), Ok(()));
        assert!(in_context(9, &shape(8)).is_err());
    }
}
