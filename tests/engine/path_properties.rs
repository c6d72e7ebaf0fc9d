//! What holds of path patching by definition, tried on random prompts, receivers and memory budgets,
//! on tiny models of several families.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use palimpsest::causal::{
    Direction, Engine, Error, Fact, Input, Kind, Metric, Noise, Paths, Receiver, Settings,
    Unwatched, trace,
};
use palimpsest::model::Model;
use proptest::prelude::*;
use tch::Kind as Dtype;

use crate::families::{FAMILIES, models};
use crate::patching_properties::{Case, cases, check, distance};

/// A case with paths, as numbers of the model's layers and heads.
#[derive(Debug, Clone)]
struct Along {
    case: Case,
    receivers: Vec<(usize, usize, usize)>,
    frozen_mlps: bool,
}

impl Along {
    /// The case with the paths that its model has.
    fn of(&self, models: &[Model]) -> Case {
        let config = models[self.case.model].config();
        let mut receivers: Vec<Receiver> = Vec::new();
        for &(layer, head, input) in &self.receivers {
            let input = [Input::Query, Input::Key, Input::Value][input];
            let heads = match input {
                Input::Query => config.heads,
                Input::Key | Input::Value => config.kv_heads,
            };
            let receiver = Receiver {
                layer: layer % config.layers,
                head: head % heads,
                input,
            };
            if !receivers.contains(&receiver) {
                receivers.push(receiver);
            }
        }
        let mut case = self.case.clone();
        case.settings.kinds = vec![Kind::Head, Kind::HeadAll];
        case.settings.severed.clear();
        case.settings.paths = Some(Paths {
            receivers,
            frozen_mlps: self.frozen_mlps,
        });
        case
    }
}

fn along() -> impl Strategy<Value = Along> {
    let receivers = prop::collection::vec((0..8_usize, 0..8_usize, 0..3_usize), 1..5);
    (cases(), receivers, any::<bool>()).prop_map(|(case, receivers, frozen_mlps)| Along {
        case,
        receivers,
        frozen_mlps,
    })
}

#[test]
fn the_exact_engine_gives_what_two_full_passes_a_cell_give() {
    let models = models(Dtype::Float);
    check(32, (along(), any::<bool>()), |(along, noisy)| {
        let mut case = along.of(&models);
        prop_assume!(case.first(&models).is_some());
        if noisy {
            case.settings.corruption = Noise::gaussian(0.5).into();
            case.settings.direction = Default::default();
            case.settings.metrics = vec![Metric::Kl];
            case.settings.samples = 3;
        }
        let exact = case.trace(&models, |_| ());
        let plain = case.trace(&models, |settings| settings.engine = Engine::Plain);
        prop_assert_eq!(exact.is_some(), plain.is_some());
        let Some((exact, plain)) = exact.zip(plain) else {
            return Ok(());
        };
        for &metric in &case.settings.metrics {
            let distance = distance(&exact, &plain, metric);
            let most = if metric == Metric::Rank { 1.0 } else { 5e-5 };
            prop_assert!(
                distance <= most,
                "{} {metric}: {distance}",
                FAMILIES[case.model]
            );
        }
        Ok(())
    });
}

#[test]
fn no_path_leads_down_and_none_from_where_the_runs_are_equal() {
    let models = models(Dtype::Float);
    check(24, along(), |along| {
        let case = along.of(&models);
        let Some(first) = case.first(&models) else {
            return Ok(());
        };
        let paths = case.settings.paths.clone().unwrap();
        let highest = paths.receivers.iter().map(|it| it.layer).max().unwrap();
        let noising = case.settings.direction != Default::default();
        for grid in case.trace(&models, |_| ()).unwrap_or_default() {
            let unpatched = if noising {
                grid.high
            } else {
                grid.low.unwrap()
            };
            for (cell, &score) in grid.scores.iter().enumerate() {
                let (row, layer) = (cell / grid.layers, cell % grid.layers);
                let before = grid.kind == Kind::Head && row / grid.heads < first;
                if layer >= highest || before {
                    prop_assert_eq!(score, unpatched);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn noising_along_paths_is_denoising_of_the_swapped_pair_to_the_byte() {
    let models = models(Dtype::Float);
    check(24, along(), |along| {
        let case = along.of(&models);
        prop_assume!(case.first(&models).is_some());
        let swap = |settings: &mut Settings| {
            settings.direction = match settings.direction {
                Direction::Denoising => Direction::Noising,
                Direction::Noising => Direction::Denoising,
            };
            settings.metrics = vec![Metric::LogitDifference];
        };
        let here = case.trace(&models, |settings| {
            settings.metrics = vec![Metric::LogitDifference];
        });
        let there = case.swapped().trace(&models, swap);
        let Some((here, there)) = here.zip(there) else {
            return Ok(());
        };
        for (here, there) in here.iter().zip(&there) {
            let [here, there] =
                [here, there].map(|grid| grid.in_metric(Metric::LogitDifference).unwrap().scores);
            // Answer and foil are in each other's place.
            let negated: Vec<f64> = there.iter().map(|score| -score).collect();
            prop_assert_eq!(here, negated);
        }
        Ok(())
    });
}

#[test]
fn paths_that_a_model_has_not_and_other_kinds_are_refused_by_name() {
    let models = models(Dtype::Float);
    let llama = FAMILIES.iter().position(|name| *name == "llama").unwrap();
    let config = models[llama].config();
    let refused = |kinds: &[Kind], receivers: &[&str]| -> Error {
        let settings = Settings {
            kinds: kinds.to_vec(),
            paths: Some(Paths {
                receivers: receivers.iter().map(|it| it.parse().unwrap()).collect(),
                frozen_mlps: false,
            }),
            ..Settings::new(Noise::gaussian(0.1))
        };
        let fact = Fact {
            prompt: "The Castle of Aster".into(),
            subject: "Castle".into(),
            ..Default::default()
        };
        trace(&models[llama], &fact, &settings, &Unwatched).unwrap_err()
    };
    let heads = [Kind::Head];
    for (error, expected) in [
        (refused(&heads, &[]), "receivers = none: name at least one"),
        (
            refused(&heads, &["1.0.q", "1.0.q"]),
            "receivers = 1.0.q: it is named twice",
        ),
        (
            refused(&[Kind::Head, Kind::Mlp], &["1.0.q"]),
            "kinds = mlp: paths begin at heads",
        ),
        (
            refused(&heads, &["3.0.q"]),
            "receivers = 3.0.q: the model has 3 layers, and 4",
        ),
        (
            refused(&heads, &["2.2.k"]),
            "receivers = 2.2.k: the model has 3 layers, and 2",
        ),
    ] {
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    assert_eq!((config.layers, config.heads, config.kv_heads), (3, 4, 2));
}
