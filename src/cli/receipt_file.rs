//! A receipt as a file: one JSON object, of which `palimpsest verify-receipt` and the Python package
//! make a receipt again.

use std::path::Path;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::audit::{self, merkle};
use crate::client::{Client, pages};
use crate::proto::v1;

/// What is in the file. Bytes are in base64, hashes in hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReceiptFile {
    /// The signed note.
    receipt: String,
    verifier_key: String,
    /// What was asked: a serialised `Job`.
    asked: String,
    /// The entry of the audit log.
    entry: String,
    path: Vec<String>,
    checkpoint: String,
    /// The results: serialised `UnitResult`s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    results: Option<Vec<String>>,
}

impl ReceiptFile {
    /// The receipt of a job that has ended, held against the key that it came with; with the
    /// results, those are held against it.
    ///
    /// # Errors
    /// The coordinator's refusal, or what does not fit.
    pub async fn fetch(client: &Client, job: &str, with_results: bool) -> anyhow::Result<Self> {
        let request = v1::GetReceiptRequest {
            name: job.to_owned(),
        };
        let response = client.audit().get_receipt(request).await?.into_inner();
        let receipt = response.receipt.unwrap_or_default();
        let verified = audit::Receipt::verify(&receipt, &receipt.verifier_key)?;
        let file = Self::of(&receipt)?;
        if !with_results {
            return Ok(file);
        }
        let page = |token: String| client.page_of_results(job, token);
        let results = pages::all(page).await?;
        let results: Vec<Vec<u8>> = results.iter().map(v1::UnitResult::encode_to_vec).collect();
        verified.receipt.check_results(&results)?;
        Ok(file.with_results(&results))
    }

    /// Writes the receipt of a job, with its results, where one is wanted.
    ///
    /// # Errors
    /// Those of [`ReceiptFile::fetch`], and a file that cannot be written. The job has ended all the
    /// same.
    pub async fn save(client: &Client, job: &str, to: Option<&Path>) -> anyhow::Result<()> {
        let Some(path) = to else {
            return Ok(());
        };
        let written = async {
            let file = Self::fetch(client, job, true).await?;
            let text = format!("{}\n", file.to_json());
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        written.await.with_context(|| {
            format!("{job} has ended, and 'palimpsest job receipt {job} --with-results' gives its receipt again")
        })?;
        say!("the receipt is in {}", path.display());
        Ok(())
    }

    /// A receipt, without results.
    ///
    /// # Errors
    /// An entry that is too large for a message, which earlier versions of the program could write.
    fn of(receipt: &v1::Receipt) -> anyhow::Result<Self> {
        let entry = receipt.entry.as_ref().map(|entry| entry.leaf.as_slice());
        let entry = entry.filter(|leaf| !leaf.is_empty());
        let entry = entry.context("the job's entry in the audit log is too large for a receipt")?;
        let checkpoint = receipt.checkpoint.as_ref();
        Ok(Self {
            receipt: receipt.note.clone(),
            verifier_key: receipt.verifier_key.clone(),
            asked: BASE64.encode(&receipt.asked),
            entry: BASE64.encode(entry),
            path: receipt.path.iter().map(|hash| merkle::hex(hash)).collect(),
            checkpoint: checkpoint.map_or_else(String::new, |it| it.note.clone()),
            results: None,
        })
    }

    /// With the results themselves.
    fn with_results(self, results: &[Vec<u8>]) -> Self {
        Self {
            results: Some(results.iter().map(|it| BASE64.encode(it)).collect()),
            ..self
        }
    }

    /// As it is written.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        serde_json::from_str(text)
            .context("is no receipt: give what 'palimpsest job receipt' printed")
    }

    /// The receipt.
    ///
    /// # Errors
    /// A field that is not base64, or not hexadecimal.
    pub fn receipt(&self) -> anyhow::Result<v1::Receipt> {
        let hash = |text: &String| {
            let hash = merkle::from_hex(text).context("'path': is no list of hashes")?;
            Ok(hash.to_vec())
        };
        Ok(v1::Receipt {
            note: self.receipt.clone(),
            verifier_key: self.verifier_key.clone(),
            asked: bytes("asked", &self.asked)?,
            entry: Some(v1::AuditLeaf {
                leaf: bytes("entry", &self.entry)?,
                ..Default::default()
            }),
            path: self.path.iter().map(hash).collect::<anyhow::Result<_>>()?,
            checkpoint: Some(v1::AuditCheckpoint {
                note: self.checkpoint.clone(),
                ..Default::default()
            }),
        })
    }

    /// The results, where the file has them.
    ///
    /// # Errors
    /// One that is not base64.
    pub fn results(&self) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
        let Some(results) = &self.results else {
            return Ok(None);
        };
        let results = results.iter().map(|it| bytes("results", it));
        results.collect::<anyhow::Result<_>>().map(Some)
    }
}

fn bytes(field: &str, text: &str) -> anyhow::Result<Vec<u8>> {
    BASE64
        .decode(text)
        .with_context(|| format!("'{field}': is not base64"))
}
