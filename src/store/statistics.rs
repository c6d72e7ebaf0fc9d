//! Records of key statistics: what there is, under the model and the digest of the object that holds it.

use super::{Error, Store, keys};
use crate::proto::v1;

impl Store {
    /// Every key statistics of a model, by layer.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn statistics(&self, model: &str) -> Result<Vec<v1::Statistics>, Error> {
        self.plain_records(keys::STATISTICS, model)
    }
}
