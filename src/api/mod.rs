//! The gRPC services: they check and translate requests, call what does the work, and translate
//! what comes back. No logic and no state of their own.

pub mod objects;
pub mod status;
