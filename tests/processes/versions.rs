//! Versions as users see them: made, taken back in any order, named, exported, and entered into a
//! log that shows when it was tampered with.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::{LONG, Site, fixture};
use palimpsest::model::Checkpoint;
use palimpsest::proto::v1;
use palimpsest::store::{Change, Record, Store};
use palimpsest::version::{
    Authorship, Base, Expected, Factor, History, MAIN, RefMovement, VersionDraft, check_whole,
    digest_of,
};
use prost::Message;
use serde_json::Value;

/// A site with a tiny model in the store of the coordinator inside the commands.
struct Archive {
    site: Site,
    source: PathBuf,
}

impl Archive {
    fn new(name: &str) -> Self {
        let (site, source) = (Site::new(), fixture(name));
        let archive = Self { site, source };
        archive.run(&[
            "model",
            "import",
            archive.source.to_str().unwrap(),
            "--name",
            "m",
        ]);
        archive
    }

    fn run(&self, args: &[&str]) -> String {
        self.site.run(args, LONG)
    }

    /// A command that has to fail: what it says.
    fn refused(&self, args: &[&str]) -> String {
        let Output { status, stderr, .. } = self.site.command(args).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert!(!status.success(), "{args:?} went through: {said}");
        said
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[args, &["--json"]].concat())).unwrap()
    }

    /// Imports an edit of rank `rank` in a layer, its numbers from a seed, and gives its digest.
    fn edit(&self, layer: usize, rank: usize, seed: u32, more: &[&str]) -> String {
        let file = self.factors(layer, rank, seed);
        let args = ["edit", "import", file.to_str().unwrap()];
        let version = self.run(&[&args, more].concat());
        let id = version.trim().rsplit('/').next().unwrap().to_owned();
        self.json(&["show", &id])["edit"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn factors(&self, layer: usize, rank: usize, seed: u32) -> PathBuf {
        let checkpoint = Checkpoint::open(&self.source).unwrap();
        let down = checkpoint.layout().layers[layer].down().unwrap();
        let (width, inner) = match down.transposed {
            true => (down.weight.shape[1], down.weight.shape[0]),
            false => (down.weight.shape[0], down.weight.shape[1]),
        };
        let mut state = seed;
        let mut numbers = |count: usize| -> Vec<u8> {
            let next = |state: &mut u32| {
                *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((*state >> 8) as f32 / 16_777_216.0 - 0.5) * 0.6
            };
            (0..count)
                .flat_map(|_| next(&mut state).to_le_bytes())
                .collect()
        };
        let (left, right) = (numbers(width * rank), numbers(inner * rank));
        let view = |rows, data| {
            let shape = vec![rows, rank];
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, data).unwrap()
        };
        let name = &down.weight.name;
        let tensors = [
            (format!("{name}.left"), view(width, &left)),
            (format!("{name}.right"), view(inner, &right)),
        ];
        let path = self.site.path(&format!("edit-{layer}-{seed}.safetensors"));
        safetensors::serialize_to_file(tensors, None, &path).unwrap();
        path
    }

    fn store(&self) -> PathBuf {
        self.site.path("data/palimpsest")
    }
}

/// Names and digests of the matrices that a version edits.
fn matrices(version: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let matrices = version["matrices"].as_array().unwrap();
    matrices
        .iter()
        .map(|m| (text(&m["tensor"]), text(&m["digest"])))
        .collect()
}

