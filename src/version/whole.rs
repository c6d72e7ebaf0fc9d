//! Whether all that versions are made of is stored (I9).

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::history::{digest_of, short};
use super::kept::rows_of;
use super::{Error, Factor, History};
use crate::objects::Digest;
use crate::proto::v1;

/// Edits that are remembered, at most: some ten megabytes.
const REMEMBERED: usize = 1 << 18;

/// The edits that were seen to be whole since the program began: each is looked through once,
/// however many versions have it.
#[derive(Debug, Default)]
pub struct WholeVersions {
    edits: Mutex<HashSet<Digest>>,
}

impl WholeVersions {
    /// [`check_whole`] of those edits that were not seen before.
    ///
    /// # Errors
    /// Those of [`check_whole`].
    pub fn check(&self, history: History<'_>, version: &v1::Version) -> Result<Whole, Error> {
        let content = history.content(version)?;
        let unseen: Vec<Digest> = {
            let seen = self.edits();
            let all = content.edits.iter().copied();
            all.filter(|edit| !seen.contains(edit)).collect()
        };
        check_edits(history, version, &unseen)?;
        let mut edits = self.edits();
        if edits.len() + unseen.len() > REMEMBERED {
            edits.clear();
        }
        edits.extend(unseen.into_iter().take(REMEMBERED));
        Ok(Whole {
            name: version.name.clone(),
        })
    }

    fn edits(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.edits.lock().unwrap_or_else(PoisonError::into_inner)
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
    check_edits(history, version, &history.content(version)?.edits)?;
    Ok(Whole {
        name: version.name.clone(),
    })
}

fn check_edits(history: History<'_>, version: &v1::Version, edits: &[Digest]) -> Result<(), Error> {
    let missing = |what, digest: &str| Error::Missing {
        what,
        digest: digest.to_owned(),
        version: short(digest_of(&version.name)).to_owned(),
    };
    for id in edits {
        let id = id.to_string();
        let edit = history.store().edit(history.model(), &id)?;
        let edit = edit.ok_or_else(|| missing("the edit", &id))?;
        for described in &edit.factors {
            let digest: Digest = described.digest.parse()?;
            let size = history.store().objects().size(&digest)?;
            if size.is_none() || size != Factor::bytes(described) {
                return Err(missing("the factor", &described.digest));
            }
        }
        for rows in rows_of(&edit) {
            let digest: Digest = rows.digest.parse()?;
            let size = history.store().objects().size(&digest)?;
            if size.is_none() || size != rows.bytes() {
                return Err(missing("what an edit keeps,", rows.digest));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::{Change, Record, Store};
    use crate::version::{Authorship, RefMovement, edit_id, version_id, version_name};

    #[test]
    fn a_ref_moves_to_a_version_of_any_number_of_edits_by_reading_the_ref_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let history = History::new(&store, "m", "base");
        let mut changes = Vec::new();
        let mut ids = Vec::new();
        for n in 0..400 {
            let edit = v1::Edit {
                method: format!("try {n}"),
                ..Default::default()
            };
            ids.push(edit_id(&edit).to_string());
            let records = Record::edit("m", n + 1, &edit);
            changes.extend(records.into_iter().map(Change::Record));
        }
        let mut version = v1::Version {
            parent: "p".to_owned(),
            edits: ids,
            ..Default::default()
        };
        version.name = version_name("m", &version_id(&version).to_string());
        let records = Record::version("m", 1, &version).map(Change::Record);
        changes.extend(records);
        store.commit(&changes).unwrap();
        let seen = WholeVersions::default();
        let reads = |what: &dyn Fn()| {
            let before = store.reads();
            what();
            store.reads() - before
        };
        // Before a turn, and once: every edit.
        let first = reads(&|| drop(seen.check(history, &version).unwrap()));
        assert!(first >= 400, "{first}");
        let again = reads(&|| drop(seen.check(history, &version).unwrap()));
        assert!(again < 20, "{again}");
        // In the turn, while everybody waits.
        let whole = seen.check(history, &version).unwrap();
        let by = Authorship::default();
        let moved = reads(&|| {
            let movement = RefMovement {
                ref_id: "main",
                expected: Vec::new(),
                force: false,
                by: &by,
            };
            movement.to_stored(history, &whole).unwrap();
        });
        assert_eq!(moved, 1, "the ref");
    }

    #[test]
    fn an_edit_is_looked_through_once_however_many_versions_have_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let history = History::new(&store, "m", "base");
        let seen = WholeVersions::default();
        let put = |edits: &[&v1::Edit], number: u64| {
            let mut version = v1::Version {
                parent: "p".to_owned(),
                edits: edits.iter().map(|it| edit_id(it).to_string()).collect(),
                ..Default::default()
            };
            version.name = version_name("m", &version_id(&version).to_string());
            let records = Record::version("m", number, &version).map(Change::Record);
            store.commit(&records).unwrap();
            version
        };
        let numbers = store.objects().put(&[0; 24]).unwrap();
        let edit = |why: &str, digest: &str| v1::Edit {
            why: why.to_owned(),
            factors: vec![v1::LowRankFactor {
                // Stored whole: its size is that of the matrix.
                width: 2,
                inner: 3,
                rank: 0,
                digest: digest.to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let (kept, lost) = (
            edit("kept", &numbers.to_string()),
            edit("lost", &"ab".repeat(32)),
        );
        for (n, edit) in [&kept, &lost].into_iter().enumerate() {
            let records = Record::edit("m", n as u64 + 1, edit).map(Change::Record);
            store.commit(&records).unwrap();
        }
        let refused = seen.check(history, &put(&[&kept, &lost], 1)).unwrap_err();
        assert!(
            matches!(&refused, Error::Missing { what: "the factor", digest, .. } if digest.starts_with("abab")),
            "{refused}"
        );
        seen.check(history, &put(&[&kept], 2)).unwrap();
        // Seen to be whole, it is not looked at again in another version.
        std::fs::remove_file(store.objects().path(&numbers)).unwrap();
        seen.check(history, &put(&[&kept, &kept], 3)).unwrap();
    }
}
