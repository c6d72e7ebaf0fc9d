//! The results of a job, page by page.

use std::sync::Arc;

use prost::Message;
use tonic::Status;

use super::status::data_loss;
use super::{models, pages};
use crate::coordinator;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{EditGates, Job, ListResultsRequest, ListResultsResponse, UnitResult};
use crate::store::{ResultRecord, Store};
use crate::wire::names;
use crate::work;

/// Most bytes of results in one page: a message stays under 4 MiB with room to spare.
const RESULT_BYTES: usize = 3 << 20;

/// A page of the results of a job.
///
/// # Errors
/// A page that there cannot be; a store that cannot be read.
pub(super) async fn list(
    store: Arc<Store>,
    mut job: Job,
    request: ListResultsRequest,
) -> Result<ListResultsResponse, Status> {
    let id = names::parse_job(&job.name).unwrap_or_default();
    let size = pages::size(request.page_size)?;
    let from: u64 = pages::number("results", &request.page_token)?.unwrap_or_default();
    let units = job.counts.unwrap_or_default().units;
    let model = models::model_id(&job.model)?.to_owned();
    let gates = work::of_mut(&mut job).and_then(|work| *work.asked_gates()?);
    let gates = gates.unwrap_or_default();
    let (results, next) = super::blocking(move || {
        let mut results = Vec::new();
        let mut next = from;
        for (unit, record, bytes) in store.results(id, from, size, RESULT_BYTES)? {
            next = unit + 1;
            // Units that only prepare results have the numbers after those that are.
            if unit < units {
                let mut result = UnitResult::decode(bytes.as_slice()).map_err(|e| data_loss(&e))?;
                as_kept(&store, &model, &gates, &mut result, &record)?;
                results.push(result);
            }
        }
        Ok((results, next))
    })
    .await?;
    let next_page_token = if next == from || next >= units {
        String::new()
    } else {
        pages::token("results", &next.to_string())
    };
    Ok(ListResultsResponse {
        results,
        next_page_token,
    })
}

/// An edit as it is kept, with its name, where its job made a version of it; and as its job's gates
/// judge it in any case, whatever the worker found.
fn as_kept(
    store: &Store,
    model: &str,
    gates: &EditGates,
    result: &mut UnitResult,
    record: &ResultRecord,
) -> Result<(), Status> {
    let Some(Outcome::Edit(outcome)) = &mut result.outcome else {
        return Ok(());
    };
    let computed = outcome.edit.take().unwrap_or_default();
    let kept = match &record.landed {
        Some(landed) => {
            outcome.version.clone_from(&landed.version);
            store.edit(model, &landed.edit)?
        }
        None => None,
    };
    outcome.edit = kept.or_else(|| Some(coordinator::judged(computed, gates)));
    Ok(())
}
