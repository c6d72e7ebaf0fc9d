//! A device tried before it is trusted: what a worker computes, on random models, held against the
//! same by another way.
//!
//! The other ways: the plain engine, libtorch's own products on the CPU, sums in double precision,
//! and the same once more. What differs by more than rounding is a fault of the device, its driver
//! or this program, and no worker should run there.
#![allow(clippy::disallowed_methods)] // speeds are measured

mod model;

use std::panic::{self, AssertUnwindSafe};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use tch::{Cuda, Device, Kind, Tensor};

use super::device::{device_name, device_names};
use crate::causal::{self, Engine, Fact, Grid, Noise, Settings, trace};
use crate::edit::{self, Hyperparameters, Method, Optimiser, Overrides, Request};
use crate::model::device::devices;
use crate::model::{Hook, Model, Pass, Products, with_libtorch_products};
use crate::stats::{Collector, Moment};
use model::Size;

/// How far grids in float32 may be apart: those of one device, and those of two.
const SAME_DEVICE: f64 = 1e-5;
const OTHER_DEVICE: f64 = 1e-4;
/// How far values that an edit found may be apart after some steps, by their length.
const VALUES: f64 = 1e-3;
/// How far sums of squares may be apart, by the largest.
const SUMS: f64 = 1e-5;
/// Steps of a search that is compared.
const STEPS: usize = 5;
/// A product that takes less long is made larger until it does not, up to the widest.
const LONG: f64 = 0.05;
const WIDEST: i64 = 16_384;
/// Floats that no device has room for.
const TOO_MANY: i64 = 1 << 46;

const SMALL: Size = Size {
    width: 256,
    layers: 6,
    heads: 8,
    inner: 704,
};
const LARGE: Size = Size {
    width: 1024,
    layers: 8,
    heads: 16,
    inner: 2816,
};

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What.
    pub name: String,
    /// What came of it.
    pub outcome: TrialOutcome,
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub enum TrialOutcome {
    /// It is as it should be: the figures.
    Right(String),
    /// It is not: what is wrong.
    Wrong(String),
    /// There was nothing to try it with: a random model could not be written or loaded.
    NotTried(String),
}

/// Tries each device that [`devices`] reads: what must be right, in some ten seconds on a processor,
/// and with `speeds` also what it is worth, in a minute. Of several that are used together, also a
/// model that is spread over them.
///
/// # Errors
/// [`crate::model::Error`] where there is no such device.
pub fn try_devices(
    names: &str,
    together: bool,
    speeds: bool,
) -> Result<Vec<Trial>, crate::model::Error> {
    let devices = devices(names)?;
    let mut found = Vec::new();
    for (n, &device) in devices.iter().enumerate() {
        if devices[..n].contains(&device) {
            continue;
        }
        let mut trials = Trials { device, found };
        trials.right();
        if speeds {
            trials.speeds();
        }
        found = trials.found;
    }
    if together && devices.len() > 1 {
        found.push(spread(&devices));
    }
    Ok(found)
}

/// Whether a model that is spread over devices computes what it does on the first.
fn spread(devices: &[Device]) -> Trial {
    let tried = || -> anyhow::Result<String> {
        let folder = tempfile::tempdir()?;
        let checkpoint = model::write(folder.path(), model::config("llama", SMALL))?;
        let over = Model::load_over(&checkpoint, devices, Kind::Float)?;
        let alone = Model::load(&checkpoint, devices[0], Kind::Float)?;
        let off = apart(
            &grids(&alone, Engine::Exact, 2)?,
            &grids(&over, Engine::Exact, 2)?,
        )?;
        ensure!(
            off <= SAME_DEVICE,
            "its grids differ from those on the first by {off:.1e}, where {SAME_DEVICE:.0e} is rounding"
        );
        let (expected, found) = (value(&alone)?, value(&over)?);
        let moved = (&found - &expected).norm().double_value(&[])
            / expected.norm().double_value(&[]).max(f64::MIN_POSITIVE);
        ensure!(
            moved <= VALUES,
            "its edit's value is {moved:.1e} of its length from that on the first, where {VALUES:.0e} is rounding"
        );
        Ok(format!(
            "grids {off:.1e} and an edit's value {moved:.1e} from those on the first"
        ))
    };
    Trial {
        name: format!("{}: a model over all", device_names(devices)),
        outcome: outcome(tried),
    }
}

