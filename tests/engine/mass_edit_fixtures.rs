//! Edits of many facts on tiny models give what PyTorch and NumPy give for the published
//! definitions: targets, keys, residuals and the change of every layer, over two batches where the
//! second one protects the first; over three of which the first is reverted; of a batch without one
//! of its facts; and of three facts on a real model.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use palimpsest::edit::{
    Contexts, Damping, Hyperparameters, Keep, KeyCovariance, Method, Metric, Projector, Request,
    Unwatched, mass_keys, residuals, solve, target,
};
use palimpsest::model::{Checkpoint, Family, Hook, Model};
use palimpsest::stats::{Collector, Moment, pieces};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// What `make_mass_edits.py` writes.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Expected {
    requests: Vec<Fact>,
    groups: Vec<Vec<usize>>,
    later: Vec<Fact>,
    contexts: Vec<String>,
    layers: Vec<usize>,
    corpus: Vec<String>,
    length: usize,
    hyper: BTreeMap<String, f64>,
    numbers: BTreeMap<String, f64>,
    methods: BTreeMap<String, Vec<Batch>>,
    /// By method, `adj` of every layer of the first batch without the group `left_out`.
    without: BTreeMap<String, Vec<Vec<f64>>>,
    left_out: usize,
    third: Vec<Fact>,
    /// AlphaEdit's batch of `third`, when the first of the two before it was reverted.
    reverted: Option<Batch>,
    steps: Vec<Vec<f64>>,
}

#[derive(Deserialize, Clone)]
struct Fact {
    prompt: String,
    subject: String,
    target_new: String,
}

#[derive(Deserialize)]
struct Batch {
    targets: Vec<f64>,
    steps: Vec<Vec<f64>>,
    layers: Vec<Layer>,
}

/// One row a fact.
#[derive(Deserialize)]
struct Layer {
    keys: Vec<f64>,
    residuals: Vec<f64>,
    adj: Vec<f64>,
}

const FILE: &str = ".deps/SmolLM2-135M-Instruct.Q4_1.gguf";
const TINY: [&str; 10] = [
    "gpt2",
    "gptj",
    "llama",
    "qwen2",
    "gemma2",
    "granite",
    "olmo2",
    "opt",
    "falcon-new",
    "bloom",
];

impl Fact {
    fn request(&self) -> Request {
        Request {
            prompt: self.prompt.clone(),
            subject: self.subject.clone(),
            target_new: self.target_new.clone(),
            target_true: None,
        }
    }
}

impl Expected {
    fn hyper(&self) -> Hyperparameters {
        let of = |name: &str| self.hyper[name];
        Hyperparameters {
            layer: *self.layers.last().unwrap(),
            steps: of("steps") as usize,
            learning_rate: of("learning_rate"),
            clamp: of("clamp"),
            weight_decay: of("weight_decay"),
            kl_factor: of("kl_factor"),
            stop_loss: of("stop_loss"),
            ..Hyperparameters::of(Method::Memit, Family::Gpt2, 3, 16)
        }
    }

    fn metric(&self, method: &str, moment: &Moment, past: Option<&Tensor>) -> Metric {
        let of = |name: &str| self.numbers[name];
        let covariance = || KeyCovariance::new(moment.clone(), 0.0, Device::Cpu).unwrap();
        match method {
            "memit" => Metric::weighted(&covariance(), of("lambda")),
            "emmet" => Metric::weighted(&covariance(), of("mu") * of("statistics_weight")),
            "encore" => {
                let moment = moment.clone();
                Metric::guarded(moment, of("lambda"), of("eta"), past, Device::Cpu).unwrap()
            }
            _ => {
                let keep = Keep::Rank(of("rank") as usize);
                let projector = Projector::new(moment, keep, Device::Cpu).unwrap();
                Metric::projected(&projector, of("l2"), past).unwrap()
            }
        }
    }
}

fn load(name: &str) -> (Model, Expected) {
    // Such small tensors are not worth dividing.
    tch::set_num_threads(1);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let model = Model::load(&checkpoint, Device::Cpu, Kind::Float).unwrap();
    let text = fs::read_to_string(folder.join("mass_edit.json")).unwrap();
    (model, serde_json::from_str(&text).unwrap())
}

