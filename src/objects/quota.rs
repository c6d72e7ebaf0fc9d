//! The limit that uploads stay within.
//!
//! It holds for what clients upload. Results of work that was accepted, and the specs of jobs, are
//! kept whatever it says: to refuse them would lose what was computed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Digest, Error};

/// A limit in bytes, and what was admitted under it and is still on its way.
#[derive(Clone, Debug, Default)]
pub(super) struct Quota {
    limit: Option<u64>,
    under_way: Arc<Mutex<UnderWay>>,
}

/// Uploads that were admitted, each call with the size that it announced: several calls may be for
/// one object, and the end of one says nothing of the others.
#[derive(Debug, Default)]
struct UnderWay {
    calls: HashMap<u64, (Digest, u64)>,
    next: u64,
}

impl UnderWay {
    /// The largest size that was announced for each object.
    fn announced(&self) -> HashMap<Digest, u64> {
        let mut announced = HashMap::new();
        for &(digest, size) in self.calls.values() {
            let largest = announced.entry(digest).or_default();
            *largest = size.max(*largest);
        }
        announced
    }
}

/// An upload that was admitted. It is counted until this is dropped.
#[derive(Debug)]
pub struct Admission {
    call: u64,
    under_way: Arc<Mutex<UnderWay>>,
}

/// What a folder holds, by object, in bytes.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Whole objects.
    pub(super) stored: HashMap<Digest, u64>,
    /// What has come of those that are on their way, or broke off.
    pub(super) partial: HashMap<Digest, u64>,
}

impl Quota {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Admits an upload. `held` looks up what is there: it is counted anew each time, for a counter
    /// of its own would be wrong after the first crash.
    pub(super) fn admit(
        &self,
        digest: &Digest,
        size: u64,
        held: impl FnOnce() -> Result<Held, Error>,
    ) -> Result<Admission, Error> {
        // Entered first, and looked for then: of two that come at once the second sees the first.
        let (mut announced, admission) = {
            let mut under_way = lock(&self.under_way);
            let announced = under_way.announced();
            let call = under_way.next;
            under_way.next += 1;
            under_way.calls.insert(call, (*digest, size));
            let admission = Admission {
                call,
                under_way: Arc::clone(&self.under_way),
            };
            (announced, admission)
        };
        if let Some(limit) = self.limit {
            let Held { stored, partial } = held()?;
            for (part, bytes) in partial {
                // Of a call that announced less than is there, what is there counts.
                let largest = announced.entry(part).or_default();
                *largest = bytes.max(*largest);
            }
            let own = announced.remove(digest).unwrap_or_default().max(size);
            // What has come to its end meanwhile is among what is stored.
            let coming = announced.iter().filter(|(it, _)| !stored.contains_key(it));
            // One that is stored and damaged makes room for the one that comes.
            let others = stored.iter().filter(|(it, _)| *it != digest);
            let used = coming
                .chain(others)
                .map(|(_, bytes)| bytes)
                .fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
            if used.saturating_add(own) > limit {
                return Err(Error::Quota {
                    digest: *digest,
                    size,
                    used,
                    limit,
                });
            }
        }
        Ok(admission)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        lock(&self.under_way).calls.remove(&self.call);
    }
}

fn lock(under_way: &Mutex<UnderWay>) -> MutexGuard<'_, UnderWay> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_counted_until_it_ends_whatever_other_calls_for_it_come_and_go() {
        let quota = Quota::new(Some(20));
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let nothing = || Ok(Held::default());
        let first = quota.admit(&a, 15, nothing).unwrap();
        assert!(quota.admit(&b, 15, nothing).is_err());
        // The same again, and once more with a size of its own: neither frees what the first has.
        drop(quota.admit(&a, 15, nothing).unwrap());
        drop(quota.admit(&a, 1, nothing).unwrap());
        assert!(quota.admit(&b, 6, nothing).is_err());
        let second = quota.admit(&b, 5, nothing).unwrap();
        drop(first);
        assert!(quota.admit(&a, 16, nothing).is_err());
        drop(second);
        quota.admit(&a, 20, nothing).unwrap();
    }

    #[test]
    fn what_has_come_counts_though_less_was_announced() {
        let quota = Quota::new(Some(20));
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let held = || {
            Ok(Held {
                partial: HashMap::from([(a, 12)]),
                ..Held::default()
            })
        };
        let _small = quota.admit(&a, 1, held).unwrap();
        assert!(quota.admit(&b, 9, held).is_err());
        quota.admit(&b, 8, held).unwrap();
    }
}
