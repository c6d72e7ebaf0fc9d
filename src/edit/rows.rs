//! Sentences as rows of tokens, with the place of the subject's last token.

use super::{Error, Request};
use crate::model::{Continuation, Tokenizer};

/// What is read to say how the model goes on about the subject alone.
const ESSENCE: &str = "{} is a";

/// A row of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Token ids; the first `prompt` of them are the sentence, the rest are the target's but its
    /// last.
    pub ids: Vec<u32>,
    /// Tokens of the sentence.
    pub prompt: usize,
    /// Place of the subject's last token.
    pub lookup: usize,
}

/// The sentence of a request in a context, followed by its new target.
pub(super) fn rewriting(
    tokenizer: &Tokenizer,
    request: &Request,
    context: &str,
) -> Result<(Row, Vec<u32>), Error> {
    let (text, end) = placed(&request.prompt, &request.subject, context);
    let Continuation { prompt, target } = tokenizer.continuation(&text, &request.target_new)?;
    let lookup = lookup(tokenizer, &text, &request.subject, end)?;
    let row = Row {
        lookup,
        prompt: prompt.len(),
        ids: [&prompt, &target[..target.len() - 1]].concat(),
    };
    Ok((row, target))
}

/// The sentence of a request in a context, up to the subject's last token: nothing behind it is in
/// a key.
pub(super) fn reading(
    tokenizer: &Tokenizer,
    template: &str,
    subject: &str,
    context: &str,
) -> Result<Row, Error> {
    let (text, end) = placed(template, subject, context);
    let lookup = lookup(tokenizer, &text, subject, end)?;
    let mut ids = tokenizer.encode(&text)?.ids;
    ids.truncate(lookup + 1);
    Ok(Row {
        prompt: ids.len(),
        ids,
        lookup,
    })
}

/// The row whose continuation is to stay as it is.
pub(super) fn essence(tokenizer: &Tokenizer, subject: &str) -> Result<Row, Error> {
    reading(tokenizer, ESSENCE, subject, "{}")
}

/// The whole text, and where the subject ends in it.
fn placed(template: &str, subject: &str, context: &str) -> (String, usize) {
    let (before, after) = context.split_once("{}").unwrap_or((context, ""));
    let (head, tail) = template.split_once("{}").unwrap_or((template, ""));
    let end = before.len() + head.len() + subject.len();
    (format!("{before}{head}{subject}{tail}{after}"), end)
}

/// The last token that begins before the subject's end.
fn lookup(tokenizer: &Tokenizer, text: &str, subject: &str, end: usize) -> Result<usize, Error> {
    let offsets = tokenizer.encode(text)?.offsets;
    let last = offsets
        .iter()
        .rposition(|&(from, to)| from < end && from < to);
    last.ok_or_else(|| Error::SubjectWithoutToken {
        text: text.to_owned(),
        subject: subject.to_owned(),
    })
}
