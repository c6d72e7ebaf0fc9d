//! The result of tracing one fact with one kind of restoration.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::kind::{Kind, Severed};
use crate::datasets::facts::Fact;

/// A token and its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// Its text alone. Bytes that are not whole characters show as replacement characters.
    pub text: String,
}

/// How far each state of the corrupted run brings the answer back when it is restored.
///
/// All scores are probabilities of [`Grid::answer`], in `[0, 1]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// What was traced.
    pub fact: Fact,
    /// The state that each cell restores.
    pub kind: Kind,
    /// The sub-module that could not react, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severed: Option<Severed>,
    /// Layers in a window of MLP or attention outputs.
    pub window: usize,
    /// The noise as a rule with every number known, such as `0.13462981581687927`.
    pub noise: String,
    /// Noise samples behind each corrupted number.
    pub samples: usize,
    /// Seed of the noise.
    pub seed: u32,
    /// Blocks of the model.
    pub layers: usize,
    /// The prompt as the model reads it.
    pub tokens: Vec<Token>,
    /// The subject's tokens `[b, e)`.
    pub subject: Range<usize>,
    /// The most probable token after the clean prompt.
    pub answer: Token,
    /// Whether the answer is the fact's attribute; true for a fact without one. If not, nothing was
    /// traced: `low` is [`None`] and `scores` is empty.
    pub correct_prediction: bool,
    /// Probability of the answer in the clean run.
    pub high: f64,
    /// Mean probability of the answer over the corrupted rows.
    pub low: Option<f64>,
    /// Mean probability of the answer over the rows of each cell, `[tokens, layers]` row-major.
    pub scores: Vec<f64>,
}

impl Grid {
    /// The score of restoring `layer` at `token`; [`None`] outside the grid or when nothing was
    /// traced.
    pub fn score(&self, token: usize, layer: usize) -> Option<f64> {
        if layer >= self.layers {
            return None;
        }
        self.scores.get(token * self.layers + layer).copied()
    }

    /// The scores of one token, one a layer; [`None`] outside the grid or when nothing was traced.
    pub fn row(&self, token: usize) -> Option<&[f64]> {
        self.scores
            .get(token * self.layers..(token + 1) * self.layers)
    }

    /// `high - low`: how much of the answer's probability the corruption takes away.
    pub fn total_effect(&self) -> Option<f64> {
        self.low.map(|low| self.high - low)
    }

    /// The cell with the highest score, `(token, layer, score)`: the first one of equals.
    pub fn peak(&self) -> Option<(usize, usize, f64)> {
        let mut best: Option<(usize, f64)> = None;
        for (cell, &score) in self.scores.iter().enumerate() {
            if best.is_none_or(|(_, highest)| score > highest) {
                best = Some((cell, score));
            }
        }
        best.map(|(cell, score)| (cell / self.layers, cell % self.layers, score))
    }

    /// Kind and severed path, as messages name them: `mlp`, `hidden with mlp severed`.
    pub fn measure(&self) -> String {
        match self.severed {
            Some(severed) => format!("{} with {severed} severed", self.kind),
            None => self.kind.to_string(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A traced grid with the given `[tokens][layers]` scores.
    pub(crate) fn grid(subject: Range<usize>, high: f64, low: f64, scores: &[&[f64]]) -> Grid {
        Grid {
            fact: Fact {
                prompt: "p".into(),
                subject: "s".into(),
                ..Fact::default()
            },
            kind: Kind::Mlp,
            severed: None,
            window: 10,
            noise: "0.1".into(),
            samples: 10,
            seed: 1,
            layers: scores[0].len(),
            tokens: (0..scores.len() as u32)
                .map(|id| Token {
                    id,
                    text: id.to_string(),
                })
                .collect(),
            subject,
            answer: Token {
                id: 0,
                text: " a".into(),
            },
            correct_prediction: true,
            high,
            low: Some(low),
            scores: scores.concat(),
        }
    }

    #[test]
    fn cells_are_addressed_by_token_and_layer() {
        let grid = grid(0..1, 0.9, 0.1, &[&[0.1, 0.2], &[0.3, 0.7], &[0.7, 0.5]]);
        assert_eq!(grid.score(1, 0), Some(0.3));
        assert_eq!(grid.score(0, 2), None);
        assert_eq!(grid.score(3, 0), None);
        assert_eq!(grid.row(2), Some([0.7, 0.5].as_slice()));
        assert_eq!(grid.peak(), Some((1, 1, 0.7)));
        assert_eq!(grid.total_effect(), Some(0.9 - 0.1));
    }

    #[test]
    fn a_grid_survives_json() {
        let grid = grid(
            0..1,
            0.9,
            0.1,
            &[&[0.1, 1.0 / 3.0], &[f64::from(0.3f32), 0.7]],
        );
        let text = serde_json::to_string(&grid).unwrap();
        assert_eq!(serde_json::from_str::<Grid>(&text).unwrap(), grid);
    }
}
