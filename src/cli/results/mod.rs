//! The results of a job: fetched, and given in the form that was asked for.

mod batches;
mod beside;
mod drawn;
pub mod edit;
mod error;
mod evaluation;
mod generate;
mod mass_check;
pub mod mass_edit;
mod mass_without;
mod stats;
mod trace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use drawn::{make, write};
pub use error::Error;
pub use evaluation::{Evaluation, Known, Line, Written, mean_json};
pub use trace::{ENOUGH, Results, Sites};

use anyhow::bail;
use clap::Args;

use super::connection::Connection;
use super::follow::{self, patiently, state};
use super::receipt_file::ReceiptFile;
use super::{names, output};
use crate::client::{Client, pages};
use crate::coordinator::is_terminal;
use crate::objects::Digest;
use crate::plot::terminal_width;
use crate::proto::v1;
use crate::work;

/// How results are given.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Results")]
pub struct Format {
    /// One JSON object a line, for every fact and kind; of averages for every kind
    #[arg(long)]
    pub json: bool,
    /// Give the averages over facts alone, without the single facts; of a mass edit a row a batch
    #[arg(long)]
    pub averages: bool,
    /// Give the averages of each relation
    #[arg(long)]
    pub by_relation: bool,
    /// Draw heat maps and curves as SVG into this folder; of a mass edit what its batches did
    #[arg(long, value_name = "FOLDER")]
    pub svg: Option<PathBuf>,
    /// Write NumPy .npz files into this folder
    #[arg(long, value_name = "FOLDER")]
    pub npz: Option<PathBuf>,
}

impl Format {
    /// Whether an evaluation can be given so.
    ///
    /// # Errors
    /// What it has nothing of.
    pub fn check_evaluation(&self) -> anyhow::Result<()> {
        if self.svg.is_some() || self.npz.is_some() || self.by_relation {
            bail!(
                "an evaluation has no figures, arrays or relations: --json and --averages are for it"
            );
        }
        Ok(())
    }
}

/// Follows a job to its end, presents its results, and says what is unusual about them. Its receipt
/// goes into a file, where one is wanted.
pub async fn follow(
    client: &Client,
    job: &v1::Job,
    connection: &Connection,
    format: &Format,
    receipt: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let ended = follow::to_end(client, &job.name, connection.is_embedded()).await?;
    let Some(job) = ended else {
        return Ok(ExitCode::from(130));
    };
    let job = present(client, &job.name, format).await?;
    let counts = job.counts.unwrap_or_default();
    if counts.units_cached > 0 {
        say!(
            "{} of {} {} were answered from the store; --no-cache computes them afresh",
            counts.units_cached,
            counts.units,
            follow::unit_word(&job)
        );
    }
    follow::say_held(&job);
    if job.state() != v1::JobState::Succeeded {
        say!(
            "{} {}: 'palimpsest job show' says why",
            job.name,
            state(&job)
        );
    }
    ReceiptFile::save(client, &job.name, receipt).await?;
    Ok(follow::exit_code(&job))
}

/// Reads the results of a job, gives them in the form that was asked for, and says how the job
/// stands.
pub async fn present(client: &Client, name: &str, format: &Format) -> anyhow::Result<v1::Job> {
    let mut job = job(client, name).await?;
    fetch_parts(client, &mut job).await?;
    let is_sweep = work::spec::<v1::TraceSpec>(&job).is_some();
    let over_facts = format.averages || format.by_relation;
    // The server averages: the grids themselves stay there where nobody asks for single facts.
    let view = match is_sweep && over_facts && format.npz.is_none() {
        true => v1::ResultView::Peaks,
        false => v1::ResultView::Full,
    };
    let found = read(client, &job.name, view).await?;
    if work::spec::<v1::GenerateSpec>(&job).is_some() {
        generate::print(&found, format.json)?;
        return Ok(job);
    }
    if work::spec::<v1::EditSpec>(&job).is_some() {
        for result in &found {
            edit::print(result, format.json)?;
        }
        return Ok(job);
    }
    if work::spec::<v1::MassEditSpec>(&job).is_some() {
        let batches = batches::Batches::of(&found);
        if let Some(folder) = &format.svg {
            let files = batches.svg(folder)?;
            say!("{} figures in {}", files.len(), folder.display());
        }
        let table = batches.count() > 1 && !format.json;
        if !(table && format.averages) {
            mass_edit::print(&found, format.json)?;
        }
        if table {
            show!("")?;
            batches.print()?;
        }
        return Ok(job);
    }
    if work::spec::<v1::EvalSpec>(&job).is_some() {
        evaluation(client, &job, &found, format).await?;
        return Ok(job);
    }
    if work::spec::<v1::StatsSpec>(&job).is_some() {
        for result in &found {
            stats::print(result)?;
        }
        return Ok(job);
    }
    let averages = averages(client, &job.name, format.by_relation).await?;
    let results = match view {
        v1::ResultView::Peaks => Results::summed(&job, &found, averages)?,
        _ => Results::new(&job, &found)?.with_averages(averages),
    };
    if format.json && !over_facts {
        results.json_lines(&mut output::JsonLines)?;
    }
    let (mut figures, mut arrays, mut out) = (0, 0, Vec::new());
    for results in results.by_metric() {
        if format.json && over_facts {
            results.averages_json(&mut output::JsonLines, format.by_relation)?;
        }
        if let Some(folder) = &format.svg {
            figures += match over_facts {
                true => results.svg_averages(folder)?.len(),
                false => results.svg(folder)?.len(),
            };
            if format.by_relation {
                figures += results.svg_relations(folder)?.len();
            }
        }
        if let Some(folder) = &format.npz {
            arrays += results.npz(folder)?.len();
        }
        if !format.json {
            let (width, colour) = (terminal_width(), output::colour());
            results.heading(&mut out)?;
            if format.by_relation {
                results.report_relations(&mut out, width, colour)?;
            } else if format.averages {
                results.report_averages(&mut out, width, colour)?;
            } else {
                results.report(&mut out, width, colour)?;
            }
        }
    }
    if let Some(folder) = &format.svg {
        say!("{figures} figures in {}", folder.display());
    }
    if let Some(folder) = &format.npz {
        say!("{arrays} arrays in {}", folder.display());
    }
    output::raw(&out)?;
    Ok(job)
}

