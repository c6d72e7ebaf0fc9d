//! What every job needs on its way to the coordinator: its flags, objects for what does not fit a
//! request, and its creation.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use prost::Message;

use super::connection::Connection;
use super::{follow, names};
use crate::client::{self, Client};
use crate::config::ClientConfig;
use crate::datasets::{choices, corpus};
use crate::objects::Digest;
use crate::proto::v1;
use crate::{wire, work};

/// Facts or records of more bytes travel as an object.
const INLINE_BYTES: usize = 1 << 20;

/// The priority of a job that someone waits for: it goes before sweeps.
pub const ATTENDED: i32 = 1;

/// Flags of every job.
#[derive(Debug, clap::Args)]
pub struct JobArgs {
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    /// The version: a ref, v3, a digest's beginning, main~2
    #[arg(long = "ref", value_name = "VERSION", default_value = "main")]
    pub version: String,
    /// f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Whose job it is; the user's if it is not given
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// What to call the job
    #[arg(long)]
    name: Option<String>,
    /// The request's own name: asked again by the same name, the job that there is is followed
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Compute everything afresh, also what an earlier job computed
    #[arg(long)]
    no_cache: bool,
    /// Submit and print the job's name, without following it
    #[arg(long)]
    pub detach: bool,
    /// Write a receipt of what was asked and what it came to into this file, signed, with the
    /// results: 'palimpsest verify-receipt' checks it without the coordinator
    #[arg(long, value_name = "FILE", conflicts_with = "detach")]
    pub receipt: Option<PathBuf>,
}

impl JobArgs {
    /// Refuses what cannot be done with these settings, before a store is opened.
    ///
    /// # Errors
    /// What helps.
    pub fn check(&self, config: &ClientConfig) -> anyhow::Result<()> {
        check_detach(self.detach, config)?;
        self.dtype().map(|_| ())
    }

    /// The number format.
    ///
    /// # Errors
    /// Those there are.
    pub fn dtype(&self) -> anyhow::Result<v1::Dtype> {
        parse_dtype(&self.dtype)
    }

    /// The model that is meant, `models/{model}`.
    ///
    /// # Errors
    /// As [`names::model`].
    pub async fn model(&self, client: &Client) -> anyhow::Result<String> {
        names::model(client, self.model.as_deref()).await
    }

    /// A job of `model` that does what `spec` says. `priority` as the contract has it.
    pub fn job(&self, model: &str, spec: v1::job::Spec, priority: i32) -> v1::Job {
        v1::Job {
            owner: self.owner.clone().unwrap_or_default(),
            version: names::version(model, &self.version),
            model: model.to_owned(),
            spec: Some(spec),
            display_name: self.name.clone().unwrap_or_default(),
            priority,
            no_cache: self.no_cache,
            ..Default::default()
        }
    }

    /// The request that creates a job under the name that was given, or one made up.
    pub fn request(&self, job: v1::Job) -> v1::CreateJobRequest {
        request_by(self.request_id.as_deref(), job)
    }
}

/// A file of texts that edits are judged by, as the object that has them.
///
/// # Errors
/// What is wrong with the file.
pub fn gate_texts(file: &Path) -> anyhow::Result<Vec<u8>> {
    let object = corpus::to_bytes(&corpus::read(file)?);
    let (name, size) = (file.display(), object.len());
    work::gate_texts(&object).map_err(|what| anyhow::anyhow!("{name}: {what}"))?;
    if size as u64 > work::GATE_TEXTS_BYTES {
        bail!(
            "{name}: has {size} bytes of texts: {} at most; give fewer or shorter ones",
            work::GATE_TEXTS_BYTES
        );
    }
    Ok(object)
}

