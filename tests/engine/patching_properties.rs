//! What holds of activation patching between two prompts by definition, tried on random prompts,
//! windows, memory budgets and number formats, on tiny models of several families.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::ops::Range;
use std::path::PathBuf;
use std::slice;

use palimpsest::causal::{
    Compat, Corruption, Direction, Engine, Error, Fact, Grid, Kind, Metric, Noise, Settings,
    Severed, Unwatched, Watch, trace,
};
use palimpsest::model::config::Residual;
use palimpsest::model::{Checkpoint, Hook, Model, Pass};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tch::{Device, Kind as Dtype, Tensor};

use crate::families::{FAMILIES, WORDS, kinds, models};

/// Two prompts and how to patch one with states of the other.
#[derive(Debug, Clone)]
pub struct Case {
    pub model: usize,
    pub fact: Fact,
    pub settings: Settings,
}

impl Case {
    fn ids(&self, models: &[Model], prompt: &str) -> Vec<u32> {
        let tokenizer = models[self.model].tokenizer();
        tokenizer.encode(prompt).unwrap().ids
    }

    fn other(&self) -> &str {
        self.fact.corrupted.as_deref().unwrap()
    }

    /// The first token at which the two differ; none where they cannot be patched.
    pub fn first(&self, models: &[Model]) -> Option<usize> {
        let [x, y] = [&self.fact.prompt, self.other()].map(|prompt| self.ids(models, prompt));
        let fits = x.len() == y.len() && x.len() <= models[self.model].config().context;
        fits.then(|| x.iter().zip(&y).position(|(x, y)| x != y))?
    }

    /// None where the model answers both alike, or answers with the foil.
    pub fn trace(&self, models: &[Model], change: impl FnOnce(&mut Settings)) -> Option<Vec<Grid>> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let grids = trace(&models[self.model], &self.fact, &settings, &Unwatched).unwrap();
        grids.iter().all(Grid::traced).then_some(grids)
    }

    /// With the two prompts in each other's place.
    pub fn swapped(&self) -> Self {
        let mut case = self.clone();
        case.fact.prompt = self.other().to_owned();
        case.fact.corrupted = Some(self.fact.prompt.clone());
        let first = self.other().split(' ').next().unwrap();
        case.fact.subject = first.to_owned();
        case
    }
}

/// Sentences of up to 5 words, of which some are others in the second.
pub fn cases() -> impl Strategy<Value = Case> {
    let words = prop::collection::vec((0..WORDS.len(), 0..WORDS.len(), any::<bool>()), 1..6);
    let settings = (1..6_usize, any::<bool>(), 12..24_u32);
    (0..FAMILIES.len(), words, settings).prop_map(|(model, words, (window, noising, budget))| {
        let text = |of: fn(&(usize, usize, bool)) -> usize| {
            let words: Vec<&str> = words.iter().map(|word| WORDS[of(word)]).collect();
            words.join(" ")
        };
        let prompt = text(|word| word.0);
        Case {
            model,
            fact: Fact {
                subject: prompt.split(' ').next().unwrap().to_owned(),
                corrupted: Some(text(|&(one, other, same)| if same { one } else { other })),
                prompt,
                ..Fact::default()
            },
            settings: Settings {
                kinds: kinds(model),
                severed: vec![Severed::Mlp, Severed::Attn],
                metrics: Metric::ALL.to_vec(),
                window,
                direction: match noising {
                    true => Direction::Noising,
                    false => Direction::Denoising,
                },
                memory_bytes: 1 << budget,
                ..Settings::new(Corruption::Counterfactual(Vec::new()))
            },
        }
    })
}

/// Tries `count` random values, the same ones in every run.
pub fn check<S: Strategy>(
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

/// The largest difference between the numbers of two traces in one metric.
pub fn distance(a: &[Grid], b: &[Grid], metric: Metric) -> f64 {
    let numbers = |grids: &[Grid]| -> Vec<f64> {
        let one = |grid: &Grid| {
            let grid = grid.in_metric(metric).unwrap();
            [vec![grid.high, grid.low.unwrap()], grid.scores].concat()
        };
        grids.iter().flat_map(one).collect()
    };
    let (a, b) = (numbers(a), numbers(b));
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max)
}

