//! Data sets that edits are judged by: records, read as edits are, with what is measured beside
//! them.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use super::edits::rewrite;
use super::error::{Error, Problem};
use super::record::{Entry, Schema};
use super::{hops, reader, ripples};

pub use super::hops::Examples;
pub use super::questions::{EDITED, Query, Record, Test};

/// Which measures belong to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// CounterFact, in its full or flat form.
    CounterFact,
    /// zsRE, and QAEdit, which is read as zsRE is: questions whose answer is given.
    ZsRe,
    /// MQuAKE and RippleEdits: questions about what follows from edits.
    Tests,
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

/// Reads a data set: CounterFact (full or flat), zsRE, QAEdit, MQuAKE or RippleEdits, as a list, a
/// record a line, or a single record. `examples` stand before the questions of MQuAKE.
///
/// # Errors
/// [`Error`], naming the file and, where one record is wrong, that record and its field.
pub fn read(path: &Path, examples: &Examples) -> Result<Dataset, Error> {
    let file = path.display().to_string();
    parse_with(&file, &reader::text_of(path)?, examples)
}

/// Reads a data set from text; `file` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, text: &str) -> Result<Dataset, Error> {
    parse_with(file, text, &Examples::default())
}

/// Reads a data set from text, with examples.
///
/// # Errors
/// As [`read`].
pub fn parse_with(file: &str, text: &str, examples: &Examples) -> Result<Dataset, Error> {
    let (mut records, mut values) = (Vec::new(), Vec::new());
    let mut set = None;
    reader::records(file, text, |value| {
        let (found, record) = any(value, examples)?;
        if *set.get_or_insert(found) != found {
            return Err(Problem::AnotherSet);
        }
        records.push(record);
        values.push(value.clone());
        Ok(())
    })?;
    Ok(Dataset {
        // There is at least one record.
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

    /// Leaves out the neighbours that speak of another record's subject, and says how many: where
    /// all records are edited together they are no neighbours, but facts that were to change.
    pub fn leave_out_spoiled(&mut self) -> u64 {
        let subjects: HashSet<String> = (self.records.iter())
            .map(|record| record.rewrite.subject.clone())
            .collect();
        let longest = subjects.iter().map(String::len).max().unwrap_or(0);
        let mut spoiled = 0;
        for record in &mut self.records {
            let own = &record.rewrite.subject;
            let kept = record
                .rewrite
                .neighbours
                .iter()
                .map(|prompt| !mentions(prompt, &subjects, longest, own))
                .collect::<Vec<_>>();
            let mut keep = kept.iter();
            (record.rewrite.neighbours).retain(|_| keep.next().copied().unwrap_or(true));
            let mut keep = kept.iter();
            (record.neighbour_answers).retain(|_| keep.next().copied().unwrap_or(true));
            spoiled += kept.iter().filter(|kept| !**kept).count() as u64;
        }
        spoiled
    }

    /// The records as JSON lines, each as it stood in its file: what [`read`] and `palimpsest edit
    /// --file` take.
    pub fn to_lines(&self) -> String {
        let lines = self.values.iter().map(|value| format!("{value}\n"));
        lines.collect()
    }
}

/// Whether a text has one of some subjects in it, from the beginning of a word to the end of one,
/// other than `own`.
fn mentions(text: &str, subjects: &HashSet<String>, longest: usize, own: &str) -> bool {
    let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let edges: Vec<usize> = (text.char_indices().map(|(at, _)| at))
        .chain([text.len()])
        .filter(|&at| word(text[..at].chars().next_back()) != word(text[at..].chars().next()))
        .collect();
    edges.iter().enumerate().any(|(n, &from)| {
        let ends = edges[n + 1..]
            .iter()
            .take_while(|&&to| to - from <= longest);
        ends.clone().any(|&to| {
            let part = &text[from..to];
            part != own && subjects.contains(part)
        })
    })
}

fn any(value: &Value, examples: &Examples) -> Result<(Set, Record), Problem> {
    if let Some(record) = ripples::record(value)? {
        return Ok((Set::Tests, record));
    }
    let entries = Entry::all(value)?;
    if let Some(record) = hops::record(value, &entries, examples)? {
        return Ok((Set::Tests, record));
    }
    let entry = match <[Entry; 1]>::try_from(entries) {
        Ok([entry]) => entry,
        // A list of edits is MQuAKE's, without its questions.
        Err(_) => {
            return Err(Problem::Missing {
                field: "questions".to_owned(),
                remedy: "give what follows from the edits, or each of them as a record",
            });
        }
    };
    let set = set_of(&entry)?;
    Ok((set, record(entry, set)?))
}

fn set_of(entry: &Entry) -> Result<Set, Problem> {
    match entry.schema {
        Schema::ZsRe | Schema::QaEdit => Ok(Set::ZsRe),
        Schema::CounterFact => Ok(Set::CounterFact),
        // A fact of known_1000 has nothing to be measured by.
        Schema::Flat if entry.target_new.is_some() => Ok(Set::CounterFact),
        Schema::Flat => Err(Problem::Unknown),
    }
}

fn record(entry: Entry, set: Set) -> Result<Record, Problem> {
    let names = entry.schema.names();
    let rewrite = rewrite(&entry)?;
    if rewrite.target_true.is_none() && set == Set::CounterFact {
        return Err(Problem::Missing {
            field: names.target_true.to_owned(),
            remedy: "give the true object, with which the new one is compared",
        });
    }
    let asked = rewrite.neighbours.len();
    let answers = match entry.neighbour_answers {
        _ if asked == 0 => Vec::new(),
        Some(answers) => answers,
        None if set == Set::ZsRe => Vec::new(),
        None => vec![rewrite.target_true.clone().unwrap_or_default()],
    };
    // One answer is that of all.
    let neighbour_answers = match answers.as_slice() {
        [one] => vec![one.clone(); asked],
        several if several.len() == asked => answers,
        several => {
            return Err(Problem::Unequal {
                field: names.neighbour_answers.to_owned(),
                found: several.len(),
                wanted: asked,
                of: names.neighbours,
            });
        }
    };
    Ok(Record {
        rewrite,
        neighbour_answers,
        generation_prompts: entry.generation_prompts,
        ..Record::default()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(subject: &str, neighbours: &[&str]) -> Value {
        serde_json::json!({"requested_rewrite": {"prompt": "{} is in", "subject": subject,
            "target_new": {"str": "Rome"}, "target_true": {"str": "Paris"}},
            "neighborhood_prompts": neighbours})
    }

    #[test]
    fn a_neighbour_that_speaks_of_another_records_subject_is_left_out_and_counted() {
        let records = [
            record(
                "The Louvre",
                &[
                    "Orsay lies in",
                    "Is Ada Lovelace's house in",
                    "Adamant is in",
                ],
            ),
            record(
                "Ada",
                &[
                    "The Louvre is in",
                    "Ada's sister lives in",
                    "The Louvres are in",
                ],
            ),
            record("Ada Lovelace", &[]),
            record("Île", &["L'Île is in", "The Îles are in"]),
        ];
        let mut data = parse("f", &Value::from(records.to_vec()).to_string()).unwrap();
        // Of the first that of Ada Lovelace, of the second that of the Louvre.
        assert_eq!(data.leave_out_spoiled(), 2);
        let left: Vec<_> = data
            .records
            .iter()
            .map(|it| &it.rewrite.neighbours)
            .collect();
        assert_eq!(*left[0], ["Orsay lies in", "Adamant is in"]);
        assert_eq!(*left[1], ["Ada's sister lives in", "The Louvres are in"]);
        assert_eq!(left[3].len(), 2);
        for record in &data.records {
            assert_eq!(
                record.neighbour_answers.len(),
                record.rewrite.neighbours.len()
            );
        }
        assert_eq!(data.leave_out_spoiled(), 0);
    }

    #[test]
    fn a_question_of_qaedit_is_read_with_its_unrelated_ones() {
        let text = r#"{"id": 4, "prompt": "Who plays Ada?", "target": "Eve", "subject": "Ada", "rephrase": "Ada is played by whom?",
            "locality": [{"loc": "who sang it", "loc_ans": "Bob"}]}"#;
        let data = parse("f", text).unwrap();
        assert_eq!(data.set, Set::ZsRe);
        let record = &data.records[0];
        assert_eq!(record.rewrite.target_new, "Eve");
        assert_eq!(record.rewrite.target_true, None);
        assert_eq!(record.rewrite.paraphrases, ["Ada is played by whom?"]);
        assert_eq!(record.rewrite.neighbours, ["who sang it"]);
        assert_eq!(record.neighbour_answers, ["Bob"]);
        let wrong = parse("f", &text.replace("\"Bob\"", "5")).unwrap_err();
        assert!(wrong.to_string().contains("locality[0].loc_ans"), "{wrong}");
    }
}
