//! Activation patching between two prompts on tiny models: both engines give what transformers
//! gives, in every metric and both directions.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use palimpsest::causal::{
    Corruption, Direction, Engine, Fact, Kind, Metric, Settings, Unwatched, trace,
};
use palimpsest::model::{Checkpoint, Model};
use serde::Deserialize;
use serde_json::Value;

/// By metric: `[token][layer]`; of heads `[token][head][layer]` or `[head][layer]`.
type Cells = BTreeMap<String, Value>;

/// Nested lists of numbers: their sizes, and the numbers row by row.
pub fn numbers(nested: &Value) -> (Vec<usize>, Vec<f64>) {
    match nested {
        Value::Array(inner) => {
            let parts: Vec<_> = inner.iter().map(numbers).collect();
            let sizes = [&[inner.len()], parts[0].0.as_slice()].concat();
            (sizes, parts.into_iter().flat_map(|part| part.1).collect())
        }
        number => (Vec::new(), vec![number.as_f64().unwrap()]),
    }
}

/// What `make_patching.py` writes, by one whole forward pass of transformers a cell.
#[derive(Deserialize)]
struct Expected {
    prompt: String,
    subject: String,
    corrupted: String,
    token_ids: Vec<u32>,
    corrupted_ids: Vec<u32>,
    answer: u32,
    foil: u32,
    window: usize,
    clean: BTreeMap<String, f64>,
    low: BTreeMap<String, f64>,
    denoising: BTreeMap<String, Cells>,
    noising: BTreeMap<String, Cells>,
}

#[test]
fn both_engines_patch_as_transformers_does_in_every_metric_and_direction() {
    tch::set_num_threads(1);
    for family in ["gpt2", "llama", "gpt-neox-parallel", "qwen3", "mistral"] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(family);
        let text = fs::read_to_string(folder.join("patching.json")).unwrap();
        let expected: Expected = serde_json::from_str(&text).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let model = Model::load(&checkpoint, tch::Device::Cpu, tch::Kind::Float).unwrap();
        let fact = Fact {
            prompt: expected.prompt.clone(),
            subject: expected.subject.clone(),
            corrupted: Some(expected.corrupted.clone()),
            ..Fact::default()
        };
        for (engine, direction) in [
            (Engine::Exact, Direction::Denoising),
            (Engine::Exact, Direction::Noising),
            (Engine::Plain, Direction::Denoising),
            (Engine::Plain, Direction::Noising),
        ] {
            let cells = match direction {
                Direction::Denoising => &expected.denoising,
                Direction::Noising => &expected.noising,
            };
            let settings = Settings {
                kinds: (Kind::ALL.into_iter())
                    .filter(|kind| cells.contains_key(&kind.to_string()))
                    .collect(),
                metrics: Metric::ALL.to_vec(),
                window: expected.window,
                direction,
                engine,
                ..Settings::new(Corruption::Counterfactual(Vec::new()))
            };
            // All but the residual before a block and between its halves, and neurons.
            assert_eq!(settings.kinds.len() + 3, Kind::ALL.len(), "{family}");
            for grid in trace(&model, &fact, &settings, &Unwatched).unwrap() {
                let ids: Vec<u32> = grid.tokens.iter().map(|token| token.id).collect();
                let other = grid.corrupted.as_ref().unwrap();
                let others: Vec<u32> = other.tokens.iter().map(|token| token.id).collect();
                assert_eq!(
                    (&ids, &others),
                    (&expected.token_ids, &expected.corrupted_ids)
                );
                assert_eq!(grid.answer.id, expected.answer);
                assert_eq!(grid.foil.as_ref().unwrap().id, expected.foil);
                for metric in Metric::ALL {
                    let name = metric.to_string();
                    let grid = grid.in_metric(metric).unwrap();
                    let what = format!("{family} {engine} {direction} {} {name}", grid.kind);
                    // Logits of two programs on one libtorch differ by a few units of their last
                    // place, here of numbers up to 15.
                    let near = |found: f64, expected: f64| {
                        let most = 1e-5 * expected.abs().max(1.0) * 5.0;
                        assert!(
                            (found - expected).abs() < most,
                            "{what}: {found} {expected}"
                        );
                    };
                    near(grid.high, expected.clean[&name]);
                    near(grid.low.unwrap(), expected.low[&name]);
                    // Of parts of heads there is one metric.
                    let Some(cells) = cells[&grid.kind.to_string()].get(&name) else {
                        continue;
                    };
                    let (sizes, values) = numbers(cells);
                    assert_eq!(grid.shape(), sizes, "{what}");
                    for (&found, value) in grid.scores.iter().zip(values) {
                        near(found, value);
                    }
                }
            }
        }
    }
}
