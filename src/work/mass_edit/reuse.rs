//! What decides the contexts and the targets of a mass edit, so that they answer for another job:
//! with other weights of the statistics, another method or other layers below the same last one.
//!
//! Contexts follow from the model as it is and a seed. A target follows from the model as it is, the
//! facts of its group, the contexts, the last layer and the numbers of its search. Those that the
//! request does not set are the family's, which the digest of the model decides; they are one for
//! all methods, but for the early stop of ENCORE. Keys, solves and measures are of their job.

use prost::Message as _;

use super::super::{Found, Items, Key, Keys};
use super::plan::Place;
use crate::edit::{Method, TARGET_NUMBERS};
use crate::proto::v1;

/// The context that is the bare prompt, which is always among them.
const BARE: &str = "{}";

impl v1::MassEditSpec {
    /// The key of a unit that answers other jobs; none of one that does not. A later batch runs on
    /// the version that the one before made.
    pub(super) fn key(
        &self,
        keys: &Keys,
        version: &str,
        items: &Items,
        unit: u64,
        found: &Found,
    ) -> Option<Key> {
        let plan = self.plan(items);
        let version = found.version.as_deref().unwrap_or(version);
        let mut key = keys.of_kind(version);
        match plan.place(unit)? {
            Place::Contexts => {
                key.part(b"contexts");
                key.part(&self.seed.to_be_bytes());
            }
            Place::Target(group) => {
                let contexts = match self.contexts.is_empty() {
                    true => &found.contexts,
                    false => &self.contexts,
                };
                key.part(b"target");
                key.part(&self.layers.last()?.to_be_bytes());
                for context in contexts.iter().filter(|context| *context != BARE) {
                    key.part(context.as_bytes());
                }
                key.part(b"numbers");
                for number in self.target_numbers() {
                    key.part(number.encode_to_vec().as_slice());
                }
                key.part(b"facts");
                for fact in plan.facts_of(group..group + 1) {
                    let task: v1::EditTask = items.message(fact)?;
                    // What it is called, and what is true, decide nothing.
                    let request = v1::EditRequest {
                        id: None,
                        target_true: None,
                        ..task.request?
                    };
                    key.part(&request.encode_to_vec());
                }
            }
            _ => return None,
        }
        Some(key)
    }

    /// The numbers of the search for targets that are not the family's, by name.
    fn target_numbers(&self) -> Vec<v1::NamedNumber> {
        let of_target = |number: &&v1::NamedNumber| TARGET_NUMBERS.contains(&number.key.as_str());
        let mut numbers: Vec<v1::NamedNumber> =
            self.parameters.iter().filter(of_target).cloned().collect();
        if self.method() == Method::Encore && numbers.iter().all(|it| it.key != "early_stop") {
            // The family's, which is not that of the other methods.
            numbers.push(v1::NamedNumber {
                key: "early_stop of encore".to_owned(),
                value: 0.0,
            });
        }
        numbers.sort_by(|a, b| a.key.cmp(&b.key));
        numbers
    }
}
