//! Palimpsest: a gRPC distributed edit orchestrator for language models.

pub mod causal;
pub mod model;
