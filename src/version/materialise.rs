//! From a base matrix and the edits on it to the edited matrix, the same bits on any machine.
//!
//! Every element is `base`, then for every edit in order and every rank in order
//! `element = element + left * right`, each product and each sum rounded to single precision: a
//! multiplication, then an addition. Rust never fuses the two on its own, so the width of the
//! machine's vectors and the number of threads decide how many elements are computed at a time and
//! nothing else. (A fused multiply-add would round once instead of twice, and would have to be
//! emulated where the machine has none.)

use super::{Error, Factor};
use crate::model::{DType, TensorData};
use crate::objects::Digest;

/// A materialised matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Elements in the base's orientation and type, little-endian.
    pub bytes: Vec<u8>,
    /// Their type.
    pub dtype: DType,
    /// BLAKE3 of `bytes`.
    pub digest: Digest,
}

/// Rows and columns of the piece that is held in registers while all edits are added to it:
/// 16 vectors of four singles would spill, so 4 x 8 leaves room for the factors.
const ROWS: usize = 4;
const COLUMNS: usize = 8;

/// Adds the factors, in order, to a base matrix and rounds once to its stored type.
///
/// `base` is `[width, inner]`, or `[inner, width]` where `transposed` (GPT-2's orientation); the
/// factors must be of this matrix. `threads` share the work and do not change a bit of it.
///
/// # Errors
/// [`Error::Factor`] when a factor has another shape, [`Error::NotFinite`].
pub fn materialise(
    tensor: &str,
    base: &TensorData<'_>,
    transposed: bool,
    factors: &[&Factor],
    threads: usize,
) -> Result<Matrix, Error> {
    let mut sum = Sum::of(tensor, base, transposed)?;
    if factors.is_empty() {
        let bytes = base.bytes.to_vec();
        return Ok(Matrix {
            digest: Digest::of(&bytes),
            dtype: base.dtype,
            bytes,
        });
    }
    sum.add(factors, threads)?;
    sum.matrix()
}

/// A base matrix with factors on it, before it is rounded to its stored type. Single-precision
/// numbers lose nothing by being kept, so that factors which are added later, to one that was kept,
/// give the bits that all of them at once give.
#[derive(Clone, Debug)]
pub struct Sum {
    tensor: String,
    elements: Vec<f32>,
    rows: usize,
    columns: usize,
    transposed: bool,
    dtype: DType,
}

impl Sum {
    /// The base's elements, without a factor.
    ///
    /// # Errors
    /// [`Error::Factor`] when it is no matrix.
    pub fn of(tensor: &str, base: &TensorData<'_>, transposed: bool) -> Result<Self, Error> {
        let &[rows, columns] = base.shape.as_slice() else {
            return Err(Error::Factor {
                tensor: tensor.to_owned(),
                field: "the base",
                found: format!("of {} dimensions", base.shape.len()),
                expected: "a matrix".to_owned(),
            });
        };
        Ok(Self {
            tensor: tensor.to_owned(),
            elements: base.to_f32(),
            rows,
            columns,
            transposed,
            dtype: base.dtype,
        })
    }

    /// Adds factors, in order. One that is a whole difference is added element by element, in its
    /// place among the others.
    ///
    /// # Errors
    /// [`Error::Factor`] when one has another shape; nothing is added then.
    pub fn add(&mut self, factors: &[&Factor], threads: usize) -> Result<(), Error> {
        let (width, inner) = match self.transposed {
            true => (self.columns, self.rows),
            false => (self.rows, self.columns),
        };
        for factor in factors {
            factor.check()?;
            if (factor.width, factor.inner) != (width, inner) {
                return Err(Error::Factor {
                    tensor: self.tensor.clone(),
                    field: "its shape",
                    found: format!("{} x {}", factor.width, factor.inner),
                    expected: format!("{width} x {inner}, as the matrix has"),
                });
            }
        }
        let (shape, transposed) = ((self.rows, self.columns), self.transposed);
        for run in factors.chunk_by(|one, next| !one.is_whole() && !next.is_whole()) {
            match run {
                [whole] if whole.is_whole() => {
                    add_whole(&mut self.elements, self.columns, whole, transposed);
                }
                thin => add_thin(&mut self.elements, shape, thin, transposed, threads),
            }
        }
        Ok(())
    }

    /// Bytes that it takes in memory.
    pub fn size(&self) -> usize {
        self.elements.len() * size_of::<f32>()
    }

