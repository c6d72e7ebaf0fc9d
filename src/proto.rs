//! The public contract, generated from `proto/palimpsest/v1`.
#![allow(missing_docs, clippy::all, clippy::unwrap_used)]

/// Messages and services of `palimpsest.v1`. The comments are those of the protos.
pub mod v1 {
    tonic::include_proto!("palimpsest.v1");
}

/// The serialised descriptors of the contract, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/palimpsest.bin"));
