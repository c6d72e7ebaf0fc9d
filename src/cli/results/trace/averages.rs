//! The averages of a job as a table and in words.

use std::io::Write;

use super::{Outcome, Results, Unit};
use crate::causal::{Averages, Direction, Mean, Role, Site};
use crate::cli::results::Error;
use crate::figures::state_name;
use crate::plot::Colour;
use crate::plot::axis::number;
use crate::plot::table::{Align, Table};
use crate::plot::text::visible;
use crate::proto::v1;
use crate::wire::kind_name;

/// Where the paper found MLPs to matter.
pub(super) const EARLY: Role = Role::LastSubject;
/// Where it found attention to.
pub(super) const LATE: Role = Role::Last;

impl Results<'_> {
    /// The averages over facts: the answer's probability clean and corrupted, the total effect
    /// (ATE), and of every role of token the indirect effect (AIE) at the layer where it is
    /// highest, with 95 % intervals and the number of rows. `width` is the terminal's.
    ///
    /// # Errors
    /// [`Error::Output`] and [`Error::Averages`].
    pub fn averages(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        let mut columns = vec![
            ("KIND", Align::Left),
            ("EFFECT", Align::Left),
            ("LAYER", Align::Right),
            ("MEAN", Align::Right),
            ("95 % FROM", Align::Right),
            ("TO", Align::Right),
            ("ROWS", Align::Right),
        ];
        let shares = self.shows_shares();
        if shares {
            columns.push(("SHARE", Align::Right));
        }
        let mut table = Table::new(&columns);
        let kinds = self.by_kind()?;
        // Clean and corrupted runs are shared by the kinds, unless some units of a kind failed.
        let whole = |averages: &Averages| [averages.high, averages.low, averages.total_effect];
        let shared = kinds
            .windows(2)
            .all(|pair| whole(&pair[0].1) == whole(&pair[1].1));
        if let (true, Some((_, averages))) = (shared, kinds.first()) {
            runs(&mut table, "all", averages, columns.len());
        }
        for (kind, averages) in &kinds {
            let name = kind_name(*kind);
            if !shared {
                runs(&mut table, name, averages, columns.len());
            }
            for &role in averages.roles() {
                if let Some(site) = averages.peak(role) {
                    let effect = format!("AIE, {}", place(&site));
                    let mut cells = row(name, &effect, Some(site.layer), &site.effect);
                    match averages
                        .share_at(&site)
                        .filter(|share| shares && share.rows > 0)
                    {
                        Some(share) => cells.push(number(share.mean)),
                        None => cells.resize(columns.len(), String::new()),
                    }
                    table.row(cells);
                }
            }
        }
        out.write_all(table.render(width, colour).as_bytes())?;
        Ok(())
    }

    /// What was seen, in sentences: how much the noise takes away, and at which layers and tokens
    /// it comes back.
    ///
    /// # Errors
    /// [`Error::Averages`].
    pub fn summary(&self) -> Result<Vec<String>, Error> {
        let kinds = self.by_kind()?;
        let mut sentences = vec![self.extent()];
        let Some((_, first)) = kinds.first() else {
            return Ok(sentences);
        };
        let (clean, corrupted) = (number(first.high.mean), number(first.low.mean));
        let total = figure(&first.total_effect);
        sentences.push(match self.shows_shares() {
            false => format!(
                "The model gives its answers a probability of {clean}; with the subject corrupted it is {corrupted}: a \
                 total effect of {total}."
            ),
            true => format!(
                "The {} of the model's answers is {clean}; corrupted it is {corrupted}: a total effect of {total}.",
                first.metric.words()
            ),
        });
        if first.without_share > 0 && self.shows_shares() {
            sentences.push(format!(
                "{} a total effect under {}, too small to divide by, and no shares of it.",
                count(first.without_share as usize, "fact with"),
                first.metric.least_total_effect()
            ));
        }
        let of = |wanted| {
            kinds
                .iter()
                .find(|(kind, _)| *kind == wanted)
                .map(|(_, means)| means)
        };
        if let Some(averages) = of(v1::Kind::Hidden) {
            sentences.extend(peaks("a single hidden state", "at", averages));
        }
        for (kind, averages) in &kinds {
            if let Some(what) = state_name(*kind).filter(|_| !averages.kind.is_over_tokens()) {
                sentences.extend(peaks(what, "at", averages));
            }
        }
        for (kind, what) in [(v1::Kind::Mlp, "MLP"), (v1::Kind::Attn, "attention")] {
            let mut grids = self
                .units
                .iter()
                .filter(|u| u.kind == kind)
                .filter_map(Unit::traced);
            if let (Some(averages), Some(grid)) = (of(kind), grids.next()) {
                let what = format!("the {what} outputs of {}", count(grid.window, "layer"));
                sentences.extend(peaks(&what, "around", averages));
            }
        }
        for (kind, averages) in &kinds {
            let over_all = state_name(*kind).filter(|_| averages.kind.is_over_tokens());
            if let Some((what, best)) = over_all.zip(averages.locate()) {
                sentences.push(format!(
                    "{} at most {} at {}.",
                    match averages.direction {
                        Direction::Denoising => format!("Restoring {what} brings back"),
                        Direction::Noising => format!("Corrupting {what} takes away"),
                    },
                    figure(&best.effect),
                    layer(&best)
                ));
            }
        }
        for (kind, what) in [
            (v1::Kind::HiddenSeveredMlp, "the MLPs"),
            (v1::Kind::HiddenSeveredAttn, "attention"),
        ] {
            if let Some(site) = of(kind).and_then(|averages| averages.peak(EARLY)) {
                sentences.push(format!(
                    "With {what} severed, a hidden state of the {EARLY} brings back at most {}, at layer {}.",
                    figure(&site.effect),
                    site.layer
                ));
            }
        }
        if let (Some(mlp), Some(attn)) = (of(v1::Kind::Mlp), of(v1::Kind::Attn)) {
            sentences.extend(sites(mlp, attn));
        }
        if let Some((averages, site)) = of(v1::Kind::Mlp).and_then(|a| Some((a, a.edit_site()?))) {
            sentences.push(edit(averages, &site));
        }
        Ok(sentences)
    }

    /// How many facts the numbers are from, and which are not among them.
    fn extent(&self) -> String {
        let otherwise = self.facts_with(|_, grid| !grid.correct_prediction);
        let alone = self.facts_with(|_, grid| grid.untraced.is_some());
        let failed = self
            .units
            .iter()
            .filter(|unit| matches!(unit.outcome, Outcome::Failure(_)))
            .count();
        let mut text = format!(
            "{} on {}",
            count(self.traced_facts(), "fact traced"),
            visible(self.model)
        );
        if otherwise > 0 {
            text += &format!(
                "; {} otherwise than expected and left out",
                count(otherwise, "fact answered")
            );
        }
        if alone > 0 {
            text += &format!(
                "; {} to corrupt it with",
                count(alone, "fact without a prompt")
            );
        }
        if failed > 0 {
            text += &format!("; {}", count(failed, "grid failed"));
        }
        if self.missing > 0 {
            text += &format!("; {} without a result", count(self.missing, "grid"));
        }
        text + "."
    }
}

