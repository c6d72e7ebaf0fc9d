//! Reading the log whole and saying what is wrong with it, from the entries alone: a client that
//! trusts nobody runs the same code on what it was sent. The log verifies from any earlier
//! checkpoint (I8).

use prost::Message;

use super::merkle::{self, Frontier, Hash};
use crate::proto::v1;

/// What came out of reading a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries that were read.
    pub entries: u64,
    /// What is wrong, in the order in which it was found.
    pub problems: Vec<String>,
}

/// Reads a log entry by entry.
#[derive(Debug, Default)]
pub struct Verifier {
    frontier: Frontier,
    report: Report,
    /// Roots to be met on the way: size, root, what says so.
    milestones: Vec<(u64, Vec<u8>, &'static str)>,
    /// After the first entry that does not follow, none does.
    broken: bool,
}

/// Reads all entries, by place, and holds them against the newest checkpoint and against one that
/// somebody kept. That the checkpoints are signed is for their reader to see.
pub fn verify(
    entries: impl Iterator<Item = (u64, Result<Vec<u8>, String>)>,
    newest: Option<&v1::AuditCheckpoint>,
    kept: Option<&v1::AuditCheckpoint>,
) -> Report {
    let mut verifier = Verifier::new(newest, kept);
    for (place, bytes) in entries {
        verifier.entry(place, bytes);
    }
    verifier.end()
}

/// The hash of an entry as a server sent it: of its bytes, or that which came in their place.
pub fn leaf_hash(leaf: &v1::AuditLeaf) -> Hash {
    match <Hash>::try_from(leaf.hash.as_slice()) {
        Ok(hash) if leaf.leaf.is_empty() => hash,
        _ => merkle::leaf(&leaf.leaf),
    }
}

impl Verifier {
    /// A verifier that has seen nothing.
    pub fn new(newest: Option<&v1::AuditCheckpoint>, kept: Option<&v1::AuditCheckpoint>) -> Self {
        let mut milestones = Vec::new();
        for (checkpoint, name) in [
            (kept, "the checkpoint that was kept"),
            (newest, "its newest checkpoint"),
        ] {
            milestones.extend(checkpoint.map(|c| (c.size, c.root.clone(), name)));
        }
        let mut verifier = Self {
            milestones,
            ..Self::default()
        };
        verifier.pass_milestones();
        verifier
    }

    /// Takes the next entry: the place at which it lies, and its bytes or why there are none.
    pub fn entry(&mut self, place: u64, bytes: Result<Vec<u8>, String>) {
        self.arrive(place);
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(problem) => {
                self.problem(format!("entry {place} cannot be read: {problem}"));
                self.broken = true;
                return;
            }
        };
        match v1::AuditEntry::decode(bytes.as_slice()) {
            Err(_) => {
                self.problem(format!("entry {place} does not decode: it was altered"));
                self.broken = true;
            }
            Ok(entry) => self.follow(Some(&entry), place),
        }
        self.frontier.push(merkle::leaf(&bytes));
        self.pass_milestones();
    }

    /// Sees to it that the entry at `place` is the next one.
    fn arrive(&mut self, place: u64) {
        let expected = self.report.entries + 1;
        if place != expected && !self.broken {
            self.problem(match place {
                place if place == expected + 1 => format!("entry {expected} is missing"),
                place => format!(
                    "the entries {expected} to {} are missing",
                    place.saturating_sub(1)
                ),
            });
            self.broken = true;
        }
        self.report.entries = place.max(self.report.entries);
    }

    /// Holds an entry against its place and those before it.
    fn follow(&mut self, entry: Option<&v1::AuditEntry>, place: u64) {
        let entry = entry.cloned().unwrap_or_default();
        if entry.sequence != place {
            self.problem(format!(
                "at place {place} lies entry {}: entries were moved, or it was altered",
                entry.sequence
            ));
            self.broken = true;
        } else if !self.broken && entry.previous_root != self.frontier.root() {
            self.problem(format!(
                "entry {place} does not follow from those before it: entry {} or an \
                 earlier one was altered, or it was itself",
                place.saturating_sub(1)
            ));
            self.broken = true;
        }
    }

    /// Takes the next entry as a server sent it. Of one that is too large for a message there is
    /// the hash alone: its place in the log is proved, its text is not seen.
    pub fn leaf(&mut self, leaf: &v1::AuditLeaf) {
        let place = leaf.entry.as_ref().map_or(0, |entry| entry.sequence);
        match <Hash>::try_from(leaf.hash.as_slice()) {
            Ok(hash) if leaf.leaf.is_empty() => {
                self.arrive(place);
                self.follow(leaf.entry.as_ref(), place);
                self.frontier.push(hash);
                self.pass_milestones();
            }
            _ => self.entry(place, Ok(leaf.leaf.clone())),
        }
    }

    /// All entries were taken.
    pub fn end(mut self) -> Report {
        for (size, _, name) in std::mem::take(&mut self.milestones) {
            let read = self.report.entries;
            self.problem(format!(
                "the log ends with entry {read}, {name} has {size}: entries were cut off"
            ));
        }
        self.report
    }

    fn pass_milestones(&mut self) {
        let size = self.frontier.size();
        let root = self.frontier.root();
        let milestones = std::mem::take(&mut self.milestones);
        let (reached, ahead) = milestones.into_iter().partition(|(at, ..)| *at == size);
        self.milestones = ahead;
        for (_, expected, name) in reached {
            if expected != root {
                self.problem(format!(
                    "the first {size} entries have another root than {name} says: one of them was \
                     altered"
                ));
            }
        }
    }

    fn problem(&mut self, problem: String) {
        self.report.problems.push(problem);
    }
}
