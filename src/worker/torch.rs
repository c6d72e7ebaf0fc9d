//! The engine on libtorch: loads a model and runs the units of a lease on it.

mod collecting;
mod editing;
mod evaluating;
mod loaded;
mod trial;

use std::path::Path;
use std::sync::Arc;

pub use loaded::Loaded;
pub use trial::{Trial, trial};

use tch::Device;

use super::engine::{Engine, Files, Sink, failure, result};
use crate::causal::noise::{Law, Rule};
use crate::causal::{self, EmbeddingGaussian, Settings};
use crate::model::{self, Model};
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, FailureClass, leased_unit::Spec};
use crate::wire;

/// What the activations of a batch may take if nothing is said: little on a CPU, which is not faster
/// with more, and enough on a GPU to keep it busy. One number for every device of a kind: where
/// products are not oneDNN's, the rows of a batch decide the last bits of its results.
fn batch_memory(device: Device) -> u64 {
    match device {
        Device::Cpu => 256 << 20,
        _ => 4 << 30,
    }
}

/// The engine on libtorch.
#[derive(Debug)]
pub struct Torch {
    device: Device,
    threads: u32,
    batch_memory: u64,
    loaded: Option<Loaded>,
    /// The key statistics of the last edit.
    factorised: Option<editing::Factorised>,
}

impl Torch {
    /// An engine on a device: `auto`, `cpu`, `cuda` or `cuda:N`. `threads` is the number of
    /// threads of a CPU operation, 0 for one a core. `batch_memory` are the bytes that the
    /// activations of one batch may take; if nothing is said, 256 MiB on a CPU and 4 GiB on a GPU.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn new(
        device: &str,
        threads: u32,
        batch_memory: Option<u64>,
    ) -> Result<Self, model::Error> {
        let device = model::device::device(device)?;
        // Set, not inherited: the number of threads decides the last bits of a sum.
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            n => n,
        };
        tch::set_num_threads(threads as i32);
        Ok(Self {
            device,
            threads,
            batch_memory: batch_memory.unwrap_or_else(|| self::batch_memory(device)),
            loaded: None,
            factorised: None,
        })
    }

    fn fingerprint(&self, dtype: v1::Dtype) -> v1::Fingerprint {
        v1::Fingerprint {
            device: match self.device {
                Device::Cpu => format!("cpu {}", vector_extension()),
                _ => device_name(self.device),
            },
            dtype: dtype_name(dtype).to_owned(),
            threads: self.threads,
            libtorch: LIBTORCH.to_owned(),
            engine_revision: causal::ENGINE_REVISION,
            batch_memory: self.batch_memory,
        }
    }

    /// The model of a lease, loaded if it is not the one in memory, with the matrices of the
    /// lease's version.
    fn model(
        &mut self,
        lease: &v1::Lease,
        dtype: v1::Dtype,
        checkpoint: &Path,
    ) -> Result<&mut Loaded, v1::Failure> {
        let wanted = lease.model.clone().unwrap_or_default();
        let fits = |loaded: &Loaded| loaded.digest == wanted.digest && loaded.dtype == dtype;
        if !self.loaded.as_ref().is_some_and(fits) {
            // The old model goes first: two may not fit.
            self.loaded = None;
            tracing::info!(model = wanted.name, dtype = dtype_name(dtype), "loading");
            let invalid = |error: model::Error| {
                let what = format!("{} cannot be loaded: {error}", wanted.name);
                failure(FailureClass::Invalid, what)
            };
            let mut loaded = Loaded::open(checkpoint, self.device, dtype).map_err(invalid)?;
            loaded.name.clone_from(&wanted.name);
            loaded.digest.clone_from(&wanted.digest);
            self.loaded = Some(loaded);
        }
        let version = lease.leased_version.clone().unwrap_or_default();
        if let Some(Err(error)) = self.loaded.as_mut().map(|loaded| loaded.switch(&version)) {
            // It may be between two versions now.
            self.loaded = None;
            let what = format!("{} cannot be made: {error}", lease.version);
            return Err(failure(FailureClass::Transient, what));
        }
        match &mut self.loaded {
            Some(loaded) => Ok(loaded),
            None => Err(failure(FailureClass::Transient, "the model was unloaded")),
        }
    }
}

impl Torch {
    /// What edits of a lease need, with its model in memory at its version.
    fn editing<'a>(
        &'a mut self,
        lease: &'a v1::Lease,
        spec: &'a v1::EditSpec,
        dtype: v1::Dtype,
        checkpoint: &Path,
    ) -> Result<editing::Editing<'a>, v1::Failure> {
        let fingerprint = self.fingerprint(dtype);
        self.model(lease, dtype, checkpoint)?;
        let Some(loaded) = self.loaded.as_mut() else {
            return Err(failure(FailureClass::Transient, "the model was unloaded"));
        };
        Ok(editing::Editing {
            loaded,
            device: self.device,
            lease,
            spec,
            fingerprint,
            factorised: &mut self.factorised,
        })
    }
}

