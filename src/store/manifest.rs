//! What edits and versions are called: the digests of their own bytes.

use prost::Message;

use crate::objects::Digest;
use crate::proto::v1;

/// The bytes that an edit is named after: all of it but its name and the factors' own numbers,
/// which their digests stand for. prost writes fields in the order of their numbers and leaves
/// absent ones out, so that a later field does not rename an earlier edit.
pub fn edit_bytes(edit: &v1::Edit) -> Vec<u8> {
    let mut edit = edit.clone();
    edit.name.clear();
    for factor in &mut edit.factors {
        factor.data.clear();
    }
    edit.encode_to_vec()
}

/// The digest that names an edit.
pub fn edit_id(edit: &v1::Edit) -> Digest {
    Digest::of(&edit_bytes(edit))
}

/// The bytes that a version is named after, of a version as it is stored: all of it but its name
/// and its number. One that says all of its edits itself, as versions did before there were others,
/// does not count them: a later field does not rename it.
pub fn version_bytes(version: &v1::Version) -> Vec<u8> {
    let mut version = v1::Version {
        name: String::new(),
        number: 0,
        ..version.clone()
    };
    if version.edits_digest.is_empty() {
        version.edit_count = 0;
    }
    version.encode_to_vec()
}

/// The digest that names a version.
pub fn version_id(version: &v1::Version) -> Digest {
    Digest::of(&version_bytes(version))
}

/// Version 0 of the model `models/{model}` with this digest: the base without an edit. Nothing
/// but the base decides its name, so it is the same in every store.
pub fn base_version(model: &str, base: &str) -> v1::Version {
    let mut version = v1::Version {
        base: base.to_owned(),
        kind: v1::VersionKind::Base as i32,
        ..Default::default()
    };
    version.name = version_name(model, &version_id(&version).to_string());
    version
}

/// `models/{model}/versions/{digest}`; `model` is the identifier.
pub fn version_name(model: &str, digest: &str) -> String {
    format!("models/{model}/versions/{digest}")
}

/// `models/{model}/edits/{digest}`; `model` is the identifier.
pub fn edit_name(model: &str, digest: &str) -> String {
    format!("models/{model}/edits/{digest}")
}

/// `models/{model}/refs/{ref}`; `model` is the identifier.
pub fn ref_name(model: &str, id: &str) -> String {
    format!("models/{model}/refs/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_named_after_what_it_is_not_where_its_numbers_travel() {
        let factor = v1::LowRankFactor {
            tensor_name: "w".to_owned(),
            digest: Digest::of(b"numbers").to_string(),
            data: b"numbers".to_vec(),
            ..Default::default()
        };
        let sent = v1::Edit {
            factors: vec![factor],
            method: "import".to_owned(),
            ..Default::default()
        };
        let mut kept = sent.clone();
        kept.name = "models/m/edits/x".to_owned();
        kept.factors[0].data.clear();
        assert_eq!(edit_id(&sent), edit_id(&kept));
        kept.why = "another reason".to_owned();
        assert_ne!(edit_id(&sent), edit_id(&kept));
    }

    #[test]
    fn version_zero_is_named_after_its_base_alone() {
        let a = base_version("gpt2", "d1");
        let b = base_version("a-copy", "d1");
        assert_eq!(version_id(&a), version_id(&b));
        assert_ne!(version_id(&a), version_id(&base_version("gpt2", "d2")));
        // For ever: stores and papers name versions by it.
        assert_eq!(
            version_id(&a).to_string(),
            Digest::of(b"\x12\x02d1\x48\x01").to_string()
        );
    }
}
