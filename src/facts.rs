//! Fact files: lists of prompts with their subjects and, where known, the expected answers.
//!
//! Understood, by what the file holds and not by its name:
//!
//! | file | form | fields used |
//! |---|---|---|
//! | known_1000 (Meng et al. 2022) | list | `known_id`, `prompt`, `subject`, `attribute`, `relation_id` |
//! | CounterFact | list | `case_id`, `requested_rewrite`: `prompt` with `{}`, `subject`, `target_true.str`, `relation_id` |
//! | CounterFact, flat | list | `case_id`, `prompt`, `subject`, `ground_truth` |
//! | a relation of the LRE data set (Hernandez et al. 2024) | object | `name`, `prompt_templates`, `samples`: `subject`, `object` |
//!
//! A list may also stand as JSON lines, one record a line, and a single record alone. Fields not
//! named here are ignored. Records keep their order, and duplicates are kept: they are the
//! user's to make.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserializer;
use serde::de::{SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::causal::Fact;

/// Largest fact file read: 256 MiB, five times the whole of CounterFact.
pub const LARGEST_FILE: u64 = 256 << 20;

/// A fact file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than [`LARGEST_FILE`].
    #[error("{file}: is larger than {} MiB, the most a fact file may hold: split it", limit >> 20)]
    TooLarge {
        /// The file.
        file: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// The file is no text.
    #[error("{file}: is not UTF-8 at byte {at}: save it as UTF-8")]
    NotUtf8 {
        /// The file.
        file: String,
        /// First byte that is not.
        at: usize,
    },
    /// The file is neither JSON nor JSON lines.
    #[error("{file}: is not JSON: {source}; give a list of records, or one record a line")]
    NotJson {
        /// The file.
        file: String,
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// No record at all.
    #[error("{file}: holds no facts: give at least one record with prompt and subject")]
    Empty {
        /// The file.
        file: String,
    },
    /// One record is wrong.
    #[error("{file}: {record}: {problem}")]
    Record {
        /// The file.
        file: String,
        /// "record 3" (from 1), "line 3", with the record's own id where it has one.
        record: String,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A line of JSON lines that is not JSON.
    #[error("is not JSON: {0}; give one record a line, or one list")]
    NotJson(String),
    /// The record is not an object.
    #[error("is {found}, not a record: give an object with prompt and subject")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// A field that every fact needs is not there.
    #[error("field {field:?} is missing: {remedy}")]
    Missing {
        /// The field.
        field: String,
        /// What to put there.
        remedy: &'static str,
    },
    /// A field holds another type.
    #[error("field {field:?} is {found}: give {wanted}")]
    Type {
        /// The field.
        field: String,
        /// What it holds.
        found: &'static str,
        /// What it should hold.
        wanted: &'static str,
    },
    /// A field holds nothing but white space.
    #[error("field {field:?} is blank: {remedy}")]
    Blank {
        /// The field.
        field: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A template without a place for the subject.
    #[error("field {field:?} is {template:?}, which has no {{}}: put {{}} where the subject goes")]
    NoPlaceholder {
        /// The field.
        field: String,
        /// Its value.
        template: String,
    },
    /// The subject's characters do not occur in the prompt.
    #[error(
        "subject {subject:?} does not occur in prompt {prompt:?}: write it exactly as in the prompt, capitals and accents included"
    )]
    SubjectNotInPrompt {
        /// The subject.
        subject: String,
        /// The prompt.
        prompt: String,
    },
}

/// Reads a fact file.
///
/// # Errors
/// [`Error`], naming the file and, where one record is wrong, that record and its field.
pub fn read(path: &Path) -> Result<Vec<Fact>, Error> {
    let file = path.display().to_string();
    let source = File::open(path).map_err(|source| Error::Read {
        file: file.clone(),
        source,
    })?;
    read_from(&file, source)
}

/// Reads facts from a stream; `file` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn read_from(file: &str, source: impl Read) -> Result<Vec<Fact>, Error> {
    read_limited(file, source, LARGEST_FILE)
}

fn read_limited(file: &str, source: impl Read, limit: u64) -> Result<Vec<Fact>, Error> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits, for pipes
    // as for files.
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Read {
            file: file.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge {
            file: file.to_owned(),
            limit,
        });
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(file, text),
        Err(e) => Err(Error::NotUtf8 {
            file: file.to_owned(),
            at: e.valid_up_to(),
        }),
    }
}

