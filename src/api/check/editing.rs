//! What edits may not ask for.

use super::{Violation, dtype, prompt};
use crate::coordinator::Items;
use crate::edit;
use crate::proto::v1;

/// Longest reason for a layer.
const CHOICE_LIMIT: usize = 500;
/// Where a request says nothing of a gate, the coordinator's holds.
pub fn fill_gates(asked: &mut v1::EditGates, settings: &v1::EditGates) {
    asked.efficacy = asked.efficacy.or(settings.efficacy);
    asked.neighbour_drift = asked.neighbour_drift.or(settings.neighbour_drift);
    asked.norm = asked.norm.or(settings.norm);
    asked.norm_warning = asked.norm_warning.or(settings.norm_warning);
}

pub(super) fn edit(spec: &mut v1::EditSpec, items: &Items, wrong: &mut Vec<Violation>) {
    let field = |name: &str| format!("job.edit.{name}");
    if items.is_empty() {
        wrong.push((
            field("tasks"),
            "there are none: give at least one".to_owned(),
        ));
    }
    for n in 0..items.len() {
        let task: v1::EditTask = items.message(n).unwrap_or_default();
        let request = edit::Request::from(task.request.clone().unwrap_or_default());
        if let Err(error) = request.check() {
            wrong.push((field(&format!("tasks[{n}].request")), error.to_string()));
        }
        for (name, texts) in [
            ("paraphrases", &task.paraphrases),
            ("neighbours", &task.neighbours),
        ] {
            for (i, text) in texts.iter().enumerate() {
                prompt(&field(&format!("tasks[{n}].{name}[{i}]")), text, wrong);
            }
        }
    }
    method(spec, "job.edit", wrong);
    dtype(&mut spec.dtype, wrong);
}

/// How an edit is computed: what is asked of an editing job, and of an evaluation that edits each record.
pub(super) fn method(spec: &mut v1::EditSpec, of: &str, wrong: &mut Vec<Violation>) {
    let field = |name: &str| format!("{of}.{name}");
    if spec.method.is_empty() {
        spec.method = edit::Method::default().to_string();
    }
    match spec.method.parse::<edit::Method>() {
        Ok(method) => {
            let mut overrides = edit::Overrides::default();
            for (n, parameter) in spec.parameters.iter().enumerate() {
                if let Err(error) = overrides.set(method, &parameter.key, parameter.value) {
                    wrong.push((field(&format!("parameters[{n}]")), error.to_string()));
                }
            }
        }
        Err(error) => wrong.push((field("method"), error.to_string())),
    }
    if spec.layer_choice.len() > CHOICE_LIMIT {
        let what = format!(
            "it has {} bytes: {CHOICE_LIMIT} at most",
            spec.layer_choice.len()
        );
        wrong.push((field("layer_choice"), what));
    }
    let gates = spec.gates.unwrap_or_default();
    for (name, value, least) in [
        ("efficacy", gates.efficacy, f64::MIN),
        ("neighbour_drift", gates.neighbour_drift, 0.0),
        ("norm", gates.norm, 0.0),
        ("norm_warning", gates.norm_warning, 0.0),
    ] {
        if let Some(value) = value.filter(|value| !(least..=f64::MAX).contains(value)) {
            let remedy = match least < 0.0 {
                true => "a number",
                false => "0 or more",
            };
            let what = format!("{value} is no gate: give {remedy}");
            wrong.push((field(&format!("gates.{name}")), what));
        }
    }
    for (n, context) in spec.contexts.iter().enumerate() {
        if let Err(error) = edit::check_context(context) {
            wrong.push((field(&format!("contexts[{n}]")), error.to_string()));
        }
    }
}
