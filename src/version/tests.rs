//! Histories of random commits, reverts, picks and branches, against a plain list.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::model::Checkpoint;
use crate::objects::Digest;
use crate::proto::v1::{self, VersionKind};
use crate::store::{Change, Grace, Options, Record, STRIDE, Store, verify};

/// Something that is done to one of the branches.
#[derive(Clone, Debug)]
enum Step {
    /// An edit of a layer.
    Edit(usize),
    /// The edit in this place goes, of as many as there are.
    Revert(usize),
    /// Another edit stands in the place of this one.
    Replace(usize, usize),
    /// An edit that was made on any branch.
    Pick(usize),
    /// A branch begins, or goes on, at any version.
    Back(usize),
    /// Another branch is gone on with.
    Other,
    /// An edit, written as programs did before versions stood on their parents.
    Old(usize),
    /// The store is opened anew, and what was remembered is not.
    Reopened,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..2_usize).prop_map(Step::Edit),
        3 => (0..1000_usize).prop_map(Step::Revert),
        3 => (0..1000_usize, 0..2_usize).prop_map(|(at, layer)| Step::Replace(at, layer)),
        2 => (0..1000_usize).prop_map(Step::Pick),
        1 => (0..1000_usize).prop_map(Step::Back),
        1 => Just(Step::Other),
        1 => (0..2_usize).prop_map(Step::Old),
        1 => Just(Step::Reopened),
    ];
    prop::collection::vec(step, 1..60)
}

/// A store with the versions of one tiny model, and what they should have.
struct Bench {
    folder: PathBuf,
    store: Option<Store>,
    base: Base,
    by: Authorship,
    /// Every version's digest and list, in the order of their making, the base first.
    made: Vec<(String, Vec<String>)>,
    /// The factor of every edit.
    factors: BTreeMap<String, Factor>,
}

const BASE: &str = "the base's digest";

impl Bench {
    fn new(folder: &Path) -> Self {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
        let bench = Self {
            folder: folder.to_owned(),
            store: Some(Store::open(folder).unwrap()),
            base: Base::new(Checkpoint::open(&fixture).unwrap()),
            by: Authorship::default(),
            made: vec![(
                digest_of(&base_version("m", BASE).name).to_owned(),
                Vec::new(),
            )],
            factors: BTreeMap::new(),
        };
        let model = v1::Model {
            digest: BASE.to_owned(),
            ..Default::default()
        };
        let model = Change::Model("m".to_owned(), model);
        bench.store.as_ref().unwrap().commit(&[model]).unwrap();
        bench
    }

