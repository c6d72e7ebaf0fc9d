//! Edits: a unit is a fact. Without a ref the facts are computed and measured side by side, each on
//! the job's version. With a ref each is a stage of its own, computed on the version that the one
//! before made, and its result ends in a version of that ref.

use std::mem::take;

use super::check::{dtype, prompt, short_text};
use super::gate_questions;
use super::gate_texts;
use super::landing::Landing;
use super::measured;
use super::{Found, Items, Stage, Work, Wrong};
use crate::edit::{self, measured::Gates};
use crate::proto::v1::{self, leased_unit::Spec as Unit, unit_result::Outcome};
use crate::wire;

/// Passes of one token that an edit costs: some 20 steps of 20 contexts with half a dozen tokens
/// each, forth and back.
pub(super) const EDIT_TOKENS: f64 = 5000.0;
/// Longest reason for a layer.
pub(super) const CHOICE_LIMIT: usize = 500;
/// Longest reason for an edit, as for every other change.
pub(super) const WHY_LIMIT: usize = 2000;
/// Most contexts, and most bytes of all of them.
pub(super) const CONTEXTS_LIMIT: usize = 1000;
pub(super) const CONTEXTS_BYTES: usize = 1 << 20;
/// Longest name of a ref, and of an etag.
pub(super) const REF_LIMIT: usize = 100;

impl Work for v1::EditSpec {
    fn units_word(&self) -> &'static str {
        "edits"
    }

    fn steps_word(&self) -> &'static str {
        // An edit tells its steps one by one.
        ""
    }

    fn take_parts(&mut self) -> Items {
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

    fn shorten(&mut self) {
        self.contexts.clear();
    }

    fn check(&mut self, items: &Items, wrong: &mut Wrong) {
        if items.is_empty() {
            wrong.say("job.edit.tasks", "there are none: give at least one");
        }
        for n in 0..items.len() {
            let task = items.message(n).unwrap_or_default();
            check_task(n, &task, wrong);
        }
        check_method(self, "job.edit", wrong);
        gate_texts::check(&mut self.gate_texts, self.gates, "job.edit", wrong);
        gate_questions::check(&mut self.gate_questions, self.gates, "job.edit", wrong);
        self.check_landing(wrong);
        dtype(&mut self.dtype, wrong);
    }

    fn asked_gates(&mut self) -> Option<&mut Option<v1::EditGates>> {
        Some(&mut self.gates)
    }

    fn gate_texts(&mut self) -> Option<(&'static str, &mut Option<v1::GateTexts>)> {
        Some(("job.edit.gate_texts", &mut self.gate_texts))
    }

    fn gate_questions(&mut self) -> Option<(&'static str, &mut v1::GateQuestions)> {
        Some(("job.edit.gate_questions", self.gate_questions.as_mut()?))
    }

    fn edits(&mut self) -> Option<(&'static str, &mut v1::EditSpec)> {
        Some(("job.edit", self))
    }

    fn stages(&self, _version: &str, items: &Items) -> Vec<Stage> {
        let facts = items.len() as u64;
        match self.landing() {
            None => vec![Stage::new("edits", 0..facts)],
            Some(_) => (0..facts)
                .map(|fact| Stage::new("edit", fact..fact + 1))
                .collect(),
        }
    }

    fn cost(&self, _items: &Items, _unit: u64, shape: &v1::model::Shape) -> f64 {
        let judged = gate_texts::tokens(self.gate_texts.as_ref())
            + gate_questions::tokens(self.gate_questions.as_ref());
        (EDIT_TOKENS + judged) * shape.parameters as f64
    }

    fn size(&self, items: &Items, unit: u64) -> usize {
        items.get(unit as usize).map_or(0, <[u8]>::len)
    }

    fn dtype(&self) -> v1::Dtype {
        self.dtype()
    }

    fn unit(&self, _version: &str, items: &Items, unit: u64) -> Option<Unit> {
        Some(Unit::Edit(items.message(unit as usize)?))
    }

    fn settings(&self, found: &Found) -> v1::lease::Settings {
        let mut settings = Self {
            tasks: Vec::new(),
            ..self.clone()
        };
        if settings.contexts.is_empty() {
            settings.contexts.clone_from(&found.contexts);
        }
        v1::lease::Settings::Edit(settings)
    }

    // Each is computed for its job: they answer no other.

    fn accept(
        &self,
        items: &Items,
        unit: u64,
        outcome: &Outcome,
        _shape: &v1::model::Shape,
    ) -> Result<(), String> {
        let Outcome::Edit(outcome) = outcome else {
            return Err("it is no edit".to_owned());
        };
        let task: v1::EditTask = items.message(unit as usize).unwrap_or_default();
        let edit = outcome.edit.clone().unwrap_or_default();
        if edit.requests.first() != task.request.as_ref() || edit.requests.len() != 1 {
            return Err("its edit is of another fact".to_owned());
        }
        if edit.factors.is_empty() {
            return Err("its edit changes nothing: it has no factors".to_owned());
        }
        if edit.method != self.method {
            return Err(format!(
                "its edit is by '{}', asked was '{}'",
                edit.method, self.method
            ));
        }
        let bytes: usize = edit.contexts.iter().map(String::len).sum();
        if edit.contexts.len() > CONTEXTS_LIMIT || bytes > CONTEXTS_BYTES {
            return Err(format!(
                "its edit has {} contexts of {bytes} bytes: {CONTEXTS_LIMIT} of {CONTEXTS_BYTES} bytes \
                 at most",
                edit.contexts.len()
            ));
        }
        let elsewhere = |factor: &&v1::LowRankFactor| Some(factor.layer) != self.layer;
        match edit.factors.iter().find(elsewhere) {
            Some(factor) if self.layer.is_some() => Err(format!(
                "its edit changes layer {}, which is not the one that was asked for",
                factor.layer
            )),
            _ => {
                gate_texts::accept(self.gate_texts.as_ref(), &edit)?;
                gate_questions::accept(self.gate_questions.as_ref(), &edit)?;
                measured::check_edit(outcome, &edit, &task)
            }
        }
    }

    fn note(&self, outcome: &Outcome, found: &mut Found) {
        if let Outcome::Edit(outcome) = outcome
            && let Some(edit) = &outcome.edit
            && self.landing().is_some()
            && found.contexts.is_empty()
        {
            found.contexts.clone_from(&edit.contexts);
        }
    }

    fn leaves_out_failures(&self, _stage: &Stage) -> bool {
        self.keep_going
    }

    fn landing(&self) -> Option<Landing<'_>> {
        (!self.ref_id.is_empty()).then(|| Landing {
            ref_id: &self.ref_id,
            etag: &self.etag,
            rebase: self.rebase,
            why: &self.why,
            gates: self.gates.unwrap_or_default(),
            replaces: "",
        })
    }
}

