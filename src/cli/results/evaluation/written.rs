//! What a version that is measured was written by: how many facts at once, and in which order. A
//! thousand facts one after another, in batches of a hundred and in one are three experiments.

use serde_json::{Value, json};

use crate::proto::v1;

/// Edits of one method and as many facts, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    method: String,
    facts: usize,
    edits: usize,
}

/// The edits of a version, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    runs: Vec<Run>,
}

impl Written {
    /// Adds the next edit.
    pub fn add(&mut self, edit: &v1::Edit) {
        let facts = edit.requests.len();
        match self.runs.last_mut() {
            Some(run) if run.method == edit.method && run.facts == facts => run.edits += 1,
            _ => self.runs.push(Run {
                method: edit.method.clone(),
                facts,
                edits: 1,
            }),
        }
    }

    fn facts(&self) -> usize {
        self.runs.iter().map(|run| run.facts * run.edits).sum()
    }

    /// In a sentence; nothing of the model as it was imported.
    pub(super) fn told(&self) -> Option<String> {
        let each = self.runs.iter().map(|run| match (run.edits, run.facts) {
            (1, facts) => format!("{facts} at once by {}", run.method),
            (edits, 1) => format!("{edits} one after another by {}", run.method),
            (edits, facts) => {
                format!(
                    "{edits} batches of {facts} one after another by {}",
                    run.method
                )
            }
        });
        let each: Vec<String> = each.collect();
        let (shown, rest) = each.split_at(each.len().min(4));
        let more = match rest.len() {
            0 => String::new(),
            more => format!(", and {more} such runs more"),
        };
        (!each.is_empty()).then(|| {
            let facts = match self.facts() {
                1 => "1 fact was".to_owned(),
                facts => format!("{facts} facts were"),
            };
            format!("{facts} written: {}{more}.", shown.join(", then "))
        })
    }

    /// As JSON: `facts` in all, and in their order the runs of `edits` that have as many `facts`.
    pub(super) fn json(&self) -> Value {
        let runs = self
            .runs
            .iter()
            .map(|run| json!({"method": run.method, "facts": run.facts, "edits": run.edits}));
        json!({"facts": self.facts(), "runs": runs.collect::<Vec<_>>()})
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn batches_and_their_order_are_told_and_runs_of_one_size_are_one() {
        let mut written = Written::default();
        assert_eq!(written.told(), None);
        for (method, facts) in [
            ("memit", 50),
            ("memit", 50),
            ("memit", 7),
            ("rome", 1),
            ("rome", 1),
        ] {
            written.add(&v1::Edit {
                method: method.to_owned(),
                requests: vec![v1::EditRequest::default(); facts],
                ..Default::default()
            });
        }
        assert_eq!(
            written.told().unwrap(),
            "109 facts were written: 2 batches of 50 one after another by memit, then 7 at once by memit, \
             then 2 one after another by rome."
        );
        assert_eq!(
            written.json()["runs"][0],
            json!({"method": "memit", "facts": 50, "edits": 2})
        );
    }
}
