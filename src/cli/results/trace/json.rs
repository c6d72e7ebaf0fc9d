//! Results as JSON, one object a line.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::{Outcome, Over, Results, estimates};
use crate::causal::{Averages, Grid, Mean, Paths, Receiver, Role, Site, Token};
use crate::cli::results::Error;
use crate::proto::v1;
use crate::wire::class_name;
use crate::wire::{compat, kind_name};

impl Results<'_> {
    /// A JSON object a line, one a fact and kind. `scores` is `[token][layer]`, of heads
    /// `[token][head][layer]` or, over every token, `[head][layer]`; an untraced fact has none, and
    /// `low` is then null. `answer_ids` has one number unless answers were read whole. These are
    /// probabilities; `metrics` has the others by name, `untraced` why
    /// a fact that the model knows was not traced. `estimate` says in words what the scores are where
    /// they are not exact, and `attribution` how they came about, with the cells that were verified
    /// and what those say; both null of exact scores. A failed unit has `error` with `class` and
    /// `message`.
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
                    "answer": grid.answer_text(),
                    "whole_answers": grid.whole_answers,
                    "answer_ids": ids(std::iter::once(&grid.answer).chain(&grid.answer_rest)),
                    "correct_prediction": grid.correct_prediction,
                    "high": grid.high,
                    "low": grid.low,
                    "scores": nested(grid, &grid.scores),
                    "window": sent.window,
                    "samples": sent.samples,
                    "noise": sent.noise,
                    "noise_scale": sent.noise_scale,
                    "noise_corpus": Some(&sent.noise_corpus).filter(|digest| !digest.is_empty()),
                    "seed": sent.seed,
                    "compat": compat(sent.compat()).to_string(),
                    "direction": grid.direction.to_string(),
                    "receivers": grid.paths.as_ref().map(receivers),
                    "frozen_mlps": grid.paths.as_ref().map(|paths| paths.frozen_mlps),
                    "corrupted": grid.corrupted.as_ref().map(|other| json!({
                        "prompt": other.prompt,
                        "tokens": other.tokens.iter().map(|it| &it.text).collect::<Vec<_>>(),
                        "token_ids": other.tokens.iter().map(|it| it.id).collect::<Vec<_>>(),
                    })),
                    "foil_id": grid.foil.as_ref().map(|it| it.id),
                    "foil": grid.foil_text(),
                    "foil_ids": grid.foil.as_ref().map(|it| {
                        ids(std::iter::once(it).chain(&grid.foil_rest))
                    }),
                    "untraced": grid.untraced,
                    "metrics": readings(grid),
                    "neurons": (!grid.neurons.is_empty())
                        .then(|| grid.neurons.chunks(grid.layers.max(1)).collect::<Vec<_>>()),
                    "engine": grid.engine.to_string(),
                    "estimate": grid.engine.estimate(),
                    "attribution": estimates::json(grid),
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

    /// The averages, a JSON object a line for every kind: over all facts, or, `by_relation`, over
    /// those of every relation.
    ///
    /// A mean is an object with `mean`, `standard_error`, `interval` (95 %: both null under two
    /// rows) and `rows`. `clean` and `corrupted` are the metric in the two runs, `total_effect`
    /// their difference (ATE); `indirect_effect` has by role one mean a layer (AIE), of heads
    /// `[head][layer]`, null for a role that no token has; `share` the same as shares of the total
    /// effect, but of `without_share` facts, where that is too small to divide by.
    ///
    /// # Errors
    /// [`Error::Output`] and [`Error::Averages`].
    pub fn averages_json(&self, out: &mut dyn Write, by_relation: bool) -> Result<(), Error> {
        if !by_relation {
            for (kind, averages) in &self.by_kind()? {
                let object = self.averages_object(*kind, averages, self.left_out(Over::All));
                writeln!(out, "{}", Value::Object(object))?;
            }
            return Ok(());
        }
        for relation in self.relations()? {
            for (kind, averages) in &relation.kinds {
                let mut object = Map::new();
                object.insert("relation".into(), json!(relation.name));
                object.extend(self.averages_object(*kind, averages, relation.left_out));
                writeln!(out, "{}", Value::Object(object))?;
            }
        }
        Ok(())
    }

    fn averages_object(
        &self,
        kind: v1::Kind,
        averages: &Averages,
        left_out: usize,
    ) -> Map<String, Value> {
        let by_role = |of: fn(&Averages, Role) -> &[Mean]| -> Map<String, Value> {
            let of_role = |&role: &Role| {
                let means = of(averages, role);
                let seen = means.iter().any(|mean| mean.rows > 0);
                let means: Vec<Value> = means.iter().map(mean).collect();
                let means = match averages.kind.is_of_heads() {
                    true => json!(means.chunks(averages.layers.max(1)).collect::<Vec<_>>()),
                    false => json!(means),
                };
                (role_name(role), seen.then_some(means).into())
            };
            averages.roles().iter().map(of_role).collect()
        };
        let effects = by_role(Averages::role);
        let mut object = Map::new();
        object.insert("kind".into(), kind_name(kind).into());
        object.insert("model".into(), self.model.into());
        let mut units = self.units.iter().filter(|unit| unit.kind == kind);
        let sent = units.find_map(|unit| match &unit.outcome {
            Outcome::Grid { sent, .. } => Some(sent),
            Outcome::Failure(_) => None,
        });
        if let Some(sent) = sent {
            object.insert("window".into(), sent.window.into());
            object.insert("samples".into(), sent.samples.into());
            object.insert("noise".into(), sent.noise.as_str().into());
            object.insert("noise_scale".into(), sent.noise_scale.into());
            object.insert("seed".into(), sent.seed.into());
        }
        object.insert("layers".into(), averages.layers.into());
        object.insert("facts".into(), averages.total_effect.rows.into());
        object.insert("left_out".into(), left_out.into());
        object.insert("clean".into(), mean(&averages.high));
        object.insert("corrupted".into(), mean(&averages.low));
        object.insert("total_effect".into(), mean(&averages.total_effect));
        object.insert(
            "peak".into(),
            json!(averages.locate().map(|at| site(averages, &at))),
        );
        object.insert("indirect_effect".into(), effects.into());
        object.insert("metric".into(), averages.metric.to_string().into());
        object.insert("direction".into(), averages.direction.to_string().into());
        let paths = averages.paths.as_ref();
        object.insert("receivers".into(), json!(paths.map(receivers)));
        let frozen_mlps = paths.map(|paths| paths.frozen_mlps);
        object.insert("frozen_mlps".into(), json!(frozen_mlps));
        object.insert("whole_answers".into(), averages.whole_answers.into());
        object.insert("engine".into(), averages.engine.to_string().into());
        object.insert("estimate".into(), averages.engine.estimate().into());
        object.insert("share".into(), by_role(Averages::shares).into());
        object.insert("without_share".into(), averages.without_share.into());
        object
    }
}

