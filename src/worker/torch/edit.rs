//! Editing units: a fact computed, made into a matrix as a version would have it, and measured.

use super::super::engine::Sink;
use super::editing::{Editing, Plan};
use super::gates::{self, Readings};
use super::units::{Kind, Stopped, mixed};
use crate::edit::measured::{self, Measured, ProbeChange};
use crate::edit::{self, Effect, Error, NextTokens, Probe, Request, Update};
use crate::model;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, leased_unit::Spec as Unit};
use crate::wire::{self, names};

/// Factors up to this many bytes travel in the result; larger ones as objects.
const INLINE: usize = 1 << 20;

/// Text that has nothing to do with any edit: its drift is what the edit did to everything else.
const GENERIC: [&str; 3] = [
    "Once upon a time there was a farmer who had three daughters, and every morning they walked to the well.",
    "The committee met on Tuesday to discuss the budget for the next year, but no decision was reached.",
    "To make the dough, mix the flour with water and salt, knead it well and let it rest for an hour.",
];

/// The facts of a lease, in order.
pub(super) struct Edits<'a> {
    pub editing: Editing<'a>,
    pub fingerprint: v1::Fingerprint,
}

impl Kind for Edits<'_> {
    fn compute(
        &mut self,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Outcome>, Stopped> {
        let Some(Unit::Edit(task)) = &units[0].spec else {
            return Err(mixed(&units[0]));
        };
        let plan = self.editing.plan(sink)?;
        let outcome = self.edit(&plan, units[0].unit, task, sink)?;
        Ok(vec![Outcome::Edit(outcome)])
    }
}

impl Edits<'_> {
    fn edit(
        &mut self,
        plan: &Plan,
        unit: u64,
        task: &v1::EditTask,
        sink: &mut dyn Sink,
    ) -> Result<v1::EditOutcome, Stopped> {
        let fact = task.request.clone().unwrap_or_default();
        let request = Request::from(fact.clone());
        gates::check(self.editing.loaded.model(), &self.editing.ready.gate_inputs)?;
        let (update, steps) = self.editing.compute(plan, unit, &request, sink)?;
        let (measured, probes) = self.measure(&request, task, &update, sink)?;
        if let Some((name, value)) = measured.not_finite() {
            let error = Error::NotFinite { name, value };
            return Err(Stopped::Unit(error.to_string()));
        }
        let gates = wire::gates(&self.editing.spec.gates.unwrap_or_default());
        let verdict = measured::judge(&measured.figures(), &gates);
        let mut factor = self.editing.factor(&update)?.to_proto();
        if factor.data.len() > INLINE {
            factor.digest = sink.put(&factor.data).map_err(Stopped::Here)?;
            factor.data.clear();
        }
        let statistics = self
            .editing
            .spec
            .statistics
            .iter()
            .map(|s| s.digest.clone());
        let lease = &self.editing.ready.lease;
        let edit = v1::Edit {
            requests: vec![fact],
            method: plan.method.to_string(),
            parameters: wire::parameters(plan.method, &plan.hyper),
            contexts: plan.contexts.clone(),
            seed: self
                .editing
                .spec
                .contexts
                .is_empty()
                .then_some(self.editing.spec.seed),
            statistics: statistics
                .filter(|_| plan.method.needs_statistics())
                .collect(),
            factors: vec![factor],
            figures: (measured.named().into_iter())
                .map(|(key, value)| v1::NamedNumber { key, value })
                .collect(),
            based_on: lease.version.clone(),
            state: match verdict.accepted() {
                true => v1::EditState::Accepted,
                false => v1::EditState::Rejected,
            } as i32,
            failed_gates: verdict.failed,
            job: job_of(lease),
            fingerprint: wire::describe(&self.fingerprint),
            layer_choice: self.editing.spec.layer_choice.clone(),
            warnings: verdict.warnings,
            ..Default::default()
        };
        Ok(v1::EditOutcome {
            edit: Some(edit),
            probes,
            steps: steps.iter().map(wire::step_to_proto).collect(),
            ..Default::default()
        })
    }

    /// Runs the prompts on the version and on what it would be with the edit.
    fn measure(
        &mut self,
        request: &Request,
        task: &v1::EditTask,
        update: &Update,
        sink: &dyn Sink,
    ) -> Result<(Measured, Vec<v1::EditProbe>), Stopped> {
        let asked = Asked::new(request, task, true);
        let norm = self.editing.relative_norm(update)?;
        let inputs = &self.editing.ready.gate_inputs;
        let look = |model: &model::Model| -> Result<_, Stopped> {
            Ok((asked.answers(model)?, Readings::of(model, inputs, sink)?))
        };
        let (first, before) = look(&self.editing.loaded.model)?;
        let (second, after) = self.editing.with(update, look)??;
        let mut measured = asked.measured(&first, &second, norm);
        before.note(&after, inputs, &mut measured);
        let probes = asked.probes(&measured);
        Ok((measured, probes))
    }
}

