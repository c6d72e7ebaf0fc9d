//! How the coordinator carries a large sweep: a thousand workers, a million tasks, the real driver
//! and the real store on disk. The workers are simulated: they answer at once.
//!
//! ```text
//! cargo bench --bench scheduler
//! cargo bench --bench scheduler -- --tasks 100000 --workers 200 --scores 300 --grpc
//! cargo bench --bench scheduler -- --jobs 100000
//! cargo bench --bench scheduler -- --log bucket --latency 20ms
//! ```
//!
//! With `--jobs` it makes so many small jobs instead, and times how long lists of them take that
//! filter.
//!
//! With `--log bucket` the log is not in the folder but in a bucket, here one in memory each of whose
//! requests takes the latency. A standby follows it; at the end it takes over from the leader, which
//! is gone without a word, in the middle of a sweep of all tasks; then another one does on a new
//! machine.
//!
//! Every figure is for the whole process, simulated workers included. On a machine that is busy
//! with other things the CPU time says more than the clock does: 10,000 completions a second on
//! two cores are 200 microseconds of CPU each. The restart is timed in a process of its own.
#![allow(clippy::disallowed_methods)] // a bench measures time

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use palimpsest::api::server;
use palimpsest::client::Client;
use palimpsest::config::parse_duration;
use palimpsest::coordinator::{
    self, CommittedResult, Coordinator, Done, Event, JobFilter, LeaseKey, Limits, NewJob, Session,
    is_terminal, tasks,
};
use palimpsest::proto::v1::connect_request::Message as Request;
use palimpsest::proto::v1::connect_response::Message as Response;
use palimpsest::proto::v1::{self, job::Spec, unit_result::Outcome};
use palimpsest::store::{self, Follower, Sharing, Store};
use palimpsest::work::{self, Items};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use shelf::Reach;

#[path = "../tests/common/shelf.rs"]
mod shelf;

/// Streams that share a connection in the variant over gRPC.
const STREAMS: usize = 50;
/// Jobs that are submitted to idle workers, to time the first lease.
const FIRST_LEASES: usize = 21;

struct Options {
    tasks: u64,
    workers: usize,
    credits: u32,
    /// Numbers in a result, 8 bytes each.
    scores: usize,
    /// Over TCP and gRPC, and not by calling the coordinator.
    grpc: bool,
    /// Where the store lies while the bench runs.
    folder: PathBuf,
    /// Only open the store in this folder, and say how long that took.
    restart: Option<PathBuf>,
    /// Jobs to list.
    jobs: Option<usize>,
    /// The time of a request to the bucket in which the log is; none when it is in the folder.
    bucket: Option<Duration>,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self {
            tasks: 1_000_000,
            workers: 1_000,
            credits: 2,
            scores: 24,
            grpc: false,
            folder: std::env::temp_dir(),
            restart: None,
            jobs: None,
            bucket: None,
        };
        let mut latency = Duration::from_millis(20);
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--bench" => continue, // cargo's own
                "--grpc" => {
                    options.grpc = true;
                    continue;
                }
                _ => {}
            }
            let value = arguments
                .next()
                .with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--tasks" => options.tasks = value.parse()?,
                "--workers" => options.workers = value.parse()?,
                "--credits" => options.credits = value.parse()?,
                "--scores" => options.scores = value.parse()?,
                "--folder" => options.folder = value.into(),
                "--restart" => options.restart = Some(value.into()),
                "--jobs" => options.jobs = Some(value.parse()?),
                "--log" => options.bucket = (value == "bucket").then_some(latency),
                "--latency" => {
                    latency = parse_duration(&value).map_err(anyhow::Error::msg)?;
                    options.bucket = options.bucket.map(|_| latency);
                }
                _ => bail!("unknown option {name}"),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<()> {
    let options = Options::read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match (&options.restart, options.jobs) {
            (Some(folder), _) => restart(folder).await,
            (None, Some(jobs)) => lists(&options, jobs).await,
            (None, None) => bench(&options).await,
        }
    })
}

