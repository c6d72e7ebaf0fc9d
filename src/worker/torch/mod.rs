//! The engine on libtorch: loads a model and runs the units of a lease on it, each kind in a file
//! of its own over the one loop of `units.rs`.

mod device;
mod edit;
mod editing;
mod eval;
mod gates;
mod generate;
mod kept;
mod loaded;
mod mass_check;
mod mass_edit;
mod mass_figures;
mod mass_metric;
mod mass_parts;
mod mass_without;
mod self_test;
mod stats;
mod trace;
mod trial;
mod units;

use tch::Device;

use device::{LIBTORCH, device_names, dtype_name, processor_threads, vector_extension};
pub use loaded::Loaded;
pub use self_test::{SelfTest, self_test};
pub use trial::{Trial, TrialOutcome, try_devices};

use super::engine::{Engine, Sink, failure};
use super::gpus;
use super::prepare::Prepared;
use crate::causal;
use crate::model;
use crate::model::device::devices;
use crate::objects::ObjectStore;
use crate::proto::v1::{self, FailureClass, lease::Settings};

/// The engine on libtorch.
#[derive(Debug)]
pub struct Torch {
    /// Over which a model's blocks are spread; on the first is everything else.
    devices: Vec<Device>,
    threads: u32,
    batch_memory: u64,
    loaded: Option<Loaded>,
    /// The key statistics of the last edit.
    factorised: Option<editing::Factorised>,
    /// What was made of key statistics for mass edits.
    kept: kept::Kept,
}

impl Torch {
    /// An engine on a device, or on several over which models are spread, by what [`devices`] reads.
    /// `threads` is the number of threads of a CPU operation, 0 for one a core. `batch_memory` are
    /// the bytes that the activations of one batch may take; if nothing is said, 256 MiB on a CPU
    /// and 4 GiB on a GPU.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn new(names: &str, threads: u32, batch_memory: Option<u64>) -> Result<Self, model::Error> {
        let threads = processor_threads(threads, 1);
        Ok(Self::on(devices(names)?, threads, batch_memory))
    }

    /// An engine on each of several devices: the same, but for `threads` of 0, which are shared.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn on_each(
        names: &str,
        threads: u32,
        batch_memory: Option<u64>,
    ) -> Result<Vec<Self>, model::Error> {
        let devices = devices(names)?;
        let threads = processor_threads(threads, devices.len() as u32);
        let each = devices.into_iter();
        Ok(each
            .map(|device| Self::on(vec![device], threads, batch_memory))
            .collect())
    }

    fn on(devices: Vec<Device>, threads: u32, batch_memory: Option<u64>) -> Self {
        // Set, not inherited: the number of threads decides the last bits of a sum.
        tch::set_num_threads(threads as i32);
        Self {
            batch_memory: batch_memory.unwrap_or_else(|| device::batch_memory(devices[0])),
            devices,
            threads,
            loaded: None,
            factorised: None,
            kept: kept::Kept::default(),
        }
    }

    /// Keeps what takes long to make of key statistics among these objects, and finds it there
    /// again.
    #[must_use]
    pub fn keeping_in(self, objects: &ObjectStore) -> Self {
        Self {
            kept: kept::Kept::at(objects),
            ..self
        }
    }

    /// Where everything is but the blocks of a model that are spread.
    fn home(&self) -> Device {
        self.devices[0]
    }

    fn fingerprint(&self, dtype: v1::Dtype) -> v1::Fingerprint {
        v1::Fingerprint {
            // However many parts a processor's memory is named as, it is one.
            device: match self.home() {
                Device::Cpu => format!("cpu {}", vector_extension()),
                _ => device_names(&self.devices),
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
    fn model(&mut self, ready: &Prepared, dtype: v1::Dtype) -> Result<&mut Loaded, v1::Failure> {
        let wanted = ready.lease.model.clone().unwrap_or_default();
        let fits = |loaded: &Loaded| loaded.digest == wanted.digest && loaded.dtype == dtype;
        if !self.loaded.as_ref().is_some_and(fits) {
            // The old model goes first: two may not fit.
            self.loaded = None;
            tracing::info!(model = wanted.name, dtype = dtype_name(dtype), "loading");
            let invalid = |error: model::Error| {
                let what = format!("{} cannot be loaded: {error}", wanted.name);
                failure(FailureClass::Invalid, what)
            };
            let mut loaded =
                Loaded::open(&ready.checkpoint, &self.devices, dtype).map_err(invalid)?;
            loaded.name.clone_from(&wanted.name);
            loaded.digest.clone_from(&wanted.digest);
            self.loaded = Some(loaded);
        }
        if let Some(Err(error)) = self
            .loaded
            .as_mut()
            .map(|loaded| loaded.switch(&ready.version))
        {
            // It may be between two versions now.
            self.loaded = None;
            let what = format!("{} cannot be made: {error}", ready.version.name);
            return Err(failure(FailureClass::Transient, what));
        }
        match &mut self.loaded {
            Some(loaded) => Ok(loaded),
            None => Err(failure(FailureClass::Transient, "the model was unloaded")),
        }
    }

    /// What edits of a lease need, with its model in memory at its version.
    fn editing<'a>(
        &'a mut self,
        ready: &'a Prepared,
        spec: &'a v1::EditSpec,
        dtype: v1::Dtype,
    ) -> Result<editing::Editing<'a>, v1::Failure> {
        let device = self.home();
        self.model(ready, dtype)?;
        let Some(loaded) = self.loaded.as_mut() else {
            return Err(failure(FailureClass::Transient, "the model was unloaded"));
        };
        Ok(editing::Editing {
            loaded,
            device,
            ready,
            spec,
            factorised: &mut self.factorised,
            plan: None,
        })
    }
}

