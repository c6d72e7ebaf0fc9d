//! Making versions: which edits the next one has, what its matrices are, and the records that a
//! movement of a ref writes.
//!
//! [`VersionDraft`]s are computed while nothing is locked, for they read and multiply whole matrices.
//! [`RefMovement::records`] is the short part: whoever serialises changes calls it when nothing else
//! can move, and writes what it gives in one batch.

use std::sync::Arc;

use prost_types::Timestamp;

use super::history::{digest_of, etag, is_digest_like, movements, number_of, short};
use super::stacked::{factor, factors_of};
use super::sums::ByName;
use super::whole::Whole;
use super::{Base, Error, Factor, History, built_on, stacked};
use super::{edit_id, edit_name, ref_name, version_id, version_name};
use crate::objects::Digest;
use crate::proto::v1::{self, RefKind, VersionKind};
use crate::store::{Change, Content, Record};

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
    /// The version with an edit more, which is completed here: base, author, identity. Its
    /// factors' data become objects.
    ///
    /// # Errors
    /// [`Error::Field`], [`Error::Factor`] and [`Error::Tensor`] for what cannot be;
    /// [`Error::NotFinite`]; [`Error::Moved`] when it was computed on another version.
    pub fn edit(
        history: History<'_>,
        base: &Base,
        parent: &v1::Version,
        mut edit: v1::Edit,
        by: &Authorship,
    ) -> Result<Self, Error> {
        complete(history, base, parent, &mut edit, by)?;
        edit.state = v1::EditState::Accepted as i32;
        edit.failed_gates.clear();
        let id = edit_id(&edit);
        edit.name = edit_name(history.model(), &id.to_string());
        let draft = Made::by(history, base, parent, VersionKind::Edit, by)?.with(id, &edit)?;
        Ok(Self {
            edit: Some(edit),
            ..draft
        })
    }

    /// The version without one of its edits.
    ///
    /// # Errors
    /// [`Error::NotThere`]; [`Error::Store`] and [`Error::Model`] when something cannot be read.
    pub fn revert(
        history: History<'_>,
        base: &Base,
        parent: &v1::Version,
        edit: &v1::Edit,
        by: &Authorship,
    ) -> Result<Self, Error> {
        let made = Made::by(history, base, parent, VersionKind::Revert, by)?;
        let id: Digest = digest_of(&edit.name).parse()?;
        let at = made.before.edits.iter().position(|other| *other == id);
        let at = at.ok_or_else(|| Error::NotThere {
            edit: short(digest_of(&edit.name)).to_owned(),
            version: short(digest_of(&parent.name)).to_owned(),
        })?;
        let later = built_on::later(history, &made.before, at)?;
        let mut draft = made.without(at, edit)?;
        draft.version.warnings = built_on::warnings(digest_of(&edit.name), &later);
        draft.name(history);
        Ok(draft)
    }

    /// The version with an edit of another line more.
    ///
    /// # Errors
    /// [`Error::AlreadyThere`], [`Error::Rejected`], [`Error::NotFinite`]; [`Error::Store`] and
    /// [`Error::Model`] when something cannot be read.
    pub fn cherry_pick(
        history: History<'_>,
        base: &Base,
        parent: &v1::Version,
        edit: &v1::Edit,
        by: &Authorship,
    ) -> Result<Self, Error> {
        let id = digest_of(&edit.name);
        if edit.state() == v1::EditState::Rejected {
            return Err(Error::Rejected {
                edit: short(id).to_owned(),
                gates: edit.failed_gates.join("; "),
            });
        }
        let made = Made::by(history, base, parent, VersionKind::CherryPick, by)?;
        let ground = history.manifest(digest_of(&edit.based_on));
        let ground = ground.and_then(|ground| history.content(&ground));
        let same_ground = ground.is_ok_and(|ground| ground.list == made.before.list);
        let mut draft = made.with(id.parse()?, edit)?;
        if !same_ground {
            draft.version.warnings = vec![format!(
                "edit {} was computed on version {}, which has other edits",
                short(id),
                short(digest_of(&edit.based_on))
            )];
        }
        draft.name(history);
        Ok(draft)
    }

    fn name(&mut self, history: History<'_>) {
        let id = version_id(&self.version).to_string();
        self.version.name = version_name(history.model(), &id);
        history.store().remember(&id, &self.content);
    }
}

