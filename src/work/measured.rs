//! Whether a worker's measure is one: of a record, the answers to what it asks; of an edit, the
//! probes of its prompts; of both, the figures that follow from them.

use prost::Message as _;

use super::extent::{self, most_tokens};
use crate::edit::{
    self,
    measured::{Measured, ProbeChange},
};
use crate::eval::{self, Answer, Question, Scored};
use crate::proto::v1;
use crate::wire;

/// How far a figure may be from the one that its answers give: other machines round otherwise.
const SLACK: f64 = 1e-6;
/// Most steps of an optimisation, as the hyperparameters have it.
const STEPS_LIMIT: usize = 10_000;
/// Most bytes of an edit without its request, contexts and factors: names and numbers.
const EDIT_BYTES: usize = 64 << 10;

/// Looks at a measure of a record of this data set, whose prompts were continued freely or not.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(
    measure: &v1::EvalMeasure,
    record: &v1::EvalRecord,
    set: v1::EvalSet,
    free_generation: bool,
) -> Result<(), String> {
    let (sent, asked_set) = (record, set);
    let (record, set) = (wire::record(record), wire::eval_set(set));
    let questions = record.questions(set);
    if measure.answers.len() != questions.len() {
        return Err(format!(
            "it has {} answers to {} questions",
            measure.answers.len(),
            questions.len()
        ));
    }
    let answers: Option<Vec<Answer>> = measure.answers.iter().map(wire::answer).collect();
    let answers = answers.ok_or("an answer of it does not say to what")?;
    for (n, (answer, question)) in answers.iter().zip(&questions).enumerate() {
        check_answer(answer, question).map_err(|what| format!("its answers[{n}] {what}"))?;
    }
    let prompts = &record.generation_prompts;
    if measure.texts.len() != prompts.len() {
        return Err(format!(
            "it has {} texts of {} prompts",
            measure.texts.len(),
            prompts.len()
        ));
    }
    for (n, (text, prompt)) in measure.texts.iter().zip(prompts).enumerate() {
        let added = text.strip_prefix(prompt.as_str());
        let added = added.ok_or(format!("its texts[{n}] does not begin with its prompt"))?;
        extent::text_of(eval::TEXT_TOKENS, added)
            .map_err(|what| format!("its texts[{n}] {what}"))?;
    }
    let queries = record.tests.iter().flat_map(|test| &test.queries);
    let freely = questions.iter().filter(|_| free_generation);
    let freely: Vec<usize> = (freely.map(|_| eval::FREE_TOKENS))
        .chain(queries.map(eval::query_tokens))
        .collect();
    if measure.continuations.len() != freely.len() {
        return Err(format!(
            "it has {} continuations of {} prompts",
            measure.continuations.len(),
            freely.len()
        ));
    }
    for (n, (text, tokens)) in measure.continuations.iter().zip(freely).enumerate() {
        extent::text_of(tokens, text).map_err(|what| format!("its continuations[{n}] {what}"))?;
    }
    let choices = sent.choice.as_ref().map_or(&[][..], |it| &it.choices);
    if measure.choices.len() != choices.len() {
        return Err(format!(
            "it has {} scores of {} choices",
            measure.choices.len(),
            choices.len()
        ));
    }
    for (n, (score, choice)) in measure.choices.iter().zip(choices).enumerate() {
        check_score(wire::score(score), choice)
            .map_err(|what| format!("its choices[{n}] {what}"))?;
    }
    let figures = wire::eval_figures(asked_set, sent, measure);
    if measure.figures.len() != figures.len() {
        return Err(format!(
            "it has {} figures, its answers give {}",
            measure.figures.len(),
            figures.len()
        ));
    }
    for v1::NamedNumber { key: name, value } in figures {
        let said = measure.figures.iter().find(|figure| figure.key == name);
        let said = said.ok_or(format!("it has no {name}, which its answers give"))?;
        // A number that is none is close to nothing.
        let same = (said.value - value).abs() <= SLACK * value.abs().max(1.0);
        if !same {
            return Err(format!(
                "its {name} is {}, its answers give {value}",
                said.value
            ));
        }
    }
    Ok(())
}

