//! Palimpsest: a gRPC distributed edit orchestrator for language models.

pub mod api;
pub mod config;
pub mod objects;
pub mod proto;
pub mod telemetry;
