//! `JobService`: accepts jobs and tells how they go.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use prost::Message;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::caller::{answered, check_owner, draft};
use super::status::{
    Reason, data_loss, failed_precondition, invalid_argument, invalid_fields, not_found,
};
use super::{check, models, pages, statistics, versions};
use crate::audit;
use crate::coordinator::{self, Coordinator, Done, Event, Items, NewJob};
use crate::objects::Digest;
use crate::proto::v1::job::Spec;
use crate::proto::v1::job_service_server::JobService;
use crate::proto::v1::{
    CancelJobRequest, CancelJobResponse, CreateJobRequest, CreateJobResponse, EvalSpec,
    ExplainJobRequest, ExplainJobResponse, GetJobRequest, GetJobResponse, Job, JobCounts, JobState,
    ListJobsRequest, ListJobsResponse, ListResultsRequest, ListResultsResponse, ListTasksRequest,
    ListTasksResponse, Model, RequeueQuarantinedRequest, RequeueQuarantinedResponse, UnitResult,
    WatchJobRequest, WatchJobResponse,
};
use crate::store::Store;
use crate::telemetry::traces;
use crate::version::{History, MAIN};
use crate::wire::names;

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
            trace_parent: String::new(),
            owner: match job.owner.as_str() {
                "" => entry.principal.clone(),
                owner => owner.to_owned(),
            },
            ..job
        };
        let mut job = job;
        let (task_cost, gates) = self
            .coordinator
            .inspect(|core| (core.task_cost(), core.gates()))
            .await?;
        let store = self.coordinator.store();
        match &mut job.spec {
            Some(Spec::Edit(spec)) => {
                statistics::resolve(store, &model, &job.model, "job.edit", spec)?;
                check::fill_gates(spec.gates.get_or_insert_default(), &gates);
            }
            Some(Spec::Eval(EvalSpec {
                edit_each: Some(spec),
                ..
            })) => statistics::resolve(store, &model, &job.model, "job.eval.edit_each", spec)?,
            _ => {}
        }
        let store = self.coordinator.store().clone();
        // A sweep may have a million facts: reading, checking and cutting it takes seconds.
        let mut new =
            super::blocking(move || prepare(&store, job, model, task_cost, validate_only)).await?;
        if validate_only {
            let counts = JobCounts {
                tasks: new.tasks.len() as u64,
                tasks_pending: new.tasks.len() as u64,
                units: coordinator::units(&new.job, &new.items),
                ..JobCounts::default()
            };
            let job = Job {
                counts: Some(counts),
                ..coordinator::summary(&new.job, &new.items)
            };
            return Ok(job);
        }
        let id = new.id;
        entry.resource = format!("jobs/{id}");
        new.request_id = request_id;
        // After its digest was taken: the same request may come again in another trace.
        new.job.trace_parent = traces::trace_parent(&tracing::Span::current());
        let new = self.coordinator.with_answers(new).await?;
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
            .inspect(move |core| core.jobs_before(before, size + 1))
            .await?;
        let more = jobs.len() > size;
        jobs.truncate(size);
        let next_page_token = match jobs.last() {
            Some((id, _)) if more => pages::token("jobs", &id.to_string()),
            _ => String::new(),
        };
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
                    store.events(id, after, EVENTS).map_err(Status::from)
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
        let units = self.job(id).await?.counts.unwrap_or_default().units;
        let store = self.coordinator.store().clone();
        let found = super::blocking(move || {
            store
                .results(id, from, size, RESULT_BYTES)
                .map_err(Status::from)
        })
        .await?;
        let mut results = Vec::with_capacity(found.len());
        let mut next = from;
        for (unit, _, bytes) in found {
            next = unit + 1;
            // The preparatory unit has the number after the last.
            if unit < units {
                results.push(UnitResult::decode(bytes.as_slice()).map_err(|e| data_loss(&e))?);
            }
        }
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

/// Checks a job, completes it and cuts it. Its facts are left where they lie, in the job or in an
/// object, but go to an object when they are many.
fn prepare(
    store: &Store,
    mut job: Job,
    model: Model,
    task_cost: f64,
    validate_only: bool,
) -> Result<NewJob, Status> {
    let mut items = match coordinator::items_object(&job) {
        Some(digest) => read_object(store, coordinator::object_field(&job), digest)?,
        None => Items::default(),
    };
    let given = !items.is_empty();
    if given && check::has_items(&job) {
        let what = "what is asked is given twice: in the request and as an object; leave one out";
        return Err(invalid_argument(coordinator::object_field(&job), what));
    }
    if !given {
        items = coordinator::pack(&mut job);
    }
    check::job(&mut job, &items).map_err(invalid_fields)?;
    check::objects(&job, store.objects()).map_err(invalid_fields)?;
    if !given && !validate_only && items.bytes().len() > INLINE_BYTES {
        let digest = store.objects().put(items.bytes())?;
        coordinator::name_object(&mut job, &digest.to_string());
    }
    coordinator::unpack(&mut job, &items);
    // Of what was asked, not of what `main` points at now: the same request may come again.
    let request_digest = Digest::of(&job.encode_to_vec()).to_string();
    job.version = version(store, "job.version", &job.version, MAIN, &job, &model)?;
    if let Some(against) = against(store, &job, &model)?
        && let Some(Spec::Eval(eval)) = &mut job.spec
    {
        eval.against = against;
    }
    let shape = model.shape.unwrap_or_default();
    let tasks = coordinator::tasks(&job, &items, &shape, task_cost);
    Ok(NewJob {
        id: Uuid::now_v7(),
        request_digest,
        job,
        items,
        model,
        tasks,
        request_id: String::new(),
        answers: Vec::new(),
    })
}

/// A version that a job names in a field, by its digest; `usual` is meant where it names none.
fn version(
    store: &Store,
    field: &str,
    name: &str,
    usual: &str,
    job: &Job,
    model: &Model,
) -> Result<String, Status> {
    let id = models::model_id(&job.model)?;
    let asked = match name {
        "" => usual.to_owned(),
        name => versions::version_of(id, field, name)?,
    };
    let history = History::new(store, id, &model.digest);
    let version = history.resolve(&asked)?;
    Ok(version.name)
}

/// The version that an evaluation compares with, by its digest: the one it names, or the model as it was imported. None
/// where nothing is compared.
fn against(store: &Store, job: &Job, model: &Model) -> Result<Option<String>, Status> {
    let eval = match &job.spec {
        Some(Spec::Eval(eval)) if eval.edit_each.is_none() => eval,
        _ => return Ok(None),
    };
    let name = eval.against.as_str();
    version(store, "job.eval.against", name, BASE, job, model).map(Some)
}

fn read_object(store: &Store, field: &str, digest: &str) -> Result<Items, Status> {
    let parsed: Digest = digest
        .parse()
        .map_err(|error: crate::objects::Error| invalid_argument(field, error.to_string()))?;
    let objects = store.objects();
    let size = objects.durable_size(&parsed)?;
    let largest = crate::datasets::facts::LARGEST_FILE;
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
