//! How good estimates are: some of a grid's cells patched exactly, and what they say of the others.

use super::grid::{Grid, Verified};
use super::settings::{Engine, Gradient};

/// The cells to verify of a grid: `count` with the largest magnitudes and `count` others by chance,
/// as far as there are so many, each as `(row, place in it, by chance)`; a row of `width` is a
/// token's, or the only one where every token is patched at once. Cells before the row `first` change
/// nothing and are not among them.
///
/// Chance follows from the seed and the prompt's token numbers alone. Of equal magnitudes the first cell is taken.
#[cfg(any(feature = "torch", test))]
pub(super) fn choose(
    magnitudes: &[f64],
    width: usize,
    first: usize,
    count: usize,
    (seed, prompt): (u32, &[u32]),
) -> Vec<(usize, usize, bool)> {
    let mut cells: Vec<usize> = (first * width..magnitudes.len()).collect();
    let larger = |&a: &usize, &b: &usize| magnitudes[b].total_cmp(&magnitudes[a]).then(a.cmp(&b));
    // The first ones in order: of neurons there may be millions.
    if count < cells.len() {
        cells.select_nth_unstable_by(count, larger);
    }
    let others = cells.split_off(count.min(cells.len()));
    cells.sort_by(larger);
    // In the order of a hash, which is that of a shuffle.
    let place = |cell: usize| {
        let mut hash = blake3::Hasher::new();
        hash.update(&seed.to_le_bytes());
        hash.update(&(cell as u64).to_le_bytes());
        for token in prompt {
            hash.update(&token.to_le_bytes());
        }
        *hash.finalize().as_bytes()
    };
    let mut first_of_others = std::collections::BTreeSet::new();
    for cell in others {
        first_of_others.insert((place(cell), cell));
        if first_of_others.len() > count {
            first_of_others.pop_last();
        }
    }
    let others = first_of_others.into_iter().map(|(_, cell)| cell);
    let cell = |cell: usize, random| (cell / width, cell % width, random);
    let top = cells.into_iter().map(|it| cell(it, false));
    top.chain(others.map(|it| cell(it, true))).collect()
}

/// What the verified cells of a grid say, in the grid's metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Verification {
    /// Cells of the largest estimates.
    pub top: usize,
    /// Cells by chance.
    pub random: usize,
    /// Spearman's correlation of the estimated effects with the exact ones over all of them;
    /// estimates without a sign are compared with magnitudes. None where all of either are equal.
    pub rank_correlation: Option<f64>,
    /// The cell whose estimate is furthest from its exact effect.
    pub largest_miss: Miss,
    /// What may have been missed; none without a cell by chance.
    pub missed: Option<Missed>,
}

/// An estimated effect beside the exact one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Miss {
    /// The cell's token; 0 where every token is patched at once.
    pub token: usize,
    /// Its head, where heads are told apart.
    pub head: Option<usize>,
    /// Its layer.
    pub layer: usize,
    /// Its neuron, in grids of neurons.
    pub neuron: Option<usize>,
    /// The estimated effect.
    pub estimate: f64,
    /// The exact one; its magnitude where the estimate has no sign.
    pub exact: f64,
}

/// What the cells by chance say of all that are not among the largest estimates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Missed {
    /// The largest magnitude of an exact effect among them.
    pub effect: f64,
    /// At most this part of the cells outside the largest estimates has a larger one, at 95 %
    /// confidence: with `K` drawn, `1 - 0.05^(1 / K)`, which is 3 / K or less.
    pub part: f64,
}

impl Verification {
    /// Of a grid's verified cells; none where it has none.
    pub fn of(grid: &Grid) -> Option<Self> {
        let unsigned = matches!(
            grid.engine,
            Engine::Attribution(Gradient { drop: true, .. })
        );
        let cell = |cell: &Verified| {
            let exact = grid.effect(*cell.exact.first()?)?;
            let miss = Miss {
                token: cell.token,
                head: cell.head,
                layer: cell.layer,
                neuron: cell.neuron,
                estimate: grid.effect(match cell.estimate.first() {
                    Some(&own) => own,
                    None => {
                        let head = cell.head.unwrap_or_default();
                        grid.head_score(cell.token, head, cell.layer)?
                    }
                })?,
                exact: if unsigned { exact.abs() } else { exact },
            };
            Some((miss, cell.random))
        };
        let cells: Vec<(Miss, bool)> = grid.verified.iter().filter_map(cell).collect();
        let distance = |miss: &Miss| (miss.estimate - miss.exact).abs();
        let all = || cells.iter().map(|(miss, _)| *miss);
        let largest_miss = all().reduce(|most, next| match distance(&next) > distance(&most) {
            true => next,
            false => most,
        })?;
        let by_chance = cells.iter().filter(|(_, random)| *random);
        let effects: Vec<f64> = by_chance.map(|(miss, _)| miss.exact.abs()).collect();
        let random = effects.len();
        let missed = effects.into_iter().reduce(f64::max).map(|effect| Missed {
            effect,
            part: 1.0 - 0.05_f64.powf(1.0 / random as f64),
        });
        let estimates: Vec<f64> = all().map(|it| it.estimate).collect();
        let exact: Vec<f64> = all().map(|it| it.exact).collect();
        Some(Self {
            top: cells.len() - random,
            random,
            rank_correlation: rank_correlation(&estimates, &exact),
            largest_miss,
            missed,
        })
    }
}

