//! Appending to the log.

use std::path::{Path, PathBuf};

use prost::Message;

use super::merkle::{self, Frontier, Hash};
use super::{Checkpoint, Error, Receipt, Signer};
use crate::proto::v1::{self, AuditOutcome};
use crate::store::{AUDIT_KEY as KEY, Change, Record, Store};

/// The end of the log, to which the next entry goes. Owned by whoever serialises changes: the
/// coordinator's actor.
#[derive(Debug)]
pub struct Log {
    signer: Signer,
    frontier: Frontier,
    note: String,
    damage: Option<String>,
}

/// What an entry says, before it has a place and a time.
#[derive(Clone, Debug, Default)]
pub struct EntryDraft {
    /// Who.
    pub principal: String,
    /// What: `refs.update`.
    pub action: String,
    /// To what: a resource name.
    pub resource: String,
    /// BLAKE3 of the request, in hexadecimal.
    pub request_digest: String,
    /// Why, in the caller's words.
    pub why: String,
    /// Why it was refused; none when it was done.
    pub refusal: Option<String>,
    /// The version in force before, by its digest.
    pub version_before: String,
    /// The version in force after.
    pub version_after: String,
    /// What was done, in numbers, where nothing else says it.
    pub detail: String,
}

/// Most bytes of each text of an entry but the reason: a request may have sent megabytes of it, and
/// an entry is kept, sent and shown for ever.
const TEXT_LIMIT: usize = 400;
/// Most bytes of the reason that a caller gives, and of what was said to them.
pub const WHY_LIMIT: usize = 4 << 10;

impl EntryDraft {
    /// The draft with its texts cut to what an entry keeps.
    fn bounded(self) -> Self {
        let cut = |text: String| crate::text::cut(&text, TEXT_LIMIT);
        Self {
            principal: cut(self.principal),
            action: cut(self.action),
            resource: cut(self.resource),
            request_digest: cut(self.request_digest),
            why: crate::text::cut(&self.why, WHY_LIMIT),
            refusal: self.refusal.map(|text| crate::text::cut(&text, WHY_LIMIT)),
            version_before: cut(self.version_before),
            version_after: cut(self.version_after),
            detail: cut(self.detail),
        }
    }
}

/// The end of the log as it is stored, in the same batch as the entries.
#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    /// The signed checkpoint.
    #[prost(string, tag = "1")]
    note: String,
    /// Roots of the tree's whole subtrees, largest first.
    #[prost(bytes = "vec", repeated, tag = "2")]
    peaks: Vec<Vec<u8>>,
}

impl Log {
    /// Opens the log of a store; a store that never had one gets its key and an empty log.
    ///
    /// A log that does not fit its last checkpoint is opened all the same, so that it can be
    /// looked at, but takes no entry. Only its end is looked at here: [`super::verify`] reads all.
    ///
    /// # Errors
    /// [`Error::Key`] and [`Error::Store`].
    pub fn open(store: &Store) -> Result<Self, Error> {
        let path = Self::key_path(store);
        let last = store.last_audit_entry()?;
        let head = store.audit_head();
        let here = Signer::read(&path)?;
        let is_begun = here.is_some() || matches!(head, Ok(Some(_)));
        let key = Self::key(store, here, &path)?;
        let signer = match key {
            Some(signer) if is_begun => signer,
            key => return Self::begin(store, key, last, &path),
        };
        let (frontier, note, damage) =
            match head.map_err(|error| error.to_string()).and_then(|head| {
                let head = head.ok_or("its last checkpoint is gone")?;
                restore(&head, &signer, last)
            }) {
                Ok((frontier, note)) => (frontier, note, None),
                Err(problem) => (Frontier::default(), String::new(), Some(problem)),
            };
        Ok(Self {
            signer,
            frontier,
            note,
            damage,
        })
    }

