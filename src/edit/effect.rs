//! What an edit did, by running the model before and after it.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::Error;
use crate::model::{Continuation, Model, Text, next_tokens, score_seen};

/// A sentence and the answers whose probability is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probe {
    /// The sentence up to its answer.
    pub prompt: String,
    /// The new object.
    pub target_new: String,
    /// The object before.
    pub target_true: Option<String>,
}

/// Probabilities a token, `exp(-NLL)`, of the answers after a sentence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// Of the new object.
    pub new: f64,
    /// Of the object before, where it is known.
    pub old: Option<f64>,
}

/// Measures probes on a model as it is: their effects, and what the model says next after those
/// that `followed` names by their number, in their order.
///
/// # Errors
/// [`Error::Model`] for texts that do not fit the model.
pub fn probe(
    model: &Model,
    probes: &[Probe],
    followed: impl Fn(usize) -> bool,
) -> Result<(Vec<Effect>, NextTokens), Error> {
    let tokenizer = model.tokenizer();
    let mut asked: Vec<Continuation> = Vec::new();
    // The probe whose next token is read with a continuation, the one of its new object.
    let mut next_of = BTreeMap::new();
    for (n, probe) in probes.iter().enumerate() {
        if followed(n) {
            next_of.insert(asked.len(), n);
        }
        asked.push(tokenizer.continuation(&probe.prompt, &probe.target_new)?);
        if let Some(old) = &probe.target_true {
            asked.push(tokenizer.continuation(&probe.prompt, old)?);
        }
    }
    let mut next = BTreeMap::new();
    let scores = score_seen(model, &asked, |index, log| {
        if let Some(&n) = next_of.get(&index) {
            next.insert(n, log.narrow(0, 0, 1).copy());
        }
    })?;
    let mut scores = scores.into_iter().map(|score| (-score.nll()).exp());
    let mut score = || scores.next().unwrap_or(f64::NAN);
    let effects = probes.iter().map(|probe| Effect {
        new: score(),
        old: probe.target_true.as_ref().map(|_| score()),
    });
    Ok((effects.collect(), NextTokens(next.into_values().collect())))
}

/// What a model says next: log-probabilities after texts, `[positions, vocab]` each, to be compared
/// with another version's.
#[derive(Debug)]
pub struct NextTokens(Vec<Tensor>);

impl NextTokens {
    /// After every token of each text.
    ///
    /// # Errors
    /// [`Error::Model`] for texts that do not fit the model.
    pub fn of(model: &Model, texts: &[String]) -> Result<Self, Error> {
        let mut all = Vec::with_capacity(texts.len());
        for text in texts {
            let ids = model.tokenizer().encode(text)?.ids;
            if ids.is_empty() {
                let remedy = "give at least one word";
                return Err(Error::Empty {
                    field: "text",
                    remedy,
                });
            }
            let reads = ids.len();
            all.push(Text { ids, reads });
        }
        let mut next = BTreeMap::new();
        next_tokens(model, &all, |n, log| {
            next.insert(n, log.copy());
            Ok(())
        })?;
        Ok(Self(next.into_values().collect()))
    }

    /// `KL(self || other)` of each text in nats, mean over its positions.
    pub fn drift(&self, other: &NextTokens) -> Vec<f64> {
        let _no_grad = tch::no_grad_guard();
        let pairs = self.0.iter().zip(&other.0);
        pairs
            .map(|(before, after)| {
                let divergence = before.exp() * (before - after);
                let last = [-1i64];
                let each = divergence.sum_dim_intlist(last.as_slice(), false, Kind::Double);
                let mean = each.mean(Kind::Double).double_value(&[]);
                // Rounding may leave it below 0; what is not a number stays none.
                if mean < 0.0 { 0.0 } else { mean }
            })
            .collect()
    }
}