impl Engine for Torch {
    fn capabilities(&self) -> v1::Capabilities {
        v1::Capabilities {
            device: device_name(self.device),
            memory: self.batch_memory,
            threads: self.threads,
            ..Default::default()
        }
    }

    fn loaded(&self) -> Vec<String> {
        self.loaded
            .iter()
            .map(|loaded| loaded.name.clone())
            .collect()
    }

    fn run(
        &mut self,
        lease: &v1::Lease,
        files: &Files,
        sink: &mut dyn Sink,
    ) -> Result<(), v1::Failure> {
        match &lease.settings {
            Some(v1::lease::Settings::Trace(spec)) => {
                let fingerprint = self.fingerprint(spec.dtype());
                let memory = self.batch_memory;
                let rule: Rule = spec.noise.parse().map_err(|error: causal::Error| {
                    failure(FailureClass::Invalid, error.to_string())
                })?;
                let loaded = self.model(lease, spec.dtype(), &files.checkpoint)?;
                let gaussian = match (&spec.noise_corpus, &files.corpus) {
                    (Some(named), Some(path)) if rule.needs_corpus() => {
                        Some(loaded.gaussian(named, path)?)
                    }
                    _ => None,
                };
                let sweep = Sweep {
                    model: &loaded.model,
                    spec,
                    rule,
                    noise_scale: lease.noise_scale,
                    gaussian,
                    memory,
                    fingerprint,
                };
                sweep.run(&lease.units, sink)
            }
            Some(v1::lease::Settings::Generate(spec)) => {
                let fingerprint = self.fingerprint(spec.dtype());
                let model = &self.model(lease, spec.dtype(), &files.checkpoint)?.model;
                for unit in &lease.units {
                    let Some(Spec::Generate(asked)) = &unit.spec else {
                        continue;
                    };
                    let outcome = generate(model, spec, &asked.prompt, sink);
                    if sink.cancelled() {
                        break;
                    }
                    sink.commit(result(unit.unit, outcome), fingerprint.clone());
                }
                Ok(())
            }
            Some(v1::lease::Settings::Stats(spec)) => {
                let fingerprint = self.fingerprint(spec.dtype());
                let model = &self.model(lease, spec.dtype(), &files.checkpoint)?.model;
                collecting::run(model, lease, spec, &fingerprint, sink)
            }
            Some(v1::lease::Settings::Edit(spec)) => {
                let editing = self.editing(lease, spec, spec.dtype(), &files.checkpoint)?;
                editing.run(sink)
            }
            Some(v1::lease::Settings::Eval(spec)) => {
                let each = spec.edit_each.clone().unwrap_or_default();
                let editing = self.editing(lease, &each, spec.dtype(), &files.checkpoint)?;
                evaluating::run(spec, editing, sink)
            }
            None => Err(failure(
                FailureClass::Invalid,
                "the lease has no settings: upgrade the worker",
            )),
        }
    }
}

/// The tracing units of a lease.
struct Sweep<'a> {
    model: &'a Model,
    spec: &'a v1::TraceSpec,
    rule: Rule,
    /// The scale that the sweep's preparatory unit found, where its rule has one.
    noise_scale: Option<f64>,
    /// What the rules over a corpus draw from.
    gaussian: Option<Arc<EmbeddingGaussian>>,
    memory: u64,
    fingerprint: v1::Fingerprint,
}

