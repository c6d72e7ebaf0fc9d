//! How an edit ends: with a version and a movement of a ref.

use crate::proto::v1;

/// Where an edit goes when it is there: a version more, and a ref that moves to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Landing<'a> {
    /// The ref that moves.
    pub ref_id: &'a str,
    /// The etag that the ref must have before the job's first edit; empty for any.
    pub etag: &'a str,
    /// Whether an edit is computed again when the ref has moved meanwhile.
    pub rebase: bool,
    /// Why, in the author's words.
    pub why: &'a str,
    /// What it must pass.
    pub gates: v1::EditGates,
    /// The edit of the version in whose place it stands, by its name; empty where it is one more.
    pub replaces: &'a str,
}
