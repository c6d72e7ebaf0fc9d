//! Evaluating units: records measured on a version as it is, or each with an edit of its own that
//! is then discarded.

use super::super::engine::Sink;
use super::editing::{Editing, Plan};
use super::units::{Kind, Stopped, mixed};
use crate::edit;
use crate::eval::{self, Record, Set};
use crate::model::Model;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, leased_unit::Spec as Unit};
use crate::wire;

impl From<eval::Error> for Stopped {
    fn from(error: eval::Error) -> Self {
        match error {
            eval::Error::Cancelled => Stopped::Cancelled,
            error => Stopped::Unit(error.to_string()),
        }
    }
}

/// The records of a lease.
pub(super) struct Evaluation<'a> {
    pub spec: &'a v1::EvalSpec,
    /// The lease's model, and the settings of the edits where there are any.
    pub editing: Editing<'a>,
}

impl Kind for Evaluation<'_> {
    fn compute(
        &mut self,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Outcome>, Stopped> {
        let Some(Unit::Eval(record)) = &units[0].spec else {
            return Err(mixed(&units[0]));
        };
        if self.spec.set() == v1::EvalSet::Texts {
            let read = eval::read(&self.editing.loaded.model, &record.text)?;
            sink.advance(1);
            return Ok(vec![Outcome::Eval(v1::EvalOutcome {
                measured: Some(v1::EvalMeasure {
                    text: Some(wire::score_to_proto(read)),
                    ..Default::default()
                }),
                ..Default::default()
            })]);
        }
        let asked = Asked {
            set: wire::eval_set(self.spec.set()),
            record: wire::record(record),
            seed: self.spec.seed,
        };
        let outcome = match self.spec.edit_each {
            None => v1::EvalOutcome {
                measured: Some(asked.measure(&self.editing.loaded.model, sink)?),
                ..Default::default()
            },
            Some(_) => {
                let plan = self.editing.plan(sink)?;
                let request = record.request.clone().unwrap_or_default().into();
                self.edited(&plan, units[0].unit, &request, &asked, sink)?
            }
        };
        Ok(vec![Outcome::Eval(outcome)])
    }
}

impl Evaluation<'_> {
    /// A record before and after its own edit.
    fn edited(
        &mut self,
        plan: &Plan,
        unit: u64,
        request: &edit::Request,
        asked: &Asked,
        sink: &mut dyn Sink,
    ) -> Result<v1::EvalOutcome, Stopped> {
        let before = asked.measure(&self.editing.loaded.model, sink)?;
        let (update, steps) = self.editing.compute(plan, unit, request, sink)?;
        let norm = self.editing.relative_norm(&update);
        let after = (self.editing).with(&update, |model| asked.measure(model, sink))?;
        Ok(v1::EvalOutcome {
            measured: Some(after?),
            before: Some(before),
            edit: Some(v1::EvalEdit {
                steps: steps.len() as u32,
                loss: steps.last().map_or(0.0, |step| step.loss),
                norm,
            }),
        })
    }
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
            answers: answers.iter().map(wire::answer_to_proto).collect(),
            texts,
            text: None,
        })
    }
}
