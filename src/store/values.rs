//! How changes become records, and where large values lie.

use std::collections::HashSet;
use std::time::Duration;

use prost::Message;
use uuid::Uuid;

use super::formats::PACKED;
use super::packed::{pack, unpack};
use super::records::Numbered;
use super::{Change, Error, Record, ResultRecord, Store, UnitRef, Value, Write, keys};
use crate::objects::Digest;
use crate::proto::v1;

/// Seconds between attempts to store results in a bucket that does not answer. After the last the
/// coordinator stops, having acknowledged none of them; their workers bring them again.
const WAITS: [u64; 5] = [1, 2, 4, 8, 16];

/// Values up to this many bytes lie in the record itself.
pub const INLINE_LIMIT: usize = 4 << 10;

impl Store {
    /// The records of changes. A record that several changes set is written once, as the last of
    /// them has it.
    pub(super) fn encode(&self, changes: &[Change]) -> Result<Vec<Write>, Error> {
        let mut seen = HashSet::new();
        let mut writes = Vec::with_capacity(changes.len());
        for change in changes.iter().rev() {
            // What grows with every unit is set once by nature; the rest is set again and again.
            let repeated = matches!(
                change,
                Change::Job(..) | Change::Task(..) | Change::Epoch(_)
            );
            let key = key(change);
            if repeated && !seen.insert(key.clone()) {
                continue;
            }
            let value = self.record(change)?;
            writes.push(Write { key, value });
        }
        writes.reverse();
        Ok(writes)
    }

    /// The record that a change writes; none where it goes.
    fn record(&self, change: &Change) -> Result<Option<Vec<u8>>, Error> {
        Ok(Some(match change {
            Change::Spec(_, spec) => self.keep(&spec.encode_to_vec())?.encode_to_vec(),
            Change::Job(_, record) => record.encode_to_vec(),
            Change::Task(_, _, record) => record.encode_to_vec(),
            Change::Result(_, _, record, bytes) => {
                // One that repeats another says the digest itself, and has no bytes.
                if record.source.is_some() {
                    return Ok(Some(record.encode_to_vec()));
                }
                ResultRecord {
                    value: Some(self.keep(bytes)?),
                    ..record.clone()
                }
                .encode_to_vec()
            }
            Change::Cached(_, job, unit) => UnitRef::new(*job, *unit).encode_to_vec(),
            Change::Divergence(_, _, record) => record.encode_to_vec(),
            Change::Event(_, event) => event.encode_to_vec(),
            Change::Epoch(epoch) => epoch.to_be_bytes().to_vec(),
            Change::Model(_, model) => self.keep(&model.encode_to_vec())?.encode_to_vec(),
            Change::Record(record) => self.numbered_record(record)?.encode_to_vec(),
            Change::Removed(_) => return Ok(None),
        }))
    }

