//! Reading the versions, edits and refs of a model.

use std::sync::Arc;

use super::{Error, base_version, ref_name};
use crate::objects::Digest;
use crate::proto::v1;
use crate::store::{Content, Store};

/// The branch that every model has.
pub const MAIN: &str = "main";

/// Least digits of a digest's beginning that are taken for one.
const DIGITS: usize = 6;

/// The versions of one model.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    store: &'a Store,
    model: &'a str,
    /// The digest of the base.
    base: &'a str,
}

impl<'a> History<'a> {
    /// The versions of the model with this identifier, whose base has this digest.
    pub fn new(store: &'a Store, model: &'a str, base: &'a str) -> Self {
        Self { store, model, base }
    }

    /// The model's identifier.
    pub fn model(&self) -> &'a str {
        self.model
    }

    /// The digest of the base model.
    pub fn base_digest(&self) -> &'a str {
        self.base
    }

    /// The store.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// Version 0.
    pub fn base(&self) -> v1::Version {
        base_version(self.model, self.base)
    }

    /// A version by its whole digest, with all of its edits and matrices.
    ///
    /// # Errors
    /// [`Error::Unknown`]; [`Error::Store`] when its record is damaged.
    pub fn version(&self, digest: &str) -> Result<v1::Version, Error> {
        self.filled(self.manifest(digest)?)
    }

    /// A version with all of its edits and matrices.
    ///
    /// # Errors
    /// Those of [`History::content`].
    pub fn filled(&self, version: v1::Version) -> Result<v1::Version, Error> {
        Ok(self.content(&version)?.fill(version, usize::MAX))
    }

    /// What a version has. It takes its length the first time, not its history's.
    ///
    /// # Errors
    /// [`Error::Unknown`]; [`Error::Store`] when the record of one that it stands on is damaged.
    pub fn content(&self, version: &v1::Version) -> Result<Arc<Content>, Error> {
        if version.parent.is_empty() {
            return Ok(Arc::default());
        }
        let digest = digest_of(&version.name);
        let found = self.store.content(self.model, digest)?;
        found.ok_or_else(|| self.unknown("version", digest))
    }

    /// A version as it is stored, by its whole digest: its parent, and what it adds to it.
    ///
    /// # Errors
    /// [`Error::Unknown`]; [`Error::Store`] when its record is damaged.
    pub fn manifest(&self, digest: &str) -> Result<v1::Version, Error> {
        let base = self.base();
        if digest_of(&base.name) == digest {
            return Ok(base);
        }
        self.store
            .version(self.model, digest)?
            .ok_or_else(|| self.unknown("version", digest))
    }

    /// An edit of a version.
    ///
    /// # Errors
    /// [`Error::Unknown`]; [`Error::Store`] when its record is damaged.
    pub fn edit_of(&self, digest: &Digest) -> Result<v1::Edit, Error> {
        let digest = digest.to_string();
        let found = self.store.edit(self.model, &digest)?;
        found.ok_or_else(|| self.unknown("edit", &digest))
    }

    /// An edit by its digest or the beginning of it.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Ambiguous`]; [`Error::Store`] when its record is damaged.
    pub fn edit(&self, text: &str) -> Result<v1::Edit, Error> {
        let (edits, _) = self.store.digests_with_prefix(self.model, text, 3)?;
        let digest = match edits.as_slice() {
            [only] if text.len() >= DIGITS => only,
            [] | [_] => return Err(self.unknown("edit", text)),
            several => return Err(ambiguous(text, several)),
        };
        self.store
            .edit(self.model, digest)?
            .ok_or_else(|| self.unknown("edit", text))
    }

    /// A ref. `main` is there from the start and points at the base.
    ///
    /// # Errors
    /// [`Error::Unknown`]; [`Error::Store`] when its record is damaged.
    pub fn reference(&self, id: &str) -> Result<v1::Ref, Error> {
        match self.store.reference(self.model, id)? {
            Some(reference) => Ok(reference),
            None if id == MAIN => Ok(self.main_at_base()),
            None => Err(self.unknown("ref", id)),
        }
    }

    /// Refs by identifier, after one (the empty one is before all), at most `limit`.
    ///
    /// # Errors
    /// [`Error::Store`] when a record is damaged.
    pub fn references(&self, after: &str, limit: usize) -> Result<Vec<v1::Ref>, Error> {
        let mut references = self.store.references(self.model, after, limit)?;
        if after < MAIN && self.store.reference(self.model, MAIN)?.is_none() {
            let main = self.main_at_base();
            let at = references.partition_point(|reference| reference.name < main.name);
            references.insert(at, main);
            references.truncate(limit);
        }
        Ok(references)
    }

    /// [`History::find`], with all of its edits and matrices.
    ///
    /// # Errors
    /// Those of [`History::find`].
    pub fn resolve(&self, text: &str) -> Result<v1::Version, Error> {
        self.filled(self.find(text)?)
    }

    /// The version that a text means, as it is stored: a ref, `v3`, a digest or its beginning, with `~N` behind it
    /// for an ancestor.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Ambiguous`]; [`Error::Store`] when a record is damaged.
    pub fn find(&self, text: &str) -> Result<v1::Version, Error> {
        let (name, back) = match text.split_once('~') {
            Some((name, "")) => (name, 1),
            Some((name, count)) => {
                let count = count.parse::<u32>();
                (name, count.map_err(|_| self.unknown("version", text))?)
            }
            None => (text, 0),
        };
        let mut version = self.named(name)?;
        for _ in 0..back {
            if version.parent.is_empty() {
                return Err(self.unknown("version", text));
            }
            version = self.manifest(&version.parent)?;
        }
        Ok(version)
    }

    fn named(&self, name: &str) -> Result<v1::Version, Error> {
        if name == MAIN || self.store.reference(self.model, name)?.is_some() {
            return self.manifest(digest_of(&self.reference(name)?.version));
        }
        if let Some(number) = number_of(name) {
            if number == 0 {
                return Ok(self.base());
            }
            let before = number.checked_add(1);
            return match self.store.version_digests(self.model, before, 1)?.first() {
                Some((found, digest)) if *found == number => self.manifest(digest),
                _ => Err(self.unknown("version", name)),
            };
        }
        if name.len() < DIGITS {
            return Err(self.unknown("version", name));
        }
        let (_, mut found) = self.store.digests_with_prefix(self.model, name, 3)?;
        let base = digest_of(&self.base().name).to_owned();
        if base.starts_with(name) {
            found.push(base);
        }
        match found.as_slice() {
            [only] => self.manifest(only),
            [] => Err(self.unknown("version", name)),
            several => Err(ambiguous(name, several)),
        }
    }

    fn main_at_base(&self) -> v1::Ref {
        let version = self.base().name;
        v1::Ref {
            name: ref_name(self.model, MAIN),
            etag: etag(0, &version),
            version,
            kind: v1::RefKind::Branch as i32,
            ..Default::default()
        }
    }

    fn unknown(&self, what: &'static str, name: &str) -> Error {
        Error::Unknown {
            what,
            name: name.to_owned(),
            model: self.model.to_owned(),
        }
    }
}

