//! Many facts in one edit, from a file to a version, whoever computes it and whatever happens
//! meanwhile.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking
#![allow(clippy::disallowed_methods)] // a test owns its time

use std::fs;

use serde_json::{Value, json};

use crate::common::{LONG, PATIENCE, wait};
use crate::edit_cluster::Cluster;

/// Facts about towers, two of which have one key, with a paraphrase and a neighbour each.
fn facts() -> Vec<Value> {
    let fact = |id: usize, subject: &str, relation: &str, target: &str| {
        json!({
            "case_id": id,
            "requested_rewrite": {
                "prompt": format!("Look: {{}} {relation}"),
                "subject": subject,
                "target_new": { "str": target },
                "target_true": { "str": "Paris" },
            },
            "paraphrase_prompts": [format!("{subject} stands in")],
            "neighborhood_prompts": ["The river is in"],
        })
    };
    vec![
        fact(1, "The Eiffel Tower", "is in", "Rome"),
        fact(2, "The Eiffel Tower", "belongs to", "Italy"),
        fact(3, "The Louvre", "is in", "Oslo"),
        fact(4, "A model", "is in", "two"),
        fact(5, "The page", "is in", "one"),
    ]
}

const EDIT: [&str; 8] = [
    "edit",
    "--file",
    "facts.json",
    "--set",
    "clamp=3",
    "--auto-stats",
    "--why",
    "a try",
];
const MEMIT: [&str; 6] = ["--method", "memit", "--layers", "0-1", "--set", "steps=4"];

/// Runs a mass edit to its end, and gives its edits as JSON.
fn edits(cluster: &Cluster, facts: &[Value], more: &[&str]) -> Vec<Value> {
    fs::write(cluster.path("facts.json"), json!(facts).to_string()).unwrap();
    let said = cluster.run(&[&EDIT[..], more, &["--json"]].concat());
    let lines = said.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.filter(|it: &Value| it["facts"].is_u64()).collect()
}

