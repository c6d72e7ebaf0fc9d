//! `StatisticsService`: the key statistics of models, made of what jobs and files hold.

use std::cmp::Reverse;
use std::fmt;
use std::io::BufReader;

use prost::Message;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::caller::{CREATE_EDIT, answered, check_may, check_why, draft};
use super::status::{
    Reason, data_loss, failed_precondition, invalid_argument, invalid_page_token, not_found, status,
};
use super::{check, models, pages};
use crate::audit;
use crate::coordinator::Coordinator;
use crate::edit::{Hyperparameters, Method};
use crate::model::{Family, families};
use crate::objects::Digest;
use crate::proto::v1::statistics_service_server::StatisticsService;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{
    self, CreateStatisticsRequest, CreateStatisticsResponse, DeleteStatisticsRequest,
    DeleteStatisticsResponse, ListStatisticsRequest, ListStatisticsResponse,
    create_statistics_request::Source,
};
use crate::stats::examine;
use crate::store::{Change, Record, RecordKey, Store};
use crate::version::{base_version, digest_of, short};
use crate::wire::names;
use crate::work;

/// Longest text that says where statistics came from.
const SOURCE_LIMIT: usize = 1000;
/// Most key statistics of a layer that are kept of those who may edit, and of those who may not: a
/// list and a choice among them read them all.
const LAYER_LIMIT: usize = 500;

/// Serves the statistics of a coordinator's models.
#[derive(Debug)]
pub struct StatisticsOf {
    coordinator: Coordinator,
    /// Whose turn it is to have a file looked at: each takes memory.
    examining: Semaphore,
}

impl StatisticsOf {
    /// Serves the statistics of this coordinator's models.
    pub fn new(coordinator: Coordinator) -> Self {
        Self {
            coordinator,
            examining: Semaphore::new(1),
        }
    }

    async fn create(
        &self,
        request: CreateStatisticsRequest,
        submitted: bool,
        mut entry: audit::EntryDraft,
    ) -> Result<Vec<v1::Statistics>, Status> {
        let source = request
            .source
            .ok_or_else(|| invalid_argument("source", "it is missing: name a job or a file"))?;
        let store = self.coordinator.store().clone();
        let (model, made) = match source {
            Source::Job(name) => {
                let id = names::parse_job(&name).ok_or_else(|| not_found(&name))?;
                let job = self
                    .coordinator
                    .inspect_job(id, move |core| core.full_job(id))
                    .await?
                    .ok_or_else(|| not_found(&name))?;
                let model = models::model_id(&job.model)?.to_owned();
                (
                    model,
                    super::blocking(move || of_job(&store, id, &job)).await?,
                )
            }
            Source::File(file) => {
                let model = models::model_id(&file.model)?.to_owned();
                let id = model.clone();
                let _turn = self.examining.acquire().await;
                let made = super::blocking(move || of_file(&store, &id, &file)).await?;
                (model, vec![made])
            }
        };
        entry.resource = format!("models/{model}");
        self.coordinator
            .transact(move |turn| {
                let mut made = made;
                for one in &mut made {
                    one.create_time = Some(turn.time());
                    one.author.clone_from(&entry.principal);
                    // The same artefact, made by somebody who may edit, stays theirs.
                    let digest = digest_of(&one.name);
                    let known = turn.store().statistics(&model, one.layer, digest)?;
                    let is_new = known.is_none();
                    let theirs = known.filter(|it| submitted && !it.submitted);
                    one.submitted = submitted && theirs.is_none();
                    if let Some(theirs) = theirs {
                        one.author.clone_from(&theirs.author);
                    }
                    if is_new {
                        check_room(turn.store(), &model, one)?;
                    }
                }
                turn.record(entry)?;
                let records = made.iter().map(|one| Record::statistics(&model, one));
                turn.write(records.map(Change::Record));
                Ok(made)
            })
            .await?
    }
}

