//! The stages of a job in memory: which is open, and how each stands.

use crate::proto::v1;
use crate::store::TaskPlan;
use crate::work::Stage;

/// Most stages that one answer lists.
const LISTED: usize = 100;

/// The stages of a job.
#[derive(Debug)]
pub(super) struct Stages {
    stages: Vec<Progress>,
    /// First unit and number of each, in the order of units.
    by_unit: Vec<(u64, u32)>,
    /// The first that has a task that is not over; the last when there is none.
    open: u32,
}

/// A stage and how it stands.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) stage: Stage,
    /// Its first task and how many it had when the job was accepted: consecutive ones.
    first_task: u32,
    planned: u32,
    tasks: u64,
    ended: u64,
    pub(super) units_done: u64,
    pub(super) failed: u64,
    /// Units whose result is that of a unit of an earlier job.
    cached: u64,
}

impl Progress {
    /// Whether each of its units has its result.
    pub(super) fn is_over(&self) -> bool {
        self.ended == self.tasks
    }

    pub(super) fn tasks(&self) -> std::ops::Range<u32> {
        self.first_task..self.first_task + self.planned
    }

    /// Tasks that are over.
    pub(super) fn ended_part(&self) -> f64 {
        self.ended as f64 / self.tasks.max(1) as f64
    }
}

impl Stages {
    pub(super) fn new(stages: Vec<Stage>, plan: &[TaskPlan]) -> Self {
        let mut by_unit: Vec<(u64, u32)> = (0..)
            .zip(&stages)
            .map(|(n, stage)| (stage.first_unit, n))
            .collect();
        by_unit.sort_unstable();
        let progress = stages.into_iter().map(|stage| Progress {
            stage,
            first_task: 0,
            planned: 0,
            tasks: 0,
            ended: 0,
            units_done: 0,
            failed: 0,
            cached: 0,
        });
        let mut made = Self {
            stages: progress.collect(),
            by_unit,
            open: 0,
        };
        for (n, task) in (0..).zip(plan) {
            let stage = made.of_unit(task.first_unit);
            if let Some(stage) = made.stages.get_mut(stage as usize) {
                if stage.planned == 0 {
                    stage.first_task = n;
                }
                stage.planned += 1;
                stage.tasks += 1;
            }
        }
        made
    }

    /// The stage of a unit.
    pub(super) fn of_unit(&self, unit: u64) -> u32 {
        let after = self.by_unit.partition_point(|(first, _)| *first <= unit);
        let found = after.checked_sub(1).and_then(|at| self.by_unit.get(at));
        found.map_or(0, |(_, stage)| *stage)
    }

    pub(super) fn get(&self, stage: u32) -> Option<&Progress> {
        self.stages.get(stage as usize)
    }

    pub(super) fn len(&self) -> u32 {
        self.stages.len() as u32
    }

    /// The number of the open stage.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// Opens the stage after the open one.
    pub(super) fn open_next(&mut self) {
        self.open += 1;
    }

    /// Units in all, those that only prepare results included.
    pub(super) fn units(&self) -> u64 {
        self.stages.iter().map(|it| it.stage.units).sum()
    }

    /// Units that are results.
    pub(super) fn results(&self) -> u64 {
        let shown = self.stages.iter().filter(|it| !it.stage.hidden);
        shown.map(|it| it.stage.units).sum()
    }

    pub(super) fn count_unit(&mut self, unit: u64, failed: bool) {
        let stage = self.of_unit(unit);
        if let Some(stage) = self.stages.get_mut(stage as usize) {
            stage.units_done += 1;
            stage.failed += u64::from(failed);
        }
    }

    /// A unit's result is that of a unit of an earlier job.
    pub(super) fn count_cached(&mut self, unit: u64) {
        let stage = self.of_unit(unit);
        if let Some(stage) = self.stages.get_mut(stage as usize) {
            stage.cached += 1;
        }
    }

    /// A task was cut off another.
    pub(super) fn add_task(&mut self, unit: u64) {
        let stage = self.of_unit(unit);
        if let Some(stage) = self.stages.get_mut(stage as usize) {
            stage.tasks += 1;
        }
    }

    pub(super) fn task_ended(&mut self, stage: u32) {
        if let Some(stage) = self.stages.get_mut(stage as usize) {
            stage.ended += 1;
        }
    }

    /// Stages all of whose units have their results.
    pub(super) fn done(&self) -> u64 {
        let over = self.get(self.open).is_some_and(Progress::is_over);
        u64::from(self.open) + u64::from(over)
    }

    /// A stage as others see it.
    pub(super) fn view(&self, stage: u32) -> Option<v1::JobStage> {
        let it = self.get(stage)?;
        Some(v1::JobStage {
            stage,
            title: it.stage.name.to_owned(),
            units: it.stage.units,
            units_done: it.units_done,
            units_failed: it.failed,
            tasks: it.tasks,
            tasks_ended: it.ended,
            units_cached: it.cached,
        })
    }

    /// As many as one answer lists, the open one among them.
    pub(super) fn views(&self) -> Vec<v1::JobStage> {
        let latest = (self.stages.len()).saturating_sub(LISTED);
        let first = (self.open as usize).saturating_sub(LISTED / 2).min(latest);
        let listed = first..self.stages.len().min(first + LISTED);
        listed.filter_map(|n| self.view(n as u32)).collect()
    }
}
