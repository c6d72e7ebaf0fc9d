//! The two passes of the exact engine along paths: from a head, all others held, to the receivers'
//! inputs; and from these, alone put in, to the answer.
//!
//! As elsewhere, what cannot differ is not computed: of the first pass the blocks from the head's up
//! to the highest receiver's, without their attention but where it is asked what the receivers get;
//! of the second those from the lowest receiver's on; and of both no token before the first that the
//! head's output differs at. The heads of a layer are rows of one batch.

use std::ops::Range;

use tch::Tensor;

use super::kind::Severed;
use super::memory::{Budget, Failure, Piece};
use super::paths::{Input, Paths, Receiver};
use super::rows::means;
use super::runs::{Run, Source, before, cells_at_once, input, part, row_bytes};
use super::task::{Measure, Task};
use crate::model::{Hook, Pass};

/// The metrics of a grid's cells along `paths`, as [`super::task::Scores`] has them.
pub(super) fn scores(
    task: &Task<'_>,
    paths: &Paths,
    source: &Source,
    run: &Run,
    measure: &Measure,
    budget: &Budget,
) -> Result<Vec<f64>, Failure> {
    let (tokens, layers, samples) = (task.prompt.len(), task.layers(), task.rows());
    let count = task.readout.count();
    let unpatched = means(&run.values, count);
    let places = task.prompt.tokens.len();
    let mut scores = unpatched.repeat(measure.cells(places, layers));
    let over_tokens = measure.kind.is_over_tokens();
    // The tokens before are the same in both runs.
    let spans: Vec<Range<usize>> = match over_tokens {
        true => std::iter::once(task.first..tokens).collect(),
        false => (task.first..places).map(|token| token..token + 1).collect(),
    };
    let heads: Vec<usize> = (0..measure.heads).collect();
    let mut done = 0;
    for span in spans {
        let row = if over_tokens { 0 } else { span.start };
        let computed = tokens - span.start;
        let at_once = cells_at_once(task.model, samples, computed).min(heads.len());
        for layer in 0..paths.highest().min(layers) {
            for heads in heads.chunks(at_once) {
                let from = Senders {
                    layer,
                    heads,
                    span: span.start as i64..span.end as i64,
                };
                let mut found = vec![0.0; heads.len() * samples * count];
                let all = Piece {
                    cells: 0..heads.len(),
                    samples: 0..samples,
                };
                budget.spend(row_bytes(task.model, computed, tokens), all, |piece| {
                    let values = along(task, paths, source, run, &from, piece)?;
                    let each = piece.samples.len() * count;
                    for (cell, values) in piece.cells.clone().zip(values.chunks(each)) {
                        let at = (cell * samples + piece.samples.start) * count;
                        found[at..at + values.len()].copy_from_slice(values);
                    }
                    Ok(())
                })?;
                for (&head, found) in heads.iter().zip(found.chunks(samples * count)) {
                    let cell = (row * measure.heads + head) * layers + layer;
                    scores[cell * count..(cell + 1) * count].copy_from_slice(&means(found, count));
                }
                task.progress.add(heads.len());
                done += heads.len();
            }
        }
    }
    // Those that no path leads from.
    let all = measure.cells(places, layers);
    task.progress.add(all - done);
    Ok(scores)
}

/// Heads of one layer whose outputs at some tokens are put in, each in rows of its own.
struct Senders<'a> {
    layer: usize,
    heads: &'a [usize],
    span: Range<i64>,
}

