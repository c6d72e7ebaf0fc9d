//! The version of a lease: what is added to the model.

use std::sync::{Arc, Mutex, PoisonError};

use crate::objects::Digest;
use crate::proto::v1;
use crate::version::Factor;

/// What a version adds to the model as it was imported: nothing, for that model itself.
#[derive(Debug, Default)]
pub struct LeasedVersion {
    /// Its name, `models/{model}/versions/{digest}`; empty for the model as it was imported.
    pub name: String,
    /// The matrices that differ.
    pub matrices: Vec<v1::version::Matrix>,
    /// What is added to them, in order.
    pub factors: Vec<LeasedFactor>,
}

/// A factor of a version, and the digest of its numbers.
#[derive(Clone, Debug)]
pub struct LeasedFactor {
    /// BLAKE3 of the numbers.
    pub digest: Digest,
    /// The factor, of which versions on one line have the same.
    pub factor: Arc<Factor>,
}

impl LeasedVersion {
    /// A version of these factors.
    pub fn new(name: String, matrices: Vec<v1::version::Matrix>, factors: Vec<Factor>) -> Self {
        let leased = |factor: Factor| LeasedFactor {
            digest: Digest::of(&factor.data()),
            factor: Arc::new(factor),
        };
        Self {
            name,
            matrices,
            factors: factors.into_iter().map(leased).collect(),
        }
    }
}

impl LeasedVersion {
    /// What is added to a matrix, in order.
    pub fn on(&self, tensor: &str) -> Vec<(Digest, &Factor)> {
        let all = self.factors.iter();
        all.filter(|leased| leased.factor.tensor == tensor)
            .map(|leased| (leased.digest, &*leased.factor))
            .collect()
    }
}

/// The version that was fetched last: the next lease is often of it, or of one that adds to it.
#[derive(Clone, Debug, Default)]
pub(super) struct LastVersion(Arc<Mutex<Arc<LeasedVersion>>>);

impl LastVersion {
    /// It.
    pub fn get(&self) -> Arc<LeasedVersion> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps one instead of it.
    pub fn keep(&self, version: &Arc<LeasedVersion>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = version.clone();
    }
}
