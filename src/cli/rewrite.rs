//! `palimpsest edit PROMPT`: rewrite facts, each computed and measured before a branch takes it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::connection::{Connection, Need};
use super::layer::{self, Choice, Chooser, Layer};
use super::trace::parse_dtype;
use super::{follow, model, revert, stats, version};
use crate::client::Client;
use crate::config::{ClientConfig, EditConfig};
use crate::proto::v1::{self, EditProbeKind, job::Spec, unit_result::Outcome};
use crate::requests::{self, Rewrite};

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
    pub(super) common: super::refs::Common,
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

/// The gates that settings ask for.
pub fn gates(settings: &EditConfig) -> v1::EditGates {
    v1::EditGates {
        efficacy: settings.min_efficacy,
        neighbour_drift: settings.max_drift,
        norm: settings.max_norm,
        norm_warning: settings.warn_norm,
    }
}

fn rewrites(args: &Args) -> anyhow::Result<Vec<Rewrite>> {
    if let Some(file) = &args.file {
        return Ok(requests::read(file)?);
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

/// The contexts of a file; none without one.
pub fn contexts(file: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let Some(path) = file else {
        return Ok(Vec::new());
    };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(str::to_owned)
        .collect();
    if lines.is_empty() {
        bail!(
            "{} has no contexts: {{}} alone is the bare sentence",
            path.display()
        );
    }
    Ok(lines)
}

async fn edit_all(
    client: &Client,
    args: &Args,
    rewrites: Vec<Rewrite>,
    mut contexts: Vec<String>,
) -> anyhow::Result<ExitCode> {
    let model = model::choose(client, args.common.model.as_deref()).await?;
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
                    eprintln!("{}: the edit is computed again", status.message());
                    attempts -= 1;
                }
                Err(status) if status.code() == Code::Aborted => {
                    let hint = "nothing was changed; --rebase computes the edit again on what is there now";
                    return Err(anyhow::Error::from(status).context(hint));
                }
                Err(status) => return Err(status.into()),
            }
        };
        print(
            &mut std::io::stdout().lock(),
            &result,
            made.as_ref(),
            args.json,
        )?;
        match made {
            Some(made) if made.version.is_some() => {
                let edit = made.edit.unwrap_or_default();
                // The next edits use the same texts: drawing them costs more than an edit's step.
                contexts = edit.contexts;
                eprintln!("edit {}", version::brief(&edit.name));
                if !args.json {
                    revert::say(&made.version.unwrap_or_default(), &args.reference);
                }
            }
            Some(made) => {
                all_taken = false;
                let edit = made.edit.unwrap_or_default();
                eprintln!(
                    "edit {} is rejected, {} stays where it was:",
                    version::brief(&edit.name),
                    args.reference
                );
                for gate in &edit.failed_gates {
                    eprintln!("  {gate}");
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
        version: version::name(model, &args.reference),
        model: model.to_owned(),
        spec: Some(Spec::Edit(spec)),
        display_name: rewrite.subject.chars().take(60).collect(),
        // Someone waits for it.
        priority: 1,
        ..Default::default()
    };
    let name = match follow::submit(client, job.clone()).await {
        Err(status) if args.auto_stats => {
            let (layer, tokens) = wanted_statistics(&status).ok_or(status)?;
            eprintln!(
                "collecting key statistics of layer {layer} over {tokens} tokens drawn from the model"
            );
            stats::self_sample(client, model, layer, tokens).await?;
            follow::submit(client, job).await?
        }
        submitted => submitted?,
    };
    let name = follow::attend(client, name).await?.name;
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

/// The layer and the tokens of the statistics whose absence a status tells.
pub fn wanted_statistics(status: &Status) -> Option<(u32, u64)> {
    let info = status.get_details_error_info()?;
    let number = |key: &str| info.metadata.get(key)?.parse::<u64>().ok();
    (info.reason == "STATISTICS_MISSING").then_some(())?;
    Some((number("layer")? as u32, number("tokens")?))
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

/// Prints what an edit did.
pub fn print(
    out: &mut impl Write,
    result: &v1::UnitResult,
    made: Option<&v1::CreateEditResponse>,
    as_json: bool,
) -> anyhow::Result<()> {
    let outcome = match &result.outcome {
        Some(Outcome::Edit(outcome)) => outcome,
        Some(Outcome::Failure(failure)) => {
            eprintln!("edit {}: {}", result.unit + 1, failure.message);
            return Ok(());
        }
        _ => return Ok(()),
    };
    let edit = outcome.edit.clone().unwrap_or_default();
    let request = edit.requests.first().cloned().unwrap_or_default();
    if as_json {
        let figures: serde_json::Map<_, _> = edit
            .figures
            .iter()
            .map(|f| (f.key.clone(), json!(f.value)))
            .collect();
        let probes: Vec<_> = outcome
            .probes
            .iter()
            .map(|p| {
                json!({
                    "kind": kind(p.kind()), "prompt": p.prompt, "new_before": p.new_before, "new_after": p.new_after,
                    "true_before": p.true_before, "true_after": p.true_after,
                })
            })
            .collect();
        let line = json!({
            "subject": request.subject, "target_new": request.target_new, "target_true": request.target_true,
            "id": request.id, "method": edit.method, "accepted": edit.failed_gates.is_empty(),
            "failed_gates": edit.failed_gates, "warnings": edit.warnings, "layer": layer_of(&edit),
            "layer_choice": edit.layer_choice, "edit": made.and_then(|made| Some(made.edit.as_ref()?.name.clone())),
            "version": made.and_then(|made| Some(made.version.as_ref()?.name.clone())), "figures": figures, "probes": probes,
            "losses": outcome.steps.iter().map(|step| step.loss).collect::<Vec<_>>(),
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let arrow = |before: f64, after: f64| format!("{before:.3} -> {after:.3}");
    for probe in &outcome.probes {
        write!(
            out,
            "{:<11} {}  {} {}",
            kind(probe.kind()),
            probe.prompt,
            request.target_new.trim(),
            arrow(probe.new_before, probe.new_after)
        )?;
        if let (Some(target), Some(before), Some(after)) =
            (&request.target_true, probe.true_before, probe.true_after)
        {
            write!(out, ", {} {}", target.trim(), arrow(before, after))?;
        }
        writeln!(out)?;
    }
    let figure = |key: &str| edit.figures.iter().find(|f| f.key == key).map(|f| f.value);
    let norm = figure("update_norm").unwrap_or_default();
    let drift = match figure("text.drift") {
        Some(drift) => format!("other text drifts by {drift:.4} nats a token"),
        None => "the drift of other text was not measured: it does not fit the model's context"
            .to_owned(),
    };
    writeln!(
        out,
        "{} at layer {} in {} steps; the change has {norm:.3} of the matrix's norm; {drift}",
        edit.method,
        layer_of(&edit),
        outcome.steps.len(),
    )?;
    for warning in &edit.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

/// The layer that an edit changes.
fn layer_of(edit: &v1::Edit) -> u32 {
    edit.factors.first().map_or(0, |factor| factor.layer)
}

fn kind(kind: EditProbeKind) -> &'static str {
    match kind {
        EditProbeKind::Unspecified => "-",
        EditProbeKind::Rewrite => "rewrite",
        EditProbeKind::Paraphrase => "paraphrase",
        EditProbeKind::Neighbour => "neighbour",
    }
}
