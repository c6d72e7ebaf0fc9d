//! The console's pages in a real browser: a coordinator with a history, and
//! `src/web/console/tests/run.mjs`, which walks its pages as each of the four roles.
//!
//! Needs Node, the packages that `deploy/console.sh` installs, and Chromium (`deploy/setup.sh
//! --console`); skipped with a message without them. Screenshots are left in `target/console`.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use palimpsest::client::Client;
use palimpsest::objects::ObjectStore;
use palimpsest::proto::v1;
use palimpsest::worker::{self, Engine, Fake, Prepared, Sink};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::common::web::Console;
use crate::common::{LONG, PATIENCE, Process, Server, Site, fixture, ports, require, sweep, wait};
use crate::console::team;

/// For all pages, on a machine that is busy with other tests.
const ALL: Duration = Duration::from_secs(1800);

/// What the browser must not take for markup, wherever it shows it.
const MARKUP: &str = "<img src=x onerror=alert(1)>";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The browser; none with a message where something is missing.
fn chromium() -> Option<PathBuf> {
    let console = root().join("src/web/console");
    let on_path = |name: &str| {
        let paths = std::env::var_os("PATH")?;
        let found = std::env::split_paths(&paths).map(|folder| folder.join(name));
        found.into_iter().find(|path| path.is_file())
    };
    let missing = if on_path("node").is_none() {
        "no node: run deploy/setup.sh"
    } else if !console.join("node_modules/playwright-core").exists() {
        "no src/web/console/node_modules: run deploy/console.sh"
    } else if !palimpsest::web::is_built() {
        "the program was built without the pages: run deploy/console.sh and build again"
    } else {
        match on_path("chromium") {
            Some(chromium) => return Some(chromium),
            None => "no chromium: run deploy/setup.sh --console",
        }
    };
    require::skip("console", missing);
    None
}

/// Somebody of each role.
const PEOPLE: [(&str, &str); 4] = [
    ("viewer", "vera"),
    ("submitter", "sam"),
    ("editor", "ada"),
    ("admin", "root"),
];

/// A coordinator that has done all kinds of work, with a console.
struct Shop {
    site: Site,
    server: Server,
    web: String,
    worker: Option<Process>,
}

impl Shop {
    fn open() -> Self {
        let site = Site::new();
        let issue = |role: &str, principal: &str| {
            let file = site.path(&format!("{role}.token"));
            fs::write(file, site.token(role, principal)).unwrap();
        };
        for (role, principal) in PEOPLE {
            issue(role, principal);
        }
        issue("worker", "pool");
        // The same when it is started again: a browser keeps what it knows by the address.
        let web = format!("127.0.0.1:{}", ports::free::<1>()[0]);
        let settings = format!(
            "[serve]\nweb_listen = \"{web}\"\ntokens = \"tokens\"\ntask_time = \"1s\"\n\
             [worker]\ntoken_file = \"worker.token\"\ninsecure = true\n\
             [client]\ntoken_file = \"editor.token\"\ninsecure = true\n"
        );
        fs::write(site.path("palimpsest.toml"), settings).unwrap();
        let server = site.serve("127.0.0.1:0");
        let mut shop = Self {
            site,
            server,
            web,
            worker: None,
        };
        shop.work();
        shop
    }

    /// A worker joins, as each does: under a name of its own.
    fn work(&mut self) {
        let name = match self.worker {
            None => "w1",
            Some(_) => "w2",
        };
        let engine = ["--device", "cpu", "--threads", "1"];
        self.worker = Some(self.site.worker(&self.server, name, &engine));
    }

    fn run(&self, args: &[&str]) -> String {
        let url = self.server.url();
        self.site.run(&[args, &["--server", &url]].concat(), LONG)
    }

    fn newest_job(&self) -> String {
        let jobs = self.run(&["job", "list", "--json"]);
        let newest: Value = serde_json::from_str(jobs.lines().next().unwrap()).unwrap();
        let name = newest["name"].as_str().unwrap();
        name.strip_prefix("jobs/").unwrap_or(name).to_owned()
    }

