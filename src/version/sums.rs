//! Matrices of versions before they are rounded, kept so that the next edit is added to them
//! instead of all edits to the base.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::commit::factor;
use super::materialise::Sum;
use super::{Base, Error, Factor, History};
use crate::objects::Digest;
use crate::proto::v1;
use crate::store::Content;

/// Bytes of the matrices that are kept, at most: one of GPT-J's has 256 MiB.
const KEPT_BYTES: usize = 512 << 20;
/// Lists of edits whose matrices are kept, at most.
const KEPT_LISTS: usize = 16;
/// Bytes of factors that are read before they are added, and let go: what a version of any length
/// takes in memory beside its matrices.
const READ_BYTES: usize = 64 << 20;

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

/// Some matrices of a version, each with the factors of its edits on it. Those that are not kept
/// are made from the base, by one product of all their factors.
///
/// # Errors
/// [`Error::Unknown`] for an edit that is not stored, [`Error::Object`] for a factor's numbers, and
/// those of [`Base::matrix`].
pub(super) fn sums<'a>(
    history: History<'_>,
    base: &Base,
    content: &Content,
    tensors: impl Iterator<Item = &'a str>,
) -> Result<ByName, Error> {
    let mut kept = base.sums.of(&content.list);
    let (mut found, mut wanted) = (ByName::new(), Vec::new());
    for tensor in tensors {
        match kept.remove(tensor) {
            Some(sum) => {
                found.insert(tensor.to_owned(), sum);
            }
            None => {
                wanted.push(tensor);
            }
        }
    }
    if wanted.is_empty() {
        return Ok(found);
    }
    // One that no edit touches is the base's own.
    let mut described = match wanted.iter().any(|&it| content.matrices.contains_key(it)) {
        true => touched(history, content, &wanted)?,
        false => BTreeMap::new(),
    };
    let mut made = ByName::new();
    for tensor in wanted {
        let described = described.remove(tensor).unwrap_or_default();
        let sum = Arc::new(stacked(history, base, tensor, &described)?);
        made.insert(tensor.to_owned(), sum);
    }
    base.sums.keep(content.list, made.clone());
    found.append(&mut made);
    Ok(found)
}

/// What the edits of a list add to some matrices, in order, without the numbers. Those that none
/// touches are left out.
pub(super) fn touched<'a>(
    history: History<'_>,
    content: &Content,
    tensors: &[&'a str],
) -> Result<BTreeMap<&'a str, Vec<v1::LowRankFactor>>, Error> {
    let mut found: BTreeMap<&str, Vec<v1::LowRankFactor>> = BTreeMap::new();
    for edit in &content.edits {
        for described in history.edit_of(edit)?.factors {
            let tensor = tensors.iter().find(|&&it| it == described.tensor_name);
            if let Some(tensor) = tensor {
                found.entry(tensor).or_default().push(described);
            }
        }
    }
    Ok(found)
}

/// A matrix with factors on it, whose numbers are read a part at a time.
pub(super) fn stacked(
    history: History<'_>,
    base: &Base,
    tensor: &str,
    described: &[v1::LowRankFactor],
) -> Result<Sum, Error> {
    let mut sum = base.sum(tensor)?;
    let (mut read, mut bytes) = (Vec::new(), 0);
    for (n, described_one) in described.iter().enumerate() {
        let next = factor(history.store(), described_one)?;
        bytes += size_of_val(next.left.as_slice()) + size_of_val(next.right.as_slice());
        read.push(next);
        if bytes >= READ_BYTES || n + 1 == described.len() {
            base.add(&mut sum, &read.iter().collect::<Vec<&Factor>>())?;
            read.clear();
            bytes = 0;
        }
    }
    Ok(sum)
}

/// The matrices of a version that factors touch, with these on them too.
///
/// # Errors
/// Those of [`sums`].
pub(super) fn with_factors(
    history: History<'_>,
    base: &Base,
    content: &Content,
    added: &[Factor],
) -> Result<ByName, Error> {
    let grouped = super::by_tensor(added);
    let mut before = sums(history, base, content, grouped.keys().copied())?;
    let mut made = ByName::new();
    for (tensor, factors) in grouped {
        let sum = before.remove(tensor);
        let mut sum = match sum {
            Some(sum) => (*sum).clone(),
            None => base.sum(tensor)?,
        };
        base.add(&mut sum, &factors)?;
        made.insert(tensor.to_owned(), Arc::new(sum));
    }
    Ok(made)
}

/// Keeps the matrices of a list that comes of another: those that changed, and of the others what
/// was kept.
pub(super) fn carry_on(base: &Base, from: &Content, to: Digest, changed: ByName, gone: &[String]) {
    let mut sums = base.sums.of(&from.list);
    sums.extend(changed);
    sums.retain(|tensor, _| !gone.contains(tensor));
    base.sums.keep(to, sums);
}
