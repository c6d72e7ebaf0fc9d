//! What an edit adds to one matrix, as two thin matrices or, where these would be larger, whole.

use super::Error;
use crate::objects::Digest;
use crate::proto::v1;

/// What an edit adds to a matrix that maps `inner` numbers to `width`: `left right^T`, or a
/// difference that is stored whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    /// Canonical name of the matrix.
    pub tensor: String,
    /// Its layer.
    pub layer: usize,
    /// Rows of `left`: what the matrix gives.
    pub width: usize,
    /// Rows of `right`: what the matrix takes.
    pub inner: usize,
    /// Columns of both; 0 for a difference that is stored whole.
    pub rank: usize,
    /// `[width, rank]`, row-major; of a difference that is stored whole the difference, `[width,
    /// inner]`.
    pub left: Vec<f32>,
    /// `[inner, rank]`, row-major; of a difference that is stored whole nothing.
    pub right: Vec<f32>,
}

impl Factor {
    /// A factor of rank one: `left` has `width` numbers, `right` has `inner`.
    pub fn rank_one(
        tensor: impl Into<String>,
        layer: usize,
        left: Vec<f32>,
        right: Vec<f32>,
    ) -> Self {
        Self {
            tensor: tensor.into(),
            layer,
            width: left.len(),
            inner: right.len(),
            rank: 1,
            left,
            right,
        }
    }

    /// Whether it is the difference itself.
    pub fn is_whole(&self) -> bool {
        self.rank == 0
    }

    /// Numbers of a row of `left`, and of `right`.
    fn columns(&self) -> (usize, usize) {
        match self.rank {
            0 => (self.inner, 0),
            rank => (rank, rank),
        }
    }

    /// Says what does not fit: sizes, or numbers that are none.
    ///
    /// # Errors
    /// [`Error::Factor`].
    pub fn check(&self) -> Result<(), Error> {
        let fail = |field, found: String, expected: String| {
            Err(Error::Factor {
                tensor: self.tensor.clone(),
                field,
                found,
                expected,
            })
        };
        for (field, size) in [("width", self.width), ("inner", self.inner)] {
            if size == 0 {
                return fail(field, "0".to_owned(), "1 or more".to_owned());
            }
        }
        let (left, right) = self.columns();
        for (field, numbers, rows, columns) in [
            ("left", &self.left, self.width, left),
            ("right", &self.right, self.inner, right),
        ] {
            if Some(numbers.len()) != rows.checked_mul(columns) {
                let found = format!("{} numbers", numbers.len());
                return fail(field, found, format!("{rows} x {columns}"));
            }
            if let Some(bad) = numbers.iter().find(|number| !number.is_finite()) {
                return fail(field, format!("{bad} somewhere"), "finite".to_owned());
            }
        }
        Ok(())
    }

    /// The numbers as they are stored and digested: `left`, then `right`, little-endian.
    pub fn data(&self) -> Vec<u8> {
        let numbers = self.left.iter().chain(&self.right);
        numbers.flat_map(|number| number.to_le_bytes()).collect()
    }

    /// The factor as the contract describes it, with its numbers.
    pub fn to_proto(&self) -> v1::LowRankFactor {
        let data = self.data();
        v1::LowRankFactor {
            tensor_name: self.tensor.clone(),
            layer: self.layer as u32,
            width: self.width as u64,
            inner: self.inner as u64,
            rank: self.rank as u32,
            digest: Digest::of(&data).to_string(),
            data,
        }
    }

    /// Bytes of the numbers of a factor that the contract describes; none for more than there can
    /// be.
    pub fn bytes(described: &v1::LowRankFactor) -> Option<u64> {
        let numbers = match u64::from(described.rank) {
            0 => described.width.checked_mul(described.inner),
            rank => described
                .width
                .checked_add(described.inner)
                .and_then(|rows| rows.checked_mul(rank)),
        };
        numbers?.checked_mul(4)
    }

