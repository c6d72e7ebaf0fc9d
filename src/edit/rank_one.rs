//! ROME and r-ROME: a fact as one rank-one change.

use tch::{Device, Kind, Tensor};

use super::value::{Optimiser, staged};
use super::{Error, Hyperparameters, KeyCovariance, Method, Request, Step, Update, Watch, rows};
use crate::model::Model;

/// A rank-one edit and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct RankOne {
    /// The change.
    pub update: Update,
    /// `k*`, the subject's key, mean over the contexts: `[inner]`.
    pub key: Vec<f64>,
    /// `u = C^-1 k*`, of length 1: `[inner]`.
    pub direction: Vec<f64>,
    /// `v*`, the MLP output that makes the model say the new object: `[width]`.
    pub value: Vec<f64>,
    /// The optimisation of the value.
    pub steps: Vec<Step>,
}

/// Computes a rank-one edit. The model is not changed.
///
/// `contexts` are texts with one `{}` for the sentence; `covariance` is of the edited layer's key
/// statistics.
///
/// # Errors
/// A request, a context or a number that cannot be used; [`Error::StatisticsSize`];
/// [`Error::Cancelled`];
/// [`Error::Diverged`]; [`Error::NoDirection`]; [`Error::Model`] for texts that do not fit the model.
pub fn rank_one(
    model: &Model,
    request: &Request,
    contexts: &[String],
    method: Method,
    hyper: &Hyperparameters,
    covariance: &KeyCovariance,
    watch: &dyn Watch,
) -> Result<RankOne, Error> {
    hyper.check(model.config().layers)?;
    model.config().has_key(hyper.layer)?;
    let channels = model.config().inner;
    if covariance.size() != channels {
        return Err(Error::StatisticsSize {
            found: covariance.size(),
            expected: channels,
        });
    }
    let staged = prepare(model, request, contexts, hyper, watch)?;
    let mean = [0i64];
    let key = tch::no_grad(|| staged.keys.mean_dim(mean.as_slice(), false, Kind::Double));
    let direction = covariance.direction(&key);
    let clean = staged.bare_value.shallow_clone();
    let bare_key = staged.bare_key.shallow_clone();
    let optimiser = Optimiser::new(model, hyper, staged.batch, &staged.targets, &clean);
    let (delta, steps) = optimiser.run(watch)?;

    let _no_grad = tch::no_grad_guard();
    let value = clean + delta.to_kind(Kind::Double);
    let scaled_by = match method {
        Method::Rome => bare_key,
        _ => key.shallow_clone(),
    };
    let now = model
        .mlp_output(hyper.layer, &scaled_by)?
        .to_kind(Kind::Double);
    let along = scaled_by.dot(&direction).double_value(&[]);
    if !along.is_normal() {
        return Err(Error::NoDirection);
    }
    let left = (&value - now) / along;
    for (name, numbers) in [("the edit's column", &left), ("the edit's row", &direction)] {
        if numbers.isfinite().all().int64_value(&[]) == 0 {
            return Err(Error::NotFinite {
                name: name.to_owned(),
                value: numbers.sum(Kind::Double).double_value(&[]),
            });
        }
    }
    let single = |x: &Tensor| -> Result<Vec<f32>, Error> {
        Ok(Vec::try_from(
            &x.to_kind(Kind::Float).to_device(Device::Cpu),
        )?)
    };
    let double =
        |x: &Tensor| -> Result<Vec<f64>, Error> { Ok(Vec::try_from(&x.to_device(Device::Cpu))?) };
    Ok(RankOne {
        update: Update {
            layer: hyper.layer,
            rank: 1,
            left: single(&left)?,
            right: single(&direction)?,
        },
        key: double(&key)?,
        direction: double(&direction)?,
        value: double(&value)?,
        steps,
    })
}

impl<'a> Optimiser<'a> {
    /// The optimisation of an edit's value alone, ready for its first step.
    ///
    /// # Errors
    /// As [`rank_one`].
    pub fn prepare(
        model: &'a Model,
        request: &Request,
        contexts: &[String],
        hyper: &Hyperparameters,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        let staged = prepare(model, request, contexts, hyper, watch)?;
        Ok(Optimiser::new(
            model,
            hyper,
            staged.batch,
            &staged.targets,
            &staged.bare_value,
        ))
    }
}

fn prepare(
    model: &Model,
    request: &Request,
    contexts: &[String],
    hyper: &Hyperparameters,
    watch: &dyn Watch,
) -> Result<super::value::Staged, Error> {
    request.check()?;
    if contexts.is_empty() {
        return Err(Error::Empty {
            field: "list of contexts",
            remedy: "give at least one; `{}` alone is the bare sentence",
        });
    }
    let tokenizer = model.tokenizer();
    let rewriting = contexts.iter().map(|context| {
        super::check_context(context)?;
        rows::rewriting(tokenizer, request, context)
    });
    let rewriting = rewriting.collect::<Result<Vec<_>, Error>>()?;
    let bare = rows::reading(tokenizer, &request.prompt, &request.subject, "{}")?;
    let essence = rows::essence(tokenizer, &request.subject)?;
    staged(model, hyper.layer, rewriting, &bare, essence, watch)
}
