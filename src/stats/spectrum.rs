//! How the keys' second moment spreads over its directions: what an edit can and cannot disturb.

use tch::{Device, Kind, Tensor};

use super::{BELOW_ZERO, Error, Moment};

/// Eigenvalues below this part of the largest are what rounding leaves of 0.
const ROUNDING: f64 = 1e-9;
/// Significant digits of what is told: fewer than two machines agree in.
const DIGITS: i32 = 6;

/// The eigenvalues of `C = E[k k^T]`, in short.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spectrum {
    /// Their sum: the mean of `|k|^2`.
    pub trace: f64,
    /// The largest one.
    pub largest: f64,
    /// The smallest one; 0 where it is nothing but rounding.
    pub smallest: f64,
    /// `trace^2 / sum of their squares`: over so many directions the keys spread, were they even.
    pub effective_rank: f64,
    /// How many are not 0: no more than there were keys.
    pub rank: usize,
    /// The fewest directions that hold 99 % of the trace.
    pub rank_99: usize,
}

impl Spectrum {
    /// Of a moment of at least one key.
    ///
    /// # Errors
    /// [`Error::Malformed`] where a direction has less than nothing, so that the matrix is no second
    /// moment; [`Error::Torch`] where its eigenvalues cannot be found.
    pub fn of(moment: &Moment) -> Result<Self, Error> {
        let size = moment.size() as i64;
        let matrix = Tensor::f_from_slice(moment.sum())?
            .f_view([size, size])?
            .f_div_scalar(moment.count().max(1) as f64)?;
        let values = matrix.f_linalg_eigvalsh("L")?.to(Device::Cpu);
        let mut values = Vec::<f64>::try_from(values.to_kind(Kind::Double))?;
        values.sort_by(f64::total_cmp);
        let (smallest, largest) = (values[0], values[values.len() - 1]);
        if smallest < -BELOW_ZERO * largest || largest.is_nan() {
            return Err(Error::Malformed {
                problem: format!(
                    "the matrix has an eigenvalue of {smallest:e} beside its largest of \
                     {largest:e}: a sum of k k^T has none below 0; collect the statistics again"
                ),
            });
        }
        let nothing = ROUNDING * largest;
        values.retain(|&value| value > nothing);
        let trace: f64 = values.iter().sum();
        let squares: f64 = values.iter().map(|value| value * value).sum();
        let mut held = 0.0;
        let rank_99 = values.iter().rev().take_while(|&&value| {
            let more = held < 0.99 * trace;
            held += value;
            more
        });
        Ok(Self {
            trace: told(trace),
            largest: told(largest),
            smallest: if smallest > nothing {
                told(smallest)
            } else {
                0.0
            },
            effective_rank: told(trace * trace / squares),
            rank: values.len(),
            rank_99: rank_99.count(),
        })
    }
}

/// A number to the digits that are told of it.
fn told(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return number;
    }
    let scale = 10f64.powi(DIGITS - 1 - number.abs().log10().floor() as i32);
    (number * scale).round() / scale
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn moment(rows: &[&[f64]], count: u64) -> Moment {
        Moment::new(rows.len(), rows.concat(), count).unwrap()
    }

    #[test]
    fn directions_of_a_known_matrix_are_told() {
        // A rotation by 30 degrees of diag(4, 2, 0) / 2.
        let (s, c) = (0.5, 0.75f64.sqrt());
        let (a, b, d) = (
            4.0 * c * c + 2.0 * s * s,
            2.0 * c * s,
            4.0 * s * s + 2.0 * c * c,
        );
        let found = Spectrum::of(&moment(&[&[a, b, 0.0], &[b, d, 0.0], &[0.0; 3]], 2)).unwrap();
        let expected = Spectrum {
            trace: 3.0,
            largest: 2.0,
            smallest: 0.0,
            effective_rank: 1.8,
            rank: 2,
            rank_99: 2,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn one_direction_that_holds_nearly_all_is_seen() {
        let found = Spectrum::of(&moment(&[&[999.0, 0.0], &[0.0, 1.0]], 1)).unwrap();
        assert_eq!((found.rank, found.rank_99), (2, 1));
        assert_eq!((found.trace, found.smallest), (1000.0, 1.0));
    }

    #[test]
    fn a_direction_below_zero_is_refused_though_each_pair_is_possible() {
        // Cosines of 0.9, 0.9 and -0.9 between three directions: any two can be, all three cannot.
        let rows: [&[f64]; 3] = [&[1.0, 0.9, 0.9], &[0.9, 1.0, -0.9], &[0.9, -0.9, 1.0]];
        let said = Spectrum::of(&moment(&rows, 5)).unwrap_err().to_string();
        assert!(
            said.contains("eigenvalue of -") && said.contains("collect"),
            "{said}"
        );
    }
}
