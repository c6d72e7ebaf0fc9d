//! What a record of a data set asks of a model.

use super::edits::Rewrite;

/// The criterion of a record's own edit, on which [`Test::if_edited`] depends.
pub const EDITED: &str = "edited";

/// A fact that is rewritten, and the prompts that show what happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The fact, with its paraphrases and neighbours.
    pub rewrite: Rewrite,
    /// The neighbours' true answers, one each.
    pub neighbour_answers: Vec<String>,
    /// Prompts to continue freely.
    pub generation_prompts: Vec<String>,
    /// Facts that are rewritten together with it, of MQuAKE.
    pub together: Vec<Rewrite>,
    /// What follows from it, of MQuAKE and RippleEdits.
    pub tests: Vec<Test>,
}

/// Questions that are passed or not, and what a pass shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Test {
    /// By which passes are counted: `multi-hop`.
    pub criterion: String,
    /// The questions.
    pub queries: Vec<Query>,
    /// One question that is passed is enough; otherwise all are wanted.
    pub any: bool,
    /// Counted only of records whose edit holds: whose tests of the criterion [`EDITED`] are passed.
    pub if_edited: bool,
    /// Counted only where these were passed before the edit.
    pub conditions: Vec<Query>,
}

/// A prompt that is continued freely, and what the continuation must say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The prompt.
    pub prompt: String,
    /// The answers, each by any of its names; all are wanted.
    pub answers: Vec<Vec<String>>,
    /// What the answer stands behind, where the model is to think first.
    pub behind: Option<String>,
}

impl Test {
    /// A test of a criterion that all its questions must pass.
    pub(super) fn of(criterion: &str, queries: Vec<Query>) -> Self {
        Self {
            criterion: criterion.to_owned(),
            queries,
            ..Self::default()
        }
    }
}

impl Query {
    /// A prompt whose answer has any of some names.
    pub(super) fn of(prompt: String, names: Vec<String>) -> Self {
        Self {
            prompt,
            answers: vec![names],
            behind: None,
        }
    }
}