fn moments(model: &Model, expected: &Expected) -> Vec<Moment> {
    let mut collector = Collector::new(model, &expected.layers).unwrap();
    for text in &expected.corpus {
        for piece in pieces(model, text, expected.length).unwrap() {
            collector.add(&piece, |_| true).unwrap();
        }
    }
    collector.finish(|_| true).unwrap()
}

/// What the facts share, on the model as it is.
fn shared(model: &Model, expected: &Expected) -> Contexts {
    Contexts::read(model, &expected.contexts, usize::MAX, &Unwatched).unwrap()
}

/// Cosine above 0.9999, and the values to a thousandth of the length.
fn alike(what: &str, found: &Tensor, expected: &[f64]) {
    let found = Vec::<f64>::try_from(&found.contiguous().view([-1])).unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (one, other) = (dot(&found, &found).sqrt(), dot(expected, expected).sqrt());
    let cosine = dot(&found, expected) / one / other;
    let apart = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2));
    let apart = apart.sum::<f64>().sqrt() / other;
    eprintln!("{what}: cosine {cosine:.9}, apart {apart:.2e}");
    assert!(cosine > 0.9999, "{what}: cosine {cosine}");
    assert!(apart < 1e-3, "{what}: relative distance {apart}");
}

/// Writes a batch into the model, layer by layer, and compares all that is found. Gives the keys
/// that were solved for.
fn write(
    what: &str,
    (model, expected): (&mut Model, &Expected),
    groups: &[Vec<Request>],
    batch: &Batch,
    metrics: &[Metric],
) -> Vec<Tensor> {
    let layers = &expected.layers;
    let hyper = expected.hyper();
    let last = hyper.layer;
    let contexts = &shared(model, expected);
    let found = groups
        .iter()
        .map(|group| target(model, group, contexts, &hyper, &Unwatched).unwrap());
    let found: Vec<_> = found.collect();
    for (found, steps) in found.iter().zip(&batch.steps) {
        assert_eq!(found.steps.len(), steps.len(), "{what}");
        for (step, loss) in found.steps.iter().zip(steps) {
            assert!(
                (step.loss - loss).abs() < 1e-3 * loss.abs(),
                "{what}: {step:?} {loss}"
            );
        }
    }
    let values: Vec<_> = found.iter().map(|it| it.value.shallow_clone()).collect();
    let targets = Tensor::stack(&values, 0);
    alike(&format!("{what} z"), &targets, &batch.targets);
    let mut all = Vec::new();
    for (at, &layer) in layers.iter().enumerate() {
        let contexts = &shared(model, expected);
        let read = groups.iter().map(|group| {
            mass_keys(model, &group[0], contexts, &[layer], last, &Unwatched).unwrap()
        });
        let read: Vec<_> = read.collect();
        let keys: Vec<_> = read.iter().map(|it| it.keys[0].shallow_clone()).collect();
        let keys = Tensor::stack(&keys, 0);
        let now: Vec<_> = read.iter().map(|it| it.output.shallow_clone()).collect();
        let missing = &targets - Tensor::stack(&now, 0);
        let residuals = residuals(model.config(), &missing, layers.len() - at);
        let what = format!("{what} layer {layer}");
        alike(&format!("{what} K"), &keys, &batch.layers[at].keys);
        alike(
            &format!("{what} R"),
            &residuals,
            &batch.layers[at].residuals,
        );
        let solved = solve(&metrics[at], &keys.tr(), &residuals.tr(), Damping::Unit).unwrap();
        alike(
            &format!("{what} adj"),
            &solved.right.tr(),
            &batch.layers[at].adj,
        );
        let facts = groups.len() as i64;
        let theirs = |numbers: &[f64]| Tensor::from_slice(numbers).view([facts, -1]);
        let change = theirs(&batch.layers[at].residuals)
            .tr()
            .matmul(&theirs(&batch.layers[at].adj));
        let change = Vec::<f64>::try_from(&change.contiguous().view([-1])).unwrap();
        alike(&format!("{what} dW"), &solved.change(), &change);
        let weight = model.down_projection(layer).unwrap() + solved.change().to_kind(Kind::Float);
        model.set_down_projection(layer, &weight).unwrap();
        all.push(keys.tr());
    }
    all
}

