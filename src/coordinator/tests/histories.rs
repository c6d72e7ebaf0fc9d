//! Random histories: whatever happens, the invariants hold, and everything comes to an end.

use proptest::prelude::*;

use super::*;

fn sort() -> impl Strategy<Value = Sort> {
    prop_oneof![
        3 => Just(Sort::Plain),
        2 => Just(Sort::Spread),
        2 => Just(Sort::Stats),
        2 => any::<bool>().prop_map(Sort::Sequence),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..6u8, sort(), 0..6u8)
            .prop_map(|(facts, sort, owner)| Step::Submit { facts, sort, owner }),
        1 => any::<u8>().prop_map(Step::Cancel),
        1 => any::<u8>().prop_map(Step::Requeue),
        4 => (0..4u8, 0..4u8, any::<bool>())
            .prop_map(|(worker, credits, forgets)| Step::Hello { worker, credits, forgets }),
        2 => (0..4u8).prop_map(Step::Gone),
        16 => (0..4u8, any::<u8>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(worker, unit, failed, stale)| Step::Commit { worker, unit, failed, stale }),
        8 => (0..4u8, prop::option::weighted(0.3, 1..7u8))
            .prop_map(|(worker, failure)| Step::End { worker, failure }),
        1 => (0..4u8).prop_map(Step::Drain),
        1 => (0..5u8).prop_map(Step::AskDrain),
        1 => (0..5u8).prop_map(Step::Readmit),
        4 => (0..4u8).prop_map(Step::Heartbeat),
        4 => (0..1500u16).prop_map(Step::Wait),
        1 => any::<i16>().prop_map(Step::SetClock),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_invariants_and_comes_to_an_end(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        world.finish();
        world.restart();
        for (job, unit) in &world.acknowledged {
            let id: Uuid = job.strip_prefix("jobs/").unwrap().parse().unwrap();
            prop_assert!(world.shadow.results.contains_key(&(id, *unit)), "I3: {job} unit {unit}");
        }
        for id in &world.jobs {
            let job = world.core.job(*id).unwrap();
            let counts = job.counts.unwrap();
            if job.state() != JobState::Cancelled {
                prop_assert_eq!(counts.units_done, counts.units, "every unit has ended");
            }
        }
    }

    /// What the histories above seldom come to: a job nearly done, its last tasks slow, so that
    /// second leases are given; then anything.
    #[test]
    fn any_history_of_stragglers_keeps_the_invariants_and_comes_to_an_end(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut world = World::new();
        let id = world.submit(new_job(Uuid::from_u128(1), 20, Sort::Plain));
        let seconds = placement::stragglers(&mut world, id);
        prop_assert!(seconds > 0, "no second lease was given");
        for step in steps {
            world.run(step);
        }
        world.finish();
        world.restart();
    }
}
