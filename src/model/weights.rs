//! Weights on their way from a checkpoint to a device, in the packing the blocks compute with.

use tch::{Device, Kind, Tensor};

use super::checkpoint::{Checkpoint, DType};
use super::config::{Activation, NormKind};
use super::families::{self, Parameter, Qkv, Up};
use super::norm::Norm;
use super::{Config, Error, product};

/// A linear map, `[out, in]` whatever the file's orientation.
#[derive(Debug)]
pub struct Linear {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `[.., in]` to `[.., out]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        product::linear(x, &self.weight, self.bias.as_ref(), None)
    }

    /// The same with the activation behind it.
    pub fn activated(&self, x: &Tensor, activation: Activation) -> Tensor {
        product::linear(x, &self.weight, self.bias.as_ref(), Some(activation))
    }

    /// The map to outputs `from .. from + length` only, sharing this one's memory.
    pub fn rows(&self, from: i64, length: i64) -> Linear {
        Linear {
            weight: self.weight.narrow(0, from, length),
            bias: self.bias.as_ref().map(|bias| bias.narrow(0, from, length)),
        }
    }
}

/// Reads tensors of one checkpoint to one device and type.
pub struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
    pub device: Device,
    pub kind: Kind,
}

impl Loader<'_> {
    fn config(&self) -> &Config {
        self.checkpoint.config()
    }

    pub fn tensor(&self, parameter: &Parameter) -> Result<Tensor, Error> {
        let data = self.checkpoint.tensor(&parameter.name)?;
        let shape: Vec<i64> = data.shape.iter().map(|&size| size as i64).collect();
        let kind = match data.dtype {
            DType::F32 => Kind::Float,
            DType::F16 => Kind::Half,
            DType::BF16 => Kind::BFloat16,
        };
        let tensor = Tensor::f_from_data_size(&data.bytes, &shape, kind)?;
        // A second look, one by one, only to say where.
        if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            data.check_finite(&parameter.name)?;
        }
        Ok(tensor.f_to_device(self.device)?.f_to_kind(self.kind)?)
    }

    pub fn linear(&self, linear: &families::Linear) -> Result<Linear, Error> {
        let weight = self.tensor(&linear.weight)?;
        Ok(Linear {
            weight: if linear.transposed {
                weight.f_tr()?.f_contiguous()?
            } else {
                weight
            },
            bias: match &linear.bias {
                Some(bias) => Some(self.tensor(bias)?),
                None => None,
            },
        })
    }

    pub fn norm(&self, norm: &families::Norm) -> Result<Norm, Error> {
        let weight = self.tensor(&norm.weight)?;
        let eps = self.config().norm_eps;
        Ok(match self.config().norm {
            NormKind::Layer | NormKind::LayerWithoutBias => {
                let bias = norm.bias.as_ref().map(|bias| self.tensor(bias));
                Norm::layer(weight, bias.transpose()?, eps)
            }
            NormKind::RmsPlusOne => Norm::rms_plus_one(weight, eps),
            NormKind::RmsScaledWide => Norm::rms_scaled_wide(&weight, eps),
            NormKind::Rms => Norm::rms(weight, eps),
        })
    }

    pub fn maybe_norm(&self, norm: Option<&families::Norm>) -> Result<Option<Norm>, Error> {
        norm.map(|norm| self.norm(norm)).transpose()
    }

    /// Query, key and value as one map: all queries, all keys, all values, the channels of each
    /// query and key head in the order `channels`.
    pub fn qkv(&self, qkv: &Qkv, channels: &[usize]) -> Result<Linear, Error> {
        let (heads, kv_heads) = (self.config().heads, self.config().kv_heads);
        let head_dim = self.config().head_dim;
        let fused = match qkv {
            Qkv::Separate(maps) => self.stacked(maps.as_slice())?,
            Qkv::Fused(map) => self.linear(map)?,
            Qkv::ByHead(map) => {
                let map = self.linear(map)?;
                let group = (heads / kv_heads) as i64;
                let sizes = [kv_heads as i64, group + 2, head_dim as i64, -1];
                let by_kind = |t: &Tensor| -> Result<Tensor, Error> {
                    let width = t.size()[1..].to_vec();
                    let rows = t.f_view(sizes)?;
                    let part = |from, length| {
                        let part = rows.f_narrow(1, from, length)?;
                        part.f_reshape([&[-1], &width[..]].concat())
                    };
                    let parts = [part(0, group)?, part(group, 1)?, part(group + 1, 1)?];
                    Ok(Tensor::f_cat(&parts, 0)?)
                };
                Linear {
                    weight: by_kind(&map.weight)?,
                    bias: map.bias.as_ref().map(by_kind).transpose()?,
                }
            }
        };
        if channels
            .iter()
            .enumerate()
            .all(|(i, &channel)| i == channel)
        {
            return Ok(fused);
        }
        let rotated = (0..heads + kv_heads).flat_map(|head| {
            channels
                .iter()
                .map(move |channel| head * head_dim + channel)
        });
        let rows: Vec<i64> = rotated
            .chain((heads + kv_heads) * head_dim..(heads + 2 * kv_heads) * head_dim)
            .map(|row| row as i64)
            .collect();
        let rows = Tensor::f_from_slice(&rows)?.f_to_device(self.device)?;
        Ok(Linear {
            weight: fused.weight.f_index_select(0, &rows)?,
            bias: match &fused.bias {
                Some(bias) => Some(bias.f_index_select(0, &rows)?),
                None => None,
            },
        })
    }

    /// What the MLP reads with, as one map; gate first where it is gated.
    pub fn up(&self, up: &Up) -> Result<Linear, Error> {
        match up {
            Up::Plain(map) | Up::Fused(map) => self.linear(map),
            Up::Gated(maps) => self.stacked(maps.as_slice()),
        }
    }

    /// Several maps of one input as one.
    fn stacked(&self, maps: &[families::Linear]) -> Result<Linear, Error> {
        let maps = maps.iter().map(|map| self.linear(map));
        let maps: Vec<Linear> = maps.collect::<Result<_, _>>()?;
        let weights: Vec<&Tensor> = maps.iter().map(|map| &map.weight).collect();
        let biases: Vec<&Tensor> = maps.iter().filter_map(|map| map.bias.as_ref()).collect();
        Ok(Linear {
            weight: Tensor::f_cat(&weights, 0)?,
            bias: match biases.is_empty() {
                true => None,
                false => Some(Tensor::f_cat(&biases, 0)?),
            },
        })
    }
}
