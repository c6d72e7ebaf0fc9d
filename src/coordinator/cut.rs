//! How a job is cut into tasks: consecutive units of one stage, of about the same cost. What a unit
//! gives never depends on the cut.

use std::collections::BTreeMap;

use crate::proto::v1;
use crate::store::TaskPlan;
use crate::work::{self, Items, Stage, Work};

/// Multiply-adds of a task where no worker's rate is known yet: some 20 seconds on two CPU cores,
/// and less than one on a GPU, where the lease round trip is still small beside it.
pub const TASK_COST: f64 = 5e11;
/// Most grains of units of a task, and most bytes of them: a lease is one message, which stays far
/// below 4 MiB however cheap its units are.
const TASK_GRAINS: u64 = 4096;
const TASK_BYTES: usize = 1 << 20;

/// What a task should cost, in multiply-adds.
#[derive(Clone, Debug)]
pub struct TaskCosts {
    /// In stages of which workers' rates are known, by their names.
    pub(super) stages: BTreeMap<&'static str, f64>,
    /// In others.
    pub(super) other: f64,
}

impl TaskCosts {
    /// Of a task of a stage.
    pub fn of(&self, stage: &str) -> f64 {
        self.stages.get(stage).copied().unwrap_or(self.other)
    }
}

impl From<f64> for TaskCosts {
    /// The same in all stages.
    fn from(other: f64) -> Self {
        let stages = BTreeMap::new();
        Self { stages, other }
    }
}

/// Cuts a job into tasks of about these costs, stage by stage. Its parts were taken out of it.
pub fn tasks(
    job: &v1::Job,
    items: &Items,
    shape: &v1::model::Shape,
    task_costs: &TaskCosts,
) -> Vec<TaskPlan> {
    let Some(work) = work::of(job) else {
        return Vec::new();
    };
    let mut plan = Vec::new();
    for stage in work.stages(&job.version, items) {
        let task_cost = task_costs.of(stage.name);
        cut(&mut plan, work, items, shape, &stage, task_cost);
    }
    plan
}

