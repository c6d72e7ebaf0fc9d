//! What a record is, by its key, and which objects it reaches. The one place that knows every kind
//! of record: what verifies the store and what collects objects learn a new kind here.

use uuid::Uuid;

use super::values::{decode, digest_of, unit_of};
use super::{
    DivergenceRecord, Error, JobRecord, ResultRecord, SpecRecord, Store, TaskRecord, UnitRef,
    Value, keys,
};
use crate::objects::Digest;
use crate::proto::v1;

/// An object that a record reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It has to be there.
    Needed(Digest),
    /// The record has its digest in it, in some field that may name an object: a field that this
    /// file does not know must not cost its object.
    Mentioned(Digest),
}

/// A record, decoded.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Looked at one at a time.
pub(super) enum Record {
    Job(Uuid, JobRecord),
    Spec(Uuid, SpecRecord),
    Task(Uuid, u32, TaskRecord),
    Result(Uuid, u64, ResultRecord),
    Divergence(Uuid, u64),
    Event(Uuid, u64),
    Model,
    Cached(Uuid, u64),
    /// Of an edit, a version, a ref or the audit log, by its kind.
    Version(&'static str),
    Epoch(u64),
}

impl Record {
    /// What people call its kind.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Job(..) => "jobs",
            Self::Spec(..) => "specs",
            Self::Task(..) => "tasks",
            Self::Result(..) => "results",
            Self::Divergence(..) => "divergences",
            Self::Event(..) => "events",
            Self::Model => "models",
            Self::Cached(..) => "cached units",
            Self::Version(kind) => kind,
            Self::Epoch(_) => "epochs",
        }
    }
}

