//! The way in: one fact, all the grids asked for.

use super::error::Error;
use super::grid::{Grid, Token};
use super::kind::Kind;
use super::memory::{self, Failure};
use super::prompt::Prompt;
use super::settings::{Engine, Settings};
use super::task::{Answer, Measure, Progress, Scores, Task, Watch};
use super::{exact, plain, runs};
use crate::datasets::facts::Fact;
use crate::model::Model;

/// Most numbers of one fact's noise: 8 GiB of them.
const MOST_DRAWS: usize = 1 << 30;

/// Traces one fact: the grids of [`Settings::kinds`] in that order, then those of
/// [`Settings::severed`].
///
/// Probabilities are a softmax in f32; means over noise samples are taken in f64. A fact with an
/// attribute that the model answers otherwise comes back untraced (see
/// [`Grid::correct_prediction`]). A grid's numbers do not depend on which other grids are asked
/// for.
///
/// # Errors
/// An invalid setting or fact; [`Error::Cancelled`] when `watch` asks for it;
/// [`Error::OutOfMemory`] when even a single row does not fit; [`Error::NotFinite`] when the model
/// overflows, [`Error::CorruptedNotFinite`] when it does so with the noise.
pub fn trace(
    model: &Model,
    fact: &Fact,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Vec<Grid>, Error> {
    settings.check()?;
    settings.noise.check_width(model.config().width)?;
    let prompt = Prompt::read(model, fact)?;
    let measures: Vec<Measure> = settings
        .kinds
        .iter()
        .map(|&kind| Measure {
            kind,
            severed: None,
        })
        .chain(settings.severed.iter().map(|&severed| Measure {
            kind: Kind::Hidden,
            severed: Some(severed),
        }))
        .collect();
    let task = Task {
        model,
        settings,
        prompt: &prompt,
        measures: &measures,
        progress: Progress::new(
            watch,
            (measures.len() * prompt.len() * model.config().layers) as u64,
        ),
    };
    let out_of_memory = || Error::OutOfMemory {
        device: format!("{:?}", model.device()),
        rows: match settings.engine {
            Engine::Plain => settings.samples,
            Engine::Exact => 1,
        },
        tokens: prompt.len(),
        layers: task.layers(),
        width: model.config().width,
        dtype: format!("{:?}", model.dtype()),
        samples: settings.samples,
    };
    // The draws are made on the host, where an allocation that fails ends the process.
    let draws = settings
        .samples
        .checked_mul(prompt.subject.len() * model.config().width);
    if draws.is_none_or(|draws| draws > MOST_DRAWS) {
        return Err(out_of_memory());
    }
    let _no_grad = tch::no_grad_guard();
    let found = memory::attempt(|| match settings.engine {
        Engine::Plain => grids(&task, fact, &plain::clean(&task)?, plain::scores),
        Engine::Exact => grids(&task, fact, &runs::clean(&task)?, exact::scores),
    });
    match found {
        Ok(grids) => Ok(grids),
        Err(Failure::Error(error)) => Err(error),
        Err(Failure::OutOfMemory) => Err(out_of_memory()),
    }
}

/// From an engine's clean run to the grids, by way of its scores when the answer is the right one.
fn grids<C: AsRef<Answer>>(
    task: &Task<'_>,
    fact: &Fact,
    clean: &C,
    scores: fn(&Task<'_>, &C) -> Result<Scores, Failure>,
) -> Result<Vec<Grid>, Failure> {
    let &Answer { id, high } = clean.as_ref();
    if !high.is_finite() {
        return Err(Failure::Error(Error::NotFinite {
            prompt: fact.prompt.clone(),
            value: high,
        }));
    }
    let answer = Token {
        id: id as u32,
        text: task
            .model
            .tokenizer()
            .decode_after(&task.prompt.ids(), &[id as u32])
            .map_err(|error| Failure::Error(error.into()))?,
    };
    let correct_prediction = fact
        .attribute
        .as_ref()
        .is_none_or(|attribute| attribute.trim() == answer.text.trim());
    let untraced = |measure: &Measure| Grid {
        fact: fact.clone(),
        kind: measure.kind,
        severed: measure.severed,
        window: task.settings.window,
        noise: task.settings.noise.rule().to_string(),
        samples: task.settings.samples,
        seed: task.settings.seed,
        layers: task.layers(),
        tokens: task.prompt.tokens.clone(),
        subject: task.prompt.subject.clone(),
        answer: answer.clone(),
        correct_prediction,
        high,
        low: None,
        scores: Vec::new(),
    };
    let mut grids: Vec<Grid> = task.measures.iter().map(untraced).collect();
    if correct_prediction {
        let found = scores(task, clean)?;
        let all = [found.low]
            .into_iter()
            .chain(found.grids.iter().flatten().copied());
        if let Some(value) = all.into_iter().find(|score| !score.is_finite()) {
            return Err(Failure::Error(Error::CorruptedNotFinite {
                prompt: fact.prompt.clone(),
                noise: task.settings.noise.rule().to_string(),
                dtype: format!("{:?}", task.model.dtype()),
                value,
            }));
        }
        for (grid, scores) in grids.iter_mut().zip(found.grids) {
            grid.low = Some(found.low);
            grid.scores = scores;
        }
    }
    Ok(grids)
}