impl v1::EditSpec {
    fn check_landing(&self, wrong: &mut Wrong) {
        short_text("job.edit.ref_id", &self.ref_id, REF_LIMIT, wrong);
        short_text("job.edit.etag", &self.etag, REF_LIMIT, wrong);
        short_text("job.edit.why", &self.why, WHY_LIMIT, wrong);
        if self.ref_id.is_empty() {
            for (field, given) in [
                ("job.edit.etag", !self.etag.is_empty()),
                ("job.edit.rebase", self.rebase),
                ("job.edit.why", !self.why.is_empty()),
            ] {
                if given {
                    let what = "it is of a ref, and none is named: give job.edit.ref_id, or leave \
                                it out";
                    wrong.say(field, what);
                }
            }
        }
    }
}

/// What passes both: a request may be stricter than the coordinator's settings, not looser.
pub fn strictest(one: &v1::EditGates, other: &v1::EditGates) -> v1::EditGates {
    let both = Gates::strictest(wire::gates(one), wire::gates(other));
    v1::EditGates {
        efficacy: both.efficacy,
        neighbour_drift: both.neighbour_drift,
        norm: both.norm,
        norm_warning: both.norm_warning,
        ppl_ratio: both.ppl_ratio,
        server_ppl_ratio: both.server_ppl_ratio,
        locality: both.locality,
        downstream_drop: both.downstream_drop,
    }
}

fn check_task(n: usize, task: &v1::EditTask, wrong: &mut Wrong) {
    let request = edit::Request::from(task.request.clone().unwrap_or_default());
    if let Err(error) = request.check() {
        wrong.say(format_args!("job.edit.tasks[{n}].request"), error);
    }
    for (name, texts) in [
        ("paraphrases", &task.paraphrases),
        ("neighbours", &task.neighbours),
    ] {
        for (i, text) in texts.iter().enumerate() {
            prompt(format_args!("job.edit.tasks[{n}].{name}[{i}]"), text, wrong);
        }
    }
}

