//! What evaluations may not ask for.

use super::editing::method;
use super::{Violation, dtype, prompt, shorten};
use crate::coordinator::Items;
use crate::edit;
use crate::proto::v1;

pub(super) fn eval(spec: &mut v1::EvalSpec, items: &Items, wrong: &mut Vec<Violation>) {
    let field = |name: &str| format!("job.eval.{name}");
    spec.record_count = 0; // ours to say
    if items.is_empty() {
        wrong.push((
            field("records"),
            "there are none: give at least one".to_owned(),
        ));
    }
    if !matches!(v1::EvalSet::try_from(spec.set), Ok(set) if set != v1::EvalSet::Unspecified) {
        let what = format!(
            "{} is no data set: use EVAL_SET_COUNTERFACT or EVAL_SET_ZSRE",
            spec.set
        );
        wrong.push((field("set"), what));
    }
    for n in 0..items.len() {
        let Some(record) = items.message::<v1::EvalRecord>(n) else {
            let what = "it is not a serialised EvalRecord".to_owned();
            wrong.push((field(&format!("records[{n}]")), what));
            continue;
        };
        eval_record(&record, spec.set(), &field(&format!("records[{n}]")), wrong);
    }
    dtype(&mut spec.dtype, wrong);
    let dtype = spec.dtype;
    let Some(each) = &mut spec.edit_each else {
        return;
    };
    if !each.tasks.is_empty() || each.gates.is_some() {
        let what = "the records are what is edited, and every edit is measured: leave out 'tasks' and 'gates'";
        wrong.push((field("edit_each"), what.to_owned()));
    }
    if !spec.against.is_empty() {
        let what = format!(
            "'{}': each record is measured before and after its own edit; leave it out",
            shorten(&spec.against)
        );
        wrong.push((field("against"), what));
    }
    each.dtype = dtype;
    method(each, "job.eval.edit_each", wrong);
}

fn eval_record(record: &v1::EvalRecord, set: v1::EvalSet, of: &str, wrong: &mut Vec<Violation>) {
    let request = edit::Request::from(record.request.clone().unwrap_or_default());
    if let Err(error) = request.check() {
        wrong.push((format!("{of}.request"), error.to_string()));
    } else if set == v1::EvalSet::Counterfact && request.target_true.is_none() {
        let what = "it is missing: CounterFact's measures compare the new object with the true one";
        wrong.push((format!("{of}.request.target_true"), what.to_owned()));
    }
    let texts = |name: &str, all: &[String], wrong: &mut Vec<Violation>| {
        for (i, text) in all.iter().enumerate() {
            prompt(&format!("{of}.{name}[{i}]"), text, wrong);
        }
    };
    texts("paraphrases", &record.paraphrases, wrong);
    texts("generation_prompts", &record.generation_prompts, wrong);
    for (i, neighbour) in record.neighbours.iter().enumerate() {
        let at = format!("{of}.neighbours[{i}]");
        prompt(&format!("{at}.prompt"), &neighbour.prompt, wrong);
        if neighbour.target_true.trim().is_empty() {
            let what = "it is empty: say what the true answer is".to_owned();
            wrong.push((format!("{at}.target_true"), what));
        }
    }
}
