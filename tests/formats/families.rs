//! The README's list of the families that are understood is that of the code.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use palimpsest::model::{Family, gguf_architectures};

#[test]
fn the_readme_has_every_model_type_that_is_understood() {
    let names = Family::ALL.map(|family| format!("`{}`", family.model_type()));
    let list = names.join(", ");
    let gguf: Vec<String> = gguf_architectures().map(|it| format!("`{it}`")).collect();
    let gguf = gguf.join(", ");
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let words: Vec<String> = readme
        .unwrap()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let text = words.join(" ");
    for (what, list) in [
        ("by `model_type`", list),
        ("by `general.architecture`", gguf),
    ] {
        assert!(
            text.contains(&format!("{what}: {list}.")),
            "the README's families should be, {what}: {list}."
        );
    }
}
