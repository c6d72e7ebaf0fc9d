//! Edits and statistics on a coordinator with workers: two at a time, watched, and under kills.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking
#![allow(clippy::disallowed_methods)] // a test owns its time

use std::fs;
use std::time::Duration;

use crate::common::sweep::{import, jobs, quick_site};
use crate::common::{LONG, PATIENCE, Process, Server, Site, wait};
use palimpsest::client::{Client, endpoint, upload};
use palimpsest::objects::Digest;
use palimpsest::proto::v1::create_edit_request::Source;
use palimpsest::proto::v1::{self, JobState, job::Spec, unit_result::Outcome};
use prost::Message as _;
use serde_json::Value;

const ENGINE: [&str; 4] = ["--device", "cpu", "--threads", "1"];

/// A coordinator with a tiny model and statistics of its second layer.
pub(crate) struct Cluster {
    pub(crate) site: Site,
    server: Server,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self::with_settings("")
    }

    /// With more settings of the coordinator.
    pub(crate) fn with_settings(more: &str) -> Self {
        let site = quick_site();
        let path = site.path("palimpsest.toml");
        let settings = fs::read_to_string(&path).unwrap() + more;
        fs::write(path, settings).unwrap();
        let server = site.serve("127.0.0.1:0");
        import(&site, &server);
        Self { site, server }
    }

    pub(crate) fn worker(&self, id: &str) -> Process {
        self.site.worker(&self.server, id, &ENGINE)
    }

    /// Keys of which every direction is as common as the others.
    pub(crate) fn with_statistics(self) -> Self {
        let mut npz = palimpsest::npz::Npz::new();
        let mut sum = vec![0.0_f32; 32 * 32];
        sum.iter_mut().step_by(33).for_each(|x| *x = 100.0);
        npz.f32("mom2.mom2", &[32, 32], &sum).unwrap();
        npz.i64("mom2.count", &[], &[1000]).unwrap();
        fs::write(self.site.path("rome.npz"), npz.to_bytes().unwrap()).unwrap();
        self.run(&["stats", "import", "rome.npz", "--layer", "1"]);
        self
    }

    pub(crate) fn run(&self, args: &[&str]) -> String {
        let url = self.server.url();
        self.site.run(&[args, &["--server", &url]].concat(), LONG)
    }

    /// Starts a command, which goes on beside others.
    pub(crate) fn start(&self, name: &str, args: &[&str]) -> Process {
        let url = self.server.url();
        let mut command = self.site.command(&[args, &["--server", &url]].concat());
        Process::start(name, &mut command, &self.site.path(&format!("{name}.log")))
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[args, &["--json"]].concat())).unwrap()
    }

    /// A file of the site.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.site.path(name)
    }

    /// Kills the coordinator and starts it again.
    pub(crate) fn restart(&mut self) {
        self.server.process.kill();
        self.server.process = self.site.start_serving(&self.server.address);
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(endpoint(&self.server.url()).unwrap().connect_lazy())
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// An edit of a tower, in the context of the bare sentence, of so many steps.
pub(crate) fn spec(subject: &str, steps: u32) -> v1::EditSpec {
    let number = |key: &str, value: f64| v1::NamedNumber {
        key: key.to_owned(),
        value,
    };
    v1::EditSpec {
        tasks: vec![v1::EditTask {
            request: Some(v1::EditRequest {
                prompt: "Look: {} is in".to_owned(),
                subject: subject.to_owned(),
                target_new: "Rome".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }],
        layer: Some(1),
        contexts: vec!["{}".to_owned()],
        parameters: vec![
            number("steps", f64::from(steps)),
            number("learning_rate", 1e-3),
            number("stop_loss", -1.0),
        ],
        ..Default::default()
    }
}

pub(crate) async fn submit(client: &Client, spec: v1::EditSpec) -> String {
    let request = v1::CreateJobRequest {
        job: Some(v1::Job {
            model: "models/tiny".to_owned(),
            spec: Some(Spec::Edit(spec)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let made = client.jobs().create_job(request).await.unwrap();
    made.into_inner().job.unwrap().name
}

async fn state(client: &Client, name: &str) -> JobState {
    let request = v1::GetJobRequest {
        name: name.to_owned(),
    };
    // A coordinator that was killed is soon there again.
    loop {
        match client.jobs().get_job(request.clone()).await {
            Ok(found) => return found.into_inner().job.unwrap().state(),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What came out of an edit job, when it has ended.
pub(crate) async fn outcome(client: &Client, name: &str) -> v1::EditOutcome {
    while state(client, name).await != JobState::Succeeded {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let request = v1::ListResultsRequest {
        parent: name.to_owned(),
        ..Default::default()
    };
    let found = client.jobs().list_results(request).await.unwrap();
    match found.into_inner().results.remove(0).outcome {
        Some(Outcome::Edit(outcome)) => outcome,
        other => panic!("{other:?}"),
    }
}

fn keep(outcome: &v1::EditOutcome) -> v1::CreateEditRequest {
    let job = &outcome.edit.as_ref().unwrap().job;
    v1::CreateEditRequest {
        parent: "models/tiny".to_owned(),
        source: Some(Source::Result(format!("{job}/results/0"))),
        ..Default::default()
    }
}

#[test]
fn of_edits_computed_on_one_version_one_is_taken_and_the_others_learn_what_moved() {
    let cluster = Cluster::new().with_statistics();
    let _workers = [cluster.worker("one"), cluster.worker("two")];
    let subjects = [
        "The Eiffel Tower",
        "The Louvre",
        "The Colosseum",
        "The Forum",
    ];
    runtime().block_on(async {
        let client = cluster.client();
        let computed = subjects.map(|subject| {
            let client = client.clone();
            async move {
                let name = submit(&client, spec(subject, 4)).await;
                outcome(&client, &name).await
            }
        });
        let computed = futures::future::join_all(computed).await;
        // All at once: whoever is second reads the branch before or after the first moved it.
        let kept = computed.iter().map(|outcome| {
            let client = client.clone();
            let request = keep(outcome);
            tokio::spawn(async move { client.versions().create_edit(request).await })
        });
        let kept: Vec<_> = futures::future::join_all(kept).await;
        let (mut taken, mut late) = (Vec::new(), Vec::new());
        for answer in kept {
            match answer.unwrap() {
                Ok(made) => taken.push(made.into_inner()),
                Err(status) => late.push(status),
            }
        }
        assert_eq!((taken.len(), late.len()), (1, 3), "{late:?}");
        let version = taken[0].version.clone().unwrap();
        assert_eq!(version.number, 1);
        for status in late {
            assert_eq!(status.code(), tonic::Code::Aborted, "{status:?}");
            let said = status.message();
            let short = &version.name.rsplit('/').next().unwrap()[..12];
            assert!(
                said.contains("models/tiny/refs/main moved meanwhile")
                    && said.contains(short)
                    && said.contains("etag 1-"),
                "it does not say what moved, to {short}: {said}"
            );
        }
    });
    let now = cluster.json(&["show"]);
    assert_eq!(now["number"], 1);
    assert_eq!(now["edits"].as_array().unwrap().len(), 1);
    let refused = cluster.run(&["audit", "list", "--refused", "--json"]);
    assert_eq!(refused.lines().count(), 3, "{refused}");
    cluster.run(&["audit", "verify"]);
}

#[test]
fn an_edit_that_comes_second_is_refused_or_computed_again_on_what_is_there() {
    let cluster = Cluster::new().with_statistics();
    fs::write(cluster.site.path("contexts.txt"), "{}\n").unwrap();
    let edit = |name: &str, subject: &str, more: &[&str]| {
        let args = [
            "edit",
            "Look: {} is in",
            "--subject",
            subject,
            "--target",
            "Rome",
            "--layer",
            "1",
            "--set",
            "steps=4",
            "--contexts",
            "contexts.txt",
        ];
        cluster.start(name, &[&args, more].concat())
    };
    for (round, more) in [&[][..], &["--rebase"]].into_iter().enumerate() {
        // No worker before both are computed on one version.
        let before = jobs(&cluster.site, &cluster.server).len();
        let names = ["first", "second"].map(|name| format!("{name}-{round}"));
        let mut both = [
            edit(&names[0], &format!("The Eiffel Tower {round}"), more),
            edit(&names[1], &format!("The Louvre {round}"), more),
        ];
        wait("two edit jobs", PATIENCE, || {
            (jobs(&cluster.site, &cluster.server).len() == before + 2).then_some(())
        });
        let _worker = cluster.worker(&format!("worker-{round}"));
        let went_well = both.each_mut().map(|edit| edit.wait(LONG).success());
        let said = both.each_ref().map(Process::said).join("\n");
        if more.is_empty() {
            assert_eq!(went_well.iter().filter(|&&well| well).count(), 1, "{said}");
            assert!(
                said.contains("moved meanwhile") && said.contains("--rebase"),
                "{said}"
            );
            assert_eq!(cluster.json(&["show"])["number"], 1);
        } else {
            assert_eq!(went_well, [true, true], "{said}");
            let now = cluster.json(&["show"]);
            assert_eq!(now["number"], 3);
            // The second was computed on the version of the first, not only put on top of it.
            let edits = now["edits"].as_array().unwrap();
            let last = cluster.json(&["show", edits[2].as_str().unwrap()]);
            let parent = now["parent"].as_str().unwrap();
            assert!(
                last["based_on"].as_str().unwrap().ends_with(parent),
                "{last}"
            );
            assert_eq!(now["warnings"].as_array().unwrap().len(), 0);
        }
    }
    cluster.run(&["audit", "verify"]);
}

#[test]
fn the_steps_of_an_edit_are_seen_while_it_runs_and_are_those_that_it_keeps() {
    let cluster = Cluster::new().with_statistics();
    let steps = 600;
    let (seen, outcome) = runtime().block_on(async {
        let client = cluster.client();
        let name = submit(&client, spec("The Eiffel Tower", steps)).await;
        let request = v1::WatchJobRequest {
            name: name.clone(),
            after_sequence: 0,
        };
        let mut stream = client.jobs().watch_job(request).await.unwrap().into_inner();
        let _worker = cluster.worker("one");
        let mut seen = std::collections::BTreeMap::new();
        while let Some(message) = stream.message().await.unwrap() {
            for edit in message.progress.unwrap_or_default().edits {
                assert_eq!((edit.unit, edit.most_steps), (0, steps));
                assert!(edit.steps.len() <= 64);
                seen.extend(edit.steps.iter().map(|step| (step.number, *step)));
            }
        }
        (seen, outcome(&client, &name).await)
    });
    assert_eq!(outcome.steps.len() as u32, steps);
    assert!(!seen.is_empty(), "no step was seen before the end");
    for (number, step) in &seen {
        let kept = &outcome.steps[*number as usize];
        assert_eq!((step.loss, step.probability), (kept.loss, kept.probability));
        assert!((step.kl * 0.0625 - kept.drift).abs() < 1e-12);
    }
}

#[test]
fn a_command_that_edits_tells_every_step() {
    let cluster = Cluster::new().with_statistics();
    fs::write(cluster.site.path("contexts.txt"), "{}\n").unwrap();
    let _worker = cluster.worker("one");
    let mut edit = cluster.start(
        "edit",
        &[
            "edit",
            "Look: {} is in",
            "--subject",
            "The Eiffel Tower",
            "--target",
            "Rome",
            "--layer",
            "1",
            "--contexts",
            "contexts.txt",
            "--set",
            "steps=600",
            "--set",
            "stop_loss=-1",
            "--set",
            "learning_rate=0.001",
        ],
    );
    assert!(edit.wait(LONG).success());
    let said = edit.said();
    let told = said
        .lines()
        .filter(|line| line.starts_with("step "))
        .count();
    assert!(told > 0 && said.contains("/600 loss "), "{said}");
}

#[test]
fn gates_of_the_coordinator_hold_for_clients_that_ask_for_none() {
    let cluster = Cluster::with_settings("[edit]\nmax_norm = 1e-9\n").with_statistics();
    let _worker = cluster.worker("one");
    let (rejected, looser) = runtime().block_on(async {
        let client = cluster.client();
        let name = submit(&client, spec("The Eiffel Tower", 4)).await;
        let rejected = outcome(&client, &name).await.edit.unwrap();
        let spec = v1::EditSpec {
            gates: Some(v1::EditGates {
                norm: Some(1e9),
                ..Default::default()
            }),
            ..spec("The Eiffel Tower", 4)
        };
        let name = submit(&client, spec).await;
        (rejected, outcome(&client, &name).await.edit.unwrap())
    });
    assert_eq!(rejected.state(), v1::EditState::Rejected);
    assert!(rejected.failed_gates[0].contains("the gate allows 0.000000001"));
    // A request may be stricter than the settings, not looser.
    assert_eq!(looser.state(), v1::EditState::Rejected);
    assert_eq!(looser.failed_gates, rejected.failed_gates);
}

/// Some text whose words do not come again in the same order.
fn corpus(bytes: usize) -> String {
    let words = [
        "tower", "city", "river", "stands", "in", "the", "middle", "of", "a", "and", "it",
    ];
    let mut dice = crate::common::dice::Dice::new(7, "corpus");
    let mut lines = String::new();
    while lines.len() < bytes {
        let text: Vec<&str> = (0..200).map(|_| *dice.pick(&words)).collect();
        lines += &format!("{}\n", serde_json::json!({ "text": text.join(" ") }));
    }
    lines
}

/// The digests of the artefacts that a command printed, one a layer.
fn digests(table: &str) -> Vec<String> {
    let rows = table.lines().skip(1).filter(|line| !line.trim().is_empty());
    rows.map(|row| row.split_whitespace().last().unwrap().to_owned())
        .collect()
}

#[test]
fn statistics_over_a_corpus_larger_than_any_message_are_those_of_its_documents() {
    let cluster = Cluster::new();
    let text = corpus((4 << 20) + (1 << 18));
    assert!(text.len() > palimpsest::api::server::MESSAGE_LIMIT);
    fs::write(cluster.site.path("large.jsonl"), &text).unwrap();
    let _workers = [cluster.worker("one"), cluster.worker("two")];
    let made = cluster.run(&[
        "stats",
        "collect",
        "--corpus",
        "large.jsonl",
        "--layers",
        "1",
        "--length",
        "128",
    ]);
    let list: Value = serde_json::from_str(&cluster.run(&["stats", "list", "--json"])).unwrap();
    assert!(list["name"].as_str().unwrap().contains(&digests(&made)[0]));
    let job = &jobs(&cluster.site, &cluster.server)[0];
    assert!(job["tasks"].as_u64().unwrap() > 1, "it is cut: {job}");
    assert!(job["units"].as_u64().unwrap() > 60, "{job}");

    // The first pieces, in the request as before, give the same sums as from the object.
    let documents: Vec<String> = text
        .lines()
        .take(40)
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["text"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    fs::write(
        cluster.site.path("small.json"),
        serde_json::to_string(&documents).unwrap(),
    )
    .unwrap();
    let from_object = cluster.run(&[
        "stats",
        "collect",
        "--corpus",
        "small.json",
        "--layers",
        "0,1",
        "--length",
        "128",
    ]);
    let in_request = runtime().block_on(async {
        let client = cluster.client();
        let spec = v1::StatsSpec {
            pieces: vec![v1::StatsUnit {
                documents,
                ..Default::default()
            }],
            layers: vec![0, 1],
            length: 128,
            ..Default::default()
        };
        let request = v1::CreateJobRequest {
            job: Some(v1::Job {
                model: "models/tiny".to_owned(),
                spec: Some(Spec::Stats(spec)),
                ..Default::default()
            }),
            ..Default::default()
        };
        let made = client.jobs().create_job(request).await.unwrap();
        let name = made.into_inner().job.unwrap().name;
        while state(&client, &name).await != JobState::Succeeded {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let request = v1::CreateStatisticsRequest {
            source: Some(v1::create_statistics_request::Source::Job(name)),
        };
        let made = client.statistics().create_statistics(request).await;
        made.unwrap().into_inner().statistics
    });
    for (one, other) in digests(&from_object).iter().zip(&in_request) {
        assert!(other.name.contains(one), "{one} {}", other.name);
    }
}

#[test]
fn a_range_that_is_no_part_of_its_corpus_is_refused_by_its_name() {
    let cluster = Cluster::new();
    let bytes = b"\"some text\"\n";
    let digest = Digest::of(bytes);
    fs::write(cluster.site.path("object"), bytes).unwrap();
    let piece = |offset, length, digest: &Digest| v1::StatsUnit {
        range: Some(v1::stats_unit::Range {
            offset,
            length,
            digest: digest.to_string(),
        }),
        ..Default::default()
    };
    runtime().block_on(async {
        let client = cluster.client();
        let path = cluster.site.path("object");
        upload(client.objects(), &digest, &path, |_| {})
            .await
            .unwrap();
        let named = |size| {
            Some(v1::Corpus {
                digest: digest.to_string(),
                size,
            })
        };
        for (piece, corpus, what) in [
            (piece(0, 12, &digest), None, "there is no corpus"),
            (piece(1, 12, &digest), named(12), "end behind the corpus"),
            (
                piece(u64::MAX, 2, &digest),
                named(12),
                "end behind the corpus",
            ),
            (piece(0, 0, &digest), named(12), "0 bytes"),
            (piece(0, 12, &digest), named(13), "has 12 bytes, not 13"),
        ] {
            let spec = v1::StatsSpec {
                pieces: vec![piece],
                layers: vec![1],
                corpus,
                ..Default::default()
            };
            let request = v1::CreateJobRequest {
                job: Some(v1::Job {
                    model: "models/tiny".to_owned(),
                    spec: Some(Spec::Stats(spec)),
                    ..Default::default()
                }),
                validate_only: true,
                ..Default::default()
            };
            let status = client.jobs().create_job(request).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            let said = status.message();
            assert!(said.contains(what), "{said}");
        }
    });
}

/// Units that a job has committed, and the newest step of the edit that it computes.
async fn progress(client: &Client, name: &str) -> (u64, Option<u32>) {
    let request = v1::WatchJobRequest {
        name: name.to_owned(),
        after_sequence: 0,
    };
    loop {
        if let Ok(stream) = client.jobs().watch_job(request.clone()).await
            && let Ok(Some(message)) = stream.into_inner().message().await
        {
            let units = message.job.unwrap().counts.unwrap().units_done;
            let edits = message.progress.unwrap_or_default().edits;
            let newest = edits.iter().filter_map(|edit| edit.steps.last());
            return (units, newest.map(|step| step.number).max());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Cluster {
    /// Kills the worker, then the coordinator, and so on, every time that the job has come further,
    /// and starts it again. Gives the worker that is left.
    async fn harass(&mut self, job: &str, kills: usize) -> Process {
        let client = self.client();
        let mut worker = self.worker("worker");
        let mut before = (0, None);
        for kill in 0..kills {
            loop {
                let now = progress(&client, job).await;
                assert!(
                    state(&client, job).await != JobState::Succeeded,
                    "it ended after {kill} kills: give it more to do"
                );
                // A new worker begins a unit from its first step.
                if now.0 > before.0 || now.1.is_some_and(|step| Some(step) != before.1) {
                    before = now;
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if kill % 2 == 0 {
                worker.kill();
                worker = self.worker(&format!("worker-{kill}"));
            } else {
                self.server.process.kill();
                self.server.process = self.site.start_serving(&self.server.address);
            }
        }
        worker
    }
}

#[test]
fn statistics_collected_under_kills_are_those_of_a_calm_run_byte_for_byte() {
    let args = [
        "stats",
        "collect",
        "--corpus",
        "corpus.jsonl",
        "--layers",
        "0,1",
        "--length",
        "64",
    ];
    let text = corpus(3 << 19);
    let collect = |name: &str, cluster: &Cluster| {
        fs::write(cluster.site.path("corpus.jsonl"), &text).unwrap();
        cluster.start(name, &args)
    };
    let calm = Cluster::new();
    let _worker = calm.worker("calm");
    let mut undisturbed = collect("calm-stats", &calm);
    assert!(undisturbed.wait(LONG).success());
    let expected = digests_of(&calm);
    assert_eq!(expected.len(), 2);

    let mut cluster = Cluster::new();
    let mut collecting = collect("stats", &cluster);
    let _worker = runtime().block_on(async {
        let client = cluster.client();
        let job = loop {
            let found = client
                .jobs()
                .list_jobs(v1::ListJobsRequest::default())
                .await;
            if let Some(job) = found.unwrap().into_inner().jobs.pop() {
                break job.name;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        cluster.harass(&job, 6).await
    });
    assert!(collecting.wait(LONG).success(), "{}", collecting.said());
    assert_eq!(digests_of(&cluster), expected);
}

/// The digests of a site's statistics, by layer.
fn digests_of(cluster: &Cluster) -> Vec<String> {
    let list = cluster.run(&["stats", "list", "--json"]);
    let names = list
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    names.map(|line| line["name"].to_string()).collect()
}

#[test]
fn an_edit_computed_under_kills_is_that_of_a_calm_run_byte_for_byte() {
    let steps = 4000;
    let calm = Cluster::new().with_statistics();
    let _worker = calm.worker("calm");
    let expected = runtime().block_on(async {
        let client = calm.client();
        let name = submit(&client, spec("The Eiffel Tower", 4000)).await;
        outcome(&client, &name).await
    });
    let mut cluster = Cluster::new().with_statistics();
    let (found, _worker) = runtime().block_on(async {
        let client = cluster.client();
        let name = submit(&client, spec("The Eiffel Tower", steps)).await;
        let worker = cluster.harass(&name, 4).await;
        (outcome(&client, &name).await, worker)
    });
    let bytes = |mut outcome: v1::EditOutcome| {
        // The jobs have names of their own.
        outcome.edit.as_mut().unwrap().job.clear();
        outcome.encode_to_vec()
    };
    assert_eq!(expected.steps.len() as u32, steps);
    assert!(bytes(found) == bytes(expected));
}
