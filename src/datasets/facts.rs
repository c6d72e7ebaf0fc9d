//! Fact files: lists of prompts with their subjects and, where known, the expected answers.
//!
//! Understood, by what the file holds and not by its name:
//!
//! | file | form | fields used |
//! |---|---|---|
//! | known_1000 (Meng et al. 2022) | list | `known_id`, `prompt`, `subject`, `attribute`, `relation_id` |
//! | CounterFact | list | `case_id`, `requested_rewrite`: `prompt` with `{}`, `subject`, `target_true.str`, `relation_id` |
//! | CounterFact, flat | list | `case_id`, `prompt`, `subject`, `target_true` or `ground_truth` |
//! | zsRE (Levy et al. 2017, as Mitchell et al. 2022 give it) | list | `src` (a question), `subject`, the first of `answers` |
//! | MQuAKE (Zhong et al. 2023) | list | `case_id`, `requested_rewrite`: a list of CounterFact's, a fact each |
//! | QAEdit (Yang et al. 2025) | list | `id`, `prompt` (a question), `subject` |
//! | a relation of the LRE data set (Hernandez et al. 2024) | object | `name`, `prompt_templates`, `samples`: `subject`, `object` |
//!
//! Any record or sample may say what corrupts its fact in a counterfactual trace: `corrupted`,
//! another prompt of as many tokens, or an object with `prompt` or `subject` and maybe `answer`;
//! and `foil`, the answer that its own is compared with.
//!
//! A list may also stand as JSON lines, one record a line, and a single record alone. Fields not
//! named here are ignored. Records keep their order, and duplicates are kept: they are the
//! user's to make.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{Error, Problem};
use super::reader::{self, LARGEST_FILE};
use super::record::{
    ANSWER, Entry, Other, SUBJECT, mistyped, named, present, required, said, template_parts, text,
};

/// A sentence that ends where the model is to complete a fact about its subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The text to complete, exactly as given, such as `The Space Needle is in downtown`.
    pub prompt: String,
    /// The words of the prompt whose embeddings are corrupted.
    pub subject: String,
    /// Where they begin in the prompt, in bytes of UTF-8; none for their first occurrence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_start: Option<usize>,
    /// The expected answer, without spaces around it. A fact that the model answers otherwise is
    /// recorded, not traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// The relation of the fact, by which results can be grouped, such as `P30`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
    /// The number or name of the fact in its data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The prompt that it is corrupted with, of as many tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupted: Option<String>,
    /// The answer that its own is compared with, by its first token; without it, the model's answer
    /// to the corrupted prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foil: Option<String>,
}

/// Reads a fact file.
///
/// # Errors
/// [`Error`], naming the file and, where one record is wrong, that record and its field.
pub fn read(path: &Path) -> Result<Vec<Fact>, Error> {
    parse(&path.display().to_string(), &reader::text_of(path)?)
}

/// Reads facts from a stream; `file` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn read_from(file: &str, source: impl Read) -> Result<Vec<Fact>, Error> {
    parse(file, &reader::text_from(file, source, LARGEST_FILE)?)
}

/// Reads facts from text; `file` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, text: &str) -> Result<Vec<Fact>, Error> {
    if let Some(whole) = reader::whole(text).filter(|whole| whole.contains_key("samples")) {
        let facts = relation(&whole).map_err(|(record, problem)| Error::Record {
            file: file.to_owned(),
            record,
            problem,
        })?;
        return match facts.is_empty() {
            true => Err(Error::Empty {
                file: file.to_owned(),
            }),
            false => Ok(facts),
        };
    }
    let mut facts = Vec::new();
    reader::records(file, text, |value| {
        facts.extend(Entry::all(value)?.into_iter().map(fact));
        Ok(())
    })?;
    Ok(facts)
}

/// A fact of one prompt: its subject stands where `{}` stands, as in a template of an edit, or is a
/// part of it.
///
/// # Errors
/// [`Problem::Placeholders`].
pub fn of_prompt(prompt: &str, subject: &str) -> Result<Fact, Problem> {
    if !prompt.contains("{}") {
        return Ok(Fact {
            prompt: prompt.to_owned(),
            subject: subject.to_owned(),
            ..Fact::default()
        });
    }
    let (before, after) = template_parts("prompt".to_owned(), prompt)?;
    Ok(placed(&before, subject, &after))
}

/// A fact whose subject stands between two parts of its prompt.
pub fn placed(before: &str, subject: &str, after: &str) -> Fact {
    let prompt = format!("{before}{subject}{after}");
    let start = before.len();
    Fact {
        // The first occurrence needs no word: so a fact has one form.
        subject_start: (prompt.find(subject) != Some(start)).then_some(start),
        subject: subject.to_owned(),
        prompt,
        ..Fact::default()
    }
}

