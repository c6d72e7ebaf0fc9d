//! Fact files: lists of prompts with their subjects and, where known, the expected answers.
//!
//! Understood, by what the file holds and not by its name:
//!
//! | file | form | fields used |
//! |---|---|---|
//! | known_1000 (Meng et al. 2022) | list | `known_id`, `prompt`, `subject`, `attribute`, `relation_id` |
//! | CounterFact | list | `case_id`, `requested_rewrite`: `prompt` with `{}`, `subject`, `target_true.str`, `relation_id` |
//! | CounterFact, flat | list | `case_id`, `prompt`, `subject`, `ground_truth` |
//! | zsRE (Levy et al. 2017, as Mitchell et al. 2022 give it) | list | `src` (a question), `subject`, the first of `answers` |
//! | a relation of the LRE data set (Hernandez et al. 2024) | object | `name`, `prompt_templates`, `samples`: `subject`, `object` |
//!
//! A list may also stand as JSON lines, one record a line, and a single record alone. Fields not
//! named here are ignored. Records keep their order, and duplicates are kept: they are the
//! user's to make.

mod error;
mod record;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserializer;
use serde::de::{SeqAccess, Visitor};
use serde_json::{Map, Value};

pub use error::{Error, Problem};
use record::{described, fact, relation};

use crate::causal::Fact;

/// Largest fact file read: 256 MiB, five times the whole of CounterFact.
pub const LARGEST_FILE: u64 = 256 << 20;

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
    fn a_question_of_zsre_is_traced_with_its_first_answer() {
        let record = r#"{"subject": "UniFirst", "src": "What does UniFirst make?", "pred": "food",
            "rephrase": "What is made by UniFirst?", "alt": "planes", "answers": [" uniforms ", "clothes"],
            "loc": "nq question: who", "loc_ans": "Walter", "cond": "uniforms >> planes || What"}"#;
        let fact = Fact {
            prompt: "What does UniFirst make?".into(),
            subject: "UniFirst".into(),
            attribute: Some("uniforms".into()),
            ..Fact::default()
        };
        assert_eq!(parse("f", &format!("[{record}]")).unwrap(), [fact]);
        for (from, to, problem) in [
            (
                r#"[" uniforms ", "clothes"]"#,
                "7",
                r#"field "answers" is a number: give a list of texts"#,
            ),
            (
                r#"[" uniforms ", "clothes"]"#,
                "[3]",
                r#"field "answers[0]" is a number: give a text"#,
            ),
            (
                r#"[" uniforms ", "clothes"]"#,
                r#"[" "]"#,
                r#"field "answers[0]" is blank"#,
            ),
            (
                r#""subject": "UniFirst", "#,
                "",
                r#"field "subject" is missing"#,
            ),
            ("does UniFirst", "does Unifirst", "does not occur in prompt"),
        ] {
            let message = message(&format!("[{}]", record.replace(from, to)));
            assert!(
                message.contains("record 1") && message.contains(problem),
                "{message}"
            );
        }
        let without = record.replace(
            r#""answers": [" uniforms ", "clothes"],"#,
            r#""answers": [],"#,
        );
        assert_eq!(parse("f", &without).unwrap()[0].attribute, None);
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
