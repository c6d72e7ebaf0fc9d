//! `AuditService`: reads the audit log.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::leaves::{hashes, leaf};
use super::status::{invalid_argument, not_found};
use super::{pages, receipts};
use crate::audit::{merkle, verify};
use crate::coordinator::Coordinator;
use crate::proto::v1::audit_service_server::AuditService;
use crate::proto::v1::{
    AuditEntry, AuditOutcome, GetAuditCheckpointRequest, GetAuditCheckpointResponse,
    GetReceiptRequest, GetReceiptResponse, ListAuditEntriesRequest, ListAuditEntriesResponse,
    ProveAuditConsistencyRequest, ProveAuditConsistencyResponse, ProveAuditEntryRequest,
    ProveAuditEntryResponse, VerifyAuditLogRequest, VerifyAuditLogResponse,
    WatchAuditEntriesRequest, WatchAuditEntriesResponse,
};
use crate::store::Store;

/// Most entries in one message of a watch.
const LEAVES: usize = 1000;
/// A watch says something at least this often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Serves the audit log of a coordinator.
#[derive(Debug)]
pub struct Audit {
    coordinator: Coordinator,
}

impl Audit {
    /// Serves the audit log of this coordinator.
    pub fn new(coordinator: Coordinator) -> Self {
        Self { coordinator }
    }

    /// Runs what reads the store on a thread that may wait.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self.coordinator.store().clone();
        super::blocking(move || read(&store)).await
    }

    async fn checkpoint(&self) -> Result<crate::proto::v1::AuditCheckpoint, Status> {
        let checkpoint = self.coordinator.audit_checkpoint().await;
        checkpoint.map_err(Status::from)
    }
}

/// What a listing lets through.
struct Filter(ListAuditEntriesRequest);

