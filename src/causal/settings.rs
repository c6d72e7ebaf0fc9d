//! How to trace.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::corruption::{Corruption, Direction};
use super::error::Error;
use super::kind::{Kind, Severed};
use super::metric::Metric;
use super::paths::Paths;

/// Most inputs that gradients are averaged over.
pub const STEPS_LIMIT: usize = 1_000;
/// Most cells of a grid that are verified of each sort: those of the largest estimates, and others.
pub const VERIFY_LIMIT: usize = 1_000;

/// How the numbers are computed. The first two give the same ones within 1e-5 in f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Only what can differ from the corrupted run, in growing batches.
    #[default]
    Exact,
    /// One full forward pass a cell: slow and plain to see, the measure of the other.
    Plain,
    /// Not the numbers but first-order estimates of them, of all cells at once (attribution
    /// patching): the metric's gradient in the run that is patched times the difference that a cell
    /// puts in.
    Attribution(Gradient),
}

/// Which gradients the estimates are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gradient {
    /// Integrated gradients: the mean over so many inputs, `emb_Y + k / steps * (emb_X - emb_Y)`
    /// for `k = 0 .. steps - 1`, of the patched run's embeddings `Y` and the other's `X`. With 1
    /// the gradient of the patched run alone. At most [`STEPS_LIMIT`].
    pub steps: usize,
    /// Gradient drop (Kramar et al. 2024, AtP*): for each layer the gradient with that layer's
    /// attention and MLP left out of its way, so that effects of opposite sign over several ways do
    /// not cancel. An estimate is then the mean magnitude over the layers, in the direction of an
    /// effect: it has no sign, and is comparable only with others of its sort.
    pub drop: bool,
}

impl Default for Gradient {
    fn default() -> Self {
        Self {
            steps: 1,
            drop: false,
        }
    }
}

impl Engine {
    /// What its numbers are, where they are not the exact ones: `first-order estimate`.
    pub fn estimate(self) -> Option<String> {
        let Engine::Attribution(Gradient { steps, drop }) = self else {
            return None;
        };
        let mut text = "first-order estimate".to_owned();
        if steps > 1 {
            text += &format!(", gradients of {steps} steps");
        }
        if drop {
            text += ", magnitudes by gradient drop";
        }
        Some(text)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Exact => "exact",
            Engine::Plain => "plain",
            Engine::Attribution(_) => "attribution",
        })
    }
}

impl FromStr for Engine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "exact" => Ok(Engine::Exact),
            "plain" => Ok(Engine::Plain),
            "attribution" => Ok(Engine::Attribution(Gradient::default())),
            _ => Err(Error::Engine {
                text: text.to_owned(),
            }),
        }
    }
}

/// Whose reading of severed paths to follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compat {
    /// The frozen sub-module keeps the values of the corrupted run that the cell belongs to.
    #[default]
    None,
    /// As the published code: the frozen values come from the seed's first draws of noise and the
    /// run they are put into from its second ones, in every layer.
    PaperCode,
}

impl fmt::Display for Compat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compat::None => "none",
            Compat::PaperCode => "paper-code",
        })
    }
}

impl FromStr for Compat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "none" => Ok(Compat::None),
            "paper-code" => Ok(Compat::PaperCode),
            _ => Err(Error::Compat {
                text: text.to_owned(),
            }),
        }
    }
}

