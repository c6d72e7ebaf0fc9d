//! Statistics, edits, gates and rollback, as users have them.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::path::Path;
use std::process::Output;

use crate::common::{LONG, Site, fixture};
use serde_json::Value;

const MODEL: &str = ".deps/SmolLM2-135M-Instruct.Q4_1.gguf";

/// One thread: tests run beside each other, and a thread would wait for those of another.
fn run(site: &Site, args: &[&str]) -> Output {
    let mut command = site.command(args);
    command.env("PALIMPSEST__CLIENT__THREADS", "1");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command that succeeds prints.
fn done(site: &Site, args: &[&str]) -> String {
    let output = run(site, args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// What a command that fails says.
fn refused(site: &Site, args: &[&str]) -> String {
    let output = run(site, args);
    assert!(
        !output.status.success(),
        "{args:?}: {}",
        text(&output.stdout)
    );
    text(&output.stderr)
}

fn tiny() -> Site {
    let site = Site::new();
    let folder = fixture("llama");
    site.run(
        &[
            "model",
            "import",
            folder.to_str().unwrap(),
            "--name",
            "tiny",
        ],
        LONG,
    );
    let corpus = "The tower stands in the middle of the city, and the river runs beside it. "
        .repeat(3)
        + "Many facts are kept in the layers in the middle of a model; 1, 2, 3, 4: numbers (and signs) too!";
    std::fs::write(site.path("corpus.txt"), corpus).unwrap();
    site
}

const EDIT: [&str; 10] = [
    "edit",
    "Look: {} is in",
    "--subject",
    "The Eiffel Tower",
    "--target",
    "Rome",
    "--layer",
    "1",
    "--set",
    "steps=8",
];

fn edit<'a>(more: &[&'a str]) -> Vec<&'a str> {
    EDIT.iter().copied().chain(more.iter().copied()).collect()
}

fn number(line: &Value, key: &str) -> f64 {
    line["figures"][key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} in {line}"))
}

