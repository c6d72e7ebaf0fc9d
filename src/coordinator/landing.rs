//! Edits that end with their version: the result of the unit, the edit as the coordinator judges
//! it, the version, the movement of the ref and the audit entry are written in one step. A client
//! that has gone away loses nothing, and what it would have said of the edit is not asked for.

use prost::Message as _;
use uuid::Uuid;

use super::core::Core;
use super::event::{CommittedResult, Event, LeaseKey, Session};
use super::handle::{Coordinator, Error};
use super::transaction::Transaction;
use crate::audit::EntryDraft;
use crate::blocking::blocking;
use crate::edit::measured::{Figures, judge};
use crate::proto::v1::{self, FailureClass, unit_result::Outcome};
use crate::store::{Change, Landed, Store};
use crate::version::{
    self, Authorship, Bases, Expected, History, RefMovement, VersionDraft, digest_of,
};
use crate::{wire, work};

/// A result that a worker hands in.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The worker's stream.
    pub session: Session,
    /// The lease that it was computed under.
    pub lease: LeaseKey,
    /// The unit.
    pub unit: u64,
    /// What it came to.
    pub result: CommittedResult,
}

impl Commit {
    /// As the core is told of it.
    pub fn event(self) -> Event {
        Event::Commit {
            session: self.session,
            lease: self.lease,
            unit: self.unit,
            result: self.result,
        }
    }

    /// The same unit, failed.
    fn failed(self, message: String) -> Self {
        let failure = v1::Failure {
            failure_class: FailureClass::Invalid as i32,
            message,
        };
        let result = v1::UnitResult {
            unit: self.unit,
            outcome: Some(Outcome::Failure(failure)),
        };
        let bytes = result.encode_to_vec().into();
        Self {
            result: CommittedResult::new(bytes, result, self.result.fingerprint),
            ..self
        }
    }

    /// The lease, given back without this result: the task is tried again.
    fn given_back(&self, message: String) -> Event {
        Event::TaskEnd {
            session: self.session,
            lease: self.lease,
            failure: Some(v1::Failure {
                failure_class: FailureClass::Transient as i32,
                message,
            }),
        }
    }

    fn edit(&self) -> Option<&v1::Edit> {
        match self.result.outcome.as_deref() {
            Some(Outcome::Edit(outcome)) => outcome.edit.as_ref(),
            _ => None,
        }
    }
}

/// Where a unit's edit is to go, as its job says it now.
#[derive(Clone, Debug, PartialEq)]
struct Due {
    model: v1::Model,
    /// The version that the edit was to be computed on.
    parent: String,
    ref_id: String,
    /// What the ref must have; empty for anything.
    etag: String,
    rebase: bool,
    gates: v1::EditGates,
    /// The edit in whose place it stands, by its digest; empty where it is one more.
    replaces: String,
    why: String,
    principal: String,
    request_digest: String,
    job: Uuid,
}

/// An edit that was judged, with what is written if nobody was faster.
enum Judged {
    Accepted(Box<VersionDraft>),
    Rejected(Box<v1::Edit>),
}

impl Core {
    /// Where the edit of a unit goes, if the lease is live and the unit's job names a ref.
    fn due(&self, commit: &Commit) -> Option<Due> {
        let name = self.sessions.get(&commit.session)?;
        let (key, unit) = (commit.lease, commit.unit);
        let job = self.jobs.get(&key.job)?;
        let task = job.tasks.get(key.task as usize)?;
        let landing = work::of(&job.spec)?.landing()?;
        let live = task.is_held(key.epoch, name) && task.range().contains(&unit);
        if !live || job.committed(unit).is_some() {
            return None;
        }
        // What does not fit its unit is refused by the core.
        job.accept(unit, commit.result.outcome.as_deref()).ok()?;
        let first = job.found.etag.as_deref().unwrap_or(landing.etag);
        Some(Due {
            model: job.model.clone(),
            parent: job.version_of(unit).to_owned(),
            ref_id: landing.ref_id.to_owned(),
            etag: first.to_owned(),
            rebase: landing.rebase,
            gates: work::strictest(&landing.gates, &self.limits.gates),
            replaces: digest_of(landing.replaces).to_owned(),
            why: landing.why.to_owned(),
            principal: job.principal.clone(),
            request_digest: job.request_digest.clone(),
            job: job.id,
        })
    }
}

