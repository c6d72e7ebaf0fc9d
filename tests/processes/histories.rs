//! Long histories, old ones, and batches: versions that stand on their parents, as users see them.

#![allow(clippy::unwrap_used)]

use std::fs;

use palimpsest::embedded::Embedded;
use palimpsest::model::Checkpoint;
use palimpsest::proto::v1;
use palimpsest::store::{Options, STRIDE};
use palimpsest::version::Factor;
use serde_json::Value;

use crate::common::{LONG, Site, fixture};

fn unpacked(site: &Site, name: &str) {
    let zip = fs::File::open(fixture(name).join("store.zip")).unwrap();
    let mut zip = zip::ZipArchive::new(zip).unwrap();
    zip.extract(site.path("store")).unwrap();
}

fn run(site: &Site, args: &[&str]) -> String {
    site.run(&[args, &["--store", "store"]].concat(), LONG)
}

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What `log --json` says, without what programs did not say when versions had their whole lists.
fn log(site: &Site) -> Vec<Value> {
    let mut log = lines(&run(site, &["log", "--json"]));
    for version in &mut log {
        let count = version.as_object_mut().unwrap().remove("edit_count");
        let edits = version["edits"].as_array().unwrap().len();
        assert_eq!(count.unwrap(), edits);
    }
    log
}

/// A file with an edit of rank one of a fixture's first layer.
fn factors(site: &Site, model: &str) -> String {
    let checkpoint = Checkpoint::open(&fixture(model)).unwrap();
    let weight = &checkpoint.layout().layers[0].down().unwrap().weight;
    let [left, right] = [0, 1].map(|side| vec![1_u8; 4 * weight.shape[side]]);
    let view = |rows: usize, data| {
        let kind = safetensors::Dtype::F32;
        safetensors::tensor::TensorView::new(kind, vec![rows, 1], data).unwrap()
    };
    let tensors = [
        (
            format!("{}.left", weight.name),
            view(weight.shape[0], &left),
        ),
        (
            format!("{}.right", weight.name),
            view(weight.shape[1], &right),
        ),
    ];
    let path = site.path("edit.safetensors");
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_store_whose_versions_have_their_whole_lists_keeps_every_digest_and_goes_on() {
    let site = Site::new();
    unpacked(&site, "store-format-2");
    let text = fs::read_to_string(fixture("store-format-2").join("log.jsonl")).unwrap();
    let expected = lines(&text);
    assert_eq!(log(&site), expected);
    let format = || fs::read_to_string(site.path("store/FORMAT")).unwrap();
    // To read it changes nothing, so that the program that wrote it still opens it.
    assert_eq!(format(), "2\n");
    let file = factors(&site, "llama");
    run(&site, &["edit", "import", &file, "--why", "on top of it"]);
    assert_eq!(format(), "5\n");
    let now = log(&site);
    assert_eq!(now[1..], expected);
    let (newest, before) = (&now[0]["edits"], &now[1]["edits"]);
    let before = before.as_array().unwrap();
    assert_eq!(newest.as_array().unwrap()[..before.len()], before[..]);
    // Taken out again, the weights are those of the version that an old program made.
    let edit = now[0]["edit"].as_str().unwrap();
    run(&site, &["revert", edit]);
    let now = log(&site);
    assert_eq!(now[0]["matrices"], now[2]["matrices"]);
    assert_eq!(now[0]["edits"], now[2]["edits"]);
    run(&site, &["store", "verify"]);
    run(&site, &["audit", "verify"]);
}

#[test]
fn a_store_of_format_1_takes_edits() {
    let site = Site::new();
    unpacked(&site, "store-format-1");
    let file = factors(&site, "gemma2");
    for _ in 0..2 {
        run(&site, &["edit", "import", &file]);
        let newest = &log(&site)[0];
        assert_eq!(newest["edits"].as_array().unwrap().len(), 1);
        let edit = newest["edit"].as_str().unwrap().to_owned();
        run(&site, &["revert", &edit]);
        assert_eq!(log(&site)[0]["edits"], serde_json::json!([]));
    }
    run(&site, &["store", "verify"]);
}

/// An edit of rank one of the fixture `llama`, of so many facts.
fn edit(number: usize, facts: usize) -> v1::Edit {
    let checkpoint = Checkpoint::open(&fixture("llama")).unwrap();
    let weight = &checkpoint.layout().layers[number % 2]
        .down()
        .unwrap()
        .weight;
    let numbers = |count: usize| (0..count).map(|n| ((n + 3 * number) as f32).sin() * 1e-3);
    let left = numbers(weight.shape[0]).collect();
    let right = numbers(weight.shape[1]).collect();
    let fact = |n: usize| v1::EditRequest {
        prompt: "{} stands in".to_owned(),
        subject: format!("Tower {number}.{n}"),
        target_new: format!(" Town {n}"),
        ..Default::default()
    };
    v1::Edit {
        method: "import".to_owned(),
        requests: (0..facts).map(fact).collect(),
        factors: vec![Factor::rank_one(&weight.name, number % 2, left, right).to_proto()],
        ..Default::default()
    }
}

/// Makes edits in the store of a site, which has the model `m`, and gives the newest version as
/// the answer to its making said it.
fn make(site: &Site, edits: impl Iterator<Item = v1::Edit>) -> v1::Version {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let embedded = Embedded::start(&site.path("store"), Options::default()).unwrap();
        let client = embedded.client().clone();
        let mut newest = v1::Version::default();
        for edit in edits {
            let request = v1::CreateEditRequest {
                parent: "models/m".to_owned(),
                source: Some(v1::create_edit_request::Source::Edit(edit)),
                ..Default::default()
            };
            let made = client.versions().create_edit(request).await.unwrap();
            newest = made.into_inner().version.unwrap();
        }
        drop(client);
        embedded.stop().await;
        newest
    })
}

