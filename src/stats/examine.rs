//! Looking at a file of key statistics that came from elsewhere, before anything is computed with
//! it.
//!
//! A sum of `k k^T` has no direction below 0. Whether that is so takes a factorisation: of a matrix
//! of moderate size it is made here, in the room that the matrix has; a larger one is read row by
//! row, and is factorised where it is used, by a worker.

use std::io::{Read, Seek};

use super::moment::count_of;
use super::{Error, Moment};
use crate::npz::read::Reader;

/// Single precision leaves this part of the largest eigenvalue of what should be 0.
pub const BELOW_ZERO: f64 = 1e-4;
/// Most channels of a matrix that is held in memory and factorised: 128 MiB, and some ten seconds.
const WHOLE: usize = 4096;
/// Columns of the factor that are made together: their rows stay in the processor's cache.
const BLOCK: usize = 64;
/// Steps towards the largest eigenvalue: it need not be known well.
const POWERS: usize = 20;

/// What a file of key statistics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Channels of a key.
    pub channels: usize,
    /// Keys summed up.
    pub tokens: u64,
}

/// Looks at a file of key statistics for keys of so many channels, or of any number where that is
/// not known. It takes memory of at most 128 MiB.
///
/// # Errors
/// As [`Moment::from_npz`], but for symmetry in matrices of more than 4,096 channels; and
/// [`Error::Malformed`] for other channels, and for a smaller matrix that has a direction below 0.
pub fn examine(file: impl Read + Seek, channels: Option<u64>) -> Result<Examined, Error> {
    examine_up_to(WHOLE, file, channels)
}

fn examine_up_to(
    whole: usize,
    file: impl Read + Seek,
    channels: Option<u64>,
) -> Result<Examined, Error> {
    let malformed = |problem: String| Error::Malformed { problem };
    let mut file = Reader::open(file)?;
    let tokens = count_of(&mut file)?;
    let size = match file.shape("mom2.mom2")?.as_slice() {
        &[rows, columns] if rows == columns && rows > 0 => rows,
        shape => {
            return Err(malformed(format!(
                "mom2.mom2 has the shape {shape:?}: it must be a square matrix"
            )));
        }
    };
    if let Some(channels) = channels.filter(|&channels| channels != size as u64) {
        return Err(malformed(format!(
            "its keys have {size} channels, the model's have {channels}: it is of another model"
        )));
    }
    if size <= whole {
        let mut sum = Moment::from_reader(&mut file)?.into_sum();
        if !is_second_moment(&mut sum, size) {
            return Err(malformed(
                "the matrix has a direction below 0, which no sum of k k^T has: it is no second \
                 moment"
                    .to_owned(),
            ));
        }
    } else {
        look_through(&mut file, size)?;
    }
    Ok(Examined {
        channels: size,
        tokens,
    })
}

/// What can be said of a matrix row by row: its numbers are finite, its squares are not below 0 and
/// not all 0, and bound the other sums.
fn look_through(file: &mut Reader<impl Read + Seek>, size: usize) -> Result<(), Error> {
    let mut squares = Vec::with_capacity(size);
    file.rows("mom2.mom2", |at, row| {
        if let Some(column) = row.iter().position(|x| !x.is_finite()) {
            return Err(format!("has {} at row {at}, column {column}", row[column]));
        }
        if row[at] < 0.0 {
            return Err(format!(
                "has a sum of squares of {} for channel {at}: it cannot be below 0",
                row[at]
            ));
        }
        squares.push(row[at]);
        Ok(())
    })?;
    let scale = squares.iter().copied().fold(0.0, f64::max);
    if scale == 0.0 {
        return Err(Error::Malformed {
            problem: "every sum of squares is 0: these are no keys".to_owned(),
        });
    }
    file.rows("mom2.mom2", |at, row| {
        let bound = |column: usize| (squares[at] * squares[column]).sqrt() + BELOW_ZERO * scale;
        match (0..at).find(|&column| row[column].abs() > bound(column)) {
            None => Ok(()),
            Some(column) => Err(format!(
                "has {} at row {at}, column {column}, more than the channels' squares allow",
                row[column]
            )),
        }
    })?;
    Ok(())
}

/// Whether a symmetric matrix, row by row, has no direction that is further below 0 than single
/// precision leaves it. What is in it afterwards has no meaning.
fn is_second_moment(matrix: &mut [f64], size: usize) -> bool {
    let ridge = BELOW_ZERO * largest_eigenvalue(matrix, size);
    for i in 0..size {
        matrix[i * size + i] += ridge;
    }
    has_factor(matrix, size)
}

