//! Who gets what, and when.

use super::*;

/// Two workers: one does all but the last of a job's tasks, and the other sits on it until a
/// second lease is given. Gives how many were.
pub(super) fn stragglers(world: &mut World, id: Uuid) -> usize {
    world.run(hello(0, 1));
    world.run(hello(1, 1));
    world.work_off(1);
    for _ in 0..20 {
        world.run(Step::Wait(100));
        world.run(Step::Heartbeat(0));
        world.run(Step::Heartbeat(1));
    }
    let tasks = world
        .core
        .tasks(id, 0, usize::MAX, &BTreeSet::new())
        .unwrap();
    tasks
        .iter()
        .filter(|(_, task)| task.second_epoch > 0)
        .count()
}

fn sweep(world: &World, facts: u8, owner: &str, priority: i32) -> NewJob {
    let mut new = new_job(world.next_id(), facts, Sort::Plain);
    new.job.owner = owner.to_owned();
    new.job.priority = priority;
    new
}

/// How many of a worker's leases are of a job.
fn of_job(world: &World, worker: u8, id: Uuid) -> usize {
    let prefix = format!("jobs/{id}/");
    let held = world.held(worker);
    held.iter().filter(|task| task.starts_with(&prefix)).count()
}

#[test]
fn owners_share_the_workers_by_their_weights() {
    let mut world = World::new();
    let light = world.submit(sweep(&world, 60, "light", 0));
    let heavy = world.submit(sweep(&world, 60, "heavy", 5));
    world.run(hello(0, 30));
    assert_eq!(of_job(&world, 0, heavy), 20, "a weight of 2");
    assert_eq!(of_job(&world, 0, light), 10, "a weight of 1");
    // The share follows from the leases that there are: a restart does not change it.
    world.restart();
    world.run(Step::Hello {
        worker: 0,
        credits: 33,
        forgets: false,
    });
    assert_eq!(of_job(&world, 0, heavy), 22);
    let reasons = world.core.explain(light).unwrap().join(" ");
    assert!(reasons.contains("busy"), "{reasons}");
}

#[test]
fn an_owner_alone_gets_all_workers() {
    let mut world = World::new();
    let id = world.submit(sweep(&world, 60, "light", 0));
    world.run(hello(0, 30));
    assert_eq!(of_job(&world, 0, id), 30);
}

#[test]
fn priority_decides_among_the_jobs_of_one_owner_and_age_makes_up_for_it() {
    for (age, first) in [(0, true), (700_000, false)] {
        let mut world = World::new();
        let old = world.submit(sweep(&world, 3, "", 0));
        world.wait(age);
        let urgent = world.submit(sweep(&world, 3, "", 1));
        world.run(hello(0, 1));
        assert_eq!(of_job(&world, 0, urgent), usize::from(first), "{age} ms");
        assert_eq!(of_job(&world, 0, old), usize::from(!first), "{age} ms");
    }
}

fn hello_with(world: &mut World, worker: u8, credits: u32, hello: v1::Hello) {
    world.sessions += 1;
    let session = Session(world.sessions);
    let peer = world.peers.entry(worker.into()).or_default();
    peer.session = Some(session);
    world.tell(Event::Hello {
        session,
        hello: Box::new(v1::Hello {
            worker_id: format!("w{worker}"),
            credits,
            ..hello
        }),
        held: Vec::new(),
        principal: String::new(),
    });
}

fn capabilities(capabilities: v1::Capabilities) -> v1::Hello {
    v1::Hello {
        capabilities: Some(capabilities),
        ..Default::default()
    }
}

fn with_model(mut new: NewJob, name: &str) -> NewJob {
    new.model.name = format!("models/{name}");
    new
}

fn loaded(name: &str) -> v1::Hello {
    capabilities(v1::Capabilities {
        loaded_models: vec![format!("models/{name}")],
        ..Default::default()
    })
}