fn cut(
    plan: &mut Vec<TaskPlan>,
    work: &dyn Work,
    items: &Items,
    shape: &v1::model::Shape,
    stage: &Stage,
    task_cost: f64,
) {
    let mut bytes = usize::MAX; // no task of this stage to add to yet
    for n in (0..stage.units).step_by(stage.grain as usize) {
        let unit = stage.first_unit + n;
        let cost = work.cost(items, unit, shape);
        let size = work.size(items, unit);
        let fits = bytes.saturating_add(size) <= TASK_BYTES;
        let same_run = stage.run == 0 || n % stage.run != 0;
        match plan.last_mut() {
            Some(task)
                if fits
                    && same_run
                    && task.cost + cost <= task_cost
                    && task.units < TASK_GRAINS * stage.grain =>
            {
                task.units += stage.grain;
                task.cost += cost;
                bytes += size;
            }
            _ => {
                plan.push(TaskPlan {
                    first_unit: unit,
                    units: stage.grain,
                    cost,
                });
                bytes = size;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn job(facts: usize, noise: &str) -> v1::Job {
        let fact = v1::Fact {
            prompt: "The Space Needle is in downtown".to_owned(),
            subject: "The Space Needle".to_owned(),
            ..Default::default()
        };
        let sweep = v1::TraceSpec {
            facts: vec![fact; facts],
            kinds: vec![1, 2, 3],
            noise: noise.to_owned(),
            samples: 10,
            window: 10,
            ..Default::default()
        };
        v1::Job {
            spec: Some(sweep.into()),
            ..Default::default()
        }
    }

    fn shape() -> v1::model::Shape {
        v1::model::Shape {
            layers: 30,
            width: 576,
            vocabulary: 49152,
            parameters: 134_515_008,
            block_parameters: 3_540_096,
            ..Default::default()
        }
    }

    fn cut(mut job: v1::Job, task_cost: f64) -> (Vec<TaskPlan>, Vec<Stage>) {
        let items = work::pack(&mut job);
        (
            tasks(&job, &items, &shape(), &task_cost.into()),
            work::stages(&job, &items),
        )
    }

    #[test]
    fn every_unit_is_in_exactly_one_task_of_its_stage_and_no_fact_is_split() {
        for (facts, noise) in [(1, "0.3"), (100, "0.3"), (100, "s3"), (100, "t5")] {
            let (plan, stages) = cut(job(facts, noise), TASK_COST);
            let mut seen: Vec<u64> = plan
                .iter()
                .flat_map(|t| t.first_unit..t.first_unit + t.units)
                .collect();
            seen.sort_unstable();
            let all: u64 = stages.iter().map(|stage| stage.units).sum();
            assert_eq!(seen, (0..all).collect::<Vec<_>>());
            assert_eq!(stages.len(), 1 + usize::from(noise != "0.3"));
            for task in &plan {
                let of = |stage: &&Stage| stage.range().contains(&task.first_unit);
                let stage = stages.iter().find(of).unwrap();
                assert!(task.first_unit + task.units <= stage.range().end);
                assert_eq!(task.units % stage.grain, 0);
                assert_eq!((task.first_unit - stage.first_unit) % stage.grain, 0);
            }
        }
    }

    #[test]
    fn a_faster_worker_gets_larger_tasks() {
        let tasks = |cost| cut(job(100, "0.3"), cost).0.len();
        let (slow, fast) = (tasks(TASK_COST), tasks(20.0 * TASK_COST));
        assert!(slow >= 5 * fast, "{slow} and {fast}");
    }

    #[test]
    fn a_lease_fits_a_message_however_cheap_its_units_are() {
        let (plan, _) = cut(job(100_000, "0.3"), f64::INFINITY);
        assert!(plan.iter().all(|task| task.units <= TASK_GRAINS * 3));
        let wordy = v1::GenerateSpec {
            prompts: vec!["x".repeat(TASK_BYTES / 2 + 1); 3],
            ..Default::default()
        };
        let wordy = v1::Job {
            spec: Some(wordy.into()),
            ..Default::default()
        };
        assert_eq!(cut(wordy, f64::INFINITY).0.len(), 3);
    }

    #[test]
    fn an_evaluation_goes_through_its_records_once_a_version_and_no_task_has_two() {
        let job = |against: &str| {
            let record = |n| v1::EvalRecord {
                request: Some(v1::EditRequest {
                    prompt: "{} is in downtown".to_owned(),
                    subject: format!("Needle {n}"),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let spec = v1::EvalSpec {
                records: (0..100).map(record).collect(),
                against: against.to_owned(),
                ..Default::default()
            };
            v1::Job {
                version: "models/m/versions/b".to_owned(),
                spec: Some(spec.into()),
                ..Default::default()
            }
        };
        let mut both = job("models/m/versions/a");
        let items = work::pack(&mut both);
        let work = work::of(&both).unwrap();
        let cost = 20.0 * shape().parameters as f64;
        let plan = tasks(&both, &items, &shape(), &cost.into());
        let mut next = 0;
        let of = |unit| work.version_of(&both.version, &items, unit);
        for task in &plan {
            assert_eq!(task.first_unit, next);
            next += task.units;
            assert_eq!(of(task.first_unit), of(next - 1));
        }
        assert_eq!(next, 200);
        assert!(plan.len() > 10);
        assert_eq!((of(7), of(107)), (None, Some("models/m/versions/a")));
        assert_eq!(
            work.unit(&both.version, &items, 7),
            work.unit(&both.version, &items, 107)
        );
        assert_eq!(work.unit(&both.version, &items, 200), None);
        for once in ["", "models/m/versions/b"] {
            assert_eq!(cut(job(once), TASK_COST).1[0].units, 100);
        }
    }

    #[test]
    fn the_sums_of_statistics_come_after_all_pieces() {
        let spec = v1::StatsSpec {
            pieces: vec![
                v1::StatsUnit {
                    self_sample: 1000,
                    ..Default::default()
                };
                5
            ],
            layers: vec![3, 4],
            ..Default::default()
        };
        let job = v1::Job {
            spec: Some(spec.into()),
            ..Default::default()
        };
        let (plan, stages) = cut(job, TASK_COST);
        assert_eq!(stages[0].range(), 0..5);
        assert_eq!(stages[1].range(), 5..7);
        assert!(stages[1].hidden);
        let last = plan.last().unwrap();
        assert_eq!(last.first_unit + last.units, 7);
    }
}
