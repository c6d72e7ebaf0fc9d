//! The handle on the running coordinator: what the services call. It asks the actor and waits until
//! what was done is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::core::{Core, Done};
use super::driver::{self, Command, Delivery, OUTBOX, QueuedTurn, Surroundings};
use super::event::{Closing, Event, NewJob, Refusal, Session};
use super::identifiers::Identifiers;
use super::job::timestamp;
use super::limits::Limits;
use super::load::LastLooked;
use super::refused::LastRefused;
use super::reuse;
use super::transaction::Transaction;
use crate::audit::{self, EntryDraft};
use crate::blocking::blocking;
use crate::proto::v1::{self, connect_response::Message};
use crate::store::{self, Store};
use crate::version::Bases;

/// Why the coordinator does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed. Its errors are sticky: the coordinator has stopped.
    #[error("the coordinator has stopped: see its log")]
    Stopped,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The audit log takes no entry, so that nothing may be changed.
    #[error(transparent)]
    Audit(#[from] audit::Error),
}

/// A handle on the running coordinator. Clones share it.
#[derive(Clone, Debug)]
pub struct Coordinator {
    commands: mpsc::Sender<Command>,
    store: Arc<Store>,
    sessions: Arc<AtomicU64>,
    identifiers: Arc<Identifiers>,
    audited: watch::Receiver<u64>,
    pub(super) bases: Arc<Bases>,
    pub(super) last_looked: LastLooked,
    refused: LastRefused,
    surroundings: Surroundings,
}

