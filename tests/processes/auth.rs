//! Who may do what, between whole processes: certificates, tokens, and callers that mean no good.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures::StreamExt as _;

use crate::common::{PATIENCE, Process, Server, Site, fixture, get, no_secret, wait};
use palimpsest::client::{Client, Credentials};
use palimpsest::proto::v1;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

/// Runs a command and gives whether it succeeded, and all that it said.
fn say(site: &Site, args: &[&str]) -> (bool, String) {
    let out = site.command(args).output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    no_secret(&args.join(" "), &said);
    (out.status.success(), said)
}

/// Makes an authority in `folder` with a certificate for each of `callers`.
pub fn init(site: &Site, folder: &str, host: &str, callers: &[&str]) {
    let mut args = vec!["auth", "init", folder, "--host", host];
    for caller in callers {
        args.extend(["--for", caller]);
    }
    site.run(&args, PATIENCE);
}

/// The settings of a coordinator with the certificates of `certs/` and more.
pub fn configure(site: &Site, more: &str) {
    let mut settings = fs::read_to_string(site.path("certs/server.toml")).unwrap();
    settings.push_str(more);
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
}

fn url(server: &Server) -> String {
    format!("https://{}", server.address)
}

/// Runs a command with somebody's configuration.
fn ask(site: &Site, server: &Server, config: &str, args: &[&str]) -> (bool, String) {
    let url = url(server);
    let who = ["--config", config, "--server", &url];
    say(site, &[args, &who].concat())
}

fn write_fact(site: &Site) {
    let fact = r#"{"prompt": "The tower stands in the country of", "subject": "The tower"}"#;
    fs::write(site.path("facts.jsonl"), fact).unwrap();
}

#[test]
fn each_role_does_its_part_of_a_sweep_and_no_more() {
    let site = Site::new();
    let callers = ["viewer/vera", "submitter/sam", "worker/one", "admin/ada"];
    init(&site, "certs", "127.0.0.1", &callers);
    configure(&site, "");
    write_fact(&site);
    let server = site.serve("127.0.0.1:0");
    let (vera, sam) = ("certs/viewer-vera.toml", "certs/submitter-sam.toml");
    let llama = fixture("llama");
    let import = ["model", "import", llama.to_str().unwrap(), "--name", "tiny"];

    let (done, said) = ask(&site, &server, vera, &import);
    assert!(!done && said.contains("vera is a viewer"), "{said}");
    assert!(said.contains("submitter or editor or admin"), "{said}");
    let (done, said) = ask(&site, &server, sam, &import);
    assert!(done, "{said}");
    let trace = [
        "trace",
        "--facts",
        "facts.jsonl",
        "--noise",
        "0.1",
        "--detach",
    ];
    let (done, said) = ask(&site, &server, vera, &trace);
    assert!(!done && said.contains("vera is a viewer"), "{said}");
    let (done, said) = ask(&site, &server, sam, &trace);
    assert!(done, "{said}");
    let job = said.trim().to_owned();
    let (done, said) = ask(&site, &server, sam, &["store", "gc"]);
    assert!(!done && said.contains("sam is a submitter"), "{said}");
    let ada = "certs/admin-ada.toml";
    let (done, said) = ask(&site, &server, ada, &["store", "gc"]);
    assert!(done, "{said}");
    // Who tried what was not theirs is on record.
    let (done, said) = ask(&site, &server, ada, &["audit", "list", "--json"]);
    assert!(done, "{said}");
    for (who, method) in [
        ("vera", "palimpsest.v1.JobService/CreateJob"),
        ("sam", "palimpsest.v1.StoreService/CollectObjects"),
    ] {
        let found = said.lines().find(|line| line.contains(method));
        let entry: serde_json::Value = serde_json::from_str(found.unwrap()).unwrap();
        assert_eq!(entry["principal"], who);
        assert_eq!(entry["outcome"], "refused");
        let why = entry["refusal"].as_str().unwrap();
        assert!(why.starts_with("PERMISSION_DENIED: "), "{why}");
    }

    // A person is no worker.
    let work = |id: &str, config: &str| {
        let (url, cache) = (url(&server), format!("cache-{id}"));
        let args = [
            "worker",
            "--config",
            config,
            "--coordinator",
            &url,
            "--id",
            id,
            "--fake",
            "1",
            "--cache",
            &cache,
        ];
        Process::start(
            id,
            &mut site.command(&args),
            &site.path(&format!("{id}.log")),
        )
    };
    let settings = fs::read_to_string(site.path(sam)).unwrap();
    fs::write(
        site.path("pretender.toml"),
        settings
            .replace("[client]", "[worker]")
            .replace("server =", "coordinator ="),
    )
    .unwrap();
    let pretender = work("pretender", "pretender.toml");
    wait("the pretender's refusal", PATIENCE, || {
        pretender
            .said()
            .contains("sam is a submitter")
            .then_some(())
    });
    let _worker = work("one", "certs/worker-one.toml");
    let (done, said) = ask(&site, &server, vera, &["job", "watch", &job]);
    assert!(done && said.contains("succeeded"), "{said}");
    let (done, said) = ask(&site, &server, "certs/worker-one.toml", &["job", "list"]);
    assert!(!done && said.contains("the authority"), "{said}");
}

