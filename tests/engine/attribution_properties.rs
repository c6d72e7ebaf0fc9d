//! What holds of attribution patching by definition: estimates are derivatives of what patching
//! does, exact where that is linear, and complete along a path; tried on tiny models of several
//! families against passes of this file's own.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use palimpsest::causal::noise::Rule;
use palimpsest::causal::{
    Corruption, Direction, EmbeddingGaussian, Engine, Fact, Gradient, Grid, Kind, Metric, Noise,
    Settings, Unwatched, Verification, Verified, rank_correlation, trace,
};
use palimpsest::model::{Checkpoint, Hook, Model, Pass, with_libtorch_products};
use tch::{Device, Kind as Dtype, Tensor};

use crate::families::{FAMILIES, WORDS, kinds, layer_kinds, models, smooth_models};

const ATTRIBUTION: Engine = Engine::Attribution(Gradient {
    steps: 1,
    drop: false,
});
const SMOOTH: [Metric; 3] = [Metric::LogProbability, Metric::LogitDifference, Metric::Kl];

/// Every metric that is read where these are asked for.
fn read(direction: Direction) -> Vec<Metric> {
    let mut metrics = vec![Metric::Probability];
    metrics.extend(SMOOTH);
    // Flat at the clean run.
    metrics.retain(|&it| direction == Direction::Denoising || it != Metric::Kl);
    metrics
}

/// A run of this file's own: which state is put in, moved by a part of the way to another run's.
struct Run<'a> {
    /// What every state was; pushed to where nothing is put in.
    states: BTreeMap<(Kind, usize), Tensor>,
    put: Option<(Kind, usize, i64, &'a Tensor)>,
    /// The layer whose attention and MLP have no gradient.
    cut: Option<usize>,
}

impl Run<'_> {
    fn see(&mut self, kind: Kind, layer: usize, out: Tensor) -> Tensor {
        let out = match (kind, self.cut) {
            (Kind::Mlp | Kind::Attn, Some(cut)) if cut == layer => out.detach(),
            _ => out,
        };
        self.states.insert((kind, layer), out.shallow_clone());
        match self.put {
            Some((put, at, token, state)) if (put, at) == (kind, layer) => {
                let out = out.copy();
                out.narrow(1, token, 1).copy_(state);
                out
            }
            _ => out,
        }
    }
}

impl Hook for Run<'_> {
    fn resid_pre(&mut self, layer: usize, x: Tensor) -> Tensor {
        self.see(Kind::ResidPre, layer, x)
    }
    fn resid_mid(&mut self, layer: usize, x: Tensor) -> Tensor {
        self.see(Kind::ResidMid, layer, x)
    }
    fn attn(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.see(Kind::Attn, layer, out)
    }
    fn mlp(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.see(Kind::Mlp, layer, out)
    }
    fn hidden(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.see(Kind::Hidden, layer, out)
    }
}

/// Two runs and what is read of them.
struct Pair<'a> {
    model: &'a Model,
    /// Embeddings of the run that is patched and of the other, `[rows, tokens, width]`.
    patched: Tensor,
    other: Tensor,
    /// Logits of the clean run, of which KL is.
    clean: Tensor,
    answer: i64,
    foil: i64,
}

impl Pair<'_> {
    fn run(
        &self,
        embeddings: &Tensor,
        put: Option<(Kind, usize, i64, &Tensor)>,
        cut: Option<usize>,
    ) -> (BTreeMap<(Kind, usize), Tensor>, Tensor) {
        let mut run = Run {
            states: BTreeMap::new(),
            put,
            cut,
        };
        let mut x = self.model.add_positions(embeddings, 0);
        for layer in 0..self.model.config().layers {
            x = self
                .model
                .block(layer, &x, Pass::default(), &mut run)
                .hidden;
        }
        (run.states, self.model.logits(&x.select(1, -1)))
    }

    /// The mean over rows of a metric, a tensor with a gradient where the logits have one.
    fn metric(&self, metric: Metric, logits: &Tensor) -> Tensor {
        let logits = logits.to_kind(Dtype::Double);
        let log = logits.log_softmax(-1, Dtype::Double);
        let each = match metric {
            Metric::Probability => log.select(1, self.answer).exp(),
            Metric::LogProbability => log.select(1, self.answer),
            Metric::LogitDifference => logits.select(1, self.answer) - logits.select(1, self.foil),
            Metric::Kl => {
                let clean = self
                    .clean
                    .to_kind(Dtype::Double)
                    .log_softmax(-1, Dtype::Double);
                (clean.exp() * (&clean - &log)).sum_dim_intlist(
                    [-1i64].as_slice(),
                    false,
                    Dtype::Double,
                )
            }
            Metric::Rank => unreachable!(),
        };
        each.mean(Dtype::Double)
    }

    /// How a metric changes along the way between the two runs' embeddings, after a `part` of it.
    fn slope(&self, metric: Metric, part: f64) -> f64 {
        let way = &self.other - &self.patched;
        let leaf = (&self.patched + &way * part)
            .detach()
            .set_requires_grad(true);
        let (_, logits) = self.run(&leaf, None, None);
        let value = self.metric(metric, &logits);
        let gradient = Tensor::run_backward(&[value], &[&leaf], false, false).remove(0);
        (way * gradient).sum(Dtype::Double).double_value(&[])
    }
}

