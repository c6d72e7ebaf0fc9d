//! Collecting key statistics: texts through the model, several layers in one pass.

use tch::{Device, Kind, Tensor};

use super::{Error, MOST_DRAWN, Moment};
use crate::model::{Draw, Hook, Model, Pass, sample};

/// Most tokens of one pass, and of one product in single precision.
const BATCH_TOKENS: usize = 2048;

/// Sums up keys of some layers.
///
/// A pass has rows of one length and adds one matrix product in single precision a layer; passes
/// are added up in double precision. Every row is a text alone: what a key is does not depend on
/// the texts beside it.
#[derive(Debug)]
pub struct Collector<'a> {
    model: &'a Model,
    layers: Vec<usize>,
    /// `[inner, inner]` in float64 on the model's device, one a layer.
    sums: Vec<Tensor>,
    count: u64,
    /// Rows of one length that wait for a pass.
    waiting: Vec<Vec<u32>>,
}

impl<'a> Collector<'a> {
    /// A collector for some layers of a model.
    ///
    /// # Errors
    /// [`Error::Layer`]; [`Error::Torch`] when the sums do not fit the device's memory.
    pub fn new(model: &'a Model, layers: &[usize]) -> Result<Self, Error> {
        let config = model.config();
        if let Some(&layer) = layers.iter().find(|&&layer| layer >= config.layers) {
            return Err(Error::Layer {
                layer,
                layers: config.layers,
            });
        }
        let size = config.inner as i64;
        let sums = layers
            .iter()
            .map(|_| Tensor::f_zeros([size, size], (Kind::Double, model.device())));
        Ok(Self {
            model,
            sums: sums.collect::<Result<_, _>>()?,
            layers: layers.to_vec(),
            count: 0,
            waiting: Vec::new(),
        })
    }

    /// Adds the keys at every token of a text that fits the model's context.
    ///
    /// # Errors
    /// [`Error::Model`] for a text that is too long or has tokens that are none.
    pub fn add(&mut self, ids: &[u32]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let _checked = self.model.ids(ids)?;
        let fits = self.waiting.first().is_none_or(|row| {
            row.len() == ids.len() && (self.waiting.len() + 1) * ids.len() <= BATCH_TOKENS
        });
        if !fits {
            self.pass()?;
        }
        self.waiting.push(ids.to_vec());
        Ok(())
    }

    /// Keys added so far, those that wait included.
    pub fn count(&self) -> u64 {
        self.count + self.waiting.iter().map(|row| row.len() as u64).sum::<u64>()
    }

    /// The sums, in the order of the layers.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::Model`] and [`Error::Torch`] from the last pass.
    pub fn finish(mut self) -> Result<Vec<Moment>, Error> {
        self.pass()?;
        let size = self.model.config().inner;
        let mut moments = Vec::with_capacity(self.layers.len());
        for (&layer, sum) in self.layers.iter().zip(&self.sums) {
            // One triangle for both: a product's rounding need not be symmetric.
            let upper = sum.triu(0);
            let sum = &upper + sum.triu(1).tr();
            if sum.isfinite().all().int64_value(&[]) == 0 {
                return Err(Error::NotFinite { layer });
            }
            let sum = sum.to_device(Device::Cpu).reshape([-1]);
            moments.push(Moment::new(size, Vec::try_from(&sum)?, self.count)?);
        }
        Ok(moments)
    }

    fn pass(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.waiting);
        let Some(last) = self.layers.iter().max() else {
            return Ok(());
        };
        if rows.is_empty() {
            return Ok(());
        }
        let _no_grad = tch::no_grad_guard();
        let ids: Vec<Tensor> = rows
            .iter()
            .map(|row| self.model.ids(row))
            .collect::<Result<_, _>>()?;
        let mut x = self
            .model
            .add_positions(&self.model.embed(&Tensor::cat(&ids, 0)), 0);
        let mut hook = Keys {
            layers: &self.layers,
            sums: &mut self.sums,
        };
        for layer in 0..=*last {
            x = self
                .model
                .block(layer, &x, Pass::default(), &mut hook)
                .hidden;
        }
        self.count += rows.iter().map(|row| row.len() as u64).sum::<u64>();
        Ok(())
    }
}

struct Keys<'a> {
    layers: &'a [usize],
    sums: &'a mut [Tensor],
}

impl Hook for Keys<'_> {
    fn key(&mut self, layer: usize, key: &Tensor) {
        for (at, sum) in self.layers.iter().zip(self.sums.iter_mut()) {
            if *at == layer {
                let size = key.size();
                let keys = key
                    .to_kind(Kind::Float)
                    .reshape([size[0] * size[1], size[2]]);
                *sum += keys.tr().matmul(&keys).to_kind(Kind::Double);
            }
        }
    }
}

/// A document as the pieces that [`Collector::add`] takes: its tokens, cut to at most `length`.
///
/// # Errors
/// [`Error::Length`] for a length of 0; [`Error::Model`] for a text that the tokenizer cannot read.
pub fn pieces(model: &Model, document: &str, length: usize) -> Result<Vec<Vec<u32>>, Error> {
    if length == 0 {
        return Err(Error::Length);
    }
    let length = length.min(model.config().context);
    let ids = model.tokenizer().encode(document)?.ids;
    Ok(ids.chunks(length).map(<[u32]>::to_vec).collect())
}

/// Texts drawn from the model itself: at least `tokens` tokens in rows of at most `length`, the
/// start token not counted. The same seed gives the same texts on the same machine.
///
/// # Errors
/// [`Error::Length`], [`Error::TooMany`], [`Error::Cancelled`] when `go_on` says no; [`Error::Model`] for a tokenizer without a start token.
pub fn self_sample(
    model: &Model,
    tokens: u64,
    length: usize,
    seed: u64,
    mut go_on: impl FnMut() -> bool,
) -> Result<Vec<Vec<u32>>, Error> {
    if length == 0 {
        return Err(Error::Length);
    }
    if tokens > MOST_DRAWN {
        return Err(Error::TooMany {
            tokens,
            most: MOST_DRAWN,
        });
    }
    // The start token stands before them.
    let length = length.min(model.config().context - 1).max(1);
    let rows = tokens.div_ceil(length as u64) as usize;
    let mut texts = Vec::new();
    while texts.len() < rows {
        let draw = Draw {
            rows: (rows - texts.len()).min(32),
            tokens: length + 1,
            top_k: None,
            seed: seed.wrapping_add(texts.len() as u64),
        };
        let mut cancelled = false;
        let drawn = sample(model, &draw, || {
            cancelled = !go_on();
            !cancelled
        })?;
        if cancelled {
            return Err(Error::Cancelled);
        }
        texts.extend(drawn);
    }
    Ok(texts)
}