impl StatisticsOf {
    async fn delete(
        &self,
        request: DeleteStatisticsRequest,
        mut entry: audit::EntryDraft,
    ) -> Result<Vec<v1::Statistics>, Status> {
        check_why("why", &request.why)?;
        let name = request.name;
        let (model, digest) = names::parse_statistics(&name).ok_or_else(|| not_found(&name))?;
        let (model, digest) = (model.to_owned(), digest.to_owned());
        let store = self.coordinator.store().clone();
        let of = (model.clone(), digest.clone());
        let layers = super::blocking(move || layers_with(&store, &of.0, &of.1)).await?;
        entry.resource.clone_from(&name);
        self.coordinator
            .transact(move |turn| {
                let mut gone = Vec::new();
                for layer in layers {
                    gone.extend(turn.store().statistics(&model, layer, &digest)?);
                }
                if gone.is_empty() {
                    return Err(not_found(&name));
                }
                let numbers = |one: &v1::Statistics| {
                    format!(
                        "layer {}, {} tokens, made by {}",
                        one.layer, one.tokens, one.author
                    )
                };
                entry.detail = gone.iter().map(numbers).collect::<Vec<_>>().join("; ");
                turn.record(entry)?;
                let keys = gone.iter().map(|one| RecordKey::statistics(&model, one));
                turn.write(keys.map(Change::Removed));
                Ok(gone)
            })
            .await?
    }
}

/// The layers that have statistics of this digest.
fn layers_with(store: &Store, model: &str, digest: &str) -> Result<Vec<u32>, Status> {
    let mut layers = Vec::new();
    let mut next = store.layer_with_statistics(model, None)?;
    while let Some(layer) = next {
        if store.statistics(model, layer, digest)?.is_some() {
            layers.push(layer);
        }
        next = store.layer_with_statistics(model, Some(layer))?;
    }
    Ok(layers)
}

#[tonic::async_trait]
impl StatisticsService for StatisticsOf {
    async fn create_statistics(
        &self,
        request: Request<CreateStatisticsRequest>,
    ) -> Result<Response<CreateStatisticsResponse>, Status> {
        let entry = draft(&request, "statistics.create", "", "");
        // What edits are computed with by themselves is for those who may edit to decide.
        let submitted = check_may(&request, CREATE_EDIT).is_err();
        let answer = self
            .create(request.into_inner(), submitted, entry.clone())
            .await;
        let statistics = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(CreateStatisticsResponse { statistics }))
    }

    async fn list_statistics(
        &self,
        request: Request<ListStatisticsRequest>,
    ) -> Result<Response<ListStatisticsResponse>, Status> {
        let request = request.into_inner();
        let model = models::model_id(&request.parent)?.to_owned();
        let size = match request.page_size {
            // Clients from before there were pages ask for no size, and read one page.
            0 => pages::size(pages::LARGEST_SIZE)?,
            asked => pages::size(asked)?,
        };
        let token = pages::after("statistics", &request.page_token)?;
        let store = self.coordinator.store().clone();
        let (statistics, next_page_token) = super::blocking(move || {
            if store.model(&model)?.is_none() {
                return Err(not_found(&request.parent));
            }
            let after = match token.as_deref().map(Place::parse) {
                Some(None) => return Err(invalid_page_token(&request.page_token)),
                after => after.flatten(),
            };
            let mut found = page(&store, &model, after, size + 1)?;
            let key = |last: &v1::Statistics| Place::of(last).to_string();
            let next = pages::cut("statistics", &mut found, size, key);
            Ok((found, next))
        })
        .await?;
        Ok(Response::new(ListStatisticsResponse {
            statistics,
            next_page_token,
        }))
    }

    async fn delete_statistics(
        &self,
        request: Request<DeleteStatisticsRequest>,
    ) -> Result<Response<DeleteStatisticsResponse>, Status> {
        let asked = request.get_ref();
        let entry = draft(&request, "statistics.delete", &asked.name, &asked.why);
        let answer = self.delete(request.into_inner(), entry.clone()).await;
        let statistics = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(DeleteStatisticsResponse { statistics }))
    }
}

/// Where statistics stand in the list of their model: by layer, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place<'a> {
    layer: u32,
    age: Reverse<(i64, i32)>,
    digest: &'a str,
}