#[test]
fn the_exact_engine_gives_every_metric_of_one_full_pass_a_cell() {
    let models = models(Dtype::Float);
    check(48, cases(), |case| {
        prop_assume!(case.first(&models).is_some());
        let exact = case.trace(&models, |_| ());
        let plain = case.trace(&models, |settings| settings.engine = Engine::Plain);
        prop_assert_eq!(exact.is_some(), plain.is_some());
        let Some((exact, plain)) = exact.zip(plain) else {
            return Ok(());
        };
        let family = FAMILIES[case.model];
        for metric in Metric::ALL {
            for (exact, plain) in exact.iter().zip(&plain) {
                let distance = distance(slice::from_ref(exact), slice::from_ref(plain), metric);
                // A logit difference is of two numbers whose last bit is worth 1e-6.
                let most = exact.in_metric(metric).unwrap().scores;
                let most = most.iter().fold(1.0_f64, |most, it| most.max(it.abs()));
                let what = exact.measure();
                prop_assert!(
                    distance < 1e-5 * most,
                    "{family}, {what}, {metric}: {distance} {most}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn what_must_be_equal_is_equal_in_every_metric_and_both_directions() {
    for dtype in [Dtype::Float, Dtype::BFloat16] {
        let models = models(dtype);
        check(24, cases(), |case| {
            let Some(first) = case.first(&models) else {
                return Err(TestCaseError::reject("the tokens do not correspond"));
            };
            let Some(grids) = case.trace(&models, |_| ()) else {
                return Ok(());
            };
            for (grid, metric) in grids
                .iter()
                .flat_map(|grid| Metric::ALL.map(|it| (grid, it)))
            {
                let grid = grid.in_metric(metric).unwrap();
                let (last, layers) = (grid.tokens.len() - 1, grid.layers);
                let (patched, from) = match grid.direction {
                    Direction::Denoising => (grid.low.unwrap(), grid.high),
                    Direction::Noising => (grid.high, grid.low.unwrap()),
                };
                let before = match grid.kind.is_over_tokens() {
                    true => 0..0, // no cell is of these alone
                    false => 0..first,
                };
                for token in before {
                    // The two prompts are one up to there.
                    prop_assert!(grid.row(token).unwrap().iter().all(|&it| it == patched));
                }
                if matches!(grid.kind, Kind::Hidden | Kind::ResidMid) {
                    prop_assert_eq!(grid.score(last, layers - 1), Some(from));
                    for token in 0..last {
                        prop_assert_eq!(grid.score(token, layers - 1), Some(patched));
                    }
                }
                if grid.kind.is_residual() && grid.severed.is_none() && first == last {
                    // With the only other token put in, the whole run is that one.
                    prop_assert!(grid.row(last).unwrap().iter().all(|&it| it == from));
                }
                if matches!(grid.kind, Kind::Head | Kind::HeadQ | Kind::HeadPattern) {
                    for token in 0..last {
                        // What the heads of the last block give stays at its token.
                        let of_last = |head| grid.head_score(token, head, layers - 1);
                        prop_assert!((0..grid.heads).all(|head| of_last(head) == Some(patched)));
                    }
                }
                if metric == Metric::Kl {
                    prop_assert!(grid.scores.iter().all(|&it| it >= 0.0));
                    prop_assert!(grid.high.abs() < 1e-12, "{}", grid.high);
                }
                if metric == Metric::Rank {
                    prop_assert_eq!(grid.high, 1.0);
                    prop_assert!(grid.scores.iter().all(|&it| it >= 1.0 && it.fract() == 0.0));
                }
            }
            Ok(())
        });
    }
}

#[test]
fn a_residual_is_the_same_state_behind_one_block_and_before_the_next() {
    let models = models(Dtype::Float);
    check(24, cases(), |case| {
        prop_assume!(case.first(&models).is_some());
        for engine in [Engine::Exact, Engine::Plain] {
            let Some(grids) = case.trace(&models, |settings| settings.engine = engine) else {
                return Ok(());
            };
            let of = |kind, metric| {
                let mut grids = grids.iter();
                let grid = grids.find(|it| it.kind == kind && it.severed.is_none());
                grid.map(|grid| grid.in_metric(metric).unwrap())
            };
            for metric in Metric::ALL {
                let hidden = of(Kind::Hidden, metric).unwrap();
                let pre = of(Kind::ResidPre, metric).unwrap();
                let mid = of(Kind::ResidMid, metric);
                for (token, layer) in cells(&hidden) {
                    let behind = hidden.score(token, layer).unwrap();
                    // Attention is over there, and an MLP sees its own token only.
                    if let Some(mid) = mid.as_ref().and_then(|it| it.score(token, layer)) {
                        prop_assert!((mid - behind).abs() < 1e-5, "{mid} {behind}");
                    }
                    if let Some(before) = pre.score(token, layer + 1) {
                        prop_assert!((before - behind).abs() < 1e-5, "{before} {behind}");
                    }
                }
            }
        }
        Ok(())
    });
}

/// Every token with every layer.
fn cells(grid: &Grid) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (tokens, layers) = (grid.tokens.len(), grid.layers);
    (0..tokens).flat_map(move |token| (0..layers).map(move |layer| (token, layer)))
}

#[test]
fn the_first_blocks_input_at_the_only_other_token_is_the_whole_other_run() {
    let models = models(Dtype::Float);
    for (n, model) in models.iter().enumerate() {
        let tokenizer = model.tokenizer();
        let prompt = |word: &str| format!("{word} stands in the");
        let ids = |word: &str| tokenizer.encode(&prompt(word)).unwrap().ids;
        let pairs = WORDS.map(|one| WORDS.map(|other| (one, other))).concat();
        let one_token = |&(one, other): &(&str, &str)| {
            let (x, y) = (ids(one), ids(other));
            let differ = x.iter().zip(&y).filter(|(x, y)| x != y);
            x.len() == y.len() && differ.count() == 1
        };
        let mut tried = 0;
        for (one, other) in pairs.into_iter().filter(one_token).take(4) {
            let fact = Fact {
                prompt: prompt(one),
                subject: one.to_owned(),
                corrupted: Some(prompt(other)),
                ..Fact::default()
            };
            for direction in [Direction::Denoising, Direction::Noising] {
                let settings = Settings {
                    kinds: vec![Kind::ResidPre],
                    metrics: Metric::ALL.to_vec(),
                    direction,
                    ..Settings::new(Corruption::Counterfactual(Vec::new()))
                };
                let grids = trace(model, &fact, &settings, &Unwatched).unwrap();
                if !grids[0].traced() {
                    continue; // the model answers both alike
                }
                let (x, y) = (ids(one), ids(other));
                let first = x.iter().zip(&y).position(|(x, y)| x != y).unwrap();
                for metric in Metric::ALL {
                    let grid = grids[0].in_metric(metric).unwrap();
                    let from = match direction {
                        Direction::Denoising => grid.high,
                        Direction::Noising => grid.low.unwrap(),
                    };
                    let score = grid.score(first, 0).unwrap();
                    assert!(
                        (score - from).abs() < 1e-5,
                        "{} {score} {from}",
                        FAMILIES[n]
                    );
                }
                tried += 1;
            }
        }
        assert!(tried > 0, "{}", FAMILIES[n]);
    }
}

/// What the heads of every block give.
#[derive(Default)]
struct Heads(Vec<Tensor>);

impl Hook for Heads {
    fn heads(&mut self, _layer: usize, z: Tensor) -> Tensor {
        self.0.push(z.copy());
        z
    }
}

/// Puts some channels of what heads give at some tokens in one layer.
struct PutHeads<'a> {
    states: &'a Heads,
    layer: usize,
    tokens: Range<i64>,
    channels: Range<i64>,
}

impl Hook for PutHeads<'_> {
    fn heads(&mut self, layer: usize, z: Tensor) -> Tensor {
        if layer == self.layer {
            let place = |z: &Tensor| {
                let tokens = self.tokens.end - self.tokens.start;
                let channels = self.channels.end - self.channels.start;
                let at = z.narrow(1, self.tokens.start, tokens);
                at.narrow(2, self.channels.start, channels)
            };
            place(&z).copy_(&place(&self.states.0[layer]));
        }
        z
    }
}

#[test]
fn a_head_is_its_channels_and_all_heads_of_a_layer_are_the_attention_output() {
    let models = models(Dtype::Float);
    check(24, cases(), |case| {
        prop_assume!(case.first(&models).is_some());
        let grids = case.trace(&models, |settings| {
            settings.direction = Direction::Denoising;
            settings.kinds = vec![Kind::Attn, Kind::Head, Kind::HeadAll];
            settings.window = 1;
            settings.severed.clear();
        });
        let Some(grids) = grids else {
            return Ok(());
        };
        let grids: Vec<Grid> = grids
            .iter()
            .map(|grid| grid.in_metric(Metric::LogitDifference).unwrap())
            .collect();
        let [attn, head, over_all] = &grids[..] else {
            panic!("three kinds were asked for")
        };
        let _no_grad = tch::no_grad_guard();
        let model = &models[case.model];
        let [x, y] = [&case.fact.prompt, case.other()].map(|prompt| case.ids(&models, prompt));
        let [clean, rows] = [&x, &y].map(|ids| model.embed(&model.ids(ids).unwrap()));
        let mut kept = Heads::default();
        let _ = logits(model, &clean, &mut kept);
        let (a, f) = (attn.answer.id.into(), attn.foil.as_ref().unwrap().id.into());
        let patched = |layer: usize, tokens: Range<i64>, channels: Range<i64>| {
            let mut put = PutHeads {
                states: &kept,
                layer,
                tokens,
                channels,
            };
            let raw = logits(model, &rows, &mut put);
            raw.double_value(&[a]) - raw.double_value(&[f])
        };
        let near = |found: Option<f64>, expected: f64| {
            let found = found.unwrap();
            let distance = (found - expected).abs();
            prop_assert!(
                distance < 1e-5 * expected.abs().max(1.0) * 5.0,
                "{found} {expected}"
            );
            Ok(())
        };
        let (heads, width) = (model.config().heads, model.config().head_dim as i64);
        prop_assert_eq!((head.heads, over_all.heads, attn.heads), (heads, heads, 1));
        let of_head = |head: usize| head as i64 * width..(head as i64 + 1) * width;
        for (token, layer) in cells(attn) {
            let here = token as i64..token as i64 + 1;
            let all = 0..heads as i64 * width;
            near(attn.score(token, layer), patched(layer, here.clone(), all))?;
            for n in 0..heads {
                let expected = patched(layer, here.clone(), of_head(n));
                near(head.head_score(token, n, layer), expected)?;
            }
        }
        for (n, layer) in (0..heads).flat_map(|n| (0..attn.layers).map(move |l| (n, l))) {
            let expected = patched(layer, 0..x.len() as i64, of_head(n));
            near(over_all.head_score(0, n, layer), expected)?;
        }
        Ok(())
    });
}

/// Queries, keys, values, patterns and what the heads give, a layer each.
#[derive(Default)]
struct Parts([Vec<Tensor>; 5]);

impl Hook for Parts {
    fn queries(&mut self, _layer: usize, q: Tensor) -> Tensor {
        self.0[0].push(q.copy());
        q
    }

    fn keys(&mut self, _layer: usize, k: Tensor) -> Tensor {
        self.0[1].push(k.copy());
        k
    }

    fn values(&mut self, _layer: usize, v: Tensor) -> Tensor {
        self.0[2].push(v.copy());
        v
    }

    fn pattern(&mut self, _layer: usize, weights: &Tensor) {
        self.0[3].push(weights.copy());
    }

    fn heads(&mut self, _layer: usize, z: Tensor) -> Tensor {
        self.0[4].push(z.copy());
        z
    }
}

/// Puts some of these, whole, in the place of those of one layer.
struct PutParts<'a> {
    states: &'a Parts,
    layer: usize,
    put: [bool; 5],
}

impl PutParts<'_> {
    fn put(&self, layer: usize, part: usize, out: Tensor) -> Tensor {
        match layer == self.layer && self.put[part] {
            true => self.states.0[part][layer].copy(),
            false => out,
        }
    }
}

