//! Stages: one begins when every unit of the one before has its result.

use super::*;

fn submitted(sort: Sort) -> (World, Uuid) {
    let mut world = World::new();
    let id = world.submit(new_job(Uuid::from_u128(1), 3, sort));
    (world, id)
}

fn counts(world: &World, id: Uuid) -> v1::JobCounts {
    world.core.job(id).unwrap().counts.unwrap()
}

fn stage_of_lease(world: &World, worker: u8) -> u32 {
    let (_, lease) = world.lease_of(worker).unwrap();
    let key = LeaseKey::from_proto(lease.key.as_ref().unwrap()).unwrap();
    world.task(key.job, key.task).stage
}

#[test]
fn the_sums_are_leased_when_the_last_piece_is_there_and_not_before() {
    let (mut world, id) = submitted(Sort::Stats);
    world.run(hello(0, 8));
    assert_eq!(world.held(0).len(), 3, "the pieces, and no sum");
    let reasons = world.core.explain(id).unwrap();
    let waits = "stage 0 (pieces): 3 of 3 units open";
    assert!(reasons.iter().any(|it| it.contains(waits)), "{reasons:?}");
    for _ in 0..2 {
        world.commit(0, 0, false, false);
        world.run(Step::End {
            worker: 0,
            failure: None,
        });
    }
    assert_eq!(world.held(0).len(), 1);
    assert_eq!(counts(&world, id).stages_done, 0);
    world.restart();
    world.finish();
    let counts = counts(&world, id);
    assert_eq!((counts.stages, counts.stages_done), (2, 2));
    // The sums only prepare what CreateStatistics makes: they are not counted as results.
    assert_eq!((counts.units, counts.units_done), (3, 3));
}

#[test]
fn a_failed_unit_that_later_stages_need_fails_them_with_its_number() {
    let (mut world, id) = submitted(Sort::Sequence(false));
    world.run(hello(0, 1));
    world.commit(0, 0, false, false);
    world.run(Step::End {
        worker: 0,
        failure: None,
    });
    assert_eq!(stage_of_lease(&world, 0), 1);
    world.run(failure(0, FailureClass::Invalid));
    assert_eq!(world.state(id), JobState::Failed);
    let last = world.task(id, 2);
    assert!(
        last.last_failure.contains("this one needs it: unit 1: "),
        "{last:?}"
    );
    assert_eq!(counts(&world, id).units_failed, 2);
}

#[test]
fn a_sequence_that_is_told_to_keep_going_leaves_a_failed_edit_out() {
    let (mut world, id) = submitted(Sort::Sequence(true));
    world.run(hello(0, 1));
    world.run(failure(0, FailureClass::Invalid));
    assert_eq!(stage_of_lease(&world, 0), 1);
    world.work_off(0);
    assert_eq!(world.state(id), JobState::Failed, "one unit has no edit");
    let counts = counts(&world, id);
    assert_eq!((counts.units_done, counts.units_failed), (3, 1));
    assert_eq!(counts.stages_done, 3);
}

#[test]
fn a_restart_in_the_middle_of_any_stage_goes_on_with_it() {
    for sort in [Sort::Spread, Sort::Stats, Sort::Sequence(false)] {
        for commits in 0..9 {
            let (mut world, id) = submitted(sort);
            world.run(hello(0, 1));
            for _ in 0..commits {
                let Some((_, lease)) = world.lease_of(0) else {
                    break;
                };
                for unit in 0..lease.units.len() as u8 {
                    world.commit(0, unit, false, false);
                }
                world.run(Step::End {
                    worker: 0,
                    failure: None,
                });
            }
            world.restart();
            world.finish();
            assert_eq!(world.state(id), JobState::Succeeded, "{sort:?} {commits}");
        }
    }
}

#[test]
fn a_task_in_quarantine_holds_the_stages_after_its_own() {
    let (mut world, id) = submitted(Sort::Spread);
    for worker in 0..2 {
        world.run(hello(worker, 1));
        assert_eq!(stage_of_lease(&world, worker), 0);
        world.wait(2_000);
    }
    assert_eq!(world.state(id), JobState::Held);
    world.run(Step::Requeue(0));
    world.finish();
    assert_eq!(world.state(id), JobState::Succeeded);
}

#[test]
fn a_result_of_another_fact_kind_or_shape_ends_the_stream_and_is_not_kept() {
    let grid = |change: fn(&mut v1::Grid)| {
        move |unit: &v1::LeasedUnit| {
            let mut fits = outcome(unit);
            if let v1::unit_result::Outcome::Grid(grid) = &mut fits {
                change(grid);
            }
            fits
        }
    };
    let completion =
        |_: &v1::LeasedUnit| v1::unit_result::Outcome::Completion(v1::Completion::default());
    type Unfit = Box<dyn Fn(&v1::LeasedUnit) -> v1::unit_result::Outcome>;
    let unfit: [Unfit; 6] = [
        Box::new(completion),
        Box::new(grid(|grid| grid.kind = 3)),
        Box::new(grid(|grid| grid.fact = None)),
        Box::new(grid(|grid| grid.scores = vec![0.5])),
        Box::new(grid(|grid| grid.high = f64::NAN)),
        Box::new(grid(|grid| grid.high = 1.5)),
    ];
    for unfit in unfit {
        let (mut world, id) = submitted(Sort::Plain);
        world.run(hello(0, 1));
        let (session, lease) = world.lease_of(0).unwrap();
        let unit = &lease.units[0];
        let result = v1::UnitResult {
            unit: unit.unit,
            outcome: Some(unfit(unit)),
        };
        let bytes = bytes::Bytes::from(prost::Message::encode_to_vec(&result));
        let event = Event::Commit {
            session,
            lease: LeaseKey::from_proto(lease.key.as_ref().unwrap()).unwrap(),
            unit: unit.unit,
            result: CommittedResult::new(bytes, result, None),
        };
        let (_, effects) = world.core.apply(event, world.now);
        let closed = effects
            .iter()
            .any(|it| matches!(it, Effect::Close(of, Closing::Unfit(_)) if *of == session));
        assert!(closed, "{effects:?}");
        let kept = |it: &Effect| matches!(it, Effect::Change(Change::Result(..)));
        assert!(!effects.iter().any(kept));
        assert_eq!(counts(&world, id).units_done, 0);
    }
}

#[test]
fn why_a_unit_failed_is_said_of_later_stages_also_after_a_restart() {
    let (mut world, id) = submitted(Sort::Stats);
    world.run(hello(0, 8));
    world.commit(0, 0, true, false);
    world.run(Step::End {
        worker: 0,
        failure: None,
    });
    world.restart();
    world.finish();
    assert_eq!(world.state(id), JobState::Failed);
    let sum = world.task(id, 3);
    let said = &sum.last_failure;
    assert!(said.contains("this one needs it: unit "), "{said}");
}
