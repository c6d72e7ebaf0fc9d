//! `StatusService`, and the same numbers as metrics: how the coordinator is as a whole.
#![allow(clippy::disallowed_methods)] // the age of what was looked up, and the time of a status

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use tonic::{Request, Response, Status};

use super::caller::principal;
use super::workers::PROTOCOL;
use crate::auth;
use crate::coordinator::Coordinator;
use crate::invariants::violations;
use crate::proto::v1::status_service_server::StatusService;
use crate::proto::v1::{self, GetStatusRequest, GetStatusResponse, JobState};
use crate::store::Usage;
use crate::telemetry::exposition::Sample;
use crate::telemetry::metrics;
use crate::wire::class_name;

/// How old the looked up sizes may be: for somebody who asks, and for those who ask all the time.
const FRESH: Duration = Duration::from_secs(2);
const RECENT: Duration = Duration::from_secs(60);
/// How long a lookup may hold up an answer.
const LOOK: Duration = Duration::from_secs(3);

/// A coordinator as a whole. Clones share what was looked up.
#[derive(Clone, Debug)]
pub struct Overview {
    coordinator: Coordinator,
    started: SystemTime,
    usage: Arc<LookedUp>,
}

/// What the store was found to take, and whether that is being looked up again.
#[derive(Debug, Default)]
struct LookedUp {
    known: Mutex<Known>,
    looking: AtomicBool,
}

/// What came of looking.
#[derive(Clone, Debug, Default)]
struct Known {
    /// When it was looked up last; not at all yet where there is none.
    at: Option<Instant>,
    /// What was found, then or before.
    usage: Usage,
    /// Why nothing was found then.
    problem: String,
}

impl LookedUp {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Overview {
    /// Of a coordinator that was started now.
    pub fn new(coordinator: Coordinator) -> Self {
        Self {
            coordinator,
            started: SystemTime::now(),
            usage: Arc::default(),
        }
    }

    /// What the store takes, as it was looked up at most `age` ago, or longer ago where a lookup
    /// takes its time: a bucket with the objects may be slow, or away.
    async fn usage(&self, age: Duration) -> Known {
        let known = self.usage.known().clone();
        if known.at.is_some_and(|at| at.elapsed() < age) {
            return known;
        }
        if !self.usage.looking.swap(true, Ordering::Relaxed) {
            let (store, usage) = (self.coordinator.store().clone(), self.usage.clone());
            let look = super::blocking(move || {
                let found = store.usage();
                usage.looking.store(false, Ordering::Relaxed);
                let mut known = usage.known();
                known.at = Some(Instant::now());
                known.problem.clear();
                match found {
                    Ok(found) => known.usage = found,
                    Err(error) => {
                        tracing::warn!(%error, "what the store takes is not known");
                        known.problem = error.to_string();
                    }
                }
                Ok(())
            });
            // It goes on after this; whoever asks next finds what it found.
            let _ = tokio::time::timeout(LOOK, look).await;
        }
        let mut known = self.usage.known().clone();
        if known.at.is_none() {
            known.problem = "it is still being looked up: ask again".to_owned();
        }
        known
    }

    async fn status(&self, caller: v1::Caller, age: Duration) -> Result<v1::Status, Status> {
        let scheduler = self.coordinator.inspect(|core| core.census()).await?;
        let Known { usage, problem, .. } = self.usage(age).await;
        let store = v1::StoreStatus {
            format: self.coordinator.store().format(),
            record_bytes: usage.record_bytes,
            objects: usage.objects,
            object_bytes: usage.object_bytes,
            free_bytes: usage.free_bytes,
            flushes: self.coordinator.store().flushes(),
            audit_entries: *self.coordinator.audited().borrow(),
            models: usage.models,
            versions: usage.versions,
            problem,
        };
        let invariants = violations().map(|(invariant, violations)| v1::InvariantStatus {
            invariant: invariant.id().to_owned(),
            violations,
        });
        Ok(v1::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            start_time: Some(self.started.into()),
            time: Some(SystemTime::now().into()),
            caller: Some(caller),
            scheduler: Some(scheduler),
            store: Some(store),
            invariants: invariants.collect(),
        })
    }

