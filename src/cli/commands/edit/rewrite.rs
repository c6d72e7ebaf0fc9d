//! `palimpsest edit PROMPT`: rewrite facts, each computed and measured before a branch takes it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::landed;
use crate::cli::change::ChangeArgs;
use crate::cli::connection::{Connection, Need};
use crate::cli::layer::{self, Choice, Chooser, Layer};
use crate::cli::layers::{self, Edited};
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
    pub(super) prompt: Option<String>,
    /// What the fact is about
    #[arg(long)]
    pub(super) subject: Option<String>,
    /// The answer that the model is to give
    #[arg(long)]
    pub(super) target: Option<String>,
    /// The answer that is true
    #[arg(long = "true", value_name = "TARGET")]
    pub(super) true_target: Option<String>,
    /// A file of facts, one edit each, in order: CounterFact's full or flat form, or zsRE's
    #[arg(long)]
    pub(super) file: Option<PathBuf>,
    /// The branch that takes the edit
    #[arg(long = "ref", value_name = "REF", default_value = "main")]
    pub(super) reference: String,
    /// r-rome, rome or ft-l, a fact at a time; memit, alphaedit, emmet or encore, all facts of a
    /// batch at once
    #[arg(long, default_value = "r-rome")]
    pub(super) method: String,
    /// The layer, from 0; family: the one at which models of the family are edited, by what was
    /// published; or auto: where the newest sweep over at least ten facts that the model knows
    /// locates them or, without one, a trace of the fact itself, which is run first
    #[arg(long, default_value = "family", value_parser = layer::parse)]
    pub(super) layer: Layer,
    /// The layers of a method for many facts, such as 4-8 or 3,5,6; or auto: as many as are usual,
    /// around the one where the newest sweep over at least ten facts that the model knows locates
    /// them, up to the last that the sweep cannot tell from it; those of the family otherwise
    #[arg(long, value_parser = layers::parse_edited)]
    pub(super) layers: Option<Edited>,
    /// Facts that a method for many facts writes at once, each batch on the version of the one
    /// before; all in one otherwise
    #[arg(long, value_name = "N")]
    pub(super) batch: Option<u32>,
    /// Only say what a method for many facts would come to: how far each fact is moved, which keys
    /// collide, which earlier edits are overwritten
    #[arg(long)]
    pub(super) check: bool,
    /// Leave out a fact that a method for many facts cannot write, instead of failing with it
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Another number than the family's: steps, learning_rate, clamp, weight_decay, kl_factor,
    /// stop_loss, ridge, bound; of methods for many facts also lambda, l2, threshold, rank, energy,
    /// mu, statistics_weight, eta, early_stop
    #[arg(long = "set", value_name = "NAME=NUMBER", value_parser = parse_number)]
    pub(super) numbers: Vec<v1::NamedNumber>,
    /// Texts to average the key over, one a line, each with {} for the sentence; drawn from the
    /// model otherwise
    #[arg(long, value_name = "FILE")]
    pub(super) contexts: Option<PathBuf>,
    /// Seed of the texts that are drawn
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Collect key statistics from text drawn from the model, if there are none
    #[arg(long)]
    pub(super) auto_stats: bool,
    /// The key statistics to compute with, by their name; those of the most tokens otherwise. For
    /// several layers once a layer, or once for all of the same text
    #[arg(long, value_name = "NAME")]
    pub(super) statistics: Vec<String>,
    /// A prompt that says the same in other words, and should follow
    #[arg(long, value_name = "PROMPT")]
    pub(super) paraphrase: Vec<String>,
    /// A prompt about something else, which should stay as it is
    #[arg(long, value_name = "PROMPT")]
    pub(super) neighbour: Vec<String>,
    /// Reject the edit if the new answer's probability exceeds the true one's by less
    #[arg(long, value_name = "MARGIN", allow_negative_numbers = true)]
    pub(super) min_efficacy: Option<f64>,
    /// Reject the edit if what follows the neighbours drifts by more, in nats
    #[arg(long, value_name = "NATS")]
    pub(super) max_drift: Option<f64>,
    /// Reject the edit if it has more of the matrix's norm
    #[arg(long, value_name = "PART")]
    pub(super) max_norm: Option<f64>,
    /// Warn if it has more of the matrix's norm; 0.5 where no setting says otherwise
    #[arg(long, value_name = "PART")]
    pub(super) warn_norm: Option<f64>,
    /// Reject the edit if the perplexity of texts after it is more than so many times what it was
    /// before: 1.02 allows two hundredths more. Of the texts of --gate-texts; without them of the
    /// coordinator's own
    #[arg(long, value_name = "RATIO")]
    pub(super) max_ppl_ratio: Option<f64>,
    /// Texts whose perplexity is measured before and after: a JSON list, or one a line
    #[arg(long, value_name = "FILE")]
    pub(super) gate_texts: Option<PathBuf>,
    /// Reject the edit if the true answer stays the likelier one after a smaller share of the
    /// neighbours after which it was before: 0 to 1
    #[arg(long, value_name = "SHARE")]
    pub(super) min_locality: Option<f64>,
    /// Reject the edit if the share of questions that are answered rightly is smaller after it by
    /// more, in one of the tasks: 0.02 allows two in a hundred. Of the questions of
    /// --gate-questions
    #[arg(long, value_name = "SHARE", requires = "gate_questions")]
    pub(super) max_downstream_drop: Option<f64>,
    /// Questions that are asked before and after: tasks that the edit has nothing to do with, as
    /// 'palimpsest eval --downstream' reads them; once a file
    #[arg(long, value_name = "FILE")]
    pub(super) gate_questions: Vec<PathBuf>,
    /// Take at most N questions of each file of --gate-questions; 1,000 are the most in all
    #[arg(long, value_name = "N", requires = "gate_questions",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) gate_limit: Option<u64>,
    /// Show so many solved questions of the file before each of its others
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        requires = "gate_questions"
    )]
    pub(super) gate_shots: usize,
    /// Compute the edit again if its branch moved meanwhile
    #[arg(long)]
    pub(super) rebase: bool,
    /// f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    pub(super) dtype: String,
    /// The request's own name: asked again by the same name, the job that there is is followed, and
    /// nothing is written twice. Where facts get layers of their own, which makes several jobs,
    /// those after the first add -2, -3 and so on to it
    #[arg(long, value_name = "ID")]
    pub(super) request_id: Option<String>,
    /// Submit and print the job's name, without following it: the coordinator ends it with its
    /// versions
    #[arg(long)]
    pub(super) detach: bool,
    /// One JSON object an edit
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) common: ChangeArgs,
}

