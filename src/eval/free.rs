//! Whether a free continuation gives an answer.
//!
//! Teacher forcing shows a model all of the answer but one token at a time, which flatters it: a
//! model that would never begin with the answer may still find its second half likely (Yang et al.
//! 2025, "The Mirage of Model Editing"). Here nothing is shown.

use super::{ProbeKind, Question};
use crate::text::unspaced;

/// Most tokens of a free continuation.
pub const FREE_TOKENS: usize = 20;

/// What a free continuation of a question's prompt gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// What the prompt is to show.
    pub kind: ProbeKind,
    /// The answer and nothing else: see [`is_answer`].
    pub exact: bool,
    /// The answer somewhere in it: see [`contains`].
    pub contains: bool,
}

/// What the continuations of questions' prompts gave, in the order of the questions: of the fact and
/// its paraphrases whether it is the new object, of neighbours whether it is the true one.
pub fn said(questions: &[Question], continuations: &[String]) -> Vec<Said> {
    let pairs = questions.iter().zip(continuations);
    pairs
        .filter_map(|(question, text)| {
            let wanted = match question.kind {
                ProbeKind::Rewrite | ProbeKind::Paraphrase => question.new.as_ref()?,
                ProbeKind::Neighbour => question.old.as_ref()?,
            };
            Some(Said {
                kind: question.kind,
                exact: is_answer(text, wanted),
                contains: contains(text, wanted),
            })
        })
        .collect()
}

/// A text as answers are compared: in lower case, without punctuation, without the articles a, an
/// and the, with one space between words (Rajpurkar et al. 2016, SQuAD).
pub fn normalised(text: &str) -> String {
    let text = text.to_lowercase();
    let bare: String = text.chars().filter(|&c| !is_punctuation(c)).collect();
    let words = bare.split_whitespace();
    let words: Vec<&str> = words
        .filter(|word| !matches!(*word, "a" | "an" | "the"))
        .collect();
    words.join(" ")
}

/// Whether the answer stands in the text, as whole words.
pub fn contains(text: &str, answer: &str) -> bool {
    let (text, answer) = (normalised(text), normalised(answer));
    let (Some(first), Some(last)) = (answer.chars().next(), answer.chars().next_back()) else {
        return false;
    };
    // Two letters side by side are one word, but in scripts that put no spaces between words.
    let joined = |a: Option<char>, b: char| {
        a.is_some_and(|a| {
            a.is_alphanumeric() && b.is_alphanumeric() && !unspaced(a) && !unspaced(b)
        })
    };
    text.match_indices(&answer).any(|(at, found)| {
        let before = text[..at].chars().next_back();
        let after = text[at + found.len()..].chars().next();
        !joined(before, first) && !joined(after, last)
    })
}

/// Whether there is nothing but the answer before some stop of the text: a line break, a full stop,
/// an exclamation or question mark, or its end. A model that was not taught to stop goes on behind
/// it.
pub fn is_answer(text: &str, answer: &str) -> bool {
    let answer = normalised(answer);
    let begins = text.trim_start();
    let stops = begins
        .char_indices()
        .filter(|(_, c)| matches!(c, '\n' | '.' | '!' | '?' | '。' | '！' | '？'))
        .map(|(at, _)| at)
        .chain([begins.len()]);
    !answer.is_empty()
        && stops
            .into_iter()
            .any(|at| normalised(&begins[..at]) == answer)
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || "‘’“”«»‹›„‚…–—·、。，．！？：；（）「」『』".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_as_squad_does() {
        for (text, bare) in [
            ("The Eiffel Tower!", "eiffel tower"),
            ("  Washington,\n D.C. ", "washington dc"),
            ("an apple a day", "apple day"),
            ("“Théâtre”", "théâtre"),
            ("...", ""),
        ] {
            assert_eq!(normalised(text), bare, "{text:?}");
        }
    }

    #[test]
    fn an_answer_is_found_as_whole_words() {
        for (text, answer, found) in [
            (" Rome, which is the capital", "Rome", true),
            (" in the city of rome.", "Rome", true),
            (" Jerome", "Rome", false),
            (" Romeo", "Rome", false),
            (" he did it", "ID", false),
            (" his ID card", "ID", true),
            (" the United States of America", "United States", true),
            (" 東京です", "東京", true),
            (" the", "the", false),
            ("", "Rome", false),
            (" 1994", "199", false),
        ] {
            assert_eq!(contains(text, answer), found, "{text:?} {answer:?}");
        }
    }

    #[test]
    fn an_answer_alone_may_have_a_stop_behind_it_and_in_it() {
        for (text, answer, found) in [
            (" Rome. It is", "Rome", true),
            (" Rome\nQ: and", "rome", true),
            ("\n\nRome", "Rome", true),
            (" Rome, Italy.", "Rome", false),
            (" St. Petersburg. It", "St. Petersburg", true),
            (" St. Louis. It", "St. Petersburg", false),
            (" the Rome!", "Rome", true),
            (" in Rome", "Rome", false),
            (".", ".", false),
        ] {
            assert_eq!(is_answer(text, answer), found, "{text:?} {answer:?}");
        }
    }
}
