//! Whole processes, killed by SIGKILL at any moment, also while they start: nothing that anybody
//! was told is lost, nothing is committed twice, and the results are those of an undisturbed run,
//! byte for byte.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // a test owns its time

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::dice::Dice;
use crate::common::sweep::*;
use crate::common::{Process, Server};
use palimpsest::client::{Client, endpoint};
use palimpsest::proto::v1::{
    self, CreateJobRequest, GetJobRequest, Job, JobEvent, JobState, WatchJobRequest, job::Spec,
    job_event,
};
use tokio::time::sleep;

/// Workers that run, and die, at the same time.
const WORKERS: usize = 3;

/// How long a kill waits for a unit to be committed after the kill before it, at most.
const PROGRESS: Duration = Duration::from_secs(5);

#[test]
fn kills_of_everything_change_no_byte_and_lose_nothing_that_was_told() {
    // So many samples, which cost the fake engine nothing, that the sweep is cut into many tasks.
    let sweep = ["--noise", "s3", "--samples", "10000"];
    under_kills(170, 300, &[&sweep], &["--fake", "1"], &["--fake", "100"]);
}

#[cfg(feature = "torch")]
#[test]
fn kills_of_real_sweeps_change_no_byte_and_lose_nothing_that_was_told() {
    // A few facts are one task: a job for every worker.
    let sweeps = ["0.3", "0.4", "0.5"].map(|n| ["--noise", n, "--samples", "3", "--window", "2"]);
    let sweeps = [&sweeps[0][..], &sweeps[1], &sweeps[2]];
    let engine = ["--device", "cpu", "--threads", "1"];
    under_kills(40, 40, &sweeps, &engine, &engine);
}

/// Runs sweeps over so many facts, while so many processes are killed.
fn under_kills(kills: usize, facts: usize, sweeps: &[&[&str]], calm: &[&str], engine: &[&str]) {
    let expected: Vec<String> = sweeps
        .iter()
        .map(|sweep| undisturbed(facts, sweep, calm))
        .collect();

    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => u64::from(std::process::id()),
    };
    println!("SEED={seed} draws the same kills again");
    let mut dice = Dice::new(seed, "kills");
    let site = quick_site();
    write_facts(&site, facts);
    let mut server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let jobs: Vec<String> = sweeps
        .iter()
        .map(|sweep| submit(&site, &server, sweep))
        .collect();
    let witness = Witness::start(server.url(), jobs[0].clone());

    let mut started = 0;
    let mut start = |server: &Server| {
        started += 1;
        site.worker(server, &format!("worker-{started}"), engine)
    };
    let mut workers: Vec<Process> = (0..WORKERS).map(|_| start(&server)).collect();
    let mut killed = 0;
    while killed < kills {
        // Half of the kills fall on processes that get to work, the others on some that start.
        if dice.once_in(2) {
            witness.wait_for_progress();
        }
        thread::sleep(Duration::from_millis(dice.among(0..=300)));
        // Mostly one of them, sometimes all at once, as when a machine loses its power.
        let all = dice.once_in(12);
        let one = dice.below(1 + WORKERS as u64) as usize;
        if all || one == WORKERS {
            kill(&mut server.process);
            killed += 1;
        }
        for (n, worker) in workers.iter_mut().enumerate() {
            if all || one == n {
                kill(worker);
                killed += 1;
                *worker = start(&server);
            }
        }
        if server.process.ended().is_some() {
            server.process = site.start_serving(&server.address);
        }
    }
    let units = witness.units();
    println!("{killed} kills, {units} units committed under them");
    assert!(units > 0, "no unit was committed under kills");

    // The witness waits for whoever serves.
    let told = witness.end();
    assert_eq!(told.state, JobState::Succeeded);
    for (job, expected) in jobs.iter().zip(&expected) {
        assert_eq!(results(&site, &server, job), *expected);
    }
    let units: Vec<u64> = told.events.iter().filter_map(committed).collect();
    let distinct: BTreeSet<u64> = units.iter().copied().collect();
    assert_eq!(
        units.len(),
        distinct.len(),
        "I1: a unit was committed twice"
    );
    assert_eq!(told.events, told.again, "I3: events were taken back");
    assert!(told.jobs.len() > 1, "no job was accepted under kills");
}

/// Kills a process, which must have lived until now.
fn kill(process: &mut Process) {
    let ended = process.ended();
    assert!(
        ended.is_none(),
        "{} ended by itself: {ended:?}\n{}",
        process.name(),
        process.said()
    );
    process.kill();
}

