//! The directions of keys that ordinary text hardly uses (Fang et al. 2025).

use tch::{Device, Kind, Tensor};

use super::key_covariance::mean_of;
use super::{Error, Hyperparameters};
use crate::stats::Moment;

/// Rows that are moved at a time.
const ROWS: i64 = 256;

/// Which directions are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    /// Those whose eigenvalue of the mean is smaller than this, whatever the model's scale.
    Below(f64),
    /// So many of the smallest.
    Rank(usize),
    /// All but the leading ones that together hold this part of the trace.
    Beyond(f64),
}

impl Keep {
    /// As the numbers of an edit say it.
    pub fn of(hyper: &Hyperparameters) -> Self {
        match hyper {
            _ if hyper.rank > 0 => Self::Rank(hyper.rank),
            _ if hyper.energy > 0.0 => Self::Beyond(hyper.energy),
            _ => Self::Below(hyper.threshold),
        }
    }
}

/// `P = U U^T`, by its orthonormal basis.
#[derive(Debug)]
pub struct Projector {
    /// `U`, `[inner, kept]` in float64.
    basis: Tensor,
    /// Part of the statistics' trace in the kept directions.
    trace: f64,
}

impl Projector {
    /// From key statistics.
    ///
    /// # Errors
    /// Those of [`Projector::directions`] and [`Projector::of`].
    pub fn new(moment: &Moment, keep: Keep, device: Device) -> Result<Self, Error> {
        let (values, vectors) = Self::directions(moment.clone(), device)?;
        Self::of(&values, vectors, keep)
    }

    /// The eigenvalues of the statistics' mean in rising order, `[inner]`, and its eigenvectors,
    /// the columns of `[inner, inner]`; in float64.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory does not suffice.
    pub fn directions(moment: Moment, device: Device) -> Result<(Tensor, Tensor), Error> {
        let _no_grad = tch::no_grad_guard();
        let mean = mean_of(moment, device)?;
        mirror(&mean);
        // The same matrix in the order of LAPACK, which leaves the eigenvectors in its place.
        let vectors = mean.tr();
        let values = Tensor::f_empty([mean.size()[0]], (Kind::Double, device))?;
        let matrix = &vectors;
        let _ = Tensor::f_internal_linalg_eigh_eigenvalues(&values, &vectors, matrix, "L", true)?;
        Ok((values, vectors))
    }

    /// From these: the eigenvectors with the smallest eigenvalues, in the memory of all of them.
    ///
    /// # Errors
    /// [`Error::Projector`] where no direction is kept.
    pub fn of(values: &Tensor, vectors: Tensor, keep: Keep) -> Result<Self, Error> {
        let _no_grad = tch::no_grad_guard();
        let eigenvalues = Vec::<f64>::try_from(&values.to_device(Device::Cpu))?;
        let total: f64 = eigenvalues.iter().sum();
        let kept = match keep {
            Keep::Below(threshold) => eigenvalues.partition_point(|value| *value < threshold),
            Keep::Rank(rank) => rank.min(eigenvalues.len()),
            Keep::Beyond(part) => {
                let mut held = 0.0;
                let leading = eigenvalues.iter().rev().take_while(|value| {
                    let more = held < part * total;
                    held += **value;
                    more
                });
                eigenvalues.len() - leading.count()
            }
        };
        if kept == 0 {
            return Err(Error::Projector {
                kept,
                channels: eigenvalues.len(),
                remedy: format!(
                    "ordinary text uses every one, the least of them with an eigenvalue of {:.3e}: give a larger \
                     `threshold`, or a `rank` or an `energy` instead of it",
                    eigenvalues.first().copied().unwrap_or_default()
                ),
            });
        }
        Ok(Self {
            basis: first_columns(vectors, kept as i64),
            trace: eigenvalues[..kept].iter().sum::<f64>() / total,
        })
    }

    /// `U`, `[inner, kept]` in float64.
    pub(super) fn basis(&self) -> &Tensor {
        &self.basis
    }

    /// Directions that are kept.
    pub fn kept(&self) -> usize {
        self.basis.size()[1] as usize
    }

    /// Whether these are all there are, so that nothing is left alone.
    pub fn keeps_all(&self) -> bool {
        self.kept() as i64 == self.basis.size()[0]
    }

    /// Part of the statistics' trace in them.
    pub fn trace(&self) -> f64 {
        self.trace
    }

    /// `P x`, for `[inner, ..]` in float64.
    pub fn project(&self, x: &Tensor) -> Tensor {
        self.basis.matmul(&self.basis.tr().matmul(x))
    }
}

