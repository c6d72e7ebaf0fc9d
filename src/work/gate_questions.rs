//! The questions whose accuracy edits are judged by: what is asked, and whether it was measured.

use std::collections::BTreeMap;

use prost::Message as _;

use super::Wrong;
use super::check::choice;
use crate::edit::downstream::{self, TaskChange};
use crate::eval::Choice;
use crate::objects::Digest;
use crate::proto::v1::{self, gate_questions::Task};
use crate::wire;

/// Most questions of an object, and most tasks that they are of.
const MOST_QUESTIONS: usize = 1000;
const MOST_TASKS: usize = 20;
/// Most bytes of the object that has them.
pub const MOST_BYTES: u64 = 1 << 20;

/// The questions of such an object.
///
/// # Errors
/// What is wrong with it.
pub fn read(object: &[u8]) -> Result<Vec<Choice>, String> {
    let list = v1::EvalRecordList::decode(object).map_err(|error| error.to_string())?;
    if !(1..=MOST_QUESTIONS).contains(&list.records.len()) {
        return Err(format!(
            "it holds {} questions: give 1 to {MOST_QUESTIONS} ('palimpsest edit --gate-limit N' takes so many of each file)",
            list.records.len()
        ));
    }
    let mut wrong = Wrong::default();
    for (n, record) in list.records.iter().enumerate() {
        choice(format_args!("records[{n}]"), record, &mut wrong);
    }
    if let Some((field, what)) = wrong
        .into_result()
        .err()
        .and_then(|all| all.into_iter().next())
    {
        return Err(format!("{field}: {what}"));
    }
    let choices = list.records.iter().filter_map(|it| it.choice.as_ref());
    let questions: Vec<Choice> = choices.map(wire::choice).collect();
    match tasks(&questions).len() {
        count if count > MOST_TASKS => Err(format!(
            "it holds questions of {count} tasks: {MOST_TASKS} at most"
        )),
        _ => Ok(questions),
    }
}

/// What they are tests of, by name.
pub fn tasks(questions: &[Choice]) -> Vec<Task> {
    let mut counts = BTreeMap::<&str, u32>::new();
    for question in questions {
        *counts.entry(&question.task).or_default() += 1;
    }
    let task = |(name, questions): (&str, u32)| Task {
        name: name.to_owned(),
        questions,
    };
    counts.into_iter().map(task).collect()
}

/// How far a figure may be from the one that the answers give.
const SLACK: f64 = 1e-9;

/// Checks what was asked; what the object holds is looked up when the job is accepted.
pub(super) fn check(
    questions: &mut Option<v1::GateQuestions>,
    gates: Option<v1::EditGates>,
    of: &str,
    wrong: &mut Wrong,
) {
    let field = format!("{of}.gate_questions");
    let Some(named) = questions else {
        if let Some(most) = gates.and_then(|gates| gates.downstream_drop) {
            let what = format_args!(
                "{most} is a bound on what becomes of questions, and {field} names none: give questions \
                 ('palimpsest edit --gate-questions FILE')"
            );
            wrong.say(format_args!("{of}.gates.downstream_drop"), what);
        }
        return;
    };
    // Ours to say.
    named.tasks.clear();
    if let Err(error) = named.digest.parse::<Digest>() {
        wrong.say(format_args!("{field}.digest"), error);
    }
    if !(1..=MOST_BYTES).contains(&named.size) {
        let what = format_args!(
            "{} bytes: 1 to {MOST_BYTES} are taken; give some questions, or fewer or shorter ones",
            named.size
        );
        wrong.say(format_args!("{field}.size"), what);
    }
}

/// Passes of one token that they cost: each is asked before and after.
pub(super) fn tokens(questions: Option<&v1::GateQuestions>) -> f64 {
    questions.map_or(0.0, |it| 2.0 * it.size as f64 / 4.0)
}