impl Hook for PutParts<'_> {
    fn queries(&mut self, layer: usize, q: Tensor) -> Tensor {
        self.put(layer, 0, q)
    }

    fn keys(&mut self, layer: usize, k: Tensor) -> Tensor {
        self.put(layer, 1, k)
    }

    fn values(&mut self, layer: usize, v: Tensor) -> Tensor {
        self.put(layer, 2, v)
    }

    fn pattern(&mut self, layer: usize, weights: &Tensor) {
        let put = self.put(layer, 3, weights.shallow_clone());
        weights.shallow_clone().copy_(&put);
    }

    fn heads(&mut self, layer: usize, z: Tensor) -> Tensor {
        self.put(layer, 4, z)
    }
}

#[test]
fn queries_and_keys_are_the_pattern_and_with_values_all_that_heads_give() {
    let _no_grad = tch::no_grad_guard();
    for (family, model) in FAMILIES.iter().zip(models(Dtype::Float)) {
        let embed = |prompt: &str| {
            let ids = model.tokenizer().encode(prompt).unwrap().ids;
            model.embed(&model.ids(&ids).unwrap())
        };
        let [x, y] = ["The Castle of Aster is", "The Eastle of Aster is"].map(embed);
        let mut kept = Parts::default();
        let _ = logits(&model, &x, &mut kept);
        for layer in 0..model.config().layers {
            let with = |put: [bool; 5]| {
                let mut put = PutParts {
                    states: &kept,
                    layer,
                    put,
                };
                logits(&model, &y, &mut put)
            };
            let far = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
            let pattern = with([false, false, false, true, false]);
            let nothing = with([false; 5]);
            assert!(far(&pattern, &nothing) > 1e-4, "{family} {layer}");
            let both = with([true, true, false, false, false]);
            assert!(far(&both, &pattern) < 1e-4, "{family} {layer}");
            let heads = with([false, false, false, false, true]);
            assert!(far(&heads, &pattern) > 1e-4, "{family} {layer}");
            let all = with([false, false, true, true, false]);
            assert!(far(&all, &heads) < 1e-4, "{family} {layer}");
        }
    }
}