impl<'a> Place<'a> {
    fn of(one: &'a v1::Statistics) -> Self {
        let made = one.create_time.unwrap_or_default();
        Self {
            layer: one.layer,
            age: Reverse((made.seconds, made.nanos)),
            digest: digest_of(&one.name),
        }
    }

    /// The place of which a page token was made.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(4, '/');
        let (layer, seconds, nanos) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            layer: layer.parse().ok()?,
            age: Reverse((seconds.parse().ok()?, nanos.parse().ok()?)),
            digest: parts.next()?,
        })
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reverse((seconds, nanos)) = self.age;
        write!(f, "{}/{seconds}/{nanos}/{}", self.layer, self.digest)
    }
}

/// The statistics of a model behind a place, at most `most`. Layers are read one by one, as far as
/// the page goes.
fn page(
    store: &Store,
    model: &str,
    after: Option<Place<'_>>,
    most: usize,
) -> Result<Vec<v1::Statistics>, Status> {
    let mut found: Vec<v1::Statistics> = Vec::new();
    let mut next = match after {
        Some(place) => Some(place.layer),
        None => store.layer_with_statistics(model, None)?,
    };
    while let Some(layer) = next
        && found.len() < most
    {
        let mut all = store.statistics_of_layer(model, layer)?;
        all.retain(|one| after.is_none_or(|place| Place::of(one) > place));
        all.sort_by(|one, other| Place::of(one).cmp(&Place::of(other)));
        found.extend(all);
        next = store.layer_with_statistics(model, Some(layer))?;
    }
    found.truncate(most);
    Ok(found)
}

/// Whether a layer has room for more statistics.
fn check_room(store: &Store, model: &str, new: &v1::Statistics) -> Result<(), Status> {
    let all = store.statistics_of_layer(model, new.layer)?;
    let alike = all.iter().filter(|it| it.submitted == new.submitted);
    if alike.count() < LAYER_LIMIT {
        return Ok(());
    }
    let message = format!(
        "layer {} of models/{model} has {LAYER_LIMIT} key statistics: withdraw some with \
         'palimpsest stats delete'",
        new.layer
    );
    Err(failed_precondition(Reason::TooManyStatistics, message))
}

/// What the last stage of a job summed up, a layer at a time.
fn of_job(store: &Store, id: Uuid, job: &v1::Job) -> Result<Vec<v1::Statistics>, Status> {
    let Some(spec) = work::spec::<v1::StatsSpec>(job) else {
        return Err(invalid_argument(
            "job",
            format!("jobs/{id} collects no statistics"),
        ));
    };
    if job.state() != v1::JobState::Succeeded {
        return Err(failed_precondition(
            Reason::JobNotDone,
            format!("jobs/{id} has not succeeded: 'palimpsest job show {id}' says how it is"),
        ));
    }
    // Its number format and its pieces: what decides the keys besides the model and the layer.
    let corpus = v1::StatsSpec {
        pieces: spec.pieces.clone(),
        length: spec.length,
        ..Default::default()
    };
    let corpus = Digest::of(&corpus.encode_to_vec()).to_string();
    let mut made = Vec::with_capacity(spec.layers.len());
    for (_, _, bytes) in store.results(id, spec.pieces.len() as u64, usize::MAX, usize::MAX)? {
        let result = v1::UnitResult::decode(bytes.as_slice()).map_err(|e| data_loss(&e))?;
        let Some(Outcome::StatsSum(sum)) = result.outcome else {
            continue;
        };
        made.push(v1::Statistics {
            name: format!("{}/statistics/{}", job.model, sum.digest),
            version: digest_of(&job.version).to_owned(),
            layer: sum.layer,
            tokens: sum.tokens,
            channels: sum.channels,
            corpus: corpus.clone(),
            source: spec.source.clone(),
            dtype: spec.dtype,
            size: sum.size,
            spectrum: sum.spectrum,
            ..Default::default()
        });
    }
    if made.is_empty() {
        let what = format!(
            "jobs/{id} was collected by an earlier version, which left its sums apart: collect the \
             statistics again"
        );
        return Err(failed_precondition(Reason::JobNotDone, what));
    }
    Ok(made)
}

