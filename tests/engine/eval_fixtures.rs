//! What a model answers to a record, and what follows from it, is what PyTorch gives for the same
//! definitions.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::fs;
use std::path::{Path, PathBuf};

use palimpsest::datasets::choices::Choice;
use palimpsest::datasets::evaluation::{self, Examples};
use palimpsest::eval::{self, Answer, Metric, Scored};
use palimpsest::model::{Checkpoint, Model, Sampling, continue_greedily, generate};
use serde_json::Value;

const MODELS: [&str; 3] = ["gpt2", "llama", "qwen2"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// What `make_evals.py` writes.
fn expected() -> Value {
    let text = fs::read_to_string(fixtures().join("evals.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn model(name: &str) -> Model {
    let checkpoint = Checkpoint::open(&fixtures().join(name)).unwrap();
    Model::load(&checkpoint, tch::Device::Cpu, tch::Kind::Float).unwrap()
}

/// The records of a fixture as a user's file has them.
fn dataset(cases: &[Value]) -> evaluation::Dataset {
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines = cases.iter().map(|case| format!("{}\n", case["record"]));
    fs::write(file.path(), lines.collect::<String>()).unwrap();
    evaluation::read(file.path(), &Examples::default()).unwrap()
}

fn check(found: Option<Scored>, expected: &Value, what: &str) {
    let Some(found) = found else {
        assert!(expected.is_null(), "{what}: nothing, not {expected}");
        return;
    };
    let nll = expected["nll"].as_f64().unwrap();
    assert!((found.nll - nll).abs() < 1e-4, "{what}: {found:?} {nll}");
    assert_eq!(found.tokens as u64, expected["tokens"], "{what}");
    assert_eq!(found.likeliest as u64, expected["likeliest"], "{what}");
}

fn check_figures(found: &[(Metric, f64)], expected: &Value, what: &str) {
    let expected = expected.as_object().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}: {found:?}");
    for (metric, value) in found {
        let wanted = expected[&metric.to_string()].as_f64().unwrap();
        assert!(
            (value - wanted).abs() < 1e-4,
            "{what}, {metric}: {value} {wanted}"
        );
    }
}

#[test]
fn answers_and_measures_of_both_data_sets_are_pytorchs() {
    let expected = expected();
    for name in MODELS {
        let model = model(name);
        let mut scores: Vec<[f64; 3]> = Vec::new();
        for set in ["counterfact", "zsre"] {
            let cases = expected[name][set].as_array().unwrap();
            let data = dataset(cases);
            for (n, (record, case)) in data.records.iter().zip(cases).enumerate() {
                let what = format!("{name}, {set} {n}");
                let answers: Vec<Answer> = eval::ask(&model, &record.questions(data.set)).unwrap();
                let wanted = case["answers"].as_array().unwrap();
                assert_eq!(answers.len(), wanted.len(), "{what}");
                for (answer, wanted) in answers.iter().zip(wanted) {
                    check(answer.new, &wanted["new"], &what);
                    check(answer.old, &wanted["true"], &what);
                }
                let figures = eval::figures(data.set, &answers, &[], &[]);
                check_figures(&figures, &case["figures"], &what);
                if set == "counterfact" {
                    scores.push(Metric::SCORES.map(|metric| {
                        let found = figures.iter().find(|(it, _)| *it == metric);
                        found.unwrap().1
                    }));
                }
            }
        }
        let score = eval::harmonic(&scores).mean;
        let wanted = expected[name]["score"].as_f64().unwrap();
        assert!((score - wanted).abs() < 1e-4, "{name}: {score} {wanted}");
    }
}

#[test]
fn what_a_model_thinks_of_texts_is_pytorchs_loss() {
    let expected = expected();
    for name in MODELS {
        let model = model(name);
        let mut scores = Vec::new();
        for case in expected[name]["texts"].as_array().unwrap() {
            let read = eval::read(&model, case["text"].as_str().unwrap()).unwrap();
            let nll = case["nll"].as_f64().unwrap();
            assert!((read.nll - nll).abs() < 1e-4, "{name}: {read:?} {nll}");
            assert_eq!(read.tokens as u64, case["tokens"], "{name}");
            scores.push(read);
        }
        let wanted = expected[name]["perplexity"].as_f64().unwrap();
        let found = eval::perplexity(&scores).mean;
        assert!((found / wanted - 1.0).abs() < 1e-4, "{name}: {found}");
        for (text, words) in [
            ("very ".repeat(2000), "do not fit the model's context"),
            (String::new(), "give one of two or more"),
        ] {
            let said = eval::read(&model, &text).unwrap_err().to_string();
            assert!(
                said.starts_with("the text") && said.contains(words),
                "{said}"
            );
        }
    }
}

/// Prompts of all lengths, run together, are continued as each is alone by whole passes of
/// transformers, and by this engine's own continuation of one text.
#[test]
fn texts_that_are_continued_together_go_on_as_each_does_alone() {
    let expected = expected();
    for name in MODELS {
        let model = model(name);
        let cases = expected[name]["freely"].as_array().unwrap();
        let ids = |value: &Value| -> Vec<u32> {
            let ids = value.as_array().unwrap().iter();
            ids.map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let prompts: Vec<Vec<u32>> = cases.iter().map(|case| ids(&case["ids"])).collect();
        let most = prompts.iter().map(Vec::len).max().unwrap();
        assert!(most > 10 * prompts[0].len(), "of about one length");
        let found = continue_greedily(&model, &prompts, 20, || true).unwrap();
        let found = found.unwrap();
        for ((found, case), prompt) in found.iter().zip(cases).zip(&prompts) {
            let what = format!("{name}, {}", case["prompt"]);
            // Rounding decides nothing here.
            assert!(case["gap"].as_f64().unwrap() > 1e-4, "{what}");
            assert_eq!(*found, ids(&case["added"]), "{what}");
            let sampling = Sampling {
                temperature: 0.0,
                top_k: None,
                seed: 0,
                max_tokens: 20,
            };
            let alone = generate(&model, prompt, &sampling, |_| true).unwrap();
            assert_eq!(*found, alone.ids, "{what}");
        }
        let stopped = continue_greedily(&model, &prompts, 20, || false).unwrap();
        assert_eq!(stopped, None);
        let long = vec![vec![5; model.config().context - 3], vec![7; 3]];
        let found = continue_greedily(&model, &long, 20, || true).unwrap();
        let sampling = Sampling {
            temperature: 0.0,
            top_k: None,
            seed: 0,
            max_tokens: 20,
        };
        let alone = generate(&model, &long[0], &sampling, |_| true).unwrap();
        assert_eq!(found.unwrap()[0].len(), alone.ids.len(), "{name}");
        let over = vec![vec![5; model.config().context + 1]];
        assert!(continue_greedily(&model, &over, 20, || true).is_err());
    }
}

#[test]
fn what_a_model_thinks_of_choices_is_pytorchs() {
    let expected = expected();
    for name in MODELS {
        let case = &expected[name]["choice"];
        let texts = case["choices"].as_array().unwrap().iter();
        let choice = Choice {
            task: "so".to_owned(),
            prompt: case["prompt"].as_str().unwrap().to_owned(),
            choices: texts.map(|it| it.as_str().unwrap().to_owned()).collect(),
            right: 0,
        };
        let scores = eval::choose(&model(name), &choice).unwrap();
        let wanted = case["nll"].as_array().unwrap();
        let wanted: Vec<f64> = wanted.iter().map(|it| it.as_f64().unwrap()).collect();
        for (score, wanted) in scores.iter().zip(&wanted) {
            assert!(
                (score.nll - wanted).abs() < 1e-4,
                "{name}: {score:?} {wanted}"
            );
        }
        let least = (0..wanted.len()).min_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
        assert_eq!(eval::taken(&scores), least, "{name}");
    }
}

#[test]
fn the_entropy_of_a_text_is_that_of_an_independent_count() {
    let expected = &expected()["entropy"];
    let found = eval::entropy(expected["text"].as_str().unwrap());
    assert!((found - expected["value"].as_f64().unwrap()).abs() < 1e-9);
}

#[test]
fn a_text_is_drawn_again_by_its_seed_and_has_no_more_than_a_hundred_tokens() {
    let model = model("gpt2");
    let room = model.config().context;
    let draw = |prompt: &str, seed| eval::continue_freely(&model, prompt, seed, || true);
    let text = draw("A day", 7).unwrap();
    assert!(text.starts_with("A day"));
    assert_eq!(text, draw("A day", 7).unwrap());
    assert_ne!(text, draw("A day", 8).unwrap());
    let tokens = |text: &str| model.tokenizer().encode(text).unwrap().ids.len();
    assert!(tokens("A day") < 10 && room > 10);
    let long = "word ".repeat(200);
    let refused = draw(&long, 7);
    match refused {
        // A prompt of more than a hundred tokens is the text itself, if the model takes it.
        Ok(text) => assert_eq!(text, long),
        Err(error) => assert!(error.to_string().contains("generation prompt"), "{error}"),
    }
    let stopped = eval::continue_freely(&model, "A day", 7, || false).unwrap_err();
    assert!(matches!(stopped, eval::Error::Cancelled));
}

#[test]
fn a_prompt_that_does_not_fit_is_named() {
    let model = model("llama");
    let mut case = expected()["llama"]["counterfact"][0].clone();
    case["record"]["paraphrase_prompts"][1] = "very ".repeat(2000).trim().into();
    let data = dataset(&[case]);
    let refused = eval::ask(&model, &data.records[0].questions(data.set)).unwrap_err();
    let said = refused.to_string();
    assert!(
        said.starts_with("paraphrase 2 \"very") && said.contains("do not fit the model's context"),
        "{said}"
    );
}