impl Coordinator {
    /// Takes in a result, and the version in which it ends, if it ends in one.
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::Audit`].
    pub async fn commit(&self, commit: Commit) -> Result<(), Error> {
        if commit.edit().is_none() {
            let outcome = commit.result.outcome.as_deref();
            let objects = outcome.map_or_else(Vec::new, wire::objects_of);
            let store = self.store().clone();
            let missing = match objects.is_empty() {
                true => None,
                false => blocking(move || missing_object(&store, &objects))
                    .await
                    .map_err(|_| Error::Stopped)?,
            };
            return match missing {
                // The next stage could only fail on it, again and again: another worker may do
                // better.
                Some(what) => self.tell(commit.given_back(what)).await,
                None => self.tell(commit.event()).await,
            };
        }
        let asked = commit.clone();
        let Some(due) = self.inspect(move |core| core.due(&asked)).await? else {
            return self.tell(commit.event()).await;
        };
        let edit = commit.edit().cloned().unwrap_or_default();
        let (store, bases, of) = (self.store().clone(), self.bases.clone(), due.clone());
        let by = due.authorship(self.date());
        let author = by.clone();
        let judged = blocking(move || due_to_judged(&store, &bases, &of, edit, &author))
            .await
            .map_err(|_| Error::Stopped)?;
        let judged = match judged {
            Ok(judged) => judged,
            // Another try may get past it.
            Err(version::Error::Store(error)) => {
                let what = format!("the edit could not be kept: {error}");
                return self.tell(commit.given_back(what)).await;
            }
            Err(error) => return self.tell(commit.failed(error.to_string()).event()).await,
        };
        self.transact(move |turn| land(turn, commit, &due, judged, &by))
            .await??;
        Ok(())
    }
}

impl Due {
    fn authorship(&self, date: prost_types::Timestamp) -> Authorship {
        Authorship {
            author: self.principal.clone(),
            time: Some(date),
            why: self.why.clone(),
            request_digest: self.request_digest.clone(),
        }
    }

    fn model_id(&self) -> &str {
        digest_of(&self.model.name)
    }
}

/// What is wrong with the first of these objects that is not stored, or not with the size it is
/// said to have. A digest that is none is left to the check of the result.
fn missing_object(store: &Store, objects: &[(String, u64)]) -> Option<String> {
    objects.iter().find_map(|(name, size)| {
        let digest = name.parse().ok()?;
        match store.objects().size(&digest) {
            Ok(Some(found)) if found == *size => None,
            Ok(Some(found)) => Some(format!(
                "the result's object {name} has {found} bytes, {size} were said"
            )),
            Ok(None) => Some(format!(
                "the result's object {name} is not stored: upload it first"
            )),
            Err(error) => Some(format!(
                "the result's object {name} cannot be seen: {error}"
            )),
        }
    })
}

/// Judges an edit by its gates and makes the version that has it.
fn due_to_judged(
    store: &Store,
    bases: &Bases,
    due: &Due,
    edit: v1::Edit,
    by: &Authorship,
) -> Result<Judged, version::Error> {
    let model = store.model(due.model_id())?.unwrap_or_default();
    let history = History::new(store, due.model_id(), &model.digest);
    let parent = history.manifest(digest_of(&due.parent))?;
    let base = bases.open(&model)?;
    let mut edit = judged(edit, &due.gates);
    edit.job = format!("jobs/{}", due.job);
    let replaced = match due.replaces.as_str() {
        "" => None,
        id => Some(history.edit(id)?),
    };
    Ok(match edit.state() {
        v1::EditState::Rejected => {
            let kept = version::rejected(history, &base, &parent, replaced.as_ref(), edit, by)?;
            Judged::Rejected(Box::new(kept))
        }
        _ => {
            let draft = match &replaced {
                None => VersionDraft::edit(history, &base, &parent, edit, by)?,
                Some(old) => VersionDraft::replace(history, &base, &parent, old, edit, by)?,
            };
            Judged::Accepted(Box::new(draft))
        }
    })
}

/// An edit with the state that its figures give it under these gates, whatever it said before.
pub fn judged(mut edit: v1::Edit, gates: &v1::EditGates) -> v1::Edit {
    let named = edit.figures.iter().map(|it| (it.key.as_str(), it.value));
    let verdict = judge(&Figures::from_named(named), &wire::gates(gates));
    edit.state = match verdict.accepted() {
        true => v1::EditState::Accepted,
        false => v1::EditState::Rejected,
    } as i32;
    edit.failed_gates = verdict.failed;
    // What its worker noticed stays.
    for warning in verdict.warnings {
        if !edit.warnings.contains(&warning) {
            edit.warnings.push(warning);
        }
    }
    edit
}

/// Writes an edit, and what follows from it, unless the ref has moved meanwhile.
fn land(
    turn: &mut Transaction<'_>,
    mut commit: Commit,
    due: &Due,
    judged: Judged,
    by: &Authorship,
) -> Result<(), Error> {
    // Somebody else may have committed the unit, or taken the lease back.
    if turn.core().due(&commit).as_ref() != Some(due) {
        turn.apply(commit.event())?;
        return Ok(());
    }
    let history = History::new(turn.store(), due.model_id(), &due.model.digest);
    let mut entry = EntryDraft {
        principal: due.principal.clone(),
        action: match due.replaces.is_empty() {
            true => "edits.create".to_owned(),
            false => "edits.revert".to_owned(),
        },
        request_digest: due.request_digest.clone(),
        why: due.why.clone(),
        detail: format!("jobs/{} unit {}", due.job, commit.unit),
        ..EntryDraft::default()
    };
    if !due.replaces.is_empty() {
        entry.detail += &format!(", facts of edit {}", due.replaces);
    }
    let (landed, changes) = match judged {
        Judged::Rejected(edit) => {
            entry.resource.clone_from(&edit.name);
            entry.refusal = Some(edit.failed_gates.join("; "));
            let landed = Landed {
                edit: digest_of(&edit.name).to_owned(),
                ..Landed::default()
            };
            (landed, version::edit_changes(history, &edit))
        }
        Judged::Accepted(draft) => {
            let movement = RefMovement {
                ref_id: &due.ref_id,
                expected: vec![
                    Expected::etag(due.etag.clone()),
                    Expected::Version(digest_of(&due.parent).to_owned()),
                ],
                force: false,
                by,
            };
            match movement.to_draft(history, &draft) {
                Err(version::Error::Moved { .. }) if due.rebase => {
                    return rebase(turn, commit, due);
                }
                moved => {
                    let moved = moved.map(|moved| {
                        entry.resource.clone_from(&moved.reference.name);
                        entry.version_before.clone_from(&moved.before);
                        digest_of(&moved.reference.version).clone_into(&mut entry.version_after);
                        let edit = draft.edit.as_ref().map_or("", |edit| edit.name.as_str());
                        let landed = Landed {
                            edit: digest_of(edit).to_owned(),
                            version: moved.reference.version.clone(),
                            etag: moved.reference.etag.clone(),
                        };
                        (landed, moved.changes)
                    });
                    match moved {
                        Ok((landed, changes)) => (landed, Ok(changes)),
                        Err(error) => (Landed::default(), Err(error)),
                    }
                }
            }
        }
    };
    let changes: Vec<Change> = match changes {
        Ok(changes) => changes,
        Err(error @ version::Error::Moved { .. }) => {
            let what = format!(
                "{error}; nothing was changed: ask again, and the edit is computed on what is there \
                 now; an edit of one fact does so by itself with --rebase"
            );
            turn.apply(commit.failed(what).event())?;
            return Ok(());
        }
        Err(error) => {
            turn.apply(commit.failed(error.to_string()).event())?;
            return Ok(());
        }
    };
    turn.record(entry)?;
    turn.write(changes);
    commit.result.landed = Some(landed);
    turn.apply(commit.event())?;
    Ok(())
}

/// The edit is computed again, on the version that the ref has now.
fn rebase(turn: &mut Transaction<'_>, commit: Commit, due: &Due) -> Result<(), Error> {
    let history = History::new(turn.store(), due.model_id(), &due.model.digest);
    let event = match history.reference(&due.ref_id) {
        Ok(reference) => Event::Rebase {
            lease: commit.lease,
            version: reference.version,
            etag: reference.etag,
        },
        Err(error) => commit.failed(error.to_string()).event(),
    };
    turn.apply(event)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    #[test]
    fn an_object_that_is_not_stored_or_has_another_size_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with(folder.path(), Options::default()).unwrap();
        let digest = store.objects().put(b"a sum").unwrap().to_string();
        let said = |name: &str, size| missing_object(&store, &[(name.to_owned(), size)]);
        assert_eq!(said(&digest, 5), None);
        assert!(
            said(&digest, 1)
                .unwrap()
                .contains("has 5 bytes, 1 were said")
        );
        let other = "ab".repeat(32);
        assert!(said(&other, 5).unwrap().contains("is not stored"));
    }
}
