//! How the units of a mass edit are numbered, which stage each is of, and what it needs of the
//! stages before.

use std::ops::Range;

use super::super::{Items, Stage};
use crate::edit::Method;
use crate::proto::v1::{self, MassEditStep as Step};

/// Stages of a batch before its targets: its keys on the version as it is, and what is to be
/// expected of it.
const CHECKS: usize = 2;
/// Stages where facts are taken out: the solves, the facts, measured, and the edit.
const WITHOUT_STAGES: usize = 3;

/// What a unit is of: its batch, group, fact or place of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Edit(usize),
    Fact(usize),
    Check(usize),
    Contexts,
    CheckKeys(usize),
    Target(usize),
    Keys(usize, usize),
    Solve(usize, usize),
    KeysAfter(usize),
}

/// How the units of a job are numbered.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    spec: &'a v1::MassEditSpec,
    facts: usize,
}

impl Plan<'_> {
    pub fn layers(&self) -> usize {
        self.spec.layers.len()
    }

    pub fn groups(&self) -> usize {
        self.spec.groups.len()
    }

    pub fn batches(&self) -> usize {
        self.spec.batches.len()
    }

    /// Whether facts are written, and not taken out of an edit that keeps what it was solved from.
    pub fn writes(&self) -> bool {
        self.spec.without.is_none()
    }

    pub fn draws_contexts(&self) -> bool {
        self.writes() && self.spec.contexts.is_empty()
    }

    /// Whether the keys are read again when all layers are written.
    pub fn reads_keys_after(&self) -> bool {
        self.writes() && self.spec.method() == Method::AlphaEdit
    }

    /// Groups whose keys and targets are units.
    fn sought(&self) -> usize {
        match self.writes() {
            true => self.groups(),
            false => 0,
        }
    }

    /// What is only checked has neither edits nor measured facts.
    pub fn first_fact(&self) -> usize {
        match self.spec.check_only {
            true => 0,
            false => self.batches(),
        }
    }

    pub fn first_check(&self) -> usize {
        match self.spec.check_only {
            true => 0,
            false => self.first_fact() + self.facts,
        }
    }

    pub fn contexts(&self) -> usize {
        let checks = match self.writes() {
            true => self.batches(),
            false => 0,
        };
        self.first_check() + checks
    }

    pub fn first_check_keys(&self) -> usize {
        self.contexts() + usize::from(self.draws_contexts())
    }

    pub fn first_target(&self) -> usize {
        self.first_check_keys() + self.sought()
    }

    pub fn first_keys(&self, layer: usize) -> usize {
        self.first_target() + self.sought() * (1 + layer)
    }

    pub fn first_solve(&self) -> usize {
        self.first_keys(self.layers())
    }

    pub fn first_keys_after(&self) -> usize {
        self.first_solve() + self.batches() * self.layers()
    }

    pub fn units(&self) -> usize {
        match self.spec.check_only {
            true => self.first_target(),
            false => self.first_keys_after() + self.groups() * usize::from(self.reads_keys_after()),
        }
    }

    /// The groups of a batch.
    pub fn groups_of(&self, batch: usize) -> Range<usize> {
        let at = |n: usize| self.spec.batches.get(n).map(|&group| group as usize);
        at(batch).unwrap_or(0)..at(batch + 1).unwrap_or(self.groups())
    }

    /// The facts of groups.
    pub fn facts_of(&self, groups: Range<usize>) -> Range<usize> {
        let at = |n: usize| self.spec.groups.get(n).map(|&fact| fact as usize);
        at(groups.start).unwrap_or(0)..at(groups.end).unwrap_or(self.facts)
    }

    /// Whether a fact is taken out.
    fn is_left_out(&self, fact: usize) -> bool {
        let without = self.spec.without.as_ref();
        without.is_some_and(|it| it.left_out.binary_search(&(fact as u32)).is_ok())
    }

    /// The groups of a batch that are solved for. Facts of one group are taken out together.
    pub fn kept_groups(&self, batch: usize) -> impl Iterator<Item = usize> {
        self.groups_of(batch).filter(|&group| {
            let mut facts = self.facts_of(group..group + 1);
            // One that has no facts has none that are taken out.
            !facts.next().is_some_and(|first| self.is_left_out(first))
        })
    }

    /// The facts of a batch that its edit has.
    pub fn kept_facts(&self, batch: usize) -> impl Iterator<Item = usize> {
        let facts = self.facts_of(self.groups_of(batch));
        facts.filter(|&fact| !self.is_left_out(fact))
    }

    /// Where the facts of each group that is solved for begin among those that its edit has.
    pub fn first_kept(&self, batch: usize) -> Vec<u32> {
        let groups = self.kept_groups(batch);
        let sizes = groups.map(|group| self.facts_of(group..group + 1).len() as u32);
        let before = sizes.scan(0, |next, size| Some(std::mem::replace(next, *next + size)));
        before.collect()
    }

    pub fn batch_of_group(&self, group: usize) -> usize {
        let after = |&first: &u32| first as usize <= group;
        self.spec.batches.partition_point(after).saturating_sub(1)
    }

    pub fn place(&self, unit: u64) -> Option<Place> {
        let unit = usize::try_from(unit).ok()?;
        let (layers, groups) = (self.layers(), self.groups());
        if unit >= self.units() {
            return None;
        }
        Some(if unit < self.first_fact() {
            Place::Edit(unit)
        } else if unit < self.first_check() {
            Place::Fact(unit - self.first_fact())
        } else if unit < self.contexts() {
            Place::Check(unit - self.first_check())
        } else if unit < self.first_check_keys() {
            Place::Contexts
        } else if unit < self.first_target() {
            Place::CheckKeys(unit - self.first_check_keys())
        } else if unit < self.first_keys(0) {
            Place::Target(unit - self.first_target())
        } else if unit < self.first_solve() {
            let n = unit - self.first_keys(0);
            Place::Keys(n / groups, n % groups)
        } else if unit < self.first_keys_after() {
            let n = unit - self.first_solve();
            Place::Solve(n / layers, n % layers)
        } else {
            Place::KeysAfter(unit - self.first_keys_after())
        })
    }

    /// The number of the first stage of a batch, and how many a batch has.
    pub fn first_stage(&self, batch: usize) -> usize {
        let of_batch = match self.spec.check_only {
            _ if !self.writes() => WITHOUT_STAGES,
            true => CHECKS,
            false => CHECKS + 3 + 2 * self.layers() + usize::from(self.reads_keys_after()),
        };
        usize::from(self.draws_contexts()) + batch * of_batch
    }

    pub fn stages(&self) -> Vec<Stage> {
        let stage = |name, units: Range<usize>, hidden| Stage {
            // Each reads the contexts anew, or makes the written matrices.
            dear: true,
            hidden,
            ..Stage::new(name, units.start as u64..units.end as u64)
        };
        let from = |first: usize, groups: &Range<usize>| first + groups.start..first + groups.end;
        let mut stages = Vec::new();
        if !self.writes() {
            let solves = self.first_solve()..self.units();
            stages.push(Stage {
                // A worker holds the statistics of one layer at a time.
                run: 1,
                ..stage("solve", solves, true)
            });
            let facts = self.first_fact()..self.first_check();
            stages.push(stage("measure", facts, false));
            stages.push(stage("edit", 0..1, false));
            return stages;
        }
        if self.draws_contexts() {
            let first = self.contexts();
            stages.push(stage("contexts", first..first + 1, true));
        }
        for batch in 0..self.batches() {
            let groups = self.groups_of(batch);
            let check_keys = from(self.first_check_keys(), &groups);
            stages.push(stage("check keys", check_keys, true));
            let check = self.first_check() + batch;
            stages.push(stage("check", check..check + 1, false));
            if self.spec.check_only {
                continue;
            }
            stages.push(stage("targets", from(self.first_target(), &groups), true));
            for layer in 0..self.layers() {
                stages.push(stage("keys", from(self.first_keys(layer), &groups), true));
                let solve = self.first_solve() + batch * self.layers() + layer;
                stages.push(stage("solve", solve..solve + 1, true));
            }
            if self.reads_keys_after() {
                let after = from(self.first_keys_after(), &groups);
                stages.push(stage("keys after", after, true));
            }
            let facts = from(self.first_fact(), &self.facts_of(groups));
            stages.push(stage("measure", facts, false));
            stages.push(stage("edit", batch..batch + 1, false));
        }
        stages
    }

    /// The targets of some groups of a batch.
    pub fn targets(&self, batch: usize, groups: &Range<usize>) -> v1::UnitRange {
        self.range(
            self.first_stage(batch) + CHECKS,
            self.first_target() + groups.start,
            groups.len(),
        )
    }

    /// The target of a group, for steps that do nothing where it was left out.
    fn left_out_by(&self, batch: usize, group: usize) -> Option<v1::UnitRange> {
        let targets = || self.targets(batch, &(group..group + 1));
        self.spec.keep_going.then(targets)
    }

    /// The keys of a batch's groups on the version as it is.
    pub fn check_keys(&self, batch: usize) -> v1::UnitRange {
        let groups = self.groups_of(batch);
        let stage = self.first_stage(batch);
        self.range(stage, self.first_check_keys() + groups.start, groups.len())
    }

    /// What was said of a batch before it was computed.
    pub fn checked(&self, batch: usize) -> v1::UnitRange {
        self.range(self.first_stage(batch) + 1, self.first_check() + batch, 1)
    }

    /// The keys of a batch's groups at a layer.
    pub fn keys(&self, batch: usize, layer: usize) -> v1::UnitRange {
        let groups = self.groups_of(batch);
        let stage = self.first_stage(batch) + CHECKS + 1 + 2 * layer;
        self.range(stage, self.first_keys(layer) + groups.start, groups.len())
    }

    pub fn keys_after(&self, batch: usize) -> v1::UnitRange {
        let groups = self.groups_of(batch);
        let stage = self.first_stage(batch) + CHECKS + 1 + 2 * self.layers();
        self.range(stage, self.first_keys_after() + groups.start, groups.len())
    }

    /// The first `layers` solves of a batch, each a stage of its own.
    pub fn solved(&self, batch: usize, layers: usize) -> Vec<v1::UnitRange> {
        let first = self.first_solve() + batch * self.layers();
        let stage = |layer: usize| match self.writes() {
            true => self.first_stage(batch) + CHECKS + 2 + 2 * layer,
            // Of one stage: what each is solved from is there.
            false => 0,
        };
        (0..layers)
            .map(|layer| self.range(stage(layer), first + layer, 1))
            .collect()
    }

    pub fn measured(&self, batch: usize) -> v1::UnitRange {
        let facts = self.facts_of(self.groups_of(batch));
        let stage = self.first_stage(batch + 1) - 2;
        self.range(stage, self.first_fact() + facts.start, facts.len())
    }

    pub fn range(&self, stage: usize, first: usize, units: usize) -> v1::UnitRange {
        v1::UnitRange {
            stage: stage as u32,
            first_unit: first as u64,
            units: units as u64,
        }
    }

    pub fn unit(&self, items: &Items, unit: u64) -> Option<v1::MassEditUnit> {
        let tasks = |facts: Range<usize>| facts.filter_map(|n| items.message(n)).collect();
        // What later steps need of a fact is what is written, not what is watched.
        let requests = |facts: Range<usize>| -> Vec<v1::EditTask> {
            let messages = facts.filter_map(|n| items.message::<v1::EditTask>(n));
            let request = |task: v1::EditTask| v1::EditTask {
                request: task.request,
                ..Default::default()
            };
            messages.map(request).collect()
        };
        let of_group = |group: usize| self.facts_of(group..group + 1);
        // All facts of a group have one key: the first stands for them.
        let first_of = |group: usize| requests(of_group(group).start..of_group(group).start + 1);
        let layers = self.layers();
        Some(match self.place(unit)? {
            Place::Contexts => v1::MassEditUnit {
                step: Step::Contexts as i32,
                ..Default::default()
            },
            Place::CheckKeys(group) => v1::MassEditUnit {
                step: Step::CheckKeys as i32,
                tasks: requests(of_group(group)),
                ..Default::default()
            },
            Place::Check(batch) => v1::MassEditUnit {
                step: Step::Check as i32,
                tasks: requests(self.facts_of(self.groups_of(batch))),
                keys: vec![self.check_keys(batch)],
                batch: batch as u32,
                batches: self.batches() as u32,
                ..Default::default()
            },
            Place::Target(group) => v1::MassEditUnit {
                step: Step::Target as i32,
                tasks: requests(of_group(group)),
                // What could not even be read is left out of all that follows.
                keys: match self.spec.keep_going {
                    true => {
                        let all = self.check_keys(self.batch_of_group(group));
                        let unit = self.first_check_keys() + group;
                        vec![self.range(all.stage as usize, unit, 1)]
                    }
                    false => Vec::new(),
                },
                ..Default::default()
            },
            Place::Keys(layer, group) => {
                let batch = self.batch_of_group(group);
                v1::MassEditUnit {
                    step: Step::Keys as i32,
                    tasks: first_of(group),
                    layer_index: layer as u32,
                    targets: Some(self.targets(batch, &(group..group + 1))),
                    solved: self.solved(batch, layer),
                    ..Default::default()
                }
            }
            Place::Solve(batch, layer) => v1::MassEditUnit {
                step: Step::Solve as i32,
                layer_index: layer as u32,
                keys: match self.writes() {
                    true => vec![self.keys(batch, layer)],
                    false => Vec::new(),
                },
                columns: match self.writes() {
                    true => Vec::new(),
                    false => self.kept_groups(batch).map(|group| group as u32).collect(),
                },
                ..Default::default()
            },
            Place::KeysAfter(group) => {
                let batch = self.batch_of_group(group);
                v1::MassEditUnit {
                    step: Step::KeysAfter as i32,
                    tasks: first_of(group),
                    targets: self.left_out_by(batch, group),
                    solved: self.solved(batch, layers),
                    ..Default::default()
                }
            }
            Place::Fact(fact) => {
                let after = |&first: &u32| first as usize <= fact;
                let group = self.spec.groups.partition_point(after).saturating_sub(1);
                let batch = self.batch_of_group(group);
                v1::MassEditUnit {
                    step: Step::Measure as i32,
                    tasks: tasks(fact..fact + 1),
                    targets: self.left_out_by(batch, group),
                    solved: self.solved(batch, layers),
                    batch: batch as u32,
                    ..Default::default()
                }
            }
            Place::Edit(batch) => v1::MassEditUnit {
                step: Step::Edit as i32,
                tasks: self
                    .kept_facts(batch)
                    .flat_map(|fact| requests(fact..fact + 1))
                    .collect(),
                keys: match self.spec.method() {
                    // They are of the solves.
                    _ if !self.writes() => Vec::new(),
                    Method::AlphaEdit => vec![self.keys_after(batch)],
                    method if method.keeps_keys() => {
                        (0..layers).map(|layer| self.keys(batch, layer)).collect()
                    }
                    _ => Vec::new(),
                },
                targets: (self.writes()).then(|| self.targets(batch, &self.groups_of(batch))),
                columns: self.first_kept(batch),
                solved: self.solved(batch, layers),
                measured: Some(self.measured(batch)),
                checked: self.writes().then(|| self.checked(batch)),
                batch: batch as u32,
                batches: self.batches() as u32,
                ..Default::default()
            },
        })
    }
}

impl v1::MassEditSpec {
    /// How its units are numbered.
    pub(in crate::work) fn plan(&self, items: &Items) -> Plan<'_> {
        Plan {
            spec: self,
            facts: items.len(),
        }
    }

    /// The method; MEMIT where it names none, or none that there is, which is refused.
    pub(in crate::work) fn method(&self) -> Method {
        self.method.parse().unwrap_or(Method::Memit)
    }
}