    /// The elements as they are stored, rounded, again in single precision.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for what the stored type cannot hold.
    pub fn stored(&self) -> Result<Vec<f32>, Error> {
        let rounded = TensorData {
            dtype: self.dtype,
            shape: Vec::new(),
            bytes: self.rounded()?.into(),
        };
        Ok(rounded.to_f32())
    }

    /// The matrix.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for what the stored type cannot hold.
    pub fn matrix(&self) -> Result<Matrix, Error> {
        let bytes = self.rounded()?;
        Ok(Matrix {
            digest: Digest::of(&bytes),
            dtype: self.dtype,
            bytes,
        })
    }

    fn rounded(&self) -> Result<Vec<u8>, Error> {
        if let Some((index, value)) = stored_overflow(&self.elements, self.dtype) {
            return Err(Error::NotFinite {
                tensor: self.tensor.clone(),
                index,
                value,
            });
        }
        Ok(round(&self.elements, self.dtype))
    }
}

/// Adds a difference.
fn add_whole(elements: &mut [f32], columns: usize, whole: &Factor, transposed: bool) {
    if !transposed {
        for (element, added) in elements.iter_mut().zip(&whole.left) {
            *element += added;
        }
        return;
    }
    for (row, elements) in elements.chunks_exact_mut(columns).enumerate() {
        for (column, element) in elements.iter_mut().enumerate() {
            *element += whole.left[column * whole.inner + row];
        }
    }
}

/// Adds factors that follow each other, rank by rank.
fn add_thin(
    elements: &mut [f32],
    (rows, columns): (usize, usize),
    factors: &[&Factor],
    transposed: bool,
    threads: usize,
) {
    let lefts = Panels {
        factors,
        left: true,
    };
    let rights = Panels {
        factors,
        left: false,
    };
    let (down, across) = if transposed {
        (rights.pack::<ROWS>(rows), lefts.pack::<COLUMNS>(columns))
    } else {
        (lefts.pack::<ROWS>(rows), rights.pack::<COLUMNS>(columns))
    };
    let depth: usize = factors.iter().map(|factor| factor.rank).sum();
    // Whole blocks of rows to every thread.
    let blocks = rows.div_ceil(ROWS);
    let share = blocks.div_ceil(threads.clamp(1, blocks.max(1)));
    std::thread::scope(|scope| {
        let pieces = elements.chunks_mut((share * ROWS * columns).max(1));
        let sides = down.chunks((share * ROWS * depth).max(1));
        for (piece, side) in pieces.zip(sides) {
            let across = &across;
            scope.spawn(move || add(piece, columns, side, across, depth));
        }
    });
}

/// One side of all factors, to be laid out as the inner loop reads it.
struct Panels<'a> {
    factors: &'a [&'a Factor],
    left: bool,
}

impl Panels<'_> {
    /// `[panel][rank of all edits][N]`: N neighbouring rows of a side beside each other, padded
    /// with zeros at the end.
    fn pack<const N: usize>(&self, rows: usize) -> Vec<f32> {
        let depth: usize = self.factors.iter().map(|factor| factor.rank).sum();
        let mut packed = vec![0.0; rows.div_ceil(N) * depth * N];
        let mut before = 0;
        for factor in self.factors {
            let side = if self.left {
                &factor.left
            } else {
                &factor.right
            };
            for (row, ranks) in side.chunks_exact(factor.rank).enumerate() {
                let panel = row / N * depth * N;
                for (k, &number) in ranks.iter().enumerate() {
                    packed[panel + (before + k) * N + row % N] = number;
                }
            }
            before += factor.rank;
        }
        packed
    }
}

/// Adds all edits to some rows of the matrix, piece by piece.
fn add(rows: &mut [f32], columns: usize, down: &[f32], across: &[f32], depth: usize) {
    // A strip of `across` stays in the cache while all rows pass by it.
    for (strip, across) in across.chunks_exact(depth * COLUMNS).enumerate() {
        let first = strip * COLUMNS;
        let wide = COLUMNS.min(columns - first);
        for (block, down) in rows
            .chunks_mut(ROWS * columns)
            .zip(down.chunks_exact(depth * ROWS))
        {
            let mut piece = [[0.0; COLUMNS]; ROWS];
            for (row, piece) in block.chunks_exact(columns).zip(&mut piece) {
                piece[..wide].copy_from_slice(&row[first..first + wide]);
            }
            add_to_piece(&mut piece, down, across);
            for (row, piece) in block.chunks_exact_mut(columns).zip(&piece) {
                row[first..first + wide].copy_from_slice(&piece[..wide]);
            }
        }
    }
}

