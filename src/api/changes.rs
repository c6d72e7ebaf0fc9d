//! What makes versions and moves refs: edits that are taken, kept as rejected, reverted and picked,
//! and refs that are made and moved. Each is entered into the audit log in the step that writes it.

use prost::Message as _;
use tonic::Status;

use super::caller::{authorship, check_why};
use super::status::{Reason, data_loss, failed_precondition, invalid_argument, not_found};
use super::versions::{NAMED_OF_A_CHANGE, Versions, split, version_of};
use super::{check, models};
use crate::audit;
use crate::coordinator::{Transaction, judged};
use crate::proto::v1::create_edit_request::Source;
use crate::proto::v1::{
    self, CherryPickEditRequest, CherryPickEditResponse, CreateEditRequest, CreateEditResponse,
    CreateRefRequest, RevertEditRequest, RevertEditResponse, UpdateRefRequest, UpdateRefResponse,
};
use crate::version::{
    self, Authorship, Base, Error, Expected, History, MAIN, MovedRef, RefMovement, VersionDraft,
    Whole, digest_of,
};
use crate::wire::names;
use crate::work;

/// The figure that the coordinator can compute itself.
const UPDATE_NORM: &str = "update_norm";

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
        let by = authorship(&entry, &self.coordinator);
        let (bases, branch, author) = (self.bases.clone(), ref_id.clone(), by.clone());
        let (draft, parent, base) = self
            .with_model(model, move |history, model| {
                let reference = history.reference(&branch)?;
                if reference.kind() == v1::RefKind::Tag {
                    return Err(Error::Tag {
                        name: reference.name,
                    });
                }
                let parent = history.manifest(digest_of(&reference.version))?;
                let base = bases.open(model)?;
                let draft = compute(history, &base, &parent, &author)
                    .map_err(|error| error.of(&reference))?;
                Ok((draft, parent.name, model.digest.clone()))
            })
            .await?;
        let (edit, content) = (draft.edit.clone(), draft.content.clone());
        let model = model.to_owned();
        let mut moved = self
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
        let made = moved.version.take();
        moved.version = made.map(|version| content.fill(version, NAMED_OF_A_CHANGE));
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
        check_why("why", &entry.why)?;
        let gates = self.coordinator.inspect(|core| core.gates()).await?;
        let edit = match request.source {
            // One that failed gates elsewhere is kept as that; what it passed there is not
            // believed.
            Some(Source::Edit(mut edit))
                if edit.state() == v1::EditState::Rejected && !edit.failed_gates.is_empty() =>
            {
                edit.job.clear();
                edit
            }
            Some(Source::Edit(edit)) => {
                let edit = self.imported(model, edit, &gates).await?;
                if edit.state() == v1::EditState::Rejected {
                    let what = format!(
                        "the edit fails the coordinator's gates: {}",
                        edit.failed_gates.join("; ")
                    );
                    return Err(failed_precondition(Reason::EditRejected, what));
                }
                edit
            }
            Some(Source::Result(name)) => self.computed(model, &name, &gates).await?,
            None => {
                let what = "it is missing: give 'edit', or 'result' of an editing job";
                return Err(invalid_argument("source", what));
            }
        };
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

    /// The result of an editing job, as its own gates and the coordinator's judge it.
    async fn computed(
        &self,
        model: &str,
        name: &str,
        settings: &v1::EditGates,
    ) -> Result<v1::Edit, Status> {
        let (id, unit) = names::parse_result(name).ok_or_else(|| not_found(name))?;
        let mut job = self
            .coordinator
            .inspect_job(id, move |core| core.full_job(id))
            .await?
            .ok_or_else(|| not_found(name))?;
        if job.model != names::model(model) {
            let what = format!("'{name}' is of {}, not of models/{model}", job.model);
            return Err(invalid_argument("result", what));
        }
        let asked = work::of_mut(&mut job).and_then(|work| {
            let gates = work.asked_gates()?.unwrap_or_default();
            Some((gates, work.landing().is_some()))
        });
        let gates = match asked {
            Some((gates, false)) => work::strictest(&gates, settings),
            Some((_, true)) => {
                let what = format!("'{name}' names a ref: its job makes the version itself");
                return Err(invalid_argument("result", what));
            }
            None => {
                let what = format!("'{name}' is no result of an editing job");
                return Err(invalid_argument("result", what));
            }
        };
        let store = self.coordinator.store().clone();
        let found = super::blocking(move || Ok(store.results(id, unit, 1, usize::MAX)?)).await?;
        let found = found.into_iter().find(|(of, _, _)| *of == unit);
        let (_, _, bytes) = found.ok_or_else(|| {
            let what = format!("{name} is not there yet: wait for its job");
            failed_precondition(Reason::JobNotDone, what)
        })?;
        let result = v1::UnitResult::decode(bytes.as_slice()).map_err(|e| data_loss(&e))?;
        let Some(v1::unit_result::Outcome::Edit(outcome)) = result.outcome else {
            let what = format!("'{name}' is no edit: its unit failed, see the job's results");
            return Err(invalid_argument("result", what));
        };
        Ok(v1::Edit {
            job: names::job(id),
            based_on: job.version,
            ..judged(outcome.edit.unwrap_or_default(), &gates)
        })
    }

    /// An edit that was computed elsewhere, as the coordinator judges it. It looks at what it can
    /// compute itself; where its gates ask for more, the edit is refused.
    async fn imported(
        &self,
        model: &str,
        mut edit: v1::Edit,
        gates: &v1::EditGates,
    ) -> Result<v1::Edit, Status> {
        let unmeasured = [
            gates.efficacy,
            gates.neighbour_drift,
            gates.ppl_ratio,
            gates.server_ppl_ratio,
            gates.locality,
            gates.downstream_drop,
        ];
        if unmeasured.iter().any(Option::is_some) {
            let what = "the coordinator's settings have gates besides that of the norm, and nothing \
                        measured this edit: let a job compute it, with 'palimpsest edit'";
            return Err(failed_precondition(Reason::EditUnmeasured, what));
        }
        edit.job.clear();
        let bases = self.bases.clone();
        let (mut edit, norm) = self
            .with_model(model, move |history, model| {
                let parent = match edit.based_on.as_str() {
                    "" => history.find(MAIN)?,
                    name => history.manifest(digest_of(name))?,
                };
                let base = bases.open(model)?;
                let norm = version::relative_norm(history, &base, &parent, &edit)?;
                Ok((edit, norm))
            })
            .await?;
        edit.figures.retain(|figure| figure.key != UPDATE_NORM);
        edit.figures.push(v1::NamedNumber {
            key: UPDATE_NORM.to_owned(),
            value: norm,
        });
        Ok(judged(edit, gates))
    }

    /// Keeps an edit that failed its gates, with its figures, for the history. No ref moves.
    async fn keep_rejected(
        &self,
        model: &str,
        edit: v1::Edit,
        mut entry: audit::EntryDraft,
    ) -> Result<CreateEditResponse, Status> {
        let (by, bases) = (authorship(&entry, &self.coordinator), self.bases.clone());
        let (edit, base) = self
            .with_model(model, move |history, model| {
                let parent = match edit.based_on.as_str() {
                    "" => history.find(MAIN)?,
                    name => history.manifest(digest_of(name))?,
                };
                let edit =
                    version::rejected(history, &*bases.open(model)?, &parent, None, edit, &by)?;
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

    /// A version that a ref is to point at, seen to be whole before the turn in which it moves, and
    /// the digest of its model's base.
    async fn whole(&self, model: &str, version: String) -> Result<(Whole, String), Status> {
        let seen = self.whole_versions.clone();
        self.with_model(model, move |history, model| {
            let version = history.find(&version)?;
            Ok((seen.check(history, &version)?, model.digest.clone()))
        })
        .await
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
        let by = authorship(&entry, &self.coordinator);
        let (whole, base) = self.whole(&model, version).await?;
        self.coordinator
            .transact(move |turn| {
                let history = History::new(turn.store(), &model, &base);
                let moved = version::create_ref(history, &id, kind, &whole, &by)?;
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
        let by = authorship(&entry, &self.coordinator);
        let (whole, base) = self.whole(&model, version).await?;
        let moved = self
            .coordinator
            .transact(move |turn| {
                let history = History::new(turn.store(), &model, &base);
                let movement = RefMovement {
                    ref_id: &id,
                    expected: vec![Expected::etag(asked.etag)],
                    force: request.force,
                    by: &by,
                };
                let moved = movement.to_stored(history, &whole)?;
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
