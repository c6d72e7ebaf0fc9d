//! How the figures of a job look in the terminal.

use std::io::Write;

use super::{Results, WIDTH};
use crate::cli::results::Error;
use crate::figures;
use crate::plot::{Colour, HeatMap};

impl Results<'_> {
    /// Heat maps in the terminal: of one traced fact all kinds, of heads at single tokens the token of
    /// the highest effect; of several the averages. `width` is the terminal's.
    ///
    /// # Errors
    /// [`Error::Output`], [`Error::Averages`] and [`Error::Plot`].
    pub fn heatmaps(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        if self.traced_facts() > 1 {
            return self.average_maps(out, width, colour);
        }
        let maps = self
            .units
            .iter()
            .filter_map(|unit| figures::highest_map(self.model, unit.kind, unit.traced()?));
        for (n, map) in maps.enumerate() {
            if n > 0 {
                writeln!(out)?;
            }
            print(out, &map, width, colour)?;
        }
        Ok(())
    }

    /// The averages by role of token as heat maps, and the effect with and without severed paths as
    /// curves, in the terminal.
    ///
    /// # Errors
    /// [`Error::Output`], [`Error::Averages`] and [`Error::Plot`].
    pub(super) fn average_maps(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        let kinds = self.by_kind()?;
        for (n, (kind, averages)) in kinds.iter().enumerate() {
            if n > 0 {
                writeln!(out)?;
            }
            if let Some(map) = figures::highest_average_map(*kind, averages) {
                print(out, &map, width, colour)?;
            }
        }
        if let Some(curves) = figures::severed_curves(&kinds) {
            let text = curves
                .to_terminal(width.unwrap_or(WIDTH), colour)
                .map_err(|source| Error::Plot {
                    figure: curves.title.clone(),
                    source,
                })?;
            writeln!(out)?;
            out.write_all(text.as_bytes())?;
        }
        Ok(())
    }
}

/// A heat map in the terminal.
pub(super) fn print(
    out: &mut dyn Write,
    map: &HeatMap,
    width: Option<usize>,
    colour: Colour,
) -> Result<(), Error> {
    let text = map
        .to_terminal(width.unwrap_or(WIDTH), colour)
        .map_err(|source| Error::Plot {
            figure: map.title.clone(),
            source,
        })?;
    out.write_all(text.as_bytes())?;
    Ok(())
}
