//! What edits are judged by beside their own prompts: texts and questions, of a request and of the
//! coordinator.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::fs;

use crate::common::Site;
use crate::edit_cluster::{Cluster, outcome, runtime, spec, submit};
use palimpsest::client::{Client, upload};
use palimpsest::objects::Digest;
use palimpsest::proto::v1::{self, job::Spec};
use prost::Message as _;

/// Texts as an object has them.
async fn texts_object(client: &Client, texts: &[&str], site: &Site) -> v1::Corpus {
    let lines = texts
        .iter()
        .map(|it| format!("{}\n", serde_json::json!(it)));
    stored(client, lines.collect::<String>().as_bytes(), site).await
}

async fn stored(client: &Client, object: &[u8], site: &Site) -> v1::Corpus {
    let path = site.path("object");
    fs::write(&path, object).unwrap();
    let digest = Digest::of(object);
    upload(client.objects(), &digest, &path, |_| {})
        .await
        .unwrap();
    v1::Corpus {
        digest: digest.to_string(),
        size: object.len() as u64,
    }
}

/// What the coordinator makes of a job of edits, without doing it; or why it refuses it.
fn checked(cluster: &Cluster, spec: v1::EditSpec) -> Result<v1::Job, String> {
    let request = v1::CreateJobRequest {
        job: Some(v1::Job {
            model: "models/tiny".to_owned(),
            spec: Some(Spec::Edit(spec)),
            ..Default::default()
        }),
        validate_only: true,
        ..Default::default()
    };
    let answer = runtime().block_on(async { cluster.client().jobs().create_job(request).await });
    let made = answer.map(|job| job.into_inner().job.unwrap_or_default());
    made.map_err(|status| status.message().to_owned())
}

#[test]
fn the_coordinators_own_texts_judge_an_edit_whichever_texts_a_request_brings() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.txt");
    fs::write(&own, "The cat sat on the mat.\nThe river runs beside it.\n").unwrap();
    let cluster = Cluster::with_settings(&format!(
        "[edit]\nmax_ppl_ratio = 1e-9\ngate_texts = {:?}\n",
        own.display().to_string()
    ));
    let cluster = cluster.with_statistics();
    let _worker = cluster.worker("one");
    let (plain, brought) = runtime().block_on(async {
        let client = cluster.client();
        let name = submit(&client, spec("The Eiffel Tower", 4)).await;
        let plain = outcome(&client, &name).await.edit.unwrap();
        let easy = texts_object(&client, &["one two one two"], &cluster.site).await;
        let spec = v1::EditSpec {
            gates: Some(v1::EditGates {
                ppl_ratio: Some(1e9),
                server_ppl_ratio: Some(1e9),
                ..Default::default()
            }),
            // Which texts are the coordinator's is not for a request to say.
            gate_texts: Some(v1::GateTexts {
                asked: Some(easy.clone()),
                server: Some(easy),
            }),
            ..spec("The Eiffel Tower", 4)
        };
        let name = submit(&client, spec).await;
        (plain, outcome(&client, &name).await.edit.unwrap())
    });
    let figure = |edit: &v1::Edit, key: &str| {
        let found = edit.figures.iter().find(|it| it.key == key);
        found.map(|it| it.value)
    };
    for edit in [&plain, &brought] {
        assert_eq!(edit.state(), v1::EditState::Rejected);
        let [failed] = &edit.failed_gates[..] else {
            panic!("{:?}", edit.failed_gates);
        };
        assert!(
            failed.contains("of the coordinator's texts") && failed.contains("allows 0.000000001"),
            "{failed}"
        );
    }
    let of = |edit| figure(edit, "ppl.server.before").unwrap();
    assert_eq!(of(&plain), of(&brought));
    assert_eq!(figure(&plain, "ppl.ratio"), None);
    assert_ne!(figure(&brought, "ppl.before"), Some(of(&brought)));
}

