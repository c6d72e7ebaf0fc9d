//! Figures of a job as SVG, drawn as the command line draws them: for papers and reports, where the
//! pages' own are for looking at.
//!
//! | address | figure |
//! |---|---|
//! | `/figures/jobs/JOB/averages.svg` | the averages of all kinds over facts |
//! | `/figures/jobs/JOB/units/UNIT.svg` | the heat map of one fact and kind; of heads at single tokens that of the token where the effect is highest |
//!
//! `?metric=NAME` asks for another metric than the first that the job shows, `?relation=NAME` for
//! averages over the facts of one relation alone. What is drawn is read by calls of the contract in
//! the caller's own name, so there is nothing here that those would not give.

use std::convert::Infallible;

use serde::Deserialize;
use tonic::body::Body;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{self, StatusCode, header};
use tonic::{Code, Request, Status};
use tower::Service;

use crate::api::listener::Peer;
use crate::api::server::MESSAGE_LIMIT;
use crate::blocking::blocking;
use crate::causal::{Averages, Metric};
use crate::figures;
use crate::plot;
use crate::proto::v1::job_service_client::JobServiceClient;
use crate::proto::v1::{self, unit_result::Outcome};
use crate::wire::{self, SweptGrid};

/// What the addresses of figures begin with.
pub const FIGURES: &str = "/figures/";

/// A figure that cannot be given, and why.
pub type Refusal = (StatusCode, String);

/// What is drawn of a job.
#[derive(Debug, PartialEq, Eq)]
enum What {
    Averages,
    Unit(u64),
}

/// How it is drawn.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manner {
    metric: Option<String>,
    relation: Option<String>,
}

/// The figure at an address, as SVG, read from these services as whoever asks for it.
///
/// # Errors
/// [`Refusal`], with the status that HTTP has for it.
pub async fn draw<S>(services: S, head: &Parts) -> Result<String, Refusal>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send,
{
    let (job, what) = named(head.uri.path()).ok_or_else(|| {
        let why = "there is no such figure: jobs/JOB/averages.svg and jobs/JOB/units/UNIT.svg are";
        (StatusCode::NOT_FOUND, why.to_owned())
    })?;
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    let query = head.uri.query().unwrap_or_default();
    let manner: Manner = serde_urlencoded::from_str(query).map_err(|error| {
        let why =
            format!("{error}: ?metric=NAME and ?relation=NAME are what a figure is asked with");
        bad(why)
    })?;
    let metric = manner.metric.map(|name| name.parse::<Metric>()).transpose();
    let metric = metric.map_err(|error| bad(error.to_string()))?;
    if manner.relation.is_some() && what != What::Averages {
        return Err(bad("relation is of averages alone: leave it out".to_owned()));
    }
    let mut jobs = JobServiceClient::new(services).max_decoding_message_size(MESSAGE_LIMIT);
    let name = format!("jobs/{job}");
    let request = asked(head, v1::GetJobRequest { name: name.clone() });
    let found = jobs.get_job(request).await.map_err(refusal)?;
    let found = found.into_inner().job.unwrap_or_default();
    let model = found.model.trim_start_matches("models/").to_owned();
    let none = || {
        let why = format!("{name} has nothing to draw there, or not yet");
        (StatusCode::NOT_FOUND, why)
    };
    let drawn = match what {
        What::Averages => {
            let request = v1::GetSweepSummaryRequest {
                name: name.clone(),
                relation: manner.relation.clone(),
                ..Default::default()
            };
            let summary = jobs.get_sweep_summary(asked(head, request)).await;
            let summary = summary.map_err(refusal)?.into_inner();
            let (metric, kinds) = in_one_metric(&summary, metric).ok_or_else(none)?;
            let relation = manner.relation;
            let panels = figures::panels(&model, relation.as_deref(), metric, &kinds);
            blocking(move || panels.to_svg()).await
        }
        What::Unit(unit) => {
            let request = v1::ListResultsRequest {
                parent: name.clone(),
                first_unit: unit,
                page_size: 1,
                ..Default::default()
            };
            let results = jobs.list_results(asked(head, request)).await;
            let mut results = results.map_err(refusal)?.into_inner().results.into_iter();
            let outcome = results.find(|it| it.unit == unit).and_then(|it| it.outcome);
            let Some(Outcome::Grid(sent)) = outcome else {
                return Err(none());
            };
            let grid = SweptGrid::try_from(&sent)
                .map_err(|error| broken(&error))?
                .grid;
            let grid = grid
                .in_metric(metric.unwrap_or(grid.metric))
                .ok_or_else(none)?;
            let map = figures::highest_map(&model, sent.kind(), &grid).ok_or_else(none)?;
            blocking(move || map.to_svg()).await
        }
    };
    let drawn =
        drawn.map_err(|stopping| (StatusCode::SERVICE_UNAVAILABLE, stopping.to_string()))?;
    drawn.map_err(|error: plot::Error| broken(&error))
}

/// The job and the figure that a path names.
fn named(path: &str) -> Option<(&str, What)> {
    let path = path.strip_prefix(FIGURES)?.strip_prefix("jobs/")?;
    let (job, figure) = path.strip_suffix(".svg")?.split_once('/')?;
    let what = match figure.strip_prefix("units/") {
        Some(unit) => What::Unit(unit.parse().ok()?),
        None if figure == "averages" => What::Averages,
        None => return None,
    };
    Some((job, what))
}

/// A call in the name of whoever asks for a figure: what they showed, on the connection on which
/// they came.
fn asked<T>(head: &Parts, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(shown) = head.headers.get(header::AUTHORIZATION)
        && let Ok(shown) = shown.as_bytes().try_into()
    {
        request.metadata_mut().insert("authorization", shown);
    }
    if let Some(peer) = head.extensions.get::<Peer>() {
        request.extensions_mut().insert(peer.clone());
    }
    request
}

/// The averages in a metric: in the first that there is, where none is asked for.
fn in_one_metric(
    summary: &v1::GetSweepSummaryResponse,
    metric: Option<Metric>,
) -> Option<(Metric, Vec<(v1::Kind, Averages)>)> {
    let read = |sent: &v1::KindAverages| Some((sent.kind(), wire::averages(sent)?));
    let all: Vec<_> = summary.averages.iter().filter_map(read).collect();
    let metric = metric.or(all.first().map(|(_, averages)| averages.metric))?;
    let kinds: Vec<_> = all
        .into_iter()
        .filter(|(_, averages)| averages.metric == metric)
        .collect();
    (!kinds.is_empty()).then_some((metric, kinds))
}

/// What a call answered, as HTTP says it.
fn refusal(status: Status) -> Refusal {
    let code = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    (code, status.message().to_owned())
}

/// What was read does not make a figure.
fn broken(error: &dyn std::error::Error) -> Refusal {
    let why = format!("no figure can be drawn of it: {error}");
    (StatusCode::INTERNAL_SERVER_ERROR, why)
}
