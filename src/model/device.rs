//! Devices and element types by name.

use tch::{Device, Kind};

use super::Error;
use super::cuda::gpus;

/// Devices of one kind: several names of [`device`] with commas between them, or `all`: every GPU, or
/// the CPU where there is none; `cuda:all`: every GPU. A device may be named more than once.
///
/// # Errors
/// [`Error::Argument`] for another name, for a GPU that is not there, and for devices of two kinds.
pub fn devices(names: &str) -> Result<Vec<Device>, Error> {
    let every = |gpus: usize| (0..gpus).map(Device::Cuda).collect();
    match (names, gpus()) {
        ("all", 0) => Ok(vec![Device::Cpu]),
        ("all" | "cuda:all", gpus) if gpus > 0 => Ok(every(gpus)),
        ("cuda:all", _) => Err(without_gpus(names)),
        _ => {
            let named = names.split(',').map(|name| device(name.trim()));
            let named: Vec<Device> = named.collect::<Result<_, _>>()?;
            let cpus = named.iter().filter(|it| **it == Device::Cpu).count();
            match cpus == 0 || cpus == named.len() {
                true => Ok(named),
                false => Err(Error::Argument {
                    argument: "device",
                    found: format!("`{names}`"),
                    remedy: "name GPUs only, or the CPU only: one model's blocks are not spread over both"
                        .into(),
                }),
            }
        }
    }
}

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
                remedy: "use cpu, cuda, cuda:N, auto, all or cuda:all, or several of a kind: cuda:0,cuda:1"
                    .into(),
            })?,
    };
    match gpus() {
        0 => Err(without_gpus(name)),
        count if index >= count => Err(Error::Argument {
            argument: "device",
            found: format!("`{name}`"),
            remedy: format!("there are {count} GPUs: use cuda:0 to cuda:{}", count - 1),
        }),
        _ => Ok(Device::Cuda(index)),
    }
}

fn without_gpus(name: &str) -> Error {
    Error::Argument {
        argument: "device",
        found: format!("`{name}`"),
        remedy: "this libtorch sees no GPU: use cpu, or check the driver and that libtorch was built for CUDA"
            .into(),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_alone_or_several_of_a_kind() {
        assert_eq!(devices("cpu").unwrap(), [Device::Cpu]);
        assert_eq!(devices("cpu, cpu").unwrap(), [Device::Cpu; 2]);
        assert!(!devices("auto").unwrap().is_empty());
        assert!(!devices("all").unwrap().is_empty());
        for (names, says) in [
            ("", "several of a kind"),
            ("gpu", "cuda:N"),
            ("cpu,", "cpu"),
        ] {
            let refused = devices(names).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
        if gpus() == 0 {
            for names in ["cuda:all", "cuda:0", "cpu,cuda:0"] {
                let refused = devices(names).unwrap_err().to_string();
                assert!(refused.contains("sees no GPU"), "{refused}");
            }
        }
    }
}
