//! How a worker leaves: it takes no more work, hands back what has not begun, and what is not done
//! in time.
#![allow(clippy::disallowed_methods)] // as in the file above

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::super::engine::failure;
use super::state::{HAND_BACK, Outbox, Session};
use crate::proto::v1::connect_request::Message as Request;
use crate::proto::v1::{self, FailureClass};

impl Session {
    /// Takes no more work; what has not begun goes back at once.
    pub(super) fn drain(&mut self, reason: &str, out: &Outbox) {
        tracing::info!(reason, "draining");
        self.draining = true;
        let mut time = self.options.drain_timeout;
        if let Some(until) = self.options.valid_until {
            time = time.min(
                until
                    .elapsed()
                    .err()
                    .map_or(Duration::ZERO, |e| e.duration()),
            );
        }
        self.drain_deadline = Some(Instant::now() + time.saturating_sub(HAND_BACK));
        out.send(drain_message());
        for (key, _) in std::mem::take(&mut self.queue) {
            self.ended(
                &key,
                Some(failure(FailureClass::Preempted, "the worker is leaving")),
                out,
            );
        }
    }

    /// The time to finish is over: what runs goes back. Its committed units stay.
    pub(super) fn hand_back(&mut self, out: &Outbox) {
        self.drain_deadline = None;
        for key in self.leases.keys().cloned().collect::<Vec<_>>() {
            if let Some(held) = self.leases.get(&key) {
                held.shared.cancelled.store(true, Ordering::Relaxed);
            }
            if self
                .leases
                .get(&key)
                .is_some_and(|held| held.ended.is_none())
            {
                let left = failure(
                    FailureClass::Preempted,
                    "the worker left before it was done",
                );
                self.ended(&key, Some(left), out);
            }
        }
    }

    /// Ends when the worker should begin to drain, because it will be taken away.
    pub(super) fn retirement(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let Some(until) = self.options.valid_until else {
            return Box::pin(std::future::pending());
        };
        let left = until
            .elapsed()
            .err()
            .map_or(Duration::ZERO, |e| e.duration());
        Box::pin(tokio::time::sleep(
            left.saturating_sub(self.options.drain_timeout),
        ))
    }
}

/// Ends at a time, or never.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Says that this worker takes no more work.
pub(super) fn drain_message() -> Request {
    Request::Drain(v1::Drain {
        reason: "the worker was asked to stop".to_owned(),
    })
}