async fn bench(options: &Options) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("palimpsest-bench-")
        .tempdir_in(&options.folder)?;
    println!(
        "{} tasks of one unit, {} workers of {} credits, {} numbers a result, {}",
        options.tasks,
        options.workers,
        options.credits,
        options.scores,
        if options.grpc {
            "gRPC over TCP"
        } else {
            "in process"
        },
    );
    println!("store in {}", folder.path().display());
    let shelf = options.bucket.map(Reach::slow);
    if let Some(latency) = options.bucket {
        println!("its log in a bucket, {latency:?} a request");
    }
    let store = match &shelf {
        None => Arc::new(Store::open(folder.path())?),
        Some(shelf) => Arc::new(Store::open_with(folder.path(), sharing(shelf))?),
    };
    let standby = shelf
        .as_ref()
        .map(|shelf| standby(&folder.path().join("standby"), shelf));
    let (coordinator, actor) = Coordinator::start(store.clone(), limits(options))?;
    let counted = Arc::new(Counted::default());
    let links = links(options, &coordinator).await?;
    let workers: Vec<_> = links
        .into_iter()
        .enumerate()
        .map(|(n, link)| {
            tokio::spawn(work(
                n,
                options.credits,
                options.scores,
                link,
                counted.clone(),
            ))
        })
        .collect();
    wait_for_workers(&coordinator, options.workers).await?;
    first_leases(&coordinator, &counted).await?;
    sweep(options, &coordinator, &store, &counted).await?;

    if options.grpc {
        // The connections of the server hold the store for as long as this process lives.
        return Ok(());
    }
    for worker in workers {
        worker.abort();
        let _ = worker.await;
    }
    drop((coordinator, store));
    actor.await??;
    if let (Some(shelf), Some(standby)) = (shelf, standby) {
        return take_over(&folder.path().join("new"), &shelf, standby).await;
    }
    let program = std::env::current_exe()?;
    let status = std::process::Command::new(program)
        .arg("--restart")
        .arg(folder.path())
        .status()?;
    if !status.success() {
        bail!("the restart failed: {status}");
    }
    Ok(())
}

/// How long a leader may be silent: the default.
const TAKEOVER: Duration = Duration::from_secs(6);

fn sharing(shelf: &Arc<Reach>) -> store::Options {
    store::Options {
        log: Some(Sharing {
            shelf: Some(shelf.clone()),
            ..Sharing::new("bench".to_owned(), TAKEOVER)
        }),
        ..store::Options::default()
    }
}

/// The folder of another machine, which reaches the same objects, and the store there once it leads.
fn standby(folder: &Path, shelf: &Arc<Reach>) -> JoinHandle<Result<Store>> {
    let (folder, options) = (folder.to_owned(), sharing(shelf));
    tokio::spawn(async move {
        std::fs::create_dir_all(&folder)?;
        let objects = folder.with_file_name("objects");
        std::os::unix::fs::symlink(objects, folder.join("objects"))?;
        let open = move || Follower::open(&folder, options);
        let follower = tokio::task::spawn_blocking(open).await??;
        Ok(coordinator::lead(follower, true).await?)
    })
}

