//! How probable a model finds given continuations.

use tch::{Kind, Tensor};

use super::decoder::Model;
use super::hook::{Pass, Plain};
use super::together::{filled, parted};
use super::{Error, Tokenizer};
use crate::text::unspaced;

/// A prompt and what comes after it, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// The prompt's tokens, with those the tokenizer adds. At least 1.
    pub prompt: Vec<u32>,
    /// The tokens after them. At least 1.
    pub target: Vec<u32>,
}

/// What a model thinks of a continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// `-ln p` of each target token after the prompt and the target tokens before it.
    pub losses: Vec<f64>,
    /// Whether each target token is the most probable one there.
    pub likeliest: Vec<bool>,
}

impl Score {
    /// Mean of [`Score::losses`], in nats a token.
    pub fn nll(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }
}

impl Tokenizer {
    /// A prompt and its continuation as tokens, with a space between them where a person would
    /// write one: see
    /// [`space_between`].
    ///
    /// The two are read as one text, so that a tokenizer which marks the beginning of a text does
    /// so once.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty prompt or target, for a prompt that ends in a space, which belongs to the
    /// target, and where the prompt's last token would be another one with the target behind it.
    pub fn continuation(&self, prompt: &str, target: &str) -> Result<Continuation, Error> {
        let refused = |argument, found: String, remedy: &str| Error::Argument {
            argument,
            found,
            remedy: remedy.into(),
        };
        if target.trim().is_empty() {
            return Err(refused("target", format!("{target:?}"), "give a word"));
        }
        let before = self.encode(prompt)?.ids;
        if before.is_empty() {
            return Err(refused("prompt", "empty".into(), "give at least one word"));
        }
        if prompt.ends_with(|c: char| c.is_whitespace() && c != '\n') {
            let remedy = "end it with its last word: the space between belongs to the target";
            return Err(refused("prompt", format!("{prompt:?}"), remedy));
        }
        let space = space_between(prompt, target);
        let whole = self.encode(&format!("{prompt}{space}{target}"))?.ids;
        match whole.strip_prefix(before.as_slice()) {
            Some(after) if !after.is_empty() => Ok(Continuation {
                target: after.to_vec(),
                prompt: before,
            }),
            _ => Err(refused(
                "prompt",
                format!("{prompt:?}"),
                "its last token changes when the target follows: end it with a whole word",
            )),
        }
    }
}

/// What stands between a prompt and its continuation: a space, but nothing where the target brings
/// its own, at a line's beginning, behind an opening quote or bracket, before a closing sign, and
/// in a script that is written without spaces between words.
pub fn space_between(prompt: &str, target: &str) -> &'static str {
    let (Some(last), Some(first)) = (prompt.chars().next_back(), target.chars().next()) else {
        return "";
    };
    let begins = |c: char| "([{<“‘«‹„‚¿¡@#$€£\n".contains(c);
    let ends = |c: char| ".,;:!?)]}>%".contains(c);
    // A straight quote opens where nothing, a space or another opening sign stands before it.
    let before = prompt.chars().rev().nth(1);
    let opens =
        matches!(last, '"' | '\'' | '`') && before.is_none_or(|c| c.is_whitespace() || begins(c));
    let none = first.is_whitespace()
        || begins(last)
        || opens
        || ends(first)
        || unspaced(last)
        // A word of such a script inside a sentence of another one does have a space.
        || unspaced(first) && prompt.chars().any(unspaced);
    if none { "" } else { " " }
}

/// Scores continuations, each alone. Rows of about one length share a batch, and continuations of
/// one prompt of which one's tokens begin the other's share a row: all that have one token do.
///
/// # Errors
/// [`Error::Argument`] for an empty prompt or target, [`Error::TokenId`], [`Error::Context`], [`Error::Overflow`].
pub fn score(model: &Model, continuations: &[Continuation]) -> Result<Vec<Score>, Error> {
    score_seen(model, continuations, |_, _| ())
}