/// Looks whether the figures of an edit are of the questions that were asked, and follow from so
/// many right answers of each task.
///
/// # Errors
/// What is wrong with them.
pub(super) fn accept(questions: Option<&v1::GateQuestions>, edit: &v1::Edit) -> Result<(), String> {
    let given = (edit.figures.iter()).filter(|figure| downstream::is_one(&figure.key));
    let figure = |name: &str| {
        let mut all = given.clone();
        all.find(|figure| figure.key == name).map(|it| it.value)
    };
    let tasks = questions.map_or(&[][..], |it| &it.tasks);
    let change = |task: &Task| {
        // One that is no such count gives another figure than it is.
        let right = |part| {
            let share = figure(&downstream::name(&task.name, part)).unwrap_or_default();
            (share * f64::from(task.questions)).round() as u32
        };
        TaskChange {
            task: task.name.clone(),
            questions: task.questions,
            right_before: right("before").min(task.questions),
            right_after: right("after").min(task.questions),
        }
    };
    let changes: Vec<TaskChange> = tasks.iter().map(change).collect();
    let expected = downstream::named(&changes);
    if given.clone().count() != expected.len() {
        return Err(format!(
            "it has {} figures 'downstream', of questions of {} tasks",
            given.count(),
            tasks.len()
        ));
    }
    for (name, value) in expected {
        let said = figure(&name).ok_or(format!("it has no figure '{name}'"))?;
        let same = (said - value).abs() <= SLACK;
        if !same {
            return Err(format!(
                "its figure '{name}' is {said}, its answers give {value}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(task: &str) -> v1::EvalRecord {
        v1::EvalRecord {
            choice: Some(v1::EvalChoice {
                task: task.into(),
                prompt: "Is it so?".into(),
                choices: vec!["No".into(), "Yes".into()],
                right: 1,
            }),
            ..Default::default()
        }
    }

    fn object(records: Vec<v1::EvalRecord>) -> Vec<u8> {
        v1::EvalRecordList { records }.encode_to_vec()
    }

    #[test]
    fn an_object_of_questions_is_read_if_it_has_some_and_not_too_many() {
        let records = ["sst2", "rte", "sst2"].map(record).to_vec();
        let questions = read(&object(records)).unwrap();
        assert_eq!(questions.len(), 3);
        let counts = tasks(&questions).into_iter();
        let counts: Vec<(String, u32)> = counts.map(|it| (it.name, it.questions)).collect();
        assert_eq!(counts, [("rte".to_owned(), 1), ("sst2".to_owned(), 2)]);
        let text = v1::EvalRecord {
            text: "no choice".into(),
            ..Default::default()
        };
        let both = v1::EvalRecord {
            text: "more".into(),
            ..record("rte")
        };
        let mut none_right = record("rte");
        none_right.choice.as_mut().unwrap().right = 2;
        let named = |n: usize| record(&format!("task {n}"));
        for (records, part) in [
            (vec![], "0 questions: give 1 to 1000"),
            (vec![record("rte"); 1001], "1001 questions: give 1 to 1000"),
            ((0..21).map(named).collect(), "21 tasks: 20 at most"),
            (
                vec![record("rte"), text],
                "records[1].choice: it is missing",
            ),
            (vec![both], "records[0]: it has more than its choice"),
            (vec![none_right], "records[0].choice.right: 2"),
            (vec![record("")], "records[0].choice.task"),
        ] {
            let said = read(&object(records)).unwrap_err();
            assert!(said.contains(part), "{said}");
        }
        assert!(read(b"\"a text\"\n").is_err());
    }

    #[test]
    fn figures_are_of_the_questions_that_were_asked_and_follow_from_right_answers() {
        let task = |name: &str, questions| Task {
            name: name.into(),
            questions,
        };
        let asked = v1::GateQuestions {
            tasks: vec![task("rte", 4), task("sst2", 10)],
            ..Default::default()
        };
        let right = [
            ("downstream.questions", 14.0),
            ("downstream.before", 10.0 / 14.0),
            ("downstream.after", 9.0 / 14.0),
            ("downstream.drop", 1.0 / 14.0),
            ("downstream.rte.questions", 4.0),
            ("downstream.rte.before", 0.75),
            ("downstream.rte.after", 0.25),
            ("downstream.rte.drop", 0.5),
            ("downstream.sst2.questions", 10.0),
            ("downstream.sst2.before", 0.7),
            ("downstream.sst2.after", 0.8),
            ("downstream.sst2.drop", -0.1),
        ];
        let but = |others: &[(&str, f64)]| {
            right.map(|(key, value)| {
                let other = others.iter().find(|(of, _)| *of == key);
                (key, other.map_or(value, |(_, other)| *other))
            })
        };
        let edit = |figures: &[(&str, f64)]| v1::Edit {
            figures: (figures.iter().chain(&[("ppl.ratio", 2.0)]))
                .map(|&(key, value)| v1::NamedNumber {
                    key: key.to_owned(),
                    value,
                })
                .collect(),
            ..Default::default()
        };
        assert_eq!(accept(Some(&asked), &edit(&right)), Ok(()));
        assert_eq!(accept(None, &edit(&[])), Ok(()));
        assert!(accept(None, &edit(&right)).is_err(), "none were asked");
        assert!(accept(Some(&asked), &edit(&[])).is_err());
        assert!(accept(Some(&asked), &edit(&right[..11])).is_err());
        for wrong in [
            ("downstream.rte.drop", 0.4),
            ("downstream.rte.drop", f64::NAN),
            // No number of four answers.
            ("downstream.rte.after", 0.3),
            ("downstream.rte.before", -0.25),
            ("downstream.rte.questions", 40.0),
            ("downstream.sst2.before", 1.1),
            ("downstream.sst2.after", f64::INFINITY),
            ("downstream.drop", 0.0),
            ("downstream.questions", 15.0),
        ] {
            let edit = edit(&but(&[wrong]));
            assert!(accept(Some(&asked), &edit).is_err(), "{wrong:?}");
        }
        let mut twice = right.to_vec();
        twice[11] = twice[10];
        assert!(accept(Some(&asked), &edit(&twice)).is_err());
        twice.push(right[11]);
        assert!(accept(Some(&asked), &edit(&twice)).is_err());
        // Of more than all questions are right.
        let more = but(&[
            ("downstream.sst2.before", 1.7),
            ("downstream.sst2.after", 1.8),
            ("downstream.before", 20.0 / 14.0),
            ("downstream.after", 19.0 / 14.0),
        ]);
        assert!(accept(Some(&asked), &edit(&more)).is_err());
    }
}
