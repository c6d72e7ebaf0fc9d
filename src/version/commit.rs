//! Making versions: which edits the next one has, what its matrices are, and the records that a
//! movement of a ref writes.
//!
//! [`VersionDraft`]s are computed while nothing is locked, for they read and multiply whole matrices.
//! [`RefMovement::records`] is the short part: whoever serialises changes calls it when nothing else
//! can move, and writes what it gives in one batch.

use super::history::{digest_of, etag, is_digest_like, movements, number_of, short};
use super::kept::rows_of;
use super::made::{Authorship, Made, VersionDraft};
use super::stacked::factor;
use super::whole::Whole;
use super::{Base, Error, Factor, History, built_on};
use super::{edit_id, edit_name, ref_name};
use crate::objects::Digest;
use crate::proto::v1::{self, RefKind, VersionKind};
use crate::store::{Change, Record};

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
        complete(history, base, parent, None, &mut edit, by)?;
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
        let at = place(&made, digest_of(&edit.name), parent)?;
        let later = built_on::later(history, &made.before, at, edit)?;
        let mut draft = made.without(at, edit)?;
        let id = digest_of(&edit.name);
        draft.version.warnings = built_on::warnings(id, "was reverted", &later);
        draft.name(history);
        Ok(draft)
    }

    /// The version with an edit in the place of one of its edits, of which it has some facts. It is
    /// of the version that the first one was computed on. It is completed here, as by
    /// [`VersionDraft::edit`].
    ///
    /// # Errors
    /// [`Error::NotThere`]; those of [`VersionDraft::edit`].
    pub fn replace(
        history: History<'_>,
        base: &Base,
        parent: &v1::Version,
        old: &v1::Edit,
        mut edit: v1::Edit,
        by: &Authorship,
    ) -> Result<Self, Error> {
        let made = Made::by(history, base, parent, VersionKind::Replace, by)?;
        let before = digest_of(&old.name);
        let at = place(&made, before, parent)?;
        complete(history, base, parent, Some(old), &mut edit, by)?;
        edit.state = v1::EditState::Accepted as i32;
        edit.failed_gates.clear();
        let id = edit_id(&edit);
        edit.name = edit_name(history.model(), &id.to_string());
        let later = built_on::later(history, &made.before, at, old)?;
        let mut draft = made.replaced(at, old, id, &edit)?;
        let how = "was computed again without some of its facts";
        draft.version.warnings = built_on::warnings(before, how, &later);
        draft.name(history);
        Ok(Self {
            edit: Some(edit),
            ..draft
        })
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
}

/// Where an edit stands in the version that another one is made of.
fn place(made: &Made<'_>, edit: &str, parent: &v1::Version) -> Result<usize, Error> {
    let id: Digest = edit.parse()?;
    let at = made.before.edits.iter().position(|other| *other == id);
    at.ok_or_else(|| Error::NotThere {
        edit: short(edit).to_owned(),
        version: short(digest_of(&parent.name)).to_owned(),
    })
}

/// Says of an edit in whose place it stands, and without which of its facts.
fn stands_for(edit: &mut v1::Edit, old: &v1::Edit) {
    digest_of(&old.name).clone_into(&mut edit.replaces);
    edit.based_on.clone_from(&old.based_on);
    // What it has is in the order of the first one.
    let mut kept = edit.requests.iter().peekable();
    let facts = old.requests.iter();
    let left_out = facts.filter(|fact| kept.next_if_eq(fact).is_none());
    edit.left_out = left_out.cloned().collect();
}

/// Completes an edit, which stands in the place of another or of none, and stores its factors'
/// numbers as objects.
fn complete(
    history: History<'_>,
    base: &Base,
    parent: &v1::Version,
    old: Option<&v1::Edit>,
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
    for rows in rows_of(edit) {
        let digest: Digest = rows.digest.parse()?;
        let found = history.store().objects().durable_size(&digest)?;
        if found.is_none() || found != rows.bytes() {
            let problem = format!(
                "the object {digest} is not stored with {} rows of {} numbers",
                rows.rows, rows.numbers
            );
            return Err(field(rows.field, problem));
        }
    }
    match old {
        Some(old) => stands_for(edit, old),
        None => {
            edit.replaces.clear();
            edit.left_out.clear();
        }
    }
    Ok(())
}

/// A rejected edit, complete, with the record that keeps it: no ref moves. `old` is the edit in
/// whose place it would have stood.
///
/// # Errors
/// As [`VersionDraft::edit`].
pub fn rejected(
    history: History<'_>,
    base: &Base,
    parent: &v1::Version,
    old: Option<&v1::Edit>,
    mut edit: v1::Edit,
    by: &Authorship,
) -> Result<v1::Edit, Error> {
    complete(history, base, parent, old, &mut edit, by)?;
    edit.state = v1::EditState::Rejected as i32;
    edit.name = edit_name(history.model(), &edit_id(&edit).to_string());
    Ok(edit)
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
