//! The actor that owns the core, the clock and the store.
//!
//! Events are applied as they come and collect in an open batch; the batch before it is being made
//! durable meanwhile. When the disk is free the open batch goes to it, so one flush serves all the
//! events that came during the one before, and only then is anything of it let out (I3).
#![allow(clippy::disallowed_methods)] // the owner of the coordinator's clock and tasks

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::core::{Core, Reply};
use super::event::{Closing, Effect, Event, Millis, Session, Time};
use super::limits::Limits;
use super::load;
use super::transaction::Transaction;
use crate::audit;
use crate::proto::v1::{self, connect_response::Message};
use crate::store::{self, Change, Store};
use crate::telemetry::metrics::{COMMIT_EVENTS, COMMIT_SECONDS};
use crate::telemetry::traces;

/// Most commands that share one flush.
const BATCH: usize = 4096;
/// Signs of life that a leader may miss. It has written the one before, and another takes over when
/// four are missing: by about then this one has ended, and does not answer any more.
const SIGNS_MISSED: u32 = 3;
/// The pause after a bucket did not take a batch.
const AWAY: Duration = Duration::from_secs(1);
/// Events that may wait before senders are held up.
const QUEUE: usize = 16_384;
/// Messages that may wait for a worker. A worker is never sent more leases than it has credits
/// for; acknowledgements and cancellations make up the rest.
pub(super) const OUTBOX: usize = 4096;

/// What the driver takes from the world around it. Injected, so that a simulation can hold it.
#[derive(Clone)]
pub struct Surroundings {
    clock: Arc<dyn Fn() -> Millis + Send + Sync>,
    date: Arc<dyn Fn() -> Millis + Send + Sync>,
    disk: Disk,
}

/// Where the driver waits for the disk.
#[derive(Clone)]
pub enum Disk {
    /// On a thread of its own, while events go on being applied.
    Thread,
    /// Where the driver runs: nothing else of it happens meanwhile, and every run is the same.
    Here,
    /// Where the driver runs, after and before times that this gives: events go on being applied
    /// meanwhile, and every run is the same.
    Slow(Arc<dyn Fn() -> Duration + Send + Sync>),
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Thread => "Thread",
            Self::Here => "Here",
            Self::Slow(_) => "Slow",
        })
    }
}

impl Surroundings {
    /// The system's clock as it is now, counted on by the runtime, and a thread for the disk. When
    /// the machine's clock is set, time does not leap: that would lose every worker at once. What
    /// is dated for people follows the machine's clock.
    #[allow(clippy::disallowed_methods)]
    pub fn real() -> Self {
        let (start, started) = (now(), Instant::now());
        let clock = move || start + started.elapsed().as_millis() as Millis;
        Self::new(clock, Disk::Thread).dated(now)
    }

    /// A clock that gives milliseconds since the Unix epoch and never goes back.
    pub fn new(clock: impl Fn() -> Millis + Send + Sync + 'static, disk: Disk) -> Self {
        let clock = Arc::new(clock);
        Self {
            date: clock.clone(),
            clock,
            disk,
        }
    }

    /// The same, with another clock for what is dated for people. It may be set back.
    pub fn dated(self, date: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        let date = Arc::new(date);
        Self { date, ..self }
    }