#[test]
fn a_worker_is_given_work_on_the_model_it_has_loaded_but_nobody_waits_for_ever() {
    let mut world = World::new();
    let one = world.submit(with_model(sweep(&world, 40, "", 0), "one"));
    let two = world.submit(with_model(sweep(&world, 40, "", 0), "two"));
    hello_with(&mut world, 0, 2, loaded("two"));
    assert_eq!(
        of_job(&world, 0, two),
        2,
        "the younger job, whose model is there"
    );
    let reasons = world.core.explain(one).unwrap().join(" ");
    assert!(reasons.contains("busy"), "{reasons}");
    // The older job lets it pass for `affinity` milliseconds, and then takes its turn.
    world.now += 10_001;
    let session = world.peers[&0].session.unwrap();
    world.tell(Event::Credits(session, 3));
    assert_eq!((of_job(&world, 0, one), of_job(&world, 0, two)), (1, 2));
}

#[test]
fn a_worker_without_the_model_takes_the_work_when_there_is_no_other() {
    let mut world = World::new();
    let one = world.submit(with_model(sweep(&world, 2, "", 0), "one"));
    hello_with(&mut world, 0, 2, loaded("two"));
    assert_eq!(of_job(&world, 0, one), 2);
}

#[test]
fn a_worker_is_not_given_what_it_cannot_do_and_the_job_says_so() {
    let needs_bf16 = |world: &World| {
        let mut new = sweep(world, 2, "", 0);
        if let Some(v1::job::Spec::Trace(trace)) = &mut new.job.spec {
            trace.set_dtype(v1::Dtype::Bf16);
        }
        new.model.shape = Some(v1::model::Shape {
            parameters: 1_000_000,
            ..Default::default()
        });
        new
    };
    let f32_only = v1::Capabilities {
        dtypes: vec![v1::Dtype::F32 as i32],
        ..Default::default()
    };
    let small = v1::Capabilities {
        device_memory: 1_999_999,
        ..Default::default()
    };
    for (cannot, why) in [(f32_only, "number format"), (small, "too little memory")] {
        let mut world = World::new();
        let id = world.submit(needs_bf16(&world));
        hello_with(&mut world, 0, 2, capabilities(cannot));
        assert!(world.held(0).is_empty());
        let reasons = world.core.explain(id).unwrap().join(" ");
        assert!(reasons.contains(why), "{reasons}");
        hello_with(&mut world, 1, 2, capabilities(v1::Capabilities::default()));
        assert_eq!(world.held(1).len(), 2);
    }
}

#[test]
fn a_worker_that_is_soon_taken_away_gets_only_what_it_can_finish() {
    let until = |millis: Millis| v1::Hello {
        valid_until: Some(prost_types::Timestamp {
            seconds: (millis / 1000) as i64,
            nanos: 0,
        }),
        ..Default::default()
    };
    let (mut world, id) = world_with_a_job(1);
    let soon = world.now + 10_000;
    hello_with(&mut world, 0, 1, until(soon));
    assert!(world.held(0).is_empty(), "a task takes some 20 s");
    let reasons = world.core.explain(id).unwrap().join(" ");
    assert!(reasons.contains("taken away"), "{reasons}");
    let later = world.now + 60_000;
    hello_with(&mut world, 1, 1, until(later));
    assert_eq!(world.held(1).len(), 1);
}

/// A worker that does tasks of `cost` multiply-adds in `time` milliseconds each.
fn measure(world: &mut World, worker: u8, time: Millis) {
    for _ in 0..3 {
        world.now += time;
        for unit in 0..2 {
            world.commit(worker, unit, false, false);
        }
        world.run(Step::End {
            worker,
            failure: None,
        });
    }
}

#[test]
fn a_lease_that_waits_behind_another_is_taken_back_for_a_worker_that_has_none() {
    let mut world = World::new();
    let id = world.submit(with_model(sweep(&world, 2, "", 0), "one"));
    hello_with(&mut world, 0, 2, loaded("one"));
    let first = world.held(0).remove(0);
    assert_eq!(of_job(&world, 0, id), 2);
    // To load the model takes longer than to wait.
    hello_with(&mut world, 1, 1, loaded("other"));
    world.wait(100);
    assert_eq!(of_job(&world, 0, id), 2);
    hello_with(&mut world, 2, 1, loaded("one"));
    world.wait(100);
    assert_eq!(world.held(0), [first], "what it works on stays");
    assert_eq!(of_job(&world, 2, id), 1);
    for worker in [0, 2] {
        world.work_off(worker);
    }
    assert_eq!(world.state(id), JobState::Succeeded);
}

