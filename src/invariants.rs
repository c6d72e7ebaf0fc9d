//! The invariants: what always holds, by the ids that code, tests, metrics and the contract quote.
//!
//! [`CATALOGUE`] says each in a sentence and names where it is checked. Those of the scheduler are
//! checked while the program runs, by [`Invariant::check`], which counts violations; the others are
//! enforced by an error where they could be broken, and proved by the tests that are named. A test
//! of this file holds the catalogue against the code.

use std::sync::atomic::{AtomicU64, Ordering};

/// What always holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// At most one committed result a unit.
    I1,
    /// An accepted commit carries one of the task's live epochs.
    I2,
    /// Acknowledged means durable.
    I3,
    /// Terminal states are final.
    I4,
    /// Counts add up.
    I5,
    /// Leases of a worker never exceed its credits.
    I6,
    /// Uncounted failure classes never exhaust retries.
    I7,
    /// The audit log verifies from any earlier checkpoint.
    I8,
    /// A ref points to a version all of whose objects exist and match.
    I9,
    /// restart(state) = state.
    I10,
    /// Materialising a version gives its digest, bit for bit.
    I11,
    /// Nobody changes anything without an audit entry.
    I12,
    /// No unit of a stage runs before every unit that it needs has a durable result.
    I13,
    /// At most one coordinator's batch N is ever acknowledged.
    I14,
}

/// Where an invariant is checked: a file from the root of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// This file checks it while the program runs, by [`Invariant::check`].
    Counted(&'static str),
    /// This file refuses what would break it, and says so by the id.
    Enforced(&'static str),
    /// This test of this file shows that it holds.
    Tested(&'static str, &'static str),
}

/// An invariant, said in a sentence.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its id.
    pub invariant: Invariant,
    /// What holds.
    pub sentence: &'static str,
    /// Where that is checked.
    pub checks: &'static [Check],
}

use Check::{Counted, Enforced, Tested};
use Invariant::{I1, I2, I3, I4, I5, I6, I7, I8, I9, I10, I11, I12, I13, I14};

const HISTORIES: &str = "src/coordinator/tests/histories.rs";
const ANY_HISTORY: &str = "any_history_keeps_the_invariants_and_comes_to_an_end";
const SIMULATION: &str = "tests/simulation/main.rs";
const KILLS: &str = "kills_of_everything_at_any_moment_lose_nothing_and_change_no_result";