/// The name of the job that a lease is of.
pub(super) fn job_of(lease: &v1::Lease) -> String {
    let key = lease.key.as_ref();
    let task = key.and_then(|key| names::parse_task(&key.task));
    task.map_or(String::new(), |(job, _)| names::job(job))
}

/// What is asked of the model before and after.
pub(super) struct Asked {
    kinds: Vec<v1::EditProbeKind>,
    probes: Vec<Probe>,
    generic: bool,
}

pub(super) struct Answers {
    effects: Vec<Effect>,
    neighbours: NextTokens,
    generic: NextTokens,
}

impl Asked {
    /// What is asked of a fact; with text that has nothing to do with it, or without.
    pub fn new(request: &Request, task: &v1::EditTask, generic: bool) -> Self {
        let mut kinds = vec![v1::EditProbeKind::Rewrite];
        let mut prompts = vec![request.text()];
        for (kind, texts) in [
            (v1::EditProbeKind::Paraphrase, &task.paraphrases),
            (v1::EditProbeKind::Neighbour, &task.neighbours),
        ] {
            kinds.extend(texts.iter().map(|_| kind));
            prompts.extend(texts.iter().cloned());
        }
        let probe = |prompt| Probe {
            prompt,
            target_new: request.target_new.clone(),
            target_true: request.target_true.clone(),
        };
        Self {
            kinds,
            probes: prompts.into_iter().map(probe).collect(),
            generic,
        }
    }

    /// Texts that have nothing to do with any edit, those that fit the model.
    pub fn generic(model: &model::Model) -> Vec<String> {
        let context = model.config().context;
        let fits = |text: &&str| {
            let encoded = model.tokenizer().encode(text);
            encoded.is_ok_and(|encoding| encoding.ids.len() <= context)
        };
        GENERIC
            .iter()
            .filter(|text| fits(text))
            .map(|text| (*text).to_owned())
            .collect()
    }

    pub fn answers(&self, model: &model::Model) -> Result<Answers, Error> {
        let generic = match self.generic {
            true => Self::generic(model),
            false => Vec::new(),
        };
        let neighbour = |n: usize| self.kinds[n] == v1::EditProbeKind::Neighbour;
        let (effects, neighbours) = edit::probe(model, &self.probes, neighbour)?;
        Ok(Answers {
            effects,
            neighbours,
            generic: NextTokens::of(model, &generic)?,
        })
    }
}

impl Asked {
    /// What an edit did, from the answers before and after it.
    pub fn measured(&self, first: &Answers, second: &Answers, norm: f64) -> Measured {
        let mut measured = Measured {
            neighbour_drifts: first.neighbours.drift(&second.neighbours),
            text_drifts: first.generic.drift(&second.generic),
            update_norm: norm,
            ..Measured::default()
        };
        let effects = first.effects.iter().zip(&second.effects);
        for (kind, (before, after)) in self.kinds.iter().zip(effects) {
            let of_kind = match kind {
                v1::EditProbeKind::Paraphrase => &mut measured.paraphrases,
                v1::EditProbeKind::Neighbour => &mut measured.neighbours,
                _ => &mut measured.rewrites,
            };
            of_kind.push(ProbeChange {
                new_before: before.new,
                new_after: after.new,
                true_before: before.old,
                true_after: after.old,
            });
        }
        measured
    }

    /// The prompts with what was measured of them, in the order in which they were asked.
    pub fn probes(&self, measured: &Measured) -> Vec<v1::EditProbe> {
        let all = (measured.rewrites.iter())
            .chain(&measured.paraphrases)
            .chain(&measured.neighbours);
        let prompts = self.kinds.iter().zip(&self.probes);
        let probes = prompts
            .zip(all)
            .map(|((&kind, probe), change)| v1::EditProbe {
                kind: kind as i32,
                prompt: probe.prompt.clone(),
                new_before: change.new_before,
                new_after: change.new_after,
                true_before: change.true_before,
                true_after: change.true_after,
            });
        probes.collect()
    }
}
