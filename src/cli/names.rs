//! How people name models, versions, edits and jobs, and how versions and edits are described.

use anyhow::bail;

use super::output;
use crate::audit::Manifest;
use crate::client::Client;
use crate::proto::v1;
use crate::version::{digest_of, short};

/// The resource name of a version that a user named in their way: `v3`, a digest's beginning, a
/// ref, `main~2`.
pub fn version(model: &str, text: &str) -> String {
    if text.starts_with("models/") {
        text.to_owned()
    } else {
        format!("{model}/versions/{text}")
    }
}

/// A version by what a user calls it, without its list of edits.
pub async fn get_version(client: &Client, model: &str, text: &str) -> anyhow::Result<v1::Version> {
    let request = v1::GetVersionRequest {
        name: version(model, text),
        without_edits: true,
    };
    let response = client.versions().get_version(request).await?.into_inner();
    Ok(response.version.unwrap_or_default())
}

/// A version by its name, with its edits, however many they are.
pub async fn whole_version(client: &Client, name: &str) -> anyhow::Result<v1::Version> {
    let request = v1::GetVersionRequest {
        name: name.to_owned(),
        without_edits: false,
    };
    let response = client.versions().get_version(request).await?.into_inner();
    let mut version = response.version.unwrap_or_default();
    if (version.edits.len() as u64) < version.edit_count {
        let edits = &mut version.edits;
        client
            .each_edit(name, |edit| {
                edits.push(digest_of(&edit.name).to_owned());
                true
            })
            .await?;
    }
    Ok(version)
}

/// Versions, the newest first; with `start`, only that one and its ancestors.
pub async fn versions(
    client: &Client,
    model: &str,
    start: Option<&str>,
    limit: usize,
) -> anyhow::Result<Vec<v1::Version>> {
    let mut versions = Vec::new();
    let mut wanted = start.map(|start| digest_of(start).to_owned());
    let take = |version: v1::Version| {
        if let Some(next) = &mut wanted {
            if digest_of(&version.name) != *next {
                return true;
            }
            next.clone_from(&version.parent);
        }
        versions.push(version);
        versions.len() < limit
    };
    client.each_version(model, take).await?;
    Ok(versions)
}

/// An edit by its digest or the beginning of it.
pub async fn edit(client: &Client, model: &str, text: &str) -> anyhow::Result<v1::Edit> {
    let name = if text.starts_with("models/") {
        text.to_owned()
    } else {
        format!("{model}/edits/{text}")
    };
    let request = v1::GetEditRequest { name };
    let response = client.versions().get_edit(request).await?.into_inner();
    Ok(response.edit.unwrap_or_default())
}

/// The end of a resource name as people read it: twelve digits of a digest.
pub fn brief(name: &str) -> &str {
    short(digest_of(name))
}

/// A fact that an edit writes, in a line.
pub fn request(request: &v1::EditRequest) -> String {
    let prompt = request.prompt.replacen("{}", &request.subject, 1);
    format!("{} -> {}", prompt.trim(), request.target_new.trim())
}

