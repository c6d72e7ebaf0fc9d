//! Causal tracing on a real model gives the figures of an independent implementation.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::path::PathBuf;

use palimpsest::causal::{Engine, Fact, Grid, Kind, Noise, Settings, Unwatched, trace};
use palimpsest::model::{Checkpoint, Model};

const FILE: &str = ".deps/SmolLM2-135M-Instruct.Q4_1.gguf";

fn eiffel_tower(engine: Engine, kinds: &[Kind]) -> Option<Vec<Grid>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if !path.exists() {
        crate::require::skip("model", format!("no {FILE}: run deploy/setup.sh"));
        return None;
    }
    // More threads wait for each other where other tests keep the cores busy.
    tch::set_num_threads(1);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let model = Model::load(&checkpoint, tch::Device::Cpu, tch::Kind::Float).unwrap();
    let fact = Fact {
        prompt: "The Eiffel Tower is located in the city of".into(),
        subject: "The Eiffel Tower".into(),
        attribute: Some("Paris".into()),
        ..Fact::default()
    };
    let settings = Settings {
        kinds: kinds.to_vec(),
        engine,
        ..Settings::new(Noise::gaussian(0.3))
    };
    Some(trace(&model, &fact, &settings, &Unwatched).unwrap())
}

fn check(grids: &[Grid]) {
    for grid in grids {
        let close = |found: f64, expected: f64| {
            assert!(
                (found - expected).abs() < 1e-3,
                "{} {found} {expected}",
                grid.kind
            );
        };
        assert_eq!(grid.answer.text, " Paris");
        assert_eq!(grid.subject, 0..4);
        close(grid.high, 0.7015);
        close(grid.low.unwrap(), 0.0116);
        let (.., highest) = grid.peak().unwrap();
        close(
            highest,
            match grid.kind {
                Kind::Hidden => 0.759,
                Kind::Mlp => 0.257,
                Kind::Attn => 0.767,
                other => panic!("{other} was not asked for"),
            },
        );
    }
}

#[test]
fn the_exact_engine_finds_where_the_eiffel_tower_is() {
    if let Some(grids) = eiffel_tower(Engine::Exact, &Kind::PUBLISHED) {
        check(&grids);
    }
}

#[test]
#[ignore = "one full forward pass a cell takes minutes"]
fn the_plain_engine_finds_where_the_eiffel_tower_is() {
    if let Some(grids) = eiffel_tower(Engine::Plain, &Kind::PUBLISHED) {
        check(&grids);
    }
}
