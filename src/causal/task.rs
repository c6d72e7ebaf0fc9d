//! What the engines work on, what they give back, and the few calculations that they share.

use std::cell::Cell;

use tch::Tensor;

use super::error::Error;
use super::grid::Verified;
use super::kind::{Kind, Severed};
use super::memory::Failure;
use super::noise::{Draws, Noise};
use super::prompt::Prompt;
use super::readout::Readout;
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
    /// Cells of a layer: its heads, where they are told apart, else 1.
    pub heads: usize,
}

impl Measure {
    /// Cells of the grid of a prompt of so many tokens, `[token][head][layer]`.
    pub fn cells(&self, tokens: usize, layers: usize) -> usize {
        let places = match self.kind.is_over_tokens() {
            true => 1,
            false => tokens,
        };
        places * self.heads * layers
    }
}

/// What an engine finds, the metrics of [`Readout`] one after another for each: of the run that is
/// patched, and of every measure's cells, `[tokens][heads][layers]`.
pub(super) struct Scores {
    pub base: Vec<f64>,
    pub grids: Vec<Vec<f64>>,
    /// Of estimates the cells of every measure that were patched exactly; empty where the scores
    /// are exact themselves.
    pub verified: Vec<Vec<Verified>>,
    /// Of estimates the neuron of every measure's cells; empty of what is none.
    pub neurons: Vec<Vec<u32>>,
}

/// Everything that an engine works on.
pub(super) struct Task<'a> {
    pub model: &'a Model,
    pub settings: &'a Settings,
    pub measures: &'a [Measure],
    pub progress: &'a Progress<'a>,
    /// The prompt that is patched.
    pub prompt: &'a Prompt,
    /// Noise on its embeddings; none where it is corrupted by being another prompt.
    pub noise: Option<&'a Noise>,
    /// The first token at which its embeddings are not those of the other run.
    pub first: usize,
    /// What is read of every cell.
    pub readout: &'a Readout,
    /// That of the run whose states are put in, as it is.
    pub source: Vec<f64>,
}

impl Task<'_> {
    pub fn layers(&self) -> usize {
        self.model.config().layers
    }

    /// Rows of the run that is patched.
    pub fn rows(&self) -> usize {
        self.settings.rows()
    }

    /// The noise that is to be drawn.
    pub fn draws(&self) -> Option<Draws<'_>> {
        self.noise.map(|noise| noise.draws(self.settings.seed))
    }

    /// Embeddings of the run that is patched, `[rows, tokens, width]`, with the next draws.
    pub fn embeddings(&self, draws: Option<&mut Draws<'_>>) -> Tensor {
        match draws {
            Some(draws) => self.prompt.noisy(self.model, self.rows(), draws),
            None => self.prompt.embeddings(self.model),
        }
    }

    /// Whether any grid restores states of `kind`.
    pub fn restores(&self, kind: Kind) -> bool {
        self.measures.iter().any(|measure| measure.kind == kind)
    }

    /// Whether any grid restores something of single heads, or of neurons, which follow from what
    /// heads give.
    pub fn restores_heads(&self) -> bool {
        self.measures
            .iter()
            .any(|measure| measure.kind.is_of_heads() || measure.kind == Kind::Neuron)
    }

    /// Whether the paths that are patched go by no MLP.
    pub fn holds_mlps(&self) -> bool {
        (self.settings.paths.as_ref()).is_some_and(|paths| paths.frozen_mlps)
    }

    /// Whether any grid holds `severed` at its values in the patched run.
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
