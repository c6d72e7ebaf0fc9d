//! Evaluations as users have them: over processes that are killed, with edits of each record and of
//! all in sequence.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::fs;

use crate::common::sweep::{import, quick_site, units_done};
use crate::common::{LONG, PATIENCE, Process, Site, fixture, wait};
use serde_json::{Value, json};

const ENGINE: [&str; 4] = ["--device", "cpu", "--threads", "1"];

/// CounterFact's flat form, of facts that a random model has opinions on.
fn write_records(site: &Site, count: usize) {
    let lines: String = (0..count)
        .map(|n| {
            let subject = format!("Tower {n}");
            let new = ["Rome", "a", "the"][n % 3];
            let record = json!({
                "case_id": 100 + n, "prompt": format!("Look: {subject} is in"), "subject": subject,
                "target_new": new, "ground_truth": "Paris",
                "rephrase_prompt": format!("One sees {subject} in"), "locality_prompt": "A house is in",
                "locality_ground_truth": "Paris",
            });
            format!("{record}\n")
        })
        .collect();
    fs::write(site.path("records.jsonl"), lines).unwrap();
}

fn tiny(site: &Site) {
    let folder = fixture("llama");
    let args = [
        "model",
        "import",
        folder.to_str().unwrap(),
        "--name",
        "tiny",
    ];
    site.run(&args, PATIENCE);
}

