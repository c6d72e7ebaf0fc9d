//! What the index was given last and sled does not have yet.
//!
//! sled keeps every version of a record until it cleans up, and what every batch writes again (the
//! head of the audit log, a ref, the position) would be most of its files. So some batches are
//! gathered here first, each record as the last of them has it, and read from here over what sled
//! has.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, RangeBounds};

use sled::IVec;

/// A key and its record.
pub type Entry = (IVec, IVec);

/// Bounds of keys.
pub type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Records by key; none for one that was removed.
#[derive(Debug, Default)]
pub struct Recent {
    writes: BTreeMap<Vec<u8>, Option<IVec>>,
    batches: usize,
    bytes: usize,
}

impl Recent {
    /// Most batches that are gathered: a start after a crash reads so many more from the log.
    const BATCHES: usize = 64;
    /// Most records that are gathered, and most bytes of them; one batch may bring more.
    const WRITES: usize = 1024;
    const BYTES: usize = 1 << 20;

    /// Sets a record, or removes it.
    pub fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.writes.insert(key, value.map(IVec::from));
    }

    /// Counts a batch whose records were set, and says whether it is time to give them to sled.
    pub fn end_batch(&mut self) -> bool {
        self.batches += 1;
        let full = self.writes.len() >= Self::WRITES || self.bytes >= Self::BYTES;
        full || self.batches >= Self::BATCHES
    }

    /// What is known of a key here: nothing, or its record, or that it has none.
    pub fn get(&self, key: &[u8]) -> Option<Option<IVec>> {
        self.writes.get(key).cloned()
    }

    /// All of them, for sled, and how many.
    pub fn batch(&self) -> (sled::Batch, usize) {
        let mut batch = sled::Batch::default();
        for (key, value) in &self.writes {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.clone()),
                None => batch.remove(key.as_slice()),
            }
        }
        (batch, self.writes.len())
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Those within bounds.
    fn within(&self, bounds: &Bounds) -> VecDeque<(IVec, Option<IVec>)> {
        if self.writes.is_empty() || is_empty(bounds) {
            return VecDeque::new();
        }
        let found = self.writes.range(bounds.clone());
        let found = found.map(|(key, value)| (IVec::from(key.as_slice()), value.clone()));
        found.collect()
    }

    /// These over what sled has within the same bounds, in the order of the keys.
    pub fn over<I>(&self, bounds: &Bounds, settled: I) -> Merged<I>
    where
        I: DoubleEndedIterator<Item = sled::Result<Entry>>,
    {
        Merged {
            settled,
            front: None,
            back: None,
            recent: self.within(bounds),
        }
    }
}

/// Whether nothing can lie within bounds.
fn is_empty((start, end): &Bounds) -> bool {
    match (start, end) {
        (Bound::Excluded(start), Bound::Excluded(end)) => start >= end,
        (
            Bound::Included(start) | Bound::Excluded(start),
            Bound::Included(end) | Bound::Excluded(end),
        ) => start > end,
        _ => false,
    }
}

/// The bounds of a range.
pub fn bounds(range: &impl RangeBounds<Vec<u8>>) -> Bounds {
    (range.start_bound().cloned(), range.end_bound().cloned())
}