/// Every invariant, in the order of the ids.
pub const CATALOGUE: [Entry; 14] = [
    Entry {
        invariant: I1,
        sentence: "At most one committed result a unit.",
        checks: &[
            Counted("src/coordinator/job.rs"),
            Tested(HISTORIES, ANY_HISTORY),
            Tested(SIMULATION, KILLS),
        ],
    },
    Entry {
        invariant: I2,
        sentence: "An accepted commit carries one of the task's live epochs.",
        checks: &[
            Counted("src/coordinator/leases.rs"),
            Counted("src/coordinator/check.rs"),
            Tested(HISTORIES, ANY_HISTORY),
            Tested(
                SIMULATION,
                "workers_that_lie_get_nothing_taken_but_what_they_were_leased",
            ),
        ],
    },
    Entry {
        invariant: I3,
        sentence: "What was acknowledged is durable.",
        checks: &[
            Enforced("src/coordinator/driver.rs"),
            Tested(HISTORIES, ANY_HISTORY),
            Tested(SIMULATION, KILLS),
            Tested(
                "tests/processes/kills.rs",
                "kills_of_everything_change_no_byte_and_lose_nothing_that_was_told",
            ),
        ],
    },
    Entry {
        invariant: I4,
        sentence: "Terminal states are final.",
        checks: &[
            Counted("src/coordinator/job.rs"),
            Counted("src/coordinator/check.rs"),
            Tested(HISTORIES, ANY_HISTORY),
            Tested(SIMULATION, KILLS),
        ],
    },
    Entry {
        invariant: I5,
        sentence: "The counts of a job's tasks add up to their number, at every moment.",
        checks: &[
            Counted("src/coordinator/check.rs"),
            Tested(HISTORIES, ANY_HISTORY),
            Tested(SIMULATION, KILLS),
        ],
    },
    Entry {
        invariant: I6,
        sentence: "The leases of a worker never exceed its credits.",
        checks: &[
            Counted("src/coordinator/leases.rs"),
            Counted("src/coordinator/check.rs"),
            Tested(HISTORIES, ANY_HISTORY),
            Tested(
                SIMULATION,
                "workers_that_lie_get_nothing_taken_but_what_they_were_leased",
            ),
        ],
    },
    Entry {
        invariant: I7,
        sentence: "Failures of classes that do not count never exhaust a task's attempts.",
        checks: &[
            Counted("src/coordinator/leases.rs"),
            Tested(
                "src/coordinator/tests/failures.rs",
                "a_task_handed_back_any_number_of_times_is_not_failed",
            ),
        ],
    },
    Entry {
        invariant: I8,
        sentence: "The audit log verifies from any earlier checkpoint.",
        checks: &[
            Enforced("src/audit/verify.rs"),
            Tested(
                "src/audit/log.rs",
                "a_log_goes_on_after_reopening_and_verifies_from_every_earlier_checkpoint",
            ),
            Tested(
                "tests/processes/versions.rs",
                "the_audit_log_names_who_did_what_and_shows_when_it_was_tampered_with",
            ),
        ],
    },
    Entry {
        invariant: I9,
        sentence: "Every ref points to a version all of whose objects exist and match.",
        checks: &[
            Enforced("src/version/whole.rs"),
            Tested(
                "tests/processes/versions.rs",
                "a_ref_is_not_moved_to_a_version_of_which_something_is_lost",
            ),
        ],
    },
    Entry {
        invariant: I10,
        sentence: "A coordinator that starts again has the state of the one before it.",
        checks: &[
            Enforced("src/coordinator/restore.rs"),
            Tested(HISTORIES, ANY_HISTORY),
            Tested(
                "src/coordinator/tests/stages.rs",
                "a_restart_in_the_middle_of_any_stage_goes_on_with_it",
            ),
        ],
    },
    Entry {
        invariant: I11,
        sentence: "Materialising a version gives its digest, bit for bit, on any machine.",
        checks: &[
            Enforced("src/version/base.rs"),
            Tested(
                "src/version/materialise.rs",
                "the_digest_is_that_which_another_program_found",
            ),
            Tested(
                "tests/processes/versions.rs",
                "a_worker_that_comes_back_from_a_version_gives_the_very_same_logits",
            ),
        ],
    },
    Entry {
        invariant: I12,
        sentence: "Nobody changes anything without an audit entry that names them.",
        checks: &[
            Enforced("src/coordinator/transaction.rs"),
            Tested(
                "tests/processes/versions.rs",
                "the_audit_log_names_who_did_what_and_shows_when_it_was_tampered_with",
            ),
            Tested(
                "tests/processes/store.rs",
                "collection_beside_a_coordinator_keeps_what_is_reached_or_young",
            ),
        ],
    },
    Entry {
        invariant: I13,
        sentence: "No unit of a stage runs before every unit that it needs has a durable result.",
        checks: &[
            Counted("src/coordinator/check.rs"),
            Tested(HISTORIES, ANY_HISTORY),
            Tested(
                "src/coordinator/tests/stages.rs",
                "the_sums_are_leased_when_the_last_piece_is_there_and_not_before",
            ),
        ],
    },
    Entry {
        invariant: I14,
        sentence: "At most one coordinator's batch N is ever acknowledged.",
        checks: &[
            Enforced("src/store/log/shared.rs"),
            Tested(
                "tests/simulation/leaders.rs",
                "whatever_becomes_of_leaders_and_requests_one_history_has_all_that_was_acknowledged",
            ),
            Tested(
                "tests/bucket/leaders.rs",
                "leaders_are_killed_one_after_another_and_nothing_that_was_acknowledged_is_lost",
            ),
        ],
    },
];

static VIOLATIONS: [AtomicU64; CATALOGUE.len()] = [const { AtomicU64::new(0) }; CATALOGUE.len()];

impl Entry {
    /// Whether violations are counted while the program runs.
    pub fn is_counted(&self) -> bool {
        self.checks.iter().any(|it| matches!(it, Counted(_)))
    }
}