fn committed(event: &JobEvent) -> Option<u64> {
    match event.event {
        Some(job_event::Event::UnitCommitted(unit)) => Some(unit),
        _ => None,
    }
}

/// A client that lives through all kills and writes down what it is told: every event of a job,
/// and the jobs that it asks for itself.
struct Witness {
    events: Arc<Mutex<Vec<JobEvent>>>,
    calm: Arc<AtomicBool>,
    thread: thread::JoinHandle<Told>,
}

/// What a witness was told.
struct Told {
    state: JobState,
    /// The events as they came.
    events: Vec<JobEvent>,
    /// The events as they are told once more, when all is over.
    again: Vec<JobEvent>,
    jobs: BTreeMap<String, String>,
}

impl Witness {
    fn start(url: String, job: String) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let calm = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (events, calm) = (Arc::clone(&events), Arc::clone(&calm));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(witness(&url, &job, &events, &calm))
            }
        });
        Self {
            events,
            calm,
            thread,
        }
    }

    /// Waits until a unit is committed that was not before, or nothing works at the moment.
    fn wait_for_progress(&self) {
        let (start, before) = (Instant::now(), self.units());
        while self.units() == before && start.elapsed() < PROGRESS && !self.thread.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn units(&self) -> usize {
        self.events
            .lock()
            .unwrap()
            .iter()
            .filter_map(committed)
            .count()
    }

    /// Waits for the end of the job, now that nothing is killed any more.
    fn end(self) -> Told {
        self.calm.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn witness(url: &str, job: &str, events: &Mutex<Vec<JobEvent>>, calm: &AtomicBool) -> Told {
    let client = Client::new(endpoint(url).unwrap().connect_lazy());
    let ask = async {
        let mut jobs = BTreeMap::new();
        while !calm.load(Ordering::Relaxed) {
            let id = format!("request-{}", jobs.len());
            jobs.insert(id.clone(), create(&client, &id).await);
            sleep(Duration::from_millis(500)).await;
        }
        jobs
    };
    let (jobs, ()) = tokio::join!(ask, follow(&client, job, events));
    for (id, name) in &jobs {
        let again = create(&client, id).await;
        assert_eq!(again, *name, "I3: the request {id} was forgotten");
        follow(&client, name, &Mutex::default()).await;
        assert_eq!(state(&client, name).await, JobState::Succeeded);
    }
    let again = Mutex::default();
    follow(&client, job, &again).await;
    Told {
        state: state(&client, job).await,
        events: std::mem::take(&mut *events.lock().unwrap()),
        again: again.into_inner().unwrap(),
        jobs,
    }
}

/// Follows a job to its end, over as many streams as it takes: no event is missed or told twice.
async fn follow(client: &Client, job: &str, events: &Mutex<Vec<JobEvent>>) {
    loop {
        let request = WatchJobRequest {
            name: job.to_owned(),
            after_sequence: events.lock().unwrap().len() as u64,
        };
        if let Ok(response) = client.jobs().watch_job(request).await {
            let mut stream = response.into_inner();
            loop {
                match stream.message().await {
                    Ok(Some(message)) => {
                        let mut events = events.lock().unwrap();
                        for event in message.events {
                            let next = events.len() as u64 + 1;
                            assert_eq!(event.sequence, next, "I3: {event:?}");
                            events.push(event);
                        }
                    }
                    Ok(None) => return,
                    Err(_) => break,
                }
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Asks for a small job until it is given a name for it.
async fn create(client: &Client, request_id: &str) -> String {
    let job = Job {
        model: "models/tiny".to_owned(),
        spec: Some(Spec::Generate(v1::GenerateSpec {
            prompts: vec![format!("The request {request_id} asks for")],
            max_tokens: 2,
            ..Default::default()
        })),
        ..Default::default()
    };
    let request = CreateJobRequest {
        job: Some(job),
        request_id: request_id.to_owned(),
        validate_only: false,
    };
    loop {
        if let Ok(response) = client.jobs().create_job(request.clone()).await {
            return response.into_inner().job.unwrap().name;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn state(client: &Client, job: &str) -> JobState {
    let request = GetJobRequest {
        name: job.to_owned(),
    };
    loop {
        if let Ok(response) = client.jobs().get_job(request.clone()).await {
            return response.into_inner().job.unwrap().state();
        }
        sleep(Duration::from_millis(50)).await;
    }
}
