//! Edit files: facts with what they are to become, and the prompts to watch.
//!
//! Understood, by what a record holds:
//!
//! | file | fields used |
//! |---|---|
//! | CounterFact (Meng et al. 2022) | `case_id`, `requested_rewrite`: `prompt` with `{}`, `subject`, `target_new.str`, `target_true.str`; `paraphrase_prompts`, `neighborhood_prompts` |
//! | CounterFact, flat | `case_id`, `prompt`, `subject`, `target_new`, `target_true` or `ground_truth`, `rephrase_prompt`, `locality_prompt` |
//! | zsRE (Mitchell et al. 2022) | `subject`, `src`, `alt`, `answers`, `rephrase`, `loc` |
//! | QAEdit (Yang et al. 2025) | `id`, `subject`, `prompt`, `target`, `rephrase`, `locality`: `loc` |
//! | MQuAKE (Zhong et al. 2023) | `case_id`, `requested_rewrite`: a list of CounterFact's, an edit each |
//!
//! A file is a list of records, one record a line, or a single record. Fields not named here are
//! ignored.

use std::path::Path;

use super::error::{Error, Problem};
use super::reader;
use super::record::Entry;

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

impl Rewrite {
    /// What it is about, before and behind the subject; none where the prompt does not have one
    /// `{}`.
    pub fn parts(&self) -> Option<(&str, &str)> {
        self.prompt
            .split_once("{}")
            .filter(|(_, after)| !after.contains("{}"))
    }
}

/// Reads an edit file.
///
/// # Errors
/// [`Error`], naming the file and, where one record is wrong, that record and its field.
pub fn read(path: &Path) -> Result<Vec<Rewrite>, Error> {
    parse(&path.display().to_string(), &reader::text_of(path)?)
}

/// Reads edits from text; `file` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, text: &str) -> Result<Vec<Rewrite>, Error> {
    let mut rewrites = Vec::new();
    reader::records(file, text, |value| {
        for entry in Entry::all(value)? {
            rewrites.push(rewrite(&entry)?);
        }
        Ok(())
    })?;
    Ok(rewrites)
}

/// The edit that a record asks for.
pub(super) fn rewrite(entry: &Entry) -> Result<Rewrite, Problem> {
    let names = entry.schema.names();
    if let Some(field) = entry.unread {
        return Err(Problem::Unread {
            field,
            instead: names.neighbours,
        });
    }
    let missing = || Problem::Missing {
        field: names.target_new.to_owned(),
        remedy: "give the new object",
    };
    Ok(Rewrite {
        prompt: entry.template(),
        subject: entry.subject.clone(),
        target_new: entry.target_new.clone().ok_or_else(missing)?,
        target_true: entry.target_true.clone(),
        id: entry.id.clone(),
        paraphrases: entry.paraphrases.clone(),
        neighbours: entry.neighbours.clone(),
    })
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
    fn a_flat_record_may_name_the_true_answer_as_the_full_one_does() {
        let whole = parse("full", FULL).unwrap().remove(0);
        // As ROME's own requests have them, and with texts alone.
        let objects = FLAT.replace("\"Rome\"", r#"{"str": "Rome"}"#).replace(
            "\"ground_truth\": \"Paris\"",
            r#""target_true": {"str": "Paris"}"#,
        );
        let texts = FLAT.replace("ground_truth", "target_true");
        for text in [objects, texts] {
            assert_eq!(parse("flat", &text).unwrap(), vec![whole.clone()]);
        }
        let said = |text: &str| parse("f", text).unwrap_err().to_string();
        let two = FLAT.replace(
            "\"ground_truth\"",
            r#""target_true": "Lyon", "ground_truth""#,
        );
        let contradiction =
            r#"fields "target_true" and "ground_truth" give different true answers"#;
        assert!(said(&two).contains(contradiction), "{}", said(&two));
        let blank = FLAT.replace(
            "\"ground_truth\": \"Paris\"",
            r#""target_true": {"str": " "}"#,
        );
        assert!(said(&blank).contains("\"target_true.str\" is blank"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_record() {
        for (text, what) in [
            ("", "no records"),
            ("prompt, subject", "is not JSON"),
            (
                r#"{"subject": "a", "prompt": "b is", "target_new": "c"}"#,
                "does not occur",
            ),
            (
                r#"[{"subject": "a", "prompt": "a is"}]"#,
                "record 1: field \"target_new\" is missing",
            ),
            (
                r#"{"prompt": "a is", "subject": " "}"#,
                "\"subject\" is blank",
            ),
        ] {
            let said = parse("f", text).unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn one_record_means_the_same_to_tracing_editing_and_evaluating() {
        use crate::datasets::{evaluation, facts};
        // EasyEdit's list of true objects, and spaces that say nothing.
        let flat = |prompt: &str| {
            serde_json::json!([{
                "case_id": 1, "prompt": prompt, "subject": "The Louvre", "target_new": "Rome",
                "ground_truth": ["Paris"], "locality_prompt": "It is in", "locality_ground_truth": "Oslo"
            }])
            .to_string()
        };
        let text = flat("In view of the sea, The Louvre is in ");
        let fact = facts::parse("f", &text).unwrap().remove(0);
        let edit = parse("f", &text).unwrap().remove(0);
        let record = evaluation::parse("f", &text).unwrap().records.remove(0);
        assert_eq!(edit, record.rewrite);
        assert_eq!(edit.prompt.replace("{}", &edit.subject), fact.prompt);
        assert_eq!(fact.prompt, "In view of the sea, The Louvre is in");
        assert_eq!(edit.target_true, fact.attribute);
        assert_eq!(fact.attribute.as_deref(), Some("Paris"));

        let refused = |text: &str| {
            let all = [
                facts::parse("f", text).unwrap_err(),
                parse("f", text).unwrap_err(),
                evaluation::parse("f", text).unwrap_err(),
            ];
            let said = all.map(|error| error.to_string());
            assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
            said[0].clone()
        };
        assert!(refused(&flat("{} of The Louvre is in")).contains("has {} and the subject"));
        assert!(refused(&flat("{} and {} are in")).contains("has 2 {}"));
        let objects = text.replace("\"It is in\"", "[{\"prompt\": \"It is in\"}]");
        let said = refused(&objects);
        assert!(
            said.contains("\"locality_prompt[0]\" is an object: give a text"),
            "{said}"
        );
        let nulls = text.replace("\"It is in\"", "[null]");
        assert!(refused(&nulls).contains("\"locality_prompt[0]\" is null"));
        // What is watched is not left out without a word.
        let other = text.replace("\"locality_prompt\"", "\"locality\"");
        let said = parse("f", &other).unwrap_err().to_string();
        assert!(
            said.contains("\"locality\"") && said.contains("\"locality_prompt\""),
            "{said}"
        );
    }

    #[test]
    fn facts_that_are_edited_together_are_edits_each() {
        let one = |subject: &str| serde_json::json!({"prompt": "{} is in", "subject": subject, "target_new": {"str": "Rome"}});
        let record =
            serde_json::json!({"case_id": 5, "requested_rewrite": [one("Ada"), one("Eve")]});
        let read = parse("f", &record.to_string()).unwrap();
        let told: Vec<(&str, Option<&str>)> = (read.iter())
            .map(|it| (it.subject.as_str(), it.id.as_deref()))
            .collect();
        assert_eq!(told, [("Ada", Some("5")), ("Eve", Some("5"))]);
        let none = serde_json::json!({"requested_rewrite": []});
        let said = parse("f", &none.to_string()).unwrap_err().to_string();
        assert!(said.contains("\"requested_rewrite\" is missing"), "{said}");
    }
}