/// Everything besides the fact and the model that decides a result, and the room to compute it in.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The grids to trace, one each.
    pub kinds: Vec<Kind>,
    /// The hidden grids to trace besides with a sub-module held at its corrupted values, one each.
    pub severed: Vec<Severed>,
    /// The paths along which heads are patched, in the place of all that they act on.
    pub paths: Option<Paths>,
    /// Whose reading of severed paths to follow.
    pub compat: Compat,
    /// What the corrupted run differs in; noise with its statistics known, the same for every fact
    /// of a sweep.
    pub corruption: Corruption,
    /// Which run is patched with states of the other.
    pub direction: Direction,
    /// What is read in every cell besides the answer's probability, one each. The first one decides
    /// which cells are verified; without any the probability does.
    pub metrics: Vec<Metric>,
    /// Whether answers are read whole, by the mean over their tokens, each behind those before it.
    /// Else by the first token.
    pub whole_answers: bool,
    /// Noise samples a cell is averaged over. At least 1; another prompt has one row.
    pub samples: usize,
    /// Seed of the noise.
    pub seed: u32,
    /// Layers in a window of MLP or attention outputs. At least 1.
    pub window: usize,
    /// How the numbers are computed.
    pub engine: Engine,
    /// Attribution: so many cells with the largest estimates of the first metric, and as many
    /// others by chance, are patched exactly ([`Grid::verified`](super::Grid::verified)), as far as
    /// the grid has them. At most [`VERIFY_LIMIT`].
    pub verify: usize,
    /// Bytes that the activations of one batch of restored rows may take, by a rule that knows only
    /// the model and the prompt: a batch is cut the same wherever the fact is traced. The states
    /// kept of the clean and the corrupted run come on top. On a CPU with AVX-512 no budget changes
    /// a byte of the result; elsewhere scores differ by up to 1e-6 in f32, as the order in which a
    /// matrix product sums depends on its rows there.
    pub memory_bytes: u64,
}

impl Settings {
    /// The published settings with this corruption: three kinds, 10 samples, seed 1, windows of 10
    /// layers, the answer's probability, in batches of 256 MiB. A CPU computes far fewer rows at a
    /// time anyway, so that they stay in its cache.
    pub fn new(corruption: impl Into<Corruption>) -> Self {
        Self {
            kinds: Kind::PUBLISHED.to_vec(),
            severed: Vec::new(),
            paths: None,
            compat: Compat::None,
            corruption: corruption.into(),
            direction: Direction::Denoising,
            metrics: Vec::new(),
            whole_answers: false,
            samples: 10,
            seed: 1,
            window: 10,
            engine: Engine::Exact,
            verify: 0,
            memory_bytes: 256 << 20,
        }
    }

    /// Rows of a corrupted run.
    pub fn rows(&self) -> usize {
        match self.corruption {
            Corruption::Noise(_) => self.samples,
            Corruption::Counterfactual(_) => 1,
        }
    }

    /// The metrics that are read: the probability first, then [`Settings::metrics`].
    pub fn read(&self) -> Vec<Metric> {
        let more = self.metrics.iter().copied();
        std::iter::once(Metric::Probability)
            .chain(more.filter(|&metric| metric != Metric::Probability))
            .collect()
    }

    /// # Errors
    /// [`Error::Setting`] for the first value out of its range.
    pub fn check(&self) -> Result<(), Error> {
        let least_one = |field, value: usize| match value {
            0 => Err(Error::Setting {
                field,
                value: value.to_string(),
                remedy: "give at least 1",
            }),
            _ => Ok(()),
        };
        least_one("samples", self.samples)?;
        least_one("window", self.window)?;
        if self.kinds.is_empty() && self.severed.is_empty() {
            return Err(Error::Setting {
                field: "kinds",
                value: "none".to_owned(),
                remedy: "name at least one of hidden, mlp, attn, another state or a severed path",
            });
        }
        self.check_paths()?;
        match &self.corruption {
            Corruption::Noise(_) if self.direction == Direction::Noising => Err(Error::Setting {
                field: "direction",
                value: self.direction.to_string(),
                remedy: "noising patches states of another prompt: corrupt by a counterfactual",
            }),
            Corruption::Counterfactual(_) if self.compat == Compat::PaperCode => {
                Err(Error::Setting {
                    field: "compat",
                    value: self.compat.to_string(),
                    remedy: "the published code severs paths with a second draw of noise: use none",
                })
            }
            _ => self.check_engine(),
        }
    }

