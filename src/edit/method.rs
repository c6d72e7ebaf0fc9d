//! How a fact is rewritten.

use std::fmt;
use std::str::FromStr;

use super::Error;

/// A method of editing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// ROME with one key in all its places (Gupta et al. 2024): single edits do not wreck a model
    /// that is edited again and again.
    #[default]
    RRome,
    /// ROME as published (Meng et al. 2022): the update is scaled by the bare prompt's key.
    Rome,
    /// Constrained fine-tuning of the one matrix (FT+L; Zhu et al. 2020): the baseline.
    FtL,
    /// Many facts over several layers, against what ordinary keys read (Meng et al. 2023).
    Memit,
    /// Many facts in the directions that ordinary keys hardly use (Fang et al. 2025).
    AlphaEdit,
    /// Many facts, each kept nearly as an equality (Gupta et al. 2024).
    Emmet,
    /// MEMIT that leaves earlier edits alone and bounds its norm (Gupta et al. 2025).
    Encore,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 7] = [
        Method::RRome,
        Method::Rome,
        Method::FtL,
        Method::Memit,
        Method::AlphaEdit,
        Method::Emmet,
        Method::Encore,
    ];

    /// Those that write one fact at a time.
    pub const SINGLE: [Method; 3] = [Method::RRome, Method::Rome, Method::FtL];

    /// Those that write many facts at once.
    pub const MASS: [Method; 4] = [
        Method::Memit,
        Method::AlphaEdit,
        Method::Emmet,
        Method::Encore,
    ];

    /// Whether it needs key statistics.
    pub fn needs_statistics(self) -> bool {
        self != Method::FtL
    }

    /// Whether it writes many facts at once.
    pub fn is_mass(self) -> bool {
        Self::MASS.contains(&self)
    }

    /// Whether it leaves alone what the keys of earlier edits read, so that its edits keep theirs.
    pub fn keeps_keys(self) -> bool {
        matches!(self, Method::AlphaEdit | Method::Encore)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::RRome => "r-rome",
            Method::Rome => "rome",
            Method::FtL => "ft-l",
            Method::Memit => "memit",
            Method::AlphaEdit => "alphaedit",
            Method::Emmet => "emmet",
            Method::Encore => "encore",
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