fn fact(prompt: &str, corrupted: &str) -> Fact {
    Fact {
        prompt: prompt.into(),
        subject: prompt.split(' ').next().unwrap().into(),
        corrupted: Some(corrupted.into()),
        ..Fact::default()
    }
}

/// For a model two prompts of as many tokens to which it gives other answers.
pub fn pairs(model: &Model, count: usize) -> Vec<Fact> {
    let mut found = Vec::new();
    for (n, one) in WORDS.iter().enumerate() {
        for other in &WORDS[n + 1..] {
            let fact = fact(
                &format!("{one} of Aster stands {other}"),
                &format!("{other} of Aster stands {one}"),
            );
            let settings = Settings {
                kinds: vec![Kind::Hidden],
                ..Settings::new(Corruption::Counterfactual(Vec::new()))
            };
            let Ok(grids) = trace(model, &fact, &settings, &Unwatched) else {
                continue; // of different lengths
            };
            // Where a foil is needed it is another answer too.
            let foil = model
                .tokenizer()
                .continuation(&fact.prompt, "zebra")
                .unwrap();
            if grids[0].traced() && foil.target[0] != grids[0].answer.id {
                found.push(fact);
                if found.len() == count {
                    return found;
                }
            }
        }
    }
    panic!("only {} pairs", found.len());
}

fn counterfactual(direction: Direction, engine: Engine) -> Settings {
    let mut metrics = SMOOTH.to_vec();
    metrics.retain(|it| read(direction).contains(it));
    Settings {
        direction,
        engine,
        metrics,
        window: 1,
        ..Settings::new(Corruption::Counterfactual(Vec::new()))
    }
}

/// Noise of three times what embeddings differ by, as by the default rule: that differs much between
/// families.
fn noise(model: &Model) -> Noise {
    let ids = model.tokenizer().encode(&WORDS.join(" ")).unwrap().ids;
    let spread = model.embed(&model.ids(&ids).unwrap()).std(true);
    Noise::gaussian(3.0 * spread.double_value(&[]))
}

/// The two runs of a grid, as this file runs them.
fn runs<'a>(model: &'a Model, grid: &Grid, noise: Option<&Noise>) -> Pair<'a> {
    let ids = |tokens: &[palimpsest::causal::Token]| {
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        model.embed(&model.ids(&ids).unwrap())
    };
    let clean = ids(&grid.tokens);
    let corrupted = match (noise, &grid.corrupted) {
        (Some(noise), _) => {
            let (width, subject) = (model.config().width, grid.subject.clone());
            let drawn = noise
                .draws(grid.seed)
                .next(grid.samples, subject.len(), width);
            let shape = [grid.samples as i64, subject.len() as i64, width as i64];
            let rows = clean.repeat([grid.samples as i64, 1, 1]);
            let mut at = rows.narrow(1, subject.start as i64, subject.len() as i64);
            let noisy = at.to_kind(Dtype::Double) + Tensor::from_slice(&drawn).view(shape);
            at.copy_(&noisy.to_kind(rows.kind()));
            rows
        }
        (None, other) => ids(&other.as_ref().unwrap().tokens),
    };
    let mut pair = Pair {
        model,
        patched: corrupted.shallow_clone(),
        other: clean.shallow_clone(),
        clean: Tensor::new(),
        answer: grid.answer.id.into(),
        foil: grid.foil.as_ref().map_or(0, |foil| foil.id.into()),
    };
    pair.clean = pair.run(&clean, None, None).1;
    if grid.direction == Direction::Noising {
        (pair.patched, pair.other) = (clean, corrupted);
    }
    pair
}

/// What central differences say of the estimates of a grid, in one metric: the largest values over
/// its cells.
#[derive(Debug, Default)]
struct Compared {
    /// Of a difference: how much moving what a cell puts in changes the metric.
    most: f64,
    /// Of the distance of the estimate from it.
    furthest: f64,
    /// Of what Richardson's extrapolation corrected. What is still wrong then is of a higher order
    /// of the step, and less.
    corrected: f64,
    /// Of what rounding may do to it.
    rounding: f64,
}

/// The way to another state that a central difference goes to either side.
const STEP: f64 = 0.01;
/// How far values that are read of float32 may be off: two units of the last place of a logit
/// between 8 and 16.
const READ: f64 = 2.0 / (1 << 20) as f64;