impl Coordinator {
    /// Rebuilds the state from the store and starts the actor. The handle it gives back beside the
    /// coordinator ends when the last clone is dropped, or with an error when the store fails.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start(
        store: Arc<Store>,
        limits: Limits,
    ) -> Result<(Self, JoinHandle<Result<(), store::Error>>), Error> {
        Self::start_in(Surroundings::real(), store, limits)
    }

    /// [`Coordinator::start`] with another clock or disk.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start_in(
        surroundings: Surroundings,
        store: Arc<Store>,
        limits: Limits,
    ) -> Result<(Self, JoinHandle<Result<(), store::Error>>), Error> {
        let log = audit::Log::open(&store)?;
        let started = driver::start(surroundings.clone(), &store, log, limits)?;
        let coordinator = Self {
            commands: started.commands,
            bases: Arc::new(Bases::new(store.clone())),
            store,
            sessions: Arc::new(AtomicU64::new(1)),
            identifiers: Arc::new(Identifiers::after(started.newest)),
            audited: started.audited,
            last_looked: LastLooked::default(),
            refused: LastRefused::default(),
            surroundings,
        };
        Ok((coordinator, started.ended))
    }

    /// The opened bases of the store's models.
    pub fn bases(&self) -> &Arc<Bases> {
        &self.bases
    }

    /// The worker that was refused last.
    pub fn refused(&self) -> &LastRefused {
        &self.refused
    }

    /// The store, for reading.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The date, by the clock that the audit log goes by.
    pub fn date(&self) -> prost_types::Timestamp {
        timestamp(self.surroundings.time().date)
    }

    /// An identifier for a new job: it comes after those of all jobs that there are, also when the
    /// clock was set back.
    pub fn new_job_id(&self) -> Uuid {
        self.identifiers.next()
    }

    /// Opens a worker's stream: what the core sends to the session comes out of the receiver; an
    /// error is its last item.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn open_session(
        &self,
    ) -> Result<(Session, mpsc::Receiver<Result<Message, Closing>>), Error> {
        let session = Session(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = mpsc::channel(OUTBOX);
        self.send(Command::Open(session, sender)).await?;
        Ok((session, receiver))
    }

    /// Tells the core of an event that nobody waits for.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn tell(&self, event: Event) -> Result<(), Error> {
        self.send(Command::Event(event, None)).await
    }

    /// Tells the core of an event and waits until what it did is durable.
    ///
    /// # Errors
    /// [`Error::Refused`] with the core's reason, [`Error::Stopped`].
    pub async fn ask(&self, event: Event) -> Result<Done, Error> {
        let (sender, receiver) = oneshot::channel();
        self.send(Command::Event(event, Some(sender))).await?;
        Ok(receiver.await.map_err(|_| Error::Stopped)??)
    }

    /// The job with the results that the store has for its units, unless it is to be computed
    /// afresh.
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::Store`].
    pub async fn with_earlier_results(&self, mut new: NewJob) -> Result<NewJob, Error> {
        if new.job.no_cache {
            return Ok(new);
        }
        let store = self.store.clone();
        blocking(move || {
            new.earlier = reuse::find(&store, &new)?;
            Ok(new)
        })
        .await
        .map_err(|_| Error::Stopped)?
    }

    /// Looks at the state. What is seen is durable.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let look = move |core: &Core| -> Delivery {
            let seen = look(core);
            // The asker may have gone away; nobody is left to tell.
            Box::new(move || drop(sender.send(seen)))
        };
        self.send(Command::Inspect(Box::new(look))).await?;
        receiver.await.map_err(|_| Error::Stopped)
    }

    /// Takes a turn at the state in which nothing else happens, and gives what it gave once what it
    /// wrote is durable. It may read what belongs to jobs in the core, but no records: those of
    /// earlier turns may be on their way to the store.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub(super) async fn with_turn<T: Send + 'static>(
        &self,
        take: impl FnOnce(&mut Transaction<'_>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (turn, receiver) = queued(take);
        self.send(Command::Turn(turn)).await?;
        receiver.await.map_err(|_| Error::Stopped)
    }

    /// Takes a turn at the state like no other: it reads all that earlier ones wrote, decides,
    /// and writes. Gives what it gave once what it wrote is durable.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn transact<T: Send + 'static>(
        &self,
        take: impl FnOnce(&mut Transaction<'_>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (turn, receiver) = queued(take);
        self.send(Command::Transact(turn)).await?;
        receiver.await.map_err(|_| Error::Stopped)
    }

    /// How many entries the audit log has; changes when there are more.
    pub fn audited(&self) -> watch::Receiver<u64> {
        self.audited.clone()
    }

    /// A signal that fires when a job has new events or progress.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn watch(&self, job: Uuid) -> Result<watch::Receiver<()>, Error> {
        let (sender, receiver) = oneshot::channel();
        self.send(Command::Watch(job, sender)).await?;
        receiver.await.map_err(|_| Error::Stopped)
    }

    async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands
            .send(command)
            .await
            .map_err(|_| Error::Stopped)
    }

    /// Looks at a job with its tasks: in the state while it is open, and in the store when it has
    /// ended. What is seen is durable.
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::Store`].
    pub async fn inspect_job<T: Send + 'static>(
        &self,
        id: Uuid,
        look: impl Fn(&Core) -> Option<T> + Clone + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let in_memory = look.clone();
        let seen = self
            .inspect(move |core| match core.has_ended(id) {
                true => Err(()),
                false => Ok(in_memory(core)),
            })
            .await?;
        if let Ok(seen) = seen {
            return Ok(seen);
        }
        let (store, last) = (self.store().clone(), self.last_looked.clone());
        blocking(move || Ok(look(&*last.get(&store, id)?)))
            .await
            .map_err(|_| Error::Stopped)?
    }

    /// Does what a client asked of the core, with an entry in the audit log that says who it was.
    /// A refusal is not entered here: whoever tells it to the client does that.
    ///
    /// # Errors
    /// [`Error::Refused`] with the core's reason, [`Error::Audit`], [`Error::Stopped`].
    pub async fn ask_as(&self, event: Event, draft: EntryDraft) -> Result<Done, Error> {
        self.with_turn(move |turn| {
            if let Some(problem) = turn.log.damage() {
                let problem = problem.to_owned();
                return Err(Error::Audit(audit::Error::Damaged { problem }));
            }
            let answer = turn.apply(event)?;
            turn.record(draft)?;
            Ok(answer)
        })
        .await?
    }

    /// Enters something that happened elsewhere into the audit log.
    ///
    /// # Errors
    /// [`Error::Audit`], [`Error::Stopped`].
    pub async fn record(&self, draft: EntryDraft) -> Result<(), Error> {
        Ok(self.with_turn(move |turn| turn.record(draft)).await??)
    }

    /// The audit log's newest checkpoint.
    ///
    /// # Errors
    /// [`Error::Audit`], [`Error::Stopped`].
    pub async fn audit_checkpoint(&self) -> Result<v1::AuditCheckpoint, Error> {
        Ok(self.with_turn(|turn| turn.log.checkpoint()).await??)
    }

    /// A receipt, signed with the audit log's key; and the key that verifies it.
    ///
    /// # Errors
    /// [`Error::Audit`], [`Error::Stopped`].
    pub async fn sign(&self, receipt: audit::Receipt) -> Result<(String, String), Error> {
        Ok(self
            .with_turn(move |turn| turn.log.sign(&receipt))
            .await??)
    }
}

fn queued<T: Send + 'static>(
    take: impl FnOnce(&mut Transaction<'_>) -> T + Send + 'static,
) -> (QueuedTurn, oneshot::Receiver<T>) {
    let (sender, receiver) = oneshot::channel();
    let turn = move |transaction: &mut Transaction<'_>| -> Delivery {
        let answer = take(transaction);
        // The asker may have gone away; nobody is left to tell.
        Box::new(move || drop(sender.send(answer)))
    };
    (Box::new(turn), receiver)
}
