//! The gRPC services: they check and translate requests, call what does the work, and translate
//! what comes back. No logic and no state of their own.

mod check;
mod jobs;
mod models;
pub mod objects;
mod pages;
pub mod server;
pub mod status;
mod workers;

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, tonic::Status> + Send + 'static,
) -> Result<T, tonic::Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(status::internal(&error)),
    }
}