/// By metric what central differences say.
fn against_differences(pair: &Pair<'_>, grid: &Grid, metrics: &[Metric]) -> Vec<Compared> {
    let (own, logits) = pair.run(&pair.patched, None, None);
    let (other, _) = pair.run(&pair.other, None, None);
    let values = |logits: &Tensor| -> Vec<f64> {
        let value = |&metric: &Metric| pair.metric(metric, logits).double_value(&[]);
        metrics.iter().map(value).collect()
    };
    let base = values(&logits);
    let grids: Vec<Grid> = metrics
        .iter()
        .map(|&it| grid.in_metric(it).unwrap())
        .collect();
    let mut found: Vec<Compared> = metrics.iter().map(|_| Compared::default()).collect();
    for (token, layer) in cells(grid) {
        let state = |states: &BTreeMap<(Kind, usize), Tensor>| {
            states[&(grid.kind, layer)].narrow(1, token as i64, 1)
        };
        let (own, other) = (state(&own), state(&other));
        let moved = |part: f64| {
            let put = &own + (&other - &own) * part;
            let put = Some((grid.kind, layer, token as i64, &put));
            values(&pair.run(&pair.patched, put, None).1)
        };
        let [far_up, up, down, far_down] = [2.0, 1.0, -1.0, -2.0].map(|it| moved(it * STEP));
        for (n, found) in found.iter_mut().enumerate() {
            let near = (up[n] - down[n]) / (2.0 * STEP);
            let far = (far_up[n] - far_down[n]) / (4.0 * STEP);
            let correction = (near - far) / 3.0;
            let expected = near + correction;
            let estimate = grids[n].score(token, layer).unwrap() - base[n];
            // A probability is as far off by its own size as its logarithm is.
            let read = match metrics[n] {
                Metric::Probability => READ * far_up[n].max(far_down[n]).max(up[n]).max(down[n]),
                _ => READ,
            };
            for (most, value) in [
                (&mut found.most, expected),
                (&mut found.furthest, estimate - expected),
                (&mut found.corrected, correction),
                // Two values with 4/3 of a half of a step, two with 1/3 of a quarter.
                (&mut found.rounding, 1.5 * read / STEP),
            ] {
                *most = most.max(value.abs());
            }
        }
    }
    found
}

/// Every token with every layer.
fn cells(grid: &Grid) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (tokens, layers) = (grid.tokens.len(), grid.layers);
    (0..tokens).flat_map(move |token| (0..layers).map(move |layer| (token, layer)))
}

#[test]
fn an_estimate_is_the_derivative_of_the_metric_along_what_a_cell_puts_in() {
    let models = smooth_models();
    let _no_grad = tch::no_grad_guard();
    for (n, model) in models.iter().enumerate() {
        for direction in [Direction::Denoising, Direction::Noising] {
            let fact = &pairs(model, 1)[0];
            let settings = Settings {
                kinds: layer_kinds(n),
                ..counterfactual(direction, ATTRIBUTION)
            };
            let grids = trace(model, fact, &settings, &Unwatched).unwrap();
            let pair = runs(model, &grids[0], None);
            with_libtorch_products(|| near(FAMILIES[n], &pair, &grids, &read(direction)));
        }
        // The same of the mean over rows of noise.
        let fact = Fact {
            foil: Some("zebra".into()),
            ..pairs(model, 1).remove(0)
        };
        let noise = noise(model);
        let settings = Settings {
            kinds: layer_kinds(n),
            samples: 3,
            corruption: noise.clone().into(),
            ..counterfactual(Direction::Denoising, ATTRIBUTION)
        };
        let grids = trace(model, &fact, &settings, &Unwatched).unwrap();
        let pair = runs(model, &grids[0], Some(&noise));
        with_libtorch_products(|| near(FAMILIES[n], &pair, &grids, &read(Direction::Denoising)));
    }
}

fn near(family: &str, pair: &Pair<'_>, grids: &[Grid], metrics: &[Metric]) {
    let (mut told, mut tried) = (0, 0);
    for grid in grids {
        let found = against_differences(pair, grid, metrics);
        for (metric, found) in metrics.iter().zip(found) {
            let what = format!("{family}, {}, {metric}: {found:?}", grid.measure());
            assert!(found.furthest < found.corrected + found.rounding, "{what}");
            // A hundredth of an effect would be seen.
            told += usize::from(found.corrected + found.rounding < 0.01 * found.most);
            tried += 1;
        }
    }
    assert!(2 * told > tried, "{family}: {told} of {tried}");
}

/// What is added to the mean square of a state before a norm divides by its root.
const EPSILON: f64 = 1e3;

/// A copy of a tiny model whose norms hardly depend on what they normalise.
fn with_frozen_norms(name: &str) -> Model {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_file() {
            fs::copy(&path, copy.path().join(entry.file_name())).unwrap();
        }
    }
    let file = copy.path().join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for key in ["layer_norm_epsilon", "layer_norm_eps", "rms_norm_eps"] {
        if config.get(key).is_some() {
            config[key] = EPSILON.into();
        }
    }
    fs::write(&file, config.to_string()).unwrap();
    Model::load(
        &Checkpoint::open(copy.path()).unwrap(),
        Device::Cpu,
        Dtype::Float,
    )
    .unwrap()
}

