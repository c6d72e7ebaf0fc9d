//! Results as files in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Outcome, Results, Unit};
use crate::causal::{Grid, Metric, Receiver};
use crate::cli::results::Error;
use crate::cli::results::drawn::{make, write};
use crate::figures::{average_curves, average_maps, maps, panels, scores, severed_curves};
use crate::npz::{self, Npz};
use crate::proto::v1;
use crate::wire::kind_name;

impl Results<'_> {
    /// Draws a heat map of every traced fact and kind into `folder`, one a token where it is of heads
    /// at single tokens, and, of more than one traced fact, the averages, as
    /// [`Results::svg_averages`] does. Gives the files in that order.
    ///
    /// The folder is made where it is missing. Files of the same names are overwritten, others
    /// stay.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Averages`] and [`Error::Plot`].
    pub fn svg(&self, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        make(folder)?;
        let mut files = Vec::new();
        for unit in &self.units {
            let drawn = unit.traced().map(|grid| maps(self.model, unit.kind, grid));
            for (page, map) in drawn.into_iter().flatten() {
                let name = self.file_name(unit, &page, "svg");
                files.push(write(folder, name, map.to_svg())?);
            }
        }
        if self.traced_facts() > 1 {
            files.extend(self.svg_averages(folder)?);
        }
        Ok(files)
    }

    /// Draws the averages into `folder`: all kinds in one figure; of every kind a heat map by role
    /// of token and the same as curves, of heads a heat map for each role; and the curves of severed
    /// paths where they were traced. Gives the files in that order: none when no fact was traced.
    ///
    /// # Errors
    /// As [`Results::svg`].
    pub fn svg_averages(&self, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        make(folder)?;
        let kinds = self.by_kind()?;
        if kinds.is_empty() {
            return Ok(Vec::new());
        }
        let all = panels(self.model, None, self.metric, &kinds).to_svg();
        let suffix = self.suffix();
        let mut files = vec![write(folder, format!("averages{suffix}.svg"), all)?];
        for (kind, averages) in &kinds {
            let name = kind_name(*kind);
            for (page, map) in average_maps(*kind, averages) {
                let name = format!("averages_{name}{page}{suffix}.svg");
                files.push(write(folder, name, map.to_svg())?);
            }
            if let Some(curves) = average_curves(*kind, averages) {
                let name = format!("averages_{name}{suffix}_curves.svg");
                files.push(write(folder, name, curves.to_svg())?);
            }
        }
        if let Some(curves) = severed_curves(&kinds) {
            let name = format!("averages_severed{suffix}_curves.svg");
            files.push(write(folder, name, curves.to_svg())?);
        }
        Ok(files)
    }

    /// Draws into `folder` of every kind a heat map of its effect by relation and layer, at the
    /// token where the paper found it. Gives the files.
    ///
    /// # Errors
    /// As [`Results::svg`].
    pub fn svg_relations(&self, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        make(folder)?;
        let figures = self.relation_figures()?;
        figures
            .into_iter()
            .map(|(name, map)| write(folder, name, map.to_svg()))
            .collect()
    }

    /// Writes one `.npz` a fact and kind into `folder`, in the form of the published code (see
    /// [`npz::Trace`]); severed kinds stand in its `kind` by their names. Failed units have none.
    /// Gives the files in the order of the units.
    ///
    /// The folder is made where it is missing. Files of the same names are overwritten, others
    /// stay.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Npz`].
    pub fn npz(&self, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        make(folder)?;
        let mut files = Vec::new();
        for unit in &self.units {
            let Outcome::Grid { sent, grid } = &unit.outcome else {
                continue;
            };
            let ids: Vec<i64> = sent.token_ids.iter().map(|&id| i64::from(id)).collect();
            let arrays = match grid.low {
                None => npz::Trace::untraced(grid.untraced.as_deref()),
                Some(low) => npz::Trace {
                    scores: &scores(grid),
                    shape: &grid.shape(),
                    low_score: low,
                    high_score: grid.high,
                    input_ids: &ids,
                    input_tokens: &sent.tokens,
                    subject_range: grid.subject.clone(),
                    answer: &grid.answer_text(),
                    window: grid.window,
                    kind: match unit.kind {
                        v1::Kind::Hidden => "",
                        kind => kind_name(kind),
                    },
                }
                .to_npz(),
            };
            let file = folder.join(self.file_name(unit, "", "npz"));
            let bytes = arrays
                .and_then(|arrays| patching(arrays, grid))
                .and_then(|arrays| arrays.to_bytes())
                .map_err(|source| Error::Npz {
                    file: file.clone(),
                    source,
                })?;
            fs::write(&file, bytes).map_err(|source| Error::File {
                path: file.clone(),
                source,
            })?;
            files.push(file);
        }
        Ok(files)
    }

    /// `003_eiffel-tower_mlp.svg`, or `003_eiffel-tower_head_t04.svg` of a page: the fact's number,
    /// from 1, tells facts with one subject apart.
    fn file_name(&self, unit: &Unit<'_>, page: &str, extension: &str) -> String {
        let digits = self.facts.to_string().len().max(3);
        let subject = readable(&unit.fact.subject);
        format!(
            "{:0digits$}_{subject}_{}{page}{}.{extension}",
            unit.position,
            kind_name(unit.kind),
            self.suffix()
        )
    }

    /// What tells the files of another metric from those of the paper's.
    pub(super) fn suffix(&self) -> String {
        match self.metric {
            Metric::Probability => String::new(),
            other => format!("_{other}"),
        }
    }
}

