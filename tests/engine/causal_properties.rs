//! What holds of any trace by definition, tried on random prompts, subjects, windows, samples,
//! memory budgets and number formats, on tiny models of several families.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::cell::Cell;
use std::ops::Range;

use palimpsest::causal::{
    Compat, Engine, Fact, Grid, Kind, Noise, Settings, Severed, Unwatched, Watch, trace,
};
use palimpsest::model::Model;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tch::Kind as Dtype;

use crate::families::{FAMILIES, MIXTURES, SMOOTH, WORDS, kinds, models, rows_are_alike};

/// One trace to try.
#[derive(Debug, Clone)]
struct Case {
    model: usize,
    fact: Fact,
    settings: Settings,
}

impl Case {
    fn trace(&self, models: &[Model], change: impl FnOnce(&mut Settings)) -> Vec<Grid> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        trace(&models[self.model], &self.fact, &settings, &Unwatched).unwrap()
    }

    /// Whether the model can read the prompt.
    fn fits(&self, models: &[Model]) -> bool {
        let model = &models[self.model];
        let ids = model.tokenizer().encode(&self.fact.prompt).unwrap().ids;
        ids.len() <= model.config().context
    }
}

/// A sentence of up to 4 words, a run of whose words is the subject.
fn facts() -> impl Strategy<Value = Fact> {
    prop::collection::vec(0..WORDS.len(), 1..5)
        .prop_flat_map(|words| {
            let count = words.len();
            (Just(words), 0..count)
                .prop_flat_map(move |(words, from)| (Just(words), Just(from), from + 1..=count))
        })
        .prop_map(|(words, from, to)| {
            let text = |words: &[usize]| {
                let words: Vec<&str> = words.iter().map(|&word| WORDS[word]).collect();
                words.join(" ")
            };
            Fact {
                prompt: text(&words),
                subject: text(&words[from..to]),
                ..Fact::default()
            }
        })
}

fn cases() -> impl Strategy<Value = Case> {
    cases_of(SMOOTH)
}

fn cases_of(models: Range<usize>) -> impl Strategy<Value = Case> {
    let settings = (1..4_usize, 0..1000_u32, 1..6_usize, 0.1..1.5_f64);
    (models, facts(), settings, any::<bool>()).prop_map(
        |(model, fact, (samples, seed, window, sd), paper_code)| Case {
            model,
            fact,
            settings: Settings {
                kinds: kinds(model),
                severed: vec![Severed::Mlp, Severed::Attn],
                samples,
                seed,
                window,
                compat: match paper_code {
                    true => Compat::PaperCode,
                    false => Compat::None,
                },
                ..Settings::new(Noise::gaussian(sd))
            },
        },
    )
}

/// Tries `count` random values, the same ones in every run.
fn check<S: Strategy>(
    count: u32,
    strategy: S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let config = Config {
        cases: count,
        failure_persistence: None,
        max_shrink_iters: 64,
        ..Config::default()
    };
    let rng = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    TestRunner::new_with_rng(config, rng)
        .run(&strategy, test)
        .unwrap_or_else(|error| panic!("{error}"));
}

/// The largest difference between the numbers of two traces of one fact.
fn distance(a: &[Grid], b: &[Grid]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut most = 0.0_f64;
    for (a, b) in a.iter().zip(b) {
        assert_eq!((a.kind, a.severed), (b.kind, b.severed));
        assert_eq!(a.scores.len(), b.scores.len());
        let ends = [(a.high, b.high), (a.low.unwrap(), b.low.unwrap())];
        let scores = a.scores.iter().copied().zip(b.scores.iter().copied());
        for (a, b) in scores.chain(ends) {
            assert!(a.is_finite() && b.is_finite());
            most = most.max((a - b).abs());
        }
    }
    most
}

#[test]
fn the_exact_engine_gives_what_one_full_pass_a_cell_gives() {
    let models = models(Dtype::Float);
    for (count, of) in [(32, SMOOTH), (12, MIXTURES)] {
        check(count, cases_of(of), |case| {
            prop_assume!(case.fits(&models));
            let exact = case.trace(&models, |_| ());
            let plain = case.trace(&models, |settings| settings.engine = Engine::Plain);
            let distance = distance(&exact, &plain);
            prop_assert!(distance < 1e-5, "{}: {distance}", FAMILIES[case.model]);
            Ok(())
        });
    }
}

