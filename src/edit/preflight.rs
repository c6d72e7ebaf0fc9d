//! What keys are worth in a metric, and which of them are nearly one: all that is to be known of a
//! batch before its targets are.

use tch::{Device, Kind, Tensor};

use super::Error;
use super::solver::{Metric, NEAR};

/// Most numbers of a block of cosines: a batch of any size is gone through in such blocks.
const BLOCK: i64 = 1 << 24;

/// Two keys that are nearly one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    /// The column of one.
    pub one: usize,
    /// The column of the other; of earlier keys the column among those.
    pub other: usize,
    /// The cosine of the two in the metric.
    pub cosine: f64,
}

/// What is known of the keys of a batch at a layer.
#[derive(Debug)]
pub struct Preflight {
    /// `k^T M^-1 k` of each key.
    pub leverage: Vec<f64>,
    /// The pairs of them with a cosine above 0.9, the nearest first, as many as were asked for.
    pub near: Vec<Near>,
    /// How many there are.
    pub near_count: u64,
    /// The pairs of them and of earlier keys, in the same way.
    pub earlier: Vec<Near>,
}

/// Looks at `keys`, `[inner, keys]` in float64: what each is worth by `metric`, and which of them,
/// and of `earlier` ones, `[inner, ..]`, are nearly one in `plain`, the metric that knows nothing of
/// earlier keys. Gives at most `most` pairs.
///
/// # Errors
/// [`Error::Torch`] when memory does not suffice.
pub fn preflight(
    metric: &Metric,
    plain: &Metric,
    keys: &Tensor,
    earlier: Option<&Tensor>,
    most: usize,
) -> Result<Preflight, Error> {
    let _no_grad = tch::no_grad_guard();
    let whitened = metric.whitened(keys)?;
    let rows = [0i64];
    let squares = whitened
        .square()
        .sum_dim_intlist(rows.as_slice(), false, Kind::Double);
    let leverage = Vec::<f64>::try_from(&squares.to_device(Device::Cpu))?;
    drop(whitened);
    let units = unit(&plain.whitened(keys)?);
    let (near, near_count) = nearest(&units, &units, true, most)?;
    let earlier = match earlier {
        Some(earlier) => nearest(&units, &unit(&plain.whitened(earlier)?), false, most)?.0,
        None => Vec::new(),
    };
    Ok(Preflight {
        leverage,
        near,
        near_count,
        earlier,
    })
}

/// Columns of length 1; those of none stay so.
fn unit(columns: &Tensor) -> Tensor {
    let lengths = columns.norm_scalaropt_dim(2.0, [0i64].as_slice(), true);
    columns / lengths.clamp_min(f64::MIN_POSITIVE)
}

/// The pairs of columns of `one` and `other` with a cosine above [`NEAR`], the nearest first, and
/// how many there are. Of one set of columns each pair is there once, and none with itself.
fn nearest(
    one: &Tensor,
    other: &Tensor,
    same: bool,
    most: usize,
) -> Result<(Vec<Near>, u64), Error> {
    let (ones, others) = (one.size()[1], other.size()[1]);
    let step = (BLOCK / others.max(1)).clamp(1, ones.max(1));
    let (mut near, mut count) = (Vec::new(), 0);
    let mut from = 0;
    while from < ones {
        let rows = step.min(ones - from);
        let start = if same { from } else { 0 };
        let block = one.narrow(1, from, rows).tr();
        let mut cosines = block.f_matmul(&other.narrow(1, start, others - start))?;
        if same {
            cosines = cosines.triu(1);
        }
        let above = cosines.gt(NEAR).sum(Kind::Int64).int64_value(&[]);
        count += above as u64;
        let width = others - start;
        let (values, places) =
            cosines
                .contiguous()
                .view([-1])
                .f_topk(above.min(most as i64), 0, true, true)?;
        let values = Vec::<f64>::try_from(&values.to_device(Device::Cpu))?;
        let places = Vec::<i64>::try_from(&places.to_device(Device::Cpu))?;
        near.extend(values.into_iter().zip(places).map(|(cosine, place)| Near {
            one: (from + place / width) as usize,
            other: (start + place % width) as usize,
            cosine,
        }));
        near.sort_by(|a, b| {
            let places = |it: &Near| (it.one, it.other);
            (b.cosine.total_cmp(&a.cosine)).then(places(a).cmp(&places(b)))
        });
        near.truncate(most);
        from += rows;
    }
    Ok((near, count))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::KeyCovariance;
    use super::*;
    use crate::stats::Moment;

    /// Of four channels, each twice as common as the next.
    fn metric(weight: f64) -> Metric {
        let mut sum = vec![0.0; 16];
        for n in 0..4 {
            sum[5 * n] = 100.0 / f64::from(1 << n);
        }
        let moment = Moment::new(4, sum, 100).unwrap();
        let covariance = KeyCovariance::new(moment, 0.0, Device::Cpu).unwrap();
        Metric::weighted(&covariance, weight)
    }

    fn columns(keys: &[[f64; 4]]) -> Tensor {
        let numbers: Vec<f64> = keys.concat();
        Tensor::from_slice(&numbers)
            .view([keys.len() as i64, 4])
            .tr()
    }

    #[test]
    fn leverage_is_the_keys_length_in_the_metric_and_near_keys_are_found_in_every_block() {
        let keys = columns(&[
            [1.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 1.0],
            [1.0, 0.01, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0],
        ]);
        let earlier = columns(&[[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0]]);
        let found = preflight(&metric(2.0), &metric(1.0), &keys, Some(&earlier), 10).unwrap();
        for (leverage, expected) in found.leverage.iter().zip([0.5, 4.0, 0.5001, 0.0]) {
            assert!((leverage - expected).abs() < 1e-12, "{leverage} {expected}");
        }
        assert_eq!(found.near_count, 1);
        assert_eq!((found.near[0].one, found.near[0].other), (0, 2));
        assert_eq!(found.earlier.len(), 1);
        assert_eq!((found.earlier[0].one, found.earlier[0].other), (1, 1));
        assert!((found.earlier[0].cosine - 1.0).abs() < 1e-12);
    }

    #[test]
    fn of_many_near_keys_the_nearest_are_given_and_all_are_counted() {
        let keys: Vec<[f64; 4]> = (0..40)
            .map(|n| [1.0, 0.001 * f64::from(n), 0.0, 0.0])
            .collect();
        let found = preflight(&metric(1.0), &metric(1.0), &columns(&keys), None, 5).unwrap();
        assert_eq!((found.near.len(), found.near_count), (5, 40 * 39 / 2));
        assert!(found.near.is_sorted_by(|a, b| a.cosine >= b.cosine));
        assert!(found.near.iter().all(|it| it.one < it.other));
    }
}