/// Takes a stored file of the ROME release as it is.
fn of_file(
    store: &Store,
    model: &str,
    file: &v1::create_statistics_request::File,
) -> Result<v1::Statistics, Status> {
    let found = store.model(model)?;
    let found = found.ok_or_else(|| not_found(format!("models/{model}")))?;
    if file.source.len() > SOURCE_LIMIT {
        let what = format!("it has {} bytes: {SOURCE_LIMIT} at most", file.source.len());
        return Err(invalid_argument("file.source", what));
    }
    let layers = found.shape.unwrap_or_default().layers;
    if file.layer >= layers {
        let what = format!(
            "{} is not one of the model's {layers}, which begin at 0",
            file.layer
        );
        return Err(invalid_argument("file.layer", what));
    }
    has_key(&found, file.layer).map_err(|what| invalid_argument("file.layer", what))?;
    let digest: Digest = file
        .digest
        .parse()
        .map_err(|error: crate::objects::Error| {
            invalid_argument("file.digest", error.to_string())
        })?;
    let objects = store.objects();
    let Some(size) = objects.durable_size(&digest)? else {
        let what = format!("the object {digest} is not stored: upload it first");
        return Err(failed_precondition(Reason::ObjectMissing, what));
    };
    let stored = objects.open_object(&digest)?;
    let examined = examine(BufReader::new(stored), down_channels(&found)).map_err(|error| {
        let what = format!("{}: {error}", file.source);
        invalid_argument("file", what)
    })?;
    Ok(v1::Statistics {
        name: format!("models/{model}/statistics/{digest}"),
        version: digest_of(&base_version(model, &found.digest).name).to_owned(),
        layer: file.layer,
        tokens: examined.tokens,
        channels: examined.channels as u32,
        corpus: file.digest.clone(),
        source: file.source.clone(),
        dtype: v1::Dtype::F32 as i32,
        size,
        ..Default::default()
    })
}

/// Channels of a key, from the shape of the matrix that edits change.
fn down_channels(model: &v1::Model) -> Option<u64> {
    let width = u64::from(model.shape.unwrap_or_default().width);
    let names = [
        "mlp.down_proj.weight",
        "mlp.c_proj.weight",
        "mlp.fc_out.weight",
        "mlp.dense_4h_to_h.weight",
    ];
    let down = model
        .tensors
        .iter()
        .find(|tensor| names.iter().any(|name| tensor.tensor_name.ends_with(name)))?;
    match *down.dimensions.as_slice() {
        [one, other] if one == width => Some(other),
        [one, _] => Some(one),
        _ => None,
    }
}

/// Gives a job that edits the layer and the key statistics that it left open.
///
/// # Errors
/// `INVALID_ARGUMENT` for a method or a layer that is none; `FAILED_PRECONDITION` when there are no
/// statistics, with the command that makes them.
pub(super) fn resolve(
    store: &Store,
    model: &v1::Model,
    name: &str,
    field: &str,
    spec: &mut v1::EditSpec,
) -> Result<(), Status> {
    let method: Method = match spec.method.as_str() {
        "" => Method::default(),
        text => text.parse().map_err(|error: crate::edit::Error| {
            invalid_argument(format!("{field}.method"), error.to_string())
        })?,
    };
    let shape = model.shape.unwrap_or_default();
    let layers = shape.layers;
    let family = Family::ALL
        .into_iter()
        .find(|f| f.model_type() == model.family);
    let usual = || {
        let family = family.unwrap_or(Family::Llama);
        Hyperparameters::of(method, family, layers as usize, shape.width as usize).layer as u32
    };
    if spec.layer_choice.is_empty() {
        spec.layer_choice = match spec.layer {
            Some(_) => "given in the request".to_owned(),
            None => format!("where models of family {} are edited", model.family),
        };
    }
    let layer = spec.layer.unwrap_or_else(usual);
    if layer >= layers {
        let what = format!("{layer} is not one of the model's {layers}, which begin at 0");
        return Err(invalid_argument(format!("{field}.layer"), what));
    }
    has_key(model, layer).map_err(|what| invalid_argument(format!("{field}.layer"), what))?;
    spec.layer = Some(layer);
    spec.statistics = None;
    if !method.needs_statistics() {
        return Ok(());
    }
    let id = models::model_id(name)?;
    check::identifier("job.model", id).map_err(|(field, what)| invalid_argument(field, what))?;
    let all = store.statistics_of_layer(id, layer)?;
    let best = match spec.statistics_name.as_str() {
        "" => all
            .iter()
            .filter(|one| !one.submitted)
            .max_by_key(|one| one.tokens),
        named => {
            let found = all.iter().find(|one| one.name == named);
            Some(found.ok_or_else(|| {
                let what = format!(
                    "{name} has no key statistics '{named}' of layer {layer}: 'palimpsest stats \
                     list' shows those there are"
                );
                invalid_argument(format!("{field}.statistics_name"), what)
            })?)
        }
    };
    let Some(best) = best else {
        return Err(missing(name, &shape, layer));
    };
    spec.statistics = Some(v1::edit_spec::Statistics {
        digest: digest_of(&best.name).to_owned(),
        size: best.size,
    });
    Ok(())
}

