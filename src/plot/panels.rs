//! Several figures in one, in rows and columns, lettered as in the paper.

use super::heatmap::caption;
use super::svg::Svg;
use super::text::{ems, truncate_ems, visible};
use super::{Colour, Curves, Error, HeatMap};

const TITLE: f32 = 17.0;
const LETTER: f32 = 15.0;
const MARGIN: f32 = 12.0;
/// A title that is wider is cut.
const WIDEST_TITLE: f32 = 1_400.0;
/// Least height of a grid: near that of the curves beside it.
const GRID: f32 = 168.0;
const INK: &str = "#1a1a1a";

/// Figures that are read together.
#[derive(Clone, Debug, PartialEq)]
pub struct Panels {
    /// The line above all of them.
    pub title: String,
    /// The figures, row by row. Rows need not be equally long.
    pub rows: Vec<Vec<Panel>>,
}

/// One of several figures.
#[derive(Clone, Debug, PartialEq)]
pub enum Panel {
    /// A grid of values.
    Map(HeatMap),
    /// Curves over layers.
    Curves(Curves),
}

impl Panels {
    /// The figure as a complete SVG document on white: columns as wide and rows as high as the
    /// largest figure in them.
    ///
    /// # Errors
    /// [`Error`] when there is no figure, or as [`HeatMap::to_svg`] and [`Curves::to_svg`].
    pub fn to_svg(&self) -> Result<String, Error> {
        self.validate()?;
        let mut number = 0;
        let mut drawn: Vec<Vec<Svg>> = Vec::new();
        for row in &self.rows {
            let mut pictures = Vec::new();
            for panel in row {
                pictures.push(match panel {
                    Panel::Map(map) => map.draw(&format!("-{number}"), GRID)?,
                    Panel::Curves(curves) => curves.draw()?,
                });
                number += 1;
            }
            drawn.push(pictures);
        }
        let columns = drawn.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<f32> = (0..columns)
            .map(|column| {
                let pictures = drawn.iter().filter_map(|row| row.get(column));
                pictures.map(|p| p.size().0).fold(0.0, f32::max)
            })
            .collect();
        let heights: Vec<f32> = drawn
            .iter()
            .map(|row| row.iter().map(|p| p.size().1).fold(0.0, f32::max))
            .collect();

        // A letter stands before its panel, in nobody's way.
        let lettered = number > 1;
        let indent = if lettered { 1.8 * LETTER } else { 0.0 };
        let top = MARGIN + TITLE + 8.0;
        let columns = widths.iter().map(|width| width + indent);
        let title = visible(&self.title);
        // Panels of few layers are narrower than what is said of them.
        let said = (TITLE * ems(&title)).min(WIDEST_TITLE);
        let width = 2.0 * MARGIN + columns.sum::<f32>().max(said);
        let height = top + heights.iter().sum::<f32>() + MARGIN;
        let title = truncate_ems(&title, (width - 2.0 * MARGIN) / TITLE);
        let mut svg = Svg::new(width, height, &title);
        caption(&mut svg, width / 2.0, MARGIN + TITLE, TITLE, INK, &title);
        let (mut y, mut number) = (top, 0);
        for (row, height) in drawn.into_iter().zip(heights) {
            let mut x = MARGIN;
            for (picture, width) in row.into_iter().zip(&widths) {
                svg.place(x + indent, y, picture);
                if lettered {
                    letter(&mut svg, x + LETTER, y + 1.4 * LETTER, number);
                }
                number += 1;
                x += indent + width;
            }
            y += height;
        }
        Ok(svg.finish())
    }

    /// The figures one below the other in at most `width` columns, a blank line between them.
    ///
    /// # Errors
    /// As [`Panels::to_svg`].
    pub fn to_terminal(&self, width: usize, colour: Colour) -> Result<String, Error> {
        self.validate()?;
        let panels = self.rows.iter().flatten();
        let drawn: Result<Vec<String>, Error> = panels
            .map(|panel| match panel {
                Panel::Map(map) => map.to_terminal(width, colour),
                Panel::Curves(curves) => curves.to_terminal(width, colour),
            })
            .collect();
        Ok(drawn?.join("\n"))
    }

    fn validate(&self) -> Result<(), Error> {
        match self.rows.iter().any(|row| !row.is_empty()) {
            true => Ok(()),
            false => Err(Error::Empty {
                figure: "panels",
                axis: "figures",
            }),
        }
    }
}

/// The letter of a figure: (a), (b) ...; none beyond the alphabet.
fn letter(svg: &mut Svg, x: f32, y: f32, number: u8) {
    if number < 26 {
        let letter = format!("({})", char::from(b'a' + number));
        caption(svg, x, y, LETTER, INK, &letter);
    }
}
