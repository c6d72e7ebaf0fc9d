//! The command line's own account of itself: settings, completions, manual, doctor, status.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::common::sweep::{import, results, submit, write_facts};
use crate::common::{PATIENCE, Site, no_secret, wait};
use palimpsest::config::{SECTIONS, SETTINGS};
use serde_json::Value;

/// Runs a command and gives whether it succeeded, and what it said on standard output and beside
/// it.
fn say(site: &Site, args: &[&str]) -> (bool, String, String) {
    let out = site.command(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let said = (out.status.success(), text(out.stdout), text(out.stderr));
    no_secret(&args.join(" "), &said.1);
    no_secret(&args.join(" "), &said.2);
    said
}

#[test]
fn shown_settings_say_where_they_stand_and_are_a_file_that_gives_the_same() {
    let site = Site::new();
    fs::write(
        site.path("palimpsest.toml"),
        "[worker]\ncredits = 7\n[log]\nformat = \"json\"\n",
    )
    .unwrap();
    let mut command = site.command(&["--log", "error", "config", "show", "--json"]);
    let out = command
        .env("PALIMPSEST__SERVE__TASK_TIME", "3s")
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&out.stdout).unwrap();
    let of = |key: &str| {
        let setting = &shown[key];
        let text = |field: &str| setting[field].as_str().unwrap().to_owned();
        (text("value"), text("origin"))
    };
    assert_eq!(
        of("worker.credits"),
        ("7".into(), "the file palimpsest.toml".into())
    );
    assert_eq!(
        of("serve.task_time"),
        (
            "3s".into(),
            "the variable PALIMPSEST__SERVE__TASK_TIME".into()
        )
    );
    assert_eq!(of("log.filter"), ("error".into(), "a flag".into()));
    assert_eq!(
        of("serve.listen"),
        ("127.0.0.1:7461".into(), "the defaults".into())
    );
    assert_eq!(shown.as_object().unwrap().len(), SETTINGS.len());

    let (done, toml, _) = say(&site, &["config", "show"]);
    assert!(done);
    let (_, with_origin, _) = say(&site, &["config", "show", "--origin"]);
    assert!(
        with_origin.contains("credits = \"7\"  # the file palimpsest.toml"),
        "{with_origin}"
    );
    fs::write(site.path("copy.toml"), &toml).unwrap();
    let (done, again, error) = say(&site, &["--config", "copy.toml", "config", "show"]);
    assert!(done, "{error}");
    assert_eq!(again, toml);
}