/// The lines of the clean and the corrupted run.
fn runs(table: &mut Table, kind: &str, averages: &Averages, columns: usize) {
    for (effect, mean) in [
        ("clean", &averages.high),
        ("corrupted", &averages.low),
        ("total effect (ATE)", &averages.total_effect),
    ] {
        let mut cells = row(kind, effect, None, mean);
        cells.resize(columns, String::new());
        table.row(cells);
    }
}

fn row(kind: &str, effect: &str, layer: Option<usize>, mean: &Mean) -> Vec<String> {
    let (from, to) = mean.interval().unzip();
    vec![
        kind.to_owned(),
        effect.to_owned(),
        layer.map(|layer| layer.to_string()).unwrap_or_default(),
        number(mean.mean),
        from.map(number).unwrap_or_default(),
        to.map(number).unwrap_or_default(),
        mean.rows.to_string(),
    ]
}

/// `last token`, `last token, head 3`.
pub(super) fn place(site: &Site) -> String {
    match site.head {
        Some(head) => format!("{}, head {head}", site.role),
        None => site.role.to_string(),
    }
}

/// `layer 9`, `layer 9, head 3`.
fn layer(site: &Site) -> String {
    match site.head {
        Some(head) => format!("layer {}, head {head}", site.layer),
        None => format!("layer {}", site.layer),
    }
}

