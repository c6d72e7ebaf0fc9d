//! How a job is cut into units and tasks, and what a unit is.
//!
//! A unit's number decides what it is, so a plan never has to be stored unit by unit: for a sweep
//! `unit = fact * kinds + kind`, for completions `unit = prompt`, and the preparatory unit of a
//! sweep whose noise depends on all its subjects has the number after the last. An evaluation goes through
//! its records once a version: `unit = version * records + record`.

use std::mem::take;

use super::items::Items;
use crate::causal::Kind;
use crate::causal::cost;
use crate::causal::noise::{Law, Rule};
use crate::proto::v1::{self, job::Spec, leased_unit};
use crate::store::TaskPlan;

/// Multiply-adds of a task where no worker's rate is known yet: some 20 seconds on two CPU cores,
/// and less than one on a GPU, where the lease round trip is still small beside it.
pub const TASK_COST: f64 = 5e11;
/// Most items of a task, and most bytes of them: a lease is one message, which stays far below
/// 4 MiB however cheap its units are.
const TASK_ITEMS: u64 = 4096;
const TASK_BYTES: usize = 1 << 20;
/// What a worker fetches for itself counts this part of it: a task has up to 4 MiB of a corpus.
const FETCHED: u64 = 4;

/// Takes the many parts (facts, prompts) out of a job.
pub fn pack(job: &mut v1::Job) -> Items {
    match &mut job.spec {
        Some(Spec::Trace(trace)) => Items::of(&v1::FactList {
            facts: take(&mut trace.facts),
        }),
        Some(Spec::Generate(generate)) => Items::of(&v1::GenerateSpec {
            prompts: take(&mut generate.prompts),
            ..Default::default()
        }),
        Some(Spec::Stats(stats)) => Items::of(&v1::StatsSpec {
            pieces: take(&mut stats.pieces),
            ..Default::default()
        }),
        Some(Spec::Edit(edit)) => Items::of(&v1::EditSpec {
            tasks: take(&mut edit.tasks),
            ..Default::default()
        }),
        Some(Spec::Eval(eval)) => Items::of(&v1::EvalRecordList {
            records: take(&mut eval.records),
        }),
        None => Items::default(),
    }
}

/// Puts the parts back, unless they lie in an object of their own.
pub fn unpack(job: &mut v1::Job, items: &Items) {
    if items_object(job).is_some() {
        return;
    }
    let all = 0..items.len();
    match &mut job.spec {
        Some(Spec::Trace(trace)) => trace.facts = all.filter_map(|n| items.message(n)).collect(),
        Some(Spec::Generate(generate)) => {
            generate.prompts = all
                .filter_map(|n| items.text(n).map(str::to_owned))
                .collect();
        }
        Some(Spec::Stats(stats)) => stats.pieces = all.filter_map(|n| items.message(n)).collect(),
        Some(Spec::Edit(edit)) => edit.tasks = all.filter_map(|n| items.message(n)).collect(),
        Some(Spec::Eval(eval)) => eval.records = all.filter_map(|n| items.message(n)).collect(),
        None => {}
    }
}

/// The digest of the object in which a job's parts lie, when they do not lie in the job.
pub fn items_object(job: &v1::Job) -> Option<&str> {
    match &job.spec {
        Some(Spec::Trace(trace)) => Some(trace.facts_object.as_str()),
        Some(Spec::Eval(eval)) => Some(eval.records_object.as_str()),
        _ => None,
    }
    .filter(|digest| !digest.is_empty())
}

/// The field that names that object.
pub fn object_field(job: &v1::Job) -> &'static str {
    match &job.spec {
        Some(Spec::Eval(_)) => "job.eval.records_object",
        _ => "job.trace.facts_object",
    }
}

/// Says that a job's parts lie in an object. Kinds that cannot keep theirs in the request.
pub fn name_object(job: &mut v1::Job, digest: &str) {
    match &mut job.spec {
        Some(Spec::Trace(trace)) => digest.clone_into(&mut trace.facts_object),
        Some(Spec::Eval(eval)) => digest.clone_into(&mut eval.records_object),
        _ => {}
    }
}

