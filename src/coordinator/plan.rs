//! How a job is cut into units and tasks, and what a unit is.
//!
//! A unit's number decides what it is, so a plan never has to be stored unit by unit: for a sweep
//! `unit = fact * kinds + kind`, for completions `unit = prompt`, and the preparatory unit of a
//! sweep whose noise depends on all its subjects has the number after the last.

use crate::causal::Kind;
use crate::causal::cost;
use crate::causal::noise::{Law, Rule};
use crate::proto::v1::{self, job::Spec, leased_unit};
use crate::store::TaskPlan;

/// A task is cut to about this many multiply-adds: some 20 seconds on two CPU cores, and less
/// than one on a GPU, where the lease round trip is still small beside it.
const TASK_COST: f64 = 5e11;

/// Units of a job, without preparatory ones.
pub fn units(job: &v1::Job) -> u64 {
    match &job.spec {
        Some(Spec::Trace(trace)) => (trace.facts.len() * trace.kinds.len()) as u64,
        Some(Spec::Generate(generate)) => generate.prompts.len() as u64,
        None => 0,
    }
}

/// Cuts a job into tasks. Facts are never split over tasks: their kinds share runs of the model.
pub fn tasks(job: &v1::Job, shape: &v1::model::Shape) -> Vec<TaskPlan> {
    let mut plan = Vec::new();
    match &job.spec {
        Some(Spec::Trace(trace)) => {
            let kinds = trace.kinds.len() as u64;
            if noise_factor(trace).is_some() {
                plan.push(TaskPlan {
                    first_unit: units(job),
                    units: 1,
                    cost: 0.0,
                    preparatory: true,
                });
            }
            let costs = trace
                .facts
                .iter()
                .map(|fact| trace_cost(fact, trace, shape));
            plan.extend(cut(costs, kinds));
        }
        Some(Spec::Generate(generate)) => {
            let costs = generate.prompts.iter().map(|prompt| {
                (estimated_tokens(prompt) + f64::from(generate.max_tokens))
                    * shape.parameters as f64
            });
            plan.extend(cut(costs, 1));
        }
        None => {}
    }
    plan
}

/// The `k` of a sweep's `s<k>` noise, when its noise is of that rule.
pub fn noise_factor(trace: &v1::TraceSpec) -> Option<f64> {
    match trace.noise.parse::<Rule>().ok()?.law {
        Law::Spread(factor) => Some(factor),
        _ => None,
    }
}

/// The settings and units of a lease.
pub fn lease_units(
    job: &v1::Job,
    units: impl Iterator<Item = u64>,
) -> (Option<v1::lease::Settings>, Vec<v1::LeasedUnit>) {
    match &job.spec {
        Some(Spec::Trace(trace)) => {
            let kinds = trace.kinds.len().max(1) as u64;
            let units = units
                .map(|unit| {
                    let spec = match trace.facts.get((unit / kinds) as usize) {
                        Some(fact) => leased_unit::Spec::Trace(v1::TraceUnit {
                            fact: Some(fact.clone()),
                            kind: trace.kinds[(unit % kinds) as usize],
                        }),
                        None => leased_unit::Spec::Noise(v1::NoiseUnit {
                            subjects: trace.facts.iter().map(|f| f.subject.clone()).collect(),
                            factor: noise_factor(trace).unwrap_or_default(),
                        }),
                    };
                    v1::LeasedUnit {
                        unit,
                        spec: Some(spec),
                    }
                })
                .collect();
            let settings = v1::TraceSpec {
                facts: Vec::new(),
                ..trace.clone()
            };
            (Some(v1::lease::Settings::Trace(settings)), units)
        }
        Some(Spec::Generate(generate)) => {
            let units = units
                .filter_map(|unit| {
                    let prompt = generate.prompts.get(unit as usize)?.clone();
                    let spec = leased_unit::Spec::Generate(v1::GenerateUnit { prompt });
                    Some(v1::LeasedUnit {
                        unit,
                        spec: Some(spec),
                    })
                })
                .collect();
            let settings = v1::GenerateSpec {
                prompts: Vec::new(),
                ..generate.clone()
            };
            (Some(v1::lease::Settings::Generate(settings)), units)
        }
        None => (None, Vec::new()),
    }
}