#[test]
fn what_must_be_equal_is_equal() {
    let models = models(Dtype::Float);
    check(32, cases(), |case| {
        prop_assume!(case.fits(&models));
        for grid in case.trace(&models, |_| ()) {
            let (low, layers) = (grid.low.unwrap(), grid.layers);
            let last = grid.tokens.len() - 1;
            let severed = case.settings.compat == Compat::PaperCode && grid.severed.is_some();
            let before = match grid.kind.is_over_tokens() {
                true => 0..0, // no cell is of these alone
                false => 0..grid.subject.start,
            };
            for token in before {
                // Never corrupted; under the published code's severed paths, in a run of other
                // noise.
                let row = grid.row(token).unwrap();
                prop_assert!(row.iter().all(|&score| score == row[0]));
                prop_assert!(severed || row[0] == low);
            }
            if grid.kind == Kind::Hidden {
                prop_assert_eq!(grid.score(last, layers - 1), Some(grid.high));
                for token in (0..last).filter(|_| !severed) {
                    prop_assert_eq!(grid.score(token, layers - 1), Some(low));
                }
            }
            if grid.kind == Kind::Hidden && grid.severed.is_none() && grid.subject.start == last {
                // With its only corrupted token restored, the whole run is the clean one.
                prop_assert!(grid.row(last).unwrap().iter().all(|&s| s == grid.high));
            }
        }
        let silent = case.trace(&models, |settings| {
            settings.corruption = Noise::gaussian(0.0).into()
        });
        for grid in silent {
            prop_assert_eq!(grid.low, Some(grid.high));
            prop_assert!(grid.scores.iter().all(|&score| score == grid.high));
        }
        Ok(())
    });
}

fn same(dtype: Dtype, found: &[Grid], expected: &[Grid], what: &str) -> Result<(), TestCaseError> {
    if rows_are_alike() {
        let distance = distance(found, expected);
        prop_assert!(found == expected, "{what} in {dtype:?}: {distance:e} apart");
        return Ok(());
    }
    let within = match dtype {
        Dtype::Float => 1e-6,
        _ => 0.02,
    };
    prop_assert!(distance(found, expected) < within, "{what} in {dtype:?}");
    Ok(())
}

#[test]
fn any_memory_budget_gives_the_same_bytes() {
    let all = [(Dtype::Float, 24), (Dtype::BFloat16, 12), (Dtype::Half, 6)];
    let with =
        |part: u32, of: Range<usize>| all.map(|(dtype, count)| (dtype, count / part, of.clone()));
    for (dtype, count, of) in with(1, SMOOTH).into_iter().chain(with(2, MIXTURES)) {
        let models = models(dtype);
        // From one row at a time to all at once.
        let budgets = (0.0..22.0_f64).prop_map(|log| log.exp2() as u64);
        check(count, (cases_of(of), budgets), |(case, bytes)| {
            prop_assume!(case.fits(&models));
            let free = case.trace(&models, |_| ());
            let cut = case.trace(&models, |settings| settings.memory_bytes = bytes);
            let what = format!("{} in {bytes} bytes", FAMILIES[case.model]);
            same(dtype, &cut, &free, &what)
        });
    }
}

/// One that it did not hold of: in a batch of few rows libtorch multiplied queries of two bytes with
/// keys another way than in one of many.
#[test]
fn a_small_memory_budget_gives_the_bytes_of_a_large_one_in_bfloat16() {
    let models = models(Dtype::BFloat16);
    let model = FAMILIES.iter().position(|it| *it == "llama").unwrap();
    let case = Case {
        model,
        fact: Fact {
            prompt: "a Castle".to_owned(),
            subject: "a".to_owned(),
            ..Fact::default()
        },
        settings: Settings {
            kinds: kinds(model),
            samples: 3,
            seed: 577,
            window: 2,
            ..Settings::new(Noise::gaussian(0.6354161253400147))
        },
    };
    let free = case.trace(&models, |_| ());
    for bytes in [1, 1_000, 100_000] {
        let cut = case.trace(&models, |settings| settings.memory_bytes = bytes);
        same(
            Dtype::BFloat16,
            &cut,
            &free,
            &format!("llama in {bytes} bytes"),
        )
        .unwrap();
    }
}

