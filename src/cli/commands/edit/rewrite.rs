//! `palimpsest edit PROMPT`: rewrite facts, each computed and measured before a branch takes it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use tonic::{Code, Status};

use crate::cli::change::{self, ChangeArgs};
use crate::cli::connection::{Connection, Need};
use crate::cli::layer::{self, Choice, Chooser, Layer};
use crate::cli::submit::parse_dtype;
use crate::cli::{follow, key_statistics, names, results, submit};
use crate::client::Client;
use crate::config::{ClientConfig, EditConfig};
use crate::datasets::contexts::contexts;
use crate::datasets::edits::{self, Rewrite};
use crate::proto::v1::{self, job::Spec, unit_result::Outcome};

/// How often an edit is computed again because its branch moved meanwhile.
const REBASES: usize = 10;

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
    // Files that cannot be read are said before a store is opened.
    let rewrites = rewrites(&args)?;
    let contexts = contexts(args.contexts.as_deref())?;
    args.min_efficacy = args.min_efficacy.or(settings.min_efficacy);
    args.max_drift = args.max_drift.or(settings.max_drift);
    args.max_norm = args.max_norm.or(settings.max_norm);
    args.warn_norm = args.warn_norm.or(settings.warn_norm);
    Connection::with(config, Need::Work, async |client| {
        edit_all(client, &args, rewrites, contexts).await
    })
    .await
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
    mut contexts: Vec<String>,
) -> anyhow::Result<ExitCode> {
    let model = names::model(client, args.common.model.as_deref()).await?;
    let mut all_taken = true;
    let dtype = parse_dtype(&args.dtype)?;
    let mut chooser = Chooser::new(client, &model, &args.reference, dtype, args.layer);
    for rewrite in rewrites {
        let choice = chooser.layer(&rewrite).await?;
        let mut attempts = if args.rebase { REBASES } else { 0 };
        let (result, made) = loop {
            let result = compute(client, args, &model, &rewrite, &choice, &contexts).await?;
            let Some(Outcome::Edit(outcome)) = &result.outcome else {
                break (result, None);
            };
            let edit = outcome.edit.clone().unwrap_or_default();
            match keep(client, args, &model, edit).await {
                Ok(made) => break (result, Some(made)),
                Err(status) if status.code() == Code::Aborted && attempts > 0 => {
                    say!("{}: the edit is computed again", status.message());
                    attempts -= 1;
                }
                Err(status) if status.code() == Code::Aborted => {
                    let hint = "nothing was changed; --rebase computes the edit again on what is there now";
                    return Err(anyhow::Error::from(status).context(hint));
                }
                Err(status) => return Err(status.into()),
            }
        };
        results::edit::print(&result, made.as_ref(), args.json)?;
        match made {
            Some(made) if made.version.is_some() => {
                let edit = made.edit.unwrap_or_default();
                // The next edits use the same texts: drawing them costs more than an edit's step.
                contexts = edit.contexts;
                say!("edit {}", names::brief(&edit.name));
                if !args.json {
                    change::say(&made.version.unwrap_or_default(), &args.reference)?;
                }
            }
            Some(made) => {
                all_taken = false;
                let edit = made.edit.unwrap_or_default();
                say!(
                    "edit {} is rejected, {} stays where it was:",
                    names::brief(&edit.name),
                    args.reference
                );
                for gate in &edit.failed_gates {
                    say!("  {gate}");
                }
            }
            None => all_taken = false,
        }
    }
    Ok(if all_taken {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Computes and measures an edit on what the branch has now.
async fn compute(
    client: &Client,
    args: &Args,
    model: &str,
    rewrite: &Rewrite,
    choice: &Choice,
    contexts: &[String],
) -> anyhow::Result<v1::UnitResult> {
    let spec = v1::EditSpec {
        tasks: vec![v1::EditTask {
            request: Some(v1::EditRequest {
                prompt: rewrite.prompt.clone(),
                subject: rewrite.subject.clone(),
                target_new: rewrite.target_new.clone(),
                target_true: rewrite.target_true.clone(),
                id: rewrite.id.clone(),
            }),
            paraphrases: rewrite.paraphrases.clone(),
            neighbours: rewrite.neighbours.clone(),
        }],
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
        statistics: None,
    };
    let job = v1::Job {
        version: names::version(model, &args.reference),
        model: model.to_owned(),
        spec: Some(Spec::Edit(spec)),
        display_name: rewrite.subject.chars().take(60).collect(),
        // Someone waits for it.
        priority: 1,
        ..Default::default()
    };
    let request = submit::request(job);
    let job = key_statistics::create_with(client, model, request, args.auto_stats).await?;
    let name = follow::attend(client, job.name).await?.name;
    let list = || async {
        let request = v1::ListResultsRequest {
            parent: name.clone(),
            ..Default::default()
        };
        client.jobs().list_results(request).await
    };
    let results = follow::patiently(list).await?.into_inner().results;
    results
        .into_iter()
        .next()
        .with_context(|| format!("{name} was cancelled"))
}

/// Hands an edit to its branch, or to the history if it was rejected.
async fn keep(
    client: &Client,
    args: &Args,
    model: &str,
    mut edit: v1::Edit,
) -> Result<v1::CreateEditResponse, Status> {
    edit.why = args.common.why.clone().unwrap_or_default();
    let request = v1::CreateEditRequest {
        parent: model.to_owned(),
        edit: Some(edit),
        ref_id: args.reference.clone(),
        etag: String::new(),
    };
    Ok(client.versions().create_edit(request).await?.into_inner())
}
