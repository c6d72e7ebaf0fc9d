//! Matrices of versions before they are rounded, kept so that the next edit is added to them
//! instead of all edits to the base.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::materialise::Sum;
use crate::objects::Digest;

/// Bytes of the matrices that are kept, at most: one of GPT-J's has 256 MiB.
const KEPT_BYTES: usize = 512 << 20;
/// Lists of edits whose matrices are kept, at most.
const KEPT_LISTS: usize = 16;
/// Matrices by their names.
pub(super) type ByName = BTreeMap<String, Arc<Sum>>;

/// The matrices of some versions of a base, by what their lists of edits come to.
#[derive(Debug, Default)]
pub(super) struct Sums(Mutex<VecDeque<(Digest, ByName)>>);

impl Sums {
    fn all(&self) -> MutexGuard<'_, VecDeque<(Digest, ByName)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of a list.
    pub fn of(&self, list: &Digest) -> ByName {
        let mut all = self.all();
        let place = all.iter().position(|(of, _)| of == list);
        let found = place.and_then(|place| all.remove(place));
        let sums = found.as_ref().map_or_else(ByName::new, |it| it.1.clone());
        all.extend(found);
        sums
    }

    /// The last of some lists of which a matrix is kept, and the matrix.
    pub fn longest(&self, lists: &[Digest], tensor: &str) -> Option<(usize, Arc<Sum>)> {
        let all = self.all();
        let place = |list: &Digest| lists.iter().rposition(|other| other == list);
        let found = all
            .iter()
            .filter_map(|(list, sums)| Some((place(list)?, sums.get(tensor)?.clone())));
        found.max_by_key(|(place, _)| *place)
    }

    /// Keeps matrices of a list, and lets those go that were not asked for longest.
    pub fn keep(&self, list: Digest, sums: ByName) {
        let mut all = self.all();
        let place = all.iter().position(|(of, _)| *of == list);
        let before = place.and_then(|place| all.remove(place));
        let mut joined = before.map_or_else(ByName::new, |(_, sums)| sums);
        joined.extend(sums);
        all.push_back((list, joined));
        while all.len() > KEPT_LISTS || (all.len() > 1 && bytes(&all) > KEPT_BYTES) {
            all.pop_front();
        }
        while bytes(&all) > KEPT_BYTES {
            let Some((_, sums)) = all.front_mut() else {
                return;
            };
            sums.pop_last();
        }
    }
}

/// What all of them take: versions share those that no edit between them touched.
fn bytes(all: &VecDeque<(Digest, ByName)>) -> usize {
    let sums = all.iter().flat_map(|(_, sums)| sums.values());
    let distinct: BTreeMap<*const Sum, usize> =
        sums.map(|sum| (Arc::as_ptr(sum), sum.size())).collect();
    distinct.values().sum()
}