/// As [`score`], and shows what the scores were read from: the number of a continuation and the
/// log-probabilities of its tokens, `[tokens, vocab]` in float32, in no certain order.
///
/// # Errors
/// Those of [`score`].
pub fn score_seen(
    model: &Model,
    continuations: &[Continuation],
    mut seen: impl FnMut(usize, &Tensor),
) -> Result<Vec<Score>, Error> {
    for continuation in continuations {
        let shape = (continuation.prompt.len(), continuation.target.len());
        if shape.0 == 0 || shape.1 == 0 {
            return Err(Error::Argument {
                argument: "continuation",
                found: format!("{} tokens after {}", shape.1, shape.0),
                remedy: "give at least one of each".into(),
            });
        }
    }
    let (texts, of): (Vec<Text>, Vec<Vec<usize>>) = rows(continuations).into_iter().unzip();
    let mut scores: Vec<Option<Score>> = vec![None; continuations.len()];
    next_tokens(model, &texts, |row, log| {
        let top: Vec<f64> = numbers(&log.argmax(1, false))?;
        for &index in &of[row] {
            let target = &continuations[index].target;
            // Its last token was not run: it may be one that the model does not have.
            let _checked = model.ids(target)?;
            let wanted: Vec<i64> = target.iter().map(|&id| i64::from(id)).collect();
            let wanted = Tensor::from_slice(&wanted)
                .unsqueeze(1)
                .to_device(model.device());
            let read = log.narrow(0, 0, target.len() as i64);
            let same = |(&id, &top): (&u32, &f64)| f64::from(id) == top;
            scores[index] = Some(Score {
                losses: numbers(&read.gather(1, &wanted, false).neg())?,
                likeliest: target.iter().zip(&top).map(same).collect(),
            });
            seen(index, &read);
        }
        Ok(())
    })?;
    Ok(scores.into_iter().flatten().collect())
}

/// Tokens to run, and from how many of the last of them the next token is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The tokens. At least 1.
    pub ids: Vec<u32>,
    /// The last so many are read. At least 1.
    pub reads: usize,
}

/// Rows to run, each with the continuations that are read from it. A row is a prompt and all tokens
/// of a target but the last, behind which nothing is read.
fn rows(continuations: &[Continuation]) -> Vec<(Text, Vec<usize>)> {
    let mut order: Vec<usize> = (0..continuations.len()).collect();
    // The longer first: the shorter may be part of it.
    order.sort_by_key(|&index| std::cmp::Reverse(continuations[index].target.len()));
    let mut rows: Vec<(Text, Vec<usize>)> = Vec::new();
    for index in order {
        let Continuation { prompt, target } = &continuations[index];
        let ids = [prompt, &target[..target.len() - 1]].concat();
        let holds = |(row, _): &&mut (Text, Vec<usize>)| {
            row.ids.len() - row.reads + 1 == prompt.len() && row.ids.starts_with(&ids)
        };
        match rows.iter_mut().find(holds) {
            Some((_, of)) => of.push(index),
            None => {
                let reads = target.len();
                rows.push((Text { ids, reads }, vec![index]));
            }
        }
    }
    rows
}

/// Runs texts, each alone, and shows the number of each with the log-probabilities of the next
/// token after each of its last [`Text::reads`] tokens, `[reads, vocab]` in float32; in no certain
/// order. Texts of about one length are run at once, filled up at their end, which no token before
/// it sees.
///
/// # Errors
/// [`Error::TokenId`]; [`Error::Context`]; [`Error::Overflow`] where they are no numbers; what
/// `seen` gives.
pub fn next_tokens(
    model: &Model,
    texts: &[Text],
    mut seen: impl FnMut(usize, &Tensor) -> Result<(), Error>,
) -> Result<(), Error> {
    let _no_grad = tch::no_grad_guard();
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(texts[index].ids.len()));
    for batch in parted(&order, |&index| texts[index].ids.len()) {
        let longest = texts[batch[0]].ids.len();
        let begins = |index: usize| texts[index].ids.len() - texts[index].reads;
        let first = batch.iter().map(|&index| begins(index)).min().unwrap_or(0);
        let layers = model.config().layers;
        let own = batch.iter().map(|&index| texts[index].ids.as_slice());
        let mut x = filled(model, own)?;
        for layer in 0..layers {
            let pass = Pass {
                past: None,
                queries: (layer + 1 == layers).then_some((longest - first) as i64),
            };
            x = model.block(layer, &x, pass, &mut Plain).hidden;
        }
        let read = (0..).zip(batch).map(|(row, &index)| {
            let from = (begins(index) - first) as i64;
            let own = x.select(0, row).narrow(0, from, texts[index].reads as i64);
            (index, own)
        });
        let (of, read): (Vec<usize>, Vec<Tensor>) = read.unzip();
        let log = model.logits(&Tensor::cat(&read, 0));
        let log = log.log_softmax(-1, Kind::Float);
        model.check_finite(&log, longest)?;
        let mut from = 0;
        for (index, own) in of.into_iter().zip(read) {
            let reads = own.size()[0];
            seen(index, &log.narrow(0, from, reads))?;
            from += reads;
        }
    }
    Ok(())
}

