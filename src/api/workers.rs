//! `WorkerService`: the streams of the workers.
#![allow(clippy::disallowed_methods)] // a worker's stream has a task of its own, which ends with it

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use super::caller::{answered, draft};
use super::status::{
    Reason, aborted, already_exists, data_loss, failed_precondition, invalid_argument, not_found,
    unavailable,
};
use super::{check, pages};
use crate::audit;
use crate::auth::Caller;
use crate::coordinator::{Closing, Commit, CommittedResult, Coordinator, Event, LeaseKey, Session};
use crate::proto::v1::connect_request::Message;
use crate::proto::v1::worker_service_server::WorkerService;
use crate::proto::v1::{
    self, ConnectRequest, ConnectResponse, DrainWorkerRequest, DrainWorkerResponse, Hello,
    ListWorkersRequest, ListWorkersResponse, ReadResultsRequest, ReadResultsResponse,
    ReadmitWorkerRequest, ReadmitWorkerResponse,
};
use crate::telemetry::traces;
use crate::text;
use crate::wire::names;

/// The protocol that this coordinator speaks.
pub const PROTOCOL: u32 = 1;
/// A worker whose message is being looked at counts as alive this often.
const ALIVE: Duration = Duration::from_millis(500);
/// Most bytes of one page of results.
const RESULT_BYTES: usize = 3 << 20;
/// Steps of an edit that a heartbeat may tell.
const EDIT_STEPS: usize = 64;
/// Most leases of a worker, and most models that it may say it has loaded.
const LEASES: usize = 1000;
const LOADED: usize = 100;
/// Most bytes of what a worker says of itself, and of each text of a fingerprint.
const WORD: usize = 255;
/// Most bytes of a failure's message: it is kept for every unit that it ends.
const FAILURE: usize = 4 << 10;

/// Serves the workers of a coordinator.
#[derive(Debug)]
pub struct Workers {
    coordinator: Coordinator,
}

impl Workers {
    /// Serves the workers of this coordinator.
    pub fn new(coordinator: Coordinator) -> Self {
        Self { coordinator }
    }

    /// Tells the coordinator something of a worker, and gives the worker as it is then.
    async fn tell(
        &self,
        name: &str,
        event: impl FnOnce(String) -> Event,
        entry: audit::EntryDraft,
    ) -> Result<v1::Worker, Status> {
        let id = names::parse_worker(name).ok_or_else(|| not_found(name))?;
        let id = id.to_owned();
        self.coordinator.ask_as(event(id.clone()), entry).await?;
        self.coordinator
            .inspect(move |core| core.worker(&id))
            .await?
            .ok_or_else(|| not_found(name))
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    type ConnectStream =
        Pin<Box<dyn Stream<Item = Result<ConnectResponse, Status>> + Send + 'static>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let caller = request.extensions().get::<Caller>();
        let principal = caller.map_or_else(String::new, |caller| caller.principal.clone());
        let mut inbox = request.into_inner();
        let hello = match inbox.message().await? {
            Some(ConnectRequest {
                message: Some(Message::Hello(hello)),
            }) => hello,
            _ => {
                return Err(invalid_argument(
                    "message",
                    "the first message must be 'hello'",
                ));
            }
        };
        let held = check_hello(&hello).inspect_err(|status| {
            let refused = self.coordinator.refused();
            refused.note(&hello.worker_id, status.message());
        })?;
        let worker = hello.worker_id.clone();
        note_version(&hello);
        let (session, outbox) = self.coordinator.open_session().await?;
        let event = Event::Hello {
            session,
            hello: Box::new(hello),
            held,
            principal,
        };
        self.coordinator.tell(event).await?;
        self.coordinator.refused().forget();
        tracing::info!(worker, "worker connected");

        let coordinator = self.coordinator.clone();
        tokio::spawn(async move {
            let ended = receive(&coordinator, session, &mut inbox).await;
            tracing::info!(worker, reason = ended.message(), "worker disconnected");
            // Fails only when the coordinator has stopped, and then nobody minds.
            let _ = coordinator.tell(Event::Gone(session)).await;
        });
        let outbox = tokio_stream::wrappers::ReceiverStream::new(outbox).map(|item| match item {
            Ok(message) => Ok(ConnectResponse {
                message: Some(message),
            }),
            Err(Closing::Replaced) => Err(aborted(
                Reason::StreamReplaced,
                "another stream of this worker took over",
            )),
            Err(Closing::Taken) => Err(already_exists(
                Reason::WorkerIdTaken,
                "another process is connected under this worker's id",
            )),
            Err(Closing::Silent) => Err(unavailable(
                "nothing was heard of the worker for too long: connect again",
            )),
            Err(Closing::Unfit(what)) => Err(invalid_argument("commit.result", what)),
            Err(Closing::Gone) => Err(unavailable("the worker closed its stream")),
        });
        Ok(Response::new(Box::pin(outbox)))
    }