/// What an edit writes, in a line.
pub fn fact(edit: &v1::Edit) -> String {
    let facts: Vec<String> = edit.requests.iter().map(request).collect();
    match facts.as_slice() {
        [] if edit.why.is_empty() => edit.method.clone(),
        [] => format!("{}: {}", edit.method, edit.why),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// What a version is, in a word: `edit`, `revert`.
pub fn kind(version: &v1::Version) -> String {
    output::word(version.kind().as_str_name(), "VERSION_KIND_").replace(' ', "-")
}

/// A version as JSON.
pub fn to_json(version: &v1::Version) -> serde_json::Value {
    serde_json::json!({
        "name": version.name,
        "number": version.number,
        "base": version.base,
        "parent": version.parent,
        "kind": kind(version),
        "edit": version.subject_edit,
        "edits": version.edits,
        "edit_count": version.edit_count,
        "matrices": version.matrices.iter().map(|matrix| serde_json::json!({
            "tensor": matrix.tensor_name, "layer": matrix.layer, "dtype": matrix.dtype,
            "digest": matrix.digest,
        })).collect::<Vec<_>>(),
        "author": version.author,
        "time": timestamp(version.create_time.as_ref()),
        "why": version.why,
        "warnings": version.warnings,
        "request_digest": version.request_digest,
    })
}

/// What an edit asks for, as JSON.
pub fn requests_to_json(edit: &v1::Edit) -> serde_json::Value {
    let requests = edit.requests.iter().map(|request| {
        serde_json::json!({
            "prompt": request.prompt, "subject": request.subject,
            "target_new": request.target_new, "target_true": request.target_true,
            "id": request.id,
        })
    });
    requests.collect()
}

/// An edit as JSON, without its factors' numbers.
pub fn edit_to_json(edit: &v1::Edit) -> serde_json::Value {
    let numbers = |list: &[v1::NamedNumber]| -> serde_json::Map<String, serde_json::Value> {
        list.iter()
            .map(|n| (n.key.clone(), n.value.into()))
            .collect()
    };
    serde_json::json!({
        "name": edit.name,
        "state": output::word(edit.state().as_str_name(), "EDIT_STATE_"),
        "failed_gates": edit.failed_gates,
        "warnings": edit.warnings,
        "method": edit.method,
        "layer_choice": edit.layer_choice,
        "requests": requests_to_json(edit),
        "parameters": numbers(&edit.parameters),
        "figures": numbers(&edit.figures),
        "contexts": edit.contexts,
        "seed": edit.seed,
        "statistics": edit.statistics,
        "factors": edit.factors.iter().map(|factor| serde_json::json!({
            "tensor": factor.tensor_name, "layer": factor.layer, "rank": factor.rank,
            "width": factor.width, "inner": factor.inner, "digest": factor.digest,
        })).collect::<Vec<_>>(),
        "base": edit.base,
        "based_on": edit.based_on,
        "replaces": edit.replaces,
        "left_out": edit.left_out.iter().map(request).collect::<Vec<_>>(),
        "author": edit.author,
        "time": timestamp(edit.create_time.as_ref()),
        "why": edit.why,
        "request_digest": edit.request_digest,
        "job": edit.job,
    })
}

/// A time as RFC 3339, for programs.
pub fn timestamp(time: Option<&prost_types::Timestamp>) -> Option<String> {
    let time = time?;
    let time = jiff::Timestamp::new(time.seconds, time.nanos).ok()?;
    Some(time.to_string())
}

/// What an author signs of a version.
pub fn manifest(version: &v1::Version) -> Manifest {
    let time = timestamp(version.create_time.as_ref());
    Manifest::of(version, time.unwrap_or_default())
}

/// The last part of a resource name, whole.
pub fn full(name: &str) -> &str {
    digest_of(name)
}

/// The one model that a command means: by name, or the only one there is.
pub async fn model(client: &Client, asked: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = asked {
        return Ok(if name.starts_with("models/") {
            name.to_owned()
        } else {
            format!("models/{name}")
        });
    }
    let models = client.all_models().await?;
    match models.as_slice() {
        [only] => Ok(only.name.clone()),
        [] => bail!("there is no model yet: 'palimpsest model import' makes one"),
        several => {
            let names: Vec<_> = several
                .iter()
                .map(|m| m.name.trim_start_matches("models/"))
                .collect();
            bail!("name one of the models with --model: {}", names.join(", "))
        }
    }
}

/// The full name of the job that is meant.
pub async fn job(client: &Client, asked: &str) -> anyhow::Result<String> {
    let id = asked.strip_prefix("jobs/").unwrap_or(asked);
    if let Ok(id) = uuid::Uuid::try_parse(id) {
        return Ok(crate::wire::names::job(id));
    }
    let jobs = client.all_jobs().await?;
    let mut fitting = jobs
        .iter()
        .filter(|job| id == "latest" || job.name.ends_with(id));
    let Some(found) = fitting.next() else {
        bail!("there is no job '{asked}': 'palimpsest job list' shows those there are");
    };
    if id != "latest" && fitting.next().is_some() {
        bail!("several jobs end in '{asked}': give more of the name");
    }
    Ok(found.name.clone())
}
