//! What an edit did, by running the model before and after it.

use tch::{Kind, Tensor};

use super::Error;
use crate::model::{Continuation, Model, last_log_probabilities, score};

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

/// Measures probes on a model as it is.
///
/// # Errors
/// [`Error::Model`] for texts that do not fit the model.
pub fn probe(model: &Model, probes: &[Probe]) -> Result<Vec<Effect>, Error> {
    let tokenizer = model.tokenizer();
    let mut asked: Vec<Continuation> = Vec::new();
    for probe in probes {
        asked.push(tokenizer.continuation(&probe.prompt, &probe.target_new)?);
        if let Some(old) = &probe.target_true {
            asked.push(tokenizer.continuation(&probe.prompt, old)?);
        }
    }
    let mut scores = score(model, &asked)?
        .into_iter()
        .map(|score| (-score.nll()).exp());
    let mut next = || scores.next().unwrap_or(f64::NAN);
    Ok(probes
        .iter()
        .map(|probe| Effect {
            new: next(),
            old: probe.target_true.as_ref().map(|_| next()),
        })
        .collect())
}

/// What a model says next: log-probabilities after texts, to be compared with another version's.
#[derive(Debug)]
pub struct NextTokens(Vec<Tensor>);

impl NextTokens {
    /// After each text, at its last token or, with `everywhere`, at all of them.
    ///
    /// # Errors
    /// [`Error::Model`] for texts that do not fit the model.
    pub fn of(model: &Model, texts: &[String], everywhere: bool) -> Result<Self, Error> {
        let _no_grad = tch::no_grad_guard();
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
            let queries = if everywhere { ids.len() as i64 } else { 1 };
            all.push(last_log_probabilities(model, &model.ids(&ids)?, queries)?);
        }
        Ok(Self(all))
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