#[test]
fn a_state_that_a_family_has_not_is_refused_before_anything_is_computed() {
    struct Unasked;
    impl Watch for Unasked {
        fn cancelled(&self) -> bool {
            panic!("a block was computed")
        }
    }
    let models = models(Dtype::Float);
    for (family, model) in FAMILIES.iter().zip(&models) {
        let settings = Settings {
            kinds: vec![Kind::Hidden, Kind::ResidMid],
            ..Settings::new(Corruption::Counterfactual(Vec::new()))
        };
        if model.config().residual == Residual::Serial {
            continue;
        }
        let error = trace(model, &castle(None), &settings, &Unasked).unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with(&format!(
                "kinds = resid_mid: blocks of {} add",
                model.config().family
            )) && said.contains("use resid_pre, hidden, attn or mlp"),
            "{family}: {said}"
        );
    }
}

#[test]
fn noising_is_denoising_of_the_swapped_pair_to_the_byte() {
    let models = models(Dtype::Float);
    check(32, cases(), |case| {
        prop_assume!(case.first(&models).is_some());
        let noising = |settings: &mut Settings| settings.direction = Direction::Noising;
        let denoising = |settings: &mut Settings| settings.direction = Direction::Denoising;
        let Some(one) = case.trace(&models, noising) else {
            return Ok(());
        };
        let other = case.swapped().trace(&models, denoising).unwrap();
        for (one, other) in one.iter().zip(&other) {
            // The other run's answer is this one's foil, which turns the difference around.
            prop_assert_eq!(one.foil.as_ref().unwrap().id, other.answer.id);
            prop_assert_eq!(other.foil.as_ref().unwrap().id, one.answer.id);
            let one = one.in_metric(Metric::LogitDifference).unwrap();
            let other = other.in_metric(Metric::LogitDifference).unwrap();
            prop_assert_eq!(one.high, -other.low.unwrap());
            prop_assert_eq!(one.low.unwrap(), -other.high);
            prop_assert!(one.scores.iter().zip(&other.scores).all(|(a, b)| *a == -b));
        }
        Ok(())
    });
}