#[test]
fn targets_keys_residuals_and_changes_are_those_of_the_published_solves() {
    for name in TINY {
        for method in ["memit", "emmet", "alphaedit", "encore"] {
            let (mut model, expected) = load(name);
            let moments = moments(&model, &expected);
            let groups: Vec<Vec<Request>> = (expected.groups.iter())
                .map(|group| {
                    group
                        .iter()
                        .map(|&n| expected.requests[n].request())
                        .collect()
                })
                .collect();
            let batches = &expected.methods[method];
            let metrics = |past: Option<&[Tensor]>| -> Vec<Metric> {
                let of = |(n, moment)| expected.metric(method, moment, past.map(|past| &past[n]));
                moments.iter().enumerate().map(of).collect()
            };
            let what = format!("{name} {method}");
            let solved_for = write(
                &what,
                (&mut model, &expected),
                &groups,
                &batches[0],
                &metrics(None),
            );
            let Some(second) = batches.get(1) else {
                continue;
            };
            let past = match method {
                "encore" => solved_for,
                _ => (expected.layers.iter())
                    .map(|&layer| {
                        let contexts = &shared(&model, &expected);
                        let keys = groups.iter().map(|group| {
                            let last = layer;
                            let read =
                                mass_keys(&model, &group[0], contexts, &[layer], last, &Unwatched);
                            read.unwrap().keys.remove(0)
                        });
                        Tensor::stack(&keys.collect::<Vec<_>>(), 1)
                    })
                    .collect(),
            };
            let later: Vec<Vec<Request>> = expected
                .later
                .iter()
                .map(|fact| vec![fact.request()])
                .collect();
            let what = format!("{what} later");
            write(
                &what,
                (&mut model, &expected),
                &later,
                second,
                &metrics(Some(&past)),
            );
        }
    }
}

/// The keys of facts at each edited layer, on a model as it is: `[inner, facts]` each.
fn keys_now(model: &Model, expected: &Expected, facts: &[Request]) -> Vec<Tensor> {
    let contexts = &shared(model, expected);
    let of_layer = |&layer: &usize| {
        let keys = facts.iter().map(|fact| {
            let layers = [layer];
            let read = mass_keys(model, fact, contexts, &layers, layer, &Unwatched);
            read.unwrap().keys.remove(0)
        });
        Tensor::stack(&keys.collect::<Vec<_>>(), 1)
    };
    expected.layers.iter().map(of_layer).collect()
}

#[test]
fn what_alphaedit_protects_after_a_revert_is_what_the_edits_that_stay_keep() {
    for name in TINY {
        let (mut model, expected) = load(name);
        let moments = moments(&model, &expected);
        let metrics = |past: Option<&[Tensor]>| -> Vec<Metric> {
            let of = |(n, moment)| expected.metric("alphaedit", moment, past.map(|past| &past[n]));
            moments.iter().enumerate().map(of).collect()
        };
        let groups: Vec<Vec<Request>> = (expected.groups.iter())
            .map(|group| {
                group
                    .iter()
                    .map(|&n| expected.requests[n].request())
                    .collect()
            })
            .collect();
        let first: Vec<Request> = groups.iter().map(|group| group[0].clone()).collect();
        let alone = |facts: &[Fact]| -> Vec<Vec<Request>> {
            facts.iter().map(|fact| vec![fact.request()]).collect()
        };
        let weights = |model: &Model| -> Vec<Tensor> {
            let of = |&layer: &usize| model.down_projection(layer).unwrap().copy();
            expected.layers.iter().map(of).collect()
        };
        let batches = &expected.methods["alphaedit"];
        let before = weights(&model);
        let what = format!("{name} first");
        let both = (&mut model, &expected);
        write(&what, both, &groups, &batches[0], &metrics(None));
        let after = weights(&model);
        let past = keys_now(&model, &expected, &first);
        let later = alone(&expected.later);
        let what = format!("{name} second");
        let both = (&mut model, &expected);
        write(&what, both, &later, &batches[1], &metrics(Some(&past)));
        let later: Vec<Request> = later.into_iter().flatten().collect();
        let past = keys_now(&model, &expected, &later);
        for (n, &layer) in expected.layers.iter().enumerate() {
            let left = model.down_projection(layer).unwrap() - (&after[n] - &before[n]);
            model.set_down_projection(layer, &left).unwrap();
        }
        let third = alone(&expected.third);
        let batch = expected.reverted.as_ref().unwrap();
        let what = format!("{name} third, the first reverted");
        let both = (&mut model, &expected);
        write(&what, both, &third, batch, &metrics(Some(&past)));
    }
}

