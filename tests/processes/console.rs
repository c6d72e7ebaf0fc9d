//! The doors of the console, met as browsers and those who mean no good meet them: by HTTP, byte by
//! byte. What the pages themselves do is tried in a browser (`pages.rs`); who is slow, in `hostile.rs`.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};

use palimpsest::proto::v1;

use crate::auth::{configure, init};
use crate::common::web::{
    Called, Console, STATUS, STATUS_PATH, ask, call, caller, framed, tcp, tls,
};
use crate::common::{PATIENCE, Server, Site, fixture, wait};

/// A figure of a job that is not there.
const FIGURE: &str = "/figures/jobs/none/averages.svg";

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
        FIGURE,
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
    // Figures are read with what calls are made with.
    let figure = |method: &str, path: &str, more: &[(&str, &str)]| {
        let headers = [&[("Host", own)], more].concat();
        ask(&mut tcp(own), method, path, &headers, &[])
    };
    let elsewhere = ("Sec-Fetch-Site", "cross-site");
    for (path, headers, expected, said) in [
        (FIGURE, &[][..], 401, "no key came with it"),
        (
            FIGURE,
            &[("x-palimpsest-key", "0")],
            401,
            "its key is of another",
        ),
        (FIGURE, &[key, elsewhere], 403, "not of this server"),
        (FIGURE, &[key], 404, "jobs/none"),
        ("/figures/jobs/none/units/3.svg", &[key], 404, "jobs/none"),
        (
            "/figures/jobs/none/units/3.svg?relation=P17",
            &[key],
            400,
            "of averages alone",
        ),
        (
            "/figures/jobs/none/averages.svg?metric=logits",
            &[key],
            400,
            "`logits`",
        ),
        (
            "/figures/jobs/none/averages.svg?mertic=kl",
            &[key],
            400,
            "mertic",
        ),
        (
            "/figures/jobs/none/units/-1.svg",
            &[key],
            404,
            "no such figure",
        ),
        (
            "/figures/jobs/none/averages.png",
            &[key],
            404,
            "no such figure",
        ),
        ("/figures/", &[key], 404, "no such figure"),
    ] {
        let answer = figure("GET", path, headers);
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, expected, "{path} {headers:?}: {text}");
        assert!(text.contains(said), "{path} {headers:?}: {text}");
    }
    for method in ["POST", "PUT", "OPTIONS"] {
        assert_eq!(figure(method, FIGURE, &[key]).status, 405, "{method}");
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
    fs::write(site.path("token"), site.token("viewer", "tom")).unwrap();
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
    let token = site.token("viewer", "tom");
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

    // Figures are for those who may read what is drawn.
    let figure = |who: Option<&str>, more: &[(&str, &str)]| {
        let headers = [&[("Host", "127.0.0.1")], more].concat();
        let mut stream = tls(&site, &web, who);
        ask(&mut stream, "GET", FIGURE, &headers, &[]).status
    };
    assert_eq!(figure(None, &[]), 401);
    assert_eq!(figure(None, &[("authorization", "Bearer none")]), 401);
    assert_eq!(figure(None, &shown), 404);
    assert_eq!(figure(Some("editor-ada"), &[]), 404);
    assert_eq!(figure(Some("worker-one"), &[]), 403);

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
