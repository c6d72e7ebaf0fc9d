//! Which edits were computed on top of one that is taken out.

use std::collections::HashMap;

use super::history::{digest_of, short};
use super::{Error, History};
use crate::proto::v1::VersionKind;
use crate::store::Content;

/// The edits of a list behind a place that were computed on a version with the edit in that place,
/// or on one that this store does not know. Every version is looked at once, however many edits
/// were computed on it or above it.
///
/// # Errors
/// [`Error::Unknown`] for an edit that is not stored; [`Error::Store`] when a record is damaged.
pub fn later(history: History<'_>, content: &Content, at: usize) -> Result<Vec<String>, Error> {
    let edit = content.edits[at].to_string();
    let mut known = HashMap::new();
    let mut found = Vec::new();
    for later in &content.edits[at + 1..] {
        let ground = history.edit_of(later)?.based_on;
        if has(history, digest_of(&ground), &edit, &mut known)? {
            found.push(short(&later.to_string()).to_owned());
        }
    }
    Ok(found)
}

/// Whether a version has an edit, found by going back to where it was added or taken out.
fn has(
    history: History<'_>,
    version: &str,
    edit: &str,
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
        if version.subject_edit == edit {
            break version.kind() != VersionKind::Revert;
        }
        if version.edits_digest.is_empty() {
            break version.edits.iter().any(|other| other == edit);
        }
        at = version.parent;
    };
    known.extend(passed.into_iter().map(|version| (version, has)));
    Ok(has)
}

/// The warning that edits were computed on top of one that was reverted, in few words whatever
/// their number: every version keeps its own.
pub fn warnings(reverted: &str, later: &[String]) -> Vec<String> {
    const NAMED: usize = 3;
    let reverted = short(reverted);
    if later.len() <= NAMED {
        let warn =
            |edit| format!("edit {edit} was computed on top of {reverted}, which was reverted");
        return later.iter().map(warn).collect();
    }
    vec![format!(
        "{} later edits were computed on top of {reverted}, which was reverted: {} and {} more",
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
        assert_eq!(warnings("reverted", &[]), Vec::<String>::new());
        assert_eq!(warnings("reverted", &later[..3]).len(), 3);
        let [warning] = &warnings("reverted", &later)[..] else {
            panic!("more than one");
        };
        assert!(warning.starts_with("5000 later edits"), "{warning}");
        assert!(
            warning.len() < 200 && warning.contains("and 4997 more"),
            "{warning}"
        );
    }
}
