//! `palimpsest verify-receipt`: checks what a job was asked and came to, with nothing but a key.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use prost::Message as _;
use serde_json::{Value, json};

use crate::audit::{Receipt, Verified};
use crate::cli::receipt_file::ReceiptFile;
use crate::cli::{names, output};
use crate::proto::v1::{self, unit_result::Outcome};
use crate::text::utf8;
use crate::work;

/// Flags of `verify-receipt`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What 'palimpsest job receipt' printed
    file: PathBuf,
    /// The key that was noted when the store was new ('palimpsest audit key')
    #[arg(long, value_name = "KEY")]
    key: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Checks a receipt, and shows what it says.
///
/// # Errors
/// What does not hold.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let said = || args.file.display().to_string();
    let text = utf8::read(&args.file).with_context(said)?;
    let file = ReceiptFile::parse(&text).with_context(said)?;
    let verified = Receipt::verify(&file.receipt().with_context(said)?, &args.key);
    let verified = verified.with_context(said)?;
    let results = match file.results().with_context(said)? {
        Some(results) => {
            (verified.receipt.check_results(&results)).with_context(said)?;
            let results = results
                .iter()
                .map(|it| v1::UnitResult::decode(it.as_slice()));
            let results: Result<Vec<v1::UnitResult>, _> = results.collect();
            Some(results.with_context(said)?)
        }
        None => None,
    };
    match args.json {
        true => output::json(&to_json(&verified, results.as_deref()))?,
        false => print(&verified, results.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(verified: &Verified, results: Option<&[v1::UnitResult]>) -> anyhow::Result<()> {
    let receipt = &verified.receipt;
    let kind = work::of(&verified.asked).map_or("-", |work| work.word());
    show!("{}, {kind}, {}", receipt.job, receipt.state)?;
    show!("model    {}, files {}", receipt.model, receipt.files)?;
    show!("version  {}", receipt.version)?;
    show!("asked    {}", receipt.asked)?;
    for (count, fingerprint) in &receipt.computed {
        show!("computed {count} by {fingerprint}")?;
    }
    let entry = &verified.entry;
    show!(
        "entry    {} of the audit log: {}, by {}",
        receipt.entry,
        output::time(entry.time.as_ref()),
        entry.principal
    )?;
    for completion in results.into_iter().flatten().filter_map(completion) {
        show!("result   {:?} -> {:?}", completion.prompt, completion.text)?;
    }
    match results {
        Some(_) => say!(
            "the receipt holds: signed by {}; results: {}, those in the file",
            verified.checkpoint.origin,
            receipt.results
        ),
        None => say!(
            "the receipt holds: signed by {}; results: {}, which are not in the file ('job receipt \
             --with-results')",
            verified.checkpoint.origin,
            receipt.results
        ),
    }
    Ok(())
}

fn completion(result: &v1::UnitResult) -> Option<&v1::Completion> {
    match &result.outcome {
        Some(Outcome::Completion(completion)) => Some(completion),
        _ => None,
    }
}

fn to_json(verified: &Verified, results: Option<&[v1::UnitResult]>) -> Value {
    let receipt = &verified.receipt;
    let computed = receipt.computed.iter();
    let entry = &verified.entry;
    let completions = results.map(|results| {
        let each = results.iter().filter_map(completion);
        each.map(|it| json!({ "prompt": it.prompt, "text": it.text }))
            .collect::<Vec<_>>()
    });
    json!({
        "job": receipt.job, "kind": work::of(&verified.asked).map(|work| work.word()), "state": receipt.state,
        "model": receipt.model, "files": receipt.files, "version": receipt.version, "asked": receipt.asked,
        "results": receipt.results, "results_checked": results.is_some(), "completions": completions,
        "computed": computed.map(|(count, by)| json!({ "results": count, "fingerprint": by })).collect::<Vec<_>>(),
        "entry": receipt.entry, "principal": entry.principal, "time": names::timestamp(entry.time.as_ref()),
        "log": verified.checkpoint.origin, "log_entries": verified.checkpoint.size,
    })
}