struct Trials {
    device: Device,
    found: Vec<Trial>,
}

impl Trials {
    /// What must be right.
    fn right(&mut self) {
        for family in ["llama", "gpt2"] {
            self.small(family);
        }
        let device = self.device;
        self.note("memory that is not there", || out_of_memory(device));
    }

    /// What the device is worth.
    fn speeds(&mut self) {
        let device = self.device;
        let mut rates = Vec::new();
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            self.note(&format!("{} products", called(kind)), || {
                let (rate, size) = rate(device, kind)?;
                rates.push((kind, rate));
                Ok(format!("{:.1} GMAC/s at {size} x {size}", rate / 1e9))
            });
        }
        let made = (|| -> anyhow::Result<_> {
            let folder = tempfile::tempdir()?;
            let checkpoint = model::write(folder.path(), model::config("llama", LARGE))?;
            Ok((checkpoint, folder))
        })();
        let (checkpoint, _folder) = match made {
            Ok(made) => made,
            Err(error) => return self.not_tried("speed", &error),
        };
        rates.retain(|(kind, _)| *kind != Kind::Half);
        for (kind, rate) in rates {
            let name = format!("{} speed", called(kind));
            match Model::load(&checkpoint, device, kind) {
                Ok(model) => self.note(&name, || speed(&model, rate)),
                Err(error) => self.not_tried(&name, &error.into()),
            }
        }
    }

    fn note(&mut self, name: &str, work: impl FnOnce() -> anyhow::Result<String>) {
        self.add(name, outcome(work));
    }

    fn not_tried(&mut self, name: &str, error: &anyhow::Error) {
        self.add(name, TrialOutcome::NotTried(format!("{error:#}")));
    }

    fn add(&mut self, name: &str, outcome: TrialOutcome) {
        self.found.push(Trial {
            name: format!("{}: {name}", device_name(self.device)),
            outcome,
        });
    }

    fn small(&mut self, family: &str) {
        let device = self.device;
        let models = || -> anyhow::Result<_> {
            let folder = tempfile::tempdir()?;
            let checkpoint = model::write(folder.path(), model::config(family, SMALL))?;
            let tried = Model::load(&checkpoint, device, Kind::Float)?;
            let reference = Model::load(&checkpoint, Device::Cpu, Kind::Float)?;
            let halves = Model::load(&checkpoint, device, Kind::BFloat16)?;
            Ok((tried, reference, halves))
        };
        let (tried, reference, halves) = match models() {
            Ok(models) => models,
            Err(error) => return self.not_tried(family, &error),
        };
        self.note(&format!("grids of {family}"), || {
            let exact = grids(&tried, Engine::Exact, 2)?;
            let again = grids(&tried, Engine::Exact, 2)?;
            let plain = grids(&tried, Engine::Plain, 2)?;
            let elsewhere = with_libtorch_products(|| grids(&reference, Engine::Exact, 2))?;
            let halved = grids(&halves, Engine::Exact, 2)?;
            let own = apart(&exact, &plain)?;
            let other = apart(&exact, &elsewhere)?;
            let repeated = apart(&exact, &again)?;
            ensure!(own <= SAME_DEVICE, "exact and plain engine differ by {own:.1e}, where {SAME_DEVICE:.0e} is rounding");
            ensure!(
                other <= OTHER_DEVICE,
                "they differ from libtorch's on the CPU by {other:.1e}, where {OTHER_DEVICE:.0e} is rounding"
            );
            ensure!(
                repeated == 0.0 || device != Device::Cpu,
                "the same grids computed twice differ by {repeated:.1e}: results of a CPU are to be the same bytes"
            );
            let repeated = match repeated {
                0.0 => "the same bytes twice".to_owned(),
                _ => format!("{repeated:.1e} between two runs"),
            };
            // Of weights drawn by chance it may be another token that is the likeliest.
            let halved = match halved[0].answer == exact[0].answer {
                true => format!("bf16 against f32 {:.1e}", apart(&exact, &halved)?),
                false => "bf16 answers by another token than f32".to_owned(),
            };
            Ok(format!(
                "exact against plain {own:.1e}, against libtorch on the CPU {other:.1e}, {repeated}; {halved}"
            ))
        });
        self.note(&format!("edit of {family}"), || {
            let found = value(&tried)?;
            let expected = with_libtorch_products(|| value(&reference))?;
            let off = (&found - &expected).norm().double_value(&[])
                / expected.norm().double_value(&[]).max(f64::MIN_POSITIVE);
            ensure!(
                off <= VALUES,
                "after {STEPS} steps its value is {off:.1e} of its length from libtorch's own gradients on the CPU, where \
                 {VALUES:.0e} is rounding"
            );
            Ok(format!("{STEPS} steps, {off:.1e} of its length from libtorch's own gradients on the CPU"))
        });
        self.note(&format!("statistics of {family}"), || {
            let off = sums(&tried)?;
            ensure!(off <= SUMS, "their sums are {off:.1e} of the largest from sums in double precision, where {SUMS:.0e} is rounding");
            Ok(format!("{off:.1e} of the largest from sums in double precision"))
        });
    }
}