    fn history(&self) -> History<'_> {
        History::new(self.store.as_ref().unwrap(), "m", BASE)
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Store::open(&self.folder).unwrap());
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
        self.base = Base::new(Checkpoint::open(&fixture).unwrap());
    }

    /// An edit that no other is the same as.
    fn edit(&mut self, layer: usize) -> (v1::Edit, Factor) {
        let weight = &self.base.checkpoint().layout().layers[layer]
            .down()
            .unwrap()
            .weight;
        let seed = self.made.len() as f32;
        let numbers = |count: usize, more: f32| {
            (0..count).map(move |n| (n as f32 * 0.7 + seed * 1.3 + more).sin() * 0.01)
        };
        let factor = Factor::rank_one(
            &weight.name,
            layer,
            numbers(weight.shape[0], 0.0).collect(),
            numbers(weight.shape[1], 0.5).collect(),
        );
        // What it was solved from is kept with it.
        let put = |more: u8| {
            let bytes: Vec<u8> = (0..8).map(|n| n + more + self.made.len() as u8).collect();
            self.store.as_ref().unwrap().objects().put(&bytes).unwrap()
        };
        let solve = v1::EditSolve {
            tensor_name: weight.name.clone(),
            width: 1,
            inner: 1,
            columns: 2,
            keys: put(1).to_string(),
            residuals: put(2).to_string(),
            ..Default::default()
        };
        let edit = v1::Edit {
            solves: vec![solve],
            method: "import".to_owned(),
            why: format!("edit {}", self.made.len()),
            factors: vec![factor.to_proto()],
            ..Default::default()
        };
        (edit, factor)
    }

    /// Writes a version, and what it should have.
    fn take(&mut self, draft: &VersionDraft, list: Vec<String>) -> String {
        let movement = RefMovement {
            ref_id: MAIN,
            expected: Vec::new(),
            force: false,
            by: &self.by,
        };
        let moved = movement.to_draft(self.history(), draft).unwrap();
        let store = self.store.as_ref().unwrap();
        store.commit(&moved.changes).unwrap();
        let digest = digest_of(&draft.version.name).to_owned();
        self.made.push((digest.clone(), list));
        digest
    }

    fn list(&self, digest: &str) -> Vec<String> {
        let found = self.made.iter().rev().find(|(of, _)| of == digest);
        found.unwrap().1.clone()
    }

    /// A version with all of its edits in its record, as there was no other before.
    fn old(&mut self, at: &str, layer: usize) -> String {
        let (mut edit, factor) = self.edit(layer);
        let store = self.store.as_ref().unwrap();
        store.objects().put(&factor.data()).unwrap();
        edit.based_on = version_name("m", at);
        let id = edit_id(&edit).to_string();
        let mut list = self.list(at);
        list.push(id.clone());
        self.factors.insert(id.clone(), factor);
        let factors: Vec<Factor> = list.iter().map(|it| self.factors[it].clone()).collect();
        let version = v1::Version {
            base: BASE.to_owned(),
            parent: at.to_owned(),
            edits: list.clone(),
            matrices: self.base.matrices(&factors).unwrap(),
            kind: VersionKind::Edit as i32,
            subject_edit: id,
            ..Default::default()
        };
        let digest = version_id(&version).to_string();
        let numbers = [
            store.version_digests("m", None, 1).unwrap(),
            store.edit_digests("m", None, 1).unwrap(),
        ];
        let [version_number, edit_number] =
            numbers.map(|last| last.first().map_or(1, |(number, _)| number + 1));
        let records = Record::version("m", version_number, &version).map(Change::Record);
        let edits = Record::edit("m", edit_number, &edit).map(Change::Record);
        store.commit(&[records, edits].concat()).unwrap();
        self.made.push((digest.clone(), list));
        digest
    }

    /// Does a step on the version `at`, and says which one is made, if one is.
    fn step(&mut self, at: &str, step: &Step) -> Option<String> {
        let parent = self.history().manifest(at).unwrap();
        let mut list = self.list(at);
        match step {
            Step::Edit(layer) => {
                let (edit, factor) = self.edit(*layer);
                let draft = VersionDraft::edit(self.history(), &self.base, &parent, edit, &self.by);
                let draft = draft.unwrap();
                let id = digest_of(&draft.edit.as_ref().unwrap().name).to_owned();
                self.factors.insert(id.clone(), factor);
                list.push(id);
                Some(self.take(&draft, list))
            }
            Step::Revert(_) if list.is_empty() => None,
            Step::Revert(place) => {
                let gone = list.remove(place % list.len());
                let edit = self.history().edit(&gone).unwrap();
                let draft =
                    VersionDraft::revert(self.history(), &self.base, &parent, &edit, &self.by);
                Some(self.take(&draft.unwrap(), list))
            }
            Step::Replace(..) if list.is_empty() => None,
            Step::Replace(place, layer) => {
                let (history, place) = (self.history(), place % list.len());
                let old = history.edit(&list[place]).unwrap();
                // Some edits have it of one layer, some of the other.
                let (edit, factor) = self.edit(*layer);
                let history = self.history();
                let draft =
                    VersionDraft::replace(history, &self.base, &parent, &old, edit, &self.by);
                let draft = draft.unwrap();
                let made = draft.edit.as_ref().unwrap();
                assert_eq!(made.replaces, list[place]);
                assert_eq!(made.left_out.len(), old.requests.len());
                assert_eq!(draft.version.replaced_edit, list[place]);
                list[place] = digest_of(&made.name).to_owned();
                self.factors.insert(list[place].clone(), factor);
                Some(self.take(&draft, list))
            }
            Step::Pick(_) if self.factors.is_empty() => None,
            Step::Pick(which) => {
                let all: Vec<&String> = self.factors.keys().collect();
                let picked = all[which % all.len()].clone();
                let edit = self.history().edit(&picked).unwrap();
                let draft =
                    VersionDraft::cherry_pick(self.history(), &self.base, &parent, &edit, &self.by);
                if list.contains(&picked) {
                    assert!(matches!(draft, Err(Error::AlreadyThere { .. })));
                    return None;
                }
                list.push(picked);
                Some(self.take(&draft.unwrap(), list))
            }
            Step::Old(layer) => Some(self.old(at, *layer)),
            Step::Back(which) => Some(self.made[which % self.made.len()].0.clone()),
            Step::Other => None,
            Step::Reopened => {
                self.reopen();
                None
            }
        }
    }

    /// Every version has its list, and the matrices of that list, bit for bit.
    fn check(&self, matrices_of: impl Fn(usize) -> bool) {
        let history = self.history();
        for (n, (digest, list)) in self.made.iter().enumerate() {
            let version = history.version(digest).unwrap();
            assert_eq!(&version.edits, list, "version {n}");
            assert_eq!(version.edit_count, list.len() as u64);
            let stored = history.manifest(digest).unwrap();
            assert!(stored.edits_digest.is_empty() || stored.edits.is_empty());
            assert!((stored.depth as usize) < STRIDE);
            if matrices_of(n) {
                let factors: Vec<Factor> = list.iter().map(|it| self.factors[it].clone()).collect();
                assert_eq!(
                    version.matrices,
                    self.base.matrices(&factors).unwrap(),
                    "version {n}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_every_version_has_the_edits_that_a_plain_list_has(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(folder.path());
        let base = bench.made[0].0.clone();
        let (mut at, mut other) = (base.clone(), base);
        for step in &steps {
            if matches!(step, Step::Other) {
                std::mem::swap(&mut at, &mut other);
            }
            if let Some(made) = bench.step(&at, step) {
                at = made;
            }
        }
        bench.check(|_| true);
        bench.reopen();
        // What nothing reaches is removed, and nothing that a version is made of.
        let stray = Digest::of(b"nothing names it");
        let store = bench.store.as_ref().unwrap();
        store.objects().put(b"nothing names it").unwrap();
        // A grace period that is over for everything.
        #[allow(clippy::disallowed_methods)]
        let later = SystemTime::now() + Duration::from_secs(3600);
        let garbage = store.garbage(Grace { before: later }).unwrap();
        store.sweep(garbage).unwrap();
        assert!(!store.objects().contains(&stray).unwrap());
        bench.check(|_| true);
        for (digest, _) in &bench.made {
            let version = bench.history().manifest(digest).unwrap();
            check_whole(bench.history(), &version).unwrap();
        }
        bench.store = None;
        let report = verify(folder.path(), &Options::default(), |_, _, _| {}).unwrap();
        assert_eq!(report.problems, []);
    }
}

#[test]
fn a_version_is_as_large_after_many_edits_as_after_one_and_stands_on_few() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(folder.path());
    let mut at = bench.made[0].0.clone();
    for n in 0..5 * STRIDE {
        at = bench.step(&at, &Step::Edit(n % 2)).unwrap();
        let stored = bench.history().manifest(&at).unwrap();
        assert_eq!(stored.depth as usize, (n + 1) % STRIDE);
        // A matrix that it touches, and the objects of its list now and then.
        assert_eq!(stored.edits, [""; 0]);
        match stored.depth {
            0 => assert_eq!(stored.edit_lists.len(), (n + 1).div_ceil(STRIDE)),
            _ => assert_eq!((stored.matrices.len(), stored.edit_lists.len()), (1, 0)),
        }
    }
    bench.reopen();
    bench.check(|n| n % 7 == 0);
    // The way does not matter to what a list comes to, and does to what the version is called.
    let before = bench.history().manifest(&at).unwrap();
    let gone = bench.step(&at, &Step::Revert(3)).unwrap();
    let order: Vec<String> = bench.factors.keys().cloned().collect();
    let reverted = bench.list(&at)[3].clone();
    let which = order.iter().position(|it| *it == reverted).unwrap();
    let again = bench.step(&gone, &Step::Pick(which)).unwrap();
    let last = bench.list(&again);
    assert_eq!(last.last(), Some(&reverted));
    let newest = bench.step(&again, &Step::Edit(0)).unwrap();
    let back = bench.list(&newest).len() - 1;
    let back = bench.step(&newest, &Step::Revert(back)).unwrap();
    let (one, other) = (
        bench.history().manifest(&again).unwrap(),
        bench.history().manifest(&back).unwrap(),
    );
    assert_eq!(one.edits_digest, other.edits_digest);
    assert_ne!(one.name, other.name);
    assert_ne!(one.edits_digest, before.edits_digest);
    bench.check(|n| n + 5 > 5 * STRIDE);
}

#[test]
fn a_version_that_stands_on_nothing_is_named_by_a_verification() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(folder.path());
    let base = bench.made[0].0.clone();
    let one = bench.step(&base, &Step::Edit(0)).unwrap();
    let store = bench.store.as_ref().unwrap();
    let version = v1::Version {
        base: BASE.to_owned(),
        parent: "0".repeat(64),
        kind: VersionKind::Edit as i32,
        subject_edit: "ab".repeat(32),
        edits_digest: "cd".repeat(32),
        edit_count: 1,
        depth: 1,
        ..Default::default()
    };
    let digest = version_id(&version).to_string();
    let lost = v1::Version {
        parent: one,
        ..version.clone()
    };
    let records = Record::version("m", 2, &version).map(Change::Record);
    let also = Record::version("m", 3, &lost).map(Change::Record);
    store.commit(&[records, also].concat()).unwrap();
    let refused = bench.history().version(&digest).unwrap_err().to_string();
    assert!(refused.contains("is not stored"), "{refused}");
    bench.store = None;
    let report = verify(folder.path(), &Options::default(), |_, _, _| {}).unwrap();
    assert_eq!(report.problem_count, 2, "{:?}", report.problems);
    assert!(report.problems[0].what.contains("its parent 0000"));
    assert!(report.problems[1].what.contains("it says 1 with cdcd"));
}

#[test]
fn what_a_worker_grows_from_a_version_before_is_what_it_makes_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(folder.path());
    let mut all = Vec::new();
    for n in 0..12 {
        let (_, factor) = bench.edit(0);
        bench.made.push((n.to_string(), Vec::new()));
        all.push(factor);
    }
    let tensor = all[0].tensor.clone();
    let named = |factors: &[&Factor]| -> Vec<Digest> {
        let named = factors.iter().map(|factor| Digest::of(&factor.data()));
        named.collect()
    };
    let lists: [&[usize]; 6] = [
        &[0, 1, 2, 3],
        &[0, 1, 2, 3, 4],
        &[0, 1, 3, 4],
        &[],
        &[4, 1],
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    ];
    for list in lists {
        let factors: Vec<&Factor> = list.iter().map(|&n| &all[n]).collect();
        let pairs: Vec<(Digest, &Factor)> =
            named(&factors).into_iter().zip(factors.clone()).collect();
        let grown = bench.base.grow(&tensor, &pairs).unwrap();
        assert_eq!(
            grown,
            bench.base.matrix(&tensor, &factors).unwrap(),
            "{list:?}"
        );
    }
}