/// Reads facts from text; `file` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, text: &str) -> Result<Vec<Fact>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let facts = match text.trim_start().chars().next() {
        None => Vec::new(),
        Some('{') => objects(file, text)?,
        _ => list(file, text)?,
    };
    if facts.is_empty() {
        return Err(Error::Empty {
            file: file.to_owned(),
        });
    }
    Ok(facts)
}

/// A JSON list of records, taken one at a time: a whole file as a tree of values would need several
/// times its size.
fn list(file: &str, text: &str) -> Result<Vec<Fact>, Error> {
    let mut reader = ListReader {
        facts: Vec::new(),
        wrong: None,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome = json.deserialize_seq(&mut reader).and_then(|()| json.end());
    if let Some((record, problem)) = reader.wrong {
        return Err(Error::Record {
            file: file.to_owned(),
            record,
            problem,
        });
    }
    outcome.map_err(|source| Error::NotJson {
        file: file.to_owned(),
        source,
    })?;
    Ok(reader.facts)
}

struct ListReader {
    facts: Vec<Fact>,
    /// The first wrong record; serde's own errors have no room for it.
    wrong: Option<(String, Problem)>,
}

impl<'de> Visitor<'de> for &mut ListReader {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records, or one record a line")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element::<Value>()? {
            match fact(&value) {
                Ok(fact) => self.facts.push(fact),
                Err(problem) => {
                    let place = format!("record {}", self.facts.len() + 1);
                    self.wrong = Some((described(place, &value), problem));
                    return Err(serde::de::Error::custom("a record is wrong"));
                }
            }
        }
        Ok(())
    }
}

/// A file that begins with an object: one relation, one record, or one record a line.
fn objects(file: &str, text: &str) -> Result<Vec<Fact>, Error> {
    let wrong = |record: String, problem| Error::Record {
        file: file.to_owned(),
        record,
        problem,
    };
    let whole = match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(whole) => whole,
        Err(source) => {
            // Lines only if the first is a record by itself; otherwise what the parser says of the
            // whole is the better account.
            let first = text
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or_default();
            return match serde_json::from_str::<Map<String, Value>>(first) {
                Ok(_) => lines(file, text),
                Err(_) => Err(Error::NotJson {
                    file: file.to_owned(),
                    source,
                }),
            };
        }
    };
    if whole.contains_key("samples") {
        return relation(&whole).map_err(|(record, problem)| wrong(record, problem));
    }
    let value = Value::Object(whole);
    match fact(&value) {
        Ok(fact) => Ok(vec![fact]),
        Err(problem) => Err(wrong(described("record 1".into(), &value), problem)),
    }
}

fn lines(file: &str, text: &str) -> Result<Vec<Fact>, Error> {
    let mut facts = Vec::new();
    for (i, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let place = format!("line {}", i + 1);
        let wrong = |record, problem| Error::Record {
            file: file.to_owned(),
            record,
            problem,
        };
        let value: Value = serde_json::from_str(line)
            .map_err(|e| wrong(place.clone(), Problem::NotJson(e.to_string())))?;
        facts.push(fact(&value).map_err(|problem| wrong(described(place, &value), problem))?);
    }
    Ok(facts)
}

/// "record 3 (known_id 17)".
fn described(place: String, record: &Value) -> String {
    let ids = ["known_id", "case_id", "id"].into_iter();
    let mut found = ids.filter_map(|field| Some((field, identifier(record.get(field)?)?)));
    match found.next() {
        Some((field, id)) => format!("{place} ({field} {id})"),
        None => place,
    }
}

