//! Answers of several tokens, read whole: as transformers gives them, and what holds of them by
//! definition, on tiny models of several families.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use palimpsest::causal::{
    Corruption, Direction, Engine, Error, Fact, Gradient, Grid, Kind, Metric, Noise, Settings,
    Severed, Unwatched, trace,
};
use palimpsest::model::{Checkpoint, Model, Pass, Plain};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use tch::Kind as Dtype;

use crate::families::{FAMILIES, WORDS, kinds, layer_kinds, models};
use crate::patching_fixtures::numbers;
use crate::patching_properties::{check, distance};

/// What `make_answers.py` writes, by one whole forward pass of transformers a cell and answer.
#[derive(Deserialize)]
struct Expected {
    prompt: String,
    subject: String,
    corrupted: String,
    attribute: String,
    foil: String,
    answer_ids: Vec<u32>,
    foil_ids: Vec<u32>,
    window: usize,
    clean: BTreeMap<String, f64>,
    low: BTreeMap<String, f64>,
    denoising: BTreeMap<String, BTreeMap<String, Value>>,
    noising: BTreeMap<String, BTreeMap<String, Value>>,
}

/// All tokens of an answer and of its foil.
fn ids(grid: &Grid) -> (Vec<u32>, Vec<u32>) {
    let rest = |tokens: &[palimpsest::causal::Token]| -> Vec<u32> {
        tokens.iter().map(|token| token.id).collect()
    };
    let foil = grid.foil.as_ref().map(|foil| foil.id);
    (
        [&[grid.answer.id], rest(&grid.answer_rest).as_slice()].concat(),
        foil.into_iter().chain(rest(&grid.foil_rest)).collect(),
    )
}

#[test]
fn both_engines_read_whole_answers_as_transformers_gives_them() {
    tch::set_num_threads(1);
    for family in ["gpt2", "llama", "gpt-neox-parallel"] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(family);
        let text = fs::read_to_string(folder.join("answers.json")).unwrap();
        let expected: Expected = serde_json::from_str(&text).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let model = Model::load(&checkpoint, tch::Device::Cpu, Dtype::Float).unwrap();
        let fact = Fact {
            prompt: expected.prompt.clone(),
            subject: expected.subject.clone(),
            attribute: Some(expected.attribute.clone()),
            corrupted: Some(expected.corrupted.clone()),
            foil: Some(expected.foil.clone()),
            ..Fact::default()
        };
        for engine in [Engine::Exact, Engine::Plain] {
            for direction in [Direction::Denoising, Direction::Noising] {
                let cells = match direction {
                    Direction::Denoising => &expected.denoising,
                    Direction::Noising => &expected.noising,
                };
                let settings = Settings {
                    metrics: Metric::ALL.to_vec(),
                    whole_answers: true,
                    window: expected.window,
                    direction,
                    engine,
                    ..Settings::new(Corruption::Counterfactual(Vec::new()))
                };
                for grid in trace(&model, &fact, &settings, &Unwatched).unwrap() {
                    assert!(grid.traced(), "{family}");
                    let (answer, foil) = ids(&grid);
                    assert_eq!((&answer, &foil), (&expected.answer_ids, &expected.foil_ids));
                    assert_eq!(grid.answer_text().trim(), expected.attribute);
                    for metric in Metric::ALL {
                        let name = metric.to_string();
                        let grid = grid.in_metric(metric).unwrap();
                        let what = format!("{family} {engine} {direction} {} {name}", grid.kind);
                        let near = |found: f64, expected: f64| {
                            let most = 5e-5 * expected.abs().max(1.0);
                            let distance = (found - expected).abs();
                            assert!(distance < most, "{what}: {found} {expected}");
                        };
                        near(grid.high, expected.clean[&name]);
                        near(grid.low.unwrap(), expected.low[&name]);
                        let (sizes, values) = numbers(&cells[&grid.kind.to_string()][&name]);
                        assert_eq!(grid.shape(), sizes, "{what}");
                        for (&found, value) in grid.scores.iter().zip(values) {
                            near(found, value);
                        }
                    }
                }
            }
        }
    }
}

/// The most probable tokens behind a prompt as a text, where the tokenizer reads them out of it
/// again.
fn answer(model: &Model, prompt: &str, count: usize) -> Option<String> {
    let tokenizer = model.tokenizer();
    let before = tokenizer.encode(prompt).unwrap().ids;
    let mut all = before.clone();
    for _ in 0..count {
        let mut x = model.add_positions(&model.embed(&model.ids(&all).unwrap()), 0);
        for layer in 0..model.config().layers {
            x = model.block(layer, &x, Pass::default(), &mut Plain).hidden;
        }
        let logits = model.logits(&x.select(1, -1));
        all.push(logits.get(0).argmax(-1, false).int64_value(&[]) as u32);
    }
    let said = &all[before.len()..];
    let text = tokenizer.decode_after(&before, said).unwrap();
    let text = text.trim().to_owned();
    let read = tokenizer.continuation(prompt, &text).ok()?;
    (read.target == said && !text.contains('\u{FFFD}')).then_some(text)
}