/// The metrics of some of the senders in some samples, `[senders][samples][metrics]`.
fn along(
    task: &Task<'_>,
    paths: &Paths,
    source: &Source,
    run: &Run,
    from: &Senders<'_>,
    piece: &Piece,
) -> Result<Vec<f64>, Failure> {
    let (model, samples, span) = (task.model, &piece.samples, &from.span);
    let heads = &from.heads[piece.cells.clone()];
    let of_rows = |states: &Tensor, span: &Range<i64>| {
        let states = part(states, samples).narrow(1, span.start, span.end - span.start);
        states.repeat([heads.len() as i64, 1, 1])
    };
    // Where the heads are other than in the patched run.
    let z = of_rows(&run.heads[from.layer], span);
    let width = model.config().head_dim as i64;
    let rows = samples.len() as i64;
    for (cell, &head) in heads.iter().enumerate() {
        let of_head = |states: &Tensor| states.narrow(2, head as i64 * width, width);
        let theirs = source.heads[from.layer].narrow(1, span.start, span.end - span.start);
        let mut own = of_head(&z.narrow(0, cell as i64 * rows, rows));
        own.copy_(&of_head(&theirs));
    }
    let reached = paths.receivers.iter().map(|receiver| receiver.layer);
    let reached = reached.filter(|&layer| layer > from.layer);
    let lowest = reached.min().unwrap_or(from.layer);
    let mut x = of_rows(input(&run.input[0], &run.hidden, from.layer), span);
    let mut got: Vec<(Receiver, Tensor)> = Vec::new();
    for layer in from.layer..=paths.highest() {
        task.progress.go_on()?;
        let mut held = Held {
            heads: None,
            mlp: (paths.frozen_mlps).then(|| of_rows(&run.of(Severed::Mlp)[layer], span)),
            asked: (paths.receivers.iter().copied())
                .filter(|receiver| layer > from.layer && receiver.layer == layer)
                .collect(),
            got: Vec::new(),
        };
        let z = match layer == from.layer {
            true => z.shallow_clone(),
            false => of_rows(&run.heads[layer], span),
        };
        x = match held.asked.is_empty() {
            true => model.behind_heads(layer, &x, &z, &mut held),
            false => {
                held.heads = Some(z);
                let past = before(&run.kv[layer], span.start, samples);
                let pass = Pass {
                    past: past.as_ref(),
                    queries: None,
                };
                model.block(layer, &x, pass, &mut held).hidden
            }
        };
        got.append(&mut held.got);
    }
    let rest = span.start..task.prompt.len() as i64;
    // Behind the span nothing else reaches the receivers: there they are held, as lower receivers
    // move what higher ones would get.
    let behind = span.end..rest.end;
    for (receiver, got) in &mut got {
        let kv = &run.kv[receiver.layer];
        let held = match receiver.input {
            Input::Query => run.queries[receiver.layer].shallow_clone(),
            Input::Key => kv.k.transpose(1, 2),
            Input::Value => kv.v.transpose(1, 2),
        };
        let held = part(&held.narrow(2, receiver.head as i64, 1), samples);
        let held = held.narrow(1, behind.start, behind.end - behind.start);
        let held = held.repeat([heads.len() as i64, 1, 1, 1]);
        *got = Tensor::cat(&[&*got, &held], 1);
    }
    let mut x = of_rows(input(&run.input[0], &run.hidden, lowest), &rest);
    for layer in lowest..task.layers() {
        task.progress.go_on()?;
        let past = before(&run.kv[layer], span.start, samples);
        let pass = Pass {
            past: past.as_ref(),
            queries: (layer + 1 == task.layers()).then_some(task.prompt.positions() as i64),
        };
        let mut put = Put {
            tokens: rest.end - rest.start,
            got: &got,
        };
        x = model.block(layer, &x, pass, &mut put).hidden;
    }
    Ok(task.readout.read(model, &task.prompt.last_of(&x)))
}

/// Holds heads and MLPs, and keeps what receivers get.
struct Held {
    heads: Option<Tensor>,
    mlp: Option<Tensor>,
    asked: Vec<Receiver>,
    got: Vec<(Receiver, Tensor)>,
}

impl Held {
    fn keep(&mut self, input: Input, states: &Tensor) {
        let asked = self.asked.iter().filter(|receiver| receiver.input == input);
        let kept = asked.map(|receiver| {
            let own = states.narrow(2, receiver.head as i64, 1);
            (*receiver, own.copy())
        });
        self.got.extend(kept);
    }
}

impl Hook for Held {
    fn queries(&mut self, _layer: usize, q: Tensor) -> Tensor {
        self.keep(Input::Query, &q);
        q
    }

    fn keys(&mut self, _layer: usize, k: Tensor) -> Tensor {
        self.keep(Input::Key, &k);
        k
    }

    fn values(&mut self, _layer: usize, v: Tensor) -> Tensor {
        self.keep(Input::Value, &v);
        v
    }

    fn heads(&mut self, _layer: usize, z: Tensor) -> Tensor {
        self.heads.take().unwrap_or(z)
    }

    fn mlp(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.mlp.take().unwrap_or(out)
    }
}

/// Gives receivers what they got, at the tokens of the rows.
struct Put<'a> {
    /// Tokens of the rows, of which a block may only compute the last.
    tokens: i64,
    got: &'a [(Receiver, Tensor)],
}

impl Put<'_> {
    fn put(&self, layer: usize, input: Input, states: Tensor) -> Tensor {
        let tokens = states.size()[1];
        let from = self.tokens - tokens;
        for (receiver, got) in self.got {
            if (receiver.layer, receiver.input) == (layer, input) {
                let mut own = states.narrow(2, receiver.head as i64, 1);
                own.copy_(&got.narrow(1, from, tokens));
            }
        }
        states
    }
}

impl Hook for Put<'_> {
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
