//! Traces of whole processes, as a collector gets them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::sweep::{import, results, submit, write_facts};
use common::{PATIENCE, Site, fixture, wait};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Keeps what it is sent: spans, each with the name of the program that sent it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for sent in request.into_inner().resource_spans {
            let attributes = sent.resource.unwrap_or_default().attributes;
            let name = attributes.into_iter().find(|it| it.key == "service.name");
            let name = match name.and_then(|it| it.value).and_then(|it| it.value) {
                Some(Value::StringValue(name)) => name,
                other => panic!("a program without a name: {other:?}"),
            };
            let spans = sent.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let mut kept = self.0.lock().unwrap();
            kept.extend(spans.map(|span| (name.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn site_with(collector: &str) -> Site {
    let site = Site::new();
    let settings = format!("[log]\notlp_endpoint = \"http://{collector}\"\n");
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    write_facts(&site, 3);
    site
}

#[test]
fn a_sweep_is_one_trace_from_the_command_to_the_worker_and_back() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let collector = Collector::default();
    let incoming =
        runtime.block_on(async { TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap() });
    let address = incoming.local_addr().unwrap();
    let service = TraceServiceServer::new(collector.clone());
    runtime.spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );

    let site = site_with(&address.to_string());
    let server = site.serve("127.0.0.1:0");
    let worker = site.worker(&server, "w1", &["--fake", "1"]);
    // From a folder that is gone when the worker comes: it fetches the files from the coordinator.
    let model = site.path("model");
    fs::create_dir(&model).unwrap();
    for file in fs::read_dir(fixture("llama")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    let url = server.url();
    let import = [
        "model", "import", "model", "--name", "tiny", "--server", &url,
    ];
    site.run(&import, PATIENCE);
    fs::remove_dir_all(&model).unwrap();
    let job = submit(&site, &server, &["--noise", "0.1"]);
    results(&site, &server, &job);

    let sent = || collector.0.lock().unwrap().clone();
    let find = |program: &str, name: &str| {
        sent()
            .into_iter()
            .filter(|(from, span)| from == &format!("palimpsest-{program}") && span.name == name)
            .map(|(_, span)| span)
            .collect::<Vec<_>>()
    };
    let ended = wait("the trace", PATIENCE, || {
        find("coordinator", "lease ended").pop()
    });
    wait("the worker's part", PATIENCE, || {
        find("worker", "task").pop()
    });
    // Each is below the one before, on the way there and back.
    let spans: HashMap<Vec<u8>, (String, Span)> = sent()
        .into_iter()
        .map(|(from, span)| (span.span_id.clone(), (from, span)))
        .collect();
    let mut way = Vec::new();
    let mut next = Some(ended.span_id.clone());
    while let Some((from, span)) = next.and_then(|id| spans.get(&id)) {
        assert_eq!(span.trace_id, ended.trace_id);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        way.push(format!(
            "{} {}",
            from.trim_start_matches("palimpsest-"),
            span.name
        ));
        next = Some(span.parent_span_id.clone());
    }
    way.reverse();
    assert_eq!(
        way,
        [
            "client palimpsest trace",
            "coordinator palimpsest.v1.JobService/CreateJob",
            "coordinator lease",
            "worker task",
            "coordinator lease ended",
        ]
    );
    let computed = find("worker", "compute");
    let tasks = find("worker", "task");
    assert!(
        computed
            .iter()
            .all(|span| tasks.iter().any(|task| task.span_id == span.parent_span_id))
    );
    // The model's files, which the worker fetched for the lease, are part of it.
    let fetched = find("coordinator", "palimpsest.v1.ObjectService/ReadObject");
    assert!(
        fetched
            .iter()
            .any(|span| tasks.iter().any(|task| task.span_id == span.parent_span_id))
    );
    drop(worker);
}

/// One that is not there, and one that takes what is said and never answers.
#[test]
fn a_collector_that_is_away_holds_up_nothing() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    for collector in [gone, deaf.local_addr().unwrap()] {
        let site = site_with(&collector.to_string());
        let mut server = site.serve("127.0.0.1:0");
        let mut worker = site.worker(&server, "w1", &["--fake", "1"]);
        import(&site, &server);
        let job = submit(&site, &server, &["--noise", "0.1"]);
        assert_eq!(results(&site, &server, &job).lines().count(), 9);
        let begun = Instant::now();
        site.run(&["job", "list", "--server", &server.url()], PATIENCE);
        worker.terminate();
        assert!(worker.wait(PATIENCE).success());
        server.process.terminate();
        assert!(server.process.wait(PATIENCE).success());
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn a_log_in_json_is_an_object_a_line() {
    let site = Site::new();
    fs::write(site.path("palimpsest.toml"), "[log]\nformat = \"json\"\n").unwrap();
    let server = site.serve("127.0.0.1:0");
    let said = server.process.said();
    assert!(said.lines().count() > 0);
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["timestamp", "level", "target", "message"] {
            assert!(line[key].is_string(), "{line}");
        }
    }
}
