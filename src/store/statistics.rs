//! Records of key statistics: what there is, under the model, the layer and the digest of the
//! object that holds it.

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Change, From, Options, Record, RecordKey, rebuild, verify};
    use super::*;
    use crate::objects::Digest;

    fn one(layer: u32, object: &str) -> v1::Statistics {
        let digest = Digest::of(object.as_bytes());
        v1::Statistics {
            name: format!("models/m/statistics/{digest}"),
            layer,
            ..Default::default()
        }
    }

    #[test]
    fn what_was_withdrawn_is_gone_for_the_index_the_log_and_one_made_of_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let layers = |store: &Store| {
            let (mut layers, mut next) = (Vec::new(), None);
            while let Some(layer) = store.layer_with_statistics("m", next).unwrap() {
                layers.push((layer, store.statistics_of_layer("m", layer).unwrap().len()));
                next = Some(layer);
            }
            layers
        };
        let store = Store::open(folder.path()).unwrap();
        for object in ["a", "b", "f"] {
            store.objects().put(object.as_bytes()).unwrap();
        }
        let all = [one(0, "a"), one(0, "b"), one(7, "a"), one(12, "f")];
        let put = |model: &str, it: &v1::Statistics| Change::Record(Record::statistics(model, it));
        store
            .commit(&all.each_ref().map(|it| put("m", it)))
            .unwrap();
        // Neighbours in the order of the keys.
        store
            .commit(&[put("l", &one(3, "a")), put("m2", &one(3, "a"))])
            .unwrap();
        assert_eq!(layers(&store), [(0, 2), (7, 1), (12, 1)]);
        let gone = [&all[1], &all[2]].map(|it| Change::Removed(RecordKey::statistics("m", it)));
        store.commit(&gone).unwrap();
        let expected = [(0, 1), (12, 1)];
        assert_eq!(layers(&store), expected);
        // What is written again in one batch with its going is there as the last of them says.
        let [removed, _] = gone;
        store.commit(&[removed.clone(), put("m", &all[1])]).unwrap();
        assert_eq!(layers(&store), [(0, 2), (12, 1)]);
        store.commit(&[put("m", &all[1]), removed]).unwrap();
        drop(store);
        assert_eq!(layers(&Store::open(folder.path()).unwrap()), expected);
        for from in [From::Log, From::Index] {
            rebuild(folder.path(), from, |_| ()).unwrap();
            let store = Store::open(folder.path()).unwrap();
            assert_eq!(layers(&store), expected);
        }
        let report = verify(folder.path(), &Options::default(), |_, _, _| ()).unwrap();
        assert_eq!(report.problem_count, 0, "{report:?}");
    }
}
