//! The one solver of MEMIT, AlphaEdit, EMMET, ENCORE and r-ROME.
//!
//! All of them are `dW = R (D + K^T M^-1 K)^-1 K^T M^-1` with the keys `K`, `[inner, facts]`, the
//! residuals `R`, `[width, facts]`, a metric `M` of keys, and `D = I`, or `D = 0` where every fact
//! is to be met whole. With a factor of the metric, `M = H H^T` and `Y = H^-1 K`, that is `dW = R
//! (H^-T Y (D + Y^T Y)^-1)^T`, and `Y (I + Y^T Y)^-1 = (I + Y Y^T)^-1 Y`: the smaller of the two
//! systems is solved. Everything is in float64, by Cholesky.

use tch::{Device, Kind, Tensor};

use super::key_covariance::{factorised, mean_of};
use super::{Error, KeyCovariance, Projector};
use crate::stats::Moment;

/// A pivot below this part of its diagonal element is rounding.
const SMALLEST_PIVOT: f64 = 1e-13;

/// What a change of a key costs: `M`, symmetric and positive definite, by a factor of it.
#[derive(Debug)]
pub struct Metric(Form);

#[derive(Debug)]
enum Form {
    /// `M = scale L L^T`.
    Whole { root: Tensor, scale: f64 },
    /// `M = U B U^T` within the range of `U`, infinite outside. `B = L L^T`, or `scale I` where
    /// there is no `L`.
    Within {
        basis: Tensor,
        root: Option<Tensor>,
        scale: f64,
    },
}

impl Metric {
    /// `weight C`: MEMIT's with its lambda, EMMET's with `mu w`.
    pub fn weighted(covariance: &KeyCovariance, weight: f64) -> Self {
        Self(Form::Whole {
            root: covariance.factor().shallow_clone(),
            scale: weight,
        })
    }

    /// `lambda C + A + eta I`, ENCORE's, with `A` the sum of `k k^T` over `past`, keys of earlier
    /// edits, `[inner, ..]`. Made in the memory of the statistics.
    ///
    /// # Errors
    /// [`Error::Degenerate`] where it is not positive definite; [`Error::Torch`] when memory does not suffice.
    pub fn guarded(
        moment: Moment,
        lambda: f64,
        eta: f64,
        past: Option<&Tensor>,
        device: Device,
    ) -> Result<Self, Error> {
        let _no_grad = tch::no_grad_guard();
        let mut sum = mean_of(moment, device)?;
        let _ = sum.g_mul_scalar_(lambda);
        let _ = sum.diagonal(0, 0, 1).g_add_scalar_(eta);
        if let Some(past) = past {
            let _ = sum.f_addmm_(past, &past.tr())?;
        }
        let root = cholesky(sum)?.ok_or(Error::Degenerate)?;
        Ok(Self(Form::Whole { root, scale: 1.0 }))
    }

    /// `l2 I + A` within the projector's range, AlphaEdit's, with `A` the sum of `k k^T` over
    /// `past`, keys of earlier edits, `[inner, ..]`.
    ///
    /// # Errors
    /// [`Error::Degenerate`] where it is not positive definite; [`Error::Torch`] when memory does not suffice.
    pub fn projected(projector: &Projector, l2: f64, past: Option<&Tensor>) -> Result<Self, Error> {
        let _no_grad = tch::no_grad_guard();
        let basis = projector.basis().shallow_clone();
        let root = match past {
            None => None,
            Some(past) => {
                let within = basis.tr().f_matmul(past)?;
                let sum = within.f_matmul(&within.tr())?;
                let _ = sum.diagonal(0, 0, 1).g_add_scalar_(l2);
                Some(cholesky(sum)?.ok_or(Error::Degenerate)?)
            }
        };
        Ok(Self(Form::Within {
            basis,
            root,
            scale: l2,
        }))
    }

