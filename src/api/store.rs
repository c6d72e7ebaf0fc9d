//! `StoreService` over the coordinator's store.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tonic::{Request, Response, Status};

use super::caller::draft;
use super::status::invalid_argument;
use crate::audit::EntryDraft;
use crate::coordinator::Coordinator;
use crate::proto::v1::store_service_server::StoreService;
use crate::proto::v1::{CollectObjectsRequest, CollectObjectsResponse};
use crate::store::{Collected, GRACE, Garbage, Grace};

/// Beside a running coordinator, what was stored a moment ago may be referred to in the next.
const LEAST_AGE: Duration = Duration::from_secs(600);

/// Serves the store of a coordinator.
#[derive(Debug)]
pub struct StoreRecords {
    coordinator: Coordinator,
}

impl StoreRecords {
    /// Serves the store of this coordinator.
    pub fn new(coordinator: Coordinator) -> Self {
        Self { coordinator }
    }

    /// Removes what was found, once the audit log says who had it removed.
    async fn sweep(&self, garbage: Garbage, mut entry: EntryDraft) -> Result<Collected, Status> {
        let counted = garbage.counted();
        if counted.removed + counted.partial > 0 {
            entry.detail = counted.to_string();
            self.coordinator.record(entry).await?;
        }
        let store = Arc::clone(self.coordinator.store());
        let sweep = move || store.sweep(garbage).map_err(Status::from);
        let collected = super::blocking(sweep).await?;
        tracing::info!(
            objects = collected.removed,
            bytes = collected.removed_bytes,
            uploads = collected.partial,
            bucket = self
                .coordinator
                .store()
                .objects()
                .bucket()
                .map(tracing::field::display),
            "objects collected"
        );
        Ok(collected)
    }
}

#[tonic::async_trait]
impl StoreService for StoreRecords {
    #[allow(clippy::disallowed_methods)] // The age of files is counted by the system's clock.
    async fn collect_objects(
        &self,
        request: Request<CollectObjectsRequest>,
    ) -> Result<Response<CollectObjectsResponse>, Status> {
        let entry = draft(&request, "objects.collect", "objects", "");
        let CollectObjectsRequest { dry_run, min_age } = request.into_inner();
        let bad = || invalid_argument("min_age", "give at least 10 minutes");
        let age = match min_age {
            None => GRACE,
            Some(age) => Duration::try_from(age).map_err(|_| bad())?,
        };
        if age < LEAST_AGE {
            return Err(bad());
        }
        let before = SystemTime::now().checked_sub(age).ok_or_else(bad)?;
        let store = Arc::clone(self.coordinator.store());
        let look = move || store.garbage(Grace { before }).map_err(Status::from);
        let garbage = super::blocking(look).await?;
        if dry_run {
            return Ok(Response::new(response(garbage.counted())));
        }
        let answer = self.sweep(garbage, entry).await?;
        Ok(Response::new(response(answer)))
    }
}

fn response(collected: Collected) -> CollectObjectsResponse {
    let Collected {
        reached,
        young,
        removed,
        removed_bytes,
        partial,
        partial_bytes,
    } = collected;
    CollectObjectsResponse {
        reached,
        young,
        removed,
        removed_bytes,
        partial,
        partial_bytes,
    }
}