/// What of the newest version is decided by the facts alone.
fn matrices(cluster: &Cluster) -> Value {
    let shown = cluster.run(&["show", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown["matrices"].clone()
}

#[test]
fn a_file_of_facts_becomes_one_version_with_the_same_bytes_in_any_order_and_on_any_workers() {
    let one = Cluster::new();
    let _worker = one.worker("one");
    let made = edits(&one, &facts(), &MEMIT);
    assert_eq!(made.len(), 1);
    assert_eq!(made[0]["facts"], 5);
    assert_eq!(made[0]["layers"], json!([0, 1]));
    let figures = &made[0]["figures"];
    assert!(figures["rewrite.new.after"].as_f64() > figures["rewrite.new.before"].as_f64());
    assert_eq!(made[0]["accepted"], true, "{}", made[0]);
    let log = one.run(&["log"]);
    assert!(log.contains("a try"), "{log}");
    one.run(&["audit", "verify"]);

    let two = Cluster::new();
    let _workers = [two.worker("one"), two.worker("two"), two.worker("three")];
    let mut turned = facts();
    turned.reverse();
    edits(&two, &turned, &MEMIT);
    assert_eq!(matrices(&one), matrices(&two));
}

#[test]
fn each_batch_is_computed_on_the_version_before_and_protects_what_it_wrote() {
    for method in ["alphaedit", "encore", "emmet"] {
        let cluster = Cluster::new();
        let _workers = [cluster.worker("one"), cluster.worker("two")];
        let mut more = vec!["--method", method, "--layers", "0-1", "--batch", "3"];
        more.extend(["--set", "steps=4"]);
        if method == "alphaedit" {
            more.extend(["--set", "rank=20"]);
        }
        let made = edits(&cluster, &facts(), &more);
        let sizes: Vec<u64> = made
            .iter()
            .map(|it| it["facts"].as_u64().unwrap())
            .collect();
        assert_eq!(sizes, [3, 2], "{method}");
        let second = cluster.run(&["show", made[1]["edit"].as_str().unwrap(), "--json"]);
        let second: Value = serde_json::from_str(&second).unwrap();
        let first = made[0]["version"].as_str().unwrap();
        assert_eq!(second["based_on"], first, "{method}");
        // What is protected follows the version: without the first edit the second is as it was.
        cluster.run(&[
            "revert",
            made[0]["edit"].as_str().unwrap(),
            "--why",
            "a test",
        ]);
        cluster.run(&["rollback", "--to", "v0", "--why", "a test"]);
        cluster.run(&["audit", "verify"]);
    }
}

#[test]
fn what_holds_while_more_is_written_is_measured_along_the_way_and_drawn() {
    let cluster = Cluster::new();
    let _worker = cluster.worker("one");
    let batches = [&MEMIT[..], &["--batch", "2"]].concat();
    let made = edits(&cluster, &facts(), &batches);
    assert_eq!(made.len(), 3);
    let told = cluster.run(&["job", "results", "latest", "--averages", "--svg", "figures"]);
    assert!(
        told.contains("BATCH") && told.contains("LARGEST NORM"),
        "{told}"
    );
    let drawn = fs::read_to_string(cluster.path("figures/batches.svg")).unwrap();
    assert!(drawn.contains("facts written so far"), "{drawn}");

    let along = [
        "eval",
        "--dataset",
        "facts.json",
        "--along",
        "2",
        "--no-generation",
    ];
    let lines = cluster.run(&[&along[..], &["--json", "--svg", "figures"]].concat());
    let lines = lines.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(|it| serde_json::from_str(it).unwrap()).collect();
    let es: Vec<&Value> = lines.iter().filter(|it| it["measure"] == "ES").collect();
    let points: Vec<(u64, u64)> = es
        .iter()
        .map(|it| {
            (
                it["facts"].as_u64().unwrap(),
                it["records"].as_u64().unwrap(),
            )
        })
        .collect();
    // Two facts of one key are written together, whatever the size of a batch.
    assert_eq!(points.len(), 2, "{points:?}");
    assert!(
        points.iter().all(|(facts, records)| facts == records),
        "{points:?}"
    );
    let version = made[0]["version"].as_str().unwrap();
    assert!(
        es[0]["version"]
            .as_str()
            .unwrap()
            .ends_with(version.rsplit('/').next().unwrap())
    );
    // What it says of a version is what an evaluation of that version says.
    let alone = cluster.run(&[
        "eval",
        "--dataset",
        "facts.json",
        "--limit",
        "2",
        "--ref",
        version,
        "--averages",
        "--no-generation",
        "--json",
    ]);
    let alone: Value = alone
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|it| it["measure"] == "ES")
        .unwrap();
    assert_eq!(es[0]["measured"]["mean"], alone["measured"]["mean"]);
    assert!(cluster.path("figures/along.svg").exists());

    for (flags, remedy) in [
        (&["--ref", "v0"][..], "has no edits"),
        (&["--npz", "figures"], "leave --npz"),
        (&["--detach"], "leave --detach"),
    ] {
        let mut refused = cluster.start("refused", &[&along[..], flags].concat());
        assert!(!refused.wait(LONG).success());
        assert!(refused.said().contains(remedy), "{}", refused.said());
    }
}

#[test]
fn workers_and_a_coordinator_that_die_change_no_byte() {
    let calm = Cluster::new();
    let _worker = calm.worker("calm");
    let more = [&MEMIT[..4], &["--set", "steps=60", "--set", "stop_loss=-1"]].concat();
    edits(&calm, &facts(), &more);

    let mut cluster = Cluster::new();
    fs::write(cluster.path("facts.json"), json!(facts()).to_string()).unwrap();
    let mut worker = cluster.worker("first");
    let mut edit = cluster.start("edit", &[&EDIT[..], &more].concat());
    for kill in 0..6 {
        std::thread::sleep(std::time::Duration::from_millis(700));
        if kill % 2 == 0 {
            worker.kill();
            worker = cluster.worker(&format!("worker-{kill}"));
        } else {
            cluster.restart();
        }
    }
    assert!(edit.wait(LONG).success(), "{}", edit.said());
    assert_eq!(matrices(&calm), matrices(&cluster));
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is_computed() {
    let cluster = Cluster::new();
    let said = |facts: &[Value], more: &[&str]| {
        fs::write(cluster.path("facts.json"), json!(facts).to_string()).unwrap();
        let mut edit = cluster.start("refused", &[&EDIT[..], more].concat());
        assert!(!edit.wait(LONG).success());
        edit.said()
    };
    let twice = |change: fn(&mut Value)| {
        let mut facts = facts();
        let mut other = facts[0].clone();
        other["case_id"] = json!(9);
        change(&mut other);
        facts.push(other);
        facts
    };
    let other_target = twice(|it| it["requested_rewrite"]["target_new"]["str"] = json!("Oslo"));
    for (facts, more, what) in [
        (
            other_target,
            &MEMIT[..],
            &["record 1 ", "record 9 ", "with another target"][..],
        ),
        (
            twice(|_| {}),
            &MEMIT,
            &["record 1 ", "record 9 ", "is the same fact"],
        ),
        (
            twice(|it| it["case_id"] = json!(3)),
            &MEMIT,
            &["has the id '3' too"],
        ),
        (
            twice(|it| {
                it["requested_rewrite"]["subject"] = json!("The Seine");
                it["requested_rewrite"]["target_new"]["str"] = json!("Paris");
            }),
            &MEMIT,
            &["record 9 ", "is the true one"],
        ),
        (
            facts(),
            &["--method", "memit", "--batch", "0"],
            &["0 facts of a batch"],
        ),
        (
            facts(),
            &["--method", "memit", "--layers", "1,0"],
            &["1 comes before 0"],
        ),
        (
            facts(),
            &["--method", "memit", "--layers", "1,9"],
            &["9 is not one of the model's 3"],
        ),
        (
            facts(),
            &["--method", "memit", "--layer", "1"],
            &["--layers 4-8"],
        ),
        (
            facts(),
            &["--method", "memit", "--set", "bound=1"],
            &["'bound' is no number of an edit by memit"],
        ),
        (facts(), &["--layers", "1"], &["--layers is for methods"]),
    ] {
        let said = said(&facts, more);
        assert!(
            what.iter().all(|part| said.contains(part)),
            "{said}\n{what:?}"
        );
    }
}

/// The pre-flights of a check, as JSON.
fn checks(cluster: &Cluster, facts: &[Value], more: &[&str]) -> Vec<Value> {
    fs::write(cluster.path("facts.json"), json!(facts).to_string()).unwrap();
    let said = cluster.run(&[&EDIT[..], more, &["--check", "--json"]].concat());
    let lines = said.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|it: &Value| it["checked_batch"].is_u64())
        .collect()
}

fn version_number(cluster: &Cluster) -> Value {
    let shown: Value = serde_json::from_str(&cluster.run(&["show", "--json"])).unwrap();
    shown["number"].clone()
}

#[test]
fn a_check_says_what_would_be_done_and_does_nothing() {
    let cluster = Cluster::new();
    let _worker = cluster.worker("one");
    let made = edits(&cluster, &facts(), &MEMIT);
    let said = cluster.run(&[&EDIT[..], &MEMIT, &["--check", "--batch", "2"]].concat());
    for what in [
        "5 facts by memit in 3 batches at layers 0, 1, given in the request; nothing was written",
        "SHARE REACHED",
        "LEAST SHARE",
        "batch 3: 1 facts, 1 keys",
    ] {
        assert!(said.contains(what), "{what}: {said}");
    }
    assert_eq!(version_number(&cluster), 1);

    // What the version has of it is overwritten, as is what has the same key; a key that sees
    // nothing before it and the facts of one key are told.
    let mut others = facts();
    others.truncate(4);
    others[3]["requested_rewrite"]["prompt"] = json!("{} is in");
    others[3]["requested_rewrite"]["subject"] = json!("A");
    let checked = checks(&cluster, &others, &MEMIT);
    assert_eq!(checked.len(), 1);
    let checked = &checked[0];
    assert_eq!(
        (&checked["fact_count"], &checked["keys"]),
        (&json!(4), &json!(3))
    );
    assert_eq!(checked["shared"][0]["text"], "Look: The Eiffel Tower");
    assert_eq!(checked["shared"][0]["facts"].as_array().unwrap().len(), 2);
    assert_eq!(checked["overwritten_count"], 3, "{checked}");
    for fact in checked["overwritten"].as_array().unwrap() {
        assert!(
            fact["edit"]
                .as_str()
                .unwrap()
                .ends_with(made[0]["edit"].as_str().unwrap())
        );
        assert_eq!(fact["cosine"], 1.0);
    }
    for key in checked["worst"].as_array().unwrap() {
        let pairs = key["leverage"]
            .as_array()
            .unwrap()
            .iter()
            .zip(key["share"].as_array().unwrap());
        for (leverage, share) in pairs {
            // s / (lambda + s), with the lambda of the family.
            let (s, share) = (leverage.as_f64().unwrap(), share.as_f64().unwrap());
            let lambda = s * (1.0 - share) / share;
            assert!(
                (lambda / lambda.round() - 1.0).abs() < 1e-6 && lambda > 1000.0,
                "{lambda}"
            );
        }
    }
    let warnings = checked["warnings"].to_string();
    for what in [
        "earlier edits wrote are overwritten",
        "text's first token",
        "A is in",
    ] {
        assert!(warnings.contains(what), "{what}: {warnings}");
    }
    assert_eq!(version_number(&cluster), 1);
    // Of the same subject as the first of the others, and so the same key for a method that keeps it.
    let kept = edits(
        &cluster,
        &facts(),
        &["--method", "encore", "--layers", "0-1", "--set", "steps=2"],
    );
    let figures = &kept[0]["figures"];
    assert_eq!(figures["overwritten"], 5.0);
    assert_eq!(
        (&figures["batch.number"], &figures["batch.of"]),
        (&json!(1.0), &json!(1.0))
    );
    let overwritten = kept[0]["overwritten"].as_array().unwrap();
    assert_eq!(overwritten.len(), 5);
    assert!(
        overwritten
            .iter()
            .all(|it| it["before"].is_f64() && it["after"].is_f64())
    );
    assert!(
        kept[0]["warnings"].to_string().contains("overwrites"),
        "{}",
        kept[0]
    );
}

#[test]
fn a_fact_that_cannot_be_written_fails_the_job_by_its_name_or_is_left_out_where_that_is_asked() {
    let cluster = Cluster::new();
    let _worker = cluster.worker("one");
    let mut facts = facts();
    facts[2]["requested_rewrite"]["prompt"] =
        json!(format!("{}{{}} is in", "Look, look: ".repeat(2000)));
    facts[2]["case_id"] = json!(77);
    // Many tokens in one word.
    facts[3]["requested_rewrite"]["target_new"]["str"] = json!("q.".repeat(70));
    fs::write(cluster.path("facts.json"), json!(facts).to_string()).unwrap();
    let said = |name: &str, more: &[&str]| {
        let mut edit = cluster.start(name, &[&EDIT[..], &MEMIT, more].concat());
        assert!(!edit.wait(LONG).success());
        edit.said()
    };
    let failed = said("failed", &[]);
    assert!(
        failed.contains("record 77") || failed.contains("32 at most"),
        "{failed}"
    );
    assert!(
        failed.contains("(check keys) has a unit that failed"),
        "{failed}"
    );
    assert_eq!(version_number(&cluster), 0);

    for (method, layers) in [("memit", 0), ("alphaedit", 2)] {
        let more = [
            "--keep-going",
            "--method",
            method,
            "--layers",
            "0-1",
            "--set",
            "steps=2",
        ];
        let rank = ["--set", "rank=20"];
        let more = [&more[..], &rank[..layers]].concat();
        let mut edit = cluster.start(method, &[&EDIT[..], &more].concat());
        assert!(!edit.wait(LONG).success());
        let left_out = edit.said();
        for what in [
            "record 77",
            "tokens, 32 at most",
            "3 facts by",
            "2 of 5 facts were left out",
        ] {
            assert!(left_out.contains(what), "{what}: {left_out}");
        }
    }
    assert_eq!(version_number(&cluster), 2);
    cluster.run(&["audit", "verify"]);
    cluster.run(&["export", "out", "--format", "factors"]);
}

#[test]
fn facts_of_more_bytes_than_a_message_travel_as_an_object() {
    let mut cluster = Cluster::new();
    let _worker = cluster.worker("one");
    let mut facts = facts();
    for fact in &mut facts {
        let long = "It stands and stands. ".repeat(100);
        fact["paraphrase_prompts"] = json!(vec![long; 600]);
    }
    let checked = checks(&cluster, &facts, &[&MEMIT[..], &["--batch", "2"]].concat());
    assert_eq!(checked.len(), 3);
    // The job is there again after a restart, and says the same.
    cluster.restart();
    let again = wait("the results after a restart", PATIENCE, || {
        let mut results = cluster.start("results", &["job", "results", "latest", "--json"]);
        results.wait(LONG).success().then(|| results.said())
    });
    let again = again.lines().filter(|line| line.starts_with('{'));
    let again: Vec<Value> = again.map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(again, checked);
}

#[test]
fn layers_are_located_by_a_sweep_or_the_command_that_makes_one_is_named() {
    let cluster = Cluster::new();
    fs::write(cluster.path("facts.json"), json!(facts()).to_string()).unwrap();
    let mut edit = cluster.start(
        "auto",
        &[&EDIT[..], &["--method", "memit", "--layers", "auto"]].concat(),
    );
    assert!(!edit.wait(LONG).success());
    let said = edit.said();
    for what in [
        "--layers auto: no sweep of models/tiny",
        "palimpsest trace --facts FILE --kinds mlp",
    ] {
        assert!(said.contains(what), "{said}");
    }
}

/// How many units of each stage the newest job has, and how many of them were answered from the
/// store.
fn cached(cluster: &Cluster) -> Vec<(String, u64, u64)> {
    let shown: Value =
        serde_json::from_str(&cluster.run(&["job", "show", "latest", "--json"])).unwrap();
    let stages = shown["stages"].as_array().unwrap().iter().map(|stage| {
        let number = |key: &str| stage[key].as_u64().unwrap();
        let title = stage["title"].as_str().unwrap().to_owned();
        (title, number("units"), number("units_cached"))
    });
    stages.collect()
}

#[test]
fn targets_that_were_found_before_answer_a_job_that_asks_for_the_same_search() {
    let cluster = Cluster::new();
    let _worker = cluster.worker("one");
    let run = |more: &[&str]| {
        cluster.run(&["rollback", "--to", "v0", "--why", "again"]);
        edits(&cluster, &facts(), &[&MEMIT[..], more].concat());
        let stages = cached(&cluster);
        let of = |title: &str| stages.iter().find(|it| it.0 == title).unwrap();
        let (contexts, targets, keys) = (of("contexts"), of("targets"), of("keys"));
        assert_eq!((targets.1, keys.2), (4, 0));
        (contexts.2, targets.2)
    };
    edits(&cluster, &facts(), &MEMIT);
    let first = matrices(&cluster);
    assert!(cached(&cluster).iter().all(|stage| stage.2 == 0));
    assert_eq!(run(&[]), (1, 4));
    assert_eq!(matrices(&cluster), first);
    assert_eq!(run(&["--set", "lambda=3"]), (1, 4));
    assert_ne!(matrices(&cluster), first);
    assert_eq!(run(&["--set", "learning_rate=0.3"]), (1, 0));
    assert_eq!(run(&["--seed", "9"]), (0, 0));
    // On another version the same search is another one.
    edits(&cluster, &facts(), &MEMIT);
    assert!(cached(&cluster).iter().all(|stage| stage.2 == 0));
}

#[test]
fn statistics_are_named_by_the_beginning_of_their_digest_and_stand_for_their_text_at_every_layer() {
    let cluster = Cluster::new();
    let _worker = cluster.worker("one");
    for tokens in ["1200", "2400"] {
        cluster.run(&[
            "stats",
            "collect",
            "--self-sample",
            tokens,
            "--layers",
            "0,1",
        ]);
    }
    let listed = cluster.run(&["stats", "list"]);
    let smaller = listed.lines().find(|line| line.contains("1200 tokens"));
    let digest = smaller.unwrap().split_whitespace().last().unwrap();
    let tokens = |more: &[&str]| -> Vec<Value> {
        let checked = checks(&cluster, &facts(), &[&MEMIT[..], more].concat());
        let layers = checked[0]["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer["tokens"].clone()).collect()
    };
    let (most, named) = (tokens(&[]), tokens(&["--statistics", digest]));
    assert!(named[0].as_u64() < most[0].as_u64(), "{named:?} {most:?}");
    assert_eq!(named[0], named[1], "of the same text at both layers");
}

#[test]
fn a_batch_is_judged_by_texts_questions_and_neighbours_before_its_branch_moves() {
    let cluster = Cluster::new();
    let _worker = cluster.worker("one");
    let texts = "The cat sat on the mat.\nThe river runs beside the tower.\n";
    fs::write(cluster.path("texts.txt"), texts).unwrap();
    // A task for each answer, which is the right one of it. An answer that the batch changes is one
    // less of its task, and one more of another.
    let prompts = [
        "The Eiffel Tower is in",
        "The Louvre is in",
        "A model is in",
    ];
    let choices = ["Rome", "Oslo", "two"];
    let files: Vec<String> = choices.iter().map(|it| format!("{it}.json")).collect();
    for (right, file) in files.iter().enumerate() {
        let question =
            |it| json!({ "prompt": format!("Look: {it}"), "choices": choices, "answer": right });
        let questions: Vec<Value> = prompts.iter().map(question).collect();
        fs::write(cluster.path(file), json!(questions).to_string()).unwrap();
    }
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    fs::write(cluster.path("facts.json"), json!(facts()).to_string()).unwrap();
    // What the model cannot read is said before anything is computed, not behind the solves.
    let long = json!([{ "prompt": "a ".repeat(500), "choices": choices, "answer": 0 }]);
    fs::write(cluster.path("long.json"), long.to_string()).unwrap();
    let unreadable = ["--gate-questions", "long.json"];
    for more in [&["--check"][..], &[]] {
        let args = [&EDIT[..], &MEMIT, &unreadable, more].concat();
        let mut refused = cluster.start("long", &args);
        assert!(!refused.wait(LONG).success());
        let said = refused.said();
        assert!(said.contains("question 1 of the task \"long\""), "{said}");
        assert!(!said.contains("target"), "{said}");
    }
    // One task would hide in the other.
    fs::create_dir(cluster.path("more")).unwrap();
    fs::copy(cluster.path(files[0]), cluster.path("more").join(files[0])).unwrap();
    let other = format!("more/{}", files[0]);
    let twice = ["--gate-questions", files[0], "--gate-questions", &other];
    let mut refused = cluster.start("twice", &[&EDIT[..], &MEMIT, &twice].concat());
    assert!(!refused.wait(LONG).success());
    let said = refused.said();
    assert!(said.contains("are both of the task 'Rome'"), "{said}");
    let brought = files.iter().flat_map(|&file| ["--gate-questions", file]);
    let brought: Vec<&str> = brought.chain(["--gate-texts", "texts.txt"]).collect();
    // Such a batch changes what is answered.
    let coarse = ["--set", "lambda=0.001", "--set", "learning_rate=2"];
    let asked = [&MEMIT[..], &coarse, &brought].concat();
    for (bound, part) in [
        (
            ["--max-ppl-ratio", "0.01"],
            "perplexity: that of the texts is",
        ),
        (
            ["--max-downstream-drop", "0.01"],
            "downstream: the accuracy on ",
        ),
    ] {
        let strict = [&EDIT[..], &asked, &bound, &["--json"]].concat();
        let mut strict = cluster.start("strict", &strict);
        assert!(!strict.wait(LONG).success());
        let said = strict.said();
        assert!(said.contains(part), "{said}");
        assert!(!cluster.run(&["log"]).contains("v1"));
    }

    let args = [&EDIT[..], &asked, &["--max-ppl-ratio", "100", "--json"]].concat();
    let said = cluster.run(&args);
    let lines: Vec<Value> =
        (said.lines().map(|line| serde_json::from_str(line).unwrap())).collect();
    let edit = lines.iter().find(|it| it["facts"].is_u64()).unwrap();
    let figure = |key: &str| edit["figures"][key].as_f64();
    // By another way: an evaluation of the version beside the one before it.
    let eval = ["eval", "--texts", "texts.txt", "--averages", "--json"];
    let means: Value = serde_json::from_str(cluster.run(&eval).lines().next().unwrap()).unwrap();
    for (key, of) in [
        ("ppl.before", "against"),
        ("ppl.after", "measured"),
        ("ppl.ratio", "ratio"),
    ] {
        let (found, mean) = (figure(key).unwrap(), means[of]["mean"].as_f64().unwrap());
        assert!((found / mean - 1.0).abs() < 1e-9, "{key}: {found} {mean}");
    }
    let eval = [
        &["eval", "--averages", "--json", "--downstream"],
        &files[..],
    ]
    .concat();
    let means = cluster.run(&eval);
    let means: Vec<Value> = (means
        .lines()
        .map(|line| serde_json::from_str(line).unwrap()))
    .collect();
    for task in choices {
        let row = means.iter().find(|it| it["measure"] == task).unwrap();
        for (part, of) in [("before", "against"), ("after", "measured")] {
            let found = figure(&format!("downstream.{task}.{part}"));
            assert_eq!(found, row[of]["mean"].as_f64(), "{task}: {row}");
        }
    }
    let probes = lines.iter().filter_map(|it| it["probes"].as_array());
    let neighbours: Vec<&Value> = probes
        .flatten()
        .filter(|it| it["kind"] == "neighbour")
        .collect();
    assert_eq!(neighbours.len(), 5);
    let right = |probe: &Value, when: &str| {
        let of = |whose: &str| probe[format!("{whose}_{when}")].as_f64().unwrap();
        of("true") > of("new")
    };
    let before: Vec<&&Value> = neighbours.iter().filter(|it| right(it, "before")).collect();
    let kept = before.iter().filter(|it| right(it, "after")).count();
    assert!(!before.is_empty());
    assert_eq!(figure("locality"), Some(kept as f64 / before.len() as f64));
}
