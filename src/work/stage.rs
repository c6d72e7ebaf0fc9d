//! Stages of a job, and what one leaves to the next.

use std::ops::Range;

/// Units that may run in any order on any workers. The stage after it begins when each of them has
/// its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What people call it: "noise scale", "grids".
    pub name: &'static str,
    /// Its first unit.
    pub first_unit: u64,
    /// How many units it has.
    pub units: u64,
    /// Units that stay together in one task, because they share most of their work.
    pub grain: u64,
    /// A task has units of one run of so many only, counted from the stage's first; 0 for no bound.
    pub run: u64,
    /// Whether a lease of it costs much whatever its units are, as matrices that are made again: its
    /// last tasks are cut into larger parts to be shared out.
    pub dear: bool,
    /// Whether its units only prepare results. They are numbered after those that are results.
    pub hidden: bool,
}

impl Stage {
    /// A stage whose units stand alone.
    pub fn new(name: &'static str, units: Range<u64>) -> Self {
        Self {
            name,
            first_unit: units.start,
            units: units.end - units.start,
            grain: 1,
            run: 0,
            dear: false,
            hidden: false,
        }
    }

    /// Its units.
    pub fn range(&self) -> Range<u64> {
        self.first_unit..self.first_unit + self.units
    }
}

/// What units found that later stages of their job go by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The scale of a sweep's noise.
    pub noise_scale: Option<f64>,
    /// The version that the job's newest edit made: the next one is computed on it.
    pub version: Option<String>,
    /// The etag of the ref that moved there.
    pub etag: Option<String>,
    /// The texts that the job's first edit drew to average its key over: the next ones use them
    /// too.
    pub contexts: Vec<String>,
}

impl Found {
    /// An edit made a version, or was rejected.
    pub fn land(&mut self, version: String, etag: String) {
        if !version.is_empty() {
            self.version = Some(version);
            self.etag = Some(etag);
        }
    }
}
