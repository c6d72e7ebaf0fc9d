//! Data sets: files of records, read as edits are ([`crate::datasets::edits`]) with what is measured beside them.

use std::path::Path;

use serde_json::Value;

use super::{ProbeKind, Question};
use crate::datasets::edits::{self, Error, Rewrite};

/// Which measures belong to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// CounterFact, in its full or flat form.
    CounterFact,
    /// zsRE.
    ZsRe,
}

/// A fact that is rewritten, and the prompts that show what happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The fact, with its paraphrases and neighbours.
    pub rewrite: Rewrite,
    /// The neighbours' true answers, one each.
    pub neighbour_answers: Vec<String>,
    /// Prompts to continue freely.
    pub generation_prompts: Vec<String>,
}

/// A data set.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// What it is.
    pub set: Set,
    /// Its records in order.
    pub records: Vec<Record>,
    /// The same as they stand in the file.
    values: Vec<Value>,
}

/// Reads a data set: CounterFact (full or flat) or zsRE, as a list, a record a line, or a single record.
///
/// # Errors
/// [`Error`], naming the file and, where one record is wrong, that record and its field.
pub fn read(path: &Path) -> Result<Dataset, Error> {
    parse(&path.display().to_string(), &edits::text_of(path)?)
}

fn parse(file: &str, text: &str) -> Result<Dataset, Error> {
    let values = edits::values(file, text)?;
    let mut records = Vec::with_capacity(values.len());
    let mut set = None;
    for (n, value) in values.iter().enumerate() {
        let wrong = |problem| Error::Record {
            file: file.to_owned(),
            number: n + 1,
            problem,
        };
        let found = set_of(value).map_err(wrong)?;
        if *set.get_or_insert(found) != found {
            return Err(wrong(
                "is of another data set than record 1, and they are measured differently: evaluate CounterFact and \
                 zsRE one after the other"
                    .to_owned(),
            ));
        }
        records.push(record(value, found).map_err(wrong)?);
    }
    Ok(Dataset {
        // There is at least one: `values` sees to it.
        set: set.unwrap_or(Set::CounterFact),
        records,
        values,
    })
}

impl Dataset {
    /// Keeps the records at these places, in this order.
    pub fn keep(&mut self, places: &[usize]) {
        self.records = places.iter().map(|&n| self.records[n].clone()).collect();
        self.values = places.iter().map(|&n| self.values[n].clone()).collect();
    }

    /// The records as JSON lines, each as it stood in its file: what [`read`] and `palimpsest edit --file` take.
    pub fn to_lines(&self) -> String {
        let lines = self.values.iter().map(|value| format!("{value}\n"));
        lines.collect()
    }
}

impl Record {
    /// What a model is asked, in order: the fact, the paraphrases, the neighbours.
    pub fn questions(&self, set: Set) -> Vec<Question> {
        let rewrite = &self.rewrite;
        let new = || Some(rewrite.target_new.clone());
        // CounterFact compares two objects everywhere; zsRE asks for one, and for the other only where it shows whether
        // the fact is known.
        let both = set == Set::CounterFact;
        let first = Question {
            kind: ProbeKind::Rewrite,
            prompt: rewrite.prompt.replacen("{}", &rewrite.subject, 1),
            new: new(),
            old: rewrite.target_true.clone(),
        };
        let paraphrases = rewrite.paraphrases.iter().map(|prompt| Question {
            kind: ProbeKind::Paraphrase,
            prompt: prompt.clone(),
            new: new(),
            old: rewrite.target_true.clone().filter(|_| both),
        });
        let neighbours = rewrite.neighbours.iter().zip(&self.neighbour_answers);
        let neighbours = neighbours.map(|(prompt, answer)| Question {
            kind: ProbeKind::Neighbour,
            prompt: prompt.clone(),
            new: new().filter(|_| both),
            old: Some(answer.clone()),
        });
        std::iter::once(first)
            .chain(paraphrases)
            .chain(neighbours)
            .collect()
    }
}

