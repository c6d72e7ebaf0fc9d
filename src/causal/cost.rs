//! What a grid costs, before it is computed: for cutting a sweep into tasks, and for judging the
//! engine.

use super::kind::Kind;
use super::stairs::{self, Entry};

/// The shape of one grid to trace. All are counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The restored state.
    pub kind: Kind,
    /// Tokens of the prompt.
    pub tokens: usize,
    /// Tokens before the subject.
    pub before_subject: usize,
    /// Blocks of the model.
    pub layers: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Key-value heads of a block.
    pub kv_heads: usize,
    /// Noise samples.
    pub samples: usize,
    /// Layers in a window.
    pub window: usize,
}

impl Shape {
    /// The least that a hidden grid takes: `sum over t >= b, l of S (T - t) (L - 1 - l)` passes of
    /// one token through one block; one block more where its input is restored, and as much for each
    /// head. For the other kinds the window begins at the cell's first layer. Where a cell restores
    /// all tokens, there is one in the place of all `t`, from token `b` on.
    pub fn floor(&self) -> u64 {
        let above: usize = (0..self.layers)
            .map(|layer| {
                let window = self.kind.window(layer, self.layers, self.window);
                self.layers - 1 - window.start + usize::from(self.kind == Kind::ResidPre)
            })
            .sum();
        (self.samples * self.token_sum() * above * self.heads_of_kind()) as u64
    }

    /// Passes of one token through one block that the exact engine makes for the cells. The clean
    /// and the corrupted run, which the kinds share, come on top.
    ///
    /// Less than the floor where windows share their beginning, and in a hidden grid, where the
    /// first token of the subject goes on as in the clean run once it is restored; the last block
    /// is counted in full although only its keys and values are computed for all tokens.
    pub fn passes(&self) -> u64 {
        let heads = self.heads_of_kind();
        let windows = stairs::windows(self.kind, self.layers, heads, self.window);
        let above: usize = stairs::entries(self.kind, &windows)
            .iter()
            .map(|entry| match *entry {
                Entry::Behind(layer) => self.layers - 1 - layer,
                Entry::Before(layer) | Entry::Copy { before: layer, .. } => self.layers - layer,
            })
            .sum();
        let settled = match self.kind.is_residual() {
            true => usize::from(self.before_subject < self.tokens),
            false => 0,
        };
        (self.samples * (self.token_sum() - settled) * above) as u64
    }

    /// Passes of one token through one block with one full forward pass a cell, without the clean
    /// run.
    pub fn plain_passes(&self) -> u64 {
        let a_cell = self.samples * self.tokens * self.layers;
        a_cell as u64 * self.cells() as u64
    }

    /// Cells of the grid.
    pub fn cells(&self) -> usize {
        let places = match self.kind.is_over_tokens() {
            true => 1,
            false => self.tokens,
        };
        places * self.layers * self.heads_of_kind()
    }

    fn heads_of_kind(&self) -> usize {
        self.kind.heads(self.heads, self.kv_heads)
    }

    /// `sum over t >= b of T - t`; of `b` alone where all tokens are restored at once.
    fn token_sum(&self) -> usize {
        let corrupted = self.tokens - self.before_subject.min(self.tokens);
        match self.kind.is_over_tokens() {
            true => corrupted,
            false => corrupted * (corrupted + 1) / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        kind: Kind::Hidden,
        tokens: 10,
        before_subject: 0,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        samples: 10,
        window: 10,
    };

    #[test]
    fn a_hidden_grid_costs_its_floor_less_the_first_token_of_the_subject() {
        assert_eq!(SHAPE.floor(), 10 * 55 * 435);
        assert_eq!(SHAPE.passes(), 10 * 54 * 435);
        assert_eq!(SHAPE.plain_passes(), 10 * 10 * 30 * 300);
    }

    #[test]
    fn windows_that_share_their_beginning_cost_less_than_their_floor() {
        let shape = Shape {
            kind: Kind::Mlp,
            ..SHAPE
        };
        // Six windows begin at layer 0, the longest of ten layers; five copy it where they end.
        let shared: u64 = (5..10).map(|end| end - 1).sum();
        assert_eq!(shape.floor() - shape.passes(), 10 * 55 * shared);
    }

    #[test]
    fn heads_cost_a_hidden_grid_each_and_over_all_tokens_a_row_of_it() {
        let of = |kind| Shape { kind, ..SHAPE };
        assert_eq!(of(Kind::Head).floor(), 9 * SHAPE.floor());
        assert_eq!(of(Kind::Head).passes(), 9 * SHAPE.floor());
        assert_eq!(of(Kind::HeadAll).passes(), 9 * 10 * 10 * 435);
        assert_eq!(of(Kind::HeadAll).cells(), 9 * 30);
        assert_eq!(of(Kind::HeadK).passes(), 3 * SHAPE.floor());
    }

    #[test]
    fn a_subject_further_on_costs_less() {
        let shape = Shape {
            before_subject: 4,
            ..SHAPE
        };
        assert_eq!(shape.floor(), 10 * 21 * 435);
    }
}
