//! Records of edits, versions, refs and the audit log.
//!
//! Edits and versions lie under the digest of their own bytes, so that a record which was altered
//! says so when it is read. Each has a number in its model, in the order of creation, and an index
//! by it. What an audit entry says is checked by [`crate::audit`], not here.

use super::examine::{Reach, mentions};
use super::manifest::{edit_name, version_name};
use super::records::Numbered;
use super::values::{decode, digest_of};
use super::{Error, Store, keys};
use crate::objects::Digest;
use crate::proto::v1;

impl Store {
    /// An edit by its digest.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its bytes are not those it is named after.
    pub fn edit(&self, model: &str, digest: &str) -> Result<Option<v1::Edit>, Error> {
        let Some((_, bytes)) = self.named(keys::EDIT, model, digest)? else {
            return Ok(None);
        };
        let mut edit: v1::Edit = decode(
            &keys::of_model(keys::EDIT, model, digest.as_bytes()),
            &bytes,
        )?;
        edit.name = edit_name(model, digest);
        Ok(Some(edit))
    }

    /// A version by its digest. The base is not among them: it follows from the model.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its bytes are not those it is named after.
    pub fn version(&self, model: &str, digest: &str) -> Result<Option<v1::Version>, Error> {
        let Some((number, bytes)) = self.named(keys::VERSION, model, digest)? else {
            return Ok(None);
        };
        let mut version: v1::Version = decode(
            &keys::of_model(keys::VERSION, model, digest.as_bytes()),
            &bytes,
        )?;
        version.name = version_name(model, digest);
        version.number = number;
        Ok(Some(version))
    }

