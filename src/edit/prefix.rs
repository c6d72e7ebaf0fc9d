//! What stands before the sentence in a context is the same for every fact: it is computed once.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::rows::Row;
use super::{Error, Watch};
use crate::model::{Hook, KeyValue, Model, Pass, Plain};

/// The texts that facts are read in, and what a model makes of each up to the sentence.
#[derive(Debug)]
pub struct Contexts {
    texts: Vec<String>,
    /// Of each the tokens before the sentence; none where it begins with it.
    before: Vec<Vec<u32>>,
    /// Keys and values of these tokens in each layer that was run, filled up at their beginning: a
    /// row a text, and a last one of nothing. None where no text has such tokens.
    past: Vec<KeyValue>,
    /// 0 where a row of `past` has a token and minus infinity where it was filled up.
    padding: Tensor,
    /// Layers that were run.
    layers: usize,
}

impl Contexts {
    /// Reads texts with one `{}` for the sentence, and runs what stands before it through the first
    /// `layers` layers of the model as it is: what is read with them has to be read on the same.
    ///
    /// # Errors
    /// A text that cannot be used; [`Error::Cancelled`]; [`Error::Model`] for texts that do not fit the model.
    pub fn read(
        model: &Model,
        texts: &[String],
        layers: usize,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        let _no_grad = tch::no_grad_guard();
        let tokens = |text: &String| -> Result<Vec<u32>, Error> {
            super::check_context(text)?;
            // A blank at its end is of the sentence's first token.
            match text
                .split_once("{}")
                .map_or("", |(before, _)| before.trim_end())
            {
                "" => Ok(Vec::new()),
                before => Ok(model.tokenizer().encode(before)?.ids),
            }
        };
        let before: Vec<Vec<u32>> = texts.iter().map(tokens).collect::<Result<_, _>>()?;
        let longest = before.iter().map(Vec::len).max().unwrap_or(0);
        let options = (model.dtype(), model.device());
        let rows = before.len() as i64 + 1;
        let mut contexts = Self {
            texts: texts.to_vec(),
            past: Vec::new(),
            padding: Tensor::full([rows, longest as i64], f64::NEG_INFINITY, options),
            layers: layers.min(model.config().layers),
            before,
        };
        if longest > 0 {
            contexts.fill(model, longest, watch)?;
        }
        Ok(contexts)
    }

    fn fill(&mut self, model: &Model, longest: usize, watch: &dyn Watch) -> Result<(), Error> {
        let config = model.config();
        let shape = [
            self.padding.size()[0],
            config.kv_heads as i64,
            longest as i64,
            config.head_dim as i64,
        ];
        let nothing = || Tensor::zeros(shape, (model.dtype(), model.device()));
        let empty = (0..self.layers).map(|_| KeyValue {
            k: nothing(),
            v: nothing(),
        });
        self.past = empty.collect();
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (row, ids) in self.before.iter().enumerate() {
            by_length.entry(ids.len()).or_default().push(row);
        }
        for (tokens, rows) in by_length.into_iter().filter(|(tokens, _)| *tokens > 0) {
            let ids = rows.iter().map(|&row| model.ids(&self.before[row]));
            let ids: Vec<Tensor> = ids.collect::<Result<_, _>>()?;
            let (from, tokens) = ((longest - tokens) as i64, tokens as i64);
            let mut x = model.add_positions(&model.embed(&Tensor::cat(&ids, 0)), 0);
            // Behind places where nothing stands: all end at one place.
            let options = (model.dtype(), model.device());
            let none = (from > 0).then(|| {
                let shape = [ids.len() as i64, shape[1], from, shape[3]];
                let nothing = KeyValue {
                    k: Tensor::zeros(shape, options),
                    v: Tensor::zeros(shape, options),
                };
                let padding = Tensor::full([shape[0], from], f64::NEG_INFINITY, options);
                (nothing, padding)
            });
            for (layer, past) in self.past.iter().enumerate() {
                go_on(watch)?;
                let step = match &none {
                    None => model.block(layer, &x, Pass::default(), &mut Plain),
                    Some((nothing, padding)) => {
                        let pass = Pass {
                            past: Some(nothing),
                            queries: None,
                        };
                        model.block_padded(layer, &x, pass, padding, &mut Plain)
                    }
                };
                for (n, &row) in (0..).zip(&rows) {
                    let place = |all: &Tensor, own: &Tensor| {
                        let mut place = all.select(0, row as i64).narrow(1, from, tokens);
                        place.copy_(&own.select(0, n));
                    };
                    place(&past.k, &step.kv.k);
                    place(&past.v, &step.kv.v);
                }
                x = step.hidden;
            }
            for &row in &rows {
                let _ = (self.padding.select(0, row as i64))
                    .narrow(0, from, tokens)
                    .fill_(0.0);
            }
        }
        Ok(())
    }