impl Invariant {
    /// As code, tests and metrics quote it.
    pub fn id(self) -> &'static str {
        match self {
            I1 => "I1",
            I2 => "I2",
            I3 => "I3",
            I4 => "I4",
            I5 => "I5",
            I6 => "I6",
            I7 => "I7",
            I8 => "I8",
            I9 => "I9",
            I10 => "I10",
            I11 => "I11",
            I12 => "I12",
            I13 => "I13",
            I14 => "I14",
        }
    }

    /// Counts a violation. In a debug build it panics.
    #[track_caller]
    pub fn check(self, holds: bool, what: impl FnOnce() -> String) {
        if holds {
            return;
        }
        VIOLATIONS[self as usize].fetch_add(1, Ordering::Relaxed);
        let what = what();
        tracing::error!(invariant = ?self, "violated: {what}");
        debug_assert!(holds, "{self:?} violated: {what}");
    }
}

/// Violations since the program started, for every invariant that is checked while it runs.
pub fn violations() -> impl Iterator<Item = (Invariant, u64)> {
    CATALOGUE.iter().filter(|it| it.is_counted()).map(|it| {
        let count = VIOLATIONS[it.invariant as usize].load(Ordering::Relaxed);
        (it.invariant, count)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The texts of Rust files under a folder, by their paths from the root.
    fn sources(folder: &str, found: &mut Vec<(String, String)>) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                sources(&path, found);
            } else if path.ends_with(".rs") && path != "src/invariants.rs" {
                let text = std::fs::read_to_string(root.join(&path)).unwrap();
                found.push((path, text));
            }
        }
    }

    fn program() -> Vec<(String, String)> {
        let mut found = Vec::new();
        sources("src", &mut found);
        sources("tests", &mut found);
        found
    }

    /// Whether a text has this word.
    fn has(text: &str, word: &str) -> bool {
        text.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|it| it == word)
    }

    fn is_checked(check: Check, id: &str, program: &[(String, String)]) -> bool {
        let of = |path: &str| program.iter().find(|(at, _)| at == path);
        match check {
            Counted(path) => {
                of(path).is_some_and(|(_, text)| text.contains(&format!("Invariant::{id}.check(")))
            }
            Enforced(path) => of(path).is_some_and(|(_, text)| has(text, id)),
            Tested(path, test) => {
                of(path).is_some_and(|(_, text)| text.contains(&format!("fn {test}(")))
            }
        }
    }

    #[test]
    fn every_invariant_is_said_and_is_checked_where_the_catalogue_says() {
        let program = program();
        for (n, entry) in CATALOGUE.iter().enumerate() {
            let id = entry.invariant.id();
            assert_eq!(entry.invariant as usize, n, "{id} is out of its order");
            assert_eq!(id, format!("I{}", n + 1));
            assert!(entry.sentence.ends_with('.'), "{id}");
            for &check in entry.checks {
                assert!(
                    is_checked(check, id, &program),
                    "{id} is not checked by {check:?}"
                );
            }
            let tested = |it: &Check| matches!(it, Tested(..));
            assert!(entry.checks.iter().any(tested), "{id} has no test");
            assert!(!entry.checks.iter().all(tested), "{id} is nobody's to hold");
        }
    }

    #[test]
    fn the_guide_says_every_invariant_in_the_same_words() {
        let guide = include_str!("guide/ideas.md");
        for entry in &CATALOGUE {
            let row = format!("\n| {} | {} | ", entry.invariant.id(), entry.sentence);
            assert!(guide.contains(&row), "no row{row}");
        }
    }

    #[test]
    fn a_check_that_is_not_there_is_found_out() {
        let program = vec![(
            "src/a.rs".to_owned(),
            "Invariant::I1.check(true) // I12\nfn b() {}".to_owned(),
        )];
        let checked = |check, id| is_checked(check, id, &program);
        assert!(checked(Counted("src/a.rs"), "I1") && !checked(Counted("src/a.rs"), "I12"));
        assert!(checked(Enforced("src/a.rs"), "I12") && !checked(Enforced("src/a.rs"), "I2"));
        assert!(checked(Tested("src/a.rs", "b"), "I1") && !checked(Tested("src/a.rs", "c"), "I1"));
        assert!(!checked(Counted("src/gone.rs"), "I1"));
    }

    #[test]
    fn whatever_is_counted_is_in_the_catalogue() {
        for (path, text) in program() {
            for entry in &CATALOGUE {
                let id = entry.invariant.id();
                if path.starts_with("src/") && text.contains(&format!("Invariant::{id}.check(")) {
                    let listed = entry
                        .checks
                        .iter()
                        .any(|it| matches!(it, Counted(at) if *at == path));
                    assert!(listed, "{path} checks {id}: add it to the catalogue");
                }
            }
        }
    }
}