impl Engine for Torch {
    fn capabilities(&self) -> v1::Capabilities {
        v1::Capabilities {
            device: device_names(&self.devices),
            memory: self.batch_memory,
            threads: self.threads,
            device_memory: gpus::memory(&self.devices),
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
        ready: &Prepared,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<(), v1::Failure> {
        units::within_memory(|| self.compute(ready, units, sink))
    }
}

impl Torch {
    fn compute(
        &mut self,
        ready: &Prepared,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<(), v1::Failure> {
        match &ready.lease.settings {
            Some(Settings::Trace(spec)) => {
                let fingerprint = self.fingerprint(spec.dtype());
                let memory = self.batch_memory;
                let loaded = self.model(ready, spec.dtype())?;
                let mut sweep = trace::Sweep::new(loaded, spec, ready, memory)?;
                units::run(&mut sweep, units, &fingerprint, sink)
            }
            Some(Settings::Generate(spec)) => {
                let fingerprint = self.fingerprint(spec.dtype());
                let model = &self.model(ready, spec.dtype())?.model;
                let mut generation = generate::Generation { model, spec };
                units::run(&mut generation, units, &fingerprint, sink)
            }
            Some(Settings::Stats(spec)) => {
                let fingerprint = self.fingerprint(spec.dtype());
                let model = &self.model(ready, spec.dtype())?.model;
                let mut collection = stats::Collection { model, spec, ready };
                units::run(&mut collection, units, &fingerprint, sink)
            }
            Some(Settings::Edit(spec)) => {
                let fingerprint = self.fingerprint(spec.dtype());
                let mut edits = edit::Edits {
                    editing: self.editing(ready, spec, spec.dtype())?,
                    fingerprint: fingerprint.clone(),
                };
                units::run(&mut edits, units, &fingerprint, sink)
            }
            Some(Settings::MassEdit(spec)) => {
                let fingerprint = self.fingerprint(spec.dtype());
                let (device, kept) = (self.home(), self.kept.clone());
                let loaded = self.model(ready, spec.dtype())?;
                let edits = mass_edit::MassEdits::new(
                    loaded,
                    (device, kept),
                    ready,
                    spec,
                    fingerprint.clone(),
                );
                let mut edits =
                    edits.map_err(|error| failure(FailureClass::Invalid, error.to_string()))?;
                units::run(&mut edits, units, &fingerprint, sink)
            }
            Some(Settings::Eval(spec)) => {
                let fingerprint = self.fingerprint(spec.dtype());
                let each = spec.edit_each.clone().unwrap_or_default();
                let editing = self.editing(ready, &each, spec.dtype())?;
                let mut evaluation = eval::Evaluation { spec, editing };
                units::run(&mut evaluation, units, &fingerprint, sink)
            }
            None => Err(failure(
                FailureClass::Invalid,
                "the lease has no settings: upgrade the worker",
            )),
        }
    }
}