/// The numbers of tokens.
fn ids<'a>(tokens: impl Iterator<Item = &'a Token>) -> Vec<u32> {
    tokens.map(|token| token.id).collect()
}

/// Where paths end.
fn receivers(paths: &Paths) -> Vec<String> {
    paths.receivers.iter().map(Receiver::to_string).collect()
}

/// The metrics besides the probability, by name.
fn readings(grid: &Grid) -> Map<String, Value> {
    let readings = grid.readings.iter().map(|reading| {
        let value = json!({
            "clean": reading.high,
            "corrupted": reading.low,
            "scores": nested(grid, &reading.scores),
        });
        (reading.metric.to_string(), value)
    });
    readings.collect()
}

/// The scores of a grid in the shape that they have.
fn nested(grid: &Grid, scores: &[f64]) -> Value {
    let rows: Vec<&[f64]> = scores.chunks(grid.layers.max(1)).collect();
    match grid.kind.is_of_heads() && !grid.kind.is_over_tokens() {
        true => json!(rows.chunks(grid.heads.max(1)).collect::<Vec<_>>()),
        false => json!(rows),
    }
}

/// A mean with what is known about its error.
fn mean(mean: &Mean) -> Value {
    json!({
        "mean": mean.mean,
        "standard_error": mean.standard_error(),
        "interval": mean.interval().map(|(from, to)| [from, to]),
        "rows": mean.rows,
    })
}

/// A site, with its head, where it is of one, and the layers that its interval cannot tell from it.
pub(super) fn site(averages: &Averages, site: &Site) -> Value {
    let plateau = averages.plateau(site);
    let mut value = json!({
        "role": role_name(site.role),
        "layer": site.layer,
        "effect": mean(&site.effect),
        "layers_within_interval": [plateau.start(), plateau.end()],
    });
    if let Some(head) = site.head {
        value["head"] = head.into();
    }
    value
}

/// A role as data: `last_subject`.
fn role_name(role: Role) -> String {
    match serde_json::to_value(role) {
        Ok(Value::String(name)) => name,
        // A role is serialised by its name alone.
        _ => role.to_string(),
    }
}