#[test]
fn a_bound_on_the_perplexity_of_no_texts_is_refused_with_its_field() {
    let cluster = Cluster::new().with_statistics();
    let said = |gates: v1::EditGates, texts: Option<v1::GateTexts>| {
        let spec = v1::EditSpec {
            gates: Some(gates),
            gate_texts: texts,
            ..spec("The Eiffel Tower", 4)
        };
        checked(&cluster, spec).unwrap_err()
    };
    let asked = v1::EditGates {
        ppl_ratio: Some(1.5),
        ..Default::default()
    };
    let of_server = v1::EditGates {
        server_ppl_ratio: Some(1.5),
        ..Default::default()
    };
    let message = said(asked, None);
    assert!(
        message.contains("job.edit.gates.ppl_ratio") && message.contains("--gate-texts FILE"),
        "{message}"
    );
    let message = said(of_server, None);
    assert!(
        message.contains("job.edit.gates.server_ppl_ratio") && message.contains("edit.gate_texts"),
        "{message}"
    );
    let large = v1::Corpus {
        digest: "ab".repeat(32),
        size: 1 << 30,
    };
    let texts = v1::GateTexts {
        asked: Some(large.clone()),
        server: None,
    };
    let message = said(asked, Some(texts.clone()));
    assert!(message.contains("gate_texts.asked.size"), "{message}");
    let missing = v1::GateTexts {
        asked: Some(v1::Corpus { size: 5, ..large }),
        server: None,
    };
    let message = said(asked, Some(missing));
    assert!(message.contains("there is no object"), "{message}");
}

#[test]
fn a_bound_on_the_accuracy_of_no_questions_is_refused_with_its_field() {
    let cluster = Cluster::new().with_statistics();
    let said = |questions: Option<v1::GateQuestions>| {
        let spec = v1::EditSpec {
            gates: Some(v1::EditGates {
                downstream_drop: Some(0.02),
                ..Default::default()
            }),
            gate_questions: questions,
            ..spec("The Eiffel Tower", 4)
        };
        checked(&cluster, spec)
    };
    let message = said(None).unwrap_err();
    assert!(
        message.contains("job.edit.gates.downstream_drop")
            && message.contains("job.edit.gate_questions names none")
            && message.contains("--gate-questions FILE"),
        "{message}"
    );
    let asked = |digest: String, size: u64| v1::GateQuestions {
        digest,
        size,
        // Which tasks they are of is not for a request to say.
        tasks: vec![v1::gate_questions::Task {
            name: "easy".to_owned(),
            questions: 7,
        }],
    };
    for (questions, part) in [
        (asked("ab".repeat(32), 1 << 30), "gate_questions.size"),
        (asked("ab".to_owned(), 5), "gate_questions.digest"),
        (asked("ab".repeat(32), 5), "there is no object"),
    ] {
        let message = said(Some(questions)).unwrap_err();
        assert!(message.contains(part), "{message}");
    }
    let texts = runtime().block_on(async {
        let client = cluster.client();
        texts_object(&client, &["no question"], &cluster.site).await
    });
    let message = said(Some(asked(texts.digest, texts.size))).unwrap_err();
    assert!(message.contains("job.edit.gate_questions"), "{message}");

    let choice = |task: &str| v1::EvalRecord {
        choice: Some(v1::EvalChoice {
            task: task.to_owned(),
            prompt: "It is".to_owned(),
            choices: vec!["so".to_owned(), "not".to_owned()],
            right: 0,
        }),
        ..Default::default()
    };
    let list = v1::EvalRecordList {
        records: ["sst2", "rte", "sst2"].map(choice).to_vec(),
    };
    let object = runtime().block_on(async {
        let client = cluster.client();
        stored(&client, &list.encode_to_vec(), &cluster.site).await
    });
    let made = said(Some(asked(object.digest, object.size))).unwrap();
    let Some(Spec::Edit(spec)) = made.spec else {
        panic!("{made:?}");
    };
    let tasks = spec.gate_questions.unwrap_or_default().tasks.into_iter();
    let tasks: Vec<(String, u32)> = tasks.map(|it| (it.name, it.questions)).collect();
    assert_eq!(tasks, [("rte".to_owned(), 1), ("sst2".to_owned(), 2)]);
}
