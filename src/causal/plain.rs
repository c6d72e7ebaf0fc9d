//! The oracle: one full forward pass a cell, or along paths two, with all noise samples as its rows.
//!
//! Nothing here is clever, and it stays that way: the exact engine is measured against it. The
//! clean run too has one row a sample, so that every pass has the same shape and what must be equal
//! is. Its caller has matrices multiplied by libtorch's own products, as in any other program on
//! it: an error in the exact engine's would show.

use std::ops::Range;

use tch::Tensor;

use super::kind::{Kind, Severed};
use super::memory::Failure;
use super::paths::{Input, Paths};
use super::prompt::Prompt;
use super::rows::means;
use super::settings::Compat;
use super::task::{Measure, Progress, Scores, Task};
use crate::model::{Hook, Model, Pass};

/// The output of every sub-module in a run, `[rows, tokens, width]` a layer.
#[derive(Default)]
struct States {
    attn: Vec<Tensor>,
    mlp: Vec<Tensor>,
    hidden: Vec<Tensor>,
    resid_pre: Vec<Tensor>,
    resid_mid: Vec<Tensor>,
    heads: Vec<Tensor>,
    queries: Vec<Tensor>,
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    patterns: Vec<Tensor>,
}

impl States {
    fn of(&self, kind: Kind) -> &[Tensor] {
        match kind {
            Kind::Hidden => &self.hidden,
            Kind::Mlp => &self.mlp,
            Kind::Attn => &self.attn,
            Kind::ResidPre => &self.resid_pre,
            Kind::ResidMid => &self.resid_mid,
            Kind::Head | Kind::HeadAll => &self.heads,
            Kind::HeadQ | Kind::HeadQAll => &self.queries,
            Kind::HeadK | Kind::HeadKAll => &self.keys,
            Kind::HeadV | Kind::HeadVAll => &self.values,
            Kind::HeadPattern | Kind::HeadPatternAll => &self.patterns,
            Kind::Neuron => &[], // estimated alone
        }
    }
}

impl Hook for States {
    fn resid_pre(&mut self, _layer: usize, x: Tensor) -> Tensor {
        self.resid_pre.push(x.copy());
        x
    }

    fn resid_mid(&mut self, _layer: usize, x: Tensor) -> Tensor {
        self.resid_mid.push(x.copy());
        x
    }

    fn queries(&mut self, _layer: usize, q: Tensor) -> Tensor {
        self.queries.push(q.copy());
        q
    }

    fn keys(&mut self, _layer: usize, k: Tensor) -> Tensor {
        self.keys.push(k.copy());
        k
    }

    fn values(&mut self, _layer: usize, v: Tensor) -> Tensor {
        self.values.push(v.copy());
        v
    }

    fn pattern(&mut self, _layer: usize, weights: &Tensor) {
        self.patterns.push(weights.copy());
    }

    fn heads(&mut self, _layer: usize, z: Tensor) -> Tensor {
        self.heads.push(z.copy());
        z
    }

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

/// The run whose states are put in.
pub(super) struct Source {
    states: States,
    /// The states behind the last block that metrics are read from, `[rows, read, width]`.
    last: Tensor,
}

impl AsRef<Tensor> for Source {
    fn as_ref(&self) -> &Tensor {
        &self.last
    }
}

/// Puts recorded states in the place of computed ones.
struct Replace<'a> {
    /// At these tokens.
    tokens: Range<i64>,
    /// Of this head alone, and how many channels it gives.
    head: Option<(i64, i64)>,
    /// States of the source, in the layers of a window.
    restore: (Kind, Range<usize>, &'a States),
    /// States of the patched run, in every layer.
    freeze: Option<(Severed, &'a States)>,
}

impl Replace<'_> {
    fn replace(&self, kind: Kind, layer: usize, out: Tensor) -> Tensor {
        let place = |state: &Tensor| {
            let tokens = self.tokens.end - self.tokens.start;
            let at = |axis| state.narrow(axis, self.tokens.start, tokens);
            match (self.head, kind) {
                (None, _) => at(1),
                (Some((head, width)), Kind::Head) => at(1).narrow(2, head * width, width),
                (Some((head, _)), Kind::HeadPattern) => {
                    let group = state.size()[2];
                    at(3).narrow(1, head / group, 1).narrow(2, head % group, 1)
                }
                (Some((head, _)), _) => at(1).narrow(2, head, 1),
            }
        };
        let put = |states: &States| place(&out).copy_(&place(&states.of(kind)[layer]));
        match self.freeze {
            Some((Severed::Mlp, states)) if kind == Kind::Mlp => put(states),
            Some((Severed::Attn, states)) if kind == Kind::Attn => put(states),
            _ => {}
        }
        let (restored, window, states) = &self.restore;
        let here = *restored == kind
            || restored
                .of_head()
                .is_some_and(|of| kind.of_head() == Some(of));
        if here && window.contains(&layer) {
            put(states);
        }
        out
    }
}

impl Hook for Replace<'_> {
    fn resid_pre(&mut self, layer: usize, x: Tensor) -> Tensor {
        // A copy: the first block's input is that of every cell.
        self.replace(Kind::ResidPre, layer, x.copy())
    }

