//! The results of a job: page by page, and the averages over those of a sweep.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use prost::Message;
use tokio::sync::Mutex;
use tonic::Status;
use uuid::Uuid;

use super::status::{data_loss, invalid_argument};
use super::{models, pages};
use crate::causal::{Averages, Metric};
use crate::coordinator;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{
    EditGates, Fingerprint, FingerprintCount, GetSweepSummaryRequest, GetSweepSummaryResponse,
    Grid, Job, Kind, KindAverages, ListResultsRequest, ListResultsResponse, ResultView, TraceSpec,
    UnitResult,
};
use crate::store::{ResultRecord, Store};
use crate::wire::{self, SweptGrid, names};
use crate::work;

/// Most bytes of results that are read at a time.
pub(super) const RESULT_BYTES: usize = 3 << 20;
/// Most bytes that are read for one page, of which a filter may pass none.
const READ_BYTES: usize = 32 << 20;
/// Summaries that are remembered.
const SUMMARIES: usize = 32;

/// What passes the filters of a list.
struct Filter {
    kind: Option<Kind>,
    relation: Option<String>,
    correct: Option<bool>,
    failures_only: bool,
}

impl Filter {
    fn of(request: &ListResultsRequest) -> Result<Self, Status> {
        let filter = Self {
            kind: known_kind("kind", request.kind)?,
            relation: request.relation.clone(),
            correct: request.correct,
            failures_only: request.failures_only,
        };
        if filter.failures_only && filter.passes_grids_only() {
            let what = "'kind', 'relation' and 'correct' pass grids, which are no failures: leave \
                        them out, or this one";
            return Err(invalid_argument("failures_only", what));
        }
        Ok(filter)
    }

    fn passes_grids_only(&self) -> bool {
        self.kind.is_some() || self.relation.is_some() || self.correct.is_some()
    }

    fn passes(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Grid(grid) => {
                !self.failures_only
                    && self.kind.is_none_or(|kind| grid.kind() == kind)
                    && self.relation.as_deref().is_none_or(|it| is_of(grid, it))
                    && (self.correct).is_none_or(|correct| grid.correct_prediction == correct)
            }
            Outcome::Failure(_) => !self.passes_grids_only(),
            _ => !self.failures_only && !self.passes_grids_only(),
        }
    }
}

/// A kind that a request names; none where it names none.
fn known_kind(field: &str, kind: i32) -> Result<Option<Kind>, Status> {
    match Kind::try_from(kind) {
        Ok(Kind::Unspecified) => Ok(None),
        Ok(kind) => Ok(Some(kind)),
        Err(_) => {
            let names: Vec<&str> = wire::KINDS.iter().map(Kind::as_str_name).collect();
            let what = format!("{kind} is no kind of grid: use one of {}", names.join(", "));
            Err(invalid_argument(field, what))
        }
    }
}

/// Whether a grid is of a fact of this relation; a fact without one has an empty one.
fn is_of(grid: &Grid, relation: &str) -> bool {
    let fact = grid.fact.as_ref();
    fact.and_then(|fact| fact.relation.as_deref()).unwrap_or("") == relation
}

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
    let after: Option<u64> = pages::number("results", &request.page_token)?;
    let filter = Filter::of(&request)?;
    let view = ResultView::try_from(request.view).map_err(|_| {
        let what = format!(
            "{} is no view: use RESULT_VIEW_FULL or RESULT_VIEW_PEAKS",
            request.view
        );
        invalid_argument("view", what)
    })?;
    let units = job.counts.unwrap_or_default().units;
    let model = models::model_id(&job.model)?.to_owned();
    let gates = work::of_mut(&mut job).and_then(|work| *work.asked_gates()?);
    let gates = gates.unwrap_or_default();
    let mut page = pages::Page::new(size);
    super::blocking(move || {
        let mut answer = ListResultsResponse::default();
        let mut next = after.unwrap_or(request.first_unit);
        let mut read = 0;
        // A filter may pass few: more is read until the page is full, or so much was read.
        while next < units && read < READ_BYTES {
            let found = store.results(id, next, size, RESULT_BYTES)?;
            if found.is_empty() {
                return Ok(answer);
            }
            for (unit, record, bytes) in found {
                // Units that only prepare results have the numbers after those that are.
                if unit >= units {
                    return Ok(answer);
                }
                read += bytes.len();
                let mut result = UnitResult::decode(bytes.as_slice()).map_err(|e| data_loss(&e))?;
                if result.outcome.as_ref().is_some_and(|it| filter.passes(it)) {
                    as_kept(&store, &model, &gates, &mut result, &record)?;
                    if view == ResultView::Peaks {
                        in_short(&mut result)?;
                    }
                    if !page.takes(result.encoded_len()) {
                        answer.next_page_token = pages::token("results", &unit.to_string());
                        return Ok(answer);
                    }
                    answer.results.push(result);
                    count(&mut answer.fingerprints, record.fingerprint);
                }
                next = unit + 1;
            }
        }
        if next < units {
            answer.next_page_token = pages::token("results", &next.to_string());
        }
        Ok(answer)
    })
    .await
}

/// Counts a result as one of what computed it; of what the coordinator itself ended nobody did.
fn count(counts: &mut Vec<FingerprintCount>, fingerprint: Option<Fingerprint>) {
    if fingerprint.is_none() {
        return;
    }
    match counts.iter_mut().find(|it| it.fingerprint == fingerprint) {
        Some(count) => count.results += 1,
        None => counts.push(FingerprintCount {
            fingerprint,
            results: 1,
        }),
    }
}

