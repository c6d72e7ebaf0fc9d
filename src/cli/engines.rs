//! What the workers of this program compute with.

#[cfg(not(feature = "torch"))]
use anyhow::Context;

use crate::objects::ObjectStore;
use crate::worker::Engine;

/// One engine over all the devices that are named, or one on each. `threads` are those of a CPU
/// operation, 0 for one a core in all; `memory` is for the activations of a batch. What takes long
/// to make of key statistics is kept among the objects, if some are given.
///
/// # Errors
/// Where there is no such device.
#[cfg(feature = "torch")]
pub fn engines(
    devices: &str,
    per_device: bool,
    threads: u32,
    memory: Option<u64>,
    keep_in: Option<&ObjectStore>,
) -> anyhow::Result<Vec<Box<dyn Engine>>> {
    use crate::worker::Torch;

    let made = match per_device {
        true => Torch::on_each(devices, threads, memory)?,
        false => vec![Torch::new(devices, threads, memory)?],
    };
    let boxed = made.into_iter().map(|engine| -> Box<dyn Engine> {
        match keep_in {
            Some(objects) => Box::new(engine.keeping_in(objects)),
            None => Box::new(engine),
        }
    });
    Ok(boxed.collect())
}

/// None: this program was built without.
///
/// # Errors
/// Always.
#[cfg(not(feature = "torch"))]
pub fn engines(
    _devices: &str,
    _per_device: bool,
    _threads: u32,
    _memory: Option<u64>,
    _keep_in: Option<&ObjectStore>,
) -> anyhow::Result<Vec<Box<dyn Engine>>> {
    Err(anyhow::anyhow!(
        "build it with the feature 'torch', or give --server ADDRESS of a coordinator with workers"
    ))
    .context("this palimpsest was built without an engine")
}