#[test]
fn edits_are_taken_back_in_any_order_and_the_bytes_are_those_of_never_having_made_them() {
    // GPT-2 stores its matrices the other way round.
    let archive = Archive::new("gpt2");
    let prompt = [
        "--prompt",
        "{} is in the city of",
        "--subject",
        "Aster",
        "--target",
        "Rome",
    ];
    let first = archive.edit(0, 1, 1, &[&prompt[..], &["--why", "a try"]].concat());
    let second = archive.edit(1, 2, 2, &[]);
    let third = archive.edit(0, 1, 3, &[]);
    let all = archive.json(&["show", "main"]);
    assert_eq!(all["number"], 3);
    assert_eq!(all["edits"], serde_json::json!([first, second, third]));

    // Back to the start and forth again: a movement, and nothing is lost.
    archive.run(&["rollback", "--to", "v0", "--why", "start over"]);
    assert_eq!(archive.json(&["show"])["number"], 0);
    archive.run(&["rollback", "--to", "v3"]);
    assert_eq!(archive.json(&["show"]), all);

    // One out of the middle: the same weights as the other two made afresh on another branch.
    archive.run(&["revert", &first[..10]]);
    let reverted = archive.json(&["show", "main"]);
    assert_eq!(reverted["edits"], serde_json::json!([second, third]));
    let warnings = reverted["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 2, "{reverted}");
    assert!(
        warnings[0]
            .as_str()
            .unwrap()
            .contains("was computed on top of")
    );
    archive.run(&["branch", "other", "v0"]);
    archive.run(&["cherry-pick", &second, "--onto", "other"]);
    archive.run(&["cherry-pick", &third, "--onto", "other"]);
    let afresh = archive.json(&["show", "other"]);
    assert_ne!(afresh["name"], reverted["name"]);
    assert_eq!(matrices(&afresh), matrices(&reverted));
    assert_eq!(
        archive
            .run(&["diff", "main", "other"])
            .lines()
            .last()
            .unwrap(),
        "the same weights, bit for bit"
    );
    // Without the second, layer 1 is the base's again: no matrix of it is listed.
    archive.run(&["revert", &second, "--ref", "other"]);
    assert_eq!(matrices(&archive.json(&["show", "other"])).len(), 1);

    let diff = archive.run(&["diff", "v0", "v3"]);
    assert!(diff.contains("Aster is in the city of -> Rome"), "{diff}");
    let log = archive.run(&["log"]);
    assert!(log.contains("(main)") && log.contains("(other)"), "{log}");
    assert!(log.contains("├─╯"), "two branches leave the base:\n{log}");
    assert!(log.contains("a try") && log.contains("! edit"), "{log}");
}

#[test]
fn what_moved_meanwhile_what_is_a_tag_and_what_is_not_there_are_refused_by_name() {
    let archive = Archive::new("llama");
    let seen = archive.run(&["refs", "--json"]);
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let first = archive.edit(0, 1, 1, &[]);
    let file = archive.factors(0, 1, 2);
    let late = archive.refused(&[
        "edit",
        "import",
        file.to_str().unwrap(),
        "--etag",
        seen["etag"].as_str().unwrap(),
    ]);
    assert!(
        late.contains("models/m/refs/main moved meanwhile"),
        "{late}"
    );
    assert!(late.contains("etag 1-"), "{late}");

    archive.run(&["tag", "released"]);
    for args in [
        &["tag", "released", "v0"][..],
        &["rollback", "--ref", "released", "--to", "v0"],
        &[
            "edit",
            "import",
            file.to_str().unwrap(),
            "--ref",
            "released",
        ],
    ] {
        let said = archive.refused(args);
        assert!(said.contains("released"), "{said}");
    }
    archive.run(&["tag", "released", "v0", "--force"]);
    assert_eq!(archive.json(&["show", "released"])["number"], 0);
    for bad in ["v3", "abcdef12", "Main"] {
        let said = archive.refused(&["tag", bad]);
        assert!(said.contains(bad), "{said}");
    }
    for args in [
        &["rollback", "--to", "v9"][..],
        &["rollback", "--to", "main~5"],
        &["show", "beefbeef"],
        &["revert", "beefbeef"],
        &["cherry-pick", &first],
        &["diff", "nowhere"],
    ] {
        archive.refused(args);
    }
    // A matrix that edits do not change, and one of another shape.
    let wrong = archive.site.path("wrong.safetensors");
    let data = [0_u8; 16];
    for (name, expected) in [
        (
            "model.layers.0.mlp.up_proj.weight",
            "is no matrix that edits change",
        ),
        ("model.layers.0.mlp.down_proj.weight", "width is 4, not"),
    ] {
        let view = || safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![4], &data);
        let tensors = [
            (format!("{name}.left"), view().unwrap()),
            (format!("{name}.right"), view().unwrap()),
        ];
        safetensors::serialize_to_file(tensors, None, &wrong).unwrap();
        let said = archive.refused(&["edit", "import", wrong.to_str().unwrap()]);
        assert!(said.contains(expected), "{said}");
    }
    // Nothing of all that changed anything, and all of it is on record.
    assert_eq!(archive.json(&["show"])["number"], 1);
    let refused = archive.run(&["audit", "list", "--refused", "--json"]);
    let actions: Vec<String> = refused
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["action"].to_string())
        .collect();
    for action in [
        "edits.create",
        "refs.create",
        "refs.update",
        "edits.cherry_pick",
    ] {
        assert!(
            actions.contains(&format!("\"{action}\"")),
            "{action} in {actions:?}"
        );
    }
    archive.run(&["audit", "verify"]);
}

