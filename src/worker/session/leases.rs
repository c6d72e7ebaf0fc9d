//! The leases that a worker holds, from when they are taken until they are handed in or back.
#![allow(clippy::disallowed_methods)] // as in the file above

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::super::engine::failure;
use super::super::prepare::prepare;
use super::super::work::{Key, Report, Shared, Work, to_key};
use super::held::{Fetched, Held};
use super::state::{Outbox, Session};
use crate::proto::v1::connect_request::Message as Request;
use crate::proto::v1::{self, FailureClass};
use crate::telemetry::metrics::{WORKER_FAILURES, WORKER_LEASE_SECONDS, WORKER_UNITS};
use crate::telemetry::traces;
use crate::wire::class_name;

/// Steps of an edit are told at once, but no more often than this.
const STEP_PACE: Duration = Duration::from_millis(200);

impl Session {
    pub(super) fn take(&mut self, lease: v1::Lease, out: &Outbox) {
        let Some(key) = lease.key.clone().map(|k| (k.task, k.epoch)) else {
            return;
        };
        if self.draining {
            out.send(end(
                &key,
                Some(failure(FailureClass::Preempted, "the worker is leaving")),
            ));
            return;
        }
        tracing::info!(
            task = key.0,
            epoch = key.1,
            units = lease.units.len(),
            "lease taken"
        );
        let span = lease_span(&lease);
        let shared = Arc::<Shared>::default();
        let (fetcher, fetched) = (self.fetcher.clone(), self.fetched.0.clone());
        let (named, cancelled) = (key.clone(), shared.cancelled.clone());
        let preparing = async move {
            let ready = prepare(&fetcher, lease, cancelled).await;
            // The session may have ended meanwhile.
            let _ = fetched.send((named, ready));
        };
        let held = Held {
            shared,
            ended: None,
            begun: None,
            span: span.clone(),
            computing: None,
            preparing: tokio::spawn(preparing.instrument(span)).abort_handle(),
        };
        self.leases.insert(key.clone(), held);
        self.queue.push_back((key, None));
    }

    pub(super) fn fetched(&mut self, (key, fetched): Fetched, out: &Outbox) {
        let key = &key;
        match fetched {
            Ok(ready) => {
                if let Some(entry) = self.queue.iter_mut().find(|(queued, _)| queued == key) {
                    entry.1 = Some(ready);
                }
            }
            Err(error) => {
                self.queue.retain(|(queued, _)| queued != key);
                let failure = failure(FailureClass::Transient, error.to_string());
                self.ended(key, Some(failure), out);
            }
        }
    }

    pub(super) fn feed_engine(&mut self) {
        if self.running.is_some() {
            return;
        }
        // In the order in which they came, but a lease whose files are still on their way does
        // not hold up one whose files are there.
        let Some(at) = self.queue.iter().position(|(_, ready)| ready.is_some()) else {
            return;
        };
        let Some((key, Some(ready))) = self.queue.remove(at) else {
            return;
        };
        let Some(held) = self.leases.get_mut(&key) else {
            return;
        };
        held.begun = Some(Instant::now());
        if traces::are_on() {
            held.computing =
                Some(tracing::info_span!(target: traces::TARGET, parent: &held.span, "compute"));
        }
        let shared = held.shared.clone();
        self.running = Some(key.clone());
        // Fails only when the thread panicked, which the closed outbox tells.
        let _ = self.to_engine.send(Work { key, ready, shared });
    }

    pub(super) fn report(&mut self, report: Report, out: &Outbox) {
        match report {
            Report::Commit(commit) => {
                let key = commit.lease.as_ref().map(|k| (k.task.clone(), k.epoch));
                let Some(key) = key.filter(|key| self.leases.contains_key(key)) else {
                    return;
                };
                out.send(Request::Commit(commit.clone()));
                WORKER_UNITS.add([], 1);
                self.unacknowledged.insert((key, commit.unit), commit);
            }
            Report::Ended(key, failure) => {
                self.running = None;
                if let Some(begun) = self.leases.get(&key).and_then(|held| held.begun) {
                    WORKER_LEASE_SECONDS.observe([], begun.elapsed().as_secs_f64());
                }
                self.ended(&key, failure, out);
            }
            // Somebody who watches an edit sees its steps as they come, not at the next beat.
            Report::Step => {
                if self.told.is_none_or(|told| told.elapsed() > STEP_PACE) {
                    self.heartbeat(out);
                }
            }
            Report::Put(bytes, answer) => {
                let fetcher = self.fetcher.clone();
                tokio::spawn(async move {
                    let stored = fetcher.keep(bytes).await;
                    // The engine may have been dropped meanwhile.
                    let _ = answer.send(stored.map_err(|error| error.to_string()));
                });
            }
        }
    }

    pub(super) fn ended(&mut self, key: &Key, failure: Option<v1::Failure>, out: &Outbox) {
        if let Some(failure) = &failure {
            WORKER_FAILURES.add([class_name(failure.failure_class())], 1);
            tracing::warn!(task = key.0, class = ?failure.failure_class(), "{}", failure.message);
        }
        if let Some(held) = self.leases.get_mut(key) {
            held.computing = None;
            held.ended = Some(v1::TaskEnd {
                lease: Some(to_key(key)),
                failure,
                trace_parent: traces::trace_parent(&held.span),
            });
            self.finish(key, out);
        }
    }

    pub(super) fn acknowledged(&mut self, ack: &v1::CommitAck, out: &Outbox) {
        let Some(key) = ack.lease.clone().map(|k| (k.task, k.epoch)) else {
            return;
        };
        self.unacknowledged.remove(&(key.clone(), ack.unit));
        if ack.accepted {
            self.finish(&key, out);
        } else {
            self.forget(&key);
        }
    }

    /// Ends a lease that the engine is through with and whose commits are all acknowledged.
    pub(super) fn finish(&mut self, key: &Key, out: &Outbox) {
        let open = self
            .unacknowledged
            .range((key.clone(), 0)..=(key.clone(), u64::MAX))
            .next();
        if open.is_some() {
            return;
        }
        if let Some(end) = self.leases.get(key).and_then(|held| held.ended.clone()) {
            out.send(Request::TaskEnd(end));
            self.leases.remove(key);
        }
    }

    /// Drops a lease that the coordinator took back.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(held) = self.leases.remove(key) {
            tracing::info!(task = key.0, epoch = key.1, "lease dropped");
            drop(held);
        }
        self.queue.retain(|(queued, _)| queued != key);
        self.unacknowledged.retain(|(lease, _), _| lease != key);
    }
}

fn end(key: &Key, failure: Option<v1::Failure>) -> Request {
    Request::TaskEnd(v1::TaskEnd {
        lease: Some(to_key(key)),
        failure,
        trace_parent: String::new(),
    })
}

/// The span of a lease on this worker, from when it was taken to its end, below that of the
/// coordinator.
fn lease_span(lease: &v1::Lease) -> Span {
    if !traces::are_on() || lease.trace_parent.is_empty() {
        return Span::none();
    }
    let task = lease.key.as_ref().map_or("", |key| key.task.as_str());
    let units = lease.units.len();
    let span = tracing::info_span!(
        target: traces::TARGET,
        parent: None,
        "task",
        otel.kind = "consumer",
        task,
        units
    );
    traces::set_parent(&span, &lease.trace_parent);
    span
}
