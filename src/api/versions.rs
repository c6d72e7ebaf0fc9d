//! `VersionService`: the edits, versions and refs of models.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::caller::{answered, authorship, check_why, draft};
use super::status::{
    IntoStatus, Reason, data_loss, failed_precondition, internal, invalid_argument, not_found,
    status,
};
use super::{check, models, pages};
use crate::audit;
use crate::coordinator::Coordinator;
use crate::proto::v1::version_service_server::VersionService;
use crate::proto::v1::{
    self, CherryPickEditRequest, CherryPickEditResponse, CompareVersionsRequest,
    CompareVersionsResponse, CreateEditRequest, CreateEditResponse, CreateRefRequest,
    CreateRefResponse, GetEditRequest, GetEditResponse, GetRefRequest, GetRefResponse,
    GetVersionRequest, GetVersionResponse, ListEditsRequest, ListEditsResponse, ListFactorsRequest,
    ListFactorsResponse, ListRefsRequest, ListRefsResponse, ListVersionsRequest,
    ListVersionsResponse, RevertEditRequest, RevertEditResponse, UpdateRefRequest,
    UpdateRefResponse,
};
use crate::store::Store;
use crate::version::{
    self, Authorship, Base, Bases, Draft, Error, Expected, History, MAIN, Moved, Movement,
    difference, digest_of,
};

/// Serves the versions of a coordinator's models.
#[derive(Debug)]
pub struct Versions {
    coordinator: Coordinator,
    bases: Arc<Bases>,
}

impl Versions {
    /// Serves the versions of this coordinator's models.
    pub fn new(coordinator: Coordinator) -> Self {
        let bases = Arc::new(Bases::new(coordinator.store().clone()));
        Self { coordinator, bases }
    }

    /// Runs what reads the versions of a model on a thread that may wait.
    async fn read<T: Send + 'static>(
        &self,
        model: &str,
        read: impl FnOnce(History<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        self.with_model(model, |history, _| read(history)).await
    }

    async fn with_model<T: Send + 'static>(
        &self,
        model: &str,
        read: impl FnOnce(History<'_>, &v1::Model) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let (store, id) = (self.coordinator.store().clone(), model.to_owned());
        super::blocking(move || {
            let model = stored_model(&store, &id)?;
            let history = History::new(&store, &id, &model.digest);
            read(history, &model).map_err(IntoStatus::into_status)
        })
        .await
    }

    /// Computes a version on the one that a branch has, then moves the branch there, unless it
    /// moved meanwhile.
    async fn extend(
        &self,
        model: &str,
        ref_id: &str,
        etag: String,
        mut entry: audit::Draft,
        compute: impl FnOnce(History<'_>, &Base, &v1::Version, &Authorship) -> Result<Draft, Error>
        + Send
        + 'static,
    ) -> Result<(Moved, Option<v1::Edit>), Status> {
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
                let movement = Movement {
                    ref_id: &ref_id,
                    expected: vec![
                        Expected::etag(etag),
                        Expected::Version(digest_of(&parent).to_owned()),
                    ],
                    force: false,
                    by: &by,
                };
                let moved = movement
                    .to_draft(history, &draft)
                    .map_err(IntoStatus::into_status)?;
                entry.resource.clone_from(&moved.reference.name);
                done(turn, entry, moved)
            })
            .await
            .map_err(IntoStatus::into_status)??;
        Ok((moved, edit))
    }

    async fn create_edit(
        &self,
        request: CreateEditRequest,
        entry: audit::Draft,
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
                move |history, base, parent, by| Draft::edit(history, base, parent, edit, by),
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
        mut entry: audit::Draft,
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
                let changes =
                    version::edit_changes(history, &kept).map_err(IntoStatus::into_status)?;
                turn.record(entry).map_err(IntoStatus::into_status)?;
                turn.write(changes);
                Ok::<_, Status>(())
            })
            .await
            .map_err(IntoStatus::into_status)??;
        Ok(CreateEditResponse {
            edit: Some(edit),
            version: None,
            r#ref: None,
        })
    }

    async fn revert_edit(
        &self,
        request: RevertEditRequest,
        entry: audit::Draft,
    ) -> Result<RevertEditResponse, Status> {
        let (model, id) = split(&request.name, "edits")?;
        let id = id.to_owned();
        let (moved, _) = self
            .extend(
                model,
                &request.ref_id,
                request.etag,
                entry,
                move |history, base, parent, by| {
                    Draft::revert(history, base, parent, &history.edit(&id)?, by)
                },
            )
            .await?;
        Ok(RevertEditResponse {
            version: moved.version,
            r#ref: Some(moved.reference),
        })
    }

    async fn cherry_pick_edit(
        &self,
        request: CherryPickEditRequest,
        entry: audit::Draft,
    ) -> Result<CherryPickEditResponse, Status> {
        let (model, id) = split(&request.name, "edits")?;
        let id = id.to_owned();
        let (moved, _) = self
            .extend(
                model,
                &request.ref_id,
                request.etag,
                entry,
                move |history, base, parent, by| {
                    Draft::cherry_pick(history, base, parent, &history.edit(&id)?, by)
                },
            )
            .await?;
        Ok(CherryPickEditResponse {
            version: moved.version,
            r#ref: Some(moved.reference),
        })
    }

    async fn create_ref(
        &self,
        request: CreateRefRequest,
        mut entry: audit::Draft,
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
                let moved = history
                    .resolve(&version)
                    .and_then(|version| {
                        let digest = digest_of(&version.name);
                        version::create_ref(history, &id, kind, digest, &by)
                    })
                    .map_err(IntoStatus::into_status)?;
                entry.resource.clone_from(&moved.reference.name);
                done(turn, entry, moved)
            })
            .await
            .map_err(IntoStatus::into_status)?
            .map(|moved| moved.reference)
    }

    async fn update_ref(
        &self,
        request: UpdateRefRequest,
        mut entry: audit::Draft,
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
                let movement = Movement {
                    ref_id: &id,
                    expected: vec![Expected::etag(asked.etag)],
                    force: request.force,
                    by: &by,
                };
                let moved = history
                    .resolve(&version)
                    .and_then(|version| movement.to_stored(history, digest_of(&version.name)))
                    .map_err(IntoStatus::into_status)?;
                done(turn, entry, moved)
            })
            .await
            .map_err(IntoStatus::into_status)??;
        Ok(UpdateRefResponse {
            previous_version: version::version_name(&of, &moved.before),
            r#ref: Some(moved.reference),
        })
    }
}

