//! `palimpsest edit --file FILE --method memit`: many facts at once.

use std::process::ExitCode;

use anyhow::bail;
use prost::Message as _;

use super::landed;
use super::rewrite::{Args, Asked, gates, stored_questions, stored_texts, task};
use crate::cli::connection::{Connection, Need};
use crate::cli::layer::{Chooser, Layer};
use crate::cli::layers::Edited;
use crate::cli::{follow, key_statistics, names, results, submit};
use crate::client::{Client, pages};
use crate::config::{ClientConfig, EditConfig};
use crate::edit::{Hyperparameters, Method};
use crate::model::Family;
use crate::proto::v1::{self, unit_result::Outcome};
use crate::work;

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
        edit_all(client, &asked, embedded).await
    })
    .await
}

async fn edit_all(client: &Client, asked: &Asked, embedded: bool) -> anyhow::Result<ExitCode> {
    let args = &asked.args;
    let model = names::model(client, args.common.model.as_deref()).await?;
    let job = job(client, asked, &model).await?;
    let request = submit::request_by(args.request_id.as_deref(), job);
    let job = key_statistics::create_with(client, &model, request, args.auto_stats).await?;
    if args.detach {
        show!("{}", job.name)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(job) = follow::to_end(client, &job.name, embedded).await? else {
        return Ok(ExitCode::from(130));
    };
    show(client, &args.reference, args.json, &job).await
}

async fn job(client: &Client, asked: &Asked, model: &str) -> anyhow::Result<v1::Job> {
    let (args, rewrites) = (&asked.args, &asked.rewrites);
    let gate_texts = stored_texts(client, asked.gate_texts.as_deref()).await?;
    let gate_questions = stored_questions(client, asked.gate_questions.as_deref()).await?;
    let (layers, layer_choice) = match &args.layers {
        None => (Vec::new(), String::new()),
        Some(Edited::Given(layers)) => (layers.0.clone(), String::new()),
        Some(Edited::Located) => located(client, args, model).await?,
    };
    let mut spec = v1::MassEditSpec {
        tasks: rewrites.iter().map(task).collect(),
        method: args.method.clone(),
        layers,
        layer_choice,
        keep_going: args.keep_going,
        check_only: args.check,
        statistics_names: key_statistics::full_names(client, model, &args.statistics).await?,
        parameters: args.numbers.clone(),
        contexts: asked.contexts.clone(),
        seed: args.seed,
        gates: Some(gates(args, gate_texts.as_ref())),
        gate_texts,
        gate_questions,
        dtype: submit::parse_dtype(&args.dtype)? as i32,
        ref_id: args.reference.clone(),
        why: args.common.why.clone().unwrap_or_default(),
        batch: args.batch,
        ..Default::default()
    };
    if submit::is_large(&spec) {
        let list = v1::MassEditSpec {
            tasks: std::mem::take(&mut spec.tasks),
            ..Default::default()
        };
        let stored = submit::store(client, &list.encode_to_vec(), "facts").await?;
        spec.tasks_object = stored.to_string();
    }
    Ok(v1::Job {
        version: names::version(model, &args.reference),
        model: model.to_owned(),
        spec: Some(spec.into()),
        display_name: format!("{} facts by {}", rewrites.len(), args.method),
        priority: submit::ATTENDED,
        ..Default::default()
    })
}

/// The layers around the place where facts are: as many as models of the family are edited at.
async fn located(client: &Client, args: &Args, model: &str) -> anyhow::Result<(Vec<u32>, String)> {
    let request = v1::GetModelRequest {
        name: model.to_owned(),
    };
    let found = client.models().get_model(request).await?.into_inner();
    let found = found.model.unwrap_or_default();
    let shape = found.shape.unwrap_or_default();
    let family = Family::ALL
        .into_iter()
        .find(|it| it.model_type() == found.family);
    let usual = Hyperparameters::layers_of(
        args.method.parse()?,
        family.unwrap_or(Family::Llama),
        shape.layers as usize,
        shape.width as usize,
    );
    let dtype = submit::parse_dtype(&args.dtype)?;
    let mut chooser = Chooser::new(client, model, &args.reference, dtype, Layer::Located);
    chooser.range(usual.len() as u32, shape.layers).await
}

/// Says what the job would have been.
fn say_plan(job: &v1::Job) -> anyhow::Result<ExitCode> {
    let Some(spec) = work::spec::<v1::MassEditSpec>(job) else {
        bail!("the coordinator answered with another job: upgrade the older side");
    };
    let layers: Vec<String> = spec.layers.iter().map(u32::to_string).collect();
    show!(
        "{} facts by {} in {} batches at layers {}, {}; nothing was written",
        spec.fact_count,
        spec.method,
        spec.batch_count,
        layers.join(", "),
        spec.layer_choice
    )?;
    Ok(follow::exit_code(job))
}

/// Shows what a job came to. Fails where the branch did not take all of it.
pub async fn show(
    client: &Client,
    branch: &str,
    json: bool,
    job: &v1::Job,
) -> anyhow::Result<ExitCode> {
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
    results::mass_edit::print(&found, json)?;
    let spec = work::spec::<v1::MassEditSpec>(job);
    if spec.is_some_and(|spec| spec.check_only) && !json {
        return say_plan(job);
    }
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
        all_taken &= landed::say(client, outcome, branch, json).await?;
    }
    Ok(match all_taken && job.state() == v1::JobState::Succeeded {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
