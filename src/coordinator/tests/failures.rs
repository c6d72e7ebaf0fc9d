//! What becomes of tasks that fail, of workers that fail them, and of jobs that cannot go on.

use super::*;

/// Loses so many workers on the first task.
fn lose_workers(world: &mut World, workers: std::ops::Range<u8>) {
    for worker in workers {
        world.run(hello(worker, 1));
        world.run(Step::Gone(worker));
        world.run(Step::Wait(1_200));
    }
}

#[test]
fn a_task_that_loses_several_distinct_workers_goes_to_quarantine_and_the_job_is_held() {
    let (mut world, id) = world_with_a_job(1);
    lose_workers(&mut world, 0..2);
    let task = world.task(id, 0);
    assert_eq!(task.state(), v1::TaskState::Quarantined);
    assert!(
        task.last_failure.contains("w0, w1"),
        "{}",
        task.last_failure
    );
    assert_eq!(world.state(id), JobState::Held);
    let counts = world.core.job(id).unwrap().counts.unwrap();
    assert_eq!((counts.tasks_pending, counts.tasks_quarantined), (1, 1));
    let reasons = world.core.explain(id).unwrap().join(" ");
    assert!(reasons.contains("job requeue"), "{reasons}");
    // No worker is given it any more, and a restart changes nothing.
    world.run(hello(2, 1));
    assert!(world.held(2).is_empty());
    world.restart();
    assert_eq!(world.state(id), JobState::Held);
}

#[test]
fn a_task_that_waited_on_a_lost_worker_is_not_blamed_for_it() {
    let (mut world, id) = world_with_a_job(2);
    for worker in 0..2 {
        world.run(hello(worker, 2));
        assert_eq!(world.held(worker).len(), 2);
        world.run(Step::Gone(worker));
        world.run(Step::Wait(1_200));
    }
    assert_eq!(world.task(id, 0).state(), v1::TaskState::Quarantined);
    let waited = world.task(id, 1);
    assert_eq!(waited.state(), v1::TaskState::Pending);
    assert_eq!(waited.last_failure, "worker w1 was lost");
}

#[test]
fn a_lost_worker_that_got_ahead_with_a_task_does_not_count_against_it() {
    let (mut world, id) = world_with_a_job(1);
    world.run(hello(0, 1));
    world.commit(0, 0, false, false);
    world.run(Step::Gone(0));
    world.run(Step::Wait(1_200));
    // What is left of it kills whoever computes it.
    lose_workers(&mut world, 1..2);
    assert_eq!(world.task(id, 0).state(), v1::TaskState::Pending);
    lose_workers(&mut world, 2..3);
    let task = world.task(id, 0);
    assert_eq!(task.state(), v1::TaskState::Quarantined);
    assert!(
        task.last_failure.contains("workers w1, w2 were lost"),
        "{}",
        task.last_failure
    );
}

#[test]
fn a_job_with_a_task_in_quarantine_goes_on_with_the_others() {
    let (mut world, id) = world_with_a_job(3);
    lose_workers(&mut world, 0..2);
    assert_eq!(world.state(id), JobState::Running);
    world.run(hello(2, 1));
    world.work_off(2);
    assert_eq!(world.state(id), JobState::Held);
    assert_eq!(world.core.job(id).unwrap().counts.unwrap().tasks_done, 2);
}

#[test]
fn a_requeued_task_gets_another_round_and_its_job_ends() {
    let (mut world, id) = world_with_a_job(1);
    lose_workers(&mut world, 0..2);
    let answer = world.apply(Event::Requeue(id));
    assert_eq!(answer, Ok(Done::Requeued(1)));
    assert_eq!(world.state(id), JobState::Running);
    // It takes as many lost workers as the first time.
    lose_workers(&mut world, 2..3);
    assert_eq!(world.task(id, 0).state(), v1::TaskState::Pending);
    world.run(hello(3, 1));
    world.work_off(3);
    assert_eq!(world.state(id), JobState::Succeeded);
    let again = world.apply(Event::Requeue(id));
    assert_eq!(again, Ok(Done::Requeued(0)), "nothing is left to requeue");
}