/// Units of a job, without preparatory ones.
pub fn units(job: &v1::Job, items: &Items) -> u64 {
    items.len() as u64 * grain(job) * passes(job)
}

/// How often a job goes through its parts: an evaluation once a version.
fn passes(job: &v1::Job) -> u64 {
    match &job.spec {
        Some(Spec::Eval(eval)) if !eval.against.is_empty() && eval.against != job.version => 2,
        _ => 1,
    }
}

/// The version that a unit runs on.
pub(super) fn version_of<'a>(job: &'a v1::Job, items: &Items, unit: u64) -> &'a str {
    match &job.spec {
        Some(Spec::Eval(eval)) if unit >= items.len() as u64 && passes(job) > 1 => &eval.against,
        _ => &job.version,
    }
}

/// Units that stay together in one task: the kinds of a fact, which share runs of the model.
pub fn grain(job: &v1::Job) -> u64 {
    match &job.spec {
        Some(Spec::Trace(trace)) => trace.kinds.len().max(1) as u64,
        Some(Spec::Generate(_) | Spec::Stats(_) | Spec::Edit(_) | Spec::Eval(_)) | None => 1,
    }
}

/// Cuts a job into tasks of about `task_cost` multiply-adds. What a unit gives never depends on
/// the cut.
pub fn tasks(
    job: &v1::Job,
    items: &Items,
    shape: &v1::model::Shape,
    task_cost: f64,
) -> Vec<TaskPlan> {
    let mut plan = Vec::new();
    let all = 0..items.len();
    let sizes = |n| items.get(n).map_or(0, <[u8]>::len);
    match &job.spec {
        Some(Spec::Trace(trace)) => {
            if noise_is_measured(trace) {
                plan.push(TaskPlan {
                    first_unit: units(job, items),
                    units: 1,
                    cost: 0.0,
                    preparatory: true,
                });
            }
            let costs = all.map(|n| {
                let fact = items.message(n).unwrap_or_default();
                trace_cost(&fact, trace, shape)
            });
            cut(&mut plan, costs, sizes, grain(job), task_cost);
        }
        Some(Spec::Generate(generate)) => {
            let costs = all.map(|n| {
                let prompt = items.text(n).unwrap_or_default();
                (estimated_tokens(prompt) + f64::from(generate.max_tokens))
                    * shape.parameters as f64
            });
            cut(&mut plan, costs, sizes, grain(job), task_cost);
        }
        Some(Spec::Stats(_)) => {
            let costs = all.map(|n| {
                let piece = items.message(n).unwrap_or_default();
                piece_tokens(&piece) * shape.parameters as f64
            });
            // A worker fetches the texts of a lease and holds them.
            let sizes = |n| {
                let piece: v1::StatsUnit = items.message(n).unwrap_or_default();
                let elsewhere = piece.range.map_or(0, |range| range.length / FETCHED);
                sizes(n) + usize::try_from(elsewhere).unwrap_or(TASK_BYTES)
            };
            cut(&mut plan, costs, sizes, grain(job), task_cost);
        }
        Some(Spec::Edit(_)) => {
            let costs = all.map(|_| EDIT_TOKENS * shape.parameters as f64);
            cut(&mut plan, costs, sizes, grain(job), task_cost);
        }
        Some(Spec::Eval(eval)) => {
            let costs: Vec<f64> = all
                .map(|n| eval_tokens(&items.message(n).unwrap_or_default(), eval))
                .map(|tokens| tokens * shape.parameters as f64)
                .collect();
            // A task has the units of one version only.
            for pass in 0..passes(job) {
                let mut one = Vec::new();
                let costs = costs.iter().copied();
                cut(&mut one, costs, sizes, grain(job), task_cost);
                plan.extend(one.into_iter().map(|task| TaskPlan {
                    first_unit: task.first_unit + pass * items.len() as u64,
                    ..task
                }));
            }
        }
        None => {}
    }
    plan
}

/// Passes of one token that an edit costs: some 20 steps of 20 contexts with half a dozen tokens each, forth and back.
const EDIT_TOKENS: f64 = 5000.0;

