//! Averages of each relation: whether a picture is that of all facts, or of some.

use std::collections::BTreeMap;
use std::io::Write;

use super::averages::{EARLY, LATE};
use super::figures::print;
use super::{Over, Results, WIDTH};
use crate::causal::{Averages, Kind, Mean, Role};
use crate::cli::output::paragraph;
use crate::cli::results::Error;
use crate::figures;
use crate::plot::axis::number;
use crate::plot::table::{Align, Table};
use crate::plot::text::visible;
use crate::plot::{Colour, HeatMap};
use crate::proto::v1;
use crate::wire::{self, kind_name};

/// The facts of one relation.
pub(super) struct Relation {
    /// Its name; none for facts without one.
    pub name: Option<String>,
    /// Facts that the model answers otherwise than expected.
    pub left_out: usize,
    /// Their averages, of every kind that has a traced fact.
    pub kinds: Vec<(v1::Kind, Averages)>,
}

impl Relation {
    /// Its name for people.
    fn label(&self) -> String {
        match &self.name {
            Some(name) => visible(name),
            None => "(none)".to_owned(),
        }
    }

    /// Facts that its averages are over.
    fn facts(&self) -> u64 {
        let kinds = self.kinds.iter();
        kinds
            .map(|(_, averages)| averages.total_effect.rows)
            .max()
            .unwrap_or_default()
    }

    fn kind(&self, wanted: v1::Kind) -> Option<&Averages> {
        let mut kinds = self.kinds.iter();
        kinds
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, averages)| averages)
    }
}

impl Results<'_> {
    /// The relations, those with the most traced facts first.
    pub(super) fn relations(&self) -> Result<Vec<Relation>, Error> {
        let mut names: BTreeMap<&Option<String>, ()> = BTreeMap::new();
        for unit in &self.units {
            names.insert(&unit.fact.relation, ());
        }
        let mut relations = Vec::new();
        for &name in names.keys() {
            let of = Over::Relation(name);
            relations.push(Relation {
                name: name.clone(),
                left_out: self.left_out(of),
                kinds: self.averages_of(of)?,
            });
        }
        relations.sort_by_key(|relation| std::cmp::Reverse(relation.facts()));
        Ok(relations)
    }

    /// The averages of each relation for a reader: a line each, with the total effect and of every
    /// kind the highest indirect effect at the token where the paper found it, and a heat map of
    /// each kind. `width` is the terminal's.
    ///
    /// # Errors
    /// [`Error::Output`], [`Error::Averages`] and [`Error::Plot`].
    pub fn report_relations(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        self.say_estimate(out, width)?;
        let relations = self.relations()?;
        let kinds: Vec<v1::Kind> = self.by_kind()?.into_iter().map(|(kind, _)| kind).collect();
        for map in relation_maps(&relations, &kinds) {
            print(out, &map, width, colour)?;
            writeln!(out)?;
        }
        let heads: Vec<String> = kinds.iter().map(|&k| kind_name(k).to_uppercase()).collect();
        let mut columns = vec![
            ("RELATION", Align::Left),
            ("FACTS", Align::Right),
            ("LEFT OUT", Align::Right),
            ("ATE", Align::Right),
            ("±95 %", Align::Right),
        ];
        for head in &heads {
            columns.push((head, Align::Right));
            columns.push(("±95 %", Align::Right));
            columns.push(("LAYER", Align::Right));
        }
        let mut table = Table::new(&columns);
        for relation in &relations {
            let mut row = vec![
                relation.label(),
                relation.facts().to_string(),
                relation.left_out.to_string(),
            ];
            match relation.kinds.first() {
                Some((_, averages)) => row.extend(with_error(&averages.total_effect)),
                None => row.extend([String::new(), String::new()]),
            }
            for &kind in &kinds {
                let site = relation.kind(kind).and_then(|means| means.peak(role(kind)));
                match site {
                    Some(site) => {
                        row.extend(with_error(&site.effect));
                        row.push(match site.head {
                            Some(head) => format!("{}, head {head}", site.layer),
                            None => site.layer.to_string(),
                        });
                    }
                    None => row.extend([const { String::new() }; 3]),
                }
            }
            table.row(row);
        }
        out.write_all(table.render(width, colour).as_bytes())?;
        writeln!(out)?;
        let note = format!(
            "Of each kind the highest average indirect effect of a relation and its layer: of attention and heads at the \
             {LATE}, of the others at the {EARLY}."
        );
        paragraph(out, &note, width.or(Some(WIDTH)))?;
        Ok(())
    }

    /// The heat maps of [`relation_maps`] with the names of their files.
    pub(super) fn relation_figures(&self) -> Result<Vec<(String, HeatMap)>, Error> {
        let relations = self.relations()?;
        let kinds = self.by_kind()?.into_iter();
        let kinds: Vec<v1::Kind> = kinds.map(|(kind, _)| kind).filter(is_of_layers).collect();
        let names = kinds.iter().map(|&kind| {
            format!(
                "averages_{}{}_by_relation.svg",
                kind_name(kind),
                self.suffix()
            )
        });
        let names: Vec<String> = names.collect();
        Ok(names
            .into_iter()
            .zip(relation_maps(&relations, &kinds))
            .collect())
    }
}

/// Where the paper found a kind to matter.
fn role(kind: v1::Kind) -> Role {
    match wire::kind(kind) {
        Some((kind, _)) if kind.is_over_tokens() => Role::Every,
        Some((kind, _)) if kind.is_of_heads() || kind == Kind::Attn => LATE,
        _ => EARLY,
    }
}

/// Of every kind the indirect effect by relation and layer, at the token where the paper found it.
/// Relations without a traced fact of the kind are left out, and so are kinds of heads, which have
/// no single row of layers.
fn relation_maps(relations: &[Relation], kinds: &[v1::Kind]) -> Vec<HeatMap> {
    let map = |&kind: &v1::Kind| {
        let role = role(kind);
        let found: Vec<(String, &Averages)> = relations
            .iter()
            .filter_map(|relation| {
                let averages = relation.kind(kind)?;
                averages.peak(role)?;
                let facts = averages.total_effect.rows;
                Some((format!("{} ({facts})", relation.label()), averages))
            })
            .collect();
        let averages = found.first()?.1;
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let effects: Vec<f32> = found
            .iter()
            .flat_map(|(_, averages)| averages.role(role))
            .map(|effect| effect.mean as f32)
            .collect();
        let mut map = HeatMap::average(figures::drawn_as(kind), &names, averages.layers, &effects);
        map.title = format!(
            "{} by relation, {role}{}",
            figures::average_title(kind, &map),
            figures::title(averages.whole_answers, averages.engine)
        );
        map.signed = figures::is_signed(averages.metric, averages.direction, averages.engine);
        Some(map)
    };
    let kinds = kinds.iter().filter(|kind| is_of_layers(kind));
    kinds.filter_map(map).collect()
}

/// Whether a cell of the kind is of a whole layer.
fn is_of_layers(kind: &v1::Kind) -> bool {
    wire::kind(*kind).is_some_and(|(kind, _)| !kind.is_of_heads())
}

/// A mean and half the width of its 95 % interval.
fn with_error(mean: &Mean) -> [String; 2] {
    let half = mean.interval().map(|(from, to)| number((to - from) / 2.0));
    [number(mean.mean), half.unwrap_or_default()]
}
