//! The result of tracing one fact with one kind of restoration.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::corruption::Direction;
use super::kind::{Kind, Severed};
use super::metric::Metric;
use super::paths::Paths;
use super::settings::Engine;
use crate::datasets::facts::Fact;

/// A token and its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// Its text alone. Bytes that are not whole characters show as replacement characters.
    pub text: String,
}

/// A prompt in the place of noise: what a fact was corrupted with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counterpart {
    /// The prompt.
    pub prompt: String,
    /// Its tokens, as many as the fact's.
    pub tokens: Vec<Token>,
}

/// One metric of a grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The metric.
    pub metric: Metric,
    /// Its value in the clean run.
    pub high: f64,
    /// Its mean over the corrupted rows.
    pub low: f64,
    /// Its mean over the rows of each cell, as [`Grid::scores`].
    pub scores: Vec<f64>,
}

/// A place in a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The restored token; none where all are restored at once.
    pub token: Option<usize>,
    /// The restored head, where heads are told apart.
    pub head: Option<usize>,
    /// The restored layer, or the middle of the restored window.
    pub layer: usize,
    /// The restored neuron, in grids of neurons.
    pub neuron: Option<u32>,
}

/// A cell of an estimated grid with its exact score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// Its token; 0 where every token is patched at once.
    pub token: usize,
    /// Its head, where heads are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<usize>,
    /// Its layer.
    pub layer: usize,
    /// Its neuron, where the grid is of neurons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neuron: Option<usize>,
    /// Whether chance chose it; else its estimate is one of the largest.
    pub random: bool,
    /// The exact scores: of the grid's metric, then of its readings in order.
    pub exact: Vec<f64>,
    /// The estimates likewise, of neurons, of which the grid shows the strongest alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub estimate: Vec<f64>,
}

impl Verified {
    /// The same in the metric of a reading alone.
    fn in_reading(&self, reading: usize) -> Self {
        let of = |scores: &[f64]| scores.get(reading + 1).copied().into_iter().collect();
        Self {
            exact: of(&self.exact),
            estimate: of(&self.estimate),
            ..self.clone()
        }
    }
}

/// How far each state of the corrupted run brings the answer back when it is restored; or, in the
/// other [`Direction`], how far each corrupted state takes it from the clean run.
///
/// As a trace gives it, scores are probabilities of [`Grid::answer`], in `[0, 1]`, or estimates of
/// them, which may lie outside; [`Grid::in_metric`] shows it in another metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// What was traced.
    pub fact: Fact,
    /// The state that each cell restores.
    pub kind: Kind,
    /// The sub-module that could not react, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severed: Option<Severed>,
    /// The paths along which each cell's head was patched; none where all that it acts on was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Paths>,
    /// Layers in a window of MLP or attention outputs.
    pub window: usize,
    /// The noise as a rule with every number known, such as `0.13462981581687927`; empty where
    /// another prompt corrupts.
    pub noise: String,
    /// That prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupted: Option<Counterpart>,
    /// Which run was patched.
    #[serde(default, skip_serializing_if = "is_default")]
    pub direction: Direction,
    /// How the scores were computed: [`Engine::estimate`] says what they are where they are not the
    /// exact ones.
    #[serde(default, skip_serializing_if = "is_default")]
    pub engine: Engine,
    /// Noise samples behind each corrupted number.
    pub samples: usize,
    /// Seed of the noise.
    pub seed: u32,
    /// Blocks of the model.
    pub layers: usize,
    /// Cells of a layer, at each token or over them all: its heads where they are told apart, else
    /// 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub heads: usize,
    /// The prompt as the model reads it.
    pub tokens: Vec<Token>,
    /// The subject's tokens `[b, e)`.
    pub subject: Range<usize>,
    /// Whether the answers were read whole, and not by their first token.
    #[serde(default, skip_serializing_if = "is_default")]
    pub whole_answers: bool,
    /// The most probable token after the clean prompt.
    pub answer: Token,
    /// The tokens of the answer behind that, where it was read whole: each the most probable one
    /// behind those before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answer_rest: Vec<Token>,
    /// Whether the answer is the fact's attribute; true for a fact without one. If not, nothing was
    /// traced: `low` is [`None`] and `scores` is empty.
    pub correct_prediction: bool,
    /// Why nothing was traced although the answer is the right one; none where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untraced: Option<String>,
    /// The token that the answer is compared with, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foil: Option<Token>,
    /// The tokens of the foil behind that, where it was read whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foil_rest: Vec<Token>,
    /// What `high`, `low` and `scores` are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metric: Metric,
    /// The metric in the clean run.
    pub high: f64,
    /// Its mean over the corrupted rows.
    pub low: Option<f64>,
    /// Its mean over the rows of each cell, `[tokens, layers]` row-major; of heads `[tokens, heads,
    /// layers]`, or over all tokens `[heads, layers]`.
    pub scores: Vec<f64>,
    /// The other metrics that were asked for, of the same cells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readings: Vec<Reading>,
    /// Of neurons, which one each cell is of, as [`Grid::scores`]: that with the largest estimated
    /// effect on the first metric asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neurons: Vec<u32>,
    /// Cells of an estimate that were patched exactly too:
    /// [`Verification::of`](super::Verification::of) sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<Verified>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The cells of a layer where none are said.
