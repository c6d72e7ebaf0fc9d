//! Evaluating units: records measured on a version as it is, or each with an edit of its own that
//! is then discarded.

use super::super::engine::Sink;
use super::editing::{Editing, Plan};
use super::units::{Kind, Stopped, mixed};
use crate::edit;
use crate::eval;
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
            spec: self.spec,
            record,
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
        asked: &Asked<'_>,
        sink: &mut dyn Sink,
    ) -> Result<v1::EvalOutcome, Stopped> {
        let before = asked.measure(&self.editing.loaded.model, sink)?;
        let (update, steps) = self.editing.compute(plan, unit, request, sink)?;
        let norm = self.editing.relative_norm(&update)?;
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
struct Asked<'a> {
    spec: &'a v1::EvalSpec,
    record: &'a v1::EvalRecord,
}

impl Asked<'_> {
    fn measure(&self, model: &Model, sink: &mut dyn Sink) -> Result<v1::EvalMeasure, Stopped> {
        let mut measured = match &self.record.choice {
            Some(choice) => {
                let scores = eval::choose(model, &wire::choice(choice))?.into_iter();
                sink.advance(1);
                v1::EvalMeasure {
                    choices: scores.map(wire::score_to_proto).collect(),
                    ..Default::default()
                }
            }
            None => self.of_prompts(model, sink)?,
        };
        measured.figures = wire::eval_figures(self.spec.set(), self.record, &measured);
        Ok(measured)
    }

    /// What is said after prompts.
    fn of_prompts(&self, model: &Model, sink: &mut dyn Sink) -> Result<v1::EvalMeasure, Stopped> {
        let record = wire::record(self.record);
        let questions = record.questions(wire::eval_set(self.spec.set()));
        let answers = eval::ask(model, &questions)?;
        sink.advance(1);
        let freely = questions.iter().filter(|_| self.spec.free_generation);
        let freely = freely.map(|question| (question.prompt.as_str(), eval::FREE_TOKENS));
        let queries = record.tests.iter().flat_map(|test| &test.queries);
        let queries = queries.map(|query| (query.prompt.as_str(), eval::query_tokens(query)));
        let prompts: Vec<(&str, usize)> = freely.chain(queries).collect();
        let continuations = eval::answer_freely(model, &prompts, || !sink.cancelled())?;
        let mut texts = Vec::new();
        for (n, prompt) in record.generation_prompts.iter().enumerate() {
            let seed = self.spec.seed.wrapping_add(n as u64);
            texts.push(eval::continue_freely(model, prompt, seed, || {
                !sink.cancelled()
            })?);
        }
        Ok(v1::EvalMeasure {
            answers: answers.iter().map(wire::answer_to_proto).collect(),
            texts,
            continuations,
            ..Default::default()
        })
    }
}
