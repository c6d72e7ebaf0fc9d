//! Shows what a tracing job gave: as tables and heat maps in the terminal, as JSON lines, as SVG
//! figures, as `.npz` files, and in words; fact by fact, averaged over all facts, or over the facts
//! of each relation; in one metric after another.

mod averages;
mod estimates;
mod figures;
mod files;
mod json;
mod locate;
mod relations;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::Write;

pub use averages::ENOUGH;
pub use locate::Sites;

use super::Error;
use crate::causal::{Averages, Grid, Metric};
use crate::cli::output::paragraph;
use crate::figures::starred;
use crate::plot::Colour;
use crate::plot::axis::number;
use crate::plot::table::{Align, Table};
use crate::plot::text::{label, truncate, visible};
use crate::proto::v1::{self, unit_result::Outcome as Sent};
use crate::wire::{self, KINDS, SweptGrid, class_name, kind_name};
use crate::work;

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
    /// The metrics that the job shows.
    metrics: Vec<Metric>,
    /// The one that these results are in.
    metric: Metric,
    units: Vec<Unit<'a>>,
    /// The averages as the server computed them; without them they are computed here.
    summed: Vec<v1::KindAverages>,
}

/// Which grids are averaged.
#[derive(Clone, Copy)]
enum Over<'a> {
    /// Those of all facts.
    All,
    /// Those of the facts of one relation, or of those without one.
    Relation(&'a Option<String>),
}

impl Over<'_> {
    fn has(self, fact: &v1::Fact) -> bool {
        match self {
            Self::All => true,
            Self::Relation(name) => fact.relation == *name,
        }
    }

    /// Whether averages of a server are over these: facts without a relation have an empty one
    /// there.
    fn is_of(self, sent: &v1::KindAverages) -> bool {
        match self {
            Self::All => sent.relation.is_none(),
            Self::Relation(name) => {
                sent.relation.as_deref() == Some(name.as_deref().unwrap_or_default())
            }
        }
    }
}

/// The result of one fact and kind.
#[derive(Clone)]
struct Unit<'a> {
    /// Its number in the job.
    number: u64,
    /// The fact's number in the job, from 1.
    position: usize,
    fact: &'a v1::Fact,
    kind: v1::Kind,
    outcome: Outcome<'a>,
}

#[derive(Clone)]
enum Outcome<'a> {
    /// Traced, or left untraced because the model answers otherwise than expected or nothing can
    /// corrupt the fact.
    Grid {
        sent: &'a v1::Grid,
        grid: Box<Grid>,
    },
    Failure(&'a v1::Failure),
}

