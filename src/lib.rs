//! Palimpsest: a gRPC distributed edit orchestrator for language models.

pub mod facts;
pub mod npz;
pub mod plot;