    /// The factor that the contract describes, with numbers that were read from where they are
    /// stored (or came with it, as `described.data`).
    ///
    /// # Errors
    /// [`Error::Factor`] when they are not those of the description.
    pub fn from_proto(described: &v1::LowRankFactor, data: &[u8]) -> Result<Self, Error> {
        let fail = |field, found: String, expected: String| Error::Factor {
            tensor: described.tensor_name.clone(),
            field,
            found,
            expected,
        };
        let (width, inner) = (described.width as usize, described.inner as usize);
        let rank = described.rank as usize;
        if Self::bytes(described) != Some(data.len() as u64) {
            let expected = match rank {
                0 => format!("width x inner = {width} x {inner} singles"),
                _ => format!("(width + inner) x rank = ({width} + {inner}) x {rank} singles"),
            };
            return Err(fail("data", format!("{} bytes", data.len()), expected));
        }
        let digest = Digest::of(data).to_string();
        if digest != described.digest {
            let expected = format!("'{}'", described.digest);
            return Err(fail("digest", format!("'{digest}'"), expected));
        }
        let mut left: Vec<f32> = data
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let right = match rank {
            0 => Vec::new(),
            rank => left.split_off(width * rank),
        };
        let factor = Self {
            tensor: described.tensor_name.clone(),
            layer: described.layer as usize,
            width,
            inner,
            rank,
            left,
            right,
        };
        factor.check()?;
        Ok(factor)
    }

    /// Frobenius norm of the difference; of `left right^T` from the two Gram matrices: `sum (L^T L)
    /// * (R^T R)`.
    pub fn norm(&self) -> f64 {
        if self.is_whole() {
            let squares = self.left.iter().map(|&x| f64::from(x).powi(2));
            return squares.sum::<f64>().sqrt();
        }
        let gram = |numbers: &[f32], a: usize, b: usize| -> f64 {
            let rows = numbers.chunks_exact(self.rank);
            rows.map(|row| f64::from(row[a]) * f64::from(row[b])).sum()
        };
        let pairs = (0..self.rank).flat_map(|a| (0..self.rank).map(move |b| (a, b)));
        let square: f64 = pairs
            .map(|(a, b)| gram(&self.left, a, b) * gram(&self.right, a, b))
            .sum();
        square.max(0.0).sqrt()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn factor() -> Factor {
        Factor {
            tensor: "w".to_owned(),
            layer: 3,
            width: 2,
            inner: 3,
            rank: 2,
            left: vec![1.0, 2.0, 3.0, 4.0],
            right: vec![0.5, -1.0, 0.25, 2.0, -3.0, 1.0],
        }
    }

    #[test]
    fn a_factor_comes_back_from_its_bytes() {
        let sent = factor().to_proto();
        assert_eq!(Factor::from_proto(&sent, &sent.data).unwrap(), factor());
    }

    #[test]
    fn a_difference_that_is_stored_whole_comes_back_from_its_bytes() {
        let whole = Factor {
            rank: 0,
            left: vec![3.0, 0.0, 0.0, 0.0, 0.0, 4.0],
            right: Vec::new(),
            ..factor()
        };
        let sent = whole.to_proto();
        assert_eq!(Factor::bytes(&sent), Some(24));
        assert_eq!(Factor::from_proto(&sent, &sent.data).unwrap(), whole);
        assert_eq!(whole.norm(), 5.0);
        let short = Factor {
            left: vec![1.0; 5],
            ..whole
        };
        let said = short.check().unwrap_err().to_string();
        assert!(said.contains("2 x 3"), "{said}");
    }

    #[test]
    fn bytes_that_are_not_the_described_ones_are_refused_by_name() {
        let sent = factor().to_proto();
        let mut altered = sent.data.clone();
        altered[5] ^= 1;
        let message = Factor::from_proto(&sent, &altered).unwrap_err().to_string();
        assert!(
            message.contains("digest") && message.contains(&sent.digest),
            "{message}"
        );
        let message = Factor::from_proto(&sent, &altered[4..])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("36 bytes") && message.contains("(2 + 3) x 2"),
            "{message}"
        );
        let mut infinite = factor();
        infinite.right[1] = f32::INFINITY;
        let message = infinite.check().unwrap_err().to_string();
        assert!(message.contains("right is inf"), "{message}");
    }

    #[test]
    fn the_norm_is_that_of_the_product() {
        let f = factor();
        let mut square = 0.0;
        for i in 0..f.width {
            for j in 0..f.inner {
                let element: f32 = (0..f.rank)
                    .map(|k| f.left[i * f.rank + k] * f.right[j * f.rank + k])
                    .sum();
                square += f64::from(element).powi(2);
            }
        }
        assert!((f.norm() - square.sqrt()).abs() < 1e-6);
    }
}