/// I9: where the objects of a version have gone, no ref goes there.
#[test]
fn a_ref_is_not_moved_to_a_version_of_which_something_is_lost() {
    let archive = Archive::new("llama");
    let before = object_files(&archive.store());
    archive.edit(0, 1, 1, &[]);
    archive.run(&["rollback", "--to", "v0"]);
    archive.run(&["rollback", "--to", "v1"]);
    archive.run(&["rollback", "--to", "v0"]);
    let factors: Vec<PathBuf> = object_files(&archive.store())
        .into_iter()
        .filter(|path| !before.contains(path))
        .collect();
    assert_eq!(factors.len(), 1);
    std::fs::remove_file(&factors[0]).unwrap();
    for args in [&["rollback", "--to", "v1"][..], &["branch", "lost", "v1"]] {
        let said = archive.refused(args);
        assert!(said.contains("the factor"), "{args:?}: {said}");
    }
    assert_eq!(archive.json(&["show"])["number"], 0);
}

/// The files of all objects.
fn object_files(store: &Path) -> Vec<PathBuf> {
    let mut folders = vec![store.join("objects")];
    let mut files = Vec::new();
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            folders.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|it| it.unwrap().path()),
            );
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn the_audit_log_names_who_did_what_and_shows_when_it_was_tampered_with() {
    let archive = Archive::new("llama");
    archive.edit(0, 1, 1, &["--why", "because"]);
    let kept = archive.site.path("checkpoint");
    std::fs::write(&kept, archive.run(&["audit", "checkpoint"])).unwrap();
    let key = archive.run(&["audit", "key"]);
    archive.run(&["rollback", "--to", "v0", "--why", "not true"]);

    let entries: Vec<Value> = archive
        .run(&["audit", "list", "--json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let actions: Vec<&str> = entries
        .iter()
        .map(|e| e["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["models.create", "edits.create", "refs.update"]);
    assert_eq!(entries[2]["why"], "not true");
    assert_eq!(entries[2]["version_before"], entries[1]["version_after"]);
    assert_eq!(entries[2]["version_after"], entries[1]["version_before"]);
    assert_eq!(entries[2]["resource"], "models/m/refs/main");
    assert_ne!(entries[2]["principal"], "");
    assert_eq!(
        archive
            .run(&["audit", "list", "--action", "refs", "--json"])
            .lines()
            .count(),
        1
    );

    let verify = [
        "audit",
        "verify",
        "--since",
        kept.to_str().unwrap(),
        "--key",
        key.trim(),
    ];
    archive.run(&verify);
    let proof: Value = serde_json::from_str(&archive.run(&["audit", "prove", "2"])).unwrap();
    assert_eq!(proof["entry"]["action"], "edits.create");
    assert_eq!(archive.run(&["audit", "export"]).lines().count(), 3);

    let leaves: Vec<Vec<u8>> = {
        let store = Store::open(&archive.store()).unwrap();
        store
            .audit_entries(0)
            .map(|(_, leaf)| leaf.unwrap())
            .collect()
    };
    let put = |place: usize, leaf: &[u8]| {
        let store = Store::open(&archive.store()).unwrap();
        let record = Record::audit_entry(place as u64, leaf.to_vec());
        store.commit(&[Change::Record(record)]).unwrap();
    };
    // Somebody else's name in an entry, and two entries that changed places.
    let mut forged = v1::AuditEntry::decode(leaves[1].as_slice()).unwrap();
    forged.principal = "eve".to_owned();
    put(2, &forged.encode_to_vec());
    let said = archive.refused(&verify);
    assert!(said.contains("entry 3 does not follow"), "{said}");
    put(2, &leaves[0]);
    let said = archive.refused(&verify);
    assert!(said.contains("at place 2 lies entry 1"), "{said}");
    put(2, &leaves[1]);
    archive.run(&verify);
    // An entry that nobody signed: nothing is changed on such a log, not even by an admin.
    put(4, &leaves[2]);
    let said = archive.refused(&["rollback", "--to", "v1"]);
    assert!(said.contains("the audit log is damaged"), "{said}");
    assert_eq!(archive.json(&["show"])["number"], 0);
    let said = archive.refused(&verify);
    assert!(said.contains("only 3 were signed"), "{said}");
}

#[test]
fn factors_that_were_exported_make_the_same_version_elsewhere() {
    let archive = Archive::new("llama");
    archive.edit(0, 1, 1, &[]);
    archive.edit(1, 3, 2, &[]);
    let file = archive.site.path("factors.safetensors");
    archive.run(&["export", file.to_str().unwrap(), "--format", "factors"]);
    let elsewhere = Archive::new("llama");
    elsewhere.run(&["edit", "import", file.to_str().unwrap()]);
    let (ours, theirs) = (archive.json(&["show"]), elsewhere.json(&["show"]));
    assert_eq!(matrices(&ours), matrices(&theirs));
    // What is there already is left alone.
    let said = archive.refused(&["export", file.to_str().unwrap(), "--format", "factors"]);
    assert!(said.contains("is there already"), "{said}");
}

#[test]
fn an_export_leaves_what_lies_beside_it_alone() {
    let archive = Archive::new("llama");
    let neighbours = [
        "out.sources",
        "out.partial",
        "a.gguf.sources",
        "a.gguf.partial",
    ];
    for name in neighbours {
        let folder = archive.site.path(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("notes"), "mine").unwrap();
    }
    let (out, file) = (archive.site.path("out"), archive.site.path("a.gguf"));
    archive.run(&["export", out.to_str().unwrap()]);
    // One that fails before it writes anything.
    let said = archive.refused(&["export", file.to_str().unwrap(), "--format", "gguf-lora"]);
    assert!(said.contains("would be empty"), "{said}");
    for name in neighbours {
        let notes = archive.site.path(name).join("notes");
        assert_eq!(std::fs::read_to_string(notes).unwrap(), "mine", "{name}");
    }
}

#[test]
fn an_exported_model_opens_with_the_digests_of_its_version() {
    for (source, form) in [
        ("llama", "folder"),
        ("llama/model.q8_0.gguf", "gguf"),
        ("gpt2", "folder"),
    ] {
        let archive = Archive::new(source);
        archive.edit(0, 1, 1, &[]);
        archive.edit(1, 2, 2, &[]);
        let out = archive.site.path("exported");
        archive.run(&["export", out.to_str().unwrap()]);
        let exported = Checkpoint::open(&out).unwrap();
        let base = Checkpoint::open(&archive.source).unwrap();
        let version = matrices(&archive.json(&["show"]));
        assert_eq!(version.len(), 2);
        for info in base.tensors() {
            let found = exported.tensor(&info.name).unwrap();
            let digest = palimpsest::objects::Digest::of(&found.bytes).to_string();
            match version.iter().find(|(name, _)| *name == info.name) {
                Some((name, expected)) => assert_eq!(digest, *expected, "{name} of {source}"),
                None => assert_eq!(
                    found.bytes,
                    base.tensor(&info.name).unwrap().bytes,
                    "{form}"
                ),
            }
        }
        let leftovers = std::fs::read_dir(archive.site.path("")).unwrap();
        let leftovers: Vec<_> = leftovers
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains(".partial") || name.contains(".sources"))
            .collect();
        assert_eq!(leftovers, Vec::<String>::new());
    }
}

#[test]
fn after_a_hundred_edits_the_fiftieth_comes_out_and_all_digests_are_those_of_the_rest_afresh() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let source = fixture("gpt2");
    let checkpoint = Checkpoint::open(&source).unwrap();
    let layers = checkpoint.layout().layers.len();
    let base = Base::new(checkpoint);
    let history = History::new(&store, "m", "the base's digest");
    let by = Authorship {
        author: "ada".to_owned(),
        ..Default::default()
    };
    let mut state = 1_u32;
    let mut numbers = |count: usize| -> Vec<f32> {
        let next = |state: &mut u32| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((*state >> 8) as f32 / 16_777_216.0 - 0.5) * 0.1
        };
        (0..count).map(|_| next(&mut state)).collect()
    };
    let move_to = |draft: &VersionDraft| {
        let movement = RefMovement {
            ref_id: MAIN,
            expected: Vec::new(),
            force: false,
            by: &by,
        };
        let moved = movement.to_draft(history, draft).unwrap();
        store.commit(&moved.changes).unwrap();
        history.filled(moved.version.unwrap()).unwrap()
    };
    let pristine = history.base();
    let mut parent = pristine.clone();
    let (mut edits, mut factors) = (Vec::new(), Vec::new());
    for n in 0..100 {
        let layout = base.checkpoint().layout();
        let down = &layout.layers[n % layers].down().unwrap().weight;
        // GPT-2 stores it as [inner, width].
        let (left, right) = (numbers(down.shape[1]), numbers(down.shape[0]));
        let factor = Factor::rank_one(&down.name, n % layers, left, right);
        let edit = v1::Edit {
            method: "import".to_owned(),
            factors: vec![factor.to_proto()],
            ..Default::default()
        };
        let draft = VersionDraft::edit(history, &base, &parent, edit, &by).unwrap();
        edits.push(draft.edit.clone().unwrap());
        factors.push(factor);
        parent = move_to(&draft);
        assert_eq!(parent.number, n as u64 + 1);
    }
    assert_eq!(parent.matrices, base.matrices(&factors).unwrap());

    let draft = VersionDraft::revert(history, &base, &parent, &edits[49], &by).unwrap();
    let [warning] = draft.version.warnings.as_slice() else {
        panic!("{:?}", draft.version.warnings);
    };
    assert!(warning.starts_with("50 later edits were"), "{warning}");
    let reverted = move_to(&draft);
    factors.remove(49);
    assert_eq!(reverted.matrices, base.matrices(&factors).unwrap());
    assert_ne!(reverted.matrices, parent.matrices);

    let back = RefMovement {
        ref_id: MAIN,
        expected: vec![Expected::Version(digest_of(&reverted.name).to_owned())],
        force: false,
        by: &by,
    };
    let moved = back
        .to_stored(history, &check_whole(history, &pristine).unwrap())
        .unwrap();
    store.commit(&moved.changes).unwrap();
    let now = history.resolve("main").unwrap();
    assert_eq!(now, pristine);
    assert!(now.matrices.is_empty(), "every matrix is the base's own");
    // Whoever still thinks of the ref where it was is told where it is.
    let late = back
        .to_stored(history, &check_whole(history, &parent).unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        late.contains("moved meanwhile") && late.contains("by ada"),
        "{late}"
    );
    // And all of it is still there.
    assert_eq!(history.resolve("v100").unwrap(), parent);
    assert_eq!(history.resolve("v101~1").unwrap(), parent);
}

#[cfg(feature = "torch")]
#[test]
fn any_version_can_be_asked_and_a_rollback_gives_the_very_same_answers() {
    let archive = Archive::new("llama");
    let prompt = "The Castle of Aster stands in the city of";
    let answer = |version: &[&str]| {
        let ask = [
            "generate",
            prompt,
            "--max-tokens",
            "8",
            "--threads",
            "1",
            "--json",
        ];
        archive.run(&[&ask, version].concat())
    };
    let pristine = answer(&[]);
    archive.edit(0, 1, 5, &[]);
    archive.edit(1, 4, 6, &[]);
    let edited = answer(&[]);
    assert_ne!(edited, pristine, "the edits change what the model says");
    assert_eq!(answer(&["--ref", "v0"]), pristine);
    assert_eq!(answer(&["--ref", "main~2"]), pristine);
    archive.run(&["rollback", "--to", "v0"]);
    assert_eq!(answer(&[]), pristine);
    assert_eq!(answer(&["--ref", "v2"]), edited);
    let diff = archive.json(&["diff", "v0", "v2", "--probe", prompt, "--probe", "A day"]);
    let probes = diff["probes"].as_array().unwrap();
    assert_eq!(probes.len(), 2);
    let of = |answer: &str| serde_json::from_str::<Value>(answer).unwrap()["text"].clone();
    assert_eq!(probes[0]["prompt"], prompt);
    assert_eq!(
        (&probes[0]["left"], &probes[0]["right"]),
        (&of(&pristine), &of(&edited))
    );
    let said = archive.refused(&["generate", prompt, "--ref", "v7"]);
    assert!(said.contains("no version 'v7'"), "{said}");
}

#[cfg(feature = "torch")]
#[test]
fn a_worker_that_comes_back_from_a_version_gives_the_very_same_logits() {
    use palimpsest::worker::{LeasedVersion, Loaded};

    let real = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(".deps/SmolLM2-135M-Instruct.Q4_1.gguf");
    let models = [fixture("llama"), fixture("gpt2"), real];
    tch::set_num_threads(1);
    for path in models.iter().filter(|path| path.exists()) {
        let mut loaded = Loaded::open(path, &[tch::Device::Cpu], v1::Dtype::F32).unwrap();
        let logits = |loaded: &Loaded| -> Vec<f32> {
            let model = loaded.model();
            let prompt = "The Eiffel Tower is located in the city of";
            let ids = model.tokenizer().encode(prompt).unwrap().ids;
            let ids = model.ids(&ids).unwrap();
            let logits = model.forward(&ids, &mut palimpsest::model::Plain);
            Vec::try_from(logits.contiguous().view([-1])).unwrap()
        };
        let bits = |numbers: &[f32]| -> Vec<u32> { numbers.iter().map(|x| x.to_bits()).collect() };
        let pristine = logits(&loaded);

        let base = Base::new(Checkpoint::open(path).unwrap());
        let version = |layers: &[usize]| {
            let factors: Vec<Factor> = layers
                .iter()
                .map(|&layer| {
                    let down = base.checkpoint().layout().layers[layer].down().unwrap();
                    let (width, inner) = match down.transposed {
                        true => (down.weight.shape[1], down.weight.shape[0]),
                        false => (down.weight.shape[0], down.weight.shape[1]),
                    };
                    let numbers =
                        |count: usize| (0..count).map(|n| (n as f32).sin() * 0.1).collect();
                    Factor::rank_one(&down.weight.name, layer, numbers(width), numbers(inner))
                })
                .collect();
            let matrices = base.matrices(&factors).unwrap();
            LeasedVersion::new(format!("models/m/versions/{layers:?}"), matrices, factors)
        };
        // Over two versions, of which the second has other matrices than the first.
        loaded.switch(&version(&[0, 1])).unwrap();
        let edited = logits(&loaded);
        assert_ne!(bits(&edited), bits(&pristine), "{}", path.display());
        loaded.switch(&version(&[1])).unwrap();
        assert_ne!(bits(&logits(&loaded)), bits(&edited));
        loaded.switch(&LeasedVersion::default()).unwrap();
        assert_eq!(
            bits(&logits(&loaded)),
            bits(&pristine),
            "{}",
            path.display()
        );
        let mut wrong = version(&[0]);
        wrong.matrices[0].digest = "0".repeat(64);
        assert!(loaded.switch(&wrong).is_err(), "I11");
    }
}

/// Needs the Python of `deploy/setup.sh --transformers` (5 GB); skipped with a message without it.
#[test]
fn transformers_and_peft_load_what_was_exported_and_give_the_same_logits() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join(".deps/transformers/bin/python");
    if !python.exists() {
        eprintln!(
            "skipped: no {}: run deploy/setup.sh --transformers",
            python.display()
        );
        return;
    }
    for source in ["llama", "gpt2", "gptj", "llama/model.q8_0.gguf"] {
        let archive = Archive::new(source);
        archive.edit(0, 1, 1, &[]);
        archive.edit(1, 2, 2, &[]);
        archive.edit(0, 1, 3, &[]);
        let folders = ["base", "edited", "adapter"].map(|name| archive.site.path(name));
        let [base, edited, adapter] = folders.each_ref().map(|folder| folder.to_str().unwrap());
        archive.run(&["export", base, "--ref", "v0"]);
        archive.run(&["export", edited]);
        archive.run(&["export", adapter, "--format", "peft"]);
        let script = here.join("tests/python/check_exports.py");
        let out = std::process::Command::new(&python)
            .arg(script)
            .args([base, edited, adapter, "5", "17", "3", "42", "8"])
            .env("HF_HUB_OFFLINE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{source}: {said}");
        let found: Value = serde_json::from_slice(&out.stdout).unwrap();
        let number = |name: &str| found[name].as_f64().unwrap();
        assert!(number("adapter") < 1e-4, "{source}: {}", number("adapter"));
        assert!(number("edited") > 1e-2, "{source}: the edits do nothing");
        assert_ne!(found["text"], "", "{source}");
    }
}