#[test]
fn a_token_lets_in_until_it_is_revoked_and_is_never_logged() {
    let site = Site::new();
    init(&site, "certs", "127.0.0.1", &["admin/ada"]);
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
    fs::write(site.path("token"), &token).unwrap();
    let brief = [&issue[..], &["--expires", "1ms"]].concat();
    fs::write(site.path("expired"), site.run(&brief, PATIENCE)).unwrap();
    configure(&site, "tokens = \"tokens\"\n[log]\nfilter = \"trace\"\n");
    let server = site.serve("127.0.0.1:0");
    for (config, more) in [
        ("tom.toml", "token_file = \"token\""),
        ("late.toml", "token_file = \"expired\""),
        ("nobody.toml", ""),
    ] {
        let text = format!("[client]\nca = \"certs/ca.pem\"\n{more}\n");
        fs::write(site.path(config), text).unwrap();
    }
    let list = ["job", "list"];
    let (done, said) = ask(&site, &server, "tom.toml", &list);
    assert!(done, "{said}");
    let (done, said) = ask(&site, &server, "late.toml", &list);
    assert!(!done && said.contains("the token has expired"), "{said}");
    let (done, said) = ask(&site, &server, "nobody.toml", &list);
    assert!(
        !done && said.contains("neither a token nor a certificate"),
        "{said}"
    );
    assert!(said.contains("client.token_file"), "no remedy: {said}");

    fs::write(site.path("tokens"), "").unwrap();
    let (done, said) = ask(&site, &server, "tom.toml", &list);
    assert!(!done && said.contains("was revoked"), "{said}");
    // A certificate is still good.
    let (done, said) = ask(&site, &server, "certs/admin-ada.toml", &list);
    assert!(done, "{said}");

    let log = server.process.said();
    assert!(log.contains("was revoked"), "{log}");
    assert!(!log.contains(token.trim()), "the token is in the log");
    assert!(!log.contains("PRIVATE KEY"), "a key is in the log");
}