/// Looks at what a worker measured of an edit of one fact.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_edit(
    outcome: &v1::EditOutcome,
    edit: &v1::Edit,
    task: &v1::EditTask,
) -> Result<(), String> {
    let rest = v1::Edit {
        requests: Vec::new(),
        contexts: Vec::new(),
        factors: Vec::new(),
        ..edit.clone()
    };
    for (what, found, most) in [
        ("steps", outcome.steps.len(), STEPS_LIMIT),
        ("bytes of words", rest.encoded_len(), EDIT_BYTES),
    ] {
        if found > most {
            return Err(format!("it has {found} {what}, {most} at most"));
        }
    }
    use v1::EditProbeKind::{Neighbour, Paraphrase, Rewrite};
    let request = edit::Request::from(task.request.clone().unwrap_or_default());
    let known = request.target_true.is_some();
    let asked = std::iter::once((Rewrite, request.text()))
        .chain(task.paraphrases.iter().map(|it| (Paraphrase, it.clone())))
        .chain(task.neighbours.iter().map(|it| (Neighbour, it.clone())));
    let said = outcome.probes.iter();
    if !asked.eq(said.map(|probe| (probe.kind(), probe.prompt.clone()))) {
        return Err("its probes are not of the prompts that were asked".to_owned());
    }
    let mut measured = Measured::default();
    for probe in &outcome.probes {
        if probe.true_before.is_some() != known || probe.true_after.is_some() != known {
            return Err("a probe of it has a true target where none is known, or none".to_owned());
        }
        let of_kind = match probe.kind() {
            Paraphrase => &mut measured.paraphrases,
            Neighbour => &mut measured.neighbours,
            _ => &mut measured.rewrites,
        };
        of_kind.push(ProbeChange {
            new_before: probe.new_before,
            new_after: probe.new_after,
            true_before: probe.true_before,
            true_after: probe.true_after,
        });
    }
    let figure = |name: &str| edit.figures.iter().find(|figure| figure.key == name);
    for (name, value) in measured.named() {
        // The rest is measured on texts that are not probed, and on the matrix.
        let of_probes = name != "update_norm";
        let same = figure(&name).is_some_and(|it| (it.value - value).abs() <= SLACK);
        if of_probes && !same {
            return Err(format!(
                "its figure '{name}' is not {value}, which its probes give"
            ));
        }
    }
    for name in ["neighbours.drift", "text.drift", "update_norm"] {
        if let Some(figure) = figure(name).filter(|figure| figure.value < -SLACK) {
            return Err(format!("its figure '{name}' is {}", figure.value));
        }
    }
    let drifts = figure("neighbours.drift").is_some();
    if drifts && task.neighbours.is_empty() {
        return Err("it says how its neighbours drift, and has none".to_owned());
    }
    Ok(())
}

/// An answer of the kind that was asked, about the objects that were asked.
fn check_answer(answer: &Answer, question: &Question) -> Result<(), String> {
    if answer.kind != question.kind {
        return Err("is to another kind of question".to_owned());
    }
    for (name, scored, object) in [
        ("new", answer.new, &question.new),
        ("true", answer.old, &question.old),
    ] {
        match (scored, object) {
            (None, None) => {}
            (Some(scored), Some(object)) => check_score(scored, object)
                .map_err(|what| format!("of the {name} object {what}"))?,
            _ => return Err(format!("has a {name} object where none is asked, or none")),
        }
    }
    Ok(())
}

