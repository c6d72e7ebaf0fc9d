//! Records of edits, versions, refs, statistics and the audit log, on their way into the store.

use super::formats::{DEFLATED, WITH_LOG};
use super::keys;
use super::manifest::{edit_bytes, version_bytes};
use crate::objects::Digest;
use crate::proto::v1;

/// A record on its way into the store.
#[derive(Clone, Debug)]
pub struct Record {
    pub(super) key: Vec<u8>,
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
    /// The oldest format of a store whose programs know it.
    pub(super) format: u32,
}

/// Where a record lies that may go.
#[derive(Clone, Debug)]
pub struct RecordKey(pub(super) Vec<u8>);

impl RecordKey {
    /// Of key statistics.
    pub fn statistics(model: &str, statistics: &v1::Statistics) -> Self {
        let digest = statistics.name.rsplit('/').next().unwrap_or_default();
        Self(keys::statistics(model, statistics.layer, digest))
    }
}

impl Record {
    /// An edit with its number: two records, the second is the index by number. The factors' own
    /// numbers must be stored as objects before.
    pub fn edit(model: &str, number: u64, edit: &v1::Edit) -> [Self; 2] {
        numbered(
            keys::EDIT,
            keys::EDIT_NUMBER,
            model,
            number,
            edit_bytes(edit),
        )
    }

    /// A version with its number, and the index by it.
    pub fn version(model: &str, number: u64, version: &v1::Version) -> [Self; 2] {
        let bytes = version_bytes(version);
        let mut records = numbered(keys::VERSION, keys::VERSION_NUMBER, model, number, bytes);
        if !version.edits_digest.is_empty() {
            // An older program would take it for one without edits; and what is packed and deflated
            // begins with it.
            records[0].format = DEFLATED;
        }
        records
    }

    /// Where a ref points.
    pub fn reference(model: &str, id: &str, reference: &v1::Ref) -> Self {
        Self {
            key: keys::of_model(keys::REF, model, id.as_bytes()),
            number: 0,
            bytes: prost::Message::encode_to_vec(reference),
            format: WITH_LOG,
        }
    }

    /// Key statistics of a model, whose object is stored.
    pub fn statistics(model: &str, statistics: &v1::Statistics) -> Self {
        Self {
            key: RecordKey::statistics(model, statistics).0,
            number: 0,
            bytes: prost::Message::encode_to_vec(statistics),
            format: WITH_LOG,
        }
    }

    /// An entry of the audit log, as its leaf is hashed.
    pub fn audit_entry(sequence: u64, leaf: Vec<u8>) -> Self {
        Self {
            key: keys::audit_entry(sequence),
            number: sequence,
            bytes: leaf,
            format: WITH_LOG,
        }
    }

    /// What is needed to append to the audit log.
    pub fn audit_head(head: Vec<u8>) -> Self {
        Self {
            key: keys::AUDIT_HEAD.to_vec(),
            number: 0,
            bytes: head,
            format: WITH_LOG,
        }
    }
}

fn numbered(letter: u8, index: u8, model: &str, number: u64, bytes: Vec<u8>) -> [Record; 2] {
    let digest = Digest::of(&bytes).to_string();
    [
        Record {
            key: keys::of_model(letter, model, digest.as_bytes()),
            number,
            bytes,
            format: WITH_LOG,
        },
        Record {
            key: keys::of_model(index, model, &number.to_be_bytes()),
            number,
            bytes: digest.into_bytes(),
            format: WITH_LOG,
        },
    ]
}