#[test]
fn a_job_that_is_held_is_given_up_by_cancelling_it() {
    let (mut world, id) = world_with_a_job(1);
    lose_workers(&mut world, 0..2);
    world.run(Step::Cancel(0));
    assert_eq!(world.state(id), JobState::Cancelled);
    world.restart();
    assert_eq!(world.task(id, 0).state(), v1::TaskState::Cancelled);
}

#[test]
fn a_task_handed_back_any_number_of_times_is_not_failed() {
    let (mut world, id) = world_with_a_job(1);
    world.run(hello(0, 1));
    for _ in 0..50 {
        world.run(failure(0, FailureClass::Preempted));
    }
    assert_eq!(world.task(id, 0).state(), v1::TaskState::Leased);
}

#[test]
fn a_task_that_keeps_failing_fails_after_its_attempts_and_says_why() {
    let (mut world, id) = world_with_a_job(1);
    world.run(hello(0, 1));
    for _ in 0..ATTEMPTS {
        world.run(failure(0, FailureClass::Transient));
        for _ in 0..100 {
            world.run(Step::Heartbeat(0));
            world.run(Step::Wait(900));
        }
        world.run(Step::Heartbeat(0));
    }
    assert_eq!(world.task(id, 0).state(), v1::TaskState::Failed);
    let reasons = world.shadow.one(id).explain(id).unwrap();
    assert!(reasons.iter().any(|reason| reason.contains("tried")));
}

#[test]
fn a_second_result_of_a_unit_is_accepted_if_equal_and_a_divergence_if_not_once_a_lease() {
    let (mut world, id) = world_with_a_job(1);
    world.run(hello(0, 1));
    let (session, lease) = world.lease_of(0).unwrap();
    let key = LeaseKey::from_proto(lease.key.as_ref().unwrap()).unwrap();
    let mut accepted = Vec::new();
    let mut divergences = 0;
    // The third is refused, and its worker has the lease no longer: what else it sends is not kept.
    for text in ["one", "one", "two", "three", "four"] {
        let mut outcome = outcome(&lease.units[0]);
        if let v1::unit_result::Outcome::Grid(grid) = &mut outcome {
            grid.answer = text.to_owned();
        }
        let outcome = Some(outcome);
        let result = v1::UnitResult { unit: 0, outcome };
        let bytes = bytes::Bytes::from(prost::Message::encode_to_vec(&result));
        let result = CommittedResult::new(bytes, result, None);
        let event = Event::Commit {
            session,
            lease: key,
            unit: 0,
            result,
        };
        for effect in world.core.apply(event, world.now).1 {
            match effect {
                Effect::Change(Change::Divergence(job, unit, _)) => {
                    assert_eq!((job, unit), (id, 0));
                    divergences += 1;
                }
                Effect::Send(_, message) => {
                    if let Message::CommitAck(ack) = *message {
                        accepted.push(ack.accepted);
                    }
                }
                _ => {}
            }
        }
    }
    let expected = vec![true, true, false, false, false];
    assert_eq!((accepted, divergences), (expected, 1));
}

#[test]
fn a_request_repeated_with_its_id_makes_one_job() {
    let mut core = Core::new(limits());
    let submit = |core: &mut Core, id: u128, digest: &str| {
        let new = NewJob {
            request_id: "again".to_owned(),
            request_digest: digest.to_owned(),
            ..new_job(Uuid::from_u128(id), 1, Sort::Plain)
        };
        core.apply(Event::Submit(Box::new(new)), 0).0
    };
    assert_eq!(
        submit(&mut core, 1, "a"),
        Ok(Done::Made(Uuid::from_u128(1)))
    );
    assert_eq!(
        submit(&mut core, 2, "a"),
        Ok(Done::Made(Uuid::from_u128(1)))
    );
    assert!(matches!(
        submit(&mut core, 3, "b"),
        Err(Refusal::RequestIdReused { .. })
    ));
    assert_eq!(core.jobs_before(None, 10, 1 << 20).len(), 1);
}

