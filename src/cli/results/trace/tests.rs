use serde_json::{Value, json};

use super::*;
use crate::proto::v1::job::Spec;
use crate::wire;

const TOKENS: [&str; 5] = ["The", " Eiffel", " Tower", " is", " in"];
const LAYERS: usize = 12;

fn fact(n: usize) -> v1::Fact {
    v1::Fact {
        corrupted: None,
        foil: None,
        subject_start: None,
        prompt: "The Eiffel Tower is in".into(),
        subject: "Eiffel Tower".into(),
        attribute: Some("Paris".into()),
        relation: (n > 0).then(|| "P131".into()),
        id: Some(format!("f{n}")),
    }
}

fn bump(layer: usize, at: f64) -> f64 {
    (-((layer as f64 - at) / 3.0).powi(2)).exp()
}

/// A grid with an early site of the MLPs and a late one of attention.
fn grid(n: usize, kind: v1::Kind) -> v1::Grid {
    let (low, high) = (0.05 + 0.01 * n as f64, 0.8 - 0.02 * n as f64);
    let effect = |token: usize, layer: usize| match (kind, token) {
        (v1::Kind::Hidden, 2) => 0.7 * bump(layer, 1.0),
        (v1::Kind::Hidden, 4) => bump(layer, 11.0),
        (v1::Kind::HiddenSeveredMlp, 2) => 0.2 * bump(layer, 6.0),
        (v1::Kind::HiddenSeveredAttn, 2) => 0.5 * bump(layer, 2.0),
        (v1::Kind::Mlp, 2) => (0.5 + 0.05 * n as f64) * bump(layer, 4.0),
        (v1::Kind::Mlp, 4) => 0.1 * bump(layer, 9.0),
        (v1::Kind::Attn, 2) => 0.05 * bump(layer, 3.0),
        (v1::Kind::Attn, 4) => 0.6 * bump(layer, 8.0),
        _ => 0.0,
    };
    let cells = (0..TOKENS.len()).flat_map(|token| (0..LAYERS).map(move |layer| (token, layer)));
    v1::Grid {
        fact: Some(fact(n)),
        kind: kind.into(),
        token_ids: (10..10 + TOKENS.len() as u32).collect(),
        tokens: TOKENS.map(str::to_owned).to_vec(),
        subject_begin: 1,
        subject_end: 3,
        answer_id: 99,
        answer: " Paris".into(),
        correct_prediction: true,
        high,
        low,
        layers: LAYERS as u32,
        scores: cells
            .map(|(token, layer)| low + (high - low) * effect(token, layer))
            .collect(),
        window: if matches!(kind, v1::Kind::Mlp | v1::Kind::Attn) {
            4
        } else {
            1
        },
        samples: 10,
        noise: "s3".into(),
        noise_scale: 0.25,
        seed: 1,
        compat: v1::Compat::None.into(),
        ..Default::default()
    }
}

fn untraced(n: usize, kind: v1::Kind) -> v1::Grid {
    v1::Grid {
        peak: None,
        answer: " Rome".into(),
        correct_prediction: false,
        low: 0.0,
        layers: 0,
        scores: Vec::new(),
        ..grid(n, kind)
    }
}

fn failure() -> Sent {
    Sent::Failure(v1::Failure {
        failure_class: v1::FailureClass::OutOfMemory.into(),
        message: "a batch of 10 rows does not fit into 64 MiB: give --memory more".into(),
    })
}

const THREE: [v1::Kind; 3] = [v1::Kind::Hidden, v1::Kind::Mlp, v1::Kind::Attn];