/// Passes of one token that a record costs: each prompt with either object, texts of a hundred tokens, and the edit where
/// each record is edited and measured again.
fn eval_tokens(record: &v1::EvalRecord, eval: &v1::EvalSpec) -> f64 {
    let request = record.request.clone().unwrap_or_default();
    let rewritten = estimated_tokens(&request.prompt) + estimated_tokens(&request.subject);
    let others = record.paraphrases.iter();
    let others = others.chain(record.neighbours.iter().map(|it| &it.prompt));
    let read: f64 = others.map(|text| estimated_tokens(text)).sum();
    let once = 2.0 * (rewritten + read) + 100.0 * record.generation_prompts.len() as f64;
    match eval.edit_each {
        Some(_) => EDIT_TOKENS + 2.0 * once,
        None => once,
    }
}

/// Tokens of a piece of a corpus; those drawn from the model are computed twice.
fn piece_tokens(piece: &v1::StatsUnit) -> f64 {
    let texts = piece.documents.iter().map(|text| estimated_tokens(text));
    let range = piece.range.as_ref().map_or(0, |range| range.length);
    texts.sum::<f64>() + range as f64 / 4.0 + 2.0 * piece.self_sample as f64
}

/// What a worker must have to run a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The number format that it must compute in; unspecified for any.
    pub dtype: v1::Dtype,
    /// Bytes of the model's weights in that format.
    pub memory: u64,
}

/// What a worker must have to run a job on a model of this shape.
pub fn needs(job: &v1::Job, shape: &v1::model::Shape) -> Needs {
    let dtype = match &job.spec {
        Some(Spec::Trace(trace)) => trace.dtype(),
        Some(Spec::Generate(generate)) => generate.dtype(),
        Some(Spec::Stats(stats)) => stats.dtype(),
        Some(Spec::Edit(edit)) => edit.dtype(),
        Some(Spec::Eval(eval)) => eval.dtype(),
        None => v1::Dtype::Unspecified,
    };
    let bytes = match dtype {
        v1::Dtype::Bf16 | v1::Dtype::F16 => 2,
        v1::Dtype::F32 | v1::Dtype::Unspecified => 4,
    };
    Needs {
        dtype,
        memory: shape.parameters * bytes,
    }
}

/// The `k` of a sweep's `s<k>` noise, when its noise is of that rule.
pub fn noise_factor(trace: &v1::TraceSpec) -> Option<f64> {
    match trace.noise.parse::<Rule>().ok()?.law {
        Law::Spread(factor) => Some(factor),
        _ => None,
    }
}

/// Whether the scale of a sweep's noise has to be measured before any fact is traced: over its
/// subjects, or over a corpus.
fn noise_is_measured(trace: &v1::TraceSpec) -> bool {
    let rule = trace.noise.parse::<Rule>();
    rule.is_ok_and(|rule| matches!(rule.law, Law::Spread(_)) || rule.needs_corpus())
}

/// The settings and units of a lease.
pub fn lease_units(
    job: &v1::Job,
    items: &Items,
    units: impl Iterator<Item = u64>,
) -> (Option<v1::lease::Settings>, Vec<v1::LeasedUnit>) {
    let units = units
        .filter_map(|unit| {
            Some(v1::LeasedUnit {
                unit,
                spec: Some(unit_spec(job, items, unit)?),
            })
        })
        .collect();
    let settings = match &job.spec {
        Some(Spec::Trace(trace)) => Some(v1::lease::Settings::Trace(v1::TraceSpec {
            facts: Vec::new(),
            ..trace.clone()
        })),
        Some(Spec::Generate(generate)) => Some(v1::lease::Settings::Generate(v1::GenerateSpec {
            prompts: Vec::new(),
            ..generate.clone()
        })),
        Some(Spec::Stats(stats)) => Some(v1::lease::Settings::Stats(v1::StatsSpec {
            pieces: Vec::new(),
            ..stats.clone()
        })),
        Some(Spec::Edit(edit)) => Some(v1::lease::Settings::Edit(v1::EditSpec {
            tasks: Vec::new(),
            ..edit.clone()
        })),
        Some(Spec::Eval(eval)) => Some(v1::lease::Settings::Eval(v1::EvalSpec {
            records: Vec::new(),
            ..eval.clone()
        })),
        None => None,
    };
    (settings, units)
}

