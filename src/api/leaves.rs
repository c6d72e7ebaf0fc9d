//! Entries of the audit log as they travel.

use prost::Message as _;
use tonic::Status;

use super::status::data_loss;
use crate::audit::{self, merkle};
use crate::proto::v1::{AuditEntry, AuditLeaf};
use crate::store::Store;
use crate::text;

/// Most bytes of an entry that travels whole, which is twice: as bytes, and parsed.
const LEAF_BYTES: usize = 1 << 20;
/// Most bytes of each text of an entry that is larger than that.
const TEXT_LIMIT: usize = 1 << 10;

/// An entry as it travels, and lies at a place of the log.
pub(super) fn leaf(place: u64, bytes: Vec<u8>) -> Result<AuditLeaf, Status> {
    let entry = AuditEntry::decode(bytes.as_slice()).map_err(|error| data_loss(&error))?;
    if entry.sequence != place {
        let problem = format!("at place {place} lies entry {}", entry.sequence);
        return Err(audit::Error::Damaged { problem }.into());
    }
    if bytes.len() > LEAF_BYTES {
        return Ok(AuditLeaf {
            leaf: Vec::new(),
            hash: merkle::leaf(&bytes).to_vec(),
            entry: Some(shortened(entry)),
        });
    }
    Ok(AuditLeaf {
        leaf: bytes,
        entry: Some(entry),
        hash: Vec::new(),
    })
}

/// An entry that no message could carry, as earlier versions could write: with its texts cut.
fn shortened(entry: AuditEntry) -> AuditEntry {
    let cut = |text: String| text::cut(&text, TEXT_LIMIT);
    AuditEntry {
        principal: cut(entry.principal),
        action: cut(entry.action),
        resource: cut(entry.resource),
        request_digest: cut(entry.request_digest),
        why: cut(entry.why),
        refusal: cut(entry.refusal),
        version_before: cut(entry.version_before),
        version_after: cut(entry.version_after),
        detail: cut(entry.detail),
        ..entry
    }
}

/// The hashes of the first `size` leaves.
pub(super) fn hashes(store: &Store, size: u64) -> Result<Vec<merkle::Hash>, Status> {
    let leaves = store.audit_entries(0).take(size as usize);
    leaves.map(|(_, bytes)| Ok(merkle::leaf(&bytes?))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::pages;
    use crate::audit::{Verifier, leaf_hash};

    /// An entry as earlier versions wrote it after a call with a name of megabytes.
    #[test]
    fn an_entry_that_no_message_can_carry_is_listed_shortened_and_still_proved() {
        let mut frontier = merkle::Frontier::default();
        let mut leaves = Vec::new();
        for (sequence, size) in [(1, 10), (2, 4 << 20), (3, 10)] {
            let entry = AuditEntry {
                sequence,
                principal: "mallory".to_owned(),
                resource: "x".repeat(size),
                refusal: "x".repeat(size),
                previous_root: frontier.root().to_vec(),
                ..Default::default()
            };
            let bytes = entry.encode_to_vec();
            frontier.push(merkle::leaf(&bytes));
            let sent = leaf(sequence, bytes.clone()).unwrap();
            assert!(sent.encoded_len() < pages::BYTES);
            assert_eq!(leaf_hash(&sent), merkle::leaf(&bytes));
            assert_eq!(sent.entry.as_ref().unwrap().principal, "mallory");
            leaves.push(sent);
        }
        let newest = crate::proto::v1::AuditCheckpoint {
            size: 3,
            root: frontier.root().to_vec(),
            ..Default::default()
        };
        let read = |leaves: &[AuditLeaf]| {
            let mut verifier = Verifier::new(Some(&newest), None);
            leaves.iter().for_each(|leaf| verifier.leaf(leaf));
            verifier.end().problems
        };
        assert_eq!(read(&leaves), Vec::<String>::new());
        // What came in place of the bytes is held against the log like the bytes.
        leaves[1].hash[0] ^= 1;
        assert!(!read(&leaves).is_empty());
    }
}