/// `1 fact traced`, `2 facts traced`.
fn count(n: usize, what: &str) -> String {
    match what.split_once(' ') {
        _ if n == 1 => format!("1 {what}"),
        Some((noun, rest)) => format!("{n} {noun}s {rest}"),
        None => format!("{n} {what}s"),
    }
}

/// Where restoring `what` brings most back: at the two sites of the paper, and anywhere else where
/// it is more than at both.
fn peaks(what: &str, at: &str, averages: &Averages) -> Option<String> {
    let (early, late) = (averages.peak(EARLY)?, averages.peak(LATE)?);
    let place = |site: &Site| format!("{} {at} {}", figure(&site.effect), layer(site));
    let mut text = format!(
        "{} {} of the {EARLY} and {} of the {LATE}",
        match averages.direction {
            Direction::Denoising => format!("Restoring {what} brings back"),
            Direction::Noising => format!("Corrupting {what} takes away"),
        },
        place(&early),
        place(&late)
    );
    if let Some(best) = averages
        .locate()
        .filter(|best| best.role != EARLY && best.role != LATE)
        && best.effect.mean > early.effect.mean.max(late.effect.mean)
    {
        text += &format!(", but most, {}, of the {}", place(&best), best.role);
    }
    Some(text + ".")
}

/// Whether MLPs carry the early site and attention the late one, as the paper found.
fn sites(mlp: &Averages, attn: &Averages) -> Option<String> {
    let compare = |role| {
        let (mlp, attn) = (mlp.peak(role)?, attn.peak(role)?);
        let more = mlp.effect.mean > attn.effect.mean;
        let (mlp, attn) = (number(mlp.effect.mean), number(attn.effect.mean));
        Some((
            more,
            if more {
                format!("the MLPs carry more ({mlp}, attention {attn})")
            } else {
                format!("attention carries more ({attn}, the MLPs {mlp})")
            },
        ))
    };
    let ((mlp_early, early), (mlp_late, late)) = (compare(EARLY)?, compare(LATE)?);
    let verdict = match (mlp_early, mlp_late) {
        (true, false) => "the picture of Meng et al. (2022)",
        _ => "not the picture of Meng et al. (2022)",
    };
    Some(format!(
        "At the early site, the {EARLY}, {early}; at the late site, the {LATE}, {late}: {verdict}."
    ))
}

/// Facts that a sweep must have an effect of before an edit goes by it: the peak of a few is
/// chance.
pub const ENOUGH: u64 = 10;

/// The layer that an edit of these facts belongs in.
pub(super) fn edit(averages: &Averages, site: &Site) -> String {
    let plateau = averages.plateau(site);
    let alike = match plateau.start() == plateau.end() {
        true => String::new(),
        false => format!(
            "; layers {} to {} are within its interval",
            plateau.start(),
            plateau.end()
        ),
    };
    // Estimates rank cells well, and may be far off in the one that is highest.
    let exactly = match averages.engine.estimate() {
        Some(_) => {
            " These are estimates: trace the facts with --engine exact before one follows them."
        }
        None => "",
    };
    let few = match site.effect.rows {
        1 => format!(" The peak of one fact may be chance: trace {ENOUGH} or more."),
        rows if rows < ENOUGH => {
            format!(" The peak of {rows} facts may be chance: trace {ENOUGH} or more.")
        }
        _ => String::new(),
    };
    format!(
        "An edit of these facts belongs in the MLP of layer {0} ('palimpsest edit --layer {0}'): there the \
         MLP effect of the {1} is highest, {2}{alike}.{exactly}{few}",
        site.layer,
        site.role,
        figure(&site.effect)
    )
}

/// `0.231 (95 % 0.190 to 0.270, 11 rows)`.
pub(super) fn figure(mean: &Mean) -> String {
    match mean.interval() {
        Some((from, to)) => format!(
            "{} (95 % {} to {}, {} rows)",
            number(mean.mean),
            number(from),
            number(to),
            mean.rows
        ),
        None => number(mean.mean),
    }
}