    type ReadResultsStream =
        Pin<Box<dyn Stream<Item = Result<ReadResultsResponse, Status>> + Send + 'static>>;

    async fn read_results(
        &self,
        request: Request<ReadResultsRequest>,
    ) -> Result<Response<Self::ReadResultsStream>, Status> {
        let request = request.into_inner();
        let key = lease_key(&request.lease.unwrap_or_default())?;
        let asked = request.units.unwrap_or_default();
        let readable = self
            .coordinator
            .inspect(move |core| core.earlier_units(key, &asked))
            .await?;
        let units = readable.map_err(|what| failed_precondition(Reason::LeaseNotLive, what))?;
        let store = self.coordinator.store().clone();
        let stream = async_stream::try_stream! {
            let mut next = units.start;
            while next < units.end {
                let store = store.clone();
                let left = (units.end - next) as usize;
                let found = super::blocking(move || {
                    store.results(key.job, next, left, RESULT_BYTES).map_err(Status::from)
                })
                .await?;
                let mut results = Vec::with_capacity(found.len());
                for (unit, _, bytes) in found {
                    next = unit + 1;
                    results.push(v1::UnitResult::decode(bytes.as_slice()).map_err(|e| data_loss(&e))?);
                }
                if results.is_empty() {
                    Err(not_found(format!("jobs/{} unit {next}", key.job)))?;
                }
                yield ReadResultsResponse { results };
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }

    async fn drain_worker(
        &self,
        request: Request<DrainWorkerRequest>,
    ) -> Result<Response<DrainWorkerResponse>, Status> {
        let name = request.get_ref().name.clone();
        let entry = draft(&request, "workers.drain", &name, "");
        let answer = self.tell(&name, Event::AskDrain, entry.clone()).await;
        let worker = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(DrainWorkerResponse {
            worker: Some(worker),
        }))
    }

    async fn readmit_worker(
        &self,
        request: Request<ReadmitWorkerRequest>,
    ) -> Result<Response<ReadmitWorkerResponse>, Status> {
        let name = request.get_ref().name.clone();
        let entry = draft(&request, "workers.readmit", &name, "");
        let answer = self.tell(&name, Event::Readmit, entry.clone()).await;
        let worker = answered(&self.coordinator, entry, answer).await?;
        Ok(Response::new(ReadmitWorkerResponse {
            worker: Some(worker),
        }))
    }

    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let request = request.into_inner();
        let size = pages::size(request.page_size)?;
        let after = pages::after("workers", &request.page_token)?.unwrap_or_default();
        let mut workers = self
            .coordinator
            .inspect(move |core| core.workers(&after, size + 1))
            .await?;
        let next_page_token = pages::cut("workers", &mut workers, size, |last| {
            names::last(&last.name).to_owned()
        });
        Ok(Response::new(ListWorkersResponse {
            workers,
            next_page_token,
        }))
    }
}

