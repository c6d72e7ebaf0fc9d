//! `JobService`: accepts jobs and tells how they go.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use prost::Message;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::asked::{Asked, OwnGates};
use super::caller::{CREATE_EDIT, answered, check_may, check_owner, draft};
use super::results::{self, Summaries};
use super::status::{invalid_argument, not_found};
use super::{check, models, pages};
use crate::audit;
use crate::coordinator::{self, Coordinator, Done, Event, JobFilter};
use crate::proto::v1::job_service_server::JobService;
use crate::proto::v1::{
    CancelJobRequest, CancelJobResponse, CreateJobRequest, CreateJobResponse, ExplainJobRequest,
    ExplainJobResponse, GetJobRequest, GetJobResponse, GetSweepSummaryRequest,
    GetSweepSummaryResponse, Job, JobCounts, JobKind, JobState, ListJobsRequest, ListJobsResponse,
    ListResultsRequest, ListResultsResponse, ListTasksRequest, ListTasksResponse,
    RequeueQuarantinedRequest, RequeueQuarantinedResponse, TaskState, WatchJobRequest,
    WatchJobResponse,
};
use crate::telemetry::traces;
use crate::wire::{self, names};
use crate::work::{self, Work};

/// Most events in one message of a watch.
const EVENTS: usize = 1000;
/// A watch says how the job goes at least this often, so that both ends notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// And no more often than this: a fast job would drown its watchers.
const PACE: Duration = Duration::from_millis(50);

/// Serves the jobs of a coordinator.
#[derive(Debug)]
pub struct Jobs {
    coordinator: Coordinator,
    summaries: Summaries,
}

impl Jobs {
    /// Serves the jobs of this coordinator.
    pub fn new(coordinator: Coordinator) -> Self {
        Self {
            coordinator,
            summaries: Summaries::default(),
        }
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
        let model = self
            .coordinator
            .store()
            .model(models::model_id(&job.model)?)?
            .ok_or_else(|| not_found(&job.model))?;
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
        let (known, task_costs, own) = self
            .coordinator
            .inspect(move |core| {
                let known = core.made_by(&by_id, &digest);
                let own = OwnGates {
                    bounds: core.gates(),
                    texts: core.gate_texts(),
                };
                (known, core.task_costs(), own)
            })
            .await?;
        // Whatever statistics, settings and versions there are by now.
        if let Some(id) = known {
            return self.job(id).await;
        }
        let store = self.coordinator.store().clone();
        let mut new = super::blocking(move || {
            asked.complete(&store, model, &own, &task_costs, validate_only)
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

/// Which jobs a list is of.
fn filter(request: ListJobsRequest) -> Result<JobFilter, Status> {
    let mut states = BTreeSet::new();
    for &state in &request.states {
        let known = JobState::try_from(state).ok();
        let known = known.filter(|&it| it != JobState::Unspecified);
        let known = known
            .ok_or_else(|| invalid_argument("states", format!("{state} is no state of a job")))?;
        states.insert(known as i32);
    }
    let kind = match JobKind::try_from(request.kind) {
        Ok(JobKind::Unspecified) => None,
        Ok(kind) => Some(wire::job_kind(kind)),
        Err(_) => {
            let what = format!("{} is no kind of job", request.kind);
            return Err(invalid_argument("kind", what));
        }
    };
    Ok(JobFilter {
        states,
        owner: request.owner,
        model: request.model,
        kind,
        text: request.text.to_lowercase(),
    })
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
        let entry = draft(&request, audit::CREATED, model, "");
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
        let before = pages::number::<Uuid>("jobs", &request.page_token)?;
        let filter = filter(request)?;
        let (mut jobs, total) = self
            .coordinator
            .inspect(move |core| core.page_of_jobs(before, size + 1, pages::BYTES, &filter))
            .await?;
        let bytes = |(_, job): &(Uuid, Job)| job.encoded_len();
        let key = |(id, _): &(Uuid, Job)| id.to_string();
        let next_page_token = pages::cut_by("jobs", &mut jobs, size, bytes, key);
        let jobs = jobs.into_iter().map(|(_, job)| job).collect();
        Ok(Response::new(ListJobsResponse {
            jobs,
            next_page_token,
            total_size: total,
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
        let from: u32 = pages::number("tasks", &request.page_token)?.unwrap_or_default();
        let mut states = BTreeSet::new();
        for &state in &request.states {
            let known = TaskState::try_from(state).ok();
            let known = known.filter(|&it| it != TaskState::Unspecified);
            let known = known.ok_or_else(|| {
                invalid_argument("states", format!("{state} is no state of a task"))
            })?;
            states.insert(known as i32);
        }
        let mut tasks = self
            .coordinator
            .inspect_job(id, move |core| core.tasks(id, from, size + 1, &states))
            .await?
            .ok_or_else(|| not_found(&request.parent))?;
        // The first of the next page is where that begins.
        let next = match tasks.len() > size {
            true => tasks.pop().map(|(number, _)| number),
            false => None,
        };
        let next = next.map_or_else(String::new, |it| pages::token("tasks", &it.to_string()));
        let tasks = tasks.into_iter().map(|(_, task)| task).collect();
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
        let explained = self
            .coordinator
            .inspect_job(id, move |core| {
                Some((core.explain(id)?, core.lacks_workers(id)))
            })
            .await?;
        let (mut reasons, alone) = explained.ok_or_else(|| not_found(&name))?;
        if alone && let Some(refused) = self.coordinator.refused().said() {
            reasons.insert(1.min(reasons.len()), refused);
        }
        Ok(Response::new(ExplainJobResponse { reasons }))
    }

    async fn list_results(
        &self,
        request: Request<ListResultsRequest>,
    ) -> Result<Response<ListResultsResponse>, Status> {
        let request = request.into_inner();
        let job = self.job(job_id(&request.parent)?).await?;
        let answer = results::list(self.coordinator.store().clone(), job, request).await?;
        Ok(Response::new(answer))
    }

    async fn get_sweep_summary(
        &self,
        request: Request<GetSweepSummaryRequest>,
    ) -> Result<Response<GetSweepSummaryResponse>, Status> {
        let request = request.into_inner();
        let job = self.job(job_id(&request.name)?).await?;
        let store = self.coordinator.store().clone();
        let answer = self.summaries.of(store, job, request).await?;
        Ok(Response::new(answer))
    }
}
