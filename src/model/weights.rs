//! Weights on their way from a checkpoint to a device, in the packing the blocks compute with.

use tch::{Device, Kind, Tensor};

use super::checkpoint::{Checkpoint, DType};
use super::config::{Activation, NormKind};
use super::families::{self, Parameter, Qkv, Up};
use super::norm::Norm;
use super::{Config, Error, product};

/// Numbers that are looked at together.
const PIECE: i64 = 1 << 18;

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

    /// [`Linear::forward`] in float32, whatever the model's type.
    pub fn forward_wide(&self, x: &Tensor) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(Kind::Float));
        x.to_kind(Kind::Float)
            .linear(&self.weight.to_kind(Kind::Float), bias.as_ref())
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
        let mut tensor = self.empty(&sizes(parameter))?;
        self.fill(&mut tensor, parameter, false)?;
        Ok(tensor)
    }

    pub fn linear(&self, linear: &families::Linear) -> Result<Linear, Error> {
        self.stacked(std::slice::from_ref(linear))
    }

    fn empty(&self, sizes: &[i64]) -> Result<Tensor, Error> {
        Ok(Tensor::f_empty(sizes, (self.kind, self.device))?)
    }

    /// Reads a tensor of the checkpoint to its place, on whatever device and of whatever type that
    /// is; `transposed` where the place has its last two sizes the other way round. Each size of the
    /// file may be several of the place. Nothing is held twice on
    /// the way: a model is loaded in the memory that it takes.
    fn fill(
        &self,
        place: &mut Tensor,
        parameter: &Parameter,
        transposed: bool,
    ) -> Result<(), Error> {
        let data = self.checkpoint.tensor(&parameter.name)?;
        let kind = match data.dtype {
            DType::F32 => Kind::Float,
            DType::F16 => Kind::Half,
            DType::BF16 => Kind::BFloat16,
        };
        let sizes = sizes(parameter);
        let stored = if data.bytes.as_ptr().align_offset(data.dtype.size()) == 0 {
            let rows = sizes.iter().rev();
            let strides = rows.scan(1, |all, size| Some(std::mem::replace(all, *all * size)));
            let mut strides: Vec<i64> = strides.collect();
            strides.reverse();
            // SAFETY: the bytes are as many as these sizes need, which the checkpoint has checked,
            // and are aligned; they outlive the tensor, which ends with this function and is only
            // read.
            #[allow(unsafe_code)]
            unsafe {
                Tensor::f_from_blob(data.bytes.as_ptr(), &sizes, &strides, kind, Device::Cpu)?
            }
        } else {
            Tensor::f_from_data_size(&data.bytes, &sizes, kind)?
        };
        // Piece by piece: what is allocated and freed between weights leaves holes that nothing fits
        // into later. A second look, one by one, only to say where.
        for piece in stored.f_view(-1)?.f_split(PIECE, 0)? {
            if piece.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                data.check_finite(&parameter.name)?;
            }
        }
        let stored = match transposed {
            true => stored.f_transpose(-1, -2)?,
            false => stored,
        };
        place.f_copy_(&stored.f_reshape(place.size())?)?;
        drop(stored);
        self.checkpoint.release(&parameter.name);
        Ok(())
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

    /// The first and second map of every expert: as [`Loader::up`] and [`Loader::linear`] give
    /// those of an MLP.
    pub fn experts(&self, experts: &families::Experts) -> Result<Vec<(Linear, Linear)>, Error> {
        match experts {
            families::Experts::Separate(experts) => experts
                .iter()
                .map(|one| Ok((self.up(&one.up)?, self.linear(&one.down)?)))
                .collect(),
            families::Experts::Stacked { gate_up, down } => {
                let (ups, downs) = (self.stack(gate_up, 2)?, self.stack(down, 1)?);
                Ok(ups.into_iter().zip(downs).collect())
            }
        }
    }

    /// The maps of a tensor that holds one for every expert, `[experts, in, parts * out]`, as
    /// `[parts * out, in]` each. The outputs of so many parts take turns in the file, and lie part by
    /// part here.
    fn stack(&self, map: &families::Linear, parts: i64) -> Result<Vec<Linear>, Error> {
        let all = sizes(&map.weight);
        let (experts, inputs, outputs) = (all[0], all[1], all[2] / parts);
        let weight = self.empty(&[experts, parts, outputs, inputs])?;
        self.fill(&mut weight.f_transpose(1, 2)?, &map.weight, map.transposed)?;
        let bias = match &map.bias {
            Some(bias) => {
                let place = self.empty(&[experts, parts, outputs])?;
                self.fill(&mut place.f_transpose(1, 2)?, bias, false)?;
                Some(place)
            }
            None => None,
        };
        let one = |n| -> Result<Linear, Error> {
            let of = |all: &Tensor| all.f_select(0, n)?.f_flatten(0, 1);
            Ok(Linear {
                weight: of(&weight)?,
                bias: bias.as_ref().map(of).transpose()?,
            })
        };
        (0..experts).map(one).collect()
    }

    /// Several maps of one input as one.
    fn stacked(&self, maps: &[families::Linear]) -> Result<Linear, Error> {
        let shape = |map: &families::Linear| {
            let sizes = sizes(&map.weight);
            match map.transposed {
                true => (sizes[1], sizes[0]),
                false => (sizes[0], sizes[1]),
            }
        };
        let outputs: i64 = maps.iter().map(|map| shape(map).0).sum();
        let inputs = maps.first().map_or(0, |map| shape(map).1);
        let weight = self.empty(&[outputs, inputs])?;
        let biased = maps.iter().any(|map| map.bias.is_some());
        let options = (self.kind, self.device);
        let bias = biased.then(|| Tensor::f_zeros([outputs], options));
        let bias = bias.transpose()?;
        let mut from = 0;
        for map in maps {
            let length = shape(map).0;
            let mut place = weight.f_narrow(0, from, length)?;
            self.fill(&mut place, &map.weight, map.transposed)?;
            if let (Some(all), Some(own)) = (&bias, &map.bias) {
                self.fill(&mut all.f_narrow(0, from, length)?, own, false)?;
            }
            from += length;
        }
        Ok(Linear { weight, bias })
    }
}

fn sizes(parameter: &Parameter) -> Vec<i64> {
    parameter.shape.iter().map(|&size| size as i64).collect()
}