    /// Begins the log, with a key of its own where none is known.
    fn begin(store: &Store, key: Option<Signer>, last: u64, path: &Path) -> Result<Self, Error> {
        let mut signer = match key {
            Some(signer) => signer,
            None => Signer::generate(path)?,
        };
        if last == 0
            && let Some(theirs) = store.share_file(KEY, signer.text().as_bytes())?
        {
            signer = Signer::parse(&theirs, path)?;
        }
        let mut log = Self {
            note: signer.sign(0, &merkle::root(&[])),
            signer,
            frontier: Frontier::default(),
            damage: None,
        };
        if last > 0 {
            let problem = format!("it has {last} entries and no key {KEY}");
            log.damage = Some(problem);
            return Ok(log);
        }
        // The key goes last: a store with a key must have a checkpoint, so that a log that was taken
        // away whole is missed.
        store.commit(&[Change::Record(log.head())])?;
        log.signer.write(path)?;
        Ok(log)
    }

    /// The key, where there is one. Coordinators that write one log, one after another, sign with one
    /// key, which lies beside that log: this machine gets it from there.
    fn key(store: &Store, here: Option<Signer>, path: &Path) -> Result<Option<Signer>, Error> {
        let Some(theirs) = store.shared_file(KEY)? else {
            return Ok(here);
        };
        let theirs = Signer::parse(&theirs, path)?;
        let has_head = store.audit_head().is_ok_and(|head| head.is_some());
        if has_head && here.is_none_or(|here| here.text() != theirs.text()) {
            theirs.write(path)?;
        }
        Ok(Some(theirs))
    }

    /// The file of a store's signing key.
    pub fn key_path(store: &Store) -> PathBuf {
        store.path().join(KEY)
    }

    /// The next entry and the new checkpoint, to be written in the batch of what it describes.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn append(&mut self, draft: EntryDraft, millis: u64) -> Result<[Change; 2], Error> {
        if let Some(problem) = &self.damage {
            return Err(Error::Damaged {
                problem: problem.clone(),
            });
        }
        let draft = draft.bounded();
        let sequence = self.frontier.size() + 1;
        let outcome = match &draft.refusal {
            None => AuditOutcome::Ok,
            Some(_) => AuditOutcome::Refused,
        };
        let entry = v1::AuditEntry {
            sequence,
            time: Some(prost_types::Timestamp {
                seconds: (millis / 1000) as i64,
                nanos: (millis % 1000) as i32 * 1_000_000,
            }),
            principal: draft.principal,
            action: draft.action,
            resource: draft.resource,
            request_digest: draft.request_digest,
            why: draft.why,
            outcome: outcome as i32,
            refusal: draft.refusal.unwrap_or_default(),
            version_before: draft.version_before,
            version_after: draft.version_after,
            previous_root: self.frontier.root().to_vec(),
            detail: draft.detail,
        };
        let leaf = entry.encode_to_vec();
        self.frontier.push(merkle::leaf(&leaf));
        self.note = self.signer.sign(sequence, &self.frontier.root());
        Ok([
            Change::Record(Record::audit_entry(sequence, leaf)),
            Change::Record(self.head()),
        ])
    }

    /// Entries in the log.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// What is wrong with the log's end, if anything.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn checkpoint(&self) -> Result<v1::AuditCheckpoint, Error> {
        match &self.damage {
            Some(problem) => Err(Error::Damaged {
                problem: problem.clone(),
            }),
            None => Ok(v1::AuditCheckpoint {
                note: self.note.clone(),
                size: self.frontier.size(),
                root: self.frontier.root().to_vec(),
                verifier_key: self.signer.verifier(),
            }),
        }
    }

    /// A receipt, signed, with the key that verifies it.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn sign(&self, receipt: &Receipt) -> Result<(String, String), Error> {
        match &self.damage {
            Some(problem) => Err(Error::Damaged {
                problem: problem.clone(),
            }),
            None => Ok((
                self.signer.sign_text(&receipt.text()),
                self.signer.verifier(),
            )),
        }
    }

    fn head(&self) -> Record {
        let head = Head {
            note: self.note.clone(),
            peaks: self.frontier.peaks().iter().map(|p| p.to_vec()).collect(),
        };
        Record::audit_head(head.encode_to_vec())
    }
}