/// Times how long it takes until another coordinator serves.
async fn take_over(
    new: &Path,
    shelf: &Arc<Reach>,
    standby: JoinHandle<Result<Store>>,
) -> Result<()> {
    let gone = Instant::now();
    let store = Arc::new(standby.await??);
    let leads = gone.elapsed().as_secs_f64();
    let (coordinator, actor) = Coordinator::start(store.clone(), Limits::default())?;
    println!(
        "a standby leads {leads:.1} s after the leader is gone, {:.1} s of which it waits for it, and serves after {:.1} s",
        TAKEOVER.as_secs_f64(),
        gone.elapsed().as_secs_f64()
    );
    drop(coordinator);
    actor.await??;
    store.leave()?;
    drop(store);
    let start = Instant::now();
    let store = Arc::new(self::standby(new, shelf).await??);
    let (_coordinator, _actor) = Coordinator::start(store, Limits::default())?;
    println!(
        "a new machine, with nothing but the bucket, serves after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Times lists of many jobs that filter: while the jobs are open, and once they have ended.
async fn lists(options: &Options, jobs: usize) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("palimpsest-bench-")
        .tempdir_in(&options.folder)?;
    let store = Arc::new(Store::open(folder.path())?);
    let limits = Limits {
        jobs_per_owner: jobs as u64 + 1,
        units_per_owner: jobs as u64 + 1,
        ..limits(options)
    };
    let (coordinator, _actor) = Coordinator::start(store, limits)?;
    let fact = facts(1).encode_to_vec();
    let start = Instant::now();
    let made = futures::stream::iter(0..jobs).map(|n| {
        let (coordinator, fact) = (coordinator.clone(), fact.clone());
        async move {
            let mut new = job(Items::parse(fact.into())?, "", n);
            new.job.owner = format!("owner-{}", n % 100);
            new.job.display_name = format!("sweep number {n}");
            submit(&coordinator, new).await
        }
    });
    let ids: Vec<Result<Uuid>> = made.buffer_unordered(512).collect().await;
    println!("{jobs} jobs submitted in {:.1?}", start.elapsed());
    measure(&coordinator, "open").await?;
    let ended = futures::stream::iter(ids).map(|id| {
        let coordinator = coordinator.clone();
        async move { Ok(coordinator.ask(Event::Cancel(id?)).await?) }
    });
    let ended: Vec<Result<Done>> = ended.buffer_unordered(512).collect().await;
    for one in ended {
        one?;
    }
    measure(&coordinator, "ended").await
}

/// What `ListJobs` asks of the scheduler, for filters that pass nothing, one job, and one in a
/// hundred.
async fn measure(coordinator: &Coordinator, what: &str) -> Result<()> {
    let filters = [
        (
            "of no owner",
            JobFilter {
                owner: "nobody".to_owned(),
                ..JobFilter::default()
            },
        ),
        (
            "of one name",
            JobFilter {
                text: "number 7777".to_owned(),
                ..JobFilter::default()
            },
        ),
        (
            "of one owner",
            JobFilter {
                owner: "owner-7".to_owned(),
                ..JobFilter::default()
            },
        ),
    ];
    for (name, filter) in filters {
        let mut times = Vec::new();
        let mut passed = 0;
        for _ in 0..11 {
            let filter = filter.clone();
            let start = Instant::now();
            let (found, all) = coordinator
                .inspect(move |core| {
                    let (found, all) = core.page_of_jobs(None, 101, 1 << 20, &filter);
                    (found.len(), all)
                })
                .await?;
            times.push(start.elapsed());
            passed = all;
            assert!(found as u64 <= all);
        }
        times.sort();
        println!(
            "{what} jobs {name}: {passed} pass, {:.1?} (median of 11)",
            times[5]
        );
    }
    Ok(())
}

fn limits(options: &Options) -> Limits {
    Limits {
        heartbeat: 5_000,
        worker_timeout: 60_000,
        units_per_owner: 2 * options.tasks + 1_000,
        ..Limits::default()
    }
}

async fn wait_for_workers(coordinator: &Coordinator, workers: usize) -> Result<()> {
    loop {
        let there = coordinator
            .inspect(|core| core.workers("", usize::MAX).len())
            .await?;
        if there == workers {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The time from asking for a job to its first lease, with all workers idle.
async fn first_leases(coordinator: &Coordinator, counted: &Counted) -> Result<()> {
    let mut times = Vec::new();
    for n in 0..FIRST_LEASES {
        let before = counted.leases.load(Ordering::Relaxed);
        let start = Instant::now();
        let id = submit(coordinator, job(Items::of(&facts(1)), "", n)).await?;
        while counted.leases.load(Ordering::Relaxed) == before {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
        wait_for_end(coordinator, id).await?;
    }
    times.sort_by(f64::total_cmp);
    println!(
        "submit to first lease, idle: median {:.1} ms, longest {:.1} ms of {FIRST_LEASES}",
        times[FIRST_LEASES / 2],
        times[FIRST_LEASES - 1]
    );
    Ok(())
}

async fn sweep(
    options: &Options,
    coordinator: &Coordinator,
    store: &Arc<Store>,
    counted: &Counted,
) -> Result<()> {
    let list = facts(options.tasks).encode_to_vec();
    let digest = store.objects().put(&list)?.to_string();
    println!("facts: {:.1} MB in an object", list.len() as f64 / 1e6);
    let new = job(Items::parse(list.into())?, &digest, FIRST_LEASES);
    let start = Instant::now();
    let (flushes, cpu) = (store.flushes(), cpu_seconds());
    let done = counted.done.load(Ordering::Relaxed);
    let id = submit(coordinator, new).await?;
    println!("accepted in {:.2} s", start.elapsed().as_secs_f64());
    let mut last = (Instant::now(), 0);
    // Not to its end: of a job that has ended a restart reads next to nothing.
    let tasks = loop {
        let now = counted.done.load(Ordering::Relaxed) - done;
        if now >= options.tasks - options.tasks / 100 {
            break now as f64;
        }
        if is_terminal(state(coordinator, id).await?) {
            bail!("the job has ended after {now} completions");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if last.0.elapsed() > Duration::from_secs(5) {
            let rate = (now - last.1) as f64 / last.0.elapsed().as_secs_f64();
            println!(
                "  {now} done, {rate:.0}/s, {} MB resident",
                memory("VmRSS:")?
            );
            last = (Instant::now(), now);
        }
    };
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let flushes = store.flushes() - flushes;
    println!(
        "{:.0} durable completions a second: {seconds:.1} s by the clock, {cpu:.1} s of CPU, {:.0} us each",
        tasks / seconds,
        cpu / tasks * 1e6
    );
    println!(
        "{flushes} flushes, {:.0} completions each",
        tasks / flushes as f64
    );
    println!(
        "resident: {} MB now, {} MB at most",
        memory("VmRSS:")?,
        memory("VmHWM:")?
    );
    let size = folder_size(store.path())?;
    println!("store: {:.0} MB on disk", size as f64 / 1e6);
    Ok(())
}

/// Opens a store as a coordinator that starts does, and looks at its newest job.
async fn restart(folder: &Path) -> Result<()> {
    let start = Instant::now();
    let store = Arc::new(Store::open(folder)?);
    let opened = start.elapsed().as_secs_f64();
    let (coordinator, _actor) = Coordinator::start(store, Limits::default())?;
    let newest = coordinator
        .inspect(|core| core.jobs_before(None, 1, 0))
        .await?;
    let seconds = start.elapsed().as_secs_f64();
    let counts = newest.first().and_then(|(_, job)| job.counts);
    let counts = counts.context("the store has no job")?;
    println!(
        "restart in the middle of a sweep, to serving {} tasks and {} results: {seconds:.1} s by the clock ({opened:.1} s of it \
         opening), {:.1} s of CPU",
        counts.tasks,
        counts.units_done,
        cpu_seconds()
    );
    println!(
        "resident after it: {} MB now, {} MB at most",
        memory("VmRSS:")?,
        memory("VmHWM:")?
    );
    Ok(())
}

// ---- Jobs ----

fn facts(count: u64) -> v1::FactList {
    let fact = |n| {
        let subject = format!("The tower of town {n}");
        v1::Fact {
            prompt: format!("{subject} stands in the country of"),
            subject,
            ..Default::default()
        }
    };
    v1::FactList {
        facts: (0..count).map(fact).collect(),
    }
}

/// A sweep over facts, each a task of its own.
fn job(items: Items, object: &str, n: usize) -> NewJob {
    let spec = v1::TraceSpec {
        kinds: vec![v1::Kind::Hidden as i32],
        noise: "0.1".to_owned(),
        samples: 10,
        window: 10,
        ..Default::default()
    };
    let mut job = v1::Job {
        model: "models/none".to_owned(),
        spec: Some(Spec::Trace(spec)),
        ..Default::default()
    };
    if !object.is_empty()
        && let Some(work) = work::of_mut(&mut job)
    {
        work.name_parts_object(object);
    }
    let shape = v1::model::Shape::default();
    let tasks = tasks(&job, &items, &shape, &(-1.0).into());
    NewJob {
        id: Uuid::from_u128(n as u128 + 1),
        job,
        items,
        model: v1::Model::default(),
        tasks,
        request_id: String::new(),
        request_digest: String::new(),
        principal: String::new(),
        earlier: Vec::new(),
    }
}

async fn submit(coordinator: &Coordinator, new: NewJob) -> Result<Uuid> {
    match coordinator.ask(Event::Submit(Box::new(new))).await? {
        Done::Made(id) => Ok(id),
        other => bail!("a job was asked for, and {other:?} is the answer"),
    }
}

async fn state(coordinator: &Coordinator, id: Uuid) -> Result<v1::JobState> {
    let job = coordinator.inspect(move |core| core.job(id)).await?;
    Ok(job.context("the job is not there")?.state())
}

async fn wait_for_end(coordinator: &Coordinator, id: Uuid) -> Result<()> {
    while !is_terminal(state(coordinator, id).await?) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

// ---- Workers ----

#[derive(Default)]
struct Counted {
    leases: AtomicU64,
    done: AtomicU64,
}

/// What connects a simulated worker.
enum Link {
    Direct(
        Coordinator,
        Session,
        mpsc::Receiver<Result<Response, palimpsest::coordinator::Closing>>,
    ),
    Grpc(Client),
}

async fn links(options: &Options, coordinator: &Coordinator) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    if !options.grpc {
        for _ in 0..options.workers {
            let (session, outbox) = coordinator.open_session().await?;
            links.push(Link::Direct(coordinator.clone(), session, outbox));
        }
        return Ok(links);
    }
    let incoming = server::bind("127.0.0.1:0".parse()?)?;
    let address = format!("http://{}", incoming.local_addr()?);
    tokio::spawn(server::serve(
        coordinator.clone(),
        incoming,
        std::future::pending(),
    ));
    while links.len() < options.workers {
        let client = Client::connect(&address).await?;
        for _ in 0..STREAMS.min(options.workers - links.len()) {
            links.push(Link::Grpc(client.clone()));
        }
    }
    Ok(links)
}

/// A worker that does everything at once and says so.
async fn work(
    n: usize,
    credits: u32,
    scores: usize,
    link: Link,
    counted: Arc<Counted>,
) -> Result<()> {
    let hello = v1::Hello {
        worker_id: format!("worker-{n}"),
        protocol: 1,
        credits,
        capabilities: Some(v1::Capabilities {
            device: "simulated".to_owned(),
            loaded_models: vec![String::new()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut held = HashMap::new();
    let mut beat = tokio::time::interval(Duration::from_secs(5));
    match link {
        Link::Direct(coordinator, session, mut outbox) => {
            let event = Event::Hello {
                session,
                hello: Box::new(hello),
                held: Vec::new(),
                principal: String::new(),
            };
            coordinator.tell(event).await?;
            loop {
                let requests = tokio::select! {
                    message = outbox.recv() => match message {
                        Some(Ok(message)) => answer(message, scores, &mut held, &counted),
                        _ => bail!("the coordinator ended the stream"),
                    },
                    _ = beat.tick() => vec![heartbeat(&held)],
                };
                for request in requests {
                    coordinator.tell(event_of(session, request)?).await?;
                }
            }
        }
        Link::Grpc(client) => {
            let (sender, receiver) = mpsc::unbounded_channel();
            let send = |message| {
                let message = Some(message);
                let sent = sender.send(v1::ConnectRequest { message });
                sent.map_err(|_| anyhow::anyhow!("the stream's other end is gone"))
            };
            send(Request::Hello(hello))?;
            let requests = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
            let mut inbox = client.workers().connect(requests).await?.into_inner();
            loop {
                let requests = tokio::select! {
                    message = inbox.next() => match message {
                        Some(message) => match message?.message {
                            Some(message) => answer(message, scores, &mut held, &counted),
                            None => Vec::new(),
                        },
                        None => bail!("the coordinator ended the stream"),
                    },
                    _ = beat.tick() => vec![heartbeat(&held)],
                };
                for request in requests {
                    send(request)?;
                }
            }
        }
    }
}

type Held = HashMap<(String, u64), usize>;

fn heartbeat(held: &Held) -> Request {
    let leases = held.keys().map(|(task, epoch)| v1::LeaseProgress {
        lease: Some(v1::LeaseKey {
            task: task.clone(),
            epoch: *epoch,
        }),
        ..Default::default()
    });
    Request::Heartbeat(v1::Heartbeat {
        leases: leases.collect(),
        loaded_models: vec![String::new()],
    })
}

fn answer(message: Response, scores: usize, held: &mut Held, counted: &Counted) -> Vec<Request> {
    match message {
        Response::Lease(lease) => {
            counted.leases.fetch_add(1, Ordering::Relaxed);
            let key = lease.key.clone().unwrap_or_default();
            held.insert((key.task, key.epoch), lease.units.len());
            let commit = |unit: v1::LeasedUnit| {
                let (fact, kind) = match unit.spec {
                    Some(v1::leased_unit::Spec::Trace(asked)) => (asked.fact, asked.kind),
                    _ => (None, 0),
                };
                let grid = v1::Grid {
                    fact,
                    kind,
                    // One token, so that any number of scores is a grid.
                    token_ids: vec![0],
                    tokens: vec![String::new()],
                    correct_prediction: true,
                    layers: scores.max(1) as u32,
                    scores: (0..scores.max(1))
                        .map(|n| ((unit.unit + n as u64) % 997) as f64 / 997.0)
                        .collect(),
                    ..Default::default()
                };
                let result = v1::UnitResult {
                    unit: unit.unit,
                    outcome: Some(Outcome::Grid(grid)),
                };
                Request::Commit(v1::Commit {
                    lease: lease.key.clone(),
                    unit: unit.unit,
                    result: result.encode_to_vec(),
                    fingerprint: Some(v1::Fingerprint {
                        device: "simulated".to_owned(),
                        ..Default::default()
                    }),
                })
            };
            lease.units.into_iter().map(commit).collect()
        }
        Response::CommitAck(ack) => {
            let key = ack.lease.clone().unwrap_or_default();
            let key = (key.task, key.epoch);
            match held.get_mut(&key) {
                Some(open) if *open > 1 => {
                    *open -= 1;
                    Vec::new()
                }
                Some(_) => {
                    held.remove(&key);
                    counted.done.fetch_add(1, Ordering::Relaxed);
                    let lease = ack.lease;
                    let failure = None;
                    vec![Request::TaskEnd(v1::TaskEnd {
                        lease,
                        failure,
                        ..Default::default()
                    })]
                }
                None => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

/// What the gRPC service makes of a worker's message.
fn event_of(session: Session, request: Request) -> Result<Event> {
    let key = |key: Option<v1::LeaseKey>| {
        LeaseKey::from_proto(&key.unwrap_or_default()).context("no key of a lease")
    };
    Ok(match request {
        Request::Commit(commit) => {
            let result = v1::UnitResult::decode(commit.result.as_slice())?;
            Event::Commit {
                session,
                lease: key(commit.lease)?,
                unit: commit.unit,
                result: CommittedResult::new(commit.result.into(), result, commit.fingerprint),
            }
        }
        Request::TaskEnd(end) => Event::TaskEnd {
            session,
            lease: key(end.lease)?,
            failure: end.failure,
        },
        Request::Heartbeat(heartbeat) => Event::Heartbeat {
            session,
            leases: heartbeat
                .leases
                .into_iter()
                .map(|lease| Ok((key(lease.lease.clone())?, lease)))
                .collect::<Result<_>>()?,
            loaded: heartbeat.loaded_models,
        },
        other => bail!("a simulated worker does not say {other:?}"),
    })
}

// ---- Figures ----

/// Memory of this process in megabytes, by a line of `/proc/self/status`.
fn memory(line: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let found = status.lines().find_map(|it| it.strip_prefix(line));
    let kibibytes = found.and_then(|it| it.trim().strip_suffix("kB"));
    let kibibytes: u64 = kibibytes.context("no such line")?.trim().parse()?;
    Ok(kibibytes * 1024 / 1_000_000)
}

/// CPU time of all threads of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the program's name, which may have anything in it.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|it| it.parse::<f64>().ok());
    // utime and stime, in ticks of which Linux has 100 a second on every machine it runs on here.
    (ticks(11).unwrap_or_default() + ticks(12).unwrap_or_default()) / 100.0
}

fn folder_size(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        size += if metadata.is_dir() {
            folder_size(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(size)
}