#[test]
fn the_speed_in_one_stage_is_not_believed_of_another() {
    let mut world = World::new();
    world.submit(with_model(sweep(&world, 20, "", 0), "one"));
    hello_with(&mut world, 0, 1, loaded("one"));
    measure(&mut world, 0, 1_000);
    let of = |world: &World, stage| world.core.task_costs().of(stage);
    let grids = of(&world, "grids");
    world.run(Step::Cancel(0));
    let stats = new_job(world.next_id(), 20, Sort::Stats);
    world.submit(with_model(stats, "one"));
    measure(&mut world, 0, 10_000);
    let pieces = of(&world, "pieces");
    assert!(pieces != grids, "{pieces}");
    assert_eq!(of(&world, "grids"), grids);
    // Of what nobody has done yet the worst is believed.
    assert_eq!(of(&world, "targets"), pieces.min(grids));
    assert_eq!(of(&world, "pieces"), pieces);
}

#[test]
fn tasks_are_cut_by_the_measured_speed_and_a_slow_worker_gets_smaller_ones() {
    let mut world = World::new();
    world.submit(with_model(sweep(&world, 20, "", 0), "one"));
    let cost_of = |world: &World, stage| world.core.task_costs().of(stage);
    assert_eq!(cost_of(&world, "grids"), TASK_COST, "nothing is known yet");
    hello_with(&mut world, 0, 1, loaded("one"));
    measure(&mut world, 0, 1_000);
    let cost = world.task(world.jobs[0], 0).estimated_cost;
    let rate = world.core.worker("w0").unwrap().measured_rate;
    assert!(
        (rate / cost - 1.0).abs() < 0.01,
        "{cost} in a second, measured {rate}"
    );
    assert!((cost_of(&world, "grids") / (20.0 * cost) - 1.0).abs() < 0.01);

    // Two tasks, cut for that speed; then only a worker of a tenth of it is left.
    world.run(Step::Cancel(0));
    world.run(Step::Drain(0));
    let mut new = with_model(sweep(&world, 40, "", 0), "one");
    let shape = v1::model::Shape {
        layers: 48,
        width: 1600,
        vocabulary: 50_000,
        block_parameters: 1 << 33,
        ..Default::default()
    };
    new.tasks = tasks(&new.job, &new.items, &shape, &world.core.task_costs());
    assert_eq!(new.tasks.len(), 2);
    let slow = v1::Capabilities {
        device: "slow".to_owned(),
        loaded_models: vec!["models/one".to_owned()],
        ..Default::default()
    };
    let first = world.submit(with_model(sweep(&world, 3, "", 9), "one"));
    hello_with(&mut world, 1, 1, capabilities(slow));
    measure(&mut world, 1, 10_000);
    assert_eq!(world.state(first), JobState::Succeeded);
    let id = {
        new.id = world.next_id();
        world.submit(new)
    };
    let lease = world.lease_of(1).unwrap().1;
    assert_eq!(lease.units.len(), 4, "two facts of two kinds: 20 s");
    assert_eq!(world.core.job(id).unwrap().counts.unwrap().tasks, 3);
    world.restart();
    world.finish();
    let counts = world.core.job(id).unwrap().counts.unwrap();
    assert_eq!((counts.units_done, counts.units_failed), (80, 0));
}

#[test]
fn the_last_of_a_job_is_shared_out_in_ever_smaller_parts() {
    for (workers, sizes) in [(1, &[32][..]), (2, &[8, 6, 4, 2, 2, 2, 2, 2, 2, 2])] {
        let mut world = World::new();
        for worker in 0..workers {
            hello_with(&mut world, worker, 1, loaded("one"));
        }
        let mut new = with_model(sweep(&world, 16, "", 0), "one");
        let whole: f64 = new.tasks.iter().map(|task| task.cost).sum();
        new.tasks.truncate(1);
        new.tasks[0].units = 32;
        new.tasks[0].cost = whole;
        let id = world.submit(new);
        let mut given = Vec::new();
        for turn in 0.. {
            let worker = turn % workers;
            let Some((_, lease)) = world.lease_of(worker) else {
                break;
            };
            given.push(lease.units.len());
            // What the other has comes next.
            for unit in 0..lease.units.len() as u8 {
                world.commit(worker, unit, false, false);
            }
            world.run(Step::End {
                worker,
                failure: None,
            });
        }
        assert_eq!(given, sizes, "{workers} workers");
        assert_eq!(world.state(id), JobState::Succeeded);
    }
}