impl Filter {
    fn passes(&self, entry: &AuditEntry) -> bool {
        let below = |wanted: &str, found: &str, separator: char| {
            wanted.is_empty()
                || found
                    .strip_prefix(wanted)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
        };
        let time = |t: &prost_types::Timestamp| (t.seconds, t.nanos);
        let at = entry.time.as_ref().map(time);
        let wanted = &self.0;
        (wanted.principal.is_empty() || wanted.principal == entry.principal)
            && below(&wanted.action, &entry.action, '.')
            && below(&wanted.resource, &entry.resource, '/')
            && (wanted.outcome() == AuditOutcome::Unspecified
                || wanted.outcome() == entry.outcome())
            && wanted
                .start_time
                .as_ref()
                .is_none_or(|start| at >= Some(time(start)))
            && wanted
                .end_time
                .as_ref()
                .is_none_or(|end| at < Some(time(end)))
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn list_audit_entries(
        &self,
        request: Request<ListAuditEntriesRequest>,
    ) -> Result<Response<ListAuditEntriesResponse>, Status> {
        let request = request.into_inner();
        let size = pages::size(request.page_size)?;
        let (list, begin) = match request.newest_first {
            true => ("audit-back", u64::MAX),
            false => ("audit", 0),
        };
        let at: u64 = match &pages::after(list, &request.page_token)? {
            Some(text) => text
                .parse()
                .map_err(|_| super::status::invalid_page_token(&request.page_token))?,
            None => begin,
        };
        let found = self
            .read(move |store| {
                let entries: Box<dyn Iterator<Item = _>> = match request.newest_first {
                    true => Box::new(store.audit_entries_before(at)),
                    false => Box::new(store.audit_entries(at)),
                };
                let filter = Filter(request);
                let (mut leaves, mut bytes, mut last) = (Vec::new(), 0, at);
                for (place, read) in entries {
                    let found = leaf(place, read?)?;
                    if found
                        .entry
                        .as_ref()
                        .is_some_and(|entry| filter.passes(entry))
                    {
                        bytes += found.encoded_len();
                        if leaves.len() == size || (bytes > pages::BYTES && !leaves.is_empty()) {
                            return Ok((leaves, Some(last)));
                        }
                        leaves.push(found);
                    }
                    last = place;
                }
                Ok((leaves, None))
            })
            .await?;
        let (leaves, more) = found;
        Ok(Response::new(ListAuditEntriesResponse {
            leaves,
            next_page_token: more
                .map_or(String::new(), |last| pages::token(list, &last.to_string())),
        }))
    }

    type WatchAuditEntriesStream =
        Pin<Box<dyn Stream<Item = Result<WatchAuditEntriesResponse, Status>> + Send + 'static>>;

    async fn watch_audit_entries(
        &self,
        request: Request<WatchAuditEntriesRequest>,
    ) -> Result<Response<Self::WatchAuditEntriesStream>, Status> {
        let mut after = request.into_inner().after_sequence;
        let coordinator = self.coordinator.clone();
        let stream = async_stream::try_stream! {
            let mut signal = coordinator.audited();
            loop {
                signal.mark_unchanged();
                let store = coordinator.store().clone();
                let leaves = super::blocking(move || {
                    let (mut leaves, mut bytes) = (Vec::new(), 0);
                    for (place, read) in store.audit_entries(after).take(LEAVES) {
                        let found = leaf(place, read?)?;
                        bytes += found.encoded_len();
                        if bytes > pages::BYTES && !leaves.is_empty() {
                            break;
                        }
                        leaves.push(found);
                    }
                    Ok(leaves)
                })
                .await?;
                let seen = leaves.last().and_then(|last| last.entry.as_ref());
                let behind = seen.is_some();
                after = seen.map_or(after, |entry| entry.sequence);
                yield WatchAuditEntriesResponse { leaves };
                if !behind {
                    match tokio::time::timeout(KEEP_ALIVE, signal.changed()).await {
                        Ok(Err(_)) => Err(super::status::unavailable("the coordinator stopped"))?,
                        Ok(Ok(())) | Err(_) => {}
                    }
                }
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_audit_checkpoint(
        &self,
        _request: Request<GetAuditCheckpointRequest>,
    ) -> Result<Response<GetAuditCheckpointResponse>, Status> {
        Ok(Response::new(GetAuditCheckpointResponse {
            checkpoint: Some(self.checkpoint().await?),
        }))
    }

    async fn prove_audit_entry(
        &self,
        request: Request<ProveAuditEntryRequest>,
    ) -> Result<Response<ProveAuditEntryResponse>, Status> {
        let sequence = request.into_inner().sequence;
        let checkpoint = self.checkpoint().await?;
        if sequence == 0 || sequence > checkpoint.size {
            return Err(not_found(format!("entry {sequence} of the audit log")));
        }
        let size = checkpoint.size;
        let (found, path) = self
            .read(move |store| {
                let hashes = hashes(store, size)?;
                let (place, bytes) = store
                    .audit_entries(sequence - 1)
                    .next()
                    .ok_or_else(|| not_found(format!("entry {sequence} of the audit log")))?;
                let found = leaf(place, bytes?)?;
                Ok((found, merkle::inclusion(&hashes, sequence as usize - 1)))
            })
            .await?;
        Ok(Response::new(ProveAuditEntryResponse {
            leaf: Some(found),
            path: path.into_iter().map(Vec::from).collect(),
            checkpoint: Some(checkpoint),
        }))
    }

    async fn prove_audit_consistency(
        &self,
        request: Request<ProveAuditConsistencyRequest>,
    ) -> Result<Response<ProveAuditConsistencyResponse>, Status> {
        let old = request.into_inner().old_size;
        let checkpoint = self.checkpoint().await?;
        let size = checkpoint.size;
        if old > size {
            let what = format!("{old} is more than the log has, {size} entries");
            return Err(invalid_argument("old_size", what));
        }
        let path = self
            .read(move |store| Ok(merkle::consistency(&hashes(store, size)?, old as usize)))
            .await?;
        Ok(Response::new(ProveAuditConsistencyResponse {
            path: path.into_iter().map(Vec::from).collect(),
            checkpoint: Some(checkpoint),
        }))
    }

    async fn get_receipt(
        &self,
        request: Request<GetReceiptRequest>,
    ) -> Result<Response<GetReceiptResponse>, Status> {
        let name = request.into_inner().name;
        let receipt = receipts::make(&self.coordinator, &name).await?;
        Ok(Response::new(GetReceiptResponse {
            receipt: Some(receipt),
        }))
    }

    async fn verify_audit_log(
        &self,
        _request: Request<VerifyAuditLogRequest>,
    ) -> Result<Response<VerifyAuditLogResponse>, Status> {
        let checkpoint = self.coordinator.audit_checkpoint().await;
        let (checkpoint, damage) = match checkpoint {
            Ok(checkpoint) => (Some(checkpoint), None),
            Err(crate::coordinator::Error::Audit(error)) => (None, Some(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let newest = checkpoint.clone();
        let report = self
            .read(move |store| {
                let size = newest.as_ref().map_or(u64::MAX, |newest| newest.size);
                let entries = store
                    .audit_entries(0)
                    .take_while(|(place, _)| *place <= size)
                    .map(|(place, bytes)| (place, bytes.map_err(|error| error.to_string())));
                Ok(verify(entries, newest.as_ref(), None))
            })
            .await?;
        Ok(Response::new(VerifyAuditLogResponse {
            problems: damage.into_iter().chain(report.problems).collect(),
            entries: report.entries,
            checkpoint,
        }))
    }
}