pub(super) fn one() -> usize {
    1
}

fn is_one(count: &usize) -> bool {
    *count == 1
}

impl Grid {
    /// The text of the answer.
    pub fn answer_text(&self) -> String {
        let rest = self.answer_rest.iter().map(|token| token.text.as_str());
        std::iter::once(self.answer.text.as_str())
            .chain(rest)
            .collect()
    }

    /// The text of the foil, where there is one.
    pub fn foil_text(&self) -> Option<String> {
        let rest = self.foil_rest.iter().map(|token| token.text.as_str());
        let first = self.foil.as_ref()?.text.as_str();
        Some(std::iter::once(first).chain(rest).collect())
    }

    /// Whether it has scores.
    pub fn traced(&self) -> bool {
        self.correct_prediction && self.untraced.is_none()
    }

    /// The grid with this metric in the place of its own; none where it has no such reading. A grid
    /// without scores is alike in all.
    pub fn in_metric(&self, metric: Metric) -> Option<Self> {
        if metric == self.metric {
            return Some(self.clone());
        }
        if self.scores.is_empty() {
            return Some(Self {
                metric,
                ..self.clone()
            });
        }
        let mut readings = self.readings.iter();
        let place = readings.position(|reading| reading.metric == metric)?;
        let reading = self.readings[place].clone();
        let verified = self.verified.iter().map(|cell| cell.in_reading(place));
        Some(Self {
            metric,
            high: reading.high,
            low: Some(reading.low),
            scores: reading.scores,
            readings: Vec::new(),
            verified: verified.collect(),
            ..self.clone()
        })
    }

    /// The first token at which the two runs differ: at those before it a cell changes nothing.
    /// None where there is no such token.
    pub fn first_difference(&self) -> Option<usize> {
        match &self.corrupted {
            Some(other) => {
                let mut tokens = self.tokens.iter().zip(&other.tokens);
                tokens.position(|(one, other)| one.id != other.id)
            }
            None => Some(self.subject.start),
        }
    }

    /// What a score is ordered by: how much of the effect that is looked for it shows.
    fn order(&self) -> f64 {
        self.direction.order(self.metric)
    }

    /// The effect behind a score: how much of the answer restoring brings back, `score - low`, or
    /// in noising takes away, `high - score`; the other way round in a metric that falls as the
    /// answer comes back. [`None`] when nothing was traced.
    pub fn effect(&self, score: f64) -> Option<f64> {
        let from = match self.direction {
            Direction::Denoising => self.low?,
            Direction::Noising => self.low.map(|_| self.high)?,
        };
        Some(self.order() * (score - from))
    }

    /// An effect as a share of the total effect: in denoising the recovery, 0 for corrupted and 1
    /// for clean; in noising 1 less it. [`None`] where the total effect is under
    /// [`Metric::least_total_effect`], and when nothing was traced.
    pub fn share(&self, effect: f64) -> Option<f64> {
        let total = self.total_effect()?;
        (total.abs() >= self.metric.least_total_effect()).then(|| effect / total)
    }

