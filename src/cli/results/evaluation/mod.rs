//! Shows what an evaluation gave: a line a record, and the means over them with their intervals.

mod choices;
mod texts;
mod written;

use std::io::Write;

use serde_json::{Map, Value, json};

use super::Error;
use crate::cli::output::paragraph;
use crate::eval::{self, Mean, Metric, harmonic};
use crate::plot::Colour;
use crate::plot::table::{Align, Table};
use crate::proto::v1::{self, EditProbeKind, unit_result::Outcome};
use crate::wire::{self, class_name};
use crate::work;

pub use written::Written;

/// The name of the harmonic mean of the scores.
const S: &str = "S";

/// The results of an evaluation.
pub struct Evaluation<'a> {
    job: &'a v1::Job,
    spec: &'a v1::EvalSpec,
    /// What was measured, as people call it: the unedited version first, where there are two.
    columns: Vec<Column>,
    rows: Vec<Row<'a>>,
    /// What the job's version was written by.
    written: Written,
}

/// A version, or what a version is with an edit of each record.
struct Column {
    /// In a table's head: `v0`, `AFTER`.
    head: String,
    /// In JSON: `against`, `before`, `measured`.
    name: &'static str,
    /// The version's resource name.
    version: String,
}

/// A record and what it gave.
struct Row<'a> {
    record: &'a v1::EvalRecord,
    /// A measurement a column.
    measured: Vec<Option<&'a v1::EvalMeasure>>,
    edit: Option<&'a v1::EvalEdit>,
    failures: Vec<&'a v1::Failure>,
}

/// When a model knows a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Known {
    /// When it finds the true object likelier than the new one after the prompt, a token.
    Likelier,
    /// When it continues the prompt with the true object if it always takes the likeliest token.
    Greedy,
}

impl Known {
    /// Whether a unit shows that its fact is known.
    pub fn holds(self, result: &v1::UnitResult) -> bool {
        let Some(Outcome::Eval(outcome)) = &result.outcome else {
            return false;
        };
        let answers = outcome.measured.iter().flat_map(|it| &it.answers);
        let mut facts = answers.filter(|answer| answer.kind() == EditProbeKind::Rewrite);
        let Some(fact) = facts.next() else {
            return false;
        };
        let Some(truth) = fact.true_object else {
            return false;
        };
        match self {
            Known::Likelier => fact.new_object.is_some_and(|new| truth.nll < new.nll),
            Known::Greedy => truth.tokens > 0 && truth.likeliest == truth.tokens,
        }
    }
}

impl<'a> Evaluation<'a> {
    /// Takes the results of `job`, which must have its records. `label` says what people call a
    /// version.
    ///
    /// # Errors
    /// [`Error::NotEvaluating`] for another kind of job; [`Error::Unit`] for a result that does not fit it.
    pub fn new(
        job: &'a v1::Job,
        results: &'a [v1::UnitResult],
        label: impl Fn(&str) -> String,
    ) -> Result<Self, Error> {
        let Some(spec) = work::spec::<v1::EvalSpec>(job) else {
            return Err(Error::NotEvaluating {
                job: job.name.clone(),
            });
        };
        let column = |head: String, name, version: &str| Column {
            head,
            name,
            version: version.to_owned(),
        };
        let compared = !spec.against.is_empty() && spec.against != job.version;
        let measured = |head| column(head, "measured", &job.version);
        let columns = if spec.edit_each.is_some() {
            vec![
                column("BEFORE".to_owned(), "before", &job.version),
                measured("AFTER".to_owned()),
            ]
        } else if compared {
            vec![
                column(label(&spec.against), "against", &spec.against),
                measured(label(&job.version)),
            ]
        } else {
            vec![measured(label(&job.version))]
        };
        let mut rows: Vec<Row<'a>> = spec
            .records
            .iter()
            .map(|record| Row {
                record,
                measured: vec![None; columns.len()],
                edit: None,
                failures: Vec::new(),
            })
            .collect();
        let records = rows.len();
        for result in results {
            let wrong = |what| Error::Unit {
                job: job.name.clone(),
                unit: result.unit,
                what,
            };
            let number = usize::try_from(result.unit).unwrap_or(usize::MAX);
            let (record, pass) = match (number.checked_div(records), compared) {
                (Some(0), _) => (number, 0),
                (Some(1), true) => (number - records, 1),
                _ => return Err(wrong("outside its records")),
            };
            let row = &mut rows[record];
            match &result.outcome {
                Some(Outcome::Eval(outcome)) => {
                    // What is compared with comes second in the job and first in a table.
                    let last = columns.len() - 1;
                    row.measured[last - pass] = outcome.measured.as_ref();
                    if spec.edit_each.is_some() {
                        row.measured[0] = outcome.before.as_ref();
                        row.edit = outcome.edit.as_ref();
                    }
                }
                Some(Outcome::Failure(failure)) if !row.failures.contains(&failure) => {
                    row.failures.push(failure);
                }
                Some(Outcome::Failure(_)) => {}
                _ => return Err(wrong("neither a measurement nor a failure")),
            }
        }
        Ok(Self {
            job,
            spec,
            columns,
            rows,
            written: Written::default(),
        })
    }

