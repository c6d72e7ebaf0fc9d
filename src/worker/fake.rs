//! An engine without a model, for trying the system itself: its numbers depend on the unit alone,
//! so any two runs of a job must give the same bytes.

use std::time::Duration;

use super::engine::{Engine, Sink, failure, result};
use super::prepare::Prepared;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, leased_unit::Spec as Unit};

/// The fake engine.
#[derive(Clone, Copy, Debug)]
pub struct Fake {
    /// How long it takes for a unit.
    pub unit_time: Duration,
}

impl Engine for Fake {
    fn capabilities(&self) -> v1::Capabilities {
        v1::Capabilities {
            device: "fake".to_owned(),
            threads: 1,
            ..Default::default()
        }
    }

    fn pretends(&mut self) -> Option<Duration> {
        Some(self.unit_time)
    }

    fn loaded(&self) -> Vec<String> {
        Vec::new()
    }

    fn run(
        &mut self,
        ready: &Prepared,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<(), v1::Failure> {
        let lease = &ready.lease;
        let trace = match &lease.settings {
            Some(v1::lease::Settings::Trace(trace)) => trace.clone(),
            _ => v1::TraceSpec::default(),
        };
        for unit in units {
            if sink.cancelled() {
                break;
            }
            let outcome = match &unit.spec {
                Some(Unit::Trace(unit)) => {
                    let noise_scale = lease.noise_scale.unwrap_or_default();
                    Outcome::Grid(grid(unit, &trace, noise_scale, lease.model.as_ref()))
                }
                Some(Unit::Noise(noise)) => Outcome::NoiseLevel(v1::NoiseLevel {
                    scale: noise.factor / 8.0,
                }),
                Some(Unit::Generate(unit)) => Outcome::Completion(v1::Completion {
                    text: unit.prompt.chars().rev().collect(),
                    prompt: unit.prompt.clone(),
                    ..Default::default()
                }),
                Some(Unit::Eval(record)) => Outcome::Eval(answers(record, lease)),
                Some(Unit::Stats(_) | Unit::StatsSum(_) | Unit::Edit(_) | Unit::MassEdit(_)) => {
                    Outcome::Failure(failure(
                        v1::FailureClass::Invalid,
                        "without a model there are no keys and no edits",
                    ))
                }
                None => continue,
            };
            sink.advance(1);
            sink.commit(
                result(unit.unit, outcome),
                v1::Fingerprint {
                    device: "fake".to_owned(),
                    ..Default::default()
                },
            );
        }
        Ok(())
    }
}

/// Answers that depend on the record, the version and how it is edited.
fn answers(record: &v1::EvalRecord, lease: &v1::Lease) -> v1::EvalOutcome {
    let each = match &lease.settings {
        Some(v1::lease::Settings::Eval(eval)) => eval.edit_each.clone(),
        _ => None,
    };
    let asked = record.request.clone().unwrap_or_default();
    let measure = |after: &str| {
        let text = format!("{} {} {after}", asked.subject, lease.version);
        let seed = text
            .bytes()
            .fold(7_u64, |h, b| h.wrapping_mul(31) + u64::from(b));
        let figure = |(n, key): (u64, &str)| v1::NamedNumber {
            key: key.to_owned(),
            value: (seed % 89 + n * 7) as f64 % 97.0 / 97.0,
        };
        v1::EvalMeasure {
            figures: (0..).zip(["ES", "PS", "NS"]).map(figure).collect(),
            ..Default::default()
        }
    };
    v1::EvalOutcome {
        before: each.is_some().then(|| measure("")),
        measured: Some(measure(&each.map_or(String::new(), |each| each.method))),
        edit: None,
    }
}

/// A grid with one token a word and the model's layers; four of a model that does not say.
fn grid(
    unit: &v1::TraceUnit,
    trace: &v1::TraceSpec,
    noise_scale: f64,
    model: Option<&v1::Model>,
) -> v1::Grid {
    let fact = unit.fact.clone().unwrap_or_default();
    let tokens: Vec<String> = fact
        .prompt
        .split_inclusive(' ')
        .map(str::to_owned)
        .collect();
    let shape = model.and_then(|model| model.shape).unwrap_or_default();
    let layers = match shape.layers {
        0 => 4,
        layers => u64::from(layers),
    };
    let vocabulary = match shape.vocabulary {
        0 => u32::MAX,
        vocabulary => vocabulary,
    };
    let seed = fact
        .prompt
        .bytes()
        .fold(unit.kind as u64, |h, b| h.wrapping_mul(31) + u64::from(b));
    let scores = (0..tokens.len() as u64 * layers).map(|i| (seed + i * 7) as f64 % 97.0 / 97.0);
    v1::Grid {
        kind: unit.kind,
        token_ids: (0..tokens.len() as u32).map(|n| n % vocabulary).collect(),
        subject_begin: 0,
        subject_end: fact.subject.split(' ').count() as u32,
        answer: "fake".to_owned(),
        correct_prediction: true,
        high: 0.9,
        low: 0.1,
        layers: layers as u32,
        scores: scores.collect(),
        window: trace.window,
        samples: trace.samples,
        noise: trace.noise.clone(),
        noise_scale,
        seed: trace.seed(),
        tokens,
        fact: Some(fact),
        ..Default::default()
    }
}