#[test]
fn an_edit_is_measured_taken_and_taken_back() {
    let site = tiny();
    let missing = refused(&site, &edit(&[]));
    assert!(
        missing.contains("palimpsest stats collect") && missing.contains("--layers 1"),
        "{missing}"
    );

    let collect = [
        "stats",
        "collect",
        "--corpus",
        "corpus.txt",
        "--layers",
        "0..2",
        "--length",
        "40",
    ];
    let made = done(&site, &collect);
    assert!(made.contains("corpus.txt"), "{made}");
    // The same corpus again gives the same artefacts: one a layer.
    done(&site, &collect);
    let list = done(&site, &["stats", "list", "--json"]);
    let lines: Vec<Value> = list
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for line in &lines {
        let (spread, channels) = (&line["spectrum"], line["channels"].as_u64().unwrap());
        let (rank, most) = (
            spread["rank"].as_u64().unwrap(),
            spread["rank_99"].as_u64().unwrap(),
        );
        assert!(0 < most && most <= rank && rank <= channels, "{line}");
        let [largest, trace] = ["largest", "trace"].map(|key| spread[key].as_f64().unwrap());
        assert!(0.0 < largest && largest <= trace, "{line}");
    }
    assert_eq!(
        lines
            .iter()
            .map(|line| line["layer"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [0, 1]
    );

    let before = done(&site, &["generate", "Look: The Eiffel Tower is in"]);
    // With the bare sentence alone the edited matrix gives just the value that was sought.
    std::fs::write(site.path("contexts.txt"), "{}\n").unwrap();
    let more = [
        "--contexts",
        "contexts.txt",
        "--set",
        "ridge=1e-4",
        "--neighbour",
        "A new day",
        "--paraphrase",
        "The Eiffel Tower:",
        "--true",
        "Paris",
        "--json",
    ];
    let output = run(&site, &edit(&more));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let line: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!(line["accepted"], true);
    assert!(
        number(&line, "rewrite.new.after") > 1.2 * number(&line, "rewrite.new.before"),
        "{line}"
    );
    assert!(number(&line, "update_norm") > 0.0 && number(&line, "neighbours.drift") >= 0.0);
    assert_eq!(line["probes"].as_array().unwrap().len(), 3);
    let losses = line["losses"].as_array().unwrap();
    assert!(
        losses.len() == 8 && losses[7].as_f64() < losses[0].as_f64(),
        "{line}"
    );
    assert!(done(&site, &["log"]).contains("v1"));

    // What is measured is what a worker has of the version: the same prompt gives the same number
    // before another edit.
    let again: Value = serde_json::from_str(&done(&site, &edit(&more))).unwrap();
    let (was, is) = (
        number(&line, "rewrite.new.after"),
        number(&again, "rewrite.new.before"),
    );
    assert!((was - is).abs() < 1e-6 * was, "{was} {is}");

    done(&site, &["rollback", "--to", "v0", "--why", "it was a test"]);
    assert_eq!(
        done(&site, &["generate", "Look: The Eiffel Tower is in"]),
        before
    );
    done(&site, &["audit", "verify"]);
    // The statistics are among what the store knows, and needs.
    let verified = done(&site, &["store", "verify"]);
    assert!(!verified.contains("wrong "), "{verified}");
}

#[test]
fn an_edit_that_fails_its_gates_is_kept_with_its_figures_and_moves_nothing() {
    let site = tiny();
    let args = edit(&[
        "--auto-stats",
        "--min-efficacy",
        "0.99",
        "--max-norm",
        "1e-9",
    ]);
    let said = refused(&site, &args);
    assert!(
        said.contains("collecting key statistics of layer 1"),
        "{said}"
    );
    assert!(
        said.contains("is rejected, main stays where it was"),
        "{said}"
    );
    assert!(
        said.contains("efficacy: the new target's margin is")
            && said.contains("norm: the change has"),
        "{said}"
    );
    let refs = done(&site, &["refs"]);
    assert!(!refs.contains("v1"), "{refs}");
    let audit = done(&site, &["audit", "list"]);
    assert!(audit.contains("efficacy"), "{audit}");
}

#[test]
fn what_an_edit_does_to_texts_and_neighbours_is_measured_before_a_branch_takes_it() {
    let site = tiny();
    let texts = "The cat sat on the mat.\nAda plays the oboe, and the river runs beside it.\n";
    std::fs::write(site.path("texts.txt"), texts).unwrap();
    let mut args = edit(&[
        "--method",
        "ft-l",
        "--set",
        "bound=0.5",
        "--set",
        "learning_rate=0.05",
        "--true",
        "Paris",
        "--gate-texts",
        "texts.txt",
    ]);
    for neighbour in [
        "The river is in",
        "A model is in",
        "Look: the page is",
        "It is",
        // The very sentence that is rewritten.
        "Look: The Eiffel Tower is in",
    ] {
        args.extend(["--neighbour", neighbour]);
    }
    let with = |more: &[&'static str]| [&args[..], more].concat();
    // Each bound rejects by itself, and the branch stays.
    for (bound, said) in [
        (
            ["--max-ppl-ratio", "0.1"],
            "perplexity: that of the texts is",
        ),
        (["--min-locality", "1"], "locality: the true target stays"),
    ] {
        let found = refused(&site, &with(&bound));
        assert!(found.contains(said), "{found}");
        assert!(found.contains("is rejected, main stays"), "{found}");
    }
    for (bound, said) in [
        (
            with(&["--min-locality", "1.1"]),
            "1.1 is no gate: give 0 to 1",
        ),
        (edit(&["--min-locality", "0.5"]), "give --neighbour PROMPT"),
    ] {
        let found = refused(&site, &bound);
        assert!(found.contains(said), "{found}");
    }

    let line: Value =
        serde_json::from_str(&done(&site, &with(&["--max-ppl-ratio", "100", "--json"]))).unwrap();
    // By another way: an evaluation of the version beside the one before it.
    let eval = [
        "eval",
        "--texts",
        "texts.txt",
        "--against",
        "v0",
        "--averages",
        "--json",
    ];
    let means = done(&site, &eval);
    let means: Value = serde_json::from_str(means.lines().next().unwrap()).unwrap();
    for (figure, of) in [
        ("before", "against"),
        ("after", "measured"),
        ("ratio", "ratio"),
    ] {
        let (found, mean) = (number(&line, &format!("ppl.{figure}")), &means[of]["mean"]);
        let mean = mean.as_f64().unwrap();
        assert!(
            (found / mean - 1.0).abs() < 1e-9,
            "{figure}: {found} {mean}"
        );
    }
    assert_ne!(number(&line, "ppl.ratio"), 1.0);

    let probes = line["probes"].as_array().unwrap();
    let neighbours = probes.iter().filter(|it| it["kind"] == "neighbour");
    let right = |probe: &Value, when: &str| {
        let of = |whose: &str| probe[format!("{whose}_{when}")].as_f64().unwrap();
        of("true") > of("new")
    };
    let before: Vec<&Value> = neighbours.filter(|it| right(it, "before")).collect();
    let after = before.iter().filter(|it| right(it, "after")).count();
    let share = after as f64 / before.len() as f64;
    assert_eq!(number(&line, "locality"), share);
}

/// Questions with the answers that the unedited model takes as the right ones, in the form of files
/// of `eval --downstream`.
fn answered(site: &Site, task: &str, prompts: &[&str]) {
    let choices = ["one", "two", "Rome", "Paris"];
    let write = |right: &[usize]| {
        let records = prompts.iter().zip(right);
        let records = records.map(|(prompt, right)| {
            serde_json::json!({ "prompt": prompt, "choices": choices, "answer": right })
        });
        let records: Vec<Value> = records.collect();
        let file = site.path(&format!("{task}.json"));
        std::fs::write(file, serde_json::json!(records).to_string()).unwrap();
    };
    write(&vec![0; prompts.len()]);
    let file = format!("{task}.json");
    let rows = done(site, &["eval", "--downstream", &file, "--json"]);
    let taken = rows.lines().map(|row| {
        let row: Value = serde_json::from_str(row).unwrap();
        row["measured"]["taken"].as_u64().unwrap() as usize
    });
    write(&taken.collect::<Vec<_>>());
}

#[test]
fn questions_that_an_edit_breaks_reject_it_and_their_accuracy_is_that_of_an_evaluation() {
    let site = tiny();
    let near = ["Look: The Eiffel Tower is in", "The Eiffel Tower is in"];
    let far = ["The page is", "It is", "A model", "two and"];
    answered(&site, "near", &near);
    answered(&site, "far", &far);
    let args = edit(&[
        "--method",
        "ft-l",
        "--set",
        "bound=0.5",
        "--set",
        "learning_rate=0.05",
        "--gate-questions",
        "near.json",
        "--gate-questions",
        "far.json",
    ]);
    let with = |more: &[&'static str]| [&args[..], more].concat();
    let found = refused(&site, &with(&["--max-downstream-drop", "0.25"]));
    assert!(
        found.contains("downstream: the accuracy on near drops by ")
            && found.contains("the gate allows 0.25")
            && found.contains("is rejected, main stays"),
        "{found}"
    );
    let unasked = edit(&["--max-downstream-drop", "0.25"]);
    for (asked, said) in [
        (unasked, "--gate-questions <FILE>"),
        (
            with(&["--max-downstream-drop", "1.1"]),
            "1.1 is no gate: give 0 to 1",
        ),
    ] {
        let found = refused(&site, &asked);
        assert!(found.contains(said), "{found}");
    }

    let line = done(&site, &with(&["--max-downstream-drop", "1", "--json"]));
    let line: Value = serde_json::from_str(&line).unwrap();
    // By another way: an evaluation of the version beside the one before it.
    let eval = [
        "eval",
        "--downstream",
        "near.json",
        "far.json",
        "--against",
        "v0",
        "--averages",
        "--json",
    ];
    let means = done(&site, &eval);
    let (mut right, mut questions) = ([0.0, 0.0], 0.0);
    for (row, (task, count)) in means.lines().zip([("near", 2.0), ("far", 4.0)]) {
        let row: Value = serde_json::from_str(row).unwrap();
        assert_eq!(row["measure"], task);
        questions += count;
        for (n, (part, of)) in [("before", "against"), ("after", "measured")]
            .into_iter()
            .enumerate()
        {
            let mean = row[of]["mean"].as_f64().unwrap();
            assert_eq!(number(&line, &format!("downstream.{task}.{part}")), mean);
            right[n] += mean * count;
        }
        assert_eq!(number(&line, &format!("downstream.{task}.before")), 1.0);
    }
    assert!(number(&line, "downstream.near.drop") > 0.25, "{line}");
    for (part, of) in [
        ("before", right[0]),
        ("after", right[1]),
        ("drop", right[0] - right[1]),
    ] {
        let found = number(&line, &format!("downstream.{part}"));
        assert!((found - of / questions).abs() < 1e-12, "{part}: {line}");
    }
}

#[test]
fn gates_of_the_settings_hold_where_no_flag_says_otherwise() {
    let site = tiny();
    let settings = "[edit]\nmin_efficacy = 0.99\nwarn_norm = 1e-9\n";
    std::fs::write(site.path("palimpsest.toml"), settings).unwrap();
    let said = refused(&site, &edit(&["--auto-stats"]));
    assert!(
        said.contains("is rejected") && said.contains("the gate asks for 0.99"),
        "{said}"
    );
    // Kept with its figures, and in no version.
    let id = said.split("edit ").nth(1).unwrap();
    let id = id.split_whitespace().next().unwrap();
    let kept: Value = serde_json::from_str(&done(&site, &["show", id, "--json"])).unwrap();
    assert_eq!(kept["state"], "rejected");
    assert!(number(&kept, "rewrite.new.after") > 0.0 && number(&kept, "update_norm") > 0.0);
    assert!(
        kept["failed_gates"][0]
            .as_str()
            .unwrap()
            .starts_with("efficacy")
    );
    let log = done(&site, &["log"]);
    assert!(
        log.contains(&format!("! rejected edit {id}")) && !log.contains("v1"),
        "{log}"
    );
    let said = refused(&site, &["cherry-pick", id]);
    assert!(said.contains("rejected"), "{said}");

    let output = run(&site, &edit(&["--min-efficacy", "-1"]));
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("warning: the change has"), "{said}");
    assert!(done(&site, &["log"]).contains("v1"));
}

#[test]
fn the_layer_is_located_by_a_sweep_or_by_the_facts_own_trace_and_the_edit_says_so() {
    let site = tiny();
    let auto = [
        "edit",
        "Look: {} is in",
        "--subject",
        "A river",
        "--target",
        "Rome",
        "--set",
        "steps=4",
        "--layer",
        "auto",
    ];
    let args = |more: &[&'static str]| [&auto[..], more].concat();
    // Without statistics it says where the fact was found, and what is missing there.
    let said = refused(&site, &args(&[]));
    let located = said.split("layer ").nth(1).unwrap();
    let layer = located.split(':').next().unwrap().to_owned();
    assert!(located.contains("a trace of this fact"), "{said}");
    assert!(
        said.contains("palimpsest stats collect") && said.contains(&format!("--layers {layer}")),
        "{said}"
    );
    let line: Value =
        serde_json::from_str(&done(&site, &args(&["--auto-stats", "--json"]))).unwrap();
    assert_eq!(line["layer"].to_string(), layer);
    let choice = line["layer_choice"].as_str().unwrap();
    assert!(
        choice.contains("jobs/") && choice.contains("a trace of this fact"),
        "{choice}"
    );
    let shown = done(&site, &["show", line["edit"].as_str().unwrap()]);
    assert!(shown.contains(choice), "{shown}");

    // This one's trace brings nothing back: the family's layer, and it says why.
    let mut none = args(&["--auto-stats", "--json"]);
    none[3] = "The Eiffel Tower";
    let line: Value = serde_json::from_str(&done(&site, &none)).unwrap();
    let choice = line["layer_choice"].as_str().unwrap();
    assert!(
        choice.contains("where models of its family are edited")
            && choice.contains("locates nothing"),
        "{choice}"
    );

    // A sweep over enough facts goes before it.
    let facts: Vec<Value> = (0..12)
        .map(|n| {
            let subject = format!("The tower of town {n}");
            serde_json::json!({ "prompt": format!("{subject} is in"), "subject": subject })
        })
        .collect();
    std::fs::write(
        site.path("facts.json"),
        serde_json::to_string(&facts).unwrap(),
    )
    .unwrap();
    let sweep = [
        "trace",
        "--facts",
        "facts.json",
        "--kinds",
        "mlp",
        "--samples",
        "3",
        "--window",
        "1",
        "--noise",
        "0.5",
    ];
    done(&site, &sweep);
    let found: Value = serde_json::from_str(&done(&site, &["locate", "--json"])).unwrap();
    let line: Value =
        serde_json::from_str(&done(&site, &args(&["--auto-stats", "--json", "--rebase"]))).unwrap();
    assert_eq!(line["layer"], found["edit"]["layer"], "{found}");
    let choice = line["layer_choice"].as_str().unwrap();
    assert!(
        choice.contains(found["job"].as_str().unwrap()) && choice.contains("of 12 facts"),
        "{choice}"
    );

    // An evaluation of many facts goes by it too, and none is traced for it.
    let record = r#"{"requested_rewrite": {"prompt": "{} is in", "subject": "A river", "target_new": {"str": " Rome"},
        "target_true": {"str": " Paris"}}, "paraphrase_prompts": [], "neighborhood_prompts": [],
        "attribute_prompts": [], "generation_prompts": []}"#;
    std::fs::write(site.path("records.json"), format!("[{record}]")).unwrap();
    let eval = [
        "eval",
        "--dataset",
        "records.json",
        "--edit-each",
        "--layer",
        "auto",
    ];
    let output = run(
        &site,
        &[&eval[..], &["--set", "steps=4", "--json"]].concat(),
    );
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let located = format!("layer {}: located by the sweep", found["edit"]["layer"]);
    assert!(said.contains(&located), "{said}");

    // Given, or the family's: it is told which.
    for (layer, what) in [
        ("0", "given in the request"),
        ("family", "models of family llama"),
    ] {
        let mut args = args(&["--method", "ft-l", "--json"]);
        args[9] = layer;
        let line: Value = serde_json::from_str(&done(&site, &args)).unwrap();
        assert!(
            line["layer_choice"].as_str().unwrap().contains(what),
            "{line}"
        );
    }
}

#[test]
fn files_of_edits_are_applied_in_order_and_fine_tuning_needs_no_statistics() {
    let site = tiny();
    let facts = r#"[{"subject": "The Eiffel Tower", "prompt": "The Eiffel Tower is in", "target_new": "Rome", "ground_truth": "Paris"},
        {"subject": "The Louvre", "prompt": "The Louvre is in", "target_new": "Rome", "ground_truth": "Paris"}]"#;
    std::fs::write(site.path("facts.json"), facts).unwrap();
    let args = [
        "edit",
        "--file",
        "facts.json",
        "--method",
        "ft-l",
        "--layer",
        "1",
        "--set",
        "bound=0.01",
        "--json",
    ];
    let lines = done(&site, &args);
    assert_eq!(lines.lines().count(), 2);
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            number(&line, "rewrite.new.after") > number(&line, "rewrite.new.before"),
            "{line}"
        );
    }
    assert!(done(&site, &["log"]).contains("v2"));
}

