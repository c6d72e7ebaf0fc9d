//! Traces of whole processes, as a collector gets them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::sweep::{import, results, submit, write_facts};
use crate::common::{PATIENCE, Process, Site, fixture, ports, wait};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::runtime::Runtime;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server as GrpcServer, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

/// Keeps what it is sent: spans, each with the name of the program that sent it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    /// Serves on a free port, and gives its address.
    fn serve(
        &self,
        runtime: &Runtime,
        mut server: GrpcServer,
        key: Option<&'static str>,
    ) -> String {
        let bind = async { TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap() };
        let incoming = runtime.block_on(bind);
        let address = incoming.local_addr().unwrap();
        let service = TraceServiceServer::with_interceptor(self.clone(), move |request| {
            let request: Request<()> = request;
            let shown = request.metadata().get("x-key");
            match key {
                Some(key) if shown.is_none_or(|shown| shown != key) => {
                    Err(Status::unauthenticated("no key"))
                }
                _ => Ok(request),
            }
        });
        let serving = server.add_service(service);
        runtime.spawn(serving.serve_with_incoming(incoming));
        address.to_string()
    }

    /// The spans of this name that a program has sent.
    fn find(&self, program: &str, name: &str) -> Vec<Span> {
        let kept = self.0.lock().unwrap().clone();
        kept.into_iter()
            .filter(|(from, span)| from == &format!("palimpsest-{program}") && span.name == name)
            .map(|(_, span)| span)
            .collect()
    }
}

/// The status with which a call ended, as its span has it.
fn status(span: &Span) -> Option<i64> {
    let of_call = |it: &&KeyValue| it.key == "rpc.grpc.status_code";
    match span.attributes.iter().find(of_call)?.value.clone()?.value? {
        Value::IntValue(code) => Some(code),
        other => panic!("a status that is no number: {other:?}"),
    }
}

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
    let settings = format!("[log]\notlp_endpoint = \"{collector}\"\n");
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    write_facts(&site, 3);
    site
}

#[test]
fn a_sweep_is_one_trace_from_the_command_to_the_worker_and_back() {
    let runtime = Runtime::new().unwrap();
    let collector = Collector::default();
    let address = collector.serve(&runtime, GrpcServer::builder(), None);
    let site = site_with(&format!("http://{address}"));
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

    let find = |program: &str, name: &str| collector.find(program, name);
    let ended = wait("the trace", PATIENCE, || {
        find("coordinator", "lease ended").pop()
    });
    wait("the worker's part", PATIENCE, || {
        find("worker", "task").pop()
    });
    // Each is below the one before, on the way there and back.
    let sent = collector.0.lock().unwrap().clone();
    let spans: HashMap<Vec<u8>, (String, Span)> = sent
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
    let gone = SocketAddr::from(([127, 0, 0, 1], ports::free::<1>()[0]));
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    for collector in [gone, deaf.local_addr().unwrap()] {
        let site = site_with(&format!("http://{collector}"));
        let mut server = site.serve("127.0.0.1:0");
        let mut worker = site.worker(&server, "w1", &["--fake", "1"]);
        import(&site, &server);
        let job = submit(&site, &server, &["--noise", "0.1"]);
        assert_eq!(results(&site, &server, &job).lines().count(), 9);
        site.run(&["job", "list", "--server", &server.url()], PATIENCE);
        worker.terminate();
        assert!(worker.wait(PATIENCE).success());
        server.process.terminate();
        assert!(server.process.wait(PATIENCE).success());
    }
}

/// A call is over when its answer is, not when that begins: one that is watched stays open.
#[test]
fn the_span_of_a_call_lasts_to_the_end_of_its_answer_and_has_its_status() {
    let runtime = Runtime::new().unwrap();
    let collector = Collector::default();
    let address = collector.serve(&runtime, GrpcServer::builder(), None);
    let site = site_with(&format!("http://{address}"));
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let job = submit(&site, &server, &["--noise", "0.1"]);
    let watch = ["job", "watch", &job, "--server", &server.url()];
    let mut watching = Process::start("watch", &mut site.command(&watch), &site.path("watch.log"));
    // Long after the answer has begun.
    std::thread::sleep(Duration::from_secs(3));
    watching.kill();
    let call = |method: &str| {
        let name = format!("palimpsest.v1.JobService/{method}");
        wait(method, PATIENCE, || {
            collector.find("coordinator", &name).pop()
        })
    };
    let span = call("WatchJob");
    let lasted = span.end_time_unix_nano - span.start_time_unix_nano;
    assert!(lasted > 1_000_000_000, "{lasted} ns");
    assert_eq!(status(&span), Some(Code::Cancelled as i64));
    assert_eq!(status(&call("CreateJob")), Some(Code::Ok as i64));
    let unknown = [
        "job",
        "show",
        "01a20ed6-980e-74cd-8c8c-000000000000",
        "--server",
        &server.url(),
    ];
    assert!(!site.command(&unknown).output().unwrap().status.success());
    assert_eq!(status(&call("GetJob")), Some(Code::NotFound as i64));
}

#[test]
fn a_collector_with_tls_is_asked_who_it_is_and_told_the_key() {
    let runtime = Runtime::new().unwrap();
    let collector = Collector::default();
    let site = Site::new();
    for folder in ["certs", "others"] {
        site.run(&["auth", "init", folder, "--host", "localhost"], PATIENCE);
    }
    let read = |name: &str| fs::read(site.path(name)).unwrap();
    let identity = Identity::from_pem(read("certs/server.pem"), read("certs/server.key"));
    let tls = ServerTlsConfig::new().identity(identity);
    let tls = GrpcServer::builder().tls_config(tls).unwrap();
    let address = collector.serve(&runtime, tls, Some("open sesame"));
    let port = address.rsplit(':').next().unwrap();
    let server = site.serve("127.0.0.1:0");
    let list = |ca: &str, headers: &str| {
        let settings =
            format!("[log]\notlp_endpoint = \"https://localhost:{port}\"\notlp_ca = \"{ca}\"\n");
        fs::write(site.path("client.toml"), settings).unwrap();
        let args = [
            "--config",
            "client.toml",
            "job",
            "list",
            "--server",
            &server.url(),
        ];
        let mut command = site.command(&args);
        command.env("OTEL_EXPORTER_OTLP_HEADERS", headers);
        let out = command.output().unwrap();
        (out.status.success(), String::from_utf8(out.stderr).unwrap())
    };
    let (done, said) = list("no-such.pem", "");
    assert!(!done && said.contains("log.otlp_ca, no-such.pem"), "{said}");
    // Whom the collector does not know, and who does not know the collector, keeps the spans.
    for (ca, headers) in [
        ("certs/ca.pem", "x-key=guess"),
        ("others/ca.pem", "x-key=open%20sesame"),
    ] {
        let (done, said) = list(ca, headers);
        assert!(done, "{said}");
        assert_eq!(collector.0.lock().unwrap().len(), 0);
    }
    let (done, said) = list("certs/ca.pem", "x-key=open%20sesame");
    assert!(done && !said.contains("sesame"), "{said}");
    assert_eq!(collector.find("client", "palimpsest job list").len(), 1);
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
