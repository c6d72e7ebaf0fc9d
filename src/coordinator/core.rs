//! The scheduler as a pure state machine: [`Core::apply`] takes an event and the time, changes
//! the state, and says what is to be done. It opens no file, no socket and no clock, so that every
//! history can be replayed.
//!
//! What clients ask for is here; what workers say is in [`super::workers`] and [`super::leases`],
//! who gets what in [`super::placement`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::counters::Counters;
use super::ended::{Ended, EndedJobs};
use super::event::{Effect, Event, Millis, NewJob, Refusal, Session, Time};
use super::job::{Effects, Job, is_terminal};
use super::limits::Limits;
use super::queue::Queue;
use super::task::is_over;
use super::worker::{Rates, Worker};
use crate::proto::v1::{self, JobState, TaskState};
use crate::store::{Change, SpecRecord};
use crate::work;

/// How long whoever is refused for want of room should wait.
const RETRY: Millis = 30_000;

/// The state of the scheduler.
#[derive(Debug)]
pub struct Core {
    pub(super) limits: Limits,
    /// Those that are open, or have ended and are not in the store as such. By identifier, which
    /// orders them by creation.
    pub(super) jobs: BTreeMap<Uuid, Job>,
    /// Those among them that have ended and whose records were asked for.
    ending: Vec<Uuid>,
    pub(super) ended: EndedJobs,
    pub(super) requests: HashMap<String, Uuid>,
    /// By the name they gave themselves.
    pub(super) workers: BTreeMap<Arc<str>, Worker>,
    pub(super) sessions: HashMap<Session, Arc<str>>,
    pub(super) epoch: u64,
    /// The jobs that have a task to give, in the order in which they are due.
    pub(super) queue: Queue,
    /// Workers with room, the emptiest first.
    pub(super) idle: BTreeSet<(usize, Arc<str>)>,
    /// Whether a task and a worker may fit that did not when it was last looked.
    pub(super) stirred: bool,
    /// By device, for workers that have none of their own yet.
    pub(super) rates: HashMap<String, Rates>,
    /// Jobs whose records are to be written.
    pub(super) dirty: BTreeSet<Uuid>,
    /// The newest epoch that was asked to be written.
    pub(super) epoch_written: u64,
    pub(super) counters: Counters,
}

/// What the core did for a request: the job it made, or how many tasks it changed.
pub type Reply = Result<Done, Refusal>;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// What was asked for, and there is nothing to tell.
    Asked,
    /// This job is there, made now or by an earlier request of the same id.
    Made(Uuid),
    /// So many tasks left quarantine.
    Requeued(u64),
}

impl Core {
    /// An empty scheduler.
    pub fn new(limits: Limits) -> Self {
        Self {
            queue: Queue::new(&limits),
            limits,
            jobs: BTreeMap::new(),
            ending: Vec::new(),
            ended: EndedJobs::default(),
            requests: HashMap::new(),
            workers: BTreeMap::new(),
            sessions: HashMap::new(),
            epoch: 0,
            idle: BTreeSet::new(),
            stirred: false,
            rates: HashMap::new(),
            dirty: BTreeSet::new(),
            epoch_written: 0,
            counters: Counters::default(),
        }
    }

    /// Takes an event. Gives the answer to whoever asked, and what is to be done. The records of
    /// jobs and tasks are not among it: [`Core::records`] gives them, once for many events.
    pub fn apply(&mut self, event: Event, time: impl Into<Time>) -> (Reply, Vec<Effect>) {
        let Time { now, date } = time.into();
        let mut effects = Effects {
            now,
            date,
            all: Vec::new(),
        };
        let ticked = matches!(event, Event::Tick);
        let answer = self.handle(event, &mut effects);
        if answer.is_ok() {
            self.assign(&mut effects);
            if ticked {
                self.share_waiting(&mut effects);
            }
            if ticked && self.limits.speculate {
                self.speculate(&mut effects);
            }
        }
        #[cfg(debug_assertions)]
        self.check();
        (answer, effects.all)
    }

    /// The records of what changed since they were last asked for, to be written together with
    /// the changes among the effects of these events.
    pub fn records(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for id in std::mem::take(&mut self.dirty) {
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            job.records(&mut changes);
            if is_terminal(job.state) {
                self.ending.push(id);
            }
        }
        if self.epoch != self.epoch_written {
            self.epoch_written = self.epoch;
            changes.push(Change::Epoch(self.epoch));
        }
        changes
    }