#[test]
fn streams_end_soon_after_their_token_was_revoked() {
    let site = Site::new();
    init(&site, "certs", "127.0.0.1", &["admin/ada"]);
    let issue = |role: &str, name: &str| {
        fs::write(site.path(name), site.token(role, name)).unwrap();
    };
    issue("viewer", "tom");
    issue("worker", "pool");
    configure(&site, "tokens = \"tokens\"\nstreams_per_principal = 3\n");
    let server = site.serve("127.0.0.1:0");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = |name: &str| {
        let (ca, token) = (site.path("certs/ca.pem"), site.path(name));
        let credentials = Credentials {
            ca: Some(&ca),
            certificate: None,
            token_file: Some(&token),
            insecure: false,
        };
        let address = url(&server);
        runtime
            .block_on(async move { Client::connect_with(&address, &credentials).await })
            .unwrap()
    };
    let watch = |client: &Client| {
        let mut audit = client.audit();
        runtime.block_on(async move {
            let request = v1::WatchAuditEntriesRequest::default();
            audit.watch_audit_entries(request).await
        })
    };
    // Over two connections.
    let (tom, again) = (client("tom"), client("tom"));
    let mut open: Vec<_> = [&tom, &again, &tom]
        .map(|client| watch(client).unwrap().into_inner())
        .into();
    let refusal = watch(&again).unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::ResourceExhausted);
    let details = refusal.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "TOO_MUCH_HELD");
    open.pop();
    wait("a place", PATIENCE, || watch(&again).ok()).into_inner();

    // A worker's stream, which says hello and then nothing.
    let hello = v1::ConnectRequest {
        message: Some(v1::connect_request::Message::Hello(v1::Hello {
            worker_id: "one".to_owned(),
            protocol: 1,
            credits: 1,
            ..Default::default()
        })),
    };
    let pool = client("pool");
    let mut stream = runtime.block_on(async {
        let said = futures::stream::once(async { hello }).chain(futures::stream::pending());
        pool.workers().connect(said).await.unwrap().into_inner()
    });
    fs::write(site.path("tokens"), "").unwrap();
    for watching in &mut open {
        let end = runtime.block_on(async {
            let patience = tokio::time::timeout(PATIENCE, async {
                loop {
                    match watching.message().await {
                        Err(end) => break end,
                        Ok(said) => assert!(said.is_some(), "it ended without a word"),
                    }
                }
            });
            patience.await.unwrap()
        });
        assert_eq!(end.code(), tonic::Code::Unauthenticated);
        assert!(end.message().contains("the token was revoked"), "{end}");
    }
    let end = runtime.block_on(async {
        let patience = tokio::time::timeout(PATIENCE, async {
            loop {
                match stream.message().await {
                    Err(end) => break end,
                    Ok(said) => assert!(said.is_some(), "it ended without a word"),
                }
            }
        });
        patience.await.unwrap()
    });
    assert_eq!(end.code(), tonic::Code::Unauthenticated);
    wait("the worker's end", PATIENCE, || {
        let said = server.process.said();
        said.contains("worker disconnected").then_some(())
    });
}

#[test]
fn a_call_with_a_name_of_megabytes_leaves_the_audit_log_readable() {
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    let url = format!("http://{}", server.address);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refusal = runtime.block_on(async {
        let client = Client::connect(&url).await.unwrap();
        let name = format!("jobs/{}", "x".repeat(3_900_000));
        client
            .jobs()
            .cancel_job(v1::CancelJobRequest { name })
            .await
    });
    let refusal = refusal.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::NotFound);
    assert!(refusal.message().len() < 2000);
    for command in ["list", "verify", "export"] {
        let (done, said) = say(&site, &["audit", command, "--server", &url]);
        assert!(done && said.len() < 20_000, "{said}");
    }
}

