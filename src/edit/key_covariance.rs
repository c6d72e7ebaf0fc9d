//! What ordinary keys look like, as a metric: the direction in which a change disturbs them least.

use tch::{Device, Kind, Tensor};

use super::Error;
use crate::stats::{BELOW_ZERO, Moment};

/// A pivot below this part of its diagonal element is rounding: the statistics are in effect
/// singular. Their products are formed in single precision.
const SMALLEST_PIVOT: f64 = 1e-10;
/// Numbers that move from one place of memory to another at a time.
const PIECE: usize = 1 << 20;
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
    /// Factorises the mean of the statistics with `ridge`, 0 or more, added to its diagonal. Holds
    /// the mean and the factor, so that it can say why there is none.
    ///
    /// # Errors
    /// [`Error::Singular`] with a ridge that would do, [`Error::Degenerate`], [`Error::Indefinite`]; [`Error::Torch`] when memory does not
    /// suffice.
    pub fn new(moment: Moment, ridge: f64, device: Device) -> Result<Self, Error> {
        let _no_grad = tch::no_grad_guard();
        let (channels, tokens) = (moment.size(), moment.count());
        let mean = mean_of(moment, device)?;
        let diagonal = mean.diagonal(0, 0, 1);
        if diagonal.min().double_value(&[]) < 0.0
            || diagonal.sum(Kind::Double).double_value(&[]) <= 0.0
        {
            return Err(Error::Degenerate);
        }
        // Fewer keys than channels span no more than a part of the space, whatever rounding makes
        // of it.
        let enough = ridge > 0.0 || tokens >= channels as u64;
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
            if ridge > mean_diagonal * channels as f64 {
                return Err(Error::Degenerate);
            }
        }
        Err(Error::Singular {
            tokens,
            channels,
            ridge,
        })
    }

    /// The same in the memory of the statistics, which are gone then; [`None`] where there is no
    /// such factor: [`KeyCovariance::new`] says why.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory does not suffice.
    pub fn in_place(moment: Moment, ridge: f64, device: Device) -> Result<Option<Self>, Error> {
        let _no_grad = tch::no_grad_guard();
        if ridge <= 0.0 && moment.count() < moment.size() as u64 {
            return Ok(None);
        }
        let mean = mean_of(moment, device)?;
        if ridge > 0.0 {
            let _ = mean.diagonal(0, 0, 1).g_add_scalar_(ridge);
        }
        let factor = factorised(mean, SMALLEST_PIVOT)?;
        Ok(factor.map(|factor| Self { factor, ridge }))
    }

    /// From a factor that was made before, with the ridge that was added.
    pub(crate) fn of_factor(factor: Tensor, ridge: f64) -> Self {
        Self { factor, ridge }
    }

    /// Channels of a key.
    pub fn size(&self) -> usize {
        self.factor.size()[0] as usize
    }

    /// `L` of `C + ridge I = L L^T`, `[inner, inner]` in float64.
    pub(crate) fn factor(&self) -> &Tensor {
        &self.factor
    }

    /// The ridge that was added.
    pub fn ridge(&self) -> f64 {
        self.ridge
    }

    /// `C^-1 key`, normalised: from `[inner]` in float64 to the same.
    pub fn direction(&self, key: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let (lower, upper) = (&self.factor, self.factor.tr());
        let solved = lower.linalg_solve_triangular(&key.unsqueeze(1), false, true, false);
        let solved = upper.linalg_solve_triangular(&solved, true, true, false);
        let solved = solved.squeeze_dim(1);
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

/// The factor, where there is one that rounding did not make. The mean stays.
fn cholesky(mean: &Tensor, ridge: f64) -> Result<Option<Tensor>, Error> {
    let columns = Tensor::f_empty(mean.size(), (Kind::Double, mean.device()))?;
    columns.tr().copy_(mean);
    if ridge > 0.0 {
        let _ = columns.diagonal(0, 0, 1).g_add_scalar_(ridge);
    }
    factorised(columns, SMALLEST_PIVOT)
}

/// `L` of a symmetric matrix `L L^T`, in its place, where there is one: no pivot is below `least`,
/// a part of its diagonal element, as rounding makes them.
pub(super) fn factorised(matrix: Tensor, least: f64) -> Result<Option<Tensor>, Error> {
    let diagonal = matrix.diagonal(0, 0, 1).copy();
    // The same matrix, as it is symmetric, in the order that LAPACK factorises in place.
    let factor = matrix.tr();
    let info = Tensor::zeros([0i64; 0], (Kind::Int, matrix.device()));
    let _ = factor.f_linalg_cholesky_ex_l(&factor, &info, false, false)?;
    let found = info.int64_value(&[]) == 0;
    Ok((found && sound(&factor, &diagonal, least)).then_some(factor))
}

/// Whether no pivot of a factor is what rounding makes.
fn sound(factor: &Tensor, diagonal: &Tensor, least: f64) -> bool {
    let pivots = factor.diagonal(0, 0, 1).square() / diagonal;
    pivots.min().double_value(&[]) > least
}

/// The mean of statistics, `[inner, inner]` in float64. Their sum goes as it comes: there is never
/// much more than one of both in memory.
pub(super) fn mean_of(moment: Moment, device: Device) -> Result<Tensor, Error> {
    let (size, count) = (moment.size(), moment.count().max(1));
    let mut sum = moment.into_sum();
    let mean = Tensor::f_empty([size as i64, size as i64], (Kind::Double, device))?;
    let (some, mut rows) = ((PIECE / size).max(1), size);
    while rows > 0 {
        let from = rows.saturating_sub(some);
        let shape = [(rows - from) as i64, size as i64];
        let piece = Tensor::f_from_slice(&sum[from * size..])?.view(shape);
        mean.narrow(0, from as i64, shape[0]).copy_(&piece);
        sum.truncate(from * size);
        sum.shrink_to_fit();
        rows = from;
    }
    let _ = mean.shallow_clone().g_div_scalar_(count as f64);
    Ok(mean)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn covariance(sum: &[f64], count: u64, ridge: f64) -> Result<KeyCovariance, Error> {
        let moment = Moment::new(2, sum.to_vec(), count).unwrap();
        KeyCovariance::new(moment, ridge, Device::Cpu)
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
    fn in_its_own_memory_the_factor_is_the_same() {
        tch::manual_seed(3);
        let keys = Tensor::randn([400, 90], (Kind::Double, Device::Cpu));
        let sum = Vec::<f64>::try_from(&keys.tr().matmul(&keys).contiguous().view([-1])).unwrap();
        let moment = Moment::new(90, sum, 400).unwrap();
        for ridge in [0.0, 0.5] {
            let one = KeyCovariance::new(moment.clone(), ridge, Device::Cpu).unwrap();
            let other = KeyCovariance::in_place(moment.clone(), ridge, Device::Cpu).unwrap();
            let apart = (one.factor() - other.unwrap().factor()).abs().max();
            assert!(apart.double_value(&[]) < 1e-12);
        }
        let few = Moment::new(2, vec![2.0, 1.0, 1.0, 2.0], 1).unwrap();
        assert!(
            KeyCovariance::in_place(few, 0.0, Device::Cpu)
                .unwrap()
                .is_none()
        );
        let singular = Moment::new(2, vec![1.0; 4], 10).unwrap();
        assert!(
            KeyCovariance::in_place(singular, 0.0, Device::Cpu)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn statistics_with_a_direction_below_zero_are_refused_whatever_ridge_would_do() {
        // Cosines of 0.9, 0.9 and -0.9 between three directions: any two can be, all three cannot.
        let sum = vec![1.0, 0.9, 0.9, 0.9, 1.0, -0.9, 0.9, -0.9, 1.0];
        let moment = Moment::new(3, sum, 10).unwrap();
        let refused = KeyCovariance::new(moment, 0.0, Device::Cpu);
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
