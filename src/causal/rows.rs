//! Numbers of rows out of tensors, and their means.

use tch::{Kind as Dtype, Tensor};

/// A one-dimensional tensor as plain numbers.
pub(super) fn to_f64(values: &Tensor) -> Vec<f64> {
    let values = values
        .to_device(tch::Device::Cpu)
        .to_kind(Dtype::Double)
        .contiguous();
    let mut out = vec![0.0; values.numel()];
    let count = out.len();
    values.copy_data(&mut out, count);
    out
}

/// Mean of one number a row.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Means over rows of `each` numbers.
pub(super) fn means(values: &[f64], each: usize) -> Vec<f64> {
    let column = |n: usize| values.iter().skip(n).step_by(each).copied();
    (0..each)
        .map(|n| mean(&column(n).collect::<Vec<_>>()))
        .collect()
}