/// Questions that edits are judged by, of files of one task each, as the object that has them. `most`
/// are taken of each file, after the `shots` that stand solved before the others.
///
/// # Errors
/// What is wrong with the files.
pub fn gate_questions(files: &[PathBuf], shots: usize, most: u64) -> anyhow::Result<Vec<u8>> {
    let mut records = Vec::new();
    let mut tasks: Vec<(String, &Path)> = Vec::new();
    for file in files {
        let questions = choices::read(file, shots)?;
        let task = questions.first().map(|it| it.task.clone());
        let task = task.unwrap_or_default();
        if let Some((_, other)) = tasks.iter().find(|(earlier, _)| *earlier == task) {
            bail!(
                "--gate-questions: {} and {} are both of the task '{task}', which a file is called after: give one another \
                 name, or put them into one file",
                other.display(),
                file.display()
            );
        }
        tasks.push((task, file));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        records.extend(questions.iter().take(most).map(wire::choice_to_proto));
    }
    let object = v1::EvalRecordList { records }.encode_to_vec();
    let size = object.len();
    work::gate_questions(&object).map_err(|what| anyhow::anyhow!("--gate-questions: {what}"))?;
    if size as u64 > work::GATE_QUESTIONS_BYTES {
        bail!(
            "--gate-questions: the questions have {size} bytes: {} at most; take fewer of each file with --gate-limit N",
            work::GATE_QUESTIONS_BYTES
        );
    }
    Ok(object)
}

/// Refuses to leave a job with a coordinator that ends with this process.
///
/// # Errors
/// What helps.
pub fn check_detach(detach: bool, config: &ClientConfig) -> anyhow::Result<()> {
    if detach && config.server.is_none() {
        bail!("--detach needs a coordinator that stays: give --server ADDRESS");
    }
    Ok(())
}

/// The priority of a sweep: one that is waited for in its own process goes before what an earlier
/// process left.
pub fn sweep_priority(connection: &Connection) -> i32 {
    match connection.is_embedded() {
        true => ATTENDED,
        false => 0,
    }
}

/// A request that creates a job, under a name of its own.
pub fn request(job: v1::Job) -> v1::CreateJobRequest {
    request_by(None, job)
}

/// A request that creates a job, under the name that its user gave, or one made up.
pub fn request_by(id: Option<&str>, job: v1::Job) -> v1::CreateJobRequest {
    v1::CreateJobRequest {
        job: Some(job),
        request_id: id.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned),
        validate_only: false,
    }
}

/// Creates a job. Where the coordinator dies over it, it is asked again when it is back: the request
/// has a name, under which there is one job.
///
/// # Errors
/// The coordinator's refusal, or that it stays away.
pub async fn create(
    client: &Client,
    request: v1::CreateJobRequest,
) -> Result<v1::Job, tonic::Status> {
    let create = || async {
        let mut service = client.jobs();
        service.create_job(request.clone()).await
    };
    let created = follow::patiently(create).await?.into_inner();
    Ok(created.job.unwrap_or_default())
}

/// Creates a job that is of no use to anybody else, and follows it to its end: it is cancelled when
/// its user leaves.
///
/// # Errors
/// The coordinator's refusal, and that it was cancelled.
pub async fn run(client: &Client, job: v1::Job) -> anyhow::Result<v1::Job> {
    let job = create(client, request(job)).await?;
    follow::attend(client, job.name).await
}

/// Whether a message is too large to travel in a request.
pub fn is_large(message: &impl Message) -> bool {
    message.encoded_len() > INLINE_BYTES
}

/// Stores an object with the coordinator, unless it has it; `what` names it in an error.
///
/// # Errors
/// That it cannot be stored.
pub async fn store(client: &Client, bytes: &[u8], what: &str) -> anyhow::Result<Digest> {
    let stored = async {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(bytes)?;
        let digest = Digest::of(bytes);
        client::upload(client.objects(), &digest, file.path(), |_| {}).await?;
        Ok::<_, anyhow::Error>(digest)
    };
    let stored = stored.await;
    stored.with_context(|| format!("cannot store the {what} with the coordinator"))
}

/// A number format by its name.
///
/// # Errors
/// Those there are.
pub fn parse_dtype(text: &str) -> anyhow::Result<v1::Dtype> {
    match text {
        "f32" => Ok(v1::Dtype::F32),
        "bf16" => Ok(v1::Dtype::Bf16),
        "f16" => Ok(v1::Dtype::F16),
        other => bail!("--dtype '{other}': use f32, bf16 or f16"),
    }
}
