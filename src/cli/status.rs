//! `palimpsest status`: the workers and the newest jobs of a coordinator.

use std::io::Write;
use std::process::ExitCode;

use super::connection::{Connection, ConnectionArgs, Need};
use super::{job, output};
use crate::config::ClientConfig;
use crate::plot::table::{Align, Table};
use crate::proto::v1;

/// Jobs that are shown.
const JOBS: usize = 10;

/// Flags of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

/// Prints what there is.
pub async fn run(_args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let connection = Connection::open(config, Need::Records).await?;
    let client = connection.client();
    let request = v1::ListWorkersRequest {
        page_size: 1000,
        ..Default::default()
    };
    let workers = client
        .workers()
        .list_workers(request)
        .await?
        .into_inner()
        .workers;
    let mut jobs = job::all(client).await?;
    jobs.truncate(JOBS);
    let mut out = std::io::stdout().lock();
    let mut table = Table::new(&[
        ("WORKER", Align::Left),
        ("STATE", Align::Left),
        ("DEVICE", Align::Left),
        ("THREADS", Align::Right),
        ("LEASES", Align::Right),
        ("UNITS", Align::Right),
        ("STEPS/S", Align::Right),
    ]);
    for worker in &workers {
        let capabilities = worker.capabilities.clone().unwrap_or_default();
        let state = match (worker.connected, worker.draining) {
            (false, _) => "away",
            (true, true) => "draining",
            (true, false) if worker.leases.is_empty() => "idle",
            (true, false) => "busy",
        };
        let rate: f64 = worker
            .leases
            .iter()
            .map(|lease| lease.steps_per_second)
            .sum();
        table.row([
            worker.name.trim_start_matches("workers/").to_owned(),
            state.to_owned(),
            capabilities.device,
            capabilities.threads.to_string(),
            format!("{}/{}", worker.leases.len(), worker.credits),
            worker.units_committed.to_string(),
            output::grouped(rate.round() as u64),
        ]);
    }
    output::print_table(&mut out, &table)?;
    writeln!(out)?;
    output::print_table(&mut out, &job::table(&jobs))?;
    drop(out);
    connection.close().await;
    Ok(ExitCode::SUCCESS)
}
