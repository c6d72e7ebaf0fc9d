//! The second moment of a set of keys, as a sum and a count.

use std::io::{Cursor, Read, Seek};

use super::Error;
use crate::npz::{self, Npz};

/// More keys than anybody can have summed up: a quadrillion.
const MOST_KEYS: f64 = 1e15;

/// `sum k k^T` over keys of `size` channels, and how many keys there were. Additive.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    size: usize,
    /// `[size, size]`, row by row, symmetric.
    sum: Vec<f64>,
    count: u64,
}

impl Moment {
    /// No keys yet.
    pub fn zero(size: usize) -> Self {
        Self {
            size,
            sum: vec![0.0; size * size],
            count: 0,
        }
    }

    /// A sum of `k k^T`, `[size, size]` row by row, over `count` keys.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the sum does not fill the square, is not finite or not symmetric.
    pub fn new(size: usize, sum: Vec<f64>, count: u64) -> Result<Self, Error> {
        let malformed = |problem: String| Err(Error::Malformed { problem });
        if size == 0 || sum.len() != size * size {
            return malformed(format!("{} sums are no square of {size}", sum.len()));
        }
        if let Some(at) = sum.iter().position(|x| !x.is_finite()) {
            let (row, column) = (at / size, at % size);
            return malformed(format!(
                "the sum at row {row}, column {column} is {}",
                sum[at]
            ));
        }
        let scale = (0..size).map(|i| sum[i * size + i]).fold(0.0, f64::max);
        for row in 0..size {
            for column in 0..row {
                let (one, other) = (sum[row * size + column], sum[column * size + row]);
                // What single precision leaves of a symmetric product.
                if (one - other).abs() > 1e-4 * scale {
                    return malformed(format!(
                        "the sums at rows and columns {row} and {column} are {one} and {other}: not symmetric"
                    ));
                }
            }
        }
        Ok(Self { size, sum, count })
    }