#[test]
fn an_estimate_is_exact_where_the_metric_is_linear_in_the_state() {
    for name in ["gpt2", "gpt-neox-parallel", "llama", "qwen3"] {
        let model = with_frozen_norms(name);
        let fact = Fact {
            foil: Some("zebra".into()),
            ..fact("The Castle of Aster", "The Castle of Oster")
        };
        for direction in [Direction::Denoising, Direction::Noising] {
            let of = |engine| {
                let settings = Settings {
                    kinds: vec![Kind::Hidden],
                    metrics: vec![Metric::LogitDifference],
                    ..counterfactual(direction, engine)
                };
                let grids = trace(&model, &fact, &settings, &Unwatched).unwrap();
                grids[0].in_metric(Metric::LogitDifference).unwrap()
            };
            let (exact, estimate) = (of(Engine::Plain), of(ATTRIBUTION));
            let (last, top) = (exact.tokens.len() - 1, exact.layers - 1);
            // The norm divides by the root of EPSILON and the mean square of the state. What an
            // estimate leaves out is half of the second derivative along the way: of the metric the
            // part that the way's mean square has of EPSILON, and of the effect twice the scale's
            // first derivative, which is the root of the product of both mean squares over EPSILON.
            // Here each counts twice or more, for what those change along the way.
            let pair = tch::no_grad(|| runs(&model, &exact, None));
            let run = |embeddings| {
                let (states, logits) = tch::no_grad(|| pair.run(embeddings, None, None));
                let state = states[&(Kind::Hidden, top)].select(1, -1);
                (state, logits.abs().max().double_value(&[]))
            };
            let ((own, largest), (other, _)) = (run(&pair.patched), run(&pair.other));
            let square = |it: Tensor| it.square().mean(Dtype::Double).double_value(&[]);
            let (way, state) = (square(&other - &own), square(own));
            let size = exact.high.abs().max(exact.low.unwrap().abs());
            let effect = |grid: &Grid| grid.effect(grid.score(last, top).unwrap()).unwrap();
            let (exact, estimate) = (effect(&exact), effect(&estimate));
            let curved = 2.0 * (size * way + exact.abs() * (state * way).sqrt()) / EPSILON;
            // Units of the last place of the logits.
            let rounding = 4.0 * largest * f64::from(f32::EPSILON);
            let bound = curved + rounding;
            let what = format!(
                "{name}, {direction}: {exact:e} {estimate:e} {:e} {bound:e}",
                exact - estimate
            );
            assert!((exact - estimate).abs() < bound, "{what}");
            assert!(bound < 0.01 * exact.abs(), "{what}");
        }
    }
}

#[test]
fn integrated_gradients_are_complete_to_an_error_that_falls_with_the_steps() {
    // A hundred gradients of models so small are sooner multiplied than brought into oneDNN's layout.
    let ratios = with_libtorch_products(incomplete);
    // What is left then falls with the square of the steps, 16 times, where it fell 4 times if
    // another part of it fell with the steps: 8 lies between.
    assert!(ratios.len() > 20, "{ratios:?}");
    assert!(ratios[ratios.len() / 2] < 1.0 / 8.0, "{ratios:?}");
}

/// In order by how much what is left out falls from few steps to many.
fn incomplete() -> Vec<f64> {
    let models = smooth_models();
    let mut ratios = Vec::new();
    for (n, model) in models.iter().enumerate() {
        for (direction, noisy) in [
            (Direction::Denoising, false),
            (Direction::Noising, false),
            (Direction::Denoising, true),
        ] {
            if direction == Direction::Noising && n > 1 {
                continue; // the same way, gone back
            }
            let fact = Fact {
                foil: noisy.then(|| "zebra".into()),
                ..pairs(model, 1).remove(0)
            };
            let noise = noisy.then(|| noise(model));
            let of = |steps: usize| -> Grid {
                let engine = Engine::Attribution(Gradient { steps, drop: false });
                let mut settings = Settings {
                    kinds: vec![Kind::ResidPre],
                    ..counterfactual(direction, engine)
                };
                settings.metrics = SMOOTH.to_vec();
                if let Some(noise) = &noise {
                    settings.corruption = noise.clone().into();
                    settings.samples = 2;
                }
                let mut grids = trace(model, &fact, &settings, &Unwatched).unwrap();
                grids.remove(0)
            };
            let (few, many) = (of(FEW), of(MANY));
            let pair = tch::no_grad(|| runs(model, &few, noise.as_ref()));
            for metric in [&[Metric::Probability][..], &SMOOTH].concat() {
                let sign = direction.order(metric);
                let eighths = 0..=8;
                let slopes = eighths.map(|it| sign * pair.slope(metric, f64::from(it) / 8.0));
                let slopes: Vec<f64> = slopes.collect();
                let [few, many] = [(&few, FEW), (&many, MANY)].map(|(grid, steps)| {
                    let grid = grid.in_metric(metric).unwrap();
                    left_out(&grid, steps, &slopes)
                });
                let total = many.total.abs();
                let size = slopes.iter().fold(0.0_f64, |size, it| size.max(it.abs()));
                // Gradients and metrics of float32, summed up over the steps.
                let rounding = 2e-5 * total.max(0.1);
                let what = format!(
                    "{}, {direction} {noisy}, {metric}: {slopes:?} {few:?} {many:?}",
                    FAMILIES[n]
                );
                assert!(
                    many.rest.abs() < size / (6 * MANY) as f64 + rounding,
                    "{what}"
                );
                if few.rest.abs() > 50.0 * rounding {
                    ratios.push((many.rest / few.rest).abs());
                }
            }
        }
    }
    ratios.sort_by(f64::total_cmp);
    ratios
}

