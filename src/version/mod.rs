//! Versions of an edited model: what an edit adds to its matrices, which edits a version has, and
//! the bytes that come of them.
//!
//! A matrix of a version is always rebuilt from the base: `W = base + sum over the version's edits,
//! in order, of left right^T`, in one fixed order of single-precision operations, rounded once to
//! the type in which the base stores it ([`materialise()`]). So taking an edit back is exact, and
//! the digest of every matrix says so. A [`VersionDraft`] is a version that was computed, a
//! [`RefMovement`] makes a ref point at it; [`History`] reads what there is. Nothing here needs
//! libtorch.

mod base;
mod bases;
mod built_on;
mod commit;
pub mod difference;
mod error;
pub mod export;
mod factor;
mod history;
mod kept;
mod made;
mod materialise;
mod stacked;
mod sums;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod whole;

pub use crate::store::manifest::{
    base_version, edit_bytes, edit_id, edit_name, ref_name, version_bytes, version_id, version_name,
};
pub use base::{Base, by_tensor};
pub use bases::Bases;
pub use commit::{Expected, MovedRef, RefMovement, create_ref, edit_changes, rejected};
pub use difference::relative_norm;
pub use error::Error;
pub use factor::Factor;
pub use history::{History, MAIN, digest_of, short};
pub use kept::{Rows, keys_of, rows_of, rows_of_solve};
pub use made::{Authorship, VersionDraft};
pub use materialise::{Matrix, materialise};
pub use stacked::factors;
pub use whole::{Whole, WholeVersions, check_whole};