    fn resid_mid(&mut self, layer: usize, x: Tensor) -> Tensor {
        self.replace(Kind::ResidMid, layer, x)
    }

    fn queries(&mut self, layer: usize, q: Tensor) -> Tensor {
        self.replace(Kind::HeadQ, layer, q)
    }

    fn keys(&mut self, layer: usize, k: Tensor) -> Tensor {
        self.replace(Kind::HeadK, layer, k)
    }

    fn values(&mut self, layer: usize, v: Tensor) -> Tensor {
        self.replace(Kind::HeadV, layer, v)
    }

    fn pattern(&mut self, layer: usize, weights: &Tensor) {
        let _written = self.replace(Kind::HeadPattern, layer, weights.shallow_clone());
    }

    fn heads(&mut self, layer: usize, z: Tensor) -> Tensor {
        self.replace(Kind::Head, layer, z)
    }

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

/// The first of the two passes along a path: a head's output put in, every other head held as in the
/// patched run.
struct Sent<'a> {
    /// The layer of the head.
    from: usize,
    head: Replace<'a>,
    /// The patched run.
    base: &'a States,
    frozen_mlps: bool,
    /// What every head got, and more.
    states: States,
}

impl Hook for Sent<'_> {
    fn queries(&mut self, layer: usize, q: Tensor) -> Tensor {
        self.states.queries(layer, q)
    }

    fn keys(&mut self, layer: usize, k: Tensor) -> Tensor {
        self.states.keys(layer, k)
    }

    fn values(&mut self, layer: usize, v: Tensor) -> Tensor {
        self.states.values(layer, v)
    }

    fn heads(&mut self, layer: usize, z: Tensor) -> Tensor {
        match layer == self.from {
            true => self.head.heads(layer, z),
            false => self.base.heads[layer].shallow_clone(),
        }
    }

    fn mlp(&mut self, layer: usize, out: Tensor) -> Tensor {
        match self.frozen_mlps {
            true => self.base.mlp[layer].shallow_clone(),
            false => out,
        }
    }
}

/// The second one: nothing put in but what the receivers got.
struct Received<'a> {
    paths: &'a Paths,
    got: &'a States,
}

impl Received<'_> {
    fn put(&self, layer: usize, input: Input, out: Tensor) -> Tensor {
        let got = match input {
            Input::Query => &self.got.queries,
            Input::Key => &self.got.keys,
            Input::Value => &self.got.values,
        };
        let here = (self.paths.receivers.iter())
            .filter(|receiver| (receiver.layer, receiver.input) == (layer, input));
        for receiver in here {
            let of_head = |states: &Tensor| states.narrow(2, receiver.head as i64, 1);
            of_head(&out).copy_(&of_head(&got[layer]));
        }
        out
    }
}