/// The bounds of the keys that begin so.
pub fn beginning_with(prefix: &[u8]) -> Bounds {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

/// Recent records over those that sled has, from both ends.
#[derive(Debug)]
pub struct Merged<I> {
    settled: I,
    /// Of sled's, looked at and not given yet.
    front: Option<Entry>,
    back: Option<Entry>,
    recent: VecDeque<(IVec, Option<IVec>)>,
}

/// Whose entry comes next.
enum Turn {
    Settled,
    Recent,
    /// Both have one of the same key: sled's is older.
    Both,
}

/// Whose turn it is, where `first` is how a key that comes first compares; none at the end.
fn turn(
    settled: &Option<Entry>,
    recent: Option<&(IVec, Option<IVec>)>,
    first: Ordering,
) -> Option<Turn> {
    match (settled, recent) {
        (None, None) => None,
        (Some(_), None) => Some(Turn::Settled),
        (None, Some(_)) => Some(Turn::Recent),
        (Some((key, _)), Some((newer, _))) => Some(match key.cmp(newer) {
            Ordering::Equal => Turn::Both,
            order if order == first => Turn::Settled,
            _ => Turn::Recent,
        }),
    }
}

impl<I: DoubleEndedIterator<Item = sled::Result<Entry>>> Iterator for Merged<I> {
    type Item = sled::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.front.is_none() {
                self.front = match self.settled.next() {
                    Some(Ok(entry)) => Some(entry),
                    Some(Err(error)) => return Some(Err(error)),
                    None => self.back.take(),
                };
            }
            match turn(&self.front, self.recent.front(), Ordering::Less)? {
                Turn::Settled => return self.front.take().map(Ok),
                Turn::Both => self.front = None,
                Turn::Recent => {}
            }
            if let (key, Some(value)) = self.recent.pop_front()? {
                return Some(Ok((key, value)));
            }
        }
    }
}

impl<I: DoubleEndedIterator<Item = sled::Result<Entry>>> DoubleEndedIterator for Merged<I> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            if self.back.is_none() {
                self.back = match self.settled.next_back() {
                    Some(Ok(entry)) => Some(entry),
                    Some(Err(error)) => return Some(Err(error)),
                    None => self.front.take(),
                };
            }
            match turn(&self.back, self.recent.back(), Ordering::Greater)? {
                Turn::Settled => return self.back.take().map(Ok),
                Turn::Both => self.back = None,
                Turn::Recent => {}
            }
            if let (key, Some(value)) = self.recent.pop_back()? {
                return Some(Ok((key, value)));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written_whether_sled_has_it_or_not(
            settled in proptest::collection::btree_map(0u8..40, 0u8..9, 0..30),
            recent in proptest::collection::btree_map(0u8..40, proptest::option::of(0u8..9), 0..30),
            (from, to) in (0u8..40, 0u8..40),
            ends in proptest::collection::vec(any::<bool>(), 50),
        ) {
            let (mut over, mut expected) = (Recent::default(), settled.clone());
            for (&key, &value) in &recent {
                over.set(vec![key], value.map(|value| vec![value]));
                match value {
                    Some(value) => expected.insert(key, value),
                    None => expected.remove(&key),
                };
                let known = over.get(&[key]).unwrap().map(|it| it.to_vec());
                prop_assert_eq!(known, value.map(|value| vec![value]));
            }
            let bounds = bounds(&(vec![from]..vec![to]));
            let expected = expected.into_iter().filter(|(key, _)| (from..to).contains(key));
            let mut expected: VecDeque<(u8, u8)> = expected.collect();
            let ivec = |byte: &u8| IVec::from(&[*byte]);
            let settled = settled.iter().filter(|(key, _)| (from..to).contains(*key));
            let settled = settled.map(|(key, value)| Ok((ivec(key), ivec(value))));
            let mut found = over.over(&bounds, settled);
            for front in ends {
                let (found, expected) = match front {
                    true => (found.next(), expected.pop_front()),
                    false => (found.next_back(), expected.pop_back()),
                };
                let found = found.map(|entry| entry.unwrap()).map(|(k, v)| (k[0], v[0]));
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn keys_that_begin_so_lie_within_bounds() {
        for (prefix, end) in [
            (&b"ab"[..], Bound::Excluded(b"ac".to_vec())),
            (&[1, 255], Bound::Excluded(vec![2])),
            (&[255, 255], Bound::Unbounded),
            (&[], Bound::Unbounded),
        ] {
            let expected = (Bound::Included(prefix.to_vec()), end);
            assert_eq!(beginning_with(prefix), expected);
        }
    }
}
