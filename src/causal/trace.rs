//! The way in: one fact, all the grids asked for.

use std::cell::Cell;

use tch::{Kind as Dtype, Tensor};

use super::error::Error;
use super::fact::Fact;
use super::grid::{Grid, Token};
use super::kind::{Kind, Severed};
use super::memory::{self, Failure};
use super::prompt::Prompt;
use super::settings::{Engine, Settings};
use super::{exact, plain};
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

impl Progress<'_> {
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

/// Traces one fact: the grids of [`Settings::kinds`] in that order, then those of [`Settings::severed`].
///
/// Probabilities are a softmax in f32; means over noise samples are taken in f64. A fact with an
/// attribute that the model answers otherwise comes back untraced (see [`Grid::correct_prediction`]).
/// A grid's numbers do not depend on which other grids are asked for.
///
/// # Errors
/// An invalid setting or fact; [`Error::Cancelled`] when `watch` asks for it; [`Error::OutOfMemory`]
/// when even a single row does not fit; [`Error::NotFinite`] when the model overflows.
pub fn trace(
    model: &Model,
    fact: &Fact,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Vec<Grid>, Error> {
    settings.check()?;
    settings.noise.check_width(model.config().width)?;
    let prompt = Prompt::read(model, fact)?;
    let measures: Vec<Measure> = settings
        .kinds
        .iter()
        .map(|&kind| Measure {
            kind,
            severed: None,
        })
        .chain(settings.severed.iter().map(|&severed| Measure {
            kind: Kind::Hidden,
            severed: Some(severed),
        }))
        .collect();
    let task = Task {
        model,
        settings,
        prompt: &prompt,
        measures: &measures,
        progress: Progress {
            watch,
            done: Cell::new(0),
            total: (measures.len() * prompt.len() * model.config().layers) as u64,
        },
    };
    let _no_grad = tch::no_grad_guard();
    let found = memory::attempt(|| match settings.engine {
        Engine::Plain => grids(&task, fact, &plain::clean(&task)?, plain::scores),
        Engine::Exact => grids(&task, fact, &exact::clean(&task)?, exact::scores),
    });
    match found {
        Ok(grids) => Ok(grids),
        Err(Failure::Error(error)) => Err(error),
        Err(Failure::OutOfMemory) => Err(Error::OutOfMemory {
            device: format!("{:?}", model.device()),
            rows: match settings.engine {
                Engine::Plain => settings.samples,
                Engine::Exact => 1,
            },
            tokens: prompt.len(),
            layers: task.layers(),
            width: model.config().width,
            dtype: format!("{:?}", model.dtype()),
            samples: settings.samples,
        }),
    }
}

/// From an engine's clean run to the grids, by way of its scores when the answer is the right one.
fn grids<C: AsRef<Answer>>(
    task: &Task<'_>,
    fact: &Fact,
    clean: &C,
    scores: fn(&Task<'_>, &C) -> Result<Scores, Failure>,
) -> Result<Vec<Grid>, Failure> {
    let &Answer { id, high } = clean.as_ref();
    if !high.is_finite() {
        return Err(Failure::Error(Error::NotFinite {
            prompt: fact.prompt.clone(),
            value: high,
        }));
    }
    let answer = Token {
        id: id as u32,
        text: task
            .model
            .tokenizer()
            .decode(&[id as u32])
            .map_err(|error| Failure::Error(error.into()))?,
    };
    let correct_prediction = fact
        .attribute
        .as_ref()
        .is_none_or(|attribute| attribute.trim() == answer.text.trim());
    let untraced = |measure: &Measure| Grid {
        fact: fact.clone(),
        kind: measure.kind,
        severed: measure.severed,
        window: task.settings.window,
        noise: task.settings.noise.rule().to_string(),
        samples: task.settings.samples,
        seed: task.settings.seed,
        layers: task.layers(),
        tokens: task.prompt.tokens.clone(),
        subject: task.prompt.subject.clone(),
        answer: answer.clone(),
        correct_prediction,
        high,
        low: None,
        scores: Vec::new(),
    };
    let mut grids: Vec<Grid> = task.measures.iter().map(untraced).collect();
    if correct_prediction {
        let found = scores(task, clean)?;
        for (grid, scores) in grids.iter_mut().zip(found.grids) {
            grid.low = Some(found.low);
            grid.scores = scores;
        }
    }
    Ok(grids)
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