/// Spearman's rank correlation: Pearson's of the ranks, of which equal values share the mean.
/// None where all values of a side are equal.
pub fn rank_correlation(one: &[f64], other: &[f64]) -> Option<f64> {
    let (one, other) = (ranks(one), ranks(other));
    let middle = (one.len() as f64 + 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| (a - middle) * (b - middle)).sum()
    };
    let spread = (product(&one, &one) * product(&other, &other)).sqrt();
    (spread > 0.0).then(|| product(&one, &other) / spread)
}

/// The rank of every value, from 1.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = below as f64 + (equal.len() as f64 + 1.0) / 2.0;
        for &value in equal {
            ranks[value] = rank;
        }
        below += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::super::grid::tests::grid;
    use super::super::{Metric, Reading};
    use super::*;

    #[test]
    fn ranks_are_correlated_as_pythons_statistics_does() {
        // statistics.correlation(.., method="ranked") of these lists.
        let close = |found: Option<f64>, expected: f64| {
            assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?}");
        };
        let one = [0.3, -0.1, 0.7, 0.2, 0.2, 1.5];
        close(rank_correlation(&one, &one), 1.0);
        close(
            rank_correlation(&one, &[0.1, 0.1, 0.9, 0.4, -0.3, 0.8]),
            0.676_470_588_235_294_2,
        );
        close(rank_correlation(&[1.0, 2.0, 3.0], &[9.0, 4.0, 1.0]), -1.0);
        assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(rank_correlation(&[1.0], &[1.0]), None);
    }

    #[test]
    fn the_largest_are_verified_and_others_by_chance_none_twice_none_before_the_first() {
        let magnitudes: Vec<f64> = (0..40).map(|n| f64::from(n * 7 % 40)).collect();
        let chosen = |count, seed| choose(&magnitudes, 4, 2, count, (seed, &[7, 9]));
        let cells = chosen(5, 1);
        assert_eq!(cells.len(), 10);
        let mut places: Vec<usize> = cells.iter().map(|(t, l, _)| t * 4 + l).collect();
        let top: Vec<f64> = places[..5].iter().map(|&it| magnitudes[it]).collect();
        // 35 stands in the second row.
        assert_eq!(top, [39.0, 38.0, 37.0, 36.0, 34.0]);
        assert!(places.iter().all(|&it| it >= 8));
        assert!(cells[..5].iter().all(|it| !it.2) && cells[5..].iter().all(|it| it.2));
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 10);
        assert_eq!(chosen(5, 1), cells);
        assert_ne!(chosen(5, 2), cells);
        // There are 32: more than half of them leave fewer for chance.
        assert_eq!(chosen(20, 1).iter().filter(|it| it.2).count(), 12);
        assert_eq!(chosen(100, 1).len(), 32);
    }

    #[test]
    fn every_cell_is_as_likely_by_chance() {
        let mut drawn = vec![0_u32; 30];
        for seed in 0..2_000 {
            for (token, layer, random) in choose(&[0.0; 30], 3, 0, 6, (seed, &[])) {
                drawn[token * 3 + layer] += u32::from(random);
            }
        }
        // 6 of the 24 that are not taken as the first of equals: 500 each, deviation 19.
        assert!(drawn[..6].iter().all(|&it| it == 0));
        assert!(
            drawn[6..].iter().all(|&it| (400..600).contains(&it)),
            "{drawn:?}"
        );
    }

    #[test]
    fn verified_cells_are_summed_up_in_every_metric() {
        let cell = |token, layer, random, exact: [f64; 2]| Verified {
            token,
            head: None,
            layer,
            neuron: None,
            random,
            exact: exact.to_vec(),
            estimate: Vec::new(),
        };
        let whole = Grid {
            engine: Engine::Attribution(Gradient::default()),
            readings: vec![Reading {
                metric: Metric::Kl,
                high: 0.0,
                low: 2.0,
                scores: vec![2.0, 0.5, 1.0, 3.0],
            }],
            verified: vec![
                cell(1, 0, false, [0.6, 1.5]),
                cell(0, 1, false, [0.4, 0.5]),
                cell(0, 0, true, [0.05, 2.25]),
            ],
            ..grid(0..1, 0.9, 0.1, &[&[0.1, 0.5], &[0.9, 0.3]])
        };
        let found = Verification::of(&whole).unwrap();
        assert_eq!((found.top, found.random), (2, 1));
        assert_eq!(found.rank_correlation, Some(1.0));
        let miss = found.largest_miss;
        assert_eq!((miss.token, miss.layer), (1, 0));
        assert!((miss.estimate - 0.8).abs() < 1e-12 && (miss.exact - 0.5).abs() < 1e-12);
        let missed = found.missed.unwrap();
        assert!((missed.effect - 0.05).abs() < 1e-12 && (missed.part - 0.95).abs() < 1e-12);
        // Effects of 1, 1.5 and 0 are estimated, and 0.5, 1.5 and -0.25 exact.
        let kl = Verification::of(&whole.in_metric(Metric::Kl).unwrap()).unwrap();
        assert_eq!(
            (kl.largest_miss.estimate, kl.largest_miss.exact),
            (1.0, 0.5)
        );
        assert_eq!(kl.missed.unwrap().effect, 0.25);
        assert_eq!(Verification::of(&grid(0..1, 0.9, 0.1, &[&[0.5]])), None);
    }
}
