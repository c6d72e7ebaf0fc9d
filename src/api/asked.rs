//! A job on its way in: read, checked, and filled in with what the store and the settings say.

use std::sync::Arc;

use prost::Message;
use tonic::Status;
use uuid::Uuid;

use super::status::{Reason, failed_precondition, invalid_argument, invalid_fields};
use super::{models, statistics, versions, without};
use crate::coordinator::{self, NewJob, TaskCosts};
use crate::objects::{self, Digest};
use crate::proto::v1::{Corpus, EditGates, GateQuestions, Job, Model, RefKind, StatsSpec};
use crate::store::Store;
use crate::version::{self, History, MAIN, digest_of, short};
use crate::work::{self, Items, Landing, Work};

/// The model as it was imported, as `VersionService` takes it.
const BASE: &str = "v0";
/// Facts of more bytes lie in an object, so that a job is never too large for a message.
const INLINE_BYTES: usize = 1 << 20;

/// What every edit must pass here, whoever asks for it.
pub(super) struct OwnGates {
    pub bounds: EditGates,
    /// The texts whose perplexity `bounds.server_ppl_ratio` is about, as an object has them.
    pub texts: Option<Arc<Vec<u8>>>,
}

impl OwnGates {
    /// Looks at the texts that a job's edits are judged by, and adds those of the coordinator:
    /// which they are is not for a request to say.
    fn add_texts(&self, store: &Store, work: &mut dyn Work, keep: bool) -> Result<(), Status> {
        let gates = work.asked_gates().and_then(|gates| *gates);
        let Some((field, texts)) = work.gate_texts() else {
            return Ok(());
        };
        if let Some(asked) = texts.as_ref().and_then(|texts| texts.asked.as_ref()) {
            check_texts(store, &format!("{field}.asked"), asked)?;
        }
        match (&self.texts, gates.and_then(|gates| gates.server_ppl_ratio)) {
            (Some(own), _) => {
                let digest = match keep {
                    true => store.objects().put(own)?,
                    false => Digest::of(own),
                };
                texts.get_or_insert_default().server = Some(Corpus {
                    digest: digest.to_string(),
                    size: own.len() as u64,
                });
            }
            (None, Some(ratio)) => {
                let field = field.replace("gate_texts", "gates.server_ppl_ratio");
                let what = format!(
                    "{ratio} is a bound on the perplexity of the coordinator's texts, and it has none: give texts \
                     of your own with ppl_ratio ('palimpsest edit --gate-texts FILE'), or name some in the \
                     coordinator's setting edit.gate_texts"
                );
                return Err(invalid_argument(&field, what));
            }
            (None, None) => {}
        }
        Ok(())
    }
}

/// A job as it was asked for, checked, with its many parts taken out.
pub(super) struct Asked {
    job: Job,
    items: Items,
    /// Of what was asked, not of what `main` points at now: the same request may come again.
    pub digest: String,
}

impl Asked {
    /// Reads a job, with its parts from their object where it names one.
    ///
    /// # Errors
    /// What is wrong with it, every field at once.
    pub fn read(store: &Store, mut job: Job) -> Result<Self, Status> {
        let object = work::of(&job).and_then(Work::parts_object);
        let object = object.filter(|object| !object.digest.is_empty());
        let items = match object {
            Some(object) if work::of(&job).is_some_and(Work::has_parts) => {
                let what =
                    "what is asked is given twice: in the request and as an object; leave one out";
                return Err(invalid_argument(object.field, what));
            }
            Some(object) => {
                let read = read_object(store, object.field, object.digest)?;
                work::of_mut(&mut job).map_or_else(Items::default, |work| work.take_object(read))
            }
            None => work::pack(&mut job),
        };
        work::check(&mut job, &items).map_err(invalid_fields)?;
        let mut whole = job.clone();
        if items.bytes().len() > INLINE_BYTES && work::parts_object(&job).is_none() {
            name_object(&mut whole, &Digest::of(items.bytes()).to_string());
        }
        work::unpack(&mut whole, &items);
        let digest = Digest::of(&whole.encode_to_vec()).to_string();
        Ok(Self { job, items, digest })
    }

    /// Fills in what the store and the settings say, and cuts the job. Its parts go to an object
    /// when they are many.
    pub fn complete(
        self,
        store: &Store,
        mut model: Model,
        own: &OwnGates,
        task_costs: &TaskCosts,
        validate_only: bool,
    ) -> Result<NewJob, Status> {
        let Self {
            mut job,
            mut items,
            digest,
        } = self;
        stored_corpus(&job, store)?;
        let many = items.bytes().len() > INLINE_BYTES && work::parts_object(&job).is_none();
        if many && !validate_only {
            let object = store.objects().put(items.bytes());
            let object = object?;
            name_object(&mut job, &object.to_string());
        }
        let id = models::model_id(&job.model)?.to_owned();
        let history = History::new(store, &id, &model.digest);
        let usual = work::of(&job).and_then(Work::usual_ref).unwrap_or(MAIN);
        job.version = version(history, "job.version", &job.version, usual)?;
        let name = job.model.clone();
        let asked_version = job.version.clone();
        if let Some(spec) = work::spec::<StatsSpec>(&job) {
            statistics::check_collected(&model, spec)?;
        }
        if let Some(work) = work::of_mut(&mut job) {
            if let Some((field, spec)) = work.edits() {
                statistics::resolve(store, &model, &name, field, spec)?;
                if spec.gates.is_some() || field == "job.edit" {
                    let asked = spec.gates.get_or_insert_default();
                    *asked = work::strictest(asked, &own.bounds);
                }
            }
            if let Some(spec) = work.mass_edit() {
                match spec.without.is_some() {
                    true => items = without::resolve(history, &asked_version, spec)?,
                    false => {
                        statistics::resolve_mass(store, &model, &name, &asked_version, spec)?;
                    }
                }
                let asked = spec.gates.get_or_insert_default();
                *asked = work::strictest(asked, &own.bounds);
            }
            own.add_texts(store, work, !validate_only)?;
            if let Some((field, questions)) = work.gate_questions() {
                look_up_questions(store, field, questions)?;
            }
            if let Some((field, compared)) = work.compared_version() {
                *compared = version(history, field, compared, BASE)?;
            }
            if let Some(landing) = work.landing() {
                check_landing(history, &landing, &asked_version)?;
            }
        }
        // They are many, and of no use behind this.
        model.tensors.clear();
        let shape = model.shape.unwrap_or_default();
        let tasks = coordinator::tasks(&job, &items, &shape, task_costs);
        Ok(NewJob {
            id: Uuid::nil(),
            request_digest: digest,
            job,
            items,
            model,
            tasks,
            request_id: String::new(),
            principal: String::new(),
            earlier: Vec::new(),
        })
    }
}

