//! One at a time for what must not happen to an object twice at once.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Digest;
use crate::blocking::in_place;

/// Objects that somebody stores, fetches, removes, or finds stored and says so.
#[derive(Debug, Default)]
pub(super) struct Gates {
    inside: Mutex<HashSet<Digest>>,
    left: Condvar,
}

/// Nobody else is at this object until it is dropped.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gates: &'a Gates,
    digest: Digest,
}

impl Gates {
    /// Waits until nobody else is at the object. Whoever has a pass for it must not ask for
    /// another.
    pub(super) fn enter(&self, digest: &Digest) -> Pass<'_> {
        let mut inside = self.inside();
        if !inside.insert(*digest) {
            drop(inside);
            // It may be on its way through a network.
            in_place(|| {
                let occupied = |inside: &mut HashSet<Digest>| !inside.insert(*digest);
                drop(
                    self.left
                        .wait_while(self.inside(), occupied)
                        .unwrap_or_else(PoisonError::into_inner),
                );
            });
        }
        Pass {
            gates: self,
            digest: *digest,
        }
    }

    /// A pass for an object that nobody is at; none if somebody is.
    pub(super) fn try_enter(&self, digest: &Digest) -> Option<Pass<'_>> {
        // Not made for nothing: to drop it would let go of the other's.
        self.inside().insert(*digest).then(|| Pass {
            gates: self,
            digest: *digest,
        })
    }

    fn inside(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gates.inside().remove(&self.digest);
        self.gates.left.notify_all();
    }
}
