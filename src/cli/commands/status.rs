//! `palimpsest status`: a coordinator, its workers and its newest jobs.

use std::process::ExitCode;

use serde_json::json;
use tonic::Code;

use crate::auth;
use crate::cli::commands::job;
use crate::cli::connection::{Connection, Need};
use crate::cli::output;
use crate::config::ClientConfig;
use crate::plot::table::{Align, Table};
use crate::proto::v1;
use crate::wire::class_name;

/// Jobs that are shown.
const JOBS: usize = 10;

/// Flags of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object: the coordinator, its workers and its newest jobs
    #[arg(long)]
    json: bool,
}

/// Prints what there is.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let connection = Connection::open(config, Need::Records).await?;
    let client = connection.client();
    let status = match client.status().get_status(v1::GetStatusRequest {}).await {
        Ok(answer) => answer.into_inner().status,
        // A coordinator from before there was this method.
        Err(status) if status.code() == Code::Unimplemented => None,
        Err(status) => return Err(status.into()),
    };
    let workers = client.all_workers().await?;
    let mut jobs = client.all_jobs().await?;
    jobs.truncate(JOBS);
    if args.json {
        let jobs: Vec<_> = jobs.iter().map(job::to_json).collect();
        let workers: Vec<_> = workers.iter().map(worker_json).collect();
        let coordinator = status.as_ref().map(status_json);
        let all = json!({ "coordinator": coordinator, "workers": workers, "jobs": jobs });
        output::json(&all)?;
    } else {
        if let Some(status) = &status {
            print(status)?;
            show!("")?;
        }
        output::print_table(&worker_table(&workers))?;
        show!("")?;
        output::print_table(&job::table(&jobs))?;
    }
    connection.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Numbers with what they count, those that are 0 left out: `2 idle, 1 busy`.
fn list(counts: &[(u64, &str)]) -> String {
    let some: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", output::grouped(*count)))
        .collect();
    match some.is_empty() {
        true => "none".to_owned(),
        false => some.join(", "),
    }
}

fn print(status: &v1::Status) -> Result<(), output::Error> {
    let scheduler = status.scheduler.clone().unwrap_or_default();
    let counts = scheduler.counts.unwrap_or_default();
    let workers = scheduler.workers.unwrap_or_default();
    let store = status.store.clone().unwrap_or_default();
    let caller = status.caller.clone().unwrap_or_default();
    let up = output::duration(status.start_time.as_ref(), status.time.as_ref());
    let asks = match caller.role.as_str() {
        "" => "asks nobody who they are".to_owned(),
        role => format!("{} is {}", caller.principal, auth::described(role)),
    };
    let jobs: Vec<(u64, String)> = scheduler
        .jobs
        .iter()
        .map(|job| {
            (
                job.count,
                output::word(job.state().as_str_name(), "JOB_STATE_"),
            )
        })
        .collect();
    let jobs: Vec<(u64, &str)> = jobs
        .iter()
        .map(|(count, state)| (*count, state.as_str()))
        .collect();
    let failures: u64 = scheduler
        .failures
        .iter()
        .map(|it| u64::from(it.count))
        .sum();
    let lines = [
        (
            "coordinator",
            format!(
                "version {}, protocol {}, up {up}; {asks}",
                status.version, status.protocol
            ),
        ),
        (
            "workers",
            list(&[
                (workers.idle.into(), "idle"),
                (workers.busy.into(), "busy"),
                (workers.draining.into(), "draining"),
                (workers.excluded.into(), "excluded"),
                (workers.away.into(), "away"),
            ]),
        ),
        ("jobs", list(&jobs)),
        (
            "queue",
            format!(
                "{} tasks wait, {} leased, {} in quarantine",
                output::grouped(scheduler.queue_depth),
                output::grouped(counts.tasks_leased),
                output::grouped(counts.tasks_quarantined)
            ),
        ),
        (
            "rates",
            format!(
                "{} steps/s, {:.1} GMAC/s",
                output::grouped(scheduler.steps_per_second.round() as u64),
                scheduler.measured_rate / 1e9
            ),
        ),
        (
            "since start",
            list(&[
                (scheduler.units_committed, "units"),
                (scheduler.tasks_completed, "tasks"),
                (failures, "leases failed"),
                (scheduler.retries, "retries"),
                (scheduler.divergences, "divergences"),
            ]),
        ),
        (
            "store",
            format!(
                "{} of records, {} in {}, {} free; {}, {}, {}; format {}",
                output::bytes(store.record_bytes),
                output::bytes(store.object_bytes),
                output::counted(store.objects, "object", "objects"),
                output::bytes(store.free_bytes),
                output::counted(store.models, "model", "models"),
                output::counted(store.versions, "version", "versions"),
                output::counted(store.audit_entries, "audit entry", "audit entries"),
                store.format
            ),
        ),
        ("not known", store.problem.clone()),
        ("invariants", invariants(status)),
    ];
    for (name, text) in lines.iter().filter(|(_, text)| !text.is_empty()) {
        show!("{name:<12} {text}")?;
    }
    Ok(())
}

