//! What the engines work on, what they give back, and the few calculations that they share.

use std::cell::Cell;

use tch::{Kind as Dtype, Tensor};

use super::error::Error;
use super::kind::{Kind, Severed};
use super::memory::Failure;
use super::prompt::Prompt;
use super::settings::Settings;
use crate::model::Model;

/// Hears of a trace as it goes, and can stop it.
pub trait Watch {
    /// Asked before every block that is computed: true stops the trace with [`Error::Cancelled`].
    fn cancelled(&self) -> bool {
        false
    }

    /// `done` of the `total` cells of all grids have their score.
    fn cells(&self, done: u64, total: u64) {
        let _ = (done, total);
    }
}

/// Nobody watches.
pub struct Unwatched;

impl Watch for Unwatched {}

/// What one grid restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measure {
    pub kind: Kind,
    pub severed: Option<Severed>,
}

/// What an engine finds: the corrupted probability, and `[tokens][layers]` scores a measure.
pub(super) struct Scores {
    pub low: f64,
    pub grids: Vec<Vec<f64>>,
}

/// The most probable token after the clean prompt, and its probability.
pub(super) struct Answer {
    pub id: i64,
    pub high: f64,
}

/// Everything that an engine works on.
pub(super) struct Task<'a> {
    pub model: &'a Model,
    pub settings: &'a Settings,
    pub prompt: &'a Prompt,
    pub measures: &'a [Measure],
    pub progress: Progress<'a>,
}

impl Task<'_> {
    pub fn layers(&self) -> usize {
        self.model.config().layers
    }

    /// Whether any grid restores states of `kind`.
    pub fn restores(&self, kind: Kind) -> bool {
        self.measures.iter().any(|measure| measure.kind == kind)
    }

    /// Whether any grid holds `severed` at its corrupted values.
    pub fn severs(&self, severed: Severed) -> bool {
        self.measures
            .iter()
            .any(|measure| measure.severed == Some(severed))
    }
}

/// Counts cells, and asks whether to go on.
pub(super) struct Progress<'a> {
    watch: &'a dyn Watch,
    done: Cell<u64>,
    total: u64,
}

impl<'a> Progress<'a> {
    /// Of `total` cells, none of which is done.
    pub fn new(watch: &'a dyn Watch, total: u64) -> Self {
        Self {
            watch,
            done: Cell::new(0),
            total,
        }
    }

    pub fn go_on(&self) -> Result<(), Failure> {
        match self.watch.cancelled() {
            true => Err(Failure::Error(Error::Cancelled)),
            false => Ok(()),
        }
    }

    pub fn add(&self, cells: usize) {
        self.done.set(self.done.get() + cells as u64);
        self.watch.cells(self.done.get(), self.total);
    }
}

/// The answer of `[rows, width]` equal clean states of the last token.
pub(super) fn answer(model: &Model, hidden: &Tensor) -> Answer {
    let probabilities = model.logits(hidden).softmax(-1, Dtype::Float);
    let id = probabilities.get(0).argmax(-1, false).int64_value(&[]);
    let high = mean(&to_f64(&probabilities.select(-1, id)));
    Answer { id, high }
}

/// A one-dimensional tensor as plain numbers.
pub(super) fn to_f64(values: &Tensor) -> Vec<f64> {
    let values = values
        .to_device(tch::Device::Cpu)
        .to_kind(Dtype::Double)
        .contiguous();
    let mut out = vec![0.0; values.numel()];
    let count = out.len();
    values.copy_data(&mut out, count);
    out
}

/// Mean of the probabilities of the rows of one cell.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
