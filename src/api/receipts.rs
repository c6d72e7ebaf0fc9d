//! Receipts of jobs: made here of what the store has, and signed by the audit log's key.

use prost::Message as _;
use tonic::Status;
use uuid::Uuid;

use super::leaves::{hashes, leaf};
use super::results::RESULT_BYTES;
use super::status::{Reason, data_loss, failed_precondition, invalid_argument, not_found};
use super::{models, pages};
use crate::audit::merkle::{self, Frontier};
use crate::audit::{self, leaf_hash};
use crate::coordinator::{Coordinator, is_terminal};
use crate::objects::Digest;
use crate::proto::v1;
use crate::store::Store;
use crate::wire;
use crate::wire::names;
use crate::work;

/// A receipt of a job.
///
/// # Errors
/// A job that there is not, that has not ended, or that edits; a log or a store that is damaged.
pub(super) async fn make(coordinator: &Coordinator, name: &str) -> Result<v1::Receipt, Status> {
    let id = names::parse_job(name).ok_or_else(|| not_found(name))?;
    let job = coordinator
        .inspect_job(id, move |core| core.full_job(id))
        .await?
        .ok_or_else(|| not_found(name))?;
    if work::of(&job).is_some_and(|work| work.landing().is_some())
        || matches!(job.spec, Some(v1::job::Spec::Edit(_)))
    {
        let what = format!(
            "'{name}' edits: what it made is named by digests, and 'palimpsest audit prove' proves the entry of it"
        );
        return Err(invalid_argument("name", what));
    }
    if !is_terminal(job.state()) {
        let what = format!("{name} has not ended: a receipt is of all that a job came to");
        return Err(failed_precondition(Reason::JobNotDone, what));
    }
    let checkpoint = coordinator.audit_checkpoint().await?;
    let (store, size) = (coordinator.store().clone(), checkpoint.size);
    let of = job.clone();
    let made = super::blocking(move || made(&store, id, of, size)).await?;
    let (note, verifier_key) = coordinator.sign(made.receipt).await?;
    Ok(v1::Receipt {
        note,
        verifier_key,
        asked: made.asked,
        entry: Some(made.entry),
        path: made.path.into_iter().map(Vec::from).collect(),
        checkpoint: Some(checkpoint),
    })
}

/// A receipt that is not signed yet, with what belongs to it.
struct Made {
    receipt: audit::Receipt,
    asked: Vec<u8>,
    entry: v1::AuditLeaf,
    path: Vec<merkle::Hash>,
}

/// The receipt of a job whose entry is among the first `size` of the log.
fn made(store: &Store, id: Uuid, job: v1::Job, size: u64) -> Result<Made, Status> {
    let state = job.state().as_str_name().trim_start_matches("JOB_STATE_");
    let state = state.to_lowercase();
    let model = store.model(models::model_id(&job.model)?)?;
    let units = job.counts.unwrap_or_default().units;
    let (results, computed) = results(store, id, units)?;
    let entry = created(store, &job.name, size)?;
    let place = entry.entry.as_ref().map_or(0, |entry| entry.sequence);
    let asked = v1::Job {
        model: job.model,
        version: job.version,
        spec: job.spec,
        ..Default::default()
    };
    let bytes = asked.encode_to_vec();
    Ok(Made {
        receipt: audit::Receipt {
            job: job.name,
            state,
            model: asked.model,
            files: model.unwrap_or_default().digest,
            version: asked.version,
            asked: Digest::of(&bytes).to_string(),
            results: results.size(),
            root: results.root(),
            computed,
            entry: place,
            leaf: leaf_hash(&entry),
        },
        path: merkle::inclusion(&hashes(store, size)?, place as usize - 1),
        asked: bytes,
        entry,
    })
}

/// The tree over the results of a job, and what computed how many of them.
fn results(store: &Store, id: Uuid, units: u64) -> Result<(Frontier, Vec<(u64, String)>), Status> {
    let mut tree = Frontier::default();
    let mut computed: Vec<(u64, String)> = Vec::new();
    let mut next = 0;
    while next < units {
        let found = store.results(id, next, pages::LARGEST_SIZE as usize, RESULT_BYTES)?;
        if found.is_empty() {
            break;
        }
        for (unit, record, bytes) in found {
            next = unit + 1;
            // Units that only prepare results have the numbers after those that are.
            if unit >= units {
                break;
            }
            // As a list has it, whatever program wrote it.
            let result = v1::UnitResult::decode(bytes.as_slice()).map_err(|e| data_loss(&e))?;
            tree.push(merkle::leaf(&result.encode_to_vec()));
            if let Some(fingerprint) = &record.fingerprint {
                let words = wire::describe(fingerprint);
                match computed.iter_mut().find(|(_, known)| *known == words) {
                    Some((count, _)) => *count += 1,
                    None => computed.push((1, words)),
                }
            }
        }
    }
    Ok((tree, computed))
}

/// The entry of the log that says that a job was created.
fn created(store: &Store, job: &str, size: u64) -> Result<v1::AuditLeaf, Status> {
    for (place, bytes) in store.audit_entries(0).take(size as usize) {
        let found = leaf(place, bytes?)?;
        let entry = found.entry.as_ref();
        if entry.is_some_and(|it| it.resource == job && it.action == audit::CREATED) {
            return Ok(found);
        }
    }
    Err(not_found(format!("the entry of {job} in the audit log")))
}
