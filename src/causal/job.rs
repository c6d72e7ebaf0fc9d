//! One fact from its clean run to its grids: what corrupts it, what its answer is compared with, and
//! which runs an engine patches for that.

use tch::Tensor;

use super::corruption::{Corruption, Direction};
use super::error::Error;
use super::grid::{Counterpart, Grid, Reading, Token};
use super::kind::Kind;
use super::memory::Failure;
use super::metric::Metric;
use super::pair::{Clean, ids, tokens_behind};
use super::prompt::Prompt;
use super::readout::{Answer, Readout};
use super::rows::means;
use super::settings::{Engine, Settings};
use super::task::{Measure, Progress, Scores, Task, Watch};
use crate::datasets::facts::Fact;
use crate::model::Model;

/// A fact and how it is traced.
pub(super) struct Job<'a> {
    pub model: &'a Model,
    pub fact: &'a Fact,
    pub settings: &'a Settings,
    pub prompt: &'a Prompt,
    pub measures: &'a [Measure],
    pub watch: &'a dyn Watch,
}

/// How an engine runs a prompt as it is.
type Source<S> = fn(&Model, &Prompt, usize, &Progress<'_>) -> Result<S, Failure>;
/// How an engine patches another run with the states of that one.
type Patched<S> = fn(&Task<'_>, &S) -> Result<Scores, Failure>;

/// An engine.
struct Backend<S> {
    source: Source<S>,
    scores: Patched<S>,
}

/// A clean prompt, the run of it, and what is read of it and of all that is patched.
struct CleanRun<'a, S> {
    prompt: &'a Prompt,
    clean: &'a S,
    /// Its probability of the answer, where it was found with that: the first thing read.
    high: Option<f64>,
    readout: &'a Readout,
    progress: &'a Progress<'a>,
}

/// What is found with the states of one run in another: all of it, and the two runs alone.
struct Found {
    scores: Scores,
    clean: Vec<f64>,
    corrupted: Vec<f64>,
}

impl Found {
    /// Takes what was found in the only metric of `other` from this metric.
    fn subtract(&mut self, metric: usize, other: &Found) {
        let count = self.clean.len();
        self.clean[metric] -= other.clean[0];
        self.corrupted[metric] -= other.corrupted[0];
        self.scores.base[metric] -= other.scores.base[0];
        for (grid, other) in self.scores.grids.iter_mut().zip(&other.scores.grids) {
            for (cell, other) in grid.chunks_mut(count).zip(other) {
                cell[metric] -= other;
            }
        }
    }
}

impl Job<'_> {
    /// From an engine's clean run to the grids, by way of its scores when the answer is the right
    /// one and there is something to corrupt with.
    pub fn grids<S: AsRef<Tensor>>(
        &self,
        source: Source<S>,
        scores: Patched<S>,
    ) -> Result<Vec<Grid>, Failure> {
        let backend = Backend { source, scores };
        let (model, settings) = (self.model, self.settings);
        let layers = model.config().layers;
        let cells = |it: &Measure| it.cells(self.prompt.tokens.len(), layers);
        let cells: usize = self.measures.iter().map(cells).sum();
        let progress = &Progress::new(self.watch, cells as u64);

        // Where the answer is read whole, the model is given what is expected token by token.
        let expected = match (&self.fact.attribute, settings.whole_answers) {
            (Some(attribute), true) => {
                let tokenizer = model.tokenizer();
                let answer = tokenizer.continuation(&self.fact.prompt, attribute);
                Some(answer.map_err(Error::from)?.target)
            }
            _ => None,
        };
        let given = expected.as_deref().unwrap_or_default();
        let prompt = &self.prompt.before_last_of(model, given)?;
        let clean = &(backend.source)(model, prompt, settings.rows(), progress)?;
        let Answer { ids: said, high } = Answer::of(model, clean.as_ref());
        if !high.is_finite() {
            return Err(Failure::Error(Error::NotFinite {
                prompt: self.fact.prompt.clone(),
                value: high,
            }));
        }
        let right = expected.as_ref().map(|expected| *expected == said);
        let said = match right {
            Some(false) => &said[..1],
            _ => &said,
        };
        let answer = tokens_behind(model, self.prompt, said)?;
        let mut grid = self.untraced(&answer, high, right);
        if !grid.correct_prediction {
            return Ok(self.of_each(&grid));
        }
        let metrics = settings.read();
        let asked = Clean {
            model,
            fact: self.fact,
            prompt: self.prompt,
            answer: said,
            whole: settings.whole_answers,
            progress,
        };
        let (pair, foil) = match &settings.corruption {
            Corruption::Noise(_) => (None, asked.own_foil(&metrics)?),
            Corruption::Counterfactual(partners) => match asked.pair(partners)? {
                Ok(mut pair) => {
                    grid.corrupted = Some(Counterpart {
                        prompt: pair.text.clone(),
                        tokens: pair.prompt.tokens.clone(),
                    });
                    let foil = std::mem::take(&mut pair.foil);
                    (Some(pair), Some(foil))
                }
                Err(reason) => {
                    grid.untraced = Some(reason);
                    return Ok(self.of_each(&grid));
                }
            },
        };
        let foil = foil.unwrap_or_default();
        let mut tokens = foil.iter().cloned();
        grid.foil = tokens.next();
        grid.foil_rest = tokens.collect();
        let foil = ids(&foil);

        // Answers of several tokens are compared by the mean logarithm of each one's probability
        // behind the prompt: of one token, that is the difference of the logits.
        let difference = metrics.iter().position(|&it| it == Metric::LogitDifference);
        let difference = difference.filter(|_| said.len() > 1 || foil.len() > 1);
        let mut read = metrics.clone();
        if let Some(n) = difference {
            read[n] = Metric::LogProbability;
        }
        let whole = settings.engine != Engine::Exact;
        let single = foil.first().copied().filter(|_| difference.is_none());
        let readout = &Readout::new(model, clean.as_ref(), said, single, read, whole);
        let run = CleanRun {
            prompt,
            clean,
            high: (said.len() == 1).then_some(high),
            readout,
            progress,
        };
        let other = match &pair {
            Some(pair) => Some((pair.prompt.before_last_of(model, said)?, pair.first)),
            None => None,
        };
        let mut found = self.patch(&backend, &run, other.as_ref())?;
        if let Some(n) = difference {
            let prompt = &self.prompt.before_last_of(model, &foil)?;
            let uncounted = Uncounted(self.watch);
            let progress = &Progress::new(&uncounted, 0);
            let clean = &(backend.source)(model, prompt, settings.rows(), progress)?;
            let read = vec![Metric::LogProbability];
            let run = CleanRun {
                prompt,
                clean,
                high: None,
                readout: &Readout::new(model, clean.as_ref(), &foil, None, read, whole),
                progress,
            };
            let other = match &pair {
                Some(pair) => Some((pair.prompt.before_last_of(model, &foil)?, pair.first)),
                None => None,
            };
            let of_foil = self.patch(&backend, &run, other.as_ref())?;
            found.subtract(n, &of_foil);
        }
        self.check(&found.scores, &metrics)?;
        let traced = |(grid, scores): (&mut Grid, &Vec<f64>)| {
            let mut readings = metrics.iter().enumerate().map(|(n, &metric)| Reading {
                metric,
                high: found.clean[n],
                low: found.corrupted[n],
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
        grids.iter_mut().zip(&found.scores.grids).for_each(traced);
        for (grid, verified) in grids.iter_mut().zip(found.scores.verified) {
            grid.verified = verified;
        }
        for (grid, neurons) in grids.iter_mut().zip(found.scores.neurons) {
            grid.neurons = neurons;
        }
        Ok(grids)
    }

    /// Patches the corrupted run with states of the clean one, or in noising the other way round.
    /// `other` is the prompt that corrupts, and the first token at which it differs.
    fn patch<S: AsRef<Tensor>>(
        &self,
        backend: &Backend<S>,
        run: &CleanRun<'_, S>,
        other: Option<&(Prompt, usize)>,
    ) -> Result<Found, Failure> {
        let (model, settings, readout) = (self.model, self.settings, run.readout);
        let values = |run: &S| means(&readout.read(model, run.as_ref()), readout.count());
        let mut task = Task {
            model,
            settings,
            measures: self.measures,
            progress: run.progress,
            prompt: run.prompt,
            noise: settings.corruption.noise(),
            first: self.prompt.subject.start,
            source: values(run.clean),
            readout,
        };
        if let Some(high) = run.high {
            task.source[0] = high;
        }
        if let Some((_, first)) = other {
            task.first = *first;
        }
        if let (Some((prompt, _)), Direction::Noising) = (other, settings.direction) {
            let source = (backend.source)(model, prompt, settings.rows(), run.progress)?;
            task.source = values(&source);
            let scores = (backend.scores)(&task, &source)?;
            return Ok(Found {
                clean: scores.base.clone(),
                corrupted: task.source,
                scores,
            });
        }
        if let Some((prompt, _)) = other {
            task.prompt = prompt;
        }
        let scores = (backend.scores)(&task, run.clean)?;
        Ok(Found {
            corrupted: scores.base.clone(),
            clean: task.source,
            scores,
        })
    }

    /// The grid of no kind yet, without any scores.
    ///
    /// `right` says whether the answer is the expected one, where that is known of all its tokens.
    fn untraced(&self, answer: &[Token], high: f64, right: Option<bool>) -> Grid {
        let (first, rest) = answer.split_at(1);
        let attribute = self.fact.attribute.as_ref();
        let is_first = |it: &String| it.trim() == first[0].text.trim();
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
            correct_prediction: right.unwrap_or_else(|| attribute.is_none_or(is_first)),
            untraced: None,
            whole_answers: self.settings.whole_answers,
            answer: first[0].clone(),
            answer_rest: rest.to_vec(),
            foil: None,
            foil_rest: Vec::new(),
            metric: Metric::Probability,
            high,
            low: None,
            scores: Vec::new(),
            readings: Vec::new(),
            neurons: Vec::new(),
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
        let verified = verified.flat_map(|cell| [&cell.exact, &cell.estimate]);
        let all = std::iter::once(found.base.as_slice())
            .chain(cells)
            .chain(verified.map(Vec::as_slice));
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

/// Hears of no cells: those of a second run of the same grids.
struct Uncounted<'a>(&'a dyn Watch);

impl Watch for Uncounted<'_> {
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}
