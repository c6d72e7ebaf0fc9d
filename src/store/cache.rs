//! Units that were computed before: their results answer for every unit of the same digest.
//!
//! The digest is of everything that decides a unit's value, as the coordinator counts it. A result
//! that answers again is not copied: its record names the one it repeats.

use uuid::Uuid;

use super::values::{decode, renumbered, unit_of};
use super::{Error, ResultRecord, Store, UnitRef, keys};
use crate::objects::Digest;
use crate::proto::v1::{self, unit_result::Outcome};

/// A result that answers a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedResult {
    /// The unit that was computed.
    pub source: (Uuid, u64),
    /// The digest of its serialised result under the asked unit's number.
    pub digest: Digest,
    /// What it came to, where it prepares the units after it and is small: the scale of a sweep's
    /// noise, the contexts of a mass edit.
    pub told: Option<Outcome>,
    /// The worker that computed it.
    pub worker: String,
    /// What decided its last bits.
    pub fingerprint: Option<v1::Fingerprint>,
}

impl Store {
    /// The result of the unit that was computed for this digest, for unit number `unit`.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Io`] when the index cannot be read. A result that is damaged
    /// does not answer, and is told to the log.
    pub fn answer(&self, digest: &Digest, unit: u64) -> Result<Option<CachedResult>, Error> {
        let key = keys::cached(digest);
        let Some(value) = self.index.get(&key)? else {
            return Ok(None);
        };
        match self.read_answer(&key, &value, unit) {
            Ok(answer) => Ok(Some(answer)),
            Err(error @ (Error::Damaged { .. } | Error::Object(_))) => {
                tracing::warn!(%error, "a stored result is not used again");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn read_answer(&self, key: &[u8], value: &[u8], unit: u64) -> Result<CachedResult, Error> {
        let source = unit_of(key, &decode::<UnitRef>(key, value)?)?;
        let source_key = keys::result(source.0, source.1);
        let record = self.index.get(&source_key)?.ok_or_else(|| Error::Damaged {
            key: keys::printable(key),
            what: format!("unit {} of jobs/{} has no result", source.1, source.0),
        })?;
        let record: ResultRecord = decode(&source_key, &record)?;
        let bytes = self.result_bytes(&source_key, source.1, &record)?;
        let bytes = renumbered(&source_key, &bytes, unit)?;
        let result: v1::UnitResult = decode(&source_key, &bytes)?;
        Ok(CachedResult {
            source,
            digest: Digest::of(&bytes),
            told: result.outcome.filter(|outcome| {
                matches!(
                    outcome,
                    Outcome::NoiseLevel(_) | Outcome::MassEditContexts(_)
                )
            }),
            worker: record.worker,
            fingerprint: record.fingerprint,
        })
    }
}