/// What comes of some work: its figures, or what it says is wrong.
fn outcome(work: impl FnOnce() -> anyhow::Result<String>) -> TrialOutcome {
    // tch turns libtorch's exceptions into panics unless every call is the checked one.
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(figures)) => TrialOutcome::Right(figures),
        Ok(Err(error)) => TrialOutcome::Wrong(format!("{error:#}")),
        Err(payload) => TrialOutcome::Wrong(match payload.downcast_ref::<String>() {
            Some(said) => said.lines().next().unwrap_or_default().to_owned(),
            None => "libtorch failed".to_owned(),
        }),
    }
}

/// How fast a model is computed with, where products have this rate.
fn speed(model: &Model, rate: f64) -> anyhow::Result<String> {
    let (device, tokens) = (model.device(), 4096);
    // Once before it counts: libraries choose their kernels.
    collect(model, 512)?;
    let collecting = timed(device, || collect(model, tokens))?;
    let settings = Settings {
        kinds: vec![causal::Kind::Hidden],
        ..settings(2)
    };
    let hidden = timed(device, || {
        Ok(trace(model, &fact(), &settings, &causal::Unwatched)?)
    })?;
    let step = timed(device, || value(model))? / STEPS as f64;
    let work = tokens as f64 * weights(model);
    Ok(format!(
        "{:.0} million weights: {:.0} tokens/s of key statistics, {:.0} % of the products' rate; {hidden:.2} s a hidden grid of 10 \
         tokens; {step:.3} s a step of an edit",
        weights(model) / 1e6,
        tokens as f64 / collecting,
        100.0 * work / collecting / rate
    ))
}

/// What people call a number format.
fn called(kind: Kind) -> &'static str {
    match kind {
        Kind::BFloat16 => "bf16",
        Kind::Half => "f16",
        _ => "f32",
    }
}

/// Weights of the blocks.
fn weights(model: &Model) -> f64 {
    let config = model.config();
    let attention = 2 * config.width * (config.heads + config.kv_heads) * config.head_dim;
    (config.layers * (attention + 3 * config.width * config.inner)) as f64
}

fn timed<T>(device: Device, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    work()?;
    wait(device);
    Ok(begun.elapsed().as_secs_f64())
}

/// A GPU is asked, and goes on computing behind the answer.
fn wait(device: Device) {
    if let Device::Cuda(number) = device {
        Cuda::synchronize(number as i64);
    }
}

/// Multiply-adds a second of a product large enough to be measured, and its rows.
fn rate(device: Device, kind: Kind) -> anyhow::Result<(f64, i64)> {
    let _no_grad = tch::no_grad_guard();
    let mut size = 1024;
    loop {
        let x = Tensor::f_randn([size, size], (Kind::Float, device))?.f_to_kind(kind)?;
        let multiply = || Ok(Products::linear(&x, &x));
        timed(device, multiply)?;
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            best = best.min(timed(device, multiply)?);
        }
        if best >= LONG || size >= WIDEST {
            return Ok(((size as f64).powi(3) / best, size));
        }
        size *= 2;
    }
}