/// Steps of integrated gradients that are compared, the second four times the first.
const FEW: usize = 32;
const MANY: usize = 128;

/// How the sum over the first block's inputs misses the difference of the two runs.
#[derive(Debug)]
struct LeftOut {
    /// That difference.
    total: f64,
    /// What the sum misses of it.
    #[allow(dead_code)] // for messages
    missing: f64,
    /// The same without `(f(1) - f(0)) / 2s`. For a metric that changes by `f` along the way, `s`
    /// steps are the left Riemann sum of `f`, which by Euler and Maclaurin misses that and, in the
    /// next order, `(f'(0) - f'(1)) / 12s^2`. That is `f / 6s` or less while `f` changes by no more
    /// than its own size within a step, without which no sum over the steps says anything.
    rest: f64,
}

/// Of a grid of first inputs, with the `slopes` of its metric from one end of the way to the other.
fn left_out(grid: &Grid, steps: usize, slopes: &[f64]) -> LeftOut {
    let effect = |token| grid.effect(grid.score(token, 0).unwrap()).unwrap();
    let total = grid.total_effect().unwrap();
    let missing = total - (0..grid.tokens.len()).map(effect).sum::<f64>();
    LeftOut {
        total,
        missing,
        rest: missing - (slopes[slopes.len() - 1] - slopes[0]) / (2 * steps) as f64,
    }
}

#[test]
fn noise_that_is_another_prompts_embedding_gives_the_estimates_of_that_prompt() {
    let models = models(Dtype::Float);
    for (n, model) in models.iter().enumerate() {
        // One token is other: the embedding that is drawn in its place has no variance.
        let ids = |word: &str| {
            model
                .tokenizer()
                .encode(&format!("{word} of Aster stands"))
                .unwrap()
                .ids
        };
        let all = WORDS.map(|one| WORDS.map(|other| (one, other))).concat();
        let one_token = |&&(one, other): &&(&str, &str)| {
            let (x, y) = (ids(one), ids(other));
            x.len() == y.len()
                && x.iter().zip(&y).position(|(x, y)| x != y) == Some(0)
                && x[1..] == y[1..]
        };
        let Some((one, other)) = all.iter().find(one_token) else {
            continue;
        };
        let mut fact = fact(
            &format!("{one} of Aster stands"),
            &format!("{other} of Aster stands"),
        );
        fact.foil = Some("zebra".into());
        fact.subject = one.chars().next().unwrap().to_string();
        let width = model.config().width;
        let first = model
            .embed(&model.ids(&ids(other)[..1]).unwrap())
            .flatten(0, -1);
        let mean: Vec<f64> = Vec::try_from(first.to_kind(Dtype::Double)).unwrap();
        let gaussian = EmbeddingGaussian::new(mean, vec![0.0; width * width]);
        let rule: Rule = "replace:m".parse().unwrap();
        let noise = rule.resolve(None, Some(Arc::new(gaussian))).unwrap();
        let of = |corruption: Corruption| {
            let settings = Settings {
                kinds: layer_kinds(n),
                corruption,
                samples: 1,
                verify: 3,
                ..counterfactual(Direction::Denoising, ATTRIBUTION)
            };
            trace(model, &fact, &settings, &Unwatched).unwrap()
        };
        let (noisy, other) = (of(noise.into()), of(Corruption::Counterfactual(Vec::new())));
        assert_eq!(noisy[0].subject, 0..1);
        for (noisy, other) in noisy.iter().zip(&other) {
            assert_eq!((noisy.low, &noisy.scores), (other.low, &other.scores));
            assert_eq!(noisy.readings, other.readings);
        }
    }
}

