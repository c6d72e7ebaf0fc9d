//! Path patching on tiny models: both engines give what two whole passes of transformers a cell
//! give, into queries, keys and values, with MLPs that react and MLPs that are held.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use palimpsest::causal::{
    Corruption, Direction, Engine, Fact, Kind, Metric, Paths, Settings, Unwatched, trace,
};
use palimpsest::model::{Checkpoint, Model};
use serde::Deserialize;
use serde_json::Value;

use crate::patching_fixtures::numbers;

/// What `make_patching.py` writes of the two prompts.
#[derive(Deserialize)]
struct Pair {
    prompt: String,
    subject: String,
    corrupted: String,
}

/// The logit difference of the cells of `head` and `head_all`.
type Cells = BTreeMap<String, Value>;

/// What `make_paths.py` writes, with MLPs `recomputed` and `frozen`.
#[derive(Deserialize)]
struct Expected {
    receivers: Vec<String>,
    denoising: BTreeMap<String, Cells>,
    noising: BTreeMap<String, Cells>,
}

fn read<T: for<'a> Deserialize<'a>>(path: PathBuf) -> T {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn both_engines_patch_paths_as_transformers_does() {
    tch::set_num_threads(1);
    for family in ["gpt2", "llama", "gpt-neox-parallel", "qwen3", "mistral"] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(family);
        let pair: Pair = read(folder.join("patching.json"));
        let expected: Expected = read(folder.join("paths.json"));
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let model = Model::load(&checkpoint, tch::Device::Cpu, tch::Kind::Float).unwrap();
        let fact = Fact {
            prompt: pair.prompt,
            subject: pair.subject,
            corrupted: Some(pair.corrupted),
            ..Fact::default()
        };
        let receivers = expected.receivers.iter().map(|it| it.parse().unwrap());
        let receivers: Vec<_> = receivers.collect();
        for (direction, by_mlps) in [
            (Direction::Denoising, &expected.denoising),
            (Direction::Noising, &expected.noising),
        ] {
            for (mlps, cells) in by_mlps {
                for engine in [Engine::Exact, Engine::Plain] {
                    let settings = Settings {
                        kinds: vec![Kind::Head, Kind::HeadAll],
                        metrics: vec![Metric::LogitDifference],
                        direction,
                        engine,
                        paths: Some(Paths {
                            receivers: receivers.clone(),
                            frozen_mlps: mlps == "frozen",
                        }),
                        ..Settings::new(Corruption::Counterfactual(Vec::new()))
                    };
                    for grid in trace(&model, &fact, &settings, &Unwatched).unwrap() {
                        let grid = grid.in_metric(Metric::LogitDifference).unwrap();
                        let (sizes, values) = numbers(&cells[&grid.kind.to_string()]);
                        assert_eq!(grid.shape(), sizes);
                        assert!(values.iter().any(|&value| (value - values[0]).abs() > 1e-3));
                        for (found, value) in grid.scores.iter().zip(values) {
                            assert!(
                                (found - value).abs() < 5e-5,
                                "{family} {engine} {direction} {mlps} {}: {found} {value}",
                                grid.kind
                            );
                        }
                    }
                }
            }
        }
    }
}