#[test]
fn a_metric_is_the_same_whichever_others_are_asked_for_and_whatever_fits() {
    let models = models(Dtype::Float);
    check(16, cases(), |case| {
        prop_assume!(case.first(&models).is_some());
        let Some(all) = case.trace(&models, |_| ()) else {
            return Ok(());
        };
        for metric in Metric::ALL {
            let alone = case.trace(&models, |settings| settings.metrics = vec![metric]);
            prop_assert_eq!(distance(&alone.unwrap(), &all, metric), 0.0);
        }
        let roomy = case.trace(&models, |settings| settings.memory_bytes = 1 << 30);
        for metric in Metric::ALL {
            prop_assert!(distance(&all, roomy.as_ref().unwrap(), metric) < 1e-5);
        }
        Ok(())
    });
}

/// The residual of one run in another, at one token behind one block.
struct Put<'a> {
    states: &'a [Tensor],
    token: i64,
    layer: usize,
}

impl Hook for Put<'_> {
    fn hidden(&mut self, layer: usize, out: Tensor) -> Tensor {
        if layer == self.layer {
            let state = self.states[layer].narrow(1, self.token, 1);
            out.narrow(1, self.token, 1).copy_(&state);
        }
        out
    }
}

/// Keeps the residual behind every block.
#[derive(Default)]
struct Keep(Vec<Tensor>);

