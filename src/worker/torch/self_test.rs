//! Whether libtorch computes here, and how fast: a product on every device, checked against one
//! that needs no library.
#![allow(clippy::disallowed_methods)] // the time that a product takes

use std::time::Instant;

use tch::{Cuda, Device, Kind, Tensor};

use super::device::{LIBTORCH, device_name};
use crate::model;
use crate::model::cuda::gpus;

/// Rows and columns of the factors.
const SIZE: i64 = 1024;
/// The best of so many runs counts.
const RUNS: usize = 3;
/// Entries that are checked, and how far they may be off, by their size.
const CHECKED: i64 = 16;
const TOLERANCE: f64 = 1e-4;

/// What came out of a self-test.
#[derive(Clone, Debug)]
pub struct SelfTest {
    /// The version of libtorch.
    pub libtorch: &'static str,
    /// Threads of a CPU operation, when nobody says otherwise.
    pub threads: u32,
    /// Each device: its name, and its multiply-adds a second in float32, or what is wrong with it.
    pub devices: Vec<(String, Result<f64, String>)>,
}

/// Tries every device that libtorch sees.
pub fn self_test() -> SelfTest {
    let gpus = gpus();
    let devices = [Device::Cpu].into_iter().chain((0..gpus).map(Device::Cuda));
    SelfTest {
        libtorch: LIBTORCH,
        threads: u32::try_from(tch::get_num_threads()).unwrap_or_default(),
        devices: devices
            .map(|device| (device_name(device), multiply(device)))
            .collect(),
    }
}

fn multiply(device: Device) -> Result<f64, String> {
    let failed = |error: tch::TchError| model::Error::from(error).to_string();
    let entry = |row: i64, column: i64| f64::from(((row * 31 + column * 17) % 13) as i32 - 6) / 8.0;
    let values: Vec<f32> = (0..SIZE * SIZE)
        .map(|at| entry(at / SIZE, at % SIZE) as f32)
        .collect();
    let factor = Tensor::from_slice(&values).view([SIZE, SIZE]);
    let factor = factor.f_to_device(device).map_err(failed)?;
    let mut best = f64::INFINITY;
    let mut product = None;
    for _ in 0..RUNS {
        let begun = Instant::now();
        let made = factor.f_matmul(&factor).map_err(failed)?;
        if let Device::Cuda(number) = device {
            Cuda::synchronize(number as i64);
        }
        best = best.min(begun.elapsed().as_secs_f64());
        product = Some(made);
    }
    let Some(product) = product else {
        return Err("nothing was computed".to_owned());
    };
    let product = product.f_to_device(Device::Cpu).map_err(failed)?;
    let product = product.f_to_kind(Kind::Double).map_err(failed)?;
    for n in 0..CHECKED {
        let (row, column) = (n * 61 % SIZE, n * 197 % SIZE);
        let expected: f64 = (0..SIZE).map(|k| entry(row, k) * entry(k, column)).sum();
        let found = product.f_double_value(&[row, column]).map_err(failed)?;
        let off = (found - expected).abs();
        if off.is_nan() || off > TOLERANCE * expected.abs().max(1.0) {
            return Err(format!(
                "a product is wrong: {found} where {expected} is right"
            ));
        }
    }
    Ok((SIZE * SIZE * SIZE) as f64 / best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_multiplies_right() {
        let found = self_test();
        let (name, rate) = &found.devices[0];
        assert_eq!(name, "cpu");
        assert!(matches!(rate, Ok(rate) if *rate > 1e6), "{rate:?}");
        assert!(found.threads >= 1);
    }
}