    /// The time.
    pub(super) fn time(&self) -> Time {
        Time {
            now: (self.clock)(),
            date: (self.date)(),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

/// Looks at the core when its turn comes; what it gives back tells what was seen, once that is
/// durable.
pub(super) type Inspection = Box<dyn FnOnce(&Core) -> Delivery + Send>;
pub(super) type Delivery = Box<dyn FnOnce() + Send>;
/// Takes its turn at the state; what it gives back tells what came of it, once that is durable.
pub(super) type QueuedTurn = Box<dyn FnOnce(&mut Transaction<'_>) -> Delivery + Send>;

// Moved once through the queue: a box for each would cost more than it saves.
#[allow(clippy::large_enum_variant)]
pub(super) enum Command {
    Event(Event, Option<oneshot::Sender<Reply>>),
    Open(Session, mpsc::Sender<Result<Message, Closing>>),
    Inspect(Inspection),
    Watch(Uuid, oneshot::Sender<watch::Receiver<()>>),
    Turn(QueuedTurn),
    /// A turn that reads what earlier ones wrote: it waits until that is durable.
    Transact(QueuedTurn),
}

struct Actor {
    core: Core,
    log: audit::Log,
    store: Arc<Store>,
    surroundings: Surroundings,
    // Both in an order that a seed repeats, for they end in it when the actor ends.
    streams: BTreeMap<Session, mpsc::Sender<Result<Message, Closing>>>,
    watchers: BTreeMap<Uuid, watch::Sender<()>>,
    audit_end: watch::Sender<u64>,
    /// When the newest batch went to the disk.
    written: Millis,
    /// Transactions that wait until the one before them is durable.
    waiting: VecDeque<QueuedTurn>,
}

/// Commands that were applied, and what follows from them once their changes are durable.
#[derive(Default)]
struct Batch {
    commands: usize,
    /// Whether it has a transaction's changes: the next one waits for them.
    transaction: bool,
    changes: Vec<Change>,
    after: After,
}

#[derive(Default)]
struct After {
    /// Messages and ends of streams, in their order.
    effects: Vec<Effect>,
    wakes: BTreeSet<Uuid>,
    answers: Vec<(oneshot::Sender<Reply>, Reply)>,
    deliveries: Vec<Delivery>,
    /// Entries of the audit log, if there are more of them.
    audited: Option<u64>,
}

impl Batch {
    fn sort(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Change(change) => self.changes.push(change),
                Effect::Wake(job) => drop(self.after.wakes.insert(job)),
                other => self.after.effects.push(other),
            }
        }
    }
}

/// A batch whose changes are on their way to the disk.
struct Writing {
    written: JoinHandle<Result<(), store::Error>>,
    /// When others may take this coordinator for dead; none where there are no others.
    until: Option<Instant>,
    after: After,
    transaction: bool,
}

/// The running actor, as its handle needs it.
pub(super) struct Started {
    /// Where it takes commands.
    pub(super) commands: mpsc::Sender<Command>,
    /// How many entries its audit log has.
    pub(super) audited: watch::Receiver<u64>,
    /// The newest job that there was.
    pub(super) newest: Option<Uuid>,
    /// Its end.
    pub(super) ended: Ended,
}

/// Rebuilds the state from the store and starts the actor.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn start(
    surroundings: Surroundings,
    store: &Arc<Store>,
    log: audit::Log,
    limits: Limits,
) -> Result<Started, store::Error> {
    let tick = Duration::from_millis((limits.heartbeat / 4).clamp(10, 1000));
    let core = load::all(store, limits, (surroundings.clock)())?;
    let newest = core.jobs_before(None, 1, 0).first().map(|(id, _)| *id);
    let (commands, inbox) = mpsc::channel(QUEUE);
    let (audit_end, audited) = watch::channel(log.size());
    let actor = Actor {
        core,
        log,
        store: store.clone(),
        surroundings,
        streams: BTreeMap::new(),
        watchers: BTreeMap::new(),
        audit_end,
        written: 0,
        waiting: VecDeque::new(),
    };
    let ended = tokio::spawn(actor.run(inbox, tick));
    Ok(Started {
        commands,
        audited,
        newest,
        ended,
    })
}

/// How the actor ended.
pub(super) type Ended = JoinHandle<Result<(), store::Error>>;

impl Actor {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        tick: Duration,
    ) -> Result<(), store::Error> {
        let ended = self.work(&mut inbox, tick).await;
        if let Err(error) = &ended {
            tracing::error!(%error, "the store failed, the coordinator stops");
        }
        ended
    }

