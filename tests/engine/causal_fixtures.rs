//! Causal tracing on tiny models of every family: both engines give what transformers gives, and
//! what must be equal by definition is.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use palimpsest::causal::{
    Compat, Engine, Error, Fact, Grid, Kind, Noise, Rule, Settings, Severed, Unwatched, Watch,
    embedding_gaussian, noise_level, resolve_noise, trace,
};
use palimpsest::model::{Checkpoint, Model};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What `make_models.py` writes, by one whole forward pass of transformers a cell.
#[derive(Deserialize)]
struct Expected {
    prompt: String,
    subject: String,
    token_ids: Vec<u32>,
    subject_span: (usize, usize),
    sd: f64,
    samples: usize,
    seed: u32,
    window: usize,
    answer: u32,
    high: f64,
    low: f64,
    scores: BTreeMap<String, Vec<Vec<f64>>>,
}

struct Fixture {
    name: String,
    model: Model,
    expected: Expected,
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn fixture(name: &str) -> Fixture {
    // Such small tensors are not worth dividing.
    tch::set_num_threads(1);
    let folder = folder(name);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let text = fs::read_to_string(folder.join("causal.json")).unwrap();
    Fixture {
        name: name.to_owned(),
        model: Model::load(&checkpoint, tch::Device::Cpu, tch::Kind::Float).unwrap(),
        expected: serde_json::from_str(&text).unwrap(),
    }
}

/// One of each way in which a block adds up: serial, parallel, gated, with norms behind its halves.
const DIFFERENT: [&str; 4] = ["gpt2", "gptj", "llama", "gemma2"];

fn fixtures() -> Vec<Fixture> {
    let mut names: Vec<String> = fs::read_dir(folder(""))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("causal.json").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 32, "fixtures: {names:?}");
    let mut fixtures: Vec<Fixture> = names.iter().map(|name| fixture(name)).collect();
    fixtures.retain(|fixture| {
        let fits = fixture.expected.token_ids.len() <= fixture.model.config().context;
        if !fits {
            eprintln!("{}: the prompt is longer than its context", fixture.name);
        }
        fits
    });
    fixtures
}

impl Fixture {
    fn fact(&self) -> Fact {
        Fact {
            prompt: self.expected.prompt.clone(),
            subject: self.expected.subject.clone(),
            ..Fact::default()
        }
    }

    fn settings(&self, engine: Engine) -> Settings {
        Settings {
            severed: vec![Severed::Mlp, Severed::Attn],
            samples: self.expected.samples,
            seed: self.expected.seed,
            window: self.expected.window,
            engine,
            ..Settings::new(Noise::gaussian(self.expected.sd))
        }
    }

    fn trace(&self, settings: &Settings) -> Vec<Grid> {
        trace(&self.model, &self.fact(), settings, &Unwatched).unwrap()
    }
}

/// The largest difference between the scores of two traces of one fact.
fn distance(a: &[Grid], b: &[Grid]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut most = 0.0_f64;
    for (a, b) in a.iter().zip(b) {
        assert_eq!((a.kind, a.severed), (b.kind, b.severed));
        assert_eq!(a.scores.len(), b.scores.len());
        most = most
            .max((a.low.unwrap() - b.low.unwrap()).abs())
            .max((a.high - b.high).abs());
        for (a, b) in a.scores.iter().zip(&b.scores) {
            assert!(a.is_finite() && b.is_finite());
            most = most.max((a - b).abs());
        }
    }
    most
}

