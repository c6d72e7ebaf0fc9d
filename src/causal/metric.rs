//! What is read of the next token's distribution in every cell.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::Error;

/// A number made from the logits at the last token. Where noise gives several rows, a metric is
/// the mean over them.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The probability of the answer, in `[0, 1]`: what the paper reads.
    #[default]
    Probability,
    /// The natural logarithm of that.
    LogProbability,
    /// The answer's logit less the foil's: linear in the last residual up to its norm, so it shows
    /// states that speak against the answer too.
    LogitDifference,
    /// The Kullback-Leibler divergence of the clean distribution from this one, in nats: needs no
    /// foil.
    Kl,
    /// The answer's rank among all tokens, 1 for the most probable one.
    Rank,
}

impl Metric {
    /// All metrics, in the order in which results list them.
    pub const ALL: [Metric; 5] = [
        Metric::Probability,
        Metric::LogProbability,
        Metric::LogitDifference,
        Metric::Kl,
        Metric::Rank,
    ];

    /// Whether it compares the answer with another token.
    pub fn needs_foil(self) -> bool {
        self == Metric::LogitDifference
    }

    /// 1 where more of it is more of the answer, -1 where less is.
    pub fn sign(self) -> f64 {
        match self {
            Metric::Probability | Metric::LogProbability | Metric::LogitDifference => 1.0,
            Metric::Kl | Metric::Rank => -1.0,
        }
    }

    /// The least total effect that effects are divided by: under it a share of it is noise.
    pub fn least_total_effect(self) -> f64 {
        match self {
            Metric::Probability => 0.05,
            Metric::LogProbability | Metric::LogitDifference => 0.5,
            Metric::Kl => 0.1,
            Metric::Rank => 1.0,
        }
    }

    /// Its name in sentences and on figures.
    pub fn words(self) -> &'static str {
        match self {
            Metric::Probability => "probability",
            Metric::LogProbability => "log-probability",
            Metric::LogitDifference => "logit difference",
            Metric::Kl => "KL",
            Metric::Rank => "rank",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Metric::Probability => "probability",
            Metric::LogProbability => "log_probability",
            Metric::LogitDifference => "logit_difference",
            Metric::Kl => "kl",
            Metric::Rank => "rank",
        })
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|metric| metric.to_string() == text);
        found.ok_or_else(|| Error::Metric {
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for metric in Metric::ALL {
            assert_eq!(metric.to_string().parse::<Metric>().unwrap(), metric);
        }
        let error = "logits".parse::<Metric>().unwrap_err().to_string();
        assert!(
            error.contains("`logits`") && error.contains("logit_difference"),
            "{error}"
        );
    }
}
