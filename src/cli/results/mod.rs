//! Shows what a tracing job gave: as tables and heat maps in the terminal, as JSON lines, as SVG
//! figures, as `.npz` files, and in words.

mod averages;
mod error;
mod figures;
mod files;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::Write;

use serde_json::{Value, json};

pub use error::Error;

use crate::causal::{Averages, Grid};
use crate::plot::Colour;
use crate::plot::axis::number;
use crate::plot::table::{Align, Table};
use crate::plot::text::{label, truncate, visible, wrap};
use crate::proto::v1::{self, job::Spec, unit_result::Outcome as Sent};
use crate::translate::{KINDS, kind_name};

/// Columns of a text that goes to no terminal, where it has to have some width.
const WIDTH: usize = 100;

/// The results of a tracing job, in the order of its units.
pub struct Results<'a> {
    /// The model without `models/`.
    model: &'a str,
    /// Facts of the job. Decides how many digits a fact's number has in file names.
    facts: usize,
    /// Units without a result: the job runs still, was cancelled, or its tasks failed.
    missing: usize,
    units: Vec<Unit<'a>>,
}

/// The result of one fact and kind.
struct Unit<'a> {
    /// Its number in the job.
    number: u64,
    /// The fact's number in the job, from 1.
    position: usize,
    fact: &'a v1::Fact,
    kind: v1::Kind,
    outcome: Outcome<'a>,
}

enum Outcome<'a> {
    /// Traced, or left untraced because the model answers otherwise than expected.
    Grid {
        sent: &'a v1::Grid,
        grid: Box<Grid>,
    },
    Failure(&'a v1::Failure),
}

impl Unit<'_> {
    /// The grid, if the fact was traced.
    fn traced(&self) -> Option<&Grid> {
        match &self.outcome {
            Outcome::Grid { grid, .. } if grid.correct_prediction => Some(grid),
            _ => None,
        }
    }
}

impl<'a> Results<'a> {
    /// Takes the results of `job`, which must have its facts, as `GetJob` gives it.
    ///
    /// # Errors
    /// [`Error::NotTracing`] for another kind of job; [`Error::Unit`] and [`Error::Grid`] for a
    /// result that does not fit the job or itself.
    pub fn new(job: &'a v1::Job, results: &'a [v1::UnitResult]) -> Result<Self, Error> {
        let Some(Spec::Trace(spec)) = &job.spec else {
            return Err(Error::NotTracing {
                job: job.name.clone(),
            });
        };
        let kinds: Vec<v1::Kind> = spec.kinds().collect();
        let total = spec.facts.len() * kinds.len();
        let mut units = Vec::with_capacity(results.len());
        for result in results {
            let wrong = |what| Error::Unit {
                job: job.name.clone(),
                unit: result.unit,
                what,
            };
            let number = usize::try_from(result.unit).unwrap_or(usize::MAX);
            if number >= total {
                return Err(wrong("outside its facts and kinds"));
            }
            let (position, kind) = (number / kinds.len(), kinds[number % kinds.len()]);
            let fact = &spec.facts[position];
            let outcome = match &result.outcome {
                Some(Sent::Grid(sent)) => {
                    if sent.fact.as_ref() != Some(fact) || sent.kind() != kind {
                        return Err(wrong("of another fact or kind than its number says"));
                    }
                    let grid = Grid::try_from(sent).map_err(|source| Error::Grid {
                        unit: result.unit,
                        source,
                    })?;
                    Outcome::Grid {
                        sent,
                        grid: Box::new(grid),
                    }
                }
                Some(Sent::Failure(failure)) => Outcome::Failure(failure),
                _ => return Err(wrong("neither a grid nor a failure")),
            };
            units.push(Unit {
                number: result.unit,
                position: position + 1,
                fact,
                kind,
                outcome,
            });
        }
        units.sort_by_key(|unit| unit.number);
        units.dedup_by_key(|unit| unit.number);
        Ok(Self {
            model: job.model.strip_prefix("models/").unwrap_or(&job.model),
            facts: spec.facts.len(),
            missing: total - units.len(),
            units,
        })
    }

    /// Everything for a reader: the table, heat maps, averages of several facts, and what was seen
    /// in words. `width` is the terminal's.
    ///
    /// # Errors
    /// [`Error::Output`], [`Error::Averages`] and [`Error::Plot`].
    pub fn report(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        self.table(out, width, colour)?;
        let traced = self.traced_facts();
        if traced > 0 {
            writeln!(out)?;
            self.heatmaps(out, width, colour)?;
        }
        if traced > 1 {
            writeln!(out)?;
            self.averages(out, width, colour)?;
        }
        writeln!(out)?;
        for sentence in self.summary()? {
            match width {
                Some(width) => {
                    for line in wrap(&sentence, width) {
                        writeln!(out, "{line}")?;
                    }
                }
                None => writeln!(out, "{sentence}")?,
            }
        }
        Ok(())
    }

