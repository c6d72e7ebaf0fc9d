//! `palimpsest audit`: who changed what, when and why, and the proof of it.

mod facts;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;

use crate::audit::{Checkpoint, Verifier, leaf_hash, merkle};
use crate::cli::connection::{Connection, Need};
use crate::cli::signals::asked_to_stop;
use crate::cli::{names, output};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::plot::table::{Align, Table};
use crate::proto::v1;

/// Subcommands of `audit`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List entries, the oldest first
    List(Box<ListArgs>),
    /// Follow the log: entries as they are made, one JSON object a line
    Watch {
        /// The last entry that was seen
        #[arg(long, default_value_t = 0, value_name = "SEQUENCE")]
        after: u64,
    },
    /// Print the newest signed checkpoint: keep it to prove later that the log only grew
    Checkpoint,
    /// Print the key that verifies checkpoints
    Key,
    /// Read the whole log and hash it again, trusting nothing but the key
    Verify {
        /// A checkpoint that was kept ('audit checkpoint'): the log must go on from it
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
        /// The key that was noted when the store was new ('audit key')
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Prove that an entry is in the log, as one JSON object
    Prove {
        /// The entry
        sequence: u64,
    },
    /// Print all entries as JSON lines, each with the bytes that are hashed
    Export,
    /// Ask every fact that the edits of a version wrote again: which hold, which a later edit broke.
    /// Ends with 0 where all hold that no later edit wrote again, with 3 where some do not
    Facts(Box<facts::Args>),
}

/// Flags of `audit list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those of this user
    #[arg(long, value_name = "USER")]
    principal: Option<String>,
    /// Only this action, or all of a kind: refs, refs.update, edits, jobs, models
    #[arg(long)]
    action: Option<String>,
    /// Only this resource, or all below it: models/gpt2
    #[arg(long)]
    resource: Option<String>,
    /// Only what was refused
    #[arg(long)]
    refused: bool,
    /// Only from this time on: 2026-01-31T18:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<jiff::Timestamp>,
    /// Only before this time
    #[arg(long, value_name = "TIME")]
    until: Option<jiff::Timestamp>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs a subcommand.
pub async fn run(command: Command, config: &ClientConfig) -> anyhow::Result<ExitCode> {
    let need = match command {
        Command::Facts(_) => Need::Work,
        _ => Need::Records,
    };
    let connection = Connection::open(config, need).await?;
    let client = connection.client().clone();
    let success = |()| ExitCode::SUCCESS;
    let done = match command {
        Command::List(args) => list(&client, &args).await.map(success),
        Command::Watch { after, .. } => tokio::select! {
            done = watch(&client, after) => done.map(success),
            () = asked_to_stop() => Ok(ExitCode::SUCCESS),
        },
        Command::Checkpoint => print_checkpoint(&client).await.map(success),
        Command::Key => print_key(&client).await.map(success),
        Command::Verify {
            since, key, json, ..
        } => verify(&client, since.as_deref(), key.as_deref(), json).await,
        Command::Prove { sequence, .. } => prove(&client, sequence).await.map(success),
        Command::Export => export(&client).await.map(success),
        Command::Facts(args) => connection.wait(facts::audit(&args, &connection)).await,
    };
    drop(client);
    connection.close().await;
    done
}

async fn checkpoint(client: &Client) -> anyhow::Result<v1::AuditCheckpoint> {
    let request = v1::GetAuditCheckpointRequest {};
    let response = client.audit().get_audit_checkpoint(request).await?;
    Ok(response.into_inner().checkpoint.unwrap_or_default())
}

/// The note is kept byte by byte; one that would steer a terminal is none.
async fn print_checkpoint(client: &Client) -> anyhow::Result<()> {
    let note = checkpoint(client).await?.note;
    if note.chars().any(|c| c.is_control() && c != '\n') {
        bail!("the server's checkpoint has control characters: it is no signed note");
    }
    Ok(output::raw(note.as_bytes())?)
}

async fn print_key(client: &Client) -> anyhow::Result<()> {
    let found = checkpoint(client).await?;
    Ok(show!("{}", found.verifier_key)?)
}

/// Hands entries to `take` until it fails.
async fn read(
    client: &Client,
    wanted: v1::ListAuditEntriesRequest,
    mut take: impl FnMut(v1::AuditLeaf) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut taken = Ok(());
    let each = |leaf| {
        taken = take(leaf);
        taken.is_ok()
    };
    client.each_audit_entry(&wanted, each).await?;
    taken
}

