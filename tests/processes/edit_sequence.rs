//! A hundred edits, each computed on the one before it; then one of them taken out, then all taken
//! back.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{LONG, Site, fixture};
use serde_json::Value;

const MODEL: &str = ".deps/SmolLM2-135M-Instruct.Q4_1.gguf";

/// A site with a model in the store of the coordinator inside the commands.
struct Archive {
    site: Site,
    patience: Duration,
}

impl Archive {
    fn new(model: &Path, patience: Duration) -> Self {
        let site = Site::new();
        // One thread: tests run beside each other.
        std::fs::write(site.path("palimpsest.toml"), "[client]\nthreads = 1\n").unwrap();
        let archive = Self { site, patience };
        archive.run(&["model", "import", model.to_str().unwrap(), "--name", "m"]);
        archive
    }

    fn run(&self, args: &[&str]) -> String {
        self.site.run(args, self.patience)
    }

    fn version(&self, name: &str) -> Value {
        serde_json::from_str(&self.run(&["show", name, "--json"])).unwrap()
    }
}

/// Edits a model by every fact, with these flags, and takes them back in two ways.
fn a_hundred_edits(
    model: &Path,
    facts: &[Value],
    statistics: &[&str],
    flags: &[&str],
    patience: Duration,
) {
    let (edits, half) = (facts.len(), facts.len() / 2);
    let archive = Archive::new(model, patience);
    std::fs::write(
        archive.site.path("facts.json"),
        serde_json::to_string(facts).unwrap(),
    )
    .unwrap();
    archive.run(statistics);
    let prompt = "The Eiffel Tower is located in the city of";
    // What a worker measures of a fact: sums and exponentials of its logits, to the last bit.
    let measured = || {
        let trace = [
            "trace",
            prompt,
            "--subject",
            "The Eiffel Tower",
            "--kinds",
            "mlp",
            "--samples",
            "2",
            "--no-cache",
            "--json",
        ];
        let mut line: Value = serde_json::from_str(&archive.run(&trace)).unwrap();
        line.as_object_mut()
            .unwrap()
            .retain(|name, _| ["high", "low", "scores", "answer"].contains(&name.as_str()));
        assert!(line["high"].is_number(), "{line}");
        line
    };
    let pristine = measured();

    let made = archive.run(&[&["edit", "--file", "facts.json", "--json"], flags].concat());
    let lines: Vec<Value> = made
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), edits);
    let mean = |name: &str| {
        let sum: f64 = lines
            .iter()
            .map(|line| line["figures"][name].as_f64().unwrap())
            .sum();
        sum / edits as f64
    };
    let (before, after) = (mean("rewrite.new.before"), mean("rewrite.new.after"));
    println!("the new target's probability, mean: {before:.4} before its edit, {after:.4} after");
    assert!(after > before);
    let whole = archive.version("main");
    assert_eq!(whole["number"], edits as u64);
    assert_ne!(measured(), pristine);

    let middle = lines[half - 1]["edit"].as_str().unwrap();
    archive.run(&["revert", middle]);
    let reverted = archive.version("main");
    assert_eq!(reverted["edits"].as_array().unwrap().len(), edits - 1);
    // All that came after it were computed on top of it: one warning says how many.
    let warning = reverted["warnings"][0].as_str().unwrap();
    let expected = format!("{} later edits were computed on top of", edits - half);
    assert!(warning.starts_with(&expected), "{warning}");
    assert_ne!(reverted["matrices"], whole["matrices"]);
    archive.run(&["export", "factors", "--format", "factors"]);

    archive.run(&["rollback", "--to", "v0"]);
    let now = archive.version("main");
    assert_eq!(now["number"], 0);
    assert_eq!(now["matrices"].as_array().unwrap().len(), 0);
    assert_eq!(
        measured(),
        pristine,
        "the rollback gives the very same numbers"
    );

    // The same edits, applied afresh to the model in another store.
    let factors = archive.site.path("factors");
    let afresh = Archive::new(model, patience);
    afresh.run(&["edit", "import", factors.to_str().unwrap()]);
    assert_eq!(afresh.version("main")["matrices"], reverted["matrices"]);
    archive.run(&["audit", "verify"]);
}

/// Facts of our own.
fn facts(count: usize) -> Vec<Value> {
    let cities = ["Rome", "Paris", "London", "Berlin"];
    (0..count)
        .map(|n| {
            let subject = format!("Tower {n}");
            serde_json::json!({
                "prompt": format!("{subject} is in"), "subject": subject,
                "target_new": cities[n % 4], "ground_truth": cities[(n + 1) % 4],
            })
        })
        .collect()
}

#[test]
fn a_hundred_edits_of_a_tiny_model_come_out_in_any_order_to_the_last_bit() {
    let statistics = ["stats", "collect", "--self-sample", "3000", "--layers", "1"];
    let flags = ["--layer", "1", "--set", "steps=3", "--set", "clamp=0.5"];
    a_hundred_edits(&fixture("llama"), &facts(100), &statistics, &flags, LONG);
}

/// With `COUNTERFACT` set to a file of CounterFact's flat form its first facts are edited,
/// otherwise made-up ones; as many as `EDITS` says, otherwise a hundred.
#[test]
#[ignore = "a hundred real edits take a quarter of an hour of one core"]
fn a_hundred_edits_of_smollm2_come_out_in_any_order_to_the_last_bit() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join(MODEL);
    let count = std::env::var("EDITS").map_or(100, |count| count.parse().unwrap());
    let facts = match std::env::var_os("COUNTERFACT") {
        Some(file) => {
            let text = std::fs::read_to_string(PathBuf::from(file)).unwrap();
            let mut all: Vec<Value> = serde_json::from_str(&text).unwrap();
            all.truncate(count);
            all
        }
        None => facts(count),
    };
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("LICENSE-APACHE");
    let statistics = [
        "stats",
        "collect",
        "--corpus",
        corpus.to_str().unwrap(),
        "--layers",
        "5",
    ];
    let flags = ["--layer", "5", "--set", "ridge=1e-2"];
    a_hundred_edits(
        &model,
        &facts,
        &statistics,
        &flags,
        Duration::from_secs(3 * 3600),
    );
}
