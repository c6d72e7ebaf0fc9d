//! How commands name and describe versions and edits.

use crate::client::Client;
use crate::proto::v1;
use crate::version::{digest_of, short};

/// The resource name of a version that a user named in their way: `v3`, a digest's beginning, a
/// ref, `main~2`.
pub fn name(model: &str, text: &str) -> String {
    if text.starts_with("models/") {
        text.to_owned()
    } else {
        format!("{model}/versions/{text}")
    }
}

/// A version by what a user calls it.
pub async fn get(client: &Client, model: &str, text: &str) -> anyhow::Result<v1::Version> {
    let request = v1::GetVersionRequest {
        name: name(model, text),
    };
    let response = client.versions().get_version(request).await?.into_inner();
    Ok(response.version.unwrap_or_default())
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

/// The edits of a model, without their contexts.
pub async fn edits(client: &Client, model: &str) -> anyhow::Result<Vec<v1::Edit>> {
    let mut edits = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListEditsRequest {
            parent: model.to_owned(),
            page_size: 1000,
            page_token,
        };
        let page = client.versions().list_edits(request).await?.into_inner();
        edits.extend(page.edits);
        if page.next_page_token.is_empty() {
            return Ok(edits);
        }
        page_token = page.next_page_token;
    }
}

/// The refs of a model.
pub async fn refs(client: &Client, model: &str) -> anyhow::Result<Vec<v1::Ref>> {
    let mut refs = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListRefsRequest {
            parent: model.to_owned(),
            page_size: 0,
            page_token,
        };
        let page = client.versions().list_refs(request).await?.into_inner();
        refs.extend(page.refs);
        if page.next_page_token.is_empty() {
            return Ok(refs);
        }
        page_token = page.next_page_token;
    }
}

/// The end of a resource name as people read it: twelve digits of a digest.
pub fn brief(name: &str) -> &str {
    short(digest_of(name))
}

/// What an edit writes, in a line.
pub fn fact(edit: &v1::Edit) -> String {
    let facts: Vec<String> = edit
        .requests
        .iter()
        .map(|request| {
            let prompt = request.prompt.replacen("{}", &request.subject, 1);
            format!("{} -> {}", prompt.trim(), request.target_new.trim())
        })
        .collect();
    match facts.as_slice() {
        [] if edit.why.is_empty() => edit.method.clone(),
        [] => format!("{}: {}", edit.method, edit.why),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// What a version is, in a word: `edit`, `revert`.
pub fn kind(version: &v1::Version) -> String {
    super::output::word(version.kind().as_str_name(), "VERSION_KIND_").replace(' ', "-")
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

/// An edit as JSON, without its factors' numbers.
pub fn edit_to_json(edit: &v1::Edit) -> serde_json::Value {
    let numbers = |list: &[v1::NamedNumber]| -> serde_json::Map<String, serde_json::Value> {
        list.iter()
            .map(|n| (n.key.clone(), n.value.into()))
            .collect()
    };
    serde_json::json!({
        "name": edit.name,
        "state": super::output::word(edit.state().as_str_name(), "EDIT_STATE_"),
        "failed_gates": edit.failed_gates,
        "warnings": edit.warnings,
        "method": edit.method,
        "layer_choice": edit.layer_choice,
        "requests": edit.requests.iter().map(|request| serde_json::json!({
            "prompt": request.prompt, "subject": request.subject,
            "target_new": request.target_new, "target_true": request.target_true,
            "id": request.id,
        })).collect::<Vec<_>>(),
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

/// The last part of a resource name, whole.
pub fn full(name: &str) -> &str {
    digest_of(name)
}
