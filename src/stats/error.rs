//! What can go wrong with key statistics.

use crate::npz;

/// An error of the statistics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A layer the model does not have.
    #[error("layer {layer} is not one of the model's {layers}: give 0 to {}", layers - 1)]
    Layer {
        /// The layer asked for.
        layer: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// Pieces of text of no length.
    #[error("length is 0 tokens: give 1 to the model's context")]
    Length,
    /// More tokens to draw than one piece may ask for.
    #[error("{tokens} tokens to draw are too many for one piece: {most} at most, give more pieces")]
    TooMany {
        /// The tokens asked for.
        tokens: u64,
        /// The most.
        most: u64,
    },
    /// Sums over keys of different sizes.
    #[error(
        "statistics of keys with {found} channels cannot be added to those with {expected}: they are of different models"
    )]
    Size {
        /// Channels of the one.
        found: usize,
        /// Channels of the other.
        expected: usize,
    },
    /// A file of statistics that is none.
    #[error("{problem}")]
    Malformed {
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A file that is no `.npz` with the arrays it should have.
    #[error(transparent)]
    Npz(#[from] npz::read::Error),
    /// A sum that is not finite.
    #[error(
        "the statistics of layer {layer} are not finite: the weights or the number format overflow"
    )]
    NotFinite {
        /// The layer.
        layer: usize,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The model or its tokenizer failed.
    #[error(transparent)]
    Model(#[from] crate::model::Error),
    /// libtorch refused an operation.
    #[cfg(feature = "torch")]
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
