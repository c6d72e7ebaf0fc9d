//! Continuing several texts at once, each by its likeliest tokens.

use tch::Tensor;

use super::Error;
use super::decoder::Model;
use super::hook::{Pass, Plain};
use super::key_value::KeyValue;
use super::together::{PASS_TOKENS, filled};

/// Continues every prompt by the tokens that are the likeliest, `most` at most, and gives what was
/// added to each, without an end-of-text token. A step runs one token of every text, so that the
/// weights are read once for all. `go_on` is asked at every step; `None` when it says no.
///
/// Rounding differs with what is run together: where two tokens are equally likely to the last bits,
/// [`super::generate`] may take the other one.
///
/// # Errors
/// [`Error::Argument`] for an empty prompt; [`Error::Context`] for one that leaves no room;
/// [`Error::TokenId`]; [`Error::Overflow`] where logits are no numbers.
pub fn continue_greedily(
    model: &Model,
    prompts: &[Vec<u32>],
    most: usize,
    mut go_on: impl FnMut() -> bool,
) -> Result<Option<Vec<Vec<u32>>>, Error> {
    if prompts.iter().any(Vec::is_empty) {
        return Err(Error::Argument {
            argument: "prompt",
            found: "empty".into(),
            remedy: "give at least one token".into(),
        });
    }
    let _no_grad = tch::no_grad_guard();
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(prompts[n].len()));
    let mut added = vec![Vec::new(); prompts.len()];
    for part in parts(&order, prompts, most) {
        let mut run = Run::begin(model, part, prompts)?;
        for step in 0..most {
            if !go_on() {
                return Ok(None);
            }
            if !run.take(&mut added)? || step + 1 == most {
                break;
            }
            run.step()?;
        }
    }
    Ok(Some(added))
}

/// Prompts, the longest first, in parts of which each is one pass, filled up to its longest. What is
/// added counts too: keys and values of all of it are held until the last token.
fn parts<'a>(order: &'a [usize], prompts: &[Vec<u32>], most: usize) -> Vec<&'a [usize]> {
    let (mut parts, mut rest) = (Vec::new(), order);
    while let Some(&longest) = rest.first() {
        let fit = (PASS_TOKENS / (prompts[longest].len() + most)).clamp(1, rest.len());
        let (part, others) = rest.split_at(fit);
        parts.push(part);
        rest = others;
    }
    parts
}

/// Texts that are continued together. All of them end at one place: the shorter are filled up at
/// their beginning, which no token of theirs sees.
struct Run<'a> {
    model: &'a Model,
    /// Which text a row is.
    of: &'a [usize],
    /// The tokens of each, those that were added too.
    lengths: Vec<usize>,
    /// Whether a row still goes on.
    open: Vec<bool>,
    past: Vec<KeyValue>,
    /// 0 where a row has a token, minus infinity where it was filled up: `[rows, tokens of the
    /// past]`.
    padding: Tensor,
    /// `[rows, vocab]` behind the last token of each.
    logits: Tensor,
    /// The tokens that were taken last.
    last: Vec<u32>,
}

