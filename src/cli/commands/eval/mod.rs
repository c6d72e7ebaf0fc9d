//! `palimpsest eval`: measure what a version answers to the records of a data set.

mod along;
mod asked;
mod flags;

use std::process::ExitCode;

use anyhow::{Context, bail};

pub(super) use asked::with_object;
use asked::{Data, of_choices, of_texts, record_to_proto, records, set_of};

use crate::cli::connection::{Connection, Need};
use crate::cli::layer::Chooser;
use crate::cli::results::{self, Known};
use crate::cli::submit;
use crate::cli::{follow, key_statistics, names};
use crate::config::ClientConfig;
use crate::datasets::contexts::contexts;
use crate::datasets::evaluation::{Dataset, Set, Test};
use crate::proto::v1;
use crate::wire;

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
    let data = Data::read(&args)?;
    check_tests(&args, &data)?;
    let spec = spec(&args)?;
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

/// Refuses what cannot be asked of tests of what follows from edits.
fn check_tests(args: &Args, data: &Data) -> anyhow::Result<()> {
    let Data::Facts(data) = data else {
        return Ok(());
    };
    let tests = data.set == Set::Tests;
    let examples = &args.examples;
    for (flag, given) in [
        ("--hop-examples", &examples.hop_examples),
        ("--relation-examples", &examples.relation_examples),
        ("--thought-examples", &examples.thought_examples),
    ] {
        if given.is_some() && !tests {
            bail!("{flag}: only questions of MQuAKE have examples before them; leave it out");
        }
    }
    if tests && args.known_only.is_some() {
        bail!("--known-only: these records ask what follows from edits; leave it out");
    }
    let several = data.records.iter().any(|it| !it.together.is_empty());
    if several && args.each.edit_each {
        bail!(
            "--edit-each edits one fact, and records of MQuAKE have several that belong together: write \
             them with 'palimpsest edit --file' onto a ref, and evaluate that with --ref"
        );
    }
    Ok(())
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
        Data::Choices(choices) => of_choices(&mut spec, &choices),
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
    let receipt = args.job.receipt.as_deref();
    results::follow(client, &job, connection, &args.format, receipt).await
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
    if data.set == Set::Tests {
        keep_conditioned(args, spec, &mut data, model, connection).await?;
    }
    if let Some(path) = &args.save {
        std::fs::write(path, data.to_lines())
            .with_context(|| format!("cannot write {}", path.display()))?;
        let count = data.records.len();
        say!("{count} records in {}", path.display());
    }
    spec.free_generation = !args.no_generation && data.set != Set::Tests;
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
    let unedited = unedited(args);
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
        let asked = v1::EvalSpec {
            records: bare.collect(),
            set: spec.set,
            dtype: spec.dtype,
            ..Default::default()
        };
        let title = "which facts are known";
        let found = ask_first(args, asked, unedited, title, model, connection).await?;
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

/// The version that a record is compared with.
fn unedited(args: &Args) -> &str {
    match (&args.against, args.each.edit_each) {
        (_, true) => args.job.version.as_str(),
        (Some(against), false) => against,
        (None, false) => "v0",
    }
}

/// Asks what decides which records are taken, and gives a result a record.
async fn ask_first(
    args: &Args,
    asked: v1::EvalSpec,
    version: &str,
    title: &str,
    model: &str,
    connection: &Connection,
) -> anyhow::Result<Vec<v1::UnitResult>> {
    let client = connection.client();
    let records = asked.records.len();
    let version = names::version(model, version);
    let asked = v1::EvalSpec {
        against: version.clone(),
        ..asked
    };
    let asked = with_object(asked, client).await?.into();
    let job = v1::Job {
        version,
        display_name: title.to_owned(),
        ..args
            .job
            .job(model, asked, submit::sweep_priority(connection))
    };
    let job = submit::create(client, submit::request(job)).await?;
    let Some(ended) = follow::to_end(client, &job.name, connection.is_embedded()).await? else {
        bail!("{title} is not found out yet: ask again to go on");
    };
    let (_, found) = results::results(client, &ended.name).await?;
    if found.len() != records {
        bail!("{} was stopped: ask again to go on", ended.name);
    }
    Ok(found)
}

/// Leaves out the tests whose conditions the unedited version does not meet, and says how many.
async fn keep_conditioned(
    args: &Args,
    spec: &v1::EvalSpec,
    data: &mut Dataset,
    model: &str,
    connection: &Connection,
) -> anyhow::Result<()> {
    // A criterion a test, so that each is told apart.
    let conditions = |tests: &[Test]| -> Vec<v1::EvalTest> {
        let conditioned = tests.iter().enumerate();
        let conditioned = conditioned.filter(|(_, test)| !test.conditions.is_empty());
        conditioned
            .map(|(n, test)| {
                wire::test_to_proto(&Test {
                    criterion: n.to_string(),
                    queries: test.conditions.clone(),
                    ..Test::default()
                })
            })
            .collect()
    };
    let asked: Vec<(usize, v1::EvalRecord)> = (data.records.iter().enumerate())
        .map(|(n, record)| {
            let tests = conditions(&record.tests);
            (
                n,
                v1::EvalRecord {
                    tests,
                    ..Default::default()
                },
            )
        })
        .filter(|(_, record)| !record.tests.is_empty())
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let (of, records): (Vec<usize>, Vec<v1::EvalRecord>) = asked.into_iter().unzip();
    let all: usize = records.iter().map(|record| record.tests.len()).sum();
    let asked = v1::EvalSpec {
        records,
        set: spec.set,
        dtype: spec.dtype,
        ..Default::default()
    };
    let title = "which conditions of tests are met";
    let found = ask_first(args, asked, unedited(args), title, model, connection).await?;
    let mut met = 0;
    for result in &found {
        let Some(&n) = of.get(result.unit as usize) else {
            continue;
        };
        let outcome = match &result.outcome {
            Some(v1::unit_result::Outcome::Eval(outcome)) => outcome.measured.as_ref(),
            _ => None,
        };
        let holds = |n: usize| {
            let name = n.to_string();
            let mut figures = outcome.iter().flat_map(|it| &it.figures);
            figures.any(|figure| figure.key == name && figure.value >= 1.0)
        };
        let mut number = 0..;
        (data.records[n].tests).retain(|test| {
            let own = number.next().unwrap_or_default();
            let kept = test.conditions.is_empty() || holds(own);
            met += usize::from(kept && !test.conditions.is_empty());
            kept
        });
    }
    say!(
        "{met} of {all} tests with conditions are asked: the others' are not met by {}",
        unedited(args)
    );
    Ok(())
}
