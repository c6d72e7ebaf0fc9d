//! The way in: one fact, all the grids asked for.

use tch::{Kind as Dtype, Tensor};

use super::corruption::{Corruption, Direction};
use super::error::Error;
use super::grid::{Counterpart, Grid, Reading, Token};
use super::kind::Kind;
use super::memory::{self, Failure};
use super::metric::Metric;
use super::pair::{Clean, Pair, token_text};
use super::paths::{Input, Receiver};
use super::prompt::Prompt;
use super::readout::{Answer, Readout};
use super::rows::means;
use super::settings::{Engine, Gradient, Settings};
use super::task::{Measure, Progress, Scores, Task, Watch};
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
    let cells = measures.iter().map(|it| it.cells(prompt.len(), layers));
    let cells: usize = cells.sum();
    let job = Job {
        model,
        fact,
        settings,
        prompt: &prompt,
        measures: &measures,
        progress: &Progress::new(watch, cells as u64),
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

/// A fact and how it is traced.
struct Job<'a> {
    model: &'a Model,
    fact: &'a Fact,
    settings: &'a Settings,
    prompt: &'a Prompt,
    measures: &'a [Measure],
    progress: &'a Progress<'a>,
}

/// How an engine runs a prompt as it is.
type Source<S> = fn(&Model, &Prompt, usize, &Progress<'_>) -> Result<S, Failure>;
/// How an engine patches another run with the states of that one.
type Patched<S> = fn(&Task<'_>, &S) -> Result<Scores, Failure>;

impl Job<'_> {
    /// From an engine's clean run to the grids, by way of its scores when the answer is the right
    /// one and there is something to corrupt with.
    fn grids<S: AsRef<Tensor>>(
        &self,
        source: Source<S>,
        scores: Patched<S>,
    ) -> Result<Vec<Grid>, Failure> {
        let (model, settings) = (self.model, self.settings);
        let rows = settings.rows();
        let clean = source(model, self.prompt, rows, self.progress)?;
        let Answer { id, high } = Answer::of(model, clean.as_ref());
        if !high.is_finite() {
            return Err(Failure::Error(Error::NotFinite {
                prompt: self.fact.prompt.clone(),
                value: high,
            }));
        }
        let answer = Token {
            id: id as u32,
            text: token_text(model, self.prompt, id as u32)?,
        };
        let mut grid = self.untraced(answer.clone(), high);
        if !grid.correct_prediction {
            return Ok(self.of_each(&grid));
        }
        let metrics = settings.read();
        let asked = Clean {
            model,
            fact: self.fact,
            prompt: self.prompt,
            answer: &answer,
            progress: self.progress,
        };
        let pair = match &settings.corruption {
            Corruption::Noise(_) => {
                grid.foil = asked.own_foil(&metrics)?;
                None
            }
            Corruption::Counterfactual(partners) => match asked.pair(partners)? {
                Ok(pair) => {
                    grid.foil = Some(pair.foil.clone());
                    grid.corrupted = Some(Counterpart {
                        prompt: pair.text.clone(),
                        tokens: pair.prompt.tokens.clone(),
                    });
                    Some(pair)
                }
                Err(reason) => {
                    grid.untraced = Some(reason);
                    return Ok(self.of_each(&grid));
                }
            },
        };
        let foil = grid.foil.as_ref().map(|foil| i64::from(foil.id));
        let whole = settings.engine != Engine::Exact;
        let readout = Readout::new(model, clean.as_ref(), id, foil, metrics.clone(), whole);
        let mut task = Task {
            model,
            settings,
            measures: self.measures,
            progress: self.progress,
            prompt: self.prompt,
            noise: settings.corruption.noise(),
            first: self.prompt.subject.start,
            source: means(&readout.read(model, clean.as_ref()), readout.count()),
            readout: &readout,
        };
        // The clean run's own number, as it was found with the answer.
        task.source[0] = high;
        if let Some(pair) = &pair {
            task.first = pair.first;
        }
        let (found, clean, corrupted) = match (&pair, settings.direction) {
            (Some(Pair { prompt, .. }), Direction::Noising) => {
                let other = source(model, prompt, rows, self.progress)?;
                task.source = means(&readout.read(model, other.as_ref()), readout.count());
                let found = scores(&task, &other)?;
                let base = found.base.clone();
                (found, base, task.source)
            }
            (pair, _) => {
                if let Some(pair) = pair {
                    task.prompt = &pair.prompt;
                }
                let found = scores(&task, &clean)?;
                let base = found.base.clone();
                (found, task.source, base)
            }
        };
        self.check(&found, &metrics)?;
        let traced = |(grid, scores): (&mut Grid, &Vec<f64>)| {
            let mut readings = metrics.iter().enumerate().map(|(n, &metric)| Reading {
                metric,
                high: clean[n],
                low: corrupted[n],
                scores: scores
                    .iter()
                    .skip(n)
                    .step_by(metrics.len())
                    .copied()
                    .collect(),
            });
            if let Some(probability) = readings.next() {
                grid.high = probability.high;
                grid.low = Some(probability.low);
                grid.scores = probability.scores;
            }
            grid.readings = readings.collect();
        };
        let mut grids = self.of_each(&grid);
        grids.iter_mut().zip(&found.grids).for_each(traced);
        for (grid, verified) in grids.iter_mut().zip(found.verified) {
            grid.verified = verified;
        }
        Ok(grids)
    }

    /// The grid of no kind yet, without any scores.
    fn untraced(&self, answer: Token, high: f64) -> Grid {
        let attribute = self.fact.attribute.as_ref();
        Grid {
            fact: self.fact.clone(),
            kind: Kind::Hidden,
            severed: None,
            paths: self.settings.paths.clone(),
            window: self.settings.window,
            noise: match &self.settings.corruption {
                Corruption::Noise(noise) => noise.rule().to_string(),
                Corruption::Counterfactual(_) => String::new(),
            },
            corrupted: None,
            direction: self.settings.direction,
            engine: self.settings.engine,
            samples: self.settings.rows(),
            seed: self.settings.seed,
            layers: self.model.config().layers,
            heads: 1,
            tokens: self.prompt.tokens.clone(),
            subject: self.prompt.subject.clone(),
            correct_prediction: attribute.is_none_or(|it| it.trim() == answer.text.trim()),
            untraced: None,
            answer,
            foil: None,
            metric: Metric::Probability,
            high,
            low: None,
            scores: Vec::new(),
            readings: Vec::new(),
            verified: Vec::new(),
        }
    }

    /// That grid for every measure.
    fn of_each(&self, grid: &Grid) -> Vec<Grid> {
        let of = |measure: &Measure| Grid {
            kind: measure.kind,
            severed: measure.severed,
            heads: measure.heads,
            ..grid.clone()
        };
        self.measures.iter().map(of).collect()
    }

    /// Every number of every cell must be one.
    fn check(&self, found: &Scores, metrics: &[Metric]) -> Result<(), Error> {
        let cells = found
            .grids
            .iter()
            .flat_map(|grid| grid.chunks(metrics.len()));
        let verified = found.verified.iter().flatten();
        let all = std::iter::once(found.base.as_slice())
            .chain(cells)
            .chain(verified.map(|cell| cell.exact.as_slice()));
        let mut values = all.flat_map(|cell| metrics.iter().zip(cell));
        let Some((metric, &value)) = values.find(|(_, value)| !value.is_finite()) else {
            return Ok(());
        };
        let dtype = format!("{:?}", self.model.dtype());
        let prompt = self.fact.prompt.clone();
        Err(match &self.settings.corruption {
            Corruption::Noise(noise) if *metric == Metric::Probability => {
                Error::CorruptedNotFinite {
                    prompt,
                    noise: noise.rule().to_string(),
                    dtype,
                    value,
                }
            }
            _ => Error::PatchedNotFinite {
                prompt,
                metric: metric.words().to_owned(),
                dtype,
                value,
            },
        })
    }
}