    /// The texts.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Layers that what stands before the sentence was run through.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Refuses what would be read in more layers than they were.
    pub(super) fn covers(&self, layers: usize) -> Result<(), Error> {
        match self.layers >= layers {
            true => Ok(()),
            false => Err(Error::Setting {
                field: "layers of the contexts",
                value: self.layers.to_string(),
                remedy: format!("read them in {layers}"),
            }),
        }
    }

    /// Which row of `past` a row read in the `n`th text has before it, and how many tokens that is.
    /// Another one where a token spans the seam, or where the sentence's subject is not behind it.
    fn of(&self, row: &Row, n: Option<usize>) -> (usize, usize) {
        let known = n.filter(|&n| {
            let before = &self.before[n];
            !before.is_empty() && before.len() <= row.lookup && row.ids.starts_with(before)
        });
        match known {
            Some(n) => (n, self.before[n].len()),
            None => (self.before.len(), 0),
        }
    }
}

/// A row of a reading.
#[derive(Debug, Clone, Copy)]
struct Placed {
    /// Tokens before its own that the contexts hold.
    before: i64,
    /// Its own tokens.
    tokens: i64,
    /// Place of the subject's last token among them.
    lookup: i64,
    /// Positions that are read: the last so many.
    reads: i64,
}

/// Rows that go through the model layer by layer, each from what its context holds on. All are in
/// one pass, filled up at their end: a layer's weights are read once.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    model: &'a Model,
    contexts: &'a Contexts,
    rows: Vec<Placed>,
    /// Their rows in what the contexts hold.
    of: Tensor,
    /// What goes into the next layer, `[rows, tokens, width]`.
    x: Tensor,
    /// The next layer.
    layer: usize,
}

impl<'a> Reading<'a> {
    /// Of rows with the number of their context, if they have one.
    pub fn new(
        model: &'a Model,
        contexts: &'a Contexts,
        rows: &[(Row, Option<usize>)],
    ) -> Result<Self, Error> {
        let _no_grad = tch::no_grad_guard();
        let (mut placed, mut of, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for (row, context) in rows {
            let (held, before) = contexts.of(row, *context);
            let tokens = (row.ids.len() - before) as i64;
            let ids = model.ids(&row.ids)?.narrow(1, before as i64, tokens);
            own.push(model.add_positions(&model.embed(&ids), before as i64));
            of.push(held as i64);
            placed.push(Placed {
                before: before as i64,
                tokens,
                lookup: (row.lookup - before) as i64,
                reads: (row.ids.len() - row.prompt + 1) as i64,
            });
        }
        let most = placed.iter().map(|row| row.tokens).max().unwrap_or(0);
        let fill = own.iter().zip(&placed).map(|(x, row)| {
            // By a token again, which stays a number in any type; nobody sees what lies behind.
            let last = x.narrow(1, row.tokens - 1, 1);
            let more = last.expand([1, most - row.tokens, -1], false);
            Tensor::cat(&[x, &more], 1)
        });
        let filled: Vec<Tensor> = fill.collect();
        Ok(Self {
            x: Tensor::cat(&filled, 0),
            of: Tensor::from_slice(&of).to_device(model.device()),
            model,
            contexts,
            rows: placed,
            layer: 0,
        })
    }

    /// Runs the next layer.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn next(&mut self, hook: &mut dyn Hook, watch: &dyn Watch) -> Result<(), Error> {
        go_on(watch)?;
        let step = match self.held(self.layer, &self.of) {
            Some((past, padding)) => {
                let pass = Pass {
                    past: Some(&past),
                    queries: None,
                };
                (self.model).block_padded(self.layer, &self.x, pass, &padding, hook)
            }
            None => self.model.block(self.layer, &self.x, Pass::default(), hook),
        };
        self.x = step.hidden;
        self.layer += 1;
        Ok(())
    }

