//! Keys of the records: a letter, then identifiers, numbers in big-endian so that a range scan
//! goes through them in order.

use uuid::Uuid;

use super::Error;
use crate::objects::Digest;

pub const JOB: u8 = b'j';
pub const SPEC: u8 = b's';
pub const TASK: u8 = b't';
pub const RESULT: u8 = b'r';
pub const DIVERGENCE: u8 = b'd';
pub const EVENT: u8 = b'e';
pub const MODEL: u8 = b'm';
pub const CACHED: u8 = b'u';
pub const EDIT: u8 = b'E';
pub const EDIT_NUMBER: u8 = b'F';
pub const VERSION: u8 = b'V';
pub const VERSION_NUMBER: u8 = b'W';
pub const REF: u8 = b'R';
pub const STATISTICS: u8 = b'K';
pub const AUDIT_ENTRY: u8 = b'A';
pub const AUDIT_HEAD: [u8; 1] = *b"H";
pub const EPOCH: [u8; 6] = *b"cepoch";
/// Up to where the index goes; not a record of the log.
pub const POSITION: [u8; 4] = *b"plog";

fn with_job(letter: u8, job: Uuid, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(17 + rest.len());
    key.push(letter);
    key.extend_from_slice(job.as_bytes());
    key.extend_from_slice(rest);
    key
}

pub fn job(job: Uuid) -> Vec<u8> {
    with_job(JOB, job, &[])
}

pub fn spec(job: Uuid) -> Vec<u8> {
    with_job(SPEC, job, &[])
}

pub fn task(job: Uuid, n: u32) -> Vec<u8> {
    with_job(TASK, job, &n.to_be_bytes())
}

pub fn result(job: Uuid, unit: u64) -> Vec<u8> {
    with_job(RESULT, job, &unit.to_be_bytes())
}

pub fn event(job: Uuid, sequence: u64) -> Vec<u8> {
    with_job(EVENT, job, &sequence.to_be_bytes())
}

pub fn divergences(job: Uuid) -> Vec<u8> {
    with_job(DIVERGENCE, job, &[])
}

pub fn divergence(job: Uuid, unit: u64, digest: &str) -> Vec<u8> {
    let mut key = with_job(DIVERGENCE, job, &unit.to_be_bytes());
    key.extend_from_slice(digest.as_bytes());
    key
}

pub fn model(id: &str) -> Vec<u8> {
    let mut key = vec![MODEL];
    key.extend_from_slice(id.as_bytes());
    key
}

/// A computed unit by the digest of all that decides its value.
pub fn cached(unit: &Digest) -> Vec<u8> {
    let mut key = vec![CACHED];
    key.extend_from_slice(unit.as_bytes());
    key
}

/// A letter, the model's identifier, which has no zero byte, and the rest.
pub fn of_model(letter: u8, model: &str, rest: &[u8]) -> Vec<u8> {
    [&[letter], model.as_bytes(), &[0], rest].concat()
}

/// Key statistics of a layer; with an empty digest, what their keys begin with. The layer too:
/// equal sums of two layers are two artefacts.
pub fn statistics(model: &str, layer: u32, digest: &str) -> Vec<u8> {
    of_model(STATISTICS, model, format!("{layer:06}/{digest}").as_bytes())
}

pub fn audit_entry(sequence: u64) -> Vec<u8> {
    [&[AUDIT_ENTRY][..], &sequence.to_be_bytes()].concat()
}

/// A key as text, for errors.
pub fn printable(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

fn damaged(key: &[u8]) -> Error {
    Error::Damaged {
        key: printable(key),
        what: "the key is malformed".to_owned(),
    }
}

pub fn job_of(key: &[u8]) -> Result<Uuid, Error> {
    let bytes = key.get(1..17).ok_or_else(|| damaged(key))?;
    Uuid::from_slice(bytes).map_err(|_| damaged(key))
}

pub fn task_of(key: &[u8]) -> Result<(Uuid, u32), Error> {
    let n = key
        .get(17..21)
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| damaged(key))?;
    Ok((job_of(key)?, u32::from_be_bytes(n)))
}

pub fn unit_of(key: &[u8]) -> Result<(Uuid, u64), Error> {
    let unit = key
        .get(17..25)
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| damaged(key))?;
    Ok((job_of(key)?, u64::from_be_bytes(unit)))
}
