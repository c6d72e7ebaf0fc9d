//! `palimpsest job`: look at jobs, follow and cancel them, read their results.

use std::process::ExitCode;

use crate::cli::connection::{Connection, Need};
use crate::cli::follow::{self, exit_code, say_held, state};
use crate::cli::receipt_file::ReceiptFile;
use crate::cli::results::{self, Format};
use crate::cli::signals::asked_to_stop;
use crate::cli::{names, output};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::plot::table::{Align, Table};
use crate::proto::v1;
use crate::{wire, work};

/// Subcommands of `job`. A job is named by its identifier, by an unambiguous end of it, or as
/// `latest`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the jobs, the newest first
    List {
        #[command(flatten)]
        wanted: Wanted,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a job, its tasks, and why they wait
    Show {
        /// The job
        job: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Follow a job until it has ended
    Watch {
        /// The job
        job: String,
    },
    /// Cancel a job; committed results stay
    Cancel {
        /// The job
        job: String,
    },
    /// Give the tasks in quarantine, on which several workers were lost, another round
    Requeue {
        /// The job
        job: String,
    },
    /// Read the results of a job
    Results {
        /// The job
        job: String,
        #[command(flatten)]
        format: Format,
    },
    /// Print a receipt of a job that has ended, as one JSON object: what it was asked and what it
    /// came to, signed. 'palimpsest verify-receipt' checks it without the coordinator
    Receipt {
        /// The job
        job: String,
        /// With the results themselves, which the receipt can then be held against
        #[arg(long)]
        with_results: bool,
    },
}

/// Which jobs are listed.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// Those in this state: queued, running, held, succeeded, failed or cancelled; may be repeated
    #[arg(long, value_parser = parse_state)]
    state: Vec<v1::JobState>,
    /// Those of this kind: trace, generate, stats, edit, eval or mass_edit
    #[arg(long, value_parser = parse_kind)]
    kind: Option<v1::JobKind>,
    /// Those of this owner
    #[arg(long)]
    owner: Option<String>,
    /// Those on this model
    #[arg(long)]
    model: Option<String>,
    /// Those with this text in their display name, or at the end of their own
    #[arg(long)]
    text: Option<String>,
}

fn parse_state(text: &str) -> Result<v1::JobState, String> {
    let name = format!("JOB_STATE_{}", text.to_uppercase());
    let known = v1::JobState::from_str_name(&name);
    let known = known.filter(|&it| it != v1::JobState::Unspecified);
    known.ok_or_else(|| {
        format!("{text:?} is no state: use queued, running, held, succeeded, failed or cancelled")
    })
}

fn parse_kind(text: &str) -> Result<v1::JobKind, String> {
    let name = format!("JOB_KIND_{}", text.to_uppercase());
    let known = v1::JobKind::from_str_name(&name);
    let known = known.filter(|&it| it != v1::JobKind::Unspecified);
    known.ok_or_else(|| format!("{text:?} is no kind: use {}", work::WORDS.join(", ")))
}

/// A model's resource name, of what users call it.
fn named(model: String) -> String {
    format!("models/{}", model.trim_start_matches("models/"))
}

/// Runs a subcommand.
pub async fn run(command: Command, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let need = match &command {
        Command::Watch { .. } => Need::Work,
        _ => Need::Records,
    };
    let connection = Connection::open(config, need).await?;
    let client = connection.client().clone();
    let done = match command {
        Command::List { wanted, json } => list(&client, wanted, json)
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::Show { job, json, .. } => {
            (show(&client, &job, json).await).map(|()| ExitCode::SUCCESS)
        }
        Command::Watch { job, .. } => connection.wait(watch(&client, &job)).await,
        Command::Cancel { job, .. } => cancel(&client, &job).await.map(|()| ExitCode::SUCCESS),
        Command::Requeue { job, .. } => requeue(&client, &job).await.map(|()| ExitCode::SUCCESS),
        Command::Receipt { job, with_results } => receipt(&client, &job, with_results)
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::Results { job, format, .. } => read(&client, &job, &format)
            .await
            .map(|()| ExitCode::SUCCESS),
    };
    drop(client);
    connection.close().await;
    done
}

/// Prints a receipt that was held against the key that it came with.
async fn receipt(client: &Client, asked: &str, with_results: bool) -> anyhow::Result<()> {
    let name = names::job(client, asked).await?;
    let file = ReceiptFile::fetch(client, &name, with_results).await?;
    output::json(&file.to_json())?;
    Ok(())
}

