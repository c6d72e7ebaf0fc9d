#![allow(clippy::unwrap_used)]

use super::*;

/// Loads in a folder of its own, whose `palimpsest.toml` is `file`.
fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, Error> {
    let folder = tempfile::tempdir().unwrap();
    if !file.is_empty() {
        std::fs::write(folder.path().join("palimpsest.toml"), file).unwrap();
    }
    let pair = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
    let mut environment: HashMap<_, _> = environment.iter().map(pair).collect();
    environment
        .entry("HOME".into())
        .or_insert("/home/ada".into());
    let flags: Vec<_> = flags.iter().map(pair).collect();
    Config::load_with(environment, folder.path(), None, &flags)
}

fn message(result: Result<Config, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn defaults_are_valid_and_those_of_the_documentation() {
    let config = load("", &[], &[]).unwrap();
    assert_eq!(config.serve.listen.to_string(), "127.0.0.1:7461");
    assert_eq!(
        config.serve.store,
        Path::new("/home/ada/.local/share/palimpsest")
    );
    assert_eq!(config.client.store, config.serve.store);
    assert_eq!(config.worker.coordinator.as_str(), "http://127.0.0.1:7461");
    assert_eq!(
        config.worker.cache,
        Path::new("/home/ada/.cache/palimpsest/objects")
    );
    assert_eq!(config.worker.device.to_string(), "auto");
    assert_eq!(config.worker.memory, Memory::Auto);
    assert_eq!(config.worker.credits, 2);
    assert_eq!((config.worker.id, config.worker.valid_until), (None, None));
    assert_eq!(config.client.server, None);
    for setting in SETTINGS {
        assert!(setting.doc.len() > 20, "{} is not documented", setting.key);
    }
}

#[test]
fn a_token_of_the_environment_may_be_shown_to_this_machine_and_one_of_a_file_may_not() {
    let token = [("PALIMPSEST__CLIENT__TOKEN_FILE", "token")];
    assert!(load("", &token, &[]).unwrap().client.insecure);
    let file = "[client]\ntoken_file = \"token\"\n";
    assert!(!load(file, &[], &[]).unwrap().client.insecure);
    let refused = "[client]\ninsecure = false\n";
    assert!(!load(refused, &token, &[]).unwrap().client.insecure);
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_the_defaults() {
    let file = "[worker]\ncredits = 3\nthreads = 4\ndevice = \"cpu\"\n";
    let environment = [
        ("PALIMPSEST__WORKER__CREDITS", "5"),
        ("PALIMPSEST__WORKER__THREADS", "6"),
    ];
    let config = load(file, &environment, &[("worker.credits", "7")]).unwrap();
    assert_eq!(config.worker.credits, 7);
    assert_eq!(config.worker.threads, 6);
    assert_eq!(config.worker.device.to_string(), "cpu");
    assert_eq!(config.origin("worker.credits"), Some(&Origin::Flag));
    assert_eq!(
        config.origin("worker.threads"),
        Some(&Origin::Environment("PALIMPSEST__WORKER__THREADS".into()))
    );
    assert!(matches!(
        config.origin("worker.device"),
        Some(Origin::File(_))
    ));
    assert_eq!(config.origin("worker.memory"), Some(&Origin::Default));
    assert_eq!(config.origin("worker.nothing"), None);
}

#[test]
fn owners_have_weights_that_are_numbers_above_nothing() {
    let weights = |text: &str| load("", &[], &[("serve.owner_weights", text)]);
    let read = weights(" ada=3, bob = 0.5 ").unwrap().serve.owner_weights.0;
    let expected = [("ada".to_owned(), 3.0), ("bob".to_owned(), 0.5)];
    assert_eq!(read, expected.into());
    for (wrong, what) in [
        ("ada", "NAME=NUMBER"),
        ("ada=much", "'ada=much'"),
        ("ada=0", "more than 0"),
        ("ada=inf", "more than 0"),
    ] {
        let message = message(weights(wrong));
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn what_the_scheduler_cannot_work_with_is_refused() {
    for (key, value, what) in [
        ("serve.task_time", "10ms", "1s to 1h"),
        ("serve.max_open_jobs", "0", "1 to"),
        ("serve.speculate", "yes", "true or false"),
        ("worker.drain_timeout", "25", "unit"),
        ("edit.min_efficacy", "90%", "a number"),
        ("edit.min_efficacy", "1.5", "-1 to 1"),
        ("edit.max_norm", "-1", "0 or more"),
        ("edit.warn_norm", "NaN", "0 or more"),
    ] {
        let message = message(load("", &[], &[(key, value)]));
        assert!(message.contains(key) && message.contains(what), "{message}");
    }
}

#[test]
fn the_file_is_looked_for_where_the_documentation_says() {
    let folder = tempfile::tempdir().unwrap();
    let (work, xdg) = (folder.path().join("work"), folder.path().join("xdg"));
    std::fs::create_dir_all(xdg.join("palimpsest")).unwrap();
    std::fs::create_dir_all(&work).unwrap();
    let environment = || {
        HashMap::from([
            ("XDG_CONFIG_HOME".into(), xdg.to_str().unwrap().into()),
            ("HOME".into(), "/h".into()),
        ])
    };
    let credits = |file: Option<&Path>| {
        Config::load_with(environment(), &work, file, &[]).map(|config| config.worker.credits)
    };
    assert_eq!(credits(None).unwrap(), 2);
    std::fs::write(xdg.join("palimpsest/palimpsest.toml"), "worker.credits = 3").unwrap();
    assert_eq!(credits(None).unwrap(), 3);
    std::fs::write(work.join("palimpsest.toml"), "worker.credits = 4").unwrap();
    assert_eq!(credits(None).unwrap(), 4);
    let named = folder.path().join("named.toml");
    assert!(matches!(credits(Some(&named)), Err(Error::NoFile { path }) if path == named));
    std::fs::write(&named, "worker.credits = 5").unwrap();
    assert_eq!(credits(Some(&named)).unwrap(), 5);
}

#[test]
fn unknown_keys_are_errors_that_name_the_key_and_its_place() {
    let text = message(load("[serve]\nlisen = \"x\"\n", &[], &[]));
    assert!(
        text.contains("\"serve.lisen\"") && text.contains("palimpsest.toml"),
        "{text}"
    );
    assert!(
        text.contains("section serve has listen, tls_certificate"),
        "{text}"
    );
    let text = message(load("[server]\nlisten = \"x\"\n", &[], &[]));
    assert!(text.contains("perhaps serve.listen was meant"), "{text}");
    let text = message(load("[serve]\nheartbeat-interval = \"1s\"\n", &[], &[]));
    assert!(
        text.contains("perhaps serve.heartbeat_interval was meant"),
        "{text}"
    );
    let text = message(load("surprise = 1\n", &[], &[]));
    assert!(
        text.contains("the sections are serve, worker, client, edit, store, log"),
        "{text}"
    );
    let text = message(load("", &[("PALIMPSEST__WORKER__CREDIT", "1")], &[]));
    assert!(
        text.contains("the variable PALIMPSEST__WORKER__CREDIT"),
        "{text}"
    );
    let text = message(load("", &[], &[("worker.speed", "1")]));
    assert!(text.contains("\"worker.speed\" in a flag"), "{text}");
    // Not ours.
    load(
        "",
        &[("PALIMPSEST_HOME", "x"), ("WORKER__CREDITS", "x")],
        &[],
    )
    .unwrap();
}

#[test]
fn a_file_that_is_not_toml_is_an_error_that_says_where() {
    let text = message(load("[serve\nlisten = 1", &[], &[]));
    assert!(
        text.contains("palimpsest.toml") && text.contains("line 1"),
        "{text}"
    );
}

#[test]
fn wrong_values_are_errors_that_name_the_setting_the_value_and_the_remedy() {
    for (key, value, remedy) in [
        ("serve.listen", "localhost", "127.0.0.1:7461"),
        ("serve.store", "", "path of a folder"),
        ("serve.heartbeat_interval", "5", "give it a unit, as 5s"),
        ("serve.heartbeat_interval", "soon", "as 250ms, 20s"),
        ("serve.heartbeat_interval", "-5s", "as 250ms, 20s"),
        ("serve.heartbeat_interval", "1ms", "give 100ms to 10min"),
        (
            "serve.lease_duration",
            "14s",
            "at least three heartbeat intervals (serve.heartbeat_interval is 5s)",
        ),
        ("serve.max_attempts", "0", "give 1 to 1000"),
        (
            "worker.coordinator",
            "127.0.0.1:7461",
            "http://127.0.0.1:7461",
        ),
        ("worker.coordinator", "https://gpu:1", "worker.ca"),
        ("serve.listen", "0.0.0.0:7461", "serve.insecure = true"),
        (
            "serve.tls_certificate",
            "c.pem",
            "serve.tls_key, or neither",
        ),
        ("serve.client_ca", "ca.pem", "over TLS only"),
        ("serve.web_listen", "0.0.0.0:7464", "serve.insecure = true"),
        ("serve.web_listen", "console", "as 127.0.0.1:7461"),
        ("serve.web_hosts", "lab.example", "give serve.web_listen"),
        (
            "serve.web_hosts",
            "http://lab.example",
            "names without ports",
        ),
        ("serve.web_hosts", "lab.example:443", "names without ports"),
        ("serve.insecure", "yes", "true or false"),
        ("serve.max_connections", "0", "give 1 to 1000000"),
        ("client.server", "https://gpu:1", "client.ca"),
        (
            "worker.coordinator",
            "http://gpu:1/api",
            "leave out what follows the port",
        ),
        ("worker.device", "gpu", "cuda:N"),
        ("worker.device", "cpu,cuda:0", "several of a kind"),
        ("worker.device", "cuda:0,cuda:all", "several of a kind"),
        ("worker.device", "cpu,", "several of a kind"),
        ("worker.per_device", "2", "true or false"),
        ("worker.threads", "-1", "whole number"),
        ("worker.memory", "4", "give it a unit, as 4GiB"),
        ("worker.memory", "4Gib/s", "as 4GiB"),
        ("worker.memory", "0GiB", "more than nothing"),
        ("worker.memory", "99999999999TiB", "as 4GiB"),
        ("worker.credits", "0", "give 1 to 1000"),
        ("worker.credits", "two", "whole number"),
        ("worker.id", "Big Worker", "lower-case letters"),
        ("worker.valid_until", "tomorrow", "2026-01-31T18:00:00Z"),
        ("log.format", "xml", "text or json"),
        ("log.color", "red", "auto, always or never"),
    ] {
        let text = message(load("", &[], &[(key, value)]));
        assert!(
            text.contains(key) && text.contains(&format!("{value:?}")) && text.contains(remedy),
            "{key} = {value}: {text}"
        );
    }
    let text = message(load("[worker]\nthreads = [1, 2]\n", &[], &[]));
    assert!(
        text.contains("worker.threads") && text.contains("give one value"),
        "{text}"
    );
    let text = message(load("[worker.threads]\nfast = 1\n", &[], &[]));
    assert!(
        text.contains("worker.threads") && text.contains("give one value"),
        "{text}"
    );
    let text = message(load("[serve]\nheartbeat_interval = 5\n", &[], &[]));
    assert!(text.contains("give it a unit, as 5s"), "{text}");
}

#[test]
fn values_are_read_from_human_text() {
    for (text, duration) in [
        ("20s", 20_000),
        ("250ms", 250),
        ("1m 30s", 90_000),
        ("1h30m", 5_400_000),
        ("1.5s", 1500),
    ] {
        assert_eq!(
            parse_duration(text).unwrap(),
            Duration::from_millis(duration),
            "{text}"
        );
    }
    for (text, size) in [
        ("4GiB", 4 << 30),
        ("512 MiB", 512 << 20),
        ("1.5GB", 1_500_000_000),
        ("10b", 10),
        ("1kib", 1024),
        ("9007199254740993B", 9_007_199_254_740_993),
    ] {
        assert_eq!(parse_size(text).unwrap(), size, "{text}");
    }
    let flags = [
        ("worker.memory", "2GiB"),
        ("worker.device", "cuda:1, cuda:0"),
        ("worker.id", "gpu-7.a_b"),
        ("worker.valid_until", "2026-01-31T18:00:00Z"),
        ("client.server", "http://head.cluster:7461/"),
        ("client.store", "~/runs"),
        ("serve.store", "relative/store"),
    ];
    let config = load("", &[], &flags).unwrap();
    assert_eq!(config.worker.memory, Memory::Bytes(2 << 30));
    assert_eq!(config.worker.device.to_string(), "cuda:1,cuda:0");
    assert_eq!(config.worker.id.unwrap().as_str(), "gpu-7.a_b");
    assert_eq!(
        config.worker.valid_until.unwrap().as_second(),
        1_769_882_400
    );
    assert_eq!(
        config.client.server.unwrap().as_str(),
        "http://head.cluster:7461"
    );
    assert_eq!(config.client.store, Path::new("/home/ada/runs"));
    assert_eq!(config.serve.store, Path::new("relative/store"));
}

#[test]
fn variables_with_a_common_meaning_are_heeded_unless_the_setting_is_set() {
    let environment = [("NO_COLOR", "1"), ("SLURM_JOB_END_TIME", "1769882400")];
    let config = load("", &environment, &[]).unwrap();
    assert_eq!(config.log.color, Color::Never);
    assert_eq!(
        config.worker.valid_until.unwrap().to_string(),
        "2026-01-31T18:00:00Z"
    );
    let config = load(
        "log.color = \"always\"",
        &environment,
        &[("worker.valid_until", "")],
    )
    .unwrap();
    assert_eq!(config.log.color, Color::Always);
    assert_eq!(config.worker.valid_until, None);
    assert_eq!(
        load("", &[("NO_COLOR", "")], &[]).unwrap().log.color,
        Color::Auto
    );
}

#[test]
fn without_a_home_the_folders_have_to_be_given() {
    let environment = [("HOME", "")];
    let text = message(load("", &environment, &[]));
    assert!(
        text.contains("serve.store") && text.contains("HOME is not set"),
        "{text}"
    );
    let flags = [
        ("serve.store", "/s"),
        ("client.store", "/s"),
        ("worker.cache", "/c"),
    ];
    load("", &environment, &flags).unwrap();
    let xdg = [
        ("HOME", ""),
        ("XDG_DATA_HOME", "/data"),
        ("XDG_CACHE_HOME", "/cache"),
    ];
    let config = load("", &xdg, &[]).unwrap();
    assert_eq!(config.worker.cache, Path::new("/cache/palimpsest/objects"));
}

#[test]
fn a_bound_of_what_is_no_cache_is_refused() {
    let text = message(load("", &[], &[("store.cache_size", "50GiB")]));
    for part in ["store.cache_size", "50GiB", "store.bucket", "only copies"] {
        assert!(text.contains(part), "{text}");
    }
    let bucket = [
        ("store.bucket", "s3://pal/a"),
        ("store.credentials", "/key"),
        ("store.cache_size", "50GiB"),
    ];
    let config = load("", &[], &bucket).unwrap();
    assert_eq!(config.store.cache_size.unwrap().bytes(), 50 << 30);
    let text = message(load("", &[], &[("worker.cache_size", "0B")]));
    assert!(text.contains("more than nothing"), "{text}");
}

#[test]
fn an_authority_of_no_collector_with_tls_is_refused() {
    let ca = ("log.otlp_ca", "/ca.pem");
    for flags in [&[ca][..], &[ca, ("log.otlp_endpoint", "http://a:4317")]] {
        let text = message(load("", &[], flags));
        for part in ["log.otlp_ca", "/ca.pem", "log.otlp_endpoint", "https://"] {
            assert!(text.contains(part), "{text}");
        }
    }
    let flags = [ca, ("log.otlp_endpoint", "https://a:4317")];
    load("", &[], &flags).unwrap();
}

#[test]
fn what_is_secret_in_a_value_is_not_shown() {
    let token = format!("palimpsest_{}", "0123456789abcdef".repeat(4));
    let flags = [
        ("client.server", "http://ada:secret@head:7461"),
        ("log.otlp_endpoint", "http://s@p@collector:4317"),
        ("worker.coordinator", "http://head:7461"),
    ];
    let config = load("", &[], &flags).unwrap();
    assert_eq!(config.shown("client.server"), "http://(hidden)@head:7461");
    assert_eq!(
        config.shown("log.otlp_endpoint"),
        "http://(hidden)@collector:4317"
    );
    assert_eq!(config.shown("worker.coordinator"), "http://head:7461");
    assert_eq!(
        config.shown("serve.store"),
        "/home/ada/.local/share/palimpsest"
    );
    assert_eq!(config.shown("no.such"), "");
    let refused = message(load("", &[], &[("client.token_file", &token)]));
    assert!(
        refused.contains("(hidden)") && refused.contains("not the token"),
        "{refused}"
    );
    assert!(!refused.contains(&token), "{refused}");
    let key = load("", &[], &[("client.key", "-----BEGIN PRIVATE KEY-----")]);
    // Without a certificate it is refused; what is refused is not shown either.
    assert!(!message(key).contains("BEGIN"));
}

#[test]
fn several_coordinators_are_given_in_one_setting() {
    let server = |text: &str| load("", &[], &[("client.server", text)]);
    let several = "http://a:7461, http://b:7461/,http://c:1";
    let read = server(several).unwrap().client.server.unwrap();
    assert_eq!(read.as_str(), "http://a:7461,http://b:7461,http://c:1");
    for (text, remedy) in [
        ("http://a:1,https://b:1", "all with https://"),
        ("http://a:1,b", "give an address"),
        ("http://a:1,", "give an address"),
        ("http://a:1,unix:/run/p", "all with https://"),
    ] {
        let said = message(server(text));
        assert!(said.contains(remedy), "{text}: {said}");
    }
    let log = message(load("", &[], &[("store.log", "bucket")]));
    assert!(log.contains("store.bucket"), "{log}");
    let quick = message(load("", &[], &[("store.takeover", "10ms")]));
    assert!(quick.contains("1s to 10min"), "{quick}");
}

#[test]
fn sockets_have_paths_that_the_system_takes() {
    let listen = |text: &str| load("", &[("PALIMPSEST__SERVE__LISTEN", text)], &[]);
    for (text, path) in [
        ("unix:/run/p", "unix:/run/p"),
        ("unix:///run/p", "unix:/run/p"),
        ("unix:~/p", "unix:/home/ada/p"),
    ] {
        assert_eq!(listen(text).unwrap().serve.listen.to_string(), path);
        let server = load("", &[("PALIMPSEST__CLIENT__SERVER", text)], &[]).unwrap();
        assert_eq!(server.client.server.unwrap().as_str(), path);
    }
    for key in ["PALIMPSEST__SERVE__LISTEN", "PALIMPSEST__CLIENT__SERVER"] {
        let long = format!("unix:/{}", "x".repeat(107));
        let said = message(load("", &[(key, &long)], &[]));
        assert!(
            said.contains("at most 107 bytes and this one 108"),
            "{said}"
        );
        let said = message(load("", &[(key, "unix:")], &[]));
        assert!(said.contains("give the path of a socket"), "{said}");
    }
    let tls = r#"
        [serve]
        listen = "unix:/run/p"
        tls_certificate = "a"
        tls_key = "b"
        client_ca = "c"
    "#;
    let said = message(load(tls, &[], &[]));
    assert!(said.contains("nobody can show a certificate"), "{said}");
}
