//! Edits that end with their version: the coordinator judges them and writes them, whoever asked.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::time::Duration;

use palimpsest::proto::v1::create_edit_request::Source;
use palimpsest::proto::v1::{self, EditState};
use serde_json::Value;

use crate::edit_cluster::{Cluster, outcome, runtime, spec, submit};

const EDIT: [&str; 13] = [
    "edit",
    "Look: {} is in",
    "--subject",
    "The Eiffel Tower",
    "--target",
    "Rome",
    "--layer",
    "1",
    "--set",
    "steps=4",
    "--why",
    "a try",
    "--rebase",
];

#[test]
fn an_edit_whose_client_is_gone_makes_its_version_and_its_audit_entry() {
    let cluster = Cluster::new().with_statistics();
    let detached = cluster.run(&[&EDIT[..], &["--detach"]].concat());
    let mut followed = cluster.start("followed", &EDIT);
    // No worker is there yet: both clients are gone before anything is computed.
    std::thread::sleep(Duration::from_millis(500));
    followed.kill();
    let _worker = cluster.worker("one");
    let job = detached.trim().to_owned();
    runtime().block_on(async {
        let made = outcome(&cluster.client(), &job).await;
        assert!(
            made.version.starts_with("models/tiny/versions/"),
            "{made:?}"
        );
        assert_eq!(made.edit.unwrap().why, "a try");
    });
    let log = cluster.run(&["log"]);
    assert!(log.contains("a try"), "{log}");
    let entries = cluster.run(&["audit", "list", "--json"]);
    let entries = entries
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let edits = entries.filter(|it| it["action"] == "edits.create");
    assert!(edits.count() >= 1);
    cluster.run(&["audit", "verify"]);
}

#[test]
fn a_file_of_edits_is_one_job_and_each_is_computed_on_the_version_before() {
    let cluster = Cluster::new().with_statistics();
    let _workers = [cluster.worker("one"), cluster.worker("two")];
    runtime().block_on(async {
        let client = cluster.client();
        let tasks: Vec<_> = ["The Eiffel Tower", "The Louvre", "The Forum"]
            .map(|subject| spec(subject, 3).tasks.remove(0))
            .into();
        let sequence = v1::EditSpec {
            tasks,
            ref_id: "main".to_owned(),
            ..spec("The Louvre", 3)
        };
        let name = submit(&client, sequence).await;
        outcome(&client, &name).await;
        let request = v1::ListResultsRequest {
            parent: name.clone(),
            ..Default::default()
        };
        let results = client.jobs().list_results(request).await.unwrap();
        let mut before = String::new();
        for result in results.into_inner().results {
            let Some(v1::unit_result::Outcome::Edit(made)) = result.outcome else {
                panic!("{result:?}");
            };
            let edit = made.edit.unwrap();
            if !before.is_empty() {
                assert_eq!(edit.based_on, before);
            }
            assert_eq!(edit.job, name);
            before = made.version;
        }
        let request = v1::GetVersionRequest {
            name: "models/tiny/versions/main".to_owned(),
            without_edits: false,
        };
        let version = client.versions().get_version(request).await.unwrap();
        let version = version.into_inner().version.unwrap();
        assert_eq!((version.number, version.edits.len()), (3, 3));
        assert_eq!(version.name, before);
    });
}

#[test]
fn of_two_jobs_on_one_version_one_moves_the_ref_and_the_other_fails_or_is_computed_again() {
    for rebase in [false, true] {
        let cluster = Cluster::new().with_statistics();
        runtime().block_on(async {
            let client = cluster.client();
            let mut jobs = Vec::new();
            for subject in ["The Eiffel Tower", "The Louvre"] {
                let asked = v1::EditSpec {
                    ref_id: "main".to_owned(),
                    rebase,
                    ..spec(subject, 3)
                };
                jobs.push(submit(&client, asked).await);
            }
            // Both were accepted on v0; now they are computed.
            let _worker = cluster.worker("one");
            let mut failures = Vec::new();
            for job in &jobs {
                let request = v1::ListResultsRequest {
                    parent: job.clone(),
                    ..Default::default()
                };
                let result = loop {
                    let found = client.jobs().list_results(request.clone()).await.unwrap();
                    match found.into_inner().results.pop() {
                        Some(result) => break result,
                        None => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                };
                if let Some(v1::unit_result::Outcome::Failure(failure)) = result.outcome {
                    failures.push(failure.message);
                }
            }
            let request = v1::GetVersionRequest {
                name: "models/tiny/versions/main".to_owned(),
                without_edits: true,
            };
            let version = client.versions().get_version(request).await.unwrap();
            let number = version.into_inner().version.unwrap().number;
            if rebase {
                assert_eq!((number, failures.len()), (2, 0), "{failures:?}");
            } else {
                assert_eq!((number, failures.len()), (1, 1), "{failures:?}");
                let said = &failures[0];
                assert!(
                    said.contains("moved meanwhile") && said.contains("--rebase"),
                    "{said}"
                );
            }
        });
    }
}

#[test]
fn what_a_client_says_of_an_edit_is_not_believed() {
    let cluster = Cluster::with_settings("[edit]\nmax_norm = 1e-9\n").with_statistics();
    let _worker = cluster.worker("one");
    runtime().block_on(async {
        let client = cluster.client();
        let name = submit(&client, spec("The Eiffel Tower", 3)).await;
        let computed = outcome(&client, &name).await.edit.unwrap();
        assert_eq!(computed.state(), EditState::Rejected);
        // Sent in as accepted, without what it failed: the coordinator looks at the norm itself.
        let altered = v1::Edit {
            state: EditState::Accepted as i32,
            failed_gates: Vec::new(),
            figures: Vec::new(),
            ..computed
        };
        let create = |source| {
            let request = v1::CreateEditRequest {
                parent: "models/tiny".to_owned(),
                source: Some(source),
                ..Default::default()
            };
            let mut versions = client.versions();
            async move { versions.create_edit(request).await }
        };
        let refused = create(Source::Edit(altered)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("gates: norm:"), "{refused:?}");
        // Named as a result it is kept with its figures, and moves nothing.
        let kept = create(Source::Result(format!("{name}/results/0"))).await;
        let kept = kept.unwrap().into_inner();
        let edit = kept.edit.unwrap();
        assert_eq!(edit.state(), EditState::Rejected);
        assert!(edit.failed_gates[0].starts_with("norm:"), "{edit:?}");
        assert!(kept.version.is_none() && kept.r#ref.is_none());
    });
}