impl Store {
    /// What kind of record these bytes are, decoded as [`verify`](super::verify) does.
    ///
    /// # Errors
    /// [`Error::Damaged`], and [`Error::Object`] when the record's value is an object that is not
    /// there.
    pub fn kind_of(&self, key: &[u8], bytes: &[u8]) -> Result<&'static str, Error> {
        self.examine(key, bytes, |_| {}).map(|record| record.kind())
    }

    /// Decodes a record, and gives the objects that it reaches to `reach`.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it does not decode or is of no known kind, and what reading an
    /// object that names others fails with.
    pub(super) fn examine(
        &self,
        key: &[u8],
        bytes: &[u8],
        mut reach: impl FnMut(Reach),
    ) -> Result<Record, Error> {
        mentions(bytes, &mut reach);
        let mut kept = |key: &[u8], value: Value| {
            let elsewhere = value.inline.is_none();
            if elsewhere {
                reach(Reach::Needed(digest_of(key, &value)?));
            }
            let bytes = self.value(key, value)?;
            if elsewhere {
                mentions(&bytes, &mut reach);
            }
            Ok::<_, Error>(bytes)
        };
        Ok(match key.first().copied() {
            _ if key == keys::EPOCH => {
                let number = bytes
                    .try_into()
                    .map_err(|_| damaged(key, "it is no number"))?;
                Record::Epoch(u64::from_be_bytes(number))
            }
            Some(keys::JOB) => Record::Job(keys::job_of(key)?, decode(key, bytes)?),
            Some(keys::SPEC) => {
                let spec = kept(key, decode(key, bytes)?)?;
                let spec: SpecRecord = decode(key, &spec)?;
                let asked = spec.job.as_ref().and_then(|job| job.spec.as_ref());
                let corpus = |named: &'_ Option<v1::Corpus>| {
                    named.as_ref().map(|corpus| corpus.digest.clone())
                };
                let judged = |texts: &Option<v1::GateTexts>,
                              questions: &Option<v1::GateQuestions>| {
                    let texts = texts.clone().unwrap_or_default();
                    let questions = questions.as_ref().map(|it| it.digest.clone());
                    vec![
                        ("gate_texts.asked", corpus(&texts.asked)),
                        ("gate_texts.server", corpus(&texts.server)),
                        ("gate_questions", questions),
                    ]
                };
                let named = match asked {
                    Some(v1::job::Spec::Trace(trace)) => vec![
                        ("facts_object", Some(trace.facts_object.clone())),
                        ("noise_corpus", corpus(&trace.noise_corpus)),
                    ],
                    Some(v1::job::Spec::Stats(stats)) => vec![("corpus", corpus(&stats.corpus))],
                    Some(v1::job::Spec::Eval(eval)) => {
                        vec![("records_object", Some(eval.records_object.clone()))]
                    }
                    Some(v1::job::Spec::Edit(edit)) => {
                        judged(&edit.gate_texts, &edit.gate_questions)
                    }
                    Some(v1::job::Spec::MassEdit(mass)) => {
                        let mut named = judged(&mass.gate_texts, &mass.gate_questions);
                        named.push(("tasks_object", Some(mass.tasks_object.clone())));
                        named
                    }
                    _ => Vec::new(),
                };
                for (field, digest) in named {
                    let Some(digest) = digest.filter(|digest| !digest.is_empty()) else {
                        continue;
                    };
                    let what = || damaged(key, &format!("its {field} is no digest"));
                    reach(Reach::Needed(digest.parse().map_err(|_| what())?));
                }
                Record::Spec(keys::job_of(key)?, spec)
            }
            Some(keys::TASK) => {
                let (job, n) = keys::task_of(key)?;
                Record::Task(job, n, decode(key, bytes)?)
            }
            Some(keys::RESULT) => {
                let (job, unit) = keys::unit_of(key)?;
                let record: ResultRecord = decode(key, bytes)?;
                let value = record.value.clone().unwrap_or_default();
                if value.inline.is_none() && record.source.is_none() {
                    kept(key, value)?;
                }
                Record::Result(job, unit, record)
            }
            Some(keys::DIVERGENCE) => {
                let (job, unit) = keys::unit_of(key)?;
                decode::<DivergenceRecord>(key, bytes)?;
                Record::Divergence(job, unit)
            }
            Some(keys::EVENT) => {
                let (job, sequence) = keys::unit_of(key)?;
                let event: v1::JobEvent = decode(key, bytes)?;
                if event.sequence != sequence {
                    return Err(damaged(key, "it has another sequence number"));
                }
                Record::Event(job, sequence)
            }
            Some(keys::MODEL) => {
                let model = kept(key, decode(key, bytes)?)?;
                let model: v1::Model = decode(key, &model)?;
                for file in &model.files {
                    reach(Reach::Needed(file.digest.parse().map_err(|_| {
                        damaged(key, &format!("its file {} has no digest", file.file_name))
                    })?));
                }
                Record::Model
            }
            Some(keys::CACHED) => {
                let (job, unit) = unit_of(key, &decode::<UnitRef>(key, bytes)?)?;
                Record::Cached(job, unit)
            }
            _ => match self.examine_version(key, bytes, reach)? {
                Some(kind) => Record::Version(kind),
                None => return Err(damaged(key, "it is of no known kind")),
            },
        })
    }
}

/// Gives the digests that stand in bytes as text: at the beginning and at the end of every run of
/// digits that is long enough. In a record a digest stands behind its field's length, which is no
/// digit ('@' is 64), or behind a '/' or another mark; what follows it may look like a digit, as
/// the next field's key may. A run that is longer is a text, and what it costs does not depend on
/// it.
pub(super) fn mentions(bytes: &[u8], reach: &mut impl FnMut(Reach)) {
    const DIGITS: usize = 64;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut mention = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).ok();
        if let Some(digest) = text.and_then(|text| text.parse().ok()) {
            reach(Reach::Mentioned(digest));
        }
    };
    for run in bytes.split(|byte| !is_digit(byte)) {
        let Some(last) = run.len().checked_sub(DIGITS) else {
            continue;
        };
        mention(&run[..DIGITS]);
        if last > 0 {
            mention(&run[last..]);
        }
    }
}

fn damaged(key: &[u8], what: &str) -> Error {
    Error::Damaged {
        key: keys::printable(key),
        what: what.to_owned(),
    }
}
