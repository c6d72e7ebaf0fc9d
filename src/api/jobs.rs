//! `JobService`: accepts jobs and tells how they go.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use prost::Message;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::caller::{CREATE_EDIT, answered, check_may, check_owner, draft};
use super::status::{
    Reason, data_loss, failed_precondition, invalid_argument, invalid_fields, not_found,
};
use super::{check, models, pages, statistics, versions};
use crate::audit;
use crate::coordinator::{self, Coordinator, Done, Event, NewJob};
use crate::objects::Digest;
use crate::proto::v1::job_service_server::JobService;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{
    CancelJobRequest, CancelJobResponse, CreateJobRequest, CreateJobResponse, EditGates,
    ExplainJobRequest, ExplainJobResponse, GetJobRequest, GetJobResponse, Job, JobCounts, JobState,
    ListJobsRequest, ListJobsResponse, ListResultsRequest, ListResultsResponse, ListTasksRequest,
    ListTasksResponse, Model, RefKind, RequeueQuarantinedRequest, RequeueQuarantinedResponse,
    UnitResult, WatchJobRequest, WatchJobResponse,
};
use crate::store::{ResultRecord, Store};
use crate::telemetry::traces;
use crate::version::{self, History, MAIN, digest_of, short};
use crate::wire::names;
use crate::work::{self, Items, Landing, Work};

/// The model as it was imported, as `VersionService` takes it.
const BASE: &str = "v0";
/// Facts of more bytes lie in an object, so that a job is never too large for a message.
const INLINE_BYTES: usize = 1 << 20;
/// Most events in one message of a watch.
const EVENTS: usize = 1000;
/// Most bytes of results in one page: a message stays under 4 MiB with room to spare.
const RESULT_BYTES: usize = 3 << 20;
/// A watch says how the job goes at least this often, so that both ends notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// And no more often than this: a fast job would drown its watchers.
const PACE: Duration = Duration::from_millis(50);

/// Serves the jobs of a coordinator.
#[derive(Debug)]
pub struct Jobs {
    coordinator: Coordinator,
}

impl Jobs {
    /// Serves the jobs of this coordinator.
    pub fn new(coordinator: Coordinator) -> Self {
        Self { coordinator }
    }

    async fn create(
        &self,
        request: CreateJobRequest,
        mut entry: audit::EntryDraft,
    ) -> Result<Job, Status> {
        let CreateJobRequest {
            job,
            request_id,
            validate_only,
        } = request;
        let job = job.ok_or_else(|| invalid_argument("job", "it is missing"))?;
        check::request_id(&request_id).map_err(|(field, what)| invalid_argument(field, what))?;
        let mut model = self
            .coordinator
            .store()
            .model(models::model_id(&job.model)?)?
            .ok_or_else(|| not_found(&job.model))?;
        model.tensors.clear();
        let job = Job {
            name: String::new(),
            state: JobState::Queued as i32,
            counts: None,
            create_time: None,
            start_time: None,
            end_time: None,
            last_sequence: 0,
            stages: Vec::new(),
            trace_parent: String::new(),
            owner: match job.owner.as_str() {
                "" => entry.principal.clone(),
                owner => owner.to_owned(),
            },
            ..job
        };
        let store = self.coordinator.store().clone();
        // A sweep may have a million facts: reading, checking and cutting it takes seconds.
        let asked = super::blocking(move || Asked::read(&store, job)).await?;
        let digest = asked.digest.clone();
        let by_id = request_id.clone();
        let (known, task_cost, gates) = self
            .coordinator
            .inspect(move |core| {
                let known = core.made_by(&by_id, &digest);
                (known, core.task_cost(), core.gates())
            })
            .await?;
        // Whatever statistics, settings and versions there are by now.
        if let Some(id) = known {
            return self.job(id).await;
        }
        let store = self.coordinator.store().clone();
        let mut new = super::blocking(move || {
            asked.complete(&store, model, &gates, task_cost, validate_only)
        })
        .await?;
        if validate_only {
            let stages = work::stages(&new.job, &new.items);
            let results = stages.iter().filter(|stage| !stage.hidden);
            let counts = JobCounts {
                tasks: new.tasks.len() as u64,
                tasks_pending: new.tasks.len() as u64,
                units: results.map(|stage| stage.units).sum(),
                stages: stages.len() as u64,
                ..JobCounts::default()
            };
            let job = Job {
                counts: Some(counts),
                ..work::summary(&new.job, &new.items)
            };
            return Ok(job);
        }
        new.id = self.coordinator.new_job_id();
        let id = new.id;
        entry.resource = format!("jobs/{id}");
        new.request_id = request_id;
        new.principal.clone_from(&entry.principal);
        // After its digest was taken: the same request may come again in another trace.
        new.job.trace_parent = traces::trace_parent(&tracing::Span::current());
        let new = self.coordinator.with_earlier_results(new).await?;
        let done = self
            .coordinator
            .ask_as(Event::Submit(Box::new(new)), entry)
            .await?;
        let made = match done {
            Done::Made(made) => made,
            _ => id,
        };
        tracing::info!(job = %made, "job accepted");
        self.job(made).await
    }