    async fn work(
        &mut self,
        inbox: &mut mpsc::Receiver<Command>,
        tick: Duration,
    ) -> Result<(), store::Error> {
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut commands = Vec::with_capacity(BATCH);
        let mut open = Batch::default();
        let mut writing: Option<Writing> = None;
        loop {
            let room = BATCH.saturating_sub(open.commands);
            tokio::select! {
                // Ticks first: they are few, and a flood of events must not keep time from passing.
                biased;
                _ = ticks.tick(), if room > 0 => {
                    self.store.settle()?;
                    commands.push(Command::Event(Event::Tick, None));
                }
                written = written(&mut writing), if writing.is_some() => {
                    written?;
                    if let Some(done) = writing.take() {
                        self.let_out(done.after);
                    }
                }
                received = inbox.recv_many(&mut commands, room), if room > 0 => {
                    if received == 0 {
                        // Nobody is left to send: what was applied is still made durable.
                        if writing.is_some() {
                            written(&mut writing).await?;
                        }
                        open.changes.append(&mut self.core.records());
                        return self.store.commit(&open.changes);
                    }
                }
            }
            for command in commands.drain(..) {
                open.commands += 1;
                self.take(command, &mut open);
            }
            loop {
                let under_way = writing.as_ref().is_some_and(|writing| writing.transaction);
                if !open.transaction
                    && !under_way
                    && let Some(turn) = self.waiting.pop_front()
                {
                    open.commands += 1;
                    open.transaction = true;
                    self.take_turn(turn, &mut open);
                }
                if writing.is_some() || open.commands == 0 {
                    break;
                }
                writing = self.write(std::mem::take(&mut open))?;
            }
        }
    }

    fn take(&mut self, command: Command, batch: &mut Batch) {
        match command {
            Command::Event(mut event, asker) => {
                self.recall(&mut event);
                let gone = match event {
                    Event::Gone(session) => Some(session),
                    _ => None,
                };
                let (answer, effects) = self.core.apply(event, self.surroundings.time());
                batch.sort(effects);
                batch
                    .after
                    .answers
                    .extend(asker.map(|asker| (asker, answer)));
                // After what was sent to it before: a worker that closed its side waits for the
                // end of ours.
                if let Some(session) = gone {
                    batch
                        .after
                        .effects
                        .push(Effect::Close(session, Closing::Gone));
                }
            }
            Command::Open(session, sender) => drop(self.streams.insert(session, sender)),
            Command::Inspect(look) => batch.after.deliveries.push(look(&self.core)),
            Command::Watch(job, asker) => {
                let sender = self
                    .watchers
                    .entry(job)
                    .or_insert_with(|| watch::channel(()).0);
                let receiver = sender.subscribe();
                let tell = move || drop(asker.send(receiver));
                batch.after.deliveries.push(Box::new(tell));
            }
            Command::Turn(turn) => self.take_turn(turn, batch),
            Command::Transact(turn) => self.waiting.push_back(turn),
        }
    }

    /// Tells of a result whose job has ended what the unit has already: the core does not remember
    /// it.
    fn recall(&self, event: &mut Event) {
        let Event::Commit {
            lease,
            unit,
            result,
            ..
        } = event
        else {
            return;
        };
        if !self.core.has_ended(lease.job) {
            return;
        }
        result.before = match self.store.committed(lease.job, *unit) {
            Ok(before) => before,
            Err(error) => {
                tracing::error!(job = %lease.job, unit, %error, "a result cannot be compared with that of its unit");
                None
            }
        };
    }

    fn take_turn(&mut self, turn: QueuedTurn, batch: &mut Batch) {
        let before = self.log.size();
        let mut transaction = Transaction {
            core: &mut self.core,
            log: &mut self.log,
            store: &self.store,
            time: self.surroundings.time(),
            effects: Vec::new(),
        };
        let delivery = turn(&mut transaction);
        batch.sort(transaction.effects);
        batch.after.deliveries.push(delivery);
        if self.log.size() > before {
            batch.after.audited = Some(self.log.size());
        }
    }