/// The end of the log as it was written, if it fits its own signature and the entries there are.
fn restore(head: &[u8], signer: &Signer, last: u64) -> Result<(Frontier, String), String> {
    let head = Head::decode(head).map_err(|_| "its last checkpoint does not decode")?;
    let checkpoint =
        Checkpoint::verify(&head.note, &signer.verifier()).map_err(|error| error.to_string())?;
    let peaks: Option<Vec<Hash>> = head
        .peaks
        .into_iter()
        .map(|peak| peak.try_into().ok())
        .collect();
    let frontier = peaks
        .and_then(|peaks| Frontier::new(checkpoint.size, peaks))
        .filter(|frontier| frontier.root() == checkpoint.root)
        .ok_or("its stored end does not lead to the root that was signed")?;
    match last {
        last if last < checkpoint.size => Err(format!(
            "it ends with entry {last}, and entry {} was signed: entries were cut off",
            checkpoint.size
        )),
        last if last > checkpoint.size => Err(format!(
            "it has an entry {last}, and only {} were signed",
            checkpoint.size
        )),
        _ => Ok((frontier, head.note)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::audit::{Report, verify};

    fn draft(n: u64) -> EntryDraft {
        EntryDraft {
            principal: "ada".to_owned(),
            action: "refs.update".to_owned(),
            resource: format!("models/m/refs/r{n}"),
            refusal: n
                .is_multiple_of(3)
                .then(|| "ETAG_MISMATCH: it moved".to_owned()),
            ..Default::default()
        }
    }

    fn grow(store: &Store, log: &mut Log, count: u64) {
        for _ in 0..count {
            let entry = log.append(draft(log.size() + 1), 1000).unwrap();
            store.commit(&entry).unwrap();
        }
    }

    fn report(store: &Store) -> Report {
        let log = Log::open(store).unwrap();
        let mut report = verify(
            store
                .audit_entries(0)
                .map(|(place, bytes)| (place, bytes.map_err(|e| e.to_string()))),
            log.checkpoint().ok().as_ref(),
            None,
        );
        report.problems.extend(log.damage().map(str::to_owned));
        report
    }

    #[test]
    fn a_log_goes_on_after_reopening_and_verifies_from_every_earlier_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut earlier = Vec::new();
        for _ in 0..4 {
            let store = Store::open(folder.path()).unwrap();
            let mut log = Log::open(&store).unwrap();
            for _ in 0..5 {
                earlier.push(log.checkpoint().unwrap());
                grow(&store, &mut log, 1);
            }
            let now = log.checkpoint().unwrap();
            let leaves: Vec<Hash> = store
                .audit_entries(0)
                .map(|(_, bytes)| merkle::leaf(&bytes.unwrap()))
                .collect();
            assert_eq!(merkle::root(&leaves).to_vec(), now.root);
            for old in &earlier {
                let proof = merkle::consistency(&leaves, old.size as usize);
                let old_root = old.root.clone().try_into().unwrap();
                let new_root = now.root.clone().try_into().unwrap();
                let holds = merkle::is_consistent(old.size, &old_root, now.size, &new_root, &proof);
                assert!(holds, "{} to {}", old.size, now.size);
            }
            assert_eq!(
                report(&store),
                Report {
                    entries: now.size,
                    problems: Vec::new()
                }
            );
        }
    }

    #[test]
    fn every_bit_that_is_turned_in_an_entry_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        grow(&store, &mut Log::open(&store).unwrap(), 7);
        let whole: Vec<Vec<u8>> = store.audit_entries(0).map(|(_, b)| b.unwrap()).collect();
        for place in [1, 4, 7] {
            let leaf = &whole[place - 1];
            for at in 0..leaf.len() {
                let mut altered = leaf.clone();
                altered[at] ^= 1 << (at % 8);
                let record = Record::audit_entry(place as u64, altered);
                store.commit(&[Change::Record(record)]).unwrap();
                let problems = report(&store).problems;
                assert!(!problems.is_empty(), "byte {at} of entry {place}");
            }
            let record = Record::audit_entry(place as u64, leaf.clone());
            store.commit(&[Change::Record(record)]).unwrap();
            assert_eq!(report(&store).problems, Vec::<String>::new());
        }
    }

    #[test]
    fn an_entry_keeps_little_of_what_a_request_sent() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut log = Log::open(&store).unwrap();
        let huge = || "ä".repeat(2 << 20);
        let draft = EntryDraft {
            principal: huge(),
            action: huge(),
            resource: huge(),
            request_digest: huge(),
            why: huge(),
            refusal: Some(huge()),
            version_before: huge(),
            version_after: huge(),
            detail: huge(),
        };
        store.commit(&log.append(draft, 1000).unwrap()).unwrap();
        let (_, leaf) = store.audit_entries(0).next().unwrap();
        assert!(leaf.unwrap().len() < 16 << 10);
        assert_eq!(report(&store).problems, Vec::<String>::new());
    }

    #[test]
    fn damage_is_named_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        grow(&store, &mut Log::open(&store).unwrap(), 6);
        let whole: Vec<Vec<u8>> = store.audit_entries(0).map(|(_, b)| b.unwrap()).collect();
        let put = |place: usize, bytes: &[u8]| {
            let record = Record::audit_entry(place as u64, bytes.to_vec());
            store.commit(&[Change::Record(record)]).unwrap();
        };
        // An entry rewritten as a forger would, with its place kept.
        let mut forged = v1::AuditEntry::decode(whole[2].as_slice()).unwrap();
        forged.principal = "eve".to_owned();
        put(3, &forged.encode_to_vec());
        let problems = report(&store).problems;
        assert!(
            problems[0].contains("entry 4 does not follow"),
            "{problems:?}"
        );
        put(3, &whole[2]);
        // Two that changed places.
        put(2, &whole[4]);
        put(5, &whole[1]);
        let problems = report(&store).problems;
        assert!(
            problems[0].contains("place 2") && problems[0].contains("entry 5"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_log_that_was_cut_is_detected_and_takes_no_entry_that_would_cover_it_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut log = Log::open(&store).unwrap();
        grow(&store, &mut log, 3);
        let earlier = log.head();
        let signed = log.checkpoint().unwrap();
        grow(&store, &mut log, 2);
        // The end is put back to an earlier one that was signed just as well.
        store.commit(&[Change::Record(earlier)]).unwrap();
        let mut cut = Log::open(&store).unwrap();
        assert!(cut.damage().unwrap().contains("only 3 were signed"));
        let refused = cut.append(draft(1), 0).unwrap_err().to_string();
        assert!(refused.contains("changes are refused"), "{refused}");
        // Whoever kept a later checkpoint than the store still has is told.
        let entries = store
            .audit_entries(0)
            .take(2)
            .map(|(n, b)| (n, b.map_err(|e| e.to_string())));
        let report = verify(entries, None, Some(&signed));
        assert!(
            report.problems[0].contains("ends with entry 2"),
            "{report:?}"
        );
    }

    #[test]
    fn a_store_whose_log_was_taken_away_whole_is_not_taken_for_a_new_one() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(old.path()).unwrap();
        grow(&store, &mut Log::open(&store).unwrap(), 3);
        std::fs::copy(Log::key_path(&store), new.path().join(KEY)).unwrap();
        let emptied = Store::open(new.path()).unwrap_err().to_string();
        assert!(emptied.contains("a copy that broke off"), "{emptied}");
        std::fs::remove_file(Log::key_path(&store)).unwrap();
        let log = Log::open(&store).unwrap();
        assert!(log.damage().unwrap().contains("3 entries and no key"));
    }
}