/// Completes an edit and stores its factors' numbers as objects.
fn complete(
    history: History<'_>,
    base: &Base,
    parent: &v1::Version,
    edit: &mut v1::Edit,
    by: &Authorship,
) -> Result<(), Error> {
    let field = |field: &str, problem: String| Error::Field {
        field: field.to_owned(),
        problem,
    };
    if edit.factors.is_empty() {
        return Err(field(
            "edit.factors",
            "there are none: give one a matrix".to_owned(),
        ));
    }
    if edit.method.is_empty() {
        return Err(field(
            "edit.method",
            "it is missing: say how the factors were made".to_owned(),
        ));
    }
    for (n, request) in edit.requests.iter().enumerate() {
        if request.prompt.matches("{}").count() != 1 {
            let problem = format!("'{}' has not exactly one {{}}", request.prompt);
            return Err(field(&format!("edit.requests[{n}].prompt"), problem));
        }
    }
    if edit.based_on.is_empty() {
        edit.based_on.clone_from(&parent.name);
    } else if digest_of(&edit.based_on) != digest_of(&parent.name) {
        return Err(Error::Moved {
            name: "the branch".to_owned(),
            expected: format!("version {}", short(digest_of(&edit.based_on))),
            actual: short(digest_of(&parent.name)).to_owned(),
            etag: String::new(),
            author: parent.author.clone(),
        });
    }
    edit.base = history.base_digest().to_owned();
    edit.author.clone_from(&by.author);
    edit.create_time = by.time;
    edit.request_digest.clone_from(&by.request_digest);
    if edit.why.is_empty() {
        edit.why.clone_from(&by.why);
    }
    edit.parameters.sort_by(|a, b| a.key.cmp(&b.key));
    edit.figures.sort_by(|a, b| a.key.cmp(&b.key));
    edit.factors
        .sort_by(|a, b| (a.layer, &a.tensor_name).cmp(&(b.layer, &b.tensor_name)));
    for pair in edit.factors.windows(2) {
        if pair[0].tensor_name == pair[1].tensor_name {
            let problem = format!("{} appears twice: join its factors", pair[0].tensor_name);
            return Err(field("edit.factors", problem));
        }
    }
    for described in &mut edit.factors {
        let data = std::mem::take(&mut described.data);
        if data.is_empty() {
            base.check(&factor(history.store(), described)?)?;
            // A record will refer to it: durable, and not collected before that.
            let digest: Digest = described.digest.parse()?;
            history.store().objects().durable_size(&digest)?;
            continue;
        }
        if described.digest.is_empty() {
            described.digest = Digest::of(&data).to_string();
        }
        base.check(&Factor::from_proto(described, &data)?)?;
        history.store().objects().put(&data)?;
    }
    for keys in &edit.keys {
        let size = keys.inner.checked_mul(u64::from(keys.columns));
        let size = size.and_then(|numbers| numbers.checked_mul(4));
        let digest: Digest = keys.digest.parse()?;
        let found = history.store().objects().durable_size(&digest)?;
        if found.is_none() || found != size {
            let problem = format!(
                "the object {digest} is not stored with {} keys of {} numbers",
                keys.columns, keys.inner
            );
            return Err(field("edit.keys", problem));
        }
    }
    Ok(())
}

/// A rejected edit, complete, with the record that keeps it: no ref moves.
///
/// # Errors
/// As [`VersionDraft::edit`].
pub fn rejected(
    history: History<'_>,
    base: &Base,
    parent: &v1::Version,
    mut edit: v1::Edit,
    by: &Authorship,
) -> Result<v1::Edit, Error> {
    complete(history, base, parent, &mut edit, by)?;
    edit.state = v1::EditState::Rejected as i32;
    edit.name = edit_name(history.model(), &edit_id(&edit).to_string());
    Ok(edit)
}

/// A version that is being made.
struct Made<'a> {
    history: History<'a>,
    base: &'a Base,
    parent: &'a v1::Version,
    /// What the parent has.
    before: Arc<Content>,
    kind: VersionKind,
    by: &'a Authorship,
}

