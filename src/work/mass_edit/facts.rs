//! The facts of a mass edit: their order, and what keeps them from being written.

use std::collections::HashMap;
use std::mem::take;

use prost::Message as _;

use super::super::check::{prompt, shorten};
use super::super::{Items, Wrong};
use crate::edit::{self, TARGET_TOKENS};
use crate::objects::Digest;
use crate::proto::v1;

/// Longest new target in bytes and in words, more than any method writes well. A worker counts its
/// tokens.
const TARGET_LIMIT: usize = 160;

impl v1::MassEditSpec {
    /// Puts the facts of each batch in order, and says where groups and batches begin.
    ///
    /// Where facts are taken out of an edit, they are in its order.
    pub(in crate::work) fn arrange(&mut self) {
        if self.without.is_some() {
            return;
        }
        let size = match self.batch {
            Some(size) if size > 0 => size as usize,
            _ => self.tasks.len().max(1),
        };
        self.groups.clear();
        self.batches.clear();
        let mut arranged = Vec::with_capacity(self.tasks.len());
        let mut tasks = take(&mut self.tasks).into_iter().peekable();
        while tasks.peek().is_some() {
            self.batches.push(self.groups.len() as u32);
            let mut batch: Vec<_> = tasks
                .by_ref()
                .take(size)
                .map(|task| {
                    let request = task.request.clone().unwrap_or_default();
                    let group = Digest::of(text_of_key(&request).as_bytes()).to_string();
                    let own = Digest::of(&request.encode_to_vec()).to_string();
                    (group, own, task)
                })
                .collect();
            batch.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
            let mut before = String::new();
            for (group, _, task) in batch {
                if group != before {
                    self.groups.push(arranged.len() as u32);
                    before = group;
                }
                arranged.push(task);
            }
        }
        self.tasks = arranged;
    }

    /// Says which facts cannot be written, by their names: a batch has them in another order than
    /// the request.
    pub(in crate::work) fn check_facts(&self, items: &Items, wrong: &mut Wrong) {
        for n in 0..items.len() {
            if items.message::<v1::EditTask>(n).is_none() {
                let field = format_args!("job.mass_edit.tasks[{n}]").to_string();
                wrong.say(field, "it is not a serialised EditTask");
            }
        }
        let (mut ids, mut said) = (HashMap::new(), HashMap::new());
        let plan = self.plan(items);
        for batch in 0..plan.batches() {
            // A later batch may write a fact again: that is an update.
            said.clear();
            for n in plan.facts_of(plan.groups_of(batch)) {
                let task: v1::EditTask = items.message(n).unwrap_or_default();
                let asked = task.request.clone().unwrap_or_default();
                let whose = named(&asked);
                let field = format_args!("job.mass_edit.tasks of {whose}").to_string();
                check_task(&field, &task, wrong);
                if let Some(id) = asked.id.clone()
                    && let Some(other) = ids.insert(id.clone(), whose.clone())
                {
                    let what = format_args!("{other} has the id '{id}' too: give each its own");
                    wrong.say(&field, what);
                }
                let text = asked.prompt.replacen("{}", &asked.subject, 1);
                let target = asked.target_new.trim().to_owned();
                match said.insert(text, (target.clone(), whose.clone())) {
                    Some((same, other)) if same == target => {
                        let what = format_args!("{other} is the same fact: leave one out");
                        wrong.say(&field, what);
                    }
                    Some((_, other)) => {
                        let what = format_args!(
                            "{other} says the same with another target: leave one out, or give them \
                             in different batches, of which the later one holds"
                        );
                        wrong.say(&field, what);
                    }
                    None => {}
                }
            }
        }
    }
}

/// A fact as messages name it.
pub(super) fn named(request: &v1::EditRequest) -> String {
    let text = request.prompt.replacen("{}", &request.subject, 1);
    let text = format!(
        "{:?} -> {:?}",
        shorten(&text),
        shorten(request.target_new.trim())
    );
    match &request.id {
        Some(id) => format!("record {} ({text})", shorten(id)),
        None => text,
    }
}

/// What decides a fact's key: its text up to the subject's end.
pub fn text_of_key(request: &v1::EditRequest) -> String {
    edit::Request::from(request.clone()).head()
}

fn check_task(field: &str, task: &v1::EditTask, wrong: &mut Wrong) {
    let asked = task.request.clone().unwrap_or_default();
    let request = edit::Request::from(asked);
    if let Err(error) = request.check() {
        wrong.say(field, error);
    }
    let target = request.target_new.trim();
    let words = target.split_whitespace().count();
    if words > TARGET_TOKENS {
        let what = format_args!(
            "its new target has {words} words, and so more than {TARGET_TOKENS} tokens, the most that \
             are written well: give the object alone"
        );
        wrong.say(field, what);
    } else if target.len() > TARGET_LIMIT {
        let what = format_args!(
            "its new target has {} bytes: {TARGET_LIMIT} at most; give the object alone",
            target.len()
        );
        wrong.say(field, what);
    }
    if request.target_true.as_deref().map(str::trim) == Some(target) {
        let what = "its new target is the true one: there is nothing to write, leave it out";
        wrong.say(field, what);
    }
    for (name, texts) in [
        ("paraphrases", &task.paraphrases),
        ("neighbours", &task.neighbours),
    ] {
        for (i, text) in texts.iter().enumerate() {
            prompt(format_args!("{field}, {name}[{i}]"), text, wrong);
        }
    }
}
