//! Evaluations: a unit is a record on a version. The records on the job's version come first, those
//! on the version it is compared with after them: `unit = version * records + record`.

use std::mem::take;

use prost::Message as _;

use super::check::{dtype, prompt, shorten};
use super::edit::{EDIT_TOKENS, check_method};
use super::measured;
use super::{Found, Items, PartsObject, Stage, Work, Wrong, estimated_tokens};
use crate::edit;
use crate::proto::v1::{self, leased_unit::Spec as Unit, unit_result::Outcome};

impl Work for v1::EvalSpec {
    fn units_word(&self) -> &'static str {
        "measurements"
    }

    fn take_parts(&mut self) -> Items {
        Items::of(&v1::EvalRecordList {
            records: take(&mut self.records),
        })
    }

    fn put_parts(&mut self, items: &Items) {
        self.records = items.messages().collect();
    }

    fn has_parts(&self) -> bool {
        !self.records.is_empty()
    }

    fn parts_object(&self) -> Option<PartsObject<'_>> {
        Some(PartsObject {
            field: "job.eval.records_object",
            digest: &self.records_object,
        })
    }

    fn name_parts_object(&mut self, digest: &str) {
        digest.clone_into(&mut self.records_object);
    }

    fn count_parts(&mut self, count: u64) {
        self.record_count = count;
    }

    fn shorten(&mut self) {
        if let Some(each) = &mut self.edit_each {
            each.shorten();
        }
    }

    fn check(&mut self, items: &Items, wrong: &mut Wrong) {
        self.record_count = 0; // ours to say
        if items.is_empty() {
            wrong.say("job.eval.records", "there are none: give at least one");
        }
        if !matches!(v1::EvalSet::try_from(self.set), Ok(set) if set != v1::EvalSet::Unspecified) {
            let what = format_args!(
                "{} is no data set: use EVAL_SET_COUNTERFACT, EVAL_SET_ZSRE or EVAL_SET_TEXTS",
                self.set
            );
            wrong.say("job.eval.set", what);
        }
        for n in 0..items.len() {
            match items.message(n) {
                Some(record) if self.set() == v1::EvalSet::Texts => check_text(n, &record, wrong),
                Some(record) => check_record(n, &record, self.set(), wrong),
                None => wrong.say(
                    format_args!("job.eval.records[{n}]"),
                    "it is not a serialised EvalRecord",
                ),
            }
        }
        dtype(&mut self.dtype, wrong);
        self.check_each(wrong);
    }

    fn compared_version(&mut self) -> Option<(&'static str, &mut String)> {
        // Where each record is edited it is compared with itself.
        let compared = self.edit_each.is_none();
        compared.then_some(("job.eval.against", &mut self.against))
    }

    fn asked_gates(&mut self) -> Option<&mut Option<v1::EditGates>> {
        Some(&mut self.edit_each.as_mut()?.gates)
    }

    fn edits(&mut self) -> Option<(&'static str, &mut v1::EditSpec)> {
        Some(("job.eval.edit_each", self.edit_each.as_mut()?))
    }

    fn stages(&self, version: &str, items: &Items) -> Vec<Stage> {
        let records = items.len() as u64;
        vec![Stage {
            // A task has the units of one version only.
            run: records,
            ..Stage::new("records", 0..records * self.passes(version))
        }]
    }

    fn cost(&self, items: &Items, unit: u64, shape: &v1::model::Shape) -> f64 {
        let record = items.message(place(items, unit)).unwrap_or_default();
        self.tokens(&record) * shape.parameters as f64
    }

    fn size(&self, items: &Items, unit: u64) -> usize {
        items.get(place(items, unit)).map_or(0, <[u8]>::len)
    }

    fn dtype(&self) -> v1::Dtype {
        self.dtype()
    }

    fn version_of(&self, version: &str, items: &Items, unit: u64) -> Option<&str> {
        let second = unit >= items.len() as u64 && self.passes(version) > 1;
        second.then_some(self.against.as_str())
    }

    fn unit(&self, version: &str, items: &Items, unit: u64) -> Option<Unit> {
        if unit >= items.len() as u64 * self.passes(version) {
            return None;
        }
        let record = items.message(place(items, unit))?;
        Some(Unit::Eval(record))
    }

    fn settings(&self, _found: &Found) -> v1::lease::Settings {
        v1::lease::Settings::Eval(Self {
            records: Vec::new(),
            ..self.clone()
        })
    }

    fn accept(
        &self,
        items: &Items,
        unit: u64,
        outcome: &Outcome,
        _shape: &v1::model::Shape,
    ) -> Result<(), String> {
        let Outcome::Eval(outcome) = outcome else {
            return Err("it is no record's measure".to_owned());
        };
        let of_a_text = self.set() == v1::EvalSet::Texts;
        match &outcome.measured {
            Some(measured)
                if outcome.edit.is_some() == self.edit_each.is_some()
                    && measured.text.is_some() == of_a_text =>
            {
                // A token of a text is a byte of it at least, but for those that a model puts
                // before every text.
                let bytes = self.size(items, unit) as u64;
                match measured.text {
                    Some(read) if read.nll < 0.0 || u64::from(read.tokens) > bytes => Err(format!(
                        "its text of {bytes} bytes has {} tokens, with {} nats each",
                        read.tokens, read.nll
                    )),
                    Some(read) if read.tokens == 0 => Err("it read no token".to_owned()),
                    Some(_) => Ok(()),
                    None => self.check_measures(items, unit, outcome),
                }
            }
            _ => Err("its measure is not of what was asked".to_owned()),
        }
    }

    fn reuse_settings(&self) -> Option<Vec<u8>> {
        let asked = Self {
            records: Vec::new(),
            against: String::new(),
            left_out: 0,
            spoiled: 0,
            records_object: String::new(),
            record_count: 0,
            // Why a layer was chosen decides nothing.
            edit_each: self.edit_each.clone().map(|each| v1::EditSpec {
                layer_choice: String::new(),
                ..each
            }),
            ..self.clone()
        };
        Some(asked.encode_to_vec())
    }

    fn has_versions(&self) -> bool {
        true
    }
}

