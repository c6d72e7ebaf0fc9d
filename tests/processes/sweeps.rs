//! What a sweep can be asked for, through the program and on a tiny real model: the noise rules,
//! the reading of severed paths, and the averages of what came out.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

use std::fs;

use crate::common::{LONG, PATIENCE, Site, fixture};
use palimpsest::objects::Digest;
use serde_json::Value;

/// Three facts of two relations.
const FACTS: &str = r#"[
    {"prompt": "The Louvre is in the city of", "subject": "The Louvre", "relation": "city"},
    {"prompt": "The Prado is in the city of", "subject": "The Prado", "relation": "city"},
    {"prompt": "Mozart was born in the year", "subject": "Mozart", "relation": "year"}
]"#;

/// A store with the tiny Llama, the facts and a corpus.
fn site() -> Site {
    let site = Site::new();
    let model = fixture("llama");
    let args = ["model", "import", model.to_str().unwrap(), "--name", "tiny"];
    site.run(&args, PATIENCE);
    fs::write(site.path("facts.json"), FACTS).unwrap();
    let corpus = "The museum is in the city.\n\nIt was born in the year of the opera.\n";
    fs::write(site.path("corpus.txt"), corpus.repeat(20)).unwrap();
    site
}

fn lines(out: &str) -> Vec<Value> {
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const ENGINE: [&str; 4] = ["--device", "cpu", "--threads", "1"];

/// Runs a sweep inside the command and gives its results.
fn trace(site: &Site, more: &[&str]) -> Vec<Value> {
    let args = ["trace", "--facts", "facts.json", "--samples", "2", "--json"];
    lines(&site.run(&[&args[..], &ENGINE, more].concat(), LONG))
}

#[test]
fn noise_over_a_corpus_is_the_same_for_every_worker() {
    let site = site();
    let noise = [
        "--noise",
        "t5",
        "--noise-corpus",
        "corpus.txt",
        "--kinds",
        "hidden",
    ];
    let alone = trace(&site, &noise);
    let kept: String = fs::read_to_string(site.path("corpus.txt"))
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| format!("\"{line}\"\n"))
        .collect();
    for line in &alone {
        assert_eq!(line["noise"], "t5");
        assert_eq!(
            line["noise_corpus"],
            Digest::of(kept.as_bytes()).to_string()
        );
        assert!(line["noise_scale"].as_f64().unwrap() > 0.0);
        assert_ne!(line["low"], line["high"], "the noise does something");
    }

    // Workers on machines of their own fetch the corpus.
    let server = site.serve("127.0.0.1:0");
    let url = server.url();
    let model = fixture("llama");
    let import = [
        "model",
        "import",
        model.to_str().unwrap(),
        "--name",
        "tiny",
        "--server",
        &url,
    ];
    site.run(&import, PATIENCE);
    let _workers = ["one", "two"].map(|id| site.worker(&server, id, &ENGINE));
    let args = [
        "trace",
        "--facts",
        "facts.json",
        "--samples",
        "2",
        "--json",
        "--server",
        &url,
    ];
    let together = lines(&site.run(&[&args[..], &noise].concat(), LONG));
    assert_eq!(together, alone);
}

#[test]
fn noise_in_the_place_of_embeddings_is_another_than_noise_on_them() {
    let site = site();
    let lows = |rule: &str| -> Vec<Value> {
        let corpus = ["--noise-corpus", "corpus.txt"];
        let needs: &[&str] = if rule.ends_with('m') { &corpus } else { &[] };
        let found = trace(
            &site,
            &[&["--noise", rule, "--kinds", "mlp"], needs].concat(),
        );
        assert!(found.iter().all(|line| line["noise"] == rule));
        found
            .into_iter()
            .map(|mut line| line["low"].take())
            .collect()
    };
    let rules = ["0.5", "replace:0.5", "m", "replace:m", "replace:s2"];
    let found = rules.map(lows);
    for (n, one) in found.iter().enumerate() {
        for other in &found[..n] {
            assert_ne!(one, other, "{rules:?}");
        }
    }
}

#[test]
fn the_published_codes_reading_differs_in_severed_paths_only() {
    let site = site();
    let grids = |compat: &str| {
        let kinds = "hidden,hidden_severed_mlp,hidden_severed_attn";
        trace(
            &site,
            &["--noise", "0.5", "--kinds", kinds, "--compat", compat],
        )
    };
    let (ours, theirs) = (grids("none"), grids("paper-code"));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(
            (&ours["compat"], &theirs["compat"]),
            (&"none".into(), &"paper-code".into())
        );
        let same = ours["scores"] == theirs["scores"];
        assert_eq!(same, ours["kind"] == "hidden", "{}", ours["kind"]);
    }
}