fn to_json(leaf: &v1::AuditLeaf, with_bytes: bool) -> serde_json::Value {
    let entry = leaf.entry.clone().unwrap_or_default();
    let mut object = serde_json::json!({
        "sequence": entry.sequence,
        "time": names::timestamp(entry.time.as_ref()),
        "principal": entry.principal,
        "action": entry.action,
        "resource": entry.resource,
        "outcome": outcome(&entry),
        "refusal": entry.refusal,
        "why": entry.why,
        "detail": entry.detail,
        "request_digest": entry.request_digest,
        "version_before": entry.version_before,
        "version_after": entry.version_after,
        "previous_root": merkle::hex(&entry.previous_root),
    });
    if with_bytes && let Some(object) = object.as_object_mut() {
        object.insert("leaf_hash".to_owned(), merkle::hex(&leaf_hash(leaf)).into());
        object.insert("leaf".to_owned(), BASE64.encode(&leaf.leaf).into());
    }
    object
}

fn outcome(entry: &v1::AuditEntry) -> String {
    output::word(entry.outcome().as_str_name(), "AUDIT_OUTCOME_")
}

async fn list(client: &Client, args: &ListArgs) -> anyhow::Result<()> {
    let time = |time: &jiff::Timestamp| prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    };
    let outcome_wanted = if args.refused {
        v1::AuditOutcome::Refused
    } else {
        v1::AuditOutcome::Unspecified
    };
    let request = v1::ListAuditEntriesRequest {
        principal: args.principal.clone().unwrap_or_default(),
        action: args.action.clone().unwrap_or_default(),
        resource: args.resource.clone().unwrap_or_default(),
        outcome: outcome_wanted as i32,
        start_time: args.from.as_ref().map(time),
        end_time: args.until.as_ref().map(time),
        ..Default::default()
    };
    let mut table = Table::new(&[
        ("SEQ", Align::Right),
        ("TIME", Align::Left),
        ("WHO", Align::Left),
        ("WHAT", Align::Left),
        ("OUTCOME", Align::Left),
        ("RESOURCE", Align::Left),
        ("VERSIONS", Align::Left),
        ("WHY", Align::Left),
    ]);
    read(client, request, |leaf| {
        if args.json {
            output::json(&to_json(&leaf, false))?;
            return Ok(());
        }
        let entry = leaf.entry.unwrap_or_default();
        let versions = match (entry.version_before.as_str(), entry.version_after.as_str()) {
            ("", "") => String::new(),
            ("", after) => names::brief(after).to_owned(),
            (before, after) => format!("{} -> {}", names::brief(before), names::brief(after)),
        };
        let words = [&entry.refusal, &entry.why, &entry.detail];
        let said = words.into_iter().find(|words| !words.is_empty());
        let said = said.cloned().unwrap_or_default();
        table.row([
            &entry.sequence.to_string(),
            &output::time(entry.time.as_ref()),
            &entry.principal,
            &entry.action,
            &outcome(&entry),
            &entry.resource,
            &versions,
            &said,
        ]);
        Ok(())
    })
    .await?;
    if args.json {
        return Ok(());
    }
    Ok(output::print_table(&table)?)
}

async fn watch(client: &Client, mut after: u64) -> anyhow::Result<()> {
    loop {
        let request = v1::WatchAuditEntriesRequest {
            after_sequence: after,
        };
        let mut stream = client
            .audit()
            .watch_audit_entries(request)
            .await?
            .into_inner();
        while let Some(message) = stream.next().await {
            let message = match message {
                Ok(message) => message,
                // A coordinator that restarts: asked again where the stream broke.
                Err(status) if status.code() == tonic::Code::Unavailable => break,
                Err(status) => return Err(status.into()),
            };
            for leaf in &message.leaves {
                output::json(&to_json(leaf, false))?;
                after = leaf.entry.as_ref().map_or(after, |entry| entry.sequence);
            }
            output::flush()?;
        }
    }
}

async fn export(client: &Client) -> anyhow::Result<()> {
    read(client, v1::ListAuditEntriesRequest::default(), |leaf| {
        output::json(&to_json(&leaf, true))?;
        Ok(())
    })
    .await
}