impl Hook for Received<'_> {
    fn queries(&mut self, layer: usize, q: Tensor) -> Tensor {
        self.put(layer, Input::Query, q)
    }

    fn keys(&mut self, layer: usize, k: Tensor) -> Tensor {
        self.put(layer, Input::Key, k)
    }

    fn values(&mut self, layer: usize, v: Tensor) -> Tensor {
        self.put(layer, Input::Value, v)
    }
}

/// Runs a prompt as it is, in as many rows as the patched run has.
pub(super) fn source(
    model: &Model,
    prompt: &Prompt,
    rows: usize,
    progress: &Progress<'_>,
) -> Result<Source, Failure> {
    let rows = prompt.embeddings(model).repeat([rows as i64, 1, 1]);
    let mut states = States::default();
    let last = forward(model, prompt, progress, &rows, &mut states)?;
    Ok(Source { states, last })
}

pub(super) fn scores(task: &Task<'_>, source: &Source) -> Result<Scores, Failure> {
    let settings = task.settings;
    let read = |last: &Tensor| means(&task.readout.read(task.model, last), task.readout.count());
    let mut draws = task.draws();
    let rows = task.embeddings(draws.as_mut());
    let pass = |rows: &Tensor, hook: &mut dyn Hook| {
        forward(task.model, task.prompt, task.progress, rows, hook)
    };
    let mut base = States::default();
    let last = pass(&rows, &mut base)?;
    let values = read(&last);
    let second = match settings.compat {
        Compat::None => None,
        Compat::PaperCode => Some(task.embeddings(draws.as_mut())),
    };
    let mut grids = Vec::new();
    for measure in task.measures {
        let rows = match (&second, measure.severed) {
            (Some(second), Some(_)) => second,
            _ => &rows,
        };
        let tokens = task.prompt.tokens.len() as i64;
        let places: Vec<Range<i64>> = match measure.kind.is_over_tokens() {
            true => std::iter::once(0..task.prompt.len() as i64).collect(),
            false => (0..tokens).map(|at| at..at + 1).collect(),
        };
        let mut scores = Vec::new();
        for place in places {
            for (head, layer) in (0..measure.heads)
                .flat_map(|head| (0..task.layers()).map(move |layer| (head, layer)))
            {
                let cell = (place.clone(), head, layer);
                let mut replace = restoration(task, measure, cell, source, &base);
                let last = match &settings.paths {
                    None => pass(rows, &mut replace)?,
                    Some(paths) => {
                        let mut sent = Sent {
                            from: layer,
                            head: replace,
                            base: &base,
                            frozen_mlps: paths.frozen_mlps,
                            states: States::default(),
                        };
                        let _last = pass(rows, &mut sent)?;
                        let mut received = Received {
                            paths,
                            got: &sent.states,
                        };
                        pass(rows, &mut received)?
                    }
                };
                scores.extend(read(&last));
                task.progress.add(1);
            }
        }
        grids.push(scores);
    }
    Ok(Scores {
        base: values,
        grids,
        verified: Vec::new(),
        neurons: Vec::new(),
    })
}

/// What one cell puts back.
fn restoration<'a>(
    task: &Task<'_>,
    measure: &Measure,
    (tokens, head, layer): (Range<i64>, usize, usize),
    source: &'a Source,
    base: &'a States,
) -> Replace<'a> {
    let of_head = (head as i64, task.model.config().head_dim as i64);
    let window = measure
        .kind
        .window(layer, task.layers(), task.settings.window);
    Replace {
        tokens,
        head: measure.kind.is_of_heads().then_some(of_head),
        restore: (measure.kind, window, &source.states),
        freeze: measure.severed.map(|severed| (severed, base)),
    }
}

/// The states behind the last block that metrics are read from, `[rows, read, width]`.
fn forward(
    model: &Model,
    prompt: &Prompt,
    progress: &Progress<'_>,
    embeddings: &Tensor,
    hook: &mut dyn Hook,
) -> Result<Tensor, Failure> {
    let mut x = model.add_positions(embeddings, 0);
    for layer in 0..model.config().layers {
        progress.go_on()?;
        x = model.block(layer, &x, Pass::default(), hook).hidden;
    }
    Ok(prompt.last_of(&x))
}