/// Both go on as long as they speak the same protocol, but whoever looks after them should know.
fn note_version(hello: &Hello) {
    let capabilities = hello.capabilities.as_ref();
    let (theirs, ours) = (
        capabilities.map_or("", |it| &it.version),
        env!("CARGO_PKG_VERSION"),
    );
    if !["", ours].contains(&theirs) {
        tracing::warn!(
            worker = hello.worker_id,
            version = theirs,
            coordinator = ours,
            "the worker runs another version: upgrade the older of the two"
        );
    }
}

fn check_hello(hello: &Hello) -> Result<Vec<LeaseKey>, Status> {
    check::identifier("hello.worker_id", &hello.worker_id)
        .map_err(|(field, what)| invalid_argument(field, what))?;
    if hello.protocol != PROTOCOL {
        let older = if hello.protocol < PROTOCOL {
            "worker"
        } else {
            "coordinator"
        };
        return Err(failed_precondition(
            Reason::ProtocolVersion,
            format!(
                "the worker{} speaks protocol {}, the coordinator (version {}) protocol {PROTOCOL}: \
                 upgrade the {older}",
                match hello.capabilities.as_ref().map_or("", |it| &it.version) {
                    "" => String::new(),
                    version => format!(" (version {version})"),
                },
                hello.protocol,
                env!("CARGO_PKG_VERSION"),
            ),
        ));
    }
    if hello.held.len() > LEASES {
        let what = format!("{} are too many: {LEASES} at most", hello.held.len());
        return Err(invalid_argument("hello.held", what));
    }
    check_credits("hello.credits", hello.credits)?;
    if let Some(it) = &hello.capabilities {
        check_word("hello.capabilities.device", &it.device)?;
        check_word("hello.capabilities.host", &it.host)?;
        check_word("hello.capabilities.version", &it.version)?;
        check_loaded("hello.capabilities.loaded_models", &it.loaded_models)?;
    }
    hello.held.iter().map(lease_key).collect()
}

/// Something short that a worker says of itself: it is kept in memory, and shown in lists.
fn check_word(field: &str, word: &str) -> Result<(), Status> {
    if word.len() > WORD {
        let what = format!("it has {} bytes: {WORD} at most", word.len());
        return Err(invalid_argument(field, what));
    }
    Ok(())
}

fn check_credits(field: &str, credits: u32) -> Result<(), Status> {
    if credits as usize > LEASES {
        let what = format!("{credits} are too many: {LEASES} at most (worker.credits)");
        return Err(invalid_argument(field, what));
    }
    Ok(())
}

fn check_loaded(field: &str, models: &[String]) -> Result<(), Status> {
    if models.len() > LOADED {
        let what = format!("{} are too many: name {LOADED} at most", models.len());
        return Err(invalid_argument(field, what));
    }
    match models
        .iter()
        .find(|name| names::parse_model(name).is_none())
    {
        Some(name) => Err(invalid_argument(
            field,
            format!("'{name}' is not 'models/ID'"),
        )),
        None => Ok(()),
    }
}

fn check_fingerprint(fingerprint: Option<&v1::Fingerprint>) -> Result<(), Status> {
    let Some(it) = fingerprint else {
        return Ok(());
    };
    check_word("commit.fingerprint.device", &it.device)?;
    check_word("commit.fingerprint.dtype", &it.dtype)?;
    check_word("commit.fingerprint.libtorch", &it.libtorch)
}

fn lease_key(key: &v1::LeaseKey) -> Result<LeaseKey, Status> {
    LeaseKey::from_proto(key).ok_or_else(|| {
        invalid_argument(
            "lease.task",
            format!("'{}' is not 'jobs/ID/tasks/N'", key.task),
        )
    })
}