impl Hook for Keep {
    fn hidden(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.0.push(out.copy());
        out
    }
}

/// The logits at the last token, in float64.
fn logits(model: &Model, embeddings: &Tensor, hook: &mut dyn Hook) -> Tensor {
    let mut x = model.add_positions(embeddings, 0);
    for layer in 0..model.config().layers {
        x = model.block(layer, &x, Pass::default(), hook).hidden;
    }
    let last = model.logits(&x.select(1, -1)).squeeze_dim(0);
    last.to_kind(Dtype::Double)
}

#[test]
fn a_counterfactual_prompt_is_a_replacement_of_the_embeddings_where_it_differs() {
    let models = models(Dtype::Float);
    check(24, cases(), |case| {
        prop_assume!(case.first(&models).is_some());
        let denoising = |settings: &mut Settings| {
            settings.direction = Direction::Denoising;
            settings.kinds = vec![Kind::Hidden];
            settings.severed.clear();
        };
        let Some(grids) = case.trace(&models, denoising) else {
            return Ok(());
        };
        let _no_grad = tch::no_grad_guard();
        let model = &models[case.model];
        let [x, y] = [&case.fact.prompt, case.other()].map(|prompt| case.ids(&models, prompt));
        let clean = model.embed(&model.ids(&x).unwrap());
        // One sample of the corrupted run: clean, but at the tokens that differ.
        let rows = clean.copy();
        let other = model.embed(&model.ids(&y).unwrap());
        for token in (0..x.len()).filter(|&token| x[token] != y[token]) {
            let state = other.narrow(1, token as i64, 1);
            rows.narrow(1, token as i64, 1).copy_(&state);
        }
        let mut kept = Keep::default();
        let of_clean = logits(model, &clean, &mut kept).log_softmax(-1, Dtype::Double);
        let grid = &grids[0];
        let (a, f) = (
            i64::from(grid.answer.id),
            i64::from(grid.foil.as_ref().unwrap().id),
        );
        for (token, layer) in (0..x.len()).flat_map(|t| (0..grid.layers).map(move |l| (t, l))) {
            let mut put = Put {
                states: &kept.0,
                token: token as i64,
                layer,
            };
            let raw = logits(model, &rows, &mut put);
            let log = raw.log_softmax(-1, Dtype::Double);
            let at = |values: &Tensor, token: i64| values.double_value(&[token]);
            let divergence = (of_clean.exp() * (&of_clean - &log)).sum(Dtype::Double);
            for (metric, expected) in [
                (Metric::Probability, at(&log, a).exp()),
                (Metric::LogProbability, at(&log, a)),
                (Metric::LogitDifference, at(&raw, a) - at(&raw, f)),
                (Metric::Kl, divergence.double_value(&[])),
            ] {
                let found = grid.in_metric(metric).unwrap().score(token, layer).unwrap();
                prop_assert!(
                    (found - expected).abs() < 1e-5,
                    "{metric}: {found} {expected}"
                );
            }
        }
        Ok(())
    });
}