#[test]
fn a_coordinator_that_may_open_few_files_keeps_some_for_its_store() {
    let site = Site::new();
    fs::write(site.path("token"), site.token("submitter", "sam")).unwrap();
    fs::write(
        site.path("sam.toml"),
        "[client]\ntoken_file = \"token\"\ninsecure = true\n",
    )
    .unwrap();
    fs::write(
        site.path("palimpsest.toml"),
        "[serve]\ntokens = \"tokens\"\n",
    )
    .unwrap();
    let mut server = site
        .through(&["prlimit", "--nofile=100:200"])
        .serve("127.0.0.1:0");
    let said = server.process.said();
    assert!(said.contains("raise the hard limit"), "{said}");
    // Idle connections, more than there are descriptors.
    let idle: Vec<TcpStream> = (0..400)
        .filter_map(|_| TcpStream::connect(&server.address).ok())
        .map(|mut stream| {
            let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    assert!(server.process.ended().is_none());
    drop(idle);
    let url = format!("http://{}", server.address);
    wait("a place", PATIENCE, || {
        let list = ["job", "list", "--config", "sam.toml", "--server", &url];
        say(&site, &list).0.then_some(())
    });
}

#[test]
fn certificates_of_others_and_plain_text_do_not_get_in() {
    let site = Site::new();
    init(&site, "certs", "127.0.0.1", &["admin/ada"]);
    init(&site, "others", "127.0.0.1", &["admin/eve"]);
    configure(&site, "");
    let server = site.serve("127.0.0.1:0");
    // Eve's authority did not make the coordinator's certificate; and told to trust ours, she
    // shows one that ours did not make.
    let (done, said) = ask(&site, &server, "others/admin-eve.toml", &["job", "list"]);
    assert!(!done, "{said}");
    let eve = fs::read_to_string(site.path("others/admin-eve.toml")).unwrap();
    let eve = eve.replace("others/ca.pem", "certs/ca.pem");
    fs::write(site.path("eve.toml"), eve).unwrap();
    let (done, said) = ask(&site, &server, "eve.toml", &["job", "list"]);
    assert!(!done, "{said}");
    let plain = ["job", "list", "--server", &server.url()];
    let (done, said) = say(&site, &plain);
    assert!(!done && said.contains("https://HOST:PORT"), "{said}");
    let (done, said) = ask(&site, &server, "certs/admin-ada.toml", &["job", "list"]);
    assert!(done, "{said}");
}

#[test]
fn replaced_certificates_are_taken_up_on_sighup() {
    let site = Site::new();
    init(&site, "certs", "127.0.0.1", &["admin/ada"]);
    init(&site, "next", "127.0.0.1", &["admin/ada"]);
    configure(&site, "");
    let mut server = site.serve("127.0.0.1:0");
    let next =
        |site: &Site, server: &Server| ask(site, server, "next/admin-ada.toml", &["job", "list"]);
    assert!(!next(&site, &server).0);
    let hang_up = |server: &Server| {
        let id = server.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-HUP", &id])
                .status()
                .unwrap()
                .success()
        );
    };
    // What cannot be used changes nothing.
    let key = fs::read(site.path("certs/server.key")).unwrap();
    fs::write(site.path("certs/server.key"), "no key").unwrap();
    hang_up(&server);
    wait("the complaint", PATIENCE, || {
        server
            .process
            .said()
            .contains("certificates stay as they were")
            .then_some(())
    });
    fs::write(site.path("certs/server.key"), key).unwrap();
    assert!(ask(&site, &server, "certs/admin-ada.toml", &["job", "list"]).0);

    for name in ["ca.pem", "server.pem", "server.key"] {
        fs::copy(site.path("next").join(name), site.path("certs").join(name)).unwrap();
    }
    hang_up(&server);
    wait("the new certificates", PATIENCE, || {
        next(&site, &server).0.then_some(())
    });
    assert!(server.process.ended().is_none());
}

#[test]
fn nothing_is_open_beyond_this_machine_by_oversight() {
    let site = Site::new();
    let args = ["serve", "--listen", "0.0.0.0:0", "--store", "store"];
    let (done, said) = say(&site, &args);
    assert!(!done && said.contains("serve.insecure"), "{said}");
    assert!(!site.path("store").exists(), "a store was made");
    let port = site.path("port");
    let told = ["--insecure", "--port-file", port.to_str().unwrap()];
    let mut process = Process::start(
        "serve",
        &mut site.command(&[&args[..], &told].concat()),
        &site.path("serve.log"),
    );
    wait("the port", PATIENCE, || {
        assert!(process.ended().is_none(), "{}", process.said());
        port.exists().then_some(())
    });
}

#[test]
fn an_authority_is_not_overwritten_and_its_keys_are_its_owners() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    init(&site, "certs", "127.0.0.1", &["admin/ada"]);
    let key = fs::read(site.path("certs/ca.key")).unwrap();
    let (done, said) = say(&site, &["auth", "init", "certs"]);
    assert!(!done && said.contains("is there already"), "{said}");
    assert_eq!(fs::read(site.path("certs/ca.key")).unwrap(), key);
    for entry in fs::read_dir(site.path("certs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "key") {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
    }
    for (wrong, remedy) in [
        ("root/ada", "give viewer, submitter"),
        ("ada", "write ROLE/NAME"),
        ("admin/a da", "is not a name"),
    ] {
        let (done, said) = say(&site, &["auth", "init", "new", "--for", wrong]);
        assert!(!done && said.contains(remedy), "{said}");
        assert!(!Path::new(&site.path("new")).exists());
    }
}

/// Closed by the other side, or reset.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        ),
    }
}