/// What a unit is; none where the job has no such unit.
pub(super) fn unit_spec(job: &v1::Job, items: &Items, unit: u64) -> Option<leased_unit::Spec> {
    Some(match job.spec.as_ref()? {
        Spec::Trace(trace) => {
            let kinds = grain(job);
            match items.message((unit / kinds) as usize) {
                Some(fact) => leased_unit::Spec::Trace(v1::TraceUnit {
                    fact: Some(fact),
                    kind: trace.kinds[(unit % kinds) as usize],
                }),
                None => leased_unit::Spec::Noise(noise_unit(trace, items)),
            }
        }
        Spec::Generate(_) => leased_unit::Spec::Generate(v1::GenerateUnit {
            prompt: items.text(unit as usize)?.to_owned(),
        }),
        Spec::Stats(_) => leased_unit::Spec::Stats(items.message(unit as usize)?),
        Spec::Edit(_) => leased_unit::Spec::Edit(items.message(unit as usize)?),
        Spec::Eval(_) if unit >= units(job, items) => return None,
        Spec::Eval(_) => {
            leased_unit::Spec::Eval(items.message(unit as usize % items.len().max(1))?)
        }
    })
}

/// What decides the scale of a sweep's noise. The subjects of a large sweep do not fit a message: the
/// worker reads them from their object.
fn noise_unit(trace: &v1::TraceSpec, items: &Items) -> v1::NoiseUnit {
    let Some(factor) = noise_factor(trace) else {
        return v1::NoiseUnit {
            corpus: trace.noise_corpus.clone(),
            ..Default::default()
        };
    };
    let subject = |n| items.message(n).map(|fact: v1::Fact| fact.subject);
    let subjects = if trace.facts_object.is_empty() {
        (0..items.len()).filter_map(subject).collect()
    } else {
        Vec::new()
    };
    v1::NoiseUnit {
        subjects,
        factor,
        facts_object: trace.facts_object.clone(),
        facts_size: if trace.facts_object.is_empty() {
            0
        } else {
            items.bytes().len() as u64
        },
        corpus: None,
    }
}

/// A job as lists show it: without what makes it large. `spec` has been packed.
pub fn summary(spec: &v1::Job, items: &Items) -> v1::Job {
    let mut job = spec.clone();
    match &mut job.spec {
        Some(Spec::Trace(trace)) => trace.fact_count = items.len() as u64,
        Some(Spec::Eval(eval)) => eval.record_count = items.len() as u64,
        _ => {}
    }
    job
}