/// Refuses to collect statistics of layers that have no one key.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn check_collected(model: &v1::Model, spec: &v1::StatsSpec) -> Result<(), Status> {
    (spec.layers.iter())
        .try_for_each(|&layer| has_key(model, layer))
        .map_err(|what| invalid_argument("job.stats.layers", what))
}

/// Refuses a layer that has experts in the place of an MLP, as workers do, who know the model's
/// configuration. Here it is seen in the names of its tensors.
fn has_key(model: &v1::Model, layer: u32) -> Result<(), String> {
    let names = || model.tensors.iter().map(|tensor| &tensor.tensor_name);
    let of_experts = |name: &String| families::layer_of_experts(name) == Some(layer as usize);
    match names().any(of_experts) {
        true => Err(format!(
            "layer {layer} of this {} model is a mixture of experts, each with a second matrix of its own: there is no \
             one key to edit or to take statistics of; use a layer with an MLP, if it has one",
            model.family
        )),
        false => Ok(()),
    }
}

/// Key statistics that are not there, with the command that makes them.
fn missing(name: &str, shape: &v1::model::Shape, layer: u32) -> Status {
    let id = name.trim_start_matches("models/");
    // Ten a channel, which are some four times the width.
    let tokens = (40 * u64::from(shape.width)).max(2000);
    let message = format!(
        "{name} has no key statistics of layer {layer}: make them with 'palimpsest stats collect --model {id} --layers \
         {layer} --corpus FILES', or with --self-sample {tokens} instead of a corpus"
    );
    let metadata = [("layer", layer.to_string()), ("tokens", tokens.to_string())];
    status(Reason::StatisticsMissing, message, metadata)
}

/// The key statistics that a request names, one a layer at most.
fn named(
    store: &Store,
    name: &str,
    id: &str,
    known: &[&str],
    spec: &v1::MassEditSpec,
) -> Result<Vec<v1::Statistics>, Status> {
    let mut named: Vec<v1::Statistics> = Vec::new();
    for (n, asked) in spec.statistics_names.iter().enumerate() {
        let wrong =
            |what: String| invalid_argument(format!("job.mass_edit.statistics_names[{n}]"), what);
        let mut found = None;
        for &layer in &spec.layers {
            found = store.statistics(id, layer, digest_of(asked))?;
            if found.as_ref().is_some_and(|one| one.name == *asked) {
                break;
            }
            found = None;
        }
        let found = found.ok_or_else(|| {
            wrong(format!(
                "{name} has no key statistics '{asked}' of an edited layer: 'palimpsest stats list' \
                 shows those there are"
            ))
        })?;
        if !known.contains(&found.version.as_str()) {
            let what = format!(
                "'{asked}' is of version {}, and the edit is of {}: name some of that version, or of \
                 the model as it was imported",
                short(&found.version),
                short(known[1])
            );
            return Err(wrong(what));
        }
        if let Some(other) = named.iter().find(|one| one.layer == found.layer) {
            let what = format!(
                "'{asked}' and '{}' are both of layer {}: name one a layer",
                other.name, found.layer
            );
            return Err(wrong(what));
        }
        named.push(found);
    }
    Ok(named)
}

