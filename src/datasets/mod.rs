//! Every file that people bring: facts, edits, records of evaluations, corpora, contexts. A record
//! is read in one place, so it means the same to tracing, editing and evaluating.

pub mod choices;
pub mod contexts;
pub mod corpus;
pub mod edits;
mod error;
pub mod evaluation;
pub mod facts;
mod hops;
pub mod pieces;
mod questions;
mod reader;
mod record;
mod ripples;

pub use error::{Error, Problem};
pub use reader::LARGEST_FILE;
