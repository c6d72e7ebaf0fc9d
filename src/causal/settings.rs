//! How to trace.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::corruption::{Corruption, Direction};
use super::error::Error;
use super::kind::{Kind, Severed};
use super::metric::Metric;
use super::paths::Paths;

/// How the numbers are computed. Both engines give the same ones within 1e-5 in f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Only what can differ from the corrupted run, in growing batches.
    #[default]
    Exact,
    /// One full forward pass a cell: slow and plain to see, the measure of the other.
    Plain,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Exact => "exact",
            Engine::Plain => "plain",
        })
    }
}

impl FromStr for Engine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "exact" => Ok(Engine::Exact),
            "plain" => Ok(Engine::Plain),
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
    /// What is read in every cell besides the answer's probability, one each.
    pub metrics: Vec<Metric>,
    /// Noise samples a cell is averaged over. At least 1; another prompt has one row.
    pub samples: usize,
    /// Seed of the noise.
    pub seed: u32,
    /// Layers in a window of MLP or attention outputs. At least 1.
    pub window: usize,
    /// How the numbers are computed.
    pub engine: Engine,
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
            samples: 10,
            seed: 1,
            window: 10,
            engine: Engine::Exact,
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
            _ => Ok(()),
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
    fn names_read_back() {
        for engine in [Engine::Exact, Engine::Plain] {
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