/// Takes a worker's messages until its stream ends, and says why it ended.
async fn receive(
    coordinator: &Coordinator,
    session: Session,
    inbox: &mut Streaming<ConnectRequest>,
) -> Status {
    loop {
        let message = match inbox.message().await {
            Ok(Some(ConnectRequest {
                message: Some(message),
            })) => message,
            Ok(Some(ConnectRequest { message: None })) => continue,
            Ok(None) => return Status::ok("the worker closed its stream"),
            Err(status) => return status,
        };
        let told = match translate(session, message) {
            // An edit is judged and made a version before it is committed, which takes a while.
            Ok(Event::Commit {
                session,
                lease,
                unit,
                result,
            }) => {
                let commit = Commit {
                    session,
                    lease,
                    unit,
                    result,
                };
                alive_until(coordinator, session, coordinator.commit(commit)).await
            }
            Ok(event) => coordinator.tell(event).await,
            Err(status) => return status,
        };
        if let Err(error) = told {
            return error.into();
        }
    }
}

fn check_heartbeat(heartbeat: &v1::Heartbeat) -> Result<(), Status> {
    if heartbeat.leases.len() > LEASES {
        let what = format!("{} are too many: {LEASES} at most", heartbeat.leases.len());
        return Err(invalid_argument("heartbeat.leases", what));
    }
    check_loaded("heartbeat.loaded_models", &heartbeat.loaded_models)
}

/// Waits for something that is done with a worker's message. What the worker says meanwhile is not
/// read, so it counts as alive.
async fn alive_until<T>(
    coordinator: &Coordinator,
    session: Session,
    done: impl Future<Output = T>,
) -> T {
    let mut done = std::pin::pin!(done);
    loop {
        match tokio::time::timeout(ALIVE, &mut done).await {
            Ok(done) => return done,
            // Fails only when the coordinator has stopped; then `done` says so.
            Err(_) => drop(coordinator.tell(Event::Alive(session)).await),
        }
    }
}

/// A rate that can be: what is not one would spread through every sum it is part of.
fn rate(steps_per_second: f64) -> Result<(), Status> {
    if steps_per_second.is_finite() && steps_per_second >= 0.0 {
        return Ok(());
    }
    let what = format!("{steps_per_second} is not a rate: give a number that is not negative");
    Err(invalid_argument("heartbeat.leases.steps_per_second", what))
}

/// Notes in the worker's trace of a lease that its end has come back.
fn note_end(end: &v1::TaskEnd) {
    if traces::are_on() && !end.trace_parent.is_empty() {
        let task = end.lease.as_ref().map_or("", |key| key.task.as_str());
        let failed = end.failure.is_some();
        let span = tracing::info_span!(
            target: traces::TARGET,
            parent: None,
            "lease ended",
            otel.kind = "consumer",
            task,
            failed
        );
        traces::set_parent(&span, &end.trace_parent);
    }
}

/// What is kept of a lease in memory, until the next heartbeat, is little.
fn bounded(lease: v1::LeaseProgress) -> Result<v1::LeaseProgress, Status> {
    let steps = lease.edit.as_ref().map_or(0, |edit| edit.steps.len());
    if steps > EDIT_STEPS {
        let what = format!("{steps} are too many for one heartbeat: give the newest {EDIT_STEPS}");
        return Err(invalid_argument("heartbeat.leases.edit.steps", what));
    }
    Ok(lease)
}

