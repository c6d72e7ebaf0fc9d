//! Bad input gets an error that names the field, the value and the remedy, and changes nothing.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use crate::common::{PATIENCE, Process, Site, fixture};

/// Runs a command that must fail, and gives what it said.
fn refused(site: &Site, args: &[&str]) -> String {
    let mut process = Process::start(
        "command",
        &mut site.command(args),
        &site.path("refused.log"),
    );
    let status = process.wait(PATIENCE);
    let said = process.said();
    fs::remove_file(site.path("refused.log")).unwrap();
    assert!(
        !status.success(),
        "palimpsest {} succeeded: {said}",
        args.join(" ")
    );
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn expect(site: &Site, args: &[&str], words: &[&str]) {
    let said = refused(site, args);
    for word in words {
        assert!(
            said.contains(word),
            "palimpsest {}: no {word:?} in:\n{said}",
            args.join(" ")
        );
    }
}

/// A copy of the tiny Llama, to be spoiled.
fn copy_of_model(site: &Site, name: &str) -> String {
    let folder = site.path(name);
    fs::create_dir(&folder).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(fixture("llama").join(file), folder.join(file)).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, change(text)).unwrap();
}

#[test]
fn checkpoints_that_cannot_be_read_are_refused_before_a_store_is_made() {
    let site = Site::new();
    let import = |model: &str, words: &[&str]| expect(&site, &["model", "import", model], words);

    import("nowhere", &["nowhere"]);

    let truncated = copy_of_model(&site, "truncated");
    let weights = site.path("truncated").join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    import(&truncated, &["model.safetensors"]);

    let family = copy_of_model(&site, "family");
    edit(&site.path("family").join("config.json"), |text| {
        text.replace("\"llama\"", "\"mamba\"")
    });
    import(&family, &["mamba", "llama"]);

    let shape = copy_of_model(&site, "shape");
    edit(&site.path("shape").join("config.json"), |text| {
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["intermediate_size"] = 7.into();
        config.to_string()
    });
    import(&shape, &["7"]);

    let nan = copy_of_model(&site, "nan");
    let weights = site.path("nan").join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    import(&nan, &["NaN"]);

    fs::write(site.path("not.gguf"), "GGUF but not really").unwrap();
    import(site.path("not.gguf").to_str().unwrap(), &["not.gguf"]);

    assert!(
        !site.path("data/palimpsest").exists(),
        "a refused import made a store"
    );
}

#[test]
fn a_model_that_is_not_there_is_named_with_the_remedy() {
    let site = Site::new();
    expect(
        &site,
        &["trace", "a b", "--subject", "a"],
        &["model import"],
    );
    let model = fixture("llama");
    site.run(
        &["model", "import", model.to_str().unwrap(), "--name", "tiny"],
        PATIENCE,
    );
    expect(
        &site,
        &["trace", "a b", "--subject", "a", "--model", "tinny"],
        &["models/tinny"],
    );
    expect(&site, &["job", "show", "latest"], &["no job", "job list"]);
    let id = "01a2051c-47df-750a-97a4-06b0d9bd9796";
    expect(&site, &["job", "show", id], &[id]);
    // A second model of the same name.
    let gpt2 = fixture("gpt2");
    let args = ["model", "import", gpt2.to_str().unwrap(), "--name", "tiny"];
    expect(&site, &args, &["another model", "another name"]);
    expect(
        &site,
        &[
            "model",
            "import",
            model.to_str().unwrap(),
            "--name",
            "No/Name",
        ],
        &["No/Name"],
    );
}

#[test]
fn sweeps_that_cannot_be_done_are_refused_with_field_value_and_remedy() {
    let site = Site::new();
    let model = fixture("llama");
    site.run(
        &["model", "import", model.to_str().unwrap(), "--name", "tiny"],
        PATIENCE,
    );
    let trace = |args: &[&str], words: &[&str]| {
        expect(
            &site,
            &[
                &["trace", "The Louvre is in", "--subject", "The Louvre"],
                args,
            ]
            .concat(),
            words,
        );
    };
    trace(&["--noise", "loud"], &["job.trace.noise", "loud", "u0.5"]);
    trace(&["--noise", "-1"], &["-1"]);
    trace(
        &["--noise", "t5"],
        &[
            "job.trace.noise_corpus",
            "noise 't5'",
            "--noise-corpus FILE",
        ],
    );
    trace(&["--noise", "t2"], &["t2", "more than 2"]);
    fs::write(site.path("corpus.txt"), "One text.\n").unwrap();
    let corpus = ["--noise-corpus", "corpus.txt"];
    trace(
        &[&["--noise", "0.3"], &corpus[..]].concat(),
        &["0.3", "no corpus"],
    );
    trace(
        &["--noise", "m", "--noise-corpus", "absent.txt"],
        &["absent.txt"],
    );
    fs::write(site.path("blank.txt"), " \n\n").unwrap();
    trace(
        &["--noise", "m", "--noise-corpus", "blank.txt"],
        &["blank.txt", "no text"],
    );
    trace(&["--compat", "paper"], &["paper", "paper-code"]);
    trace(&["--kinds", "hidden,soul"], &["soul", "mlp"]);
    trace(&["--kinds", "mlp,mlp"], &["kinds[1]", "twice"]);
    trace(&["--samples", "0"], &["samples", "0"]);
    trace(&["--engine", "steam"], &["steam", "exact"]);
    trace(
        &["--verify", "5"],
        &["job.trace.verify", "ENGINE_ATTRIBUTION"],
    );
    trace(
        &["--engine", "attribution", "--kinds", "hidden_severed_mlp"],
        &[
            "job.trace.kinds[0]",
            "KIND_HIDDEN_SEVERED_MLP",
            "ENGINE_EXACT",
        ],
    );
    trace(
        &["--engine", "attribution", "--metrics", "kl,rank"],
        &["job.trace.metrics[1]", "METRIC_RANK", "no gradient"],
    );
    trace(
        &["--engine", "attribution", "--integrated", "2000"],
        &["job.trace.attribution_steps", "2000", "1000 at most"],
    );
    trace(&["--dtype", "f8"], &["f8", "bf16"]);
    trace(
        &["--device", "abacus"],
        &["client.device", "abacus", "cuda:N"],
    );
    let prado = ["trace", "The Louvre is in", "--subject", "Prado"];
    expect(
        &site,
        &prado,
        &["facts[0].subject", "Prado", "The Louvre is in"],
    );
    expect(&site, &["trace", "The Louvre is in"], &["--subject"]);
    trace(&["--attribute", ""], &["--attribute is blank"]);
    let twice = ["trace", "{} and {} are in", "--subject", "The Louvre"];
    expect(&site, &twice, &["\"prompt\" has 2 {}"]);
}

