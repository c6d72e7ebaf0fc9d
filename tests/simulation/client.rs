//! A client: asks for jobs, follows them, cancels some, reads results at any time, and writes down
//! what it is told.

use std::cell::RefCell;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use palimpsest::client::Client;
use palimpsest::coordinator::is_terminal;
use palimpsest::proto::v1::{
    CancelJobRequest, CreateJobRequest, ExplainJobRequest, GetJobRequest, Job, JobState,
    ListJobsRequest, ListResultsRequest, ListTasksRequest, ListWorkersRequest, WatchJobRequest,
};
use prost::Message;
use tokio::time::{sleep, timeout};
use tonic::{Code, Response, Status};

use super::dice::Dice;
use super::ledger::{Floor, Ledger};
use super::network;
use super::plan::{Asked, jobs};
use super::site::Site;

/// How long a call may take before it is made again on another connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs a client to the end of all its jobs.
pub async fn run(site: Arc<Site>, name: String) -> turmoil::Result {
    let mut dice = site.dice(&name);
    let asked = jobs(&name, &mut dice);
    let coordinators = site.theme.coordinators();
    let caller = Caller {
        site,
        name,
        dice: RefCell::new(dice),
        client: RefCell::new(network::client(coordinators)),
    };
    for asked in asked {
        let pause = caller.among(0..=1_500);
        sleep(Duration::from_millis(pause)).await;
        caller.see_through(&asked).await?;
    }
    Ok(())
}

struct Caller {
    site: Arc<Site>,
    name: String,
    dice: RefCell<Dice>,
    client: RefCell<Client>,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

impl Caller {
    async fn see_through(&self, asked: &Asked) -> turmoil::Result {
        let job = self.submit(&asked.request).await?;
        let cancel = async {
            let Some(after) = asked.cancel else {
                return Ok(());
            };
            sleep(after).await;
            let request = CancelJobRequest { name: job.clone() };
            let cancelled = self
                .call("cancels", |client| {
                    let request = request.clone();
                    async move { client.jobs().cancel_job(request).await }
                })
                .await?
                .job
                .unwrap_or_default();
            self.write(|ledger| ledger.cancelled(&cancelled));
            Ok::<_, Box<dyn Error>>(())
        };
        let over = RefCell::new(false);
        let follow = async {
            let state = self.follow(&job).await;
            *over.borrow_mut() = true;
            state
        };
        let peek = async {
            while !*over.borrow() {
                let pause = self.among(0..=700);
                sleep(Duration::from_millis(pause)).await;
                self.peek(&job).await?;
            }
            Ok::<_, Box<dyn Error>>(())
        };
        let (state, cancelled, peeked) = tokio::join!(follow, cancel, peek);
        cancelled?;
        peeked?;
        let state = state?;
        let full = self.get(&job).await?;
        let results = self.results(&job, &full).await?;
        let units = full.counts.unwrap_or_default().units;
        self.site.say(
            &self.name,
            format!("{} is {state:?} with {results} results", full.display_name),
        );
        self.write(|ledger| {
            let done = match state {
                JobState::Succeeded => results == units,
                JobState::Cancelled => asked.cancel.is_some() && results <= units,
                _ => false,
            };
            ledger.must(done, || {
                format!(
                    "{} is {state:?} with {results} of {units} results",
                    asked.request.request_id
                )
            });
        });
        Ok(())
    }

    async fn submit(&self, request: &CreateJobRequest) -> Outcome<String> {
        let mut name = String::new();
        // Again and again: the same request makes the same job.
        for _ in 0..self.among(1..=3) {
            let job = self
                .call("asks", |client| {
                    let request = request.clone();
                    async move { client.jobs().create_job(request).await }
                })
                .await?
                .job
                .unwrap_or_default();
            self.write(|ledger| {
                ledger.accepted(&request.request_id, &job.name);
                ledger.saw(&job, Floor::default());
            });
            name = job.name;
        }
        self.site
            .say(&self.name, format!("was given {}", request.request_id));
        Ok(name)
    }

    /// Follows a job to its end, over as many streams as it takes: no event is missed or told
    /// twice.
    async fn follow(&self, job: &str) -> Outcome<JobState> {
        let mut after = 0;
        loop {
            let client = self.client.borrow().clone();
            let request = WatchJobRequest {
                name: job.to_owned(),
                after_sequence: after,
            };
            let opened = timeout(PATIENCE, async { client.jobs().watch_job(request).await }).await;
            let mut stream = match opened {
                Ok(Ok(response)) => response.into_inner(),
                Ok(Err(status)) => {
                    self.bear("follows", &status)?;
                    self.pause().await;
                    continue;
                }
                Err(_) => {
                    self.reconnect();
                    continue;
                }
            };
            loop {
                // A watch says something every few seconds.
                let message = match timeout(3 * PATIENCE, stream.message()).await {
                    Ok(Ok(Some(message))) => message,
                    Ok(Ok(None)) => {
                        let job = self.get(job).await?;
                        self.write(|ledger| {
                            ledger.must(
                                is_terminal(job.state()) && job.last_sequence == after,
                                || format!("a watch ended after event {after} of {job:?}"),
                            );
                        });
                        return Ok(job.state());
                    }
                    Ok(Err(status)) => {
                        self.bear("follows", &status)?;
                        break;
                    }
                    Err(_) => {
                        self.reconnect();
                        break;
                    }
                };
                let last = after + message.events.len() as u64;
                if last > after {
                    self.site
                        .say(&self.name, format!("sees events {} to {last}", after + 1));
                }
                self.write(|ledger| {
                    // Of what came on this stream: what other calls were told may be newer.
                    let floor = Floor::events(after);
                    for event in message.events {
                        ledger.must(event.sequence == after + 1, || {
                            format!("event {} of {job} was told after {after}", event.sequence)
                        });
                        after = event.sequence;
                        ledger.event(job, event);
                    }
                    ledger.saw(&message.job.unwrap_or_default(), floor);
                });
                if self.among(1..=20) == 1 {
                    break;
                }
            }
            self.pause().await;
        }
    }