fn invariants(status: &v1::Status) -> String {
    let violated: Vec<String> = status
        .invariants
        .iter()
        .filter(|it| it.violations > 0)
        .map(|it| format!("{} VIOLATED {} times", it.invariant, it.violations))
        .collect();
    match violated.is_empty() {
        true => format!("{} checked, none violated", status.invariants.len()),
        false => violated.join(", ") + ": keep the log and report it",
    }
}

fn status_json(status: &v1::Status) -> serde_json::Value {
    let scheduler = status.scheduler.clone().unwrap_or_default();
    let counts = scheduler.counts.unwrap_or_default();
    let workers = scheduler.workers.unwrap_or_default();
    let store = status.store.clone().unwrap_or_default();
    let caller = status.caller.clone().unwrap_or_default();
    let seconds = |time: Option<prost_types::Timestamp>| time.map_or(0, |time| time.seconds);
    let jobs: serde_json::Map<_, _> = scheduler
        .jobs
        .iter()
        .map(|job| {
            (
                output::word(job.state().as_str_name(), "JOB_STATE_"),
                job.count.into(),
            )
        })
        .collect();
    let failures: serde_json::Map<_, _> = scheduler
        .failures
        .iter()
        .map(|it| (class_name(it.failure_class()).to_owned(), it.count.into()))
        .collect();
    let invariants: serde_json::Map<_, _> = status
        .invariants
        .iter()
        .map(|it| (it.invariant.clone(), it.violations.into()))
        .collect();
    json!({
        "version": status.version,
        "protocol": status.protocol,
        "up_seconds": seconds(status.time) - seconds(status.start_time),
        "caller": { "principal": caller.principal, "role": caller.role },
        "workers": {
            "idle": workers.idle,
            "busy": workers.busy,
            "draining": workers.draining,
            "excluded": workers.excluded,
            "away": workers.away,
        },
        "jobs": jobs,
        "tasks": {
            "all": counts.tasks,
            "waiting": counts.tasks_pending - counts.tasks_quarantined,
            "leased": counts.tasks_leased,
            "done": counts.tasks_done,
            "failed": counts.tasks_failed,
            "cancelled": counts.tasks_cancelled,
            "quarantined": counts.tasks_quarantined,
        },
        "queue_depth": scheduler.queue_depth,
        "leases": scheduler.leases,
        "steps_per_second": scheduler.steps_per_second,
        "multiply_adds_per_second": scheduler.measured_rate,
        "since_start": {
            "units": scheduler.units_committed,
            "tasks": scheduler.tasks_completed,
            "multiply_adds": scheduler.multiply_adds,
            "leases": scheduler.leases_given,
            "failures": failures,
            "retries": scheduler.retries,
            "divergences": scheduler.divergences,
        },
        "store": {
            "format": store.format,
            "record_bytes": store.record_bytes,
            "objects": store.objects,
            "object_bytes": store.object_bytes,
            "free_bytes": store.free_bytes,
            "flushes": store.flushes,
            "models": store.models,
            "versions": store.versions,
            "audit_entries": store.audit_entries,
            "problem": store.problem,
        },
        "invariants": invariants,
    })
}

/// A worker as lists of them have it, for programs.
pub fn worker_json(worker: &v1::Worker) -> serde_json::Value {
    let capabilities = worker.capabilities.clone().unwrap_or_default();
    json!({
        "name": worker.name,
        "state": state(worker),
        "device": capabilities.device,
        "threads": capabilities.threads,
        "version": capabilities.version,
        "leases": worker.leases.len(),
        "credits": worker.credits,
        "units": worker.units_committed,
        "multiply_adds_per_second": worker.measured_rate,
    })
}

/// What a worker does, in a word.
fn state(worker: &v1::Worker) -> &'static str {
    match (worker.connected, worker.draining) {
        (false, _) => "away",
        (true, _) if !worker.excluded.is_empty() => "excluded",
        (true, true) => "draining",
        (true, false) if worker.leases.is_empty() => "idle",
        (true, false) => "busy",
    }
}

/// The table of workers.
pub fn worker_table(workers: &[v1::Worker]) -> Table {
    let mut table = Table::new(&[
        ("WORKER", Align::Left),
        ("STATE", Align::Left),
        ("DEVICE", Align::Left),
        ("THREADS", Align::Right),
        ("LEASES", Align::Right),
        ("UNITS", Align::Right),
        ("STEPS/S", Align::Right),
        ("GMAC/S", Align::Right),
        ("VERSION", Align::Left),
    ]);
    for worker in workers {
        let capabilities = worker.capabilities.clone().unwrap_or_default();
        let rate: f64 = worker
            .leases
            .iter()
            .map(|lease| lease.steps_per_second)
            .sum();
        table.row([
            worker.name.trim_start_matches("workers/").to_owned(),
            state(worker).to_owned(),
            capabilities.device,
            capabilities.threads.to_string(),
            format!("{}/{}", worker.leases.len(), worker.credits),
            worker.units_committed.to_string(),
            output::grouped(rate.round() as u64),
            match worker.measured_rate {
                rate if rate > 0.0 => format!("{:.1}", rate / 1e9),
                _ => "-".to_owned(),
            },
            match capabilities.version.as_str() {
                "" => "-".to_owned(),
                version => version.to_owned(),
            },
        ]);
    }
    table
}
