//! What differs between two versions.

use std::collections::{BTreeSet, HashSet};

use super::{Base, Error, Factor, History, Matrix, factors};
use crate::model::TensorData;
use crate::objects::Digest;
use crate::proto::v1;

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
    let sides = [
        (left, factors(history, &left.edits)?),
        (right, factors(history, &right.edits)?),
    ];
    let touched: BTreeSet<(u32, &str)> = sides
        .iter()
        .flat_map(|(version, _)| &version.matrices)
        .map(|matrix| (matrix.layer, matrix.tensor_name.as_str()))
        .collect();
    let mut differences = Vec::new();
    for (layer, tensor) in touched {
        let described = sides.each_ref().map(|(version, _)| {
            let mut matrices = version.matrices.iter();
            matrices.find(|matrix| matrix.tensor_name == tensor)
        });
        if let [Some(left), Some(right)] = described
            && left.digest == right.digest
        {
            continue;
        }
        let pristine = base.matrix(tensor, &[])?;
        let mut made = Vec::with_capacity(2);
        for ((_, factors), described) in sides.iter().zip(described) {
            made.push(match described {
                Some(described) => {
                    let factors: Vec<&Factor> =
                        factors.iter().filter(|f| f.tensor == tensor).collect();
                    base.verified(described, &factors)?
                }
                None => pristine.clone(),
            });
        }
        let [left, right] = [elements(&made[0]), elements(&made[1])];
        differences.push(v1::MatrixDifference {
            tensor_name: tensor.to_owned(),
            layer,
            left_digest: made[0].digest.to_string(),
            right_digest: made[1].digest.to_string(),
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
    let before = factors(history, &parent.edits)?;
    let mut largest = 0.0_f64;
    for described in &edit.factors {
        let factor = match described.data.as_slice() {
            [] => {
                let digest = described.digest.parse()?;
                let data = history.store().objects().read(&digest)?;
                Factor::from_proto(described, &data)?
            }
            data => {
                // Who sends the numbers need not name them.
                let mut described = described.clone();
                if described.digest.is_empty() {
                    described.digest = Digest::of(data).to_string();
                }
                Factor::from_proto(&described, data)?
            }
        };
        base.check(&factor)?;
        let mut all: Vec<&Factor> = before
            .iter()
            .filter(|it| it.tensor == factor.tensor)
            .collect();
        let parent = elements(&base.matrix(&factor.tensor, &all)?);
        all.push(&factor);
        let edited = elements(&base.matrix(&factor.tensor, &all)?);
        let change = norm(parent.iter().zip(&edited).map(|(a, b)| b - a));
        // What is not a number is kept: no gate lets it through.
        let relative = change / norm(parent.iter().copied());
        if relative.is_nan() || relative > largest {
            largest = relative;
        }
    }
    Ok(largest)
}

/// The edits of one version that another has not, in order, by their digests.
pub fn edits_only_in<'a>(version: &'a v1::Version, other: &v1::Version) -> Vec<&'a str> {
    let others: HashSet<&str> = other.edits.iter().map(String::as_str).collect();
    let edits = version.edits.iter().map(String::as_str);
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
