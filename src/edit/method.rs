//! How a fact is rewritten.

use std::fmt;
use std::str::FromStr;

use super::Error;

/// A method of editing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// ROME with one key in all its places (Gupta et al. 2024): single edits do not wreck a model that is edited again
    /// and again.
    #[default]
    RRome,
    /// ROME as published (Meng et al. 2022): the update is scaled by the bare prompt's key.
    Rome,
    /// Constrained fine-tuning of the one matrix (FT+L; Zhu et al. 2020): the baseline.
    FtL,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 3] = [Method::RRome, Method::Rome, Method::FtL];

    /// Whether it needs key statistics.
    pub fn needs_statistics(self) -> bool {
        self != Method::FtL
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::RRome => "r-rome",
            Method::Rome => "rome",
            Method::FtL => "ft-l",
        })
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let named = Method::ALL.into_iter().find(|m| m.to_string() == text);
        named.ok_or_else(|| Error::Method {
            text: text.to_owned(),
        })
    }
}
