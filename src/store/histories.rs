//! Looks whether every version has what it says: the versions that it stands on, and its edits.

use super::manifest::base_version;
use super::values::decode;
use super::verify::Report;
use super::{Error, Store, keys};
use crate::proto::v1;

impl Store {
    /// Goes through the versions of every model in the order in which they were made, so that each
    /// is found from the one before; then through the refs. What is told already of a place is not
    /// told again for all that stands on it.
    pub(super) fn verify_histories(
        &self,
        report: &mut Report,
        progress: &mut impl FnMut(&'static str, u64, Option<u64>),
    ) -> Result<(), Error> {
        for (count, entry) in self.index.prefix(&[keys::VERSION_NUMBER]).enumerate() {
            let (key, value) = entry?;
            progress("versions", count as u64, None);
            let Some(model) = model_of(&key) else {
                continue; // told with the records
            };
            let Ok((_, digest)) = self.numbered(&key, &value) else {
                continue; // told with the records
            };
            let digest = String::from_utf8_lossy(&digest).into_owned();
            match self.missing_edit(&model, &digest) {
                Ok(None) => {}
                Ok(Some(what)) => report.problem(keys::printable(&key), what),
                Err(Error::Damaged { key, what }) => {
                    if !report.tells_of(&key) {
                        report.problem(key, what);
                    }
                }
                // An object that is missing is told with the objects.
                Err(Error::Object(_)) => {}
                Err(error) => return Err(error),
            }
        }
        for entry in self.index.prefix(&[keys::REF]) {
            let (key, value) = entry?;
            let Some(model) = model_of(&key) else {
                continue;
            };
            let Ok((_, bytes)) = self.numbered(&key, &value) else {
                continue;
            };
            let reference: v1::Ref = decode(&key, &bytes)?;
            let digest = reference.version.rsplit('/').next().unwrap_or_default();
            let place = keys::of_model(keys::VERSION, &model, digest.as_bytes());
            let stored = self.index.get(&place)?.is_some();
            let base = match self.model(&model) {
                Ok(base) => base.unwrap_or_default().digest,
                Err(_) => continue, // told with the records
            };
            if !stored && !base_version(&model, &base).name.ends_with(digest) {
                let what = format!("it points at version {digest}, which is not stored");
                report.problem(keys::printable(&key), what);
            }
        }
        Ok(())
    }

    /// What is missing of a version beside what it stands on, which was looked at before.
    fn missing_edit(&self, model: &str, digest: &str) -> Result<Option<String>, Error> {
        let Some(version) = self.version(model, digest)? else {
            return Ok(Some(format!("version {digest} is not stored")));
        };
        self.content(model, digest)?;
        let edits = match version.edits_digest.is_empty() {
            true => version.edits.as_slice(),
            false => std::slice::from_ref(&version.subject_edit),
        };
        for edit in edits {
            let place = keys::of_model(keys::EDIT, model, edit.as_bytes());
            if self.index.get(&place)?.is_none() {
                let what = format!("version {digest} has the edit {edit}, which is not stored");
                return Ok(Some(what));
            }
        }
        Ok(None)
    }
}

/// The model of a record that is under its name.
fn model_of(key: &[u8]) -> Option<String> {
    let end = key.iter().position(|&byte| byte == 0)?;
    String::from_utf8(key.get(1..end)?.to_vec()).ok()
}