    /// Reads something of a job that may be running.
    async fn peek(&self, job: &str) -> Outcome<()> {
        let parent = job.to_owned();
        match self.among(0..=5) {
            0 => {
                let request = ListTasksRequest {
                    parent,
                    ..Default::default()
                };
                let tasks = self
                    .call("lists tasks", |client| {
                        let request = request.clone();
                        async move { client.jobs().list_tasks(request).await }
                    })
                    .await?
                    .tasks;
                self.write(|ledger| {
                    let over = tasks.iter().find(|task| task.units_done > task.unit_count);
                    ledger.must(over.is_none(), || format!("I1: {over:?}"));
                });
            }
            1 => {
                let request = ListJobsRequest::default();
                let before = self.site.ledger.lock().expect("no panic").names();
                let jobs = self
                    .call("lists jobs", |client| {
                        let request = request.clone();
                        async move { client.jobs().list_jobs(request).await }
                    })
                    .await?
                    .jobs;
                self.write(|ledger| {
                    let lost = before
                        .iter()
                        .find(|name| jobs.iter().all(|job| job.name != **name));
                    ledger.must(lost.is_none(), || format!("I3: {lost:?} is not listed"));
                });
            }
            2 => {
                let request = ExplainJobRequest { name: parent };
                self.call("asks why", |client| {
                    let request = request.clone();
                    async move { client.jobs().explain_job(request).await }
                })
                .await?;
            }
            3 => {
                let request = ListWorkersRequest::default();
                self.call("lists workers", |client| {
                    let request = request.clone();
                    async move { client.workers().list_workers(request).await }
                })
                .await?;
            }
            4 => {
                self.get(job).await?;
            }
            _ => {
                let full = self.get(job).await?;
                self.results(job, &full).await?;
            }
        }
        Ok(())
    }

    async fn get(&self, job: &str) -> Outcome<Job> {
        let floor = self.site.ledger.lock().expect("no panic").floor(job);
        let request = GetJobRequest {
            name: job.to_owned(),
        };
        let job = self
            .call("looks", |client| {
                let request = request.clone();
                async move { client.jobs().get_job(request).await }
            })
            .await?
            .job
            .unwrap_or_default();
        self.write(|ledger| ledger.saw(&job, floor));
        Ok(job)
    }

    /// Reads the results that are there, page by page, and gives their number.
    async fn results(&self, job: &str, full: &Job) -> Outcome<u64> {
        let page_size = self.among(1..=20) as u32;
        let mut request = ListResultsRequest {
            parent: job.to_owned(),
            page_size,
            ..Default::default()
        };
        let (mut count, mut last) = (0, None);
        loop {
            let page = self
                .call("reads", |client| {
                    let request = request.clone();
                    async move { client.jobs().list_results(request).await }
                })
                .await?;
            self.write(|ledger| {
                for result in &page.results {
                    let unit = result.unit;
                    ledger.must(last.is_none_or(|last| last < unit), || {
                        format!("unit {unit} of {job} was listed after {last:?}")
                    });
                    last = Some(unit);
                    ledger.result(job, full, unit, result.encode_to_vec());
                }
            });
            count += page.results.len() as u64;
            if page.next_page_token.is_empty() {
                return Ok(count);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Makes a call until it is answered.
    async fn call<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        what: &str,
        call: impl Fn(Client) -> F,
    ) -> Outcome<T> {
        loop {
            let client = self.client.borrow().clone();
            match timeout(PATIENCE, call(client)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => self.bear(what, &status)?,
                Err(_) => self.reconnect(),
            }
            self.pause().await;
        }
    }

    /// What a client must live with: no connection, or a coordinator that is not ready.
    fn bear(&self, what: &str, status: &Status) -> turmoil::Result {
        let transport = status.source().is_some();
        let away = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
        if transport || away {
            self.site
                .say(&self.name, format!("{what} in vain: {:?}", status.code()));
            return Ok(());
        }
        Err(format!("{} {what} and is told: {status:?}", self.name).into())
    }

    fn reconnect(&self) {
        self.site.say(&self.name, "waits in vain");
        *self.client.borrow_mut() = network::client(self.site.theme.coordinators());
    }

    async fn pause(&self) {
        let pause = self.among(20..=400);
        sleep(Duration::from_millis(pause)).await;
    }

    fn among(&self, range: std::ops::RangeInclusive<u64>) -> u64 {
        self.dice.borrow_mut().among(range)
    }

    fn write(&self, entry: impl FnOnce(&mut Ledger)) {
        entry(&mut self.site.ledger.lock().expect("no panic"));
    }
}