/// Gives a job that edits many facts at once the layers and the key statistics that it left open.
///
/// # Errors
/// `INVALID_ARGUMENT` for layers that the model does not have, a loss that is read before its last,
/// or key statistics that are none of these layers or of another version; `FAILED_PRECONDITION` when there are no statistics of a layer, with the command that makes
/// them.
pub(super) fn resolve_mass(
    store: &Store,
    model: &v1::Model,
    name: &str,
    version: &str,
    spec: &mut v1::MassEditSpec,
) -> Result<(), Status> {
    let wrong =
        |field: &str, what: String| invalid_argument(format!("job.mass_edit.{field}"), what);
    let method: Method = (spec.method.parse())
        .map_err(|error: crate::edit::Error| wrong("method", error.to_string()))?;
    let shape = model.shape.unwrap_or_default();
    let layers = shape.layers;
    let family = (Family::ALL.into_iter()).find(|f| f.model_type() == model.family);
    if spec.layer_choice.is_empty() {
        spec.layer_choice = match spec.layers.is_empty() {
            false => "given in the request".to_owned(),
            true => format!("where models of family {} are edited", model.family),
        };
    }
    if spec.layers.is_empty() {
        let family = family.unwrap_or(Family::Llama);
        let (layers, width) = (layers as usize, shape.width as usize);
        let usual = Hyperparameters::layers_of(method, family, layers, width);
        spec.layers = usual.into_iter().map(|layer| layer as u32).collect();
    }
    if let Some(layer) = spec.layers.iter().find(|layer| **layer >= layers) {
        let what = format!("{layer} is not one of the model's {layers}, which begin at 0");
        return Err(wrong("layers", what));
    }
    (spec.layers.iter())
        .try_for_each(|&layer| has_key(model, layer))
        .map_err(|what| wrong("layers", what))?;
    if let Some(layer) = spec
        .loss_layer
        .filter(|layer| layer.checked_add(1) != Some(layers))
    {
        let what = format!(
            "{layer} is not the model's last block, which is {}: a loss that is read from an earlier \
             one knows nothing of the blocks above; leave it out",
            layers.saturating_sub(1)
        );
        return Err(wrong("loss_layer", what));
    }
    let id = models::model_id(name)?;
    check::identifier("job.model", id).map_err(|(field, what)| invalid_argument(field, what))?;
    spec.statistics.clear();
    // The methods take those of the model as it was imported; those of the version know its keys.
    let base = base_version(id, &model.digest).name;
    let known = [digest_of(&base), digest_of(version)];
    let named = named(store, name, id, &known, spec)?;
    for &layer in &spec.layers {
        let all = store.statistics_of_layer(id, layer)?;
        let fits = |one: &&v1::Statistics| known.contains(&one.version.as_str());
        let best = match (named.iter().find(|one| one.layer == layer), named.first()) {
            (Some(one), _) => Some(one),
            (None, Some(first)) => {
                let alike = all.iter().filter(fits).filter(|one| {
                    one.corpus == first.corpus && (first.submitted || !one.submitted)
                });
                let found = alike.max_by_key(|one| one.tokens);
                Some(found.ok_or_else(|| {
                    let what = format!(
                        "{name} has no key statistics of layer {layer} over the same text as '{}': name \
                         those of that layer too, or collect some",
                        first.name
                    );
                    wrong("statistics_names", what)
                })?)
            }
            (None, None) => {
                let trusted = all.iter().filter(fits).filter(|one| !one.submitted);
                trusted.max_by_key(|one| one.tokens)
            }
        };
        let best = best.ok_or_else(|| missing(name, &shape, layer))?;
        spec.statistics.push(v1::mass_edit_spec::Statistics {
            layer,
            digest: digest_of(&best.name).to_owned(),
            size: best.size,
        });
    }
    Ok(())
}
