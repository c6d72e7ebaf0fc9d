//! What is wrong with a request: the fields, their values and the remedies. What is shown is
//! bounded; the rest is counted, so that a list of a million wrong facts costs no more than its own
//! bytes.

use std::fmt::Display;

use crate::datasets::choices::CHOICES;
use crate::datasets::corpus::LARGEST_FILE;
use crate::objects::Digest;
use crate::proto::v1;
use crate::text;

/// A field and what is wrong with it.
pub type Violation = (String, String);

/// Most bytes of a text of a request in a message.
const TEXT: usize = 160;
/// Most violations that one answer lists.
pub const SHOWN: usize = 20;
/// Longest prompt in bytes. No tokenizer makes fewer than one token of 64 bytes of text.
pub const PROMPT_LIMIT: usize = 1 << 20;
/// Longest name of a criterion or a task.
const FIGURE_NAME: usize = 64;
/// Longest display name and owner.
const NAME_LIMIT: usize = 200;

/// The violations of a request so far.
#[derive(Debug, Default)]
pub struct Wrong {
    shown: Vec<Violation>,
    more: usize,
}

impl Wrong {
    /// Notes that a field is wrong. Texts are made only if they are shown: pass `format_args!`.
    pub fn say(&mut self, field: impl Display, what: impl Display) {
        if self.shown.len() < SHOWN {
            self.shown.push((field.to_string(), what.to_string()));
        } else {
            self.more += 1;
        }
    }

    /// Nothing, if nothing is wrong.
    ///
    /// # Errors
    /// What was said.
    pub fn into_result(mut self) -> Result<(), Vec<Violation>> {
        if self.shown.is_empty() {
            return Ok(());
        }
        if self.more > 0 {
            let what = format!("{} more fields are wrong", self.more);
            self.shown.push(("job".to_owned(), what));
        }
        Err(self.shown)
    }
}

pub(super) fn names(job: &v1::Job, wrong: &mut Wrong) {
    short_text("job.display_name", &job.display_name, NAME_LIMIT, wrong);
    short_text("job.owner", &job.owner, NAME_LIMIT, wrong);
}

/// A text that may be absent, of up to `limit` bytes.
pub(super) fn short_text(field: impl Display, text: &str, limit: usize, wrong: &mut Wrong) {
    if text.len() > limit {
        let what = format_args!("it has {} bytes: {limit} at most", text.len());
        wrong.say(field, what);
    }
}

/// A prompt: some text, and not too much of it.
pub(super) fn prompt(field: impl Display, prompt: &str, wrong: &mut Wrong) {
    if prompt.is_empty() {
        wrong.say(field, "the prompt is empty: give some text");
    } else if prompt.len() > PROMPT_LIMIT {
        let what = format_args!(
            "the prompt has {} bytes: {PROMPT_LIMIT} at most",
            prompt.len()
        );
        wrong.say(field, what);
    }
}

/// A number format: absent for single precision.
pub(super) fn dtype(value: &mut i32, wrong: &mut Wrong) {
    match v1::Dtype::try_from(*value) {
        Ok(v1::Dtype::Unspecified) => *value = v1::Dtype::F32 as i32,
        Ok(_) => {}
        Err(_) => wrong.say(
            "job.spec.dtype",
            format_args!("{value} is not a number format: use DTYPE_F32, DTYPE_BF16 or DTYPE_F16"),
        ),
    }
}

/// A corpus in an object, by its name.
pub(super) fn corpus(field: &str, named: &v1::Corpus, wrong: &mut Wrong) {
    if let Err(error) = named.digest.parse::<Digest>() {
        wrong.say(format_args!("{field}.digest"), error);
    }
    if named.size == 0 || named.size > LARGEST_FILE {
        let what = format_args!(
            "{} bytes: give the object's size, 1 to {LARGEST_FILE}",
            named.size
        );
        wrong.say(format_args!("{field}.size"), what);
    }
}

/// A name of a figure.
pub(super) fn figure_name(field: impl Display, name: &str, wrong: &mut Wrong) {
    if name.trim().is_empty() || name.len() > FIGURE_NAME {
        let what = format_args!(
            "'{}': give a name of 1 to {FIGURE_NAME} bytes",
            shorten(name)
        );
        wrong.say(field, what);
    }
}

/// Checks a record that is a choice, which is called `of` where it is wrong.
pub(super) fn choice(of: impl Display + Copy, record: &v1::EvalRecord, wrong: &mut Wrong) {
    let Some(choice) = &record.choice else {
        let what = "it is missing: give the question and its answers";
        wrong.say(format_args!("{of}.choice"), what);
        return;
    };
    let only = v1::EvalRecord {
        choice: Some(choice.clone()),
        ..Default::default()
    };
    if *record != only {
        let what = "it has more than its choice: give the choice only";
        wrong.say(of, what);
    }
    figure_name(format_args!("{of}.choice.task"), &choice.task, wrong);
    prompt(format_args!("{of}.choice.prompt"), &choice.prompt, wrong);
    let count = choice.choices.len();
    if !(2..=CHOICES).contains(&count) {
        let what = format_args!("there are {count}: give 2 to {CHOICES}");
        wrong.say(format_args!("{of}.choice.choices"), what);
    }
    for (i, text) in choice.choices.iter().enumerate() {
        prompt(format_args!("{of}.choice.choices[{i}]"), text, wrong);
    }
    if choice.right as usize >= count {
        let what = format_args!(
            "{}: give the number of one of the {count}, from 0",
            choice.right
        );
        wrong.say(format_args!("{of}.choice.right"), what);
    }
}

/// A text of a request, for a message.
pub(super) fn shorten(text: &str) -> String {
    text::cut(text, TEXT)
}
