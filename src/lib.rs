//! Palimpsest: a gRPC distributed edit orchestrator for language models.

pub mod model;
