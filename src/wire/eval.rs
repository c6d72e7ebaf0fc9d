//! Evaluations between the contract and the code that measures.

use crate::datasets::edits::Rewrite;
use crate::eval::{self, Answer, Choice, ProbeKind, Query, Record, Scored, Set, Test};
use crate::proto::v1;

/// The data set whose measures are asked for; texts and choices have none but their own.
pub fn set(set: v1::EvalSet) -> Set {
    match set {
        v1::EvalSet::Zsre => Set::ZsRe,
        v1::EvalSet::Counterfact => Set::CounterFact,
        v1::EvalSet::Tests
        | v1::EvalSet::Texts
        | v1::EvalSet::Choices
        | v1::EvalSet::Unspecified => Set::Tests,
    }
}

/// A record as it came.
pub fn record(sent: &v1::EvalRecord) -> Record {
    let fact = sent.request.clone().unwrap_or_default();
    let neighbours = sent.neighbours.iter();
    Record {
        rewrite: Rewrite {
            prompt: fact.prompt,
            subject: fact.subject,
            target_new: fact.target_new,
            target_true: fact.target_true,
            id: fact.id,
            paraphrases: sent.paraphrases.clone(),
            neighbours: neighbours.clone().map(|it| it.prompt.clone()).collect(),
        },
        neighbour_answers: neighbours.map(|it| it.target_true.clone()).collect(),
        generation_prompts: sent.generation_prompts.clone(),
        together: Vec::new(),
        tests: sent.tests.iter().map(test).collect(),
    }
}

fn test(sent: &v1::EvalTest) -> Test {
    Test {
        criterion: sent.criterion.clone(),
        queries: sent.queries.iter().map(query).collect(),
        any: sent.any,
        if_edited: sent.if_edited,
        conditions: Vec::new(),
    }
}

fn query(sent: &v1::EvalQuery) -> Query {
    let answers = sent.answers.iter();
    Query {
        prompt: sent.prompt.clone(),
        answers: answers.map(|answer| answer.names.clone()).collect(),
        behind: Some(sent.behind.clone()).filter(|mark| !mark.is_empty()),
    }
}

/// A test as it travels. Its conditions do not: whoever asks looks at them before.
pub fn test_to_proto(test: &Test) -> v1::EvalTest {
    v1::EvalTest {
        criterion: test.criterion.clone(),
        queries: test.queries.iter().map(query_to_proto).collect(),
        any: test.any,
        if_edited: test.if_edited,
    }
}

fn query_to_proto(query: &Query) -> v1::EvalQuery {
    let expected = |names: &Vec<String>| v1::EvalExpected {
        names: names.clone(),
    };
    v1::EvalQuery {
        prompt: query.prompt.clone(),
        answers: query.answers.iter().map(expected).collect(),
        behind: query.behind.clone().unwrap_or_default(),
    }
}

/// A choice as it came.
pub fn choice(sent: &v1::EvalChoice) -> Choice {
    Choice {
        task: sent.task.clone(),
        prompt: sent.prompt.clone(),
        choices: sent.choices.clone(),
        right: sent.right as usize,
    }
}

/// A choice as it travels: a record that has nothing else.
pub fn choice_to_proto(choice: &Choice) -> v1::EvalRecord {
    let choice = v1::EvalChoice {
        task: choice.task.clone(),
        prompt: choice.prompt.clone(),
        choices: choice.choices.clone(),
        right: choice.right as u32,
    };
    v1::EvalRecord {
        choice: Some(choice),
        ..Default::default()
    }
}

/// The figures that follow from what was measured of a record.
pub fn figures(
    set: v1::EvalSet,
    record: &v1::EvalRecord,
    measured: &v1::EvalMeasure,
) -> Vec<v1::NamedNumber> {
    let scores = |scores: &[v1::EvalScore]| scores.iter().map(score).collect::<Vec<_>>();
    let named = match set {
        v1::EvalSet::Choices => {
            let asked = record.choice.iter();
            let right = asked.map(|it| eval::right(&choice(it), &scores(&measured.choices)));
            right.collect()
        }
        v1::EvalSet::Tests => eval::shares(&self::record(record).tests, &measured.continuations),
        _ => {
            let (record, set) = (self::record(record), self::set(set));
            let answers: Vec<Answer> = measured.answers.iter().filter_map(answer).collect();
            let said = eval::said(&record.questions(set), &measured.continuations);
            let entropies: Vec<f64> = measured.texts.iter().map(|it| eval::entropy(it)).collect();
            let figures = eval::figures(set, &answers, &said, &entropies).into_iter();
            figures
                .map(|(metric, value)| (metric.to_string(), value))
                .collect::<Vec<_>>()
        }
    };
    let numbers = named.into_iter();
    numbers
        .map(|(key, value)| v1::NamedNumber { key, value })
        .collect()
}

/// The kind of prompt that an answer was to.
fn probe_kind(kind: ProbeKind) -> v1::EditProbeKind {
    match kind {
        ProbeKind::Rewrite => v1::EditProbeKind::Rewrite,
        ProbeKind::Paraphrase => v1::EditProbeKind::Paraphrase,
        ProbeKind::Neighbour => v1::EditProbeKind::Neighbour,
    }
}

/// An answer as it came; none where it does not say to what.
pub fn answer(sent: &v1::EvalAnswer) -> Option<Answer> {
    Some(Answer {
        kind: match sent.kind() {
            v1::EditProbeKind::Unspecified => return None,
            v1::EditProbeKind::Rewrite => ProbeKind::Rewrite,
            v1::EditProbeKind::Paraphrase => ProbeKind::Paraphrase,
            v1::EditProbeKind::Neighbour => ProbeKind::Neighbour,
        },
        new: sent.new_object.as_ref().map(score),
        old: sent.true_object.as_ref().map(score),
    })
}

/// An answer as it travels.
pub fn answer_to_proto(answer: &Answer) -> v1::EvalAnswer {
    v1::EvalAnswer {
        kind: probe_kind(answer.kind) as i32,
        new_object: answer.new.map(score_to_proto),
        true_object: answer.old.map(score_to_proto),
    }
}

/// A score as it travels.
pub fn score_to_proto(scored: Scored) -> v1::EvalScore {
    v1::EvalScore {
        nll: scored.nll,
        tokens: scored.tokens as u32,
        likeliest: scored.likeliest as u32,
    }
}

/// A score as it came.
pub fn score(sent: &v1::EvalScore) -> Scored {
    Scored {
        nll: sent.nll,
        tokens: sent.tokens as usize,
        likeliest: sent.likeliest as usize,
    }
}
