//! Whether all that versions are made of is stored (I9).

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::history::{digest_of, short};
use super::{Error, History};
use crate::objects::Digest;
use crate::proto::v1;

/// Versions that are remembered, at most: half a megabyte.
const REMEMBERED: usize = 4096;

/// The versions that were seen to be whole since the program began: each is looked through once.
#[derive(Debug, Default)]
pub struct WholeVersions {
    names: Mutex<HashSet<String>>,
}

impl WholeVersions {
    /// [`check_whole`], if it was not seen before.
    ///
    /// # Errors
    /// Those of [`check_whole`].
    pub fn check(&self, history: History<'_>, version: &v1::Version) -> Result<Whole, Error> {
        let name = version.name.clone();
        if self.names().contains(&name) {
            return Ok(Whole { name });
        }
        let whole = check_whole(history, version)?;
        let mut names = self.names();
        if names.len() >= REMEMBERED {
            names.clear();
        }
        names.insert(name);
        Ok(whole)
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A version that was seen to be whole. What it is made of is never removed while it is there, so
/// that it stays so.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Its resource name.
    pub(super) name: String,
}

/// Sees that everything that a version is made of is stored (I9). That the bytes match is checked
/// when they are read: every one of them has its digest for a name. It takes as long as there are
/// edits: not to be done while others wait.
///
/// # Errors
/// [`Error::Missing`]; [`Error::Store`] when a record is damaged.
pub fn check_whole(history: History<'_>, version: &v1::Version) -> Result<Whole, Error> {
    let missing = |what, digest: &str| Error::Missing {
        what,
        digest: digest.to_owned(),
        version: short(digest_of(&version.name)).to_owned(),
    };
    for id in &version.edits {
        let edit = history.store().edit(history.model(), id)?;
        let edit = edit.ok_or_else(|| missing("the edit", id))?;
        for described in &edit.factors {
            let digest: Digest = described.digest.parse()?;
            let rows = described.width + described.inner;
            let bytes = rows * u64::from(described.rank) * 4;
            if history.store().objects().size(&digest)? != Some(bytes) {
                return Err(missing("the factor", &described.digest));
            }
        }
    }
    Ok(Whole {
        name: version.name.clone(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn a_version_is_looked_through_before_a_turn_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let history = History::new(&store, "m", "base");
        let seen = WholeVersions::default();
        let version = |edits: &[&str]| v1::Version {
            name: "models/m/versions/v".to_owned(),
            edits: edits.iter().map(|&edit| edit.to_owned()).collect(),
            ..Default::default()
        };
        let lost = ["a"; 10_000];
        let refused = seen.check(history, &version(&lost)).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::Missing {
                    what: "the edit",
                    ..
                }
            ),
            "{refused}"
        );
        seen.check(history, &version(&[])).unwrap();
        // Seen to be whole, it is not read again however many edits it has.
        seen.check(history, &version(&lost)).unwrap();
    }
}