impl Args {
    /// The method by its name.
    pub(super) fn method(&self) -> &str {
        &self.method
    }
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
    args: Args,
    config: &ClientConfig,
    settings: &EditConfig,
) -> anyhow::Result<ExitCode> {
    check_single(&args)?;
    let asked = Asked::new(args, config, settings)?;
    Connection::with(config, Need::Work, async |client| {
        edit_all(client, asked).await
    })
    .await
}

/// What is asked for, with the files that it names.
pub(super) struct Asked {
    pub(super) args: Args,
    pub(super) rewrites: Vec<Rewrite>,
    pub(super) contexts: Vec<String>,
    /// The texts that edits are judged by, as an object has them.
    pub(super) gate_texts: Option<Vec<u8>>,
    /// And the questions.
    pub(super) gate_questions: Option<Vec<u8>>,
}

impl Asked {
    /// Reads the files, and fills in the gates that the settings have.
    ///
    /// # Errors
    /// What cannot be read, or not be asked for.
    pub(super) fn new(
        mut args: Args,
        config: &ClientConfig,
        settings: &EditConfig,
    ) -> anyhow::Result<Self> {
        submit::check_detach(args.detach, config)?;
        // Files that cannot be read are said before a store is opened.
        let rewrites = rewrites(&args)?;
        let contexts = contexts(args.contexts.as_deref())?;
        if args.max_drift.is_some() {
            check_neighbours("--max-drift", &rewrites)?;
        }
        if args.min_locality.is_some() {
            check_neighbours("--min-locality", &rewrites)?;
            check_true(&rewrites)?;
        }
        let file = args.gate_texts.as_ref().or(settings.gate_texts.as_ref());
        let gate_texts = file.map(|file| submit::gate_texts(file)).transpose()?;
        let files = &args.gate_questions;
        let most = args.gate_limit.unwrap_or(u64::MAX);
        let questions = || submit::gate_questions(files, args.gate_shots, most);
        let gate_questions = (!files.is_empty()).then(questions).transpose()?;
        args.min_efficacy = args.min_efficacy.or(settings.min_efficacy);
        args.max_drift = args.max_drift.or(settings.max_drift);
        args.max_norm = args.max_norm.or(settings.max_norm);
        args.warn_norm = args.warn_norm.or(settings.warn_norm);
        args.max_ppl_ratio = args.max_ppl_ratio.or(settings.max_ppl_ratio);
        args.min_locality = args.min_locality.or(settings.min_locality);
        Ok(Self {
            args,
            rewrites,
            contexts,
            gate_texts,
            gate_questions,
        })
    }
}

/// Flags that methods for one fact at a time do not have.
fn check_single(args: &Args) -> anyhow::Result<()> {
    for (flag, given) in [
        ("--layers", args.layers.is_some()),
        ("--batch", args.batch.is_some()),
        ("--check", args.check),
        ("--keep-going", args.keep_going),
    ] {
        if given {
            bail!(
                "{flag} is for methods that write many facts at once: give --method memit, alphaedit, emmet or encore, or \
                 leave it out"
            );
        }
    }
    if args.statistics.len() > 1 {
        bail!(
            "--statistics is given {} times: {} edits one layer, give it once",
            args.statistics.len(),
            args.method
        );
    }
    Ok(())
}

