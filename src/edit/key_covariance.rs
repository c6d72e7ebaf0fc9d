//! What ordinary keys look like, as a metric: the direction in which a change disturbs them least.

use tch::{Device, Kind, Tensor};

use super::Error;
use crate::stats::{BELOW_ZERO, Moment};

/// A pivot below this part of its diagonal element is rounding: the statistics are in effect
/// singular. Their products are formed in single precision.
const SMALLEST_PIVOT: f64 = 1e-10;
/// Steps towards the largest eigenvalue: it need not be known well.
const POWERS: usize = 20;

/// `C = E[k k^T]`, factorised.
#[derive(Debug)]
pub struct KeyCovariance {
    /// `L` of `C + ridge I = L L^T`, `[inner, inner]` in float64.
    factor: Tensor,
    ridge: f64,
}

impl KeyCovariance {
    /// Factorises the mean of the statistics with `ridge`, 0 or more, added to its diagonal.
    ///
    /// # Errors
    /// [`Error::Singular`] with a ridge that would do, [`Error::Degenerate`], [`Error::Indefinite`]; [`Error::Torch`] when memory does not
    /// suffice.
    pub fn new(moment: &Moment, ridge: f64, device: Device) -> Result<Self, Error> {
        let size = moment.size() as i64;
        let mean = Tensor::f_from_slice(moment.sum())?
            .f_to_device(device)?
            .view([size, size])
            / moment.count().max(1) as f64;
        let diagonal = mean.diagonal(0, 0, 1);
        if diagonal.min().double_value(&[]) < 0.0
            || diagonal.sum(Kind::Double).double_value(&[]) <= 0.0
        {
            return Err(Error::Degenerate);
        }
        // Fewer keys than channels span no more than a part of the space, whatever rounding makes
        // of it.
        let enough = ridge > 0.0 || moment.count() >= moment.size() as u64;
        if let Some(factor) = enough
            .then(|| cholesky(&mean, ridge))
            .transpose()?
            .flatten()
        {
            return Ok(Self { factor, ridge });
        }
        if cholesky(&mean, BELOW_ZERO * largest_eigenvalue(&mean))?.is_none() {
            return Err(Error::Indefinite);
        }
        let mean_diagonal = diagonal.mean(Kind::Double).double_value(&[]);
        let mut ridge = ridge.max(1e-8 * mean_diagonal);
        while cholesky(&mean, ridge)?.is_none() {
            ridge *= 10.0;
            if ridge > mean_diagonal * size as f64 {
                return Err(Error::Degenerate);
            }
        }
        Err(Error::Singular {
            tokens: moment.count(),
            channels: moment.size(),
            ridge,
        })
    }

    /// Channels of a key.
    pub fn size(&self) -> usize {
        self.factor.size()[0] as usize
    }

    /// `L` of `C + ridge I = L L^T`, `[inner, inner]` in float64.
    pub(super) fn factor(&self) -> &Tensor {
        &self.factor
    }

    /// The ridge that was added.
    pub fn ridge(&self) -> f64 {
        self.ridge
    }

    /// `C^-1 key`, normalised: from `[inner]` in float64 to the same.
    pub fn direction(&self, key: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let solved = key
            .unsqueeze(1)
            .cholesky_solve(&self.factor, false)
            .squeeze_dim(1);
        let norm = solved.norm();
        solved / norm
    }
}

/// About the largest absolute eigenvalue; never more than it.
fn largest_eigenvalue(mean: &Tensor) -> f64 {
    let _no_grad = tch::no_grad_guard();
    let mut vector = mean.diagonal(0, 0, 1).abs().sqrt();
    let mut largest = 0.0;
    for _ in 0..POWERS {
        let norm = vector.norm().double_value(&[]);
        if norm == 0.0 || !norm.is_finite() {
            break;
        }
        vector = mean.mv(&(vector / norm));
        largest = vector.norm().double_value(&[]);
    }
    largest
}

/// The factor, where there is one that rounding did not make.
fn cholesky(mean: &Tensor, ridge: f64) -> Result<Option<Tensor>, Error> {
    let _no_grad = tch::no_grad_guard();
    let size = mean.size()[0];
    let sum = match ridge > 0.0 {
        true => mean + Tensor::eye(size, (Kind::Double, mean.device())) * ridge,
        false => mean.shallow_clone(),
    };
    factor_of(&sum, SMALLEST_PIVOT)
}

/// `L` of a symmetric matrix `L L^T`, where there is one: no pivot is below `least`, a part of its
/// diagonal element, as rounding makes them.
pub(super) fn factor_of(matrix: &Tensor, least: f64) -> Result<Option<Tensor>, Error> {
    let (factor, info) = matrix.f_linalg_cholesky_ex(false, false)?;
    if info.int64_value(&[]) != 0 {
        return Ok(None);
    }
    let pivots = factor.diagonal(0, 0, 1).square() / matrix.diagonal(0, 0, 1);
    let smallest = pivots.min().double_value(&[]);
    Ok((smallest > least).then_some(factor))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn covariance(sum: &[f64], count: u64, ridge: f64) -> Result<KeyCovariance, Error> {
        let moment = Moment::new(2, sum.to_vec(), count).unwrap();
        KeyCovariance::new(&moment, ridge, Device::Cpu)
    }

    #[test]
    fn the_direction_solves_the_mean_and_has_length_one() {
        // C = [2 1; 1 3]; C^-1 (1, 0) = (3, -1) / 5.
        let covariance = covariance(&[20.0, 10.0, 10.0, 30.0], 10, 0.0).unwrap();
        let found = covariance.direction(&Tensor::from_slice(&[1.0, 0.0]));
        let found: Vec<f64> = Vec::try_from(&found).unwrap();
        let length = 10.0_f64.sqrt();
        assert!((found[0] - 3.0 / length).abs() < 1e-12, "{found:?}");
        assert!((found[1] + 1.0 / length).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn statistics_with_a_direction_below_zero_are_refused_whatever_ridge_would_do() {
        // Cosines of 0.9, 0.9 and -0.9 between three directions: any two can be, all three cannot.
        let sum = vec![1.0, 0.9, 0.9, 0.9, 1.0, -0.9, 0.9, -0.9, 1.0];
        let moment = Moment::new(3, sum, 10).unwrap();
        let refused = KeyCovariance::new(&moment, 0.0, Device::Cpu);
        assert!(matches!(refused, Err(Error::Indefinite)), "{refused:?}");
        let refused = covariance(&[1.0, 2.0, 2.0, 1.0], 10, 0.0);
        assert!(matches!(refused, Err(Error::Indefinite)), "{refused:?}");
    }

    #[test]
    fn singular_statistics_are_refused_with_a_ridge_that_would_do() {
        for (sum, count) in [([1.0, 1.0, 1.0, 1.0], 10), ([2.0, 1.0, 1.0, 2.0], 1)] {
            let Err(Error::Singular { ridge, .. }) = covariance(&sum, count, 0.0) else {
                panic!("{sum:?} of {count} were inverted");
            };
            assert!(ridge > 0.0 && ridge < 1e-3);
            covariance(&sum, count, ridge).unwrap();
        }
        assert!(matches!(
            covariance(&[0.0; 4], 10, 0.0),
            Err(Error::Degenerate)
        ));
    }
}
