//! The target of a mass edit: what the last edited layer is to give at the subject's last token.
//!
//! One for all facts whose text is the same up to the subject's end: such facts have one key, and
//! two targets on one key would each be met by half.

use tch::{Kind, Tensor};

use super::stage::{self, Batch, Site, stage};
use super::value::Optimiser;
use super::{Error, Hyperparameters, Request, Step, Watch, rows};
use crate::model::Model;

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
/// Each fact is read in every one of `contexts`, texts with one `{}` for the sentence; the loss is
/// the mean over the facts. `hyper.layer` is the last edited layer.
///
/// # Errors
/// A request, a context or a number that cannot be used; [`Error::Cancelled`]; [`Error::Diverged`];
/// [`Error::Model`] for texts that do not fit the model.
pub fn target(
    model: &Model,
    requests: &[Request],
    contexts: &[String],
    hyper: &Hyperparameters,
    watch: &dyn Watch,
) -> Result<Target, Error> {
    hyper.check(model.config().layers)?;
    let none = |field, remedy| Err(Error::Empty { field, remedy });
    let Some(first) = requests.first() else {
        return none("list of facts", "give at least one");
    };
    if contexts.is_empty() {
        let remedy = "give at least one; `{}` alone is the bare sentence";
        return none("list of contexts", remedy);
    }
    let tokenizer = model.tokenizer();
    let (mut all, mut targets) = (Vec::new(), Vec::new());
    for request in requests {
        request.check()?;
        for context in contexts {
            super::check_context(context)?;
            let (row, target) = rows::rewriting(tokenizer, request, context)?;
            all.push(row);
            targets.push(target);
        }
    }
    let mut subjects: Vec<&str> = Vec::new();
    for request in requests {
        if !subjects.contains(&request.subject.as_str()) {
            subjects.push(&request.subject);
            all.push(rows::essence(tokenizer, &request.subject)?);
        }
    }
    let bare = rows::reading(tokenizer, &first.prompt, &first.subject, "{}")?;
    let at_first_token = bare.lookup == 0;
    let layer = hyper.layer;
    let groups = stage(model, layer, &all, watch)?;
    let bare = stage(model, layer, std::slice::from_ref(&bare), watch)?;
    let clean = stage::outputs(&bare).select(0, 0);
    let batch = Batch::new(model, layer, Site::Block, groups, watch)?;
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
