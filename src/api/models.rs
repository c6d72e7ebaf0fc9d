//! `ModelService`: the models of the store.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use super::caller::{answered, draft};
use super::status::{Reason, already_exists, failed_precondition, invalid_fields, not_found};
use super::{check, pages};
use crate::audit;
use crate::coordinator::Coordinator;
use crate::objects::Digest;
use crate::proto::v1::model_service_server::ModelService;
use crate::proto::v1::{
    CreateModelRequest, CreateModelResponse, GetModelRequest, GetModelResponse, ListModelsRequest,
    ListModelsResponse, Model,
};
use crate::store::{Change, Store};
use crate::text;
use crate::wire::names;

/// Longest name of a family, in bytes.
const FAMILY_LIMIT: usize = 100;
/// Most files of a model. The largest checkpoints have some hundred.
const FILES_LIMIT: usize = 4096;
/// Longest name of a file, and longest path to one, in bytes, as file systems have them.
const FILE_NAME_LIMIT: usize = 255;
const PATH_LIMIT: usize = 4096;

/// Serves the models of a coordinator.
#[derive(Debug)]
pub struct Models {
    coordinator: Coordinator,
}

impl Models {
    /// Serves the models of this coordinator.
    pub fn new(coordinator: Coordinator) -> Self {
        Self { coordinator }
    }

    fn store(&self) -> &Store {
        self.coordinator.store()
    }

    async fn create(
        &self,
        request: CreateModelRequest,
        mut entry: audit::EntryDraft,
    ) -> Result<Model, Status> {
        let CreateModelRequest { model_id, model } = request;
        let mut model = model.unwrap_or_default();
        let digests = check_model(&model_id, &model).map_err(invalid_fields)?;
        for (file, digest) in model.files.iter().zip(&digests) {
            let size = self.store().objects().durable_size(digest)?;
            match size {
                Some(size) if size == file.size => {}
                found => {
                    return Err(failed_precondition(
                        Reason::ObjectMissing,
                        format!(
                            "the object {digest} of the file '{}' with {} bytes is {}",
                            file.file_name,
                            file.size,
                            found.map_or("not stored".to_owned(), |n| format!("{n} bytes long")),
                        ),
                    ));
                }
            }
        }
        model.name = format!("models/{model_id}");
        model.digest = digest_of_files(&model);
        entry.resource.clone_from(&model.name);
        // Two creations of one name are decided one after the other.
        let model = self
            .coordinator
            .transact(move |turn| {
                let before = turn.store().model(&model_id);
                if let Some(before) = before? {
                    return if before.digest == model.digest {
                        Ok(before)
                    } else {
                        let what = format!(
                            "{} is another model, with the digest {}",
                            before.name, before.digest
                        );
                        Err(already_exists(Reason::NameTaken, what))
                    };
                }
                model.create_time = Some(turn.time());
                turn.record(entry)?;
                turn.write([Change::Model(model_id, model.clone())]);
                Ok(model)
            })
            .await??;
        tracing::info!(model = model.name, family = model.family, "model imported");
        Ok(model)
    }
}

/// A model's identifier out of its resource name.
pub(super) fn model_id(name: &str) -> Result<&str, Status> {
    names::parse_model(name).ok_or_else(|| not_found(name))
}

#[tonic::async_trait]
impl ModelService for Models {
    async fn create_model(
        &self,
        request: Request<CreateModelRequest>,
    ) -> Result<Response<CreateModelResponse>, Status> {
        let resource = format!("models/{}", request.get_ref().model_id);
        let entry = draft(&request, "models.create", &resource, "");
        let answer = self.create(request.into_inner(), entry.clone()).await;
        let model = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(CreateModelResponse { model: Some(model) }))
    }

    async fn get_model(
        &self,
        request: Request<GetModelRequest>,
    ) -> Result<Response<GetModelResponse>, Status> {
        let name = request.into_inner().name;
        let model = self
            .store()
            .model(model_id(&name)?)?
            .ok_or_else(|| not_found(&name))?;
        Ok(Response::new(GetModelResponse { model: Some(model) }))
    }

    async fn list_models(
        &self,
        request: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let request = request.into_inner();
        let size = pages::size(request.page_size)?;
        let after = pages::after("models", &request.page_token)?.unwrap_or_default();
        let store = Arc::clone(self.coordinator.store());
        let (models, more) = super::blocking(move || list(&store, after, size)).await?;
        let next_page_token = match models.last() {
            Some(last) if more => pages::token("models", names::last(&last.name)),
            _ => String::new(),
        };
        Ok(Response::new(ListModelsResponse {
            models,
            next_page_token,
        }))
    }
}

/// A page of the models after one, and whether there are more. They are read one by one: each may
/// have megabytes of tensors, which lists leave out.
fn list(store: &Store, mut after: String, size: usize) -> Result<(Vec<Model>, bool), Status> {
    let (mut models, mut page) = (Vec::new(), pages::Page::new(size));
    while let Some(mut model) = store.models(&after, 1)?.pop() {
        model.tensors.clear();
        // Those of a store in which earlier versions wrote what is refused now.
        model.family = text::cut(&model.family, FAMILY_LIMIT);
        model.files.truncate(FILES_LIMIT);
        for file in &mut model.files {
            file.file_name = text::cut(&file.file_name, FILE_NAME_LIMIT);
            file.source_path = text::cut(&file.source_path, FILE_NAME_LIMIT);
        }
        if !page.takes(model.encoded_len()) {
            return Ok((models, true));
        }
        names::last(&model.name).clone_into(&mut after);
        models.push(model);
    }
    Ok((models, false))
}