fn with_model() -> Site {
    let site = Site::new();
    let source = fixture("llama");
    let source = source.to_str().unwrap();
    run(&site, &["model", "import", source, "--name", "m"]);
    site
}

#[test]
fn a_batch_is_one_edit_whose_facts_a_comparison_lists() {
    let site = with_model();
    make(&site, [edit(0, 1), edit(1, 700)].into_iter());
    let diff = run(&site, &["diff", "v0", "main"]);
    let facts: Vec<&str> = diff.lines().filter(|line| line.contains(" -> ")).collect();
    assert_eq!(facts.len(), 701, "{diff}");
    assert!(facts[0].contains("Tower 0.0 stands in -> Town 0"));
    assert!(facts[700].ends_with("Tower 1.699 stands in -> Town 699"));
    assert!(diff.contains(": 700 facts\n"), "{diff}");
    let shown = run(&site, &["show", "main"]);
    let row = |words: &str| shown.lines().find(|line| line.contains(words)).unwrap();
    let batch = row("Tower 1.0 stands in -> Town 0 and 699 more");
    let single = row("Tower 0.0 stands in -> Town 0");
    assert_eq!(batch.find("Tower"), single.find("Tower"), "{shown}");
}

#[test]
fn a_version_of_many_edits_is_listed_compared_and_shown_whole() {
    let site = with_model();
    let count = 2 * STRIDE + 10;
    let newest = make(&site, (0..count).map(|n| edit(n, 1)));
    // More than an answer to a change has room for: they are counted.
    assert_eq!((newest.edit_count, newest.edits.len()), (count as u64, 0));
    let rows = |text: &str| text.lines().filter(|line| line.contains(" -> ")).count();
    assert_eq!(rows(&run(&site, &["diff", "v0", "main"])), count);
    assert_eq!(rows(&run(&site, &["show", "main"])), count);
    assert_eq!(rows(&run(&site, &["log", "-n", "2000"])), count);
    assert_eq!(rows(&run(&site, &["log"])), 100);
    let shown = run(&site, &["show", "main", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["edits"].as_array().unwrap().len(), count);
    let briefly = &lines(&run(&site, &["log", "--json", "-n", "2"]))[0];
    assert_eq!(briefly["edit_count"], count);
    assert_eq!(briefly["edits"], serde_json::json!([]));
    assert_eq!(briefly["matrices"], shown["matrices"]);
    run(&site, &["store", "verify"]);
}
