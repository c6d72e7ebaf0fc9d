//! The plan of a staircase: which windows a grid has, and where each enters the growing batch.

use std::ops::Range;

use super::kind::Kind;

/// Restored layers, and the cells of a token that restore just these: `[head][layer]`, where heads
/// are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    pub layers: Range<usize>,
    /// The restored head or neuron, where it is of one.
    pub part: Option<usize>,
    pub columns: Range<usize>,
}

/// The different windows of a grid, from the first layer up; `heads` is how many cells a layer has.
pub(super) fn windows(kind: Kind, layers: usize, heads: usize, width: usize) -> Vec<Window> {
    if kind.is_of_heads() {
        let of = |layer: usize, head: usize| Window {
            layers: layer..layer + 1,
            part: Some(head),
            columns: head * layers + layer..head * layers + layer + 1,
        };
        let cells = (0..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head)));
        return cells.map(|(layer, head)| of(layer, head)).collect();
    }
    let mut windows: Vec<Window> = Vec::new();
    for layer in 0..layers {
        let window = kind.window(layer, layers, width);
        match windows.last_mut() {
            Some(last) if last.layers == window => last.columns.end = layer + 1,
            _ => windows.push(Window {
                layers: window,
                part: None,
                columns: layer..layer + 1,
            }),
        }
    }
    windows
}

/// How the rows of a window come into the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// Before this block, whose input is restored.
    Before(usize),
    /// Behind this block: what it would give with the window's first layer restored.
    Behind(usize),
    /// Before this block, as a copy of the rows of window `of`. That one begins at the same layer
    /// and reaches further, so up to here the two are the same.
    Copy { before: usize, of: usize },
}

/// The entries of `windows`, ordered as [`windows`] gives them for `kind`.
pub(super) fn entries(kind: Kind, windows: &[Window]) -> Vec<Entry> {
    if !kind.is_windowed() {
        let alone = |window: &Window| match kind {
            Kind::ResidPre => Entry::Before(window.layers.start),
            _ => Entry::Behind(window.layers.start),
        };
        return windows.iter().map(alone).collect();
    }
    windows
        .iter()
        .enumerate()
        .map(|(index, window)| {
            let furthest = windows
                .iter()
                .rposition(|other| other.layers.start == window.layers.start)
                .unwrap_or(index);
            match furthest == index {
                true => Entry::Behind(window.layers.start),
                false => Entry::Copy {
                    before: window.layers.end,
                    of: furthest,
                },
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_windows_enter_one_behind_each_block() {
        let windows = windows(Kind::Hidden, 4, 1, 10);
        assert_eq!(windows.len(), 4);
        assert_eq!(
            entries(Kind::Hidden, &windows),
            [0, 1, 2, 3].map(Entry::Behind)
        );
    }

    #[test]
    fn heads_of_a_layer_enter_behind_it_together_and_are_cells_head_by_head() {
        let windows = windows(Kind::Head, 2, 3, 10);
        let columns: Vec<usize> = windows.iter().map(|it| it.columns.start).collect();
        assert_eq!(columns, [0, 2, 4, 1, 3, 5]);
        assert_eq!(
            entries(Kind::Head, &windows),
            [0, 0, 0, 1, 1, 1].map(Entry::Behind)
        );
    }

    #[test]
    fn windows_cut_off_at_the_first_layer_leave_the_longest_of_them() {
        let windows = windows(Kind::Mlp, 8, 1, 4);
        let ranges: Vec<_> = windows.iter().map(|w| w.layers.clone()).collect();
        assert_eq!(ranges, [0..2, 0..3, 0..4, 1..5, 2..6, 3..7, 4..8, 5..8]);
        assert_eq!(
            entries(Kind::Mlp, &windows)[..4],
            [
                Entry::Copy { before: 2, of: 2 },
                Entry::Copy { before: 3, of: 2 },
                Entry::Behind(0),
                Entry::Behind(1)
            ]
        );
    }

    #[test]
    fn equal_windows_are_one() {
        let windows = windows(Kind::Attn, 4, 1, 10);
        assert_eq!(
            windows,
            [Window {
                layers: 0..4,
                part: None,
                columns: 0..4
            }]
        );
        let windows = super::windows(Kind::Attn, 6, 1, 7);
        // cells 0.. -> 0..4, 0..5, 0..6, 0..6, 1..6, 2..6
        assert_eq!(windows.len(), 5);
        assert_eq!(windows[2].columns, 2..4);
    }
}
