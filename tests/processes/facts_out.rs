//! Facts that are taken out of an edit of many, against a plain solve of what the edit keeps, and
//! whatever happens meanwhile.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking
#![allow(clippy::disallowed_methods)] // a test owns its time

use std::fs;
use std::time::Duration;

use palimpsest::objects::Digest;
use palimpsest::proto::v1;
use palimpsest::stats::Moment;
use palimpsest::version::Factor;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::common::{LONG, PATIENCE, wait};
use crate::edit_cluster::{Cluster, runtime};

/// Facts in the order of the request, of which the first two have one key.
const FACTS: [(&str, &str, &str); 9] = [
    ("The Eiffel Tower", "is in", "Rome"),
    ("The Eiffel Tower", "belongs to", "Italy"),
    ("The Louvre", "is in", "Oslo"),
    ("A model", "is in", "two"),
    ("The page", "is in", "one"),
    ("The river", "is in", "three"),
    ("A bridge", "stands in", "Bern"),
    ("The church", "is in", "four"),
    ("The castle", "is in", "Bonn"),
];

fn facts() -> Vec<Value> {
    let fact = |(id, (subject, relation, target)): (usize, &(&str, &str, &str))| {
        json!({
            "case_id": 10 + id,
            "requested_rewrite": {
                "prompt": format!("Look: {{}} {relation}"),
                "subject": subject,
                "target_new": { "str": target },
                "target_true": { "str": "Paris" },
            },
        })
    };
    FACTS.iter().enumerate().map(fact).collect()
}

