//! Palimpsest: a gRPC distributed edit orchestrator for language models.

pub mod api;
pub mod causal;
pub mod coordinator;
pub mod facts;
pub mod npz;
pub mod plot;
pub mod proto;
pub mod store;
pub mod translate;