/// Says that a job's parts lie in an object. Kinds that have them in the request keep them there.
fn name_object(job: &mut Job, digest: &str) {
    if let Some(work) = work::of_mut(job) {
        work.name_parts_object(digest);
    }
}

/// The corpus that a checked job names is stored, so that no worker looks for it in vain.
fn stored_corpus(job: &Job, store: &Store) -> Result<(), Status> {
    match work::of(job).and_then(Work::corpus) {
        Some((field, named)) => stored(store, field, &named.digest, named.size),
        None => Ok(()),
    }
}

/// The texts that edits are judged by are some, and not too many: they were checked to be small.
fn check_texts(store: &Store, field: &str, named: &Corpus) -> Result<(), Status> {
    let object = small_object(store, field, &named.digest, named.size)?;
    work::gate_texts(&object).map_err(|what| invalid_argument(field, what))?;
    Ok(())
}

/// Looks at the questions that edits are judged by, and says which tasks they are of.
fn look_up_questions(store: &Store, field: &str, named: &mut GateQuestions) -> Result<(), Status> {
    let object = small_object(store, field, &named.digest, named.size)?;
    let questions = work::gate_questions(&object).map_err(|what| invalid_argument(field, what))?;
    named.tasks = work::gate_tasks(&questions);
    Ok(())
}

/// An object that was checked to be small.
fn small_object(store: &Store, field: &str, digest: &str, size: u64) -> Result<Vec<u8>, Status> {
    stored(store, field, digest, size)?;
    let wrong = |error: objects::Error| invalid_argument(field, error.to_string());
    Ok(store.objects().read(&digest.parse().map_err(wrong)?)?)
}

/// An object is stored, and has the size it is said to have.
fn stored(store: &Store, field: &str, digest: &str, size: u64) -> Result<(), Status> {
    let stored = store.objects();
    let found = digest
        .parse()
        .and_then(|digest| stored.durable_size(&digest));
    let what = match found {
        Ok(Some(found)) if found == size => return Ok(()),
        Ok(Some(found)) => format!("it has {found} bytes, not {size}"),
        Ok(None) => format!("there is no object {digest}: write it with ObjectService first"),
        Err(error) => error.to_string(),
    };
    Err(invalid_argument(field, what))
}

/// The branch of a job that ends in versions is one, is where the job's version is, and has the
/// etag that the request names.
fn check_landing(history: History<'_>, landing: &Landing<'_>, version: &str) -> Result<(), Status> {
    let reference = history.reference(landing.ref_id)?;
    let at = |expected: String| version::Error::Moved {
        name: reference.name.clone(),
        expected,
        actual: short(digest_of(&reference.version)).to_owned(),
        etag: reference.etag.clone(),
        author: reference.author.clone(),
    };
    if reference.kind() == RefKind::Tag {
        let tag = version::Error::Tag {
            name: reference.name,
        };
        return Err(tag.into());
    }
    if !landing.etag.is_empty() && landing.etag != reference.etag {
        return Err(at(format!("etag {}", landing.etag)).into());
    }
    if reference.version != version {
        return Err(at(format!("version {}", short(digest_of(version)))).into());
    }
    Ok(())
}

/// A version that a job names in a field, by its digest; `usual` is meant where it names none.
fn version(history: History<'_>, field: &str, name: &str, usual: &str) -> Result<String, Status> {
    let asked = match name {
        "" => usual.to_owned(),
        name => versions::version_of(history.model(), field, name)?,
    };
    let version = history.find(&asked)?;
    Ok(version.name)
}

fn read_object(store: &Store, field: &str, digest: &str) -> Result<Items, Status> {
    let parsed: Digest = digest
        .parse()
        .map_err(|error: crate::objects::Error| invalid_argument(field, error.to_string()))?;
    let objects = store.objects();
    let size = objects.durable_size(&parsed)?;
    let largest = crate::datasets::LARGEST_FILE;
    match size {
        None => Err(failed_precondition(
            Reason::ObjectMissing,
            format!("{field}: the object {digest} is not stored: upload it first"),
        )),
        Some(size) if size > largest => Err(invalid_argument(
            field,
            format!("it has {size} bytes: {largest} at most"),
        )),
        Some(_) => {
            let bytes = objects.read(&parsed)?;
            let items = Items::parse(bytes.into())
                .map_err(|malformed| invalid_argument(field, malformed.to_string()))?;
            if items.is_empty() {
                let what = "it holds no facts or records: give at least one";
                return Err(invalid_argument(field, what));
            }
            Ok(items)
        }
    }
}
