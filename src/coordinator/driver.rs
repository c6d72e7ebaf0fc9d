//! The actor that owns the core, the clock and the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::core::{Answer, Core, Limits};
use super::event::{Closing, Effect, Event, Millis, Refusal, Session};
use crate::proto::v1::connect_response::Message;
use crate::store::{self, Change, Store};

/// Most events that share one flush.
const BATCH: usize = 4096;
/// Events that may wait before senders are held up.
const QUEUE: usize = 16_384;
/// Messages that may wait for a worker. A worker is never sent more leases than it has credits
/// for; acknowledgements and cancellations make up the rest.
const OUTBOX: usize = 4096;

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
}

/// A handle on the running coordinator. Clones share it.
#[derive(Clone, Debug)]
pub struct Coordinator {
    commands: mpsc::Sender<Command>,
    store: Arc<Store>,
    sessions: Arc<AtomicU64>,
}

type Inspection = Box<dyn FnOnce(&Core) + Send>;

// Moved once through the queue: a box for each would cost more than it saves.
#[allow(clippy::large_enum_variant)]
enum Command {
    Event(Event, Option<oneshot::Sender<Answer>>),
    Open(Session, mpsc::Sender<Result<Message, Closing>>),
    Inspect(Inspection),
    Watch(Uuid, oneshot::Sender<watch::Receiver<()>>),
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
    ) -> Result<(Self, JoinHandle<Result<(), store::Error>>), store::Error> {
        let snapshot = store.load()?;
        let mut models = HashMap::new();
        for (_, _, spec) in &snapshot.jobs {
            let name = spec.job.as_ref().map_or("", |job| job.model.as_str());
            let id = name.strip_prefix("models/").unwrap_or(name);
            if let Some(mut model) = store.model(id)? {
                model.tensors.clear();
                models.insert(name.to_owned(), model);
            }
        }
        let core = Core::restore(
            limits,
            snapshot,
            |name| models.get(name).cloned().unwrap_or_default(),
            now(),
        );
        let (commands, inbox) = mpsc::channel(QUEUE);
        let actor = Actor {
            core,
            store: store.clone(),
            streams: HashMap::new(),
            watchers: HashMap::new(),
        };
        let tick = Duration::from_millis((limits.heartbeat / 4).clamp(10, 1000));
        let task = tokio::spawn(actor.run(inbox, tick));
        let coordinator = Self {
            commands,
            store,
            sessions: Arc::new(AtomicU64::new(1)),
        };
        Ok((coordinator, task))
    }

    /// The store, for reading.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
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
    pub async fn ask(&self, event: Event) -> Result<Option<Uuid>, Error> {
        let (sender, receiver) = oneshot::channel();
        self.send(Command::Event(event, Some(sender))).await?;
        Ok(receiver.await.map_err(|_| Error::Stopped)??)
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
        let look = move |core: &Core| {
            // The asker may have gone away; nobody is left to tell.
            let _ = sender.send(look(core));
        };
        self.send(Command::Inspect(Box::new(look))).await?;
        receiver.await.map_err(|_| Error::Stopped)
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
}

struct Actor {
    core: Core,
    store: Arc<Store>,
    streams: HashMap<Session, mpsc::Sender<Result<Message, Closing>>>,
    watchers: HashMap<Uuid, watch::Sender<()>>,
}

impl Actor {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        tick: Duration,
    ) -> Result<(), store::Error> {
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut commands = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                received = inbox.recv_many(&mut commands, BATCH) => {
                    if received == 0 {
                        return Ok(());
                    }
                }
                _ = ticks.tick() => commands.push(Command::Event(Event::Tick, None)),
            }
            if let Err(error) = self.batch(&mut commands).await {
                tracing::error!(%error, "the store failed, the coordinator stops");
                return Err(error);
            }
        }
    }

    /// Group commit: all waiting events are applied, one flush makes their changes durable, and
    /// then everything that follows from them is let out (I3).
    async fn batch(&mut self, commands: &mut Vec<Command>) -> Result<(), store::Error> {
        let mut changes = Vec::new();
        let mut after = Vec::new();
        let mut answers = Vec::new();
        let mut inspections = Vec::new();
        for command in commands.drain(..) {
            match command {
                Command::Event(event, asker) => {
                    let (answer, effects) = self.core.apply(event, now());
                    for effect in effects {
                        match effect {
                            Effect::Change(change) => changes.push(change),
                            other => after.push(other),
                        }
                    }
                    answers.extend(asker.map(|asker| (asker, answer)));
                }
                Command::Open(session, sender) => {
                    self.streams.insert(session, sender);
                }
                Command::Inspect(look) => inspections.push(look),
                Command::Watch(job, asker) => {
                    let sender = self
                        .watchers
                        .entry(job)
                        .or_insert_with(|| watch::channel(()).0);
                    let _ = asker.send(sender.subscribe());
                }
            }
        }
        self.persist(changes).await?;
        for effect in after {
            self.carry_out(effect);
        }
        for (asker, answer) in answers {
            let _ = asker.send(answer);
        }
        for look in inspections {
            look(&self.core);
        }
        Ok(())
    }

    async fn persist(&self, changes: Vec<Change>) -> Result<(), store::Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || store.commit(&changes)).await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(session, message) => {
                let Some(stream) = self.streams.get(&session) else {
                    return;
                };
                // A worker that does not read its stream loses it, and with it nothing: it comes
                // back with its leases and repeats what was not acknowledged.
                if stream.try_send(Ok(*message)).is_err() {
                    self.streams.remove(&session);
                }
            }
            Effect::Close(session, reason) => {
                if let Some(stream) = self.streams.remove(&session) {
                    let _ = stream.try_send(Err(reason));
                }
            }
            Effect::Wake(job) => {
                if let Some(watcher) = self.watchers.get(&job) {
                    if watcher.receiver_count() == 0 {
                        self.watchers.remove(&job);
                    } else {
                        watcher.send_replace(());
                    }
                }
            }
            Effect::Change(_) => unreachable!("changes are persisted before"),
        }
    }
}

/// The one place where the coordinator reads the clock.
#[allow(clippy::disallowed_methods)]
fn now() -> Millis {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    since.as_millis() as Millis
}
