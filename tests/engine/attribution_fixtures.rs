//! Attribution patching on tiny models: the estimates are those that torch's autograd gives of
//! transformers' modules, in every metric and both directions, with integrated gradients and with
//! gradient drop.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use palimpsest::causal::{
    Corruption, Direction, Engine, Fact, Gradient, Kind, Metric, Settings, Unwatched, trace,
};
use palimpsest::model::{Checkpoint, Model};
use serde::Deserialize;
use serde_json::Value;

use crate::patching_fixtures::numbers;

/// By metric, by way of estimating, by kind: effects, `[token][layer]`.
type Effects = BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<Vec<f64>>>>>;

/// What `make_attribution.py` writes.
#[derive(Deserialize)]
struct Expected {
    steps: usize,
    denoising: Effects,
    noising: Effects,
}

/// Of what `make_patching.py` writes, the prompts.
#[derive(Deserialize)]
struct Prompts {
    prompt: String,
    subject: String,
    corrupted: String,
}

/// The model of a family and the fact whose two prompts `make_patching.py` names.
fn family(name: &str) -> (Model, Fact, impl Fn(&str) -> String) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let text = move |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let prompts: Prompts = serde_json::from_str(&text("patching.json")).unwrap();
    let model = Model::load(&checkpoint, tch::Device::Cpu, tch::Kind::Float).unwrap();
    let fact = Fact {
        prompt: prompts.prompt,
        subject: prompts.subject,
        corrupted: Some(prompts.corrupted),
        ..Fact::default()
    };
    (model, fact, text)
}

/// What `make_head_attribution.py` writes: by kind, `[token][head][layer]` or `[head][layer]`.
#[derive(Deserialize)]
struct OfHeads {
    denoising: BTreeMap<String, Value>,
    noising: BTreeMap<String, Value>,
}

#[test]
fn estimates_of_heads_are_gradients_times_what_whole_passes_do_to_patterns() {
    tch::set_num_threads(1);
    for name in ["gpt2", "llama", "gpt-neox-parallel", "qwen3", "mistral"] {
        let (model, fact, text) = family(name);
        let expected: OfHeads = serde_json::from_str(&text("head_attribution.json")).unwrap();
        for (direction, effects) in [
            (Direction::Denoising, &expected.denoising),
            (Direction::Noising, &expected.noising),
        ] {
            let settings = Settings {
                kinds: Kind::ALL
                    .into_iter()
                    .filter(|it| it.is_of_heads())
                    .collect(),
                metrics: vec![Metric::LogitDifference],
                direction,
                engine: Engine::Attribution(Gradient::default()),
                ..Settings::new(Corruption::Counterfactual(Vec::new()))
            };
            assert_eq!(settings.kinds.len(), effects.len());
            for grid in trace(&model, &fact, &settings, &Unwatched).unwrap() {
                let grid = grid.in_metric(Metric::LogitDifference).unwrap();
                let (sizes, changes) = numbers(&effects[&grid.kind.to_string()]);
                assert_eq!(grid.shape(), sizes);
                let most = changes.iter().fold(1e-6_f64, |most, it| most.max(it.abs()));
                let sign = direction.order(Metric::LogitDifference);
                for (&score, change) in grid.scores.iter().zip(changes) {
                    let found = sign * grid.effect(score).unwrap();
                    assert!(
                        (found - change).abs() < 2e-3 * most,
                        "{name}, {}: {found} {change} of {most}",
                        grid.measure()
                    );
                }
            }
        }
    }
}

#[test]
fn estimates_are_those_of_transformers_in_every_metric_and_direction() {
    tch::set_num_threads(1);
    for family in ["gpt2", "llama", "gpt-neox-parallel", "qwen3", "mistral"] {
        let (model, fact, text) = self::family(family);
        let expected: Expected = serde_json::from_str(&text("attribution.json")).unwrap();
        let mut compared = 0;
        for (direction, effects) in [
            (Direction::Denoising, &expected.denoising),
            (Direction::Noising, &expected.noising),
        ] {
            let metrics: Vec<Metric> = effects.keys().map(|it| it.parse().unwrap()).collect();
            for (way, steps, drop) in [
                ("plain", 1, false),
                ("integrated", expected.steps, false),
                ("drop", 1, true),
            ] {
                let settings = Settings {
                    metrics: metrics.clone(),
                    window: 1,
                    direction,
                    engine: Engine::Attribution(Gradient { steps, drop }),
                    ..Settings::new(Corruption::Counterfactual(Vec::new()))
                };
                for grid in trace(&model, &fact, &settings, &Unwatched).unwrap() {
                    for &metric in &metrics {
                        let grid = grid.in_metric(metric).unwrap();
                        let rows = &effects[&metric.to_string()][way][&grid.kind.to_string()];
                        let most = rows.iter().flatten();
                        let most = most.fold(1e-6_f64, |most, it| most.max(it.abs()));
                        // Effects here point to what is looked for; there they are changes.
                        let sign = if drop { 1.0 } else { direction.order(metric) };
                        for (token, row) in rows.iter().enumerate() {
                            for (layer, &change) in row.iter().enumerate() {
                                let score = grid.score(token, layer).unwrap();
                                let found = grid.effect(score).unwrap();
                                let change = sign * change;
                                assert!(
                                    (found - change).abs() < 1e-3 * most,
                                    "{family}, {way}, {} {token} {layer}: {found} {change} of \
                                     {most}",
                                    grid.measure()
                                );
                                compared += 1;
                            }
                        }
                    }
                }
            }
        }
        assert!(compared > 1_000, "{compared}");
    }
}