    async fn cancel(&self, id: Uuid, entry: audit::EntryDraft) -> Result<Job, Status> {
        self.coordinator.ask_as(Event::Cancel(id), entry).await?;
        self.job(id).await
    }

    async fn requeue(
        &self,
        id: Uuid,
        entry: audit::EntryDraft,
    ) -> Result<RequeueQuarantinedResponse, Status> {
        let done = self.coordinator.ask_as(Event::Requeue(id), entry).await?;
        let tasks_requeued = match done {
            Done::Requeued(tasks) => tasks,
            _ => 0,
        };
        Ok(RequeueQuarantinedResponse {
            job: Some(self.job(id).await?),
            tasks_requeued,
        })
    }

    async fn job(&self, id: Uuid) -> Result<Job, Status> {
        self.coordinator
            .inspect(move |core| core.job(id))
            .await?
            .ok_or_else(|| not_found(format!("jobs/{id}")))
    }
}

fn job_id(name: &str) -> Result<Uuid, Status> {
    names::parse_job(name).ok_or_else(|| not_found(name))
}

#[tonic::async_trait]
impl JobService for Jobs {
    async fn create_job(
        &self,
        request: Request<CreateJobRequest>,
    ) -> Result<Response<CreateJobResponse>, Status> {
        let asked = request.get_ref();
        let model = asked.job.as_ref().map_or("", |job| &job.model);
        let owner = asked.job.as_ref().map_or("", |job| &job.owner);
        check_owner(&request, owner)?;
        let asked_job = asked.job.as_ref().and_then(work::of);
        if asked_job.and_then(Work::landing).is_some() {
            check_may(&request, CREATE_EDIT)?;
        }
        let entry = draft(&request, "jobs.create", model, "");
        let only_asked = asked.validate_only;
        let answer = self.create(request.into_inner(), entry.clone()).await;
        let job = if only_asked {
            answer?
        } else {
            answered(&self.coordinator, entry, answer).await?
        };
        Ok(Response::new(CreateJobResponse { job: Some(job) }))
    }

    async fn get_job(
        &self,
        request: Request<GetJobRequest>,
    ) -> Result<Response<GetJobResponse>, Status> {
        let name = request.into_inner().name;
        let id = job_id(&name)?;
        let job = self
            .coordinator
            .inspect_job(id, move |core| core.full_job(id))
            .await?
            .ok_or_else(|| not_found(&name))?;
        Ok(Response::new(GetJobResponse { job: Some(job) }))
    }

    async fn list_jobs(
        &self,
        request: Request<ListJobsRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let request = request.into_inner();
        let size = pages::size(request.page_size)?;
        let before = page_number::<Uuid>("jobs", &request.page_token)?;
        let mut jobs = self
            .coordinator
            .inspect(move |core| core.jobs_before(before, size + 1, pages::BYTES))
            .await?;
        let bytes = |(_, job): &(Uuid, Job)| job.encoded_len();
        let key = |(id, _): &(Uuid, Job)| id.to_string();
        let next_page_token = pages::cut_by("jobs", &mut jobs, size, bytes, key);
        let jobs = jobs.into_iter().map(|(_, job)| job).collect();
        Ok(Response::new(ListJobsResponse {
            jobs,
            next_page_token,
        }))
    }

