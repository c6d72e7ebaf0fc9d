//! A lease that a worker holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::Span;

use super::super::files;
use super::super::prepare::Prepared;
use super::super::work::{Key, Shared};
use crate::proto::v1;

/// A lease made ready, or why not.
pub(super) type Fetched = (Key, Result<Prepared, files::Error>);

/// A lease that this worker holds.
pub(super) struct Held {
    pub shared: Arc<Shared>,
    /// Set when the engine is through with it; sent once every commit is acknowledged.
    pub ended: Option<v1::TaskEnd>,
    /// When the engine began with it.
    pub begun: Option<Instant>,
    /// Its span, and that of the engine's work on it.
    pub span: Span,
    pub computing: Option<Span>,
    /// What makes it ready.
    pub preparing: AbortHandle,
}

impl Drop for Held {
    /// Nothing that was begun for a lease goes on without it.
    fn drop(&mut self) {
        self.preparing.abort();
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }
}
