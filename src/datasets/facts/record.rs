//! From a record of any of the known schemas to a fact.

use serde_json::{Map, Value};

use super::error::Problem;
use crate::causal::Fact;

/// "record 3 (known_id 17)".
pub(super) fn described(place: String, record: &Value) -> String {
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

/// One record of known_1000, of CounterFact, full or flat, or of zsRE.
pub(super) fn fact(record: &Value) -> Result<Fact, Problem> {
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
        None if present(record, "prompt").is_none() && present(record, "src").is_some() => {
            let prompt = required(record, "src", "src".into(), PROMPT)?.to_owned();
            let subject = required(record, "subject", "subject".into(), SUBJECT)?;
            (prompt, subject, first_answer(record)?, None)
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
pub(super) fn relation(file: &Map<String, Value>) -> Result<Vec<Fact>, (String, Problem)> {
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

/// The first of zsRE's answers, which all are right.
fn first_answer(record: &Map<String, Value>) -> Result<Option<String>, Problem> {
    let answers = match present(record, "answers") {
        None => return Ok(None),
        Some(Value::Array(answers)) => answers,
        Some(other) => return Err(mistyped("answers".into(), other, "a list of texts")),
    };
    let field = || "answers[0]".to_owned();
    match answers.first() {
        None => Ok(None),
        Some(Value::String(answer)) if answer.trim().is_empty() => Err(Problem::Blank {
            field: field(),
            remedy: ATTRIBUTE,
        }),
        Some(Value::String(answer)) => Ok(Some(answer.trim().to_owned())),
        Some(other) => Err(mistyped(field(), other, "a text")),
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