#[test]
fn both_engines_give_what_transformers_gives() {
    for fixture in fixtures() {
        let expected = &fixture.expected;
        let [plain, exact] = [Engine::Plain, Engine::Exact]
            .map(|engine| (engine, fixture.trace(&fixture.settings(engine))));
        let distance = distance(&plain.1, &exact.1);
        assert!(distance < 1e-5, "{}: {distance}", fixture.name);
        println!("{}: engines within {distance:.1e}", fixture.name);
        for (engine, grids) in [plain, exact] {
            for grid in grids {
                let name = match grid.severed {
                    Some(severed) => format!("hidden_{severed}_severed"),
                    None => grid.kind.to_string(),
                };
                let what = format!("{} {engine} {name}", fixture.name);
                let ids: Vec<u32> = grid.tokens.iter().map(|token| token.id).collect();
                assert_eq!(ids, expected.token_ids, "{what}");
                assert_eq!(
                    (grid.subject.start, grid.subject.end),
                    expected.subject_span,
                    "{what}"
                );
                assert_eq!(grid.answer.id, expected.answer, "{what}");
                assert!((grid.high - expected.high).abs() < 1e-5, "{what}");
                assert!((grid.low.unwrap() - expected.low).abs() < 1e-5, "{what}");
                for (token, row) in expected.scores[&name].iter().enumerate() {
                    for (layer, score) in row.iter().enumerate() {
                        let found = grid.score(token, layer).unwrap();
                        assert!(
                            (found - score).abs() < 1e-5,
                            "{what} token {token} layer {layer}: {found}, transformers {score}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_engines_agree_on_windows_of_every_width() {
    for fixture in DIFFERENT.map(fixture) {
        let mut settings = fixture.settings(Engine::Plain);
        settings.kinds = vec![Kind::Mlp, Kind::Attn];
        settings.severed.clear();
        for window in [1, 2, 10] {
            settings.window = window;
            settings.engine = Engine::Plain;
            let plain = fixture.trace(&settings);
            settings.engine = Engine::Exact;
            let exact = fixture.trace(&settings);
            let distance = distance(&plain, &exact);
            assert!(
                distance < 1e-5,
                "{} window {window}: {distance}",
                fixture.name
            );
        }
    }
}

#[test]
fn the_published_codes_severed_paths_agree_too() {
    for name in DIFFERENT {
        let fixture = fixture(name);
        let mut settings = fixture.settings(Engine::Plain);
        settings.kinds = vec![Kind::Hidden];
        let ordinary = fixture.trace(&settings);
        settings.compat = Compat::PaperCode;
        let plain = fixture.trace(&settings);
        settings.engine = Engine::Exact;
        let exact = fixture.trace(&settings);
        assert!(distance(&plain, &exact) < 1e-5, "{name}");
        // Only severed paths know of the second draw of noise, and they do.
        assert_eq!(plain[0], ordinary[0], "{name}");
        assert!(distance(&plain[1..], &ordinary[1..]) > 1e-4, "{name}");
    }
}

#[test]
fn what_must_be_equal_is_equal() {
    for fixture in fixtures() {
        for engine in [Engine::Plain, Engine::Exact] {
            for grid in fixture.trace(&fixture.settings(engine)) {
                let what = format!("{} {engine} {}", fixture.name, grid.measure());
                let (low, last) = (grid.low.unwrap(), grid.tokens.len() - 1);
                for token in 0..grid.subject.start {
                    assert_eq!(
                        grid.row(token).unwrap(),
                        vec![low; grid.layers],
                        "{what}: a token before the subject was never corrupted"
                    );
                }
                if grid.kind == Kind::Hidden {
                    for token in 0..last {
                        assert_eq!(grid.score(token, grid.layers - 1), Some(low), "{what}");
                    }
                    assert_eq!(grid.score(last, grid.layers - 1), Some(grid.high), "{what}");
                }
            }
        }
    }
}

#[test]
fn without_noise_every_score_is_the_clean_one() {
    for fixture in fixtures() {
        for engine in [Engine::Plain, Engine::Exact] {
            let mut settings = fixture.settings(engine);
            settings.corruption = Noise::gaussian(0.0).into();
            for grid in fixture.trace(&settings) {
                assert_eq!(grid.low, Some(grid.high), "{} {engine}", fixture.name);
                for &score in &grid.scores {
                    assert_eq!(score, grid.high, "{} {engine}", fixture.name);
                }
            }
            // Too little to move a float32: computed in full, and the same up to the order of sums.
            settings.corruption = Noise::gaussian(1e-30).into();
            for grid in fixture.trace(&settings) {
                for &score in &grid.scores {
                    assert!(
                        (score - grid.high).abs() < 1e-6,
                        "{} {engine}",
                        fixture.name
                    );
                }
            }
        }
    }
}

#[test]
fn no_memory_budget_changes_a_score() {
    for fixture in DIFFERENT.map(fixture) {
        let mut settings = fixture.settings(Engine::Exact);
        let free = fixture.trace(&settings);
        for bytes in [1, 40_000, 200_000, 1_000_000] {
            settings.memory_bytes = bytes;
            let cut = fixture.trace(&settings);
            let distance = distance(&free, &cut);
            assert!(
                distance < 1e-6,
                "{} in {bytes} bytes: {distance}",
                fixture.name
            );
        }
    }
}

#[test]
fn a_grid_is_the_same_to_the_bit_whatever_else_is_traced_with_it() {
    for fixture in DIFFERENT.map(fixture) {
        for engine in [Engine::Plain, Engine::Exact] {
            let settings = fixture.settings(engine);
            let together = fixture.trace(&settings);
            let mut alone = Vec::new();
            for kind in Kind::PUBLISHED {
                alone.extend(fixture.trace(&Settings {
                    kinds: vec![kind],
                    severed: vec![],
                    ..settings.clone()
                }));
            }
            for severed in [Severed::Mlp, Severed::Attn] {
                alone.extend(fixture.trace(&Settings {
                    kinds: vec![],
                    severed: vec![severed],
                    ..settings.clone()
                }));
            }
            assert_eq!(alone, together, "{} {engine}", fixture.name);
        }
    }
}

#[test]
fn every_noise_rule_traces_alike_in_both_engines() {
    let fixture = fixture("gpt2");
    let subjects = [fixture.expected.subject.as_str(), "the city"];
    let corpus = [
        fixture.expected.prompt.as_str(),
        "It stands on a hill in the south of the land.",
    ];
    for rule in [
        "s3",
        "u0.5",
        "m",
        "t5",
        "replace:0.5",
        "replace:m",
        "replace:u1",
    ] {
        let rule: Rule = rule.parse().unwrap();
        let noise = resolve_noise(&fixture.model, &rule, &subjects, &corpus).unwrap();
        let mut settings = fixture.settings(Engine::Plain);
        settings.corruption = noise.into();
        let plain = fixture.trace(&settings);
        settings.engine = Engine::Exact;
        let exact = fixture.trace(&settings);
        assert!(distance(&plain, &exact) < 1e-5, "{rule}");
        assert!(
            plain[0].low != Some(plain[0].high),
            "{rule} corrupts nothing"
        );
    }
}

#[test]
fn statistics_of_the_embeddings_are_those_of_their_numbers() {
    let fixture = fixture("gpt2");
    let subjects = ["Castle of Aster", "the city", "Aster"];
    let mut scalars: Vec<f64> = Vec::new();
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for subject in subjects {
        let ids = fixture.model.tokenizer().encode(subject).unwrap().ids;
        let embeddings = fixture.model.embed(&fixture.model.ids(&ids).unwrap());
        for token in 0..ids.len() as i64 {
            let row = Vec::<f64>::try_from(embeddings.get(0).get(token).to_kind(tch::Kind::Double))
                .unwrap();
            scalars.extend(&row);
            rows.push(row);
        }
    }
    let mean = scalars.iter().sum::<f64>() / scalars.len() as f64;
    let squares: f64 = scalars.iter().map(|x| (x - mean).powi(2)).sum();
    let spread = (squares / (scalars.len() - 1) as f64).sqrt();
    let found = noise_level(&fixture.model, &subjects).unwrap();
    assert!(
        (found - spread).abs() < 1e-12 * spread,
        "{found}, by hand {spread}"
    );
    assert!(matches!(
        noise_level(&fixture.model, &[""; 0]),
        Err(Error::TooFewEmbeddings { .. })
    ));

    // Draws from the Gaussian have the covariance of the rows: compare one direction's variance.
    let gaussian = embedding_gaussian(&fixture.model, &subjects).unwrap();
    assert_eq!(gaussian.width(), rows[0].len());
    let direction = |row: &[f64]| {
        row.iter()
            .enumerate()
            .map(|(i, x)| x * (i as f64).cos())
            .sum::<f64>()
    };
    let variance = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)
    };
    let along: Vec<f64> = rows.iter().map(|row| direction(row)).collect();
    let rule: Rule = "m".parse().unwrap();
    let noise = rule.resolve(None, Some(gaussian.into())).unwrap();
    let drawn = noise.draws(1).next(4000, 1, rows[0].len());
    let drawn: Vec<f64> = drawn.chunks(rows[0].len()).map(direction).collect();
    let ratio = variance(&drawn) / variance(&along);
    assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
}

#[test]
fn a_fact_that_the_model_answers_otherwise_is_recorded_and_not_traced() {
    let fixture = fixture("gpt2");
    for engine in [Engine::Plain, Engine::Exact] {
        let right = fixture.trace(&fixture.settings(engine))[0]
            .answer
            .text
            .clone();
        let mut fact = fixture.fact();
        fact.attribute = Some(format!(" {} ", right.trim()));
        let grids = trace(&fixture.model, &fact, &fixture.settings(engine), &Unwatched).unwrap();
        assert!(grids.iter().all(|grid| grid.correct_prediction));
        fact.attribute = Some("Nowhere".into());
        let grids = trace(&fixture.model, &fact, &fixture.settings(engine), &Unwatched).unwrap();
        assert_eq!(grids.len(), 5);
        for grid in grids {
            assert!(!grid.correct_prediction);
            assert_eq!((grid.low, grid.scores.len()), (None, 0));
            assert!((grid.high - fixture.expected.high).abs() < 1e-5);
        }
    }
}

/// Counts what it hears, and stops the trace once so many cells are done.
struct Counter {
    stop_at: u64,
    done: AtomicU64,
    total: AtomicU64,
}

impl Watch for Counter {
    fn cancelled(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.stop_at
    }

    fn cells(&self, done: u64, total: u64) {
        assert!(done > self.done.swap(done, Ordering::Relaxed) && done <= total);
        self.total.store(total, Ordering::Relaxed);
    }
}

#[test]
fn progress_reaches_every_cell_and_a_cancelled_trace_stops() {
    let fixture = fixture("llama");
    for engine in [Engine::Plain, Engine::Exact] {
        let settings = fixture.settings(engine);
        let counter = |stop_at| Counter {
            stop_at,
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
        };
        let all = counter(u64::MAX);
        let grids = trace(&fixture.model, &fixture.fact(), &settings, &all).unwrap();
        let cells: usize = grids.iter().map(|grid| grid.scores.len()).sum();
        assert_eq!(all.done.into_inner(), cells as u64);
        assert_eq!(all.total.into_inner(), cells as u64);
        let early = counter(10);
        let stopped = trace(&fixture.model, &fixture.fact(), &settings, &early);
        assert!(matches!(stopped, Err(Error::Cancelled)));
        assert!(early.done.into_inner() < cells as u64 / 2);
    }
}

#[test]
fn a_wrong_request_is_named() {
    let fixture = fixture("gpt2");
    let settings = fixture.settings(Engine::Exact);
    let mut fact = fixture.fact();
    fact.subject = "Rome".into();
    let error = trace(&fixture.model, &fact, &settings, &Unwatched).unwrap_err();
    assert!(matches!(error, Error::SubjectNotInPrompt { .. }));
    let mut long = fixture.fact();
    long.prompt = long.prompt.repeat(100);
    let error = trace(&fixture.model, &long, &settings, &Unwatched).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("tokens, the model's context holds"),
        "{error}"
    );
    let many = Settings {
        samples: usize::MAX / 16,
        ..settings.clone()
    };
    let error = trace(&fixture.model, &fixture.fact(), &many, &Unwatched).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    assert!(error.to_string().contains("use fewer samples"), "{error}");
    let none = Settings {
        samples: 0,
        ..settings
    };
    let error = trace(&fixture.model, &fixture.fact(), &none, &Unwatched).unwrap_err();
    assert!(error.to_string().starts_with("samples = 0"), "{error}");
}

#[test]
fn noise_that_the_models_numbers_do_not_hold_is_an_error_of_the_fact() {
    let fixture = fixture("llama");
    for (engine, deviation) in [
        (Engine::Exact, 1e38),
        (Engine::Plain, 1e38),
        (Engine::Exact, 1e308),
    ] {
        let settings = Settings {
            corruption: Noise::gaussian(deviation).into(),
            ..fixture.settings(engine)
        };
        let error = trace(&fixture.model, &fixture.fact(), &settings, &Unwatched).unwrap_err();
        assert!(matches!(error, Error::CorruptedNotFinite { .. }), "{error}");
        assert!(error.to_string().contains("give less noise"), "{error}");
    }
}
