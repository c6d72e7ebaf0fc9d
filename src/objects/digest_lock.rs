//! One at a time for what must not happen to an object twice at once.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Digest;
use crate::blocking::in_place;

/// Objects that somebody stores, fetches, removes, or finds stored and says so.
#[derive(Debug, Default)]
pub(super) struct DigestLocks {
    held: Mutex<HashSet<Digest>>,
    released: Condvar,
}

/// The lock of one object, held until this is dropped.
#[derive(Debug)]
pub(super) struct DigestLock<'a> {
    locks: &'a DigestLocks,
    digest: Digest,
}

impl DigestLocks {
    /// Waits for the lock of an object. A thread that holds it must not ask for it again.
    pub(super) fn lock(&self, digest: &Digest) -> DigestLock<'_> {
        let mut held = self.held();
        if !held.insert(*digest) {
            drop(held);
            // The object may be on its way through a network.
            in_place(|| {
                let taken = |held: &mut HashSet<Digest>| !held.insert(*digest);
                drop(
                    self.released
                        .wait_while(self.held(), taken)
                        .unwrap_or_else(PoisonError::into_inner),
                );
            });
        }
        DigestLock {
            locks: self,
            digest: *digest,
        }
    }

    /// The lock of an object; none while somebody holds it.
    pub(super) fn try_lock(&self, digest: &Digest) -> Option<DigestLock<'_>> {
        // Made only if the entry is ours: to drop it would release the other's.
        self.held().insert(*digest).then(|| DigestLock {
            locks: self,
            digest: *digest,
        })
    }

    fn held(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DigestLock<'_> {
    fn drop(&mut self) {
        self.locks.held().remove(&self.digest);
        self.locks.released.notify_all();
    }
}
