//! `VersionService`: the edits, versions and refs of models.

use std::sync::Arc;

use prost::Message as _;
use tonic::{Request, Response, Status};

use super::caller::{answered, draft};
use super::comparison::{compared, going_on};
use super::status::{invalid_argument, not_found};
use super::{models, pages};
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
use crate::version::{Bases, Error, History, WholeVersions, difference, digest_of};
use crate::wire::names;

/// Serves the versions of a coordinator's models.
#[derive(Debug)]
pub struct Versions {
    pub(super) coordinator: Coordinator,
    pub(super) bases: Arc<Bases>,
    pub(super) whole_versions: Arc<WholeVersions>,
}

impl Versions {
    /// Serves the versions of this coordinator's models.
    pub fn new(coordinator: Coordinator) -> Self {
        Self {
            bases: coordinator.bases().clone(),
            coordinator,
            whole_versions: Arc::default(),
        }
    }

    /// Runs what reads the versions of a model on a thread that may wait.
    async fn read<T: Send + 'static>(
        &self,
        model: &str,
        read: impl FnOnce(History<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        self.with_model(model, |history, _| read(history)).await
    }

    /// What a change came to, entered into the audit log if it was refused.
    async fn answer<T>(
        &self,
        entry: audit::EntryDraft,
        answer: Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let answer = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(answer))
    }

    /// A page of the edits of a version, in its order. The token names the version itself, wherever
    /// a ref points by then.
    async fn edits_of(
        &self,
        model: &str,
        version: &str,
        size: usize,
        token: &str,
    ) -> Result<Response<ListEditsResponse>, Status> {
        let goes_on = match pages::after("edits of", token)? {
            None => None,
            Some(text) => {
                let parts = text.split_once('/');
                let at = parts.and_then(|(at, of)| Some((at.parse::<usize>().ok()?, of)));
                let (at, of) = at.ok_or_else(|| super::status::invalid_page_token(token))?;
                Some((at, of.to_owned()))
            }
        };
        let version = version.to_owned();
        let (edits, next_page_token) = self
            .read(model, move |history| {
                let (from, version) = match &goes_on {
                    Some((from, of)) => (*from, history.manifest(of)?),
                    None => (0, history.find(&version)?),
                };
                let content = history.content(&version)?;
                let mut page = pages::Page::new(size);
                let mut edits = Vec::new();
                for (at, edit) in content.edits.iter().enumerate().skip(from) {
                    let edit = v1::Edit {
                        contexts: Vec::new(),
                        ..history.edit_of(edit)?
                    };
                    if !page.takes(edit.encoded_len()) {
                        let next = format!("{at}/{}", digest_of(&version.name));
                        return Ok((edits, pages::token("edits of", &next)));
                    }
                    edits.push(edit);
                }
                Ok((edits, String::new()))
            })
            .await?;
        Ok(Response::new(ListEditsResponse {
            edits,
            next_page_token,
        }))
    }

    pub(super) async fn with_model<T: Send + 'static>(
        &self,
        model: &str,
        read: impl FnOnce(History<'_>, &v1::Model) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let (store, id) = (self.coordinator.store().clone(), model.to_owned());
        super::blocking(move || {
            let model = stored_model(&store, &id)?;
            let history = History::new(&store, &id, &model.digest);
            read(history, &model).map_err(Status::from)
        })
        .await
    }
}

pub(super) fn stored_model(store: &Store, id: &str) -> Result<v1::Model, Status> {
    store
        .model(id)?
        .ok_or_else(|| not_found(format!("models/{id}")))
}

