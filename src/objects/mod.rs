//! Immutable byte strings named by their own BLAKE3 digest: weights, tokenizers, long results.
//!
//! [`ObjectStore`] keeps them as files, and where there is a [`Bucket`], there. A name says what the
//! bytes are, so that an object can be copied, cached and fetched again anywhere without asking
//! whether it is still the right one, and so that storing the same bytes twice is the same as
//! storing them once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::blocking::{self, Stopping};

mod bucket;
mod cache;
mod digest;
mod digest_lock;
mod error;
mod eviction;
mod listing;
mod lock;
mod naming;
mod new_file;
mod partial;
mod quota;
mod shelf;
mod sound;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod writing;

pub use bucket::{Bucket, BucketSettings};
pub use cache::Bound;
pub use digest::Digest;
pub use error::Error;
pub use eviction::Pin;
pub use listing::Listed;
pub use partial::Partial;
pub use quota::Admission;
pub use shelf::Shelf;
pub use store::ObjectStore;

/// Most bytes of an object in one message, as `object.proto` promises, and the size of the
/// pieces in which files are read.
pub const CHUNK: usize = 1 << 20;

/// Runs what waits for the disk on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    blocking::blocking(work)
        .await
        .unwrap_or_else(|Stopping| Err(Error::Stopping))
}

/// Reads exactly `length` bytes of a file from `offset` on.
pub(crate) async fn read_piece(
    file: &Arc<File>,
    offset: u64,
    length: usize,
) -> io::Result<Vec<u8>> {
    let file = Arc::clone(file);
    let read = move || {
        let mut piece = vec![0; length];
        file.read_exact_at(&mut piece, offset)?;
        Ok(piece)
    };
    blocking::blocking(read).await.map_err(io::Error::other)?
}
