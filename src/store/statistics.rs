//! Records of key statistics: what there is, under the model, the layer and the digest of the object
//! that holds it.

use super::values::decode;
use super::{Error, Store, keys};
use crate::proto::v1;

impl Store {
    /// Key statistics by their layer and the digest of their object.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the record does not decode.
    pub fn statistics(
        &self,
        model: &str,
        layer: u32,
        digest: &str,
    ) -> Result<Option<v1::Statistics>, Error> {
        let key = keys::statistics(model, layer, digest);
        match self.index.get(&key)? {
            Some(value) => decode(&key, &self.numbered(&key, &value)?.1).map(Some),
            None => Ok(None),
        }
    }

    /// All key statistics of a layer, by digest.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn statistics_of_layer(
        &self,
        model: &str,
        layer: u32,
    ) -> Result<Vec<v1::Statistics>, Error> {
        self.index
            .prefix(&keys::statistics(model, layer, ""))
            .map(|entry| {
                let (key, value) = entry?;
                decode(&key, &self.numbered(&key, &value)?.1)
            })
            .collect()
    }

    /// The first layer after one of which there are key statistics; of all, where none is given.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a record does not decode.
    pub fn layer_with_statistics(
        &self,
        model: &str,
        after: Option<u32>,
    ) -> Result<Option<u32>, Error> {
        let of_model = keys::of_model(keys::STATISTICS, model, &[]);
        let first = match after {
            Some(layer) => keys::statistics(model, layer, "~"), // behind every digest
            None => of_model.clone(),
        };
        let next = self.index.range(first..).next();
        let Some((key, value)) = next.transpose()? else {
            return Ok(None);
        };
        if !key.starts_with(&of_model) {
            return Ok(None);
        }
        let found: v1::Statistics = decode(&key, &self.numbered(&key, &value)?.1)?;
        Ok(Some(found.layer))
    }
}
