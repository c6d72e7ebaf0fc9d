//! `StoreService` over the coordinator's store.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tonic::{Request, Response, Status};

use super::status::{IntoStatus, invalid_argument};
use crate::proto::v1::store_service_server::StoreService;
use crate::proto::v1::{CollectObjectsRequest, CollectObjectsResponse};
use crate::store::{Collected, GRACE, Grace, Store};

/// Beside a running coordinator, what was stored a moment ago may be referred to in the next.
const LEAST_AGE: Duration = Duration::from_secs(600);

/// Serves a store.
#[derive(Debug)]
pub struct StoreRecords {
    store: Arc<Store>,
}

impl StoreRecords {
    /// Serves this store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

#[tonic::async_trait]
impl StoreService for StoreRecords {
    #[allow(clippy::disallowed_methods)] // The age of files is counted by the system's clock.
    async fn collect_objects(
        &self,
        request: Request<CollectObjectsRequest>,
    ) -> Result<Response<CollectObjectsResponse>, Status> {
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
        let store = self.store.clone();
        let collected = super::blocking(move || {
            store
                .collect(Grace { before }, dry_run)
                .map_err(IntoStatus::into_status)
        })
        .await?;
        if !dry_run {
            tracing::info!(
                objects = collected.removed,
                bytes = collected.removed_bytes,
                uploads = collected.partial,
                "objects collected"
            );
        }
        Ok(Response::new(response(collected)))
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
