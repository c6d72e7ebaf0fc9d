//! Mass edits: the facts of a batch are written together, over several layers. A batch is computed
//! on the version that the one before made.
//!
//! Stages: the contexts, where none are given; then of every batch the keys of its groups on the
//! version as it is and what is to be expected of it; the targets of its groups; for each layer the keys of its groups and the solve; for AlphaEdit the keys of its groups on the
//! edited model; its facts, measured; and its edit, which ends in a version. A group are the facts
//! of a batch whose text is the same up to the subject's end: they have one key, and so one target.
//! Groups and their facts are in the order of their digests, so that the order of a request decides
//! nothing.
//!
//! Facts are taken out of an edit that keeps what it was solved from in three stages: every layer
//! is solved without them; all facts are measured; and the edit, which stands in the place of the
//! first.

mod chosen;
mod facts;
mod plan;
mod reuse;
#[cfg(test)]
mod tests;
mod without;

use std::mem::take;
use std::ops::Range;

use facts::text_of_key;
use plan::Place;

use prost::Message as _;

use super::check::{dtype, short_text};
use super::edit::{
    CHOICE_LIMIT, CONTEXTS_BYTES, CONTEXTS_LIMIT, EDIT_TOKENS, REF_LIMIT, WHY_LIMIT, check_gates,
};
use super::gate_questions;
use super::gate_texts;
use super::landing::Landing;
use super::{Found, Items, Key, Keys, PartsObject, Stage, Work, Wrong, estimated_tokens};
use crate::edit::{self, Method};
use crate::objects::Digest;
use crate::proto::v1::{self, leased_unit::Spec as Unit};
use v1::unit_result::Outcome;

/// Most stages of a job: as many batches as go into it.
const STAGES_LIMIT: usize = 100_000;
/// Most bytes of the facts of a batch, without what is watched: its edit is one message.
const BATCH_BYTES: usize = 2 << 20;
/// Most layers of one edit.
const LAYERS_LIMIT: usize = 100;
/// The branch that moves where none is named.
const MAIN: &str = "main";
/// Texts that a target and its key are read in.
const CONTEXTS: f64 = 6.0;

impl v1::MassEditSpec {
    fn check_layers(&self, wrong: &mut Wrong) {
        if self.layers.len() > LAYERS_LIMIT {
            let what = format_args!("there are {}: {LAYERS_LIMIT} at most", self.layers.len());
            wrong.say("job.mass_edit.layers", what);
        }
        if let Some(pair) = self.layers.windows(2).find(|pair| pair[0] >= pair[1]) {
            let what = format_args!(
                "{} comes before {}: give each once, from the lowest to the highest, such as 4-8",
                pair[0], pair[1]
            );
            wrong.say("job.mass_edit.layers", what);
        }
    }

    fn check_method(&mut self, wrong: &mut Wrong) {
        if self.method.is_empty() {
            self.method = Method::Memit.to_string();
        }
        match self.method.parse::<Method>() {
            Ok(method) if method.is_mass() => {
                let mut overrides = edit::Overrides::default();
                for (n, parameter) in self.parameters.iter().enumerate() {
                    if let Err(error) = overrides.set(method, &parameter.key, parameter.value) {
                        wrong.say(format_args!("job.mass_edit.parameters[{n}]"), error);
                    }
                }
            }
            Ok(method) => {
                let what =
                    format_args!("{method} writes one fact at a time: ask for it in job.edit");
                wrong.say("job.mass_edit.method", what);
            }
            Err(error) => wrong.say("job.mass_edit.method", error),
        }
    }
}

