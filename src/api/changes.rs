//! What makes versions and moves refs: edits that are taken, kept as rejected, reverted and picked, and refs that are
//! made and moved. Each is entered into the audit log in the step that writes it.

use tonic::Status;

use super::caller::{authorship, check_why};
use super::status::invalid_argument;
use super::versions::{Versions, split, stored_model, version_of};
use super::{check, models};
use crate::audit;
use crate::coordinator::Transaction;
use crate::proto::v1::{
    self, CherryPickEditRequest, CherryPickEditResponse, CreateEditRequest, CreateEditResponse,
    CreateRefRequest, RevertEditRequest, RevertEditResponse, UpdateRefRequest, UpdateRefResponse,
};
use crate::version::{
    self, Authorship, Base, Error, Expected, History, MAIN, MovedRef, RefMovement, VersionDraft,
    digest_of,
};

impl Versions {
    /// Computes a version on the one that a branch has, then moves the branch there, unless it
    /// moved meanwhile.
    async fn extend(
        &self,
        model: &str,
        ref_id: &str,
        etag: String,
        mut entry: audit::EntryDraft,
        compute: impl FnOnce(
            History<'_>,
            &Base,
            &v1::Version,
            &Authorship,
        ) -> Result<VersionDraft, Error>
        + Send
        + 'static,
    ) -> Result<(MovedRef, Option<v1::Edit>), Status> {
        check_why("why", &entry.why)?;
        let ref_id = if ref_id.is_empty() { MAIN } else { ref_id }.to_owned();
        let by = authorship(&entry);
        let (bases, branch, author) = (self.bases.clone(), ref_id.clone(), by.clone());
        let (draft, parent, base) = self
            .with_model(model, move |history, model| {
                let reference = history.reference(&branch)?;
                if reference.kind() == v1::RefKind::Tag {
                    return Err(Error::Tag {
                        name: reference.name,
                    });
                }
                let parent = history.version(digest_of(&reference.version))?;
                let base = bases.open(model)?;
                let draft = compute(history, &base, &parent, &author)
                    .map_err(|error| error.of(&reference))?;
                Ok((draft, parent.name, model.digest.clone()))
            })
            .await?;
        let edit = draft.edit.clone();
        let model = model.to_owned();
        let moved = self
            .coordinator
            .transact(move |turn| {
                let history = History::new(turn.store(), &model, &base);
                let movement = RefMovement {
                    ref_id: &ref_id,
                    expected: vec![
                        Expected::etag(etag),
                        Expected::Version(digest_of(&parent).to_owned()),
                    ],
                    force: false,
                    by: &by,
                };
                let moved = movement.to_draft(history, &draft)?;
                entry.resource.clone_from(&moved.reference.name);
                done(turn, entry, moved)
            })
            .await??;
        Ok((moved, edit))
    }