/// Enters a movement into the audit log and writes it.
fn done(
    turn: &mut crate::coordinator::Transaction<'_>,
    mut entry: audit::Draft,
    mut moved: Moved,
) -> Result<Moved, Status> {
    entry.version_before.clone_from(&moved.before);
    entry.version_after = digest_of(&moved.reference.version).to_owned();
    turn.record(entry).map_err(IntoStatus::into_status)?;
    turn.write(std::mem::take(&mut moved.changes));
    Ok(moved)
}

fn stored_model(store: &Store, id: &str) -> Result<v1::Model, Status> {
    store
        .model(id)
        .map_err(IntoStatus::into_status)?
        .ok_or_else(|| not_found(format!("models/{id}")))
}

/// `models/{model}/{collection}/{id}` in its two changing parts.
pub(super) fn split<'a>(name: &'a str, collection: &str) -> Result<(&'a str, &'a str), Status> {
    let (model, rest) = name
        .strip_prefix("models/")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| not_found(name))?;
    let id = rest
        .strip_prefix(collection)
        .and_then(|rest| rest.strip_prefix('/'))
        .filter(|id| !id.is_empty() && !id.contains('/'))
        .ok_or_else(|| not_found(name))?;
    check::identifier("name", model).map_err(|_| not_found(name))?;
    Ok((model, id))
}

/// What a field that names a version of a model says of it: `models/{model}/versions/{version}`,
/// or `models/{model}/refs/{ref}`.
pub(super) fn version_of(model: &str, field: &str, name: &str) -> Result<String, Status> {
    let found = split(name, "versions").or_else(|_| split(name, "refs"));
    match found {
        Ok((of, version)) if of == model => Ok(version.to_owned()),
        _ => Err(invalid_argument(
            field,
            format!(
                "'{name}' is no version of models/{model}: name it as models/{model}/versions/VERSION"
            ),
        )),
    }
}

fn page_number(list: &str, token: &str) -> Result<Option<u64>, Status> {
    pages::after(list, token)?
        .map(|text| {
            text.parse()
                .map_err(|_| super::status::invalid_page_token(token))
        })
        .transpose()
}

#[tonic::async_trait]
impl VersionService for Versions {
    async fn get_version(
        &self,
        request: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        let name = request.into_inner().name;
        let (model, id) = split(&name, "versions")?;
        let id = id.to_owned();
        let version = self
            .read(model, move |history| history.resolve(&id))
            .await?;
        Ok(Response::new(GetVersionResponse {
            version: Some(version),
        }))
    }

