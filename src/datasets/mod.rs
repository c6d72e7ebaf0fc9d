//! Every file that people bring: facts, edits, records of evaluations, corpora. Each schema is read in one place.

pub mod contexts;
pub mod corpus;
pub mod edits;
pub mod facts;
pub mod pieces;