#[test]
fn a_window_is_the_sum_of_its_layers() {
    let models = models(Dtype::Float);
    for model in &models {
        let fact = &pairs(model, 1)[0];
        let of = |window| {
            let settings = Settings {
                kinds: vec![Kind::Mlp, Kind::Attn],
                window,
                ..counterfactual(Direction::Denoising, ATTRIBUTION)
            };
            trace(model, fact, &settings, &Unwatched).unwrap()
        };
        for (single, wide) in of(1).iter().zip(&of(2)) {
            for (token, layer) in cells(wide) {
                let effect =
                    |layer: usize| single.effect(single.score(token, layer).unwrap()).unwrap();
                let window = wide.kind.window(layer, wide.layers, 2);
                let found = wide.effect(wide.score(token, layer).unwrap()).unwrap();
                assert!((found - window.map(effect).sum::<f64>()).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn gradient_drop_is_the_mean_magnitude_over_gradients_that_leave_out_a_layer() {
    let models = models(Dtype::Float);
    for (n, model) in models.iter().enumerate() {
        for direction in [Direction::Denoising, Direction::Noising] {
            let fact = &pairs(model, 1)[0];
            let engine = Engine::Attribution(Gradient {
                steps: 1,
                drop: true,
            });
            let settings = Settings {
                kinds: layer_kinds(n),
                ..counterfactual(direction, engine)
            };
            let grids = trace(model, fact, &settings, &Unwatched).unwrap();
            for metric in read(direction) {
                dropped_as_detached(FAMILIES[n], model, &grids, metric);
            }
        }
    }
}

/// Every layer's contributions detached in a forward pass of its own.
fn dropped_as_detached(family: &str, model: &Model, grids: &[Grid], metric: Metric) {
    let pair = tch::no_grad(|| runs(model, &grids[0], None));
    let (other, _) = tch::no_grad(|| pair.run(&pair.other, None, None));
    let mut magnitudes: BTreeMap<(Kind, usize), Tensor> = BTreeMap::new();
    for cut in 0..grids[0].layers {
        let leaf = pair.patched.copy().set_requires_grad(true);
        let (own, logits) = pair.run(&leaf, None, Some(cut));
        let value = pair.metric(metric, &logits);
        // Where nothing is left that leads to the metric there is no gradient.
        let reached = own
            .iter()
            .filter(|((kind, layer), _)| *layer != cut || !matches!(kind, Kind::Mlp | Kind::Attn));
        let (sites, states): (Vec<(Kind, usize)>, Vec<&Tensor>) = reached.unzip();
        let gradients = Tensor::run_backward(&[value], &states, true, false);
        for ((site, own), gradient) in sites.into_iter().zip(states).zip(gradients) {
            let effect = ((&other[&site] - own.detach()) * gradient).to_kind(Dtype::Double);
            let effect = effect.sum_dim_intlist([0i64, 2].as_slice(), false, Dtype::Double);
            let sum = match magnitudes.remove(&site) {
                Some(sum) => sum + effect.abs(),
                None => effect.abs(),
            };
            magnitudes.insert(site, sum);
        }
    }
    for grid in grids {
        let grid = grid.in_metric(metric).unwrap();
        for (token, layer) in cells(&grid) {
            let ways = match grid.kind {
                Kind::Mlp | Kind::Attn => grid.layers - 1,
                _ => grid.layers,
            };
            let sum = magnitudes[&(grid.kind, layer)].double_value(&[token as i64]);
            let expected = sum / ways as f64;
            let found = grid.effect(grid.score(token, layer).unwrap()).unwrap();
            assert!(
                (found - expected).abs() < 1e-4 * expected.max(0.1),
                "{family}, {} {token} {layer}: {found} {expected}",
                grid.measure()
            );
        }
    }
}

#[test]
fn verified_cells_are_those_of_a_full_plain_sweep_and_the_largest_are_among_them() {
    let models = models(Dtype::Float);
    for (n, model) in models.iter().enumerate() {
        for (direction, noisy) in [
            (Direction::Denoising, true),
            (Direction::Denoising, false),
            (Direction::Noising, false),
        ] {
            let mut fact = pairs(model, 1).remove(0);
            let of = |fact: &Fact, engine, verify| {
                let mut settings = Settings {
                    kinds: [layer_kinds(n), vec![Kind::HeadV, Kind::HeadQAll]].concat(),
                    window: 2,
                    verify,
                    ..counterfactual(direction, engine)
                };
                settings.metrics = vec![Metric::LogitDifference, Metric::LogProbability];
                if noisy {
                    settings.corruption = Noise::gaussian(0.05).into();
                    settings.samples = 2;
                }
                trace(model, fact, &settings, &Unwatched).unwrap()
            };
            if noisy {
                fact.foil = Some("zebra".into());
            }
            let (plain, estimates) = (of(&fact, Engine::Plain, 0), of(&fact, ATTRIBUTION, 4));
            for (plain, grid) in plain.iter().zip(&estimates) {
                verified(FAMILIES[n], plain, grid);
            }
            // All of them, where there are not so many: what they say is what the whole grids do.
            let (exact, all) = (of(&fact, Engine::Exact, 0), of(&fact, ATTRIBUTION, 1_000));
            for (exact, grid) in exact.iter().zip(&all) {
                let first = grid.first_difference().unwrap();
                let skipped = match grid.kind.is_over_tokens() {
                    true => 0,
                    false => first * grid.heads * grid.layers,
                };
                let cells = grid.scores.len() - skipped;
                assert_eq!(grid.verified.len(), cells);
                let [grid, exact] = [grid, exact].map(|grid| {
                    let grid = grid.in_metric(Metric::LogitDifference);
                    grid.unwrap()
                });
                let effects = |grid: &Grid| -> Vec<f64> {
                    let scores = grid.scores[skipped..].iter();
                    scores.map(|&score| grid.effect(score).unwrap()).collect()
                };
                let (estimated, exact) = (effects(&grid), effects(&exact));
                let found = Verification::of(&grid).unwrap();
                assert_eq!((found.top, found.random, found.missed), (cells, 0, None));
                // Cells that change nothing are equal to the last bit in both.
                let ranks = rank_correlation(&estimated, &exact).unwrap();
                let close = (found.rank_correlation.unwrap() - ranks).abs() < 0.01;
                assert!(close, "{}: {found:?} {ranks}", FAMILIES[n]);
                let pairs = estimated.iter().zip(&exact);
                let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                let size = exact.iter().fold(1.0_f64, |size, it| size.max(it.abs()));
                let miss = found.largest_miss;
                let apart = ((miss.estimate - miss.exact).abs() - largest).abs();
                assert!(apart < 1e-5 * size, "{}: {apart} of {size}", FAMILIES[n]);
            }
        }
    }
}

fn verified(family: &str, plain: &Grid, grid: &Grid) {
    let what = format!("{family}, {}", grid.measure());
    let first = grid.first_difference().unwrap();
    let in_first = grid.in_metric(Metric::LogitDifference).unwrap();
    let of = |grid: &Grid, it: &Verified| {
        assert_eq!(it.head.is_some(), grid.kind.is_of_heads());
        let head = it.head.unwrap_or_default();
        grid.head_score(it.token, head, it.layer).unwrap()
    };
    let magnitude = |score| in_first.effect(score).unwrap().abs();
    let cell = |it: &Verified| magnitude(of(&in_first, it));
    let top: Vec<f64> = grid
        .verified
        .iter()
        .filter(|it| !it.random)
        .map(cell)
        .collect();
    let least = top.iter().copied().fold(f64::INFINITY, f64::min);
    let larger = in_first.scores.iter();
    let larger = larger.filter(|&&score| magnitude(score) > least);
    assert!(top.len() == 4 && larger.count() < 4, "{what}");
    // Over all tokens there are few.
    let others = grid.verified.iter().filter(|it| it.random).count();
    let cells = grid.scores.len();
    assert!(
        others == 4 || grid.kind.is_over_tokens() && others + 4 == cells,
        "{what}"
    );
    for cell in &grid.verified {
        assert!(cell.token >= first || grid.kind.is_over_tokens());
        let metrics =
            std::iter::once(Metric::Probability).chain(grid.readings.iter().map(|it| it.metric));
        for (metric, exact) in metrics.zip(&cell.exact) {
            let plain = plain.in_metric(metric).unwrap();
            let expected = of(&plain, cell);
            // Another engine, within what it promises.
            assert!(
                (exact - expected).abs() < 1e-5 * expected.abs().max(1.0),
                "{what}, {metric}"
            );
        }
    }
}

#[test]
fn what_fits_into_memory_changes_no_estimate() {
    let models = models(Dtype::Float);
    for (n, model) in models.iter().enumerate() {
        let fact = Fact {
            foil: Some("zebra".into()),
            ..pairs(model, 1).remove(0)
        };
        let of = |memory_bytes| {
            let settings = Settings {
                kinds: kinds(n),
                corruption: Noise::gaussian(0.05).into(),
                samples: 5,
                verify: 2,
                memory_bytes,
                engine: Engine::Attribution(Gradient {
                    steps: 2,
                    drop: true,
                }),
                ..counterfactual(Direction::Denoising, ATTRIBUTION)
            };
            trace(model, &fact, &settings, &Unwatched).unwrap()
        };
        for (roomy, tight) in of(1 << 30).iter().zip(&of(1)) {
            for (one, other) in roomy.scores.iter().zip(&tight.scores) {
                assert!((one - other).abs() < 1e-6, "{}: {one} {other}", FAMILIES[n]);
            }
        }
    }
}

#[test]
fn estimates_in_bfloat16_are_those_of_float32_within_its_rounding() {
    let (wide, narrow) = (models(Dtype::Float), models(Dtype::BFloat16));
    let mut tried = 0;
    for (n, (wide, narrow)) in wide.iter().zip(&narrow).enumerate() {
        let fact = &pairs(wide, 1)[0];
        let settings = Settings {
            kinds: layer_kinds(n),
            metrics: vec![Metric::LogProbability],
            ..counterfactual(Direction::Denoising, ATTRIBUTION)
        };
        let of = |model| trace(model, fact, &settings, &Unwatched).unwrap();
        let (wide, narrow) = (of(wide), of(narrow));
        if !narrow[0].traced() || narrow[0].answer != wide[0].answer {
            continue;
        }
        tried += 1;
        for (wide, narrow) in wide.iter().zip(&narrow) {
            let [wide, narrow] =
                [wide, narrow].map(|grid| grid.in_metric(Metric::LogProbability).unwrap());
            let effects = |grid: &Grid| -> Vec<f64> {
                grid.scores
                    .iter()
                    .map(|&it| grid.effect(it).unwrap())
                    .collect()
            };
            let (wide, narrow) = (effects(&wide), effects(&narrow));
            let square =
                |values: &mut dyn Iterator<Item = f64>| values.map(|it| it * it).sum::<f64>();
            let pairs = wide.iter().zip(&narrow);
            let apart = square(&mut pairs.map(|(wide, narrow)| wide - narrow)).sqrt();
            let whole = square(&mut wide.iter().copied()).sqrt();
            assert!(
                apart < 0.25 * whole + 0.02,
                "{}: {apart} of {whole}",
                FAMILIES[n]
            );
        }
    }
    assert!(tried > 3, "{tried}");
}

#[test]
fn a_model_that_gives_no_useful_gradient_is_refused_with_the_remedy() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let half = Model::load(&checkpoint, Device::Cpu, Dtype::Half).unwrap();
    let settings = counterfactual(Direction::Denoising, ATTRIBUTION);
    let fact = fact("Castle of Aster", "Aster of Castle");
    let error = trace(&half, &fact, &settings, &Unwatched)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("dtype = f16: ") && error.contains("use bf16 or f32"),
        "{error}"
    );
}

/// Puts the other run's neuron into an MLP at one token.
struct OneNeuron<'a> {
    keys: &'a [Tensor],
    layer: usize,
    token: i64,
    neuron: i64,
}

impl Hook for OneNeuron<'_> {
    fn key(&mut self, layer: usize, key: Tensor) -> Tensor {
        if layer == self.layer {
            let at = |states: &Tensor| {
                let of_token = states.narrow(1, self.token, 1);
                of_token.narrow(2, self.neuron, 1)
            };
            at(&key).copy_(&at(&self.keys[layer]));
        }
        key
    }
}

#[derive(Default)]
struct Keys(Vec<Tensor>);

impl Hook for Keys {
    fn key(&mut self, _layer: usize, key: Tensor) -> Tensor {
        self.0.push(key.copy());
        key
    }
}

#[test]
fn neurons_add_up_to_their_mlp_and_those_verified_are_those_of_a_whole_pass() {
    let models = smooth_models();
    for (n, model) in models.iter().enumerate() {
        let fact = pairs(model, 1).remove(0);
        for direction in [Direction::Denoising, Direction::Noising] {
            let settings = Settings {
                kinds: vec![Kind::Mlp, Kind::Neuron],
                metrics: vec![Metric::LogProbability],
                window: 1,
                verify: 1_000,
                ..counterfactual(direction, ATTRIBUTION)
            };
            let grids = trace(model, &fact, &settings, &Unwatched).unwrap();
            let [mlp, grid] =
                [&grids[0], &grids[1]].map(|grid| grid.in_metric(Metric::LogProbability).unwrap());
            let what = FAMILIES[n];
            let from = match direction {
                Direction::Denoising => grid.low.unwrap(),
                Direction::Noising => grid.high,
            };
            let inner = model.config().inner;
            let first = grid.first_difference().unwrap();
            let cells = (grid.tokens.len() - first) * grid.layers * inner;
            assert_eq!(grid.verified.len(), cells.min(2_000), "{what}");

            let prompts = [&fact.prompt, fact.corrupted.as_ref().unwrap()];
            let [x, y] = prompts.map(|prompt| model.tokenizer().encode(prompt).unwrap().ids);
            let (source, patched) = match direction {
                Direction::Denoising => (x, y),
                Direction::Noising => (y, x),
            };
            let run = |ids: &[u32], hook: &mut dyn Hook| {
                let _no_grad = tch::no_grad_guard();
                let mut x = model.add_positions(&model.embed(&model.ids(ids).unwrap()), 0);
                for layer in 0..model.config().layers {
                    x = model.block(layer, &x, Pass::default(), hook).hidden;
                }
                let log = model.logits(&x.select(1, -1)).log_softmax(-1, Dtype::Float);
                log.double_value(&[0, i64::from(grid.answer.id)])
            };
            let mut keys = Keys::default();
            run(&source, &mut keys);
            for cell in grid.verified.iter().step_by(23) {
                let mut put = OneNeuron {
                    keys: &keys.0,
                    layer: cell.layer,
                    token: cell.token as i64,
                    neuron: cell.neuron.unwrap() as i64,
                };
                let exact = run(&patched, &mut put);
                let found = cell.exact[0];
                assert!((found - exact).abs() < 2e-5, "{what}: {found} {exact}");
            }
            // The grid shows the strongest.
            let strongest = (grid.neurons.iter().zip(&grid.scores)).enumerate();
            for (place, (&neuron, &score)) in strongest {
                let (token, layer) = (place / grid.layers, place % grid.layers);
                let here = || {
                    let verified = grid.verified.iter();
                    verified.filter(|it| (it.token, it.layer) == (token, layer))
                };
                let own = here().find(|it| it.neuron == Some(neuron as usize));
                if let Some(own) = own {
                    assert_eq!(own.estimate[0], score, "{what}");
                }
                let most = here().map(|it| (it.estimate[0] - from).abs());
                assert!(most.fold(0.0, f64::max) <= (score - from).abs(), "{what}");
                if here().count() == inner {
                    let sum: f64 = here().map(|it| it.estimate[0] - from).sum();
                    let whole = mlp.score(token, layer).unwrap() - from;
                    let size = whole.abs().max(0.1);
                    assert!((sum - whole).abs() < 1e-4 * size, "{what}: {sum} {whole}");
                }
            }
        }
    }
}
