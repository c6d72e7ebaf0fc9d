//! `palimpsest eval`: measure what a version answers to the records of a data set.

mod along;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use prost::Message as _;

use super::edit::parse_number;
use crate::cli::connection::{Connection, Need};
use crate::cli::layer::{self, Chooser, Layer};
use crate::cli::results::{self, Format, Known};
use crate::cli::submit::{self, JobArgs};
use crate::cli::{follow, key_statistics, names};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::datasets::contexts::contexts;
use crate::datasets::corpus;
use crate::datasets::evaluation::{self, Dataset, Record, Set};
use crate::proto::v1;

/// Records that are looked at together for facts that the model knows, at least.
const LOOK_AT: usize = 50;

/// Flags of `eval`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The records: CounterFact's full or flat form, or zsRE's, as a JSON list or one a line
    #[arg(long, value_name = "FILE", required_unless_present = "texts")]
    dataset: Option<PathBuf>,
    /// Texts whose perplexity is measured in place of records: one a line, or a JSON list
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dataset", "edit_each", "known_only", "save"])]
    texts: Option<PathBuf>,
    /// The version to compare with; the unedited model if none is given
    #[arg(long, value_name = "VERSION", conflicts_with = "edit_each")]
    against: Option<String>,
    /// Measure the versions on the way to --ref, the first after every N facts that were written:
    /// of the records those that were written so far, of texts all
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "100",
          conflicts_with_all = ["edit_each", "known_only", "save"],
          value_parser = clap::value_parser!(u64).range(1..))]
    along: Option<u64>,
    /// Leave out the first N records
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: usize,
    /// Take at most N records; with --known-only, N that are known; with --along, N of those that
    /// were written so far, spread over all of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Take only records whose fact the version of --against (of --ref with --edit-each) knows.
    /// likelier: it finds the true object likelier than the new one; greedy: it continues the
    /// prompt with the true object when it always takes the likeliest token
    #[arg(long, value_name = "RULE", num_args = 0..=1, default_missing_value = "likelier")]
    known_only: Option<Known>,
    /// Write the records that are taken to a file, for 'palimpsest edit --file' and other
    /// evaluations
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Leave generation prompts, and with them GE, out
    #[arg(long)]
    no_generation: bool,
    /// Seed of the texts that are drawn: after generation prompts, and before the sentences of
    /// edits
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    each: Each,
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    format: Format,
}

/// How each record is edited before it is measured.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Edits")]
struct Each {
    /// Edit each record on its own, measure it before and after, and discard the edit
    #[arg(long)]
    edit_each: bool,
    /// r-rome, rome or ft-l
    #[arg(long, default_value = "r-rome", requires = "edit_each")]
    method: String,
    /// The layer, from 0; family: the one at which models of the family are edited, by what was
    /// published; or auto: where the newest sweep of at least ten known facts says that they are
    #[arg(long, default_value = "family", value_parser = layer::parse, requires = "edit_each")]
    layer: Layer,
    /// Another number than the family's: steps, learning_rate, clamp, weight_decay, kl_factor,
    /// stop_loss, ridge, bound
    #[arg(long = "set", value_name = "NAME=NUMBER", value_parser = parse_number, requires = "edit_each")]
    numbers: Vec<v1::NamedNumber>,
    /// Texts to average the key over, one a line, each with {} for the sentence; drawn from the
    /// model otherwise
    #[arg(long, value_name = "FILE", requires = "edit_each")]
    contexts: Option<PathBuf>,
    /// Collect key statistics from text drawn from the model, if there are none
    #[arg(long, requires = "edit_each")]
    auto_stats: bool,
}

/// Submits an evaluation, follows it and presents its results.
pub async fn run(args: Args, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    match args.along {
        Some(_) => along::check(&args)?,
        None => args.format.check_evaluation()?,
    }
    args.job.check(config)?;
    // Files that cannot be read are said before a store is opened.
    let mut data = Data::read(&args)?;
    let spec = spec(&args)?;
    let (all, file) = match &data {
        Data::Facts(data) => (data.records.len(), &args.dataset),
        Data::Texts(texts) => (texts.len(), &args.texts),
    };
    if args.skip >= all {
        bail!(
            "--skip {}: {} has {all} records, so none is left",
            args.skip,
            file.as_deref().unwrap_or(Path::new("-")).display()
        );
    }
    let later = args.known_only.is_some() || (args.along.is_some() && args.texts.is_none());
    let most = args.limit.filter(|_| !later);
    let end = most.map_or(all, |most| all.min(args.skip + most as usize));
    match &mut data {
        Data::Facts(data) => data.keep(&(args.skip..end).collect::<Vec<_>>()),
        Data::Texts(texts) => *texts = texts.drain(args.skip..end).collect(),
    }
    let connection = Connection::open(config, Need::Work).await?;
    let done = match args.along {
        Some(every) => {
            let along = along::measure(&args, every, spec, data, &connection);
            connection.wait(along).await
        }
        None => {
            let once = evaluate(&args, spec, data, &connection);
            connection.wait(once).await
        }
    };
    connection.close().await;
    done
}

