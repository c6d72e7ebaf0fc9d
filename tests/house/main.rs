//! The house keeps its plan: no circle of imports between files or folders, no arrow up the table
//! of rooms, and nothing in a room that must not be there. Read from the sources, by nothing but
//! this.
#![allow(clippy::unwrap_used)]

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use imports::{Arrows, Crate};

/// The rooms of `src`, from the top down: a room may use those below it, never one above it.
const ROOMS: &[&str] = &[
    "main",
    "lib",
    "cli",
    "embedded",
    "web",
    "api",
    "coordinator",
    "worker",
    "work",
    "figures",
    "wire",
    "version",
    "audit",
    "store",
    "eval",
    "edit",
    "causal",
    "stats",
    "model",
    "datasets",
    "npz",
    "plot",
    "client",
    "objects",
    "telemetry",
    "config",
    "auth",
    "invariants",
    "blocking",
    "caught",
    "text",
    "guide",
    "proto",
];

/// What a room must not name: rooms, other crates, modules of the standard library.
const MUST_NOT: &[(&str, &[&str])] = &[
    ("work", &["tch", "tonic", "tokio", "std::fs", "std::net"]),
    ("version", &["tch", "tonic"]),
    ("audit", &["tch", "tonic"]),
    ("store", &["tch", "tonic"]),
    ("objects", &["tch"]),
    ("coordinator", &["tch"]),
    ("model", &["crate::proto", "crate::wire", "tonic"]),
    ("causal", &["crate::proto", "crate::wire", "tonic"]),
    ("edit", &["crate::proto", "crate::wire", "tonic"]),
    ("stats", &["crate::proto", "crate::wire", "tonic"]),
    ("eval", &["crate::proto", "crate::wire", "tonic"]),
    ("plot", &["crate::proto", "crate::wire", "tonic"]),
    ("npz", &["crate::proto", "crate::wire", "tonic"]),
];

fn house() -> Crate {
    Crate::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

fn room(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Arrows between the members of each folder: files, and folders with all that is in them.
fn by_folder(arrows: &Arrows) -> BTreeMap<String, BTreeMap<(String, String), Vec<String>>> {
    let mut folders: BTreeMap<String, BTreeMap<_, Vec<String>>> = BTreeMap::new();
    for ((from, to), path) in arrows {
        let (mut left, mut right) = (from.split('/'), to.split('/'));
        let mut folder = Vec::new();
        let (a, b) = loop {
            let pair = (left.next().unwrap(), right.next().unwrap());
            if pair.0 != pair.1 {
                break pair;
            }
            folder.push(pair.0);
        };
        folders
            .entry(folder.join("/"))
            .or_default()
            .entry((a.to_owned(), b.to_owned()))
            .or_default()
            .push(format!("{from} -> {to} ({path})"));
    }
    folders
}

/// What can be reached from what.
fn reached(edges: &BTreeSet<(String, String)>, from: &str) -> BTreeSet<String> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(at) = next.pop() {
        for (_, to) in edges.iter().filter(|(begin, _)| *begin == at) {
            if seen.insert(to.clone()) {
                next.push(to.clone());
            }
        }
    }
    seen
}

/// The circles of a folder: the members of each, in alphabetical order.
fn circles(edges: &BTreeSet<(String, String)>) -> BTreeSet<Vec<String>> {
    let members: BTreeSet<&String> = edges.iter().flat_map(|(a, b)| [a, b]).collect();
    let of = |at: &str| reached(edges, at);
    let mut found = BTreeSet::new();
    for at in members {
        let ahead = of(at);
        if ahead.contains(at.as_str()) {
            let mut circle: Vec<String> = ahead
                .into_iter()
                .filter(|other| of(other).contains(at.as_str()))
                .collect();
            circle.sort();
            found.insert(circle);
        }
    }
    found
}

#[test]
fn there_is_no_circle_of_imports_between_files_or_folders() {
    let arrows = house().arrows();
    assert!(arrows.len() > 500, "only {} arrows were read", arrows.len());
    let mut wrong = Vec::new();
    for (folder, arrows) in by_folder(&arrows) {
        let edges = arrows.keys().cloned().collect();
        for circle in circles(&edges) {
            let inside = |name: &String| circle.contains(name);
            let of_it: Vec<String> = arrows
                .iter()
                .filter(|((a, b), _)| inside(a) && inside(b))
                .flat_map(|(_, seen)| seen.iter().map(|line| format!("    {line}")))
                .collect();
            wrong.push(format!("src/{folder}: {circle:?}\n{}", of_it.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "circles:\n{}", wrong.join("\n"));
}

#[test]
fn no_arrow_goes_up_the_table_of_rooms() {
    let house = house();
    let rank = |file: &str| ROOMS.iter().position(|it| *it == room(file));
    for file in house.files() {
        assert!(rank(file).is_some(), "{file} is in no room of the table");
    }
    let up: Vec<String> = house
        .arrows()
        .iter()
        .filter(|((from, to), _)| rank(to) < rank(from))
        .map(|((from, to), path)| format!("{from} -> {to} ({path})"))
        .collect();
    assert!(up.is_empty(), "arrows up:\n{}", up.join("\n"));
}

#[test]
fn nothing_is_in_a_room_that_must_not_be_there() {
    let house = house();
    let mut wrong = Vec::new();
    for file in house.files() {
        let named = house.foreign(file);
        for (_, banned) in MUST_NOT.iter().filter(|(of, _)| *of == room(file)) {
            for name in banned.iter().filter(|name| named.contains(**name)) {
                wrong.push(format!("{file} uses {name}"));
            }
        }
        if room(file) == "coordinator" && house.has(file, &["Spec", "::"]) {
            wrong.push(format!("{file} names a kind of work"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn circles_and_arrows_are_seen_through_what_a_module_passes_on() {
    let house = Crate::of([
        ("lib.rs", "pub mod a; pub mod b;"),
        ("a/mod.rs", "mod x; pub use x::X; // use crate::b::y::Y;"),
        (
            "a/x.rs",
            "use crate::b::{self, y::Y as Z}; pub struct X(Z); fn f() { b::g() }",
        ),
        ("b/mod.rs", "mod y; pub use y::{Y, g};"),
        (
            "b/y.rs",
            "pub struct Y; pub fn g() { \"crate::a::X\"; } #[cfg(test)] mod t { use crate::a::X; }",
        ),
    ]);
    let arrows: Vec<_> = house.arrows().into_keys().collect();
    assert_eq!(arrows, [("a/x.rs".to_owned(), "b/y.rs".to_owned())]);

    let house = Crate::of([
        ("lib.rs", ""),
        ("a/mod.rs", "pub use x::X; mod x;"),
        ("a/x.rs", "pub struct X(crate::b::y::Y);"),
        ("b/mod.rs", ""),
        ("b/y.rs", "use crate::a::*; pub struct Y(Box<X>);"),
    ]);
    let folders = by_folder(&house.arrows());
    let edges = folders[""].keys().cloned().collect();
    let circle = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(circles(&edges), BTreeSet::from([circle]));
}