    /// Looks up, for the metrics, what is not counted as it happens.
    pub fn sample(&self) -> Sample {
        let overview = self.clone();
        Arc::new(move || {
            let overview = overview.clone();
            async move {
                match overview.status(v1::Caller::default(), RECENT).await {
                    Ok(status) => show(&status),
                    Err(status) => {
                        tracing::warn!(reason = status.message(), "metrics are not up to date")
                    }
                }
            }
            .boxed()
        })
    }
}

/// Every state that a job can have, as the metrics name it.
const JOB_STATES: &[(JobState, &str)] = &[
    (JobState::Queued, "queued"),
    (JobState::Running, "running"),
    (JobState::Held, "held"),
    (JobState::Succeeded, "succeeded"),
    (JobState::Failed, "failed"),
    (JobState::Cancelled, "cancelled"),
];

fn show(status: &v1::Status) {
    use metrics::*;
    let scheduler = status.scheduler.clone().unwrap_or_default();
    let counts = scheduler.counts.unwrap_or_default();
    for (state, name) in JOB_STATES {
        let found = scheduler.jobs.iter().find(|it| it.state == *state as i32);
        JOBS.set([name], found.map_or(0, |it| it.count) as f64);
    }
    for (name, tasks) in [
        ("pending", counts.tasks_pending - counts.tasks_quarantined),
        ("leased", counts.tasks_leased),
        ("done", counts.tasks_done),
        ("failed", counts.tasks_failed),
        ("cancelled", counts.tasks_cancelled),
        ("quarantined", counts.tasks_quarantined),
    ] {
        TASKS.set([name], tasks as f64);
    }
    let workers = scheduler.workers.unwrap_or_default();
    for (name, number) in [
        ("idle", workers.idle),
        ("busy", workers.busy),
        ("draining", workers.draining),
        ("excluded", workers.excluded),
        ("away", workers.away),
    ] {
        WORKERS.set([name], number.into());
    }
    QUEUE_DEPTH.set([], scheduler.queue_depth as f64);
    LEASES.set([], scheduler.leases as f64);
    UNITS_COMMITTED.reach([], scheduler.units_committed);
    TASKS_COMPLETED.reach([], scheduler.tasks_completed);
    MULTIPLY_ADDS.reach([], scheduler.multiply_adds as u64);
    LEASES_GIVEN.reach([], scheduler.leases_given);
    TASK_RETRIES.reach([], scheduler.retries);
    DIVERGENCES.reach([], scheduler.divergences);
    for class in FAILURE_CLASSES {
        let found = scheduler
            .failures
            .iter()
            .find(|it| it.failure_class == *class as i32);
        let count = found.map_or(0, |it| it.count.into());
        TASK_FAILURES.reach([class_name(*class)], count);
    }
    for (invariant, violations) in violations() {
        INVARIANT_VIOLATIONS.reach([invariant.id()], violations);
    }
    let store = status.store.clone().unwrap_or_default();
    FLUSHES.reach([], store.flushes);
    // What is not known stays what it was.
    if store.problem.is_empty() {
        STORE_BYTES.set([], store.record_bytes as f64);
        OBJECTS.set([], store.objects as f64);
        OBJECT_BYTES.set([], store.object_bytes as f64);
    }
    AUDIT_ENTRIES.set([], store.audit_entries as f64);
    RESIDENT_BYTES.set([], resident_bytes() as f64);
}

#[tonic::async_trait]
impl StatusService for Overview {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let known = request.extensions().get::<auth::Caller>();
        let caller = v1::Caller {
            principal: principal(request.metadata()),
            role: known
                .map(|caller| caller.role.to_string())
                .unwrap_or_default(),
            methods: auth::methods_of(known.map(|caller| caller.role)),
        };
        let status = self.status(caller, FRESH).await?;
        Ok(Response::new(GetStatusResponse {
            status: Some(status),
        }))
    }
}
