//! What is said of estimates: that they are some, and how good they are.

use std::io::Write;

use serde_json::{Value, json};

use super::{Results, Unit, starred};
use crate::causal::{Engine, Gradient, Grid, Miss, Verification};
use crate::cli::output::paragraph;
use crate::cli::results::Error;
use crate::plot::Colour;
use crate::plot::axis::number;
use crate::plot::table::{Align, Table};
use crate::wire::kind_name;

impl Results<'_> {
    /// What the scores are where they are estimates.
    fn estimate(&self) -> Option<String> {
        let mut traced = self.units.iter().filter_map(Unit::traced);
        traced.find_map(|grid| grid.engine.estimate())
    }

    /// Says that the scores are estimates, where they are.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub(super) fn say_estimate(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
    ) -> Result<(), Error> {
        if let Some(what) = self.estimate() {
            let text = format!("Scores are estimates (attribution patching): {what}, not exact.");
            paragraph(out, &text, width)?;
        }
        Ok(())
    }

    /// How good the estimates are: a line for every grid with verified cells. `RANKS` is Spearman's
    /// correlation of the estimated effects with the exact ones, `MISS` the largest distance
    /// between the two and where that is, `REST` what the cells by chance say of all that are not
    /// among the largest estimates. `width` is the terminal's.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub(super) fn verification(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        let mut table = Table::new(&[
            ("FACT", Align::Right),
            ("KIND", Align::Left),
            ("VERIFIED", Align::Right),
            ("RANKS", Align::Right),
            ("MISS", Align::Right),
            ("AT", Align::Left),
            ("REST", Align::Left),
        ]);
        let mut any = false;
        for unit in &self.units {
            let Some(grid) = unit.traced() else { continue };
            let Some(found) = Verification::of(grid) else {
                continue;
            };
            any = true;
            let miss = found.largest_miss;
            table.row([
                unit.position.to_string(),
                kind_name(unit.kind).to_owned(),
                format!("{} + {}", found.top, found.random),
                found.rank_correlation.map(number).unwrap_or_default(),
                number((miss.estimate - miss.exact).abs()),
                place(grid, &miss),
                found.missed.map_or(String::new(), |missed| {
                    let percent = (missed.part * 100.0).ceil();
                    format!("{percent} % over {}", number(missed.effect))
                }),
            ]);
        }
        if any {
            writeln!(out)?;
            out.write_all(table.render(width, colour).as_bytes())?;
            let note = "Of each grid the cells of the largest estimates, and as many by chance, patched exactly. RANKS: \
                        Spearman's correlation of estimated with exact effects. REST: at most that part of the cells \
                        outside the largest estimates has a larger exact effect (95 %).";
            paragraph(out, note, width)?;
        }
        Ok(())
    }
}

/// Where a cell is.
fn place(grid: &Grid, miss: &Miss) -> String {
    let token = match grid.kind.is_over_tokens() {
        true => "every token".to_owned(),
        false => starred(grid, miss.token),
    };
    let head = miss.head.map(|head| format!(", head {head}"));
    let neuron = miss.neuron.map(|neuron| format!(", neuron {neuron}"));
    let part = head.or(neuron).unwrap_or_default();
    format!("{token}, layer {}{part}", miss.layer)
}

/// What JSON says of a grid's estimates; null of an exact one.
pub(super) fn json(grid: &Grid) -> Value {
    let Engine::Attribution(Gradient { steps, drop }) = grid.engine else {
        return Value::Null;
    };
    let metrics = std::iter::once(grid.metric).chain(grid.readings.iter().map(|it| it.metric));
    let metrics: Vec<_> = metrics.collect();
    let verified = grid.verified.iter().map(|cell| {
        let exact = metrics.iter().zip(&cell.exact);
        let exact = exact.map(|(metric, &value)| (metric.to_string(), json!(value)));
        let estimate = metrics.iter().zip(&cell.estimate);
        let estimate = estimate.map(|(metric, &value)| (metric.to_string(), json!(value)));
        let estimate: serde_json::Map<_, _> = estimate.collect();
        json!({
            "token": (!grid.kind.is_over_tokens()).then_some(cell.token),
            "head": cell.head,
            "layer": cell.layer,
            "neuron": cell.neuron,
            "random": cell.random,
            "exact": exact.collect::<serde_json::Map<_, _>>(),
            "estimate": (!estimate.is_empty()).then_some(estimate),
        })
    });
    let verification = metrics.iter().filter_map(|&metric| {
        let found = Verification::of(&grid.in_metric(metric)?)?;
        let miss = found.largest_miss;
        let value = json!({
            "rank_correlation": found.rank_correlation,
            "largest_miss": {
                "token": (!grid.kind.is_over_tokens()).then_some(miss.token),
                "head": miss.head,
                "layer": miss.layer,
                "neuron": miss.neuron,
                "estimate": miss.estimate,
                "exact": miss.exact,
            },
            "missed": found.missed.map(|missed| json!({
                "effect": missed.effect,
                "part": missed.part,
            })),
        });
        Some((metric.to_string(), value))
    });
    json!({
        "steps": steps,
        "grad_drop": drop,
        "verified": verified.collect::<Vec<_>>(),
        "verification": verification.collect::<serde_json::Map<_, _>>(),
    })
}
