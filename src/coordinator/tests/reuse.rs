//! Units that the store has results for.

use super::*;
use crate::store::CachedResult;

fn answer(unit: u64, noise_scale: Option<f64>) -> (u64, CachedResult) {
    let answer = CachedResult {
        source: (Uuid::from_u128(99), unit),
        digest: crate::objects::Digest::of(&unit.to_be_bytes()),
        told: noise_scale
            .map(|scale| v1::unit_result::Outcome::NoiseLevel(v1::NoiseLevel { scale })),
        worker: "before".to_owned(),
        fingerprint: None,
    };
    (unit, answer)
}

#[test]
fn a_sweep_that_the_store_answers_whole_ends_at_once_and_stays_so() {
    let mut world = World::new();
    let id = Uuid::from_u128(1);
    let mut new = new_job(id, 3, Sort::Spread);
    new.earlier = (0..6).map(|unit| answer(unit, None)).collect();
    new.earlier.push(answer(6, Some(0.25)));
    world.submit(new);
    for core in [&world.core, &world.shadow.restore(world.now)] {
        let job = core.job(id).unwrap();
        assert_eq!(job.state(), JobState::Succeeded);
        let counts = job.counts.unwrap();
        let units = (counts.units, counts.units_done, counts.units_cached);
        assert_eq!(units, (6, 6, 6));
        assert_eq!((counts.tasks, counts.tasks_done), (4, 4));
    }
}

#[test]
fn what_the_store_does_not_answer_is_leased_with_the_scale_that_it_knows() {
    let mut world = World::new();
    let id = Uuid::from_u128(1);
    let mut new = new_job(id, 3, Sort::Spread);
    // The scale, one fact whole and half of another.
    new.earlier = vec![
        answer(6, Some(0.25)),
        answer(0, None),
        answer(1, None),
        answer(2, None),
    ];
    world.submit(new);
    let counts = world.core.job(id).unwrap().counts.unwrap();
    let tasks = (counts.tasks_done, counts.tasks_pending);
    assert_eq!((counts.units_cached, tasks), (3, (2, 2)));
    let hello = Event::Hello {
        session: Session(1),
        hello: Box::new(v1::Hello {
            worker_id: "one".to_owned(),
            credits: 4,
            ..Default::default()
        }),
        held: Vec::new(),
        principal: String::new(),
    };
    let (_, effects) = world.core.apply(hello, world.now);
    let leased: Vec<(u64, Option<f64>)> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(_, message) => match message.as_ref() {
                Message::Lease(lease) => Some(lease),
                _ => None,
            },
            _ => None,
        })
        .flat_map(|lease| lease.units.iter().map(|u| (u.unit, lease.noise_scale)))
        .collect();
    let scale = Some(0.25);
    assert_eq!(leased, [(3, scale), (4, scale), (5, scale)]);
}