/// A prompt that the tiny GPT-2 can read, its partner, and the settings of a pair.
fn pair(fact: Fact) -> Result<Vec<Grid>, Error> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let model = Model::load(&checkpoint, Device::Cpu, Dtype::Float).unwrap();
    let settings = Settings {
        kinds: vec![Kind::Hidden],
        ..Settings::new(Corruption::Counterfactual(vec![
            Fact {
                prompt: "The Mastle of Aster stands".into(),
                subject: "The Mastle".into(),
                ..Fact::default()
            },
            Fact {
                prompt: "The Castle on land stands in".into(),
                subject: "The Castle".into(),
                attribute: Some("what no model says".into()),
                ..Fact::default()
            },
        ]))
    };
    trace(&model, &fact, &settings, &Unwatched)
}

fn castle(corrupted: Option<&str>) -> Fact {
    Fact {
        prompt: "The Castle of Aster stands".into(),
        subject: "The Castle".into(),
        corrupted: corrupted.map(str::to_owned),
        ..Fact::default()
    }
}

#[test]
fn what_cannot_be_patched_is_refused_with_the_remedy() {
    let said = |fact: Fact| pair(fact).unwrap_err().to_string();
    let longer = said(castle(Some("The Castle of Aster stands on a hill")));
    assert!(
        longer.contains("corrupted `The Castle of Aster stands on a hill` has")
            && longer.contains("give one of as many tokens"),
        "{longer}"
    );
    let same = said(castle(Some("The Castle of Aster stands")));
    assert!(same.contains("is the prompt itself"), "{same}");
    // The model answers with a space, with which the foil begins.
    let foil = said(Fact {
        prompt: "Ba is".into(),
        subject: "Ba".into(),
        corrupted: Some("Ca is".into()),
        foil: Some("x".into()),
        ..Fact::default()
    });
    assert!(
        foil.contains("is the model's answer") && foil.contains("give another answer"),
        "{foil}"
    );
    let refused = |settings: Settings| settings.check().unwrap_err().to_string();
    let noising = refused(Settings {
        direction: Direction::Noising,
        ..Settings::new(Noise::gaussian(0.1))
    });
    assert!(noising.starts_with("direction = noising: "), "{noising}");
    let compat = refused(Settings {
        compat: Compat::PaperCode,
        ..Settings::new(Corruption::Counterfactual(Vec::new()))
    });
    assert!(compat.starts_with("compat = paper-code: "), "{compat}");
}

#[test]
fn a_fact_without_a_partner_says_why_and_has_no_scores() {
    // Its own attribute is not asked for; the partners' are.
    let grids = pair(castle(None)).unwrap();
    let grid = &grids[0];
    match &grid.untraced {
        None => assert_eq!(
            grid.corrupted.as_ref().unwrap().prompt,
            "The Mastle of Aster stands"
        ),
        Some(reason) => {
            assert!(reason.contains("no partner among 2 facts"), "{reason}");
            assert!(grid.scores.is_empty() && grid.low.is_none());
        }
    }
    let alone = pair(Fact {
        prompt: "on a hill".into(),
        subject: "hill".into(),
        ..Fact::default()
    });
    let alone = alone.unwrap();
    let reason = alone[0].untraced.as_ref().unwrap();
    assert!(reason.contains("2 of another token count"), "{reason}");
    assert!(alone[0].scores.is_empty() && !alone[0].traced());
}