    /// `H^-1 K`, with `M = H H^T`.
    pub(super) fn whitened(&self, keys: &Tensor) -> Result<Tensor, Error> {
        Ok(match &self.0 {
            Form::Whole { root, scale } => {
                let mut solved = root.f_linalg_solve_triangular(keys, false, true, false)?;
                solved.f_div_scalar_(scale.sqrt())?
            }
            Form::Within { basis, root, scale } => {
                let mut within = basis.tr().f_matmul(keys)?;
                match root {
                    Some(root) => root.f_linalg_solve_triangular(&within, false, true, false)?,
                    None => within.f_div_scalar_(scale.sqrt())?,
                }
            }
        })
    }

    /// `H^-T Y`, for a `Y` whose columns lie side by side, and in its place where it has the size.
    fn back(&self, mut whitened: Tensor) -> Result<Tensor, Error> {
        Ok(match &self.0 {
            Form::Whole { root, scale } => {
                upper_solve(root, &whitened)?;
                let _ = whitened.f_div_scalar_(scale.sqrt())?;
                whitened
            }
            Form::Within { basis, root, scale } => {
                match root {
                    Some(root) => upper_solve(root, &whitened)?,
                    None => drop(whitened.f_div_scalar_(scale.sqrt())?),
                }
                basis.f_matmul(&whitened)?
            }
        })
    }
}

/// `L^-1 X` in the place of `X`, whose columns lie side by side.
fn lower_solve(root: &Tensor, x: &Tensor) -> Result<(), Error> {
    let _ = root.f_linalg_solve_triangular_out(x, x, false, true, false)?;
    Ok(())
}

/// `L^-T X` in the place of `X`, whose columns lie side by side.
fn upper_solve(root: &Tensor, x: &Tensor) -> Result<(), Error> {
    let root = root.tr();
    let _ = root.f_linalg_solve_triangular_out(x, x, true, true, false)?;
    Ok(())
}

/// How near each fact comes to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damping {
    /// By what its key is worth: `D = I`.
    Unit,
    /// Whole: `D = 0`. Keys that depend on each other cannot be met.
    None,
}

/// The change of a layer that writes a batch.
#[derive(Debug)]
pub struct Solved {
    /// `R`, `[width, facts]` in float64.
    pub left: Tensor,
    /// `M^-1 K (D + K^T M^-1 K)^-1`, `[inner, facts]` in float64: the change is `left right^T`.
    pub right: Tensor,
    /// `k^T M^-1 k` of each fact.
    pub leverage: Vec<f64>,
    /// Pairs of facts whose whitened keys have a cosine above 0.9, the nearest first, with it.
    pub near: Vec<(usize, usize, f64)>,
}

/// Whitened keys with a larger cosine are nearly one key.
pub(super) const NEAR: f64 = 0.9;
/// Most pairs of such keys that are told.
const NEAR_TOLD: usize = 10;
/// Most of them that the nearest are found among.
const LOOKED_AT: usize = 100 * NEAR_TOLD;
/// Most numbers of a block of cosines: those of many facts are gone through in such blocks.
const BLOCK: i64 = 1 << 20;