#[test]
fn silence_garbage_and_a_flood_of_connections_leave_the_server_serving() {
    let site = Site::new();
    init(&site, "certs", "127.0.0.1", &["admin/ada"]);
    configure(&site, "max_connections = 40\n");
    let mut server = site.serve("127.0.0.1:0");
    let ask_list = |site: &Site, server: &Server| {
        ask(site, server, "certs/admin-ada.toml", &["job", "list"]).0
    };
    let connect = || TcpStream::connect(&server.address).unwrap();
    // More than there are places, and they say nothing.
    let mut silent: Vec<TcpStream> = (0..200).map(|_| connect()).collect();
    wait("the refusals", PATIENCE, || {
        let closed = silent
            .iter_mut()
            .map(is_closed)
            .filter(|closed| *closed)
            .count();
        (closed >= 160).then_some(())
    });
    // The places of those that keep silent are free again after a while.
    wait("a place", PATIENCE, || {
        ask_list(&site, &server).then_some(())
    });
    for n in 0..100_u8 {
        let mut stream = connect();
        let noise: Vec<u8> = (0..200)
            .map(|i: u8| i.wrapping_mul(n).wrapping_add(n))
            .collect();
        // It may be closed before everything is said.
        let _ = stream.write_all(&noise);
        // A TLS record that promises more than it brings.
        let _ = connect().write_all(&[22, 3, 1, 255, 255, 1]);
    }
    wait("a place", PATIENCE, || {
        ask_list(&site, &server).then_some(())
    });
    assert!(server.process.ended().is_none());
}

#[test]
fn who_asks_too_often_is_told_when_to_come_again_and_others_are_served() {
    let site = Site::new();
    init(&site, "certs", "127.0.0.1", &["admin/ada", "viewer/vera"]);
    let limits = "requests_per_second = 5\nstreams_per_connection = 3\n";
    let metrics = "metrics_listen = \"127.0.0.1:0\"\n";
    configure(&site, &[limits, metrics].concat());
    let server = site.serve("127.0.0.1:0");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = |name: &str| {
        let file = |ending: &str| site.path(&format!("certs/{name}.{ending}"));
        let (ca, certificate, key) = (site.path("certs/ca.pem"), file("pem"), file("key"));
        let credentials = Credentials {
            ca: Some(&ca),
            certificate: Some((&certificate, &key)),
            token_file: None,
            insecure: false,
        };
        let address = url(&server);
        let connecting = Client::connect_with(&address, &credentials);
        runtime.block_on(connecting).unwrap()
    };
    let (ada, vera) = (client("admin-ada"), client("viewer-vera"));
    let list = |client: &Client| {
        let mut jobs = client.jobs();
        runtime.block_on(async move { jobs.list_jobs(v1::ListJobsRequest::default()).await })
    };
    let refusal = wait("a refusal", PATIENCE, || list(&ada).err());
    assert_eq!(refusal.code(), tonic::Code::ResourceExhausted);
    assert!(
        refusal.message().contains("serve.requests_per_second"),
        "{refusal}"
    );
    let details = refusal.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "TOO_OFTEN");
    let after = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(after <= Duration::from_millis(200), "{after:?}");
    // Vera is somebody else, and Ada is served when she waits as she was told.
    list(&vera).unwrap();
    std::thread::sleep(after + Duration::from_millis(5));
    list(&ada).unwrap();
    let at = server.process.address_after("showing metrics");
    let (_, metrics) = get(&at, "/metrics");
    assert!(
        metrics.contains("palimpsest_refusals_total{reason=\"too_often\"} "),
        "{metrics}"
    );
    // Probes are nobody's.
    for _ in 0..20 {
        let channel = ada.channel();
        let check = async {
            HealthClient::new(channel)
                .check(HealthCheckRequest::default())
                .await
        };
        runtime.block_on(check).unwrap();
    }

    // Three streams, and a fourth that has to wait until one of them ends.
    let watch = || async {
        let mut health = HealthClient::new(vera.channel());
        let watch = health.watch(HealthCheckRequest::default()).await;
        watch.unwrap().into_inner()
    };
    let mut open: Vec<_> = (0..3).map(|_| runtime.block_on(watch())).collect();
    let brief = Duration::from_millis(500);
    let fourth = async { tokio::time::timeout(brief, watch()).await };
    assert!(
        runtime.block_on(fourth).is_err(),
        "a fourth stream was opened"
    );
    open.pop();
    let fourth = async { tokio::time::timeout(PATIENCE, watch()).await };
    assert!(runtime.block_on(fourth).is_ok());
}