#[test]
fn the_last_of_a_stage_whose_leases_cost_much_is_shared_out_in_larger_parts() {
    for (dear, units) in [(false, 4), (true, 10)] {
        let mut world = World::new();
        world.submit(with_model(sweep(&world, 20, "", 0), "one"));
        hello_with(&mut world, 0, 1, loaded("one"));
        measure(&mut world, 0, 1_000);
        let rate = world.core.worker("w0").unwrap().measured_rate;
        world.run(Step::Cancel(0));
        hello_with(&mut world, 1, 1, loaded("one"));
        let mut new = with_model(sweep(&world, 8, "", 0), "one");
        if dear {
            let task = |n| v1::EditTask {
                request: Some(v1::EditRequest {
                    prompt: "{} is".to_owned(),
                    subject: format!("fact {n}"),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let spec = v1::MassEditSpec {
                tasks: (0..16).map(task).collect(),
                layers: vec![0],
                method: "memit".to_owned(),
                contexts: vec!["{}".to_owned()],
                check_only: true,
                ..Default::default()
            };
            new.job.spec = Some(spec.into());
            new.items = work::pack(&mut new.job);
            new.tasks = tasks(
                &new.job,
                &new.items,
                &v1::model::Shape::default(),
                &1e20.into(),
            );
        }
        // Eight seconds of sixteen units, of which a quarter would be shared out at a time.
        new.tasks.truncate(1);
        new.tasks[0].units = 16;
        new.tasks[0].cost = 8.0 * rate;
        world.submit(new);
        assert_eq!(world.lease_of(0).unwrap().1.units.len(), units, "{dear}");
    }
}

#[test]
fn a_job_is_not_cut_small_for_workers_without_its_model_or_while_others_wait() {
    let one_task = |world: &World, facts| {
        let mut new = with_model(sweep(world, facts, "", 0), "one");
        let whole: f64 = new.tasks.iter().map(|task| task.cost).sum();
        new.tasks.truncate(1);
        new.tasks[0].units = 2 * u64::from(facts);
        new.tasks[0].cost = whole;
        new
    };
    // The others would have to load it, and throw out what they have.
    let mut world = World::new();
    hello_with(&mut world, 0, 1, loaded("one"));
    hello_with(&mut world, 1, 1, loaded("two"));
    world.submit(one_task(&world, 16));
    assert_eq!(world.lease_of(0).unwrap().1.units.len(), 32);
    // Enough waits for everybody.
    let mut world = World::new();
    for _ in 0..6 {
        world.submit(one_task(&world, 16));
    }
    for worker in 0..2 {
        hello_with(&mut world, worker, 1, loaded("one"));
    }
    for worker in 0..2 {
        assert_eq!(world.lease_of(worker).unwrap().1.units.len(), 32);
    }
}

#[test]
fn a_straggler_gets_a_second_lease_and_the_first_result_counts() {
    let (mut world, id) = world_with_a_job(20);
    assert_eq!(stragglers(&mut world, id), 1);
    let task = world.held(0)[0].clone();
    assert_eq!(world.held(1), std::slice::from_ref(&task));
    let reasons = world.core.explain(id).unwrap().join(" ");
    assert!(reasons.contains("two workers"), "{reasons}");
    // Both survive a restart.
    world.restart();
    for worker in [0, 1] {
        world.run(Step::Hello {
            worker,
            credits: 1,
            forgets: false,
        });
        assert_eq!(world.held(worker), std::slice::from_ref(&task));
    }
    // A unit from each; the second worker comes first, and the first is told to stop.
    world.commit(0, 0, false, false);
    world.commit(1, 0, false, false);
    world.commit(1, 1, false, false);
    world.run(Step::End {
        worker: 1,
        failure: None,
    });
    assert_eq!(world.state(id), JobState::Succeeded);
    assert!(world.held(0).is_empty(), "its lease was taken back");
    assert_eq!(world.core.job(id).unwrap().counts.unwrap().units_done, 40);
}

#[test]
fn a_second_lease_goes_on_when_the_first_is_lost() {
    let (mut world, id) = world_with_a_job(20);
    assert_eq!(stragglers(&mut world, id), 1);
    world.run(Step::Gone(0));
    for _ in 0..3 {
        world.run(Step::Wait(500));
        world.run(Step::Heartbeat(1));
    }
    let task = world.task(id, 0);
    assert_eq!(
        (task.state(), task.worker.as_str()),
        (v1::TaskState::Leased, "workers/w1")
    );
    assert_eq!(task.second_epoch, 0);
    world.work_off(1);
    assert_eq!(world.state(id), JobState::Succeeded);
}

#[test]
fn an_owner_with_too_much_open_is_refused_and_told_when_to_ask_again() {
    let limits = Limits {
        jobs_per_owner: 2,
        units_per_owner: 10,
        ..limits()
    };
    let mut core = Core::new(limits);
    let mut submit = |id: u128, facts, owner: &str| {
        let mut new = new_job(Uuid::from_u128(id), facts, Sort::Plain);
        new.job.owner = owner.to_owned();
        core.apply(Event::Submit(Box::new(new)), 0).0
    };
    assert!(submit(1, 4, "a").is_ok());
    let units = submit(2, 2, "a").unwrap_err().to_string();
    assert!(
        units.contains("'a' has 8 units open and asks for 4 more"),
        "{units}"
    );
    assert!(submit(3, 1, "a").is_ok());
    assert!(matches!(
        submit(4, 1, "a"),
        Err(Refusal::TooMuch {
            what: "jobs",
            retry: 1..,
            ..
        })
    ));
    assert!(submit(5, 1, "b").is_ok(), "another owner has room");
    core.apply(Event::Cancel(Uuid::from_u128(1)), 0).0.unwrap();
    let mut new = new_job(Uuid::from_u128(6), 1, Sort::Plain);
    new.job.owner = "a".to_owned();
    assert!(core.apply(Event::Submit(Box::new(new)), 0).0.is_ok());
}

#[test]
fn a_worker_asked_to_drain_is_told_and_gets_no_more() {
    let (mut world, _) = world_with_a_job(5);
    world.run(hello(0, 1));
    let session = world.peers[&0].session.unwrap();
    let (answer, effects) = world
        .core
        .apply(Event::AskDrain("w0".to_owned()), world.now);
    assert_eq!(answer, Ok(Done::Asked));
    let told = effects.iter().any(|effect| {
        matches!(effect, Effect::Send(to, message)
            if *to == session && matches!(**message, Message::Drain(_)))
    });
    assert!(told);
    world.work_off(0);
    assert!(world.held(0).is_empty());
    let missing = world
        .core
        .apply(Event::AskDrain("w7".to_owned()), world.now);
    assert_eq!(missing.0, Err(Refusal::NoSuchWorker("w7".to_owned())));
}

/// What the core says to a worker `w1` of this principal and process.
fn says(world: &mut World, session: u64, principal: &str, pid: u32) -> Vec<Effect> {
    let event = Event::Hello {
        session: Session(session),
        hello: Box::new(v1::Hello {
            worker_id: "w1".to_owned(),
            credits: 1,
            capabilities: Some(v1::Capabilities {
                host: "node".to_owned(),
                pid,
                ..Default::default()
            }),
            ..Default::default()
        }),
        held: Vec::new(),
        principal: principal.to_owned(),
    };
    world.core.apply(event, world.now).1
}

#[test]
fn a_worker_that_is_there_is_nobody_elses() {
    let mut world = World::new();
    let closed = |effects: &[Effect]| {
        let mut ends = effects.iter().filter_map(|effect| match effect {
            Effect::Close(session, closing) => Some((session.0, closing.clone())),
            _ => None,
        });
        ends.next()
    };
    assert_eq!(closed(&says(&mut world, 101, "pool-a", 7)), None);
    // Of another principal, and of another process of the same one.
    let taken = Some((102, Closing::Taken));
    assert_eq!(closed(&says(&mut world, 102, "pool-b", 7)), taken);
    let taken = Some((103, Closing::Taken));
    assert_eq!(closed(&says(&mut world, 103, "pool-a", 8)), taken);
    assert!(world.core.worker("w1").unwrap().connected);
    // The same process comes back before its old stream was seen to break.
    let replaced = Some((101, Closing::Replaced));
    assert_eq!(closed(&says(&mut world, 104, "pool-a", 7)), replaced);
    world
        .core
        .apply(Event::Gone(Session(104)), world.now)
        .0
        .unwrap();
    assert_eq!(closed(&says(&mut world, 105, "pool-b", 8)), None);
}