async fn prove(client: &Client, sequence: u64) -> anyhow::Result<()> {
    let request = v1::ProveAuditEntryRequest { sequence };
    let proof = client
        .audit()
        .prove_audit_entry(request)
        .await?
        .into_inner();
    let (leaf, signed) = (
        proof.leaf.unwrap_or_default(),
        proof.checkpoint.unwrap_or_default(),
    );
    let checkpoint = Checkpoint::verify(&signed.note, &signed.verifier_key)?;
    let path: Option<Vec<merkle::Hash>> = proof
        .path
        .iter()
        .map(|hash| hash.as_slice().try_into().ok())
        .collect();
    let path = path.context("the proof has hashes that are not of 32 bytes")?;
    let hash = leaf_hash(&leaf);
    let index = sequence - 1;
    if !merkle::is_included(&hash, index, checkpoint.size, &path, &checkpoint.root) {
        bail!("the server's proof does not hold: entry {sequence} is not under its checkpoint");
    }
    let object = serde_json::json!({
        "entry": to_json(&leaf, true),
        "index": index,
        "size": checkpoint.size,
        "path": path.iter().map(|hash| merkle::hex(hash)).collect::<Vec<_>>(),
        "root": merkle::hex(&checkpoint.root),
        "checkpoint": signed.note,
        "verifier_key": signed.verifier_key,
    });
    say!("entry {sequence} is in the log: the path leads to the signed root");
    output::json(&object)?;
    Ok(())
}

async fn verify(
    client: &Client,
    since: Option<&Path>,
    key: Option<&str>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    // The server's own look finds what it does not even hand out.
    let request = v1::VerifyAuditLogRequest {};
    let theirs = client.audit().verify_audit_log(request).await?.into_inner();
    let mut problems = theirs.problems;
    let mut entries = theirs.entries;
    if let Some(signed) = theirs.checkpoint {
        let trusted = key.unwrap_or(&signed.verifier_key);
        match Checkpoint::verify(&signed.note, trusted) {
            Ok(read) if read.size == signed.size && read.root[..] == signed.root[..] => {}
            Ok(_) => problems.push("the checkpoint says something else than its note".to_owned()),
            Err(error) => problems.push(error.to_string()),
        }
        let kept = match since {
            Some(file) => Some(kept(file, trusted)?),
            None => None,
        };
        if problems.is_empty() {
            let mut verifier = Verifier::new(Some(&signed), kept.as_ref());
            let all = v1::ListAuditEntriesRequest::default();
            read(client, all, |leaf| {
                let place = leaf.entry.as_ref().map_or(0, |entry| entry.sequence);
                // What was appended meanwhile is not under this checkpoint.
                if place <= signed.size {
                    verifier.leaf(&leaf);
                }
                Ok(())
            })
            .await?;
            let ours = verifier.end();
            entries = ours.entries;
            problems.extend(ours.problems);
        }
        if json {
            let (root, size) = (merkle::hex(&signed.root), signed.size);
            return report(entries, &problems, Some((root, size, trusted)));
        }
        if problems.is_empty() {
            show!("{}", merkle::hex(&signed.root))?;
            say!("the audit log is whole: {entries} entries, signed by {trusted}");
            if let Some(kept) = kept {
                say!(
                    "it goes on from the {} entries of the kept checkpoint",
                    kept.size
                );
            }
            return Ok(ExitCode::SUCCESS);
        }
    }
    if json {
        return report(entries, &problems, None);
    }
    for problem in &problems {
        say!("damaged: {problem}");
    }
    say!("{} problems in {entries} entries", problems.len());
    Ok(ExitCode::FAILURE)
}

/// What was found, for programs; `signed` is the checkpoint's root, its entries and the key it was
/// held against.
fn report(
    entries: u64,
    problems: &[String],
    signed: Option<(String, u64, &str)>,
) -> anyhow::Result<ExitCode> {
    let signed = signed.map(|(root, size, key)| {
        serde_json::json!({ "root": root, "entries": size, "verifier_key": key })
    });
    let whole = problems.is_empty() && signed.is_some();
    output::json(&serde_json::json!({
        "whole": whole, "entries": entries, "problems": problems, "checkpoint": signed,
    }))?;
    Ok(match whole {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// A checkpoint that was kept in a file.
fn kept(file: &Path, key: &str) -> anyhow::Result<v1::AuditCheckpoint> {
    let note =
        crate::text::utf8::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let read = Checkpoint::verify(&note, key).with_context(|| file.display().to_string())?;
    Ok(v1::AuditCheckpoint {
        note,
        size: read.size,
        root: read.root.to_vec(),
        verifier_key: key.to_owned(),
    })
}