/// Facts whose answers have several tokens, of the families whose tokenizer reads what such models
/// say out of its text again; and of every family some that have a foil of several tokens.
fn facts(models: &[Model]) -> Vec<(usize, Fact)> {
    let _no_grad = tch::no_grad_guard();
    let mut facts = Vec::new();
    for (n, model) in models.iter().enumerate() {
        let fact = |prompt: &str, other: &str, attribute: Option<&String>, foil: &str| Fact {
            subject: prompt.split(' ').next().unwrap().to_owned(),
            prompt: prompt.to_owned(),
            attribute: attribute.cloned(),
            corrupted: Some(other.to_owned()),
            foil: Some(foil.to_owned()),
            ..Fact::default()
        };
        let read = |prompt: &str| model.tokenizer().encode(prompt).unwrap().ids.len();
        if read("The Castle in") == read("the Castle in") {
            facts.push((
                n,
                fact("The Castle in", "the Castle in", None, "Castle of land"),
            ));
        }
        if n > 2 {
            continue;
        }
        let mut found: Vec<(String, String, usize)> = Vec::new();
        for (one, two) in WORDS.iter().flat_map(|one| WORDS.map(|two| (one, two))) {
            let prompt = format!("{one} {two} in");
            if let Some(text) = answer(model, &prompt, 2 + found.len() % 2) {
                let tokens = read(&prompt);
                found.push((prompt, text, tokens));
            }
            if found.len() == 8 {
                break;
            }
        }
        for (prompt, answer, tokens) in &found {
            let mut others = found.iter();
            let other = others.find(|(_, foil, as_many)| tokens == as_many && answer != foil);
            if let Some((other, foil, _)) = other {
                facts.push((n, fact(prompt, other, Some(answer), foil)));
            }
        }
    }
    let whole = facts.iter().filter(|(_, fact)| fact.attribute.is_some());
    let whole: std::collections::BTreeSet<usize> = whole.map(|(n, _)| *n).collect();
    assert!(whole.len() > 1, "{whole:?}");
    facts
}

/// With the two prompts, and their answers, in each other's place.
fn swapped(fact: &Fact) -> Fact {
    let prompt = fact.corrupted.clone().unwrap();
    Fact {
        subject: prompt.split(' ').next().unwrap().to_owned(),
        prompt,
        corrupted: Some(fact.prompt.clone()),
        attribute: fact.foil.clone(),
        foil: fact.attribute.clone(),
        ..Fact::default()
    }
}

