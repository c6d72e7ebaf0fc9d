//! The gRPC services: they check and translate requests, call what does the work, and translate
//! what comes back. No logic and no state of their own.

mod asked;
mod audit;
pub mod caller;
mod changes;
mod check;
mod comparison;
pub mod descriptors;
pub mod error;
pub mod gate;
pub mod health;
mod jobs;
mod leaves;
pub mod listener;
pub mod metering;
mod models;
pub mod objects;
pub mod overview;
mod pages;
mod receipts;
mod results;
pub mod server;
mod socket;
mod standing;
mod statistics;
pub mod status;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod versions;
mod without;
mod workers;

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, tonic::Status> + Send + 'static,
) -> Result<T, tonic::Status> {
    crate::blocking::blocking(work).await?
}