    /// Stores the large results of a batch together, before one after the other is referred to: in
    /// a bucket each takes a while. One that is away for a moment is waited for.
    pub(super) fn keep_all(&self, changes: &[Change]) -> Result<(), Error> {
        if self.objects.bucket().is_none() {
            return Ok(());
        }
        let large: Vec<&[u8]> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Result(_, _, record, bytes)
                    if record.source.is_none() && bytes.len() > INLINE_LIMIT =>
                {
                    Some(&**bytes)
                }
                _ => None,
            })
            .collect();
        let mut waits = WAITS.iter();
        loop {
            match (self.objects.put_all(&large), waits.next()) {
                (Err(error), Some(&seconds)) if error.may_pass() => {
                    tracing::warn!(%error, "results wait for the bucket");
                    std::thread::sleep(Duration::from_secs(seconds));
                }
                (kept, _) => return Ok(kept?),
            }
        }
    }

    /// Makes bytes a value: large ones become a durable object before they are referred to.
    pub(super) fn keep(&self, bytes: &[u8]) -> Result<Value, Error> {
        if bytes.len() <= INLINE_LIMIT {
            return Ok(Value {
                inline: Some(bytes.to_vec()),
                digest: Digest::of(bytes).to_string(),
            });
        }
        let digest = self.objects.put(bytes)?;
        Ok(Value {
            inline: None,
            digest: digest.to_string(),
        })
    }

    /// Small bytes are packed in a store that has others' so already.
    fn numbered_record(&self, record: &Record) -> Result<Numbered, Error> {
        let (bytes, number) = (&record.bytes, record.number);
        if self.format() < PACKED || bytes.len() > INLINE_LIMIT {
            return Ok(Numbered {
                value: Some(self.keep(bytes)?),
                number,
                ..Numbered::default()
            });
        }
        Ok(Numbered {
            number,
            packed: Some(pack(bytes)),
            check: Digest::of(bytes).prefix(),
            ..Numbered::default()
        })
    }

    /// The bytes of a numbered record `key`, whose digest is checked.
    pub(super) fn numbered_bytes(&self, key: &[u8], record: Numbered) -> Result<Vec<u8>, Error> {
        let Some(packed) = record.packed else {
            return self.value(key, record.value.unwrap_or_default());
        };
        let bytes = unpack(&packed).filter(|bytes| Digest::of(bytes).prefix() == record.check);
        bytes.ok_or_else(|| Error::Damaged {
            key: keys::printable(key),
            what: "its bytes do not have its check: it was altered".to_owned(),
        })
    }

    /// The bytes of a value of the record `key`, whose digest is checked.
    pub(super) fn value(&self, key: &[u8], value: Value) -> Result<Vec<u8>, Error> {
        let digest = digest_of(key, &value)?;
        let Some(bytes) = value.inline else {
            return Ok(self.objects.read(&digest)?);
        };
        if Digest::of(&bytes) != digest {
            return Err(Error::Damaged {
                key: keys::printable(key),
                what: format!("its bytes do not have the digest {digest}"),
            });
        }
        Ok(bytes)
    }

    /// The serialised result of a record, whose digest is checked; that of another unit under this
    /// one's number when the record repeats it.
    pub(super) fn result_bytes(
        &self,
        key: &[u8],
        unit: u64,
        record: &ResultRecord,
    ) -> Result<Vec<u8>, Error> {
        let value = record.value.clone().unwrap_or_default();
        let Some(source) = &record.source else {
            return self.value(key, value);
        };
        let digest = digest_of(key, &value)?;
        let (job, of) = unit_of(key, source)?;
        let source_key = keys::result(job, of);
        let source = self.index.get(&source_key)?.ok_or_else(|| Error::Damaged {
            key: keys::printable(key),
            what: format!("it repeats unit {of} of jobs/{job}, which has no result"),
        })?;
        let source: ResultRecord = decode(&source_key, &source)?;
        let bytes = self.value(&source_key, source.value.unwrap_or_default())?;
        let bytes = renumbered(&source_key, &bytes, unit)?;
        if Digest::of(&bytes) != digest {
            return Err(Error::Damaged {
                key: keys::printable(key),
                what: format!("unit {of} of jobs/{job}, which it repeats, has another result"),
            });
        }
        Ok(bytes)
    }
}

/// A serialised result under another unit's number.
pub(super) fn renumbered(key: &[u8], bytes: &[u8], unit: u64) -> Result<Vec<u8>, Error> {
    let mut result: v1::UnitResult = decode(key, bytes)?;
    if result.unit == unit {
        return Ok(bytes.to_vec());
    }
    result.unit = unit;
    Ok(result.encode_to_vec())
}

fn key(change: &Change) -> Vec<u8> {
    match change {
        Change::Spec(job, _) => keys::spec(*job),
        Change::Job(job, _) => keys::job(*job),
        Change::Task(job, n, _) => keys::task(*job, *n),
        Change::Result(job, unit, ..) => keys::result(*job, *unit),
        Change::Cached(digest, ..) => keys::cached(digest),
        Change::Divergence(job, unit, record) => keys::divergence(*job, *unit, &record.digest),
        Change::Event(job, event) => keys::event(*job, event.sequence),
        Change::Epoch(_) => keys::EPOCH.to_vec(),
        Change::Model(id, _) => keys::model(id),
        Change::Record(record) => record.key.clone(),
        Change::Removed(key) => key.0.clone(),
    }
}

/// The unit that a reference of the record `key` names.
pub(super) fn unit_of(key: &[u8], unit: &UnitRef) -> Result<(Uuid, u64), Error> {
    let job = Uuid::from_slice(&unit.job).map_err(|e| Error::Damaged {
        key: keys::printable(key),
        what: e.to_string(),
    })?;
    Ok((job, unit.unit))
}

/// The digest of a value of the record `key`.
pub(super) fn digest_of(key: &[u8], value: &Value) -> Result<Digest, Error> {
    value.digest.parse().map_err(|_| Error::Damaged {
        key: keys::printable(key),
        what: format!("'{}' is not a digest", value.digest),
    })
}

pub(super) fn decode<M: Message + Default>(key: &[u8], bytes: &[u8]) -> Result<M, Error> {
    M::decode(bytes).map_err(|e| Error::Damaged {
        key: keys::printable(key),
        what: e.to_string(),
    })
}