fn job(facts: usize, kinds: &[v1::Kind]) -> v1::Job {
    v1::Job {
        name: "jobs/j".into(),
        model: "models/smollm2".into(),
        spec: Some(Spec::Trace(v1::TraceSpec {
            facts: (0..facts).map(fact).collect(),
            kinds: kinds.iter().map(|&kind| kind.into()).collect(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Every unit of `job`, as `outcome` makes it of its fact's number and kind; `None` leaves it out.
fn results(
    job: &v1::Job,
    outcome: impl Fn(usize, v1::Kind) -> Option<Sent>,
) -> Vec<v1::UnitResult> {
    let Some(spec) = work::spec::<v1::TraceSpec>(job) else {
        unreachable!()
    };
    let pairs = (0..spec.facts.len()).flat_map(|n| spec.kinds().map(move |kind| (n, kind)));
    pairs
        .zip(0..)
        .filter_map(|((n, kind), unit)| {
            Some(v1::UnitResult {
                unit,
                outcome: Some(outcome(n, kind)?),
            })
        })
        .collect()
}

/// Four facts, of which one is answered otherwise; two units failed alike and one is missing.
fn sweep() -> (v1::Job, Vec<v1::UnitResult>) {
    let job = job(4, &THREE);
    let results = results(&job, |n, kind| match (n, kind) {
        (1, kind) => Some(Sent::Grid(untraced(n, kind))),
        (3, v1::Kind::Mlp | v1::Kind::Attn) => Some(failure()),
        (3, _) => None,
        (n, kind) => Some(Sent::Grid(grid(n, kind))),
    });
    (job, results)
}

fn printed(write: impl FnOnce(&mut dyn Write) -> Result<(), Error>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_table_tells_what_every_unit_gave() {
    let (job, results) = sweep();
    let results = Results::new(&job, &results).unwrap();
    insta::assert_snapshot!(printed(|out| results.table(out, None, Colour::Never)));
    let narrow = printed(|out| results.table(out, Some(80), Colour::Never));
    insta::assert_snapshot!("the_table_in_80_columns", narrow);
}

#[test]
fn the_table_of_one_fact_is_short() {
    let job = job(1, &THREE);
    let results = results(&job, |n, kind| Some(Sent::Grid(grid(n, kind))));
    let results = Results::new(&job, &results).unwrap();
    insta::assert_snapshot!(printed(|out| results.table(out, None, Colour::Never)));
}

#[test]
fn json_has_every_number_as_it_was_computed() {
    let (job, results) = sweep();
    let text = printed(|out| Results::new(&job, &results).unwrap().json_lines(out));
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 11);

    let traced = grid(0, v1::Kind::Mlp);
    let keys: Vec<&str> = lines[1]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "unit",
            "id",
            "relation",
            "prompt",
            "subject",
            "kind",
            "token_ids",
            "tokens",
            "subject_range",
            "answer_id",
            "answer",
            "whole_answers",
            "answer_ids",
            "correct_prediction",
            "high",
            "low",
            "scores",
            "window",
            "samples",
            "noise",
            "noise_scale",
            "noise_corpus",
            "seed",
            "compat",
            "direction",
            "receivers",
            "frozen_mlps",
            "corrupted",
            "foil_id",
            "foil",
            "foil_ids",
            "untraced",
            "metrics",
            "neurons",
            "engine",
            "estimate",
            "attribution",
        ]
    );
    assert_eq!(lines[1]["engine"], "exact");
    assert_eq!(lines[1]["attribution"], Value::Null);
    assert_eq!(lines[1]["kind"], "mlp");
    assert_eq!(lines[1]["relation"], Value::Null);
    assert_eq!(lines[1]["subject_range"], json!([1, 3]));
    assert_eq!(
        (&lines[1]["noise"], &lines[1]["noise_scale"]),
        (&json!("s3"), &json!(0.25))
    );
    // Read by the standard library: serde_json may be off by a last bit.
    let line = text.lines().nth(1).unwrap();
    let scores = line
        .split_once("\"scores\":")
        .unwrap()
        .1
        .split_once(",\"window\"")
        .unwrap()
        .0;
    let rows: Vec<Vec<f64>> = scores
        .trim_matches(['[', ']'])
        .split("],[")
        .map(|row| row.split(',').map(|score| score.parse().unwrap()).collect())
        .collect();
    assert_eq!(rows, traced.scores.chunks(LAYERS).collect::<Vec<_>>());

    let untraced = &lines[3];
    assert_eq!(untraced["correct_prediction"], false);
    assert_eq!(
        (&untraced["low"], &untraced["scores"]),
        (&Value::Null, &json!([]))
    );

    let failed = lines[9].as_object().unwrap();
    assert_eq!(failed["error"]["class"], "out_of_memory");
    assert_eq!(
        (failed["unit"].as_u64(), &failed["kind"]),
        (Some(10), &json!("mlp"))
    );
    assert!(!failed.contains_key("scores"));
}

#[test]
fn averages_are_a_table_and_sentences() {
    let (job, results) = sweep();
    let results = Results::new(&job, &results).unwrap();
    let table = printed(|out| results.averages(out, None, Colour::Never));
    let words = results.summary().unwrap().join("\n");
    insta::assert_snapshot!(format!("{table}\n{words}"));
}

#[test]
fn kinds_over_different_facts_have_their_own_baselines() {
    let job = job(2, &[v1::Kind::Hidden, v1::Kind::Mlp]);
    let results = results(&job, |n, kind| match (n, kind) {
        (1, v1::Kind::Mlp) => Some(failure()),
        (n, kind) => Some(Sent::Grid(grid(n, kind))),
    });
    let results = Results::new(&job, &results).unwrap();
    let table = printed(|out| results.averages(out, None, Colour::Never));
    assert_eq!(table.matches(" corrupted ").count(), 2, "{table}");
    assert!(!table.contains("all "), "{table}");
}

#[test]
fn severed_paths_are_summed_up_beside_the_whole_ones() {
    let job = job(2, &KINDS[..5]);
    let results = results(&job, |n, kind| Some(Sent::Grid(grid(n, kind))));
    let results = Results::new(&job, &results).unwrap();
    insta::assert_snapshot!(results.summary().unwrap().join("\n"));
}

#[test]
fn a_report_leaves_out_what_there_is_nothing_of() {
    let report = |traced: usize| {
        let job = job(2, &THREE);
        let results = results(&job, |n, kind| {
            Some(Sent::Grid(if n < traced {
                grid(n, kind)
            } else {
                untraced(n, kind)
            }))
        });
        let results = Results::new(&job, &results).unwrap();
        printed(|out| results.report(out, Some(80), Colour::Never))
    };
    for (traced, text) in (0..3).map(|traced| (traced, report(traced))) {
        assert_eq!(text.contains("corrupted input"), traced == 1, "{text}");
        assert_eq!(text.contains("Average indirect"), traced == 2, "{text}");
        assert_eq!(text.contains("total effect (ATE)"), traced == 2, "{text}");
        assert!(text.contains(&format!("\n\n{traced} fact")), "{text}");
        assert!(!text.contains("\n\n\n"), "{text}");
        let sentences = text.rsplit("\n\n").next().unwrap();
        assert!(sentences.lines().all(|line| line.chars().count() <= 80));
    }
}

#[test]
fn one_fact_is_shown_in_all_its_kinds_and_several_as_averages() {
    let kinds = [v1::Kind::Hidden, v1::Kind::HiddenSeveredMlp];
    let one = job(1, &kinds);
    let grids = results(&one, |n, kind| Some(Sent::Grid(grid(n, kind))));
    let one = Results::new(&one, &grids).unwrap();
    insta::assert_snapshot!(printed(|out| one.heatmaps(out, Some(70), Colour::Never)));

    let (job, results) = sweep();
    let several = Results::new(&job, &results).unwrap();
    let text = printed(|out| several.heatmaps(out, None, Colour::Never));
    insta::assert_snapshot!("heat_maps_of_several_facts", text);
}

#[test]
fn nothing_traced_is_said_and_not_drawn() {
    let job = job(1, &THREE);
    let results = results(&job, |n, kind| Some(Sent::Grid(untraced(n, kind))));
    let results = Results::new(&job, &results).unwrap();
    assert_eq!(
        printed(|out| results.heatmaps(out, None, Colour::Never)),
        ""
    );
    assert_eq!(
        results.summary().unwrap(),
        ["0 facts traced on smollm2; 1 fact answered otherwise than expected and left out."]
    );
    let folder = tempfile::tempdir().unwrap();
    assert!(results.svg(folder.path()).unwrap().is_empty());
}

#[test]
fn figures_are_written_under_readable_names() {
    let (job, grids) = sweep();
    let results = Results::new(&job, &grids).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("new/figures");
    let names = |files: &[std::path::PathBuf]| -> Vec<String> {
        let name = |file: &std::path::PathBuf| {
            file.strip_prefix(&inside)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        files.iter().map(name).collect()
    };
    let files = results.svg(&inside).unwrap();
    assert_eq!(
        names(&files),
        [
            "001_eiffel-tower_hidden.svg",
            "001_eiffel-tower_mlp.svg",
            "001_eiffel-tower_attn.svg",
            "003_eiffel-tower_hidden.svg",
            "003_eiffel-tower_mlp.svg",
            "003_eiffel-tower_attn.svg",
            "averages.svg",
            "averages_hidden.svg",
            "averages_hidden_curves.svg",
            "averages_mlp.svg",
            "averages_mlp_curves.svg",
            "averages_attn.svg",
            "averages_attn_curves.svg",
        ]
    );
    let read = |files: &[std::path::PathBuf]| -> Vec<String> {
        files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap())
            .collect()
    };
    let drawn = read(&files);
    for svg in &drawn {
        roxmltree::Document::parse(svg).unwrap();
    }

    // Drawn again: the same bytes over the old ones, and nobody else's file touched.
    std::fs::write(&files[0], "old").unwrap();
    std::fs::write(inside.join("mine.svg"), "mine").unwrap();
    assert_eq!(read(&results.svg(&inside).unwrap()), drawn);
    assert_eq!(
        std::fs::read_to_string(inside.join("mine.svg")).unwrap(),
        "mine"
    );

    let files = results.npz(&inside).unwrap();
    assert_eq!(files.len(), 9, "untraced facts are kept, failures are not");
    assert!(files[3].ends_with("002_eiffel-tower_hidden.npz"));
    let blocked = inside.join("mine.svg");
    let error = results.npz(&blocked).unwrap_err().to_string();
    assert!(error.contains("mine.svg cannot be written"), "{error}");
}

/// What a sweep asks for.
fn asked(job: &mut v1::Job) -> &mut v1::TraceSpec {
    let Some(Spec::Trace(spec)) = &mut job.spec else {
        unreachable!()
    };
    spec
}

/// A sweep over two relations and a fact of none, of which one fact is answered otherwise.
fn relations() -> (v1::Job, Vec<v1::UnitResult>) {
    let mut job = job(6, &THREE);
    let spec = asked(&mut job);
    for (n, fact) in spec.facts.iter_mut().enumerate() {
        fact.relation = [None, Some("P131"), Some("P17")][n.div_ceil(2).min(2)].map(str::to_owned);
    }
    let facts = spec.facts.clone();
    let results = results(&job, |n, kind| {
        let grid = match n {
            5 => untraced(n, kind),
            _ => grid(n, kind),
        };
        let fact = Some(facts[n].clone());
        Some(Sent::Grid(v1::Grid { fact, ..grid }))
    });
    (job, results)
}

#[test]
fn averages_of_each_relation_are_a_line_and_a_row_of_a_map() {
    let (job, grids) = relations();
    let results = Results::new(&job, &grids).unwrap();
    let text = printed(|out| results.report_relations(out, None, Colour::Never));
    insta::assert_snapshot!(text);

    let folder = tempfile::tempdir().unwrap();
    let files = results.svg_relations(folder.path()).unwrap();
    assert_eq!(files.len(), 3);
    let map = std::fs::read_to_string(&files[1]).unwrap();
    assert!(files[1].ends_with("averages_mlp_by_relation.svg"));
    for name in [
        "P131 (2)",
        "P17 (2)",
        "(none) (1)",
        "by relation, last subject token",
    ] {
        assert!(map.contains(name), "{name}");
    }
}

#[test]
fn averages_as_json_are_those_of_the_grids_with_their_intervals() {
    let (job, grids) = relations();
    let results = Results::new(&job, &grids).unwrap();
    let lines = |by_relation| -> Vec<Value> {
        printed(|out| results.averages_json(out, by_relation))
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let all = lines(false);
    assert_eq!(all.len(), 3);
    let mlp = &all[1];
    assert_eq!(
        (&mlp["kind"], &mlp["model"], &mlp["facts"], &mlp["left_out"]),
        (&json!("mlp"), &json!("smollm2"), &json!(5), &json!(1))
    );
    let expected = Averages::over(
        results
            .units
            .iter()
            .filter(|u| u.kind == v1::Kind::Mlp)
            .filter_map(Unit::traced),
    )
    .unwrap()
    .unwrap();
    let same = |sent: &Value, mean: &crate::causal::Mean| {
        let close = |sent: &Value, number: f64| {
            assert!(
                (sent.as_f64().unwrap() - number).abs() < 1e-12,
                "{sent} {number}"
            );
        };
        close(&sent["mean"], mean.mean);
        close(&sent["standard_error"], mean.standard_error().unwrap());
        close(&sent["interval"][1], mean.interval().unwrap().1);
        assert_eq!(sent["rows"], mean.rows);
    };
    same(&mlp["total_effect"], &expected.total_effect);
    same(&mlp["clean"], &expected.high);
    let last = crate::causal::Role::LastSubject;
    same(
        &mlp["indirect_effect"]["last_subject"][4],
        &expected.role(last)[4],
    );
    assert_eq!(
        mlp["indirect_effect"]["last"].as_array().unwrap().len(),
        LAYERS
    );
    assert_eq!(
        mlp["indirect_effect"]["middle_subject"],
        Value::Null,
        "subjects of two tokens"
    );
    assert_eq!(
        (&mlp["peak"]["role"], &mlp["peak"]["layer"]),
        (&json!("last_subject"), &json!(4))
    );

    let each = lines(true);
    assert_eq!(each.len(), 9);
    let names: Vec<&Value> = each
        .iter()
        .step_by(3)
        .map(|line| &line["relation"])
        .collect();
    assert_eq!(names, [&json!("P131"), &json!("P17"), &Value::Null]);
    assert_eq!(
        (&each[3]["facts"], &each[3]["left_out"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        each[6]["total_effect"]["interval"],
        Value::Null,
        "one fact has no interval"
    );
}

#[test]
fn averages_of_the_server_are_shown_as_those_of_the_grids() {
    let (job, grids) = relations();
    let results = Results::new(&job, &grids).unwrap();
    let mut sent: Vec<v1::KindAverages> = Vec::new();
    for (_, it) in results.by_kind().unwrap() {
        sent.push(wire::averages_to_proto(&it, None));
    }
    for relation in results.relations().unwrap() {
        let name = relation.name.unwrap_or_default();
        for (_, it) in &relation.kinds {
            sent.push(wire::averages_to_proto(it, Some(name.clone())));
        }
    }
    let mut peaks = grids.clone();
    for result in &mut peaks {
        if let Some(Sent::Grid(grid)) = &mut result.outcome {
            grid.scores.clear();
            grid.tokens.clear();
            grid.token_ids.clear();
        }
    }
    let summed = Results::summed(&job, &peaks, sent).unwrap();
    let shown = |results: &Results<'_>| {
        printed(|out| {
            results.report_averages(out, Some(100), Colour::Never)?;
            results.report_relations(out, Some(100), Colour::Never)
        })
    };
    assert_eq!(shown(&summed), shown(&results));
}

/// Where the effects peak, as a server answers it.
fn located(
    job: &v1::Job,
    results: &Results<'_>,
    relation: Option<&str>,
) -> Result<locate::Sites, Error> {
    let named = relation.map(str::to_owned);
    let averages = results.averages_of(match relation {
        None => Over::All,
        Some(_) => Over::Relation(&named),
    })?;
    let sent = averages.iter();
    let summary = v1::GetSweepSummaryResponse {
        averages: sent
            .map(|(_, it)| wire::averages_to_proto(it, None))
            .collect(),
        ..Default::default()
    };
    locate::Sites::of(job, relation, &summary)
}

#[test]
fn a_sweep_says_where_its_effects_peak_and_an_edit_goes() {
    let (job, grids) = relations();
    let results = Results::new(&job, &grids).unwrap();
    let sites = located(&job, &results, None).unwrap();
    insta::assert_snapshot!(printed(|out| sites.report(out, None, Colour::Never)));
    let object = |sites: locate::Sites| -> Value {
        serde_json::from_str(&printed(|out| sites.json(out))).unwrap()
    };
    let all = object(sites);
    assert_eq!(all["edit"]["layer"], 4);
    assert_eq!(all["edit"]["role"], "last_subject");
    assert_eq!(all["edit"]["effect"]["rows"], 5);
    assert_eq!(all["sites"][2]["highest"]["role"], "last");
    assert_eq!(all["relation"], Value::Null);
    assert!(
        results
            .summary()
            .unwrap()
            .last()
            .unwrap()
            .contains("An edit of these facts belongs in the MLP of layer 4")
    );

    let one = object(located(&job, &results, Some("P131")).unwrap());
    assert_eq!(
        (&one["relation"], &one["edit"]["effect"]["rows"]),
        (&json!("P131"), &json!(2))
    );
    let error = located(&job, &results, Some("P9"))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("jobs/j has no traced fact of relation \"P9\""),
        "{error}"
    );
}

#[test]
fn without_mlps_no_edit_is_placed() {
    let job = job(2, &[v1::Kind::Attn]);
    let grids = results(&job, |n, kind| Some(Sent::Grid(grid(n, kind))));
    let results = Results::new(&job, &grids).unwrap();
    let sites = located(&job, &results, None).unwrap();
    let text = printed(|out| sites.report(out, None, Colour::Never));
    assert!(text.contains("--kinds mlp"), "{text}");
}

#[test]
fn averages_alone_are_given_without_the_single_facts() {
    let (job, grids) = sweep();
    let results = Results::new(&job, &grids).unwrap();
    let text = printed(|out| results.report_averages(out, Some(80), Colour::Never));
    assert!(
        text.contains("total effect (ATE)") && !text.contains("PROMPT"),
        "{text}"
    );
    let folder = tempfile::tempdir().unwrap();
    let files = results.svg_averages(folder.path()).unwrap();
    assert_eq!(files.len(), 7);
    let all = std::fs::read_to_string(&files[0]).unwrap();
    let document = roxmltree::Document::parse(&all).unwrap();
    // A map and its curves of each kind, and no two things of one name.
    let pictures = document.descendants().filter(|n| n.has_tag_name("svg"));
    assert_eq!(pictures.count(), 1 + 6);
    let mut ids: Vec<&str> = document
        .descendants()
        .filter_map(|n| n.attribute("id"))
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
    assert!(
        all.contains("Average effects over 2 facts, smollm2: total effect"),
        "{all}"
    );
}

#[test]
fn severed_kinds_are_drawn_beside_the_whole_path() {
    let job = job(
        2,
        &[
            v1::Kind::Hidden,
            v1::Kind::HiddenSeveredMlp,
            v1::Kind::HiddenSeveredAttn,
        ],
    );
    let grids = results(&job, |n, kind| Some(Sent::Grid(grid(n, kind))));
    let results = Results::new(&job, &grids).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = results.svg(folder.path()).unwrap();
    let last = std::fs::read_to_string(files.last().unwrap()).unwrap();
    assert!(
        files
            .last()
            .unwrap()
            .ends_with("averages_severed_curves.svg")
    );
    for name in ["no path severed", "attention severed", "MLP severed"] {
        assert!(last.contains(name), "{name}");
    }
    let map = std::fs::read_to_string(&files[1]).unwrap();
    assert!(map.contains("Impact of restoring state with MLP severed"));
    let text = printed(|out| results.heatmaps(out, Some(80), Colour::Never));
    assert!(
        text.contains("Effect of a state at the last subject token"),
        "{text}"
    );
}

#[test]
fn files_hold_the_arrays_of_the_published_code() {
    let (job, grids) = sweep();
    let folder = tempfile::tempdir().unwrap();
    let files = Results::new(&job, &grids)
        .unwrap()
        .npz(folder.path())
        .unwrap();
    let arrays = |file: &std::path::Path| -> Vec<String> {
        let zip = zip::ZipArchive::new(std::fs::File::open(file).unwrap()).unwrap();
        zip.file_names()
            .map(|name| name.unwrap().into_owned())
            .collect()
    };
    let mut names = arrays(&files[0]);
    names.sort();
    assert_eq!(
        names.join(" "),
        "answer.npy correct_prediction.npy high_score.npy input_ids.npy input_tokens.npy kind.npy \
         low_score.npy scores.npy subject_range.npy window.npy"
    );
    assert_eq!(arrays(&files[3]), ["correct_prediction.npy"]);
}

/// Three heads, of which one carries the answer from the last token in a late layer.
fn of_heads(n: usize, kind: v1::Kind) -> v1::Grid {
    let bare = grid(n, kind);
    let effect = |(token, head, layer): (usize, usize, usize)| match (token, head) {
        (4, 2) => bump(layer, 8.0),
        (2, 1) => 0.3 * bump(layer, 3.0),
        _ => 0.0,
    };
    let tokens = match kind {
        v1::Kind::HeadAll => 4..5,
        _ => 0..TOKENS.len(),
    };
    let cells = tokens.flat_map(|t| (0..3).flat_map(move |h| (0..LAYERS).map(move |l| (t, h, l))));
    v1::Grid {
        heads: 3,
        scores: cells
            .map(|cell| bare.low + (bare.high - bare.low) * effect(cell))
            .collect(),
        ..bare
    }
}

#[test]
fn heads_are_pages_of_a_token_and_averages_of_a_role() {
    let kinds = [v1::Kind::Head, v1::Kind::HeadAll];
    let job = job(2, &kinds);
    let grids = results(&job, |n, kind| Some(Sent::Grid(of_heads(n, kind))));
    let results = Results::new(&job, &grids).unwrap();

    let table = printed(|out| results.table(out, None, Colour::Never));
    assert!(table.contains("in, layer 8, head 2"), "{table}");
    assert!(table.contains("every token, layer 8, head 2"), "{table}");

    let lines = printed(|out| results.json_lines(out));
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let cell = |nested: &Value, at: &[usize]| -> f64 {
        let cell = at.iter().fold(nested, |inner, &n| &inner[n]);
        cell.as_f64().unwrap()
    };
    let whole = of_heads(0, v1::Kind::Head).scores;
    let of_cell = cell(&lines[0]["scores"], &[4, 2, 8]);
    assert!((of_cell - whole[(4 * 3 + 2) * LAYERS + 8]).abs() < 1e-12);
    assert!((cell(&lines[1]["scores"], &[2, 8]) - of_cell).abs() < 1e-12);

    let averages = printed(|out| results.averages_json(out, false));
    let averages: Vec<Value> = averages
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(averages[0]["peak"]["head"], 2);
    assert_eq!(averages[1]["peak"]["role"], "every");
    let of_role = &averages[0]["indirect_effect"]["last"][2][8]["mean"];
    let over_all = &averages[1]["indirect_effect"]["every"][2][8]["mean"];
    assert!(of_role.as_f64().unwrap() > 0.5 && of_role == over_all);

    let words = results.summary().unwrap().join("\n");
    assert!(
        words.contains("of the last token") && words.contains("at layer 8, head 2."),
        "{words}"
    );
    let sites = located(&job, &results, None).unwrap();
    let text = printed(|out| sites.report(out, None, Colour::Never));
    assert!(text.contains("every token, head 2"), "{text}");
    let text = printed(|out| results.report_relations(out, None, Colour::Never));
    assert!(text.contains("8, head 2"), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let files = results.svg(folder.path()).unwrap();
    let names: Vec<&str> = files
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap())
        .collect();
    let of_tokens = |fact: usize| -> Vec<String> {
        let pages = (0..TOKENS.len()).map(|t| format!("00{fact}_eiffel-tower_head_t0{t}.svg"));
        let over_all = format!("00{fact}_eiffel-tower_head_all.svg");
        pages.chain([over_all]).collect()
    };
    let of_roles = [
        "first_subject_token",
        "last_subject_token",
        "first_subsequent_token",
        "last_token",
    ];
    let of_roles = of_roles.map(|role| format!("averages_head_{role}.svg"));
    let expected = [
        of_tokens(1),
        of_tokens(2),
        vec!["averages.svg".to_owned()],
        of_roles.to_vec(),
        vec!["averages_head_all.svg".to_owned()],
    ];
    assert_eq!(names, expected.concat());
    let drawn = std::fs::read_to_string(&files[2]).unwrap();
    assert!(
        drawn.contains("after corrupted input, at Tower*</title>"),
        "{drawn}"
    );
    assert!(drawn.contains("<title>head 1, layer 3: "), "{drawn}");
    for file in &files {
        let svg = std::fs::read_to_string(file).unwrap();
        roxmltree::Document::parse(&svg).unwrap();
    }
    let one = self::job(1, &kinds);
    let grids = self::results(&one, |n, kind| Some(Sent::Grid(of_heads(n, kind))));
    let one = Results::new(&one, &grids).unwrap();
    let shown = printed(|out| one.heatmaps(out, Some(80), Colour::Never));
    assert!(shown.contains("input, at in\n"), "{shown}");
    assert!(
        shown.contains("what a head gives at every token"),
        "{shown}"
    );
    assert_eq!(shown.matches("head 2 │").count(), 2, "{shown}");

    for (file, shape) in std::iter::zip(
        results.npz(folder.path()).unwrap(),
        ["(5, 3, 12)", "(3, 12)"],
    ) {
        let mut zip = zip::ZipArchive::new(std::fs::File::open(file).unwrap()).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut zip.by_name("scores.npy").unwrap(), &mut bytes).unwrap();
        let header = String::from_utf8_lossy(&bytes[..128]).into_owned();
        assert!(header.contains(shape), "{header}");
    }
}

#[test]
fn results_that_do_not_fit_their_job_are_refused() {
    let message = |job: &v1::Job, results: &[v1::UnitResult]| match Results::new(job, results) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    };
    let (job, good) = sweep();
    let other = v1::Job {
        spec: Some(Spec::Generate(Default::default())),
        ..job.clone()
    };
    assert!(message(&other, &[]).contains("jobs/j is not a tracing job"));

    let beyond = v1::UnitResult {
        unit: 12,
        ..good[0].clone()
    };
    assert!(message(&job, &[beyond]).contains("unit 12 of jobs/j is outside"));
    let moved = v1::UnitResult {
        unit: 1,
        ..good[0].clone()
    };
    assert!(message(&job, &[moved]).contains("another fact or kind"));
    let empty = v1::UnitResult {
        unit: 0,
        outcome: None,
    };
    assert!(message(&job, &[empty]).contains("neither a grid nor a failure"));
    let cut = v1::Grid {
        scores: vec![0.5],
        ..grid(0, v1::Kind::Hidden)
    };
    let cut = v1::UnitResult {
        unit: 0,
        outcome: Some(Sent::Grid(cut)),
    };
    assert!(message(&job, &[cut]).contains("unit 0: the grid of prompt"));
}

#[test]
fn a_prompt_cannot_steer_the_terminal() {
    let mut job = job(1, &[v1::Kind::Hidden]);
    let spec = asked(&mut job);
    spec.facts[0].prompt = "The \x1b[2JEiffel Tower is in".into();
    let fact = spec.facts[0].clone();
    let failed = v1::Failure {
        failure_class: 6,
        message: "\x1b]0;owned\x07".into(),
    };
    let grid = v1::Grid {
        fact: Some(fact),
        answer: "\x1b[31m".into(),
        ..grid(0, v1::Kind::Hidden)
    };
    for outcome in [Sent::Grid(grid), Sent::Failure(failed)] {
        let results = [v1::UnitResult {
            unit: 0,
            outcome: Some(outcome),
        }];
        let results = Results::new(&job, &results).unwrap();
        let text = printed(|out| {
            results.table(out, Some(80), Colour::Never)?;
            results.heatmaps(out, Some(80), Colour::Never)
        });
        assert!(!text.contains(['\x1b', '\x07']), "{text:?}");
    }
}

/// Two facts corrupted by another prompt, a third without one, in two metrics.
fn patched() -> (v1::Job, Vec<v1::UnitResult>) {
    let mut job = job(3, &[v1::Kind::Hidden]);
    let spec = asked(&mut job);
    spec.corruption = v1::Corruption::Counterfactual.into();
    let metrics = [v1::Metric::Probability, v1::Metric::LogitDifference];
    spec.metrics = metrics.map(i32::from).to_vec();
    let results = (0..3).map(|n| {
        let traced = grid(n, v1::Kind::Hidden);
        let grid = match n {
            2 => v1::Grid {
                untraced: "no partner: give it a corrupted prompt of its own".into(),
                ..v1::Grid {
                    correct_prediction: true,
                    ..untraced(n, v1::Kind::Hidden)
                }
            },
            _ => v1::Grid {
                corrupted: Some(v1::CorruptedPrompt {
                    prompt: "The Pisa Tower is in".into(),
                    tokens: vec![v1::Token::default(); TOKENS.len()],
                }),
                foil: Some(v1::Token {
                    id: 5,
                    text: " Pisa".into(),
                }),
                readings: vec![v1::MetricReading {
                    metric: v1::Metric::LogitDifference.into(),
                    clean: 4.0,
                    corrupted: -4.0,
                    scores: traced
                        .scores
                        .iter()
                        .map(|score| 10.0 * score - 4.0)
                        .collect(),
                }],
                ..traced
            },
        };
        v1::UnitResult {
            unit: n as u64,
            outcome: Some(Sent::Grid(grid)),
        }
    });
    let results = results.collect();
    (job, results)
}

#[test]
fn every_metric_has_its_report_and_what_had_no_partner_says_why() {
    let (job, results) = patched();
    let results = Results::new(&job, &results).unwrap();
    let all: Vec<Results> = results.by_metric().collect();
    assert_eq!(all.len(), 2);
    let text: Vec<String> = all
        .iter()
        .map(|it| {
            printed(|out| {
                it.heading(out)?;
                it.report(out, None, Colour::Never)
            })
        })
        .collect();
    assert!(text[0].starts_with("== probability"), "{}", text[0]);
    assert!(text[1].contains("== logit difference"), "{}", text[1]);
    for text in &text {
        for what in [
            "Paris (Pisa)",
            "no partner: give it a corrupted prompt of its own",
            "1 fact without a prompt to corrupt it with",
            "SHARE",
        ] {
            assert!(text.contains(what), "{what}: {text}");
        }
    }
    assert!(
        text[1].contains("The logit difference of the model's answers is 4.00"),
        "{}",
        text[1]
    );

    let mut lines = Vec::new();
    results.json_lines(&mut lines).unwrap();
    let lines: Vec<Value> = String::from_utf8(lines)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines[0]["metrics"]["logit_difference"]["corrupted"],
        json!(-4.0)
    );
    assert_eq!(
        lines[0]["corrupted"]["prompt"],
        json!("The Pisa Tower is in")
    );
    assert_eq!(lines[0]["foil"], json!(" Pisa"));
    assert!(
        lines[2]["untraced"]
            .as_str()
            .unwrap()
            .starts_with("no partner")
    );

    let folder = tempfile::tempdir().unwrap();
    let files = all[1].svg(folder.path()).unwrap();
    let name = |file: &std::path::PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(
        files
            .iter()
            .all(|file| name(file).contains("_logit_difference"))
    );
    let arrays = all[1].npz(folder.path()).unwrap();
    assert_eq!(arrays.len(), 3);
    let mut averages = Vec::new();
    all[1].averages_json(&mut averages, false).unwrap();
    let averages: Value = serde_json::from_slice(&averages).unwrap();
    assert_eq!(averages["metric"], json!("logit_difference"));
    assert_eq!(averages["total_effect"]["mean"], json!(8.0));
    assert_eq!(averages["left_out"], json!(1));
    assert_eq!(averages["without_share"], json!(0));
}

/// Estimates of which one cell of the largest and one by chance are verified.
fn estimated(n: usize, kind: v1::Kind) -> v1::Grid {
    let cell = |token, layer, random, exact| v1::VerifiedCell {
        token,
        layer,
        random,
        exact: vec![exact],
        ..Default::default()
    };
    v1::Grid {
        engine: v1::Engine::Attribution.into(),
        attribution_steps: 8,
        verified: vec![cell(2, 4, false, 0.25), cell(3, 1, true, 0.0625)],
        ..grid(n, kind)
    }
}

#[test]
fn estimates_are_called_so_and_shown_with_what_was_verified() {
    let job = job(2, &[v1::Kind::Mlp]);
    let results = results(&job, |n, kind| Some(Sent::Grid(estimated(n, kind))));
    let results = Results::new(&job, &results).unwrap();
    let words = "first-order estimate, gradients of 8 steps";
    let text = printed(|out| results.report(out, None, Colour::Never));
    assert!(
        text.starts_with(&format!(
            "Scores are estimates (attribution patching): {words}, not exact.\n"
        )),
        "{text}"
    );
    // 0.05 and half of 0.75 more are estimated, 0.25 is exact; the other cell has 0.0125.
    let row = text.lines().find(|line| line.contains("1 + 1")).unwrap();
    for part in ["1.00", "0.175", "Tower*, layer 4", "95 % over 0.0125"] {
        assert!(row.contains(part), "{row}: {part}");
    }
    assert!(text.contains(&format!("window, {words}\n")), "{text}");
    let averages = printed(|out| results.report_averages(out, None, Colour::Never));
    assert!(averages.starts_with("Scores are estimates"), "{averages}");
    assert!(
        averages.contains("with --engine exact before"),
        "{averages}"
    );

    let json = printed(|out| results.json_lines(out));
    let line: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&line["engine"], &line["estimate"]),
        (&json!("attribution"), &json!(words))
    );
    let found = &line["attribution"];
    assert_eq!(
        (&found["steps"], &found["grad_drop"]),
        (&json!(8), &json!(false))
    );
    assert_eq!(
        found["verified"][1],
        json!({
            "token": 3, "head": null, "layer": 1, "neuron": null, "random": true,
            "exact": {"probability": 0.0625}, "estimate": null,
        })
    );
    let found = &found["verification"]["probability"];
    assert_eq!(found["rank_correlation"], 1.0);
    assert_eq!(found["largest_miss"]["layer"], 4);
    assert!((found["missed"]["effect"].as_f64().unwrap() - 0.0125).abs() < 1e-12);

    let folder = tempfile::tempdir().unwrap();
    for file in results.svg(folder.path()).unwrap() {
        let figure = std::fs::read_to_string(&file).unwrap();
        assert!(
            figure.contains("first-order estimate"),
            "{}",
            file.display()
        );
    }
    let arrays = results.npz(folder.path()).unwrap();
    let bytes = std::fs::read(&arrays[0]).unwrap();
    for name in [
        "estimate.npy",
        "verified_cells.npy",
        "verified_random.npy",
        "verified_scores.npy",
    ] {
        let there = bytes.windows(name.len()).any(|it| it == name.as_bytes());
        assert!(there, "{name}");
    }
}