/// The table of jobs.
pub fn table(jobs: &[v1::Job]) -> Table {
    let mut table = Table::new(&[
        ("JOB", Align::Left),
        ("WHAT", Align::Left),
        ("STATE", Align::Left),
        ("DONE", Align::Right),
        ("FAILED", Align::Right),
        ("CREATED", Align::Left),
        ("TOOK", Align::Right),
    ]);
    for job in jobs {
        let counts = job.counts.unwrap_or_default();
        table.row([
            job.name.trim_start_matches("jobs/").to_owned(),
            what(job),
            state(job),
            format!("{}/{}", counts.units_done, counts.units),
            counts.units_failed.to_string(),
            output::time(job.create_time.as_ref()),
            output::duration(job.start_time.as_ref(), job.end_time.as_ref()),
        ]);
    }
    table
}

fn what(job: &v1::Job) -> String {
    let kind = work::of(job).map_or("-", |work| work.word());
    if job.display_name.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}: {}", job.display_name)
    }
}

async fn list(client: &Client, wanted: Wanted, json: bool) -> anyhow::Result<()> {
    let filters = v1::ListJobsRequest {
        states: wanted.state.iter().map(|&state| state as i32).collect(),
        owner: wanted.owner.unwrap_or_default(),
        model: wanted.model.map(named).unwrap_or_default(),
        kind: wanted.kind.unwrap_or_default() as i32,
        text: wanted.text.unwrap_or_default(),
        ..Default::default()
    };
    let jobs = client.jobs_like(&filters).await?;
    if !json {
        return Ok(output::print_table(&table(&jobs))?);
    }
    for job in &jobs {
        output::json(&to_json(job))?;
    }
    Ok(())
}

/// A job as lists of it have it, for programs.
pub fn to_json(job: &v1::Job) -> serde_json::Value {
    let counts = job.counts.unwrap_or_default();
    serde_json::json!({
        "name": job.name, "model": job.model, "what": what(job), "state": state(job),
        "units": counts.units, "units_done": counts.units_done, "units_failed": counts.units_failed,
        "units_cached": counts.units_cached,
        "tasks": counts.tasks, "create_time": output::time(job.create_time.as_ref()),
    })
}

fn stage_json(stage: &v1::JobStage) -> serde_json::Value {
    serde_json::json!({
        "stage": stage.stage, "title": stage.title, "units": stage.units,
        "units_done": stage.units_done, "units_failed": stage.units_failed,
        "units_cached": stage.units_cached,
    })
}

fn task_json(task: &v1::Task) -> serde_json::Value {
    serde_json::json!({
        "name": task.name, "state": output::word(task.state().as_str_name(), "TASK_STATE_"),
        "stage": task.stage, "first_unit": task.first_unit, "units": task.unit_count,
        "units_done": task.units_done, "worker": task.worker, "last_failure": task.last_failure,
    })
}