#[test]
fn estimates_are_said_to_be_some_and_verified_wherever_they_are_shown() {
    let site = site();
    let server = site.serve("127.0.0.1:0");
    let url = server.url();
    let model = fixture("llama");
    let model = model.to_str().unwrap();
    let import = ["model", "import", model, "--name", "tiny", "--server", &url];
    site.run(&import, PATIENCE);
    let _worker = site.worker(&server, "one", &ENGINE);
    let sweep = |more: &[&str]| {
        let args = ["trace", "--facts", "facts.json", "--noise", "0.05"];
        let args = [&args[..], &["--samples", "2", "--window", "1"], more];
        site.run(&[args.concat(), vec!["--server", &url]].concat(), LONG)
    };
    let kinds = ["--kinds", "hidden,mlp,resid_mid", "--json"];
    let exact = lines(&sweep(&kinds));
    let engine = ["--engine", "attribution", "--verify", "4"];
    let found = lines(&sweep(&[&kinds, &engine[..]].concat()));
    assert_eq!(found.len(), 9);
    for (exact, found) in exact.iter().zip(&found) {
        assert_eq!(
            (&exact["engine"], &exact["attribution"]),
            (&"exact".into(), &Value::Null)
        );
        assert_eq!(found["engine"], "attribution");
        assert_eq!(found["estimate"], "first-order estimate");
        let near = |one: &Value, other: &Value| {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            assert!((one - other).abs() < 1e-5, "{one} {other}");
        };
        near(&exact["high"], &found["high"]);
        near(&exact["low"], &found["low"]);
        assert_ne!(exact["scores"], found["scores"]);
        let verified = found["attribution"]["verified"].as_array().unwrap();
        let random = verified.iter().filter(|cell| cell["random"] == true);
        assert_eq!((verified.len(), random.count()), (8, 4));
        for cell in verified {
            let at = |name: &str| cell[name].as_u64().unwrap() as usize;
            near(
                &cell["exact"]["probability"],
                &exact["scores"][at("token")][at("layer")],
            );
        }
        let ranks = &found["attribution"]["verification"]["probability"]["rank_correlation"];
        assert!(ranks.as_f64().unwrap() > 0.5, "{ranks}");
    }

    // Asked again, it is answered from the store; otherwise asked, it is not.
    let text = sweep(&[
        "--engine",
        "attribution",
        "--verify",
        "4",
        "--svg",
        "figures",
    ]);
    assert!(text.contains("first-order estimate, not exact"), "{text}");
    assert!(text.contains("4 + 4") && text.contains("RANKS"), "{text}");
    let figure = fs::read_to_string(site.path("figures/001_the-louvre_mlp.svg")).unwrap();
    assert!(figure.contains("first-order estimate"), "{figure}");
    let more = [
        "--engine",
        "attribution",
        "--integrated",
        "4",
        "--grad-drop",
        "--json",
    ];
    let dropped = lines(&sweep(&more));
    let words = "first-order estimate, gradients of 4 steps, magnitudes by gradient drop";
    for line in &dropped {
        assert_eq!(line["estimate"], words);
        let low = line["low"].as_f64().unwrap();
        for row in line["scores"].as_array().unwrap() {
            let row = row.as_array().unwrap();
            assert!(
                row.iter()
                    .all(|score| score.as_f64().unwrap() >= low - 1e-12)
            );
        }
    }
    let results = |more: &[&str]| {
        let args = [&["job", "results", "latest"], more, &["--server", &url]];
        site.run(&args.concat(), PATIENCE)
    };
    let averages = lines(&results(&["--averages", "--json"]));
    assert!(averages.iter().all(|line| line["estimate"] == words));
    assert!(results(&["--averages"]).contains(&format!("{words}, not exact")));
    let located = site.run(&["locate", "latest", "--server", &url], PATIENCE);
    assert!(located.contains("gradients of 4 steps"), "{located}");
}

#[test]
fn averages_and_sites_are_read_from_a_job_that_has_ended() {
    let site = site();
    trace(&site, &["--noise", "0.5", "--kinds", "mlp,attn"]);
    let run = |args: &[&str]| site.run(args, PATIENCE);
    let all = lines(&run(&["job", "results", "latest", "--averages", "--json"]));
    assert_eq!(all.len(), 2);
    assert_eq!(all[0]["facts"], 3);
    let each = lines(&run(&[
        "job",
        "results",
        "latest",
        "--by-relation",
        "--json",
    ]));
    assert_eq!(each.len(), 4);
    assert_eq!(
        (&each[0]["relation"], &each[0]["facts"]),
        (&"city".into(), &2.into())
    );
    let table = run(&[
        "job",
        "results",
        "latest",
        "--by-relation",
        "--svg",
        "figures",
    ]);
    assert!(
        table.contains("RELATION") && table.contains("year"),
        "{table}"
    );
    for file in ["averages.svg", "averages_mlp_by_relation.svg"] {
        assert!(site.path("figures").join(file).exists(), "{file}");
    }
    assert!(
        !site.path("figures/001_the-louvre_mlp.svg").exists(),
        "single facts are not drawn"
    );

    let located = lines(&run(&["locate", "--json"]));
    let effects = all[0]["indirect_effect"]["last_subject"]
        .as_array()
        .unwrap();
    let mean = |layer: usize| effects[layer]["mean"].as_f64().unwrap();
    let layer = located[0]["edit"]["layer"].as_u64().unwrap() as usize;
    assert!((0..effects.len()).all(|other| mean(other) <= mean(layer)));
    let text = run(&["locate", "latest", "--relation", "year"]);
    assert!(
        text.contains(
            "1 fact of relation year on tiny. An edit of these facts belongs in the MLP of layer"
        ),
        "{text}"
    );
}
