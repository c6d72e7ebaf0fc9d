//! Figures of causal tracing, as SVG and in the terminal.
//!
//! The inputs are plain values, so that a figure can be drawn from a result in memory, from a
//! stored one, or from numbers of any other origin:
//!
//! | figure | input | SVG | terminal |
//! |---|---|---|---|
//! | effect of restoring each token and layer (paper, figure 1e-g) | [`HeatMap`] | [`HeatMap::to_svg`] | [`HeatMap::to_terminal`] |
//! | the same averaged over facts, by role of token (figure 2a-c) | [`HeatMap::average`] | the same | the same |
//! | mean effect by layer with 95 % bands (figures 2 and 3) | [`Curves`] | [`Curves::to_svg`] | [`Curves::to_terminal`] |
//! | several of these in one (figures 1 and 2) | [`Panels`] | [`Panels::to_svg`] | [`Panels::to_terminal`] |
//! | lists | [`table::Table`] | | [`table::Table::render`] |
//!
//! A value that is not a finite number is never drawn as a colour or a point: it is hatched (SVG)
//! or marked `?` (terminal), and counted below the figure.
//!
//! "The paper" is Meng, Bau, Andonian, Belinkov, *Locating and Editing Factual Associations in GPT*
//! (NeurIPS 2022).

pub mod axis;
mod curves;
mod error;
mod heatmap;
pub mod history;
mod palette;
mod panels;
mod svg;
pub mod table;
mod terminal;
pub mod text;

use std::ops::Range;

pub use error::Error;
pub use panels::{Panel, Panels};
pub use terminal::{Colour, terminal_width};

/// What was restored; it decides the colours: purple, green, red.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The output of a block.
    Hidden,
    /// The outputs of the MLPs in a window of layers.
    Mlp,
    /// The outputs of the attentions in a window of layers.
    Attn,
}

impl Kind {
    /// The kind's name in the paper's titles.
    fn name(self) -> &'static str {
        match self {
            Kind::Hidden => "state",
            Kind::Mlp => "MLP",
            Kind::Attn => "Attn",
        }
    }
}

/// A grid of values, tokens (or roles of tokens) down and layers across.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// The line above the grid.
    pub title: String,
    /// The line below the layer numbers.
    pub x_label: String,
    /// What the colours measure, written at the colour bar: `p(Seattle)`, `AIE`.
    pub value_label: String,
    /// Texts of the tokens (or names of their roles), first to last.
    pub rows: Vec<String>,
    /// Rows of the subject, marked with `*`.
    pub starred: Range<usize>,
    /// Number of layers.
    pub layers: usize,
    /// The values, `[rows, layers]`, row by row.
    pub scores: Vec<f32>,
    /// What was restored.
    pub kind: Kind,
    /// Floor of the colour scale: what is here or below is drawn palest. For the trace of one fact
    /// it is the answer's probability in the corrupted run, for averaged effects 0.
    pub low: f32,
    /// Whether values below `low` are drawn in a ramp of their own, and not like `low` as in the
    /// published figures. The scale then reaches as far to one side of it as to the other.
    pub signed: bool,
    /// The answer's probability in the clean run, told below the grid. It does not set the scale.
    pub high: Option<f32>,
    /// Top of the colour scale; the highest value of the grid if none is given, as in the published
    /// figures. Give one to make several grids comparable.
    pub ceiling: Option<f32>,
}

/// What decides the trace of one fact; see [`HeatMap::trace`].
#[derive(Clone, Debug, PartialEq)]
pub struct Trace<'a> {
    /// Texts of the prompt's tokens.
    pub tokens: &'a [String],
    /// The subject's tokens.
    pub subject: Range<usize>,
    /// Number of layers.
    pub layers: usize,
    /// p(answer) with each state restored, `[tokens, layers]`, row by row.
    pub scores: &'a [f32],
    /// What was restored.
    pub kind: Kind,
    /// Layers restored together for [`Kind::Mlp`] and [`Kind::Attn`].
    pub window: usize,
    /// p(answer) in the corrupted run.
    pub low: f32,
    /// p(answer) in the clean run.
    pub high: f32,
    /// Text of the answer.
    pub answer: &'a str,
    /// Name of the model, for the axis.
    pub model: &'a str,
}

impl HeatMap {
    /// The trace of one fact with the paper's titles (figure 1e-g).
    pub fn trace(trace: Trace<'_>) -> Self {
        let kind = trace.kind.name();
        HeatMap {
            title: format!("Impact of restoring {kind} after corrupted input"),
            x_label: match trace.kind {
                Kind::Hidden => format!("single restored layer within {}", trace.model),
                _ => format!(
                    "center of interval of {} restored {kind} layers",
                    trace.window
                ),
            },
            value_label: format!("p({})", trace.answer.trim()),
            rows: trace.tokens.to_vec(),
            starred: trace.subject,
            layers: trace.layers,
            scores: trace.scores.to_vec(),
            kind: trace.kind,
            low: trace.low,
            signed: false,
            high: Some(trace.high),
            ceiling: None,
        }
    }

