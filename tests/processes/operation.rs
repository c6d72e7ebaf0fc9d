//! What an operator sees of running programs: metrics, health, traces, their own account.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::common::health::health;
use crate::common::sweep::{import, results, submit, write_facts};
use crate::common::{PATIENCE, Process, Site, get, ports, wait};
use palimpsest::client::Client;
use palimpsest::proto::v1;
use palimpsest::proto::v1::connect_request::Message;
use palimpsest::proto::v1::connect_response::Message as Answer;
use palimpsest::telemetry::metrics::{Kind, METRICS, Program};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

/// A line of Prometheus' text format.
#[derive(Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads the text format by its grammar, with `# HELP` and `# TYPE` by name.
fn parse(
    text: &str,
) -> (
    Vec<Series>,
    BTreeMap<String, String>,
    BTreeMap<String, String>,
) {
    let (mut series, mut help, mut kinds) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').unwrap();
            help.insert(name.to_owned(), text.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            kinds.insert(name.to_owned(), kind.to_owned());
        } else {
            let (what, value) = line.rsplit_once(' ').unwrap();
            let (name, inside) = match what.split_once('{') {
                None => (what, ""),
                Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
            };
            let labels = inside
                .split(',')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (label, value) = pair.split_once('=').unwrap();
                    let value = value.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
                    (label.to_owned(), value.to_owned())
                });
            series.push(Series {
                name: name.to_owned(),
                labels: labels.collect(),
                value: value.parse().unwrap(),
            });
        }
    }
    (series, help, kinds)
}