    /// Digests of a model's versions with a number below `before`, the newest first.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn version_digests(
        &self,
        model: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, String)>, Error> {
        self.indexed(keys::VERSION_NUMBER, model, before, limit)
    }

    /// Digests of a model's edits with a number below `before`, the newest first.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn edit_digests(
        &self,
        model: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, String)>, Error> {
        self.indexed(keys::EDIT_NUMBER, model, before, limit)
    }

    /// Digests of the model's edits and versions that begin so, at most `limit` of each.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn digests_with_prefix(
        &self,
        model: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<(Vec<String>, Vec<String>), Error> {
        let list = |letter| -> Result<Vec<String>, Error> {
            let start = keys::of_model(letter, model, prefix.as_bytes());
            let skip = start.len() - prefix.len();
            let found = self.index.prefix(&start).take(limit);
            found
                .map(|entry| {
                    let (key, _) = entry?;
                    Ok(String::from_utf8_lossy(&key[skip..]).into_owned())
                })
                .collect()
        };
        Ok((list(keys::EDIT)?, list(keys::VERSION)?))
    }

    /// A ref by its identifier.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the record does not decode.
    pub fn reference(&self, model: &str, id: &str) -> Result<Option<v1::Ref>, Error> {
        let key = keys::of_model(keys::REF, model, id.as_bytes());
        match self.index.get(&key)? {
            Some(value) => decode(&key, &self.numbered(&key, &value)?.1).map(Some),
            None => Ok(None),
        }
    }

    /// The refs of a model by identifier, after one (the empty one is before all), at most `limit`.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn references(
        &self,
        model: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<v1::Ref>, Error> {
        // Behind the identifier itself and before every longer one that begins with it.
        let mut first = keys::of_model(keys::REF, model, after.as_bytes());
        first.push(0);
        let mut end = keys::of_model(keys::REF, model, &[]);
        end.pop();
        end.push(1);
        self.index
            .range(first..end)
            .take(limit)
            .map(|entry| {
                let (key, value) = entry?;
                decode(&key, &self.numbered(&key, &value)?.1)
            })
            .collect()
    }

    /// The objects that a model's edits refer to: their factors, and the keys that some keep.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn factor_objects(&self, model: &str) -> Result<Vec<Digest>, Error> {
        let mut digests = Vec::new();
        for (_, digest) in self.edit_digests(model, None, usize::MAX)? {
            for object in objects_of(self.edit(model, &digest)?.unwrap_or_default()) {
                digests.push(object.parse().map_err(|_| Error::Damaged {
                    key: edit_name(model, &digest),
                    what: format!("'{object}' is not a digest"),
                })?);
            }
        }
        Ok(digests)
    }

    /// Entries of the audit log after a sequence number, in order: the place at which each lies,
    /// and its bytes or why they cannot be read. What they say is not checked.
    pub fn audit_entries(
        &self,
        after: u64,
    ) -> impl Iterator<Item = (u64, Result<Vec<u8>, Error>)> + '_ {
        let range = keys::audit_entry(after.saturating_add(1))..=keys::audit_entry(u64::MAX);
        self.index.range(range).map(|it| self.audit_entry(it))
    }

    /// The same before a sequence number, from the last of them back.
    pub fn audit_entries_before(
        &self,
        before: u64,
    ) -> impl Iterator<Item = (u64, Result<Vec<u8>, Error>)> + '_ {
        let range = keys::audit_entry(0)..=keys::audit_entry(before.saturating_sub(1));
        self.index.range(range).rev().map(|it| self.audit_entry(it))
    }

    fn audit_entry<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entry: Result<(K, V), Error>,
    ) -> (u64, Result<Vec<u8>, Error>) {
        let (key, value) = match entry {
            Ok(entry) => entry,
            Err(error) => return (0, Err(error)),
        };
        let (key, value) = (key.as_ref(), value.as_ref());
        let place = key.get(1..9).and_then(|bytes| bytes.try_into().ok());
        let place = place.map_or(0, u64::from_be_bytes);
        (place, self.numbered(key, value).map(|(_, bytes)| bytes))
    }

    /// The sequence number of the last audit entry; 0 when there is none.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn last_audit_entry(&self) -> Result<u64, Error> {
        let last = self.index.prefix(&[keys::AUDIT_ENTRY]).next_back();
        let Some(last) = last.transpose()? else {
            return Ok(0);
        };
        let place = last.0.get(1..9).and_then(|bytes| bytes.try_into().ok());
        Ok(place.map_or(0, u64::from_be_bytes))
    }

    /// What `Record::audit_head` wrote last.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the record does not decode.
    pub fn audit_head(&self) -> Result<Option<Vec<u8>>, Error> {
        match self.index.get(&keys::AUDIT_HEAD)? {
            Some(value) => Ok(Some(self.numbered(&keys::AUDIT_HEAD, &value)?.1)),
            None => Ok(None),
        }
    }

    fn named(
        &self,
        letter: u8,
        model: &str,
        digest: &str,
    ) -> Result<Option<(u64, Vec<u8>)>, Error> {
        let key = keys::of_model(letter, model, digest.as_bytes());
        let Some(value) = self.index.get(&key)? else {
            return Ok(None);
        };
        let (number, bytes) = self.numbered(&key, &value)?;
        let actual = Digest::of(&bytes).to_string();
        if actual != digest {
            return Err(Error::Damaged {
                key: keys::printable(&key),
                what: format!("its bytes hash to {actual}: it was altered"),
            });
        }
        Ok(Some((number, bytes)))
    }

    fn indexed(
        &self,
        letter: u8,
        model: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, String)>, Error> {
        let first = keys::of_model(letter, model, &0u64.to_be_bytes());
        let end = keys::of_model(letter, model, &before.unwrap_or(u64::MAX).to_be_bytes());
        self.index
            .range(first..end)
            .rev()
            .take(limit)
            .map(|entry| {
                let (key, value) = entry?;
                let (number, bytes) = self.numbered(&key, &value)?;
                Ok((number, String::from_utf8_lossy(&bytes).into_owned()))
            })
            .collect()
    }

    pub(super) fn numbered(&self, key: &[u8], value: &[u8]) -> Result<(u64, Vec<u8>), Error> {
        let record: Numbered = decode(key, value)?;
        Ok((record.number, self.numbered_bytes(key, record)?))
    }

    /// Decodes a record of this file's kinds, gives the objects that it reaches to `reach`, and
    /// says what kind it is. None for a key of another file's.
    pub(super) fn examine_version(
        &self,
        key: &[u8],
        bytes: &[u8],
        mut reach: impl FnMut(Reach),
    ) -> Result<Option<&'static str>, Error> {
        let kind = match key.first().copied() {
            Some(keys::EDIT) => "edits",
            Some(keys::VERSION) => "versions",
            Some(keys::EDIT_NUMBER | keys::VERSION_NUMBER) => "numbers",
            Some(keys::REF) => "refs",
            Some(keys::AUDIT_ENTRY) => "audit entries",
            Some(keys::STATISTICS) => "key statistics",
            Some(_) if key == keys::AUDIT_HEAD => "audit heads",
            _ => return Ok(None),
        };
        let damaged = |what: String| Error::Damaged {
            key: keys::printable(key),
            what,
        };
        let record: Numbered = decode(key, bytes)?;
        if record.packed.is_none() {
            let value = record.value.clone().unwrap_or_default();
            if value.inline.is_none() {
                reach(Reach::Needed(digest_of(key, &value)?));
            }
        }
        let bytes = self.numbered_bytes(key, record)?;
        mentions(&bytes, &mut reach);
        // Edits and versions lie under the digest of their own bytes, behind the model's name.
        if matches!(key[0], keys::EDIT | keys::VERSION) {
            let digest = Digest::of(&bytes).to_string();
            if !key.ends_with(digest.as_bytes()) {
                return Err(damaged(format!(
                    "its bytes hash to {digest}: it was altered"
                )));
            }
        }
        if key[0] == keys::VERSION {
            for list in decode::<v1::Version>(key, &bytes)?.edit_lists {
                reach(Reach::Needed(
                    list.parse()
                        .map_err(|_| damaged(format!("'{list}' is not a digest")))?,
                ));
            }
        }
        if key[0] == keys::EDIT {
            for object in objects_of(decode::<v1::Edit>(key, &bytes)?) {
                reach(Reach::Needed(object.parse().map_err(|_| {
                    damaged(format!("'{object}' is not a digest"))
                })?));
            }
        }
        if key[0] == keys::STATISTICS {
            let name = decode::<v1::Statistics>(key, &bytes)?.name;
            let digest = name.rsplit('/').next().unwrap_or_default();
            reach(Reach::Needed(digest.parse().map_err(|_| {
                damaged(format!("'{digest}' is not a digest"))
            })?));
        }
        Ok(Some(kind))
    }
}

/// The digests of the objects that an edit is made of.
fn objects_of(edit: v1::Edit) -> impl Iterator<Item = String> {
    let factors = edit.factors.into_iter().map(|factor| factor.digest);
    let keys = edit.keys.into_iter().map(|keys| keys.digest);
    let solves = edit.solves.into_iter();
    factors
        .chain(keys)
        .chain(solves.flat_map(|solve| [solve.keys, solve.residuals]))
}