fn identifier(value: &Value) -> Option<String> {
    match value {
        Value::Number(n) => Some(n.to_string()),
        Value::String(s) if !s.trim().is_empty() => Some(s.clone()),
        _ => None,
    }
}

const PROMPT: &str = "give the text before the answer";
const SUBJECT: &str = "give the part of the prompt that names what the fact is about";
const ATTRIBUTE: &str = "give the expected answer, or leave the field out";

/// One record of known_1000 or of CounterFact, full or flat.
fn fact(record: &Value) -> Result<Fact, Problem> {
    let Value::Object(record) = record else {
        return Err(Problem::NotAnObject {
            found: named(record),
        });
    };
    let id = ["known_id", "case_id", "id"]
        .iter()
        .find_map(|&field| identifier(record.get(field)?));
    let (prompt, subject, attribute, relation) = match present(record, "requested_rewrite") {
        Some(Value::Object(rewrite)) => {
            let inside = |field: &str| format!("requested_rewrite.{field}");
            let subject = required(rewrite, "subject", inside("subject"), SUBJECT)?;
            let template = required(rewrite, "prompt", inside("prompt"), PROMPT)?;
            let prompt = fill(inside("prompt"), template, subject)?;
            let attribute = match present(rewrite, "target_true") {
                None => None,
                Some(Value::Object(target)) => answer(target, "str", inside("target_true.str"))?,
                Some(other) => {
                    return Err(mistyped(inside("target_true"), other, "an object with str"));
                }
            };
            (
                prompt,
                subject,
                attribute,
                text(rewrite, "relation_id", inside("relation_id"))?,
            )
        }
        Some(other) => {
            let wanted = "an object with prompt and subject";
            return Err(mistyped("requested_rewrite".into(), other, wanted));
        }
        None => {
            let prompt = required(record, "prompt", "prompt".into(), PROMPT)?.to_owned();
            let subject = required(record, "subject", "subject".into(), SUBJECT)?;
            let attribute = match answer(record, "attribute", "attribute".into())? {
                None => answer(record, "ground_truth", "ground_truth".into())?,
                found => found,
            };
            let relation = match text(record, "relation_id", "relation_id".into())? {
                None => text(record, "relation", "relation".into())?,
                found => found,
            };
            (prompt, subject, attribute, relation)
        }
    };
    if !prompt.contains(subject) {
        return Err(Problem::SubjectNotInPrompt {
            subject: subject.to_owned(),
            prompt,
        });
    }
    let (subject, relation) = (subject.to_owned(), relation.map(str::to_owned));
    Ok(Fact {
        id,
        prompt,
        subject,
        attribute,
        relation,
    })
}

/// A relation with its samples: one fact a sample, in the first template.
fn relation(file: &Map<String, Value>) -> Result<Vec<Fact>, (String, Problem)> {
    let whole = |problem| ("the relation".to_owned(), problem);
    let templates = "prompt_templates";
    let field = format!("{templates}[0]");
    let template = match present(file, templates) {
        None => Err(Problem::Missing {
            field: templates.into(),
            remedy: "give a list of templates with {}",
        }),
        Some(Value::Array(list)) => match list.first() {
            Some(Value::String(template)) => Ok(template),
            Some(other) => Err(mistyped(field.clone(), other, "a template with {}")),
            None => Err(Problem::Missing {
                field: field.clone(),
                remedy: "give a template with {}",
            }),
        },
        Some(other) => Err(mistyped(
            templates.into(),
            other,
            "a list of templates with {}",
        )),
    }
    .map_err(whole)?;
    let name = text(file, "name", "name".into()).map_err(whole)?;
    let samples = match file.get("samples") {
        Some(Value::Array(samples)) => samples,
        other => {
            let other = other.unwrap_or(&Value::Null);
            return Err(whole(mistyped(
                "samples".into(),
                other,
                "a list of subject and object",
            )));
        }
    };
    let sample = |value: &Value| {
        let Value::Object(sample) = value else {
            return Err(Problem::NotAnObject {
                found: named(value),
            });
        };
        let subject = required(sample, "subject", "subject".into(), SUBJECT)?;
        Ok(Fact {
            id: None,
            prompt: fill(field.clone(), template, subject)?,
            subject: subject.to_owned(),
            attribute: answer(sample, "object", "object".into())?,
            relation: name.map(str::to_owned),
        })
    };
    let numbered = samples.iter().enumerate();
    numbered
        .map(|(i, value)| sample(value).map_err(|p| (format!("sample {}", i + 1), p)))
        .collect()
}