    /// A line a fact and kind: the answer's probability clean and corrupted (`HIGH` and `LOW`), its
    /// highest score and where that is, or why there is none.
    /// Failures follow in full, each once. `width` is the terminal's; without one nothing is cut.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn table(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        let mut table = Table::new(&[
            ("FACT", Align::Right),
            ("PROMPT", Align::Left),
            ("KIND", Align::Left),
            ("ANSWER", Align::Left),
            ("HIGH", Align::Right),
            ("LOW", Align::Right),
            ("PEAK", Align::Right),
            ("AT", Align::Left),
        ]);
        // Each class and message once, however many units it ended.
        let mut failures: Vec<(&v1::Failure, usize)> = Vec::new();
        for unit in &self.units {
            let mut row = vec![
                unit.position.to_string(),
                match width {
                    // More than this would leave no room for the last column.
                    Some(width) => truncate(&visible(&unit.fact.prompt), (width / 5).max(12)),
                    None => unit.fact.prompt.clone(),
                },
                kind_name(unit.kind).to_owned(),
            ];
            match &unit.outcome {
                Outcome::Failure(failure) => {
                    row.resize(7, String::new());
                    row.push(format!("failed: {}", failure.message));
                    match failures.iter_mut().find(|(known, _)| known == failure) {
                        Some((_, times)) => *times += 1,
                        None => failures.push((failure, 1)),
                    }
                }
                Outcome::Grid { grid, .. } => {
                    row.extend([label(&grid.answer.text), number(grid.high)]);
                    match (grid.low, grid.peak()) {
                        (Some(low), Some((token, layer, score))) => {
                            let star = if grid.subject.contains(&token) {
                                "*"
                            } else {
                                ""
                            };
                            row.extend([
                                number(low),
                                number(score),
                                format!("{}{star}, layer {layer}", label(&grid.tokens[token].text)),
                            ]);
                        }
                        _ => {
                            row.resize(7, String::new());
                            row.push(format!(
                                "answers {:?}, not {:?}",
                                grid.answer.text.trim(),
                                unit.fact.attribute()
                            ));
                        }
                    }
                }
            }
            table.row(row);
        }
        out.write_all(table.render(width, colour).as_bytes())?;
        for (failure, times) in failures {
            let text = format!(
                "{times} failed ({}): {}",
                class_name(failure.failure_class()),
                visible(&failure.message)
            );
            match width {
                Some(width) => {
                    for line in wrap(&text, width) {
                        writeln!(out, "{line}")?;
                    }
                }
                None => writeln!(out, "{text}")?,
            }
        }
        Ok(())
    }

    /// A JSON object a line, one a fact and kind. `scores` is `[token][layer]`; an untraced fact
    /// has none, and `low` is then null. A failed unit has `error` with `class` and `message`.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn json_lines(&self, out: &mut dyn Write) -> Result<(), Error> {
        for unit in &self.units {
            let mut object = json!({
                "unit": unit.number,
                "id": unit.fact.id,
                "relation": unit.fact.relation,
                "prompt": unit.fact.prompt,
                "subject": unit.fact.subject,
                "kind": kind_name(unit.kind),
            });
            let more = match &unit.outcome {
                Outcome::Grid { sent, grid } => json!({
                    "token_ids": sent.token_ids,
                    "tokens": sent.tokens,
                    "subject_range": [grid.subject.start, grid.subject.end],
                    "answer_id": grid.answer.id,
                    "answer": grid.answer.text,
                    "correct_prediction": grid.correct_prediction,
                    "high": grid.high,
                    "low": grid.low,
                    "scores": grid.scores.chunks(grid.layers.max(1)).collect::<Vec<_>>(),
                    "window": sent.window,
                    "samples": sent.samples,
                    "noise": sent.noise,
                    "noise_scale": sent.noise_scale,
                    "seed": sent.seed,
                }),
                Outcome::Failure(failure) => json!({
                    "error": {
                        "class": class_name(failure.failure_class()),
                        "message": failure.message,
                    },
                }),
            };
            if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
                object.extend(more);
            }
            writeln!(out, "{object}")?;
        }
        Ok(())
    }

    /// Traced facts: each once, whatever the number of its kinds.
    fn traced_facts(&self) -> usize {
        let traced = self.units.iter().filter(|unit| unit.traced().is_some());
        traced
            .map(|unit| unit.position)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// The averages of every kind that has a traced fact.
    fn by_kind(&self) -> Result<Vec<(v1::Kind, Averages)>, Error> {
        let mut all = Vec::new();
        for kind in KINDS {
            let units = self.units.iter().filter(|unit| unit.kind == kind);
            if let Some(averages) = Averages::over(units.filter_map(Unit::traced))? {
                all.push((kind, averages));
            }
        }
        Ok(all)
    }
}

/// What users call a class of failures: `worker_lost`.
fn class_name(class: v1::FailureClass) -> String {
    let name = class.as_str_name();
    name.strip_prefix("FAILURE_CLASS_")
        .unwrap_or(name)
        .to_lowercase()
}
