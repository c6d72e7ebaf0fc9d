//! What does not change while a value is sought, computed once.
//!
//! Only the MLP output, or the whole output, of one layer at the subject's last token is moved. So
//! everything up to that layer stays, and so do the tokens before that one in every layer: their
//! keys and values are kept. What is left to compute at a step is that token and those behind it in
//! the layers above, and of the last layer and the vocabulary only what is read.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::prefix::Tails;
use super::rows::Row;
use super::{Error, Watch};
use crate::model::{Hook, KeyValue, Model, Pass, Plain};

/// What is moved, at the subject's last token.
#[derive(Debug)]
enum Site {
    /// The MLP's output, which is this before, `[rows, width]`.
    Mlp(Tensor),
    /// The output of the whole block.
    Block,
}

/// Rows of one shape, stopped at the edited layer.
#[derive(Debug)]
pub(super) struct Group {
    /// Their numbers among the rows given.
    pub rows: Vec<usize>,
    /// Place of the subject's last token.
    lookup: i64,
    /// Positions that are read: the last so many.
    reads: i64,
    /// Input of the edited matrix at the subject's last token, `[rows, inner]`.
    pub key: Tensor,
    /// MLP output there, `[rows, width]`.
    pub value: Tensor,
    /// Output of the edited layer, `[rows, tokens, width]`.
    hidden: Tensor,
}

/// Runs the rows up to the edited layer.
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
        let mut x = model.add_positions(&model.embed(&Tensor::cat(&ids, 0)), 0);
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
        groups.push(Group {
            rows: numbers,
            lookup: lookup as i64,
            reads: (tokens - prompt + 1) as i64,
            key,
            value,
            hidden: x,
        });
    }
    Ok(groups)
}

/// All rows of an optimisation in one pass, whatever their lengths: the weights of a layer, which
/// are read from memory once a pass, weigh more than the products with so few tokens.
///
/// The tokens before the subject's last one are filled up at their beginning, those from it on at
/// their end.
#[derive(Debug)]
pub(super) struct Batch {
    site: Site,
    tails: Vec<Tail>,
    /// Output of the edited layer from that token on, `[rows, tokens, width]`.
    hidden: Tensor,
    /// Keys and values of the tokens before it in each layer above; none when no row has any.
    past: Vec<KeyValue>,
    /// Where a row has no such token, `[rows, tokens]`.
    padding: Tensor,
}

/// Rows that lie together, of which the same tokens are read.
#[derive(Debug)]
struct Tail {
    /// Their numbers among the rows given.
    numbers: Vec<usize>,
    /// Tokens from the subject's last one on.
    tokens: i64,
    /// The last so many of them are read.
    reads: i64,
}

impl Batch {
    /// Runs the tokens before the subject's last through the layers above the edited one.
    pub fn new(
        model: &Model,
        layer: usize,
        mut groups: Vec<Group>,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        let _no_grad = tch::no_grad_guard();
        let config = model.config();
        let tokens = |group: &Group| group.hidden.size()[1] - group.lookup;
        groups.sort_by_key(|group| (std::cmp::Reverse(tokens(group)), group.reads));
        let longest = groups.iter().map(|group| group.lookup).max().unwrap_or(0);
        let most = groups.iter().map(tokens).max().unwrap_or(0);
        let options = (model.dtype(), model.device());
        let mut tails: Vec<Tail> = Vec::new();
        let (mut values, mut hidden, mut padding) = (Vec::new(), Vec::new(), Vec::new());
        let mut past: Vec<Vec<KeyValue>> = Vec::new();
        for group in &groups {
            let (rows, lookup, own) = (group.rows.len() as i64, group.lookup, tokens(group));
            match tails.last_mut() {
                Some(tail) if (tail.tokens, tail.reads) == (own, group.reads) => {
                    tail.numbers.extend(&group.rows);
                }
                _ => tails.push(Tail {
                    numbers: group.rows.clone(),
                    tokens: own,
                    reads: group.reads,
                }),
            }
            values.push(group.value.shallow_clone());
            let from = group.hidden.narrow(1, lookup, own);
            hidden.push(from.constant_pad_nd([0, 0, 0, most - own]));
            let missing = longest - lookup;
            let none = Tensor::full([rows, missing], f64::NEG_INFINITY, options);
            padding.push(none.constant_pad_nd([0, lookup]));
            // Nothing, at the places before its first token: what follows stands where the others'
            // does.
            let shape = [
                rows,
                config.kv_heads as i64,
                missing,
                config.head_dim as i64,
            ];
            let nothing = KeyValue {
                k: Tensor::zeros(shape, options),
                v: Tensor::zeros(shape, options),
            };
            let mut before = group.hidden.narrow(1, 0, lookup);
            let mut layers = Vec::new();
            for above in layer + 1..config.layers {
                if longest == 0 {
                    break;
                }
                go_on(watch)?;
                let own = match (missing, lookup) {
                    (_, 0) => nothing.shallow_clone(),
                    (0, _) => {
                        let step = model.block(above, &before, Pass::default(), &mut Plain);
                        before = step.hidden;
                        step.kv
                    }
                    _ => {
                        let pass = Pass {
                            past: Some(&nothing),
                            queries: None,
                        };
                        let step = model.block_padded(above, &before, pass, &none, &mut Plain);
                        before = step.hidden;
                        nothing.then(&step.kv)
                    }
                };
                layers.push(own);
            }
            past.push(layers);
        }
        let of_layer = |above: usize| {
            let k: Vec<&Tensor> = past.iter().map(|layers| &layers[above].k).collect();
            let v: Vec<&Tensor> = past.iter().map(|layers| &layers[above].v).collect();
            KeyValue {
                k: Tensor::cat(&k, 0),
                v: Tensor::cat(&v, 0),
            }
        };
        let layers = past.first().map_or(0, Vec::len);
        Ok(Self {
            site: Site::Mlp(Tensor::cat(&values, 0)),
            tails,
            hidden: Tensor::cat(&hidden, 0),
            past: (0..layers).map(of_layer).collect(),
            padding: Tensor::cat(&padding, 0),
        })
    }

