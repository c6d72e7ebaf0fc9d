//! Where a job's effects peak, and so where an edit should go.

use std::io::Write;

use serde_json::json;

use super::averages::{edit, place};
use super::json::site;
use crate::causal::{Averages, Metric};
use crate::cli::output::paragraph;
use crate::cli::results::Error;
use crate::figures::title;
use crate::plot::Colour;
use crate::plot::axis::number;
use crate::plot::table::{Align, Table};
use crate::plot::text::visible;
use crate::proto::v1;
use crate::wire::{self, kind_name};

/// The sites of a job's facts.
pub struct Sites {
    job: String,
    model: String,
    relation: Option<String>,
    kinds: Vec<(v1::Kind, Averages)>,
}

impl Sites {
    /// What a server found over a sweep's grids.
    ///
    /// # Errors
    /// [`Error::NothingTraced`] when there is no such fact.
    pub fn of(
        job: &v1::Job,
        relation: Option<&str>,
        summary: &v1::GetSweepSummaryResponse,
    ) -> Result<Self, Error> {
        let sent = summary.averages.iter();
        let kinds = sent.filter_map(|it| Some((it.kind(), wire::averages(it)?)));
        let kinds: Vec<(v1::Kind, Averages)> = kinds.collect();
        if kinds.is_empty() {
            return Err(Error::NothingTraced {
                job: job.name.clone(),
                relation: relation.map(str::to_owned),
            });
        }
        Ok(Self {
            job: job.name.clone(),
            model: job.model.trim_start_matches("models/").to_owned(),
            relation: relation.map(str::to_owned),
            kinds,
        })
    }

    /// For a reader: of every kind the role and layer where its effect is highest, and the layer of
    /// an edit. `width` is the terminal's.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn report(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        // The metric stands behind a kind where it is not the paper's, and what an estimate is.
        let name = |kind: v1::Kind, averages: &Averages| {
            let metric = match averages.metric {
                Metric::Probability => String::new(),
                metric => format!(", {}", metric.words()),
            };
            format!(
                "{}{metric}{}",
                kind_name(kind),
                title(averages.whole_answers, averages.engine)
            )
        };
        let mut table = Table::new(&[
            ("KIND", Align::Left),
            ("HIGHEST AT", Align::Left),
            ("LAYER", Align::Right),
            ("AIE", Align::Right),
            ("95 % FROM", Align::Right),
            ("TO", Align::Right),
            ("ROWS", Align::Right),
        ]);
        for (kind, averages) in &self.kinds {
            // An edit site is listed too where it is not the highest of its kind.
            let edit = averages.edit_site();
            let highest = averages.locate();
            let sites = highest.into_iter().chain(edit.filter(|_| edit != highest));
            for site in sites {
                let (from, to) = site.effect.interval().unzip();
                table.row([
                    name(*kind, averages),
                    place(&site),
                    site.layer.to_string(),
                    number(site.effect.mean),
                    from.map(number).unwrap_or_default(),
                    to.map(number).unwrap_or_default(),
                    site.effect.rows.to_string(),
                ]);
            }
        }
        out.write_all(table.render(width, colour).as_bytes())?;
        writeln!(out)?;
        let of = match &self.relation {
            Some(relation) => format!(" of relation {}", visible(relation)),
            None => String::new(),
        };
        let facts = self.kinds[0].1.total_effect.rows;
        let over = format!(
            "{facts} fact{}{of} on {}.",
            if facts == 1 { "" } else { "s" },
            visible(&self.model)
        );
        let sentence = match self.edit() {
            Some((averages, at)) => edit(averages, &at),
            None => {
                "No MLPs were traced: the layer of an edit is found with --kinds mlp.".to_owned()
            }
        };
        paragraph(out, &format!("{over} {sentence}"), width)?;
        Ok(())
    }

    /// For a program, one JSON object: of every kind the site where its effect is highest, and
    /// under `edit` the default site of an edit, null when no MLPs were traced.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn json(&self, out: &mut dyn Write) -> Result<(), Error> {
        let sites = self.kinds.iter().map(|(kind, averages)| {
            let highest = averages.locate().map(|highest| site(averages, &highest));
            json!({
                "kind": kind_name(*kind),
                "metric": averages.metric.to_string(),
                "estimate": averages.engine.estimate(),
                "facts": averages.total_effect.rows,
                "highest": highest,
            })
        });
        let object = json!({
            "job": self.job,
            "model": self.model,
            "relation": self.relation,
            "sites": sites.collect::<Vec<_>>(),
            "edit": self.edit().map(|(averages, at)| site(averages, &at)),
        });
        writeln!(out, "{object}")?;
        Ok(())
    }

    /// Where an edit of these facts belongs, with their averages; none when no MLPs were traced.
    pub fn edit(&self) -> Option<(&Averages, crate::causal::Site)> {
        let mut kinds = self.kinds.iter();
        kinds.find_map(|(_, averages)| Some((averages, averages.edit_site()?)))
    }
}
