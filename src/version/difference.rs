//! What differs between two versions.

use std::collections::{BTreeSet, HashSet};

use super::{Base, Error, Factor, History, Matrix, by_tensor, stacked};
use crate::model::TensorData;
use crate::objects::Digest;
use crate::proto::v1;
use crate::store::Content;

/// Every matrix that is not the same in both versions, by layer, with the norms of the base's and
/// of the difference. All of them are materialised and held against their digests.
///
/// # Errors
/// [`Error::Materialised`] when one is not what its version says, and what reading the versions and
/// the base may fail with.
pub fn matrices(
    history: History<'_>,
    base: &Base,
    left: &v1::Version,
    right: &v1::Version,
) -> Result<Vec<v1::MatrixDifference>, Error> {
    let sides = [history.content(left)?, history.content(right)?];
    let touched: BTreeSet<(u32, &str)> = sides
        .iter()
        .flat_map(|content| content.matrices.values())
        .map(|matrix| (matrix.layer, matrix.tensor_name.as_str()))
        .collect();
    let described = |tensor: &str| sides.each_ref().map(|content| content.matrices.get(tensor));
    let differing: Vec<(u32, &str)> = touched
        .into_iter()
        .filter(|(_, tensor)| match described(tensor) {
            [Some(left), Some(right)] => left.digest != right.digest,
            _ => true,
        })
        .collect();
    let mut differences = Vec::new();
    for (layer, tensor) in differing {
        let pristine = base.matrix(tensor, &[])?;
        let mut made = Vec::with_capacity(2);
        for (content, described) in sides.iter().zip(described(tensor)) {
            let Some(described) = described else {
                made.push((elements(&pristine), pristine.digest.to_string()));
                continue;
            };
            let sums = stacked::sums(history, base, content, [tensor].into_iter())?;
            let matrix = match sums.get(tensor) {
                Some(sum) => sum.matrix()?,
                None => pristine.clone(),
            };
            let matrix = Base::held_against(described, matrix)?;
            made.push((elements(&matrix), described.digest.clone()));
        }
        let [(left, left_digest), (right, right_digest)] = [made.remove(0), made.remove(0)];
        differences.push(v1::MatrixDifference {
            tensor_name: tensor.to_owned(),
            layer,
            left_digest,
            right_digest,
            difference_norm: norm(left.iter().zip(&right).map(|(a, b)| b - a)),
            base_norm: norm(elements(&pristine).into_iter()),
        });
    }
    Ok(differences)
}

/// The norm of what an edit adds to a version, in norms of the matrix that it changes; the largest,
/// where it changes several.
///
/// # Errors
/// What reading the version, the factors and the base may fail with.
pub fn relative_norm(
    history: History<'_>,
    base: &Base,
    parent: &v1::Version,
    edit: &v1::Edit,
) -> Result<f64, Error> {
    let content = history.content(parent)?;
    let added = edit.factors.iter().map(|it| added(history, it));
    let added = added.collect::<Result<Vec<Factor>, Error>>()?;
    for factor in &added {
        base.check(factor)?;
    }
    let grouped = by_tensor(&added);
    let before = stacked::sums(history, base, &content, grouped.keys().copied())?;
    let mut largest = 0.0_f64;
    // Of a matrix all together: each of many may be small, and their sum is not.
    for (tensor, added) in grouped {
        let mut sum = match before.get(tensor) {
            Some(sum) => (**sum).clone(),
            None => base.sum(tensor)?,
        };
        let parent = sum.stored()?;
        base.add(&mut sum, &added)?;
        let edited = sum.stored()?;
        let change = norm(parent.iter().zip(&edited).map(|(a, b)| b - a));
        // What is not a number is kept: no gate lets it through.
        let relative = change / norm(parent.iter().copied());
        if relative.is_nan() || relative > largest {
            largest = relative;
        }
    }
    Ok(largest)
}

/// A factor of an edit on its way in, whose numbers come with it or are stored.
fn added(history: History<'_>, described: &v1::LowRankFactor) -> Result<Factor, Error> {
    let data = described.data.as_slice();
    if data.is_empty() {
        let digest = described.digest.parse()?;
        let data = history.store().objects().read(&digest)?;
        return Factor::from_proto(described, &data);
    }
    // Who sends the numbers need not name them.
    let mut described = described.clone();
    if described.digest.is_empty() {
        described.digest = Digest::of(data).to_string();
    }
    Factor::from_proto(&described, data)
}

/// The edits of one version that another has not, in order, by their digests.
pub fn edits_only_in(version: &Content, other: &Content) -> Vec<Digest> {
    let others: HashSet<&Digest> = other.edits.iter().collect();
    let edits = version.edits.iter().copied();
    edits.filter(|edit| !others.contains(edit)).collect()
}

fn elements(matrix: &Matrix) -> Vec<f32> {
    let data = TensorData {
        dtype: matrix.dtype,
        shape: Vec::new(),
        bytes: matrix.bytes.as_slice().into(),
    };
    data.to_f32()
}

fn norm(numbers: impl Iterator<Item = f32>) -> f64 {
    numbers.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::Checkpoint;
    use crate::store::Store;
    use crate::version::base_version;

    #[test]
    fn the_norm_of_what_an_edit_adds_is_of_its_numbers_named_or_not_and_of_all_factors_together() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
        let base = Base::new(Checkpoint::open(&fixture).unwrap());
        let weight = &base.checkpoint().layout().layers[1].down().unwrap().weight;
        let (tensor, shape) = (weight.name.clone(), weight.shape.clone());
        let original = norm(elements(&base.matrix(&tensor, &[]).unwrap()).into_iter());
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let history = History::new(&store, "tiny", "base");
        let parent = base_version("tiny", "base");
        let factor = |scale: f32| {
            let (left, right) = (vec![scale; shape[0]], vec![1.0; shape[1]]);
            Factor::rank_one(tensor.clone(), 1, left, right).to_proto()
        };
        let nameless = |scale: f32| v1::LowRankFactor {
            digest: String::new(),
            ..factor(scale)
        };
        let found = |factors: Vec<v1::LowRankFactor>| {
            let edit = v1::Edit {
                factors,
                ..Default::default()
            };
            relative_norm(history, &base, &parent, &edit)
        };
        let count = (shape[0] * shape[1]) as f64;
        let expected = 0.25 * count.sqrt() / original;
        let close = |found: f64, expected: f64| (found - expected).abs() < 1e-5 * expected;
        assert!(close(found(vec![factor(0.25)]).unwrap(), expected));
        assert!(close(found(vec![nameless(0.25)]).unwrap(), expected));
        // Stored, and named alone.
        let numbers = factor(0.25).data;
        store.objects().put(&numbers).unwrap();
        let stored = v1::LowRankFactor {
            data: Vec::new(),
            ..factor(0.25)
        };
        assert!(close(found(vec![stored]).unwrap(), expected));
        let many = vec![nameless(0.125), nameless(0.125), factor(0.25)];
        assert!(close(found(many).unwrap(), 2.0 * expected));
        assert_eq!(found(Vec::new()).unwrap(), 0.0);
        // Other numbers than those that are named.
        let lying = v1::LowRankFactor {
            digest: "0".repeat(64),
            ..factor(0.25)
        };
        assert!(found(vec![lying]).is_err());
    }
}