/// A grid by its peak.
fn in_short(result: &mut UnitResult) -> Result<(), Status> {
    if let Some(Outcome::Grid(grid)) = &mut result.outcome {
        let swept = SweptGrid::try_from(&*grid).map_err(|e| data_loss(&e))?;
        grid.peak = wire::peak(&swept.grid);
        grid.scores.clear();
        grid.readings.clear();
        grid.verified.clear();
        grid.neurons.clear();
        if let Some(other) = &mut grid.corrupted {
            other.tokens.clear();
        }
        grid.token_ids.clear();
        grid.tokens.clear();
    }
    Ok(())
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

/// The summaries of sweeps, with the last ones that were asked for. One is made at a time: each
/// reads all results of a job.
#[derive(Debug, Default)]
pub(super) struct Summaries {
    known: Mutex<VecDeque<Known>>,
}

/// A summary, and what it was of.
#[derive(Debug)]
struct Known {
    request: Vec<u8>,
    answer: GetSweepSummaryResponse,
}

impl Summaries {
    /// The averages over the grids that a job has so far.
    ///
    /// # Errors
    /// A job that is no sweep, a kind that there is not; a store that cannot be read.
    pub async fn of(
        &self,
        store: Arc<Store>,
        job: Job,
        request: GetSweepSummaryRequest,
    ) -> Result<GetSweepSummaryResponse, Status> {
        let Some(spec) = work::spec::<TraceSpec>(&job) else {
            let what = format!(
                "{} is no sweep, and has no averages: name a tracing job",
                job.name
            );
            return Err(invalid_argument("name", what));
        };
        let metrics = wire::shown(spec);
        let mut kinds = Vec::new();
        for &kind in &request.kinds {
            kinds.extend(known_kind("kinds", kind)?);
        }
        if request.by_relation && request.relation.is_some() {
            let what = "the facts are of one relation then: leave it out, or 'by_relation'";
            return Err(invalid_argument("relation", what));
        }
        let bytes = request.encode_to_vec();
        let mut known = self.known.lock().await;
        let last_sequence = job.last_sequence;
        let found = known
            .iter()
            .find(|it| it.request == bytes && it.answer.last_sequence == last_sequence);
        if let Some(found) = found {
            return Ok(found.answer.clone());
        }
        let id = names::parse_job(&job.name).unwrap_or_default();
        let units = job.counts.unwrap_or_default().units;
        let answer = super::blocking(move || {
            let mut answer = averages(&store, id, units, (&kinds, &metrics), &request)?;
            answer.last_sequence = last_sequence;
            Ok(answer)
        })
        .await?;
        known.push_front(Known {
            request: bytes,
            answer: answer.clone(),
        });
        known.truncate(SUMMARIES);
        Ok(answer)
    }
}

/// The averages of one kind and relation: of the facts that were traced, and how many were not.
#[derive(Default)]
struct Gathered {
    averages: Option<Averages>,
    wrong: u64,
}

fn averages(
    store: &Store,
    job: Uuid,
    units: u64,
    (kinds, metrics): (&[Kind], &[Metric]),
    request: &GetSweepSummaryRequest,
) -> Result<GetSweepSummaryResponse, Status> {
    let mut all: BTreeMap<(i32, Option<String>, usize), Gathered> = BTreeMap::new();
    let (mut next, mut looked_at) = (0, 0);
    while next < units {
        let found = store.results(job, next, pages::LARGEST_SIZE as usize, RESULT_BYTES)?;
        if found.is_empty() {
            break;
        }
        for (unit, _, bytes) in found {
            next = unit + 1;
            let result = UnitResult::decode(bytes.as_slice()).map_err(|e| data_loss(&e))?;
            let Some(Outcome::Grid(grid)) = result.outcome else {
                continue;
            };
            let wanted = kinds.is_empty() || kinds.contains(&grid.kind());
            if !wanted || !(request.relation.as_deref()).is_none_or(|it| is_of(&grid, it)) {
                continue;
            }
            looked_at += 1;
            let swept = SweptGrid::try_from(&grid).map_err(|e| data_loss(&e))?.grid;
            let relation = match request.by_relation {
                true => Some(swept.fact.relation.clone().unwrap_or_default()),
                false => request.relation.clone(),
            };
            for (n, &metric) in metrics.iter().enumerate() {
                let key = (grid.kind, relation.clone(), n);
                let gathered = all.entry(key).or_default();
                // What was not traced has no layers, with which averages begin.
                if !swept.traced() {
                    gathered.wrong += 1;
                    continue;
                }
                let Some(swept) = swept.in_metric(metric) else {
                    continue;
                };
                match &mut gathered.averages {
                    Some(averages) => averages.add(&swept).map_err(|e| data_loss(&e))?,
                    none => *none = Averages::over([&swept]).map_err(|e| data_loss(&e))?,
                }
            }
        }
    }
    let sent = |((kind, relation, n), gathered): ((i32, Option<String>, usize), Gathered)| {
        let wrong = gathered.wrong;
        match gathered.averages {
            Some(averages) => KindAverages {
                wrong,
                ..wire::averages_to_proto(&averages, relation)
            },
            None => KindAverages {
                kind,
                relation,
                wrong,
                metric: wire::metric_to_proto(metrics[n]) as i32,
                ..Default::default()
            },
        }
    };
    Ok(GetSweepSummaryResponse {
        averages: all.into_iter().map(sent).collect(),
        units: looked_at,
        last_sequence: 0,
    })
}
