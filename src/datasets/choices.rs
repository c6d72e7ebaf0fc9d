//! Questions with a few answers to choose from: tasks that edits have nothing to do with, and that a
//! model is to do as well afterwards.
//!
//! Understood, by what a record holds:
//!
//! | task | fields | asked |
//! |---|---|---|
//! | SST-2 (Socher et al. 2013) | `sentence`, `label` | is a review positive |
//! | CoLA (Warstadt et al. 2019) | `sentence`, `label` | is a sentence acceptable |
//! | RTE (Dagan et al. 2006) | `sentence1`, `sentence2`, `label` | does the first entail the second |
//! | MMLU (Hendrycks et al. 2021) | `question`, `choices`, `answer` | which of the choices it is, by its letter |
//! | anything else | `prompt`, `choices`, `answer` | which of the choices follows |
//!
//! SST-2 and CoLA have the same fields: the file's name says which it is. The prompts are those of
//! GLUE's evaluation in the code of Gupta et al. 2024, but for RTE, whose label 0 is entailment.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::{Error, Problem};
use super::reader;
use super::record::{mistyped, present, required, texts};

/// Most answers of a question: the letters.
pub const CHOICES: usize = 26;

/// A question with answers to choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// What it is a test of: `sst2`.
    pub task: String,
    /// The text before the answer.
    pub prompt: String,
    /// The answers.
    pub choices: Vec<String>,
    /// Which of them is right.
    pub right: usize,
}

/// Reads a file of one task. The first `shots` records of it, of each answer as many, stand solved
/// before each of the others.
///
/// # Errors
/// [`Error`], naming the file and, where one record is wrong, that record and its field.
pub fn read(path: &Path, shots: usize) -> Result<Vec<Choice>, Error> {
    let file = path.display().to_string();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&file, &name, &reader::text_of(path)?, shots)
}

/// Reads a task from text; `name` is the file's, without its end, and `file` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, name: &str, text: &str, shots: usize) -> Result<Vec<Choice>, Error> {
    let mut all = Vec::new();
    reader::records(file, text, |value| {
        let Value::Object(record) = value else {
            return Err(mistyped("record".into(), value, "an object"));
        };
        all.push(choice(record, name)?);
        Ok(())
    })?;
    let kinds = all.iter().map(|it| it.choices.len()).max().unwrap_or(1);
    let (mut shown, mut asked) = (Vec::new(), Vec::new());
    for choice in all {
        let alike = (shown.iter()).filter(|it: &&Choice| it.right == choice.right);
        let wanted = shown.len() < shots && alike.count() < shots.div_ceil(kinds);
        if wanted { &mut shown } else { &mut asked }.push(choice);
    }
    if asked.is_empty() {
        return Err(Error::AllShown {
            file: file.to_owned(),
            shots,
        });
    }
    let before: String = (shown.iter())
        .map(|it| format!("{} {}\n", it.prompt, it.choices[it.right]))
        .collect();
    for choice in &mut asked {
        choice.prompt.insert_str(0, &before);
    }
    Ok(asked)
}

fn choice(record: &Map<String, Value>, name: &str) -> Result<Choice, Problem> {
    const TEXT: &str = "give the text that is judged";
    let text = |field: &str| required(record, field, field.to_owned(), TEXT);
    let has = |field: &str| present(record, field).is_some();
    let lower = name.to_lowercase();
    let of = |task: &str, prompt: String, choices: &[&str], right: usize| Choice {
        task: task.to_owned(),
        prompt,
        choices: choices.iter().map(|&choice| choice.to_owned()).collect(),
        right,
    };
    if has("sentence1") {
        let (first, second) = (text("sentence1")?, text("sentence2")?);
        let prompt = format!("{first}\nquestion: {second} True or False?\nanswer:");
        return Ok(of(
            "rte",
            prompt,
            &["True", "False"],
            right(record, "label", 2)?,
        ));
    }
    if has("sentence") && lower.contains("sst") {
        let prompt = format!("Review : {}\nSentiment :", text("sentence")?);
        let choices = ["negative", "positive"];
        return Ok(of("sst2", prompt, &choices, right(record, "label", 2)?));
    }
    if has("sentence") && lower.contains("cola") {
        let sentence = text("sentence")?;
        let prompt =
            format!("Is this sentence linguistically acceptable?\nSentence: {sentence}\nAnswer:");
        return Ok(of(
            "cola",
            prompt,
            &["No", "Yes"],
            right(record, "label", 2)?,
        ));
    }
    if has("sentence") {
        return Err(Problem::Missing {
            field: "prompt".to_owned(),
            remedy: "call the file sst2.json or cola.json, or give prompt, choices and answer",
        });
    }
    let choices = texts(record, "choices")?;
    if !(2..=CHOICES).contains(&choices.len()) {
        return Err(Problem::Missing {
            field: "choices".to_owned(),
            remedy: "give a list of 2 to 26 answers",
        });
    }
    let right = right(record, "answer", choices.len())?;
    if !has("question") {
        return Ok(Choice {
            task: name.to_owned(),
            prompt: text("prompt")?,
            choices,
            right,
        });
    }
    let letters: Vec<String> = ('A'..='Z').take(choices.len()).map(String::from).collect();
    let listed: String = (letters.iter().zip(&choices))
        .map(|(letter, choice)| format!("({letter}) {choice}\n"))
        .collect();
    Ok(Choice {
        task: "mmlu".to_owned(),
        prompt: format!("Question: {}\n{listed}Answer:", text("question")?),
        choices: letters,
        right,
    })
}

