//! What the run that is patched differs in from the other, and which of the two is patched.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::metric::Metric;
use super::noise::Noise;
use crate::datasets::facts::Fact;

/// How a run is corrupted. Either way its embeddings are others from some token on, and all that
/// follows is the same.
#[derive(Debug, Clone, PartialEq)]
pub enum Corruption {
    /// Noise on the subject's tokens, a row a sample.
    Noise(Noise),
    /// Another prompt of as many tokens in one row (symmetric token replacement): the fact's own
    /// ([`Fact::corrupted`]), or else that of the first of these facts that fits.
    Counterfactual(Vec<Fact>),
}

impl Corruption {
    /// The noise, where it is one.
    pub fn noise(&self) -> Option<&Noise> {
        match self {
            Corruption::Noise(noise) => Some(noise),
            Corruption::Counterfactual(_) => None,
        }
    }
}

impl From<Noise> for Corruption {
    fn from(noise: Noise) -> Self {
        Corruption::Noise(noise)
    }
}

/// Which run is patched with states of the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The corrupted run with clean states: which of them suffice to bring the answer back.
    #[default]
    Denoising,
    /// The clean run with corrupted states: which of them the answer needs.
    Noising,
}

impl Direction {
    /// 1 where more of a metric is more of the effect that is looked for, -1 where less is.
    pub fn order(self, metric: Metric) -> f64 {
        match self {
            Direction::Denoising => metric.sign(),
            Direction::Noising => -metric.sign(),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Denoising => "denoising",
            Direction::Noising => "noising",
        })
    }
}

impl FromStr for Direction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "denoising" => Ok(Direction::Denoising),
            "noising" => Ok(Direction::Noising),
            _ => Err(Error::Direction {
                text: text.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for direction in [Direction::Denoising, Direction::Noising] {
            assert_eq!(
                direction.to_string().parse::<Direction>().unwrap(),
                direction
            );
        }
        assert!("both".parse::<Direction>().is_err());
    }
}