#[test]
fn any_part_of_a_sweep_gives_the_same_bytes() {
    let models = models(Dtype::Float);
    let parts = (
        prop::sample::subsequence(kinds(0), 0..=kinds(0).len()),
        any::<[bool; 2]>(),
    );
    check(24, (cases(), parts), |(case, (kinds, severed))| {
        prop_assume!(case.fits(&models) && (!kinds.is_empty() || severed.contains(&true)));
        let whole = case.trace(&models, |_| ());
        let has = case.settings.kinds.clone();
        prop_assume!(!severed.contains(&false) || kinds.iter().any(|it| has.contains(it)));
        let part = case.trace(&models, |settings| {
            settings.kinds = kinds;
            settings.kinds.retain(|it| has.contains(it));
            let mut wanted = severed.iter();
            settings.severed.retain(|_| *wanted.next().unwrap());
        });
        for grid in part {
            prop_assert!(
                whole.contains(&grid),
                "{} {}",
                FAMILIES[case.model],
                grid.measure()
            );
        }
        Ok(())
    });
}

/// A device that runs out of memory at some of the blocks it is to compute, counted from 0.
struct Scarce {
    fails: [u64; 2],
    blocks: Cell<u64>,
}

impl Watch for Scarce {
    fn cancelled(&self) -> bool {
        let block = self.blocks.replace(self.blocks.get() + 1);
        assert!(
            !self.fails.contains(&block),
            "CUDA out of memory. Tried to allocate 2 bytes" // as libtorch's errors come through tch
        );
        false
    }
}

#[test]
fn running_out_of_memory_on_the_way_changes_nothing() {
    let models = models(Dtype::Float);
    check(16, (cases(), 0.0..1.0_f64), |(mut case, part)| {
        prop_assume!(case.fits(&models));
        // Rows to halve twice; a single one that does not fit is an error.
        case.settings.samples = 8;
        let count = Scarce {
            fails: [u64::MAX; 2],
            blocks: Cell::new(0),
        };
        let (model, settings) = (&models[case.model], &case.settings);
        let calm = trace(model, &case.fact, settings, &count).unwrap();
        // The clean run is one row, whose failure is an error.
        let clean = model.config().layers as u64;
        let rest = (count.blocks.get() - clean) as f64;
        let first = clean + (part * rest) as u64;
        let scarce = Scarce {
            fails: [first, first + 1],
            blocks: Cell::new(0),
        };
        let scarce = trace(model, &case.fact, settings, &scarce).unwrap();
        same(Dtype::Float, &scarce, &calm, FAMILIES[case.model])
    });
}

#[test]
fn half_the_bits_give_the_same_picture() {
    let wide = models(Dtype::Float);
    // Random weights make these models touchier than trained ones: `benches/causal.rs` has a real
    // one's differences.
    for (dtype, within) in [(Dtype::BFloat16, 0.1), (Dtype::Half, 0.03)] {
        let models = models(dtype);
        let most = Cell::new(0.0_f64);
        check(16, cases(), |case| {
            prop_assume!(case.fits(&models));
            let exact = case.trace(&models, |_| ());
            let plain = case.trace(&models, |settings| settings.engine = Engine::Plain);
            // Which token is likeliest may change with the last bits.
            let float = case.trace(&wide, |_| ());
            if exact[0].answer != plain[0].answer || exact[0].answer != float[0].answer {
                return Ok(());
            }
            let family = FAMILIES[case.model];
            let apart = distance(&exact, &plain);
            prop_assert!(apart < within, "{family} {dtype:?}, from plain: {apart}");
            let apart = distance(&exact, &float);
            prop_assert!(apart < within, "{family} {dtype:?}, from float32: {apart}");
            most.set(most.get().max(apart));
            Ok(())
        });
        println!("{dtype:?}: within {:.4} of float32", most.get());
    }
}