impl<'a> Made<'a> {
    fn by(
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
    fn with(self, id: Digest, edit: &v1::Edit) -> Result<VersionDraft, Error> {
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

    /// Without the edit in this place: what it touches is made again from the base.
    fn without(self, at: usize, edit: &v1::Edit) -> Result<VersionDraft, Error> {
        let (id, all) = (self.before.edits[at], &self.before.matrices);
        let mut tensors: Vec<&str> = edit
            .factors
            .iter()
            .map(|it| it.tensor_name.as_str())
            .collect();
        tensors.sort_unstable();
        let mut content = self.before.without(at, &[]);
        let (mut changed, mut touched) = (Vec::new(), ByName::new());
        let mut left = stacked::touched(self.history, &content, &tensors)?;
        for tensor in tensors {
            let gone = all.get(tensor).map(|matrix| v1::version::Matrix {
                digest: String::new(),
                ..matrix.clone()
            });
            let Some(described) = left.remove(tensor) else {
                // It is the base's own again.
                changed.extend(gone);
                continue;
            };
            let sum = stacked::stacked(self.history, self.base, tensor, &described)?;
            changed.push(self.base.described(tensor, &sum.matrix()?)?);
            touched.insert(tensor.to_owned(), Arc::new(sum));
        }
        content.change(&changed);
        self.draft(id, content, changed, touched)
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

/// Where a ref is expected before it moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Wherever.
    Anywhere,
    /// With this etag.
    Etag(String),
    /// At this version, by its digest.
    Version(String),
}

impl Expected {
    /// As requests say it: an empty etag is any.
    pub fn etag(etag: String) -> Self {
        if etag.is_empty() {
            Self::Anywhere
        } else {
            Self::Etag(etag)
        }
    }
}

/// A ref's way to a version.
#[derive(Clone, Debug)]
pub struct RefMovement<'a> {
    /// The ref's identifier.
    pub ref_id: &'a str,
    /// Where it must be.
    pub expected: Vec<Expected>,
    /// Move a tag too.
    pub force: bool,
    /// Who, when, why.
    pub by: &'a Authorship,
}

/// A ref that moves, and what is written for it.
#[derive(Clone, Debug)]
pub struct MovedRef {
    /// The ref afterwards.
    pub reference: v1::Ref,
    /// The version it pointed at before, by its digest.
    pub before: String,
    /// The version, if it is new, as it is stored, with its number.
    pub version: Option<v1::Version>,
    /// To be written in one batch.
    pub changes: Vec<Change>,
}

impl RefMovement<'_> {
    /// Moves the ref to a new version.
    ///
    /// # Errors
    /// [`Error::Moved`], [`Error::Tag`], [`Error::Unknown`]; nothing is to be written then.
    pub fn to_draft(&self, history: History<'_>, draft: &VersionDraft) -> Result<MovedRef, Error> {
        let mut moved = self.to(history, &draft.version.name)?;
        let (store, model) = (history.store(), history.model());
        let last = store.version_digests(model, None, 1)?;
        let version = v1::Version {
            number: last.first().map_or(0, |(number, _)| *number) + 1,
            ..draft.version.clone()
        };
        let mut changes: Vec<Change> = Record::version(model, version.number, &version)
            .into_iter()
            .map(Change::Record)
            .collect();
        if let Some(edit) = &draft.edit {
            changes.extend(edit_changes(history, edit)?);
        }
        changes.append(&mut moved.changes);
        Ok(MovedRef {
            version: Some(version),
            changes,
            ..moved
        })
    }

    /// Moves the ref to a version that is stored, and was seen to be whole: that
    /// takes as long as its history, and does not change. Reads the ref alone.
    ///
    /// # Errors
    /// [`Error::Moved`], [`Error::Tag`], [`Error::Unknown`]. Nothing is to be written then.
    pub fn to_stored(&self, history: History<'_>, version: &Whole) -> Result<MovedRef, Error> {
        self.to(history, &version.name)
    }

    fn to(&self, history: History<'_>, version: &str) -> Result<MovedRef, Error> {
        let before = history.reference(self.ref_id)?;
        let at = digest_of(&before.version);
        for expected in &self.expected {
            let wanted = match expected {
                Expected::Anywhere => continue,
                Expected::Etag(etag) if *etag == before.etag => continue,
                Expected::Version(digest) if digest == at => continue,
                Expected::Etag(etag) => format!("etag {etag}"),
                Expected::Version(digest) => format!("version {}", short(digest)),
            };
            return Err(Error::Moved {
                name: before.name.clone(),
                expected: wanted,
                actual: short(at).to_owned(),
                etag: before.etag.clone(),
                author: before.author.clone(),
            });
        }
        if before.kind() == RefKind::Tag && !self.force {
            return Err(Error::Tag { name: before.name });
        }
        let reference = v1::Ref {
            version: version.to_owned(),
            etag: etag(movements(&before.etag) + 1, version),
            update_time: self.by.time,
            author: self.by.author.clone(),
            why: self.by.why.clone(),
            ..before.clone()
        };
        let record = Record::reference(history.model(), self.ref_id, &reference);
        Ok(MovedRef {
            before: at.to_owned(),
            version: None,
            changes: vec![Change::Record(record)],
            reference,
        })
    }
}

/// The records of a new ref, at a version that was seen to be whole.
///
/// # Errors
/// [`Error::RefName`], [`Error::Taken`].
pub fn create_ref(
    history: History<'_>,
    id: &str,
    kind: RefKind,
    version: &Whole,
    by: &Authorship,
) -> Result<MovedRef, Error> {
    if number_of(id).is_some() || is_digest_like(id) {
        return Err(Error::RefName {
            id: id.to_owned(),
            problem: "it reads like a version's number or digest",
        });
    }
    if let Ok(taken) = history.reference(id) {
        return Err(Error::Taken {
            version: short(digest_of(&taken.version)).to_owned(),
            name: taken.name,
        });
    }
    let reference = v1::Ref {
        name: ref_name(history.model(), id),
        etag: etag(1, &version.name),
        version: version.name.clone(),
        kind: kind as i32,
        update_time: by.time,
        author: by.author.clone(),
        why: by.why.clone(),
    };
    let record = Record::reference(history.model(), id, &reference);
    Ok(MovedRef {
        before: String::new(),
        version: None,
        changes: vec![Change::Record(record)],
        reference,
    })
}

/// The records of an edit that is not stored yet; none for one that is.
///
/// # Errors
/// [`Error::Store`].
pub fn edit_changes(history: History<'_>, edit: &v1::Edit) -> Result<Vec<Change>, Error> {
    let (store, model) = (history.store(), history.model());
    if store.edit(model, digest_of(&edit.name))?.is_some() {
        return Ok(Vec::new());
    }
    let last = store.edit_digests(model, None, 1)?;
    let number = last.first().map_or(0, |(number, _)| *number) + 1;
    let records = Record::edit(model, number, edit);
    Ok(records.into_iter().map(Change::Record).collect())
}