/// How an edit is computed: what is asked of an editing job, and of an evaluation that edits each
/// record.
pub(super) fn check_method(spec: &mut v1::EditSpec, of: &str, wrong: &mut Wrong) {
    // Ours to say.
    spec.statistics = None;
    if spec.method.is_empty() {
        spec.method = edit::Method::default().to_string();
    }
    match spec.method.parse::<edit::Method>() {
        Ok(method) if method.is_mass() => {
            let what =
                format_args!("{method} writes many facts at once: ask for it in job.mass_edit");
            wrong.say(format_args!("{of}.method"), what);
        }
        Ok(method) => {
            let mut overrides = edit::Overrides::default();
            for (n, parameter) in spec.parameters.iter().enumerate() {
                if let Err(error) = overrides.set(method, &parameter.key, parameter.value) {
                    wrong.say(format_args!("{of}.parameters[{n}]"), error);
                }
            }
        }
        Err(error) => wrong.say(format_args!("{of}.method"), error),
    }
    let choice = &spec.layer_choice;
    short_text(
        format_args!("{of}.layer_choice"),
        choice,
        CHOICE_LIMIT,
        wrong,
    );
    check_gates(&spec.gates.unwrap_or_default(), of, wrong);
    for (n, context) in spec.contexts.iter().enumerate() {
        if let Err(error) = edit::check_context(context) {
            wrong.say(format_args!("{of}.contexts[{n}]"), error);
        }
    }
    let bytes: usize = spec.contexts.iter().map(String::len).sum();
    if spec.contexts.len() > CONTEXTS_LIMIT || bytes > CONTEXTS_BYTES {
        let what = format_args!(
            "there are {} of {bytes} bytes: {CONTEXTS_LIMIT} of {CONTEXTS_BYTES} bytes at most",
            spec.contexts.len()
        );
        wrong.say(format_args!("{of}.contexts"), what);
    }
}

pub(super) fn check_gates(gates: &v1::EditGates, of: &str, wrong: &mut Wrong) {
    for (name, value, least, most) in [
        ("efficacy", gates.efficacy, f64::MIN, f64::MAX),
        ("neighbour_drift", gates.neighbour_drift, 0.0, f64::MAX),
        ("norm", gates.norm, 0.0, f64::MAX),
        ("norm_warning", gates.norm_warning, 0.0, f64::MAX),
        ("ppl_ratio", gates.ppl_ratio, 0.0, f64::MAX),
        ("server_ppl_ratio", gates.server_ppl_ratio, 0.0, f64::MAX),
        ("locality", gates.locality, 0.0, 1.0),
        ("downstream_drop", gates.downstream_drop, 0.0, 1.0),
    ] {
        if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
            let remedy = match (least < 0.0, most > 1.0) {
                (true, _) => "a number",
                (false, true) => "0 or more",
                (false, false) => "0 to 1",
            };
            let what = format_args!("{value} is no gate: give {remedy}");
            wrong.say(format_args!("{of}.gates.{name}"), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_be_stricter_than_the_settings_and_not_looser() {
        let settings = v1::EditGates {
            efficacy: Some(0.5),
            norm: Some(0.1),
            server_ppl_ratio: Some(1.1),
            locality: Some(0.9),
            ..Default::default()
        };
        let asked = v1::EditGates {
            efficacy: Some(0.1),
            norm: Some(0.01),
            neighbour_drift: Some(2.0),
            server_ppl_ratio: Some(1.2),
            locality: Some(0.8),
            ..Default::default()
        };
        let both = strictest(&asked, &settings);
        assert_eq!(both.efficacy, Some(0.5));
        assert_eq!(both.norm, Some(0.01));
        assert_eq!(both.neighbour_drift, Some(2.0));
        assert_eq!(both.norm_warning, None);
        assert_eq!(both.server_ppl_ratio, Some(1.1));
        assert_eq!(both.locality, Some(0.9));
        assert_eq!(strictest(&settings, &asked), both);
        assert_eq!(strictest(&v1::EditGates::default(), &settings), settings);
    }

    #[test]
    fn an_edit_by_another_method_or_of_another_layer_is_not_the_one_that_was_asked_for() {
        let task = v1::EditTask {
            request: Some(v1::EditRequest {
                subject: "Louvre".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let spec = v1::EditSpec {
            method: "r-rome".into(),
            layer: Some(1),
            ..Default::default()
        };
        let items = Items::of(&v1::EditSpec {
            tasks: vec![task.clone()],
            ..Default::default()
        });
        let said = |method: &str, layer| {
            let edit = v1::Edit {
                requests: task.request.clone().into_iter().collect(),
                method: method.into(),
                figures: ["rewrite.new.after", "rewrite.new.before"]
                    .map(|key| v1::NamedNumber {
                        key: key.into(),
                        value: 0.0,
                    })
                    .to_vec(),
                factors: vec![v1::LowRankFactor {
                    layer,
                    ..Default::default()
                }],
                ..Default::default()
            };
            let outcome = v1::EditOutcome {
                edit: Some(edit),
                probes: vec![v1::EditProbe {
                    kind: v1::EditProbeKind::Rewrite as i32,
                    ..Default::default()
                }],
                ..Default::default()
            };
            spec.accept(&items, 0, &Outcome::Edit(outcome), &Default::default())
        };
        assert_eq!(said("r-rome", 1), Ok(()));
        assert!(said("ft-l", 1).unwrap_err().contains("'ft-l'"));
        assert!(said("r-rome", 2).unwrap_err().contains("layer 2"));
    }
}
