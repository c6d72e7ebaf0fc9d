//! The opened bases of a store's models.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Base, Error};
use crate::proto::v1;
use crate::store::Store;

/// Bases that stay open: opening one reads its tokenizer, which takes longer than an edit.
const OPEN: usize = 4;

/// Opens bases and keeps the last few.
#[derive(Debug)]
pub struct Bases {
    store: Arc<Store>,
    folder: PathBuf,
    /// By the model's digest, the oldest first.
    opened: Mutex<Vec<(String, Arc<Base>)>>,
}

impl Bases {
    /// None is open yet. Their files are laid out in a folder of the store, which may be deleted
    /// at any time.
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            folder: store.path().join("checkpoints"),
            store,
            opened: Mutex::default(),
        }
    }

    /// The base of a model.
    ///
    /// # Errors
    /// Those of [`Base::open`].
    pub fn open(&self, model: &v1::Model) -> Result<Arc<Base>, Error> {
        let lock = || self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let found = lock()
            .iter()
            .find(|(digest, _)| *digest == model.digest)
            .cloned();
        if let Some((_, base)) = found {
            return Ok(base);
        }
        let base = Arc::new(Base::open(self.store.objects(), &self.folder, model)?);
        let mut opened = lock();
        if opened.len() >= OPEN {
            opened.remove(0);
        }
        opened.push((model.digest.clone(), base.clone()));
        Ok(base)
    }
}
