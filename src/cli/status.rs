//! `palimpsest status`: the workers and the newest jobs of a coordinator.

use std::io::Write;
use std::process::ExitCode;

use super::connection::{Connection, ConnectionArgs, Need};
use super::{job, output};
use crate::client::Client;
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
    let workers = workers(client).await?;
    let mut jobs = job::all(client).await?;
    jobs.truncate(JOBS);
    let mut out = std::io::stdout().lock();
    output::print_table(&mut out, &worker_table(&workers))?;
    writeln!(out)?;
    output::print_table(&mut out, &job::table(&jobs))?;
    drop(out);
    connection.close().await;
    Ok(ExitCode::SUCCESS)
}

/// All workers, by name.
pub async fn workers(client: &Client) -> anyhow::Result<Vec<v1::Worker>> {
    let mut workers = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListWorkersRequest {
            page_size: 1000,
            page_token,
        };
        let page = client.workers().list_workers(request).await?.into_inner();
        workers.extend(page.workers);
        if page.next_page_token.is_empty() {
            return Ok(workers);
        }
        page_token = page.next_page_token;
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
    ]);
    for worker in workers {
        let capabilities = worker.capabilities.clone().unwrap_or_default();
        let state = match (worker.connected, worker.draining) {
            (false, _) => "away",
            (true, _) if !worker.excluded.is_empty() => "excluded",
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
            match worker.measured_rate {
                rate if rate > 0.0 => format!("{:.1}", rate / 1e9),
                _ => "-".to_owned(),
            },
        ]);
    }
    table
}
