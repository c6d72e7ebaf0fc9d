//! What is read out of the store.

use uuid::Uuid;

use super::values::{decode, digest_of};
use super::{
    DivergenceRecord, Error, JobRecord, ResultRecord, SpecRecord, Store, TaskRecord, Value, keys,
};
use crate::proto::v1;

/// A unit that has a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedUnit {
    /// Its job.
    pub job: Uuid,
    /// Its number.
    pub unit: u64,
    /// The first eight bytes of the result's digest.
    pub digest: u64,
    /// Whether the result is a failure.
    pub failed: bool,
    /// Whether it was answered from the store.
    pub cached: bool,
}

impl Store {
    /// Records that were read out of the index since the store was opened.
    #[cfg(test)]
    pub fn reads(&self) -> u64 {
        self.index.reads()
    }

    /// Gives every job, in the order of their creation.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode; what `take` gives.
    pub fn each_job(
        &self,
        mut take: impl FnMut(Uuid, JobRecord) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for entry in self.index.prefix(&[keys::JOB]) {
            let (key, value) = entry?;
            take(keys::job_of(&key)?, decode(&key, &value)?)?;
        }
        Ok(())
    }

    /// A job.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its record does not decode.
    pub fn job(&self, job: Uuid) -> Result<Option<JobRecord>, Error> {
        let key = keys::job(job);
        let record = self.index.get(&key)?;
        record.map(|value| decode(&key, &value)).transpose()
    }

    /// What a job was accepted as.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is missing or does not decode.
    pub fn spec(&self, job: Uuid) -> Result<SpecRecord, Error> {
        let key = keys::spec(job);
        let spec = self.index.get(&key)?.ok_or_else(|| Error::Damaged {
            key: keys::printable(&key),
            what: "the job's spec is missing".to_owned(),
        })?;
        let spec = self.value(&key, decode(&key, &spec)?)?;
        decode(&key, &spec)
    }

    /// Gives every task of a job that has a record, by number.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn each_task(&self, job: Uuid, mut take: impl FnMut(u32, TaskRecord)) -> Result<(), Error> {
        for entry in self
            .index
            .range(keys::task(job, 0)..=keys::task(job, u32::MAX))
        {
            let (key, value) = entry?;
            let (_, n) = keys::task_of(&key)?;
            take(n, decode(&key, &value)?);
        }
        Ok(())
    }

    /// Gives every committed unit of a job, by number.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn each_unit(&self, job: Uuid, mut take: impl FnMut(CommittedUnit)) -> Result<(), Error> {
        for entry in self
            .index
            .range(keys::result(job, 0)..=keys::result(job, u64::MAX))
        {
            let (key, value) = entry?;
            let (job, unit) = keys::unit_of(&key)?;
            let record = decode::<ResultRecord>(&key, &value)?;
            let digest = digest_of(&key, record.value.as_ref().unwrap_or(&Value::default()))?;
            take(CommittedUnit {
                job,
                unit,
                digest: digest.prefix(),
                failed: record.failed,
                cached: record.source.is_some(),
            });
        }
        Ok(())
    }

    /// The first eight bytes of the digest of a unit's result, if it has one.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its record does not decode.
    pub fn committed(&self, job: Uuid, unit: u64) -> Result<Option<u64>, Error> {
        let key = keys::result(job, unit);
        let Some(value) = self.index.get(&key)? else {
            return Ok(None);
        };
        let record = decode::<ResultRecord>(&key, &value)?;
        let digest = digest_of(&key, record.value.as_ref().unwrap_or(&Value::default()))?;
        Ok(Some(digest.prefix()))
    }

    /// The newest lease epoch.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its record is not a number.
    pub fn epoch(&self) -> Result<u64, Error> {
        let Some(value) = self.index.get(&keys::EPOCH)? else {
            return Ok(0);
        };
        let bytes = value.as_ref().try_into().map_err(|_| Error::Damaged {
            key: keys::printable(&keys::EPOCH),
            what: format!("{} bytes instead of 8", value.len()),
        })?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Events of a job after a sequence number, in order, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn events(&self, job: Uuid, after: u64, limit: usize) -> Result<Vec<v1::JobEvent>, Error> {
        let range = keys::event(job, after.saturating_add(1))..=keys::event(job, u64::MAX);
        self.index
            .range(range)
            .take(limit)
            .map(|entry| {
                let (key, value) = entry?;
                decode(&key, &value)
            })
            .collect()
    }

    /// Committed results of a job from a unit on, in the order of units: at most `limit`, and no
    /// more than `bytes` bytes unless one alone is larger. Gives the serialised results.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a result does not match its digest.
    pub fn results(
        &self,
        job: Uuid,
        from: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<(u64, ResultRecord, Vec<u8>)>, Error> {
        let mut results = Vec::new();
        let mut total = 0;
        for entry in self
            .index
            .range(keys::result(job, from)..=keys::result(job, u64::MAX))
        {
            let (key, value) = entry?;
            let (_, unit) = keys::unit_of(&key)?;
            let record = decode::<ResultRecord>(&key, &value)?;
            let result = self.result_bytes(&key, unit, &record)?;
            total += result.len();
            if results.len() == limit || (total > bytes && !results.is_empty()) {
                break;
            }
            results.push((unit, record, result));
        }
        Ok(results)
    }

    /// Divergences of a job: unit and what was refused.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn divergences(&self, job: Uuid) -> Result<Vec<(u64, DivergenceRecord)>, Error> {
        self.index
            .prefix(&keys::divergences(job))
            .map(|entry| {
                let (key, value) = entry?;
                Ok((keys::unit_of(&key)?.1, decode(&key, &value)?))
            })
            .collect()
    }

    /// A model by its identifier.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the record does not decode.
    pub fn model(&self, id: &str) -> Result<Option<v1::Model>, Error> {
        let key = keys::model(id);
        let Some(value) = self.index.get(&key)? else {
            return Ok(None);
        };
        let bytes = self.value(&key, decode(&key, &value)?)?;
        decode(&key, &bytes).map(Some)
    }

    /// Models in the order of their identifiers, after one, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the record that does not decode.
    pub fn models(&self, after: &str, limit: usize) -> Result<Vec<v1::Model>, Error> {
        let first = keys::model(after);
        self.index
            .range(first.clone()..[keys::MODEL + 1].to_vec())
            .filter(|entry| {
                entry
                    .as_ref()
                    .map_or(true, |(key, _)| key.as_ref() != first)
            })
            .take(limit)
            .map(|entry| {
                let (key, value) = entry?;
                let bytes = self.value(&key, decode(&key, &value)?)?;
                decode(&key, &bytes)
            })
            .collect()
    }
}