    async fn cancel_job(
        &self,
        request: Request<CancelJobRequest>,
    ) -> Result<Response<CancelJobResponse>, Status> {
        let name = request.get_ref().name.clone();
        let entry = draft(&request, "jobs.cancel", &name, "");
        let answer = match job_id(&name) {
            Ok(id) => self.cancel(id, entry.clone()).await,
            Err(unknown) => Err(unknown),
        };
        let job = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(CancelJobResponse { job: Some(job) }))
    }

    async fn requeue_quarantined(
        &self,
        request: Request<RequeueQuarantinedRequest>,
    ) -> Result<Response<RequeueQuarantinedResponse>, Status> {
        let name = request.get_ref().name.clone();
        let entry = draft(&request, "jobs.requeue", &name, "");
        let answer = match job_id(&name) {
            Ok(id) => self.requeue(id, entry.clone()).await,
            Err(unknown) => Err(unknown),
        };
        let answer = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(answer))
    }

    type WatchJobStream =
        Pin<Box<dyn Stream<Item = Result<WatchJobResponse, Status>> + Send + 'static>>;

    async fn watch_job(
        &self,
        request: Request<WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let WatchJobRequest {
            name,
            after_sequence,
        } = request.into_inner();
        let id = job_id(&name)?;
        self.job(id).await?;
        let coordinator = self.coordinator.clone();
        let stream = async_stream::try_stream! {
            // Asked for before the first look, so that nothing falls between the two.
            let mut signal = coordinator.watch(id).await?;
            let mut after = after_sequence;
            loop {
                signal.mark_unchanged();
                let (job, progress) = coordinator
                    .inspect(move |core| (core.job(id), core.progress(id)))
                    .await?;
                let job = job.ok_or_else(|| not_found(format!("jobs/{id}")))?;
                let store = coordinator.store().clone();
                let events = super::blocking(move || {
                    Ok(store.events(id, after, EVENTS)?)
                })
                .await?;
                let seen = events.last().map_or(after, |event| event.sequence);
                let ended = coordinator::is_terminal(job.state()) && seen >= job.last_sequence;
                after = seen;
                let behind = after < job.last_sequence;
                yield WatchJobResponse { events, job: Some(job), progress: Some(progress) };
                if ended {
                    break;
                }
                if !behind {
                    // A coordinator that stopped drops the signal; the next look says so.
                    let _ = tokio::time::timeout(KEEP_ALIVE, signal.changed()).await;
                    tokio::time::sleep(PACE).await;
                }
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_tasks(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let request = request.into_inner();
        let id = job_id(&request.parent)?;
        let size = pages::size(request.page_size)?;
        let from: u32 = page_number("tasks", &request.page_token)?.unwrap_or_default();
        let mut tasks = self
            .coordinator
            .inspect_job(id, move |core| core.tasks(id, from, size + 1))
            .await?
            .ok_or_else(|| not_found(&request.parent))?;
        let more = tasks.len() > size;
        tasks.truncate(size);
        let next = if more {
            pages::token("tasks", &(from as usize + size).to_string())
        } else {
            String::new()
        };
        Ok(Response::new(ListTasksResponse {
            tasks,
            next_page_token: next,
        }))
    }

    async fn explain_job(
        &self,
        request: Request<ExplainJobRequest>,
    ) -> Result<Response<ExplainJobResponse>, Status> {
        let name = request.into_inner().name;
        let id = job_id(&name)?;
        let reasons = self
            .coordinator
            .inspect_job(id, move |core| core.explain(id))
            .await?
            .ok_or_else(|| not_found(&name))?;
        Ok(Response::new(ExplainJobResponse { reasons }))
    }

    async fn list_results(
        &self,
        request: Request<ListResultsRequest>,
    ) -> Result<Response<ListResultsResponse>, Status> {
        let request = request.into_inner();
        let id = job_id(&request.parent)?;
        let size = pages::size(request.page_size)?;
        let from: u64 = page_number("results", &request.page_token)?.unwrap_or_default();
        let mut job = self.job(id).await?;
        let units = job.counts.unwrap_or_default().units;
        let model = models::model_id(&job.model)?.to_owned();
        let gates = work::of_mut(&mut job).and_then(|work| *work.asked_gates()?);
        let gates = gates.unwrap_or_default();
        let store = self.coordinator.store().clone();
        let (results, next) = super::blocking(move || {
            let mut results = Vec::new();
            let mut next = from;
            for (unit, record, bytes) in store.results(id, from, size, RESULT_BYTES)? {
                next = unit + 1;
                // Units that only prepare results have the numbers after those that are.
                if unit < units {
                    let mut result =
                        UnitResult::decode(bytes.as_slice()).map_err(|e| data_loss(&e))?;
                    as_kept(&store, &model, &gates, &mut result, &record)?;
                    results.push(result);
                }
            }
            Ok((results, next))
        })
        .await?;
        let next_page_token = if next == from || next >= units {
            String::new()
        } else {
            pages::token("results", &next.to_string())
        };
        Ok(Response::new(ListResultsResponse {
            results,
            next_page_token,
        }))
    }
}

/// A job as it was asked for, checked, with its many parts taken out.
struct Asked {
    job: Job,
    items: Items,
    /// Of what was asked, not of what `main` points at now: the same request may come again.
    digest: String,
}

impl Asked {
    fn read(store: &Store, mut job: Job) -> Result<Self, Status> {
        let object = work::of(&job).and_then(Work::parts_object);
        let object = object.filter(|object| !object.digest.is_empty());
        let items = match object {
            Some(object) if work::of(&job).is_some_and(Work::has_parts) => {
                let what =
                    "what is asked is given twice: in the request and as an object; leave one out";
                return Err(invalid_argument(object.field, what));
            }
            Some(object) => read_object(store, object.field, object.digest)?,
            None => work::pack(&mut job),
        };
        work::check(&mut job, &items).map_err(invalid_fields)?;
        let mut whole = job.clone();
        if items.bytes().len() > INLINE_BYTES && work::parts_object(&job).is_none() {
            name_object(&mut whole, &Digest::of(items.bytes()).to_string());
        }
        work::unpack(&mut whole, &items);
        let digest = Digest::of(&whole.encode_to_vec()).to_string();
        Ok(Self { job, items, digest })
    }

    /// Fills in what the store and the settings say, and cuts the job. Its parts go to an object
    /// when they are many.
    fn complete(
        self,
        store: &Store,
        model: Model,
        gates: &EditGates,
        task_cost: f64,
        validate_only: bool,
    ) -> Result<NewJob, Status> {
        let Self {
            mut job,
            items,
            digest,
        } = self;
        stored_corpus(&job, store)?;
        let many = items.bytes().len() > INLINE_BYTES && work::parts_object(&job).is_none();
        if many && !validate_only {
            let object = store.objects().put(items.bytes());
            let object = object?;
            name_object(&mut job, &object.to_string());
        }
        let id = models::model_id(&job.model)?.to_owned();
        let history = History::new(store, &id, &model.digest);
        let usual = work::of(&job).and_then(Work::landing);
        let usual = usual.map_or(MAIN, |landing| landing.ref_id);
        job.version = version(history, "job.version", &job.version, usual)?;
        let name = job.model.clone();
        let asked_version = job.version.clone();
        if let Some(work) = work::of_mut(&mut job) {
            if let Some((field, spec)) = work.edits() {
                statistics::resolve(store, &model, &name, field, spec)?;
                if spec.gates.is_some() || field == "job.edit" {
                    let asked = spec.gates.get_or_insert_default();
                    *asked = work::strictest(asked, gates);
                }
            }
            if let Some(spec) = work.mass_edit() {
                statistics::resolve_mass(store, &model, &name, spec)?;
                let asked = spec.gates.get_or_insert_default();
                *asked = work::strictest(asked, gates);
            }
            if let Some((field, compared)) = work.compared_version() {
                *compared = version(history, field, compared, BASE)?;
            }
            if let Some(landing) = work.landing() {
                check_landing(history, &landing, &asked_version)?;
            }
        }
        let shape = model.shape.unwrap_or_default();
        let tasks = coordinator::tasks(&job, &items, &shape, task_cost);
        Ok(NewJob {
            id: Uuid::nil(),
            request_digest: digest,
            job,
            items,
            model,
            tasks,
            request_id: String::new(),
            principal: String::new(),
            earlier: Vec::new(),
        })
    }
}

/// An edit as it is kept, with its name, where its job made a version of it; and as its job's gates
/// judge it in any case, whatever the worker found.
fn as_kept(
    store: &Store,
    model: &str,
    gates: &EditGates,
    result: &mut UnitResult,
    record: &ResultRecord,
) -> Result<(), Status> {
    let Some(Outcome::Edit(outcome)) = &mut result.outcome else {
        return Ok(());
    };
    let computed = outcome.edit.take().unwrap_or_default();
    let kept = match &record.landed {
        Some(landed) => {
            outcome.version.clone_from(&landed.version);
            store.edit(model, &landed.edit)?
        }
        None => None,
    };
    outcome.edit = kept.or_else(|| Some(coordinator::judged(computed, gates)));
    Ok(())
}

/// Says that a job's parts lie in an object. Kinds that have them in the request keep them there.
fn name_object(job: &mut Job, digest: &str) {
    if let Some(work) = work::of_mut(job) {
        work.name_parts_object(digest);
    }
}

/// The corpus that a checked job names is stored, so that no worker looks for it in vain.
fn stored_corpus(job: &Job, store: &Store) -> Result<(), Status> {
    let Some((field, named)) = work::of(job).and_then(Work::corpus) else {
        return Ok(());
    };
    let stored = store.objects();
    let found = named
        .digest
        .parse()
        .and_then(|digest| stored.durable_size(&digest));
    let what = match found {
        Ok(Some(size)) if size == named.size => return Ok(()),
        Ok(Some(size)) => format!("the corpus has {size} bytes, not {}", named.size),
        Ok(None) => format!(
            "there is no object {}: write it with ObjectService first",
            named.digest
        ),
        Err(error) => error.to_string(),
    };
    Err(invalid_argument(field, what))
}

/// The branch of a job that ends in versions is one, is where the job's version is, and has the
/// etag that the request names.
fn check_landing(history: History<'_>, landing: &Landing<'_>, version: &str) -> Result<(), Status> {
    let reference = history.reference(landing.ref_id)?;
    let at = |expected: String| version::Error::Moved {
        name: reference.name.clone(),
        expected,
        actual: short(digest_of(&reference.version)).to_owned(),
        etag: reference.etag.clone(),
        author: reference.author.clone(),
    };
    if reference.kind() == RefKind::Tag {
        let tag = version::Error::Tag {
            name: reference.name,
        };
        return Err(tag.into());
    }
    if !landing.etag.is_empty() && landing.etag != reference.etag {
        return Err(at(format!("etag {}", landing.etag)).into());
    }
    if reference.version != version {
        return Err(at(format!("version {}", short(digest_of(version)))).into());
    }
    Ok(())
}

/// A version that a job names in a field, by its digest; `usual` is meant where it names none.
fn version(history: History<'_>, field: &str, name: &str, usual: &str) -> Result<String, Status> {
    let asked = match name {
        "" => usual.to_owned(),
        name => versions::version_of(history.model(), field, name)?,
    };
    let version = history.resolve(&asked)?;
    Ok(version.name)
}

fn read_object(store: &Store, field: &str, digest: &str) -> Result<Items, Status> {
    let parsed: Digest = digest
        .parse()
        .map_err(|error: crate::objects::Error| invalid_argument(field, error.to_string()))?;
    let objects = store.objects();
    let size = objects.durable_size(&parsed)?;
    let largest = crate::datasets::LARGEST_FILE;
    match size {
        None => Err(failed_precondition(
            Reason::ObjectMissing,
            format!("{field}: the object {digest} is not stored: upload it first"),
        )),
        Some(size) if size > largest => Err(invalid_argument(
            field,
            format!("it has {size} bytes: {largest} at most"),
        )),
        Some(_) => {
            let bytes = objects.read(&parsed)?;
            let items = Items::parse(bytes.into())
                .map_err(|malformed| invalid_argument(field, malformed.to_string()))?;
            if items.is_empty() {
                let what = "it holds no facts or records: give at least one";
                return Err(invalid_argument(field, what));
            }
            Ok(items)
        }
    }
}

fn page_number<T: std::str::FromStr>(list: &str, token: &str) -> Result<Option<T>, Status> {
    pages::after(list, token)?
        .map(|text| {
            text.parse()
                .map_err(|_| super::status::invalid_page_token(token))
        })
        .transpose()
}
