//! Records of key statistics: what there is, under the model and the digest of the object that holds it.

use super::versions::Record;
use super::{Error, Store};
use crate::proto::v1;

pub(super) const STATISTICS: u8 = b'K';

impl Record {
    /// Key statistics of a model, whose object is stored.
    pub fn statistics(model: &str, statistics: &v1::Statistics) -> Self {
        let digest = statistics.name.rsplit('/').next().unwrap_or_default();
        // The layer too: equal sums of two layers are two artefacts.
        let key = format!("{:06}/{digest}", statistics.layer);
        Self::plain(
            STATISTICS,
            model,
            key.as_bytes(),
            prost::Message::encode_to_vec(statistics),
        )
    }
}

impl Store {
    /// Every key statistics of a model, by layer.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn statistics(&self, model: &str) -> Result<Vec<v1::Statistics>, Error> {
        self.plain_records(STATISTICS, model)
    }
}
