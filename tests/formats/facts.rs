//! Fact files as they were published.
//!
//! Set `PALIMPSEST_TEST_DATA` to a folder with `known_1000.json`, `counterfact_flat_1k.json`,
//! `counterfact_full_schema_examples.json`, `zsre_1k.json` and `relations/`; what is not there is
//! skipped with a message.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use palimpsest::causal::Fact;
use palimpsest::datasets::facts::read;

fn data(name: &str) -> Option<PathBuf> {
    let path =
        std::env::var_os("PALIMPSEST_TEST_DATA").map(|folder| PathBuf::from(folder).join(name));
    let found = path.filter(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no {name} in PALIMPSEST_TEST_DATA");
    }
    found
}

#[test]
fn known_1000_is_read_whole() {
    let Some(path) = data("known_1000.json") else {
        return;
    };
    let facts = read(&path).unwrap();
    assert_eq!(facts.len(), 1209);
    assert!(
        facts
            .iter()
            .all(|f| f.id.is_some() && f.attribute.is_some() && f.relation.is_some())
    );
    let first = Fact {
        subject_start: None,
        corrupted: None,
        foil: None,
        id: Some("0".into()),
        prompt: "Vinson Massif is located in the continent of".into(),
        subject: "Vinson Massif".into(),
        attribute: Some("Antarctica".into()),
        relation: Some("P30".into()),
    };
    assert_eq!(facts[0], first);
}

#[test]
fn counterfact_is_read_flat_and_full() {
    if let Some(path) = data("counterfact_flat_1k.json") {
        let facts = read(&path).unwrap();
        assert_eq!(facts.len(), 1000);
        assert_eq!(
            facts[0].prompt,
            "David Robinson professionally plays the sport"
        );
        assert_eq!(facts[0].attribute.as_deref(), Some("basketball"));
        assert_eq!(facts[0].id.as_deref(), Some("3087"));
    }
    if let Some(path) = data("counterfact_full_schema_examples.json") {
        let facts = read(&path).unwrap();
        assert_eq!(facts.len(), 2);
        assert_eq!(facts[0].prompt, "The mother tongue of Danielle Darrieux is");
        assert_eq!(facts[0].attribute.as_deref(), Some("French"));
        assert_eq!(facts[1].prompt, "Singled Out debuted on");
        assert_eq!(facts[1].id.as_deref(), Some("4402"));
    }
}

#[test]
fn zsre_is_read_whole() {
    let Some(path) = data("zsre_1k.json") else {
        return;
    };
    let facts = read(&path).unwrap();
    assert_eq!(facts.len(), 1000);
    assert!(facts.iter().all(|f| f.attribute.is_some()));
    assert_eq!(facts[0].prompt, "What is the product made by UniFirst?");
    assert_eq!(facts[0].attribute.as_deref(), Some("uniform"));
}

#[test]
fn relations_are_read_in_their_first_template() {
    let Some(folder) = data("relations") else {
        return;
    };
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let facts = read(&entry.unwrap().path()).unwrap();
        assert!(
            facts.len() > 20
                && facts
                    .iter()
                    .all(|f| f.attribute.is_some() && f.relation.is_some())
        );
        files += 1;
    }
    assert_eq!(files, 5);
}
