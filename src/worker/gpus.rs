//! What the GPUs of this machine say of themselves.

use nvml_wrapper::{Device as Handle, Nvml};
use tch::Device;

use crate::model::cuda;
use crate::model::device::devices;
use crate::telemetry::metrics::{
    WORKER_DEVICE_BUSY, WORKER_DEVICE_MEMORY, WORKER_DEVICE_MEMORY_TAKEN,
};

/// The GPUs among some devices, as NVIDIA's management library has them.
#[derive(Debug)]
pub struct Gpus {
    library: Nvml,
    /// Each one's name and its PCI address.
    known: Vec<(&'static str, String)>,
}

impl Gpus {
    /// Those among the devices that are named, as `worker.device` names them; `None` where there
    /// are none, or nothing is known of them.
    pub fn among(names: &str) -> Option<Self> {
        Self::of(&devices(names).ok()?)
    }

    pub(super) fn of(devices: &[Device]) -> Option<Self> {
        let numbers = devices.iter().filter_map(|device| match device {
            Device::Cuda(number) => Some(*number),
            _ => None,
        });
        let mut numbers: Vec<usize> = numbers.collect();
        numbers.sort_unstable();
        numbers.dedup();
        let known = numbers
            .iter()
            .filter_map(|&number| Some((name(number), cuda::address(number)?)));
        let asked = numbers.len();
        let known: Vec<_> = known.collect();
        if known.is_empty() || known.len() < asked {
            return None; // of a part of them nothing can be said of all
        }
        let library = Nvml::init()
            .inspect_err(|error| tracing::warn!(%error, "the GPUs say nothing of their memory"))
            .ok()?;
        Some(Self { library, known })
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, Handle<'_>)> {
        let each = self.known.iter();
        each.filter_map(|(name, at)| {
            Some((*name, self.library.device_by_pci_bus_id(at.as_str()).ok()?))
        })
    }

    /// Bytes of memory that they have together; 0 where it is not known.
    pub(super) fn memory(&self) -> u64 {
        let known = self.each().filter_map(|(_, gpu)| gpu.memory_info().ok());
        let totals: Vec<u64> = known.map(|memory| memory.total).collect();
        match totals.len() == self.known.len() {
            true => totals.iter().sum(),
            false => 0,
        }
    }

    /// Notes for the metrics how they are.
    pub fn sample(&self) {
        for (name, gpu) in self.each() {
            if let Ok(memory) = gpu.memory_info() {
                WORKER_DEVICE_MEMORY.set([name], memory.total as f64);
                WORKER_DEVICE_MEMORY_TAKEN.set([name], memory.used as f64);
            }
            // A part of a GPU does not say it.
            if let Ok(busy) = gpu.utilization_rates() {
                WORKER_DEVICE_BUSY.set([name], f64::from(busy.gpu) / 100.0);
            }
        }
    }
}

/// The name of a GPU, for as long as the program runs: labels of metrics are kept that long. It takes
/// a few bytes for each engine.
fn name(number: usize) -> &'static str {
    format!("cuda:{number}").leak()
}