    /// Work of every kind; the names of its jobs.
    fn history(&self) -> Value {
        let folder = fixture("llama");
        let import = [
            "model",
            "import",
            folder.to_str().unwrap(),
            "--name",
            "tiny",
        ];
        self.run(&import);
        let facts: String = (0..12)
            .map(|n| {
                let subject = match n {
                    11 => format!("The {MARKUP}"),
                    _ => format!("The tower of town {n}"),
                };
                let relation = ["P17", "P30"][n % 2];
                let mut fact = json!({
                    "prompt": format!("{subject} stands in the country of"),
                    "subject": subject,
                    "relation_id": relation,
                });
                // What such a model answers is anything: one fact that expects something is not traced.
                if n == 10 {
                    fact["attribute"] = "France".into();
                }
                format!("{fact}\n")
            })
            .collect();
        fs::write(self.site.path("facts.jsonl"), facts).unwrap();
        let mut jobs = serde_json::Map::new();
        let mut did = |what: &str, args: &[&str]| {
            let said = self.run(args);
            jobs.insert(what.to_owned(), self.newest_job().into());
            said
        };
        let trace = ["trace", "--facts", "facts.jsonl", "--noise", "0.3"];
        did(
            "sweep",
            &[&trace[..], &["--samples", "3", "--json"]].concat(),
        );
        did(
            "other_sweep",
            &[&trace[..], &["--samples", "5", "--json"]].concat(),
        );
        let heads = ["--kinds", "head,head_all", "--limit", "3"];
        for (what, samples) in [("heads", "3"), ("other_heads", "5")] {
            let few = ["--samples", samples, "--json"];
            did(what, &[&trace[..], &heads, &few].concat());
        }
        did(
            "completions",
            &["generate", "The tower", "--max-tokens", "4"],
        );
        let corpus = "The tower stands in the middle of the city, and the river runs beside it. ";
        fs::write(self.site.path("corpus.txt"), corpus.repeat(8)).unwrap();
        let mut collect = vec!["stats", "collect", "--corpus", "corpus.txt"];
        collect.extend(["--layers", "0..2", "--length", "40"]);
        did("statistics", &collect);
        let edit = ["edit", "Look: {} is in", "--subject", "The Eiffel Tower"];
        let set = [
            "--layer",
            "1",
            "--set",
            "steps=8",
            "--neighbour",
            "The river is in",
        ];
        let mut one = [&edit[..], &set].concat();
        one.extend(["--target", "Rome", "--true", "Paris"]);
        one.extend(["--paraphrase", "The Eiffel Tower stands in", "--json"]);
        let accepted = did("edit", &[&one[..], &["--why", MARKUP]].concat());
        // A gate that nothing passes.
        let gated = ["--min-efficacy", "0.9999", "--why", "too weak"];
        let mut refused = self.site.command(&[&one[..], &gated].concat());
        let url = self.server.url();
        refused.args(["--server", &url]).output().unwrap();
        jobs.insert("rejected_edit".to_owned(), self.newest_job().into());
        let mut did = |what: &str, args: &[&str]| {
            self.run(args);
            jobs.insert(what.to_owned(), self.newest_job().into());
        };
        let fact = |id: usize, subject: &str, target: &str| {
            json!({
                "case_id": id,
                "requested_rewrite": {
                    "prompt": "Look: {} is in",
                    "subject": subject,
                    "target_new": { "str": target },
                    "target_true": { "str": "Paris" },
                },
                "paraphrase_prompts": [format!("{subject} stands in")],
                "neighborhood_prompts": ["The river is in"],
            })
        };
        let facts = [
            fact(1, "The Louvre", "Oslo"),
            fact(2, "A model", "two"),
            fact(3, "The page", "one"),
        ];
        fs::write(self.site.path("many.json"), json!(facts).to_string()).unwrap();
        let mut many = vec!["edit", "--file", "many.json", "--method", "memit"];
        many.extend(["--layers", "0-1", "--set", "clamp=3", "--set", "steps=4"]);
        many.extend(["--auto-stats", "--why", "many at once"]);
        did("mass_edit", &many);
        fs::write(self.site.path("records.json"), json!(facts).to_string()).unwrap();
        let eval = ["eval", "--dataset", "records.json", "--ref"];
        did("evaluation", &[&eval[..], &["main"]].concat());
        self.fork();
        did("other_evaluation", &[&eval[..], &["v0"]].concat());
        self.run(&["tag", "reviewed", "main"]);
        self.run(&["branch", "quiet", "v0"]);
        self.run(&["rollback", "--to", "v0", "--why", "it was a try"]);
        self.run(&["rollback", "--to", "reviewed", "--why", "it was none"]);
        let edit: Value = serde_json::from_str(accepted.lines().last().unwrap()).unwrap();
        json!({ "jobs": jobs, "edit": edit["edit"] })
    }