impl v1::EvalSpec {
    /// The answers and figures of a record, before its own edit as well where it has one.
    fn check_measures(
        &self,
        items: &Items,
        unit: u64,
        outcome: &v1::EvalOutcome,
    ) -> Result<(), String> {
        if outcome.before.is_some() != self.edit_each.is_some() {
            return Err(
                "it is measured before an edit where none was asked for, or not".to_owned(),
            );
        }
        let record: v1::EvalRecord = items.message(place(items, unit)).unwrap_or_default();
        let mut measures = outcome.before.iter().chain(&outcome.measured);
        measures.try_for_each(|measure| measured::check(measure, &record, self.set()))
    }

    /// How often a job goes through its records: once a version.
    fn passes(&self, version: &str) -> u64 {
        match !self.against.is_empty() && self.against != version {
            true => 2,
            false => 1,
        }
    }

    fn check_each(&mut self, wrong: &mut Wrong) {
        let Some(each) = &mut self.edit_each else {
            return;
        };
        let more = !each.ref_id.is_empty() || !each.etag.is_empty() || each.rebase;
        let gates = each.gates.is_some() || each.gate_texts.is_some();
        if !each.tasks.is_empty() || gates || more || !each.why.is_empty() {
            let what = "the records are what is edited, every edit is measured and then discarded: \
                        leave out 'tasks', 'gates', 'gate_texts', 'ref_id', 'etag', 'rebase' and \
                        'why'";
            wrong.say("job.eval.edit_each", what);
        }
        if self.set == v1::EvalSet::Texts as i32 {
            let what = "a text has no fact to edit: leave it out, or give records of facts";
            wrong.say("job.eval.edit_each", what);
        }
        if !self.against.is_empty() {
            let what = format_args!(
                "'{}': each record is measured before and after its own edit; leave it out",
                shorten(&self.against)
            );
            wrong.say("job.eval.against", what);
        }
        each.dtype = self.dtype;
        check_method(each, "job.eval.edit_each", wrong);
    }

    /// Passes of one token that a record costs: each prompt with either object, texts of a hundred
    /// tokens, and the edit where each record is edited and measured again.
    fn tokens(&self, record: &v1::EvalRecord) -> f64 {
        if self.set() == v1::EvalSet::Texts {
            return estimated_tokens(&record.text);
        }
        let request = record.request.clone().unwrap_or_default();
        let rewritten = estimated_tokens(&request.prompt) + estimated_tokens(&request.subject);
        let others = record.paraphrases.iter();
        let others = others.chain(record.neighbours.iter().map(|it| &it.prompt));
        let read: f64 = others.map(|text| estimated_tokens(text)).sum();
        let once = 2.0 * (rewritten + read) + 100.0 * record.generation_prompts.len() as f64;
        match self.edit_each {
            Some(_) => EDIT_TOKENS + 2.0 * once,
            None => once,
        }
    }
}

/// The record of a unit, by its place.
fn place(items: &Items, unit: u64) -> usize {
    unit as usize % items.len().max(1)
}

fn check_text(n: usize, record: &v1::EvalRecord, wrong: &mut Wrong) {
    let of = format_args!("job.eval.records[{n}]");
    let text = &record.text;
    prompt(format_args!("{of}.text"), text, wrong);
    let only = v1::EvalRecord {
        text: text.clone(),
        ..Default::default()
    };
    if *record != only {
        let what = "it has more than its text: of EVAL_SET_TEXTS give the text only";
        wrong.say(of, what);
    }
}

fn check_record(n: usize, record: &v1::EvalRecord, set: v1::EvalSet, wrong: &mut Wrong) {
    let of = format_args!("job.eval.records[{n}]");
    if !record.text.is_empty() {
        let what = "a record of a fact has none: leave it out, or ask for EVAL_SET_TEXTS";
        wrong.say(format_args!("{of}.text"), what);
    }
    let request = edit::Request::from(record.request.clone().unwrap_or_default());
    if let Err(error) = request.check() {
        wrong.say(format_args!("{of}.request"), error);
    } else if set == v1::EvalSet::Counterfact && request.target_true.is_none() {
        let what = "it is missing: CounterFact's measures compare the new object with the true one";
        wrong.say(format_args!("{of}.request.target_true"), what);
    }
    for (name, texts) in [
        ("paraphrases", &record.paraphrases),
        ("generation_prompts", &record.generation_prompts),
    ] {
        for (i, text) in texts.iter().enumerate() {
            prompt(format_args!("{of}.{name}[{i}]"), text, wrong);
        }
    }
    for (i, neighbour) in record.neighbours.iter().enumerate() {
        let at = format_args!("{of}.neighbours[{i}]");
        prompt(format_args!("{at}.prompt"), &neighbour.prompt, wrong);
        if neighbour.target_true.trim().is_empty() {
            let what = "it is empty: say what the true answer is";
            wrong.say(format_args!("{at}.target_true"), what);
        }
    }
}
