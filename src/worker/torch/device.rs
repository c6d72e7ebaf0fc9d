//! The device of an engine, in the contract's words.

use tch::Device;

use crate::proto::v1;

/// What the activations of a batch may take if nothing is said: little on a CPU, which is not
/// faster with more, and enough on a GPU to keep it busy. One number for every device of a kind:
/// where products are not oneDNN's, the rows of a batch decide the last bits of its results.
pub(super) fn batch_memory(device: Device) -> u64 {
    match device {
        Device::Cpu => 256 << 20,
        _ => 4 << 30,
    }
}

/// What fingerprints call a number format.
pub(super) fn dtype_name(dtype: v1::Dtype) -> &'static str {
    match dtype {
        v1::Dtype::Unspecified | v1::Dtype::F32 => "f32",
        v1::Dtype::Bf16 => "bf16",
        v1::Dtype::F16 => "f16",
    }
}

/// What people and fingerprints call a device: `cpu`, `cuda:0`.
pub(super) fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

/// Those of several: `cuda:0,cuda:1`.
pub(super) fn device_names(devices: &[Device]) -> String {
    let names = devices.iter().map(|&device| device_name(device));
    names.collect::<Vec<_>>().join(",")
}

/// Threads of a CPU operation: so many, or where none are named the cores' part of one of so many
/// engines.
pub(super) fn processor_threads(named: u32, engines: u32) -> u32 {
    match named {
        0 => {
            let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
            (cores / engines).max(1)
        }
        n => n,
    }
}

/// The widest vector extension, by which libtorch and its libraries choose their kernels.
pub(super) fn vector_extension() -> &'static str {
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
pub(super) const LIBTORCH: &str = "2.13";