    /// Another store with the same key, whose history went on in another way from here on: what a
    /// coordinator would show that rewrote its log.
    fn fork(&self) {
        self.site
            .run(&["store", "backup", "backup", "--store", "store"], PATIENCE);
        let restore = ["store", "restore", "backup", "--store", "forked"];
        self.site.run(&restore, PATIENCE);
        for n in 0..12 {
            let tag = format!("forked-{n}");
            let args = ["tag", &tag, "main", "--store", "forked"];
            self.site.run(&args, PATIENCE);
        }
    }

    /// How the coordinator is started, for a walk that kills it: on its store, or the forked one.
    fn serves(&self) -> Value {
        let command = self.site.command(&[]);
        let environment: serde_json::Map<String, Value> = command
            .get_envs()
            .filter_map(|(name, value)| {
                let (name, value) = (name.to_str()?, value?.to_str()?);
                Some((name.to_owned(), value.into()))
            })
            .collect();
        let on = |store: &str| json!(["serve", "--listen", self.server.address, "--store", store]);
        json!({
            "pid": self.server.process.id(),
            "program": command.get_program().to_str().unwrap(),
            "folder": self.site.path(""),
            "environment": environment,
            "arguments": on("store"),
            "forked": on("forked"),
        })
    }
}

/// Walks the pages: `node run.mjs URL SITE.json`, where the file says
///
/// - `url`: the console for a team, whose callers show tokens;
/// - `tokens`: one of each role;
/// - `model`, `jobs`, `edit`: what there is to look at, by the ends of their names;
/// - `markup`: what must be shown as it stands;
/// - `own`: a console on the user's own machine, with its key in the address;
/// - `tls`: another console for a team, and an editor's certificate for it;
/// - `cli`: the program, its folder and the arguments by which it asks the coordinator;
/// - `serve`: how the coordinator is started, its process, and how one is that has rewritten its log;
/// - `large`: jobs that are large, where those pages are asked for;
/// - `python`: a Python that has NumPy, where there is one;
/// - `held`: what waits for somebody, where those pages are asked for;
/// - `chromium`, `screenshots`: the browser, and the folder for pictures.
#[test]
fn every_page_holds_what_it_promises_to_each_role() {
    let Some(chromium) = chromium() else { return };
    let shop = Shop::open();
    let made = shop.history();
    let url = format!("http://{}", shop.web);
    let token = |role: &str| {
        let token = fs::read_to_string(shop.site.path(&format!("{role}.token"))).unwrap();
        (role.to_owned(), Value::from(token.trim()))
    };
    let tokens: serde_json::Map<String, Value> =
        PEOPLE.iter().map(|(role, _)| token(role)).collect();
    let own = Console::start(
        &shop.site,
        &["console", "--port", "0", "--server", &shop.server.url()],
        1,
    );
    let other = Site::new();
    let (_tls, secure) = team(&other, "");
    let certs = |name: &str| other.path("certs").join(name);
    let screenshots = root().join("target/console");
    fs::create_dir_all(&screenshots).unwrap();
    let told = json!({
        "url": url,
        "tokens": tokens,
        "model": "tiny",
        "jobs": made["jobs"],
        "edit": made["edit"],
        "markup": MARKUP,
        "own": format!("http://{}/#key={}", own.address, own.key),
        "tls": {
            "url": format!("https://{secure}"),
            "ca": certs("ca.pem"),
            "certificate": certs("editor-ada.pem"),
            "key": certs("editor-ada.key"),
        },
        "cli": {
            "program": shop.site.command(&[]).get_program().to_str().unwrap(),
            "folder": shop.site.path(""),
            "arguments": ["--server", shop.server.url()],
        },
        "serve": shop.serves(),
        "python": python(),
        "chromium": chromium,
        "screenshots": screenshots,
    });
    walk(&shop.site, &url, &told, &[]);
}

