//! Records as they lie in the database: prost messages, so that a field can be added without
//! breaking an older store. Field numbers are for ever.

use uuid::Uuid;

use super::formats::WITH_LOG;
use super::{Record, RecordKey};
use crate::objects::Digest;
use crate::proto::v1;

/// A value that lies in the database when it is small and in the object folder when it is not:
/// sled keeps several copies of large values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// The bytes, if they are small.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub inline: Option<Vec<u8>>,
    /// BLAKE3 of the bytes, in hexadecimal: the name of the object when `inline` is absent.
    #[prost(string, tag = "2")]
    pub digest: String,
}

/// A record of an edit, a version, a ref, statistics or the audit log.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Numbered {
    #[prost(message, optional, tag = "1")]
    pub(super) value: Option<Value>,
    #[prost(uint64, tag = "2")]
    pub(super) number: u64,
    /// The bytes, packed (`packed.rs`), instead of `value`. Stores of format 4 have this.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(super) packed: Option<Vec<u8>>,
    /// Of packed ones: the first eight bytes of the bytes' digest.
    #[prost(fixed64, tag = "4")]
    pub(super) check: u64,
}

/// What never changes of a job, and is large.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SpecRecord {
    /// The job as it was accepted, with its facts or prompts.
    #[prost(message, optional, tag = "1")]
    pub job: Option<v1::Job>,
    /// How it was cut.
    #[prost(message, repeated, tag = "2")]
    pub tasks: Vec<TaskPlan>,
}

/// What changes of a job.
#[derive(Clone, PartialEq, prost::Message)]
pub struct JobRecord {
    /// The job without facts and prompts, as lists show it. `counts` is not kept here: it is
    /// counted again from the tasks when the store is opened.
    #[prost(message, optional, tag = "1")]
    pub job: Option<v1::Job>,
    /// The caller's request id, if any.
    #[prost(string, tag = "3")]
    pub request_id: String,
    /// BLAKE3 of the normalised request, in hexadecimal.
    #[prost(string, tag = "4")]
    pub request_digest: String,
    /// The scale of the noise, once it is known.
    #[prost(double, optional, tag = "5")]
    pub noise_scale: Option<f64>,
    /// The version that the open stage runs on, where an edit of the job made one.
    #[prost(string, optional, tag = "6")]
    pub version: Option<String>,
    /// Where the ref stands that the job's edits move, after the newest of them.
    #[prost(string, optional, tag = "7")]
    pub etag: Option<String>,
    /// Who asked for it.
    #[prost(string, tag = "8")]
    pub principal: String,
    /// The texts that the job's first edit drew, for the next ones.
    #[prost(string, repeated, tag = "9")]
    pub contexts: Vec<String>,
    /// The newest date of all that happened to it, in milliseconds since the Unix epoch.
    #[prost(uint64, tag = "10")]
    pub newest: u64,
    /// The first failure of the newest stage that has one.
    #[prost(message, optional, tag = "11")]
    pub first_failure: Option<FailedUnit>,
}

/// Why a unit failed, for what is said of those that need it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FailedUnit {
    /// The unit.
    #[prost(uint64, tag = "1")]
    pub unit: u64,
    /// What its failure says, shortened.
    #[prost(string, tag = "2")]
    pub why: String,
}

/// A task as it was planned.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskPlan {
    /// Its first unit.
    #[prost(uint64, tag = "1")]
    pub first_unit: u64,
    /// How many units it has.
    #[prost(uint64, tag = "2")]
    pub units: u64,
    /// Estimated multiply-adds.
    #[prost(double, tag = "3")]
    pub cost: f64,
    // 4 said whether the other tasks wait for this one. Which stage a task is of follows from its
    // units.
}

/// What changed of a task since it was planned. A task without a record waits.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskRecord {
    /// Its state, a [`v1::TaskState`].
    #[prost(enumeration = "v1::TaskState", tag = "1")]
    pub state: i32,
    /// Epoch of its newest lease.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The worker of its newest lease.
    #[prost(string, tag = "3")]
    pub worker: String,
    /// Ended attempts by class.
    #[prost(message, repeated, tag = "4")]
    pub failures: Vec<v1::FailureCount>,
    /// What the last failure said.
    #[prost(string, tag = "5")]
    pub last_failure: String,
    /// The distinct workers that were lost while they ran it.
    #[prost(string, repeated, tag = "6")]
    pub lost_workers: Vec<String>,
    /// What it is now, when it was cut again after its job was accepted.
    #[prost(message, optional, tag = "7")]
    pub plan: Option<TaskPlan>,
    /// Epoch of a second live lease; 0 for none.
    #[prost(uint64, tag = "8")]
    pub second_epoch: u64,
    /// The worker of the second lease.
    #[prost(string, tag = "9")]
    pub second_worker: String,
}