    /// Tells what the job's version was written by, too.
    pub fn written_by(self, written: Written) -> Self {
        Self { written, ..self }
    }

    /// What was measured in a sentence, the records unless they are left out, and the means.
    /// `width` is the terminal's.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn report(
        &self,
        out: &mut dyn Write,
        with_records: bool,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        if with_records {
            let records = match self.spec.set() {
                v1::EvalSet::Texts => self.texts(),
                v1::EvalSet::Choices => self.choices(),
                _ => self.records(),
            };
            out.write_all(records.render(width, colour).as_bytes())?;
            writeln!(out)?;
        }
        out.write_all(self.means().render(width, colour).as_bytes())?;
        for sentence in self.sentences() {
            paragraph(out, &sentence, width)?;
        }
        Ok(())
    }

    fn of_texts(&self) -> bool {
        self.spec.set() == v1::EvalSet::Texts
    }

    /// How the last column is compared with the first: in a table's head, and in JSON.
    fn compared(&self) -> (&'static str, &'static str) {
        match self.of_texts() {
            true => ("RATIO", "ratio"),
            false => ("CHANGE", "change"),
        }
    }

    /// The records with a measurement in every column.
    fn whole(&self) -> impl Iterator<Item = (&Row<'a>, Vec<&'a v1::EvalMeasure>)> {
        self.rows.iter().filter_map(|row| {
            let all: Option<Vec<_>> = row.measured.iter().copied().collect();
            Some((row, all?))
        })
    }

    /// The measures that some record has: first those that all data sets may have, then criteria and
    /// tasks as they come.
    fn measures(&self) -> Vec<String> {
        let mut others: Vec<&str> = Vec::new();
        let mut known = vec![false; Metric::ALL.len()];
        for figure in self.whole().flat_map(|(_, all)| &all[0].figures) {
            let name = figure.key.as_str();
            match name.parse::<Metric>() {
                Ok(metric) => {
                    let place = Metric::ALL.iter().position(|it| *it == metric);
                    known[place.unwrap_or_default()] = true;
                }
                Err(()) if !others.contains(&name) => others.push(name),
                Err(()) => {}
            }
        }
        let known = Metric::ALL.into_iter().zip(known);
        let known = known.filter(|(_, is)| *is).map(|(it, _)| it.to_string());
        known.chain(others.into_iter().map(str::to_owned)).collect()
    }

    /// Whether a record counts for a measure: tests that are for edits that hold do not where the
    /// record's own does not.
    fn counts(row: &Row<'_>, measured: &[&v1::EvalMeasure], name: &str) -> bool {
        let mut tests = row.record.tests.iter();
        let conditional = tests.any(|test| test.if_edited && test.criterion == name);
        let edited = measured.last().and_then(|it| value(it, eval::EDITED));
        !conditional || edited.is_none_or(|share| share >= 1.0)
    }

    /// A line a record: its figures in the last column.
    fn records(&self) -> Table {
        let names = self.measures();
        let mut head = vec![
            ("RECORD", Align::Right),
            ("SUBJECT", Align::Left),
            ("TRUE", Align::Left),
            ("NEW", Align::Left),
        ];
        head.extend(names.iter().map(|name| (name.as_str(), Align::Right)));
        let mut table = Table::new(&head);
        for (n, row) in self.rows.iter().enumerate() {
            let fact = row.record.request.clone().unwrap_or_default();
            let mut cells = vec![
                (n + 1).to_string(),
                fact.subject,
                fact.target_true.unwrap_or_default(),
                fact.target_new,
            ];
            let last = row.measured.last().copied().flatten();
            let figure = |name: &String| match last.and_then(|it| value(it, name)) {
                Some(value) => format!("{:.1}", value * scale(name)),
                None => String::new(),
            };
            cells.extend(names.iter().map(figure));
            table.row(cells);
        }
        table
    }

    /// Means over the records that were measured in every column, with 95 % intervals.
    fn means(&self) -> Table {
        let mut head = vec![("MEASURE", Align::Left), ("N", Align::Right)];
        for column in &self.columns {
            head.extend([(column.head.as_str(), Align::Right), ("95 %", Align::Right)]);
        }
        if self.columns.len() > 1 {
            head.extend([(self.compared().0, Align::Right), ("95 %", Align::Right)]);
        }
        let mut table = Table::new(&head);
        for line in self.lines() {
            let count = line.means.first().map_or(0, |mean| mean.count);
            let mut cells = vec![line.name, count.to_string()];
            // A ratio near 1 is told by its thousandths.
            let of_change = if self.of_texts() { 3 } else { 1 };
            let means = line.means.iter().map(|mean| (mean, 1));
            for (mean, digits) in means.chain(line.change.iter().map(|it| (it, of_change))) {
                let number = |number: f64| format!("{:.digits$}", number * line.scale);
                cells.push(number(mean.mean));
                cells.push(match mean.interval() {
                    Some((from, to)) => format!("{} to {}", number(from), number(to)),
                    None => String::new(),
                });
            }
            table.row(cells);
        }
        table
    }

    /// The means, with what they are called and how they are told.
    pub fn lines(&self) -> Vec<Line> {
        if self.of_texts() {
            return self.perplexities();
        }
        let mut lines = Vec::new();
        for name in self.measures() {
            // A record has a figure in all columns or in none: it has the prompts for it or not.
            let values: Vec<Vec<f64>> = self
                .whole()
                .filter(|(row, all)| Self::counts(row, all, &name))
                .filter_map(|(_, all)| all.iter().map(|it| value(it, &name)).collect())
                .collect();
            let column = |n: usize| values.iter().map(|row| row[n]).collect::<Vec<f64>>();
            let means: Vec<Mean> = (0..self.columns.len())
                .map(|n| Mean::over(&column(n)))
                .collect();
            let change = (means.len() > 1).then(|| {
                let pairs = column(1).into_iter().zip(column(0));
                Mean::over(
                    &pairs
                        .map(|(after, before)| after - before)
                        .collect::<Vec<_>>(),
                )
            });
            let scale = scale(&name);
            lines.push(Line {
                name,
                scale,
                means,
                change,
            });
        }
        if self.spec.set() == v1::EvalSet::Choices {
            lines.extend(self.f1s());
        }
        lines.extend(self.score());
        lines
    }

    /// S over the records that have all three scores.
    fn score(&self) -> Option<Line> {
        let means: Vec<Mean> = (0..self.columns.len())
            .map(|n| {
                let scores = |all: &Vec<&v1::EvalMeasure>| -> Option<[f64; 3]> {
                    let [es, ps, ns] =
                        Metric::SCORES.map(|metric| value(all[n], &metric.to_string()));
                    Some([es?, ps?, ns?])
                };
                let records: Vec<[f64; 3]> =
                    self.whole().filter_map(|(_, all)| scores(&all)).collect();
                harmonic(&records)
            })
            .collect();
        (means.first()?.count > 0).then(|| Line {
            name: S.to_owned(),
            scale: 100.0,
            change: means.get(1).map(|after| Mean {
                count: after.count,
                mean: after.mean - means[0].mean,
                half: None,
            }),
            means,
        })
    }

    /// What was measured, what is missing, and what was left out.
    fn sentences(&self) -> Vec<String> {
        let measured = self.whole().count();
        let what = match self.spec.set() {
            v1::EvalSet::Zsre => "records by the measures of zsRE",
            v1::EvalSet::Texts => "texts",
            v1::EvalSet::Tests => "records of tests",
            v1::EvalSet::Choices => "choices",
            v1::EvalSet::Counterfact | v1::EvalSet::Unspecified => "records of CounterFact",
        };
        let mut first = format!("{measured} {what} on {}", self.job.version);
        if let Some(each) = &self.spec.edit_each {
            let layer = each
                .layer
                .map_or(String::new(), |layer| format!(" at layer {layer}"));
            let numbers = each.parameters.iter();
            let numbers: Vec<String> = numbers
                .map(|p| format!(", {} {}", p.key, p.value))
                .collect();
            first += &format!(
                ", before and after an edit of each alone: {}{layer}{}, seed {}",
                each.method,
                numbers.concat(),
                each.seed
            );
        } else if let [against, _] = self.columns.as_slice() {
            first += &format!(", against {}", against.version);
        }
        let mut sentences = vec![first + "."];
        sentences.extend(self.written.told());
        let failed = self
            .rows
            .iter()
            .filter(|row| !row.failures.is_empty())
            .count();
        let missing = self.rows.len() - measured - failed;
        if missing > 0 {
            sentences.push(format!("{missing} records are not measured."));
        }
        let undone = (self.whole())
            .filter(|(row, all)| {
                row.record
                    .tests
                    .iter()
                    .any(|it| !Self::counts(row, all, &it.criterion))
            })
            .count();
        if undone > 0 {
            sentences.push(format!(
                "Of {undone} records the edit does not hold: only their own prompt is counted."
            ));
        }
        if self.spec.left_out > 0 {
            sentences.push(format!(
                "{} records were left out: the unedited model does not know their facts.",
                self.spec.left_out
            ));
        }
        if self.spec.spoiled > 0 {
            sentences.push(format!(
                "{} neighbours were left out: they speak of the subject of another record.",
                self.spec.spoiled
            ));
        }
        for (n, row) in self.rows.iter().enumerate() {
            for failure in &row.failures {
                sentences.push(format!(
                    "{} failed ({}): {}",
                    named(n, row.record),
                    class_name(failure.failure_class()),
                    failure.message
                ));
            }
        }
        sentences
    }

    /// A JSON object a line, one a record: its figures by column, and every prompt's answers in
    /// each.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn json_lines(&self, out: &mut dyn Write) -> Result<(), Error> {
        for (n, row) in self.rows.iter().enumerate() {
            let fact = row.record.request.clone().unwrap_or_default();
            let mut object = match (&row.record.choice, self.of_texts()) {
                (Some(asked), _) => json!({
                    "record": n + 1, "task": asked.task, "prompt": asked.prompt, "choices": asked.choices,
                    "right": asked.right,
                }),
                (None, true) => json!({"record": n + 1, "text": row.record.text}),
                (None, false) => json!({
                    "record": n + 1, "id": fact.id, "prompt": fact.prompt, "subject": fact.subject,
                    "target_new": fact.target_new, "target_true": fact.target_true,
                }),
            };
            for (column, measured) in self.columns.iter().zip(&row.measured) {
                object[column.name] = match measured {
                    Some(measured) => measure(row.record, measured, &column.version),
                    None => Value::Null,
                };
            }
            if let Some(edit) = row.edit {
                object["edit"] = json!({"steps": edit.steps, "loss": edit.loss, "norm": edit.norm});
            }
            if let Some(failure) = row.failures.first() {
                object["error"] = json!({
                    "class": class_name(failure.failure_class()), "message": failure.message,
                });
            }
            writeln!(out, "{object}")?;
        }
        Ok(())
    }

    /// The means, a JSON object a line for every measure: by column `mean`, `interval` (95 %, null
    /// where it is not known) and `version`; what the measured version has `written`; `change` from the first column to the second, of a
    /// perplexity the `ratio`; and the `records` that they are over. GE is in hundredths of bits,
    /// scores are from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn means_json(&self, out: &mut dyn Write) -> Result<(), Error> {
        for line in self.lines() {
            let mut object = Map::new();
            object.insert("measure".into(), line.name.into());
            object.insert("records".into(), line.means[0].count.into());
            object.insert("left_out".into(), self.spec.left_out.into());
            object.insert("spoiled".into(), self.spec.spoiled.into());
            object.insert("written".into(), self.written.json());
            for (column, mean) in self.columns.iter().zip(&line.means) {
                let mut found = mean_json(mean);
                found["version"] = column.version.as_str().into();
                object.insert(column.name.into(), found);
            }
            if let Some(change) = &line.change {
                object.insert(self.compared().1.into(), mean_json(change));
            }
            writeln!(out, "{}", Value::Object(object))?;
        }
        Ok(())
    }
}