/// What is measured.
enum Data {
    Facts(Dataset),
    Texts(Vec<String>),
}

impl Data {
    fn read(args: &Args) -> anyhow::Result<Self> {
        Ok(match (&args.dataset, &args.texts) {
            (Some(dataset), _) => Self::Facts(evaluation::read(dataset)?),
            (None, Some(texts)) => Self::Texts(corpus::read(texts)?),
            (None, None) => bail!("--dataset or --texts is missing: name a file"),
        })
    }
}

fn spec(args: &Args) -> anyhow::Result<v1::EvalSpec> {
    let each = &args.each;
    let dtype = args.job.dtype()? as i32;
    let edit_each = v1::EditSpec {
        method: each.method.clone(),
        parameters: each.numbers.clone(),
        contexts: contexts(each.contexts.as_deref())?,
        seed: args.seed,
        dtype,
        ..Default::default()
    };
    Ok(v1::EvalSpec {
        edit_each: each.edit_each.then_some(edit_each),
        seed: args.seed,
        dtype,
        ..Default::default()
    })
}

async fn evaluate(
    args: &Args,
    mut spec: v1::EvalSpec,
    data: Data,
    connection: &Connection,
) -> anyhow::Result<ExitCode> {
    let client = connection.client();
    let model = args.job.model(client).await?;
    match data {
        Data::Facts(data) => facts(args, &mut spec, data, &model, connection).await?,
        Data::Texts(texts) => of_texts(&mut spec, texts),
    }
    if let Some(against) = &args.against {
        spec.against = names::version(&model, against);
    }
    let priority = submit::sweep_priority(connection);
    let spec = with_object(spec, client).await?.into();
    let request = args.job.request(args.job.job(&model, spec, priority));
    let job = key_statistics::create_with(client, &model, request, args.each.auto_stats).await?;
    if args.job.detach {
        show!("{}", job.name)?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("{} accepted", job.name);
    results::follow(client, &job, connection, &args.format).await
}

/// Puts the records of facts into what is asked, those that are taken.
async fn facts(
    args: &Args,
    spec: &mut v1::EvalSpec,
    mut data: Dataset,
    model: &str,
    connection: &Connection,
) -> anyhow::Result<()> {
    let client = connection.client();
    spec.set = set_of(&data) as i32;
    if let Some(edit) = &mut spec.edit_each {
        let dtype = args.job.dtype()?;
        let mut chooser = Chooser::new(client, model, &args.job.version, dtype, args.each.layer);
        let choice = chooser.common().await?;
        (edit.layer, edit.layer_choice) = (choice.layer, choice.reason);
    }
    if let Some(rule) = args.known_only {
        spec.left_out = keep_known(args, rule, spec, &mut data, model, connection).await?;
    }
    if let Some(path) = &args.save {
        std::fs::write(path, data.to_lines())
            .with_context(|| format!("cannot write {}", path.display()))?;
        let count = data.records.len();
        say!("{count} records in {}", path.display());
    }
    // An edit of one record alone leaves the others' subjects as they are.
    if spec.edit_each.is_none() {
        spec.spoiled = data.leave_out_spoiled();
    }
    spec.records = records(args, &data.records);
    Ok(())
}

fn set_of(data: &Dataset) -> v1::EvalSet {
    match data.set {
        Set::CounterFact => v1::EvalSet::Counterfact,
        Set::ZsRe => v1::EvalSet::Zsre,
    }
}

/// Records as they are asked for, with their generation prompts or without.
fn records<'a>(args: &Args, records: impl IntoIterator<Item = &'a Record>) -> Vec<v1::EvalRecord> {
    let records = records.into_iter().map(|record| {
        let mut record = record_to_proto(record);
        if args.no_generation {
            record.generation_prompts.clear();
        }
        record
    });
    records.collect()
}