    /// [`Versions::extend`] by what is made of an edit that the model has.
    async fn extend_by(
        &self,
        edit: &str,
        ref_id: &str,
        etag: String,
        entry: audit::EntryDraft,
        make: fn(
            History<'_>,
            &Base,
            &v1::Version,
            &v1::Edit,
            &Authorship,
        ) -> Result<VersionDraft, Error>,
    ) -> Result<MovedRef, Status> {
        let (model, id) = split(edit, "edits")?;
        let id = id.to_owned();
        let compute =
            move |history: History<'_>, base: &Base, parent: &v1::Version, by: &Authorship| {
                make(history, base, parent, &history.edit(&id)?, by)
            };
        let (moved, _) = self.extend(model, ref_id, etag, entry, compute).await?;
        Ok(moved)
    }

    pub(super) async fn create_edit(
        &self,
        request: CreateEditRequest,
        entry: audit::EntryDraft,
    ) -> Result<CreateEditResponse, Status> {
        let model = models::model_id(&request.parent)?;
        let edit = request
            .edit
            .ok_or_else(|| invalid_argument("edit", "it is missing"))?;
        if edit.state() == v1::EditState::Rejected {
            return self.keep_rejected(model, edit, entry).await;
        }
        let (moved, edit) = self
            .extend(
                model,
                &request.ref_id,
                request.etag,
                entry,
                move |history, base, parent, by| {
                    VersionDraft::edit(history, base, parent, edit, by)
                },
            )
            .await?;
        Ok(CreateEditResponse {
            edit,
            version: moved.version,
            r#ref: Some(moved.reference),
        })
    }

    /// Keeps an edit that failed its gates, with its figures, for the history. No ref moves.
    async fn keep_rejected(
        &self,
        model: &str,
        edit: v1::Edit,
        mut entry: audit::EntryDraft,
    ) -> Result<CreateEditResponse, Status> {
        if edit.failed_gates.is_empty() {
            let what = "it is rejected, but names no gate that it failed";
            return Err(invalid_argument("edit.failed_gates", what));
        }
        check_why("why", &entry.why)?;
        let (by, bases) = (authorship(&entry), self.bases.clone());
        let (edit, base) = self
            .with_model(model, move |history, model| {
                let parent = match edit.based_on.as_str() {
                    "" => history.resolve(MAIN)?,
                    name => history.version(digest_of(name))?,
                };
                let edit = version::rejected(history, &*bases.open(model)?, &parent, edit, &by)?;
                Ok((edit, model.digest.clone()))
            })
            .await?;
        entry.resource.clone_from(&edit.name);
        entry.refusal = Some(edit.failed_gates.join("; "));
        let (model, kept) = (model.to_owned(), edit.clone());
        self.coordinator
            .transact(move |turn| {
                let history = History::new(turn.store(), &model, &base);
                let changes = version::edit_changes(history, &kept)?;
                turn.record(entry)?;
                turn.write(changes);
                Ok::<_, Status>(())
            })
            .await??;
        Ok(CreateEditResponse {
            edit: Some(edit),
            version: None,
            r#ref: None,
        })
    }

    pub(super) async fn revert_edit(
        &self,
        request: RevertEditRequest,
        entry: audit::EntryDraft,
    ) -> Result<RevertEditResponse, Status> {
        let moved = self
            .extend_by(
                &request.name,
                &request.ref_id,
                request.etag,
                entry,
                VersionDraft::revert,
            )
            .await?;
        Ok(RevertEditResponse {
            version: moved.version,
            r#ref: Some(moved.reference),
        })
    }

    pub(super) async fn cherry_pick_edit(
        &self,
        request: CherryPickEditRequest,
        entry: audit::EntryDraft,
    ) -> Result<CherryPickEditResponse, Status> {
        let moved = self
            .extend_by(
                &request.name,
                &request.ref_id,
                request.etag,
                entry,
                VersionDraft::cherry_pick,
            )
            .await?;
        Ok(CherryPickEditResponse {
            version: moved.version,
            r#ref: Some(moved.reference),
        })
    }

    pub(super) async fn create_ref(
        &self,
        request: CreateRefRequest,
        mut entry: audit::EntryDraft,
    ) -> Result<v1::Ref, Status> {
        let model = models::model_id(&request.parent)?.to_owned();
        let id = request.ref_id;
        check::identifier("ref_id", &id).map_err(|(field, what)| invalid_argument(field, what))?;
        let asked = request
            .r#ref
            .ok_or_else(|| invalid_argument("ref", "it is missing"))?;
        check_why("ref.why", &asked.why)?;
        let kind = match asked.kind() {
            v1::RefKind::Unspecified => v1::RefKind::Tag,
            kind => kind,
        };
        entry.why = asked.why;
        let version = version_of(&model, "ref.version", &asked.version)?;
        let by = authorship(&entry);
        self.coordinator
            .transact(move |turn| {
                let base = stored_model(turn.store(), &model)?.digest;
                let history = History::new(turn.store(), &model, &base);
                let moved = history.resolve(&version).and_then(|version| {
                    let digest = digest_of(&version.name);
                    version::create_ref(history, &id, kind, digest, &by)
                })?;
                entry.resource.clone_from(&moved.reference.name);
                done(turn, entry, moved)
            })
            .await?
            .map(|moved| moved.reference)
    }

    pub(super) async fn update_ref(
        &self,
        request: UpdateRefRequest,
        mut entry: audit::EntryDraft,
    ) -> Result<UpdateRefResponse, Status> {
        let asked = request
            .r#ref
            .ok_or_else(|| invalid_argument("ref", "it is missing"))?;
        let (model, id) = split(&asked.name, "refs")?;
        let (of, model, id) = (model.to_owned(), model.to_owned(), id.to_owned());
        check_why("ref.why", &asked.why)?;
        let version = version_of(&model, "ref.version", &asked.version)?;
        entry.why = asked.why;
        let by = authorship(&entry);
        let moved = self
            .coordinator
            .transact(move |turn| {
                let base = stored_model(turn.store(), &model)?.digest;
                let history = History::new(turn.store(), &model, &base);
                let movement = RefMovement {
                    ref_id: &id,
                    expected: vec![Expected::etag(asked.etag)],
                    force: request.force,
                    by: &by,
                };
                let moved = history
                    .resolve(&version)
                    .and_then(|version| movement.to_stored(history, digest_of(&version.name)))?;
                done(turn, entry, moved)
            })
            .await??;
        Ok(UpdateRefResponse {
            previous_version: version::version_name(&of, &moved.before),
            r#ref: Some(moved.reference),
        })
    }
}

/// Enters a movement into the audit log and writes it.
fn done(
    turn: &mut Transaction<'_>,
    mut entry: audit::EntryDraft,
    mut moved: MovedRef,
) -> Result<MovedRef, Status> {
    entry.version_before.clone_from(&moved.before);
    entry.version_after = digest_of(&moved.reference.version).to_owned();
    turn.record(entry)?;
    turn.write(std::mem::take(&mut moved.changes));
    Ok(moved)
}