/// `models/{model}/{collection}/{id}` in its two changing parts.
pub(super) fn split<'a>(name: &'a str, collection: &str) -> Result<(&'a str, &'a str), Status> {
    names::of_model(name, collection).ok_or_else(|| not_found(name))
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

/// Most warnings that a list gives of a version, and most letters of each.
const WARNINGS: usize = 4;
const WARNING_LETTERS: usize = 300;

/// Edits that an answer names of one version, at most: one that was asked for, and one that a
/// change made.
const NAMED: usize = 16_384;
pub(super) const NAMED_OF_A_CHANGE: usize = 1000;

/// A version as lists have it: without what grows with its history.
fn listed(mut version: v1::Version) -> v1::Version {
    if version.edits_digest.is_empty() {
        version.edit_count = version.edits.len() as u64;
    }
    version.edits.clear();
    version.edit_lists.clear();
    version.matrices.clear();
    for warning in &mut version.warnings {
        if let Some((at, _)) = warning.char_indices().nth(WARNING_LETTERS) {
            warning.truncate(at);
            warning.push('…');
        }
    }
    let more = version.warnings.len().saturating_sub(WARNINGS);
    if more > 0 {
        version.warnings.truncate(WARNINGS);
        version.warnings.push(format!("and {more} more"));
    }
    version
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
        let asked = request.into_inner();
        let (model, id) = split(&asked.name, "versions")?;
        let (id, most) = (id.to_owned(), if asked.without_edits { 0 } else { NAMED });
        let version = self
            .read(model, move |history| {
                let version = history.find(&id)?;
                Ok(history.content(&version)?.fill(version, most))
            })
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
                    versions.push(listed(history.manifest(&digest)?));
                }
                // The base is number 0 and has no record.
                if versions.len() <= size && before != Some(0) {
                    versions.push(history.base());
                }
                Ok(versions)
            })
            .await?;
        let next_page_token = pages::cut("versions", &mut versions, size, |last| {
            last.number.to_string()
        });
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
                let content = history.content(&history.find(&id)?)?;
                let mut factors = Vec::new();
                for (at, edit) in content.edits.iter().enumerate().skip(from) {
                    if factors.len() >= size {
                        return Ok((factors, Some(at)));
                    }
                    factors.extend(history.edit_of(edit)?.factors);
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
        let CompareVersionsRequest {
            left,
            right,
            page_size,
            page_token,
        } = request.into_inner();
        let (model, left) = split(&left, "versions").or_else(|_| split(&left, "refs"))?;
        let right = version_of(model, "right", &right)?;
        let size = match page_size {
            0 => usize::MAX,
            asked => pages::size(asked)?,
        };
        let goes_on = going_on(&page_token)?;
        let (left, bases) = (left.to_owned(), self.bases.clone());
        let response = self
            .with_model(model, move |history, model| match goes_on {
                Some((from, left, right)) => {
                    let (left, right) = (history.manifest(&left)?, history.manifest(&right)?);
                    let response = CompareVersionsResponse::default();
                    compared(history, response, (&left, &right), from, size)
                }
                None => {
                    let (left, right) = (history.find(&left)?, history.find(&right)?);
                    let base = bases.open(model)?;
                    let named = |version: &v1::Version| {
                        let content = history.content(version)?;
                        Ok::<_, Error>(Some(content.fill(version.clone(), NAMED)))
                    };
                    let response = CompareVersionsResponse {
                        matrices: difference::matrices(history, &base, &left, &right)?,
                        left: named(&left)?,
                        right: named(&right)?,
                        ..Default::default()
                    };
                    compared(history, response, (&left, &right), 0, size)
                }
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
        if let Some((model, of)) = names::of_model(&request.parent, "versions") {
            return self.edits_of(model, of, size, &request.page_token).await;
        }
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
        let next_page_token = pages::cut_by(
            "edits",
            &mut edits,
            size,
            |(_, edit)| edit.encoded_len(),
            |(number, _)| number.to_string(),
        );
        Ok(Response::new(ListEditsResponse {
            edits: edits.into_iter().map(|(_, edit)| edit).collect(),
            next_page_token,
        }))
    }

    async fn create_edit(
        &self,
        request: Request<CreateEditRequest>,
    ) -> Result<Response<CreateEditResponse>, Status> {
        let asked = request.get_ref();
        let why = match &asked.source {
            Some(v1::create_edit_request::Source::Edit(edit)) if asked.why.is_empty() => &edit.why,
            _ => &asked.why,
        };
        let entry = draft(&request, "edits.create", &asked.parent, why);
        let answer = Self::create_edit(self, request.into_inner(), entry.clone()).await;
        self.answer(entry, answer).await
    }

    async fn revert_edit(
        &self,
        request: Request<RevertEditRequest>,
    ) -> Result<Response<RevertEditResponse>, Status> {
        let asked = request.get_ref();
        let entry = draft(&request, "edits.revert", &asked.name, &asked.why);
        let answer = Self::revert_edit(self, request.into_inner(), entry.clone()).await;
        self.answer(entry, answer).await
    }

    async fn cherry_pick_edit(
        &self,
        request: Request<CherryPickEditRequest>,
    ) -> Result<Response<CherryPickEditResponse>, Status> {
        let asked = request.get_ref();
        let entry = draft(&request, "edits.cherry_pick", &asked.name, &asked.why);
        let answer = Self::cherry_pick_edit(self, request.into_inner(), entry.clone()).await;
        self.answer(entry, answer).await
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
        let mut refs = self
            .read(model, move |history| {
                history.references(digest_of(&after), size + 1)
            })
            .await?;
        let next_page_token = pages::cut("refs", &mut refs, size, |last| last.name.clone());
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
        let made = Self::create_ref(self, request.into_inner(), entry.clone()).await;
        let made = made.map(|made| CreateRefResponse { r#ref: Some(made) });
        self.answer(entry, made).await
    }

    async fn update_ref(
        &self,
        request: Request<UpdateRefRequest>,
    ) -> Result<Response<UpdateRefResponse>, Status> {
        let asked = request.get_ref().r#ref.clone().unwrap_or_default();
        let entry = draft(&request, "refs.update", &asked.name, &asked.why);
        let answer = Self::update_ref(self, request.into_inner(), entry.clone()).await;
        self.answer(entry, answer).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    #[test]
    fn lists_show_the_first_warnings_of_a_version_and_how_many_more_there_are() {
        let long = v1::Version {
            warnings: (0..1000)
                .map(|n| format!("{n}{}", "w".repeat(1000)))
                .collect(),
            edits: vec!["e".to_owned(); 1000],
            ..Default::default()
        };
        let short = listed(long);
        assert!(short.encoded_len() < 2000);
        assert_eq!(short.warnings.last().unwrap(), "and 996 more");
        assert_eq!(short.edit_count, 1000);
        let one = v1::Version {
            warnings: vec!["only".to_owned()],
            ..Default::default()
        };
        assert_eq!(listed(one.clone()), one);
    }
}