    /// What the contexts hold of some of their rows in a layer, and where it was filled up.
    fn held(&self, layer: usize, of: &Tensor) -> Option<(KeyValue, Tensor)> {
        let past = self.contexts.past.get(layer)?;
        let past = KeyValue {
            k: past.k.index_select(0, of),
            v: past.v.index_select(0, of),
        };
        Some((past, self.contexts.padding.index_select(0, of)))
    }

    /// Leaves the first row alone, up to the subject's last token.
    pub fn only_first(&mut self) {
        self.rows.truncate(1);
        self.of = self.of.narrow(0, 0, 1);
        let tokens = self.rows.first().map_or(0, |row| row.lookup + 1);
        self.x = self.x.narrow(0, 0, 1).narrow(1, 0, tokens);
    }

    /// Of something of each token, `[rows, tokens, ..]`, that of the subject's last one, `[rows,
    /// ..]` in float64.
    pub fn at_lookups(&self, x: &Tensor) -> Tensor {
        let each = (0..).zip(&self.rows);
        let each = each.map(|(n, row)| x.select(0, n).select(0, row.lookup));
        let each: Vec<Tensor> = each.collect();
        Tensor::stack(&each, 0).to_kind(Kind::Double)
    }

    /// What the last layer gave, `[rows, tokens, width]`.
    pub fn output(&self) -> &Tensor {
        &self.x
    }

    /// The places of the subjects' last tokens.
    pub fn lookups(&self) -> Vec<i64> {
        self.rows.iter().map(|row| row.lookup).collect()
    }
}

/// Rows of which the tokens from the subject's last one on are left to compute in the layers above
/// the one that was read last.
#[derive(Debug)]
pub(super) struct Tails {
    /// The rows in the order they lie in here: numbers among those of the reading, tokens from the
    /// subject's last one on, and positions that are read.
    pub order: Vec<(usize, i64, i64)>,
    /// What the last layer gave from the subject's last token on, `[rows, tokens, width]`, filled
    /// up at its end.
    pub hidden: Tensor,
    /// Keys and values of the tokens before, of each layer above; none where no row has any. Filled
    /// up at their beginning.
    pub past: Vec<KeyValue>,
    /// 0 where a row has such a token and minus infinity where it was filled up, `[rows, tokens]`.
    pub padding: Tensor,
}