/// The template with the subject at its first `{}`.
fn fill(field: String, template: &str, subject: &str) -> Result<String, Problem> {
    match template.split_once("{}") {
        Some((before, after)) => Ok(format!("{before}{subject}{after}")),
        None => Err(Problem::NoPlaceholder {
            field,
            template: template.to_owned(),
        }),
    }
}

/// A field that is there and not null.
fn present<'a>(record: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    record.get(key).filter(|value| !value.is_null())
}

/// A text, where the field is there.
fn text<'a>(
    record: &'a Map<String, Value>,
    key: &str,
    field: String,
) -> Result<Option<&'a str>, Problem> {
    match present(record, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(mistyped(field, other, "a text")),
    }
}

/// A text that must be there and say something.
fn required<'a>(
    record: &'a Map<String, Value>,
    key: &str,
    field: String,
    remedy: &'static str,
) -> Result<&'a str, Problem> {
    match text(record, key, field.clone())? {
        None => Err(Problem::Missing { field, remedy }),
        Some(text) if text.trim().is_empty() => Err(Problem::Blank { field, remedy }),
        Some(text) => Ok(text),
    }
}

/// An expected answer, trimmed; a blank one would match no prediction.
fn answer(
    record: &Map<String, Value>,
    key: &str,
    field: String,
) -> Result<Option<String>, Problem> {
    match text(record, key, field.clone())?.map(str::trim) {
        Some("") => Err(Problem::Blank {
            field,
            remedy: ATTRIBUTE,
        }),
        found => Ok(found.map(str::to_owned)),
    }
}

fn mistyped(field: String, found: &Value, wanted: &'static str) -> Problem {
    Problem::Type {
        field,
        found: named(found),
        wanted,
    }
}