impl Sweep<'_> {
    fn run(&self, units: &[v1::LeasedUnit], sink: &mut dyn Sink) -> Result<(), v1::Failure> {
        let mut rest = units;
        while let Some(first) = rest.first() {
            if sink.cancelled() {
                break;
            }
            match &first.spec {
                Some(Spec::Noise(noise)) => {
                    let outcome = self.noise_level(noise);
                    sink.commit(result(first.unit, outcome), self.fingerprint.clone());
                    rest = &rest[1..];
                }
                Some(Spec::Trace(_)) => {
                    // The kinds of a fact share its clean and corrupted runs.
                    let fact = |unit: &v1::LeasedUnit| match &unit.spec {
                        Some(Spec::Trace(trace)) => trace.fact.clone(),
                        _ => None,
                    };
                    let asked = fact(first);
                    let count = rest.iter().take_while(|unit| fact(unit) == asked).count();
                    let (together, after) = rest.split_at(count);
                    self.fact(&asked.unwrap_or_default(), together, sink)?;
                    rest = after;
                }
                _ => {
                    return Err(failure(
                        FailureClass::Invalid,
                        "the lease mixes kinds of work",
                    ));
                }
            }
        }
        Ok(())
    }

    fn noise_level(&self, noise: &v1::NoiseUnit) -> Outcome {
        let scale = match &self.gaussian {
            Some(gaussian) => Ok(gaussian.scale()),
            None => {
                causal::noise_level(self.model, &noise.subjects).map(|spread| noise.factor * spread)
            }
        };
        match scale {
            Ok(scale) => Outcome::NoiseLevel(v1::NoiseLevel { scale }),
            Err(error) => Outcome::Failure(failure(class(&error), error.to_string())),
        }
    }

    fn fact(
        &self,
        fact: &v1::Fact,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<(), v1::Failure> {
        let kinds: Vec<v1::Kind> = units
            .iter()
            .map(|unit| match &unit.spec {
                Some(Spec::Trace(trace)) => trace.kind(),
                _ => v1::Kind::Unspecified,
            })
            .collect();
        let (scale, law) = match (self.rule.law, self.noise_scale) {
            (Law::Spread(_), Some(scale)) => (scale, Law::Gaussian(scale)),
            (Law::Gaussian(scale) | Law::Uniform(scale), _) => (scale, self.rule.law),
            (law, scale) => (scale.unwrap_or_default(), law),
        };
        let noise = Rule {
            law,
            replace: self.rule.replace,
        }
        .resolve(None, self.gaussian.clone())
        .map_err(|error| failure(FailureClass::Invalid, error.to_string()))?;
        let mut settings = Settings::new(noise);
        settings.kinds.clear();
        for (kind, severed) in kinds.iter().filter_map(|&kind| wire::kind(kind)) {
            match severed {
                Some(severed) => settings.severed.push(severed),
                None => settings.kinds.push(kind),
            }
        }
        settings.samples = self.spec.samples as usize;
        settings.seed = self.spec.seed();
        settings.window = self.spec.window as usize;
        settings.engine = match self.spec.engine() {
            v1::Engine::Plain => causal::Engine::Plain,
            v1::Engine::Exact | v1::Engine::Unspecified => causal::Engine::Exact,
        };
        settings.compat = wire::compat(self.spec.compat());
        settings.memory_bytes = self.memory;

        let asked = causal::Fact::from(fact.clone());
        let watch = Watched {
            sink: std::cell::RefCell::new(sink),
            done: std::cell::Cell::new(0),
        };
        let traced = causal::trace(self.model, &asked, &settings, &watch);
        let sink = watch.sink.into_inner();
        match traced {
            Ok(grids) => {
                for grid in grids {
                    let kind = wire::kind_to_proto(grid.kind, grid.severed);
                    let unit = units.iter().zip(&kinds).find(|(_, k)| **k == kind);
                    let Some((unit, _)) = unit else { continue };
                    let grid = wire::grid_to_proto(grid, self.spec, scale);
                    sink.commit(
                        result(unit.unit, Outcome::Grid(grid)),
                        self.fingerprint.clone(),
                    );
                }
                Ok(())
            }
            Err(causal::Error::Cancelled) => Ok(()),
            Err(error) => match class(&error) {
                FailureClass::Invalid => {
                    for unit in units {
                        let what = failure(FailureClass::Invalid, error.to_string());
                        let outcome = Outcome::Failure(what);
                        sink.commit(result(unit.unit, outcome), self.fingerprint.clone());
                    }
                    Ok(())
                }
                class => Err(failure(class, error.to_string())),
            },
        }
    }
}

struct Watched<'a> {
    sink: std::cell::RefCell<&'a mut dyn Sink>,
    done: std::cell::Cell<u64>,
}

impl causal::Watch for Watched<'_> {
    fn cancelled(&self) -> bool {
        self.sink.borrow().cancelled()
    }

    fn cells(&self, done: u64, _total: u64) {
        let before = self.done.replace(done);
        self.sink.borrow_mut().advance(done.saturating_sub(before));
    }
}

fn generate(model: &Model, spec: &v1::GenerateSpec, prompt: &str, sink: &mut dyn Sink) -> Outcome {
    let sampling = model::Sampling {
        temperature: spec.temperature,
        top_k: (spec.top_k > 0).then_some(spec.top_k as usize),
        seed: spec.seed,
        max_tokens: spec.max_tokens as usize,
    };
    let made = model.tokenizer().encode(prompt).and_then(|encoding| {
        let generated = model::generate(model, &encoding.ids, &sampling, |_| {
            sink.advance(1);
            !sink.cancelled()
        })?;
        Ok(v1::Completion {
            prompt: prompt.to_owned(),
            text: (model.tokenizer()).decode_after(&encoding.ids, &generated.ids)?,
            ended: generated.stop == model::Stop::Eos,
            token_ids: generated.ids,
        })
    });
    match made {
        Ok(completion) => Outcome::Completion(completion),
        Err(error) => Outcome::Failure(failure(FailureClass::Invalid, error.to_string())),
    }
}

fn class(error: &causal::Error) -> FailureClass {
    match error {
        causal::Error::OutOfMemory { .. } => FailureClass::OutOfMemory,
        _ => FailureClass::Invalid,
    }
}

fn dtype_name(dtype: v1::Dtype) -> &'static str {
    match dtype {
        v1::Dtype::Unspecified | v1::Dtype::F32 => "f32",
        v1::Dtype::Bf16 => "bf16",
        v1::Dtype::F16 => "f16",
    }
}

fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

/// The widest vector extension, by which libtorch and its libraries choose their kernels.
fn vector_extension() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f") {
            return "avx512";
        }
        if std::is_x86_feature_detected!("avx2") {
            return "avx2";
        }
    }
    std::env::consts::ARCH
}

/// The version of libtorch that tch 0.26 is made for; torch-sys refuses to be built with another.
const LIBTORCH: &str = "2.13";
