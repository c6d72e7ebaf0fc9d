//! An engine without a model, for trying the system itself: its numbers depend on the unit alone,
//! so any two runs of a job must give the same bytes.

use std::time::Duration;

use super::engine::{Engine, Sink, failure, result};
use super::prepare::Prepared;
use crate::eval::{Answer, Scored};
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, leased_unit::Spec as Unit};
use crate::wire;

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
                Some(Unit::Generate(unit)) => Outcome::Completion(completion(unit, lease)),
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

/// The prompt's characters from the last on, a token each.
fn completion(unit: &v1::GenerateUnit, lease: &v1::Lease) -> v1::Completion {
    let most = match &lease.settings {
        Some(v1::lease::Settings::Generate(asked)) => asked.max_tokens as usize,
        _ => 0,
    };
    let shape = lease.model.as_ref().and_then(|model| model.shape);
    let most = match shape.unwrap_or_default().context {
        0 => most,
        context => most.min(context as usize),
    };
    let text: String = unit.prompt.chars().rev().take(most).collect();
    let tokens = text.chars().count();
    v1::Completion {
        prompt: unit.prompt.clone(),
        token_ids: vec![0; tokens],
        ended: tokens < most,
        text,
    }
}

/// Answers that depend on the record, the version and how it is edited.
fn answers(record: &v1::EvalRecord, lease: &v1::Lease) -> v1::EvalOutcome {
    let asked = match &lease.settings {
        Some(v1::lease::Settings::Eval(eval)) => eval.clone(),
        _ => v1::EvalSpec::default(),
    };
    let (set, sent) = (wire::eval_set(asked.set()), record);
    let record = wire::record(record);
    let measure = |after: &str| {
        let text = format!("{} {} {after}", record.rewrite.subject, lease.version);
        let seed = text
            .bytes()
            .fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let scored = |n: u64| Scored {
            nll: (seed % 89 + n * 7) as f64 % 97.0 / 9.7,
            tokens: 1,
            likeliest: (seed.wrapping_add(n) % 2) as usize,
        };
        let questions = record.questions(set);
        let freely = match asked.free_generation {
            true => questions.len(),
            false => 0,
        };
        let queries = record.tests.iter().flat_map(|test| &test.queries);
        let continuations = vec![format!(" {seed}"); freely + queries.count()];
        let choices = sent.choice.iter().flat_map(|choice| &choice.choices);
        let questions = (0..).step_by(2).zip(questions);
        let answers: Vec<Answer> = questions
            .map(|(n, question)| Answer {
                kind: question.kind,
                new: question.new.map(|_| scored(n)),
                old: question.old.map(|_| scored(n + 1)),
            })
            .collect();
        let prompts = record.generation_prompts.iter();
        let texts: Vec<String> = prompts.map(|it| format!("{it} and {seed}")).collect();
        let mut measured = v1::EvalMeasure {
            answers: answers.iter().map(wire::answer_to_proto).collect(),
            texts,
            continuations,
            choices: (0..)
                .zip(choices)
                .map(|(n, _)| wire::score_to_proto(scored(n)))
                .collect(),
            ..Default::default()
        };
        measured.figures = wire::eval_figures(asked.set(), sent, &measured);
        measured
    };
    let each = asked.edit_each.as_ref();
    v1::EvalOutcome {
        before: each.map(|_| measure("")),
        measured: Some(measure(each.map_or("", |each| &each.method))),
        edit: each.map(|_| v1::EvalEdit::default()),
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
    let scores: Vec<f64> = scores.collect();
    let asked = trace.metrics().filter(|&it| it != v1::Metric::Probability);
    let reading = |metric: v1::Metric| v1::MetricReading {
        metric: metric as i32,
        clean: 1.0,
        corrupted: 0.0,
        scores: scores.clone(),
    };
    let other = matches!(
        trace.corruption(),
        v1::Corruption::Counterfactual | v1::Corruption::Pairs
    );
    let other = other.then(|| v1::CorruptedPrompt {
        prompt: match (&fact.corrupted, unit.partners.first()) {
            (Some(prompt), _) => prompt.clone(),
            (None, Some(partner)) => partner.prompt.clone(),
            (None, None) => fact.prompt.chars().rev().collect(),
        },
        tokens: tokens.iter().map(|_| v1::Token::default()).collect(),
    });
    let readings: Vec<v1::MetricReading> = asked.map(reading).collect();
    // The first token is 0 in both prompts.
    let first = if other.is_some() {
        1.min(tokens.len())
    } else {
        0
    };
    let places = (first..tokens.len()).flat_map(|t| (0..layers as u32).map(move |l| (t as u32, l)));
    let all = (tokens.len() - first) * layers as usize;
    let top = all.min(trace.verify as usize);
    let verified = places.take(all.min(2 * trace.verify as usize)).enumerate();
    let verified = verified.map(|(n, (token, layer))| v1::VerifiedCell {
        token,
        layer,
        random: n >= top,
        exact: vec![0.5; 1 + readings.len()],
        ..Default::default()
    });
    v1::Grid {
        engine: match trace.engine() {
            v1::Engine::Exact => 0, // what is not said
            engine => engine as i32,
        },
        attribution_steps: trace.attribution_steps,
        grad_drop: trace.grad_drop,
        verified: verified.collect(),
        readings,
        direction: trace.direction,
        paths: trace.paths.clone(),
        whole_answers: trace.whole_answers,
        corrupted: other,
        kind: unit.kind,
        token_ids: (0..tokens.len() as u32).map(|n| n % vocabulary).collect(),
        subject_begin: 0,
        subject_end: fact.subject.split(' ').count() as u32,
        answer: fact.attribute.clone().unwrap_or_else(|| "fake".to_owned()),
        correct_prediction: true,
        high: 0.9,
        low: 0.1,
        layers: layers as u32,
        scores,
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