#[test]
fn a_batch_without_one_of_its_facts_is_solved_from_the_keys_and_residuals_of_the_others() {
    for name in TINY {
        let (model, expected) = load(name);
        let moments = moments(&model, &expected);
        let facts = expected.groups.len() as i64;
        let kept: Vec<i64> = (0..facts)
            .filter(|&group| group != expected.left_out as i64)
            .collect();
        let kept = Tensor::from_slice(&kept);
        for (method, adjs) in &expected.without {
            let layers = &expected.methods[method][0].layers;
            for (at, (layer, adj)) in layers.iter().zip(adjs).enumerate() {
                let columns = |numbers: &[f64]| {
                    let rows = Tensor::from_slice(numbers).view([facts, -1]);
                    rows.index_select(0, &kept).tr()
                };
                let metric = expected.metric(method, &moments[at], None);
                let residuals = columns(&layer.residuals);
                let (keys, damping) = (columns(&layer.keys), Damping::Unit);
                let solved = solve(&metric, &keys, &residuals, damping).unwrap();
                let what = format!("{name} {method} layer {at} without a fact");
                alike(&format!("{what}, adj"), &solved.right.tr(), adj);
                let theirs = Tensor::from_slice(adj).view([facts - 1, -1]);
                let change = residuals.matmul(&theirs);
                let change = Vec::<f64>::try_from(&change.contiguous().view([-1])).unwrap();
                alike(&format!("{what}, dW"), &solved.change(), &change);
            }
        }
    }
}

/// A mean of keys that is the same wherever it is computed: a diagonal and a few directions.
fn mean_by_formula(size: usize) -> Moment {
    let direction = |k: usize, n: usize| (0.37 * (k + 1) as f64 * (n + 1) as f64).sin();
    let directions: Vec<Vec<f64>> = (0..8)
        .map(|k| (0..size).map(|n| direction(k, n)).collect())
        .collect();
    let mut sum = vec![0.0; size * size];
    for (i, row) in sum.chunks_exact_mut(size).enumerate() {
        for direction in &directions {
            for (j, number) in row.iter_mut().enumerate() {
                *number += 1e-4 * direction[i] * direction[j];
            }
        }
        row[i] += 1e-3 * (1 + i % 7) as f64;
    }
    // As of so many keys as there are channels: fewer would not span them.
    sum.iter_mut().for_each(|number| *number *= size as f64);
    Moment::new(size, sum, size as u64).unwrap()
}

#[test]
fn three_facts_on_a_real_model_are_those_of_the_published_solve() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = root.join(FILE);
    if !path.exists() {
        crate::require::skip("model", format!("no {FILE}: run deploy/setup.sh"));
        return;
    }
    // More threads wait for each other where other tests keep the cores busy.
    tch::set_num_threads(1);
    let fixtures = root.join("tests/fixtures");
    let said = fs::read_to_string(fixtures.join("smollm2_mass_edit.json")).unwrap();
    let expected: Expected = serde_json::from_str(&said).unwrap();
    let bytes = fs::read(fixtures.join("smollm2_mass_edit.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| -> Vec<f64> {
        let data = tensors.tensor(name).unwrap();
        let singles = data.data().as_chunks::<4>().0.iter();
        singles
            .map(|it| f64::from(f32::from_le_bytes(*it)))
            .collect()
    };
    let batch = Batch {
        targets: numbers("targets"),
        steps: expected.steps.clone(),
        layers: (expected.layers.iter())
            .map(|layer| Layer {
                keys: numbers(&format!("{layer}.keys")),
                residuals: numbers(&format!("{layer}.residuals")),
                adj: numbers(&format!("{layer}.adj")),
            })
            .collect(),
    };
    let checkpoint = Checkpoint::open(&path).unwrap();
    let mut model = Model::load(&checkpoint, Device::Cpu, Kind::Float).unwrap();
    let moment = mean_by_formula(model.down_projection(0).unwrap().size()[1] as usize);
    let metric = |_: &usize| expected.metric("memit", &moment, None);
    let metrics: Vec<Metric> = expected.layers.iter().map(metric).collect();
    let facts = expected.requests.iter();
    let groups: Vec<Vec<Request>> = facts.map(|fact| vec![fact.request()]).collect();
    write(
        "SmolLM2",
        (&mut model, &expected),
        &groups,
        &batch,
        &metrics,
    );
}