/// Gives the results of an evaluation in the form that was asked for.
async fn evaluation(
    client: &Client,
    job: &v1::Job,
    found: &[v1::UnitResult],
    format: &Format,
) -> anyhow::Result<()> {
    format.check_evaluation()?;
    let mut labels = std::collections::BTreeMap::new();
    if let Some(eval) = work::spec::<v1::EvalSpec>(job) {
        for name in [&job.version, &eval.against] {
            if !name.is_empty() && !labels.contains_key(name) {
                let number = names::get_version(client, &job.model, name).await?.number;
                labels.insert(name.clone(), format!("v{number}"));
            }
        }
    }
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    let mut written = Written::default();
    let take = |edit: v1::Edit| {
        written.add(&edit);
        true
    };
    client.each_edit(&job.version, take).await?;
    let evaluation = Evaluation::new(job, found, label)?.written_by(written);
    match (format.json, format.averages) {
        (true, true) => evaluation.means_json(&mut output::JsonLines)?,
        (true, false) => evaluation.json_lines(&mut output::JsonLines)?,
        (false, averages) => {
            let mut out = Vec::new();
            evaluation.report(&mut out, !averages, terminal_width(), output::colour())?;
            output::raw(&out)?;
        }
    }
    Ok(())
}

/// A job and its results so far.
pub async fn results(
    client: &Client,
    name: &str,
) -> anyhow::Result<(v1::Job, Vec<v1::UnitResult>)> {
    let mut job = job(client, name).await?;
    fetch_parts(client, &mut job).await?;
    let found = read(client, &job.name, v1::ResultView::Full).await?;
    Ok((job, found))
}

async fn read(
    client: &Client,
    job: &str,
    view: v1::ResultView,
) -> anyhow::Result<Vec<v1::UnitResult>> {
    let page =
        |token: String| patiently(move || client.page_of_results_as(job, view, token.clone()));
    Ok(pages::all(page).await?)
}

/// The averages of a sweep's grids over all facts and, if wanted, over those of each relation.
async fn averages(
    client: &Client,
    job: &str,
    by_relation: bool,
) -> anyhow::Result<Vec<v1::KindAverages>> {
    let mut found = Vec::new();
    for by_relation in [false, true].into_iter().take(1 + usize::from(by_relation)) {
        let ask = || async {
            let request = v1::GetSweepSummaryRequest {
                name: job.to_owned(),
                by_relation,
                ..Default::default()
            };
            client.jobs().get_sweep_summary(request).await
        };
        found.extend(patiently(ask).await?.into_inner().averages);
    }
    Ok(found)
}

/// Where the effects of a job peak, over all its facts or over those of one relation.
pub async fn sites(client: &Client, name: &str, relation: Option<&str>) -> anyhow::Result<Sites> {
    let job = job(client, name).await?;
    if work::spec::<v1::TraceSpec>(&job).is_none() {
        return Err(Error::NotTracing { job: job.name }.into());
    }
    let ask = || async {
        let request = v1::GetSweepSummaryRequest {
            name: job.name.clone(),
            relation: relation.map(str::to_owned),
            ..Default::default()
        };
        client.jobs().get_sweep_summary(request).await
    };
    let summary = patiently(ask).await?.into_inner();
    Ok(Sites::of(&job, relation, &summary)?)
}

/// A job; says so where it still runs.
async fn job(client: &Client, name: &str) -> anyhow::Result<v1::Job> {
    let get = || async {
        let request = v1::GetJobRequest {
            name: name.to_owned(),
        };
        client.jobs().get_job(request).await
    };
    let job = patiently(get).await?.into_inner().job;
    let job = job.unwrap_or_default();
    if !is_terminal(job.state()) {
        say!("the job is {}: these are the results so far", state(&job));
    }
    Ok(job)
}

/// Fetches the facts or records of a job that lie in an object of their own.
async fn fetch_parts(client: &Client, job: &mut v1::Job) -> anyhow::Result<()> {
    let Some(digest) = crate::work::parts_object(job) else {
        return Ok(());
    };
    let digest: Digest = digest.parse()?;
    let read = || async {
        let request = v1::ReadObjectRequest {
            digest: digest.to_string(),
            offset: 0,
        };
        let mut stream = client.objects().read_object(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.message().await? {
            bytes.extend_from_slice(&chunk.data);
        }
        Ok(bytes)
    };
    let bytes = patiently(read).await?;
    if Digest::of(&bytes) != digest {
        bail!("the bytes that came are not those of {digest}: try again");
    }
    let items = work::Items::parse(bytes.into())?;
    if let Some(work) = work::of_mut(job) {
        work.put_parts(&items);
    }
    Ok(())
}
