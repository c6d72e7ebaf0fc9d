//! The oracle: one full forward pass a cell, with all noise samples as its rows.
//!
//! Nothing here is clever, and it stays that way: the exact engine is measured against it. The
//! clean run too has one row a sample, so that every pass has the same shape and what must be equal
//! is. Matrices are multiplied by libtorch's own products, as in any other program on it: an error
//! in the exact engine's would show.

use tch::{Kind as Dtype, Tensor};

use super::kind::{Kind, Severed};
use super::memory::Failure;
use super::settings::Compat;
use super::task::{Answer, Measure, Scores, Task, answer, mean, to_f64};
use crate::model::{Hook, Pass, with_libtorch_products};

/// The output of every sub-module in a run, `[rows, tokens, width]` a layer.
#[derive(Default)]
struct States {
    attn: Vec<Tensor>,
    mlp: Vec<Tensor>,
    hidden: Vec<Tensor>,
}

impl States {
    fn of(&self, kind: Kind) -> &[Tensor] {
        match kind {
            Kind::Hidden => &self.hidden,
            Kind::Mlp => &self.mlp,
            Kind::Attn => &self.attn,
        }
    }
}

impl Hook for States {
    fn attn(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.attn.push(out.copy());
        out
    }

    fn mlp(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.mlp.push(out.copy());
        out
    }

    fn hidden(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.hidden.push(out.copy());
        out
    }
}

/// The clean run.
pub(super) struct Clean {
    states: States,
    answer: Answer,
}

impl AsRef<Answer> for Clean {
    fn as_ref(&self) -> &Answer {
        &self.answer
    }
}

/// Puts recorded states in the place of computed ones, at one token.
struct Replace<'a> {
    token: i64,
    /// Clean states, in the layers of a window.
    restore: (Kind, std::ops::Range<usize>, &'a States),
    /// Corrupted states, in every layer.
    freeze: Option<(Severed, &'a States)>,
}

impl Replace<'_> {
    fn replace(&self, kind: Kind, layer: usize, out: Tensor) -> Tensor {
        let put = |states: &States| {
            let state = states.of(kind)[layer].narrow(1, self.token, 1);
            out.narrow(1, self.token, 1).copy_(&state);
        };
        match self.freeze {
            Some((Severed::Mlp, states)) if kind == Kind::Mlp => put(states),
            Some((Severed::Attn, states)) if kind == Kind::Attn => put(states),
            _ => {}
        }
        let (restored, window, states) = &self.restore;
        if *restored == kind && window.contains(&layer) {
            put(states);
        }
        out
    }
}

impl Hook for Replace<'_> {
    fn attn(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.replace(Kind::Attn, layer, out)
    }

    fn mlp(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.replace(Kind::Mlp, layer, out)
    }

    fn hidden(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.replace(Kind::Hidden, layer, out)
    }
}

pub(super) fn clean(task: &Task<'_>) -> Result<Clean, Failure> {
    let embeddings = task.prompt.embeddings(task.model);
    let rows = embeddings.repeat([task.settings.samples as i64, 1, 1]);
    let mut states = States::default();
    let last = forward(task, &rows, &mut states)?;
    Ok(Clean {
        states,
        answer: with_libtorch_products(|| answer(task.model, &last)),
    })
}

pub(super) fn scores(task: &Task<'_>, clean: &Clean) -> Result<Scores, Failure> {
    let settings = task.settings;
    let mut draws = settings.noise.draws(settings.seed);
    let rows = task.prompt.corrupted(task.model, settings, &mut draws);
    let mut corrupted = States::default();
    let last = forward(task, &rows, &mut corrupted)?;
    let low = probability(task, &last, clean.answer.id);
    let second = match settings.compat {
        Compat::None => None,
        Compat::PaperCode => Some(task.prompt.corrupted(task.model, settings, &mut draws)),
    };
    let mut grids = Vec::new();
    for measure in task.measures {
        let rows = match (&second, measure.severed) {
            (Some(second), Some(_)) => second,
            _ => &rows,
        };
        let mut scores = Vec::with_capacity(task.prompt.len() * task.layers());
        for token in 0..task.prompt.len() {
            for layer in 0..task.layers() {
                let mut replace = restoration(task, measure, token, layer, clean, &corrupted);
                let last = forward(task, rows, &mut replace)?;
                scores.push(probability(task, &last, clean.answer.id));
                task.progress.add(1);
            }
        }
        grids.push(scores);
    }
    Ok(Scores { low, grids })
}

/// What one cell puts back.
fn restoration<'a>(
    task: &Task<'_>,
    measure: &Measure,
    token: usize,
    layer: usize,
    clean: &'a Clean,
    corrupted: &'a States,
) -> Replace<'a> {
    let window = measure
        .kind
        .window(layer, task.layers(), task.settings.window);
    Replace {
        token: token as i64,
        restore: (measure.kind, window, &clean.states),
        freeze: measure.severed.map(|severed| (severed, corrupted)),
    }
}

/// The last token's state behind the last block, `[rows, width]`.
fn forward(task: &Task<'_>, embeddings: &Tensor, hook: &mut dyn Hook) -> Result<Tensor, Failure> {
    with_libtorch_products(|| {
        let mut x = task.model.add_positions(embeddings, 0);
        for layer in 0..task.layers() {
            task.progress.go_on()?;
            x = task.model.block(layer, &x, Pass::default(), hook).hidden;
        }
        Ok(x.select(1, task.prompt.len() as i64 - 1))
    })
}

fn probability(task: &Task<'_>, hidden: &Tensor, answer: i64) -> f64 {
    let logits = with_libtorch_products(|| task.model.logits(hidden));
    mean(&to_f64(
        &logits.softmax(-1, Dtype::Float).select(-1, answer),
    ))
}