#[test]
fn the_reference_has_every_setting_and_is_a_file_that_changes_nothing() {
    let site = Site::new();
    let (done, template, _) = say(&site, &["config", "reference"]);
    assert!(done);
    let (_, markdown, _) = say(&site, &["config", "reference", "--format", "markdown"]);
    for setting in SETTINGS {
        let (_, name) = setting.key.split_once('.').unwrap();
        assert!(
            template.contains(&format!("\n#{name} = ")),
            "{}",
            setting.key
        );
        assert!(
            markdown.contains(&format!("\n| `{name}` | ")),
            "{}",
            setting.key
        );
        let first = setting.doc.lines().next().unwrap().trim();
        assert!(
            template.contains(&format!("# {first}\n")),
            "{}",
            setting.key
        );
    }
    for (section, _) in SECTIONS {
        assert!(
            template.contains(&format!("\n[{section}]\n"))
                && markdown.contains(&format!("## `[{section}]`"))
        );
    }
    let defaults = say(&site, &["config", "show"]).1;
    fs::write(site.path("template.toml"), &template).unwrap();
    let (done, same, error) = say(&site, &["--config", "template.toml", "config", "show"]);
    assert!(done, "{error}");
    assert_eq!(same, defaults);
    // What is commented out are the defaults: told so, they change nothing either.
    let told: String = template
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .map(|line| line.to_owned() + "\n")
        .collect();
    fs::write(site.path("told.toml"), told).unwrap();
    let (done, same, error) = say(&site, &["--config", "told.toml", "config", "show"]);
    assert!(done, "{error}");
    let user = |text: &str| {
        text.lines()
            .filter(|line| !line.starts_with("user =") && !line.starts_with("color ="))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(user(&same), user(&defaults));
}

/// The names of all subcommands, `job-list`, as the program's own help has them.
fn subcommands(site: &Site, of: &[&str], found: &mut BTreeSet<String>) {
    let (_, help, _) = say(site, &[of, &["--help"]].concat());
    let Some((_, rest)) = help.split_once("\nCommands:\n") else {
        return;
    };
    for line in rest.lines().take_while(|line| !line.is_empty()) {
        let name = line
            .strip_prefix("  ")
            .filter(|rest| !rest.starts_with(' '));
        let Some(name) = name.and_then(|rest| rest.split(' ').next()) else {
            continue;
        };
        if name != "help" {
            let path = [of, &[name]].concat();
            found.insert(path.join("-"));
            subcommands(site, &path, found);
        }
    }
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let site = Site::new();
    let (done, _, error) = say(&site, &["man", "pages"]);
    assert!(done, "{error}");
    let mut commands = BTreeSet::new();
    subcommands(&site, &[], &mut commands);
    assert!(
        commands.contains("job-list") && commands.len() > 50,
        "{commands:?}"
    );
    for command in commands {
        let page = site.path("pages").join(format!("palimpsest-{command}.1"));
        let page = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(
            page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"),
            "{command}"
        );
    }
    let (_, page, _) = say(&site, &["man"]);
    assert!(page.contains(".TH palimpsest 1"), "{page}");
}

#[test]
fn shells_can_read_the_completions_and_bash_completes_by_them() {
    let site = Site::new();
    // Where the settings are broken, too.
    fs::write(site.path("palimpsest.toml"), "nonsense").unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (done, script, error) = say(&site, &["completions", shell]);
        assert!(done && script.len() > 10_000, "{shell}: {error}");
        fs::write(site.path(shell), script).unwrap();
    }
    let complete = "source ./bash; COMP_WORDS=(palimpsest job li); COMP_CWORD=2; \
                    _palimpsest palimpsest li job; echo \"${COMPREPLY[@]}\"";
    let out = Command::new("bash")
        .args(["--noprofile", "--norc", "-c", complete])
        .current_dir(site.path("."))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "list");
}

/// What `doctor --json` finds: check, verdict, found, remedy.
fn doctor(site: &Site, more: &[&str]) -> (bool, Vec<Value>) {
    let (done, out, error) = say(site, &[&["doctor", "--json"], more].concat());
    let findings: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!findings.is_empty(), "{error}");
    for finding in &findings {
        let well = finding["verdict"] == "ok";
        assert_eq!(finding["remedy"].is_null(), well, "{finding}");
    }
    (done, findings)
}

fn verdict<'a>(findings: &'a [Value], check: &str) -> (&'a str, &'a str) {
    let finding = findings.iter().find(|finding| finding["check"] == check);
    let finding = finding.unwrap_or_else(|| panic!("no {check} in {findings:?}"));
    (
        finding["verdict"].as_str().unwrap(),
        finding["found"].as_str().unwrap(),
    )
}