impl<'a> Run<'a> {
    fn begin(model: &'a Model, of: &'a [usize], prompts: &[Vec<u32>]) -> Result<Self, Error> {
        let lengths: Vec<usize> = of.iter().map(|&n| prompts[n].len()).collect();
        let longest = lengths.first().copied().unwrap_or_default() as i64;
        let mut x = filled(model, of.iter().map(|&n| prompts[n].as_slice()))?;
        let mut past = Vec::new();
        for layer in 0..model.config().layers {
            let step = model.block(layer, &x, Pass::default(), &mut Plain);
            x = step.hidden;
            // What fills a text up stands behind it, and is to stand before it.
            let (mut k, mut v) = (Vec::new(), Vec::new());
            for (row, &length) in (0..).zip(&lengths) {
                let by = longest - length as i64;
                let moved = |x: &Tensor| x.narrow(0, row, 1).roll([by], [2]);
                k.push(match by {
                    0 => moved(&step.kv.k),
                    by => model.keys_later(layer, &moved(&step.kv.k), by),
                });
                v.push(moved(&step.kv.v));
            }
            past.push(KeyValue {
                k: Tensor::cat(&k, 0),
                v: Tensor::cat(&v, 0),
            });
        }
        let mut padding = Vec::new();
        for &length in &lengths {
            let filled = longest as usize - length;
            padding.extend((0..longest as usize).map(|place| match place < filled {
                true => f32::NEG_INFINITY,
                false => 0.0,
            }));
        }
        let padding = Tensor::from_slice(&padding).view([lengths.len() as i64, longest]);
        let ends = (0..).zip(&lengths);
        let ends: Vec<Tensor> = ends
            .map(|(row, &length)| x.select(0, row).narrow(0, length as i64 - 1, 1))
            .collect();
        Ok(Self {
            model,
            of,
            open: vec![true; lengths.len()],
            last: vec![0; lengths.len()],
            past,
            padding: padding.to_kind(model.dtype()).to_device(model.device()),
            logits: model.logits(&Tensor::cat(&ends, 0)),
            lengths,
        })
    }

    /// Takes the likeliest token of every text that goes on; whether any does.
    fn take(&mut self, added: &mut [Vec<u32>]) -> Result<bool, Error> {
        let longest = self.lengths.iter().copied().max().unwrap_or_default();
        self.model.check_finite(&self.logits, longest)?;
        let likeliest: Vec<i64> = Vec::try_from(&self.logits.argmax(-1, false))?;
        let context = self.model.config().context;
        for (row, id) in likeliest.into_iter().enumerate() {
            let id = id as u32;
            self.last[row] = id;
            if self.model.tokenizer().eos().contains(&id) {
                self.open[row] = false;
            }
            if self.open[row] {
                added[self.of[row]].push(id);
                self.lengths[row] += 1;
                // A token at the context's last place is the last one.
                self.open[row] = self.lengths[row] <= context;
            }
        }
        Ok(self.open.contains(&true))
    }

    /// Runs the tokens that were taken.
    fn step(&mut self) -> Result<(), Error> {
        let model = self.model;
        let context = model.config().context;
        let embedded = self.last.iter().zip(&self.lengths).map(|(&id, &length)| {
            let id = model.ids(&[id])?;
            // A text that has ended may be longer than any position; nobody reads its row.
            let place = length.min(context).saturating_sub(1) as i64;
            Ok(model.add_positions(&model.embed(&id), place))
        });
        let embedded: Vec<Tensor> = embedded.collect::<Result<_, Error>>()?;
        let mut x = Tensor::cat(&embedded, 0);
        for (layer, past) in self.past.iter_mut().enumerate() {
            let pass = Pass {
                past: Some(past),
                queries: None,
            };
            let step = model.block_padded(layer, &x, pass, &self.padding, &mut Plain);
            x = step.hidden;
            *past = past.then(&step.kv);
        }
        let seen = self.padding.narrow(1, 0, 1).zeros_like();
        self.padding = Tensor::cat(&[&self.padding, &seen], 1);
        self.logits = model.logits(&x.squeeze_dim(1));
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_has_no_more_tokens_than_it_may_but_for_one_long_text() {
        let parted = |lengths: &[usize]| -> Vec<usize> {
            let prompts: Vec<Vec<u32>> = lengths.iter().map(|&n| vec![0; n]).collect();
            let order: Vec<usize> = (0..prompts.len()).collect();
            let parts = parts(&order, &prompts, 20);
            parts.into_iter().map(<[usize]>::len).collect()
        };
        assert!(parted(&[]).is_empty());
        assert_eq!(parted(&[9, 8, 1]), [3]);
        assert_eq!(parted(&[1000, 999, 5, 4]), [2, 2]);
        assert_eq!(parted(&[PASS_TOKENS + 1, 5]), [1, 1]);
        assert_eq!(parted(&[1; 2 * PASS_TOKENS])[0], PASS_TOKENS / 21);
    }
}
