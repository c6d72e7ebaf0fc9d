//! Devices and element types by name.

use tch::{Device, Kind};

use super::Error;
use super::cuda::gpus;

/// `cpu`, `cuda` (the first GPU), `cuda:N`, or `auto`: the first GPU where there is one, else the
/// CPU.
///
/// # Errors
/// [`Error::Argument`] for another name, or for a GPU that is not there.
pub fn device(name: &str) -> Result<Device, Error> {
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" => {
            return Ok(if gpus() > 0 {
                Device::Cuda(0)
            } else {
                Device::Cpu
            });
        }
        "cuda" => 0,
        _ => name
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
            .ok_or_else(|| Error::Argument {
                argument: "device",
                found: format!("`{name}`"),
                remedy: "use cpu, cuda, cuda:N or auto".into(),
            })?,
    };
    match gpus() {
        0 => Err(Error::Argument {
            argument: "device",
            found: format!("`{name}`"),
            remedy: "this libtorch sees no GPU: use cpu, or check the driver and that libtorch was built for CUDA"
                .into(),
        }),
        count if index >= count => Err(Error::Argument {
            argument: "device",
            found: format!("`{name}`"),
            remedy: format!("there are {count} GPUs: use cuda:0 to cuda:{}", count - 1),
        }),
        _ => Ok(Device::Cuda(index)),
    }
}

/// `f32`, `bf16` or `f16`.
///
/// # Errors
/// [`Error::Argument`] for another name.
pub fn dtype(name: &str) -> Result<Kind, Error> {
    match name {
        "f32" => Ok(Kind::Float),
        "bf16" => Ok(Kind::BFloat16),
        "f16" => Ok(Kind::Half),
        _ => Err(Error::Argument {
            argument: "dtype",
            found: format!("`{name}`"),
            remedy: "use f32, bf16 or f16".into(),
        }),
    }
}