fn ambiguous(text: &str, found: &[String]) -> Error {
    Error::Ambiguous {
        text: text.to_owned(),
        found: found
            .iter()
            .map(|digest| short(digest).to_owned())
            .collect(),
    }
}

/// The last part of a resource name.
pub fn digest_of(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

/// As much of a digest as people need.
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// The number in `v3`.
pub(super) fn number_of(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('v')?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// Whether a text reads like the beginning of a digest.
pub(super) fn is_digest_like(text: &str) -> bool {
    text.len() >= DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A ref's etag after so many movements.
pub(super) fn etag(movements: u64, version: &str) -> String {
    format!("{movements}-{}", short(digest_of(version)))
}

/// The movements that an etag counts.
pub(super) fn movements(etag: &str) -> u64 {
    etag.split('-')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::{Change, Record};

    #[test]
    fn a_page_of_refs_reads_what_it_shows_however_many_refs_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let history = History::new(&store, "m", "base");
        let put = |numbers: std::ops::Range<u32>| {
            let refs = numbers.map(|n| {
                let id = format!("r{n:05}");
                let reference = v1::Ref {
                    name: ref_name("m", &id),
                    ..Default::default()
                };
                Change::Record(Record::reference("m", &id, &reference))
            });
            store.commit(&refs.collect::<Vec<_>>()).unwrap();
        };
        let cost = |after: &str| {
            let before = store.reads();
            assert_eq!(history.references(after, 10).unwrap().len(), 10);
            store.reads() - before
        };
        put(0..50);
        let few = ["", "a", "r00020"].map(cost);
        put(50..3000);
        assert_eq!(["", "a", "r00020"].map(cost), few);
        assert_eq!(cost("r02900"), few[2], "a page near the end");
        // The refs of a page, the one behind it, and main.
        assert!(few.iter().all(|reads| *reads <= 10 + 2), "{few:?}");
    }

    #[test]
    fn refs_come_page_by_page_with_main_in_its_place_whether_it_moved_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let history = History::new(&store, "m", "base");
        let put = |model: &str, id: &str| {
            let reference = v1::Ref {
                name: ref_name(model, id),
                ..Default::default()
            };
            let record = Record::reference(model, id, &reference);
            store.commit(&[Change::Record(record)]).unwrap();
        };
        let pages = |limit: usize| {
            let (mut all, mut after) = (Vec::new(), String::new());
            loop {
                let page = history.references(&after, limit).unwrap();
                assert!(page.len() <= limit);
                let Some(last) = page.last() else {
                    return all;
                };
                after = digest_of(&last.name).to_owned();
                all.extend(page.iter().map(|it| digest_of(&it.name).to_owned()));
            }
        };
        assert_eq!(pages(1), ["main"]);
        for id in ["z", "a", "main-2", "mai", "a.b", "a1"] {
            put("m", id);
        }
        // A neighbour's are not among them.
        put("l", "other");
        put("m2", "other");
        let expected = ["a", "a.b", "a1", "mai", "main", "main-2", "z"];
        for limit in [1, 2, 3, 100] {
            assert_eq!(pages(limit), expected, "{limit} a page");
        }
        put("m", "main");
        assert_eq!(pages(2), expected);
    }
}