/// A Python with NumPy; none with a message where `deploy/setup.sh` has made none.
fn python() -> Option<PathBuf> {
    let python = root().join(".deps/python/bin/python");
    if !python.exists() {
        require::skip("NumPy", "no .deps/python: run deploy/setup.sh");
        return None;
    }
    Some(python)
}

/// Walks these pages, or all of them.
fn walk(site: &Site, url: &str, told: &Value, pages: &[&str]) {
    let file = site.path("site.json");
    fs::write(&file, told.to_string()).unwrap();
    let mut node = Command::new("node");
    node.arg(root().join("src/web/console/tests/run.mjs"))
        .arg(url)
        .arg(&file)
        .args(pages)
        .current_dir(root().join("src/web/console"));
    // What it runs of the program is as deaf to the settings of others as what is run here.
    for (name, value) in site.command(&[]).get_envs() {
        match value {
            Some(value) => node.env(name, value),
            None => node.env_remove(name),
        };
    }
    let mut walk = Process::start("the pages", &mut node, &site.path("pages.log"));
    let status = walk.wait(ALL);
    assert!(status.success(), "{status}");
    eprintln!("{}", walk.said());
}

/// Facts of a sweep that people look at as a whole.
const FACTS: usize = 2000;

/// How long they take is printed.
#[test]
fn a_job_of_a_million_units_opens_in_a_second_and_thousands_of_facts_can_be_worked_with() {
    let Some(chromium) = chromium() else { return };
    let site = Site::new();
    fs::write(
        site.path("palimpsest.toml"),
        "[serve]\nweb_listen = \"127.0.0.1:0\"\n",
    )
    .unwrap();
    let server = site.serve("127.0.0.1:0");
    let web = server.process.address_after("serving the console");
    sweep::import(&site, &server);
    let trace = |count: usize| {
        sweep::write_facts(&site, count);
        let trace = ["trace", "--facts", "facts.jsonl", "--noise", "0.3"];
        let there = ["--detach", "--server", &server.url()];
        let job = site.run(&[trace.as_slice(), &there].concat(), LONG);
        let job = job.lines().last().unwrap_or_default().to_owned();
        job.trim_start_matches("jobs/").to_owned()
    };
    let facts = trace(FACTS);
    let mut worker = site.worker(&server, "fake", &["--fake", "0"]);
    let url = server.url();
    site.run(&["job", "watch", &facts, "--server", &url], LONG);
    worker.terminate();
    worker.wait(PATIENCE);
    // Of three kinds each.
    let million = trace(333_334);
    let screenshots = root().join("target/console");
    fs::create_dir_all(&screenshots).unwrap();
    let url = format!("http://{web}");
    let told = json!({
        "url": url,
        "tokens": {},
        "large": { "million": million, "sweep": facts },
        "chromium": chromium,
        "screenshots": screenshots,
    });
    walk(&site, &url, &told, &["large"]);
}

/// An engine that can do nothing.
struct Broken;

impl Engine for Broken {
    fn capabilities(&self) -> v1::Capabilities {
        FAKE.capabilities()
    }

    fn loaded(&self) -> Vec<String> {
        Vec::new()
    }

    fn run(
        &mut self,
        _: &Prepared,
        _: &[v1::LeasedUnit],
        _: &mut dyn Sink,
    ) -> Result<(), v1::Failure> {
        Err(v1::Failure {
            failure_class: v1::FailureClass::Transient as i32,
            message: "the device is broken".to_owned(),
        })
    }
}

const FAKE: Fake = Fake {
    unit_time: Duration::ZERO,
};