#[test]
fn a_device_is_tried_where_it_is_asked_for() {
    let site = Site::new();
    if !cfg!(feature = "torch") {
        return;
    }
    let (done, findings) = doctor(&site, &["--bench", "--device", "cuda:77"]);
    assert!(!done);
    let (ill, found) = verdict(&findings, "device cuda:77");
    assert!(ill == "fail" && found.contains("cuda:77"), "{found}");

    // A worker leaves because it has nothing to do, and not because of its device.
    let server = site.serve("127.0.0.1:0");
    let url = server.url();
    let more = ["--device", "cpu", "--try-device", "--idle-exit", "200ms"];
    let worker = ["worker", "--coordinator", &url, "--cache", "cache"];
    let (done, _, error) = say(&site, &[&worker[..], &more].concat());
    assert!(done, "{error}");
    for trial in [
        "grids of llama",
        "edit of gpt2",
        "statistics of llama",
        "memory",
    ] {
        assert!(error.contains(trial), "{trial} is not in {error}");
    }
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_helps() {
    let site = Site::new();
    let (done, findings) = doctor(&site, &[]);
    assert!(done, "{findings:?}");
    assert_eq!(verdict(&findings, "configuration").0, "ok");
    assert_eq!(verdict(&findings, "libtorch").0, "ok");
    assert!(
        verdict(&findings, "store serve.store")
            .1
            .contains("none at")
    );
    assert!(
        verdict(&findings, "coordinator")
            .1
            .contains("none is configured")
    );
    if cfg!(feature = "torch") {
        let (verdict, found) = verdict(&findings, "device cpu");
        assert!(verdict == "ok" && found.contains("GMAC/s"), "{found}");
    }

    // A coordinator that runs, and its store.
    let server = site.serve("127.0.0.1:0");
    let config = format!("[serve]\nstore = {:?}\n", site.path("store"));
    fs::write(site.path("palimpsest.toml"), config).unwrap();
    let url = server.url();
    let (done, findings) = doctor(&site, &["--server", &url]);
    assert!(done, "{findings:?}");
    let (_, found) = verdict(&findings, "coordinator client.server");
    assert!(
        found.contains("without TLS") && found.contains("asks nobody"),
        "{found}"
    );
    assert_eq!(verdict(&findings, "clock against client.server").0, "ok");
    let (_, found) = verdict(&findings, "store serve.store");
    assert!(
        found.contains("format 2") && found.contains("open in another process"),
        "{found}"
    );
    drop(server);

    let (done, findings) = doctor(&site, &["--server", &url]);
    assert!(!done);
    assert_eq!(verdict(&findings, "coordinator client.server").0, "fail");
    let (_, found) = verdict(&findings, "store serve.store");
    assert!(
        !found.contains("open") && found.contains("nobody has verified"),
        "{found}"
    );
    site.run(&["store", "verify", "--store", "store"], PATIENCE);
    let (_, findings) = doctor(&site, &[]);
    let (well, found) = verdict(&findings, "store serve.store");
    assert!(well == "ok" && found.contains("sound"), "{found}");
    fs::write(site.path("store/VERIFIED"), "2026-01-31T18:00:00Z 3\n").unwrap();
    let (_, findings) = doctor(&site, &[]);
    let (ill, found) = verdict(&findings, "store serve.store");
    assert!(ill == "fail" && found.contains("3 problems"), "{found}");
    // A store of the future, and a cache where nothing can be.
    fs::write(site.path("store/FORMAT"), "77\n").unwrap();
    let config = format!(
        "[serve]\nstore = {:?}\n[worker]\ncache = \"/proc/cache\"\n",
        site.path("store")
    );
    fs::write(site.path("palimpsest.toml"), config).unwrap();
    let (done, findings) = doctor(&site, &[]);
    assert!(!done);
    assert_eq!(verdict(&findings, "store serve.store").0, "fail");
    assert_eq!(verdict(&findings, "disk of worker.cache").0, "fail");
    // A bucket that is not there.
    let key = "aws_access_key_id = me\naws_secret_access_key = hush\n";
    fs::write(site.path("key"), key).unwrap();
    let bucket = "bucket = \"s3://pal/here\"\nendpoint = \"http://127.0.0.1:1\"\n\
                  credentials = \"key\"\ntimeout = \"100ms\"\n";
    fs::write(site.path("palimpsest.toml"), format!("[store]\n{bucket}")).unwrap();
    let (done, findings) = doctor(&site, &[]);
    assert!(!done);
    let (away, found) = verdict(&findings, "bucket");
    assert!(away == "fail" && found.contains("s3://pal/here"), "{found}");
    assert!(!found.contains("hush"), "{found}");
    // And settings that are none.
    fs::write(
        site.path("palimpsest.toml"),
        "[serve]\nlisten = \"nowhere\"\n",
    )
    .unwrap();
    let (done, findings) = doctor(&site, &[]);
    assert!(!done);
    let (verdict, found) = verdict(&findings, "configuration");
    assert!(
        verdict == "fail" && found.contains("serve.listen"),
        "{found}"
    );
}

#[test]
fn the_doctor_knows_who_one_is() {
    let site = Site::new();
    let init = [
        "auth",
        "init",
        "certs",
        "--host",
        "127.0.0.1",
        "--for",
        "viewer/vera",
        "--for",
        "worker/w",
    ];
    site.run(&init, PATIENCE);
    let settings = fs::read_to_string(site.path("certs/server.toml")).unwrap();
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    let server = site.serve("127.0.0.1:0");
    let url = format!("https://{}", server.address);
    let (done, findings) = doctor(
        &site,
        &["--config", "certs/viewer-vera.toml", "--server", &url],
    );
    assert!(done, "{findings:?}");
    let (_, found) = verdict(&findings, "coordinator client.server");
    assert!(
        found.contains("over TLS") && found.contains("you are vera, a viewer"),
        "{found}"
    );
    // A worker's settings name another address: the one that they are made for.
    let worker = fs::read_to_string(site.path("certs/worker-w.toml")).unwrap();
    let worker: Vec<String> = worker
        .lines()
        .map(|line| {
            if line.starts_with("coordinator") {
                format!("coordinator = {url:?}")
            } else {
                line.to_owned()
            }
        })
        .collect();
    fs::write(site.path("worker.toml"), worker.join("\n")).unwrap();
    let (done, findings) = doctor(&site, &["--config", "worker.toml"]);
    assert!(done, "{findings:?}");
    let (_, found) = verdict(&findings, "coordinator worker.coordinator");
    assert!(found.contains("you are w, a worker"), "{found}");
    // Who is not known is told what to look at.
    fs::write(
        site.path("nobody.toml"),
        "[client]\nca = \"certs/ca.pem\"\n",
    )
    .unwrap();
    let (done, findings) = doctor(&site, &["--config", "nobody.toml", "--server", &url]);
    let (verdict, found) = verdict(&findings, "coordinator client.server");
    assert!(
        !done && verdict == "fail" && found.contains("neither a token nor"),
        "{found}"
    );
}

#[test]
fn the_status_has_workers_queue_rates_store_and_invariants() {
    let site = Site::new();
    write_facts(&site, 4);
    let server = site.serve("127.0.0.1:0");
    import(&site, &server);
    let job = submit(&site, &server, &["--noise", "0.1"]);
    let url = server.url();
    let status =
        |more: &[&str]| site.run(&[&["status", "--server", &url], more].concat(), PATIENCE);
    let waiting: Value = serde_json::from_str(&status(&["--json"])).unwrap();
    assert_eq!(waiting["coordinator"]["jobs"]["queued"], 1);
    assert!(waiting["coordinator"]["queue_depth"].as_u64().unwrap() >= 1);
    let _worker = site.worker(&server, "w1", &["--fake", "1"]);
    results(&site, &server, &job);
    let done: Value = wait("an idle worker", PATIENCE, || {
        let status: Value = serde_json::from_str(&status(&["--json"])).unwrap();
        (status["workers"][0]["state"] == "idle").then_some(status)
    });
    let coordinator = &done["coordinator"];
    assert_eq!(coordinator["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(coordinator["queue_depth"], 0);
    assert_eq!(coordinator["jobs"]["succeeded"], 1);
    assert_eq!(coordinator["since_start"]["units"], 12);
    assert_eq!(coordinator["workers"]["idle"], 1);
    assert_eq!(coordinator["store"]["models"], 1);
    assert!(coordinator["store"]["record_bytes"].as_u64().unwrap() > 0);
    assert_eq!(coordinator["invariants"]["I1"], 0);
    assert_eq!(done["workers"][0]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(done["jobs"][0]["name"], job);
    let text = status(&[]);
    for part in [
        "coordinator  version",
        "1 idle",
        "1 succeeded",
        "0 tasks wait",
        "12 units",
        "none violated",
        "steps/s",
        "1 model,",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn what_others_wrote_steers_no_terminal_and_passes_for_no_line_of_ours() {
    let site = Site::new();
    let model = crate::common::fixture("llama");
    site.run(
        &["model", "import", model.to_str().unwrap(), "--name", "m"],
        PATIENCE,
    );
    let evil = "\u{1b}]0;pwned\u{7}\u{1b}[2J\u{9b}2Jok\n●  v9 (main)  forged";
    site.run(&["tag", "kept", "v0", "--why", evil], PATIENCE);
    let spoken = ["generate", "a", "--max-tokens", "1", "--name", evil];
    site.run(&spoken, PATIENCE);
    for args in [
        &["refs"][..],
        &["log"],
        &["show", "kept"],
        &["audit", "list"],
        &["audit", "list", "--json"],
        &["refs", "--json"],
        &["job", "list"],
        &["job", "list", "--json"],
        &["job", "show", "latest"],
        &["status"],
        &["show", evil],
        &["job", "show", evil],
    ] {
        let (_, out, beside) = say(&site, args);
        for text in [out, beside] {
            let steers = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(steers), "{args:?}: {text:?}");
            let forged = text.lines().any(|line| line.starts_with("●  v9"));
            assert!(!forged, "{args:?}: {text}");
        }
    }
    let (_, listed, _) = say(&site, &["job", "list", "--json"]);
    let job: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    assert_eq!(job["what"], format!("generate: {evil}"));
}

#[test]
fn what_shows_something_to_a_person_shows_it_to_a_program_too() {
    let site = Site::new();
    let model = crate::common::fixture("llama");
    let model = ["model", "import", model.to_str().unwrap(), "--name", "m"];
    site.run(&model, PATIENCE);
    let generate = ["generate", "Paris", "--max-tokens", "1"];
    site.run(&generate, PATIENCE);
    let read = |args: &[&str]| -> Value {
        let (done, shown, said) = say(&site, args);
        assert!(done, "{args:?}: {said}");
        serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{args:?}: {error}: {shown}"))
    };
    let job = read(&["job", "show", "latest", "--json"]);
    assert_eq!(job["state"], "succeeded");
    assert_eq!(job["tasks_shown"][0]["units_done"], 1);
    let audit = read(&["audit", "verify", "--json"]);
    assert_eq!(audit["whole"], true);
    assert_eq!(audit["checkpoint"]["entries"], audit["entries"]);
    let (done, shown, _) = say(&site, &["worker", "list", "--json"]);
    assert!(done && shown.is_empty(), "{shown}");
}

#[test]
fn output_on_a_full_disk_is_an_error_in_a_line_and_a_closed_pipe_a_quiet_end() {
    let site = Site::new();
    let model = crate::common::fixture("llama");
    let model = ["model", "import", model.to_str().unwrap(), "--name", "m"];
    site.run(&model, PATIENCE);
    let commands: [&[&str]; 9] = [
        &["--help"],
        &["trace", "--help"],
        &["audit", "checkpoint"],
        &["audit", "key"],
        &["audit", "list", "--json"],
        &["model", "show", "m"],
        &["log"],
        &["config", "reference"],
        &["completions", "bash"],
    ];
    for args in commands {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let out = site.command(args).stdout(full).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(said.contains("cannot be written"), "{args:?}: {said}");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = site.command(args).stdout(writer).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(said.is_empty(), "{args:?}: {said}");
        assert_eq!(out.status.code(), Some(0), "{args:?}");
        // Nobody hears what is said beside the output either.
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let out = site.command(args).stderr(full).output().unwrap();
        assert!(out.status.success(), "{args:?}");
    }
}