    /// The score of restoring `layer` at `token`; [`None`] outside the grid, when nothing was
    /// traced, and where heads are told apart.
    pub fn score(&self, token: usize, layer: usize) -> Option<f64> {
        match self.kind.is_of_heads() {
            true => None,
            false => self.head_score(token, 0, layer),
        }
    }

    /// The score of restoring one head of `layer` at `token`, or over all tokens, whose place is that
    /// of token 0; [`None`] outside the grid or when nothing was traced.
    pub fn head_score(&self, token: usize, head: usize, layer: usize) -> Option<f64> {
        if layer >= self.layers || head >= self.heads {
            return None;
        }
        let row = token * self.heads + head;
        self.scores.get(row * self.layers + layer).copied()
    }

    /// The scores of one token, one a layer, of one head after another where they are told apart;
    /// those of token 0 where all tokens are restored at once. [`None`] outside the grid or when
    /// nothing was traced.
    pub fn row(&self, token: usize) -> Option<&[f64]> {
        let width = self.heads * self.layers;
        self.scores.get(token * width..(token + 1) * width)
    }

    /// `high - low`: how much of the answer the corruption takes away; `low - high` in a metric
    /// that falls as the answer comes back.
    pub fn total_effect(&self) -> Option<f64> {
        self.low.map(|low| self.metric.sign() * (self.high - low))
    }

    /// The sizes of the scores, outermost first.
    pub fn shape(&self) -> Vec<usize> {
        let tokens = (!self.kind.is_over_tokens()).then_some(self.tokens.len());
        let heads = self.kind.is_of_heads().then_some(self.heads);
        tokens
            .into_iter()
            .chain(heads)
            .chain([self.layers])
            .collect()
    }

    /// The cell with the highest effect, the first one of equals, and its score.
    pub fn peak(&self) -> Option<(Cell, f64)> {
        let (mut best, order): (Option<(usize, f64)>, f64) = (None, self.order());
        for (cell, &score) in self.scores.iter().enumerate() {
            if best.is_none_or(|(_, highest)| order * score > order * highest) {
                best = Some((cell, score));
            }
        }
        let (of_heads, over_tokens) = (self.kind.is_of_heads(), self.kind.is_over_tokens());
        best.map(|(at, score)| {
            let (row, layer) = (at / self.layers, at % self.layers);
            let cell = Cell {
                token: (!over_tokens).then_some(row / self.heads),
                head: of_heads.then_some(row % self.heads),
                layer,
                neuron: self.neurons.get(at).copied(),
            };
            (cell, score)
        })
    }

