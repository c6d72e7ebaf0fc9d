//! How varied a text is.

use std::collections::BTreeMap;

/// `100 * (2/3 H2 + 4/3 H3) / 2`, with `Hn` the entropy in bits of the text's word n-grams: low for
/// a text that says the same again and again.
///
/// A word is a run of letters and digits; every other character that is no space is a word of its
/// own. (The published figures are of NLTK's words, which differ where a word has an apostrophe or
/// a hyphen.)
pub fn entropy(text: &str) -> f64 {
    let words = words(text);
    100.0 * (2.0 / 3.0 * of_ngrams(&words, 2) + 4.0 / 3.0 * of_ngrams(&words, 3)) / 2.0
}

fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut run: Option<usize> = None;
    for (at, c) in text.char_indices() {
        if c.is_alphanumeric() {
            run.get_or_insert(at);
            continue;
        }
        words.extend(run.take().map(|begin| &text[begin..at]));
        if !c.is_whitespace() {
            words.push(&text[at..at + c.len_utf8()]);
        }
    }
    words.extend(run.map(|begin| &text[begin..]));
    words
}

fn of_ngrams(words: &[&str], n: usize) -> f64 {
    let mut counts: BTreeMap<&[&str], f64> = BTreeMap::new();
    for ngram in words.windows(n) {
        *counts.entry(ngram).or_default() += 1.0;
    }
    let total: f64 = counts.values().sum();
    let bits = |count: &f64| -> f64 {
        let p = count / total;
        -p * p.log2()
    };
    counts.values().map(bits).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_and_single_signs() {
        let found = words("It's 1,5 \u{e9}t\u{e9}s.\n(no)");
        assert_eq!(
            found,
            [
                "It",
                "'",
                "s",
                "1",
                ",",
                "5",
                "\u{e9}t\u{e9}s",
                ".",
                "(",
                "no",
                ")"
            ]
        );
    }

    #[test]
    fn entropies_are_those_found_by_hand() {
        // Bigrams ab ba ab ba: one bit. Trigrams aba bab aba: 2/3 and 1/3.
        let three =
            -(2.0_f64 / 3.0) * (2.0_f64 / 3.0).log2() - (1.0 / 3.0) * (1.0_f64 / 3.0).log2();
        let expected = 100.0 * (2.0 / 3.0 + 4.0 / 3.0 * three) / 2.0;
        assert!((entropy("a b a b a") - expected).abs() < 1e-12);
        // Eight different bigrams: three bits. Eight trigrams too, with one word more and one
        // bigram more.
        assert!((of_ngrams(&words("a b c d e f g h i"), 2) - 3.0).abs() < 1e-12);
        assert_eq!(entropy("no no no no no"), 0.0);
        assert_eq!(entropy("one two"), 0.0);
        assert_eq!(entropy(""), 0.0);
    }
}
