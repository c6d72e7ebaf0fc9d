//! Changes that somebody asked for: what they read, what they write, and the audit entry that
//! names who asked, in one durable step (I12).

use super::core::{Core, Done, Reply};
use super::driver::{Coordinator, Error};
use super::event::{Effect, Event, Millis};
use super::job::timestamp;
use crate::audit::{self, EntryDraft, Log};
use crate::proto::v1;
use crate::store::{Change, Store};

/// A turn at the state, in which nothing else happens. What it writes becomes durable together,
/// and what it answers is let out after that.
pub struct Transaction<'a> {
    pub(super) core: &'a mut Core,
    pub(super) log: &'a mut Log,
    pub(super) store: &'a Store,
    pub(super) now: Millis,
    pub(super) effects: Vec<Effect>,
}

impl Transaction<'_> {
    /// The store, for reading. Of refs, versions, edits and models it has all that earlier
    /// transactions wrote; jobs are to be read from the core.
    pub fn store(&self) -> &Store {
        self.store
    }

    /// The scheduler's state.
    pub fn core(&self) -> &Core {
        self.core
    }

    /// The time of the turn.
    pub fn time(&self) -> prost_types::Timestamp {
        timestamp(self.now)
    }

    /// Tells the core of an event.
    pub fn apply(&mut self, event: Event) -> Reply {
        let (answer, effects) = self.core.apply(event, self.now);
        self.effects.extend(effects);
        answer
    }

    /// Writes changes.
    pub fn write(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.effects.extend(changes.into_iter().map(Effect::Change));
    }

    /// Enters what was done, or refused, into the audit log. To be called before anything is
    /// written: when it fails, nothing may change.
    ///
    /// # Errors
    /// [`audit::Error::Damaged`].
    pub fn record(&mut self, draft: EntryDraft) -> Result<(), audit::Error> {
        let entry = self.log.append(draft, self.now)?;
        self.write(entry);
        Ok(())
    }

    /// The audit log's end.
    pub fn log(&self) -> &Log {
        self.log
    }
}

impl Coordinator {
    /// Does what a client asked of the core, with an entry in the audit log that says who it was.
    /// A refusal is not entered here: whoever tells it to the client does that.
    ///
    /// # Errors
    /// [`Error::Refused`] with the core's reason, [`Error::Audit`], [`Error::Stopped`].
    pub async fn ask_as(&self, event: Event, draft: EntryDraft) -> Result<Done, Error> {
        self.look(move |turn| {
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
        Ok(self.look(move |turn| turn.record(draft)).await??)
    }

    /// The audit log's newest checkpoint.
    ///
    /// # Errors
    /// [`Error::Audit`], [`Error::Stopped`].
    pub async fn audit_checkpoint(&self) -> Result<v1::AuditCheckpoint, Error> {
        Ok(self.look(|turn| turn.log.checkpoint()).await??)
    }
}
