//! `palimpsest eval`: measure what a version answers to the records of a data set.

mod along;
mod asked;
mod flags;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

pub(super) use asked::with_object;
use asked::{Data, of_texts, record_to_proto, records, set_of};

use crate::cli::connection::{Connection, Need};
use crate::cli::layer::Chooser;
use crate::cli::results::{self, Known};
use crate::cli::submit;
use crate::cli::{follow, key_statistics, names};
use crate::config::ClientConfig;
use crate::datasets::contexts::contexts;
use crate::datasets::evaluation::Dataset;
use crate::proto::v1;

pub use flags::Args;

/// Records that are looked at together for facts that the model knows, at least.
const LOOK_AT: usize = 50;

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
    connection.say_accepted(&job.name);
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