    /// What attribution cannot estimate, and what only it has.
    fn check_engine(&self) -> Result<(), Error> {
        let wrong = |field, value: &dyn fmt::Display, remedy| {
            let value = value.to_string();
            Err(Error::Setting {
                field,
                value,
                remedy,
            })
        };
        let Engine::Attribution(gradient) = self.engine else {
            if self.kinds.contains(&Kind::Neuron) {
                return wrong(
                    "kinds",
                    &Kind::Neuron,
                    "single neurons are estimated alone: use engine attribution, which patches the \
                     strongest exactly where cells are to be verified",
                );
            }
            return match self.verify {
                0 => Ok(()),
                verify => wrong(
                    "verify",
                    &verify,
                    "these numbers are the exact ones: leave it out, or use engine attribution",
                ),
            };
        };
        if let Some(paths) = &self.paths {
            let receivers: Vec<String> = paths.receivers.iter().map(|it| it.to_string()).collect();
            return wrong(
                "receivers",
                &receivers.join(","),
                "attribution estimates no paths: leave them out, or use engine exact",
            );
        }
        if let Some(severed) = self.severed.first() {
            return wrong(
                "severed",
                severed,
                "attribution estimates no severed paths: leave it out, or use engine exact",
            );
        }
        if self.compat == Compat::PaperCode {
            return wrong(
                "compat",
                &self.compat,
                "it is about severed paths, which attribution has not: use none",
            );
        }
        if self.metrics.contains(&Metric::Rank) {
            return wrong(
                "metrics",
                &Metric::Rank,
                "a rank has no gradient: use log_probability or logit_difference, or engine exact",
            );
        }
        if self.whole_answers && self.metrics.contains(&Metric::LogitDifference) {
            return wrong(
                "metrics",
                &Metric::LogitDifference,
                "of whole answers it comes from two runs, and attribution takes its gradients from \
                 one: use log_probability, or engine exact",
            );
        }
        let flat = self.direction == Direction::Noising && gradient.steps == 1;
        if flat && self.metrics.contains(&Metric::Kl) {
            return wrong(
                "metrics",
                &Metric::Kl,
                "in noising its gradient is 0 where it is taken, at the clean run: give 2 or more \
                 integrated steps, or use engine exact",
            );
        }
        if !(1..=STEPS_LIMIT).contains(&gradient.steps) {
            return wrong("integrated", &gradient.steps, "give 1 to 1000 steps");
        }
        match self.verify > VERIFY_LIMIT {
            true => wrong("verify", &self.verify, "give at most 1000 cells"),
            false => Ok(()),
        }
    }