    /// Kind, severed path, paths, metric, direction, answers and engine, as messages name them: `mlp`,
    /// `hidden with mlp severed`, `mlp, rank, noising`, `attn, first-order estimate`.
    pub fn measure(&self) -> String {
        let mut text = match self.severed {
            Some(severed) => format!("{} with {severed} severed", self.kind),
            None => self.kind.to_string(),
        };
        if let Some(paths) = &self.paths {
            text += &format!(" {paths}");
        }
        if self.metric != Metric::Probability {
            text += &format!(", {}", self.metric);
        }
        if self.direction != Direction::Denoising {
            text += &format!(", {}", self.direction);
        }
        if self.whole_answers {
            text += ", whole answers";
        }
        if self.engine != Engine::Exact {
            text += &format!(", {}", self.engine.estimate().unwrap_or("plain".to_owned()));
        }
        text
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
            paths: None,
            window: 10,
            noise: "0.1".into(),
            corrupted: None,
            direction: Direction::Denoising,
            engine: Engine::Exact,
            samples: 10,
            seed: 1,
            layers: scores[0].len(),
            heads: 1,
            tokens: (0..scores.len() as u32)
                .map(|id| Token {
                    id,
                    text: id.to_string(),
                })
                .collect(),
            subject,
            whole_answers: false,
            answer: Token {
                id: 0,
                text: " a".into(),
            },
            answer_rest: Vec::new(),
            correct_prediction: true,
            untraced: None,
            foil: None,
            foil_rest: Vec::new(),
            metric: Metric::Probability,
            high,
            low: Some(low),
            scores: scores.concat(),
            readings: Vec::new(),
            neurons: Vec::new(),
            verified: Vec::new(),
        }
    }

    #[test]
    fn cells_are_addressed_by_token_and_layer() {
        let grid = grid(0..1, 0.9, 0.1, &[&[0.1, 0.2], &[0.3, 0.7], &[0.7, 0.5]]);
        assert_eq!(grid.score(1, 0), Some(0.3));
        assert_eq!(grid.score(0, 2), None);
        assert_eq!(grid.score(3, 0), None);
        assert_eq!(grid.row(2), Some([0.7, 0.5].as_slice()));
        assert_eq!(grid.peak(), Some((at(1, 1), 0.7)));
        assert_eq!(grid.total_effect(), Some(0.9 - 0.1));
    }

    fn at(token: usize, layer: usize) -> Cell {
        Cell {
            token: Some(token),
            head: None,
            layer,
            neuron: None,
        }
    }

    const ROWS: [&[f64]; 2] = [&[0.1, 0.2, 0.3, 0.4], &[0.5, 0.6, 0.9, 0.8]];

    /// Two tokens, heads and layers, the highest score at the second token's second head in layer 0.
    pub(crate) fn of_heads() -> Grid {
        Grid {
            kind: Kind::Head,
            layers: 2,
            heads: 2,
            ..grid(0..1, 0.9, 0.1, &ROWS)
        }
    }

    #[test]
    fn cells_of_heads_are_addressed_by_their_head_too() {
        let by_token = of_heads();
        assert_eq!(by_token.head_score(1, 1, 0), Some(0.9));
        assert_eq!(by_token.head_score(1, 2, 0), None);
        assert_eq!(by_token.score(1, 0), None);
        assert_eq!(by_token.row(1), Some(ROWS[1]));
        let highest = Cell {
            token: Some(1),
            head: Some(1),
            layer: 0,
            neuron: None,
        };
        assert_eq!(by_token.peak(), Some((highest, 0.9)));
        let text = serde_json::to_string(&by_token).unwrap();
        assert_eq!(serde_json::from_str::<Grid>(&text).unwrap(), by_token);
        let over_all = Grid {
            kind: Kind::HeadAll,
            heads: 4,
            ..by_token
        };
        let highest = Cell {
            token: None,
            head: Some(3),
            layer: 0,
            neuron: None,
        };
        assert_eq!(over_all.peak(), Some((highest, 0.9)));
        assert_eq!(over_all.row(0).map(<[f64]>::len), Some(8));
    }

    #[test]
    fn effects_point_to_what_is_looked_for_in_every_metric_and_direction() {
        let probability = grid(0..1, 0.9, 0.1, &[&[0.1, 0.5], &[0.9, 0.3]]);
        assert_eq!(probability.effect(0.5), Some(0.4));
        assert_eq!(probability.share(0.4), Some(0.5));
        let whole = Grid {
            readings: vec![Reading {
                metric: Metric::Kl,
                high: 0.0,
                low: 2.0,
                scores: vec![2.0, 0.5, 1.0, 3.0],
            }],
            ..probability
        };
        let kl = whole.in_metric(Metric::Kl).unwrap();
        assert_eq!(kl.total_effect(), Some(2.0));
        assert_eq!(kl.peak(), Some((at(0, 1), 0.5)));
        assert_eq!(kl.effect(0.5), Some(1.5));
        let noising = Grid {
            direction: Direction::Noising,
            ..kl
        };
        assert_eq!(noising.peak(), Some((at(1, 1), 3.0)));
        assert_eq!(noising.effect(3.0), Some(3.0));
        assert!(whole.in_metric(Metric::Rank).is_none());
    }

    #[test]
    fn a_share_of_a_small_total_effect_is_not_defined() {
        let small = grid(0..1, 0.14, 0.1, &[&[0.12]]);
        assert_eq!(small.share(0.02), None);
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