/// The number of the right answer, from 0.
fn right(record: &Map<String, Value>, field: &str, choices: usize) -> Result<usize, Problem> {
    let wanted = "the number of the right answer, from 0";
    match present(record, field) {
        Some(value) => (value.as_u64())
            .and_then(|it| usize::try_from(it).ok())
            .filter(|it| *it < choices)
            .ok_or_else(|| mistyped(field.to_owned(), value, wanted)),
        None => Err(Problem::Missing {
            field: field.to_owned(),
            remedy: "give the number of the right answer, from 0",
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_task_is_asked_as_it_is_published() {
        let one = |name: &str, text: &str| parse("f", name, text, 0).unwrap().remove(0);
        let sst = one("sst2", r#"{"sentence": "a film ", "label": 1}"#);
        assert_eq!(sst.prompt, "Review : a film\nSentiment :");
        assert_eq!(sst.choices[sst.right], "positive");
        let cola = one("CoLA-test", r#"{"sentence": "A tall.", "label": 0}"#);
        assert!(cola.prompt.ends_with("Sentence: A tall.\nAnswer:"));
        assert_eq!(cola.choices[cola.right], "No");
        let rte = one("x", r#"{"sentence1": "A.", "sentence2": "B.", "label": 0}"#);
        assert_eq!(rte.prompt, "A.\nquestion: B. True or False?\nanswer:");
        assert_eq!(rte.choices[rte.right], "True", "0 is entailment");
        let mmlu = one(
            "x",
            r#"{"question": "2?", "choices": ["1", "two"], "answer": 1}"#,
        );
        assert_eq!(mmlu.prompt, "Question: 2?\n(A) 1\n(B) two\nAnswer:");
        assert_eq!(mmlu.choices[mmlu.right], "B");
        let own = one(
            "mine",
            r#"{"prompt": "It is", "choices": ["so", "not"], "answer": 0}"#,
        );
        assert_eq!((own.task.as_str(), own.prompt.as_str()), ("mine", "It is"));
    }

    #[test]
    fn solved_examples_stand_before_the_others_of_each_answer_as_many() {
        let line =
            |n: usize, label: usize| format!("{{\"sentence\": \"s{n}\", \"label\": {label}}}\n");
        let text = [line(0, 1), line(1, 1), line(2, 0), line(3, 0)].concat();
        let asked = parse("f", "sst2", &text, 2).unwrap();
        assert_eq!(asked.len(), 2);
        assert_eq!(
            asked[0].prompt,
            "Review : s0\nSentiment : positive\nReview : s2\nSentiment : negative\nReview : s1\nSentiment :"
        );
        assert!(parse("f", "sst2", &text, 4).is_err(), "nothing is left");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, text, part) in [
            (
                "x",
                r#"{"sentence": "a", "label": 1}"#,
                "sst2.json or cola.json",
            ),
            ("sst2", r#"{"sentence": "a", "label": 2}"#, "\"label\""),
            ("sst2", r#"{"sentence": "a"}"#, "\"label\" is missing"),
            (
                "x",
                r#"{"question": "a", "choices": ["b"], "answer": 0}"#,
                "2 to 26",
            ),
            (
                "x",
                r#"{"prompt": "a", "choices": ["b", "c"], "answer": -1}"#,
                "\"answer\"",
            ),
        ] {
            let said = parse("f", name, text, 0).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
    }
}