    /// Forgets of the jobs that have ended what only the store needs to know. To be called when the
    /// records that were asked for are durable.
    pub fn forget_ended(&mut self) {
        for id in std::mem::take(&mut self.ending) {
            if let Some(job) = self.jobs.remove(&id) {
                self.ended.insert(id, Ended::new(job));
            }
        }
    }

    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        match event {
            Event::Submit(new) => return self.submit(*new, effects).map(Done::Made),
            Event::Cancel(job) => self.cancel(job, effects)?,
            Event::Requeue(job) => return self.requeue(job, effects).map(Done::Requeued),
            Event::Hello {
                session,
                hello,
                held,
                principal,
            } => self.hello(session, *hello, &held, principal, effects),
            Event::Credits(session, credits) => self.credits(session, credits, effects.now),
            Event::Heartbeat {
                session,
                leases,
                loaded,
            } => self.heartbeat(session, leases, loaded, effects),
            Event::Commit {
                session,
                lease,
                unit,
                result,
            } => self.commit(session, lease, unit, result, effects),
            Event::TaskEnd {
                session,
                lease,
                failure,
            } => self.task_end(session, lease, failure, effects),
            Event::Rebase {
                lease,
                version,
                etag,
            } => self.rebase(lease, version, etag, effects),
            Event::Alive(session) => self.alive(session, effects.now),
            Event::Drain(session) => self.drains(session, effects.now),
            Event::AskDrain(worker) => self.ask_drain(&worker, effects)?,
            Event::Readmit(worker) => self.readmit(&worker)?,
            Event::Gone(session) => self.gone(session),
            Event::Tick => self.tick(effects),
        }
        Ok(Done::Asked)
    }

    fn submit(&mut self, mut new: NewJob, effects: &mut Effects) -> Result<Uuid, Refusal> {
        if let Some(id) = self.made_by(&new.request_id, &new.request_digest) {
            return Ok(id);
        }
        if let Some(&job) = self.requests.get(&new.request_id) {
            let request_id = new.request_id;
            return Err(Refusal::RequestIdReused { request_id, job });
        }
        let id = new.id;
        let units = work::stages(&new.job, &new.items);
        let units = units.iter().map(|stage| stage.units).sum();
        self.admit(&new.job.owner, units)?;
        let mut whole = new.job.clone();
        work::unpack(&mut whole, &new.items);
        let spec = SpecRecord {
            job: Some(whole),
            tasks: new.tasks.clone(),
        };
        let earlier = std::mem::take(&mut new.earlier);
        let mut job = Job::new(new, effects.time());
        if !job.request_id.is_empty() {
            self.requests.insert(job.request_id.clone(), id);
        }
        effects.push(Effect::Change(Change::Spec(id, spec)));
        let queued = v1::job_event::Event::State(JobState::Queued as i32);
        job.event(queued, effects);
        job.reuse(earlier, effects);
        self.queue.open(&mut job);
        self.jobs.insert(id, job);
        self.touch(id, effects);
        Ok(id)
    }

    /// The job that an earlier call made with this request id and the same request.
    pub fn made_by(&self, request_id: &str, digest: &str) -> Option<Uuid> {
        let &id = self.requests.get(request_id)?;
        let open = self.jobs.get(&id).map(|job| &job.request_digest);
        let ended = || self.ended.get(id).map(|job| &job.request_digest);
        (open.or_else(ended)? == digest).then_some(id)
    }

    /// Whether there is room for one more job of its owner.
    fn admit(&self, owner: &str, asked: u64) -> Result<(), Refusal> {
        let (jobs, units) = self.queue.open_of(owner);
        for (what, open, more, most) in [
            ("jobs", jobs, 1, self.limits.jobs_per_owner),
            ("units", units, asked, self.limits.units_per_owner),
        ] {
            if open + more > most {
                return Err(Refusal::TooMuch {
                    owner: owner.to_owned(),
                    what,
                    open,
                    more,
                    most,
                    retry: RETRY,
                });
            }
        }
        Ok(())
    }

    fn cancel(&mut self, id: Uuid, effects: &mut Effects) -> Result<(), Refusal> {
        if self.has_ended(id) {
            return Ok(());
        }
        let job = self.jobs.get(&id).ok_or(Refusal::NoSuchJob(id))?;
        if is_terminal(job.state) {
            return Ok(());
        }
        for n in 0..self.jobs[&id].tasks.len() as u32 {
            self.recall_leases(id, n, effects);
            let Some(job) = self.jobs.get_mut(&id) else {
                break;
            };
            let state = job.tasks[n as usize].state;
            if !is_over(state) {
                job.set_state(n, TaskState::Cancelled);
                // Of the others the job's state says it all: a million of them would be as many
                // records and events.
                if state == TaskState::Leased {
                    job.tell(n, effects);
                }
            }
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.end(JobState::Cancelled, effects);
        }
        self.touch(id, effects);
        Ok(())
    }

    /// Gives the tasks in quarantine another round.
    fn requeue(&mut self, id: Uuid, effects: &mut Effects) -> Result<u64, Refusal> {
        if self.has_ended(id) {
            return Ok(0);
        }
        let job = self.jobs.get_mut(&id).ok_or(Refusal::NoSuchJob(id))?;
        let quarantined = job.tally.quarantined;
        if quarantined == 0 {
            return Ok(0);
        }
        for n in 0..job.tasks.len() as u32 {
            if job.tasks[n as usize].state == TaskState::Quarantined {
                let trouble = job.tasks[n as usize].trouble();
                trouble.lost_workers.clear();
                trouble.failures.clear();
                job.set_state(n, TaskState::Pending);
                job.tell(n, effects);
            }
        }
        self.touch(id, effects);
        Ok(quarantined)
    }

    /// To be called after a job has changed: its state follows its tasks, its place in the queue
    /// its state, and its record is written.
    pub(super) fn touch(&mut self, id: Uuid, effects: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        // Of a job that was cancelled every task is over, and nothing of it begins.
        if !is_terminal(job.state) {
            job.open_stages(Some(effects));
        }
        job.settle(effects);
        self.stirred |= self.queue.place(job);
        self.dirty.insert(id);
    }
}
