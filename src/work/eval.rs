//! Evaluations: a unit is a record on a version. The records on the job's version come first, those
//! on the version it is compared with after them: `unit = version * records + record`.

use std::mem::take;

use prost::Message as _;

use super::check::{choice, dtype, figure_name, prompt, shorten};
use super::edit::{EDIT_TOKENS, check_method};
use super::measured;
use super::{Found, Items, PartsObject, Stage, Work, Wrong, estimated_tokens};
use crate::edit;
use crate::eval;
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
                "{} is no data set: use EVAL_SET_COUNTERFACT, EVAL_SET_ZSRE, EVAL_SET_TEXTS, \
                 EVAL_SET_TESTS or EVAL_SET_CHOICES",
                self.set
            );
            wrong.say("job.eval.set", what);
        }
        for n in 0..items.len() {
            match items.message(n) {
                Some(record) => match self.set() {
                    v1::EvalSet::Texts => check_text(n, &record, wrong),
                    v1::EvalSet::Choices => {
                        choice(format_args!("job.eval.records[{n}]"), &record, wrong);
                    }
                    v1::EvalSet::Tests => {
                        check_tests(n, &record, self.edit_each.is_some(), wrong);
                    }
                    set => check_record(n, &record, set, wrong),
                },
                None => wrong.say(
                    format_args!("job.eval.records[{n}]"),
                    "it is not a serialised EvalRecord",
                ),
            }
        }
        if self.free_generation && !self.of_facts() {
            let what = "only prompts of facts are continued so: leave it out, or ask for \
                        EVAL_SET_COUNTERFACT or EVAL_SET_ZSRE";
            wrong.say("job.eval.free_generation", what);
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
        measures.try_for_each(|it| measured::check(it, &record, self.set(), self.free_generation))
    }

    /// Whether the records are facts with their probes.
    fn of_facts(&self) -> bool {
        matches!(self.set(), v1::EvalSet::Counterfact | v1::EvalSet::Zsre)
    }

    /// How often a job goes through its records: once a version.
    fn passes(&self, version: &str) -> u64 {
        match !self.against.is_empty() && self.against != version {
            true => 2,
            false => 1,
        }
    }

    fn check_each(&mut self, wrong: &mut Wrong) {
        let set = self.set();
        let Some(each) = &mut self.edit_each else {
            return;
        };
        let more = !each.ref_id.is_empty() || !each.etag.is_empty() || each.rebase;
        let judged = each.gate_texts.is_some() || each.gate_questions.is_some();
        let gates = each.gates.is_some() || judged;
        if !each.tasks.is_empty() || gates || more || !each.why.is_empty() {
            let what = "the records are what is edited, every edit is measured and then discarded: \
                        leave out 'tasks', 'gates', 'gate_texts', 'gate_questions', 'ref_id', \
                        'etag', 'rebase' and 'why'";
            wrong.say("job.eval.edit_each", what);
        }
        if matches!(set, v1::EvalSet::Texts | v1::EvalSet::Choices) {
            let what = "there is no fact to edit: leave it out, or give records of facts";
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
        if let Some(choice) = &record.choice {
            return estimated_tokens(&choice.prompt) * choice.choices.len() as f64;
        }
        let request = record.request.clone().unwrap_or_default();
        let rewritten = estimated_tokens(&request.prompt) + estimated_tokens(&request.subject);
        let others = record.paraphrases.iter();
        let others = others.chain(record.neighbours.iter().map(|it| &it.prompt));
        let read: f64 = others.map(|text| estimated_tokens(text)).sum();
        let queries = record.tests.iter().flat_map(|test| &test.queries);
        let tests = queries.map(|query| {
            let added = match query.behind.is_empty() {
                true => eval::FREE_TOKENS,
                false => eval::THOUGHT_TOKENS,
            };
            estimated_tokens(&query.prompt) + added as f64
        });
        let tests: f64 = tests.sum();
        let prompts = 1 + record.paraphrases.len() + record.neighbours.len();
        let freely = match self.free_generation {
            true => (eval::FREE_TOKENS * prompts) as f64,
            false => 0.0,
        };
        let texts = 100.0 * record.generation_prompts.len() as f64;
        let once = 2.0 * (rewritten + read) + freely + tests + texts;
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

fn check_tests(n: usize, record: &v1::EvalRecord, edited: bool, wrong: &mut Wrong) {
    let of = format_args!("job.eval.records[{n}]");
    let more = !record.paraphrases.is_empty()
        || !record.neighbours.is_empty()
        || !record.generation_prompts.is_empty()
        || !record.text.is_empty()
        || record.choice.is_some();
    if more {
        let what = "it has more than its fact and its tests: of EVAL_SET_TESTS give these only";
        wrong.say(of, what);
    }
    match &record.request {
        None if edited => {
            let what = "it is missing: give the fact that is edited, or write facts that belong \
                        together with an editing job and leave 'edit_each' out";
            wrong.say(format_args!("{of}.request"), what);
        }
        None => {}
        Some(request) => {
            if let Err(error) = edit::Request::from(request.clone()).check() {
                wrong.say(format_args!("{of}.request"), error);
            }
        }
    }
    if record.tests.is_empty() {
        let what = "there are none: give at least one";
        wrong.say(format_args!("{of}.tests"), what);
    }
    for (i, test) in record.tests.iter().enumerate() {
        let of = format_args!("{of}.tests[{i}]");
        figure_name(format_args!("{of}.criterion"), &test.criterion, wrong);
        if test.queries.is_empty() {
            let what = "there are none: give at least one";
            wrong.say(format_args!("{of}.queries"), what);
        }
        for (j, query) in test.queries.iter().enumerate() {
            let of = format_args!("{of}.queries[{j}]");
            prompt(format_args!("{of}.prompt"), &query.prompt, wrong);
            let named = |it: &v1::EvalExpected| it.names.iter().any(|it| !it.trim().is_empty());
            if query.answers.is_empty() || !query.answers.iter().all(named) {
                let what = "give at least one answer, and of each at least one name";
                wrong.say(format_args!("{of}.answers"), what);
            }
        }
    }
}

fn check_record(n: usize, record: &v1::EvalRecord, set: v1::EvalSet, wrong: &mut Wrong) {
    let of = format_args!("job.eval.records[{n}]");
    if !record.text.is_empty() {
        let what = "a record of a fact has none: leave it out, or ask for EVAL_SET_TEXTS";
        wrong.say(format_args!("{of}.text"), what);
    }
    if !record.tests.is_empty() || record.choice.is_some() {
        let what = "it has tests or a choice, which a record of a fact has not: leave them out, or \
                    ask for EVAL_SET_TESTS or EVAL_SET_CHOICES";
        wrong.say(of, what);
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
