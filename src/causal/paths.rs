//! Paths from the heads of a grid into other heads (Wang et al. 2022, Goldowsky-Dill et al. 2023).
//!
//! A head acts on all that comes after it. Path patching asks for one way among these: a head's
//! output is put in, every other head is held at what it gives in the run that is patched, and what
//! then reaches chosen queries, keys or values is put into the run that is patched, alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::Error;

/// Which input of a head a path ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Input {
    /// Its query.
    Query,
    /// The key that it shares with the heads of its group.
    Key,
    /// Their value.
    Value,
}

impl Input {
    const ALL: [Input; 3] = [Input::Query, Input::Key, Input::Value];

    /// As it is written: `q`, `k` or `v`.
    pub fn letter(self) -> &'static str {
        match self {
            Input::Query => "q",
            Input::Key => "k",
            Input::Value => "v",
        }
    }
}

/// Where paths end: an input of one head, written `9.6.q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Receiver {
    /// The layer.
    pub layer: usize,
    /// The head; of keys and values the key-value head.
    pub head: usize,
    /// Which of its inputs.
    pub input: Input,
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.layer, self.head, self.input.letter())
    }
}

impl FromStr for Receiver {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let mut parts = text.trim().split('.');
            let (layer, head, letter) = (parts.next()?, parts.next()?, parts.next()?);
            let mut inputs = Input::ALL.into_iter();
            let receiver = Receiver {
                layer: layer.parse().ok()?,
                head: head.parse().ok()?,
                input: inputs.find(|input| input.letter() == letter)?,
            };
            parts.next().is_none().then_some(receiver)
        };
        read().ok_or_else(|| Error::Receiver {
            text: text.to_owned(),
        })
    }
}

/// The paths that a grid of heads is patched along: from the head of each cell into all of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Where they end. A cell at or above the layer of all of them has no effect.
    pub receivers: Vec<Receiver>,
    /// Whether the MLPs between are held as the heads are, which leaves the direct paths; else they
    /// react to what comes by.
    pub frozen_mlps: bool,
}

impl Paths {
    /// The layer of the highest receiver.
    pub fn highest(&self) -> usize {
        let layers = self.receivers.iter().map(|receiver| receiver.layer);
        layers.max().unwrap_or(0)
    }
}

/// Receivers that messages and titles name.
const SHOWN: usize = 4;

impl fmt::Display for Paths {
    /// As titles say it: `into 9.6.q, 9.9.q`, `directly into 9.6.q`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.receivers.iter().take(SHOWN).map(Receiver::to_string);
        let shown = shown.collect::<Vec<_>>().join(", ");
        let directly = if self.frozen_mlps { "directly " } else { "" };
        write!(f, "{directly}into {shown}")?;
        match self.receivers.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_read_back() {
        let receiver: Receiver = "9.6.q".parse().unwrap();
        let expected = Receiver {
            layer: 9,
            head: 6,
            input: Input::Query,
        };
        assert_eq!(receiver, expected);
        for text in ["0.0.k", "29.2.v"] {
            assert_eq!(text.parse::<Receiver>().unwrap().to_string(), text);
        }
        for text in ["", "9.6", "9.6.x", "9.6.q.1", "-1.6.q", "9,6,q"] {
            let error = text.parse::<Receiver>().unwrap_err().to_string();
            assert!(error.contains("LAYER.HEAD.q"), "{error}");
        }
    }

    #[test]
    fn paths_say_where_they_end() {
        let paths = Paths {
            receivers: ["7.2.q", "3.0.v", "5.1.k"]
                .map(|it| it.parse().unwrap())
                .to_vec(),
            frozen_mlps: false,
        };
        assert_eq!(paths.highest(), 7);
        assert_eq!(paths.to_string(), "into 7.2.q, 3.0.v, 5.1.k");
        let many = Paths {
            receivers: paths.receivers.repeat(2),
            frozen_mlps: true,
        };
        let shown = "directly into 7.2.q, 3.0.v, 5.1.k, 7.2.q and 2 more";
        assert_eq!(many.to_string(), shown);
    }
}
