//! What decides a unit's value, as a digest: equal keys have equal results.

use prost::Message as _;

use super::stage::Found;
use crate::objects::Digest;
use crate::proto::v1::{self, leased_unit::Spec as Unit};

/// A key that is being made.
#[derive(Clone, Debug)]
pub struct Key(blake3::Hasher);

impl Key {
    /// Adds a part with its length, so that no two lists of parts are alike.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// The key.
    pub fn finish(&self) -> Digest {
        self.0.finalize().into()
    }
}

/// The beginnings of a job's keys.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Has seen the model and the engine's revision.
    model: Key,
    /// The kind and the settings, as they are added to it.
    word: &'static str,
    settings: Vec<u8>,
    /// Whether each unit says which version it is of.
    version_last: bool,
}

impl Keys {
    /// For units of a kind, by its word and its settings, on a model of these files.
    pub(super) fn new(
        engine: u32,
        model: &str,
        word: &'static str,
        settings: Vec<u8>,
        version_last: bool,
    ) -> Self {
        let mut key = Key(blake3::Hasher::new());
        key.part(b"palimpsest unit 1");
        key.part(&engine.to_be_bytes());
        key.part(model.as_bytes());
        Self {
            model: key,
            word,
            settings,
            version_last,
        }
    }

    /// A key that follows from a version of the model: two models with the same files have the same
    /// versions.
    pub fn model(&self, version: &str) -> Key {
        let mut key = self.model.clone();
        key.part(digest_of(version).as_bytes());
        key
    }

    /// A key that follows from a version of the model, the kind and its settings.
    pub fn of_kind(&self, version: &str) -> Key {
        let mut key = self.model(version);
        key.part(self.word.as_bytes());
        key.part(&self.settings);
        key
    }

    /// The key of a unit that follows from all settings, what it is, and what was found before it.
    pub fn usual(&self, unit: Unit, version: &str, found: &Found) -> Option<Key> {
        let mut key = match self.version_last {
            true => self.model.clone(),
            false => self.model(version),
        };
        key.part(self.word.as_bytes());
        key.part(&self.settings);
        if self.version_last {
            key.part(digest_of(version).as_bytes());
        }
        let scale = found
            .noise_scale
            .map_or([0; 8], |scale| scale.to_bits().to_be_bytes());
        key.part(&scale);
        let unit = v1::LeasedUnit {
            unit: 0,
            spec: Some(unit),
        };
        key.part(&unit.encode_to_vec());
        Some(key)
    }
}

/// The digest in a version's name.
fn digest_of(version: &str) -> &str {
    version.rsplit('/').next().unwrap_or(version)
}