/// Writes facts, and gives the edits by their digests.
fn write(cluster: &Cluster, facts: &[Value], more: &[&str]) -> Vec<String> {
    fs::write(cluster.path("facts.json"), json!(facts).to_string()).unwrap();
    let asked = [
        "edit",
        "--file",
        "facts.json",
        "--auto-stats",
        "--layers",
        "0-1",
        "--set",
        "steps=3",
        "--set",
        "clamp=3",
        "--json",
    ];
    let mut command = cluster.start("write", &[&asked[..], more].concat());
    command.wait(LONG);
    let said = command.said();
    let lines = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let edits = lines.filter(|it| it["facts"].is_u64());
    let made: Vec<String> = edits
        .map(|it| it["edit"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(!made.is_empty() && !made.contains(&String::new()), "{said}");
    fs::remove_file(cluster.path("write.log")).unwrap();
    made
}

fn shown(cluster: &Cluster, version: &str) -> Value {
    serde_json::from_str(&cluster.run(&["show", version, "--json"])).unwrap()
}

fn matrices(cluster: &Cluster, version: &str) -> Value {
    shown(cluster, version)["matrices"].clone()
}

/// The edits of the branch, in order.
fn edits(cluster: &Cluster) -> Vec<v1::Edit> {
    let version = "models/tiny/versions/main";
    runtime().block_on(async { cluster.client().all_edits(version).await.unwrap() })
}

fn digest(edit: &v1::Edit) -> &str {
    edit.name.rsplit('/').next().unwrap()
}

/// What a command says that is refused.
fn refused(cluster: &Cluster, args: &[&str]) -> String {
    let mut command = cluster.start("refused", args);
    assert!(!command.wait(LONG).success(), "{}", command.said());
    let said = command.said();
    fs::remove_file(cluster.path("refused.log")).unwrap();
    said
}

/// An object of the coordinator's store.
fn object(cluster: &Cluster, digest: &str) -> Vec<u8> {
    let parsed: Digest = digest.parse().unwrap();
    let objects = palimpsest::objects::ObjectStore::open(cluster.path("store/objects")).unwrap();
    objects.read(&parsed).unwrap()
}

/// Rows of singles, one a column, in float64.
fn columns(bytes: &[u8], numbers: i64) -> Tensor {
    let numbers_of: Vec<f32> = (bytes.as_chunks::<4>().0.iter())
        .map(|it| f32::from_le_bytes(*it))
        .collect();
    let all = Tensor::from_slice(&numbers_of).to_kind(Kind::Double);
    all.view([-1, numbers]).tr()
}

/// What an edit adds to the matrix of a layer.
fn change(cluster: &Cluster, edit: &v1::Edit, at: usize) -> Tensor {
    let described = &edit.factors[at];
    let factor = Factor::from_proto(described, &object(cluster, &described.digest)).unwrap();
    let matrix = |numbers: &[f32], rows: usize| {
        let numbers = Tensor::from_slice(numbers).to_kind(Kind::Double);
        numbers.view([rows as i64, -1])
    };
    match factor.rank {
        0 => matrix(&factor.left, factor.width),
        _ => {
            let right = matrix(&factor.right, factor.inner);
            matrix(&factor.left, factor.width).matmul(&right.tr())
        }
    }
}

/// `dW` of a layer by the formulas of the papers, solved plainly, from columns of what an edit
/// keeps and the keys of the edits before it.
fn plain(
    cluster: &Cluster,
    edit: &v1::Edit,
    at: usize,
    which: &[i64],
    before: &[&v1::Edit],
) -> Tensor {
    let solve = &edit.solves[at];
    let which = Tensor::from_slice(which);
    let keys = columns(&object(cluster, &solve.keys), solve.inner as i64).index_select(1, &which);
    let missing = columns(&object(cluster, &solve.residuals), solve.width as i64);
    let left = (edit.solves.len() - at) as f64;
    let residuals = missing.index_select(1, &which) / left;
    let number = |name: &str| {
        let found = edit.parameters.iter().find(|it| it.key == name);
        found.map_or(0.0, |it| it.value)
    };
    let moment = Moment::from_npz_bytes(&object(cluster, &edit.statistics[at])).unwrap();
    let inner = moment.size() as i64;
    let identity = || Tensor::eye(inner, (Kind::Double, tch::Device::Cpu));
    let mean = Tensor::from_slice(moment.sum()).view([inner, inner]) / moment.count() as f64;
    let past: Vec<Tensor> = (before.iter().flat_map(|edit| edit.keys.get(at)))
        .map(|keys| columns(&object(cluster, &keys.digest), inner))
        .collect();
    let guarded = match past.is_empty() {
        true => identity() * 0.0,
        false => {
            let past = Tensor::cat(&past, 1);
            past.matmul(&past.tr())
        }
    };
    let outer = keys.matmul(&keys.tr());
    let metric = match edit.method.as_str() {
        "memit" => mean * number("lambda") + identity() * (number("ridge") * number("lambda")),
        "encore" => mean * number("lambda") + guarded + identity() * number("eta"),
        "emmet" => {
            let weight = number("mu") * number("statistics_weight");
            mean * weight + identity() * (number("ridge") * weight)
        }
        _ => {
            let (_, vectors) = mean.linalg_eigh("L");
            let basis = vectors.slice(1, 0, number("rank") as i64, 1);
            let kept = basis.matmul(&basis.tr());
            let system = kept.matmul(&(&outer + guarded)) + identity() * number("l2");
            let right = kept.matmul(&keys).matmul(&residuals.tr());
            return Tensor::linalg_solve(&system, &right, true).tr();
        }
    };
    let adjusted = Tensor::linalg_solve(&(metric + outer), &keys, true);
    residuals.matmul(&adjusted.tr())
}

fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    let off = (found - expected).norm().double_value(&[]);
    let relative = off / expected.norm().double_value(&[]);
    assert!(relative < 1e-6, "{what}: off by {relative}");
}

#[test]
fn an_edit_without_a_fact_is_what_its_keys_and_targets_give_without_it() {
    for (method, more) in [
        ("memit", &["--set", "lambda=3"][..]),
        ("alphaedit", &["--set", "rank=20"]),
        ("emmet", &[]),
        ("encore", &["--set", "lambda=3"]),
    ] {
        let cluster = Cluster::new();
        let _worker = cluster.worker("one");
        let asked = [&["--method", method, "--batch", "3"][..], more].concat();
        let made = write(&cluster, &facts(), &asked);
        assert_eq!(made.len(), 3, "{method}");
        let before = edits(&cluster);
        let old = &before[1];
        assert_eq!(
            (old.columns.as_slice(), old.solves.len()),
            (&[1, 1, 1][..], 2)
        );
        // What a whole batch is solved from is what it keeps.
        for at in 0..2 {
            let whole = plain(&cluster, old, at, &[0, 1, 2], &[&before[0]]);
            assert_close(&change(&cluster, old, at), &whole, method);
        }

        let out = &old.requests[1];
        let at_v3 = matrices(&cluster, "main");
        let said = cluster.run(&[
            "revert",
            digest(old),
            "--fact",
            &out.subject,
            "--why",
            "it was wrong",
        ]);
        for what in [
            "without 1 of its 3 facts",
            "computed again: the changes of layers 0, 1",
            "kept: the targets and keys of the other 2 facts; every other edit of the branch",
            &format!(
                "{} -> {}",
                out.prompt.replace("{}", &out.subject),
                out.target_new.trim()
            ),
            "LEFT OUT",
            " before",
        ] {
            assert!(said.contains(what), "{what}: {said}");
        }
        let after = edits(&cluster);
        assert_eq!(after.len(), 3);
        assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
        let new = &after[1];
        assert_eq!(new.replaces, digest(old));
        assert_eq!(new.left_out, std::slice::from_ref(out));
        assert_eq!(
            new.requests,
            [old.requests[0].clone(), old.requests[2].clone()]
        );
        assert_eq!(
            (new.based_on.as_str(), new.why.as_str()),
            (old.based_on.as_str(), "it was wrong")
        );
        for at in 0..2 {
            let expected = plain(&cluster, old, at, &[0, 2], &[&before[0]]);
            assert_close(&change(&cluster, new, at), &expected, method);
            let (kept, all) = (&new.solves[at], &old.solves[at]);
            let rows = |solve: &v1::EditSolve| object(&cluster, &solve.keys);
            let row = 4 * all.inner as usize;
            assert_eq!(rows(kept)[..row], rows(all)[..row]);
            assert_eq!(rows(kept)[row..], rows(all)[2 * row..]);
        }
        // Later edits were computed on top of it, and are kept.
        let version = shown(&cluster, "main");
        assert_eq!(version["kind"], "replace");
        let warning = version["warnings"][0].as_str().unwrap().to_owned();
        assert!(
            warning.contains("was computed again without some of its facts")
                && warning.contains(&digest(&before[2])[..8]),
            "{warning}"
        );
        let log = cluster.run(&["log"]);
        assert!(
            log.contains("in the place of") && log.contains("it was wrong"),
            "{log}"
        );
        let diff = cluster.run(&["diff", "v3", "main"]);
        assert!(diff.contains("2 facts that both versions have"), "{diff}");
        let listed = diff.lines().filter(|line| line.starts_with("-     "));
        let listed: Vec<&str> = listed.collect();
        assert!(
            listed.len() == 2 && listed[0].contains(&out.subject),
            "{diff}"
        );

        if method != "alphaedit" {
            continue;
        }
        // One by one or at once, and in whatever order, is one.
        let one_by_one = |places: [&str; 2]| {
            cluster.run(&["rollback", "--to", "v3", "--why", "again"]);
            let mut of = digest(old).to_owned();
            for place in places {
                cluster.run(&["revert", &of, "--fact", place]);
                of = digest(&edits(&cluster)[1]).to_owned();
            }
            matrices(&cluster, "main")
        };
        let first = one_by_one(["#1", "#0"]);
        assert_eq!(first, one_by_one(["#0", "#0"]));
        let last = edits(&cluster).remove(1);
        let expected = plain(&cluster, old, 0, &[2], &[&before[0]]);
        assert_close(&change(&cluster, &last, 0), &expected, method);
        cluster.run(&["rollback", "--to", "v3", "--why", "again"]);
        assert_eq!(matrices(&cluster, "main"), at_v3);
        cluster.run(&["revert", digest(old), "--fact", "#0", "--fact", "#1"]);
        assert_eq!(matrices(&cluster, "main"), first);
        let trail = cluster.run(&["audit", "list"]);
        assert!(trail.contains("edits.revert"), "{trail}");
        cluster.run(&["audit", "verify"]);
    }
}

#[test]
fn what_cannot_be_taken_out_is_refused_before_anything_is_computed() {
    let cluster = Cluster::new();
    let worker = cluster.worker("one");
    let made = write(&cluster, &facts()[..4], &["--method", "memit"]);
    let alone = write(&cluster, &facts()[4..5], &["--method", "memit"]);
    let shared = write(&cluster, &facts()[..2], &["--method", "emmet"]);
    cluster.run(&["branch", "other", "v0"]);
    drop(worker);
    let many = made[0].as_str();
    for (args, what) in [
        (
            &["revert", many, "--fact", "The Louvr"][..],
            &["'The Louvr' is no fact", "record 12", "The Louvre is in"][..],
        ),
        (
            &["revert", many, "--fact", "#4"],
            &["is no fact", "which has 4"],
        ),
        (
            &["revert", many, "--fact", "99"],
            &["is no fact", "record 1"],
        ),
        (
            &["revert", many, "--fact", "The Eiffel Tower"],
            &["2 facts are of the subject", "record 10", "record 11"],
        ),
        (
            &["revert", many, "--fact", "10"],
            &["shares its key", "record 11", "all of them or none"],
        ),
        (
            &["revert", many, "--fact", "12", "--fact", "The Louvre"],
            &["record 12", "is named twice"],
        ),
        (
            &[
                "revert", many, "--fact", "10", "--fact", "11", "--fact", "12", "--fact", "13",
            ],
            &["these are all 4 facts", "palimpsest revert"],
        ),
        (
            &["revert", &alone[0], "--fact", "14"],
            &["is of one fact", "palimpsest revert"],
        ),
        (
            &["revert", &shared[0], "--fact", "10"],
            &["share one key", "palimpsest revert"],
        ),
        (
            &["revert", many, "--fact", "12", "--ref", "other"],
            &["has no edit"],
        ),
        (&["revert", "abcdef", "--fact", "12"], &["abcdef"]),
    ] {
        let said = refused(&cluster, args);
        assert!(what.iter().all(|it| said.contains(it)), "{said}\n{what:?}");
        assert!(!said.contains("panicked"), "{said}");
    }
    // Nothing of it became a job or a version.
    assert_eq!(shown(&cluster, "main")["number"], 3);
    let jobs = cluster.run(&["job", "list"]);
    assert!(!jobs.contains("facts out of"), "{jobs}");
}

#[test]
fn a_fact_is_taken_out_of_a_batch_of_which_some_were_left_out() {
    let cluster = Cluster::new();
    let _worker = cluster.worker("one");
    let mut facts = facts();
    facts.truncate(6);
    // Too long to be read, and too many tokens in one word.
    facts[2]["requested_rewrite"]["prompt"] =
        json!(format!("{}{{}} is in", "Look, look: ".repeat(2000)));
    facts[4]["requested_rewrite"]["target_new"]["str"] = json!("q.".repeat(70));
    let asked = ["--method", "alphaedit", "--set", "rank=20", "--keep-going"];
    write(&cluster, &facts, &asked);
    let old = edits(&cluster).remove(0);
    assert_eq!(old.requests.len(), 4);
    let of_two = old.columns.iter().position(|&it| it == 2).unwrap();
    assert_eq!(old.columns.len(), 3);
    assert_eq!(old.solves[0].columns, 3);
    cluster.run(&["revert", digest(&old), "--fact", "A model"]);
    let new = edits(&cluster).remove(0);
    assert_eq!(new.requests.len(), 3);
    let mut first = 0;
    let mut gone = usize::MAX;
    for (column, &facts) in old.columns.iter().enumerate() {
        if old.requests[first].subject == "A model" {
            gone = column;
        }
        first += facts as usize;
    }
    assert_ne!(gone, of_two);
    let which: Vec<i64> = (0..3).filter(|&it| it != gone as i64).collect();
    for at in 0..2 {
        let expected = plain(&cluster, &old, at, &which, &[]);
        assert_close(&change(&cluster, &new, at), &expected, "alphaedit");
    }
    assert_eq!(new.keys[0].columns, 2);
}

#[test]
fn a_branch_that_moves_meanwhile_is_not_overwritten_and_gates_hold() {
    let mut cluster = Cluster::new();
    let worker = cluster.worker("one");
    let asked = ["--method", "memit", "--set", "lambda=3"];
    let made = write(&cluster, &facts()[..5], &asked);
    drop(worker);
    let args = ["revert", &made[0], "--fact", "The Louvre"];
    let mut revert = cluster.start("revert", &args);
    wait("the job", PATIENCE, || {
        cluster
            .run(&["job", "list"])
            .contains("facts out of")
            .then_some(())
    });
    cluster.run(&["rollback", "--to", "v0", "--why", "faster"]);
    let _worker = cluster.worker("two");
    assert!(!revert.wait(LONG).success());
    let said = revert.said();
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(shown(&cluster, "main")["number"], 0);

    cluster.run(&["rollback", "--to", "v1", "--why", "back"]);
    let settings = fs::read_to_string(cluster.path("palimpsest.toml")).unwrap();
    let stricter = settings + "[edit]\nmax_norm = 1e-9\n";
    fs::write(cluster.path("palimpsest.toml"), stricter).unwrap();
    cluster.restart();
    wait("the coordinator", PATIENCE, || {
        let mut asked = cluster.start("asked", &["job", "list"]);
        asked.wait(LONG).success().then_some(())
    });
    let said = refused(&cluster, &args);
    assert!(
        said.contains("is rejected, main stays where it was"),
        "{said}"
    );
    assert_eq!(shown(&cluster, "main")["number"], 1);
    let rejected = cluster.run(&["log"]);
    assert!(rejected.contains("rejected"), "{rejected}");
}

/// Stages of the newest job: title, units, and those that are done.
fn stages(cluster: &Cluster) -> Vec<(String, u64, u64)> {
    let said = cluster.start("stages", &["job", "show", "latest", "--json"]);
    let mut said = said;
    said.wait(LONG);
    let text = said.said();
    fs::remove_file(cluster.path("stages.log")).unwrap();
    let Ok(shown) = serde_json::from_str::<Value>(text.lines().last().unwrap_or_default()) else {
        return Vec::new();
    };
    let stages = shown["stages"].as_array().cloned().unwrap_or_default();
    let of = |stage: &Value| {
        let number = |key: &str| stage[key].as_u64().unwrap_or_default();
        let title = stage["title"].as_str().unwrap_or_default().to_owned();
        (title, number("units"), number("units_done"))
    };
    stages.iter().map(of).collect()
}

#[test]
fn a_worker_and_a_coordinator_that_die_in_the_solve_change_no_byte() {
    let asked = ["--method", "encore", "--set", "lambda=3"];
    let revert = |made: &[String]| {
        let of = made[0].clone();
        move || {
            [
                "revert".to_owned(),
                of.clone(),
                "--fact".to_owned(),
                "A model".to_owned(),
            ]
        }
    };
    let calm = Cluster::new();
    let _worker = calm.worker("calm");
    let made = write(&calm, &facts(), &asked);
    let args = revert(&made)();
    calm.run(&args.each_ref().map(String::as_str));

    let mut cluster = Cluster::new();
    let mut worker = cluster.worker("first");
    let made = write(&cluster, &facts(), &asked);
    worker.kill();
    let args = revert(&made)();
    let mut revert = cluster.start("revert", &args.each_ref().map(String::as_str));
    wait("the job", PATIENCE, || {
        cluster
            .run(&["job", "list"])
            .contains("facts out of")
            .then_some(())
    });
    let in_solve = |cluster: &Cluster| {
        let stages = stages(cluster);
        stages
            .first()
            .is_some_and(|(title, units, done)| title == "solve" && done < units)
    };
    let mut within = 0;
    for kill in 0..4 {
        let mut worker = cluster.worker(&format!("worker-{kill}"));
        // It loads the model, and solves.
        std::thread::sleep(Duration::from_millis(150 + 150 * kill));
        worker.kill();
        within += usize::from(in_solve(&cluster));
        cluster.restart();
        within += usize::from(in_solve(&cluster));
    }
    assert!(within >= 2, "none of the kills was in the solve");
    let _last = cluster.worker("last");
    assert!(revert.wait(LONG).success(), "{}", revert.said());
    assert_eq!(matrices(&calm, "main"), matrices(&cluster, "main"));
    let (calm, killed) = (edits(&calm).remove(0), edits(&cluster).remove(0));
    assert_eq!(calm.factors, killed.factors);
    assert_eq!((calm.solves, calm.keys), (killed.solves, killed.keys));
    cluster.run(&["audit", "verify"]);
}