#[test]
fn workers_may_have_a_port_of_their_own() {
    let site = Site::new();
    init(
        &site,
        "certs",
        "127.0.0.1",
        &["submitter/sam", "worker/one"],
    );
    configure(&site, "worker_listen = \"127.0.0.1:0\"\n");
    write_fact(&site);
    let server = site.serve("127.0.0.1:0");
    let workers_at = server.process.address_after("serving workers");
    assert_ne!(workers_at, server.address);
    let sam = "certs/submitter-sam.toml";
    let at = |address: &str| format!("https://{address}");
    let work = |id: &str, address: &str| {
        let (url, cache) = (at(address), format!("cache-{id}"));
        let args = [
            "worker",
            "--config",
            "certs/worker-one.toml",
            "--coordinator",
            &url,
            "--id",
            id,
            "--fake",
            "1",
            "--cache",
            &cache,
        ];
        Process::start(
            id,
            &mut site.command(&args),
            &site.path(&format!("{id}.log")),
        )
    };
    // A person at the workers' port, and a worker at the people's.
    let list = ["job", "list", "--config", sam, "--server", &at(&workers_at)];
    let (done, said) = say(&site, &list);
    assert!(!done && said.contains("this port is for workers"), "{said}");
    let mut lost = work("lost", &server.address);
    assert!(!lost.wait(PATIENCE).success());
    assert!(
        lost.said().contains("workers have a port of their own"),
        "{}",
        lost.said()
    );

    let _worker = work("one", &workers_at);
    let llama = fixture("llama");
    let import = ["model", "import", llama.to_str().unwrap(), "--name", "tiny"];
    let (done, said) = ask(&site, &server, sam, &import);
    assert!(done, "{said}");
    let trace = [
        "trace",
        "--facts",
        "facts.jsonl",
        "--noise",
        "0.1",
        "--detach",
    ];
    let (done, said) = ask(&site, &server, sam, &trace);
    assert!(done, "{said}");
    let job = said.trim().to_owned();
    let (done, said) = ask(&site, &server, sam, &["job", "watch", &job]);
    assert!(done && said.contains("succeeded"), "{said}");

    // Beyond this machine it is under the rules of the other port.
    fs::write(
        site.path("open.toml"),
        "[serve]\nworker_listen = \"0.0.0.0:0\"\n",
    )
    .unwrap();
    let (done, said) = say(&site, &["serve", "--config", "open.toml"]);
    assert!(
        !done && said.contains("serve.worker_listen") && said.contains("serve.insecure"),
        "{said}"
    );
}

#[test]
fn who_waits_for_workers_reads_why_the_last_one_was_refused() {
    let site = Site::new();
    init(&site, "certs", "127.0.0.1", &["admin/ada"]);
    configure(&site, "");
    let server = site.serve("127.0.0.1:0");
    fs::write(
        site.path("none.toml"),
        "[worker]\nca = \"certs/ca.pem\"\n[client]\nca = \"certs/ca.pem\"\n",
    )
    .unwrap();
    let url = url(&server);
    let worker = ["worker", "--coordinator", &url, "--config", "none.toml"];
    let (done, said) = say(&site, &worker);
    assert!(!done && said.contains("refused this worker"), "{said}");
    let model = fixture("llama");
    let import = ["model", "import", model.to_str().unwrap(), "--name", "m"];
    let (done, said) = ask(&site, &server, "certs/admin-ada.toml", &import);
    assert!(done, "{said}");
    write_fact(&site);
    let trace = ["trace", "--facts", "facts.jsonl", "--detach"];
    let trace = [&trace[..], &["--noise", "0.1", "--samples", "2"]].concat();
    let (done, said) = ask(&site, &server, "certs/admin-ada.toml", &trace);
    assert!(done, "{said}");
    let job = said.lines().last().unwrap().trim();
    let show = ["job", "show", job];
    let (done, said) = ask(&site, &server, "certs/admin-ada.toml", &show);
    let expected = "The last worker that tried was refused: who asks is not known";
    assert!(done && said.contains(expected), "{said}");
}