    async fn list_versions(
        &self,
        request: Request<ListVersionsRequest>,
    ) -> Result<Response<ListVersionsResponse>, Status> {
        let request = request.into_inner();
        let size = pages::size(request.page_size)?;
        let before = page_number("versions", &request.page_token)?;
        let model = models::model_id(&request.parent)?;
        let mut versions = self
            .read(model, move |history| {
                let mut versions = Vec::new();
                let found = history
                    .store()
                    .version_digests(history.model(), before, size + 1)?;
                for (_, digest) in found {
                    versions.push(history.version(&digest)?);
                }
                // The base is number 0 and has no record.
                if versions.len() <= size && before != Some(0) {
                    versions.push(history.base());
                }
                for version in &mut versions {
                    version.edits.clear();
                    version.matrices.clear();
                }
                Ok(versions)
            })
            .await?;
        let more = versions.len() > size;
        versions.truncate(size);
        let next_page_token = match versions.last() {
            Some(last) if more => pages::token("versions", &last.number.to_string()),
            _ => String::new(),
        };
        Ok(Response::new(ListVersionsResponse {
            versions,
            next_page_token,
        }))
    }

    async fn list_factors(
        &self,
        request: Request<ListFactorsRequest>,
    ) -> Result<Response<ListFactorsResponse>, Status> {
        let request = request.into_inner();
        let size = pages::size(request.page_size)?;
        let from = page_number("factors", &request.page_token)?.unwrap_or_default() as usize;
        let (model, id) = split(&request.parent, "versions")?;
        let id = id.to_owned();
        let (factors, next) = self
            .read(model, move |history| {
                let version = history.resolve(&id)?;
                let mut factors = Vec::new();
                for (at, edit) in version.edits.iter().enumerate().skip(from) {
                    if factors.len() >= size {
                        return Ok((factors, Some(at)));
                    }
                    factors.extend(history.edit(edit)?.factors);
                }
                Ok((factors, None))
            })
            .await?;
        Ok(Response::new(ListFactorsResponse {
            factors,
            next_page_token: next
                .map_or(String::new(), |at| pages::token("factors", &at.to_string())),
        }))
    }

    async fn compare_versions(
        &self,
        request: Request<CompareVersionsRequest>,
    ) -> Result<Response<CompareVersionsResponse>, Status> {
        let CompareVersionsRequest { left, right } = request.into_inner();
        let (model, left) = split(&left, "versions").or_else(|_| split(&left, "refs"))?;
        let right = version_of(model, "right", &right)?;
        let (left, bases) = (left.to_owned(), self.bases.clone());
        let response = self
            .with_model(model, move |history, model| {
                let (left, right) = (history.resolve(&left)?, history.resolve(&right)?);
                let base = bases.open(model)?;
                Ok(CompareVersionsResponse {
                    matrices: difference::matrices(history, &base, &left, &right)?,
                    left_edits: difference::edits_only_in(history, &left, &right)?,
                    right_edits: difference::edits_only_in(history, &right, &left)?,
                    left: Some(left),
                    right: Some(right),
                })
            })
            .await?;
        Ok(Response::new(response))
    }

    async fn get_edit(
        &self,
        request: Request<GetEditRequest>,
    ) -> Result<Response<GetEditResponse>, Status> {
        let name = request.into_inner().name;
        let (model, id) = split(&name, "edits")?;
        let id = id.to_owned();
        let edit = self.read(model, move |history| history.edit(&id)).await?;
        Ok(Response::new(GetEditResponse { edit: Some(edit) }))
    }

    async fn list_edits(
        &self,
        request: Request<ListEditsRequest>,
    ) -> Result<Response<ListEditsResponse>, Status> {
        let request = request.into_inner();
        let size = pages::size(request.page_size)?;
        let before = page_number("edits", &request.page_token)?;
        let model = models::model_id(&request.parent)?;
        let mut edits = self
            .read(model, move |history| {
                let found = history
                    .store()
                    .edit_digests(history.model(), before, size + 1)?;
                found
                    .into_iter()
                    .map(|(number, digest)| {
                        let edit = v1::Edit {
                            contexts: Vec::new(),
                            ..history.edit(&digest)?
                        };
                        Ok((number, edit))
                    })
                    .collect::<Result<Vec<_>, Error>>()
            })
            .await?;
        let more = edits.len() > size;
        edits.truncate(size);
        let next_page_token = match edits.last() {
            Some((number, _)) if more => pages::token("edits", &number.to_string()),
            _ => String::new(),
        };
        Ok(Response::new(ListEditsResponse {
            edits: edits.into_iter().map(|(_, edit)| edit).collect(),
            next_page_token,
        }))
    }

