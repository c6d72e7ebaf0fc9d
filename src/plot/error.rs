//! What is wrong with a figure's input.

/// A figure that cannot be drawn, and what to change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A figure with no rows, no layers or no series.
    #[error("the {figure} has no {axis}: give at least one")]
    Empty {
        /// Which figure: "heat map", "curves".
        figure: &'static str,
        /// What it has none of: "rows", "layers", "series".
        axis: &'static str,
    },
    /// The values do not fill the axes.
    #[error("{field} holds {found} values where {expected} are needed ({why})")]
    Shape {
        /// The input field, with the series' name where there is one.
        field: String,
        /// The count that fits the axes.
        expected: usize,
        /// The count that was given.
        found: usize,
        /// How the expected count comes about.
        why: String,
    },
    /// The starred rows are not rows of the heat map.
    #[error(
        "starred is {start}..{end} but the heat map has {rows} rows: give a range within 0..{rows}"
    )]
    Starred {
        /// First starred row.
        start: usize,
        /// One past the last starred row.
        end: usize,
        /// Rows of the heat map.
        rows: usize,
    },
    /// A bound of the colour scale that is not a finite number.
    #[error("{field} is {value}: the colour scale needs a finite number")]
    NotFinite {
        /// The input field.
        field: &'static str,
        /// Its value.
        value: f32,
    },
}