    /// What a file holds may be anything: sums of squares are not below 0, are not all 0, and bound
    /// the other sums (Cauchy and Schwarz, with what single precision leaves of it).
    fn check_squares(&self) -> Result<(), Error> {
        let (size, sum) = (self.size, &self.sum);
        let malformed = |problem: String| Err(Error::Malformed { problem });
        let square = |i: usize| sum[i * size + i];
        let scale = (0..size).map(square).fold(0.0, f64::max);
        if let Some(row) = (0..size).find(|&i| square(i) < 0.0) {
            return malformed(format!(
                "the sum of squares of channel {row} is {}: it cannot be below 0",
                square(row)
            ));
        }
        if scale == 0.0 {
            return malformed("every sum is 0: these are no keys".to_owned());
        }
        for row in 0..size {
            for column in 0..row {
                let found = sum[row * size + column];
                let most = (square(row) * square(column)).sqrt();
                if found.abs() > most + 1e-4 * scale {
                    return malformed(format!(
                        "the sum at row {row}, column {column} is {found}, more than the channels' \
                         squares allow: {most}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Channels of a key.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Keys summed up.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum alone, as it was.
    pub(crate) fn into_sum(self) -> Vec<f64> {
        self.sum
    }

    /// The sum, `[size, size]` row by row.
    pub fn sum(&self) -> &[f64] {
        &self.sum
    }

    /// Adds the keys of `other`.
    ///
    /// # Errors
    /// [`Error::Size`].
    pub fn add(&mut self, other: &Moment) -> Result<(), Error> {
        if other.size != self.size {
            return Err(Error::Size {
                found: other.size,
                expected: self.size,
            });
        }
        let count = self.count.checked_add(other.count);
        self.count = count.ok_or_else(|| Error::Malformed {
            problem: format!(
                "{} and {} tokens are more than can be counted",
                self.count, other.count
            ),
        })?;
        for (sum, x) in self.sum.iter_mut().zip(&other.sum) {
            *sum += x;
        }
        Ok(())
    }

    /// Adds up moments in their order, in float64: the same bits for the same moments, whoever adds
    /// them up. One is held at a time besides the sum: that of a large model takes gigabytes.
    /// [`None`] for no moments.
    ///
    /// # Errors
    /// The first one of the moments; [`Error::Size`], and [`Error::Malformed`] when the sum leaves
    /// the finite numbers.
    pub fn merged<E: From<Error>>(
        moments: impl IntoIterator<Item = Result<Moment, E>>,
    ) -> Result<Option<Moment>, E> {
        let mut moments = moments.into_iter();
        let Some(first) = moments.next() else {
            return Ok(None);
        };
        let mut total = first?;
        for moment in moments {
            total.add(&moment?)?;
        }
        Ok(Some(Moment::new(total.size, total.sum, total.count)?))
    }

    /// The file of the ROME release, readable by `numpy.load`: `mom2.mom2`, here the *sum* in
    /// float64, and `mom2.count`; the release divides when it reads.
    ///
    /// # Errors
    /// When it exceeds what a zip archive holds.
    pub fn to_npz(&self) -> Result<Vec<u8>, npz::Error> {
        let mut npz = Npz::new();
        npz.f64("mom2.mom2", &[self.size, self.size], &self.sum)?
            .i64("mom2.count", &[], &[self.count as i64])?;
        npz.to_bytes()
    }

    /// Reads such a file, in any float type.
    ///
    /// # Errors
    /// [`Error::Npz`] for another kind of file, [`Error::Malformed`] for arrays that are no second moment.
    pub fn from_npz(file: impl Read + Seek) -> Result<Self, Error> {
        Self::from_reader(&mut npz::read::Reader::open(file)?)
    }

    pub(super) fn from_reader(
        file: &mut npz::read::Reader<impl Read + Seek>,
    ) -> Result<Self, Error> {
        let count = count_of(file)?;
        let sum = file.numbers("mom2.mom2")?;
        let malformed = |problem: String| Error::Malformed { problem };
        match sum.shape.as_slice() {
            [rows, columns] if rows == columns => {
                let moment = Self::new(*rows, sum.values, count)?;
                moment.check_squares()?;
                Ok(moment)
            }
            shape => Err(malformed(format!(
                "mom2.mom2 has the shape {shape:?}: it must be a square matrix"
            ))),
        }
    }

    /// Channels and keys that such a file says it is of, without its sums.
    ///
    /// # Errors
    /// As [`Moment::from_npz`].
    pub fn measure(file: impl Read + Seek) -> Result<(usize, u64), Error> {
        let mut file = npz::read::Reader::open(file)?;
        let count = count_of(&mut file)?;
        match file.shape("mom2.mom2")?.as_slice() {
            [rows, columns] if rows == columns => Ok((*rows, count)),
            shape => Err(Error::Malformed {
                problem: format!("mom2.mom2 has the shape {shape:?}: it must be a square matrix"),
            }),
        }
    }

    /// Reads the bytes that [`Moment::to_npz`] gives.
    ///
    /// # Errors
    /// As [`Moment::from_npz`].
    pub fn from_npz_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::from_npz(Cursor::new(bytes))
    }
}

/// How many keys a file says it is of.
pub(super) fn count_of(file: &mut npz::read::Reader<impl Read + Seek>) -> Result<u64, Error> {
    let count = file.numbers("mom2.count")?;
    match count.values.as_slice() {
        [count] if (1.0..=MOST_KEYS).contains(count) && count.fract() == 0.0 => Ok(*count as u64),
        other => Err(Error::Malformed {
            problem: format!(
                "mom2.count is {other:?}: it must be one whole number, 1 or more and at most {MOST_KEYS}"
            ),
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn moment() -> Moment {
        Moment::new(2, vec![2.0, 0.5, 0.5, 1.0], 3).unwrap()
    }

    #[test]
    fn what_cannot_be_a_sum_of_squares_is_refused() {
        let read = |sum: &[f64], count: f64| {
            let mut npz = Npz::new();
            npz.f64("mom2.mom2", &[2, 2], sum).unwrap();
            npz.f64("mom2.count", &[], &[count]).unwrap();
            Moment::from_npz_bytes(&npz.to_bytes().unwrap())
        };
        read(&[2.0, 0.5, 0.5, 1.0], 3.0).unwrap();
        for (sum, count, what) in [
            ([0.0; 4], 3.0, "every sum is 0"),
            ([1.0, 0.0, 0.0, -1.0], 3.0, "cannot be below 0"),
            ([1.0, 3.0, 3.0, 1.0], 3.0, "more than the channels' squares"),
            ([1.0, 0.0, 0.0, 1.0], 1e300, "1 or more and at most"),
        ] {
            let said = read(&sum, count).unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn shards_add_up() {
        let mut sum = Moment::zero(2);
        sum.add(&moment()).unwrap();
        sum.add(&moment()).unwrap();
        assert_eq!((sum.sum(), sum.count()), (&[4.0, 1.0, 1.0, 2.0][..], 6));
        let other = sum.add(&Moment::zero(3)).unwrap_err().to_string();
        assert!(other.contains("3 channels"), "{other}");
    }

    #[test]
    fn merging_adds_in_the_order_given_and_looks_at_the_sum() {
        let shard = |x: f64, count| Ok(Moment::new(1, vec![x], count).unwrap());
        let merged = |shards| Moment::merged::<Error>(shards);
        assert_eq!(merged(Vec::new()).unwrap(), None);
        // In float64 the order decides the last bits: it is that of the shards.
        let numbers = [1e16, 1.0, 1.0, 3.0];
        let sum = merged(numbers.map(|x| shard(x, 2)).into());
        assert_eq!(sum.unwrap().unwrap().sum(), [((1e16 + 1.0) + 1.0) + 3.0]);
        let beyond = merged(vec![shard(f64::MAX, 1), shard(f64::MAX, 1)]);
        assert!(beyond.unwrap_err().to_string().contains("is inf"));
        let many = merged(vec![shard(1.0, u64::MAX), shard(1.0, 1)]);
        assert!(many.unwrap_err().to_string().contains("be counted"));
        let bad = Err(Error::Length);
        assert!(matches!(
            merged(vec![shard(1.0, 1), bad]),
            Err(Error::Length)
        ));
    }

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        let bytes = moment().to_npz().unwrap();
        assert_eq!(Moment::from_npz_bytes(&bytes).unwrap(), moment());
    }

    #[test]
    fn a_file_of_the_rome_release_is_read() {
        let mut npz = Npz::new();
        npz.strings(
            "mom2.constructor",
            &[],
            &["util.runningstats.SecondMoment()"],
        )
        .unwrap()
        .i64("mom2.count", &[], &[3])
        .unwrap()
        .f32("mom2.mom2", &[2, 2], &[2.0, 0.5, 0.5, 1.0])
        .unwrap()
        .i64("sample_size", &[], &[1])
        .unwrap();
        assert_eq!(
            Moment::from_npz_bytes(&npz.to_bytes().unwrap()).unwrap(),
            moment()
        );
    }

    #[test]
    fn what_is_no_second_moment_is_refused() {
        for (sum, what) in [
            (vec![1.0; 3], "no square"),
            (vec![1.0, f64::NAN, 0.0, 1.0], "row 0, column 1"),
            (vec![1.0, 0.5, -0.5, 1.0], "not symmetric"),
        ] {
            let said = Moment::new(2, sum, 1).unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
        let mut npz = Npz::new();
        npz.f64("mom2.mom2", &[2, 2], &[1.0, 0.0, 0.0, 1.0])
            .unwrap();
        npz.i64("mom2.count", &[], &[0]).unwrap();
        let said = Moment::from_npz_bytes(&npz.to_bytes().unwrap()).unwrap_err();
        assert!(said.to_string().contains("1 or more"), "{said}");
    }
}
