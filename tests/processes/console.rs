//! The doors of the console, met as browsers and those who mean no good meet them: by HTTP, byte by
//! byte. What the pages themselves do is tried in a browser (`pages.rs`).
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use palimpsest::proto::v1;
use prost::Message;
use tokio_rustls::rustls;

use crate::auth::{configure, init};
use crate::common::{PATIENCE, Server, Site, fixture, no_secret, wait};

/// A command that serves the console on this machine, and prints where.
pub struct Console {
    child: Child,
    /// Where it is: `127.0.0.1:7463`.
    pub address: String,
    /// What it asks for.
    pub key: String,
}

impl Console {
    /// Starts a command; of what it prints, the last of `lines` is the address.
    pub fn start(site: &Site, args: &[&str], lines: usize) -> Self {
        let log = fs::File::create(site.path("console.log")).unwrap();
        let mut command = site.command(args);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(log).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        for _ in 0..lines {
            line.clear();
            out.read_line(&mut line).unwrap();
        }
        let said = fs::read_to_string(site.path("console.log")).unwrap();
        no_secret("console", &said);
        let rest = line.trim().strip_prefix("http://");
        let rest = rest.unwrap_or_else(|| panic!("'{line}' is no address: {said}"));
        let (address, key) = rest.split_once("/#key=").unwrap();
        Self {
            child,
            address: address.to_owned(),
            key: key.to_owned(),
        }
    }

    /// In front of a coordinator.
    fn of(site: &Site, config: &str, server: &str) -> Self {
        let args = ["console", "--port", "0", "--server", server];
        match config {
            "" => Self::start(site, &args, 1),
            _ => Self::start(site, &[&args[..], &["--config", config]].concat(), 1),
        }
    }

    /// Calls a method as the pages do.
    fn call(&self, method: &str, request: &impl Message) -> Called {
        let key = [("x-palimpsest-key", self.key.as_str())];
        call(&mut tcp(&self.address), method, &key, request)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came back.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request with these headers alone, and reads the whole answer.
fn ask(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // It may have been refused by its head already.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        // TLS that ends without a word, and a body that nobody wanted.
        let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
        assert!(ends.contains(&error.kind()), "{error}");
    }
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer to {method} {path}"));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut answer = Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body: bytes[end + 4..].to_vec(),
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = joined(&answer.body);
    }
    answer
}