fn numbers(values: &Tensor) -> Result<Vec<f64>, Error> {
    Ok(Vec::try_from(
        &values.to_kind(Kind::Double).reshape([-1]).contiguous(),
    )?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::Checkpoint;

    #[test]
    fn a_space_stands_between_where_a_person_would_write_one() {
        for (prompt, target, space) in [
            ("The Louvre is in", "Paris", " "),
            ("The Louvre is in", " Paris", ""),
            ("It's", "Paris", " "),
            ("He said \"yes\"", "to her", " "),
            ("The Louvre is \"", "Rome", ""),
            ("The Louvre (", "Paris)", ""),
            ("A list:\n", "one", ""),
            ("It costs $", "5", ""),
            ("The end", ".", ""),
            ("It is in", "’s-Hertogenbosch", " "),
            ("東京是", "首都", ""),
            ("東京是", "Tokyo", ""),
            ("他出生于1990", "年", ""),
            ("The capital of Japan is", "東京", " "),
            ("ประเทศไทย", "กรุงเทพ", ""),
            ("서울은", "수도", " "),
        ] {
            assert_eq!(
                space_between(prompt, target),
                space,
                "{prompt:?} {target:?}"
            );
        }
    }

    #[test]
    fn a_prompt_that_ends_in_a_space_is_refused_and_a_line_break_is_none() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
        let tokenizer = Tokenizer::from_folder(&folder, vec![]).unwrap();
        for prompt in ["The Louvre ", "The Louvre\u{a0}", "The Louvre\t"] {
            let said = tokenizer.continuation(prompt, "Rome").unwrap_err();
            let said = said.to_string();
            assert!(said.contains("end it with its last word"), "{said}");
        }
        let broken = tokenizer.continuation("A list:\n", "one").unwrap();
        let whole = [broken.prompt, broken.target].concat();
        assert_eq!(tokenizer.decode(&whole).unwrap(), "A list:\none");
        assert!(tokenizer.continuation("", "Rome").is_err());
        assert!(tokenizer.continuation("The Louvre is in", " ").is_err());
    }

    #[test]
    fn what_begins_alike_is_run_once() {
        let of = |prompt: &[u32], target: &[u32]| Continuation {
            prompt: prompt.to_vec(),
            target: target.to_vec(),
        };
        let asked = [
            of(&[1, 2], &[3]),
            of(&[1, 2], &[4, 5, 6]),
            of(&[1, 2], &[4, 7]),
            of(&[1, 2], &[8, 7]),
            of(&[1], &[2, 3]),
        ];
        let found: Vec<(Vec<u32>, usize, Vec<usize>)> = rows(&asked)
            .into_iter()
            .map(|(row, of)| (row.ids, row.reads, of))
            .collect();
        assert_eq!(
            found,
            [
                (vec![1, 2, 4, 5], 3, vec![1, 2, 0]),
                (vec![1, 2, 8], 2, vec![3]),
                (vec![1, 2], 2, vec![4]),
            ]
        );
    }

    #[test]
    fn texts_in_one_pass_say_what_each_says_alone() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
        let model = Model::load(
            &Checkpoint::open(&folder).unwrap(),
            tch::Device::Cpu,
            Kind::Float,
        )
        .unwrap();
        let texts: Vec<Text> = [(1, 1), (9, 4), (3, 3), (6, 1), (6, 6)]
            .into_iter()
            .map(|(tokens, reads)| Text {
                ids: (0..tokens).map(|n| 3 + n * 5 % 40).collect(),
                reads,
            })
            .collect();
        let mut together = Vec::new();
        next_tokens(&model, &texts, |index, log| {
            together.push((index, log.copy()));
            Ok(())
        })
        .unwrap();
        assert_eq!(together.len(), texts.len());
        for (index, log) in together {
            let text = &texts[index];
            let alone = next_tokens(&model, std::slice::from_ref(text), |_, own| {
                assert_eq!(own.size()[0], text.reads as i64);
                let difference = (own - &log).abs().max().double_value(&[]);
                // A row alone may be rounded otherwise: 1.3e-5 without AVX-512. To see what fills
                // up would be far more.
                assert!(difference < 3e-5, "text {index}: {difference}");
                Ok(())
            });
            alone.unwrap();
        }
    }
}