    async fn create_edit(
        &self,
        request: Request<CreateEditRequest>,
    ) -> Result<Response<CreateEditResponse>, Status> {
        let why = request
            .get_ref()
            .edit
            .as_ref()
            .map_or("", |edit| &edit.why)
            .to_owned();
        let entry = draft(&request, "edits.create", &request.get_ref().parent, &why);
        let answer = Self::create_edit(self, request.into_inner(), entry.clone()).await;
        let answer = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(answer))
    }

    async fn revert_edit(
        &self,
        request: Request<RevertEditRequest>,
    ) -> Result<Response<RevertEditResponse>, Status> {
        let asked = request.get_ref();
        let entry = draft(&request, "edits.revert", &asked.name, &asked.why);
        let answer = Self::revert_edit(self, request.into_inner(), entry.clone()).await;
        let answer = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(answer))
    }

    async fn cherry_pick_edit(
        &self,
        request: Request<CherryPickEditRequest>,
    ) -> Result<Response<CherryPickEditResponse>, Status> {
        let asked = request.get_ref();
        let entry = draft(&request, "edits.cherry_pick", &asked.name, &asked.why);
        let answer = Self::cherry_pick_edit(self, request.into_inner(), entry.clone()).await;
        let answer = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(answer))
    }

    async fn get_ref(
        &self,
        request: Request<GetRefRequest>,
    ) -> Result<Response<GetRefResponse>, Status> {
        let name = request.into_inner().name;
        let (model, id) = split(&name, "refs")?;
        let id = id.to_owned();
        let reference = self
            .read(model, move |history| history.reference(&id))
            .await?;
        Ok(Response::new(GetRefResponse {
            r#ref: Some(reference),
        }))
    }

    async fn list_refs(
        &self,
        request: Request<ListRefsRequest>,
    ) -> Result<Response<ListRefsResponse>, Status> {
        let request = request.into_inner();
        let size = pages::size(request.page_size)?;
        let after = pages::after("refs", &request.page_token)?.unwrap_or_default();
        let model = models::model_id(&request.parent)?;
        let mut refs = self.read(model, |history| history.references()).await?;
        refs.retain(|reference| reference.name > after);
        let more = refs.len() > size;
        refs.truncate(size);
        let next_page_token = match refs.last() {
            Some(last) if more => pages::token("refs", &last.name),
            _ => String::new(),
        };
        Ok(Response::new(ListRefsResponse {
            refs,
            next_page_token,
        }))
    }

    async fn create_ref(
        &self,
        request: Request<CreateRefRequest>,
    ) -> Result<Response<CreateRefResponse>, Status> {
        let asked = request.get_ref();
        let resource = format!("{}/refs/{}", asked.parent, asked.ref_id);
        let why = asked.r#ref.as_ref().map_or("", |asked| &asked.why);
        let entry = draft(&request, "refs.create", &resource, why);
        let answer = Self::create_ref(self, request.into_inner(), entry.clone()).await;
        let answer = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(CreateRefResponse {
            r#ref: Some(answer),
        }))
    }

    async fn update_ref(
        &self,
        request: Request<UpdateRefRequest>,
    ) -> Result<Response<UpdateRefResponse>, Status> {
        let asked = request.get_ref().r#ref.clone().unwrap_or_default();
        let entry = draft(&request, "refs.update", &asked.name, &asked.why);
        let answer = Self::update_ref(self, request.into_inner(), entry.clone()).await;
        let answer = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(answer))
    }
}

impl IntoStatus for Error {
    fn into_status(self) -> Status {
        let message = self.to_string();
        match self {
            Error::Unknown { what, name, model } => status(
                Reason::NotFound,
                message,
                [("resource", format!("models/{model}/{what}s/{name}"))],
            ),
            Error::Ambiguous { .. } => invalid_argument("name", message),
            Error::Factor { .. } | Error::Tensor { .. } => {
                invalid_argument("edit.factors", message)
            }
            Error::NotFinite { .. } => invalid_argument("edit.factors", message),
            Error::Field { field, problem } => invalid_argument(field, problem),
            Error::RefName { .. } => invalid_argument("ref_id", message),
            Error::Moved {
                name,
                expected,
                actual,
                etag,
                author,
            } => status(
                Reason::EtagMismatch,
                message,
                [
                    ("resource", name),
                    ("expected", expected),
                    ("version", actual),
                    ("etag", etag),
                    ("moved_by", author),
                ],
            ),
            Error::Tag { .. } => failed_precondition(Reason::RefIsTag, message),
            Error::Taken { .. } => super::status::already_exists(Reason::NameTaken, message),
            Error::NotThere { .. } => failed_precondition(Reason::EditNotInVersion, message),
            Error::AlreadyThere { .. } => failed_precondition(Reason::EditInVersion, message),
            Error::Rejected { .. } => failed_precondition(Reason::EditRejected, message),
            Error::Missing { .. } => failed_precondition(Reason::VersionIncomplete, message),
            Error::Materialised { .. } => data_loss(&self),
            Error::Model(_) | Error::Layout { .. } | Error::Export { .. } => internal(&self),
            Error::Store(error) => error.into_status(),
            Error::Object(crate::objects::Error::NotFound { .. }) => {
                failed_precondition(Reason::ObjectMissing, message)
            }
            Error::Object(error) => error.into_status(),
        }
    }
}