    /// Of rows whose block is moved.
    pub fn of_blocks(rows: Tails) -> Self {
        let mut tails: Vec<Tail> = Vec::new();
        for (number, tokens, reads) in rows.order {
            match tails.last_mut() {
                Some(tail) if (tail.tokens, tail.reads) == (tokens, reads) => {
                    tail.numbers.push(number);
                }
                _ => tails.push(Tail {
                    numbers: vec![number],
                    tokens,
                    reads,
                }),
            }
        }
        Self {
            site: Site::Block,
            tails,
            hidden: rows.hidden,
            past: rows.past,
            padding: rows.padding,
        }
    }

    /// Tokens of the rows from the subject's last on.
    pub fn tokens(&self) -> usize {
        let tails = self.tails.iter();
        tails
            .map(|tail| tail.numbers.len() * tail.tokens as usize)
            .sum()
    }

    /// The number of the row of each position that is read, as [`Batch::log_probabilities`] gives
    /// them: all of a row one after the other.
    pub fn reads(&self) -> Vec<usize> {
        let of_tail = |tail: &Tail| {
            let reads = tail.reads as usize;
            let numbers = tail.numbers.clone().into_iter();
            numbers.flat_map(move |number| std::iter::repeat_n(number, reads))
        };
        self.tails.iter().flat_map(of_tail).collect()
    }

    /// Log-probabilities at the positions that are read, `[reads, vocab]`, with `delta`, `[width]`
    /// in float32, added to what is moved at the subject's last token.
    pub fn log_probabilities(&self, model: &Model, layer: usize, delta: &Tensor) -> Tensor {
        let layers = model.config().layers;
        let tokens = self.hidden.size()[1];
        let first = self.hidden.narrow(1, 0, 1);
        let first = match &self.site {
            Site::Mlp(value) => {
                let moved = (value.to_kind(Kind::Float) + delta).to_kind(model.dtype());
                let moved =
                    model.mlp_contribution(layer, &moved) - model.mlp_contribution(layer, value);
                first + moved.unsqueeze(1)
            }
            Site::Block => (first.to_kind(Kind::Float) + delta).to_kind(model.dtype()),
        };
        let rest = self.hidden.narrow(1, 1, tokens - 1);
        let mut x = Tensor::cat(&[first, rest], 1);
        for above in layer + 1..layers.saturating_sub(1) {
            x = self.block(model, above, layer, &x, 0, None);
        }
        let (mut read, mut row) = (Vec::new(), 0);
        for tail in &self.tails {
            let rows = tail.numbers.len() as i64;
            let mut own = x.narrow(0, row, rows).narrow(1, 0, tail.tokens);
            if layer + 1 < layers {
                // Nobody reads the other tokens' last state.
                own = self.block(model, layers - 1, layer, &own, row, Some(tail.reads));
            }
            let last = own.size()[1];
            let own = own.narrow(1, last - tail.reads, tail.reads);
            read.push(own.reshape([rows * tail.reads, -1]));
            row += rows;
        }
        let read = Tensor::cat(&read, 0);
        model.logits(&read).log_softmax(-1, Kind::Float)
    }

    /// A layer above the edited one, on the rows from `row` on.
    fn block(
        &self,
        model: &Model,
        above: usize,
        layer: usize,
        x: &Tensor,
        row: i64,
        queries: Option<i64>,
    ) -> Tensor {
        let rows = x.size()[0];
        let Some(past) = self.past.get(above - layer - 1) else {
            let pass = Pass {
                past: None,
                queries,
            };
            return model.block(above, x, pass, &mut Plain).hidden;
        };
        let past = KeyValue {
            k: past.k.narrow(0, row, rows),
            v: past.v.narrow(0, row, rows),
        };
        let pass = Pass {
            past: Some(&past),
            queries,
        };
        let padding = self.padding.narrow(0, row, rows);
        model
            .block_padded(above, x, pass, &padding, &mut Plain)
            .hidden
    }
}

/// The rows' keys in the order they were given, `[rows, inner]` in float64.
pub(super) fn keys(groups: &[Group]) -> Tensor {
    in_order(groups, |group| group.key.shallow_clone())
}

/// The rows' values in the order they were given, `[rows, width]` in float64.
pub(super) fn values(groups: &[Group]) -> Tensor {
    in_order(groups, |group| group.value.shallow_clone())
}

fn in_order(groups: &[Group], part: impl Fn(&Group) -> Tensor) -> Tensor {
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

impl Hook for Found {
    fn sees(&self, layer: usize) -> bool {
        layer == self.layer
    }

    fn key(&mut self, layer: usize, key: Tensor) -> Tensor {
        if layer == self.layer {
            self.key = Some(key.select(1, self.lookup).copy());
        }
        key
    }

    fn mlp(&mut self, layer: usize, out: Tensor) -> Tensor {
        if layer == self.layer {
            self.value = Some(out.select(1, self.lookup).copy());
        }
        out
    }
}