/// The metrics at an address, after a check that they are those of the table and have no other
/// labels than it says.
fn scrape(address: &str, program: Program) -> Vec<Series> {
    let (head, body) = get(address, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let (series, help, kinds) = parse(&body);
    for Series { name, labels, .. } in &series {
        let of = |it: &&&palimpsest::telemetry::metrics::Metric| {
            let parts = matches!(it.kind, Kind::Histogram(_));
            let rest = name.strip_prefix(it.name);
            rest.is_some_and(|rest| {
                rest.is_empty() || parts && ["_bucket", "_sum", "_count"].contains(&rest)
            })
        };
        let metric = METRICS.iter().find(of);
        let metric = metric.unwrap_or_else(|| panic!("{name} is not in the table"));
        assert!([program, Program::Any].contains(&metric.program), "{name}");
        let mut known: BTreeSet<&str> = metric.labels.iter().copied().collect();
        known.extend(name.ends_with("_bucket").then_some("le"));
        let found: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
        assert_eq!(found, known, "{name}");
        assert_eq!(help[metric.name], metric.help.trim());
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!(kinds[metric.name], kind);
    }
    series
}

/// The sum of a metric's series with these labels.
fn value(series: &[Series], name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |it: &&Series| {
        it.name == format!("palimpsest_{name}")
            && labels
                .iter()
                .all(|(label, value)| it.labels[*label] == *value)
    };
    series.iter().filter(fits).map(|it| it.value).sum()
}

/// A site whose programs show their metrics on ports that the system chooses.
fn measured_site() -> Site {
    let site = Site::new();
    let settings = "[serve]\nmetrics_listen = \"127.0.0.1:0\"\nhealth_listen = \"127.0.0.1:0\"\n\
                    heartbeat_interval = \"200ms\"\nlease_duration = \"2s\"\n\
                    [worker]\nmetrics_listen = \"127.0.0.1:0\"\n";
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    site
}

#[test]
fn the_metrics_are_those_of_the_table_and_count_a_sweep() {
    let site = measured_site();
    write_facts(&site, 12);
    let server = site.serve("127.0.0.1:0");
    let at = server.process.address_after("showing metrics");
    let before = scrape(&at, Program::Coordinator);
    assert_eq!(value(&before, "units_committed_total", &[]), 0.0);
    assert_eq!(value(&before, "queue_depth", &[]), 0.0);
    assert_eq!(
        value(
            &before,
            "build_info",
            &[("version", env!("CARGO_PKG_VERSION"))]
        ),
        1.0
    );

    import(&site, &server);
    let job = submit(&site, &server, &["--noise", "0.1"]);
    // Nobody works yet: this is what workers are added by.
    let waiting = scrape(&at, Program::Coordinator);
    assert!(value(&waiting, "queue_depth", &[]) > 0.0);
    assert_eq!(value(&waiting, "jobs", &[("state", "queued")]), 1.0);

    let worker = site.worker(&server, "w1", &["--fake", "2"]);
    let worker_at = worker.address_after("showing metrics");
    assert_eq!(results(&site, &server, &job).lines().count(), 36);

    let after = scrape(&at, Program::Coordinator);
    assert_eq!(value(&after, "units_committed_total", &[]), 36.0);
    assert_eq!(value(&after, "queue_depth", &[]), 0.0);
    assert_eq!(value(&after, "jobs", &[("state", "succeeded")]), 1.0);
    assert_eq!(value(&after, "jobs", &[("state", "queued")]), 0.0);
    let tasks = value(&after, "tasks_completed_total", &[]);
    assert!(tasks >= 1.0 && value(&after, "tasks", &[("state", "done")]) == tasks);
    assert_eq!(value(&after, "leases_given_total", &[]), tasks);
    assert_eq!(value(&after, "task_failures_total", &[]), 0.0);
    assert_eq!(
        value(&after, "invariant_violations_total", &[("invariant", "I5")]),
        0.0
    );
    assert_eq!(value(&after, "workers", &[("state", "idle")]), 1.0);
    let flushes = value(&after, "flushes_total", &[]);
    let groups = value(&after, "commit_seconds_count", &[]);
    assert!(flushes >= 2.0 && groups >= 2.0, "{flushes} {groups}");
    assert!(value(&after, "commit_events_sum", &[]) >= 36.0);
    assert!(value(&after, "audit_entries", &[]) > 0.0);
    let create = "palimpsest.v1.JobService/CreateJob";
    assert_eq!(
        value(&after, "rpcs_total", &[("method", create), ("code", "OK")]),
        1.0
    );
    assert_eq!(
        value(&after, "rpc_seconds_count", &[("method", create)]),
        1.0
    );
    assert_eq!(value(&after, "rpcs_open", &[("method", create)]), 0.0);
    let connect = "palimpsest.v1.WorkerService/Connect";
    assert_eq!(value(&after, "rpcs_open", &[("method", connect)]), 1.0);
    assert!(value(&after, "connections", &[]) >= 1.0);

    let of_worker = scrape(&worker_at, Program::Worker);
    assert_eq!(value(&of_worker, "worker_units_total", &[]), 36.0);
    assert!(value(&of_worker, "worker_steps_total", &[]) >= 36.0);
    assert_eq!(value(&of_worker, "worker_connected", &[]), 1.0);
    assert_eq!(value(&of_worker, "worker_lease_seconds_count", &[]), tasks);
    assert!(value(&of_worker, "worker_lease_seconds_sum", &[]) >= 0.072);
    assert!(value(&of_worker, "resident_memory_bytes", &[]) > 1e6);

    // Every metric of the table was seen, but those of what did not happen here.
    let seen: BTreeSet<&str> = after
        .iter()
        .chain(&of_worker)
        .map(|it| it.name.as_str())
        .collect();
    // Whether there is a GPU is not for this test to say.
    let everywhere = |name: &str| !name.starts_with("palimpsest_worker_device_");
    for metric in METRICS.iter().filter(|it| everywhere(it.name)) {
        let parts = [metric.name.to_owned(), format!("{}_count", metric.name)];
        let happened = ![
            "palimpsest_refusals_total",
            "palimpsest_worker_failures_total",
        ]
        .contains(&metric.name);
        assert_eq!(
            parts.iter().any(|name| seen.contains(name.as_str())),
            happened,
            "{}",
            metric.name
        );
    }
    let (head, _) = get(&at, "/");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");

    // A coordinator that comes back is found again, and the worker counts that it had to.
    let mut server = server;
    let address = server.address.clone();
    server.process.kill();
    let server = site.serve(&address);
    let now = scrape(
        &server.process.address_after("showing metrics"),
        Program::Coordinator,
    );
    for name in [
        "store_bytes",
        "objects",
        "object_bytes",
        "resident_memory_bytes",
    ] {
        assert!(value(&now, name, &[]) > 0.0, "{name}");
    }
    assert_eq!(value(&now, "jobs", &[("state", "succeeded")]), 1.0);
    assert_eq!(value(&now, "units_committed_total", &[]), 0.0);
    wait("the worker's return", PATIENCE, || {
        let now = scrape(&worker_at, Program::Worker);
        let back = value(&now, "worker_connected", &[]) == 1.0;
        (back && value(&now, "worker_reconnects_total", &[]) >= 1.0).then_some(())
    });
}

/// Something that does not speak HTTP, or never ends, keeps nobody else from the metrics.
#[test]
fn a_scrape_that_never_ends_holds_up_no_other() {
    use std::io::Write;
    let site = measured_site();
    let server = site.serve("127.0.0.1:0");
    let at = server.process.address_after("showing metrics");
    let mut silent: Vec<_> = (0..10)
        .map(|_| std::net::TcpStream::connect(&at).unwrap())
        .collect();
    for (n, stream) in silent.iter_mut().enumerate() {
        let _ = stream.write_all(&vec![b'x'; n * 2000]);
    }
    scrape(&at, Program::Coordinator);
    assert_eq!(
        get(&at, "/metrics?x=1").0.lines().next().unwrap(),
        "HTTP/1.1 200 OK"
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

const SERVICES: [&str; 3] = [
    "",
    "palimpsest.v1.JobService",
    "palimpsest.v1.WorkerService",
];

/// The token file is a pipe that nobody has written to yet: the start gets as far as there, which
/// is behind the store, and no further.
#[test]
fn a_coordinator_that_starts_says_that_it_does_not_serve_until_it_does() {
    let site = measured_site();
    let settings = fs::read_to_string(site.path("palimpsest.toml")).unwrap();
    let settings = settings.replace("[worker]", "tokens = \"tokens\"\n[worker]");
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    let pipe = site.path("tokens");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let process = site.start_serving("127.0.0.1:0");
    let at = process.address_after("answering probes");
    let runtime = runtime();
    for service in SERVICES {
        let status = runtime.block_on(health(&at, service));
        assert_eq!(status, ServingStatus::NotServing, "{service:?}");
    }
    assert!(!site.path("address").exists());
    fs::write(&pipe, "# no token\n").unwrap();
    wait("the coordinator to serve", PATIENCE, || {
        site.path("address").exists().then_some(())
    });
    for service in SERVICES {
        let status = runtime.block_on(health(&at, service));
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
}

#[test]
fn a_coordinator_that_stops_says_so_before_calls_fail() {
    let site = measured_site();
    let settings = fs::read_to_string(site.path("palimpsest.toml")).unwrap();
    let settings = settings.replace("[worker]", "shutdown_grace = \"20s\"\n[worker]");
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    let server = site.serve("127.0.0.1:0");
    let at = server.process.address_after("answering probes");
    runtime().block_on(async {
        let url = format!("http://{}", server.address);
        let channel = Endpoint::from_shared(url.clone())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut watched = Vec::new();
        for service in SERVICES {
            let service = service.to_owned();
            let request = HealthCheckRequest { service };
            let watch = HealthClient::new(channel.clone()).watch(request).await;
            let mut watch = watch.unwrap().into_inner();
            let first = watch.message().await.unwrap().unwrap();
            assert_eq!(first.status, ServingStatus::Serving as i32);
            watched.push(watch);
        }
        server.process.terminate();
        for watch in &mut watched {
            let told = tokio::time::timeout(Duration::from_secs(20), watch.message()).await;
            let told = told.unwrap().unwrap().unwrap();
            assert_eq!(told.status, ServingStatus::NotServing as i32);
        }
        // The streams that are watched hold up the end: meanwhile, probes hear the same.
        assert_eq!(health(&at, "").await, ServingStatus::NotServing);
    });
}

/// Opens a worker's stream with a protocol and a version, and gives the first answer.
async fn hello(url: &str, protocol: u32, version: &str) -> Result<Answer, tonic::Status> {
    let client = Client::connect(url).await.unwrap();
    let hello = v1::Hello {
        worker_id: format!("w{protocol}"),
        protocol,
        capabilities: Some(v1::Capabilities {
            version: version.to_owned(),
            ..Default::default()
        }),
        credits: 1,
        ..Default::default()
    };
    let message = v1::ConnectRequest {
        message: Some(Message::Hello(hello)),
    };
    let requests = futures::StreamExt::chain(
        tokio_stream::once(message),
        tokio_stream::pending::<v1::ConnectRequest>(),
    );
    let mut stream = client.workers().connect(requests).await?.into_inner();
    Ok(stream.message().await?.unwrap().message.unwrap())
}

#[test]
fn workers_and_coordinators_of_different_ages_say_so_in_words() {
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    let url = server.url();
    let ours = env!("CARGO_PKG_VERSION");
    runtime().block_on(async {
        for (protocol, version, older) in [(0, "0.0.1", "worker"), (2, "9.0.0", "coordinator")] {
            let refusal = hello(&url, protocol, version).await.unwrap_err();
            assert_eq!(refusal.code(), Code::FailedPrecondition);
            let expected = format!(
                "the worker (version {version}) speaks protocol {protocol}, the coordinator (version \
                 {ours}) protocol 1: upgrade the {older}"
            );
            assert_eq!(refusal.message(), expected);
            let info = refusal.get_details_error_info().unwrap();
            assert_eq!(info.reason, "PROTOCOL_VERSION");
            assert!(info.metadata["remedy"].contains("upgrade"));
        }
        // The same protocol is enough; that the versions differ is told to both.
        match hello(&url, 1, "0.0.1").await.unwrap() {
            Answer::Welcome(welcome) => assert_eq!(welcome.version, ours),
            other => panic!("{other:?}"),
        }
    });
    let said = server.process.said();
    assert!(
        said.contains("the worker runs another version") && said.contains("0.0.1"),
        "{said}"
    );
    let worker = site.worker(&server, "same", &["--fake", "1"]);
    wait("the worker", PATIENCE, || {
        server
            .process
            .said()
            .contains("worker=\"same\"")
            .then_some(())
    });
    assert!(!worker.said().contains("another version"));
}

#[test]
fn a_command_waits_for_one_of_several_coordinators_that_is_not_there_yet() {
    let site = Site::new();
    let ports: [u16; 2] = ports::free();
    let addresses = ports.map(|port| format!("127.0.0.1:{port}"));
    let all = format!("http://{}", addresses.join(",http://"));
    let status = |server: &str, patience: &str| {
        let mut command = site.command(&["status", "--server", server]);
        command.env("PALIMPSEST__CLIENT__PATIENCE", patience);
        command
    };
    let log = site.path("status.log");
    let mut waiting = Process::start("status", &mut status(&all, ""), &log);
    wait("a command that waits", PATIENCE, || {
        waiting.said().contains("waited for").then_some(())
    });
    // A single address may be wrong, and is waited for where somebody says so.
    let said = |command: &mut Command| {
        let done = command.output().unwrap();
        assert!(!done.status.success());
        String::from_utf8(done.stderr).unwrap()
    };
    let one = format!("http://{}", addresses[1]);
    let at_once = said(&mut status(&one, ""));
    assert!(
        at_once.contains("no coordinator answers") && !at_once.contains("waited for"),
        "{at_once}"
    );
    let later = said(&mut status(&one, "1ms"));
    assert!(later.contains("waited for, 1ms at most"), "{later}");
    let unknown = said(&mut status(
        "http://nobody.invalid:1,http://no-one.invalid:1",
        "",
    ));
    assert!(!unknown.contains("waited for"), "{unknown}");

    let server = site.serve(&addresses[1]);
    assert!(waiting.wait(PATIENCE).success(), "{}", waiting.said());
    drop(server);
}
