//! Where the subject stands among a prompt's tokens.

use std::ops::Range;

use super::error::Error;

/// The tokens `[b, e)` of `subject` where it begins at byte `start` of `prompt`, or of its first
/// occurrence.
///
/// `offsets` are the byte ranges of the tokens in `prompt`, as the tokenizer gives them; tokens
/// that it added itself have an empty range. `b` is the first token that ends behind the subject's
/// start and `e` is one past the last token that begins before the subject's end. Several
/// byte-level tokens of one character all carry that character's range, so the last of them still
/// counts: going by bytes instead of decoded pieces, which are not UTF-8 there, keeps the count
/// right.
pub fn subject_span(
    prompt: &str,
    subject: &str,
    start: Option<usize>,
    offsets: &[(usize, usize)],
) -> Result<Range<usize>, Error> {
    if subject.is_empty() {
        return Err(Error::EmptySubject {
            prompt: prompt.to_owned(),
        });
    }
    let start = match start {
        // Anywhere but at the subject, the place is wrong.
        Some(start) => prompt
            .get(start..)
            .is_some_and(|rest| rest.starts_with(subject))
            .then_some(start),
        None => prompt.find(subject),
    };
    let Some(start) = start else {
        return Err(Error::SubjectNotInPrompt {
            prompt: prompt.to_owned(),
            subject: subject.to_owned(),
        });
    };
    let end = start + subject.len();
    let first = offsets.iter().position(|&(_, to)| to > start);
    let last = offsets
        .iter()
        .rposition(|&(from, to)| from < end && from < to);
    match (first, last) {
        (Some(first), Some(last)) if first <= last => Ok(first..last + 1),
        _ => Err(Error::SubjectWithoutToken {
            prompt: prompt.to_owned(),
            subject: subject.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_before_a_word_may_belong_to_its_token_or_not() {
        let prompt = "In the Space Needle is";
        // Trimmed offsets, as GPT-2's tokenizer gives them.
        let trimmed = [(0, 2), (3, 6), (7, 12), (13, 16), (16, 19), (20, 22)];
        assert_eq!(
            subject_span(prompt, "Space Needle", None, &trimmed).unwrap(),
            2..5
        );
        let whole = [(0, 2), (2, 6), (6, 12), (12, 16), (16, 19), (19, 22)];
        assert_eq!(
            subject_span(prompt, "Space Needle", None, &whole).unwrap(),
            2..5
        );
    }

    #[test]
    fn a_token_that_holds_more_than_the_subject_counts() {
        // "unhappy day" with subject "happy" inside the first token
        assert_eq!(
            subject_span("unhappy day", "happy", None, &[(0, 7), (7, 11)]).unwrap(),
            0..1
        );
        assert_eq!(
            subject_span("unhappy day", "happy da", None, &[(0, 7), (7, 11)]).unwrap(),
            0..2
        );
    }

    #[test]
    fn tokens_that_the_tokenizer_added_do_not_count() {
        assert_eq!(
            subject_span("Rome is", "Rome", None, &[(0, 0), (0, 4), (4, 7)]).unwrap(),
            1..2
        );
        assert_eq!(
            subject_span("to Rome", "Rome", None, &[(0, 0), (0, 2), (2, 7), (0, 0)]).unwrap(),
            2..3
        );
    }

    #[test]
    fn pieces_of_one_character_all_count() {
        // "é" (2 bytes) as two byte-level tokens with the range of the whole character.
        assert_eq!(
            subject_span("né ok", "né", None, &[(0, 1), (1, 3), (1, 3), (3, 6)]).unwrap(),
            0..3
        );
    }

    #[test]
    fn the_first_occurrence_is_taken() {
        let offsets = [(0, 4), (4, 8), (8, 13)];
        assert_eq!(
            subject_span("Rome to Rome!", "Rome", None, &offsets).unwrap(),
            0..1
        );
    }

    #[test]
    fn a_place_that_is_given_is_taken_and_nowhere_else() {
        let offsets = [(0, 4), (4, 8), (8, 13)];
        let at = |start| subject_span("Rome to Rome!", "Rome", Some(start), &offsets);
        assert_eq!(at(8).unwrap(), 2..3);
        assert_eq!(at(0).unwrap(), 0..1);
        for nowhere in [1, 4, 13, 99] {
            assert!(matches!(at(nowhere), Err(Error::SubjectNotInPrompt { .. })));
        }
    }

    #[test]
    fn errors_name_the_prompt_and_the_subject() {
        let offsets = [(0, 4), (4, 7)];
        let missing = subject_span("Rome is", "Paris", None, &offsets)
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("`Rome is`") && missing.contains("`Paris`"),
            "{missing}"
        );
        let empty = subject_span("Rome is", "", None, &offsets)
            .unwrap_err()
            .to_string();
        assert!(empty.contains("`Rome is`"), "{empty}");
        assert!(matches!(
            subject_span("Rome is", "is", None, &[(0, 4)]),
            Err(Error::SubjectWithoutToken { .. })
        ));
    }
}
