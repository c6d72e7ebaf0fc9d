//! The target of a mass edit: what the last edited layer is to give at the subject's last token.
//!
//! One for all facts whose text is the same up to the subject's end: such facts have one key, and
//! two targets on one key would each be met by half.

use tch::{Kind, Tensor};

use super::prefix::{Reading, Tails};
use super::rows::{self, Row};
use super::stage::Batch;
use super::value::Optimiser;
use super::{Contexts, Error, Hyperparameters, Request, Step, Watch};
use crate::model::{Model, Plain};

/// A target and how it came about.
#[derive(Debug)]
pub struct Target {
    /// `z`, the output of the last edited block: `[width]` in float64.
    pub value: Tensor,
    /// Length of what was added, in lengths of what the block gave before.
    pub length: f64,
    /// Whether the key is read at the text's first token, which sees nothing but itself.
    pub at_first_token: bool,
    /// The optimisation.
    pub steps: Vec<Step>,
}

/// Seeks the target of facts that have one key. The model is not changed.
///
/// Each fact is read in every one of `contexts`, which were read on the same model and in all its
/// layers; the loss is the mean over the facts. `hyper.layer` is the last edited layer. The same
/// facts have the same target to the bit, whatever else is computed beside them.
///
/// # Errors
/// A request, a context or a number that cannot be used; [`Error::Cancelled`]; [`Error::Diverged`];
/// [`Error::Model`] for texts that do not fit the model.
pub fn target(
    model: &Model,
    requests: &[Request],
    contexts: &Contexts,
    hyper: &Hyperparameters,
    watch: &dyn Watch,
) -> Result<Target, Error> {
    hyper.check(model.config().layers)?;
    model.config().has_key(hyper.layer)?;
    let none = |field, remedy| Err(Error::Empty { field, remedy });
    let Some(first) = requests.first() else {
        return none("list of facts", "give at least one");
    };
    if contexts.texts().is_empty() {
        let remedy = "give at least one; `{}` alone is the bare sentence";
        return none("list of contexts", remedy);
    }
    contexts.covers(model.config().layers)?;
    let tokenizer = model.tokenizer();
    let (mut all, mut targets) = (Vec::new(), Vec::new());
    for request in requests {
        request.check()?;
        for (n, context) in contexts.texts().iter().enumerate() {
            let (row, target) = rows::rewriting(tokenizer, request, context)?;
            all.push((row, Some(n)));
            targets.push(target);
        }
    }
    let mut subjects: Vec<&str> = Vec::new();
    for request in requests {
        if !subjects.contains(&request.subject.as_str()) {
            subjects.push(&request.subject);
            all.push((rows::essence(tokenizer, &request.subject)?, None));
        }
    }
    let bare = rows::reading(tokenizer, &first.prompt, &first.subject, "{}")?;
    let at_first_token = bare.lookup == 0;
    let up_to_layer = |rows: &[(Row, Option<usize>)]| {
        let mut reading = Reading::new(model, contexts, rows)?;
        for _ in 0..=hyper.layer {
            reading.next(&mut Plain, watch)?;
        }
        Ok::<_, Error>(reading)
    };
    let reading = up_to_layer(&all)?;
    let is_bare = |(row, context): &(Row, Option<usize>)| {
        context.is_some() && row.ids.starts_with(&bare.ids) && row.lookup == bare.lookup
    };
    let clean = match all.iter().position(is_bare) {
        Some(at) => reading.at_lookups(reading.output()).select(0, at as i64),
        None => {
            let alone = up_to_layer(&[(bare, None)])?;
            alone.at_lookups(alone.output()).select(0, 0)
        }
    };
    let batch = Batch::of_blocks(Tails::new(&reading, watch)?);
    drop(reading);
    let (delta, steps) = Optimiser::new(model, hyper, batch, &targets, &clean).run(watch)?;

    let _no_grad = tch::no_grad_guard();
    let added = delta.to_kind(Kind::Double);
    Ok(Target {
        length: added.norm().double_value(&[]) / clean.norm().double_value(&[]),
        value: clean + added,
        at_first_token,
        steps,
    })
}
