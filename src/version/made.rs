//! How a version is made of its parent: with an edit more, with one less, or with one in another's
//! place.

use std::sync::Arc;

use prost_types::Timestamp;

use super::history::{digest_of, short};
use super::stacked::factors_of;
use super::sums::ByName;
use super::{Base, Error, History, stacked};
use super::{version_id, version_name};
use crate::objects::Digest;
use crate::proto::v1::{self, VersionKind};
use crate::store::Content;

/// Who makes a version, when and why.
#[derive(Clone, Debug, Default)]
pub struct Authorship {
    /// Who.
    pub author: String,
    /// When.
    pub time: Option<Timestamp>,
    /// Why, in their words.
    pub why: String,
    /// BLAKE3 of the request.
    pub request_digest: String,
}

/// A version that nothing points at yet.
#[derive(Clone, Debug)]
pub struct VersionDraft {
    /// The version, as it is stored: its parent, and what it adds to it.
    pub version: v1::Version,
    /// What it has.
    pub content: Arc<Content>,
    /// The edit that came with it; none when its edits are stored already.
    pub edit: Option<v1::Edit>,
}

impl VersionDraft {
    /// Names it, which goes before nothing else: its digest is of all that it says.
    pub(super) fn name(&mut self, history: History<'_>) {
        let id = version_id(&self.version).to_string();
        self.version.name = version_name(history.model(), &id);
        history.store().remember(&id, &self.content);
    }
}

/// A version that is being made.
pub(super) struct Made<'a> {
    history: History<'a>,
    base: &'a Base,
    parent: &'a v1::Version,
    /// What the parent has.
    pub before: Arc<Content>,
    kind: VersionKind,
    by: &'a Authorship,
}

impl<'a> Made<'a> {
    pub fn by(
        history: History<'a>,
        base: &'a Base,
        parent: &'a v1::Version,
        kind: VersionKind,
        by: &'a Authorship,
    ) -> Result<Self, Error> {
        Ok(Self {
            before: history.content(parent)?,
            history,
            base,
            parent,
            kind,
            by,
        })
    }

    /// With an edit more: what it touches is its parent's, with its factors on it.
    pub fn with(self, id: Digest, edit: &v1::Edit) -> Result<VersionDraft, Error> {
        if self.before.edits.contains(&id) {
            return Err(Error::AlreadyThere {
                edit: short(&id.to_string()).to_owned(),
                version: short(digest_of(&self.parent.name)).to_owned(),
            });
        }
        let added = factors_of(self.history.store(), edit)?;
        let touched = stacked::with_factors(self.history, self.base, &self.before, &added)?;
        let mut changed = Vec::with_capacity(touched.len());
        for (tensor, sum) in &touched {
            changed.push(self.base.described(tensor, &sum.matrix()?)?);
        }
        let content = self.before.with(id, &changed);
        self.draft(id, content, changed, touched)
    }

    /// Without the edit in this place.
    pub fn without(self, at: usize, edit: &v1::Edit) -> Result<VersionDraft, Error> {
        let (id, content) = (self.before.edits[at], self.before.without(at, &[]));
        self.anew(at, &[edit], None, id, content)
    }

    /// With an edit in the place of the one that stands there.
    pub fn replaced(
        self,
        at: usize,
        old: &v1::Edit,
        id: Digest,
        edit: &v1::Edit,
    ) -> Result<VersionDraft, Error> {
        let before = self.before.edits[at];
        let content = self.before.replaced(at, id, &[]);
        let mut draft = self.anew(at, &[old, edit], Some(edit), id, content)?;
        draft.version.replaced_edit = before.to_string();
        Ok(draft)
    }

    /// What these edits touch is made again from the base, with another one in this place, or none.
    fn anew(
        self,
        at: usize,
        edits: &[&v1::Edit],
        other: Option<&v1::Edit>,
        subject: Digest,
        mut content: Content,
    ) -> Result<VersionDraft, Error> {
        let all = &self.before.matrices;
        let factors = edits.iter().flat_map(|edit| &edit.factors);
        let mut tensors: Vec<&str> = factors.map(|it| it.tensor_name.as_str()).collect();
        tensors.sort_unstable();
        tensors.dedup();
        let (mut changed, mut touched) = (Vec::new(), ByName::new());
        let of = |edits: &[Digest]| stacked::touched(self.history, edits, &tensors);
        let mut before = of(&self.before.edits[..at])?;
        let mut after = of(&self.before.edits[at + 1..])?;
        for &tensor in &tensors {
            let mut described = before.remove(tensor).unwrap_or_default();
            let added = other.iter().flat_map(|edit| &edit.factors);
            described.extend(added.filter(|it| it.tensor_name == tensor).cloned());
            described.append(&mut after.remove(tensor).unwrap_or_default());
            if described.is_empty() {
                // It is the base's own again.
                changed.extend(all.get(tensor).map(|matrix| v1::version::Matrix {
                    digest: String::new(),
                    ..matrix.clone()
                }));
                continue;
            }
            let sum = stacked::stacked(self.history, self.base, tensor, &described)?;
            changed.push(self.base.described(tensor, &sum.matrix()?)?);
            touched.insert(tensor.to_owned(), Arc::new(sum));
        }
        content.change(&changed);
        self.draft(subject, content, changed, touched)
    }

    fn draft(
        self,
        subject: Digest,
        content: Content,
        changed: Vec<v1::version::Matrix>,
        touched: ByName,
    ) -> Result<VersionDraft, Error> {
        let (history, by) = (self.history, self.by);
        let gone = changed.iter().filter(|it| it.digest.is_empty());
        let gone: Vec<String> = gone.map(|it| it.tensor_name.clone()).collect();
        stacked::carry_on(self.base, &self.before, content.list, touched, &gone);
        let version = v1::Version {
            base: history.base_digest().to_owned(),
            parent: digest_of(&self.parent.name).to_owned(),
            author: by.author.clone(),
            create_time: by.time,
            request_digest: by.request_digest.clone(),
            kind: self.kind as i32,
            subject_edit: subject.to_string(),
            why: by.why.clone(),
            ..Default::default()
        };
        let store = history.store();
        let mut draft = VersionDraft {
            version: store.formed(history.model(), version, &content, changed)?,
            content: Arc::new(content),
            edit: None,
        };
        draft.name(history);
        Ok(draft)
    }
}
