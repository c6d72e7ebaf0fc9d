//! What an evaluation asks, from the files that people give.

use anyhow::bail;
use prost::Message as _;

use super::flags::Args;
use crate::cli::submit;
use crate::client::Client;
use crate::datasets::corpus;
use crate::datasets::evaluation::{self, Dataset, Record, Set};
use crate::proto::v1;

/// What is measured.
pub(super) enum Data {
    Facts(Dataset),
    Texts(Vec<String>),
}

impl Data {
    pub fn read(args: &Args) -> anyhow::Result<Self> {
        Ok(match (&args.dataset, &args.texts) {
            (Some(dataset), _) => Self::Facts(evaluation::read(dataset)?),
            (None, Some(texts)) => Self::Texts(corpus::read(texts)?),
            (None, None) => bail!("--dataset or --texts is missing: name a file"),
        })
    }
}

pub(super) fn set_of(data: &Dataset) -> v1::EvalSet {
    match data.set {
        Set::CounterFact => v1::EvalSet::Counterfact,
        Set::ZsRe => v1::EvalSet::Zsre,
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
