//! Which edits were computed on top of one that is taken out.

use std::collections::HashMap;

use super::history::{digest_of, short};
use super::{Error, History};
use crate::proto::v1::{self, VersionKind};
use crate::store::Content;

/// The edits of a list behind a place that were computed on a version with the edit in that place,
/// or with one for which it stands, or on one that this store does not know. Every version is
/// looked at once, however many edits were computed on it or above it.
///
/// # Errors
/// [`Error::Unknown`] for an edit that is not stored; [`Error::Store`] when a record is damaged.
pub fn later(
    history: History<'_>,
    content: &Content,
    at: usize,
    edit: &v1::Edit,
) -> Result<Vec<String>, Error> {
    let ids = with_those_before(history, edit)?;
    let mut known = HashMap::new();
    let mut found = Vec::new();
    for later in &content.edits[at + 1..] {
        let ground = history.edit_of(later)?.based_on;
        if has(history, digest_of(&ground), &ids, &mut known)? {
            found.push(short(&later.to_string()).to_owned());
        }
    }
    Ok(found)
}

/// An edit's digest, and those of the edits for which it stands, one in the place of the other.
fn with_those_before(history: History<'_>, edit: &v1::Edit) -> Result<Vec<String>, Error> {
    let mut ids = vec![digest_of(&edit.name).to_owned()];
    let mut before = edit.replaces.clone();
    while !before.is_empty() && !ids.contains(&before) {
        let next = match history.edit(&before) {
            Ok(edit) => edit.replaces,
            // One that this store does not know says nothing of those before it.
            Err(Error::Unknown { .. }) => String::new(),
            Err(error) => return Err(error),
        };
        ids.push(std::mem::replace(&mut before, next));
    }
    Ok(ids)
}

/// Whether a version has one of these edits, found by going back to where it was added or taken
/// out.
fn has(
    history: History<'_>,
    version: &str,
    ids: &[String],
    known: &mut HashMap<String, bool>,
) -> Result<bool, Error> {
    let mut passed = Vec::new();
    let mut at = version.to_owned();
    let has = loop {
        if let Some(&has) = known.get(&at) {
            break has;
        }
        let version = match history.manifest(&at) {
            Ok(version) => version,
            // Computed on a version that this store does not know.
            Err(Error::Unknown { .. }) => break true,
            Err(error) => return Err(error),
        };
        passed.push(std::mem::take(&mut at));
        if version.parent.is_empty() {
            break false;
        }
        if ids.contains(&version.subject_edit) {
            break version.kind() != VersionKind::Revert;
        }
        if ids.contains(&version.replaced_edit) {
            break false;
        }
        if version.edits_digest.is_empty() {
            break version.edits.iter().any(|other| ids.contains(other));
        }
        at = version.parent;
    };
    known.extend(passed.into_iter().map(|version| (version, has)));
    Ok(has)
}

/// The warning that edits were computed on top of one that was reverted, or computed again, in few
/// words whatever their number: every version keeps its own.
pub fn warnings(changed: &str, how: &str, later: &[String]) -> Vec<String> {
    const NAMED: usize = 3;
    let changed = short(changed);
    if later.len() <= NAMED {
        let warn = |edit| format!("edit {edit} was computed on top of {changed}, which {how}");
        return later.iter().map(warn).collect();
    }
    vec![format!(
        "{} later edits were computed on top of {changed}, which {how}: {} and {} more",
        later.len(),
        later[..NAMED].join(", "),
        later.len() - NAMED
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revert_warns_in_few_words_however_many_edits_were_built_on_it() {
        let later: Vec<String> = (0..5000).map(|n| format!("edit{n}")).collect();
        let of = |later: &[String]| warnings("reverted", "was reverted", later);
        assert_eq!(of(&[]), Vec::<String>::new());
        assert_eq!(of(&later[..3]).len(), 3);
        let [warning] = &of(&later)[..] else {
            panic!("more than one");
        };
        assert!(warning.starts_with("5000 later edits"), "{warning}");
        assert!(
            warning.len() < 200 && warning.contains("and 4997 more"),
            "{warning}"
        );
    }
}