/// Gives what is above the diagonal of a nearly symmetric matrix the numbers below it.
fn mirror(matrix: &Tensor) {
    let size = matrix.size()[0];
    for from in (0..size).step_by(ROWS as usize) {
        let rows = ROWS.min(size - from);
        let band = matrix.narrow(0, from, rows);
        let square = band.narrow(1, from, rows).tril(0);
        let both = &square + square.tril(-1).tr();
        band.narrow(1, from, rows).copy_(&both);
        let (behind, rest) = (from + rows, size - from - rows);
        let below = matrix.narrow(0, behind, rest).narrow(1, from, rows);
        band.narrow(1, behind, rest).copy_(&below.tr());
    }
}

/// The first columns of a square matrix, whose own columns lie side by side, as a matrix whose rows
/// do; in its memory.
fn first_columns(matrix: Tensor, kept: i64) -> Tensor {
    let (across, size) = (matrix.tr(), matrix.size()[0]);
    if !across.is_contiguous() {
        return matrix.narrow(1, 0, kept).contiguous();
    }
    for from in (0..size).step_by(ROWS as usize) {
        let rows = ROWS.min(size - from);
        for before in (0..=from).step_by(ROWS as usize) {
            let others = ROWS.min(size - before);
            let mut one = across.narrow(0, from, rows).narrow(1, before, others);
            let mut other = across.narrow(0, before, others).narrow(1, from, rows);
            let moved = one.copy();
            one.copy_(&other.tr().copy());
            other.copy_(&moved.tr());
        }
    }
    let numbers = across.view([-1]);
    for from in (0..size).step_by(ROWS as usize) {
        let rows = ROWS.min(size - from);
        let moved = across.narrow(0, from, rows).narrow(1, 0, kept);
        let moved = moved.contiguous().copy().view([-1]);
        numbers.narrow(0, from * kept, rows * kept).copy_(&moved);
    }
    numbers.narrow(0, 0, size * kept).view([size, kept])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Eigenvalues 4, 2, 1, 0.5, along the axes.
    fn moment() -> Moment {
        let mut sum = vec![0.0; 16];
        for (n, value) in [2.0, 0.5, 4.0, 1.0].into_iter().enumerate() {
            sum[n * 5] = 10.0 * value;
        }
        Moment::new(4, sum, 10).unwrap()
    }

    #[test]
    fn the_directions_that_are_kept_are_the_least_used_ones() {
        for (keep, kept, trace) in [
            (Keep::Below(1.5), 2, 1.5 / 7.5),
            (Keep::Rank(3), 3, 3.5 / 7.5),
            (Keep::Rank(9), 4, 1.0),
            (Keep::Beyond(0.5), 3, 3.5 / 7.5),
            (Keep::Beyond(0.6), 2, 1.5 / 7.5),
        ] {
            let projector = Projector::new(&moment(), keep, Device::Cpu).unwrap();
            assert_eq!(projector.kept(), kept, "{keep:?}");
            assert!((projector.trace() - trace).abs() < 1e-12, "{keep:?}");
            assert_eq!(projector.keeps_all(), kept == 4);
            // The axis with the smallest eigenvalue stays whole, that with the largest goes.
            let axes = Tensor::eye(4, (Kind::Double, Device::Cpu));
            let projected = projector.project(&axes);
            assert!((projected.double_value(&[1, 1]) - 1.0).abs() < 1e-12);
            let leading = projected.double_value(&[2, 2]);
            assert!((leading - f64::from(u8::from(kept == 4))).abs() < 1e-12);
        }
        let none = Projector::new(&moment(), Keep::Below(0.1), Device::Cpu).unwrap_err();
        for part in ["keeps 0 of 4", "5.000e-1", "threshold"] {
            assert!(none.to_string().contains(part), "{none}");
        }
    }

    #[test]
    fn directions_are_those_of_the_lower_triangle_found_and_kept_in_one_memory() {
        tch::manual_seed(7);
        for size in [1i64, 5, 257, 300] {
            let double = (Kind::Double, Device::Cpu);
            let keys = Tensor::randn([2 * size, size], double);
            let mean = keys.tr().matmul(&keys);
            let rough = &mean + (Tensor::rand([size, size], double) * 1e-9).triu(1);
            let sum = Vec::<f64>::try_from(&rough.contiguous().view([-1])).unwrap();
            let moment = Moment::new(size as usize, sum, 1).unwrap();
            let (values, vectors) = Projector::directions(moment, Device::Cpu).unwrap();
            let expected = mean.linalg_eigh("L");
            assert!(values.equal(&expected.0) && vectors.equal(&expected.1));
            let kept = (size / 2).max(1);
            let keep = Keep::Rank(kept as usize);
            let projector = Projector::of(&values, vectors, keep).unwrap();
            let basis = expected.1.narrow(1, 0, kept).contiguous();
            assert!(projector.basis().equal(&basis) && projector.basis().is_contiguous());
        }
    }
}