fn translate(session: Session, message: Message) -> Result<Event, Status> {
    let key = |key: Option<v1::LeaseKey>| lease_key(&key.unwrap_or_default());
    Ok(match message {
        Message::Hello(_) => return Err(invalid_argument("message", "a second 'hello'")),
        Message::Credits(credits) => {
            check_credits("credits.credits", credits.credits)?;
            Event::Credits(session, credits.credits)
        }
        Message::Heartbeat(heartbeat) => {
            check_heartbeat(&heartbeat)?;
            Event::Heartbeat {
                session,
                leases: heartbeat
                    .leases
                    .into_iter()
                    .map(|lease| {
                        rate(lease.steps_per_second)?;
                        Ok((key(lease.lease.clone())?, bounded(lease)?))
                    })
                    .collect::<Result<_, Status>>()?,
                loaded: heartbeat.loaded_models,
            }
        }
        Message::Commit(commit) => {
            check_fingerprint(commit.fingerprint.as_ref())?;
            let result = v1::UnitResult::decode(commit.result.as_slice())
                .map_err(|e| invalid_argument("commit.result", e.to_string()))?;
            if result.unit != commit.unit || result.outcome.is_none() {
                let what = format!("it is not a result of unit {}", commit.unit);
                return Err(invalid_argument("commit.result", what));
            }
            Event::Commit {
                session,
                lease: key(commit.lease)?,
                unit: commit.unit,
                result: CommittedResult::new(commit.result.into(), result, commit.fingerprint),
            }
        }
        Message::TaskEnd(end) => {
            note_end(&end);
            Event::TaskEnd {
                session,
                lease: key(end.lease)?,
                failure: end.failure.map(|failure| v1::Failure {
                    message: text::cut(&failure.message, FAILURE),
                    ..failure
                }),
            }
        }
        Message::Drain(_) => Event::Drain(session),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_of_itself_is_short() {
        let huge = || "x".repeat(1 << 20);
        let hello = |change: &dyn Fn(&mut Hello)| {
            let mut hello = Hello {
                worker_id: "w".to_owned(),
                protocol: PROTOCOL,
                capabilities: Some(v1::Capabilities {
                    loaded_models: vec!["models/a".to_owned()],
                    ..Default::default()
                }),
                credits: 2,
                ..Default::default()
            };
            change(&mut hello);
            check_hello(&hello)
        };
        let of = |hello: &mut Hello| hello.capabilities.clone().unwrap();
        assert!(hello(&|_| {}).is_ok());
        for status in [
            hello(&|it| it.credits = u32::MAX).unwrap_err(),
            hello(&|it| it.held = vec![v1::LeaseKey::default(); LEASES + 1]).unwrap_err(),
            hello(&|it| {
                let host = huge();
                it.capabilities = Some(v1::Capabilities { host, ..of(it) });
            })
            .unwrap_err(),
            hello(&|it| {
                let loaded_models = vec!["models/a".to_owned(); LOADED + 1];
                it.capabilities = Some(v1::Capabilities {
                    loaded_models,
                    ..of(it)
                });
            })
            .unwrap_err(),
            hello(&|it| {
                let loaded_models = vec![format!("models/{}", huge())];
                it.capabilities = Some(v1::Capabilities {
                    loaded_models,
                    ..of(it)
                });
            })
            .unwrap_err(),
        ] {
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().len() < 2000);
        }
        let end = v1::TaskEnd {
            lease: Some(v1::LeaseKey {
                task: names::task(uuid::Uuid::nil(), 0),
                epoch: 1,
            }),
            failure: Some(v1::Failure {
                message: huge(),
                ..Default::default()
            }),
            ..Default::default()
        };
        match translate(Session(1), Message::TaskEnd(end)).unwrap() {
            Event::TaskEnd { failure, .. } => {
                assert!(failure.unwrap().message.len() < FAILURE + 100);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_heartbeat_with_what_is_not_a_rate_is_refused() {
        for (rate, taken) in [
            (0.0, true),
            (1e9, true),
            (-1.0, false),
            (f64::NAN, false),
            (f64::INFINITY, false),
        ] {
            let progress = v1::LeaseProgress {
                lease: Some(v1::LeaseKey {
                    task: format!("jobs/{}/tasks/0", uuid::Uuid::nil()),
                    epoch: 1,
                }),
                steps: 1,
                steps_per_second: rate,
                edit: None,
            };
            let heartbeat = v1::Heartbeat {
                leases: vec![progress],
                ..Default::default()
            };
            let translated = translate(Session(1), Message::Heartbeat(heartbeat));
            assert_eq!(translated.is_ok(), taken, "{rate}");
        }
    }
}
