//! What does not change while a value is sought, computed once.
//!
//! Only the MLP output at the subject's last token of one layer is moved. So everything up to that layer stays, and so
//! do the tokens before that one in every layer: their keys and values are kept. What is left to compute at a step is
//! that token and those behind it in the layers above, and of the last layer and the vocabulary only what is read.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::rows::Row;
use super::{Error, Watch};
use crate::model::{KeyValue, Model, Pass, Plain, Tap};

/// Rows of one shape, stopped at the edited layer.
#[derive(Debug)]
pub(super) struct Group {
    /// Their numbers among the rows given.
    pub rows: Vec<usize>,
    /// Positions that are read: the last so many.
    pub reads: i64,
    /// Input of the edited matrix at the subject's last token, `[rows, inner]`.
    pub key: Tensor,
    /// MLP output there, `[rows, width]`.
    pub value: Tensor,
    /// Output of the edited layer from that token on, `[rows, tokens, width]`.
    hidden: Tensor,
    /// Keys and values of the tokens before it in each layer above.
    past: Vec<KeyValue>,
}

/// Runs the rows up to the edited layer, and the tokens before the subject's last through all the others.
pub(super) fn stage(
    model: &Model,
    layer: usize,
    rows: &[Row],
    watch: &dyn Watch,
) -> Result<Vec<Group>, Error> {
    let mut shapes: BTreeMap<(usize, usize, usize), Vec<usize>> = BTreeMap::new();
    for (number, row) in rows.iter().enumerate() {
        let shape = (row.lookup, row.prompt, row.ids.len());
        shapes.entry(shape).or_default().push(number);
    }
    let _no_grad = tch::no_grad_guard();
    let mut groups = Vec::with_capacity(shapes.len());
    for ((lookup, prompt, tokens), numbers) in shapes {
        let ids = numbers.iter().map(|&n| model.ids(&rows[n].ids));
        let ids: Vec<Tensor> = ids.collect::<Result<_, _>>()?;
        let mut x = model.enter(&model.embed(&Tensor::cat(&ids, 0)), 0);
        let mut found = Found {
            layer,
            lookup: lookup as i64,
            key: None,
            value: None,
        };
        for below in 0..=layer {
            go_on(watch)?;
            x = model.block(below, &x, Pass::default(), &mut found).hidden;
        }
        let (Some(key), Some(value)) = (found.key, found.value) else {
            return Err(Error::NoDirection); // a block without an MLP: no family has one
        };
        let hidden = x.narrow(1, lookup as i64, (tokens - lookup) as i64);
        let mut past = Vec::new();
        let mut before = x.narrow(1, 0, lookup as i64);
        if lookup > 0 {
            for above in layer + 1..model.config().layers {
                go_on(watch)?;
                let step = model.block(above, &before, Pass::default(), &mut Plain);
                before = step.hidden;
                past.push(step.kv);
            }
        }
        groups.push(Group {
            rows: numbers,
            reads: (tokens - prompt + 1) as i64,
            key,
            value,
            hidden: hidden.contiguous(),
            past,
        });
    }
    Ok(groups)
}

impl Group {
    /// Log-probabilities at the positions that are read, `[rows, reads, vocab]`, with `delta`, `[width]` in float32, added
    /// to the MLP output at the subject's last token.
    pub fn log_probabilities(&self, model: &Model, layer: usize, delta: &Tensor) -> Tensor {
        let layers = model.config().layers;
        let tokens = self.hidden.size()[1];
        let moved = (&self.value.to_kind(Kind::Float) + delta).to_kind(model.dtype());
        let moved =
            model.mlp_contribution(layer, &moved) - model.mlp_contribution(layer, &self.value);
        let first = self.hidden.narrow(1, 0, 1) + moved.unsqueeze(1);
        let rest = self.hidden.narrow(1, 1, tokens - 1);
        let mut x = Tensor::cat(&[first, rest], 1);
        for above in layer + 1..layers {
            let pass = Pass {
                past: self.past.get(above - layer - 1),
                // Nobody reads the other tokens' last state.
                queries: (above + 1 == layers).then_some(self.reads),
            };
            x = model.block(above, &x, pass, &mut Plain).hidden;
        }
        let read = x.size()[1];
        let x = x.narrow(1, read - self.reads, self.reads);
        model.logits(&x).log_softmax(-1, Kind::Float)
    }
}

/// The rows' keys in the order they were given, `[rows, inner]` in float64.
pub(super) fn keys(groups: &[Group]) -> Tensor {
    in_order(groups, |group| &group.key)
}

/// The rows' values in the order they were given, `[rows, width]` in float64.
pub(super) fn values(groups: &[Group]) -> Tensor {
    in_order(groups, |group| &group.value)
}

fn in_order(groups: &[Group], part: impl Fn(&Group) -> &Tensor) -> Tensor {
    let mut rows: Vec<(usize, Tensor)> = groups
        .iter()
        .flat_map(|group| {
            let part = part(group).to_kind(Kind::Double);
            let row = move |n: usize| part.select(0, n as i64);
            group
                .rows
                .iter()
                .enumerate()
                .map(move |(n, &number)| (number, row(n)))
        })
        .collect();
    rows.sort_by_key(|(number, _)| *number);
    let rows: Vec<Tensor> = rows.into_iter().map(|(_, row)| row).collect();
    Tensor::stack(&rows, 0)
}

fn go_on(watch: &dyn Watch) -> Result<(), Error> {
    match watch.cancelled() {
        true => Err(Error::Cancelled),
        false => Ok(()),
    }
}

/// Takes what the edited layer's MLP reads and gives at one token.
struct Found {
    layer: usize,
    lookup: i64,
    key: Option<Tensor>,
    value: Option<Tensor>,
}

impl Tap for Found {
    fn key(&mut self, layer: usize, key: &Tensor) {
        if layer == self.layer {
            self.key = Some(key.select(1, self.lookup).copy());
        }
    }

    fn mlp(&mut self, layer: usize, out: Tensor) -> Tensor {
        if layer == self.layer {
            self.value = Some(out.select(1, self.lookup).copy());
        }
        out
    }
}