/// The digests of the files, if all of the model is in order.
fn check_model(id: &str, model: &Model) -> Result<Vec<Digest>, Vec<crate::work::Violation>> {
    let mut wrong = Vec::new();
    wrong.extend(check::identifier("model_id", id).err());
    if model.encoded_len() > pages::BYTES {
        let what = format!(
            "it has {} bytes: {} at most",
            model.encoded_len(),
            pages::BYTES
        );
        wrong.push(("model".to_owned(), what));
    }
    if model.files.len() > FILES_LIMIT {
        let what = format!("there are {}: {FILES_LIMIT} at most", model.files.len());
        // Nothing is said of each of them.
        return Err(vec![("model.files".to_owned(), what)]);
    }
    if model.family.is_empty() {
        wrong.push(("model.family".to_owned(), "it is missing".to_owned()));
    }
    if model.family.len() > FAMILY_LIMIT {
        let what = format!(
            "it has {} bytes: {FAMILY_LIMIT} at most",
            model.family.len()
        );
        wrong.push(("model.family".to_owned(), what));
    }
    let shape = model.shape.unwrap_or_default();
    for (field, value) in [
        ("layers", u64::from(shape.layers)),
        ("width", u64::from(shape.width)),
        ("vocabulary", u64::from(shape.vocabulary)),
        ("context", u64::from(shape.context)),
        ("block_parameters", shape.block_parameters),
    ] {
        if value == 0 {
            wrong.push((
                format!("model.shape.{field}"),
                "it is 0 or missing".to_owned(),
            ));
        }
    }
    if model.files.is_empty() {
        wrong.push(("model.files".to_owned(), "there are none".to_owned()));
    }
    let mut digests = Vec::new();
    for (n, file) in model.files.iter().enumerate() {
        let field = |name: &str| format!("model.files[{n}].{name}");
        let name = &file.file_name;
        if !is_plain_name(name) {
            let what =
                format!("'{name}' is not a plain file name of {FILE_NAME_LIMIT} bytes at most");
            wrong.push((field("file_name"), what));
        } else if model.files[..n]
            .iter()
            .any(|other| other.file_name == *name)
        {
            wrong.push((field("file_name"), format!("'{name}' is named twice")));
        }
        if file.source_path.len() > PATH_LIMIT {
            let what = format!(
                "it has {} bytes: {PATH_LIMIT} at most",
                file.source_path.len()
            );
            wrong.push((field("source_path"), what));
        }
        match file.digest.parse() {
            Ok(digest) => digests.push(digest),
            Err(error) => wrong.push((field("digest"), format!("{error}"))),
        }
    }
    if wrong.is_empty() {
        Ok(digests)
    } else {
        Err(wrong)
    }
}

fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| !matches!(c, '/' | '\\') && !c.is_control();
    (1..=FILE_NAME_LIMIT).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

/// BLAKE3 over the names and digests of the files, in the order of their names.
fn digest_of_files(model: &Model) -> String {
    let mut lines: Vec<String> = model
        .files
        .iter()
        .map(|f| format!("{}\0{}\n", f.file_name, f.digest))
        .collect();
    lines.sort();
    Digest::of(lines.concat().as_bytes()).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::proto::v1::model::{File, Shape, Tensor};

    fn model() -> Model {
        Model {
            family: "llama".to_owned(),
            shape: Some(Shape {
                layers: 1,
                width: 1,
                heads: 1,
                vocabulary: 1,
                context: 1,
                parameters: 1,
                block_parameters: 1,
            }),
            files: vec![File {
                file_name: "config.json".to_owned(),
                digest: Digest::of(b"").to_string(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn every_text_and_list_of_a_model_has_a_bound() {
        assert!(check_model("m", &model()).is_ok());
        let huge = || "x".repeat(1 << 20);
        type Change<'a> = &'a dyn Fn(&mut Model);
        let changes: [(&str, Change<'_>); 6] = [
            ("model.family", &|it| it.family = huge()),
            ("model.files[0].file_name", &|it| {
                it.files[0].file_name = huge()
            }),
            ("model.files[0].file_name", &|it| {
                it.files[0].file_name = "a\u{1b}[2J".to_owned()
            }),
            ("model.files[0].source_path", &|it| {
                it.files[0].source_path = huge()
            }),
            ("model.files", &|it| {
                it.files = vec![it.files[0].clone(); FILES_LIMIT + 1]
            }),
            ("model", &|it| {
                let tensor_name = huge();
                let tensor = Tensor {
                    tensor_name,
                    ..Default::default()
                };
                it.tensors = vec![tensor; 3];
            }),
        ];
        for (field, change) in changes {
            let mut model = model();
            change(&mut model);
            let wrong = check_model("m", &model).unwrap_err();
            assert_eq!(wrong.len(), 1, "{field}");
            assert_eq!(wrong[0].0, field);
        }
    }

    #[test]
    fn models_that_are_too_large_for_a_list_are_listed_shortened() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for n in 0..3 {
            let id = format!("m{n}");
            let model = Model {
                name: names::model(&id),
                family: "f".repeat(2_200_000),
                ..model()
            };
            store.commit(&[Change::Model(id, model)]).unwrap();
        }
        let (models, more) = list(&store, String::new(), 2).unwrap();
        assert_eq!((models.len(), more), (2, true));
        assert!(models.iter().all(|model| model.encoded_len() < 1000));
        let (models, more) = list(&store, "m1".to_owned(), 2).unwrap();
        assert_eq!((models[0].name.as_str(), more), ("models/m2", false));
    }
}
