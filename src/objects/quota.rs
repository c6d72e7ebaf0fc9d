//! The limit that uploads stay within.
//!
//! It holds for what clients upload. Results of work that was accepted, and the specs of jobs, are
//! kept whatever it says: to refuse them would lose what was computed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Digest, Error, ObjectStore};

/// A limit in bytes, and what was admitted under it and is still on its way.
#[derive(Clone, Debug, Default)]
pub(super) struct Quota {
    limit: Option<u64>,
    under_way: Arc<Mutex<HashMap<Digest, u64>>>,
}

/// An upload that was admitted. It is counted until this is dropped.
#[derive(Debug)]
pub struct Admission {
    digest: Digest,
    under_way: Arc<Mutex<HashMap<Digest, u64>>>,
}

impl Quota {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    pub(super) fn admit(
        &self,
        store: &ObjectStore,
        digest: &Digest,
        size: u64,
    ) -> Result<Admission, Error> {
        // Entered first, and looked for then: of two that come at once the second sees the first.
        let before = {
            let mut under_way = lock(&self.under_way);
            let before = under_way.clone();
            under_way.insert(*digest, size);
            before
        };
        let admission = Admission {
            digest: *digest,
            under_way: Arc::clone(&self.under_way),
        };
        if let Some(limit) = self.limit {
            // Counted anew: a counter of its own would be wrong after the first crash.
            let listed = store.list()?;
            let names: HashSet<Digest> = listed.iter().map(|object| object.digest).collect();
            let stored: u64 = listed.iter().map(|object| object.size).sum();
            let partial: u64 = store
                .list_partial()?
                .iter()
                .filter(|part| part.digest != *digest && !before.contains_key(&part.digest))
                .map(|part| part.size)
                .sum();
            // What has come to its end meanwhile is in the list.
            let admitted: u64 = before
                .iter()
                .filter(|(other, _)| *other != digest && !names.contains(*other))
                .map(|(_, size)| size)
                .sum();
            let used = stored + partial + admitted;
            if used.saturating_add(size) > limit {
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
        lock(&self.under_way).remove(&self.digest);
    }
}

fn lock(under_way: &Mutex<HashMap<Digest, u64>>) -> MutexGuard<'_, HashMap<Digest, u64>> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}
