//! What the GPUs of this machine say of themselves.

use nvml_wrapper::{Device as Handle, Nvml};
use tch::Device;

use crate::model::cuda;
use crate::model::device::devices;
use crate::telemetry::metrics::{
    WORKER_DEVICE_BUSY, WORKER_DEVICE_MEMORY, WORKER_DEVICE_MEMORY_TAKEN,
};

/// Bytes that a model may take which is spread over these devices in equal parts: so many times the
/// memory of the smallest. 0 where it is not known, and of processors.
pub(super) fn memory(devices: &[Device]) -> u64 {
    let numbers = numbers(devices);
    let each = numbers.iter().map(|&number| cuda::memory(number));
    let least = each.min().flatten().unwrap_or_default();
    least * numbers.len() as u64
}

/// The GPUs among some devices, as NVIDIA's management library has them.
#[derive(Debug)]
pub struct Gpus {
    library: Nvml,
    /// Each one's name and its PCI address.
    known: Vec<(&'static str, String)>,
}

impl Gpus {
    /// Those among the devices that are named, as `worker.device` names them; `None` where there
    /// are none, or nothing is known of them. To be called once: labels of metrics, as their names
    /// are, stay in memory as long as the program runs.
    pub fn among(names: &str) -> Option<Self> {
        let numbers = numbers(&devices(names).ok()?);
        let known = numbers.into_iter().filter_map(|number| {
            let name = format!("cuda:{number}").leak();
            Some((&*name, cuda::address(number)?))
        });
        let known: Vec<_> = known.collect();
        if known.is_empty() {
            return None;
        }
        let library = Nvml::init()
            .inspect_err(|error| tracing::warn!(%error, "the GPUs say nothing of their memory"))
            .ok()?;
        Some(Self { library, known })
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, Handle<'_>)> {
        self.known.iter().filter_map(|(name, address)| {
            let gpu = self.library.device_by_pci_bus_id(address.as_str());
            Some((*name, gpu.ok()?))
        })
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

/// The numbers of the GPUs among devices, each once.
fn numbers(devices: &[Device]) -> Vec<usize> {
    let numbers = devices.iter().filter_map(|device| match device {
        Device::Cuda(number) => Some(*number),
        _ => None,
    });
    let mut numbers: Vec<usize> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_counts_once_and_processors_say_nothing() {
        let several = [
            Device::Cuda(2),
            Device::Cpu,
            Device::Cuda(0),
            Device::Cuda(2),
        ];
        assert_eq!(numbers(&several), [0, 2]);
        assert_eq!(memory(&[Device::Cpu; 2]), 0);
        // Of one that is not there nothing is known, so nothing of all.
        assert_eq!(memory(&[Device::Cuda(1_000)]), 0);
        assert!(Gpus::among("cpu,cpu").is_none());
    }
}