fn fact() -> Fact {
    Fact {
        prompt: "Rome is in".into(),
        subject: "Rome".into(),
        ..Fact::default()
    }
}

fn settings(samples: usize) -> Settings {
    Settings {
        samples,
        window: 3,
        ..Settings::new(Noise::gaussian(0.3))
    }
}

fn grids(model: &Model, engine: Engine, samples: usize) -> anyhow::Result<Vec<Grid>> {
    let settings = Settings {
        engine,
        ..settings(samples)
    };
    Ok(trace(model, &fact(), &settings, &causal::Unwatched)?)
}

/// The largest difference of scores.
fn apart(some: &[Grid], others: &[Grid]) -> anyhow::Result<f64> {
    let scores = |grids: &[Grid]| -> Vec<f64> {
        grids
            .iter()
            .flat_map(|grid| grid.scores.iter().copied())
            .collect()
    };
    let (some, others) = (scores(some), scores(others));
    if some.is_empty() || some.len() != others.len() {
        bail!("the grids have {} and {} cells", some.len(), others.len());
    }
    let apart = some.iter().zip(&others).map(|(x, y)| (x - y).abs());
    let most = apart.fold(0.0, |most: f64, off| {
        if off.is_nan() {
            f64::INFINITY
        } else {
            most.max(off)
        }
    });
    Ok(most)
}

/// What the search of a rank-one edit has found after some steps, on the CPU.
fn value(model: &Model) -> anyhow::Result<Tensor> {
    let request = Request {
        prompt: "{} is in downtown".into(),
        subject: "The Space Needle".into(),
        target_new: "Rome".into(),
        target_true: None,
    };
    let overrides = Overrides::at(Some(2)).with(Method::Rome, "steps", STEPS as f64)?;
    let hyper = Hyperparameters::new(Method::Rome, model.config(), &overrides)?;
    let contexts = ["{}".to_owned(), "It is said. {}".to_owned()];
    let optimiser = Optimiser::prepare(model, &request, &contexts, &hyper, &edit::Unwatched)?;
    let (delta, _) = optimiser.run(&edit::Unwatched)?;
    Ok(delta.f_to_device(Device::Cpu)?)
}

/// Key statistics of the last layer, of tokens of all kinds.
fn collect(model: &Model, tokens: usize) -> anyhow::Result<Moment> {
    let mut collector = Collector::new(model, &[model.config().layers - 1])?;
    for text in texts(tokens) {
        collector.add(&text, |_| true)?;
    }
    let mut moments = collector.finish(|_| true)?;
    Ok(moments.remove(0))
}

fn texts(tokens: usize) -> impl Iterator<Item = Vec<u32>> {
    let text = |n: usize| {
        (0..64)
            .map(|at| ((n * 64 + at) * 31 % 251) as u32)
            .collect()
    };
    (0..tokens / 64).map(text)
}

/// How far such sums are from those in double precision, by the largest.
fn sums(model: &Model) -> anyhow::Result<f64> {
    struct Keys(usize, Option<Tensor>);
    impl Hook for Keys {
        fn key(&mut self, layer: usize, key: Tensor) -> Tensor {
            if layer == self.0 {
                let size = key.size();
                let wide = key.to_device(Device::Cpu).to_kind(Kind::Double);
                let keys = wide.reshape([size[0] * size[1], size[2]]);
                let sum = keys.tr().matmul(&keys);
                self.1 = Some(match &self.1 {
                    Some(before) => before + sum,
                    None => sum,
                });
            }
            key
        }
    }
    let _no_grad = tch::no_grad_guard();
    let tokens = 1024;
    let found = collect(model, tokens)?;
    let mut keys = Keys(model.config().layers - 1, None);
    for text in texts(tokens) {
        let mut x = model.add_positions(&model.embed(&model.ids(&text)?), 0);
        for layer in 0..model.config().layers {
            x = model.block(layer, &x, Pass::default(), &mut keys).hidden;
        }
    }
    let expected = keys.1.context("no keys were seen")?;
    let size = found.size() as i64;
    let found = Tensor::from_slice(found.sum()).view([size, size]);
    let off = (found - &expected).abs().max().double_value(&[]);
    Ok(off / expected.abs().max().double_value(&[]))
}