fn set_of(value: &Value) -> Result<Set, String> {
    let has = |field: &str| value.get(field).is_some();
    if has("src") {
        Ok(Set::ZsRe)
    } else if has("requested_rewrite") || has("prompt") {
        Ok(Set::CounterFact)
    } else {
        Err(
            "is of no form that is known: give \"requested_rewrite\" (CounterFact), \"prompt\", \"subject\", \
             \"target_new\" and \"ground_truth\" (its flat form), or \"src\", \"subject\", \"alt\" and \"answers\" (zsRE)"
                .to_owned(),
        )
    }
}

fn record(value: &Value, set: Set) -> Result<Record, String> {
    let rewrite = edits::record(value)?;
    let full = value.get("requested_rewrite").is_some();
    let [new, old, paraphrases, neighbours, answers] = match (set, full) {
        (Set::ZsRe, _) => ["alt", "answers", "rephrase", "loc", "loc_ans"],
        (_, true) => [
            "target_new.str",
            "target_true.str",
            "paraphrase_prompts",
            "neighborhood_prompts",
            "",
        ],
        (_, false) => [
            "target_new",
            "ground_truth",
            "rephrase_prompt",
            "locality_prompt",
            "locality_ground_truth",
        ],
    };
    if rewrite.target_new.trim().is_empty() {
        return Err(format!("field {new:?} is blank: give the new object"));
    }
    let truth = rewrite.target_true.clone();
    match truth.as_deref().map(str::trim) {
        Some("") => return Err(format!("field {old:?} is blank: give the true object")),
        None if set == Set::CounterFact => {
            return Err(format!(
                "field {old:?} is missing or no text: give the true object, with which the new one is compared"
            ));
        }
        _ => {}
    }
    list(value, paraphrases)?;
    let asked = list(value, neighbours)?;
    let answers = match (asked.is_empty(), value.get(answers)) {
        (true, _) => Vec::new(),
        (false, Some(_)) => list(value, answers)?,
        (false, None) if set == Set::ZsRe => Vec::new(),
        (false, None) => vec![truth.clone().unwrap_or_default()],
    };
    // One answer is that of all.
    let neighbour_answers = match answers.as_slice() {
        [one] => vec![one.clone(); asked.len()],
        several if several.len() == asked.len() => several.to_vec(),
        several => {
            return Err(format!(
                "field \"loc_ans\" has {} answers to {} questions of \"loc\": give one each",
                several.len(),
                asked.len()
            ));
        }
    };
    Ok(Record {
        rewrite,
        neighbour_answers,
        generation_prompts: list(value, "generation_prompts")?,
    })
}

