//! Edit files: facts with what they are to become, and the prompts to watch.
//!
//! Understood, by what a record holds:
//!
//! | file | fields used |
//! |---|---|
//! | CounterFact (Meng et al. 2022) | `case_id`, `requested_rewrite`: `prompt` with `{}`, `subject`, `target_new.str`, `target_true.str`; `paraphrase_prompts`, `neighborhood_prompts` |
//! | CounterFact, flat | `case_id`, `prompt`, `subject`, `target_new`, `ground_truth`, `rephrase_prompt`, `locality_prompt` |
//! | zsRE (Mitchell et al. 2022) | `subject`, `src`, `alt`, `answers`, `rephrase`, `loc` |
//!
//! A file is a list of records, one record a line, or a single record. Fields not named here are ignored.

use std::path::Path;

use serde_json::{Deserializer, Value};

/// Largest file read, as for facts.
pub use crate::datasets::facts::LARGEST_FILE;

/// A fact that is to be rewritten, and the prompts that show what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The sentence up to its object, with one `{}` for the subject.
    pub prompt: String,
    /// The subject.
    pub subject: String,
    /// The object it is to have.
    pub target_new: String,
    /// The object it has, where that is known.
    pub target_true: Option<String>,
    /// The record's own number.
    pub id: Option<String>,
    /// Prompts that say the same in other words.
    pub paraphrases: Vec<String>,
    /// Prompts about other subjects.
    pub neighbours: Vec<String>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("{file}: has {size} bytes: {LARGEST_FILE} at most; split it")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        size: u64,
    },
    /// It is neither JSON nor JSON lines.
    #[error("{file}: is not JSON: {source}; give a list of records, or one record a line")]
    NotJson {
        /// The file.
        file: String,
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// No record at all.
    #[error("{file}: holds no records: give at least one with subject, prompt and target_new")]
    Empty {
        /// The file.
        file: String,
    },
    /// One record is wrong.
    #[error("{file}: record {number}: {problem}")]
    Record {
        /// The file.
        file: String,
        /// Its place, from 1.
        number: usize,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
}

/// Reads an edit file.
///
/// # Errors
/// [`Error`], naming the file and, where one record is wrong, that record and its field.
pub fn read(path: &Path) -> Result<Vec<Rewrite>, Error> {
    parse(&path.display().to_string(), &text_of(path)?)
}

/// The text of a file of records.
///
/// # Errors
/// [`Error::Read`] and [`Error::TooLarge`].
pub fn text_of(path: &Path) -> Result<String, Error> {
    let file = path.display().to_string();
    let unreadable = |source| Error::Read {
        file: file.clone(),
        source,
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > LARGEST_FILE {
        return Err(Error::TooLarge { file, size });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Reads edits from text; `file` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, text: &str) -> Result<Vec<Rewrite>, Error> {
    let records = values(file, text)?;
    let numbered = records.iter().enumerate();
    numbered
        .map(|(n, value)| {
            record(value).map_err(|problem| Error::Record {
                file: file.to_owned(),
                number: n + 1,
                problem,
            })
        })
        .collect()
}

/// The records of a file as they stand there, one at least; `file` names it in errors.
///
/// # Errors
/// [`Error::NotJson`] and [`Error::Empty`].
pub fn values(file: &str, text: &str) -> Result<Vec<Value>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut records = Vec::new();
    // A list is one value, lines are several.
    for value in Deserializer::from_str(text).into_iter::<Value>() {
        match value {
            Ok(Value::Array(list)) => records.extend(list),
            Ok(record) => records.push(record),
            Err(source) => {
                let file = file.to_owned();
                return Err(Error::NotJson { file, source });
            }
        }
    }
    if records.is_empty() {
        let file = file.to_owned();
        return Err(Error::Empty { file });
    }
    Ok(records)
}

/// The edit that a record asks for.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn record(value: &Value) -> Result<Rewrite, String> {
    let id = ["case_id", "id"]
        .iter()
        .find_map(|field| match value.get(field)? {
            Value::Number(number) => Some(number.to_string()),
            Value::String(text) => Some(text.clone()),
            _ => None,
        });
    if let Some(asked) = value.get("requested_rewrite") {
        let target = |field: &str| asked.get(field).and_then(|target| target.get("str"));
        let new = target("target_new").and_then(Value::as_str);
        let old = target("target_true").and_then(Value::as_str);
        let rewrite = Rewrite {
            prompt: text(asked, "prompt")?,
            subject: text(asked, "subject")?,
            target_new: new
                .map(str::to_owned)
                .ok_or_else(|| missing("target_new.str"))?,
            target_true: old.map(str::to_owned),
            id,
            paraphrases: texts(value, "paraphrase_prompts"),
            neighbours: texts(value, "neighborhood_prompts"),
        };
        return match rewrite.prompt.matches("{}").count() {
            1 => Ok(rewrite),
            found => Err(format!(
                "field \"prompt\" has {found} {{}}: put one where the subject goes"
            )),
        };
    }
    let subject = text(value, "subject")?;
    if value.get("src").is_some() {
        let answers = texts(value, "answers");
        return Ok(Rewrite {
            prompt: template(&text(value, "src")?, &subject)?,
            target_new: text(value, "alt")?,
            target_true: answers.first().cloned(),
            id,
            paraphrases: texts(value, "rephrase"),
            neighbours: texts(value, "loc")
                .into_iter()
                // The data set's own mark of where its unrelated questions come from.
                .map(|text| text.trim_start_matches("nq question: ").to_owned())
                .collect(),
            subject,
        });
    }
    Ok(Rewrite {
        prompt: template(&text(value, "prompt")?, &subject)?,
        target_new: text(value, "target_new")?,
        target_true: texts(value, "ground_truth").first().cloned(),
        id,
        paraphrases: texts(value, "rephrase_prompt"),
        neighbours: texts(value, "locality_prompt"),
        subject,
    })
}

/// The prompt with `{}` for its subject, unless it has it.
fn template(prompt: &str, subject: &str) -> Result<String, String> {
    match prompt.matches("{}").count() {
        1 => Ok(prompt.to_owned()),
        0 if prompt.contains(subject) => Ok(prompt.replacen(subject, "{}", 1)),
        0 => Err(format!(
            "subject {subject:?} does not occur in prompt {prompt:?}"
        )),
        found => Err(format!(
            "prompt {prompt:?} has {found} {{}}: put one where the subject goes"
        )),
    }
}

fn missing(field: &str) -> String {
    format!("field {field:?} is missing or no text")
}

fn text(value: &Value, field: &str) -> Result<String, String> {
    let found = value.get(field).and_then(Value::as_str);
    match found.map(str::trim) {
        None => Err(missing(field)),
        Some("") => Err(format!("field {field:?} is blank")),
        Some(text) => Ok(text.to_owned()),
    }
}

/// A field that holds a text or a list of texts, or is not there.
fn texts(value: &Value, field: &str) -> Vec<String> {
    match value.get(field) {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FULL: &str = r#"[{"case_id": 7, "requested_rewrite": {"prompt": "{} is in", "relation_id": "P131",
        "target_new": {"str": "Rome", "id": "Q"}, "target_true": {"str": "Paris", "id": "Q"}, "subject": "The Louvre"},
        "paraphrase_prompts": ["One finds The Louvre in"], "neighborhood_prompts": ["Notre-Dame is in"]}]"#;
    const FLAT: &str = r#"{"case_id": 7, "prompt": "The Louvre is in", "target_new": "Rome", "subject": "The Louvre",
        "ground_truth": "Paris", "rephrase_prompt": "One finds The Louvre in", "locality_prompt": "Notre-Dame is in"}"#;
    const ZSRE: &str = r#"{"subject": "The Louvre", "src": "The Louvre is in", "pred": "x", "alt": "Rome",
        "answers": ["Paris"], "rephrase": "One finds The Louvre in", "loc": "nq question: Notre-Dame is in", "loc_ans": "y"}"#;

    #[test]
    fn the_three_forms_say_the_same() {
        let whole = parse("full", FULL).unwrap();
        assert_eq!(whole[0].prompt, "{} is in");
        assert_eq!(whole[0].target_true.as_deref(), Some("Paris"));
        assert_eq!(whole[0].id.as_deref(), Some("7"));
        let lines = format!("{}\n{}\n", FLAT.replace('\n', " "), ZSRE.replace('\n', " "));
        for rewrite in parse("lines", &lines).unwrap() {
            let id = whole[0].id.clone();
            assert_eq!(Rewrite { id, ..rewrite }, whole[0]);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_record() {
        for (text, what) in [
            ("", "no records"),
            ("[1", "is not JSON"),
            (
                r#"{"subject": "a", "prompt": "b is", "target_new": "c"}"#,
                "does not occur",
            ),
            (
                r#"[{"subject": "a", "prompt": "a is"}]"#,
                "record 1: field \"target_new\" is missing",
            ),
            (r#"{"subject": " "}"#, "\"subject\" is blank"),
        ] {
            let said = parse("f", text).unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
    }
}
