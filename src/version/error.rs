//! What can go wrong with versions.

use crate::proto::v1;

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
    /// A form of export that has room for thin factors alone.
    #[error(
        "the change of {tensor} is stored whole, for it has a higher rank than thin factors would save on: export \
         the version as safetensors"
    )]
    Whole {
        /// The matrix.
        tensor: String,
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
    #[error("{tensor} is no matrix that edits change: {those}")]
    Tensor {
        /// The name.
        tensor: String,
        /// Which are.
        those: String,
    },
    /// The base's files cannot be read.
    #[error(transparent)]
    Model(#[from] crate::model::Error),
    /// There is no such version, edit or ref.
    #[error("there is no {what} '{name}' of the model {model}")]
    Unknown {
        /// "version", "edit" or "ref".
        what: &'static str,
        /// What was asked for.
        name: String,
        /// The model's identifier.
        model: String,
    },
    /// The beginning of a digest fits several.
    #[error("'{text}' is the beginning of several: {}; give more digits", .found.join(", "))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// What it could be.
        found: Vec<String>,
    },
    /// A ref is not where the caller saw it.
    #[error(
        "{name} moved meanwhile: it is at version {actual} (etag {etag}), moved by {author}; it was \
         expected at {expected}"
    )]
    Moved {
        /// The ref's resource name.
        name: String,
        /// The etag or version that was expected.
        expected: String,
        /// The version it points at.
        actual: String,
        /// Its etag.
        etag: String,
        /// Who moved it last.
        author: String,
    },
    /// Tags stay where they are.
    #[error("{name} is a tag: make another one, or move it by force")]
    Tag {
        /// The ref's resource name.
        name: String,
    },
    /// A ref's identifier cannot be one.
    #[error("'{id}' cannot be a ref: {problem}")]
    RefName {
        /// The identifier.
        id: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is a ref of that name.
    #[error(
        "{name} exists already and points at version {version}: choose another name, or move it"
    )]
    Taken {
        /// The ref's resource name.
        name: String,
        /// Where it points.
        version: String,
    },
    /// A version has no such edit.
    #[error("version {version} has no edit {edit}: 'palimpsest log' shows which it has")]
    NotThere {
        /// The edit.
        edit: String,
        /// The version.
        version: String,
    },
    /// A version has the edit already.
    #[error("version {version} has the edit {edit} already")]
    AlreadyThere {
        /// The edit.
        edit: String,
        /// The version.
        version: String,
    },
    /// A rejected edit is no part of any version.
    #[error("edit {edit} was rejected ({gates}): it can be part of no version")]
    Rejected {
        /// The edit.
        edit: String,
        /// The gates it failed.
        gates: String,
    },
    /// Something that a version needs is not stored (I9).
    #[error(
        "{what} {digest}, which version {version} needs, is not stored: restore it from a backup"
    )]
    Missing {
        /// "the edit" or "the factor".
        what: &'static str,
        /// Its digest.
        digest: String,
        /// The version.
        version: String,
    },
    /// A field of an edit cannot be.
    #[error("{field}: {problem}")]
    Field {
        /// The field.
        field: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A version could not be exported.
    #[error("{path} {problem}")]
    Export {
        /// The destination.
        path: std::path::PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The files of the base could not be laid out.
    #[error("cannot lay out {path}: {source}")]
    Layout {
        /// The file or folder.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// An object cannot be read or kept.
    #[error(transparent)]
    Object(#[from] crate::objects::Error),
}

impl Error {
    /// Names the ref that was found elsewhere than expected, where all that was known is its
    /// version.
    pub fn of(self, reference: &v1::Ref) -> Self {
        match self {
            Error::Moved {
                expected, actual, ..
            } => Error::Moved {
                name: reference.name.clone(),
                expected,
                actual,
                etag: reference.etag.clone(),
                author: reference.author.clone(),
            },
            error => error,
        }
    }
}
