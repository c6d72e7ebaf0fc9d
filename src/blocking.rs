//! Work that waits for the disk, kept away from what waits for the network.

use std::panic;
use std::thread::JoinHandle;

use tokio::runtime::{Handle, RuntimeFlavor};

/// The runtime is being shut down and takes no more work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process is being stopped")]
pub struct Stopping;

/// Runs `work` on a thread that may wait. A panic in it goes on in the caller.
///
/// On a runtime that has one thread only, `work` runs in place. Such a runtime is a simulation's,
/// in which several machines share a thread and a clock: another thread would finish at a moment
/// that no seed repeats.
///
/// # Errors
/// [`Stopping`], when the runtime ends before the work began.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Stopping> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(error) => match error.try_into_panic() {
            Ok(payload) => panic::resume_unwind(payload),
            Err(_) => Err(Stopping),
        },
    }
}

/// Begins `work` on a thread of its own; on a runtime that has one thread only it is done when this
/// returns, as with [`blocking`].
pub fn aside(work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    if flavor.is_ok_and(|flavor| flavor == RuntimeFlavor::CurrentThread) {
        work();
        return None;
    }
    Some(std::thread::spawn(work))
}

/// Runs `work`, which waits, on this thread: a thread of the runtime gives what else it has to do
/// to another first. For what cannot be asynchronous and is rarely slow; all else is [`blocking`].
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        _ => work(),
    }
}