async fn show(client: &Client, asked: &str, json: bool) -> anyhow::Result<()> {
    let name = names::job(client, asked).await?;
    let request = v1::GetJobRequest { name: name.clone() };
    let job = client
        .jobs()
        .get_job(request)
        .await?
        .into_inner()
        .job
        .unwrap_or_default();
    let request = v1::ExplainJobRequest { name: name.clone() };
    let reasons = client
        .jobs()
        .explain_job(request)
        .await?
        .into_inner()
        .reasons;
    let request = v1::ListTasksRequest {
        parent: name,
        page_size: 1000,
        ..Default::default()
    };
    let page = client.jobs().list_tasks(request).await?.into_inner();
    if json {
        let mut all = to_json(&job);
        all["owner"] = job.owner.into();
        all["reasons"] = reasons.into();
        all["stages"] = job.stages.iter().map(stage_json).collect();
        all["tasks_shown"] = page.tasks.iter().map(task_json).collect();
        return Ok(output::json(&all)?);
    }
    let counts = job.counts.unwrap_or_default();
    show!("job      {}", job.name.trim_start_matches("jobs/"))?;
    show!("what     {}", what(&job))?;
    show!("model    {}", job.model.trim_start_matches("models/"))?;
    show!("owner    {}", job.owner)?;
    if let Some(trace) = work::spec::<v1::TraceSpec>(&job) {
        let paths = trace.paths.as_ref().and_then(wire::paths);
        let paths = paths.map_or(String::new(), |paths| format!(", heads {paths}"));
        let compat = match trace.compat() {
            v1::Compat::PaperCode => ", severed as the published code",
            v1::Compat::None | v1::Compat::Unspecified => "",
        };
        show!(
            "asked    {} facts, noise {}, {} samples, seed {}, window {}{compat}{paths}",
            trace.fact_count,
            trace.noise,
            trace.samples,
            trace.seed(),
            trace.window
        )?;
        if let Some(corpus) = &trace.noise_corpus {
            show!("corpus   {}", corpus.digest)?;
        }
    }
    if let Some(eval) = work::spec::<v1::EvalSpec>(&job) {
        let each = match &eval.edit_each {
            Some(each) => format!(", each edited alone by {}", each.method),
            None => String::new(),
        };
        show!("asked    {} records{each}", eval.record_count)?;
        show!("version  {}", job.version)?;
        if !eval.against.is_empty() {
            show!("against  {}", eval.against)?;
        }
    }
    show!("state    {}", state(&job))?;
    show!(
        "{:8} {} of {} done, {} failed, {} answered from the store",
        follow::unit_word(&job),
        counts.units_done,
        counts.units,
        counts.units_failed,
        counts.units_cached
    )?;
    for stage in job.stages.iter().filter(|it| it.units_cached > 0) {
        show!(
            "         {}: {} of {} answered from the store",
            stage.title,
            stage.units_cached,
            stage.units
        )?;
    }
    show!(
        "tasks    {} waiting, {} in quarantine, {} leased, {} done, {} failed, {} cancelled",
        counts.tasks_pending - counts.tasks_quarantined,
        counts.tasks_quarantined,
        counts.tasks_leased,
        counts.tasks_done,
        counts.tasks_failed,
        counts.tasks_cancelled
    )?;
    show!("created  {}", output::time(job.create_time.as_ref()))?;
    show!(
        "took     {}",
        output::duration(job.start_time.as_ref(), job.end_time.as_ref())
    )?;
    for reason in reasons {
        show!("         {reason}")?;
    }
    show!("")?;
    let mut tasks = Table::new(&[
        ("TASK", Align::Right),
        ("STATE", Align::Left),
        ("UNITS", Align::Right),
        ("EPOCH", Align::Right),
        ("WORKER", Align::Left),
        ("FAILURES", Align::Left),
    ]);
    for task in &page.tasks {
        let failures: Vec<String> = task
            .failures
            .iter()
            .map(|f| {
                format!(
                    "{} {}",
                    f.count,
                    output::word(f.failure_class().as_str_name(), "FAILURE_CLASS_")
                )
            })
            .collect();
        tasks.row([
            task.name.rsplit('/').next().unwrap_or_default().to_owned(),
            output::word(task.state().as_str_name(), "TASK_STATE_"),
            format!("{}/{}", task.units_done, task.unit_count),
            task.epoch.to_string(),
            holders(task),
            failures.join(", "),
        ]);
    }
    output::print_table(&tasks)?;
    if !page.next_page_token.is_empty() {
        show!("… and more")?;
    }
    Ok(())
}

/// The worker that holds a task, or both.
fn holders(task: &v1::Task) -> String {
    let both = [&task.worker, &task.second_worker];
    let names = both.map(|name| name.trim_start_matches("workers/"));
    let names = names.into_iter().filter(|name| !name.is_empty());
    names.collect::<Vec<_>>().join(" and ")
}

async fn watch(client: &Client, asked: &str) -> anyhow::Result<ExitCode> {
    let name = names::job(client, asked).await?;
    let job = tokio::select! {
        job = follow::follow(client, &name) => job?,
        () = asked_to_stop() => return Ok(ExitCode::from(130)),
    };
    show!("{} {}", job.name, state(&job))?;
    say_held(&job);
    Ok(exit_code(&job))
}

async fn cancel(client: &Client, asked: &str) -> anyhow::Result<()> {
    let name = names::job(client, asked).await?;
    let job = client
        .jobs()
        .cancel_job(v1::CancelJobRequest { name })
        .await?
        .into_inner()
        .job;
    let job = job.unwrap_or_default();
    show!("{} {}", job.name, state(&job))?;
    Ok(())
}

async fn requeue(client: &Client, asked: &str) -> anyhow::Result<()> {
    let name = names::job(client, asked).await?;
    let answer = client
        .jobs()
        .requeue_quarantined(v1::RequeueQuarantinedRequest { name })
        .await?
        .into_inner();
    let job = answer.job.unwrap_or_default();
    let tasks = answer.tasks_requeued;
    show!("{} {}, {tasks} tasks requeued", job.name, state(&job))?;
    Ok(())
}

async fn read(client: &Client, asked: &str, format: &Format) -> anyhow::Result<()> {
    let name = names::job(client, asked).await?;
    results::present(client, &name, format).await.map(|_| ())
}
