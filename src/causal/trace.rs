//! The way in: one fact, all the grids asked for.

use tch::Kind as Dtype;

use super::error::Error;
use super::grid::Grid;
use super::job::Job;
use super::kind::Kind;
use super::memory::{self, Failure};
use super::paths::{Input, Receiver};
use super::prompt::Prompt;
use super::settings::{Engine, Gradient, Settings};
use super::task::{Measure, Watch};
use super::{attribution, exact, plain, runs};
use crate::datasets::facts::Fact;
use crate::model::config::Residual;
use crate::model::{Config, Model, with_libtorch_products};

/// Most numbers of one fact's noise: 8 GiB of them.
const MOST_DRAWS: usize = 1 << 30;
/// Most numbers of a grid of heads: 3 MiB of them, as a message of results has 4 MiB at most.
const MOST_NUMBERS: usize = 3 << 17;

/// Traces one fact: the grids of [`Settings::kinds`] in that order, then those of
/// [`Settings::severed`].
///
/// Probabilities are a softmax in f32; means over noise samples are taken in f64. A fact with an
/// attribute that the model answers otherwise comes back untraced (see
/// [`Grid::correct_prediction`]), and so does one for which there is no other prompt (see
/// [`Grid::untraced`]). A grid's numbers do not depend on which other grids are asked for.
///
/// [`Engine::Attribution`] gives estimates: a score is what the patched run has and what the cell
/// is estimated to add, and may lie outside the metric's range.
///
/// # Errors
/// An invalid setting or fact; [`Error::Cancelled`] when `watch` asks for it;
/// [`Error::OutOfMemory`] when even a single row does not fit; [`Error::NotFinite`] when the model
/// overflows, [`Error::CorruptedNotFinite`] and [`Error::PatchedNotFinite`] when it does so
/// corrupted.
pub fn trace(
    model: &Model,
    fact: &Fact,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Vec<Grid>, Error> {
    settings.check()?;
    if let Some(noise) = settings.corruption.noise() {
        noise.check_width(model.config().width)?;
    }
    for &kind in &settings.kinds {
        has_site(model.config(), kind)?;
    }
    for receiver in settings.paths.iter().flat_map(|paths| &paths.receivers) {
        has_receiver(model.config(), receiver)?;
    }
    has_gradient(model, settings)?;
    let prompt = Prompt::read(model, fact)?;
    let layers = model.config().layers;
    let measures: Vec<Measure> = settings
        .kinds
        .iter()
        .map(|&kind| Measure {
            kind,
            severed: None,
            heads: kind.heads(model.config().heads, model.config().kv_heads),
        })
        .chain(settings.severed.iter().map(|&severed| Measure {
            kind: Kind::Hidden,
            severed: Some(severed),
            heads: 1,
        }))
        .collect();
    measures
        .iter()
        .try_for_each(|it| fits_a_result(it, prompt.len(), layers, settings.read().len()))?;
    let job = Job {
        model,
        fact,
        settings,
        prompt: &prompt,
        measures: &measures,
        watch,
    };
    let out_of_memory = || Error::OutOfMemory {
        device: format!("{:?}", model.device()),
        rows: match settings.engine {
            Engine::Plain => settings.rows(),
            Engine::Exact | Engine::Attribution(_) => 1,
        },
        tokens: prompt.len(),
        layers,
        width: model.config().width,
        dtype: format!("{:?}", model.dtype()),
        samples: settings.rows(),
    };
    // The draws are made on the host, where an allocation that fails ends the process.
    let draws = settings
        .rows()
        .checked_mul(prompt.subject.len() * model.config().width);
    if draws.is_none_or(|draws| draws > MOST_DRAWS) {
        return Err(out_of_memory());
    }
    let _no_grad = tch::no_grad_guard();
    let found = memory::attempt(|| match settings.engine {
        Engine::Plain => with_libtorch_products(|| job.grids(plain::source, plain::scores)),
        Engine::Exact => job.grids(runs::source, exact::scores),
        Engine::Attribution(_) => job.grids(runs::source, attribution::scores),
    });
    match found {
        Ok(grids) => Ok(grids),
        Err(Failure::Error(error)) => Err(error),
        Err(Failure::OutOfMemory) => Err(out_of_memory()),
    }
}

/// Refuses a grid of heads that no message of results holds.
fn fits_a_result(
    measure: &Measure,
    tokens: usize,
    layers: usize,
    metrics: usize,
) -> Result<(), Error> {
    let numbers = measure.cells(tokens, layers).saturating_mul(metrics);
    match measure.kind.of_head() {
        Some((_, over_all)) if numbers > MOST_NUMBERS => Err(Error::TooManyCells {
            kind: measure.kind.to_string(),
            tokens,
            heads: measure.heads,
            layers,
            metrics,
            numbers,
            most: MOST_NUMBERS,
            instead: over_all.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Refuses a state that the model has not.
fn has_site(config: &Config, kind: Kind) -> Result<(), Error> {
    match (kind, config.residual) {
        (Kind::ResidMid, Residual::Parallel) => Err(Error::Site {
            kind: kind.to_string(),
            family: config.family.to_string(),
            reason: "add attention and MLP to the residual at once, and have nothing between",
            instead: "resid_pre, hidden, attn or mlp",
        }),
        (Kind::Neuron, _) if config.experts.is_some() => Err(Error::Site {
            kind: kind.to_string(),
            family: config.family.to_string(),
            reason: "have experts in the place of an MLP, and a token the neurons of few of them",
            instead: "mlp, which is the sum of the experts",
        }),
        _ => Ok(()),
    }
}

/// Refuses a receiver that the model has not.
fn has_receiver(config: &Config, receiver: &Receiver) -> Result<(), Error> {
    let heads = match receiver.input {
        Input::Query => config.heads,
        Input::Key | Input::Value => config.kv_heads,
    };
    match receiver.layer < config.layers && receiver.head < heads {
        true => Ok(()),
        false => Err(Error::NoReceiver {
            receiver: receiver.to_string(),
            layers: config.layers,
            heads,
        }),
    }
}

/// Refuses estimates whose gradients the model cannot give.
fn has_gradient(model: &Model, settings: &Settings) -> Result<(), Error> {
    let Engine::Attribution(Gradient { drop, .. }) = settings.engine else {
        return Ok(());
    };
    let wrong = |field, value: &str, remedy| {
        let value = value.to_owned();
        Err(Error::Setting {
            field,
            value,
            remedy,
        })
    };
    if model.dtype() == Dtype::Half {
        return wrong(
            "dtype",
            "f16",
            "gradients of small probabilities are 0 in half precision: use bf16 or f32, or engine \
             exact",
        );
    }
    match drop && model.config().layers < 2 {
        true => wrong(
            "grad_drop",
            "true",
            "the model has one block, and without it there is nothing: leave it out",
        ),
        false => Ok(()),
    }
}