/// A field that holds a text or a list of texts, none of them blank, or is not there.
fn list(value: &Value, field: &str) -> Result<Vec<String>, String> {
    let one = |value: &Value| match value.as_str() {
        None => Err(format!(
            "field {field:?} is not a text or a list of texts: give prompts, or leave it out"
        )),
        Some(text) if text.trim().is_empty() => Err(format!(
            "field {field:?} has a blank text: give a prompt, or leave it out"
        )),
        Some(text) => Ok(text.to_owned()),
    };
    match value.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(all)) => all.iter().map(one).collect(),
        Some(text) => Ok(vec![one(text)?]),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FULL: &str = r#"[{"case_id": 7, "requested_rewrite": {"prompt": "{} is in", "relation_id": "P131",
        "target_new": {"str": "Rome", "id": "Q"}, "target_true": {"str": "Paris", "id": "Q"}, "subject": "The Louvre"},
        "paraphrase_prompts": ["One finds The Louvre in", "Where? The Louvre:"], "neighborhood_prompts": ["Notre-Dame is in"],
        "generation_prompts": ["The Louvre"]}]"#;
    const FLAT: &str = r#"{"case_id": 7, "prompt": "The Louvre is in", "target_new": "Rome", "subject": "The Louvre", "ground_truth": "Paris", "rephrase_prompt": "One finds The Louvre in", "locality_prompt": "Notre-Dame is in", "locality_ground_truth": "Paris"}"#;
    const ZSRE: &str = r#"{"subject": "The Louvre", "src": "Where is The Louvre?", "pred": "x", "alt": " Rome", "answers": ["Paris"], "rephrase": "The Louvre is where?", "loc": "nq question: who sang it", "loc_ans": "Ada"}"#;

    fn asked(text: &str) -> Vec<(ProbeKind, String, Option<String>, Option<String>)> {
        let data = parse("f", text).unwrap();
        let questions = data.records[0].questions(data.set).into_iter();
        questions
            .map(|q| (q.kind, q.prompt, q.new, q.old))
            .collect()
    }

    #[test]
    fn each_form_asks_what_its_measures_need() {
        let some = |text: &str| Some(text.to_owned());
        let pair = |kind, prompt: &str| (kind, prompt.to_owned(), some("Rome"), some("Paris"));
        let full = asked(FULL);
        assert_eq!(full[0], pair(ProbeKind::Rewrite, "The Louvre is in"));
        assert_eq!(full[2], pair(ProbeKind::Paraphrase, "Where? The Louvre:"));
        assert_eq!(full[3], pair(ProbeKind::Neighbour, "Notre-Dame is in"));
        assert_eq!(
            asked(FLAT),
            [full[0].clone(), full[1].clone(), full[3].clone()]
        );
        assert_eq!(
            asked(ZSRE),
            [
                pair(ProbeKind::Rewrite, "Where is The Louvre?"),
                (
                    ProbeKind::Paraphrase,
                    "The Louvre is where?".to_owned(),
                    some("Rome"),
                    None
                ),
                (
                    ProbeKind::Neighbour,
                    "who sang it".to_owned(),
                    None,
                    some("Ada")
                ),
            ]
        );
        let data = parse("f", FULL).unwrap();
        assert_eq!(data.records[0].generation_prompts, ["The Louvre"]);
    }

    #[test]
    fn records_that_are_kept_stand_as_they_did() {
        let other = FLAT.replace("Louvre", "Prado");
        let mut data = parse("f", &format!("{FLAT}\n{other}\n")).unwrap();
        data.keep(&[1]);
        let again = parse("g", &data.to_lines()).unwrap();
        assert_eq!(again.records, data.records);
        assert_eq!(again.records[0].rewrite.subject, "The Prado");
        let value: Value = serde_json::from_str(&data.to_lines()).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(&other).unwrap());
    }

    #[test]
    fn what_is_wrong_is_named_with_record_field_and_remedy() {
        let second = |changed: &str| format!("{FLAT}\n{changed}");
        for (text, record, field, remedy) in [
            (
                second(r#"{"subject": "a"}"#),
                "record 2",
                "of no form",
                "give \"requested_rewrite\"",
            ),
            (
                second(&FLAT.replace("\"ground_truth\"", "\"x\"")),
                "record 2",
                "\"ground_truth\" is missing",
                "give the true object",
            ),
            (
                second(&FLAT.replace("\"Rome\"", "\" \"")),
                "record 2",
                "\"target_new\" is blank",
                "",
            ),
            (
                FULL.replace("\"Rome\"", "\" \""),
                "record 1",
                "\"target_new.str\" is blank",
                "give the new object",
            ),
            (
                second(ZSRE),
                "record 2",
                "another data set",
                "one after the other",
            ),
            (
                second(&FLAT.replace("\"Notre-Dame is in\"", "5")),
                "record 2",
                "\"locality_prompt\" is not a text",
                "give prompts",
            ),
            (
                FULL.replace("\"Where? The Louvre:\"", "\"\""),
                "record 1",
                "\"paraphrase_prompts\" has a blank text",
                "leave it out",
            ),
            (
                ZSRE.replace("\"loc_ans\"", "\"x\""),
                "record 1",
                "\"loc_ans\" has 0 answers to 1",
                "give one each",
            ),
            (
                second(&FLAT.replace("The Louvre is", "It is")),
                "record 2",
                "does not occur in prompt",
                "",
            ),
        ] {
            let said = parse("f.json", &text).unwrap_err().to_string();
            for part in ["f.json", record, field, remedy] {
                assert!(said.contains(part), "{part:?} in {said}");
            }
        }
        assert!(
            parse("f", "[]")
                .unwrap_err()
                .to_string()
                .contains("no records")
        );
    }
}
