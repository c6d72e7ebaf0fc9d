//! What the coordinator reads of jobs from the store: all that is open, when it starts, and one
//! that has ended, when somebody asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::core::Core;
use super::event::Millis;
use super::job::is_terminal;
use super::limits::Limits;
use super::restore::Restoring;
use crate::proto::v1;
use crate::store::{self, JobRecord, Store};
use crate::work::{self, Items};

/// The ended job that was asked for last, whole: lists of its tasks come in many pages.
#[derive(Clone, Debug, Default)]
pub(super) struct LastLooked(Arc<Mutex<Last>>);
type Last = Option<(Uuid, Arc<Core>)>;

impl LastLooked {
    pub(super) fn get(&self, store: &Store, id: Uuid) -> Result<Arc<Core>, store::Error> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, core)) = &*last
            && *of == id
        {
            return Ok(core.clone());
        }
        *last = None;
        let core = Arc::new(one(store, id)?);
        *last = Some((id, core.clone()));
        Ok(core)
    }
}

/// Rebuilds the core from the store, record by record.
pub(super) fn all(store: &Store, limits: Limits, now: Millis) -> Result<Core, store::Error> {
    let mut models = Models::default();
    let mut restoring = Restoring::new(limits, store.epoch()?, now);
    store.each_job(|id, record| {
        if is_terminal(record.job.as_ref().map(v1::Job::state).unwrap_or_default()) {
            restoring.ended(id, record);
            return Ok(());
        }
        read_job(store, &mut restoring, &mut models, id, record)
    })?;
    Ok(restoring.finish())
}

/// A core with nothing but one job, whether it has ended or not.
fn one(store: &Store, id: Uuid) -> Result<Core, store::Error> {
    let mut restoring = Restoring::new(Limits::default(), 0, 0);
    if let Some(record) = store.job(id)? {
        read_job(store, &mut restoring, &mut Models::default(), id, record)?;
    }
    Ok(restoring.finish())
}

/// Models without their tensors, by name.
type Models = HashMap<String, v1::Model>;

fn read_job(
    store: &Store,
    restoring: &mut Restoring,
    models: &mut Models,
    id: Uuid,
    record: JobRecord,
) -> Result<(), store::Error> {
    let spec = store.spec(id)?;
    let job = spec.job.as_ref();
    let name = job.map_or("", |job| job.model.as_str()).to_owned();
    if !models.contains_key(&name) {
        let id = name.strip_prefix("models/").unwrap_or(&name);
        let mut model = store.model(id)?.unwrap_or_default();
        model.tensors.clear();
        models.insert(name.clone(), model);
    }
    let items = match job.and_then(work::parts_object) {
        Some(digest) => read_items(store, digest)?,
        None => Items::default(),
    };
    restoring.job(id, record, spec, items, models[&name].clone());
    store.each_task(id, |n, record| restoring.task(id, n, &record))?;
    store.each_unit(id, |unit| restoring.unit(&unit))
}

/// The parts of a job that lie in an object.
fn read_items(store: &Store, digest: &str) -> Result<Items, store::Error> {
    let bytes = store.objects().read(&digest.parse()?)?;
    Items::parse(bytes.into()).map_err(|malformed| store::Error::Damaged {
        key: format!("objects/{digest}"),
        what: malformed.to_string(),
    })
}
