//! Collecting key statistics: texts through the model, several layers in one pass.

use tch::{Device, Kind, Tensor};

use super::{Error, MOST_DRAWN, Moment};
use crate::model::{Draw, Hook, Model, PASS_TOKENS, Pass, Products, filled, parted, sample};

/// Tokens that wait until passes are made, so that texts of about one length meet in one.
const WAITING_TOKENS: usize = 16 * PASS_TOKENS;

/// Sums up keys of some layers.
///
/// A pass has texts of about one length, filled up at their end, which no token before sees. It
/// adds one matrix product in single precision a layer, over the texts' own tokens; passes are added
/// up in double precision. Every row is a text alone: what a key is does not depend on the texts
/// beside it.
#[derive(Debug)]
pub struct Collector<'a> {
    model: &'a Model,
    layers: Vec<usize>,
    /// `[inner, inner]` in float64 on the model's device, one a layer.
    sums: Vec<Tensor>,
    count: u64,
    /// Texts that wait for a pass.
    waiting: Vec<Vec<u32>>,
    /// Their tokens.
    waiting_tokens: usize,
}

impl<'a> Collector<'a> {
    /// A collector for some layers of a model.
    ///
    /// # Errors
    /// [`Error::Layer`]; [`Error::Model`] for one that is a mixture of experts, whose keys are of as
    /// many matrices; [`Error::Torch`] when the sums do not fit the device's memory.
    pub fn new(model: &'a Model, layers: &[usize]) -> Result<Self, Error> {
        let config = model.config();
        if let Some(&layer) = layers.iter().find(|&&layer| layer >= config.layers) {
            return Err(Error::Layer {
                layer,
                layers: config.layers,
            });
        }
        layers.iter().try_for_each(|&layer| config.has_key(layer))?;
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
            waiting_tokens: 0,
        })
    }

    /// Adds the keys at every token of a text that fits the model's context. `passed` hears of the
    /// tokens of each pass, and ends the work by false.
    ///
    /// # Errors
    /// [`Error::Model`] for a text that is too long or has tokens that are none;
    /// [`Error::Cancelled`].
    pub fn add(&mut self, ids: &[u32], passed: impl FnMut(usize) -> bool) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let _checked = self.model.ids(ids)?;
        if self.waiting_tokens + ids.len() > WAITING_TOKENS {
            self.passes(passed)?;
        }
        self.waiting.push(ids.to_vec());
        self.waiting_tokens += ids.len();
        Ok(())
    }

    /// Keys added so far, those that wait included.
    pub fn count(&self) -> u64 {
        self.count + self.waiting_tokens as u64
    }

    /// The sums, in the order of the layers. `passed` as in [`Collector::add`].
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::Cancelled`]; [`Error::Model`] and [`Error::Torch`] from the
    /// last passes.
    pub fn finish(mut self, passed: impl FnMut(usize) -> bool) -> Result<Vec<Moment>, Error> {
        self.passes(passed)?;
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

    /// Runs what waits, texts of about one length together.
    fn passes(&mut self, mut passed: impl FnMut(usize) -> bool) -> Result<(), Error> {
        let mut rows = std::mem::take(&mut self.waiting);
        self.waiting_tokens = 0;
        rows.sort_by_key(|row| std::cmp::Reverse(row.len()));
        for part in parted(&rows, Vec::len) {
            let tokens = self.pass(part)?;
            if !passed(tokens) {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// Runs texts, the longest first, in one pass, and gives how many tokens they have.
    fn pass(&mut self, rows: &[Vec<u32>]) -> Result<usize, Error> {
        let (Some(last), Some(longest)) = (self.layers.iter().max(), rows.first().map(Vec::len))
        else {
            return Ok(0);
        };
        let _no_grad = tch::no_grad_guard();
        let place = |(n, row): (usize, &Vec<u32>)| {
            let first = (n * longest) as i64;
            first..first + row.len() as i64
        };
        let own: Vec<i64> = rows.iter().enumerate().flat_map(place).collect();
        let count = own.len();
        let own = (count < rows.len() * longest)
            .then(|| Tensor::from_slice(&own).to_device(self.model.device()));
        let mut x = filled(self.model, rows.iter().map(Vec::as_slice))?;
        let mut hook = Keys {
            layers: &self.layers,
            own: own.as_ref(),
            sums: &mut self.sums,
        };
        for layer in 0..=*last {
            let step = self.model.block(layer, &x, Pass::default(), &mut hook);
            x = step.hidden;
        }
        self.count += count as u64;
        Ok(count)
    }
}

struct Keys<'a> {
    layers: &'a [usize],
    /// Which of a pass's tokens are the texts' own; none where all are.
    own: Option<&'a Tensor>,
    sums: &'a mut [Tensor],
}

impl Hook for Keys<'_> {
    fn sees(&self, layer: usize) -> bool {
        self.layers.contains(&layer)
    }

    fn key(&mut self, layer: usize, key: Tensor) -> Tensor {
        for (at, sum) in self.layers.iter().zip(self.sums.iter_mut()) {
            if *at == layer {
                let size = key.size();
                let keys = key
                    .to_kind(Kind::Float)
                    .reshape([size[0] * size[1], size[2]]);
                let keys = match self.own {
                    Some(own) => keys.index_select(0, own),
                    None => keys,
                };
                let channels = keys.tr().contiguous();
                *sum += Products::linear(&channels, &channels).to_kind(Kind::Double);
            }
        }
        key
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::Checkpoint;

    fn model(family: &str) -> Model {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let checkpoint = Checkpoint::open(&folder.join(family)).unwrap();
        Model::load(&checkpoint, Device::Cpu, Kind::Float).unwrap()
    }

    fn texts() -> Vec<Vec<u32>> {
        let lengths = [3, 9, 1, 5, 9, 2, 7];
        let text = |&length: &u32| (0..length).map(|n| 3 + (n * 7 + length) % 40).collect();
        lengths.iter().map(text).collect()
    }

    #[test]
    fn texts_in_one_pass_add_what_each_adds_alone() {
        for family in ["llama", "gpt2", "gpt-neox-parallel"] {
            let model = model(family);
            let layers = [0, 1];
            let mut together = Collector::new(&model, &layers).unwrap();
            let mut passes = Vec::new();
            let mut alone: Vec<Option<Moment>> = vec![None, None];
            for text in texts() {
                together.add(&text, |_| true).unwrap();
                let mut one = Collector::new(&model, &layers).unwrap();
                one.add(&text, |_| true).unwrap();
                for (sum, found) in alone.iter_mut().zip(one.finish(|_| true).unwrap()) {
                    match sum {
                        Some(sum) => sum.add(&found).unwrap(),
                        None => *sum = Some(found),
                    }
                }
            }
            assert_eq!(together.count(), 36);
            let found = together.finish(|tokens| {
                passes.push(tokens);
                true
            });
            assert_eq!(passes, [36], "{family}");
            for (found, alone) in found.unwrap().iter().zip(alone.into_iter().flatten()) {
                assert_eq!(found.count(), alone.count());
                let largest = alone
                    .sum()
                    .iter()
                    .fold(0.0, |most: f64, x| most.max(x.abs()));
                for (x, y) in found.sum().iter().zip(alone.sum()) {
                    assert!((x - y).abs() <= 1e-6 * largest, "{family}: {x} against {y}");
                }
            }
        }
    }

    #[test]
    fn whoever_hears_of_a_pass_may_end_the_work() {
        let model = model("llama");
        let mut collector = Collector::new(&model, &[0]).unwrap();
        collector.add(&texts()[0], |_| true).unwrap();
        let ended = collector.finish(|_| false);
        assert!(matches!(ended, Err(Error::Cancelled)));
    }
}