fn fact(entry: Entry) -> Fact {
    Fact {
        attribute: entry.target_true,
        relation: entry.relation,
        id: entry.id,
        corrupted: entry.other.corrupted,
        foil: entry.other.foil,
        ..placed(&entry.before, &entry.subject, &entry.after)
    }
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
        let (before, after) = template_parts(field.clone(), template.trim())?;
        let attribute = said(sample, "object", "object".into(), ANSWER)?;
        let other = Other::read(sample, &before, &after)?;
        Ok(Fact {
            attribute,
            corrupted: other.corrupted,
            foil: other.foil,
            relation: name.clone(),
            ..placed(&before, &subject, &after)
        })
    };
    let numbered = samples.iter().enumerate();
    numbered
        .map(|(i, value)| sample(value).map_err(|p| (format!("sample {}", i + 1), p)))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_may_say_what_corrupts_it() {
        let read = |more: &str| {
            let text = format!(r#"[{{"prompt": "Ada lives in", "subject": "Ada"{more}}}]"#);
            parse("f", &text).map(|facts| (facts[0].corrupted.clone(), facts[0].foil.clone()))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("").unwrap(), (None, None));
        let prompt = r#", "corrupted": "Bob lives in", "foil": "Rome""#;
        assert_eq!(read(prompt).unwrap(), (some("Bob lives in"), some("Rome")));
        let subject = r#", "corrupted": {"subject": "Bob", "answer": "Rome"}"#;
        assert_eq!(read(subject).unwrap(), (some("Bob lives in"), some("Rome")));
        let whole = r#", "corrupted": {"prompt": "Bob works in"}"#;
        assert_eq!(read(whole).unwrap(), (some("Bob works in"), None));
        for (wrong, what) in [
            (r#", "corrupted": {}"#, "corrupted.subject"),
            (r#", "corrupted": " ""#, "give another prompt"),
            (r#", "corrupted": 3"#, "corrupted"),
            (
                r#", "foil": "a", "corrupted": {"subject": "Bob", "answer": "b"}"#,
                "foil",
            ),
        ] {
            let said = read(wrong).unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
    }

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
            ..Fact::default()
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
                r#"field "answers" is a number: give a text or a list of texts"#,
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
    fn a_template_says_where_the_subject_stands() {
        let full = |prompt: &str, subject: &str| {
            let text = serde_json::json!([{ "requested_rewrite": { "prompt": prompt, "subject": subject } }]);
            parse("f", &text.to_string()).unwrap().remove(0)
        };
        let ada = full("In the land of Ada, the ruler {} is called", "Ada");
        assert_eq!(ada.prompt, "In the land of Ada, the ruler Ada is called");
        assert_eq!(ada.subject_start, Some(30));
        assert_eq!(full("{} of Ada is", "Ada").subject_start, None);
        let relation = r#"{"prompt_templates": ["The opposite of the word {} is"], "samples": [{"subject": "he"}]}"#;
        let he = parse("f", relation).unwrap().remove(0);
        assert_eq!(he.subject_start, Some(25));
        assert_eq!(&he.prompt[25..27], "he");
    }

    #[test]
    fn one_prompt_is_read_as_a_records_is() {
        let he = of_prompt("The opposite of the word {} is", "he").unwrap();
        assert_eq!(he, placed("The opposite of the word ", "he", " is"));
        let given = of_prompt("The opposite of the word he is ", "he").unwrap();
        assert_eq!(
            (given.prompt.as_str(), given.subject_start),
            ("The opposite of the word he is ", None)
        );
        let twice = of_prompt("{} and {} are", "Ada").unwrap_err().to_string();
        assert!(twice.contains("has 2 {}"), "{twice}");
        let elsewhere = of_prompt("{} of Ada is", "Ada").unwrap();
        assert_eq!(
            (elsewhere.prompt.as_str(), elsewhere.subject_start),
            ("Ada of Ada is", None)
        );
    }

    #[test]
    fn a_record_that_can_be_read_in_two_ways_is_refused() {
        let flat = |prompt: &str| {
            let text = serde_json::json!([{ "prompt": prompt, "subject": "Ada" }]);
            parse("f", &text.to_string()).map(|facts| facts[0].prompt.clone())
        };
        for (prompt, problem) in [
            ("{} and {} are", "has 2 {}: put one"),
            ("f-string {} of Ada is", "which has {} and the subject"),
        ] {
            let said = flat(prompt).unwrap_err().to_string();
            assert!(
                said.contains("record 1") && said.contains("\"prompt\""),
                "{said}"
            );
            assert!(said.contains(problem), "{said}");
        }
        assert_eq!(flat(" Ada is ").unwrap(), "Ada is");
        assert_eq!(flat("{} is").unwrap(), "Ada is");
        let said = message(r#"[{"case_id": [1], "prompt": "Ada is", "subject": "Ada"}]"#);
        assert!(
            said.contains("\"case_id\" is a list: give a number or a text"),
            "{said}"
        );
        let zsre = r#"[{"src": "Who is Ada?", "subject": "Ada", "loc": "nq question: "}]"#;
        assert!(
            message(zsre).contains("\"loc\" is blank"),
            "{}",
            message(zsre)
        );
        let big = "[{\"case_id\": 123456789012345678901234567890, \"prompt\": \"Ada is\", \"subject\": \"Ada\"}]";
        assert!(
            message(big).contains("\"case_id\" is a number with more digits"),
            "{}",
            message(big)
        );
    }
}
