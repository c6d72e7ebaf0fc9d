//! `palimpsest edit PROMPT`: rewrite facts, each computed and measured before a branch takes it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::cli::change::{self, ChangeArgs};
use crate::cli::connection::{Connection, Need};
use crate::cli::layer::{self, Choice, Chooser, Layer};
use crate::cli::submit::parse_dtype;
use crate::cli::{follow, key_statistics, names, results, submit};
use crate::client::{Client, pages};
use crate::config::{ClientConfig, EditConfig};
use crate::datasets::contexts::contexts;
use crate::datasets::edits::{self, Rewrite};
use crate::proto::v1::{self, unit_result::Outcome};

/// Flags of `edit`.
#[derive(Debug, clap::Args)]
#[group(id = "rewrite")]
pub struct Args {
    /// The sentence up to its answer, with {} for the subject: "{} is located in the city of"
    #[arg(requires = "subject", requires = "target", conflicts_with = "file")]
    prompt: Option<String>,
    /// What the fact is about
    #[arg(long)]
    subject: Option<String>,
    /// The answer that the model is to give
    #[arg(long)]
    target: Option<String>,
    /// The answer that is true
    #[arg(long = "true", value_name = "TARGET")]
    true_target: Option<String>,
    /// A file of facts, one edit each, in order: CounterFact's full or flat form, or zsRE's
    #[arg(long)]
    file: Option<PathBuf>,
    /// The branch that takes the edit
    #[arg(long = "ref", value_name = "REF", default_value = "main")]
    reference: String,
    /// r-rome, rome or ft-l
    #[arg(long, default_value = "r-rome")]
    method: String,
    /// The layer, from 0; family: the one at which models of the family are edited, by what was published; or auto:
    /// where the newest sweep over at least ten facts that the model knows locates them or, without one, a trace of the
    /// fact itself, which is run first
    #[arg(long, default_value = "family", value_parser = layer::parse)]
    layer: Layer,
    /// Another number than the family's: steps, learning_rate, clamp, weight_decay, kl_factor, stop_loss, ridge, bound
    #[arg(long = "set", value_name = "NAME=NUMBER", value_parser = parse_number)]
    numbers: Vec<v1::NamedNumber>,
    /// Texts to average the key over, one a line, each with {} for the sentence; drawn from the model otherwise
    #[arg(long, value_name = "FILE")]
    contexts: Option<PathBuf>,
    /// Seed of the texts that are drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Collect key statistics from text drawn from the model, if there are none
    #[arg(long)]
    auto_stats: bool,
    /// The key statistics to compute with, by their name; those of the most tokens otherwise
    #[arg(long, value_name = "NAME")]
    statistics: Option<String>,
    /// A prompt that says the same in other words, and should follow
    #[arg(long, value_name = "PROMPT")]
    paraphrase: Vec<String>,
    /// A prompt about something else, which should stay as it is
    #[arg(long, value_name = "PROMPT")]
    neighbour: Vec<String>,
    /// Reject the edit if the new answer's probability exceeds the true one's by less
    #[arg(long, value_name = "MARGIN", allow_negative_numbers = true)]
    min_efficacy: Option<f64>,
    /// Reject the edit if what follows the neighbours drifts by more, in nats
    #[arg(long, value_name = "NATS")]
    max_drift: Option<f64>,
    /// Reject the edit if it has more of the matrix's norm
    #[arg(long, value_name = "PART")]
    max_norm: Option<f64>,
    /// Warn if it has more of the matrix's norm; 0.5 where no setting says otherwise
    #[arg(long, value_name = "PART")]
    warn_norm: Option<f64>,
    /// Compute the edit again if its branch moved meanwhile
    #[arg(long)]
    rebase: bool,
    /// f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Submit and print the job's name, without following it: the coordinator ends it with its versions
    #[arg(long)]
    detach: bool,
    /// One JSON object an edit
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    common: ChangeArgs,
}

/// A number of an edit as a flag has it: `steps=30`.
pub fn parse_number(text: &str) -> Result<v1::NamedNumber, String> {
    let parsed = text
        .split_once('=')
        .and_then(|(key, value)| Some((key.to_owned(), value.parse().ok()?)));
    let (key, value) = parsed.ok_or("give NAME=NUMBER, such as steps=30")?;
    Ok(v1::NamedNumber { key, value })
}

/// Edits, one after the other.
pub async fn run(
    mut args: Args,
    config: &ClientConfig,
    settings: &EditConfig,
) -> anyhow::Result<ExitCode> {
    submit::check_detach(args.detach, config)?;
    // Files that cannot be read are said before a store is opened.
    let rewrites = rewrites(&args)?;
    let contexts = contexts(args.contexts.as_deref())?;
    if args.max_drift.is_some() {
        check_neighbours(&rewrites)?;
    }
    args.min_efficacy = args.min_efficacy.or(settings.min_efficacy);
    args.max_drift = args.max_drift.or(settings.max_drift);
    args.max_norm = args.max_norm.or(settings.max_norm);
    args.warn_norm = args.warn_norm.or(settings.warn_norm);
    Connection::with(config, Need::Work, async |client| {
        edit_all(client, &args, rewrites, contexts).await
    })
    .await
}

/// A gate on the drift of neighbours holds only where there are some.
fn check_neighbours(rewrites: &[Rewrite]) -> anyhow::Result<()> {
    let without = rewrites.iter().position(|it| it.neighbours.is_empty());
    if let Some(n) = without {
        bail!(
            "--max-drift: nothing is measured by it, for edit {} ({:?}) has no neighbours: give --neighbour PROMPT, or \
             the file's field of neighbouring prompts",
            n + 1,
            rewrites[n].subject
        );
    }
    Ok(())
}