    /// Sends a batch to the disk. One that changes nothing is let out at once.
    fn write(&mut self, batch: Batch) -> Result<Option<Writing>, store::Error> {
        let Batch {
            mut changes,
            after,
            transaction,
            commands,
        } = batch;
        changes.append(&mut self.core.records());
        let now = self.surroundings.time().now;
        if changes.is_empty() && !self.has_to_sign(now) {
            self.let_out(after);
            return Ok(None);
        }
        self.written = now;
        COMMIT_EVENTS.observe([], commands as f64);
        let store = self.store.clone();
        let written = match &self.surroundings.disk {
            Disk::Here => {
                commit(&self.store, &changes)?;
                self.let_out(after);
                return Ok(None);
            }
            Disk::Thread => tokio::task::spawn_blocking(move || {
                loop {
                    let committed = commit(&store, &changes);
                    if !is_to_be_repeated(&committed) {
                        break committed;
                    }
                    std::thread::sleep(AWAY);
                }
            }),
            Disk::Slow(time) => {
                let time = time.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(time()).await;
                    let mut committed = commit(&store, &changes);
                    while is_to_be_repeated(&committed) {
                        tokio::time::sleep(AWAY).await;
                        committed = commit(&store, &changes);
                    }
                    tokio::time::sleep(time()).await;
                    committed
                })
            }
        };
        let patience = self.store.signs_every().map(|every| every * SIGNS_MISSED);
        Ok(Some(Writing {
            written,
            until: patience.map(|patience| Instant::now() + patience),
            after,
            transaction,
        }))
    }

    /// Whether others would take this coordinator for dead if nothing were written.
    fn has_to_sign(&self, now: Millis) -> bool {
        let every = self.store.signs_every();
        every.is_some_and(|every| now >= self.written + every.as_millis() as Millis)
    }

    /// Tells everybody what a batch came to, which is durable by now, and so is all before it.
    fn let_out(&mut self, after: After) {
        self.core.forget_ended();
        for effect in after.effects {
            self.carry_out(effect);
        }
        for job in after.wakes {
            self.wake(job);
        }
        for (asker, answer) in after.answers {
            // The asker may have gone away; nobody is left to tell.
            let _ = asker.send(answer);
        }
        for deliver in after.deliveries {
            deliver();
        }
        if let Some(size) = after.audited {
            self.audit_end.send_replace(size);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(session, message) => {
                let Some(stream) = self.streams.get(&session) else {
                    return;
                };
                let message = match *message {
                    Message::Lease(lease) => Message::Lease(traced(lease)),
                    other => other,
                };
                // A worker that does not read its stream loses it, and with it nothing: it comes
                // back with its leases and repeats what was not acknowledged.
                if stream.try_send(Ok(message)).is_err() {
                    self.streams.remove(&session);
                }
            }
            Effect::Close(session, reason) => {
                let stream = self.streams.remove(&session);
                if let Some(stream) = stream.filter(|_| reason != Closing::Gone) {
                    let _ = stream.try_send(Err(reason));
                }
            }
            Effect::Change(_) | Effect::Wake(_) => unreachable!("both are collected apart"),
        }
    }

    fn wake(&mut self, job: Uuid) {
        if let Some(watcher) = self.watchers.get(&job) {
            if watcher.receiver_count() == 0 {
                self.watchers.remove(&job);
            } else {
                watcher.send_replace(());
            }
        }
    }
}

/// Notes in the job's trace that the lease is given, and puts the worker's spans below that.
fn traced(mut lease: v1::Lease) -> v1::Lease {
    if traces::are_on() && !lease.trace_parent.is_empty() {
        let task = lease.key.as_ref().map_or("", |key| key.task.as_str());
        let span = tracing::info_span!(
            target: traces::TARGET,
            parent: None,
            "lease",
            otel.kind = "producer",
            task
        );
        traces::set_parent(&span, &lease.trace_parent);
        lease.trace_parent = traces::trace_parent(&span);
    }
    lease
}

/// Makes changes durable, and measures how long that takes. Without changes it says that this
/// coordinator leads still.
fn commit(store: &Store, changes: &[Change]) -> Result<(), store::Error> {
    let begun = std::time::Instant::now();
    match changes.is_empty() {
        true => store.sign()?,
        false => store.commit(changes)?,
    }
    COMMIT_SECONDS.observe([], begun.elapsed().as_secs_f64());
    Ok(())
}

/// Whether a batch could not be written because a bucket is away: it waits for that, acknowledging
/// nothing, as long as no other coordinator has gone on with the log.
fn is_to_be_repeated(committed: &Result<(), store::Error>) -> bool {
    let Err(error) = committed else { return false };
    if error.may_pass() {
        tracing::error!(%error, "the log cannot be written now: trying again");
    }
    error.may_pass()
}

/// Waits until the batch that is under way is durable.
async fn written(writing: &mut Option<Writing>) -> Result<(), store::Error> {
    let Some(writing) = writing else {
        return Ok(());
    };
    let late = async {
        match writing.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        ended = &mut writing.written => match ended {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The process ends before the batch was begun: nobody may be told that it is kept.
                Err(_) => std::future::pending().await,
            },
        },
        () = late => Err(store::Error::Silenced),
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