/// What the published form has no arrays for: the metric of the scores, where it is not the
/// probability; the receivers of paths; the prompt that corrupts, its tokens, the foil and the
/// direction, where one does; and of estimates what they are and the exact scores of the cells that
/// were verified.
fn patching(mut arrays: Npz, grid: &Grid) -> Result<Npz, npz::Error> {
    if !grid.traced() {
        return Ok(arrays);
    }
    if grid.metric != Metric::Probability {
        arrays.strings("metric", &[], &[grid.metric.to_string()])?;
    }
    if let Some(other) = &grid.corrupted {
        let ids: Vec<i64> = other.tokens.iter().map(|it| i64::from(it.id)).collect();
        arrays
            .strings("corrupted_prompt", &[], &[other.prompt.as_str()])?
            .i64("corrupted_ids", &[ids.len()], &ids)?
            .strings("direction", &[], &[grid.direction.to_string()])?;
    }
    if let Some(foil) = grid.foil_text() {
        arrays.strings("foil", &[], &[foil])?;
    }
    if grid.whole_answers {
        arrays.bool("whole_answers", &[], &[true])?;
    }
    if let Some(paths) = &grid.paths {
        let receivers: Vec<String> = paths.receivers.iter().map(Receiver::to_string).collect();
        arrays.strings("receivers", &[receivers.len()], &receivers)?;
    }
    if let Some(estimate) = grid.engine.estimate() {
        arrays.strings("estimate", &[], &[estimate])?;
        let verified = &grid.verified;
        let cells = verified
            .iter()
            .flat_map(|it| [it.token as i64, it.layer as i64]);
        let heads: Vec<i64> = verified
            .iter()
            .filter_map(|it| it.head)
            .map(|it| it as i64)
            .collect();
        if !grid.neurons.is_empty() {
            let neurons: Vec<i64> = grid.neurons.iter().map(|&it| i64::from(it)).collect();
            let of_cells = verified.iter().filter_map(|it| it.neuron);
            let of_cells: Vec<i64> = of_cells.map(|it| it as i64).collect();
            arrays.i64("neurons", &grid.shape(), &neurons)?.i64(
                "verified_neurons",
                &[of_cells.len()],
                &of_cells,
            )?;
        }
        if grid.kind.is_of_heads() {
            arrays.i64("verified_heads", &[heads.len()], &heads)?;
        }
        let exact = verified.iter().filter_map(|it| it.exact.first().copied());
        let exact: Vec<f64> = exact.collect();
        let random: Vec<bool> = verified.iter().map(|it| it.random).collect();
        arrays
            .i64(
                "verified_cells",
                &[verified.len(), 2],
                &cells.collect::<Vec<_>>(),
            )?
            .bool("verified_random", &[random.len()], &random)?
            .f64("verified_scores", &[exact.len()], &exact)?;
    }
    Ok(arrays)
}

/// Writes a figure and gives its file.
/// A subject as a part of a file name: letters and digits in lower case, everything else a hyphen.
/// At most 40 characters, which in any script stay under the 255 bytes that file systems allow.
fn readable(subject: &str) -> String {
    let lower = subject.to_lowercase();
    let words = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    let name: String = words
        .collect::<Vec<_>>()
        .join("-")
        .chars()
        .take(40)
        .collect();
    match name.trim_end_matches('-') {
        "" => "fact".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn a_subject_makes_a_safe_and_readable_name() {
        assert_eq!(readable("Eiffel Tower"), "eiffel-tower");
        assert_eq!(readable("../../etc/passwd"), "etc-passwd");
        assert_eq!(readable("São Paulo's \n\"Museu\""), "são-paulo-s-museu");
        assert_eq!(readable("東京タワー"), "東京タワー");
        assert_eq!(readable("!?"), "fact");
        assert_eq!(readable(&"long ".repeat(20)).len(), 39);
        assert!(readable(&"𝐀".repeat(300)).len() <= 160);
    }
}
