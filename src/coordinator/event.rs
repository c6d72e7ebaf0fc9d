//! The vocabulary of the coordinator's core: what it is told, and what it asks to be done.

use bytes::Bytes;
use uuid::Uuid;

use crate::proto::v1;
use crate::store::{CachedResult, Change, Landed, TaskPlan};
use crate::wire::names;
use crate::work::Items;

/// Milliseconds since the Unix epoch. Given to the core, never read by it.
pub type Millis = u64;

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// By the clock that leases are counted by, which never leaps.
    pub now: Millis,
    /// By the machine's clock, which people may set: what things are dated by.
    pub date: Millis,
}

impl From<Millis> for Time {
    /// Where one clock serves for both.
    fn from(now: Millis) -> Self {
        Self { now, date: now }
    }
}

/// One stream of a worker. A worker that reconnects has a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session(pub u64);

/// A lease: the task and the epoch it was given with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseKey {
    /// The job.
    pub job: Uuid,
    /// The task's number in the job.
    pub task: u32,
    /// The epoch.
    pub epoch: u64,
}

impl LeaseKey {
    /// As it travels.
    pub fn to_proto(&self) -> v1::LeaseKey {
        v1::LeaseKey {
            task: names::task(self.job, self.task),
            epoch: self.epoch,
        }
    }

    /// From how it travels.
    pub fn from_proto(key: &v1::LeaseKey) -> Option<Self> {
        let (job, task) = names::parse_task(&key.task)?;
        Some(Self {
            job,
            task,
            epoch: key.epoch,
        })
    }
}

/// A job that was checked and cut, ready to be accepted.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its identifier.
    pub id: Uuid,
    /// The normalised job, whose many parts were taken out of it.
    pub job: v1::Job,
    /// Its many parts: facts, prompts.
    pub items: Items,
    /// The model it runs on, without tensors.
    pub model: v1::Model,
    /// How it is cut.
    pub tasks: Vec<TaskPlan>,
    /// Who asked for it: what its end changes is done in their name.
    pub principal: String,
    /// The caller's request id; empty for none.
    pub request_id: String,
    /// Digest of the normalised request.
    pub request_digest: String,
    /// Units that the store has results for, from jobs before.
    pub earlier: Vec<(u64, CachedResult)>,
}

/// Something that happened.
#[derive(Clone, Debug)]
// Moved once to the core: a box for each would cost more than it saves.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// A client asked for a job.
    Submit(Box<NewJob>),
    /// A client cancelled a job.
    Cancel(Uuid),
    /// A client gives the tasks in quarantine another round.
    Requeue(Uuid),
    /// A worker opened its stream.
    Hello {
        /// The new stream.
        session: Session,
        /// What it said.
        hello: Box<v1::Hello>,
        /// The leases it still holds.
        held: Vec<LeaseKey>,
        /// Who opened the stream; empty where nobody is asked.
        principal: String,
    },
    /// A worker changed its credits.
    Credits(Session, u32),
    /// A worker lives.
    Heartbeat {
        /// Its stream.
        session: Session,
        /// How its leases go: each as the worker tells it.
        leases: Vec<(LeaseKey, v1::LeaseProgress)>,
        /// Models it has loaded.
        loaded: Vec<String>,
    },
    /// A worker hands in a result.
    Commit {
        /// Its stream.
        session: Session,
        /// The lease it worked under.
        lease: LeaseKey,
        /// The unit.
        unit: u64,
        /// The result.
        result: CommittedResult,
    },
    /// A worker ended a lease, well or with a failure.
    TaskEnd {
        /// Its stream.
        session: Session,
        /// The lease.
        lease: LeaseKey,
        /// Why it was not finished.
        failure: Option<v1::Failure>,
    },
    /// The ref that an edit was to move was moved by somebody else: the edit is computed again, on
    /// the version that the ref has now.
    Rebase {
        /// The lease that computed it.
        lease: LeaseKey,
        /// The version.
        version: String,
        /// The etag of the ref.
        etag: String,
    },
    /// A worker lives: something of it is being looked at.
    Alive(Session),
    /// A worker takes no more work.
    Drain(Session),
    /// Someone wants a worker, named here, to finish what it has and leave.
    AskDrain(String),
    /// Someone wants a worker that was excluded to have leases again.
    Readmit(String),
    /// A worker's stream broke or closed.
    Gone(Session),
    /// Time passed.
    Tick,
}

