//! What can go wrong with versions.

/// An error of the version subsystem.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A factor's fields do not fit each other.
    #[error("the factor of {tensor}: {field} is {found}, not {expected}: correct whatever made it")]
    Factor {
        /// The matrix.
        tensor: String,
        /// What of the factor.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A matrix would hold a number that is none.
    #[error(
        "element {index} of {tensor} would be {value}: an edit overflows the stored type; \
         take it back, or clamp it harder"
    )]
    NotFinite {
        /// The matrix.
        tensor: String,
        /// The element, in the stored order.
        index: usize,
        /// What it would be.
        value: f32,
    },
    /// A matrix came out with other bytes than its version says (I11).
    #[error(
        "{tensor} materialises to {found}, its version says {expected}: the base's files or the \
         edits are not those the version was made of; verify the store"
    )]
    Materialised {
        /// The matrix.
        tensor: String,
        /// The digest that came out.
        found: String,
        /// The digest in the manifest.
        expected: String,
    },
    /// The checkpoint has no such matrix, or it is not one that edits change.
    #[error("{tensor} is no matrix that edits change: they change {example} and its like")]
    Tensor {
        /// The name.
        tensor: String,
        /// One that is.
        example: String,
    },
    /// The base's files cannot be read.
    #[error(transparent)]
    Model(#[from] crate::model::Error),
}
