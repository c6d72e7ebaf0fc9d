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
    /// What one attention head gives, its weighted sum of values before the output projection.
    Head,
    /// The same at every token at once.
    HeadAll,
    /// The query of one attention head, after rotary: how its token is spread over those before.
    HeadQ,
    /// The same at every token at once.
    HeadQAll,
    /// The key of one key-value head, after rotary: which all tokens behind see.
    HeadK,
    /// The same at every token at once.
    HeadKAll,
    /// The value of one key-value head: which all tokens behind see.
    HeadV,
    /// The same at every token at once.
    HeadVAll,
    /// The pattern of one attention head, behind the softmax, of one token to all before it.
    HeadPattern,
    /// The same of every token at once.
    HeadPatternAll,
    /// A neuron of an MLP: one input of its second matrix, in whose space an edit has its key. There
    /// are too many for a cell each: a cell is the one with the largest estimated effect there.
    Neuron,
}

/// A part of an attention head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Its sum of values, weighted by its pattern, before the output projection.
    Output,
    /// Its query.
    Query,
    /// The key that it shares with the heads of its group.
    Key,
    /// Their value.
    Value,
    /// Its pattern.
    Pattern,
}

impl Kind {
    /// All kinds, in the order in which results list them.
    pub const ALL: [Kind; 16] = [
        Kind::Hidden,
        Kind::Mlp,
        Kind::Attn,
        Kind::ResidPre,
        Kind::ResidMid,
        Kind::Head,
        Kind::HeadAll,
        Kind::HeadQ,
        Kind::HeadQAll,
        Kind::HeadK,
        Kind::HeadKAll,
        Kind::HeadV,
        Kind::HeadVAll,
        Kind::HeadPattern,
        Kind::HeadPatternAll,
        Kind::Neuron,
    ];
    /// Those of the paper, which are traced where none are named.
    pub const PUBLISHED: [Kind; 3] = [Kind::Hidden, Kind::Mlp, Kind::Attn];

    /// Whether it is restored over a window of layers.
    pub fn is_windowed(self) -> bool {
        matches!(self, Kind::Mlp | Kind::Attn)
    }

    /// Whether it is the whole residual stream of a token, from which alone all that comes after at
    /// that token follows.
    pub fn is_residual(self) -> bool {
        matches!(self, Kind::Hidden | Kind::ResidPre | Kind::ResidMid)
    }

    /// The part of a head that a cell restores, and the kind that restores it at every token;
    /// [`None`] where a cell is of a whole layer.
    pub fn of_head(self) -> Option<(Part, Kind)> {
        match self {
            Kind::Hidden
            | Kind::Mlp
            | Kind::Attn
            | Kind::ResidPre
            | Kind::ResidMid
            | Kind::Neuron => None,
            Kind::Head | Kind::HeadAll => Some((Part::Output, Kind::HeadAll)),
            Kind::HeadQ | Kind::HeadQAll => Some((Part::Query, Kind::HeadQAll)),
            Kind::HeadK | Kind::HeadKAll => Some((Part::Key, Kind::HeadKAll)),
            Kind::HeadV | Kind::HeadVAll => Some((Part::Value, Kind::HeadVAll)),
            Kind::HeadPattern | Kind::HeadPatternAll => Some((Part::Pattern, Kind::HeadPatternAll)),
        }
    }

    /// Whether a cell is of one attention head of a layer, and not of the whole layer.
    pub fn is_of_heads(self) -> bool {
        self.of_head().is_some()
    }

    /// Whether a cell restores every token at once, and not one of them.
    pub fn is_over_tokens(self) -> bool {
        self.of_head().is_some_and(|(_, over_all)| self == over_all)
    }

    /// Whether tokens behind the restored one see it in the same block already.
    pub fn is_seen_behind(self) -> bool {
        let part = self.of_head().map(|(part, _)| part);
        self == Kind::ResidPre || matches!(part, Some(Part::Key | Part::Value))
    }

    /// Cells of a layer of a model with `heads` attention heads, which share `kv_heads` keys and
    /// values, at each token or over them all.
    pub fn heads(self, heads: usize, kv_heads: usize) -> usize {
        match self.of_head() {
            None => 1,
            Some((Part::Key | Part::Value, _)) => kv_heads,
            Some(_) => heads,
        }
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
            Kind::Head => "head",
            Kind::HeadAll => "head_all",
            Kind::HeadQ => "head_q",
            Kind::HeadQAll => "head_q_all",
            Kind::HeadK => "head_k",
            Kind::HeadKAll => "head_k_all",
            Kind::HeadV => "head_v",
            Kind::HeadVAll => "head_v_all",
            Kind::HeadPattern => "head_pattern",
            Kind::HeadPatternAll => "head_pattern_all",
            Kind::Neuron => "neuron",
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