fn rewrites(args: &Args) -> anyhow::Result<Vec<Rewrite>> {
    if let Some(file) = &args.file {
        return Ok(edits::read(file)?);
    }
    let whole = args
        .prompt
        .clone()
        .zip(args.subject.clone())
        .zip(args.target.clone());
    let ((prompt, subject), target_new) = whole.context(
        "say what to edit: palimpsest edit \"{} is in the city of\" --subject \"The Eiffel Tower\" --target Rome, or --file FILE",
    )?;
    Ok(vec![Rewrite {
        prompt,
        subject,
        target_new,
        target_true: args.true_target.clone(),
        id: None,
        paraphrases: args.paraphrase.clone(),
        neighbours: args.neighbour.clone(),
    }])
}

async fn edit_all(
    client: &Client,
    args: &Args,
    rewrites: Vec<Rewrite>,
    contexts: Vec<String>,
) -> anyhow::Result<ExitCode> {
    let model = names::model(client, args.common.model.as_deref()).await?;
    let mut all_taken = true;
    for (choice, rewrites) in by_layer(client, args, &model, rewrites).await? {
        let job = job(args, &model, &rewrites, &choice, &contexts)?;
        let request = submit::request(job);
        let job = key_statistics::create_with(client, &model, request, args.auto_stats).await?;
        if args.detach {
            show!("{}", job.name)?;
            continue;
        }
        let ended = follow::attend(client, job.name).await?;
        all_taken &= show(client, args, &ended).await?;
    }
    Ok(if all_taken {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The facts in order, those that follow each other at the same layer together: they are one job.
async fn by_layer(
    client: &Client,
    args: &Args,
    model: &str,
    rewrites: Vec<Rewrite>,
) -> anyhow::Result<Vec<(Choice, Vec<Rewrite>)>> {
    let dtype = parse_dtype(&args.dtype)?;
    let mut chooser = Chooser::new(client, model, &args.reference, dtype, args.layer);
    let mut jobs: Vec<(Choice, Vec<Rewrite>)> = Vec::new();
    for rewrite in rewrites {
        let choice = chooser.layer(&rewrite).await?;
        match jobs.last_mut() {
            Some((same, rewrites)) if *same == choice => rewrites.push(rewrite),
            _ => jobs.push((choice, vec![rewrite])),
        }
    }
    Ok(jobs)
}

/// A job that computes edits one after the other, and ends each with its version.
fn job(
    args: &Args,
    model: &str,
    rewrites: &[Rewrite],
    choice: &Choice,
    contexts: &[String],
) -> anyhow::Result<v1::Job> {
    let task = |rewrite: &Rewrite| v1::EditTask {
        request: Some(v1::EditRequest {
            prompt: rewrite.prompt.clone(),
            subject: rewrite.subject.clone(),
            target_new: rewrite.target_new.clone(),
            target_true: rewrite.target_true.clone(),
            id: rewrite.id.clone(),
        }),
        paraphrases: rewrite.paraphrases.clone(),
        neighbours: rewrite.neighbours.clone(),
    };
    let spec = v1::EditSpec {
        tasks: rewrites.iter().map(task).collect(),
        method: args.method.clone(),
        layer: choice.layer,
        layer_choice: choice.reason.clone(),
        parameters: args.numbers.clone(),
        contexts: contexts.to_vec(),
        seed: args.seed,
        gates: Some(v1::EditGates {
            efficacy: args.min_efficacy,
            neighbour_drift: args.max_drift,
            norm: args.max_norm,
            norm_warning: args.warn_norm,
        }),
        dtype: parse_dtype(&args.dtype)? as i32,
        ref_id: args.reference.clone(),
        rebase: args.rebase,
        why: args.common.why.clone().unwrap_or_default(),
        keep_going: true,
        statistics_name: args.statistics.clone().unwrap_or_default(),
        ..Default::default()
    };
    let first = rewrites.first().map_or("", |rewrite| &rewrite.subject);
    Ok(v1::Job {
        version: names::version(model, &args.reference),
        model: model.to_owned(),
        spec: Some(spec.into()),
        display_name: first.chars().take(60).collect(),
        priority: submit::ATTENDED,
        ..Default::default()
    })
}

/// Shows what a job came to, edit by edit. Gives whether the branch took all of them.
async fn show(client: &Client, args: &Args, job: &v1::Job) -> anyhow::Result<bool> {
    let page = |token: String| {
        let name = &job.name;
        follow::patiently(move || client.page_of_results(name, token.clone()))
    };
    let results = pages::all(page).await?;
    anyhow::ensure!(!results.is_empty(), "{} was cancelled", job.name);
    let mut all_taken = true;
    for result in &results {
        results::edit::print(result, args.json)?;
        let Some(Outcome::Edit(outcome)) = &result.outcome else {
            all_taken = false;
            continue;
        };
        let edit = outcome.edit.clone().unwrap_or_default();
        let brief = names::brief(&edit.name);
        if outcome.version.is_empty() {
            all_taken = false;
            let branch = &args.reference;
            say!("edit {brief} is rejected, {branch} stays where it was:");
            for gate in &edit.failed_gates {
                say!("  {gate}");
            }
            continue;
        }
        say!("edit {brief}");
        if !args.json {
            let request = v1::GetVersionRequest {
                name: outcome.version.clone(),
            };
            let version = client.versions().get_version(request).await?.into_inner();
            change::say(&version.version.unwrap_or_default(), &args.reference)?;
        }
    }
    Ok(all_taken)
}