/// The inner loop: all ranks of all edits, in order, on one piece.
fn add_to_piece(piece: &mut [[f32; COLUMNS]; ROWS], down: &[f32], across: &[f32]) {
    let (down, _) = down.as_chunks::<ROWS>();
    let (across, _) = across.as_chunks::<COLUMNS>();
    let mut sums = *piece;
    for (down, across) in down.iter().zip(across) {
        for (sums, &a) in sums.iter_mut().zip(down) {
            for (sum, &b) in sums.iter_mut().zip(across) {
                *sum += a * b;
            }
        }
    }
    *piece = sums;
}

/// The first element that the stored type cannot hold.
fn stored_overflow(elements: &[f32], dtype: DType) -> Option<(usize, f32)> {
    let fits = |x: f32| match dtype {
        DType::F32 => x.is_finite(),
        DType::F16 => half::f16::from_f32(x).is_finite(),
        DType::BF16 => half::bf16::from_f32(x).is_finite(),
    };
    elements
        .iter()
        .copied()
        .enumerate()
        .find(|&(_, x)| !fits(x))
}

/// Rounds to the nearest of the stored type, ties to even.
fn round(elements: &[f32], dtype: DType) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(elements.len() * dtype.size());
    for &x in elements {
        match dtype {
            DType::F32 => bytes.extend_from_slice(&x.to_le_bytes()),
            DType::F16 => bytes.extend_from_slice(&half::f16::from_f32(x).to_le_bytes()),
            DType::BF16 => bytes.extend_from_slice(&half::bf16::from_f32(x).to_le_bytes()),
        }
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    /// Numbers of a fixed sequence, exact in single precision, the same everywhere.
    struct Sequence(u32);

    impl Sequence {
        fn next(&mut self) -> f32 {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.0 >> 8) as f32 / 16_777_216.0 - 0.5
        }

        fn take(&mut self, count: usize) -> Vec<f32> {
            (0..count).map(|_| self.next()).collect()
        }
    }

    fn base(numbers: &[f32], shape: [usize; 2], dtype: DType) -> TensorData<'static> {
        TensorData {
            dtype,
            shape: shape.to_vec(),
            bytes: Cow::Owned(round(numbers, dtype)),
        }
    }

    fn factors(
        sequence: &mut Sequence,
        width: usize,
        inner: usize,
        ranks: &[usize],
    ) -> Vec<Factor> {
        let make = |&rank: &usize| Factor {
            tensor: "w".to_owned(),
            layer: 0,
            width,
            inner,
            rank,
            left: sequence.take(width * rank),
            right: sequence.take(inner * rank),
        };
        ranks.iter().map(make).collect()
    }

    /// The definition, element by element.
    fn defined(base: &TensorData<'_>, transposed: bool, factors: &[Factor]) -> Vec<f32> {
        let columns = base.shape[1];
        let mut elements = base.to_f32();
        for (at, element) in elements.iter_mut().enumerate() {
            let (row, column) = (at / columns, at % columns);
            let (i, j) = if transposed {
                (column, row)
            } else {
                (row, column)
            };
            for f in factors {
                for k in 0..f.rank {
                    let product = f.left[i * f.rank + k] * f.right[j * f.rank + k];
                    *element += product;
                }
            }
        }
        elements
    }

    #[test]
    fn a_matrix_is_what_the_definition_says_bit_for_bit_whatever_the_threads() {
        let mut sequence = Sequence(1);
        // Sizes on both sides of whole pieces.
        for (width, inner) in [(1, 1), (4, 8), (5, 9), (13, 30), (64, 17)] {
            for transposed in [false, true] {
                let shape = if transposed {
                    [inner, width]
                } else {
                    [width, inner]
                };
                for dtype in [DType::F32, DType::BF16, DType::F16] {
                    let base = base(&sequence.take(width * inner), shape, dtype);
                    let factors = factors(&mut sequence, width, inner, &[1, 3, 1, 2]);
                    let wanted = round(&defined(&base, transposed, &factors), dtype);
                    let listed: Vec<&Factor> = factors.iter().collect();
                    for threads in [0, 1, 2, 3, 64] {
                        let made = materialise("w", &base, transposed, &listed, threads).unwrap();
                        assert_eq!(made.bytes, wanted, "{width} x {inner} {dtype} {threads}");
                        assert_eq!(made.digest, Digest::of(&wanted));
                    }
                }
            }
        }
    }

    #[test]
    fn taking_an_edit_back_gives_the_bytes_of_never_having_made_it() {
        let mut sequence = Sequence(2);
        let base = base(&sequence.take(12 * 20), [12, 20], DType::BF16);
        let factors = factors(&mut sequence, 12, 20, &[1; 10]);
        let all: Vec<&Factor> = factors.iter().collect();
        let digest = |chosen: &[&Factor]| materialise("w", &base, false, chosen, 2).unwrap().digest;
        let before = digest(&all[..9]);
        assert_ne!(digest(&all), before);
        assert_eq!(digest(&all[..9]), before);
        assert_eq!(digest(&[]), Digest::of(&base.bytes));
        // Subtracting it would not: that is why a version is always rebuilt from the base.
        let mut back = all.clone();
        let opposite = Factor {
            left: all[9].left.iter().map(|x| -x).collect(),
            ..all[9].clone()
        };
        back.push(&opposite);
        assert!(defined(&base, false, &[all[9].clone(), opposite.clone()]) != base.to_f32());
    }

    #[test]
    fn factors_that_are_added_later_give_the_bits_of_all_of_them_at_once() {
        let mut sequence = Sequence(11);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let base = base(&sequence.take(13 * 30), [13, 30], dtype);
            let factors = factors(&mut sequence, 13, 30, &[1, 2, 1, 3, 1]);
            let listed: Vec<&Factor> = factors.iter().collect();
            let at_once = materialise("w", &base, false, &listed, 2).unwrap();
            for split in 0..=factors.len() {
                let mut sum = Sum::of("w", &base, false).unwrap();
                sum.add(&listed[..split], 1).unwrap();
                let mut kept = sum.clone();
                kept.add(&listed[split..], 3).unwrap();
                assert_eq!(kept.matrix().unwrap(), at_once, "{dtype} {split}");
            }
        }
    }

    #[test]
    fn the_order_of_edits_decides_the_bytes() {
        let mut sequence = Sequence(3);
        let base = base(&sequence.take(16 * 16), [16, 16], DType::F32);
        let factors = factors(&mut sequence, 16, 16, &[1, 1]);
        let digest = |chosen: &[&Factor]| materialise("w", &base, false, chosen, 1).unwrap().digest;
        assert_ne!(
            digest(&[&factors[0], &factors[1]]),
            digest(&[&factors[1], &factors[0]])
        );
    }

    #[test]
    fn what_the_stored_type_cannot_hold_is_refused_by_name() {
        let base = base(&[60000.0; 4], [2, 2], DType::F16);
        let edit = Factor::rank_one("w", 0, vec![0.0, 1.0], vec![0.0, 10000.0]);
        let error = materialise("h.3.c_proj", &base, false, &[&edit], 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "element 3 of h.3.c_proj would be 70000: an edit overflows the stored type; take it \
             back, or clamp it harder"
        );
    }

    #[test]
    fn a_factor_of_another_shape_is_refused() {
        let base = base(&[0.0; 6], [2, 3], DType::F32);
        let edit = Factor::rank_one("w", 0, vec![1.0; 3], vec![1.0; 2]);
        let message = materialise("w", &base, false, &[&edit], 1)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("3 x 2") && message.contains("2 x 3"),
            "{message}"
        );
        // In GPT-2's orientation it is the right one.
        assert!(materialise("w", &base, true, &[&edit], 1).is_ok());
    }

    // I11: the digest is the same on any machine and in any program. NumPy's, from the same
    // sequence: for k in range(r): W = W + np.outer(L[:, k], R[:, k]), all in float32.
    #[test]
    fn the_digest_is_that_which_another_program_found() {
        let mut sequence = Sequence(7);
        let base = base(&sequence.take(40 * 24), [40, 24], DType::F32);
        let factors = factors(&mut sequence, 40, 24, &[1, 2, 1]);
        let listed: Vec<&Factor> = factors.iter().collect();
        let made = materialise("w", &base, false, &listed, 2).unwrap();
        assert_eq!(made.digest.to_string(), NUMPYS);
    }

    const NUMPYS: &str = "d575cb11986f363b5397395a41e5e26b5d21f04a2abb8c40c047a9b19efba80c";
}