#[test]
fn what_happens_to_a_job_is_dated_by_the_machines_clock_and_never_before_what_came_before() {
    const YEAR: i64 = 365 * 24 * 3_600_000;
    let (mut world, id) = world_with_a_job(2);
    let date = |time: Option<prost_types::Timestamp>| job::millis(time.unwrap());
    let made = date(world.core.job(id).unwrap().create_time);
    assert_eq!(made, world.now);
    // Set forward, and no lease runs out by it.
    world.set = YEAR;
    world.run(hello(0, 1));
    let began = date(world.core.job(id).unwrap().start_time);
    assert_eq!(began, world.now + YEAR as Millis);
    assert_eq!(world.held(0).len(), 1);
    // Set back: what happens now is not dated before what happened, after a restart neither.
    world.set = -i64::try_from(world.now).unwrap() / 2;
    world.restart();
    world.run(Step::Cancel(0));
    assert_eq!(date(world.core.job(id).unwrap().end_time), began);
    // Another job goes by the clock as it is.
    world.set = 0;
    let other = world.submit(new_job(Uuid::from_u128(2), 1, Sort::Plain));
    let made = date(world.core.job(other).unwrap().create_time);
    assert_eq!(made, world.now);
}

#[test]
fn what_earlier_programs_left_in_the_summary_of_a_job_is_not_remembered() {
    let id = Uuid::from_u128(1);
    let spec = v1::EditSpec {
        tasks: vec![v1::EditTask::default(); 10],
        contexts: vec!["{}".to_owned() + &"x".repeat(3_000_000)],
        ..Default::default()
    };
    let job = v1::Job {
        name: format!("jobs/{id}"),
        state: JobState::Cancelled as i32,
        spec: Some(spec.into()),
        ..Default::default()
    };
    let record = JobRecord {
        job: Some(job),
        ..Default::default()
    };
    let mut restoring = Restoring::new(limits(), 0, 0);
    restoring.ended(id, record);
    let core = restoring.finish();
    let bytes = prost::Message::encoded_len(&core.job(id).unwrap());
    assert!(bytes < 200, "{bytes}");
}

#[test]
fn of_an_ended_job_what_lists_show_is_remembered_and_the_rest_is_in_the_store() {
    let mut world = World::new();
    let ids = [1, 2, 3].map(|n| {
        let new = NewJob {
            request_id: format!("request {n}"),
            request_digest: format!("digest {n}"),
            ..new_job(Uuid::from_u128(n), 1, Sort::Plain)
        };
        world.submit(new)
    });
    world.run(Step::Cancel(1));
    let counts = world.core.census().counts.unwrap();
    assert!(!world.core.has_ended(ids[0]) && world.core.has_ended(ids[1]));
    assert!(world.core.tasks(ids[1], 0, 1, &BTreeSet::new()).is_none());
    assert_eq!(world.task(ids[1], 0).state(), v1::TaskState::Cancelled);
    for _ in 0..2 {
        // Beside those that are open, and in their order.
        let listed = world.core.jobs_before(None, 2, 1 << 20);
        assert_eq!(
            listed.iter().map(|it| it.0).collect::<Vec<_>>(),
            [ids[2], ids[1]]
        );
        assert_eq!(listed[1].1.state(), JobState::Cancelled);
        let listed = world.core.jobs_before(Some(ids[1]), 2, 1 << 20);
        assert_eq!(listed.len(), 1);
        // Nothing is looked at that no page has room for.
        assert_eq!(world.core.jobs_before(None, 3, 1 << 20).len(), 3);
        assert_eq!(world.core.jobs_before(None, 3, 1).len(), 1);
        assert_eq!(world.core.census().counts.unwrap(), counts);
        // What is asked of it changes nothing.
        assert_eq!(world.apply(Event::Cancel(ids[1])), Ok(Done::Asked));
        assert_eq!(world.apply(Event::Requeue(ids[1])), Ok(Done::Requeued(0)));
        for (digest, answer) in [("digest 2", true), ("another", false)] {
            let again = NewJob {
                request_id: "request 2".to_owned(),
                request_digest: digest.to_owned(),
                ..new_job(Uuid::from_u128(9), 1, Sort::Plain)
            };
            let made = world.apply(Event::Submit(Box::new(again)));
            assert_eq!(made == Ok(Done::Made(ids[1])), answer, "{made:?}");
        }
        world.restart();
    }
}