/// Finds the change that brings each key, a column of `keys`, `[inner, facts]`, nearer to its
/// target by its column of `residuals`, `[width, facts]`; both in float64, and summed up in the
/// order of the columns.
///
/// # Errors
/// [`Error::StatisticsSize`] for keys of another size than the metric's; [`Error::DependentKeys`]; [`Error::NotFinite`];
/// [`Error::Torch`] when memory does not suffice.
pub fn solve(
    metric: &Metric,
    keys: &Tensor,
    residuals: &Tensor,
    damping: Damping,
) -> Result<Solved, Error> {
    let _no_grad = tch::no_grad_guard();
    let (Form::Whole { root: first, .. } | Form::Within { basis: first, .. }) = &metric.0;
    let (inner, facts) = (keys.size()[0], keys.size()[1]);
    if first.size()[0] != inner {
        return Err(Error::StatisticsSize {
            found: first.size()[0] as usize,
            expected: inner as usize,
        });
    }
    let whitened = metric.whitened(keys)?;
    let gram = whitened.tr().f_matmul(&whitened)?;
    let leverage =
        Vec::<f64>::try_from(&gram.diagonal(0, 0, 1).contiguous().to_device(Device::Cpu))?;
    let near = nearest(&gram, &leverage)?;
    let rows = whitened.size()[0];
    let dependent = || Error::DependentKeys {
        facts: facts as usize,
    };
    // A column's numbers lie side by side in what is solved in its place.
    let columns = |x: Tensor| Ok::<_, Error>(x.tr().f_contiguous()?.tr());
    let scaled = if damping == Damping::None || facts <= rows {
        let system = match damping {
            Damping::Unit => {
                let _ = gram.diagonal(0, 0, 1).g_add_scalar_(1.0);
                gram
            }
            Damping::None => gram,
        };
        let root = cholesky(system)?.ok_or_else(dependent)?;
        let transposed = columns(whitened.tr())?;
        drop(whitened);
        lower_solve(&root, &transposed)?;
        upper_solve(&root, &transposed)?;
        columns(transposed.tr())?
    } else {
        drop(gram);
        let system = whitened.f_matmul(&whitened.tr())?;
        let _ = system.diagonal(0, 0, 1).g_add_scalar_(1.0);
        let root = cholesky(system)?.ok_or_else(dependent)?;
        let whitened = columns(whitened)?;
        lower_solve(&root, &whitened)?;
        upper_solve(&root, &whitened)?;
        whitened
    };
    let right = metric.back(scaled)?;
    for (name, numbers) in [("a residual", residuals), ("a row of the change", &right)] {
        if numbers.isfinite().all().int64_value(&[]) == 0 {
            return Err(Error::NotFinite {
                name: name.to_owned(),
                value: numbers.sum(Kind::Double).double_value(&[]),
            });
        }
    }
    Ok(Solved {
        left: residuals.shallow_clone(),
        right,
        leverage,
        near,
    })
}

impl Solved {
    /// Facts.
    pub fn facts(&self) -> usize {
        self.left.size()[1] as usize
    }

    /// The change itself, `[width, inner]` in float64.
    pub fn change(&self) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        self.left.matmul(&self.right.tr())
    }

    /// Frobenius norm of the change, from the factors' Gram matrices.
    pub fn norm(&self) -> f64 {
        let _no_grad = tch::no_grad_guard();
        let left = self.left.tr().matmul(&self.left);
        let right = self.right.tr().matmul(&self.right);
        let square = (left * right).sum(Kind::Double).double_value(&[]);
        square.max(0.0).sqrt()
    }

    /// The change as it is stored, in float32: a rank with `left`, `[width, rank]`, and `right`,
    /// `[inner, rank]`; or, where these would be larger, rank 0 and the change itself, `[width,
    /// inner]`, with nothing at its right.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory does not suffice.
    pub fn stored(&self) -> Result<(usize, Vec<f32>, Vec<f32>), Error> {
        let _no_grad = tch::no_grad_guard();
        let single = |x: &Tensor| -> Result<Vec<f32>, Error> {
            let x = x.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?;
            Ok(Vec::try_from(&x.contiguous().view([-1]))?)
        };
        let (width, inner) = (self.left.size()[0], self.right.size()[0]);
        let facts = self.left.size()[1];
        match facts * (width + inner) <= width * inner {
            true => Ok((facts as usize, single(&self.left)?, single(&self.right)?)),
            false => Ok((0, single(&self.change())?, Vec::new())),
        }
    }
}

/// The pairs of keys that are nearly one.
fn nearest(gram: &Tensor, leverage: &[f64]) -> Result<Vec<(usize, usize, f64)>, Error> {
    let lengths = Tensor::from_slice(leverage)
        .to_device(gram.device())
        .f_sqrt()?;
    let facts = leverage.len() as i64;
    let some = (BLOCK / facts.max(1)).max(1);
    let mut near: Vec<(usize, usize, f64)> = Vec::new();
    let mut from = 0;
    while from < facts && near.len() < LOOKED_AT {
        let rows = some.min(facts - from);
        let cosines = gram.narrow(0, from, rows)
            / lengths.unsqueeze(0)
            / lengths.narrow(0, from, rows).unsqueeze(1);
        // Each pair once, and no key with itself.
        let above = cosines.triu(1 + from).gt(NEAR).nonzero();
        let above = above.to_device(Device::Cpu);
        let pairs = above.size()[0].min((LOOKED_AT - near.len()) as i64);
        near.extend((0..pairs).map(|n| {
            let (one, other) = (above.int64_value(&[n, 0]), above.int64_value(&[n, 1]));
            let cosine = cosines.double_value(&[one, other]);
            ((from + one) as usize, other as usize, cosine)
        }));
        from += rows;
    }
    near.sort_by(|a, b| b.2.total_cmp(&a.2));
    near.truncate(NEAR_TOLD);
    Ok(near)
}

