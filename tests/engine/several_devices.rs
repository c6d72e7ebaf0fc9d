//! A model that is spread over devices computes what it does on one, to the bit: whatever looks into
//! it, or has a hand in it, has one device before it. Here all devices are the processor, whose
//! tensors are copied from one to another all the same.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::path::PathBuf;

use palimpsest::causal::{
    Corruption, Direction, Engine, Gradient, Metric, Noise, Settings, Unwatched, trace,
};
use palimpsest::edit::{
    self, Contexts, Hyperparameters, KeyCovariance, Method, Overrides, Request, fine_tune,
    mass_keys, rank_one, target,
};
use palimpsest::model::{Checkpoint, Model, Plain, continue_greedily};
use palimpsest::stats::{Collector, pieces};
use tch::{Device, Kind as Dtype};

use crate::attribution_properties::pairs;
use crate::families::{FAMILIES, WORDS, kinds, with_mlp};

/// A family's model on one device, and spread over three.
fn both(name: &str) -> [Model; 2] {
    tch::set_num_threads(1);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    [1, 3].map(|devices| {
        Model::load_over(&checkpoint, &[Device::Cpu; 3][..devices], Dtype::Float).unwrap()
    })
}

#[test]
fn every_family_gives_the_same_logits_and_continues_texts_alike() {
    for name in FAMILIES {
        let [alone, over] = both(name);
        let ids = alone.tokenizer().encode(&WORDS.join(" ")).unwrap().ids;
        let _no_grad = tch::no_grad_guard();
        let logits = |model: &Model| model.forward(&model.ids(&ids).unwrap(), &mut Plain);
        assert!(logits(&alone).equal(&logits(&over)), "{name}");
        let texts = [&ids[..3], &ids[1..7]].map(<[u32]>::to_vec);
        let went_on = |model: &Model| continue_greedily(model, &texts, 4, || true).unwrap();
        assert_eq!(went_on(&alone), went_on(&over), "{name}");
    }
}

#[test]
fn grids_of_every_kind_and_engine_are_the_same() {
    for (n, name) in FAMILIES.iter().enumerate().step_by(2) {
        let [alone, over] = both(name);
        let fact = pairs(&alone, 1).remove(0);
        let by_noise = Settings {
            kinds: kinds(n),
            samples: 2,
            window: 2,
            ..Settings::new(Noise::gaussian(0.3))
        };
        let by_prompt = Settings {
            corruption: Corruption::Counterfactual(Vec::new()),
            metrics: vec![Metric::LogitDifference],
            ..by_noise.clone()
        };
        let mut all = vec![by_noise.clone(), by_prompt.clone()];
        all.push(Settings {
            engine: Engine::Plain,
            ..by_noise
        });
        let has_neurons = alone.config().experts.is_none();
        let neurons = has_neurons.then_some(palimpsest::causal::Kind::Neuron);
        all.push(Settings {
            engine: Engine::Attribution(Gradient {
                steps: 2,
                drop: true,
            }),
            kinds: kinds(n).into_iter().chain(neurons).collect(),
            direction: Direction::Noising,
            verify: 3,
            ..by_prompt
        });
        for settings in all {
            let of = |model: &Model| trace(model, &fact, &settings, &Unwatched).unwrap();
            let (alone, over) = (of(&alone), of(&over));
            assert!(!alone.is_empty());
            for (one, other) in alone.iter().zip(&over) {
                assert_eq!(
                    one.scores, other.scores,
                    "{name} {:?} {:?}",
                    settings.engine, one.kind
                );
                assert!(
                    one.scores.iter().any(|score| *score != one.scores[0]),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn edits_and_statistics_are_the_same() {
    let request = Request {
        prompt: "{} stands in the".into(),
        subject: "The Castle of Aster".into(),
        target_new: "city".into(),
        target_true: Some("land".into()),
    };
    let texts = ["{}".to_owned(), "on a hill {}".to_owned()];
    for name in FAMILIES {
        let [alone, over] = both(name);
        let Some(first) = with_mlp(&alone) else {
            continue;
        };
        let last = (0..alone.config().layers).rfind(|&l| alone.config().has_key(l).is_ok());
        let all = |model: &Model| {
            let mut collector = Collector::new(model, &[first, last.unwrap()]).unwrap();
            for piece in pieces(model, &WORDS.join(" "), 5).unwrap() {
                collector.add(&piece, |_| true).unwrap();
            }
            let moments = collector.finish(|_| true).unwrap();
            let hyper = |method| {
                let overrides = Overrides::at(Some(first))
                    .with(method, "steps", 3.0)
                    .unwrap();
                Hyperparameters::new(method, model.config(), &overrides).unwrap()
            };
            let covariance = KeyCovariance::new(moments[0].clone(), 1.0, Device::Cpu).unwrap();
            let (rome, tuned) = (Method::RRome, Method::FtL);
            let made = rank_one(
                model,
                &request,
                &texts,
                rome,
                &hyper(rome),
                &covariance,
                &edit::Unwatched,
            );
            let made = made.unwrap();
            let (tuned, _) = fine_tune(model, &request, &hyper(tuned), &edit::Unwatched).unwrap();
            let layers = alone.config().layers;
            let contexts = Contexts::read(model, &texts, layers, &edit::Unwatched).unwrap();
            let memit = hyper(Method::Memit);
            let found = target(
                model,
                std::slice::from_ref(&request),
                &contexts,
                &memit,
                &edit::Unwatched,
            );
            let keys = mass_keys(
                model,
                &request,
                &contexts,
                &[first],
                first,
                &edit::Unwatched,
            )
            .unwrap();
            let numbers = |t: &tch::Tensor| Vec::<f64>::try_from(t.flatten(0, -1)).unwrap();
            (
                moments
                    .iter()
                    .map(|moment| moment.sum().to_vec())
                    .collect::<Vec<_>>(),
                (made.update.left, made.update.right, made.value),
                (tuned.left, tuned.right),
                numbers(&found.unwrap().value),
                numbers(&keys.keys[0]),
            )
        };
        assert!(all(&alone) == all(&over), "{name}");
    }
}

#[test]
fn no_device_is_refused() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let refused = Model::load_over(&checkpoint, &[], Dtype::Float).unwrap_err();
    assert!(refused.to_string().contains("device"), "{refused}");
}
