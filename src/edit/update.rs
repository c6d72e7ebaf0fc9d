//! A change of one matrix, as factors.

/// `W <- W + left right^T`: the low-rank change of one layer's matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The layer whose MLP's second matrix is changed.
    pub layer: usize,
    /// Rank.
    pub rank: usize,
    /// `[width, rank]`, row by row.
    pub left: Vec<f32>,
    /// `[inner, rank]`, row by row.
    pub right: Vec<f32>,
}

impl Update {
    /// Rows of the matrix.
    pub fn width(&self) -> usize {
        self.left.len() / self.rank.max(1)
    }

    /// Columns of the matrix.
    pub fn inner(&self) -> usize {
        self.right.len() / self.rank.max(1)
    }

    /// Frobenius norm of the change, from the factors: `|L R^T|^2 = sum (L^T L) * (R^T R)`.
    pub fn norm(&self) -> f64 {
        let gram = |factor: &[f32], a: usize, b: usize| -> f64 {
            let rows = factor.chunks_exact(self.rank);
            rows.map(|row| f64::from(row[a]) * f64::from(row[b])).sum()
        };
        let mut square = 0.0;
        for a in 0..self.rank {
            for b in 0..self.rank {
                square += gram(&self.left, a, b) * gram(&self.right, a, b);
            }
        }
        square.max(0.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_that_of_the_product() {
        // [1 0; 2 1] [3 1; 0 1]^T + ... = [[3, 0], [7, 1]].
        let update = Update {
            layer: 0,
            rank: 2,
            left: vec![1.0, 0.0, 2.0, 1.0],
            right: vec![3.0, 1.0, 0.0, 1.0],
        };
        let expected = (9.0 + 49.0 + 1.0_f64).sqrt();
        assert!((update.norm() - expected).abs() < 1e-12);
        assert_eq!((update.width(), update.inner()), (2, 2));
    }
}
