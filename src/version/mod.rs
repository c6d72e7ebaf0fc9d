//! Versions of an edited model: what an edit adds to its matrices, which edits a version has, and
//! the bytes that come of them.
//!
//! A matrix of a version is always rebuilt from the base: `W = base + sum over the version's
//! edits, in order, of left right^T`, in one fixed order of single-precision operations, rounded
//! once to the type in which the base stores it ([`materialise`]). So taking an edit back is
//! exact, and the digest of every matrix says so. Nothing here needs libtorch.

mod error;
mod factor;
mod manifest;
mod materialise;

pub use error::Error;
pub use factor::Factor;
pub use manifest::{
    base_version, edit_bytes, edit_id, edit_name, ref_name, version_bytes, version_id, version_name,
};
pub use materialise::{Matrix, materialise};