    /// Average indirect effects, `[roles, layers]` row by row, from 0 (figure 2a-c).
    pub fn average(kind: Kind, roles: &[&str], layers: usize, effects: &[f32]) -> Self {
        HeatMap {
            title: match kind {
                Kind::Hidden => "Average indirect effect of a single state".into(),
                _ => format!("Average indirect effect of the {} window", kind.name()),
            },
            x_label: match kind {
                Kind::Hidden => "restored layer".into(),
                _ => format!("center of the restored {} layers", kind.name()),
            },
            value_label: "AIE".into(),
            rows: roles.iter().map(|&role| role.to_owned()).collect(),
            starred: 0..0,
            layers,
            scores: effects.to_vec(),
            kind,
            low: 0.0,
            signed: false,
            high: None,
            ceiling: None,
        }
    }

    /// The values fill the grid, the starred rows exist and the scale has finite bounds.
    fn validate(&self) -> Result<(), Error> {
        let figure = "heat map";
        if self.rows.is_empty() {
            return Err(Error::Empty {
                figure,
                axis: "rows",
            });
        }
        if self.layers == 0 {
            return Err(Error::Empty {
                figure,
                axis: "layers",
            });
        }
        let expected = self.rows.len() * self.layers;
        if self.scores.len() != expected {
            return Err(Error::Shape {
                field: "scores".into(),
                expected,
                found: self.scores.len(),
                why: format!("{} rows x {} layers", self.rows.len(), self.layers),
            });
        }
        let Range { start, end } = self.starred;
        if start > end || end > self.rows.len() {
            return Err(Error::Starred {
                start,
                end,
                rows: self.rows.len(),
            });
        }
        let bounds = [
            ("low", Some(self.low)),
            ("high", self.high),
            ("ceiling", self.ceiling),
        ];
        for (field, bound) in bounds {
            if let Some(value) = bound.filter(|v| !v.is_finite()) {
                return Err(Error::NotFinite { field, value });
            }
        }
        Ok(())
    }

    /// A row as it is written at the axis.
    fn label(&self, row: usize) -> String {
        let star = if self.starred.contains(&row) { "*" } else { "" };
        format!("{}{star}", text::label(&self.rows[row]))
    }

    /// `p(Seattle): clean 0.976, corrupted 0.0262`, where there is a clean value.
    fn baselines(&self) -> Option<String> {
        let (high, low) = (f64::from(self.high?), f64::from(self.low));
        let label = text::truncate(&text::visible(&self.value_label), 32);
        Some(format!(
            "{label}: clean {}, corrupted {}",
            axis::number(high),
            axis::number(low)
        ))
    }

    /// How many values are not numbers, in words, where there are any.
    fn gaps(&self) -> Option<String> {
        gaps(self.scores.iter())
    }
}

/// Curves over layers, or over what else is counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Curves {
    /// The line above the plot.
    pub title: String,
    /// What is counted from left to right.
    pub across: Across,
    /// The line below its numbers.
    pub x_label: String,
    /// What the curves measure.
    pub y_label: String,
    /// The curves, in the legend's order. All have as many points as the first.
    pub series: Vec<Series>,
}

/// What curves run over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Across {
    /// Layers, from 0.
    Layers,
    /// Something that is counted.
    Counted {
        /// One of it, in a word.
        what: &'static str,
        /// How many there are at each point. The points stand equally far from each other.
        numbers: Vec<usize>,
    },
}

impl Across {
    fn what(&self) -> &'static str {
        match self {
            Self::Layers => "layer",
            Self::Counted { what, .. } => what,
        }
    }

    /// What stands below a point.
    fn label(&self, point: usize) -> String {
        match self {
            Self::Layers => point.to_string(),
            Self::Counted { numbers, .. } => {
                numbers.get(point).map_or(String::new(), usize::to_string)
            }
        }
    }
}

/// One curve: a mean at every layer, or at every point of what else is counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Mean at every layer.
    pub mean: Vec<f32>,
    /// Half the width of the 95 % interval at every layer; empty for a curve without a band.
    pub half_width: Vec<f32>,
    /// Draws the curve in the colour of a kind; without one, curves are told apart by colour and
    /// by dashes.
    pub kind: Option<Kind>,
}

impl Curves {
    /// Layers across.
    fn layers(&self) -> usize {
        self.series.first().map_or(0, |s| s.mean.len())
    }

    fn validate(&self) -> Result<(), Error> {
        let figure = "curves";
        if self.series.is_empty() {
            return Err(Error::Empty {
                figure,
                axis: "series",
            });
        }
        let layers = self.layers();
        if layers == 0 {
            return Err(Error::Empty {
                figure,
                axis: "layers",
            });
        }
        for series in &self.series {
            let wrong = |part: &str, found: usize| Error::Shape {
                field: format!("{part} of series {:?}", series.name),
                expected: layers,
                found,
                why: "one a layer, as many as the first series has".into(),
            };
            if series.mean.len() != layers {
                return Err(wrong("mean", series.mean.len()));
            }
            if !series.half_width.is_empty() && series.half_width.len() != layers {
                return Err(wrong("half_width", series.half_width.len()));
            }
        }
        Ok(())
    }

    /// How many means are not numbers, in words, where there are any.
    fn gaps(&self) -> Option<String> {
        gaps(self.series.iter().flat_map(|s| &s.mean))
    }
}

fn gaps<'a>(values: impl Iterator<Item = &'a f32>) -> Option<String> {
    match values.filter(|v| !v.is_finite()).count() {
        0 => None,
        1 => Some("1 value is not a number".into()),
        n => Some(format!("{n} values are not numbers")),
    }
}