/// A gate on what becomes of neighbours holds only where there are some.
fn check_neighbours(flag: &str, rewrites: &[Rewrite]) -> anyhow::Result<()> {
    let without = rewrites.iter().position(|it| it.neighbours.is_empty());
    if let Some(n) = without {
        bail!(
            "{flag}: nothing is measured by it, for edit {} ({:?}) has no neighbours: give --neighbour PROMPT, or \
             the file's field of neighbouring prompts",
            n + 1,
            rewrites[n].subject
        );
    }
    Ok(())
}

/// A gate on the true answers of neighbours holds only where they are known.
fn check_true(rewrites: &[Rewrite]) -> anyhow::Result<()> {
    let without = rewrites.iter().position(|it| it.target_true.is_none());
    if let Some(n) = without {
        bail!(
            "--min-locality: nothing is measured by it, for edit {} ({:?}) does not say what is true: give --true \
             TARGET, or the file's field of the true target",
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

async fn edit_all(client: &Client, asked: Asked) -> anyhow::Result<ExitCode> {
    let (args, rewrites) = (&asked.args, asked.rewrites);
    let model = names::model(client, args.common.model.as_deref()).await?;
    let statistics = key_statistics::full_names(client, &model, &args.statistics).await?;
    let gate_texts = stored_texts(client, asked.gate_texts.as_deref()).await?;
    let gate_questions = stored_questions(client, asked.gate_questions.as_deref()).await?;
    let mut all_taken = true;
    let jobs = by_layer(client, args, &model, rewrites).await?;
    for (n, (choice, rewrites)) in (1..).zip(jobs) {
        let spec = v1::EditSpec {
            contexts: asked.contexts.clone(),
            gates: Some(gates(args, gate_texts.as_ref())),
            gate_texts: gate_texts.clone(),
            gate_questions: gate_questions.clone(),
            statistics_name: statistics.first().cloned().unwrap_or_default(),
            ..Default::default()
        };
        let job = job(args, &model, &rewrites, &choice, spec)?;
        let id = args.request_id.as_ref().map(|id| match n {
            1 => id.clone(),
            n => format!("{id}-{n}"),
        });
        let request = submit::request_by(id.as_deref(), job);
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

/// A fact as jobs ask for it.
pub(super) fn task(rewrite: &Rewrite) -> v1::EditTask {
    v1::EditTask {
        request: Some(v1::EditRequest {
            prompt: rewrite.prompt.clone(),
            subject: rewrite.subject.clone(),
            target_new: rewrite.target_new.clone(),
            target_true: rewrite.target_true.clone(),
            id: rewrite.id.clone(),
        }),
        paraphrases: rewrite.paraphrases.clone(),
        neighbours: rewrite.neighbours.clone(),
    }
}

/// What each edit must pass. A bound on perplexity is on that of the texts that are brought or, where
/// none are, on that of the coordinator's.
pub(super) fn gates(args: &Args, texts: Option<&v1::GateTexts>) -> v1::EditGates {
    v1::EditGates {
        efficacy: args.min_efficacy,
        neighbour_drift: args.max_drift,
        norm: args.max_norm,
        norm_warning: args.warn_norm,
        ppl_ratio: args.max_ppl_ratio.filter(|_| texts.is_some()),
        server_ppl_ratio: args.max_ppl_ratio.filter(|_| texts.is_none()),
        locality: args.min_locality,
        downstream_drop: args.max_downstream_drop,
    }
}

/// Stores the texts that edits are judged by, where some are brought.
pub(super) async fn stored_texts(
    client: &Client,
    object: Option<&[u8]>,
) -> anyhow::Result<Option<v1::GateTexts>> {
    let Some(object) = object else {
        return Ok(None);
    };
    let digest = submit::store(client, object, "texts").await?;
    Ok(Some(v1::GateTexts {
        asked: Some(v1::Corpus {
            digest: digest.to_string(),
            size: object.len() as u64,
        }),
        server: None,
    }))
}

/// Stores the questions that edits are judged by, where some are brought.
pub(super) async fn stored_questions(
    client: &Client,
    object: Option<&[u8]>,
) -> anyhow::Result<Option<v1::GateQuestions>> {
    let Some(object) = object else {
        return Ok(None);
    };
    let digest = submit::store(client, object, "questions").await?;
    Ok(Some(v1::GateQuestions {
        digest: digest.to_string(),
        size: object.len() as u64,
        tasks: Vec::new(),
    }))
}

/// A job that computes edits one after the other, and ends each with its version. `files` has what
/// comes from files and the store.
fn job(
    args: &Args,
    model: &str,
    rewrites: &[Rewrite],
    choice: &Choice,
    files: v1::EditSpec,
) -> anyhow::Result<v1::Job> {
    let spec = v1::EditSpec {
        tasks: rewrites.iter().map(task).collect(),
        method: args.method.clone(),
        layer: choice.layer,
        layer_choice: choice.reason.clone(),
        parameters: args.numbers.clone(),
        seed: args.seed,
        dtype: parse_dtype(&args.dtype)? as i32,
        ref_id: args.reference.clone(),
        rebase: args.rebase,
        why: args.common.why.clone().unwrap_or_default(),
        keep_going: true,
        ..files
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
        all_taken &= landed::say(client, outcome, &args.reference, args.json).await?;
    }
    Ok(all_taken)
}
