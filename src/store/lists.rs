//! Versions on their way out of the store and into it: what each has, and the form in which it is
//! stored.

use std::sync::Arc;

use super::content::{BYTES, Content, STRIDE, come_to, one_more};
use super::manifest::base_version;
use super::{Error, Store};
use crate::objects::Digest;
use crate::proto::v1::{self, VersionKind};

impl Store {
    /// What a version of a model has, by its digest; none for one that is not stored, as the base
    /// is not.
    ///
    /// # Errors
    /// [`Error::Damaged`] when one of the versions that it stands on is missing or does not fit,
    /// [`Error::Object`] for an object of a list.
    pub fn content(&self, model: &str, digest: &str) -> Result<Option<Arc<Content>>, Error> {
        let mut steps: Vec<v1::Version> = Vec::new();
        let mut at = digest.to_owned();
        let ground = loop {
            if let Some(found) = self.contents.get(&at) {
                break found;
            }
            let Some(version) = self.version(model, &at)? else {
                match steps.last() {
                    None => return Ok(None),
                    Some(above) if base_version(model, &above.base).name.ends_with(&at) => {
                        break Arc::default();
                    }
                    Some(above) => {
                        return Err(damaged(above, format!("its parent {at} is not stored")));
                    }
                }
            };
            if version.edits_digest.is_empty() {
                let said = Content::said(&version).map_err(|what| damaged(&version, what))?;
                break Arc::new(said);
            }
            if version.depth == 0 {
                break Arc::new(self.listed(&version)?);
            }
            at.clone_from(&version.parent);
            steps.push(version);
        };
        let Some(newest) = steps.first() else {
            self.contents.keep(digest, &ground);
            return Ok(Some(ground));
        };
        let mut content = Arc::unwrap_or_clone(ground);
        let before = content.edits.len();
        for version in steps.iter().rev() {
            content
                .apply(version)
                .map_err(|what| damaged(version, what))?;
        }
        let only_adds =
            |it: &v1::Version| matches!(it.kind(), VersionKind::Edit | VersionKind::CherryPick);
        content.list = match steps.iter().all(only_adds) {
            false => come_to(&content.edits),
            true => {
                let added = content.edits[before..].iter();
                added.fold(content.list, |list, edit| one_more(&list, edit))
            }
        };
        check(newest, &content)?;
        let content = Arc::new(content);
        self.contents.keep(digest, &content);
        Ok(Some(content))
    }

    /// Of a version with its whole list.
    fn listed(&self, version: &v1::Version) -> Result<Content, Error> {
        let mut content = Content::default();
        for list in &version.edit_lists {
            let list: Digest = list.parse()?;
            let bytes = self.objects.read(&list)?;
            let (edits, rest) = bytes.as_chunks::<BYTES>();
            if !rest.is_empty() || edits.len() > STRIDE {
                let what = format!("its list {list} has {} bytes", bytes.len());
                return Err(damaged(version, what));
            }
            content
                .edits
                .extend(edits.iter().copied().map(Digest::from));
        }
        content.list = come_to(&content.edits);
        content.change(&version.matrices);
        check(version, &content)?;
        Ok(content)
    }

    /// Gives a new version the form in which it is stored, and remembers what it has. The version
    /// says its parent, its kind and its edit; `changed` are the matrices that are not its
    /// parent's. The objects of a list are durable when it returns.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the parent does not decode, [`Error::Object`].
    pub fn formed(
        &self,
        model: &str,
        mut version: v1::Version,
        content: &Content,
        changed: Vec<v1::version::Matrix>,
    ) -> Result<v1::Version, Error> {
        let parent = self.version(model, &version.parent)?;
        let depth = parent.map_or(0, |parent| parent.depth) + 1;
        version.edits.clear();
        version.edit_count = content.edits.len() as u64;
        version.edits_digest = content.list.to_string();
        version.edit_lists.clear();
        if (depth as usize) < STRIDE {
            version.depth = depth;
            version.matrices = changed;
            return Ok(version);
        }
        version.depth = 0;
        version.matrices = content.matrices.values().cloned().collect();
        for edits in content.edits.chunks(STRIDE) {
            let bytes: Vec<u8> = edits.iter().flat_map(|it| *it.as_bytes()).collect();
            let list = self.objects.put(&bytes)?;
            version.edit_lists.push(list.to_string());
        }
        Ok(version)
    }

    /// Remembers what a version has that is about to be stored.
    pub fn remember(&self, digest: &str, content: &Arc<Content>) {
        self.contents.keep(digest, content);
    }
}

fn check(version: &v1::Version, content: &Content) -> Result<(), Error> {
    let found = content.list.to_string();
    if content.edits.len() as u64 == version.edit_count && found == version.edits_digest {
        return Ok(());
    }
    let what = format!(
        "what it stands on gives {} edits with the digest {found}, it says {} with {}",
        content.edits.len(),
        version.edit_count,
        version.edits_digest
    );
    Err(damaged(version, what))
}

fn damaged(version: &v1::Version, what: String) -> Error {
    Error::Damaged {
        key: version.name.clone(),
        what,
    }
}