/// A committed result.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResultRecord {
    /// The serialised [`v1::UnitResult`].
    #[prost(message, optional, tag = "1")]
    pub value: Option<Value>,
    /// The lease's epoch; 0 when the coordinator itself ended the unit.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The worker that computed it.
    #[prost(string, tag = "3")]
    pub worker: String,
    /// What decided its last bits.
    #[prost(message, optional, tag = "4")]
    pub fingerprint: Option<v1::Fingerprint>,
    /// Whether it is a failure.
    #[prost(bool, tag = "5")]
    pub failed: bool,
    /// The unit whose result this one repeats, under its own number, when it was answered from the
    /// store. `value` then has the digest only.
    #[prost(message, optional, tag = "6")]
    pub source: Option<UnitRef>,
    /// What the coordinator made of an edit, in the step that committed it.
    #[prost(message, optional, tag = "7")]
    pub landed: Option<Landed>,
}

/// What became of an edit that a job computed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Landed {
    /// Its digest: the record that has it, with its state.
    #[prost(string, tag = "1")]
    pub edit: String,
    /// The name of the version that it made; empty when it was rejected.
    #[prost(string, tag = "2")]
    pub version: String,
    /// The etag of the ref that moved there.
    #[prost(string, tag = "3")]
    pub etag: String,
}

/// A unit of a job.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UnitRef {
    /// The job's identifier, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub job: Vec<u8>,
    /// The unit's number.
    #[prost(uint64, tag = "2")]
    pub unit: u64,
}

impl UnitRef {
    /// Names a unit.
    pub fn new(job: Uuid, unit: u64) -> Self {
        Self {
            job: job.as_bytes().to_vec(),
            unit,
        }
    }
}

/// A second, different result for a unit that has one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DivergenceRecord {
    /// The digest that was refused.
    #[prost(string, tag = "1")]
    pub digest: String,
    /// Who sent it.
    #[prost(string, tag = "2")]
    pub worker: String,
    /// Its fingerprint.
    #[prost(message, optional, tag = "3")]
    pub fingerprint: Option<v1::Fingerprint>,
}

/// Changes that are made durable together, as they lie in the log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    /// What is written, in order.
    #[prost(message, repeated, tag = "1")]
    pub writes: Vec<Write>,
    /// In the last batch of a checkpoint: how many records it has.
    #[prost(uint64, optional, tag = "2")]
    pub records: Option<u64>,
    /// In the first batch of a checkpoint: the mark of the log's batch before it, 8 bytes.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub before: Option<Vec<u8>>,
    /// The batch itself, encoded and deflated, and nothing else is set then. Only as it lies in the
    /// log: whoever reads the log has it as it was.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub deflated: Option<Vec<u8>>,
    /// In a log that several coordinators write to, one at a time: who wrote it, 16 bytes that
    /// nobody else has. It tells a batch from every other of its number.
    #[prost(bytes = "vec", optional, tag = "5")]
    pub leader: Option<Vec<u8>>,
    /// In such a log: what the batch says beside its writes.
    #[prost(message, optional, tag = "6")]
    pub sign: Option<Sign>,
}

/// What a coordinator says in a log that others read.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Sign {
    /// What.
    #[prost(enumeration = "Said", tag = "1")]
    pub said: i32,
    /// Of one that takes over: what people call it, its machine say. Of one that takes the log out:
    /// the folder that has it then.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Of one that takes over, or writes what older programs would read wrongly: the format that
    /// the store has from here on.
    #[prost(uint32, tag = "3")]
    pub format: u32,
}

/// What a coordinator says in a log that others read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Said {
    /// It is there still.
    Here = 0,
    /// It leads from here on.
    TookOver = 1,
    /// It ends, and another may take over at once.
    Left = 2,
    /// It has taken the log out of the bucket: nobody goes on with this one.
    TakenOut = 3,
}

/// A record that is set, or removed.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Write {
    /// Its key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The record; absent when it is removed.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub value: Option<Vec<u8>>,
}

/// A change to the store. A list of them is written as one atomic batch.
#[derive(Clone, Debug)]
pub enum Change {
    /// The job's spec: written once.
    Spec(Uuid, SpecRecord),
    /// The job's record.
    Job(Uuid, JobRecord),
    /// A task's record.
    Task(Uuid, u32, TaskRecord),
    /// A unit's result and the serialised bytes of it.
    Result(Uuid, u64, ResultRecord, bytes::Bytes),
    /// A unit that was computed, and can answer for every unit of the same digest from now on.
    Cached(Digest, Uuid, u64),
    /// A divergence of a unit.
    Divergence(Uuid, u64, DivergenceRecord),
    /// An event of a job.
    Event(Uuid, v1::JobEvent),
    /// The newest lease epoch.
    Epoch(u64),
    /// A model.
    Model(String, v1::Model),
    /// A record of a version, an edit, a ref or the audit log.
    Record(Record),
    /// Such a record goes.
    Removed(RecordKey),
}

impl Change {
    /// The oldest format of a store whose programs know it.
    pub(super) fn format(&self) -> u32 {
        match self {
            Self::Record(record) => record.format,
            _ => WITH_LOG,
        }
    }
}
