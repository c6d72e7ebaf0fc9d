//! Changes that somebody asked for: what they read, what they write, and the audit entry that
//! names who asked, in one durable step (I12).

use super::core::{Core, Reply};
use super::event::{Effect, Event, Time};
use super::job::timestamp;
use crate::audit::{self, EntryDraft, Log};
use crate::store::{Change, Store};

/// A turn at the state, in which nothing else happens. What it writes becomes durable together,
/// and what it answers is let out after that.
pub struct Transaction<'a> {
    pub(super) core: &'a mut Core,
    pub(super) log: &'a mut Log,
    pub(super) store: &'a Store,
    pub(super) time: Time,
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

    /// The date of the turn, by the machine's clock.
    pub fn time(&self) -> prost_types::Timestamp {
        timestamp(self.time.date)
    }

    /// Tells the core of an event.
    pub fn apply(&mut self, event: Event) -> Reply {
        let (answer, effects) = self.core.apply(event, self.time);
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
        let entry = self.log.append(draft, self.time.date)?;
        self.write(entry);
        Ok(())
    }

    /// The audit log's end.
    pub fn log(&self) -> &Log {
        self.log
    }
}
