//! What can be asked of a store afterwards: whether its edits still hold, and receipts of its answers.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::fs;
use std::path::Path;

use crate::common::{LONG, PATIENCE, Site, fixture};
use serde_json::{Value, json};

const ENGINE: [&str; 4] = ["--device", "cpu", "--threads", "1"];

fn tiny() -> Site {
    let site = Site::new();
    let folder = fixture("llama");
    let folder = folder.to_str().unwrap();
    site.run(&["model", "import", folder, "--name", "tiny"], PATIENCE);
    site
}

fn run(site: &Site, args: &[&str]) -> String {
    site.run(&[args, &ENGINE].concat(), LONG)
}

fn lines(out: &str) -> Vec<Value> {
    let lines = out.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

/// How a command ends, what it prints, and what it says.
fn ended(site: &Site, args: &[&str]) -> (Option<i32>, String, String) {
    let output = site.command(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// What a check finds, or why it fails, where there is no store, and settings that cannot be read.
fn verified(site: &Site, check: &str, path: &Path, key: &str) -> Result<Value, String> {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = site.command(&[check, path.to_str().unwrap(), "--key", key, "--json"]);
    command
        .current_dir(elsewhere.path())
        .env("PALIMPSEST__CLIENT__THREADS", "none");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(serde_json::from_str(&text(&output.stdout)).unwrap()),
        false => Err(text(&output.stderr)),
    }
}

/// Writes facts, one edit each: prompt, subject, new object, true object where it is known.
fn write(site: &Site, facts: &[[&str; 4]]) {
    let record = |(n, fact): (usize, &[&str; 4])| {
        let [prompt, subject, new, old] = fact;
        let old = Some(old).filter(|old| !old.is_empty());
        json!({
            "case_id": n, "prompt": prompt.replace("{}", subject), "subject": subject,
            "target_new": new, "ground_truth": old,
        })
    };
    let records: Vec<Value> = facts.iter().enumerate().map(record).collect();
    fs::write(site.path("facts.json"), json!(records).to_string()).unwrap();
    let edit = [
        "edit",
        "--file",
        "facts.json",
        "--method",
        "ft-l",
        "--layer",
        "1",
        "--set",
        "bound=0.5",
        "--set",
        "learning_rate=0.05",
    ];
    run(site, &edit);
}

/// Whether the new objects of facts are likelier than the true ones on a version, by an evaluation
/// of them that takes nothing from the store.
fn holds(site: &Site, facts: &[&Value], version: &str) -> Vec<bool> {
    let record = |fact: &&Value| {
        let prompt = fact["prompt"].as_str().unwrap();
        json!({
            "case_id": fact["id"], "prompt": prompt.replace("{}", fact["subject"].as_str().unwrap()),
            "subject": fact["subject"], "target_new": fact["target_new"],
            "ground_truth": fact["target_true"],
        })
    };
    let records: Vec<Value> = facts.iter().map(record).collect();
    fs::write(site.path("some.json"), json!(records).to_string()).unwrap();
    let eval = [
        "eval",
        "--dataset",
        "some.json",
        "--ref",
        version,
        "--against",
        version,
    ];
    let found = lines(&run(site, &[&eval[..], &["--no-cache", "--json"]].concat()));
    found
        .iter()
        .map(|it| it["measured"]["figures"]["ES"] == 1.0)
        .collect()
}

#[test]
fn facts_that_a_later_edit_broke_are_found_with_the_edit_and_those_written_again_are_not() {
    let site = tiny();
    let (code, out, said) = ended(&site, &["audit", "facts"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{said}");
    write(
        &site,
        &[
            ["Look: {} is in", "The Louvre", "Rome", "Paris"],
            ["Look: {} is in", "The Eiffel Tower", "Rome", "Paris"],
            ["Look: {} is in", "The Eiffel Tower", "Oslo", "Paris"],
            ["Look: {} is in", "A Louvre", "Paris", "Rome"],
            ["So: {} is in", "The Louvre", "Paris", "Rome"],
            ["One page of {} is", "a model", "two", ""],
        ],
    );
    let (code, out, said) = ended(&site, &["audit", "facts", "--json"]);
    let found = lines(&out);
    let states: Vec<&str> = found
        .iter()
        .map(|it| it["state"].as_str().unwrap())
        .collect();
    let expected = ["broken", "superseded", "holds", "holds", "holds", "holds"];
    assert_eq!(states, expected);
    assert_eq!(code, Some(3), "{said}");
    let known = [0, 2, 3, 4].map(|n: usize| &found[n]);
    assert_eq!(holds(&site, &known, "main"), [false, true, true, true]);
    // Where no true object is known, the model says the new one.
    let said = run(
        &site,
        &[
            "generate",
            "One page of a model is",
            "--max-tokens",
            "3",
            "--json",
        ],
    );
    assert_eq!(lines(&said)[0]["text"], " two");
    let number = found[0]["broken_by"]["number"].as_u64().unwrap();
    let before = format!("v{}", number - 1);
    assert_eq!(holds(&site, &known[..1], &before), [true]);
    assert_eq!(holds(&site, &known[..1], &format!("v{number}")), [false]);
    assert_eq!(found[1]["superseded_by"]["target_new"], "Oslo");
    let (code, out, said) = ended(&site, &["audit", "facts"]);
    assert_eq!(code, Some(3));
    assert!(
        said.contains("6 facts: 4 hold, 1 superseded, 1 broken"),
        "{said}"
    );
    assert!(
        out.contains(&format!("v{number}, edit ")) && !out.contains("Oslo"),
        "{out}"
    );
    // All was measured before: nothing is computed, and a version on which all hold says so.
    let (code, _, said) = ended(&site, &["audit", "facts", "--ref", "v3"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("3 facts: 2 hold, 1 superseded"), "{said}");
}

#[test]
fn a_receipt_of_an_answer_is_checked_without_the_store_and_no_part_of_it_may_be_another() {
    let site = tiny();
    let own = site.path("own.json");
    let asked = ["generate", "The tower is in", "--max-tokens", "3"];
    run(
        &site,
        &[&asked[..], &["--receipt", own.to_str().unwrap()]].concat(),
    );
    let key = site.run(&["audit", "key"], LONG).trim().to_owned();
    let made = site.run(&["job", "receipt", "latest", "--with-results"], LONG);
    // The command that asked has written the same, but for the log's newest checkpoint.
    let own: Value = serde_json::from_str(&fs::read_to_string(own).unwrap()).unwrap();
    let later: Value = serde_json::from_str(&made).unwrap();
    for field in ["receipt", "asked", "entry", "results", "verifier_key"] {
        assert_eq!(own[field], later[field], "{field}");
        assert!(!own[field].is_null(), "{field}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("receipt.json");
    let verify = |receipt: &str, key: &str| {
        fs::write(&file, receipt).unwrap();
        verified(&site, "verify-receipt", &file, key)
    };
    let said = verify(&made, &key).unwrap();
    assert_eq!(
        (&said["kind"], &said["state"]),
        (&json!("generate"), &json!("succeeded"))
    );
    assert_eq!(
        (&said["results"], &said["results_checked"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(said["completions"][0]["prompt"], "The tower is in");
    assert_eq!(said["computed"][0]["results"], 1);
    let receipt: Value = serde_json::from_str(&made).unwrap();
    let changed = |field: &str, value: Value| {
        let mut receipt = receipt.clone();
        receipt[field] = value;
        verify(&receipt.to_string(), &key)
    };
    let alone = changed("results", Value::Null).unwrap();
    assert_eq!(alone["results_checked"], false);
    for (field, value, what) in [
        ("results", json!([]), "is of 1 results, these are 0"),
        (
            "results",
            json!([receipt["asked"]]),
            "its results are not these",
        ),
        (
            "asked",
            receipt["entry"].clone(),
            "what was asked is something else",
        ),
        (
            "entry",
            receipt["asked"].clone(),
            "not the one that it names",
        ),
        ("path", json!(["00"]), "no list of hashes"),
        (
            "checkpoint",
            receipt["receipt"].clone(),
            "not origin, size and root",
        ),
        ("receipt", receipt["checkpoint"].clone(), "not those of one"),
    ] {
        let said = changed(field, value).unwrap_err();
        assert!(
            said.contains(what) && said.contains("receipt.json"),
            "{field}: {said}"
        );
    }
    let said = verify(&made, "palimpsest-audit/other").unwrap_err();
    assert!(said.contains("palimpsest audit key"), "{said}");
    let said = verify("{}", &key).unwrap_err();
    assert!(said.contains("is no receipt"), "{said}");

    write(&site, &[["Look: {} is in", "The Louvre", "Rome", "Paris"]]);
    let (code, _, said) = ended(&site, &["job", "receipt", "latest"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("named by digests"), "{said}");
}

#[test]
fn an_export_signed_by_its_author_is_checked_without_the_store_and_no_file_of_it_may_be_another() {
    let site = tiny();
    write(&site, &[["Look: {} is in", "The Louvre", "Rome", "Paris"]]);
    let elsewhere = tempfile::tempdir().unwrap();
    let key = elsewhere.path().join("ada.key");
    let private = key.to_str().unwrap();
    let make = ["auth", "signing-key", private, "--name", "ada@lab"];
    let public = site.run(&make, PATIENCE).trim().to_owned();
    assert!(public.starts_with("ada@lab+"), "{public}");
    // A key is not written over, and is its owner's alone.
    let (code, _, said) = ended(&site, &make);
    assert!(code == Some(1) && said.contains("ada.key"), "{said}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let verify = |path: &Path, key: &str| verified(&site, "verify-manifest", path, key);
    let out = elsewhere.path().join("signed");
    let export = |out: &Path, format: &str| {
        let out = out.to_str().unwrap();
        site.run(
            &["export", out, "--format", format, "--sign", private],
            LONG,
        );
    };
    export(&out, "safetensors");
    let said = verify(&out, &public).unwrap();
    let main = site.run(&["show", "main", "--json"], PATIENCE);
    let main: Value = serde_json::from_str(&main).unwrap();
    for (field, theirs) in [("version", "name"), ("base", "base"), ("author", "author")] {
        assert_eq!(said[field], main[theirs], "{field}");
    }
    assert_eq!(said["edits"], 1);
    assert_eq!(said["matrices"][0]["digest"], main["matrices"][0]["digest"]);
    let files = said["files"].as_array().unwrap();
    let listed = fs::read_dir(&out).unwrap().count();
    assert_eq!(files.len() + 1, listed, "{files:?}");
    // It is what sha256sum says of it.
    let sum = std::process::Command::new("sha256sum")
        .args(files.iter().map(|it| it["name"].as_str().unwrap()))
        .current_dir(&out)
        .output()
        .unwrap();
    for (line, it) in String::from_utf8(sum.stdout).unwrap().lines().zip(files) {
        assert!(line.starts_with(it["sha256"].as_str().unwrap()), "{line}");
    }
    let config = out.join("config.json");
    let was = fs::read(&config).unwrap();
    fs::write(&config, b"{}").unwrap();
    assert!(
        verify(&out, &public)
            .unwrap_err()
            .contains("config.json was altered")
    );
    fs::write(&config, was).unwrap();
    fs::write(out.join("modeling.py"), "").unwrap();
    assert!(
        verify(&out, &public)
            .unwrap_err()
            .contains("modeling.py is not of it")
    );
    fs::remove_file(out.join("modeling.py")).unwrap();
    verify(&out, &public).unwrap();
    // Another key under the same name is another author.
    let other = elsewhere.path().join("other.key");
    let make = [
        "auth",
        "signing-key",
        other.to_str().unwrap(),
        "--name",
        "ada@lab",
    ];
    let other = site.run(&make, PATIENCE);
    let said = verify(&out, other.trim()).unwrap_err();
    assert!(said.contains("of another key"), "{said}");

    // A file has its manifest beside it; others there are no business of it.
    let factors = elsewhere.path().join("edits.factors");
    export(&factors, "factors");
    let manifest = elsewhere.path().join("edits.factors.palimpsest.manifest");
    assert_eq!(
        verify(&manifest, &public).unwrap()["files"][0]["name"],
        "edits.factors"
    );
    let again = [
        "export",
        factors.to_str().unwrap(),
        "--format",
        "factors",
        "--sign",
        private,
    ];
    let (code, _, said) = ended(&site, &again);
    assert!(
        code == Some(1) && said.contains("is there already"),
        "{said}"
    );
    // The version alone.
    let note = elsewhere.path().join("main.manifest");
    fs::write(
        &note,
        site.run(&["sign", "main", "--key", private], PATIENCE),
    )
    .unwrap();
    let said = verify(&note, &public).unwrap();
    assert_eq!(
        (&said["version"], &said["files"]),
        (&main["name"], &json!([]))
    );
    // What is no key is told before a model is fetched.
    let none = ["export", "more", "--sign", "facts.json"];
    let (code, _, said) = ended(&site, &none);
    assert!(code == Some(1) && said.contains("signing-key"), "{said}");
    assert!(!site.path("more").exists());
}