/// More than there is must be refused, and cost nothing but the refusal.
fn out_of_memory(device: Device) -> anyhow::Result<String> {
    if Tensor::f_zeros([TOO_MANY], (Kind::Float, device)).is_ok() {
        bail!(
            "{} TiB were given, which no device has",
            (TOO_MANY * 4) >> 40
        );
    }
    let ones = Tensor::f_ones([64, 64], (Kind::Float, device))?;
    let product = ones
        .f_matmul(&ones)?
        .f_sum(Kind::Double)?
        .f_double_value(&[])?;
    ensure!(
        product == 64.0 * 64.0 * 64.0,
        "after a refusal a product is wrong: {product}"
    );
    Ok("is refused, and the device goes on computing".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_passes_what_must_be_right() {
        tch::set_num_threads(1); // beside other tests
        let mut trials = Trials {
            device: Device::Cpu,
            found: Vec::new(),
        };
        trials.small("llama");
        trials.note("memory that is not there", || out_of_memory(Device::Cpu));
        assert_eq!(trials.found.len(), 4);
        for trial in trials.found {
            assert!(matches!(trial.outcome, TrialOutcome::Right(_)), "{trial:?}");
        }
    }

    #[test]
    fn a_model_spread_over_devices_is_tried_too() {
        tch::set_num_threads(1);
        let tried = spread(&[Device::Cpu; 2]);
        assert_eq!(tried.name, "cpu,cpu: a model over all");
        let TrialOutcome::Right(found) = tried.outcome else {
            panic!("{tried:?}");
        };
        // To the bit, on one processor.
        assert!(
            found.starts_with("grids 0.0e0 and an edit's value 0.0e0"),
            "{found}"
        );
    }

    #[test]
    fn what_is_wrong_and_what_stops_is_told() {
        let mut trials = Trials {
            device: Device::Cpu,
            found: Vec::new(),
        };
        trials.note("figures", || bail!("they differ by {}", 3));
        trials.note("stopping", || {
            let _ = Tensor::zeros([2], (Kind::Float, Device::Cpu))
                .matmul(&Tensor::zeros([3], (Kind::Float, Device::Cpu)));
            Ok(String::new())
        });
        trials.not_tried("speed", &anyhow::anyhow!("no space"));
        let said = format!("{:?}", trials.found);
        for part in [
            "Wrong(\"they differ by 3\")",
            "NotTried(\"no space\")",
            "cpu: stopping",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(
            matches!(&trials.found[1].outcome, TrialOutcome::Wrong(said) if said.contains("size")),
            "{said}"
        );
    }

    #[test]
    fn grids_that_differ_are_told() {
        tch::set_num_threads(1);
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = model::write(folder.path(), model::config("gpt2", SMALL)).unwrap();
        let model = Model::load(&checkpoint, Device::Cpu, Kind::Float).unwrap();
        let right = grids(&model, Engine::Exact, 1).unwrap();
        let mut wrong = right.clone();
        assert_eq!(apart(&right, &wrong).unwrap(), 0.0);
        wrong[1].scores[3] += 0.01;
        assert!(apart(&right, &wrong).unwrap() > OTHER_DEVICE);
        wrong[0].scores[0] = f64::NAN;
        assert_eq!(apart(&right, &wrong).unwrap(), f64::INFINITY);
        assert!(apart(&right, &wrong[..1]).is_err());
        // The states of a random model say something: else no difference would be seen.
        let most = right
            .iter()
            .flat_map(|grid| &grid.scores)
            .fold(0.0, |most: f64, x| most.max(*x));
        let least = right
            .iter()
            .flat_map(|grid| &grid.scores)
            .fold(1.0, |least: f64, x| least.min(*x));
        assert!(most - least > 0.01, "{least} to {most}");
    }
}
