//! The services as a client sees them: a server on a free port, a store on disk, and workers with
//! the fake engine, all in this process.
#![allow(clippy::disallowed_methods)] // a test owns its tasks

mod lists;
mod statistics;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt;

use super::server;
use crate::client::Client;
use crate::coordinator::{Coordinator, Limits, Surroundings};
use crate::objects::ObjectStore;
use crate::proto::v1::{self, JobState, job::Spec};
use crate::store::{Change, Store};
use crate::worker::{self, Company, Fake, Options};

/// A bound for what hangs, not a promise: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

struct Site {
    client: Client,
    coordinator: Coordinator,
    folder: tempfile::TempDir,
}

impl Site {
    async fn new(limits: Limits) -> Self {
        Self::at(Surroundings::real(), limits).await
    }

    async fn at(surroundings: Surroundings, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&folder.path().join("store")).unwrap());
        let model = v1::Model {
            name: "models/none".to_owned(),
            ..Default::default()
        };
        store
            .commit(&[Change::Model("none".to_owned(), model)])
            .unwrap();
        let (coordinator, _actor) = Coordinator::start_in(surroundings, store, limits).unwrap();
        let incoming = server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = format!("http://{}", incoming.local_addr().unwrap());
        let serving = server::serve(coordinator.clone(), incoming, std::future::pending());
        tokio::spawn(serving);
        Self {
            client: Client::connect(&address).await.unwrap(),
            coordinator,
            folder,
        }
    }

    /// Starts a worker and gives what stops it.
    fn work(&self, id: &str, unit_time: u64) -> CancellationToken {
        let stop = CancellationToken::new();
        let cache = self.folder.path().join(id);
        let objects = ObjectStore::open(&cache).unwrap();
        let options = Options {
            id: id.to_owned(),
            credits: 2,
            cache,
            drain_timeout: Duration::from_secs(30),
            valid_until: None,
            idle_exit: None,
            others: Company::default(),
        };
        let engine = Box::new(Fake {
            unit_time: Duration::from_millis(unit_time),
        });
        let client = self.client.clone();
        tokio::spawn(worker::run(client, objects, engine, options, stop.clone()));
        stop
    }

    async fn create(&self, job: v1::Job) -> Result<v1::Job, tonic::Status> {
        let request = v1::CreateJobRequest {
            job: Some(job),
            ..Default::default()
        };
        let response = self.client.jobs().create_job(request).await?;
        Ok(response.into_inner().job.unwrap())
    }

    /// Follows a job from an event on to its end, and gives the events.
    async fn watch(&self, name: &str, after_sequence: u64) -> Vec<v1::JobEvent> {
        let request = v1::WatchJobRequest {
            name: name.to_owned(),
            after_sequence,
        };
        let follow = async {
            let mut stream = self.client.jobs().watch_job(request).await.unwrap();
            let mut events = Vec::new();
            while let Some(message) = stream.get_mut().message().await.unwrap() {
                events.extend(message.events);
            }
            events
        };
        tokio::time::timeout(PATIENCE, follow).await.unwrap()
    }

    async fn get(&self, name: &str) -> v1::Job {
        let name = name.to_owned();
        let request = v1::GetJobRequest { name };
        let response = self.client.jobs().get_job(request).await.unwrap();
        response.into_inner().job.unwrap()
    }
}

fn facts(count: usize, words: usize) -> Vec<v1::Fact> {
    let filler = "and so on ".repeat(words);
    let fact = |n| v1::Fact {
        subject: format!("tower {n}"),
        prompt: format!("{filler}tower {n} stands in"),
        ..Default::default()
    };
    (0..count).map(fact).collect()
}