impl<'a> Unit<'a> {
    /// The unit in another metric; none where its grid has none of it.
    fn in_metric(&self, metric: Metric) -> Option<Unit<'a>> {
        let outcome = match &self.outcome {
            Outcome::Grid { sent, grid } => Outcome::Grid {
                sent,
                grid: Box::new(grid.in_metric(metric)?),
            },
            Outcome::Failure(failure) => Outcome::Failure(failure),
        };
        Some(Unit { outcome, ..*self })
    }

    /// The grid, if the fact was traced.
    fn traced(&self) -> Option<&Grid> {
        match &self.outcome {
            Outcome::Grid { grid, .. } if grid.traced() => Some(grid),
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
        Self::read(job, results, |sent| Ok(SweptGrid::try_from(sent)?.grid))
    }

    /// Takes results without tokens and scores, as `RESULT_VIEW_PEAKS` gives them, and the averages
    /// that the server computed over the grids. There is nothing of single facts then.
    ///
    /// # Errors
    /// As [`Results::new`].
    pub fn summed(
        job: &'a v1::Job,
        peaks: &'a [v1::UnitResult],
        averages: Vec<v1::KindAverages>,
    ) -> Result<Self, Error> {
        let read = Self::read(job, peaks, wire::without_scores)?;
        Ok(read.with_averages(averages))
    }

    /// The same with the averages that the server computed.
    pub fn with_averages(mut self, averages: Vec<v1::KindAverages>) -> Self {
        self.summed = averages;
        self
    }

    fn read(
        job: &'a v1::Job,
        results: &'a [v1::UnitResult],
        grid: impl Fn(&v1::Grid) -> Result<Grid, wire::Error>,
    ) -> Result<Self, Error> {
        let Some(spec) = work::spec::<v1::TraceSpec>(job) else {
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
                    let grid = grid(sent).map_err(|source| Error::Grid {
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
            metrics: wire::shown(spec),
            metric: Metric::Probability,
            units,
            summed: Vec::new(),
        })
    }

    /// The results in every metric that the job shows, one after another.
    pub fn by_metric(&self) -> impl Iterator<Item = Results<'a>> {
        self.metrics.iter().map(|&metric| Results {
            metric,
            metrics: self.metrics.clone(),
            units: self
                .units
                .iter()
                .filter_map(|it| it.in_metric(metric))
                .collect(),
            summed: self.summed.clone(),
            ..*self
        })
    }

    /// Which metric follows, where there are several.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn heading(&self, out: &mut dyn Write) -> Result<(), Error> {
        if self.metrics.len() > 1 {
            let first = self.metrics.first() == Some(&self.metric);
            let space = if first { "" } else { "\n" };
            writeln!(out, "{space}== {}", self.metric.words())?;
        }
        Ok(())
    }

    /// Whether effects are shown as shares of the total effect too: where they are of another
    /// metric than the paper's, or of another corruption.
    fn shows_shares(&self) -> bool {
        let mut traced = self.units.iter().filter_map(Unit::traced);
        self.metric != Metric::Probability || traced.any(|grid| grid.corrupted.is_some())
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
        self.say_estimate(out, width)?;
        self.table(out, width, colour)?;
        self.verification(out, width, colour)?;
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
            paragraph(out, &sentence, width)?;
        }
        Ok(())
    }

    /// The averages for a reader, without the single facts: heat maps by role of token, the table,
    /// and what was seen in words. `width` is the terminal's.
    ///
    /// # Errors
    /// [`Error::Output`], [`Error::Averages`] and [`Error::Plot`].
    pub fn report_averages(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        self.say_estimate(out, width)?;
        if self.traced_facts() > 0 {
            self.average_maps(out, width, colour)?;
            writeln!(out)?;
            self.averages(out, width, colour)?;
            writeln!(out)?;
        }
        for sentence in self.summary()? {
            paragraph(out, &sentence, width)?;
        }
        Ok(())
    }

    /// A line a fact and kind: the metric clean and corrupted (`HIGH` and `LOW`), the score of the
    /// highest effect and where that is, or why there is none. A foil stands behind the answer.
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
                    let answer = label(&grid.answer_text());
                    let answer = match grid.foil_text() {
                        Some(foil) => format!("{answer} ({})", label(&foil)),
                        None => answer,
                    };
                    row.extend([answer, number(grid.high)]);
                    match (grid.low, grid.peak()) {
                        (Some(low), Some((at, score))) => {
                            let place = match at.token {
                                Some(token) => starred(grid, token),
                                None => "every token".to_owned(),
                            };
                            let head = at.head.map(|head| format!(", head {head}"));
                            let neuron = at.neuron.map(|neuron| format!(", neuron {neuron}"));
                            let part = head.or(neuron).unwrap_or_default();
                            row.extend([
                                number(low),
                                number(score),
                                format!("{place}, layer {}{part}", at.layer),
                            ]);
                        }
                        _ => {
                            row.resize(7, String::new());
                            row.push(match &grid.untraced {
                                Some(reason) => visible(reason),
                                None => format!(
                                    "answers {:?}, not {:?}",
                                    grid.answer_text().trim(),
                                    unit.fact.attribute()
                                ),
                            });
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
            paragraph(out, &text, width)?;
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
        self.averages_of(Over::All)
    }

    /// The same over some facts.
    fn averages_of(&self, over: Over<'_>) -> Result<Vec<(v1::Kind, Averages)>, Error> {
        let mut all = Vec::new();
        for kind in KINDS {
            let mut sent = self.summed.iter();
            let averages = if self.summed.is_empty() {
                let units = self.units.iter();
                let units = units.filter(|unit| unit.kind == kind && over.has(unit.fact));
                Averages::over(units.filter_map(Unit::traced))?
            } else {
                let sent = sent.find(|it| it.kind() == kind && self.is_in(it) && over.is_of(it));
                sent.and_then(wire::averages)
            };
            all.extend(averages.map(|averages| (kind, averages)));
        }
        Ok(all)
    }

    /// Whether averages of a server are in this metric.
    fn is_in(&self, sent: &v1::KindAverages) -> bool {
        wire::metric(sent.metric()).unwrap_or_default() == self.metric
    }

    /// Facts among some that were not traced: the model answers them otherwise than expected, or
    /// nothing can corrupt them.
    fn left_out(&self, over: Over<'_>) -> usize {
        self.facts_with(|unit, grid| over.has(unit.fact) && !grid.traced())
    }

    /// Facts with a grid of which this holds.
    fn facts_with(&self, holds: impl Fn(&Unit<'_>, &Grid) -> bool) -> usize {
        let held = |unit: &Unit<'_>| matches!(&unit.outcome, Outcome::Grid { grid, .. } if holds(unit, grid));
        let units = self.units.iter();
        units
            .filter(|unit| held(unit))
            .map(|unit| unit.position)
            .collect::<BTreeSet<_>>()
            .len()
    }
}
