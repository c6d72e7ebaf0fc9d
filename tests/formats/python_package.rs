//! The Python package (`src/python`) carries the contract as descriptors, from which it makes its
//! messages: they are the ones that this program serves.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use palimpsest::proto::DESCRIPTORS;
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// The contract without its comments, and what errors say of themselves.
fn descriptors() -> Vec<u8> {
    let contract = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let details = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET).unwrap();
    let mut files: Vec<FileDescriptorProto> = Vec::new();
    for mut file in details.file.into_iter().chain(contract) {
        file.source_code_info = None;
        if !files.iter().any(|there| there.name == file.name) {
            files.push(file);
        }
    }
    // A file comes after those that it needs.
    let mut sorted: Vec<FileDescriptorProto> = Vec::new();
    while !files.is_empty() {
        let ready = |file: &FileDescriptorProto| {
            let there = |name: &String| sorted.iter().any(|it| it.name.as_ref() == Some(name));
            file.dependency.iter().all(there)
        };
        let next = files.iter().position(ready).unwrap();
        sorted.push(files.remove(next));
    }
    FileDescriptorSet { file: sorted }.encode_to_vec()
}

#[test]
fn the_python_package_has_the_contract_of_this_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/python/palimpsest/contract.bin");
    let now = descriptors();
    if std::env::var_os("PALIMPSEST_RENEW_CONTRACT").is_some() {
        std::fs::write(&path, &now).unwrap();
        return;
    }
    assert!(
        std::fs::read(&path).unwrap_or_default() == now,
        "src/python/palimpsest/contract.bin is not the contract any more: renew it, and commit it \
         with the change:\n    \
         PALIMPSEST_RENEW_CONTRACT=1 cargo test --test formats python_package"
    );
}
