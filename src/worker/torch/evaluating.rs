//! The units of an evaluating lease: records measured on a version as it is, or each with an edit of its own that is then
//! discarded.

use super::super::engine::{Sink, failure, result};
use super::editing::{Editing, Plan, Stopped};
use crate::datasets::edits::Rewrite;
use crate::edit;
use crate::eval::{self, Answer, ProbeKind, Record, Scored, Set};
use crate::model::Model;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, FailureClass, leased_unit::Spec};

impl From<eval::Error> for Stopped {
    fn from(error: eval::Error) -> Self {
        match error {
            eval::Error::Cancelled => Stopped::Cancelled,
            error => Stopped::Unit(error.to_string()),
        }
    }
}

/// Measures the records of a lease, in order. `editing` has the lease's model, and the settings of the edits where there
/// are any.
pub(super) fn run(
    spec: &v1::EvalSpec,
    mut editing: Editing<'_>,
    sink: &mut dyn Sink,
) -> Result<(), v1::Failure> {
    let plan = match &spec.edit_each {
        None => Ok(None),
        Some(_) => match editing.plan(sink) {
            Ok(plan) => Ok(Some(plan)),
            Err(Stopped::Cancelled) => return Ok(()),
            Err(Stopped::Here(failure)) => return Err(failure),
            Err(Stopped::Unit(what)) => Err(what),
        },
    };
    for unit in &editing.lease.units {
        let Some(Spec::Eval(record)) = &unit.spec else {
            continue;
        };
        let measured = match &plan {
            Ok(plan) => outcome(spec, &mut editing, plan.as_ref(), unit.unit, record, sink),
            Err(what) => Err(Stopped::Unit(what.clone())),
        };
        let outcome = match measured {
            Ok(outcome) => Outcome::Eval(outcome),
            Err(Stopped::Cancelled) => break,
            Err(Stopped::Here(failure)) => return Err(failure),
            Err(Stopped::Unit(what)) => Outcome::Failure(failure(FailureClass::Invalid, what)),
        };
        sink.commit(result(unit.unit, outcome), editing.fingerprint.clone());
    }
    Ok(())
}

fn outcome(
    spec: &v1::EvalSpec,
    editing: &mut Editing<'_>,
    plan: Option<&Plan>,
    unit: u64,
    record: &v1::EvalRecord,
    sink: &mut dyn Sink,
) -> Result<v1::EvalOutcome, Stopped> {
    if sink.cancelled() {
        return Err(Stopped::Cancelled);
    }
    let set = match spec.set() {
        v1::EvalSet::Zsre => Set::ZsRe,
        v1::EvalSet::Counterfact | v1::EvalSet::Unspecified => Set::CounterFact,
    };
    let asked = Asked {
        set,
        record: record_of(record),
        seed: spec.seed,
    };
    let first = asked.measure(&editing.loaded.model, sink)?;
    let Some(plan) = plan else {
        return Ok(v1::EvalOutcome {
            measured: Some(first),
            ..Default::default()
        });
    };
    let request = edit::Request::from(record.request.clone().unwrap_or_default());
    let (update, steps) = editing.compute(plan, unit, &request, sink)?;
    let norm = editing.relative_norm(&update);
    let second = editing.with(&update, |model| asked.measure(model, sink))?;
    Ok(v1::EvalOutcome {
        measured: Some(second?),
        before: Some(first),
        edit: Some(v1::EvalEdit {
            steps: steps.len() as u32,
            loss: steps.last().map_or(0.0, |step| step.loss),
            norm,
        }),
    })
}

/// A record, and how it is measured.
struct Asked {
    set: Set,
    record: Record,
    seed: u64,
}

impl Asked {
    fn measure(&self, model: &Model, sink: &mut dyn Sink) -> Result<v1::EvalMeasure, Stopped> {
        let answers = eval::ask(model, &self.record.questions(self.set))?;
        sink.advance(1);
        let mut texts = Vec::new();
        for (n, prompt) in self.record.generation_prompts.iter().enumerate() {
            let seed = self.seed.wrapping_add(n as u64);
            texts.push(eval::continue_freely(model, prompt, seed, || {
                !sink.cancelled()
            })?);
        }
        let entropies: Vec<f64> = texts.iter().map(|text| eval::entropy(text)).collect();
        let figures = eval::figures(self.set, &answers, &entropies).into_iter();
        Ok(v1::EvalMeasure {
            figures: figures
                .map(|(metric, value)| v1::NamedNumber {
                    key: metric.to_string(),
                    value,
                })
                .collect(),
            answers: answers.iter().map(answer_to_proto).collect(),
            texts,
        })
    }
}

fn record_of(sent: &v1::EvalRecord) -> Record {
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
    }
}

fn answer_to_proto(answer: &Answer) -> v1::EvalAnswer {
    let kind = match answer.kind {
        ProbeKind::Rewrite => v1::EditProbeKind::Rewrite,
        ProbeKind::Paraphrase => v1::EditProbeKind::Paraphrase,
        ProbeKind::Neighbour => v1::EditProbeKind::Neighbour,
    };
    let score = |scored: Scored| v1::EvalScore {
        nll: scored.nll,
        tokens: scored.tokens as u32,
        likeliest: scored.likeliest as u32,
    };
    v1::EvalAnswer {
        kind: kind as i32,
        new_object: answer.new.map(score),
        true_object: answer.old.map(score),
    }
}