/// A result on its way into the store, with what the core must know of it.
#[derive(Clone, Debug)]
pub struct CommittedResult {
    /// The serialised [`v1::UnitResult`].
    pub bytes: Bytes,
    /// The first eight bytes of its BLAKE3 digest.
    pub digest_prefix: u64,
    /// The whole digest in hexadecimal.
    pub digest: String,
    /// Whether it is a failure.
    pub failed: bool,
    /// What it says; none where it is only repeated.
    pub outcome: Option<Box<v1::unit_result::Outcome>>,
    /// What the coordinator made of an edit, in the step that commits it.
    pub landed: Option<Landed>,
    /// What decided its last bits.
    pub fingerprint: Option<v1::Fingerprint>,
    /// The first eight bytes of the digest of the unit's result in the store, where the unit's job
    /// has ended: the core does not remember it.
    pub(super) before: Option<u64>,
}

impl CommittedResult {
    /// A result with its serialised bytes as they came in.
    pub fn new(
        bytes: bytes::Bytes,
        result: v1::UnitResult,
        fingerprint: Option<v1::Fingerprint>,
    ) -> Self {
        use v1::unit_result::Outcome;
        let digest = crate::objects::Digest::of(&bytes);
        Self {
            digest_prefix: digest.prefix(),
            digest: digest.to_string(),
            failed: matches!(result.outcome, Some(Outcome::Failure(_))),
            outcome: result.outcome.map(Box::new),
            landed: None,
            bytes,
            fingerprint,
            before: None,
        }
    }
}

/// What the core asks its driver to do. All [`Effect::Change`]s of an event are made durable
/// before any other effect of it is carried out (I3).
#[derive(Clone, Debug)]
// Moved once from the core to the driver: a box for each would cost more than it saves.
#[allow(clippy::large_enum_variant)]
pub enum Effect {
    /// Write to the store.
    Change(Change),
    /// Send to a worker.
    Send(Session, Box<v1::connect_response::Message>),
    /// End a worker's stream.
    Close(Session, Closing),
    /// A job has new events or progress: wake those who watch it.
    Wake(Uuid),
}

/// Why the coordinator ends a worker's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The worker opened another one.
    Replaced,
    /// Another process is the worker of this name.
    Taken,
    /// Nothing was heard of the worker for too long.
    Silent,
    /// The worker closed it itself.
    Gone,
    /// It handed in what is no result of its unit: why.
    Unfit(String),
}

/// Why the core refuses a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such job.
    #[error("there is no job {0}: 'palimpsest job list' shows those there are")]
    NoSuchJob(Uuid),
    /// No such worker is connected.
    #[error("no worker '{0}' is connected: 'palimpsest worker list' shows those there are")]
    NoSuchWorker(String),
    /// The owner has too much waiting already.
    #[error(
        "'{owner}' has {open} {what} open and asks for {more} more, of which {most} may be open at \
         a time: wait until some have ended, or cancel some"
    )]
    TooMuch {
        /// The owner.
        owner: String,
        /// "jobs" or "units".
        what: &'static str,
        /// How many are open.
        open: u64,
        /// How many were asked for.
        more: u64,
        /// How many may be.
        most: u64,
        /// When to ask again, in milliseconds.
        retry: Millis,
    },
    /// The request id was used for another request.
    #[error(
        "the request id '{request_id}' was used for a different request, which made jobs/{job}: \
         use a new id"
    )]
    RequestIdReused {
        /// The id.
        request_id: String,
        /// The job it made.
        job: Uuid,
    },
}