/// A line of the table of means.
pub struct Line {
    /// The measure: `ES`, `PPL`.
    pub name: String,
    /// What values are multiplied by.
    pub scale: f64,
    /// A mean a column: the version's own is the last.
    pub means: Vec<Mean>,
    /// The last column beside the first: the difference, of a perplexity the ratio.
    pub change: Option<Mean>,
}

/// What a measure's values are multiplied by.
fn scale(name: &str) -> f64 {
    name.parse().map_or(100.0, Metric::scale)
}

fn value(measured: &v1::EvalMeasure, name: &str) -> Option<f64> {
    let found = measured.figures.iter().find(|figure| figure.key == name);
    found.map(|figure| figure.value)
}

/// A record as errors call it, from 1, with its own number.
fn named(n: usize, record: &v1::EvalRecord) -> String {
    let id = record.request.as_ref().and_then(|fact| fact.id.clone());
    match id {
        Some(id) => format!("record {} (case_id {id})", n + 1),
        None => format!("record {}", n + 1),
    }
}

/// A mean as JSON: `mean`, and `interval` (95 %), null where it is not known.
pub fn mean_json(mean: &Mean) -> Value {
    json!({"mean": mean.mean, "interval": mean.interval().map(|(from, to)| [from, to])})
}

fn measure(record: &v1::EvalRecord, measured: &v1::EvalMeasure, version: &str) -> Value {
    if let Some(text) = &measured.text {
        return json!({"version": version, "nll": text.nll, "tokens": text.tokens, "likeliest": text.likeliest});
    }
    let figures: Map<String, Value> = measured
        .figures
        .iter()
        .map(|figure| (figure.key.clone(), json!(figure.value)))
        .collect();
    let fact = record.request.clone().unwrap_or_default();
    let prompts = std::iter::once(fact.prompt.replacen("{}", &fact.subject, 1))
        .chain(record.paraphrases.iter().cloned())
        .chain(record.neighbours.iter().map(|it| it.prompt.clone()));
    let scored = |scored: Option<v1::EvalScore>| {
        scored.map(|it| json!({"nll": it.nll, "tokens": it.tokens, "likeliest": it.likeliest}))
    };
    if record.choice.is_some() {
        let scores: Vec<f64> = measured.choices.iter().map(|it| it.nll).collect();
        return json!({
            "version": version, "figures": figures, "taken": taken(measured), "nll": scores,
        });
    }
    if !record.tests.is_empty() {
        let said = passed_tests(record, measured);
        return json!({"version": version, "figures": figures, "tests": said});
    }
    let mut continuations = measured.continuations.iter();
    let answers: Vec<Value> = prompts
        .zip(&measured.answers)
        .map(|(prompt, answer)| {
            let kind = match answer.kind() {
                EditProbeKind::Rewrite => "rewrite",
                EditProbeKind::Paraphrase => "paraphrase",
                EditProbeKind::Neighbour => "neighbour",
                EditProbeKind::Unspecified => "-",
            };
            let mut told = json!({
                "kind": kind, "prompt": prompt, "new": scored(answer.new_object),
                "true": scored(answer.true_object),
            });
            if let Some(continuation) = continuations.next() {
                told["continuation"] = continuation.as_str().into();
            }
            told
        })
        .collect();
    let mut object = json!({"version": version, "figures": figures, "answers": answers});
    if !measured.texts.is_empty() {
        object["texts"] = json!(measured.texts);
    }
    object
}

/// Which answer of a choice was taken.
fn taken(measured: &v1::EvalMeasure) -> Option<usize> {
    let scores: Vec<_> = measured.choices.iter().map(wire::score).collect();
    eval::taken(&scores)
}

/// What each query of a record's tests gave.
fn passed_tests(record: &v1::EvalRecord, measured: &v1::EvalMeasure) -> Vec<Value> {
    let mut said = measured.continuations.iter();
    let record = wire::record(record);
    let told = record.tests.iter().map(|test| {
        let queries = test.queries.iter().map(|query| {
            let text = said.next().map_or("", String::as_str);
            json!({"prompt": query.prompt, "continuation": text, "passed": eval::passes(query, text)})
        });
        json!({"criterion": test.criterion, "queries": queries.collect::<Vec<_>>()})
    });
    told.collect()
}

#[cfg(test)]
mod tests;