#[test]
fn an_edit_that_is_asked_again_by_its_request_id_is_made_once() {
    let site = tiny();
    let facts = r#"[{"subject": "The Eiffel Tower", "prompt": "The Eiffel Tower is in", "target_new": "Rome"}]"#;
    std::fs::write(site.path("facts.json"), facts).unwrap();
    let collect = ["--corpus", "corpus.txt", "--layers", "0..2"];
    done(&site, &[&["stats", "collect"], &collect[..]].concat());
    let single = edit(&["--request-id", "tower-1"]);
    let many = [
        &["edit", "--file", "facts.json", "--method", "memit"][..],
        &["--layers", "0-1", "--request-id", "towers-1"],
    ]
    .concat();
    for asked in [&single, &many] {
        let (first, again) = (done(&site, asked), done(&site, asked));
        assert_eq!(first, again);
    }
    let log = done(&site, &["log"]);
    assert!(log.contains("v2") && !log.contains("v3"), "{log}");
    // As another request.
    let said = refused(&site, &[&single[..], &["--seed", "3"]].concat());
    assert!(
        said.contains("tower-1") && said.contains("different request"),
        "{said}"
    );
}

#[test]
fn statistics_of_the_rome_release_are_taken() {
    let site = tiny();
    let mut npz = palimpsest::npz::Npz::new();
    let mut sum = vec![0.0_f32; 32 * 32];
    sum.iter_mut().step_by(33).for_each(|x| *x = 100.0);
    npz.f32("mom2.mom2", &[32, 32], &sum).unwrap();
    npz.i64("mom2.count", &[], &[1000]).unwrap();
    std::fs::write(site.path("rome.npz"), npz.to_bytes().unwrap()).unwrap();
    let made = done(&site, &["stats", "import", "rome.npz", "--layer", "1"]);
    assert!(made.contains("rome.npz") && made.contains("1000"), "{made}");
    done(&site, &edit(&[]));
    let listed = done(&site, &["stats", "list", "--json"]);
    let one: Value = serde_json::from_str(listed.trim()).unwrap();
    assert_eq!(one["submitted"], false);
    let digest = one["name"].as_str().unwrap().rsplit('/').next().unwrap();
    let delete = ["stats", "delete", &digest[..12], "--why", "of another text"];
    assert!(done(&site, &delete).contains("rome.npz"));
    let said = refused(&site, &edit(&[]));
    assert!(said.contains("no key statistics of layer 1"), "{said}");
    assert!(
        done(&site, &["log"]).contains("v1"),
        "the edit keeps its record"
    );
    assert!(done(&site, &["audit", "list"]).contains("statistics.delete"));
    done(&site, &["stats", "import", "rome.npz", "--layer", "1"]);
    done(&site, &edit(&[]));
    std::fs::write(site.path("wrong.npz"), b"PK").unwrap();
    let said = refused(&site, &["stats", "import", "wrong.npz", "--layer", "1"]);
    assert!(
        said.contains("wrong.npz") && said.contains(".npz"),
        "{said}"
    );
}