    fn check_paths(&self) -> Result<(), Error> {
        let Some(paths) = &self.paths else {
            return Ok(());
        };
        let wrong = |field, value: String, remedy| {
            Err(Error::Setting {
                field,
                value,
                remedy,
            })
        };
        if paths.receivers.is_empty() {
            let remedy = "name at least one, such as 9.6.q";
            return wrong("receivers", "none".to_owned(), remedy);
        }
        for (n, receiver) in paths.receivers.iter().enumerate() {
            if paths.receivers[..n].contains(receiver) {
                let remedy = "it is named twice: name it once";
                return wrong("receivers", receiver.to_string(), remedy);
            }
        }
        let remedy = "paths begin at heads: use head or head_all, or name no receivers";
        let other = |kind: &&Kind| !matches!(kind, Kind::Head | Kind::HeadAll);
        match (self.kinds.iter().find(other), self.severed.first()) {
            (Some(kind), _) => wrong("kinds", kind.to_string(), remedy),
            (None, Some(severed)) => wrong("severed", severed.to_string(), remedy),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::Noise;

    #[test]
    fn a_setting_out_of_range_is_named_with_its_remedy() {
        let mut settings = Settings::new(Noise::gaussian(0.1));
        settings.check().unwrap();
        settings.samples = 0;
        assert_eq!(
            settings.check().unwrap_err().to_string(),
            "samples = 0: give at least 1"
        );
        settings.samples = 1;
        settings.kinds.clear();
        assert!(
            settings
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("kinds = none")
        );
    }

    #[test]
    fn what_attribution_cannot_estimate_is_refused_with_the_remedy() {
        let counterfactual = Settings {
            engine: Engine::Attribution(Gradient::default()),
            direction: Direction::Noising,
            ..Settings::new(Corruption::Counterfactual(Vec::new()))
        };
        counterfactual.check().unwrap();
        let steps = |steps| Engine::Attribution(Gradient { steps, drop: false });
        let integrated = Settings {
            metrics: vec![Metric::Kl],
            engine: steps(2),
            ..counterfactual.clone()
        };
        integrated.check().unwrap();
        for (settings, said, remedy) in [
            (
                Settings {
                    kinds: vec![Kind::Head],
                    paths: Some(Paths {
                        receivers: vec!["1.0.q".parse().unwrap()],
                        frozen_mlps: false,
                    }),
                    ..counterfactual.clone()
                },
                "receivers = 1.0.q: ",
                "use engine exact",
            ),
            (
                Settings {
                    severed: vec![Severed::Mlp],
                    ..counterfactual.clone()
                },
                "severed = mlp: ",
                "use engine exact",
            ),
            (
                Settings {
                    kinds: vec![Kind::Neuron],
                    engine: Engine::Exact,
                    ..counterfactual.clone()
                },
                "kinds = neuron: ",
                "use engine attribution",
            ),
            (
                Settings {
                    whole_answers: true,
                    metrics: vec![Metric::LogitDifference],
                    ..counterfactual.clone()
                },
                "metrics = logit_difference: ",
                "use log_probability",
            ),
            (
                Settings {
                    metrics: vec![Metric::Rank],
                    ..counterfactual.clone()
                },
                "metrics = rank: ",
                "use log_probability",
            ),
            (
                Settings {
                    metrics: vec![Metric::Kl],
                    ..counterfactual.clone()
                },
                "metrics = kl: ",
                "2 or more integrated steps",
            ),
            (
                Settings {
                    engine: steps(0),
                    ..counterfactual.clone()
                },
                "integrated = 0: ",
                "give 1 to 1000 steps",
            ),
            (
                Settings {
                    engine: steps(STEPS_LIMIT + 1),
                    ..counterfactual.clone()
                },
                "integrated = 1001: ",
                "give 1 to 1000 steps",
            ),
            (
                Settings {
                    verify: VERIFY_LIMIT + 1,
                    ..counterfactual.clone()
                },
                "verify = 1001: ",
                "give at most 1000 cells",
            ),
            (
                Settings {
                    verify: 1,
                    engine: Engine::Exact,
                    ..counterfactual.clone()
                },
                "verify = 1: ",
                "use engine attribution",
            ),
            (
                Settings {
                    compat: Compat::PaperCode,
                    engine: steps(1),
                    ..Settings::new(Noise::gaussian(0.1))
                },
                "compat = paper-code: ",
                "use none",
            ),
        ] {
            let error = settings.check().unwrap_err().to_string();
            assert!(error.starts_with(said) && error.contains(remedy), "{error}");
        }
    }

    #[test]
    fn an_estimate_says_what_it_is() {
        let said = |steps, drop| Engine::Attribution(Gradient { steps, drop }).estimate();
        assert_eq!(Engine::Exact.estimate(), None);
        assert_eq!(said(1, false).as_deref(), Some("first-order estimate"));
        assert_eq!(
            said(8, true).as_deref(),
            Some("first-order estimate, gradients of 8 steps, magnitudes by gradient drop")
        );
    }

    #[test]
    fn names_read_back() {
        for engine in [
            Engine::Exact,
            Engine::Plain,
            Engine::Attribution(Gradient::default()),
        ] {
            assert_eq!(engine.to_string().parse::<Engine>().unwrap(), engine);
        }
        for compat in [Compat::None, Compat::PaperCode] {
            assert_eq!(compat.to_string().parse::<Compat>().unwrap(), compat);
        }
        assert!(
            "fast"
                .parse::<Engine>()
                .unwrap_err()
                .to_string()
                .contains("`fast`")
        );
        assert!(
            "paper"
                .parse::<Compat>()
                .unwrap_err()
                .to_string()
                .contains("`paper`")
        );
    }
}
