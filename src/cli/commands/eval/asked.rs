//! What an evaluation asks, from the files that people give.

use std::path::Path;

use anyhow::{Context, bail};
use prost::Message as _;

use super::flags::{Args, ExampleFiles};
use crate::cli::submit;
use crate::client::Client;
use crate::datasets::choices::{self, Choice};
use crate::datasets::corpus;
use crate::datasets::evaluation::{self, Dataset, Examples, Record, Set};
use crate::proto::v1;
use crate::wire;

/// What is measured.
pub(super) enum Data {
    Facts(Dataset),
    Texts(Vec<String>),
    Choices(Vec<Choice>),
}

impl Data {
    pub fn read(args: &Args) -> anyhow::Result<Self> {
        let most = args.limit.unwrap_or(u64::MAX);
        let taken = |len: usize, file: &Path| -> anyhow::Result<std::ops::Range<usize>> {
            if args.skip >= len {
                let file = file.display();
                bail!(
                    "--skip {}: {file} has {len} records, so none is left",
                    args.skip
                );
            }
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            Ok(args.skip..args.skip.saturating_add(most).min(len))
        };
        // What is taken of facts is only known when they were asked.
        let later = args.known_only.is_some() || args.along.is_some();
        if let Some(file) = &args.dataset {
            let mut data = evaluation::read(file, &examples(&args.examples)?)?;
            let range = taken(data.records.len(), file)?;
            let end = if later { data.records.len() } else { range.end };
            data.keep(&(range.start..end).collect::<Vec<_>>());
            return Ok(Self::Facts(data));
        }
        if let Some(file) = &args.texts {
            let mut texts = corpus::read(file)?;
            let range = taken(texts.len(), file)?;
            return Ok(Self::Texts(texts.drain(range).collect()));
        }
        let mut all = Vec::new();
        for file in &args.downstream {
            let mut task = choices::read(file, args.shots)?;
            let range = taken(task.len(), file)?;
            all.extend(task.drain(range));
        }
        if all.is_empty() {
            bail!("--dataset, --texts or --downstream is missing: name a file");
        }
        Ok(Self::Choices(all))
    }
}

/// The examples that the files give.
fn examples(files: &ExampleFiles) -> anyhow::Result<Examples> {
    let read = |file: &Option<std::path::PathBuf>| -> anyhow::Result<Option<String>> {
        let Some(file) = file else { return Ok(None) };
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        match text.trim().is_empty() {
            true => bail!("{}: is empty: give solved questions", file.display()),
            false => Ok(Some(text)),
        }
    };
    let by_relation = match (read(&files.relation_examples)?, &files.relation_examples) {
        (Some(text), Some(file)) => serde_json::from_str(&text).with_context(|| {
            format!("{}: give an object with a text a relation", file.display())
        })?,
        _ => std::collections::BTreeMap::new(),
    };
    Ok(Examples {
        by_relation,
        hops: read(&files.hop_examples)?,
        thoughts: read(&files.thought_examples)?,
    })
}

pub(super) fn set_of(data: &Dataset) -> v1::EvalSet {
    match data.set {
        Set::CounterFact => v1::EvalSet::Counterfact,
        Set::ZsRe => v1::EvalSet::Zsre,
        Set::Tests => v1::EvalSet::Tests,
    }
}

/// Records as they are asked for, with their generation prompts or without.
pub(super) fn records<'a>(
    args: &Args,
    records: impl IntoIterator<Item = &'a Record>,
) -> Vec<v1::EvalRecord> {
    let records = records.into_iter().map(|record| {
        let mut record = record_to_proto(record);
        if args.no_generation {
            record.generation_prompts.clear();
        }
        record
    });
    records.collect()
}

/// Puts choices into what is asked.
pub(super) fn of_choices(spec: &mut v1::EvalSpec, choices: &[Choice]) {
    spec.set = v1::EvalSet::Choices as i32;
    spec.records = choices.iter().map(wire::choice_to_proto).collect();
}

/// Puts texts into what is asked.
pub(super) fn of_texts(spec: &mut v1::EvalSpec, texts: Vec<String>) {
    spec.set = v1::EvalSet::Texts as i32;
    let record = |text| v1::EvalRecord {
        text,
        ..Default::default()
    };
    spec.records = texts.into_iter().map(record).collect();
}

/// An evaluation whose records are an object where they are too many for a request.
pub(in crate::cli::commands) async fn with_object(
    mut spec: v1::EvalSpec,
    client: &Client,
) -> anyhow::Result<v1::EvalSpec> {
    if submit::is_large(&spec) {
        let records = std::mem::take(&mut spec.records);
        let list = v1::EvalRecordList { records }.encode_to_vec();
        spec.records_object = submit::store(client, &list, "records").await?.to_string();
    }
    Ok(spec)
}

pub(super) fn record_to_proto(record: &Record) -> v1::EvalRecord {
    let rewrite = &record.rewrite;
    let neighbours = rewrite.neighbours.iter().zip(&record.neighbour_answers);
    let request = v1::EditRequest {
        prompt: rewrite.prompt.clone(),
        subject: rewrite.subject.clone(),
        target_new: rewrite.target_new.clone(),
        target_true: rewrite.target_true.clone(),
        id: rewrite.id.clone(),
    };
    v1::EvalRecord {
        // Of several facts none is the record's own.
        request: record.together.is_empty().then_some(request),
        paraphrases: rewrite.paraphrases.clone(),
        neighbours: neighbours
            .map(|(prompt, answer)| v1::EvalNeighbour {
                prompt: prompt.clone(),
                target_true: answer.clone(),
            })
            .collect(),
        generation_prompts: record.generation_prompts.clone(),
        tests: record.tests.iter().map(wire::test_to_proto).collect(),
        ..Default::default()
    }
}