/// The pieces of a body in one.
fn joined(mut chunked: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunked.windows(2).position(|it| it == b"\r\n") {
        let length = std::str::from_utf8(&chunked[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        body.extend(&chunked[end + 2..end + 2 + length]);
        chunked = &chunked[end + 4 + length..];
        if length == 0 {
            break;
        }
    }
    body
}

/// A message as gRPC-Web frames it.
fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

/// What came of a call: its status and what it said, and the first message.
#[derive(Debug)]
struct Called {
    status: u32,
    said: String,
    message: Vec<u8>,
}

impl Called {
    fn of(answer: &Answer) -> Self {
        let mut trailers = answer.head.clone();
        let mut message = Vec::new();
        let mut rest = &answer.body[..];
        while rest.len() >= 5 {
            let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
            let frame = &rest[5..5 + length];
            match rest[0] {
                0 => message = frame.to_vec(),
                0x80 => trailers += &format!("\n{}", String::from_utf8_lossy(frame)),
                other => panic!("a frame of kind {other}"),
            }
            rest = &rest[5 + length..];
        }
        let of = |name: &str| {
            let line = trailers.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        let status = of("grpc-status:");
        let status = status.unwrap_or_else(|| panic!("{}: {}", answer.status, answer.head));
        Self {
            status: status.parse().unwrap(),
            said: of("grpc-message:").unwrap_or_default().replace("%20", " "),
            message,
        }
    }

    fn decoded<M: Message + Default>(&self) -> M {
        assert_eq!(self.status, 0, "{}", self.said);
        M::decode(&self.message[..]).unwrap()
    }
}

/// Calls a method as the pages do.
fn call(
    stream: &mut (impl Read + Write),
    method: &str,
    headers: &[(&str, &str)],
    request: &impl Message,
) -> Called {
    let ours = [
        ("Host", "localhost"),
        ("Content-Type", "application/grpc-web+proto"),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    let path = format!("/palimpsest.v1.{method}");
    let headers = [&ours[..], headers].concat();
    Called::of(&ask(stream, "POST", &path, &headers, &framed(request)))
}

const STATUS: &str = "StatusService/GetStatus";
const STATUS_PATH: &str = "/palimpsest.v1.StatusService/GetStatus";

fn caller(called: &Called) -> (String, String) {
    let answer: v1::GetStatusResponse = called.decoded();
    let caller = answer.status.unwrap().caller.unwrap();
    (caller.principal, caller.role)
}

#[test]
fn requests_that_no_page_of_the_console_sends_are_refused() {
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    let console = Console::of(&site, "", &server.url());
    let key = ("x-palimpsest-key", console.key.as_str());
    let own = console.address.as_str();
    let origin = format!("http://{own}");
    let web = ("Content-Type", "application/grpc-web+proto");
    let call = [("Host", own), web, key];
    let nothing = framed(&v1::GetStatusRequest::default());
    // Pages and calls alike: whoever names another host, or none, gets nothing.
    for path in [
        "/",
        "/assets/main.js",
        "/sign-in.json",
        "/jobs/1",
        STATUS_PATH,
    ] {
        for host in [
            Some("evil.example"),
            Some("evil.example:7463"),
            Some(""),
            None,
        ] {
            let method = if path == STATUS_PATH { "POST" } else { "GET" };
            let mut headers = call.to_vec();
            headers.remove(0);
            headers.extend(host.map(|host| ("Host", host)));
            let answer = ask(&mut tcp(own), method, path, &headers, &nothing);
            assert!(
                [421, 400].contains(&answer.status),
                "{host:?} {path}: {}",
                answer.head
            );
            let said = String::from_utf8_lossy(&answer.body);
            assert!(!said.contains("<html"), "{said}");
        }
    }
    let with = |more: &[(&'static str, &str)]| -> u16 {
        let mut headers: Vec<(&str, &str)> = call.to_vec();
        for (name, value) in more {
            headers.retain(|(had, _)| had != name);
            if !value.is_empty() {
                headers.push((name, value));
            }
        }
        ask(&mut tcp(own), "POST", STATUS_PATH, &headers, &nothing).status
    };
    for (headers, expected) in [
        (vec![], 200),
        (vec![("Host", "localhost")], 200),
        (vec![("Sec-Fetch-Site", "same-origin")], 200),
        (vec![("Sec-Fetch-Site", "same-site")], 403),
        (vec![("Sec-Fetch-Site", "cross-site")], 403),
        (vec![("Sec-Fetch-Site", "none")], 403),
        (vec![("Origin", origin.as_str())], 200),
        (vec![("Origin", "https://evil.example")], 403),
        (vec![("Origin", "null")], 403),
        // A page may send these elsewhere without asking first.
        (vec![("Content-Type", "text/plain")], 415),
        (
            vec![("Content-Type", "application/x-www-form-urlencoded")],
            415,
        ),
        (
            vec![("Content-Type", "multipart/form-data; boundary=x")],
            415,
        ),
        // Programs have a port of their own.
        (vec![("Content-Type", "application/grpc")], 415),
        (vec![("Content-Type", "")], 415),
    ] {
        assert_eq!(with(&headers), expected, "{headers:?}");
    }
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let asked = [
            ("Access-Control-Request-Method", "POST"),
            ("Origin", "https://evil.example"),
        ];
        let headers = [&call[..], &asked].concat();
        let answer = ask(&mut tcp(own), method, STATUS_PATH, &headers, &[]);
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("POST"));
        // Nothing is shared with pages from elsewhere.
        let head = answer.head.to_ascii_lowercase();
        assert!(!head.contains("access-control"), "{head}");
        assert!(!head.contains("set-cookie"), "{head}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = ask(&mut tcp(own), method, "/jobs", &[("Host", own)], &[]);
        assert_eq!(answer.status, 405, "{method}");
    }
    // Without the key, whoever is on this machine is nobody.
    for shown in [None, Some(""), Some("0"), Some(&console.key[1..])] {
        let mut headers = vec![("Host", own), web];
        headers.extend(shown.map(|key| ("x-palimpsest-key", key)));
        let answer = ask(&mut tcp(own), "POST", STATUS_PATH, &headers, &nothing);
        let called = Called::of(&answer);
        assert_eq!((called.status, called.message.len()), (16, 0), "{shown:?}");
        assert!(called.said.contains("open the address"), "{}", called.said);
    }
    // Too large, by its own words.
    let mut headers = call.to_vec();
    headers.push(("Content-Length", "99999999"));
    let mut stream = tcp(own);
    let head: String = headers
        .iter()
        .map(|(n, v)| format!("{n}: {v}\r\n"))
        .collect();
    write!(stream, "POST {STATUS_PATH} HTTP/1.1\r\n{head}\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert!(line.contains(" 413 "), "{line}");
    // And what is too large without having said so.
    let headers = [("Host", own), web, key];
    let large = vec![0; (4 << 20) + 6];
    let answer = ask(&mut tcp(own), "POST", STATUS_PATH, &headers, &large);
    assert_eq!(answer.status, 413);
    let worker = console.call("WorkerService/Connect", &v1::GetStatusRequest::default());
    assert_eq!(worker.status, 7, "{worker:?}");
    // Nothing of all this was a call of the coordinator.
    assert_eq!(
        caller(&console.call(STATUS, &v1::GetStatusRequest::default())).1,
        ""
    );
}

#[test]
fn pages_may_load_and_call_where_they_came_from_and_nothing_else() {
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    let console = Console::of(&site, "", &server.url());
    let get = |path: &str, more: &[(&str, &str)]| {
        let headers = [&[("Host", console.address.as_str())], more].concat();
        ask(&mut tcp(&console.address), "GET", path, &headers, &[])
    };
    let index = get("/", &[]);
    assert_eq!(index.status, 200);
    for path in [
        "/jobs/0190-1/results?kind=mlp",
        "/models/a.b/history",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//evil.example/",
        "/assets/../../../Cargo.toml/x",
    ] {
        let answer = get(path, &[]);
        match path.starts_with("/assets/") {
            true => assert_eq!(answer.status, 404, "{path}"),
            false => assert_eq!(answer.body, index.body, "{path}"),
        }
    }
    for path in ["/", "/sign-in.json", "/assets/none.js", "/jobs"] {
        let answer = get(path, &[]);
        let policy = answer.header("content-security-policy").unwrap();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert!(answer.header("access-control-allow-origin").is_none());
        assert!(answer.header("set-cookie").is_none());
    }
    let kinds = [
        ("/", "text/html; charset=utf-8"),
        ("/sign-in.json", "application/json"),
        ("/assets/none.js", "text/plain; charset=utf-8"),
    ];
    for (path, kind) in kinds {
        assert_eq!(get(path, &[]).header("content-type"), Some(kind), "{path}");
    }
    // What is known is not sent again.
    let tag = index.header("etag").unwrap();
    assert_eq!(index.header("cache-control"), Some("no-cache"));
    let again = get("/", &[("If-None-Match", tag)]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    let told: serde_json::Value = serde_json::from_slice(&get("/sign-in.json", &[]).body).unwrap();
    assert_eq!(told["asks"], serde_json::json!(["key"]));
    assert_eq!(told["certificate"], false);
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    let head = ask(
        &mut tcp(&console.address),
        "HEAD",
        "/",
        &[("Host", "localhost")],
        &[],
    );
    assert_eq!((head.status, head.body.len()), (200, 0));
}

/// Browsers speak HTTP/2 where there is TLS, where the host stands in the address.
#[test]
fn the_same_holds_over_http_2() {
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    let console = Console::of(&site, "", &server.url());
    let (address, key) = (console.address.clone(), console.key.clone());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ask = |host: &str, kind: &str| {
        let request = http::Request::post(format!("http://{host}{STATUS_PATH}"))
            .header("content-type", kind)
            .header("x-palimpsest-key", &key)
            .body(())
            .unwrap();
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            let driven = async { drop(connection.await) };
            let asked = async {
                let mut sender = sender.ready().await.unwrap();
                let (answer, mut body) = sender.send_request(request, false).unwrap();
                let _ = body.send_data(bytes::Bytes::from_static(&[0; 5]), true);
                answer.await.unwrap().status().as_u16()
            };
            futures::pin_mut!(driven, asked);
            match futures::future::select(driven, asked).await {
                futures::future::Either::Right((status, _)) => status,
                futures::future::Either::Left(_) => panic!("the connection ended"),
            }
        })
    };
    let web = "application/grpc-web+proto";
    assert_eq!(ask(&console.address, web), 200);
    assert_eq!(ask("evil.example", web), 421);
    assert_eq!(ask("localhost", "application/grpc"), 415);
}

fn import(site: &Site, more: &[&str]) {
    let model = fixture("llama");
    let model = model.to_str().unwrap();
    let args = [&["model", "import", model, "--name", "llama"], more].concat();
    site.run(&args, PATIENCE);
}

/// The pages' calls go on in the name of the user who opened the door, whatever the page says.
#[test]
fn a_console_on_ones_own_machine_acts_as_its_user() {
    let site = Site::new();
    init(&site, "certs", "127.0.0.1", &["editor/ada"]);
    let issue = [
        "auth",
        "token",
        "tokens",
        "--role",
        "viewer",
        "--principal",
        "tom",
    ];
    fs::write(site.path("token"), site.run(&issue, PATIENCE)).unwrap();
    configure(&site, "tokens = \"tokens\"\n");
    let server = site.serve("127.0.0.1:0");
    let url = format!("https://{}", server.address);
    let tom = "[client]\nca = \"certs/ca.pem\"\ntoken_file = \"token\"\n";
    fs::write(site.path("tom.toml"), tom).unwrap();
    import(
        &site,
        &["--config", "certs/editor-ada.toml", "--server", &url],
    );
    for (config, expected) in [
        ("certs/editor-ada.toml", ("ada", "editor")),
        ("tom.toml", ("tom", "viewer")),
    ] {
        let console = Console::of(&site, config, &url);
        let claims = [
            ("x-palimpsest-key", console.key.as_str()),
            ("palimpsest-principal", "eve"),
            ("authorization", "Bearer palimpsest_of_eve"),
            ("cookie", "a=b"),
        ];
        let request = v1::GetStatusRequest::default();
        let called = call(&mut tcp(&console.address), STATUS, &claims, &request);
        let (principal, role) = caller(&called);
        assert_eq!((principal.as_str(), role.as_str()), expected);
        let listed = console.call("ModelService/ListModels", &v1::ListModelsRequest::default());
        let listed: v1::ListModelsResponse = listed.decoded();
        assert_eq!(listed.models[0].name, "models/llama");
        let moved = v1::CreateRefRequest {
            parent: "models/llama".to_owned(),
            ..v1::CreateRefRequest::default()
        };
        let moved = console.call("VersionService/CreateRef", &moved);
        match expected.1 {
            // What is asked is wrong; that it may ask is settled before.
            "editor" => assert_eq!(moved.status, 3, "{moved:?}"),
            _ => {
                assert_eq!(moved.status, 7, "{moved:?}");
                assert!(moved.said.contains("tom is a viewer"), "{moved:?}");
            }
        }
    }
    // A coordinator that goes away is told of, and found again.
    let console = Console::of(&site, "certs/editor-ada.toml", &url);
    let mut server = server;
    server.process.kill();
    let away = console.call(STATUS, &v1::GetStatusRequest::default());
    assert_eq!(away.status, 14, "{away:?}");
    let _server = site.serve(&server.address);
    wait("the coordinator", PATIENCE, || {
        let called = console.call(STATUS, &v1::GetStatusRequest::default());
        (called.status == 0).then_some(())
    });
}

#[test]
fn a_console_reaches_a_coordinator_on_a_socket_and_one_inside_itself() {
    let site = Site::new();
    let listen = format!("unix:{}", site.path("s").display());
    let server = site.serve(&listen);
    let console = Console::of(&site, "", &listen);
    let request = v1::GetStatusRequest::default();
    console
        .call(STATUS, &request)
        .decoded::<v1::GetStatusResponse>();
    drop((console, server));

    import(&site, &[]);
    let more = ["--device", "cpu", "--threads", "1"];
    let args = [&["console", "--port", "0"], &more[..]].concat();
    let own = Console::start(&site, &args, 1);
    let models: v1::ListModelsResponse = own
        .call("ModelService/ListModels", &v1::ListModelsRequest::default())
        .decoded();
    assert_eq!(models.models.len(), 1);
    // A port that is taken is said, with the remedy.
    let (_, port) = own.address.rsplit_once(':').unwrap();
    let folder = site.path("other");
    let taken = [
        "console",
        "--port",
        port,
        "--store",
        folder.to_str().unwrap(),
    ];
    let refused = site.command(&taken).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("choose another, or 0"), "{said}");
}

#[test]
#[cfg(feature = "torch")]
fn a_server_of_ones_own_has_a_console_and_its_worker_works_for_it() {
    let site = Site::new();
    let args = [
        "local",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--console",
        "0",
    ];
    let own = Console::start(&site, &args, 2);
    import(&site, &[]);
    let spec = v1::GenerateSpec {
        prompts: vec!["The tower".to_owned()],
        max_tokens: 2,
        ..v1::GenerateSpec::default()
    };
    let job = v1::Job {
        model: "models/llama".to_owned(),
        spec: Some(spec.into()),
        ..v1::Job::default()
    };
    let request = v1::CreateJobRequest {
        job: Some(job),
        ..v1::CreateJobRequest::default()
    };
    let job: v1::CreateJobResponse = own.call("JobService/CreateJob", &request).decoded();
    let name = job.job.unwrap().name;
    // A stream, to its end.
    let request = v1::WatchJobRequest {
        name: name.clone(),
        ..v1::WatchJobRequest::default()
    };
    let watched = own.call("JobService/WatchJob", &request);
    assert_eq!(watched.status, 0, "{watched:?}");
    let job: v1::GetJobResponse = own
        .call("JobService/GetJob", &v1::GetJobRequest { name })
        .decoded();
    assert_eq!(job.job.unwrap().state(), v1::JobState::Succeeded);
}

/// A connection over TLS, with a certificate or without one; a browser of HTTP/1.1.
fn tls(site: &Site, address: &str, certificate: Option<&str>) -> impl Read + Write {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(site.path("certs/ca.pem")).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(who) => {
            let path = |ending| site.path(&format!("certs/{who}.{ending}"));
            let chain = CertificateDer::pem_file_iter(path("pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(path("key")).unwrap();
            builder
                .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
                .unwrap()
        }
    };
    let name = "127.0.0.1".try_into().unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    rustls::StreamOwned::new(connection, tcp(address))
}

/// A coordinator with a console for a team, and where that is.
pub fn team(site: &Site, more: &str) -> (Server, String) {
    init(
        site,
        "certs",
        "127.0.0.1",
        &["editor/ada", "viewer/vera", "worker/one"],
    );
    let settings = format!("web_listen = \"127.0.0.1:0\"\n{more}");
    configure(site, &settings);
    let server = site.serve("127.0.0.1:0");
    let address = server.process.address_after("serving the console");
    (server, address)
}

#[test]
fn a_console_for_a_team_lets_in_certificates_and_tokens_by_their_roles() {
    let site = Site::new();
    let issue = [
        "auth",
        "token",
        "tokens",
        "--role",
        "viewer",
        "--principal",
        "tom",
    ];
    let token = site.run(&issue, PATIENCE);
    let more = "tokens = \"tokens\"\nweb_hosts = \"lab.example\"\n";
    let (server, web) = team(&site, more);
    let url = format!("https://{}", server.address);
    import(
        &site,
        &["--config", "certs/editor-ada.toml", "--server", &url],
    );
    let request = v1::GetStatusRequest::default();
    let sign_in = |who: Option<&str>| -> serde_json::Value {
        let host = [("Host", "127.0.0.1")];
        let mut stream = tls(&site, &web, who);
        let answer = ask(&mut stream, "GET", "/sign-in.json", &host, &[]);
        serde_json::from_slice(&answer.body).unwrap()
    };
    assert_eq!(
        sign_in(None)["asks"],
        serde_json::json!(["certificate", "token"])
    );
    assert_eq!(sign_in(None)["certificate"], false);
    assert_eq!(sign_in(Some("editor-ada"))["certificate"], true);

    let nobody = call(&mut tls(&site, &web, None), STATUS, &[], &request);
    assert_eq!(nobody.status, 16, "{nobody:?}");
    let ada = call(
        &mut tls(&site, &web, Some("editor-ada")),
        STATUS,
        &[],
        &request,
    );
    assert_eq!(caller(&ada), ("ada".to_owned(), "editor".to_owned()));
    let bearer = format!("Bearer {}", token.trim());
    let shown = [("authorization", bearer.as_str())];
    let tom = call(&mut tls(&site, &web, None), STATUS, &shown, &request);
    assert_eq!(caller(&tom), ("tom".to_owned(), "viewer".to_owned()));
    let status: v1::GetStatusResponse = tom.decoded();
    let methods = status.status.unwrap().caller.unwrap().methods;
    assert!(
        methods
            .iter()
            .any(|it| it == "palimpsest.v1.JobService/ListJobs")
    );
    assert!(!methods.iter().any(|it| it.ends_with("UpdateRef")));

    // What is not drawn for a viewer is refused to one all the same, and on record.
    let moved = v1::UpdateRefRequest::default();
    let refused = call(
        &mut tls(&site, &web, None),
        "VersionService/UpdateRef",
        &shown,
        &moved,
    );
    assert_eq!(refused.status, 7, "{refused:?}");
    assert!(refused.said.contains("tom is a viewer"), "{refused:?}");
    let ask_audit = [
        "audit",
        "list",
        "--json",
        "--config",
        "certs/editor-ada.toml",
    ];
    let entries = site.run(&[&ask_audit[..], &["--server", &url]].concat(), PATIENCE);
    let found = entries.lines().find(|line| line.contains("UpdateRef"));
    let entry: serde_json::Value = serde_json::from_str(found.unwrap()).unwrap();
    assert_eq!(entry["principal"], "tom");
    assert_eq!(entry["outcome"], "refused");
    // Workers have no business here.
    let mut worker = tls(&site, &web, Some("worker-one"));
    let refused = call(&mut worker, "WorkerService/Connect", &[], &request);
    assert_eq!(refused.status, 7, "{refused:?}");

    // The names: of the certificate, and those that the settings add.
    for (host, expected) in [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("lab.example", 200),
        ("evil.example", 421),
    ] {
        let mut stream = tls(&site, &web, None);
        let answer = ask(&mut stream, "GET", "/", &[("Host", host)], &[]);
        assert_eq!(answer.status, expected, "{host}");
    }
    // Programs are served where they were, and not as browsers are.
    let mut grpc = tls(&site, &server.address, None);
    let head = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    grpc.write_all(head.as_bytes()).unwrap();
    let mut said = Vec::new();
    let _ = grpc.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP/1.1 200"), "{said:?}");
    let log = server.process.said();
    assert!(!log.contains(token.trim()), "the token is in the log");
}

/// Whoever is slow, or says nothing, is in nobody's way, and not for long.
#[test]
fn slow_and_idle_connections_end_and_others_are_answered_meanwhile() {
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    let console = Console::of(&site, "", &server.url());
    let own = console.address.as_str();
    let call = format!(
        "POST {STATUS_PATH} HTTP/1.1\r\nHost: {own}\r\nContent-Type: application/grpc-web+proto\r\n\
         X-Palimpsest-Key: {}\r\nContent-Length: 1000\r\n\r\n",
        console.key
    );
    // This process holds as many.
    palimpsest::api::descriptors::raise_limit();
    let idle: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut stream = tcp(own);
            write!(stream, "GET /sign-in.json HTTP/1.1\r\nHost: {own}\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        // A byte every second.
        let dripped = |head: &str, drops: &'static str| {
            let mut stream = tcp(own);
            stream.write_all(head.as_bytes()).unwrap();
            scope.spawn(move || {
                let begun = Instant::now();
                stream
                    .set_read_timeout(Some(Duration::from_millis(10)))
                    .unwrap();
                let mut said = Vec::new();
                for drop in drops.bytes().cycle() {
                    if stream.write_all(&[drop]).is_err() {
                        break;
                    }
                    let mut bytes = [0; 4096];
                    match stream.read(&mut bytes) {
                        Ok(0) => break,
                        Ok(read) => said.extend(&bytes[..read]),
                        Err(error)
                            if [ErrorKind::WouldBlock, ErrorKind::TimedOut]
                                .contains(&error.kind()) => {}
                        Err(_) => break,
                    }
                    assert!(begun.elapsed() < 2 * PATIENCE, "it is still open");
                    std::thread::sleep(Duration::from_secs(1));
                }
                (begun.elapsed(), String::from_utf8_lossy(&said).into_owned())
            })
        };
        let headers = dripped("GET / HTTP/1.1\r\n", "X: y\r\n");
        let body = dripped(&call, "\0");
        let half = dripped("GE", "T");
        // Meanwhile.
        while !(headers.is_finished() && body.is_finished() && half.is_finished()) {
            let asked = Instant::now();
            let called = console.call(STATUS, &v1::GetStatusRequest::default());
            assert_eq!(called.status, 0, "{called:?}");
            assert!(asked.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_secs(1));
        }
        for (what, slow) in [("headers", headers), ("body", body), ("half", half)] {
            let (taken, said) = slow.join().unwrap();
            eprintln!("{what}: {taken:?}");
            assert!(taken < Duration::from_secs(50), "{what}: {taken:?}");
            assert!(!said.contains("200 OK") || what == "body", "{what}: {said}");
        }
    });
    // Those that were idle since are gone, too.
    let left = idle.iter().filter(|stream| {
        let mut stream = *stream;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).is_err()
    });
    assert_eq!(left.count(), 0, "after {:?}", begun.elapsed());
}