/// A score that the tokens of an object can have.
fn check_score(scored: Scored, object: &str) -> Result<(), String> {
    let Scored {
        nll,
        tokens,
        likeliest,
    } = scored;
    if tokens == 0 || tokens > most_tokens(object) {
        return Err(format!("has {tokens} tokens"));
    }
    if likeliest > tokens {
        return Err(format!("has {likeliest} likeliest tokens of {tokens}"));
    }
    if nll < -0.01 {
        return Err(format!("has a negative log-probability of {nll}"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record() -> v1::EvalRecord {
        v1::EvalRecord {
            request: Some(v1::EditRequest {
                prompt: "{} is in".into(),
                subject: "The Louvre".into(),
                target_new: "Rome".into(),
                target_true: Some("Paris".into()),
                ..Default::default()
            }),
            generation_prompts: vec!["The Louvre".into()],
            ..Default::default()
        }
    }

    fn measure() -> v1::EvalMeasure {
        let score = |nll| {
            Some(v1::EvalScore {
                nll,
                tokens: 1,
                likeliest: 1,
            })
        };
        let text = "The Louvre is a museum of a kind that is a museum";
        let figure = |(key, value): (&str, f64)| v1::NamedNumber {
            key: key.into(),
            value,
        };
        v1::EvalMeasure {
            figures: [
                ("ES", 1.0),
                ("EM", (-1.0_f64).exp() - (-2.0_f64).exp()),
                ("E EXACT", 1.0),
                ("E CONTAINS", 1.0),
                ("GE", eval::entropy(text)),
            ]
            .map(figure)
            .to_vec(),
            answers: vec![v1::EvalAnswer {
                kind: v1::EditProbeKind::Rewrite as i32,
                new_object: score(1.0),
                true_object: score(2.0),
            }],
            texts: vec![text.into()],
            continuations: vec![" Rome. It".into()],
            ..Default::default()
        }
    }

    #[test]
    fn an_edits_figures_are_those_that_its_probes_give() {
        let task = v1::EditTask {
            request: record().request,
            neighbours: vec!["The Prado is in".into()],
            ..Default::default()
        };
        let probe = |kind, prompt: &str, new: f64| v1::EditProbe {
            kind: kind as i32,
            prompt: prompt.into(),
            new_before: 0.1,
            new_after: new,
            true_before: Some(0.5),
            true_after: Some(0.2),
        };
        let outcome = || v1::EditOutcome {
            probes: vec![
                probe(v1::EditProbeKind::Rewrite, "The Louvre is in", 0.9),
                probe(v1::EditProbeKind::Neighbour, "The Prado is in", 0.2),
            ],
            ..Default::default()
        };
        let edit = || v1::Edit {
            figures: [
                ("rewrite.new.before", 0.1),
                ("rewrite.new.after", 0.9),
                ("rewrite.true.before", 0.5),
                ("rewrite.true.after", 0.2),
                ("neighbours.new.before", 0.1),
                ("neighbours.new.after", 0.2),
                ("neighbours.true.before", 0.5),
                ("neighbours.true.after", 0.2),
                ("neighbours.drift", 0.03),
                ("update_norm", 0.1),
                ("locality", 0.0),
            ]
            .map(|(key, value)| v1::NamedNumber {
                key: key.into(),
                value,
            })
            .to_vec(),
            ..Default::default()
        };
        assert_eq!(check_edit(&outcome(), &edit(), &task), Ok(()));
        type Change = fn(&mut v1::EditOutcome, &mut v1::Edit);
        let changes: [(Change, &str); 9] = [
            (|it, _| it.probes[0].new_after = 0.0, "rewrite.new.after"),
            (|_, edit| edit.figures[1].value = 1.0, "rewrite.new.after"),
            (|_, edit| drop(edit.figures.remove(0)), "rewrite.new.before"),
            (|_, edit| edit.figures[8].value = -1.0, "neighbours.drift"),
            (
                |_, edit| edit.figures[10].value = 1.0,
                "'locality' is not 0",
            ),
            (|it, _| it.probes[0].prompt = "Rome is in".into(), "prompts"),
            (|it, _| drop(it.probes.pop()), "prompts"),
            (|it, _| it.probes[1].true_after = None, "true target"),
            (|_, edit| edit.warnings = vec!["a".repeat(1 << 20)], "bytes"),
        ];
        for (change, what) in changes {
            let (mut wrong, mut edit) = (outcome(), edit());
            change(&mut wrong, &mut edit);
            let said = check_edit(&wrong, &edit, &task).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn a_measures_figures_are_those_that_its_answers_give() {
        let set = v1::EvalSet::Counterfact;
        assert_eq!(check(&measure(), &record(), set, true), Ok(()));
        type Change = fn(&mut v1::EvalMeasure);
        let changes: [(Change, &str); 15] = [
            (|it| it.figures[0].value = 0.0, "its ES is 0"),
            (|it| it.figures[1].value = f64::NAN, "its EM is NaN"),
            (|it| it.figures[4].value += 1.0, "its GE"),
            (|it| drop(it.figures.pop()), "4 figures"),
            (
                |it| it.continuations[0] = " Paris".into(),
                "its E EXACT is 1",
            ),
            (|it| it.continuations.clear(), "0 continuations of 1"),
            (
                |it| it.continuations[0] = "a".repeat(1 << 20),
                "continuations[0]",
            ),
            (|it| it.figures[0].key = "PS".into(), "no ES"),
            (|it| it.answers.clear(), "0 answers to 1"),
            (|it| it.answers[0].kind = 2, "another kind"),
            (|it| it.answers[0].true_object = None, "true object"),
            (
                |it| it.answers[0].new_object.as_mut().unwrap().likeliest = 2,
                "2 likeliest tokens of 1",
            ),
            (
                |it| it.answers[0].new_object.as_mut().unwrap().tokens = 1_000_000,
                "1000000 tokens",
            ),
            (|it| it.texts.clear(), "0 texts of 1"),
            (|it| it.texts[0] = "Another".into(), "begin with its prompt"),
        ];
        for (change, what) in changes {
            let mut wrong = measure();
            change(&mut wrong);
            let said = check(&wrong, &record(), set, true).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }
    #[test]
    fn tests_and_choices_are_held_to_their_prompts_and_answers() {
        let expected = v1::EvalExpected {
            names: vec!["Asia".into()],
        };
        let query = v1::EvalQuery {
            prompt: "Q: where? A:".into(),
            answers: vec![expected],
            ..Default::default()
        };
        let tests = v1::EvalRecord {
            tests: vec![v1::EvalTest {
                criterion: "multi-hop".into(),
                queries: vec![query.clone(), query],
                any: true,
                ..Default::default()
            }],
            ..Default::default()
        };
        let figure = |key: &str, value| v1::NamedNumber {
            key: key.into(),
            value,
        };
        let said = |texts: &[&str], value| v1::EvalMeasure {
            continuations: texts.iter().map(|&text| text.into()).collect(),
            figures: vec![figure("multi-hop", value)],
            ..Default::default()
        };
        let set = v1::EvalSet::Tests;
        assert_eq!(
            check(&said(&["no", " Asia."], 1.0), &tests, set, false),
            Ok(())
        );
        let wrong = check(&said(&["no", "no"], 1.0), &tests, set, false).unwrap_err();
        assert!(wrong.contains("its multi-hop is 1"), "{wrong}");
        let wrong = check(&said(&[" Asia"], 1.0), &tests, set, false).unwrap_err();
        assert!(wrong.contains("1 continuations of 2"), "{wrong}");

        let choice = v1::EvalRecord {
            choice: Some(v1::EvalChoice {
                task: "rte".into(),
                prompt: "so?".into(),
                choices: vec!["True".into(), "False".into()],
                right: 1,
            }),
            ..Default::default()
        };
        let score = |nll| v1::EvalScore {
            nll,
            tokens: 1,
            likeliest: 0,
        };
        let taken = |first, value| v1::EvalMeasure {
            choices: vec![score(first), score(1.0)],
            figures: vec![figure("rte", value)],
            ..Default::default()
        };
        let set = v1::EvalSet::Choices;
        assert_eq!(check(&taken(2.0, 1.0), &choice, set, false), Ok(()));
        let wrong = check(&taken(0.5, 1.0), &choice, set, false).unwrap_err();
        assert!(wrong.contains("its rte is 1"), "{wrong}");
        let mut short = taken(2.0, 1.0);
        short.choices.pop();
        let wrong = check(&short, &choice, set, false).unwrap_err();
        assert!(wrong.contains("1 scores of 2"), "{wrong}");
    }
}