#[test]
fn edits_that_cannot_be_done_are_refused_with_the_remedy() {
    let site = Site::new();
    let edit = |args: &[&str], words: &[&str]| {
        let all = ["edit", "{} is in", "--subject", "Ada", "--target", "Rome"];
        expect(&site, &[&all, args].concat(), words);
    };
    // A gate that nothing passes through is none.
    edit(
        &["--max-drift", "0.1"],
        &["--max-drift", "no neighbours", "--neighbour PROMPT"],
    );
    fs::write(site.path("contexts.json"), "[\"{}\", 3]").unwrap();
    edit(
        &["--contexts", "contexts.json"],
        &["contexts.json", "record 2", "a number"],
    );
    let record = r#"[{"prompt": "Ada is in", "subject": "Ada", "target_new": "Rome", "locality": {"prompt": "x"}}]"#;
    fs::write(site.path("records.json"), record).unwrap();
    expect(
        &site,
        &["edit", "--file", "records.json"],
        &[
            "records.json",
            "record 1",
            "\"locality\"",
            "\"locality_prompt\"",
        ],
    );
}

#[test]
fn fact_files_that_cannot_be_read_are_refused_with_the_record() {
    let site = Site::new();
    let with_facts = |text: &str, words: &[&str]| {
        fs::write(site.path("facts.json"), text).unwrap();
        expect(&site, &["trace", "--facts", "facts.json"], words);
    };
    expect(
        &site,
        &["trace", "--facts", "absent.json"],
        &["absent.json"],
    );
    with_facts("", &["facts.json"]);
    with_facts("[]", &["facts.json"]);
    with_facts("{\"prompt\": ", &["facts.json"]);
    with_facts(r#"[{"prompt": "a b"}]"#, &["subject"]);
    with_facts(r#"[{"prompt": "a b", "subject": "c"}]"#, &["\"c\"", "a b"]);
}

#[cfg(feature = "torch")]
#[test]
fn a_prompt_over_the_context_fails_alone_and_says_so() {
    let site = Site::new();
    let model = fixture("llama");
    site.run(
        &["model", "import", model.to_str().unwrap(), "--name", "tiny"],
        PATIENCE,
    );
    let long = "word ".repeat(2000);
    let facts = serde_json::json!([
        { "prompt": "The Louvre is in", "subject": "The Louvre" },
        { "prompt": long.trim(), "subject": "word" },
    ]);
    fs::write(site.path("facts.json"), facts.to_string()).unwrap();
    let args = [
        "trace",
        "--facts",
        "facts.json",
        "--noise",
        "0.5",
        "--samples",
        "2",
        "--kinds",
        "hidden",
        "--json",
    ];
    let said = refused(&site, &args);
    let lines: Vec<serde_json::Value> = said
        .lines()
        .filter(|l| l.starts_with('{'))
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0]["scores"].is_array(), "{said}");
    assert!(
        lines[1]["error"]["message"]
            .as_str()
            .unwrap()
            .contains("context"),
        "{said}"
    );
}

#[test]
fn a_store_in_use_a_server_that_is_not_there_and_a_wrong_setting_are_said() {
    let site = Site::new();
    let server = site.serve("127.0.0.1:0");
    let store = site.path("store");
    let list = ["job", "list", "--store", store.to_str().unwrap()];
    expect(&site, &list, &["in use", "--server"]);
    drop(server);
    expect(
        &site,
        &["job", "list", "--server", "http://127.0.0.1:9"],
        &["127.0.0.1:9", "palimpsest serve"],
    );
    fs::write(
        site.path("palimpsest.toml"),
        "[serve]\nlisten = \"nowhere\"\n",
    )
    .unwrap();
    expect(
        &site,
        &["job", "list"],
        &["serve.listen", "nowhere", "palimpsest.toml"],
    );
    fs::write(
        site.path("palimpsest.toml"),
        "[serve]\nlisen = \"127.0.0.1:1\"\n",
    )
    .unwrap();
    expect(&site, &["job", "list"], &["lisen"]);
}
