//! Means over the records of a data set, with what is known about their error.

/// `mean -+ 1.96 sd / sqrt(N)` has 95 % of what is normally distributed, as published tables take
/// it.
const NORMAL_95: f64 = 1.96;

/// The mean of some values, each of another record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// Values that it was taken over.
    pub count: usize,
    /// The mean; not a number over none.
    pub mean: f64,
    /// Half the width of the 95 % interval: `1.96 sd / sqrt(N)` with the unbiased standard
    /// deviation. None under two values.
    pub half: Option<f64>,
}

impl Mean {
    /// Over some values.
    pub fn over(values: &[f64]) -> Self {
        let count = values.len();
        let n = count as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            count,
            mean,
            half: (count >= 2).then(|| NORMAL_95 * (squares / (n - 1.0)).sqrt() / n.sqrt()),
        }
    }

    /// The 95 % interval.
    pub fn interval(&self) -> Option<(f64, f64)> {
        self.half.map(|half| (self.mean - half, self.mean + half))
    }
}

/// S: the harmonic mean of the means of several values a record. 0 where one of them is 0.
///
/// Its interval is that of the values' first-order effect on it (the delta method): `S^2 / 3 * sum
/// x_i / m_i^2` varies over the records as S does over data sets.
pub fn harmonic<const N: usize>(records: &[[f64; N]]) -> Mean {
    let n = records.len() as f64;
    let means: [f64; N] =
        std::array::from_fn(|i| records.iter().map(|record| record[i]).sum::<f64>() / n);
    if means.contains(&0.0) {
        return Mean {
            count: records.len(),
            mean: 0.0,
            half: None,
        };
    }
    let mean = N as f64 / means.iter().map(|mean| 1.0 / mean).sum::<f64>();
    let effect = |record: &[f64; N]| -> f64 {
        let parts = record.iter().zip(&means).map(|(x, m)| x / m.powi(2));
        parts.sum::<f64>() * mean.powi(2) / N as f64
    };
    let effects: Vec<f64> = records.iter().map(effect).collect();
    Mean {
        mean,
        ..Mean::over(&effects)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_has_the_interval_that_one_finds_by_hand() {
        // sd of 1, 2, 3, 6 is sqrt((4 + 1 + 0 + 9) / 3).
        let mean = Mean::over(&[1.0, 2.0, 3.0, 6.0]);
        assert_eq!((mean.count, mean.mean), (4, 3.0));
        let half = 1.96 * (14.0_f64 / 3.0).sqrt() / 2.0;
        assert!((mean.half.unwrap() - half).abs() < 1e-15);
        assert_eq!(Mean::over(&[0.5]).interval(), None);
        assert_eq!(Mean::over(&[1.0, 1.0]).interval(), Some((1.0, 1.0)));
        assert!(Mean::over(&[]).mean.is_nan());
    }

    #[test]
    fn the_score_is_harmonic_and_its_interval_is_that_of_small_changes() {
        let records = [[1.0, 0.5, 0.9], [0.0, 0.5, 0.8], [1.0, 1.0, 0.1]];
        let score = harmonic(&records);
        let (a, b, c) = (2.0 / 3.0, 2.0 / 3.0, 0.6);
        let expected = 3.0 / (1.0 / a + 1.0 / b + 1.0 / c);
        assert!((score.mean - expected).abs() < 1e-15);
        // A value that all three share: S is that value, and so is its interval.
        let same = [0.25, 0.75, 0.5].map(|x| [x; 3]);
        let (score, plain) = (harmonic(&same), Mean::over(&[0.25, 0.75, 0.5]));
        assert!((score.mean - plain.mean).abs() < 1e-15);
        assert!((score.half.unwrap() - plain.half.unwrap()).abs() < 1e-15);
        assert_eq!(harmonic(&[[0.0, 1.0], [0.0, 1.0]]).mean, 0.0);
    }
}