impl Work for v1::MassEditSpec {
    fn units_word(&self) -> &'static str {
        "edits and facts"
    }

    fn steps_word(&self) -> &'static str {
        "steps"
    }

    fn take_parts(&mut self) -> Items {
        self.arrange();
        Items::of(&Self {
            tasks: take(&mut self.tasks),
            ..Default::default()
        })
    }

    fn put_parts(&mut self, items: &Items) {
        self.tasks = items.messages().collect();
    }

    fn has_parts(&self) -> bool {
        !self.tasks.is_empty()
    }

    fn parts_object(&self) -> Option<PartsObject<'_>> {
        Some(PartsObject {
            field: "job.mass_edit.tasks_object",
            digest: &self.tasks_object,
        })
    }

    fn name_parts_object(&mut self, digest: &str) {
        digest.clone_into(&mut self.tasks_object);
    }

    fn take_object(&mut self, items: Items) -> Items {
        // In the order of the request; from here on they are kept in that of their digests.
        self.put_parts(&items);
        if self.tasks.len() != items.len() {
            // Some are no facts, which is said where they are checked.
            self.tasks.clear();
            return items;
        }
        self.tasks_object.clear();
        self.take_parts()
    }

    fn count_parts(&mut self, count: u64) {
        self.fact_count = count;
        self.group_count = self.groups.len() as u64;
        self.batch_count = self.batches.len() as u64;
    }

    fn shorten(&mut self) {
        self.contexts.clear();
        self.groups.clear();
        self.batches.clear();
        if let Some(without) = &mut self.without {
            without.shorten();
        }
    }

    fn check(&mut self, items: &Items, wrong: &mut Wrong) {
        match self.without.is_some() {
            true => self.check_without(items, wrong),
            false => {
                if items.is_empty() {
                    wrong.say("job.mass_edit.tasks", "there are none: give at least one");
                }
                self.check_method(wrong);
            }
        }
        self.check_layers(wrong);
        self.check_facts(items, wrong);
        if self.batch == Some(0) {
            let what =
                "0 facts of a batch are none: give 1 or more, or leave it out for all in one";
            wrong.say("job.mass_edit.batch", what);
        }
        let plan = self.plan(items);
        let largest = (0..plan.batches()).map(|batch| {
            let facts = plan.facts_of(plan.groups_of(batch));
            let requests = facts.filter_map(|n| items.message::<v1::EditTask>(n)?.request);
            requests.map(|it| it.encoded_len()).sum::<usize>()
        });
        if let Some(bytes) = largest.max().filter(|bytes| *bytes > BATCH_BYTES) {
            let what = format_args!(
                "the facts of a batch have {bytes} bytes, {BATCH_BYTES} at most: give smaller batches"
            );
            wrong.say("job.mass_edit.batch", what);
        }
        let layers = self.layers.len().max(1);
        if self.batches.len() > STAGES_LIMIT / (6 + 2 * layers) {
            let what = format_args!(
                "{} batches of {layers} layers are too many for one job: give larger batches, or \
                 several jobs",
                self.batches.len()
            );
            wrong.say("job.mass_edit.batch", what);
        }
        for (n, context) in self.contexts.iter().enumerate() {
            if let Err(error) = edit::check_context(context) {
                wrong.say(format_args!("job.mass_edit.contexts[{n}]"), error);
            }
        }
        let bytes: usize = self.contexts.iter().map(String::len).sum();
        if self.contexts.len() > CONTEXTS_LIMIT || bytes > CONTEXTS_BYTES {
            let what = format_args!(
                "there are {} of {bytes} bytes: {CONTEXTS_LIMIT} of {CONTEXTS_BYTES} bytes at most",
                self.contexts.len()
            );
            wrong.say("job.mass_edit.contexts", what);
        }
        if self.ref_id.is_empty() {
            self.ref_id = MAIN.to_owned();
        }
        short_text("job.mass_edit.ref_id", &self.ref_id, REF_LIMIT, wrong);
        short_text("job.mass_edit.etag", &self.etag, REF_LIMIT, wrong);
        short_text("job.mass_edit.why", &self.why, WHY_LIMIT, wrong);
        let choice = &self.layer_choice;
        short_text("job.mass_edit.layer_choice", choice, CHOICE_LIMIT, wrong);
        check_gates(&self.gates.unwrap_or_default(), "job.mass_edit", wrong);
        gate_texts::check(&mut self.gate_texts, self.gates, "job.mass_edit", wrong);
        gate_questions::check(&mut self.gate_questions, self.gates, "job.mass_edit", wrong);
        dtype(&mut self.dtype, wrong);
        if self.statistics_names.len() > LAYERS_LIMIT {
            let count = self.statistics_names.len();
            let what = format_args!("there are {count}: {LAYERS_LIMIT} at most, one a layer");
            wrong.say("job.mass_edit.statistics_names", what);
        }
        // Ours to say.
        self.statistics.clear();
        (self.fact_count, self.group_count, self.batch_count) = (0, 0, 0);
    }

    fn asked_gates(&mut self) -> Option<&mut Option<v1::EditGates>> {
        Some(&mut self.gates)
    }

    fn gate_texts(&mut self) -> Option<(&'static str, &mut Option<v1::GateTexts>)> {
        Some(("job.mass_edit.gate_texts", &mut self.gate_texts))
    }

    fn gate_questions(&mut self) -> Option<(&'static str, &mut v1::GateQuestions)> {
        Some((
            "job.mass_edit.gate_questions",
            self.gate_questions.as_mut()?,
        ))
    }

    fn mass_edit(&mut self) -> Option<&mut v1::MassEditSpec> {
        Some(self)
    }

    fn stages(&self, _version: &str, items: &Items) -> Vec<Stage> {
        self.plan(items).stages()
    }

    fn cost(&self, items: &Items, unit: u64, shape: &v1::model::Shape) -> f64 {
        let plan = self.plan(items);
        let parameters = shape.parameters as f64;
        let bytes = |facts: Range<usize>| -> f64 {
            let each = facts.map(|n| items.get(n).map_or(0, <[u8]>::len));
            each.sum::<usize>() as f64
        };
        // The edited matrix is some four widths wide.
        let inner = 4.0 * f64::from(shape.width);
        match plan.place(unit) {
            Some(Place::Target(group)) => {
                EDIT_TOKENS / 2.0 * parameters * plan.facts_of(group..group + 1).len() as f64
            }
            Some(Place::Keys(_, group) | Place::KeysAfter(group) | Place::CheckKeys(group)) => {
                let fact = plan.facts_of(group..group + 1).start;
                let request = items.message::<v1::EditTask>(fact).unwrap_or_default();
                let text = text_of_key(&request.request.unwrap_or_default());
                let last = self.layers.last().map_or(0, |&layer| layer + 1);
                let part = f64::from(last) / f64::from(shape.layers.max(1));
                CONTEXTS * (10.0 + estimated_tokens(&text)) * parameters * part
            }
            Some(Place::Solve(batch, _)) => {
                let groups = plan.groups_of(batch).len() as f64;
                inner * inner * (inner / 3.0 + 2.0 * groups)
            }
            Some(Place::Check(batch)) => {
                let groups = plan.groups_of(batch).len() as f64;
                let layers = self.layers.len() as f64;
                layers * inner * (inner * inner / 3.0 + inner * groups + groups * groups)
            }
            // Before and after, for either target.
            Some(Place::Fact(fact)) => bytes(fact..fact + 1) * parameters,
            _ => {
                let judged = gate_texts::tokens(self.gate_texts.as_ref())
                    + gate_questions::tokens(self.gate_questions.as_ref());
                (200.0 + judged) * parameters
            }
        }
    }

    fn size(&self, items: &Items, unit: u64) -> usize {
        let plan = self.plan(items);
        let bytes = |facts: Range<usize>| -> usize {
            facts.map(|n| items.get(n).map_or(0, <[u8]>::len)).sum()
        };
        match plan.place(unit) {
            Some(
                Place::Target(group)
                | Place::Keys(_, group)
                | Place::KeysAfter(group)
                | Place::CheckKeys(group),
            ) => bytes(plan.facts_of(group..group + 1)),
            Some(Place::Fact(fact)) => bytes(fact..fact + 1),
            Some(Place::Solve(batch, _) | Place::Edit(batch) | Place::Check(batch)) => {
                bytes(plan.facts_of(plan.groups_of(batch)))
            }
            Some(Place::Contexts) | None => 0,
        }
    }

    fn dtype(&self) -> v1::Dtype {
        self.dtype()
    }

    fn unit(&self, _version: &str, items: &Items, unit: u64) -> Option<Unit> {
        Some(Unit::MassEdit(self.plan(items).unit(items, unit)?))
    }

    fn settings(&self, found: &Found) -> v1::lease::Settings {
        let mut settings = Self {
            tasks: Vec::new(),
            groups: Vec::new(),
            batches: Vec::new(),
            statistics_names: Vec::new(),
            ..self.clone()
        };
        if settings.contexts.is_empty() {
            settings.contexts.clone_from(&found.contexts);
        }
        v1::lease::Settings::MassEdit(settings)
    }

    fn decides_later_keys(&self, stage: &Stage) -> bool {
        !matches!(stage.name, "check keys" | "check")
    }

    fn reuse_settings(&self) -> Option<Vec<u8>> {
        Some(self.dtype.to_be_bytes().to_vec())
    }

    fn reuse_key(
        &self,
        keys: &Keys,
        version: &str,
        items: &Items,
        unit: u64,
        found: &Found,
    ) -> Option<Key> {
        self.key(keys, version, items, unit, found)
    }

    fn accept(
        &self,
        items: &Items,
        unit: u64,
        outcome: &Outcome,
        _shape: &v1::model::Shape,
    ) -> Result<(), String> {
        let plan = self.plan(items);
        match (plan.place(unit), outcome) {
            (Some(Place::Contexts), Outcome::MassEditContexts(drawn)) => {
                // Every later lease carries them.
                let bytes: usize = drawn.contexts.iter().map(String::len).sum();
                if drawn.contexts.len() > CONTEXTS_LIMIT || bytes > CONTEXTS_BYTES {
                    return Err(format!(
                        "it has {} contexts of {bytes} bytes, {CONTEXTS_LIMIT} of {CONTEXTS_BYTES} \
                         at most",
                        drawn.contexts.len()
                    ));
                }
                match drawn
                    .contexts
                    .iter()
                    .try_for_each(|it| edit::check_context(it))
                {
                    Ok(()) if !drawn.contexts.is_empty() => Ok(()),
                    Ok(()) => Err("it has no contexts".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            }
            (Some(Place::Target(_)), Outcome::MassEditTarget(target)) => {
                singles("its target", &target.value)
            }
            (Some(Place::Keys(..)), Outcome::MassEditKeys(read)) if read.keys.len() == 1 => {
                singles("its key", &read.keys[0])?;
                singles("its residual", &read.residual)
            }
            (Some(Place::KeysAfter(_) | Place::CheckKeys(_)), Outcome::MassEditKeys(read))
                if read.keys.len() == plan.layers() =>
            {
                read.keys.iter().try_for_each(|key| singles("its key", key))
            }
            (Some(Place::Solve(batch, layer)), Outcome::MassEditSolved(solved)) => {
                let factor = solved.factor.clone().unwrap_or_default();
                if let Some(kept) = &solved.solve {
                    let columns = plan.kept_groups(batch).count();
                    let all = kept.columns as usize == columns || self.keep_going;
                    if !all || kept.layer != factor.layer || solved.groups.len() > columns {
                        return Err(format!(
                            "it keeps {} columns of layer {}, the batch has {columns}",
                            kept.columns, kept.layer
                        ));
                    }
                }
                match factor.digest.parse::<Digest>() {
                    Ok(_) if self.layers.get(layer) == Some(&factor.layer) => Ok(()),
                    Ok(_) => Err(format!("layer {} is not the one it is of", factor.layer)),
                    Err(error) => Err(format!("its change lies in no object: {error}")),
                }
            }
            (Some(Place::Fact(fact)), Outcome::MassEditFact(measured)) => {
                let task: v1::EditTask = items.message(fact).unwrap_or_default();
                match measured.request == task.request {
                    true => Ok(()),
                    false => Err("it is of another fact".to_owned()),
                }
            }
            (Some(Place::Check(batch)), Outcome::MassEditChecked(checked)) => {
                let groups = plan.groups_of(batch);
                let of = (groups.len() as u64, plan.facts_of(groups).len() as u64);
                if (checked.keys, checked.facts) != of {
                    return Err("it is of other facts".to_owned());
                }
                let layers = checked.layers.iter().map(|it| it.layer);
                match layers.eq(self.layers.iter().copied()) {
                    true => Ok(()),
                    false => Err("it is of other layers than those of the job".to_owned()),
                }
            }
            (Some(Place::Edit(batch)), Outcome::Edit(made)) => {
                let edit = made.edit.clone().unwrap_or_default();
                let facts = plan.kept_facts(batch);
                let tasks = facts.filter_map(|n| items.message::<v1::EditTask>(n)?.request);
                let all = facts_left(tasks, &edit.requests, self.keep_going);
                if !all || edit.requests.is_empty() {
                    return Err("its edit is of other facts".to_owned());
                }
                let layers = edit.factors.iter().map(|factor| factor.layer);
                if !layers.eq(self.layers.iter().copied()) {
                    return Err("its edit is not of the layers that were asked for".to_owned());
                }
                gate_texts::accept(self.gate_texts.as_ref(), &edit)?;
                gate_questions::accept(self.gate_questions.as_ref(), &edit)
            }
            _ => Err("it is no result of this step of a mass edit".to_owned()),
        }
    }

    fn note(&self, outcome: &Outcome, found: &mut Found) {
        if let Outcome::MassEditContexts(drawn) = outcome
            && found.contexts.is_empty()
        {
            found.contexts.clone_from(&drawn.contexts);
        }
    }

    fn leaves_out_failures(&self, stage: &Stage) -> bool {
        // A fact, and not what is made of all of them.
        self.keep_going && !matches!(stage.name, "contexts" | "check" | "solve" | "edit")
    }

    fn usual_ref(&self) -> Option<&str> {
        Some(&self.ref_id)
    }

    fn landing(&self) -> Option<Landing<'_>> {
        (!self.check_only).then_some(Landing {
            ref_id: &self.ref_id,
            etag: &self.etag,
            rebase: false,
            why: &self.why,
            gates: self.gates.unwrap_or_default(),
            replaces: self.without.as_ref().map_or("", |it| it.edit.as_str()),
        })
    }
}

/// Whether the facts of an edit are those of its batch, in their order; all of them, or those that
/// were not left out.
fn facts_left(
    mut asked: impl Iterator<Item = v1::EditRequest>,
    written: &[v1::EditRequest],
    some: bool,
) -> bool {
    if !some {
        return asked.eq(written.iter().cloned());
    }
    written.iter().all(|fact| asked.any(|it| it == *fact))
}

/// Bytes that are numbers, some and finite ones.
fn singles(what: &str, bytes: &[u8]) -> Result<(), String> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    if numbers.is_empty() || !rest.is_empty() {
        return Err(format!(
            "{what} has {} bytes: no single numbers",
            bytes.len()
        ));
    }
    match numbers
        .iter()
        .map(|it| f32::from_le_bytes(*it))
        .find(|it| !it.is_finite())
    {
        Some(number) => Err(format!("a number of {what} is {number}")),
        None => Ok(()),
    }
}