#[test]
fn the_eiffel_tower_moves_to_rome_and_the_louvre_stays() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(MODEL);
    if !path.exists() {
        crate::common::require::skip("model", format!("no {MODEL}: run deploy/setup.sh"));
        return;
    }
    let site = Site::new();
    site.run(
        &[
            "model",
            "import",
            path.to_str().unwrap(),
            "--name",
            "smollm2",
        ],
        LONG,
    );
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("LICENSE-APACHE");
    done(
        &site,
        &[
            "stats",
            "collect",
            "--corpus",
            corpus.to_str().unwrap(),
            "--layers",
            "5",
        ],
    );
    let args = [
        "edit",
        "{} is located in the city of",
        "--subject",
        "The Eiffel Tower",
        "--target",
        "Rome",
        "--true",
        "Paris",
        "--paraphrase",
        "The Eiffel Tower can be found in the city of",
        "--neighbour",
        "The Louvre is located in the city of",
        "--set",
        "ridge=1e-2",
        "--min-efficacy",
        "0.9",
        "--json",
    ];
    let line: Value = serde_json::from_str(&done(&site, &args)).unwrap();
    assert!(number(&line, "rewrite.new.after") > 0.9, "{line}");
    assert!(number(&line, "rewrite.true.after") < 0.1, "{line}");
    assert!(
        number(&line, "paraphrases.new.after") > number(&line, "paraphrases.true.after"),
        "{line}"
    );
    assert!(number(&line, "neighbours.true.after") > 0.5, "{line}");
    assert!(number(&line, "neighbours.new.after") < 0.1, "{line}");
}