#[test]
fn the_exact_engine_reads_whole_answers_as_one_full_pass_a_cell_does() {
    let models = models(Dtype::Float);
    let facts = facts(&models);
    let cases = (0..facts.len(), 1..6_usize, 0..3_u8, 12..24_u32);
    check(12, cases, |(at, window, corruption, budget)| {
        let (model, fact) = &facts[at];
        let settings = Settings {
            kinds: kinds(*model),
            severed: vec![Severed::Mlp, Severed::Attn],
            metrics: Metric::ALL.to_vec(),
            whole_answers: true,
            window,
            memory_bytes: 1 << budget,
            direction: match corruption {
                0 => Direction::Noising,
                _ => Direction::Denoising,
            },
            samples: 3,
            ..Settings::new(match corruption {
                2 => Corruption::from(Noise::gaussian(0.3)),
                _ => Corruption::Counterfactual(Vec::new()),
            })
        };
        let run = |engine| {
            let settings = Settings {
                engine,
                ..settings.clone()
            };
            trace(&models[*model], fact, &settings, &Unwatched).unwrap()
        };
        let (exact, plain) = (run(Engine::Exact), run(Engine::Plain));
        for (exact, plain) in exact.iter().zip(&plain) {
            let (answer, foil) = ids(exact);
            prop_assert!(exact.traced() && answer.len().max(foil.len()) > 1);
            for metric in Metric::ALL {
                let most = exact.in_metric(metric).unwrap().scores;
                let most = most.iter().fold(1.0_f64, |most, it| most.max(it.abs()));
                let (one, other) = (std::slice::from_ref(exact), std::slice::from_ref(plain));
                let distance = distance(one, other, metric);
                // A difference is of two runs.
                let most = match metric {
                    Metric::LogitDifference => 2.0 * most,
                    _ => most,
                };
                let what = format!("{}, {}, {metric}", FAMILIES[*model], exact.measure());
                prop_assert!(distance < 1e-5 * most, "{what}: {distance}");
            }
            // Where all metrics but the logit difference are of one run.
            let metric = |metric| exact.in_metric(metric).unwrap();
            let logarithm = metric(Metric::LogProbability);
            if exact.samples == 1 {
                let pairs = exact.scores.iter().zip(&logarithm.scores);
                for (probability, logarithm) in pairs {
                    prop_assert!((probability.ln() - logarithm).abs() < 1e-9);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn noising_with_whole_answers_is_denoising_with_the_prompts_in_each_others_place() {
    let models = models(Dtype::Float);
    let whole = facts(&models).into_iter();
    let whole = whole.filter(|(_, fact)| fact.attribute.is_some());
    for (model, fact) in whole.step_by(2) {
        let run = |fact: &Fact, direction| {
            let settings = Settings {
                kinds: kinds(model),
                metrics: vec![Metric::LogitDifference],
                whole_answers: true,
                direction,
                ..Settings::new(Corruption::Counterfactual(Vec::new()))
            };
            trace(&models[model], fact, &settings, &Unwatched).unwrap()
        };
        let noising = run(&fact, Direction::Noising);
        let denoising = run(&swapped(&fact), Direction::Denoising);
        for (one, other) in noising.iter().zip(&denoising) {
            let in_both = [one, other].map(|it| it.in_metric(Metric::LogitDifference).unwrap());
            let [one, other] = in_both;
            // The answers are in each other's place too.
            let negated: Vec<f64> = other.scores.iter().map(|it| -it).collect();
            assert_eq!(one.scores, negated, "{} {}", FAMILIES[model], one.kind);
            assert_eq!(
                (one.high, one.low),
                (-other.low.unwrap(), Some(-other.high))
            );
        }
    }
}

#[test]
fn an_answer_of_one_token_is_the_same_whole() {
    let models = models(Dtype::Float);
    for (n, model) in models.iter().enumerate() {
        let fact = Fact {
            prompt: "The Castle in".to_owned(),
            subject: "The".to_owned(),
            corrupted: Some("the Castle in".to_owned()),
            ..Fact::default()
        };
        let run = |whole_answers| {
            let settings = Settings {
                kinds: kinds(n),
                metrics: Metric::ALL.to_vec(),
                whole_answers,
                ..Settings::new(Corruption::Counterfactual(Vec::new()))
            };
            trace(model, &fact, &settings, &Unwatched)
        };
        match (run(false), run(true)) {
            (Ok(first), Ok(whole)) => {
                for (first, whole) in first.into_iter().zip(whole) {
                    let whole = Grid {
                        whole_answers: false,
                        ..whole
                    };
                    assert_eq!(first, whole, "{}", FAMILIES[n]);
                }
            }
            (Err(first), Err(whole)) => assert_eq!(first.to_string(), whole.to_string()),
            other => panic!("{}: {other:?}", FAMILIES[n]),
        }
    }
}

#[test]
fn what_a_model_does_not_say_in_every_token_is_not_traced() {
    let models = models(Dtype::Float);
    let whole = facts(&models).into_iter();
    let mut whole = whole.filter(|(_, fact)| fact.attribute.is_some());
    let (model, fact) = whole.next().unwrap();
    let settings = Settings {
        whole_answers: true,
        ..Settings::new(Corruption::Counterfactual(Vec::new()))
    };
    let run = |fact: &Fact| trace(&models[model], fact, &settings, &Unwatched);
    assert!(run(&fact).unwrap()[0].correct_prediction);
    let attribute = fact.attribute.clone().unwrap();
    let longer = Fact {
        attribute: Some(format!("{attribute} of the land")),
        ..fact.clone()
    };
    let grid = run(&longer).unwrap().swap_remove(0);
    assert!(!grid.correct_prediction && grid.answer_rest.is_empty());
    assert_eq!(grid.scores.len(), 0);
    let context = models[model].config().context;
    let long = Fact {
        attribute: Some("land ".repeat(context)),
        ..fact.clone()
    };
    let error = run(&long).unwrap_err();
    assert!(matches!(error, Error::AnswerTooLong { .. }), "{error}");
    let same = Fact {
        foil: fact.attribute.clone(),
        ..fact
    };
    let error = run(&same).unwrap_err();
    assert!(matches!(error, Error::FoilIsAnswer { .. }), "{error}");
}

#[test]
fn integrated_gradients_of_whole_answers_add_up_to_their_total_effect() {
    let models = models(Dtype::Float);
    for (model, fact) in facts(&models).into_iter().step_by(4) {
        let settings = Settings {
            kinds: layer_kinds(model),
            metrics: vec![Metric::LogProbability, Metric::Kl],
            whole_answers: true,
            engine: Engine::Attribution(Gradient {
                steps: 128,
                drop: false,
            }),
            ..Settings::new(Corruption::Counterfactual(Vec::new()))
        };
        let grids = trace(&models[model], &fact, &settings, &Unwatched).unwrap();
        let pre = grids.iter().find(|it| it.kind == Kind::ResidPre).unwrap();
        for metric in [Metric::Probability, Metric::LogProbability] {
            let pre = pre.in_metric(metric).unwrap();
            let summed: f64 = (0..pre.tokens.len())
                .map(|token| pre.effect(pre.score(token, 0).unwrap()).unwrap())
                .sum();
            let total = pre.total_effect().unwrap();
            let off = (summed - total).abs();
            // The left rule over steps of 1/128.
            assert!(
                off < 0.05 * total.abs().max(0.05),
                "{}, {metric}: {summed} {total}",
                FAMILIES[model]
            );
        }
    }
}