fn named(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse("facts.json", text).unwrap_err().to_string()
    }

    #[test]
    fn every_schema_gives_the_same_fact() {
        let known = r#"[{"known_id": 7, "subject": "Vinson Massif", "attribute": "Antarctica",
            "template": "{} is located in the continent", "prediction": " of Antarctica. It",
            "prompt": "Vinson Massif is located in the continent of", "relation_id": "P30"}]"#;
        let lines = "\u{feff}{\"id\": \"7\", \"subject\": \"Vinson Massif\", \"attribute\": \" Antarctica\", \
            \"prompt\": \"Vinson Massif is located in the continent of\", \"relation\": \"P30\"}\r\n\n";
        let full = r#"[{"case_id": 7, "requested_rewrite": {"prompt": "{} is located in the continent of",
            "relation_id": "P30", "target_new": {"str": "Asia"}, "target_true": {"str": "Antarctica", "id": "Q51"},
            "subject": "Vinson Massif"}, "paraphrase_prompts": []}]"#;
        let flat = r#"[{"case_id": 7, "prompt": "Vinson Massif is located in the continent of",
            "target_new": "Asia", "subject": "Vinson Massif", "ground_truth": "Antarctica"}]"#;
        let relation = r#"{"name": "P30", "prompt_templates": ["{} is located in the continent of", "x {}"],
            "samples": [{"subject": "Vinson Massif", "object": "Antarctica"}]}"#;
        let fact = Fact {
            id: Some("7".into()),
            prompt: "Vinson Massif is located in the continent of".into(),
            subject: "Vinson Massif".into(),
            attribute: Some("Antarctica".into()),
            relation: Some("P30".into()),
        };
        assert_eq!(parse("f", known).unwrap(), std::slice::from_ref(&fact));
        assert_eq!(parse("f", lines).unwrap(), std::slice::from_ref(&fact));
        assert_eq!(parse("f", full).unwrap(), std::slice::from_ref(&fact));
        assert_eq!(
            parse("f", flat).unwrap(),
            [Fact {
                relation: None,
                ..fact.clone()
            }]
        );
        assert_eq!(parse("f", relation).unwrap(), [Fact { id: None, ..fact }]);
    }

    #[test]
    fn duplicates_order_and_unexpected_fields_are_kept_or_ignored() {
        let one = r#"{"prompt": "A b", "subject": "A", "attribute": null, "more": [1, {}]}"#;
        let two = r#"{"prompt": "C d", "subject": "C"}"#;
        let facts = parse("f", &format!("{one}\n{two}\n{one}")).unwrap();
        let subjects: Vec<&str> = facts.iter().map(|f| f.subject.as_str()).collect();
        assert_eq!(subjects, ["A", "C", "A"]);
        assert_eq!(facts, parse("f", &format!("[{one},{two},{one}]")).unwrap());
    }

    #[test]
    fn an_error_names_file_record_field_and_remedy() {
        let good = r#"{"prompt": "A b", "subject": "A"}"#;
        let messages =
            [
                message(""),
                message("[]"),
                message("\"text\""),
                message("prompt,subject\nA b,A\n"),
                message("{\"prompt\": "),
                message(&format!("[{good}, {good}")),
                message(&format!("[{good}] {good}")),
                message(&format!("[{good}, \"A b\"]")),
                message(&format!("[{good}, {{\"known_id\": 3, \"subject\": \"A\"}}]")),
                message(r#"[{"prompt": "A b"}]"#),
                message(r#"[{"prompt": "A b", "subject": " "}]"#),
                message(r#"[{"prompt": "A b", "subject": ["A"]}]"#),
                message(r#"[{"prompt": "A b", "subject": "A", "attribute": ""}]"#),
                message(r#"[{"prompt": "The Louvre is in", "subject": "louvre"}]"#),
                message(&format!("{good}\n{{\"prompt\": \"A b\"}}\n")),
                message(&format!("{good}\nA b\n")),
                message(r#"[{"case_id": 9, "requested_rewrite": {"prompt": "X is", "subject": "X"}}]"#),
                message(r#"[{"requested_rewrite": {"prompt": "{} is", "subject": "X", "target_true": "Y"}}]"#),
                message(r#"[{"requested_rewrite": {"prompt": "{} is"}}]"#),
                message(r#"{"name": "r", "samples": []}"#),
                message(r#"{"prompt_templates": [], "samples": []}"#),
                message(r#"{"prompt_templates": ["{} is"], "samples": [{"object": "x"}]}"#),
            ]
            .join("\n");
        insta::assert_snapshot!(messages);
    }

    #[test]
    fn a_file_is_read_up_to_its_limit_and_not_beyond() {
        let text = r#"[{"prompt": "A b", "subject": "A"}]"#;
        let size = text.len() as u64;
        assert_eq!(read_limited("f", text.as_bytes(), size).unwrap().len(), 1);
        let refused = read_limited("f", text.as_bytes(), size - 1);
        assert!(matches!(refused, Err(Error::TooLarge { limit, .. }) if limit == size - 1));
        let shown = Error::TooLarge {
            file: "f".into(),
            limit: LARGEST_FILE,
        }
        .to_string();
        assert!(shown.contains("256 MiB"), "{shown}");
    }

    #[test]
    fn a_file_that_is_no_text_or_not_there_is_named() {
        let error = read_from("bad.json", &b"[\"\xff\"]"[..]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bad.json: is not UTF-8 at byte 2: save it as UTF-8"
        );
        let error = read(Path::new("/nowhere/facts.json")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/nowhere/facts.json: cannot be read: ")
        );
    }
}