fn lines(out: &str) -> Vec<Value> {
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What a command that fails says.
fn refused(site: &Site, args: &[&str]) -> String {
    let log = site.path("refused.log");
    let mut process = Process::start("command", &mut site.command(args), &log);
    let status = process.wait(LONG);
    let said = process.said();
    fs::remove_file(log).unwrap();
    assert!(!status.success(), "{args:?} succeeded: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// How records are edited, each alone; from the second to the last but one how facts are.
const EACH: [&str; 10] = [
    "--edit-each",
    "--method",
    "ft-l",
    "--layer",
    "1",
    "--set",
    "bound=0.05",
    "--set",
    "learning_rate=0.01",
    "--json",
];

#[test]
fn a_worker_that_is_killed_changes_no_byte_and_what_is_asked_again_is_answered_from_the_store() {
    const RECORDS: usize = 24;
    let alone = Site::new();
    tiny(&alone);
    write_records(&alone, RECORDS);
    let eval = ["eval", "--dataset", "records.jsonl", "--ref", "v0"];
    let expected = alone.run(&[&eval[..], &EACH, &ENGINE].concat(), LONG);
    assert_eq!(expected.lines().count(), RECORDS);

    let site = quick_site();
    write_records(&site, RECORDS);
    let server = site.serve("127.0.0.1:0");
    let url = server.url();
    import(&site, &server);
    let mut victim = site.worker(&server, "victim", &ENGINE);
    let there = ["--server", &url];
    let submit = [&eval[..], &EACH[..9], &there, &["--detach"]].concat();
    let job = site.run(&submit, PATIENCE).trim().to_owned();
    wait("the first records", LONG, || {
        (units_done(&site, &server) > 2).then_some(())
    });
    victim.kill();
    let kept = units_done(&site, &server);
    assert!(kept < RECORDS as u64, "all was done before the kill");
    let _heir = site.worker(&server, "heir", &ENGINE);
    let ended = site.run(&["job", "watch", &job, "--server", &url], LONG);
    assert!(ended.contains("succeeded"), "{ended}");
    let results = ["job", "results", &job, "--json", "--server", &url];
    assert_eq!(site.run(&results, PATIENCE), expected);

    // Asked again, nothing is computed; of other records, what is known is taken.
    let again = [&eval[..], &EACH, &there, &["--skip", "3", "--limit", "5"]].concat();
    let again = lines(&site.run(&again, PATIENCE));
    let jobs = site.run(&["job", "list", "--json", "--server", &url], PATIENCE);
    let newest = &lines(&jobs)[0];
    assert_eq!(
        (&newest["units"], &newest["units_cached"]),
        (&json!(5), &json!(5))
    );
    let whole = lines(&expected);
    for (found, expected) in again.iter().zip(&whole[3..8]) {
        assert_eq!(found["measured"], expected["measured"]);
        assert_eq!(found["id"], expected["id"]);
    }
}

#[test]
fn facts_that_are_known_are_edited_in_sequence_and_measured_against_the_unedited_model() {
    let site = Site::new();
    tiny(&site);
    write_records(&site, 12);
    let pick = [
        "eval",
        "--dataset",
        "records.jsonl",
        "--ref",
        "v0",
        "--known-only",
        "--limit",
        "2",
        "--save",
        "known.jsonl",
        "--json",
        "--averages",
    ];
    let base = lines(&site.run(&[&pick[..], &ENGINE].concat(), LONG));
    let es = |lines: &[Value]| {
        let found = lines.iter().find(|line| line["measure"] == "ES");
        found.unwrap().clone()
    };
    assert_eq!(
        es(&base)["measured"]["mean"],
        0.0,
        "the true object is the likelier"
    );
    assert_eq!(es(&base)["records"], 2);
    assert_eq!(
        base[0]["against"],
        Value::Null,
        "one version, measured once"
    );
    let saved = fs::read_to_string(site.path("known.jsonl")).unwrap();
    let records = fs::read_to_string(site.path("records.jsonl")).unwrap();
    assert_eq!(saved.lines().count(), 2);
    let of_file: Vec<Value> = lines(&records);
    assert!(lines(&saved).iter().all(|record| of_file.contains(record)));

    site.run(&["branch", "seq", "v0"], PATIENCE);
    let edit = ["edit", "--file", "known.jsonl", "--ref", "seq"];
    site.run(&[&edit[..], &EACH[1..9], &ENGINE].concat(), LONG);
    let eval = ["eval", "--dataset", "known.jsonl", "--ref", "seq"];
    let json = [&eval[..], &["--averages", "--json"], &ENGINE].concat();
    let measured = es(&lines(&site.run(&json, LONG)));
    assert_eq!(measured["against"]["mean"], 0.0);
    assert_eq!(measured["measured"]["mean"], 1.0, "the last edits hold");
    assert_eq!(measured["change"]["mean"], 1.0);
    assert_ne!(
        measured["against"]["version"],
        measured["measured"]["version"]
    );

    let table = site.run(&[&eval[..], &ENGINE].concat(), LONG);
    for part in [
        "MEASURE",
        " v0 ",
        " v2 ",
        "CHANGE",
        "Tower",
        "2 records of CounterFact",
        "against models/tiny/versions/",
    ] {
        assert!(table.contains(part), "{part:?} in {table}");
    }
    // Against itself there is one version to measure.
    let itself = [&eval[..], &["--against", "seq", "--averages"], &ENGINE].concat();
    assert!(!site.run(&itself, LONG).contains("CHANGE"));
}

#[test]
fn zsre_is_measured_by_its_accuracies() {
    let site = Site::new();
    tiny(&site);
    let record = json!({
        "subject": "Ada", "src": "What does Ada play?", "pred": "x", "rephrase": "Ada plays what?", "alt": "oboe",
        "answers": ["harp"], "loc": "nq question: where is the sea", "loc_ans": "there",
    });
    fs::write(site.path("zsre.json"), json!([record]).to_string()).unwrap();
    let eval = ["eval", "--dataset", "zsre.json", "--averages", "--json"];
    let found = lines(&site.run(&[&eval[..], &ENGINE].concat(), LONG));
    let names: Vec<&Value> = found.iter().map(|line| &line["measure"]).collect();
    let free = [
        "E EXACT",
        "P EXACT",
        "N EXACT",
        "E CONTAINS",
        "P CONTAINS",
        "N CONTAINS",
    ];
    assert_eq!(names, [&["EA", "PA", "NA"][..], &free].concat());
    assert!(found.iter().all(|line| line["records"] == 1));
}

#[test]
fn texts_are_drawn_where_a_record_has_prompts_for_them() {
    let site = Site::new();
    tiny(&site);
    let record = json!({
        "requested_rewrite": {"prompt": "{} is in", "subject": "Ada", "target_new": {"str": "Rome"},
            "target_true": {"str": "Paris"}},
        "paraphrase_prompts": [], "neighborhood_prompts": [], "generation_prompts": ["Ada is", "Ada was"],
    });
    fs::write(site.path("full.json"), record.to_string()).unwrap();
    let eval = ["eval", "--dataset", "full.json", "--json"];
    let found = lines(&site.run(&[&eval[..], &ENGINE].concat(), LONG));
    let measured = &found[0]["measured"];
    let texts = measured["texts"].as_array().unwrap();
    assert!(
        texts[0].as_str().unwrap().starts_with("Ada is"),
        "{texts:?}"
    );
    let ge: f64 = texts
        .iter()
        .map(|text| palimpsest::eval::entropy(text.as_str().unwrap()))
        .sum::<f64>()
        / 2.0;
    assert!((measured["figures"]["GE"].as_f64().unwrap() - ge).abs() < 1e-9);
    let without = [&eval[..], &["--no-generation"], &ENGINE].concat();
    assert_eq!(
        lines(&site.run(&without, LONG))[0]["measured"]["figures"]["GE"],
        Value::Null
    );
}

#[test]
fn texts_are_measured_by_their_perplexity_against_another_version() {
    let site = Site::new();
    tiny(&site);
    write_records(&site, 2);
    fs::write(
        site.path("texts.txt"),
        "The cat sat on the mat.\nAda plays the oboe.\n\nIt rains.\n",
    )
    .unwrap();
    let edit = [
        "edit",
        "--file",
        "records.jsonl",
        "--method",
        "ft-l",
        "--layer",
        "1",
        "--set",
        "bound=0.05",
        "--set",
        "learning_rate=0.01",
    ];
    site.run(&[&edit[..], &ENGINE].concat(), LONG);
    let eval = ["eval", "--texts", "texts.txt", "--json"];
    let asked = [&eval[..], &["--ref", "main", "--averages"], &ENGINE].concat();
    let means = lines(&site.run(&asked, LONG));
    assert_eq!(means[0]["measure"], "PPL");
    assert_eq!(
        (&means[0]["records"], &means[1]["records"]),
        (&json!(3), &json!(3))
    );
    let number = |value: &Value| value["mean"].as_f64().unwrap();
    let ratio = number(&means[0]["measured"]) / number(&means[0]["against"]);
    assert!(
        (ratio - number(&means[0]["ratio"])).abs() < 1e-9,
        "{means:?}"
    );
    assert!(
        (ratio - 1.0).abs() > 1e-6,
        "the edit changed nothing: {means:?}"
    );
    let texts = lines(&site.run(&[&eval[..], &["--ref", "v0"], &ENGINE].concat(), LONG));
    let total: f64 = texts
        .iter()
        .map(|it| number_of(it, "nll") * number_of(it, "tokens"))
        .sum();
    let tokens: f64 = texts.iter().map(|it| number_of(it, "tokens")).sum();
    let whole = number(&means[0]["against"]);
    assert!(
        ((total / tokens).exp() / whole - 1.0).abs() < 1e-9,
        "{texts:?} {whole}"
    );
    assert_eq!(texts[1]["text"], "Ada plays the oboe.");
    // A text that does not fit is its own failure.
    fs::write(
        site.path("texts.txt"),
        format!("Fine it is.\n{}\n", "very ".repeat(3000)),
    )
    .unwrap();
    let said = refused(
        &site,
        &[&["eval", "--texts", "texts.txt"][..], &ENGINE].concat(),
    );
    for word in ["record 2 failed (invalid)", "the text", "1 texts on"] {
        assert!(said.contains(word), "{word:?} in {said}");
    }
    for more in [
        &["--edit-each"][..],
        &["--known-only"],
        &["--dataset", "records.jsonl"],
    ] {
        let said = refused(
            &site,
            &[&["eval", "--texts", "texts.txt"][..], more].concat(),
        );
        assert!(said.contains("cannot be used with"), "{said}");
    }
}

fn number_of(line: &Value, field: &str) -> f64 {
    line["measured"][field].as_f64().unwrap()
}

#[test]
fn more_records_than_a_request_carries_travel_as_an_object() {
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    let url = server.url();
    import(&site, &server);
    let _worker = site.worker(&server, "fake", &["--fake", "0"]);
    let long = "It is said that ".repeat(40);
    let records: String = (0..2000)
        .map(|n| {
            let record = json!({
                "prompt": format!("{long} Ada {n} is in"), "subject": format!("Ada {n}"), "target_new": "Rome",
                "ground_truth": "Paris",
            });
            format!("{record}\n")
        })
        .collect();
    fs::write(site.path("many.jsonl"), records).unwrap();
    let eval = [
        "eval",
        "--dataset",
        "many.jsonl",
        "--json",
        "--server",
        &url,
    ];
    let found = lines(&site.run(&eval, LONG));
    assert_eq!(found.len(), 2000);
    assert_eq!(found[1999]["subject"], "Ada 1999");
    assert!(
        found
            .iter()
            .all(|line| line["measured"]["figures"]["ES"].is_f64())
    );
    // The records that lie in an object are read again with the job.
    let jobs = site.run(&["job", "list", "--json", "--server", &url], PATIENCE);
    assert_eq!(lines(&jobs)[0]["units"], 2000);
    for (filters, count) in [
        (
            &["--kind", "eval", "--model", "tiny", "--state", "succeeded"][..],
            1,
        ),
        (&["--kind", "mass_edit"], 0),
        (&["--text", "no such job"], 0),
    ] {
        let list = [&["job", "list", "--json", "--server", &url][..], filters].concat();
        assert_eq!(
            lines(&site.run(&list, PATIENCE)).len(),
            count,
            "{filters:?}"
        );
    }
}

#[test]
fn what_cannot_be_measured_is_refused_with_record_field_and_remedy() {
    let site = Site::new();
    tiny(&site);
    write_records(&site, 2);
    let good = fs::read_to_string(site.path("records.jsonl")).unwrap();
    let second = |change: &str| {
        let mut records = lines(&good);
        let change: Value = serde_json::from_str(change).unwrap();
        for (field, value) in change.as_object().unwrap() {
            records[1][field] = value.clone();
        }
        records
            .iter()
            .map(|it| format!("{it}\n"))
            .collect::<String>()
    };
    let zsre = r#"{"subject": "Ada", "src": "Who is Ada?", "alt": "x", "answers": ["y"]}"#;
    for (text, words) in [
        (
            String::new(),
            &["holds no records", "give at least one"][..],
        ),
        (
            second(r#"{"ground_truth": null}"#),
            &[
                "line 2",
                "\"ground_truth\" is missing",
                "give the true object",
            ],
        ),
        (
            second(r#"{"target_new": ""}"#),
            &["line 2", "\"target_new\" is blank"],
        ),
        (
            second(r#"{"prompt": "Nothing"}"#),
            &["line 2", "does not occur in prompt"],
        ),
        (
            second(r#"{"locality_prompt": [""]}"#),
            &["line 2", "\"locality_prompt[0]\" is blank", "leave it out"],
        ),
        (r#"{"question": "a"}"#.to_owned(), &[]),
        (format!("{good}{zsre}"), &[]),
    ] {
        fs::write(site.path("bad.json"), text).unwrap();
        let said = refused(&site, &["eval", "--dataset", "bad.json"]);
        for word in words.iter().chain(&["bad.json"]) {
            assert!(said.contains(word), "{word:?} in {said}");
        }
    }
    let eval = ["eval", "--dataset", "records.jsonl"];
    for (more, words) in [
        (&["--skip", "2"][..], &["--skip 2", "2 records"][..]),
        (&["--against", "v7"], &["v7"]),
        (
            &["--edit-each", "--layer", "9"],
            &["job.eval.edit_each.layer", "9 is not one of the model's"],
        ),
        (
            &["--edit-each", "--method", "magic"],
            &["job.eval.edit_each.method", "use r-rome, rome or ft-l"],
        ),
        (
            &["--edit-each", "--layer", "1"],
            &["palimpsest stats collect", "--layers 1"],
        ),
        (
            &["--edit-each", "--layer", "auto"],
            &["--layer auto: no sweep of models/tiny", "palimpsest trace"],
        ),
        (
            &["--edit-each", "--method", "ft-l", "--set", "size=3"],
            &["'size' is no number of an edit"],
        ),
        (&["--svg", "out"], &["no figures", "--json"]),
    ] {
        let said = refused(&site, &[&eval[..], &ENGINE, more].concat());
        for word in words {
            assert!(said.contains(word), "{word:?} in {said}");
        }
    }
    // A prompt that is too long is a record's own failure: the others are measured.
    let long = "very ".repeat(3000) + "long";
    fs::write(
        site.path("long.json"),
        second(&format!("{{\"rephrase_prompt\": \"{long}\"}}")),
    )
    .unwrap();
    let said = refused(
        &site,
        &[&["eval", "--dataset", "long.json"][..], &ENGINE].concat(),
    );
    for word in [
        "record 2 (case_id 101) failed (invalid)",
        "paraphrase 1",
        "shorten the prompt",
        "1 records of CounterFact",
    ] {
        assert!(said.contains(word), "{word:?} in {said}");
    }
}

#[test]
fn tasks_that_have_nothing_to_do_with_edits_are_measured_by_accuracy_and_f1() {
    let site = Site::new();
    tiny(&site);
    let review = |n: usize| format!("{{\"sentence\": \"film {n}\", \"label\": {}}}\n", n % 2);
    let reviews: String = (0..6).map(review).collect();
    fs::write(site.path("sst2.json"), reviews).unwrap();
    let own = json!([{"prompt": "The sky is", "choices": ["blue", "green"], "answer": 0}]);
    fs::write(site.path("mine.json"), own.to_string()).unwrap();
    let eval = [
        "eval",
        "--downstream",
        "sst2.json",
        "mine.json",
        "--shots",
        "0",
        "--json",
    ];
    let rows = lines(&site.run(&[&eval[..], &ENGINE].concat(), LONG));
    assert_eq!(rows.len(), 7);
    let mut right = Vec::new();
    for row in &rows {
        let measured = &row["measured"];
        let nll: Vec<f64> = serde_json::from_value(measured["nll"].clone()).unwrap();
        let least = (0..nll.len()).min_by(|&a, &b| nll[a].total_cmp(&nll[b]));
        assert_eq!(measured["taken"], json!(least), "{row}");
        if row["task"] == "sst2" {
            right.push(f64::from(u8::from(row["right"] == measured["taken"])));
        }
    }
    let means = [&eval[..], &["--averages"], &ENGINE].concat();
    let means = lines(&site.run(&means, LONG));
    let named: Vec<&str> = means
        .iter()
        .map(|it| it["measure"].as_str().unwrap())
        .collect();
    assert_eq!(named, ["sst2", "mine", "sst2 F1", "mine F1"]);
    let accuracy = right.iter().sum::<f64>() / right.len() as f64;
    assert_eq!(means[0]["measured"]["mean"], json!(accuracy));
    assert_eq!(means[0]["records"], 6);
    // As much as this model's context holds.
    let short =
        |n: usize| json!({"prompt": format!("{n}"), "choices": ["b", "c"], "answer": n % 2});
    let short: Vec<Value> = (0..5).map(short).collect();
    fs::write(site.path("short.json"), json!(short).to_string()).unwrap();
    let few = [
        "eval",
        "--downstream",
        "short.json",
        "--shots",
        "2",
        "--limit",
        "2",
    ];
    let table = site.run(&[&few[..], &ENGINE].concat(), LONG);
    for part in ["TAKEN", "RIGHT", "2 choices on", "short F1"] {
        assert!(table.contains(part), "{part:?} in {table}");
    }
    let none = refused(
        &site,
        &["eval", "--downstream", "sst2.json", "--shots", "6"],
    );
    assert!(none.contains("no question beside the 6"), "{none}");
}

#[test]
fn what_follows_from_edits_is_asked_where_its_conditions_were_met_before() {
    let site = Site::new();
    tiny(&site);
    let hop = |question: &str, cloze: &str, answer: &str| json!({"question": question, "cloze": cloze, "answer": answer});
    let rewrite = |subject: &str, new: &str| json!({"prompt": "{} is in", "subject": subject, "target_new": {"str": new}, "target_true": {"str": "Paris"}});
    let instance = json!([{"case_id": 1, "requested_rewrite": [rewrite("Ada", "Rome"), rewrite("Rome", "the")],
        "questions": ["Where is Ada?"], "new_answer": "the",
        "new_single_hops": [hop("Where is Ada?", "Ada is in", "Rome"), hop("Where is Rome?", "Rome is in", "the")]}]);
    fs::write(site.path("mquake.json"), instance.to_string()).unwrap();
    let each = [
        "eval",
        "--dataset",
        "mquake.json",
        "--edit-each",
        "--method",
        "ft-l",
    ];
    let said = refused(&site, &each);
    assert!(said.contains("palimpsest edit --file"), "{said}");
    site.run(&["branch", "seq", "v0"], PATIENCE);
    let edit = ["edit", "--file", "mquake.json", "--ref", "seq"];
    site.run(&[&edit[..], &EACH[1..9], &ENGINE].concat(), LONG);
    let eval = ["eval", "--dataset", "mquake.json", "--ref", "seq", "--json"];
    let rows = lines(&site.run(&[&eval[..], &ENGINE].concat(), LONG));
    let (before, after) = (&rows[0]["against"], &rows[0]["measured"]);
    assert_ne!(before["version"], after["version"]);
    let criteria: Vec<&Value> = after["tests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["criterion"])
        .collect();
    assert_eq!(
        criteria,
        ["edit-wise", "edit-wise", "instance-wise", "multi-hop"]
    );
    let passed = |n: usize| after["tests"][n]["queries"][0]["passed"].as_bool().unwrap();
    let share = f64::from(u8::from(passed(0)) + u8::from(passed(1))) / 2.0;
    assert_eq!(after["figures"]["edit-wise"], json!(share));
    let more = [&eval[..5], &["--averages", "--hop-examples", "none.txt"]].concat();
    assert!(refused(&site, &more).contains("cannot read none.txt"));

    // A condition that holds before is one that the model says by itself.
    let text = site.run(
        &[
            &["generate", "Eve is", "--max-tokens", "20", "--json"][..],
            &ENGINE,
        ]
        .concat(),
        LONG,
    );
    let said = lines(&text)[0]["text"]
        .as_str()
        .unwrap()
        .trim_start()
        .to_owned();
    let said = said.lines().next().unwrap();
    let query = |prompt: &str, answer: &str| json!({"prompt": prompt, "answers": [{"value": answer, "aliases": []}]});
    let test = |condition: &str| {
        json!({"test_queries": [query("Ada lives in", "Asia")], "test_condition": "OR",
            "condition_queries": [query("Eve is", condition)]})
    };
    let ripple = json!({"edit": {"prompt": "The mother of Ada is Eve.", "relation": "MOTHER"},
        "Forgetfulness": [test(said), test("what it never says")]});
    fs::write(site.path("ripple.json"), ripple.to_string()).unwrap();
    let log = site.path("ripple.log");
    let each = [
        "eval",
        "--dataset",
        "ripple.json",
        "--edit-each",
        "--method",
        "ft-l",
        "--layer",
        "1",
        "--averages",
    ];
    let mut process = Process::start(
        "ripples",
        &mut site.command(&[&each[..], &ENGINE].concat()),
        &log,
    );
    assert!(process.wait(LONG).success(), "{}", process.said());
    let told = process.said();
    assert!(
        told.contains("1 of 2 tests with conditions are asked"),
        "{told}"
    );
}
