//! The matrices of versions: the base's with the factors of their edits on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::materialise::Sum;
use super::sums::ByName;
use super::{Base, Error, Factor, History};
use crate::objects::Digest;
use crate::proto::v1;
use crate::store::{Content, Store};

/// Bytes of factors that are read before they are added, and let go: what a version of any length
/// takes in memory beside its matrices.
const READ_BYTES: usize = 64 << 20;

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
        true => touched(history, &content.edits, &wanted)?,
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
    edits: &[Digest],
    tensors: &[&'a str],
) -> Result<BTreeMap<&'a str, Vec<v1::LowRankFactor>>, Error> {
    let mut found: BTreeMap<&str, Vec<v1::LowRankFactor>> = BTreeMap::new();
    for edit in edits {
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

/// The factors of edits, in order.
///
/// # Errors
/// [`Error::Unknown`] for an edit that is not stored; [`Error::Object`] for a factor's numbers.
pub fn factors(history: History<'_>, edits: &[String]) -> Result<Vec<Factor>, Error> {
    let mut all = Vec::new();
    for id in edits {
        all.extend(factors_of(history.store(), &history.edit(id)?)?);
    }
    Ok(all)
}

/// The factors of an edit.
pub(super) fn factors_of(store: &Store, edit: &v1::Edit) -> Result<Vec<Factor>, Error> {
    let described = edit.factors.iter();
    described
        .map(|described| factor(store, described))
        .collect()
}

/// A factor with its numbers.
pub(super) fn factor(store: &Store, described: &v1::LowRankFactor) -> Result<Factor, Error> {
    let digest: Digest = described.digest.parse()?;
    Factor::from_proto(described, &store.objects().read(&digest)?)
}