/// Puts texts into what is asked.
fn of_texts(spec: &mut v1::EvalSpec, texts: Vec<String>) {
    spec.set = v1::EvalSet::Texts as i32;
    let record = |text| v1::EvalRecord {
        text,
        ..Default::default()
    };
    spec.records = texts.into_iter().map(record).collect();
}

/// An evaluation whose records are an object where they are too many for a request.
async fn with_object(mut spec: v1::EvalSpec, client: &Client) -> anyhow::Result<v1::EvalSpec> {
    if submit::is_large(&spec) {
        let records = std::mem::take(&mut spec.records);
        let list = v1::EvalRecordList { records }.encode_to_vec();
        spec.records_object = submit::store(client, &list, "records").await?.to_string();
    }
    Ok(spec)
}

/// Keeps the records whose fact the unedited version knows, as many as are wanted, and says how
/// many of those that were looked at are left out. Only the facts themselves are asked for it.
async fn keep_known(
    args: &Args,
    rule: Known,
    spec: &v1::EvalSpec,
    data: &mut Dataset,
    model: &str,
    connection: &Connection,
) -> anyhow::Result<u64> {
    let client = connection.client();
    let unedited = match (&args.against, args.each.edit_each) {
        (_, true) => args.job.version.as_str(),
        (Some(against), false) => against,
        (None, false) => "v0",
    };
    let wanted = args.limit.map_or(usize::MAX, |limit| limit as usize);
    let (mut kept, mut seen) = (Vec::new(), 0);
    while kept.len() < wanted && seen < data.records.len() {
        // About every second record may be known, or every tenth.
        let more = (wanted - kept.len()).saturating_mul(2).max(LOOK_AT);
        let end = seen.saturating_add(more).min(data.records.len());
        let bare = data.records[seen..end].iter().map(|record| v1::EvalRecord {
            request: record_to_proto(record).request,
            ..Default::default()
        });
        let version = names::version(model, unedited);
        let asked = v1::EvalSpec {
            records: bare.collect(),
            set: spec.set,
            against: version.clone(),
            dtype: spec.dtype,
            ..Default::default()
        };
        let asked = with_object(asked, client).await?.into();
        let job = v1::Job {
            version,
            display_name: "which facts are known".to_owned(),
            ..args
                .job
                .job(model, asked, submit::sweep_priority(connection))
        };
        let job = submit::create(client, submit::request(job)).await?;
        let Some(ended) = follow::to_end(client, &job.name, connection.is_embedded()).await? else {
            bail!("which facts are known is not found out yet: ask again to go on");
        };
        let (_, found) = results::results(client, &ended.name).await?;
        if found.len() != end - seen {
            bail!("{} was stopped: ask again to go on", ended.name);
        }
        for result in &found {
            if let Some(v1::unit_result::Outcome::Failure(failure)) = &result.outcome {
                let number = args.skip + seen + result.unit as usize + 1;
                say!("record {number} is left out: {}", failure.message);
            }
            if kept.len() == wanted {
                break;
            }
            if rule.holds(result) {
                kept.push(seen + result.unit as usize);
            }
        }
        seen = end;
    }
    // Those behind the last one that was wanted were not needed.
    if kept.len() == wanted {
        seen = kept.last().map_or(seen, |last| last + 1);
    }
    if kept.is_empty() {
        bail!("the model knows none of the {seen} facts: take others, or leave out --known-only");
    }
    say!(
        "{} of {seen} facts are known to {unedited}; the others are left out",
        kept.len()
    );
    data.keep(&kept);
    Ok((seen - kept.len()) as u64)
}

fn record_to_proto(record: &Record) -> v1::EvalRecord {
    let rewrite = &record.rewrite;
    let neighbours = rewrite.neighbours.iter().zip(&record.neighbour_answers);
    v1::EvalRecord {
        request: Some(v1::EditRequest {
            prompt: rewrite.prompt.clone(),
            subject: rewrite.subject.clone(),
            target_new: rewrite.target_new.clone(),
            target_true: rewrite.target_true.clone(),
            id: rewrite.id.clone(),
        }),
        paraphrases: rewrite.paraphrases.clone(),
        neighbours: neighbours
            .map(|(prompt, answer)| v1::EvalNeighbour {
                prompt: prompt.clone(),
                target_true: answer.clone(),
            })
            .collect(),
        generation_prompts: record.generation_prompts.clone(),
        text: String::new(),
    }
}