impl Tails {
    /// Runs the tokens before the subject's last one through the layers above.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn new(reading: &Reading<'_>, watch: &dyn Watch) -> Result<Self, Error> {
        let _no_grad = tch::no_grad_guard();
        let model = reading.model;
        let placed = &reading.rows;
        let tail = |row: &Placed| row.tokens - row.lookup;
        let mut order: Vec<usize> = (0..placed.len()).collect();
        order.sort_by_key(|&n| (std::cmp::Reverse(tail(&placed[n])), placed[n].reads));
        let most = placed.iter().map(tail).max().unwrap_or(0);
        let hidden = order.iter().map(|&n| {
            let (row, own) = (&placed[n], reading.x.select(0, n as i64));
            let own = own.narrow(0, row.lookup, tail(row));
            own.constant_pad_nd([0, 0, 0, most - tail(row)])
        });
        let hidden = Tensor::stack(&hidden.collect::<Vec<_>>(), 0);
        let number = |n: &usize| *n as i64;
        let numbers: Vec<i64> = order.iter().map(number).collect();
        let numbers = Tensor::from_slice(&numbers).to_device(model.device());
        let (of, aligned) = (
            reading.of.index_select(0, &numbers),
            Aligned::new(reading, &order),
        );
        let mut x = reading
            .x
            .index_select(0, &numbers)
            .narrow(1, 0, aligned.own);
        let layers = model.config().layers;
        let mut past = Vec::new();
        for above in reading.layer..layers {
            if aligned.tokens == 0 {
                break;
            }
            go_on(watch)?;
            let held = reading.held(above, &of);
            let own = (aligned.own > 0).then(|| {
                let pass = Pass {
                    past: held.as_ref().map(|(past, _)| past),
                    // Nobody reads what the last layer gives.
                    queries: (above + 1 == layers).then_some(1),
                };
                let step = match &held {
                    Some((_, padding)) => model.block_padded(above, &x, pass, padding, &mut Plain),
                    None => model.block(above, &x, pass, &mut Plain),
                };
                x = step.hidden;
                step.kv
            });
            past.extend(match (held, own) {
                (Some((held, _)), Some(own)) => Some(aligned.place(model, above, &held.then(&own))),
                (Some((one, _)), None) | (None, Some(one)) => {
                    Some(aligned.place(model, above, &one))
                }
                (None, None) => None,
            });
        }
        let rows = order
            .iter()
            .map(|&n| (n, tail(&placed[n]), placed[n].reads));
        Ok(Self {
            order: rows.collect(),
            hidden,
            past,
            padding: aligned.padding,
        })
    }
}

/// Where the tokens before the subject's last one lie, such that all rows' end at one place: what a
/// context holds and a row's own tokens before that one, which are filled up at their end.
struct Aligned {
    /// Most own tokens.
    own: i64,
    /// Most tokens.
    tokens: i64,
    /// How many places later each row's tokens stand than they were read.
    later: Vec<i64>,
    /// Which token of a row stands at each place, `[rows, 1, tokens, 1]`.
    from: Tensor,
    padding: Tensor,
}

impl Aligned {
    fn new(reading: &Reading<'_>, order: &[usize]) -> Self {
        let rows = || order.iter().map(|&n| &reading.rows[n]);
        let held = match reading.contexts.past.is_empty() {
            true => 0,
            false => reading.contexts.padding.size()[1],
        };
        let own = rows().map(|row| row.lookup).max().unwrap_or(0);
        let tokens = match rows().any(|row| row.before + row.lookup > 0) {
            true => held + own,
            false => 0,
        };
        let (mut from, mut padding) = (Vec::new(), Vec::new());
        for row in rows() {
            for place in 0..tokens {
                let token = held + row.lookup - (tokens - place);
                let first = held - row.before;
                // What fills up is never seen; it is a token of the row, so that it is a number.
                from.push(token.max(first).min(tokens - 1));
                padding.push(if token < first {
                    f32::NEG_INFINITY
                } else {
                    0.0
                });
            }
        }
        let model = reading.model;
        let shape = [order.len() as i64, tokens];
        let from = Tensor::from_slice(&from).view([shape[0], 1, tokens, 1]);
        let padding = Tensor::from_slice(&padding).view(shape);
        Self {
            own,
            tokens,
            later: rows().map(|row| own - row.lookup).collect(),
            from: from.to_device(model.device()),
            padding: padding.to_kind(model.dtype()).to_device(model.device()),
        }
    }

    fn place(&self, model: &Model, layer: usize, all: &KeyValue) -> KeyValue {
        let place = |x: &Tensor| {
            let (rows, heads, _, size) = x.size4().unwrap_or_default();
            let from = self.from.expand([rows, heads, self.tokens, size], false);
            x.gather(2, &from, false)
        };
        let k = place(&all.k);
        let turned = (0..).zip(&self.later).map(|(n, &by)| {
            let row = k.narrow(0, n, 1);
            match by {
                0 => row,
                by => model.keys_later(layer, &row, by),
            }
        });
        KeyValue {
            k: Tensor::cat(&turned.collect::<Vec<_>>(), 0),
            v: place(&all.v),
        }
    }
}

fn go_on(watch: &dyn Watch) -> Result<(), Error> {
    match watch.cancelled() {
        true => Err(Error::Cancelled),
        false => Ok(()),
    }
}