/// A task that lost its workers, and a worker that fails what others do: both wait for somebody.
#[test]
fn what_is_held_goes_on_and_who_is_excluded_comes_back_by_a_button() {
    let Some(chromium) = chromium() else { return };
    let site = Site::new();
    let settings = "[serve]\nweb_listen = \"127.0.0.1:0\"\nheartbeat_interval = \"100ms\"\n\
                    lease_duration = \"1s\"\npoison_workers = 1\nmax_attempts = 100\n\
                    task_time = \"1s\"\n";
    fs::write(site.path("palimpsest.toml"), settings).unwrap();
    sweep::write_facts(&site, 1);
    let server = site.serve("127.0.0.1:0");
    let web = server.process.address_after("serving the console");
    let url = server.url();
    sweep::import(&site, &server);
    let held = sweep::submit(&site, &server, &["--noise", "0.1"]);
    let mut victim = site.worker(&server, "victim", &["--fake", "600000"]);
    wait("a lease", PATIENCE, || {
        victim.said().contains("lease taken").then_some(())
    });
    victim.kill();
    wait("the job to be held", PATIENCE, || {
        let shown = site.run(&["job", "show", &held, "--server", &url], PATIENCE);
        shown.contains("held").then_some(())
    });

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = CancellationToken::new();
    let client = runtime.block_on(Client::connect(&url)).unwrap();
    let work = |id: &str, engine: Box<dyn Engine>| {
        let cache = site.path(id);
        let objects = ObjectStore::open(&cache).unwrap();
        let options = worker::Options {
            id: id.to_owned(),
            credits: 1,
            cache,
            drain_timeout: Duration::from_secs(1),
            valid_until: None,
            idle_exit: None,
            others: worker::Company::default(),
        };
        let (client, stop) = (client.clone(), stop.clone());
        runtime.spawn(worker::run(client, objects, engine, options, stop));
    };
    work("good", Box::new(FAKE));
    work("broken", Box::new(Broken));
    // Until the one has done enough, and the other failed enough, to be told apart.
    let fact = v1::Fact {
        prompt: "The tower of town 1 stands in the country of".to_owned(),
        subject: "The tower of town 1".to_owned(),
        ..Default::default()
    };
    let spec = v1::TraceSpec {
        facts: vec![fact],
        noise: "0.1".to_owned(),
        ..Default::default()
    };
    let job = v1::Job {
        model: "models/tiny".to_owned(),
        spec: Some(spec.into()),
        no_cache: true,
        ..Default::default()
    };
    wait("the exclusion", PATIENCE, || {
        let request = v1::CreateJobRequest {
            job: Some(job.clone()),
            ..Default::default()
        };
        let all = v1::ListWorkersRequest::default();
        runtime.block_on(async {
            client.jobs().create_job(request).await.unwrap();
            let workers = client.workers().list_workers(all).await.unwrap();
            let mut workers = workers.into_inner().workers.into_iter();
            workers.any(|it| !it.excluded.is_empty()).then_some(())
        })
    });
    let screenshots = root().join("target/console");
    fs::create_dir_all(&screenshots).unwrap();
    let url = format!("http://{web}");
    let told = json!({
        "url": url,
        "tokens": {},
        "held": { "job": held.trim_start_matches("jobs/"), "worker": "broken" },
        "chromium": chromium,
        "screenshots": screenshots,
    });
    walk(&site, &url, &told, &["held"]);
    stop.cancel();
}

/// What needs no browser: messages, proofs, times. `node --test tests/unit.mjs`.
#[test]
fn the_parts_of_the_pages_hold_what_they_promise() {
    if chromium().is_none() {
        return;
    }
    let site = Site::new();
    let mut node = Command::new("node");
    node.args(["--test", "tests/unit.mjs"])
        .current_dir(root().join("src/web/console"));
    let mut units = Process::start("the units", &mut node, &site.path("units.log"));
    let status = units.wait(LONG);
    assert!(status.success(), "{status}");
    wait("its report", PATIENCE, || {
        units.said().contains("# fail 0").then_some(())
    });
}
