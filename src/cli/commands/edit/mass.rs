//! `palimpsest edit --file FILE --method memit`: many facts at once.

use std::process::ExitCode;

use anyhow::bail;

use super::landed;
use super::rewrite::{Args, Asked, gates, task};
use crate::cli::connection::{Connection, Need};
use crate::cli::layer::Layer;
use crate::cli::{follow, key_statistics, names, results, submit};
use crate::client::{Client, pages};
use crate::config::{ClientConfig, EditConfig};
use crate::datasets::edits::Rewrite;
use crate::edit::Method;
use crate::proto::v1::{self, unit_result::Outcome};

/// Whether a method writes many facts at once.
pub fn is_mass(method: &str) -> bool {
    method.parse().is_ok_and(Method::is_mass)
}

/// What the flags of these methods cannot be joined with.
///
/// # Errors
/// What to leave out.
fn check(args: &Args) -> anyhow::Result<()> {
    let method = &args.method;
    if args.layer != Layer::Family {
        bail!("--layer is for one layer: {method} edits several, give --layers 4-8");
    }
    if args.rebase {
        bail!(
            "--rebase: {method} computes its targets on the version that the branch had; leave it out, and start the job \
             again if the branch moved"
        );
    }
    if args.statistics.is_some() {
        bail!(
            "--statistics names those of one layer: {method} takes those of the most tokens of each of its layers"
        );
    }
    Ok(())
}

/// Edits facts in batches, and shows what came of it.
pub async fn run(
    args: Args,
    config: &ClientConfig,
    settings: &EditConfig,
) -> anyhow::Result<ExitCode> {
    check(&args)?;
    let asked = Asked::new(args, config, settings)?;
    let embedded = config.server.is_none();
    Connection::with(config, Need::Work, async |client| {
        edit_all(
            client,
            &asked.args,
            &asked.rewrites,
            asked.contexts,
            embedded,
        )
        .await
    })
    .await
}

async fn edit_all(
    client: &Client,
    args: &Args,
    rewrites: &[Rewrite],
    contexts: Vec<String>,
    embedded: bool,
) -> anyhow::Result<ExitCode> {
    let model = names::model(client, args.common.model.as_deref()).await?;
    let job = job(args, &model, rewrites, contexts)?;
    let mut request = submit::request(job);
    if args.check {
        request.validate_only = true;
        let checked = submit::create(client, request).await?;
        return show_plan(&checked);
    }
    let job = key_statistics::create_with(client, &model, request, args.auto_stats).await?;
    if args.detach {
        show!("{}", job.name)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(job) = follow::to_end(client, &job.name, embedded).await? else {
        return Ok(ExitCode::from(130));
    };
    show(client, args, &job).await
}

fn job(
    args: &Args,
    model: &str,
    rewrites: &[Rewrite],
    contexts: Vec<String>,
) -> anyhow::Result<v1::Job> {
    let spec = v1::MassEditSpec {
        tasks: rewrites.iter().map(task).collect(),
        method: args.method.clone(),
        layers: args
            .layers
            .clone()
            .map(|layers| layers.0)
            .unwrap_or_default(),
        parameters: args.numbers.clone(),
        contexts,
        seed: args.seed,
        gates: Some(gates(args)),
        dtype: submit::parse_dtype(&args.dtype)? as i32,
        ref_id: args.reference.clone(),
        why: args.common.why.clone().unwrap_or_default(),
        batch: args.batch,
        ..Default::default()
    };
    Ok(v1::Job {
        version: names::version(model, &args.reference),
        model: model.to_owned(),
        spec: Some(spec.into()),
        display_name: format!("{} facts by {}", rewrites.len(), args.method),
        priority: submit::ATTENDED,
        ..Default::default()
    })
}

/// Says what a job would do.
fn show_plan(job: &v1::Job) -> anyhow::Result<ExitCode> {
    let Some(v1::job::Spec::MassEdit(spec)) = &job.spec else {
        bail!("the coordinator answered with another job: upgrade the older side");
    };
    let shared = spec.fact_count.saturating_sub(spec.group_count);
    show!(
        "{} facts by {} in {} batches at layers {}, {}",
        spec.fact_count,
        spec.method,
        spec.batch_count,
        names_of(&spec.layers),
        spec.layer_choice
    )?;
    if shared > 0 {
        show!(
            "{} keys: {shared} facts share theirs with another of the same text up to the subject's end, and its target",
            spec.group_count
        )?;
    }
    show!("nothing was found that keeps them from being written")?;
    Ok(ExitCode::SUCCESS)
}

fn names_of(layers: &[u32]) -> String {
    let names: Vec<String> = layers.iter().map(u32::to_string).collect();
    names.join(", ")
}

/// Shows what a job came to. Fails where the branch did not take all of it.
async fn show(client: &Client, args: &Args, job: &v1::Job) -> anyhow::Result<ExitCode> {
    let page = |token: String| {
        let name = &job.name;
        follow::patiently(move || client.page_of_results(name, token.clone()))
    };
    let found = pages::all(page).await?;
    anyhow::ensure!(
        !found.is_empty(),
        "{} came to nothing: 'palimpsest job show' says why",
        job.name
    );
    results::mass_edit::print(&found, args.json)?;
    let mut all_taken = true;
    for result in &found {
        let outcome = match &result.outcome {
            Some(Outcome::Edit(outcome)) => outcome,
            Some(Outcome::Failure(_)) => {
                all_taken = false;
                continue;
            }
            _ => continue,
        };
        all_taken &= landed::say(client, outcome, &args.reference, args.json).await?;
    }
    Ok(match all_taken && job.state() == v1::JobState::Succeeded {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