/// The factor, where there is one that rounding did not make.
fn cholesky(sum: Tensor) -> Result<Option<Tensor>, Error> {
    factorised(sum, SMALLEST_PIVOT)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Keep;
    use super::*;

    const INNER: i64 = 12;
    const WIDTH: i64 = 5;

    fn random(rows: i64, columns: i64, seed: i64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::randn([rows, columns], (Kind::Double, Device::Cpu))
    }

    /// Statistics with eigenvalues of many sizes.
    fn moment() -> Moment {
        let scales = Tensor::arange(INNER, (Kind::Double, Device::Cpu))
            .neg()
            .exp2();
        let keys = random(200, INNER, 1) * scales;
        let sum = keys.tr().matmul(&keys);
        let sum: Vec<f64> = Vec::try_from(&sum.contiguous().view([-1])).unwrap();
        Moment::new(INNER as usize, sum, 200).unwrap()
    }

    fn mean() -> Tensor {
        let moment = moment();
        Tensor::from_slice(moment.sum()).view([INNER, INNER]) / 200.0
    }

    fn covariance() -> KeyCovariance {
        KeyCovariance::new(moment(), 0.0, Device::Cpu).unwrap()
    }

    fn batch(facts: i64) -> (Tensor, Tensor) {
        (random(INNER, facts, 2), random(WIDTH, facts, 3))
    }

    fn close(a: &Tensor, b: &Tensor, what: &str) {
        let apart = (a - b).norm().double_value(&[]) / b.norm().double_value(&[]).max(1e-300);
        assert!(apart < 1e-8, "{what}: {apart:e} apart");
    }

    fn identity(size: i64) -> Tensor {
        Tensor::eye(size, (Kind::Double, Device::Cpu))
    }

    #[test]
    fn memit_is_the_published_solve_below_and_above_as_many_facts_as_channels() {
        let lambda = 20.0;
        for facts in [1, 3, INNER, 20] {
            let (keys, residuals) = batch(facts);
            let metric = Metric::weighted(&covariance(), lambda);
            let found = solve(&metric, &keys, &residuals, Damping::Unit).unwrap();
            // adj = (lambda C + K K^T)^-1 K, dW = R adj^T.
            let system = mean() * lambda + keys.matmul(&keys.tr());
            let adjoint = Tensor::linalg_solve(&system, &keys, true);
            close(&found.right, &adjoint, "adj");
            close(&found.change(), &residuals.matmul(&adjoint.tr()), "dW");
            let norm = found.change().norm().double_value(&[]);
            assert!((found.norm() - norm).abs() < 1e-9 * norm);
        }
    }

    #[test]
    fn one_fact_moves_by_the_share_of_its_leverage() {
        let lambda = 7.0;
        let (keys, residuals) = batch(1);
        let metric = Metric::weighted(&covariance(), lambda);
        let found = solve(&metric, &keys, &residuals, Damping::Unit).unwrap();
        let solved = Tensor::linalg_solve(&mean(), &keys, true);
        let leverage = keys.tr().matmul(&solved).double_value(&[0, 0]);
        assert!((found.leverage[0] - leverage / lambda).abs() < 1e-9 * leverage);
        let share = leverage / (lambda + leverage);
        close(&found.change().matmul(&keys), &(residuals * share), "W k");
    }

    #[test]
    fn emmet_is_memit_with_the_product_of_its_numbers() {
        let (keys, residuals) = batch(4);
        // D = K^T (w C)^-1 K + mu I, adj = (w C)^-1 K D^-1.
        let (weight, mu) = (1000.0, 0.1);
        let solved = Tensor::linalg_solve(&(mean() * weight), &keys, true);
        let system = keys.tr().matmul(&solved) + identity(4) * mu;
        let adjoint = solved.matmul(&system.inverse());
        let metric = Metric::weighted(&covariance(), weight * mu);
        let found = solve(&metric, &keys, &residuals, Damping::Unit).unwrap();
        close(&found.right, &adjoint, "adj");
    }

    #[test]
    fn without_damping_every_fact_is_met_and_one_alone_is_r_romes() {
        let metric = Metric::weighted(&covariance(), 3.0);
        let (keys, residuals) = batch(4);
        let found = solve(&metric, &keys, &residuals, Damping::None).unwrap();
        close(&found.change().matmul(&keys), &residuals, "W K");
        let (keys, residuals) = batch(1);
        let found = solve(&metric, &keys, &residuals, Damping::None).unwrap();
        let direction = covariance().direction(&keys.squeeze_dim(1)).unsqueeze(1);
        let along = keys.tr().matmul(&direction).double_value(&[0, 0]);
        let rome = (residuals / along).matmul(&direction.tr());
        close(&found.change(), &rome, "r-ROME");
    }

    #[test]
    fn a_key_twice_gets_the_mean_of_its_targets_and_cannot_be_met_whole() {
        let (key, _) = batch(1);
        let keys = Tensor::cat(&[&key, &key], 1);
        let residuals = random(WIDTH, 2, 4);
        let metric = Metric::weighted(&covariance(), 1e-3);
        let found = solve(&metric, &keys, &residuals, Damping::Unit).unwrap();
        let second = [1i64];
        let mean = residuals.mean_dim(second.as_slice(), true, Kind::Double);
        let moved = found.change().matmul(&key);
        let apart = (&moved - &mean).norm().double_value(&[]) / mean.norm().double_value(&[]);
        assert!(apart < 1e-2, "{apart}");
        assert_eq!(found.near.len(), 1);
        assert!((found.near[0].2 - 1.0).abs() < 1e-9, "{:?}", found.near);
        let whole = solve(&metric, &keys, &residuals, Damping::None).unwrap_err();
        assert!(
            matches!(whole, Error::DependentKeys { facts: 2 }),
            "{whole}"
        );
    }

    #[test]
    fn one_solve_of_two_batches_is_not_the_sum_of_two() {
        let (keys, residuals) = batch(6);
        let metric = Metric::weighted(&covariance(), 1.0);
        let of = |from: i64, length: i64| {
            let part = |x: &Tensor| x.narrow(1, from, length);
            solve(&metric, &part(&keys), &part(&residuals), Damping::Unit)
                .unwrap()
                .change()
        };
        let apart = (of(0, 6) - (of(0, 3) + of(3, 3))).norm().double_value(&[]);
        assert!(apart > 1e-3, "{apart}");
    }

    #[test]
    fn the_order_of_facts_permutes_columns_and_leaves_the_change() {
        let (keys, residuals) = batch(5);
        let order = Tensor::from_slice(&[3i64, 0, 4, 1, 2]);
        let metric = Metric::weighted(&covariance(), 2.0);
        let one = solve(&metric, &keys, &residuals, Damping::Unit).unwrap();
        let turned = |x: &Tensor| x.index_select(1, &order);
        let other = solve(&metric, &turned(&keys), &turned(&residuals), Damping::Unit).unwrap();
        close(&other.right, &turned(&one.right), "columns");
        close(&other.change(), &one.change(), "dW");
    }

    #[test]
    fn alphaedit_is_the_published_solve_and_leaves_the_used_directions_alone() {
        let l2 = 0.3;
        let projector = Projector::new(&moment(), Keep::Rank(8), Device::Cpu).unwrap();
        let project = projector.project(&identity(INNER));
        for (facts, past) in [(3, 0), (3, 4), (20, 15)] {
            let (keys, residuals) = batch(facts);
            let past = (past > 0).then(|| random(INNER, past, 9));
            let metric = Metric::projected(&projector, l2, past.as_ref()).unwrap();
            let found = solve(&metric, &keys, &residuals, Damping::Unit).unwrap();
            let change = found.change();
            // X = solve(P (K K^T + A) + L2 I, P K R^T), dW = X^T.
            let mut sum = keys.matmul(&keys.tr());
            if let Some(past) = &past {
                sum += past.matmul(&past.tr());
            }
            let system = project.matmul(&sum) + identity(INNER) * l2;
            let wanted = project.matmul(&keys).matmul(&residuals.tr());
            let expected = Tensor::linalg_solve(&system, &wanted, true).tr();
            close(&change, &expected, "dW");
            close(&change.matmul(&project), &change, "P dW^T = dW^T");
            let outside = change.matmul(&(identity(INNER) - &project));
            assert!(outside.norm().double_value(&[]) < 1e-10);
        }
        // With no past and next to no damping every fact is met.
        let (keys, residuals) = batch(3);
        let metric = Metric::projected(&projector, 1e-12, None).unwrap();
        let found = solve(&metric, &keys, &residuals, Damping::Unit).unwrap();
        let met = found.change().matmul(&keys);
        let apart = (met - &residuals).norm().double_value(&[]);
        assert!(apart < 1e-4, "{apart}");
    }

    #[test]
    fn encore_is_memit_with_the_keys_of_earlier_edits_and_a_bound_of_the_norm() {
        let (lambda, eta) = (5.0, 2.0);
        let past = random(INNER, 3, 8);
        let (keys, residuals) = batch(4);
        let metric = Metric::guarded(moment(), lambda, eta, Some(&past), Device::Cpu).unwrap();
        let found = solve(&metric, &keys, &residuals, Damping::Unit).unwrap();
        let system = mean() * lambda
            + past.matmul(&past.tr())
            + identity(INNER) * eta
            + keys.matmul(&keys.tr());
        let adjoint = Tensor::linalg_solve(&system, &keys, true);
        close(&found.right, &adjoint, "adj");
    }

    #[test]
    fn a_change_is_stored_as_factors_or_whole_whichever_is_smaller() {
        let metric = Metric::weighted(&covariance(), 1.0);
        // 5 x 12: 60 numbers, a fact takes 17.
        for (facts, rank) in [(1, 1), (3, 3), (4, 0)] {
            let (keys, residuals) = batch(facts);
            let found = solve(&metric, &keys, &residuals, Damping::Unit).unwrap();
            let (stored, left, right) = found.stored().unwrap();
            assert_eq!(stored, rank);
            let sizes = (left.len(), right.len());
            let expected = match rank {
                0 => (60, 0),
                rank => (5 * rank, 12 * rank),
            };
            assert_eq!(sizes, expected);
        }
    }

    /// Bytes of this process, as the kernel names them.
    fn memory(name: &str) -> f64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.unwrap().trim().trim_end_matches(" kB");
        kibibytes.parse::<f64>().unwrap() * 1024.0
    }

    /// Statistics that are not diagonal, factorised, and a solve with the factor.
    fn solved(size: usize, facts: i64) -> Solved {
        let mut sum = vec![0.0; size * size];
        for row in 0..size {
            for column in row.saturating_sub(40)..(row + 41).min(size) {
                let apart = row.abs_diff(column) as f64;
                sum[row * size + column] = (-apart / 8.0).exp();
            }
        }
        let moment = Moment::new(size, sum, 1_000_000).unwrap();
        let covariance = KeyCovariance::in_place(moment, 0.0, Device::Cpu).unwrap();
        let metric = Metric::weighted(&covariance.unwrap(), 2.0);
        let (keys, residuals) = (random(size as i64, facts, 5), random(3, facts, 6));
        solve(&metric, &keys, &residuals, Damping::Unit).unwrap()
    }

    #[test]
    fn statistics_their_factor_and_the_solve_take_one_matrix_of_memory() {
        let (size, facts) = (2500, 20);
        solved(100, facts); // the library's own memory
        let before = memory("VmRSS:");
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        solved(size, facts);
        let matrices = (memory("VmHWM:") - before) / (size * size * 8) as f64;
        assert!(matrices > 0.9 && matrices < 1.6, "{matrices} matrices");
    }
}
