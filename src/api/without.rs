//! Facts that are taken out of an edit of many: what the edit keeps, put into the job.

use tonic::Status;

use super::status::{Reason, failed_precondition, invalid_argument};
use crate::edit::Method;
use crate::objects::Digest;
use crate::proto::v1;
use crate::version::{self, History, digest_of, rows_of, short};
use crate::wire::names;
use crate::work::Items;

/// Fills in what the edit says; gives all its facts, in its order.
///
/// # Errors
/// `INVALID_ARGUMENT` for facts that are not of it or not to be taken out; `NOT_FOUND`;
/// `FAILED_PRECONDITION` when the version does not have it, or what it was solved from is not
/// stored.
pub(super) fn resolve(
    history: History<'_>,
    version: &str,
    spec: &mut v1::MassEditSpec,
) -> Result<Items, Status> {
    let asked = spec.without.as_ref().map_or("", |it| it.edit.as_str());
    let field = "job.mass_edit.without.edit";
    let id = match names::of_model(asked, "edits") {
        Some((model, id)) if model == history.model() => id,
        _ => {
            let model = history.model();
            let what = format!(
                "'{asked}' is no edit of models/{model}: name it as models/{model}/edits/EDIT"
            );
            return Err(invalid_argument(field, what));
        }
    };
    let edit = history.edit(id)?;
    let digest: Digest = digest_of(&edit.name)
        .parse()
        .map_err(version::Error::from)?;
    let brief = short(digest_of(&edit.name));
    let at = history.manifest(digest_of(version))?;
    if !history.content(&at)?.edits.contains(&digest) {
        let not_there = version::Error::NotThere {
            edit: brief.to_owned(),
            version: short(digest_of(version)).to_owned(),
        };
        return Err(not_there.into());
    }
    let items = spec
        .take_from(&edit)
        .map_err(|(field, what)| invalid_argument(field, what))?;
    if let Some(without) = &mut spec.without {
        without.edit.clone_from(&edit.name);
    }
    let missing = |what: String| {
        let message = format!(
            "{what}: 'palimpsest revert {brief}' takes the whole of edit {brief} out, and its other facts \
             can then be written again"
        );
        failed_precondition(Reason::ObjectMissing, message)
    };
    let objects = history.store().objects();
    for rows in rows_of(&edit) {
        let digest: Digest = rows.digest.parse().map_err(version::Error::from)?;
        let size = objects.durable_size(&digest)?;
        if size.is_none() || size != rows.bytes() {
            return Err(missing(format!(
                "the keys and residuals that edit {brief} was solved from, {digest}, are not stored"
            )));
        }
    }
    let keeps = spec.method.parse::<Method>().is_ok_and(Method::keeps_keys);
    if keeps && let Err(error) = history.manifest(digest_of(&edit.based_on)) {
        return Err(missing(format!(
            "the version that edit {brief} was computed on, whose edits' keys it protects, cannot be read: \
             {error}"
        )));
    }
    spec.statistics.clear();
    for (n, &layer) in spec.layers.iter().enumerate() {
        let named = edit.statistics.get(n).map_or("", String::as_str);
        let size = match named.parse::<Digest>() {
            Ok(digest) => objects.durable_size(&digest)?,
            Err(_) => None,
        };
        let Some(size) = size else {
            return Err(missing(format!(
                "the key statistics of layer {layer} that edit {brief} was computed with, {named}, are no \
                 longer stored"
            )));
        };
        spec.statistics.push(v1::mass_edit_spec::Statistics {
            layer,
            digest: named.to_owned(),
            size,
        });
    }
    Ok(items)
}