fn cut(
    plan: &mut Vec<TaskPlan>,
    costs: impl Iterator<Item = f64>,
    sizes: impl Fn(usize) -> usize,
    units_each: u64,
    task_cost: f64,
) {
    let mut bytes = usize::MAX; // no task to add to yet
    for (index, cost) in costs.enumerate() {
        let size = sizes(index);
        let fits = bytes.saturating_add(size) <= TASK_BYTES;
        match plan.last_mut() {
            Some(task)
                if fits
                    && task.cost + cost <= task_cost
                    && task.units < TASK_ITEMS * units_each =>
            {
                task.units += units_each;
                task.cost += cost;
                bytes += size;
            }
            _ => {
                plan.push(TaskPlan {
                    first_unit: index as u64 * units_each,
                    units: units_each,
                    cost,
                    preparatory: false,
                });
                bytes = size;
            }
        }
    }
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
#[allow(clippy::unwrap_used)]
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

    fn cut(mut job: v1::Job, task_cost: f64) -> (Vec<TaskPlan>, u64) {
        let items = pack(&mut job);
        (
            tasks(&job, &items, &shape(), task_cost),
            units(&job, &items),
        )
    }

    #[test]
    fn every_unit_is_in_exactly_one_task_and_no_fact_is_split() {
        for (facts, noise) in [(1, "0.3"), (100, "0.3"), (100, "s3"), (100, "t5")] {
            let prepared = noise != "0.3";
            let (plan, units) = cut(job(facts, noise), TASK_COST);
            let mut seen: Vec<u64> = plan
                .iter()
                .flat_map(|t| t.first_unit..t.first_unit + t.units)
                .collect();
            seen.sort_unstable();
            let all = units + u64::from(prepared);
            assert_eq!(seen, (0..all).collect::<Vec<_>>());
            assert!(
                plan.iter()
                    .all(|t| t.preparatory || t.first_unit % 3 == 0 && t.units % 3 == 0)
            );
            assert_eq!(
                plan.iter().filter(|t| t.preparatory).count(),
                usize::from(prepared)
            );
        }
    }

    #[test]
    fn a_faster_worker_gets_larger_tasks() {
        let tasks = |cost| cut(job(100, "0.3"), cost).0.len();
        let (slow, fast) = (tasks(TASK_COST), tasks(20.0 * TASK_COST));
        assert!(slow >= 5 * fast, "{slow} and {fast}");
    }

    #[test]
    fn a_lease_fits_a_message_however_cheap_its_units_are() {
        let (plan, _) = cut(job(100_000, "0.3"), f64::INFINITY);
        assert!(plan.iter().all(|task| task.units <= TASK_ITEMS * 3));
        let mut wordy = job(3, "0.3");
        let Some(Spec::Trace(trace)) = &mut wordy.spec else {
            panic!("a sweep was made")
        };
        for fact in &mut trace.facts {
            fact.prompt.push_str(&"x".repeat(TASK_BYTES / 2));
        }
        assert_eq!(cut(wordy, f64::INFINITY).0.len(), 3);
    }

    fn evaluation(records: usize, against: &str) -> v1::Job {
        let record = |n| v1::EvalRecord {
            request: Some(v1::EditRequest {
                prompt: "{} is in downtown".to_owned(),
                subject: format!("Needle {n}"),
                ..Default::default()
            }),
            ..Default::default()
        };
        v1::Job {
            version: "models/m/versions/b".to_owned(),
            spec: Some(Spec::Eval(v1::EvalSpec {
                records: (0..records).map(record).collect(),
                against: against.to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    #[test]
    fn an_evaluation_goes_through_its_records_once_a_version_and_no_task_has_two() {
        let mut job = evaluation(100, "models/m/versions/a");
        let items = pack(&mut job);
        assert_eq!(units(&job, &items), 200);
        let plan = tasks(&job, &items, &shape(), 20.0 * shape().parameters as f64);
        let mut next = 0;
        for task in &plan {
            assert_eq!(task.first_unit, next);
            next += task.units;
            let versions = [task.first_unit, next - 1].map(|unit| version_of(&job, &items, unit));
            assert_eq!(versions[0], versions[1]);
        }
        assert_eq!(next, 200);
        assert!(plan.len() > 10);
        for (unit, n, version) in [(7, 7, &job.version[..]), (107, 7, "models/m/versions/a")] {
            assert_eq!(version_of(&job, &items, unit), version);
            let Some(leased_unit::Spec::Eval(record)) = unit_spec(&job, &items, unit) else {
                panic!("unit {unit} is a record");
            };
            assert_eq!(record.request.unwrap().subject, format!("Needle {n}"));
        }
        assert_eq!(unit_spec(&job, &items, 200), None);
        for once in ["", "models/m/versions/b"] {
            let mut job = evaluation(100, once);
            let items = pack(&mut job);
            assert_eq!(units(&job, &items), 100);
        }
    }

    #[test]
    fn packed_parts_come_back_and_an_object_is_left_where_it_is() {
        let asked = job(5, "s3");
        let mut packed = asked.clone();
        let items = pack(&mut packed);
        assert_eq!(items.len(), 5);
        let mut back = packed.clone();
        unpack(&mut back, &items);
        assert_eq!(back, asked);
        let Some(Spec::Trace(trace)) = &mut packed.spec else {
            panic!("a sweep was made")
        };
        trace.facts_object = "digest".to_owned();
        let mut back = packed.clone();
        unpack(&mut back, &items);
        assert_eq!(back, packed);
    }
}
