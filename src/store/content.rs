//! What a version has: its edits and its matrices, found from what it adds to its parent.
//!
//! A version is stored as its parent and what it adds to it, or takes from it: its record is as
//! large after ten thousand edits as after one. Every [`STRIDE`]th version of a line has its whole
//! list as objects of [`STRIDE`] edits each, of which the next one on the line needs only the last
//! anew, so that a list is read from `STRIDE` records and its own length, however long its history.
//! Versions that were made before have their whole list in their record, and are as good to stand
//! on. All of it is under the version's own digest: its parent's, and those of the objects.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::objects::Digest;
use crate::proto::v1::{self, VersionKind};

/// Versions of a line from one with its whole list to the next, and edits in an object of a list.
///
/// A few in unit tests, which come past many of them then.
pub const STRIDE: usize = if cfg!(test) { 8 } else { 512 };
/// Bytes of an edit's digest.
pub(super) const BYTES: usize = 32;

/// What a version has.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// Its edits, in order.
    pub edits: Vec<Digest>,
    /// Every matrix that its edits touch, by name.
    pub matrices: BTreeMap<String, v1::version::Matrix>,
    /// What its list comes to: equal lists have equal ones.
    pub list: Digest,
}

impl Default for Content {
    /// What a base has.
    fn default() -> Self {
        Self {
            edits: Vec::new(),
            matrices: BTreeMap::new(),
            list: Digest::of(&[]),
        }
    }
}

impl Content {
    /// With an edit more.
    pub fn with(&self, edit: Digest, changed: &[v1::version::Matrix]) -> Self {
        let mut made = self.clone();
        made.push(edit);
        made.change(changed);
        made
    }

    /// Without the edit in this place.
    pub fn without(&self, place: usize, changed: &[v1::version::Matrix]) -> Self {
        let mut made = self.clone();
        made.edits.remove(place);
        made.list = come_to(&made.edits);
        made.change(changed);
        made
    }

    /// With another edit in this place.
    pub fn replaced(&self, place: usize, edit: Digest, changed: &[v1::version::Matrix]) -> Self {
        let mut made = self.clone();
        made.edits[place] = edit;
        made.list = come_to(&made.edits);
        made.change(changed);
        made
    }

    /// A version that has this, with its edits and matrices, as answers have it. More than so many
    /// edits are only counted.
    pub fn fill(&self, version: v1::Version, most: usize) -> v1::Version {
        let listed = match self.edits.len() <= most {
            true => self.edits.as_slice(),
            false => &[],
        };
        v1::Version {
            edits: listed.iter().map(Digest::to_string).collect(),
            edit_count: self.edits.len() as u64,
            matrices: self.matrices.values().cloned().collect(),
            ..version
        }
    }

    fn push(&mut self, edit: Digest) {
        self.list = one_more(&self.list, &edit);
        self.edits.push(edit);
    }

    /// Puts matrices in their places; one without a digest is the base's again.
    pub fn change(&mut self, changed: &[v1::version::Matrix]) {
        for matrix in changed {
            match matrix.digest.is_empty() {
                true => self.matrices.remove(&matrix.tensor_name),
                false => self
                    .matrices
                    .insert(matrix.tensor_name.clone(), matrix.clone()),
            };
        }
    }

    /// Of a version that says all of its edits in its record.
    pub(super) fn said(version: &v1::Version) -> Result<Self, String> {
        let edits = version.edits.iter().map(|edit| parsed(edit));
        let mut content = Self {
            edits: edits.collect::<Result<_, _>>()?,
            ..Self::default()
        };
        content.list = come_to(&content.edits);
        content.change(&version.matrices);
        Ok(content)
    }

    /// Does what a version does to its parent. What the list comes to is left for later.
    pub(super) fn apply(&mut self, version: &v1::Version) -> Result<(), String> {
        let edit = parsed(&version.subject_edit)?;
        let place = self.edits.iter().position(|other| *other == edit);
        match (version.kind(), place) {
            (VersionKind::Edit | VersionKind::CherryPick, None) => self.edits.push(edit),
            (VersionKind::Revert, Some(place)) => {
                self.edits.remove(place);
            }
            (VersionKind::Replace, None) => {
                let replaced = parsed(&version.replaced_edit)?;
                let place = self.edits.iter().position(|other| *other == replaced);
                let place = place.ok_or_else(|| {
                    format!("{edit} replaces {replaced}, which its parent does not have")
                })?;
                self.edits[place] = edit;
            }
            (kind, _) => {
                let what = format!("{} of {edit} does not fit its parent", kind.as_str_name());
                return Err(what);
            }
        }
        self.change(&version.matrices);
        Ok(())
    }
}

fn parsed(digest: &str) -> Result<Digest, String> {
    let parsed = digest.parse();
    parsed.map_err(|_| format!("'{digest}' is not the digest of an edit"))
}

pub(super) fn one_more(list: &Digest, edit: &Digest) -> Digest {
    let mut bytes = [0; 2 * BYTES];
    bytes[..BYTES].copy_from_slice(list.as_bytes());
    bytes[BYTES..].copy_from_slice(edit.as_bytes());
    Digest::of(&bytes)
}

/// What a list comes to.
pub(super) fn come_to(edits: &[Digest]) -> Digest {
    let none = Digest::of(&[]);
    edits.iter().fold(none, |list, edit| one_more(&list, edit))
}

/// Lists that are remembered, and edits in all of them: 64 MB, and one list of any length.
const REMEMBERED: usize = 16;
const REMEMBERED_EDITS: usize = 2 << 20;

/// What some versions have, by their digests, the one that was asked for last at the end.
#[derive(Debug, Default)]
pub(super) struct Contents(Mutex<VecDeque<(String, Arc<Content>)>>);

impl Contents {
    pub(super) fn get(&self, digest: &str) -> Option<Arc<Content>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.iter().position(|(of, _)| of == digest)?;
        let found = all.remove(place)?;
        let content = found.1.clone();
        all.push_back(found);
        Some(content)
    }

    pub(super) fn keep(&self, digest: &str, content: &Arc<Content>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, _)| of != digest);
        all.push_back((digest.to_owned(), content.clone()));
        let mut edits: usize = all.iter().map(|(_, content)| content.edits.len()).sum();
        while all.len() > 1 && (all.len() > REMEMBERED || edits > REMEMBERED_EDITS) {
            edits -= all.pop_front().map_or(0, |(_, gone)| gone.edits.len());
        }
    }
}