/// About the largest absolute eigenvalue of a symmetric matrix; never more than it.
fn largest_eigenvalue(matrix: &[f64], size: usize) -> f64 {
    let mut vector: Vec<f64> = (0..size)
        .map(|i| matrix[i * size + i].abs().sqrt())
        .collect();
    let mut largest = 0.0;
    for _ in 0..POWERS {
        let norm = dot(&vector, &vector).sqrt();
        if norm == 0.0 || !norm.is_finite() {
            break;
        }
        vector.iter_mut().for_each(|x| *x /= norm);
        let rows = matrix.chunks_exact(size);
        let product: Vec<f64> = rows.map(|row| dot(row, &vector)).collect();
        largest = dot(&product, &product).sqrt();
        vector = product;
    }
    largest
}

/// Whether a symmetric matrix is `L L^T`. Its lower half becomes `L`, so far as there is one.
fn has_factor(matrix: &mut [f64], size: usize) -> bool {
    for first in (0..size).step_by(BLOCK) {
        for i in first..size {
            let (before, row) = matrix.split_at_mut(i * size);
            let row = &mut row[..size];
            for j in first..(first + BLOCK).min(i) {
                let other = &before[j * size..][..=j];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            if i < first + BLOCK {
                let pivot = row[i] - dot(&row[..i], &row[..i]);
                if pivot.is_nan() || pivot <= 0.0 {
                    return false;
                }
                row[i] = pivot.sqrt();
            }
        }
    }
    true
}

/// A sum that the processor can do eight at a time.
fn dot(one: &[f64], other: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (ones, others) = (one.chunks_exact(8), other.chunks_exact(8));
    let rest: f64 = (ones.remainder().iter())
        .zip(others.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in ones.zip(others) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::npz::Npz;

    fn file(sum: &[f64], size: usize) -> Cursor<Vec<u8>> {
        let mut npz = Npz::new();
        npz.f64("mom2.mom2", &[size, size], sum).unwrap();
        npz.i64("mom2.count", &[], &[1000]).unwrap();
        Cursor::new(npz.to_bytes().unwrap())
    }

    /// The sum over `keys` keys of numbers of a fixed sequence, with one channel far above the
    /// others.
    fn sum(size: usize, keys: usize) -> Vec<f64> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / 16_777_216.0 - 0.5
        };
        let mut sum = vec![0.0; size * size];
        for _ in 0..keys {
            let mut key: Vec<f64> = (0..size).map(|_| next()).collect();
            key[0] *= 100.0;
            for i in 0..size {
                for j in 0..size {
                    sum[i * size + j] += key[i] * key[j];
                }
            }
        }
        sum
    }

    #[test]
    fn sums_of_keys_are_taken_also_of_few_keys_and_in_single_precision() {
        // More than one block, and no whole number of eights.
        let size = 2 * BLOCK + 13;
        for keys in [1, 20, 3 * size] {
            let sum = sum(size, keys);
            let single: Vec<f64> = sum.iter().map(|&x| f64::from(x as f32)).collect();
            for sum in [sum, single] {
                let found = examine(file(&sum, size), Some(size as u64)).unwrap();
                assert_eq!((found.channels, found.tokens), (size, 1000));
            }
        }
    }

    #[test]
    fn a_direction_below_zero_is_refused_wherever_it_is_though_each_pair_is_possible() {
        let size = BLOCK + 20;
        for at in [0, 30, size - 3] {
            let mut sum = vec![0.0; size * size];
            sum.iter_mut().step_by(size + 1).for_each(|x| *x = 1.0);
            // Cosines of 0.9, 0.9 and -0.9 between three directions: any two can be, all three
            // cannot.
            for (i, j, cosine) in [(0, 1, 0.9), (0, 2, 0.9), (1, 2, -0.9)] {
                sum[(at + i) * size + at + j] = cosine;
                sum[(at + j) * size + at + i] = cosine;
            }
            let said = examine(file(&sum, size), None).unwrap_err().to_string();
            assert!(said.contains("below 0"), "{at}: {said}");
        }
    }

    #[test]
    fn large_matrices_are_looked_through_row_by_row() {
        let through = |sum: &[f64]| examine_up_to(1, file(sum, 3), Some(3));
        let good = [2.0, 0.5, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(through(&good).unwrap().channels, 3);
        let changed = |at: usize, x: f64| {
            let mut sum = good;
            sum[at] = x;
            sum
        };
        for (sum, what) in [
            (changed(5, f64::NAN), "row 1, column 2"),
            (changed(4, -1.0), "cannot be below 0"),
            (changed(3, 9.0), "squares allow"),
            ([0.0; 9], "these are no keys"),
        ] {
            let said = through(&sum).unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
        let other = examine(file(&good, 3), Some(4)).unwrap_err().to_string();
        assert!(other.contains("of another model"), "{other}");
    }
}