/// What every row reads at its subject's last token, row by row and from its first token on.
struct Plainly {
    layer: usize,
    at: i64,
    key: Option<Tensor>,
}

impl Hook for Plainly {
    fn key(&mut self, layer: usize, key: Tensor) -> Tensor {
        if layer == self.layer {
            self.key = Some(key.select(1, self.at).select(0, 0).to_kind(Kind::Double));
        }
        key
    }
}

#[test]
fn what_stands_before_the_sentence_is_computed_once_and_changes_nothing() {
    for name in TINY {
        let (model, expected) = load(name);
        let contexts = shared(&model, &expected);
        let last = *expected.layers.last().unwrap();
        for fact in &expected.requests {
            let plainly = |context: &str| -> Tensor {
                let text = fact.prompt.replace("{}", &fact.subject);
                let text = context.replace("{}", &text);
                let end = text.rfind(&fact.subject).unwrap() + fact.subject.len();
                let encoded = model.tokenizer().encode(&text).unwrap();
                let before = |&(from, to): &(usize, usize)| from < end && from < to;
                let mut hook = Plainly {
                    layer: last,
                    at: encoded.offsets.iter().rposition(before).unwrap() as i64,
                    key: None,
                };
                let _ = model.forward(&model.ids(&encoded.ids).unwrap(), &mut hook);
                hook.key.unwrap()
            };
            let (bare, others) = expected.contexts.split_first().unwrap();
            assert_eq!(bare, "{}");
            let others: Vec<Tensor> = others.iter().map(|context| plainly(context)).collect();
            let others = Tensor::stack(&others, 0);
            let first = [0i64];
            let mean = others.mean_dim(first.as_slice(), false, Kind::Double);
            let wanted = plainly(bare) * 0.5 + mean * 0.5;
            let request = fact.request();
            let found = mass_keys(&model, &request, &contexts, &[last], last, &Unwatched).unwrap();
            let apart = (&found.keys[0] - &wanted).norm().double_value(&[]);
            let apart = apart / wanted.norm().double_value(&[]);
            assert!(apart < 1e-5, "{name}, {}: {apart}", fact.subject);
        }
    }
}

#[test]
fn a_fact_has_the_same_target_and_keys_to_the_bit_alone_and_beside_others() {
    for name in TINY {
        let (model, expected) = load(name);
        let hyper = expected.hyper();
        let facts = [&expected.requests[..], &expected.later].concat();
        let requests: Vec<Request> = facts.iter().map(Fact::request).collect();
        let read = |request: &Request, contexts: &Contexts| -> (Tensor, Tensor) {
            let one = std::slice::from_ref(request);
            let target = target(&model, one, contexts, &hyper, &Unwatched).unwrap();
            let layers = [hyper.layer];
            let keys = mass_keys(&model, request, contexts, &layers, hyper.layer, &Unwatched);
            (target.value, keys.unwrap().keys.remove(0))
        };
        let alone = requests
            .iter()
            .map(|it| read(it, &shared(&model, &expected)));
        let alone: Vec<(Tensor, Tensor)> = alone.collect();
        // One after another, the last first, with what they share.
        let contexts = shared(&model, &expected);
        for (request, (value, key)) in requests.iter().zip(&alone).rev() {
            let beside = read(request, &contexts);
            assert!(beside.0.equal(value), "{name}: the target of {request:?}");
            assert!(beside.1.equal(key), "{name}: the key of {request:?}");
        }
    }
}

#[test]
fn contexts_that_were_read_in_too_few_layers_are_refused() {
    let (model, expected) = load("gpt2");
    let contexts = Contexts::read(&model, &expected.contexts, 1, &Unwatched).unwrap();
    let request = expected.requests[0].request();
    let one = std::slice::from_ref(&request);
    let refused = target(&model, one, &contexts, &expected.hyper(), &Unwatched);
    assert!(refused.unwrap_err().to_string().contains("layers"));
    let refused = mass_keys(&model, &request, &contexts, &[1], 1, &Unwatched);
    assert!(refused.unwrap_err().to_string().contains("layers"));
}
