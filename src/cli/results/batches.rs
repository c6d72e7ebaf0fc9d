//! The batches of a mass edit side by side: a table, and curves over the facts written so far.

use std::path::{Path, PathBuf};

use super::Error;
use super::drawn::{make, write};
use crate::cli::{names, output};
use crate::plot::table::{Align, Table};
use crate::plot::{Across, Curves, Series};
use crate::proto::v1::{self, unit_result::Outcome};

/// The edits of a job, in the order in which they were made.
pub struct Batches<'a>(Vec<(&'a v1::EditOutcome, &'a v1::Edit)>);

impl<'a> Batches<'a> {
    /// Those among the results of a job.
    pub fn of(results: &'a [v1::UnitResult]) -> Self {
        let edits = results.iter().filter_map(|result| match &result.outcome {
            Some(Outcome::Edit(outcome)) => Some((outcome, outcome.edit.as_ref()?)),
            _ => None,
        });
        Self(edits.collect())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Prints them, a row a batch: what was measured of its own facts on the version that it made.
    ///
    /// # Errors
    /// That nothing more can be printed.
    pub fn print(&self) -> anyhow::Result<()> {
        let mut table = Table::new(&[
            ("BATCH", Align::Right),
            ("FACTS", Align::Right),
            ("ES", Align::Right),
            ("PS", Align::Right),
            ("NS", Align::Right),
            ("LARGEST NORM", Align::Right),
            ("DRIFT", Align::Right),
            ("VERSION", Align::Left),
        ]);
        for (n, (outcome, edit)) in self.0.iter().enumerate() {
            let number =
                |key: &str| figure(edit, key).map_or("-".to_owned(), |value| format!("{value:.3}"));
            table.row([
                (n + 1).to_string(),
                edit.requests.len().to_string(),
                number("es.after"),
                number("ps.after"),
                number("ns.after"),
                number("update_norm"),
                number("text.drift"),
                names::brief(&outcome.version).to_owned(),
            ]);
        }
        output::print_table(&table)?;
        Ok(())
    }

    /// Draws them into a folder, and gives the files: none of fewer than two batches.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Plot`].
    pub fn svg(&self, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        let curves = self.curves();
        if curves.is_empty() {
            return Ok(Vec::new());
        }
        make(folder)?;
        let files = curves
            .into_iter()
            .map(|(name, curves)| write(folder, name.to_owned(), curves.to_svg()));
        files.collect()
    }

    fn curves(&self) -> Vec<(&'static str, Curves)> {
        let (Some((_, first)), true) = (self.0.first(), self.0.len() > 1) else {
            return Vec::new();
        };
        let size = figure(first, "batch.size").unwrap_or_default();
        let facts = self.0.iter().map(|(_, edit)| edit.requests.len());
        let numbers: Vec<usize> = facts
            .scan(0, |written, more| {
                *written += more;
                Some(*written)
            })
            .collect();
        let curves = |title: &str, y_label: &str, series: Vec<Series>| Curves {
            title: title.to_owned(),
            across: Across::Counted {
                what: "facts",
                numbers: numbers.clone(),
            },
            x_label: "facts written so far".to_owned(),
            y_label: y_label.to_owned(),
            series,
        };
        let scores = [
            ("es", "rewritten (ES)"),
            ("ps", "paraphrases (PS)"),
            ("ns", "neighbours (NS)"),
        ];
        let scores = scores.map(|(key, name)| self.series(&format!("{key}.after"), name));
        let of_layers = |key: &str| -> Vec<Series> {
            let layer = |factor: &v1::LowRankFactor| {
                let layer = factor.layer;
                self.series(&format!("layer.{layer}.{key}"), &format!("layer {layer}"))
            };
            first.factors.iter().map(layer).collect()
        };
        vec![
            (
                "batches.svg",
                curves(
                    &format!(
                        "{} in batches of {size}: each batch's own facts",
                        first.method
                    ),
                    "facts that hold",
                    scores.into(),
                ),
            ),
            (
                "batches_norms.svg",
                curves(
                    "Norm of each batch's change, in norms of the matrix",
                    "relative norm",
                    of_layers("relative_norm"),
                ),
            ),
            (
                "batches_shares.svg",
                curves(
                    "How far a fact of each batch is moved",
                    "mean share",
                    of_layers("share.mean"),
                ),
            ),
        ]
    }

    fn series(&self, key: &str, name: &str) -> Series {
        let of = |key: &str| -> Vec<f32> {
            let each = self.0.iter().map(|(_, edit)| figure(edit, key));
            each.map(|it| it.map_or(f32::NAN, |it| it as f32)).collect()
        };
        let half_width = of(&format!("{key}.half"));
        let known = half_width.iter().any(|half| half.is_finite());
        Series {
            name: name.to_owned(),
            mean: of(key),
            half_width: if known { half_width } else { Vec::new() },
            kind: None,
        }
    }
}

fn figure(edit: &v1::Edit, key: &str) -> Option<f64> {
    let found = edit.figures.iter().find(|figure| figure.key == key);
    found.map(|figure| figure.value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn results(batches: usize) -> Vec<v1::UnitResult> {
        let batch = |n: usize| {
            let number = |(key, value): (&str, f64)| v1::NamedNumber {
                key: key.to_owned(),
                value,
            };
            let edit = v1::Edit {
                method: "memit".to_owned(),
                // The last batch has fewer.
                requests: vec![v1::EditRequest::default(); if n == 2 { 20 } else { 50 }],
                factors: vec![v1::LowRankFactor {
                    layer: 4,
                    ..Default::default()
                }],
                figures: [
                    ("batch.size", 50.0),
                    ("es.after", 1.0 - 0.1 * n as f64),
                    ("es.after.half", 0.05),
                    ("layer.4.relative_norm", 0.02),
                ]
                .map(number)
                .into(),
                ..Default::default()
            };
            v1::UnitResult {
                outcome: Some(Outcome::Edit(v1::EditOutcome {
                    edit: Some(edit),
                    ..Default::default()
                })),
                ..Default::default()
            }
        };
        (0..batches).map(batch).collect()
    }

    #[test]
    fn batches_are_drawn_over_the_facts_written_so_far() {
        let results = results(3);
        let folder = tempfile::tempdir().unwrap();
        let files = Batches::of(&results).svg(folder.path()).unwrap();
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
        assert_eq!(
            names,
            ["batches.svg", "batches_norms.svg", "batches_shares.svg"]
        );
        let svg = std::fs::read_to_string(&files[0]).unwrap();
        for said in [
            ">50<",
            ">100<",
            ">120<",
            "memit in batches of 50",
            "rewritten (ES)",
        ] {
            assert!(svg.contains(said), "{said} in {svg}");
        }
        let curves = Batches::of(&results).curves();
        assert_eq!(curves[0].1.series[0].mean, [1.0, 0.9, 0.8]);
        assert_eq!(curves[1].1.series[0].name, "layer 4");
    }

    #[test]
    fn one_batch_has_no_course() {
        let results = results(1);
        let folder = tempfile::tempdir().unwrap();
        assert!(Batches::of(&results).svg(folder.path()).unwrap().is_empty());
    }
}
