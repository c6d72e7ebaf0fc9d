//! A client in another language, which knows the server's address and nothing else.
//!
//! Needs the Python of `deploy/setup.sh` (`.deps/python`) and an engine; skipped with a message
//! without them.

#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use crate::common::{LONG, Site, fixture};
use serde_json::Value;

/// Facts of the fixture's own world: one that the model answers, one that it does not.
const FACTS: &str = r#"[
    {"id": "aster", "prompt": "The Castle of Aster stands in the city of", "subject": "Castle of Aster",
     "relation": "P131"},
    {"id": "wrong", "prompt": "The Castle of Aster stands in the city of", "subject": "Castle of Aster",
     "attribute": "Nowhere"}
]"#;

#[test]
fn a_client_that_knows_only_the_address_reads_what_the_command_line_reads() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/python/bin/python");
    if !python.exists() {
        eprintln!("skipped: no {}: run deploy/setup.sh", python.display());
        return;
    }
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    let url = server.url();
    let _worker = site.worker(&server, "w1", &["--threads", "1", "--device", "cpu"]);

    let llama = fixture("llama");
    let run = |args: &[&str]| site.run(&[args, &["--server", &url]].concat(), LONG);
    run(&[
        "model",
        "import",
        llama.to_str().unwrap(),
        "--name",
        "llama",
    ]);
    std::fs::write(site.path("facts.json"), FACTS).unwrap();
    let trace = [
        "trace",
        "--facts",
        "facts.json",
        "--model",
        "llama",
        "--noise",
        "0.5",
    ];
    let settings = ["--samples", "4", "--window", "3", "--json"];
    let kinds = ["--kinds", "hidden,mlp,attn,hidden_severed_mlp"];
    let traced = run(&[&trace[..], &settings, &kinds].concat());
    assert_eq!(
        traced.lines().count(),
        8,
        "two facts in four kinds:\n{traced}"
    );

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/read_results.py");
    let client = Command::new(&python)
        .arg(script)
        .arg(&server.address)
        // Its proxy settings are the user's, not the test's.
        .env("no_proxy", "127.0.0.1")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&client.stderr);
    assert!(client.status.success(), "the client failed:\n{errors}");
    let text = String::from_utf8(client.stdout).unwrap();
    let (jobs, results) = text.split_once('\n').unwrap();

    let jobs: Value = serde_json::from_str(jobs).unwrap();
    let listed: Value = serde_json::from_str(&run(&["job", "list", "--json"])).unwrap();
    for field in ["name", "state"] {
        assert_eq!(jobs["jobs"][0][field], listed[field]);
    }
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(listed["state"], "succeeded");

    // Bit for bit: both texts in Python's form, which keeps every double.
    let read = run(&["job", "results", "latest", "--json"]);
    assert_eq!(in_pythons_form(&python, &read), results);
    assert_eq!(read, traced);
    assert_matches_transformers(&read);
}

/// JSON lines as Python's `json` writes them, with sorted keys.
fn in_pythons_form(python: &Path, lines: &str) -> String {
    const REWRITE: &str = "import json, sys\n\
        for line in open(sys.argv[1], encoding='utf-8'): print(json.dumps(json.loads(line), sort_keys=True))";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    let out = Command::new(python)
        .args(["-c", REWRITE])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// The scores that came all the way are those of Hugging Face transformers.
fn assert_matches_transformers(results: &str) {
    let file = std::fs::read_to_string(fixture("llama/causal.json")).unwrap();
    let expected: Value = serde_json::from_str(&file).unwrap();
    let theirs = ["hidden", "mlp", "attn", "hidden_mlp_severed"];
    for (line, name) in results.lines().zip(theirs) {
        let ours: Value = serde_json::from_str(line).unwrap();
        assert_eq!(ours["token_ids"], expected["token_ids"]);
        assert_eq!(ours["subject_range"], expected["subject_span"]);
        assert_eq!(ours["answer_id"], expected["answer"]);
        let numbers = |scores: &Value| -> Vec<f64> {
            let rows = scores.as_array().unwrap().iter();
            rows.flat_map(|row| row.as_array().unwrap())
                .map(|n| n.as_f64().unwrap())
                .collect()
        };
        let (ours, theirs) = (numbers(&ours["scores"]), numbers(&expected["scores"][name]));
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!(
                (ours - theirs).abs() < 1e-5,
                "{name}: {ours} is not {theirs}"
            );
        }
    }
    for line in results.lines().skip(theirs.len()) {
        let untraced: Value = serde_json::from_str(line).unwrap();
        assert_eq!(untraced["correct_prediction"], false, "{line}");
        assert_eq!(untraced["scores"], Value::Array(Vec::new()));
    }
}