fn sweep(facts: Vec<v1::Fact>, noise: &str) -> v1::Job {
    v1::Job {
        model: "models/none".to_owned(),
        spec: Some(Spec::Trace(v1::TraceSpec {
            facts,
            kinds: vec![v1::Kind::Hidden as i32],
            noise: noise.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn trace(job: &v1::Job) -> &v1::TraceSpec {
    match &job.spec {
        Some(Spec::Trace(trace)) => trace,
        other => panic!("{other:?} is no sweep"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_after_any_event_and_loses_and_repeats_none() {
    let site = Site::new(Limits::default()).await;
    let job = site.create(sweep(facts(6, 0), "s3")).await.unwrap();
    let _stop = site.work("one", 1);
    let all = site.watch(&job.name, 0).await;
    let sequences: Vec<u64> = all.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=all.len() as u64).collect::<Vec<_>>());
    assert_eq!(site.get(&job.name).await.last_sequence, all.len() as u64);
    for after in 0..=all.len() {
        let rest = site.watch(&job.name, after as u64).await;
        assert_eq!(rest, all[after..], "after {after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_larger_than_a_message_lies_in_an_object() {
    let site = Site::new(Limits::default()).await;
    // 8 MB of facts, which no request can carry.
    let list = v1::FactList {
        facts: facts(800, 1_000),
    };
    let bytes = list.encode_to_vec();
    assert!(bytes.len() > server::MESSAGE_LIMIT);
    let digest = site.coordinator.store().objects().put(&bytes).unwrap();
    let mut asked = sweep(Vec::new(), "s3");
    if let Some(Spec::Trace(trace)) = &mut asked.spec {
        trace.facts_object = digest.to_string();
    }
    let job = site.create(asked).await.unwrap();
    assert_eq!(trace(&job).fact_count, 800);
    assert_eq!(job.counts.unwrap().units, 800);
    let _stop = site.work("one", 0);
    site.watch(&job.name, 0).await;
    let job = site.get(&job.name).await;
    assert_eq!(job.state(), JobState::Succeeded);
    assert_eq!(trace(&job).facts_object, digest.to_string());
    let request = v1::ListResultsRequest {
        parent: job.name.clone(),
        page_size: 10,
        ..Default::default()
    };
    let results = site.client.jobs().list_results(request).await.unwrap();
    for result in results.into_inner().results {
        let Some(v1::unit_result::Outcome::Grid(grid)) = result.outcome else {
            panic!("unit {} has no grid", result.unit)
        };
        assert_eq!(grid.fact.as_ref(), Some(&list.facts[result.unit as usize]));
        // The scale of the noise was found from the subjects in the object.
        assert_eq!(grid.noise_scale, 3.0 / 8.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_facts_in_a_request_are_moved_to_an_object_so_that_every_answer_fits() {
    let site = Site::new(Limits::default()).await;
    let asked = facts(200, 1_000);
    let job = site.create(sweep(asked.clone(), "0.1")).await.unwrap();
    let job = site.get(&job.name).await;
    assert!(trace(&job).facts.is_empty());
    let digest = trace(&job).facts_object.parse().unwrap();
    let bytes = site.coordinator.store().objects().read(&digest).unwrap();
    assert_eq!(v1::FactList::decode(bytes.as_slice()).unwrap().facts, asked);
    // Few facts stay where they are.
    let small = site.create(sweep(facts(3, 0), "0.1")).await.unwrap();
    assert_eq!(trace(&site.get(&small.name).await).facts, facts(3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_that_are_not_there_or_no_facts_are_refused_by_name() {
    let site = Site::new(Limits::default()).await;
    let objects = site.coordinator.store().objects().clone();
    let missing = crate::objects::Digest::of(b"nothing").to_string();
    let garbage = objects.put(&[0xff; 64]).unwrap().to_string();
    let empty = objects.put(&[]).unwrap().to_string();
    let wrong = v1::FactList {
        facts: vec![v1::Fact {
            prompt: "a b".to_owned(),
            subject: "c".to_owned(),
            ..Default::default()
        }],
    };
    let wrong = objects.put(&wrong.encode_to_vec()).unwrap().to_string();
    for (object, facts, code, what) in [
        (missing, 0, Code::FailedPrecondition, "upload it first"),
        (garbage, 0, Code::InvalidArgument, "byte 0 cannot be read"),
        (empty, 0, Code::InvalidArgument, "holds no facts"),
        ("xyz".to_owned(), 0, Code::InvalidArgument, "facts_object"),
        (wrong.clone(), 0, Code::InvalidArgument, "facts[0].subject"),
        (wrong, 1, Code::InvalidArgument, "given twice"),
    ] {
        let mut job = sweep(self::facts(facts, 0), "0.1");
        if let Some(Spec::Trace(trace)) = &mut job.spec {
            trace.facts_object = object;
        }
        let status = site.create(job).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(what), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_with_too_much_open_is_told_when_to_come_back() {
    let limits = Limits {
        jobs_per_owner: 1,
        ..Limits::default()
    };
    let site = Site::new(limits).await;
    let owned = |owner: &str| v1::Job {
        owner: owner.to_owned(),
        ..sweep(facts(1, 0), "0.1")
    };
    site.create(owned("ada")).await.unwrap();
    let status = site.create(owned("ada")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    assert!(details.retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
    assert_eq!(details.error_info().unwrap().metadata["owner"], "ada");
    site.create(owned("bob")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_drained_through_the_coordinator_finishes_and_leaves() {
    let site = Site::new(Limits::default()).await;
    let _stop = site.work("leaver", 20);
    let job = site.create(sweep(facts(30, 0), "0.1")).await.unwrap();
    let drain = |name: &str| {
        let name = format!("workers/{name}");
        let client = site.client.clone();
        async move {
            let request = v1::DrainWorkerRequest { name };
            client.workers().drain_worker(request).await
        }
    };
    // It may not have said hello yet.
    let drained = async {
        loop {
            match drain("leaver").await {
                Ok(response) => return response.into_inner().worker.unwrap(),
                Err(status) => assert_eq!(status.code(), Code::NotFound),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let worker = tokio::time::timeout(PATIENCE, drained).await.unwrap();
    assert!(worker.draining);
    let gone = async {
        while drain("leaver").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    let _stop = site.work("heir", 0);
    site.watch(&job.name, 0).await;
    assert_eq!(site.get(&job.name).await.state(), JobState::Succeeded);
    let missing = v1::ReadmitWorkerRequest {
        name: "workers/nobody".to_owned(),
    };
    let status = site.client.workers().readmit_worker(missing).await;
    assert_eq!(status.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_found_under_its_own_spelling_only() {
    let site = Site::new(Limits::default()).await;
    let job = site.create(sweep(facts(2, 0), "0.1")).await.unwrap();
    let id = job.name.trim_start_matches("jobs/");
    for other in [
        format!("{{{id}}}"),
        id.to_uppercase(),
        format!("urn:uuid:{id}"),
        id.replace('-', ""),
    ] {
        let name = format!("jobs/{other}");
        let mut jobs = site.client.jobs();
        let get = jobs.get_job(v1::GetJobRequest { name: name.clone() });
        assert_eq!(get.await.unwrap_err().code(), Code::NotFound, "{name}");
        let cancel = jobs.cancel_job(v1::CancelJobRequest { name: name.clone() });
        assert_eq!(cancel.await.unwrap_err().code(), Code::NotFound, "{name}");
        let requeue = v1::RequeueQuarantinedRequest { name: name.clone() };
        let requeued = jobs.requeue_quarantined(requeue).await;
        assert_eq!(requeued.unwrap_err().code(), Code::NotFound, "{name}");
        let request = v1::CreateStatisticsRequest {
            source: Some(v1::create_statistics_request::Source::Job(name.clone())),
        };
        let made = site.client.statistics().create_statistics(request).await;
        assert_eq!(made.unwrap_err().code(), Code::NotFound, "{name}");
    }
    assert_ne!(site.get(&job.name).await.state(), JobState::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_id_was_taken_goes_on_under_another() {
    let site = Site::new(Limits::default()).await;
    let _stop = site.work("one", 1);
    let ids = || async {
        let list = v1::ListWorkersRequest::default();
        let list = site.client.workers().list_workers(list).await.unwrap();
        let connected = list.into_inner().workers.into_iter();
        connected
            .filter(|worker| worker.connected)
            .map(|worker| worker.name)
            .collect::<Vec<_>>()
    };
    let until = |wanted: &'static [&'static str]| async move {
        while ids().await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let patiently = |wanted| tokio::time::timeout(PATIENCE, until(wanted));
    patiently(&["workers/one"]).await.unwrap();
    // Another process that says it is the same, and takes no work.
    let hello = v1::Hello {
        worker_id: "one".to_owned(),
        protocol: 1,
        ..Default::default()
    };
    let hello = v1::ConnectRequest {
        message: Some(v1::connect_request::Message::Hello(hello)),
    };
    let stream = futures::stream::iter([hello]).chain(futures::stream::pending());
    let _other = site.client.workers().connect(stream).await.unwrap();
    patiently(&["workers/one", "workers/one.2"]).await.unwrap();
    let job = site.create(sweep(facts(3, 0), "0.1")).await.unwrap();
    site.watch(&job.name, 0).await;
    assert_eq!(site.get(&job.name).await.state(), JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_source_that_never_ends_holds_up_no_worker() {
    let site = Site::new(Limits::default()).await;
    let store = site.coordinator.store();
    let digest = store.objects().put(b"").unwrap().to_string();
    let pipe = site.folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for (n, source) in ["/dev/zero", pipe.to_str().unwrap()].iter().enumerate() {
        let file = v1::model::File {
            file_name: "extra.bin".to_owned(),
            digest: digest.clone(),
            size: 0,
            source_path: (*source).to_owned(),
        };
        let model = v1::Model {
            name: format!("models/m{n}"),
            digest: format!("{n}").repeat(64),
            files: vec![file],
            ..Default::default()
        };
        store
            .commit(&[Change::Model(format!("m{n}"), model)])
            .unwrap();
    }
    let _stop = site.work("one", 0);
    for n in 0..2 {
        let job = v1::Job {
            model: format!("models/m{n}"),
            ..sweep(facts(2, 0), "0.1")
        };
        let job = site.create(job).await.unwrap();
        site.watch(&job.name, 0).await;
        assert_eq!(site.get(&job.name).await.state(), JobState::Succeeded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_and_its_audit_entry_have_the_date_of_the_machines_clock_as_it_is_set() {
    const DAY: u64 = 24 * 3600;
    let date = Arc::new(AtomicU64::new(1000 * DAY));
    let clock = Arc::clone(&date);
    let date_of = move || 1000 * clock.load(Ordering::Relaxed);
    let surroundings = Surroundings::real().dated(date_of);
    let site = Site::at(surroundings, Limits::default()).await;
    let _stop = site.work("one", 0);
    for day in [1000, 1400, 900] {
        date.store(day * DAY, Ordering::Relaxed);
        let expected = Some((day * DAY) as i64);
        let seconds = |time: Option<prost_types::Timestamp>| time.map(|it| it.seconds);
        let job = site.create(sweep(facts(1, 0), "0.1")).await.unwrap();
        assert_eq!(seconds(job.create_time), expected);
        site.watch(&job.name, 0).await;
        let job = site.get(&job.name).await;
        // Though the clock that leases are counted by is the machine's own, in another year.
        assert_eq!(job.state(), JobState::Succeeded);
        assert_eq!(seconds(job.end_time), expected);
        let request = v1::CreateRefRequest {
            parent: "models/none".to_owned(),
            ref_id: format!("day-{day}"),
            r#ref: Some(v1::Ref {
                version: "models/none/versions/v0".to_owned(),
                ..Default::default()
            }),
        };
        let made = site.client.versions().create_ref(request).await.unwrap();
        let moved = made.into_inner().r#ref.unwrap().update_time;
        assert_eq!(seconds(moved), expected);
        let request = v1::ListAuditEntriesRequest::default();
        let entries = site.client.audit().list_audit_entries(request).await;
        let mut entries = entries.unwrap().into_inner().leaves;
        for action in ["refs.create", "jobs.create"] {
            let entry = entries.pop().unwrap().entry.unwrap();
            assert_eq!(entry.action, action);
            assert_eq!(seconds(entry.time), expected, "{action}");
        }
    }
}
