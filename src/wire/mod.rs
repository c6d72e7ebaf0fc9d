//! Between the contract and the rest: messages and the types that the code computes with, the words for
//! the contract's enums, and the names of its resources.
//!
//! [`crate::causal`], [`crate::edit`] and [`crate::eval`] know nothing of the contract and the contract
//! nothing of them; this is the one place that knows both.

mod grid;
pub mod names;
mod words;

pub use grid::{Error, compat, compat_to_proto, grid_to_proto, kind, kind_to_proto};
pub use words::{KINDS, class_name, kind_name, named_kind};
