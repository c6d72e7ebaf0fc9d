//! Palimpsest: a gRPC distributed edit orchestrator for language models.

pub mod api;
pub mod audit;
pub mod auth;
mod blocking;
pub mod causal;
pub mod cli;
pub mod client;
pub mod config;
pub mod coordinator;
pub mod datasets;
pub mod edit;
pub mod embedded;
pub mod eval;
pub mod invariants;
pub mod model;
pub mod npz;
pub mod objects;
pub mod plot;
pub mod proto;
pub mod stats;
pub mod store;
pub mod telemetry;
mod text;

pub mod version;
pub mod wire;
pub mod work;
pub mod worker;
