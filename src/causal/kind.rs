//! Which state a cell restores, and over which layers.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::Error;

/// The state that a cell of a grid puts back to its clean value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The output of one block: the residual stream behind it.
    Hidden,
    /// The output of the MLP sub-module in every layer of a window.
    Mlp,
    /// The output of the attention sub-module in every layer of a window.
    Attn,
    /// The input of one block: the residual stream before it.
    ResidPre,
    /// The residual stream between a block's attention and its MLP, in families that add the two
    /// one after the other.
    ResidMid,
}

impl Kind {
    /// All kinds, in the order in which results list them.
    pub const ALL: [Kind; 5] = [
        Kind::Hidden,
        Kind::Mlp,
        Kind::Attn,
        Kind::ResidPre,
        Kind::ResidMid,
    ];
    /// Those of the paper, which are traced where none are named.
    pub const PUBLISHED: [Kind; 3] = [Kind::Hidden, Kind::Mlp, Kind::Attn];

    /// Whether it is restored over a window of layers.
    pub fn is_windowed(self) -> bool {
        matches!(self, Kind::Mlp | Kind::Attn)
    }

    /// The layers that cell `layer` of a model with `layers` blocks restores: the layer itself for
    /// what is restored alone, else `[layer - width/2, layer + ceil(width/2))` cut to the model.
    pub fn window(self, layer: usize, layers: usize, width: usize) -> Range<usize> {
        match self.is_windowed() {
            false => layer..layer + 1,
            true => layer.saturating_sub(width / 2)..layers.min(layer + width.div_ceil(2)),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Hidden => "hidden",
            Kind::Mlp => "mlp",
            Kind::Attn => "attn",
            Kind::ResidPre => "resid_pre",
            Kind::ResidMid => "resid_mid",
        })
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut kinds = Kind::ALL.into_iter();
        kinds
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| Error::Kind {
                text: text.to_owned(),
                known: Kind::ALL.map(|kind| kind.to_string()).join(", "),
            })
    }
}

/// The sub-module that may not react to a restored block output (paper, figure 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severed {
    /// Every MLP output at the restored token stays as in the corrupted run.
    Mlp,
    /// Every attention output at the restored token stays as in the corrupted run.
    Attn,
}

impl fmt::Display for Severed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severed::Mlp => "mlp",
            Severed::Attn => "attn",
        })
    }
}

impl FromStr for Severed {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "mlp" => Ok(Severed::Mlp),
            "attn" => Ok(Severed::Attn),
            _ => Err(Error::Severed {
                text: text.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_ten_reaches_from_five_below_to_four_above() {
        assert_eq!(Kind::Mlp.window(17, 48, 10), 12..22);
        assert_eq!(Kind::Mlp.window(0, 48, 10), 0..5);
        assert_eq!(Kind::Attn.window(47, 48, 10), 42..48);
        assert_eq!(Kind::Attn.window(3, 48, 1), 3..4);
        assert_eq!(Kind::Mlp.window(3, 48, 3), 2..5);
        assert_eq!(Kind::Mlp.window(1, 4, 10), 0..4);
        assert_eq!(Kind::Hidden.window(7, 48, 10), 7..8);
    }

    #[test]
    fn names_read_back() {
        for kind in Kind::ALL {
            assert_eq!(
                kind.to_string().parse::<Kind>().map_err(|e| e.to_string()),
                Ok(kind)
            );
        }
        for severed in [Severed::Mlp, Severed::Attn] {
            assert_eq!(
                severed
                    .to_string()
                    .parse::<Severed>()
                    .map_err(|e| e.to_string()),
                Ok(severed)
            );
        }
    }

    #[test]
    fn an_unknown_kind_names_the_text_and_what_is_allowed() {
        let error = "mpl".parse::<Kind>().unwrap_err().to_string();
        assert!(
            error.contains("`mpl`") && error.contains("hidden, mlp, attn"),
            "{error}"
        );
    }
}