/// A job as lists show it: without what makes it large.
pub fn summary(job: &v1::Job) -> v1::Job {
    let mut job = job.clone();
    match &mut job.spec {
        Some(Spec::Trace(trace)) => trace.facts.clear(),
        Some(Spec::Generate(generate)) => generate.prompts.clear(),
        None => {}
    }
    job
}

fn cut(costs: impl Iterator<Item = f64>, units_each: u64) -> Vec<TaskPlan> {
    let mut plan: Vec<TaskPlan> = Vec::new();
    for (index, cost) in costs.enumerate() {
        match plan.last_mut() {
            Some(task) if task.cost + cost <= TASK_COST => {
                task.units += units_each;
                task.cost += cost;
            }
            _ => plan.push(TaskPlan {
                first_unit: index as u64 * units_each,
                units: units_each,
                cost,
                preparatory: false,
            }),
        }
    }
    plan
}

/// Tokens of a text, without a tokenizer: English runs at some four bytes a token.
fn estimated_tokens(text: &str) -> f64 {
    text.len() as f64 / 4.0 + 1.0
}

/// Multiply-adds of a fact's grids.
fn trace_cost(fact: &v1::Fact, trace: &v1::TraceSpec, shape: &v1::model::Shape) -> f64 {
    let begin = fact.prompt.find(&fact.subject).unwrap_or_default();
    let head = f64::from(shape.width) * f64::from(shape.vocabulary);
    let passes = |kind: &i32| {
        let kind = match v1::Kind::try_from(*kind) {
            Ok(v1::Kind::Mlp) => Kind::Mlp,
            Ok(v1::Kind::Attn) => Kind::Attn,
            _ => Kind::Hidden,
        };
        let tokens = estimated_tokens(&fact.prompt) as usize;
        let shape = cost::Shape {
            kind,
            tokens,
            before_subject: begin / 4,
            layers: shape.layers as usize,
            samples: trace.samples as usize,
            window: trace.window as usize,
        };
        match trace.engine() {
            v1::Engine::Plain => shape.plain_passes(),
            _ => shape.passes(),
        }
    };
    let layers = f64::from(shape.layers.max(1));
    let a_pass = match trace.engine() {
        v1::Engine::Plain => shape.block_parameters as f64 + head / layers,
        _ => shape.block_parameters as f64,
    };
    trace
        .kinds
        .iter()
        .map(|kind| passes(kind) as f64 * a_pass)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(facts: usize, noise: &str) -> v1::Job {
        let fact = v1::Fact {
            prompt: "The Space Needle is in downtown".to_owned(),
            subject: "The Space Needle".to_owned(),
            ..Default::default()
        };
        v1::Job {
            spec: Some(Spec::Trace(v1::TraceSpec {
                facts: vec![fact; facts],
                kinds: vec![1, 2, 3],
                noise: noise.to_owned(),
                samples: 10,
                window: 10,
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    fn shape() -> v1::model::Shape {
        v1::model::Shape {
            layers: 30,
            width: 576,
            vocabulary: 49152,
            parameters: 134_515_008,
            block_parameters: 3_540_096,
            ..Default::default()
        }
    }

    #[test]
    fn every_unit_is_in_exactly_one_task_and_no_fact_is_split() {
        for (facts, noise) in [(1, "0.3"), (100, "0.3"), (100, "s3")] {
            let job = job(facts, noise);
            let plan = tasks(&job, &shape());
            let mut seen: Vec<u64> = plan
                .iter()
                .flat_map(|t| t.first_unit..t.first_unit + t.units)
                .collect();
            seen.sort_unstable();
            let all = units(&job) + u64::from(noise == "s3");
            assert_eq!(seen, (0..all).collect::<Vec<_>>());
            assert!(
                plan.iter()
                    .all(|t| t.preparatory || t.first_unit % 3 == 0 && t.units % 3 == 0)
            );
            assert_eq!(
                plan.iter().filter(|t| t.preparatory).count(),
                usize::from(noise == "s3")
            );
        }
    }

    #[test]
    fn the_plain_engine_is_estimated_dearer_than_the_exact_one() {
        let mut job = job(1, "0.3");
        let exact = tasks(&job, &shape())[0].cost;
        if let Some(Spec::Trace(trace)) = &mut job.spec {
            trace.set_engine(v1::Engine::Plain);
        }
        assert!(tasks(&job, &shape())[0].cost > 3.0 * exact);
    }
}