#[test]
fn a_worker_whose_result_was_refused_holds_the_lease_no_longer() {
    let (mut world, id) = world_with_a_job(2);
    world.run(hello(0, 1));
    world.commit(0, 0, false, false);
    // The same unit again, as a failure: another result.
    world.commit(0, 0, true, false);
    assert_eq!(world.task(id, 0).state(), v1::TaskState::Pending);
    assert!(world.task(id, 0).last_failure.contains("otherwise"));
}

#[test]
fn a_lease_that_its_worker_does_not_speak_of_goes_back_uncounted() {
    let (mut world, id) = world_with_a_job(1);
    world.run(hello(0, 1));
    world.peers.get_mut(&0).unwrap().leases.clear();
    for _ in 0..4 {
        world.run(Step::Wait(400));
        world.run(Step::Heartbeat(0));
    }
    let task = world.task(id, 0);
    assert_eq!(task.state(), v1::TaskState::Leased, "it was given again");
    assert_eq!(task.failures[0].failure_class(), FailureClass::Preempted);
    assert_eq!(world.held(0).len(), 1);
}

/// Two workers: one does its tasks, one fails them.
fn one_good_one_bad(facts: u8) -> (World, Uuid) {
    let (mut world, id) = world_with_a_job(facts);
    world.run(hello(0, 1));
    world.run(hello(1, 1));
    for _ in 0..8 {
        for unit in 0..2 {
            world.commit(0, unit, false, false);
        }
        world.run(Step::End {
            worker: 0,
            failure: None,
        });
        world.run(failure(1, FailureClass::Transient));
        world.run(Step::Wait(10));
    }
    (world, id)
}

#[test]
fn a_worker_that_fails_far_more_than_the_others_gets_no_more_leases_until_it_is_readmitted() {
    let (mut world, id) = one_good_one_bad(60);
    let worker = world.core.worker("w1").unwrap();
    assert!(
        worker.excluded.contains("5 of its last 5"),
        "{}",
        worker.excluded
    );
    assert!(world.held(1).is_empty());
    let reasons = world.core.explain(id).unwrap().join(" ");
    assert!(
        reasons.contains("palimpsest worker readmit w1"),
        "{reasons}"
    );
    world.run(Step::Readmit(1));
    assert_eq!(world.core.worker("w1").unwrap().excluded, "");
    assert_eq!(world.held(1).len(), 1);
}

#[test]
fn a_lone_worker_is_never_excluded_for_tasks_may_be_to_blame() {
    let (mut world, _) = world_with_a_job(20);
    world.run(hello(0, 1));
    for _ in 0..15 {
        world.run(failure(0, FailureClass::Transient));
    }
    assert_eq!(world.core.worker("w0").unwrap().excluded, "");
}

#[test]
fn workers_that_boast_do_not_break_the_progress_of_their_job() {
    let (mut world, id) = world_with_a_job(4);
    for worker in 0..2 {
        world.run(hello(worker, 1));
        let (session, lease) = world.lease_of(worker).unwrap();
        let key = LeaseKey::from_proto(lease.key.as_ref().unwrap()).unwrap();
        world.tell(Event::Heartbeat {
            session,
            leases: vec![(key, progress(u64::MAX))],
            loaded: Vec::new(),
        });
    }
    let progress = world.core.progress(id);
    assert_eq!((progress.workers, progress.steps_running), (2, u64::MAX));
}
