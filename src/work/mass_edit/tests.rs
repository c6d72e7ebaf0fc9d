//! Units of a mass edit, and what is refused of one.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::work;

fn task(prompt: &str, subject: &str, target: &str) -> v1::EditTask {
    v1::EditTask {
        request: Some(v1::EditRequest {
            prompt: prompt.to_owned(),
            subject: subject.to_owned(),
            target_new: target.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn facts() -> Vec<v1::EditTask> {
    let mut tasks: Vec<_> = (0..7)
        .map(|n| task("{} is in", &format!("Tower {n}"), "Rome"))
        .collect();
    // Another relation of one of them: one key.
    tasks.insert(3, task("{} belongs to", "Tower 5", "France"));
    tasks
}

fn job(spec: v1::MassEditSpec) -> (v1::Job, Items) {
    let mut job = v1::Job {
        spec: Some(spec.into()),
        ..Default::default()
    };
    let items = work::pack(&mut job);
    (job, items)
}

fn spec(tasks: Vec<v1::EditTask>) -> v1::MassEditSpec {
    v1::MassEditSpec {
        tasks,
        layers: vec![3, 4],
        ..Default::default()
    }
}

#[test]
fn the_order_of_a_request_decides_no_unit_of_a_batch() {
    let (first, items) = job(spec(facts()));
    let mut turned = facts();
    turned.reverse();
    let (second, others) = job(spec(turned));
    assert_eq!(items, others);
    assert_eq!(first, second);
    let spec = work::spec::<v1::MassEditSpec>(&first).unwrap();
    assert_eq!((spec.groups.len(), spec.batches.as_slice()), (7, &[0][..]));
}

#[test]
fn every_unit_is_of_one_stage_and_needs_units_of_stages_before_its_own() {
    for (method, batch, contexts, check_only) in [
        ("memit", None, vec![], false),
        ("alphaedit", Some(3), vec!["{}".to_owned()], false),
        ("encore", Some(1), vec![], false),
        ("alphaedit", Some(3), vec![], true),
    ] {
        let (job, items) = job(v1::MassEditSpec {
            method: method.to_owned(),
            batch,
            contexts,
            check_only,
            keep_going: true,
            ..spec(facts())
        });
        let spec = work::spec::<v1::MassEditSpec>(&job).unwrap();
        let stages = work::stages(&job, &items);
        let mut seen = Vec::new();
        for (number, stage) in stages.iter().enumerate() {
            for unit in stage.range() {
                seen.push(unit);
                let Some(Unit::MassEdit(asked)) = spec.unit("", &items, unit) else {
                    panic!("{unit} is no unit");
                };
                let needs = asked.keys.iter().chain(&asked.solved).chain(&asked.checked);
                for range in needs.chain(&asked.targets).chain(&asked.measured) {
                    let of = &stages[range.stage as usize];
                    assert!((range.stage as usize) < number, "{method} {unit} {asked:?}");
                    let end = range.first_unit + range.units;
                    let within = of.range();
                    let fits = within.start <= range.first_unit && end <= within.end;
                    assert!(fits, "{method} {unit}: {range:?} {of:?}");
                }
            }
        }
        seen.sort_unstable();
        let units = spec.plan(&items).units() as u64;
        assert_eq!(seen, (0..units).collect::<Vec<_>>(), "{method}");
        let results = stages.iter().filter(|stage| !stage.hidden);
        let results: u64 = results.map(|stage| stage.units).sum();
        let (batches, facts) = (spec.batches.len(), facts().len());
        // What is only checked makes no version, and measures nothing.
        let expected = match check_only {
            true => batches,
            false => 2 * batches + facts,
        };
        assert_eq!(results as usize, expected);
        assert_eq!(spec.landing().is_none(), check_only);
    }
}

#[test]
fn what_cannot_be_written_is_refused_with_the_records_that_it_is_of() {
    let said = |change: &dyn Fn(&mut v1::MassEditSpec)| {
        let mut asked = spec(facts());
        change(&mut asked);
        let (mut job, items) = job(asked);
        match work::check(&mut job, &items) {
            Ok(()) => String::new(),
            Err(all) => format!("{all:?}"),
        }
    };
    assert_eq!(said(&|_| {}), "");
    type Change<'a> = &'a dyn Fn(&mut v1::MassEditSpec);
    let cases: [(Change<'_>, &[&str]); 17] = [
        (&|it| it.tasks.clear(), &["there are none"]),
        (&|it| it.batch = Some(0), &["0 facts of a batch"]),
        (&|it| it.layers = vec![4, 3], &["4 comes before 3"]),
        (&|it| it.layers = vec![4, 4], &["4 comes before 4"]),
        (&|it| it.method = "rome".into(), &["job.edit"]),
        (&|it| it.method = "memo".into(), &["unknown method"]),
        (
            &|it| it.tasks.push(task("{} is in", "Tower 1", "Oslo")),
            &["Tower 1 is in", "Oslo", "Rome", "with another target"],
        ),
        (
            &|it| it.tasks.push(task("{} is in", "Tower 1", "Rome")),
            &["Tower 1 is in", "is the same fact"],
        ),
        (
            &|it| it.tasks[0].request.as_mut().unwrap().target_true = Some(" Rome".into()),
            &["Tower 0 is in", "is the true one"],
        ),
        (
            &|it| it.tasks[0].request.as_mut().unwrap().target_new.clear(),
            &["Tower 0 is in", "new target is empty"],
        ),
        (
            &|it| it.tasks[0].request.as_mut().unwrap().target_new = "a".repeat(170),
            &["Tower 0 is in", "bytes: 160 at most"],
        ),
        (
            &|it| it.tasks[0].request.as_mut().unwrap().prompt = "It is in".into(),
            &["has 0 `{}`"],
        ),
        (
            &|it| it.tasks[0].request.as_mut().unwrap().prompt = "{} is {} in".into(),
            &["Tower 0 is {} in", "has 2 `{}`"],
        ),
        (
            &|it| it.tasks[0].request.as_mut().unwrap().target_new = "a ".repeat(33),
            &["Tower 0 is in", "has 33 words", "32 tokens"],
        ),
        (
            &|it| it.statistics_names = vec!["models/m/statistics/a".into(); 101],
            &["statistics_names", "100 at most"],
        ),
        (
            &|it| {
                let far = |n| task("{} is in", &format!("{n} {}", "a".repeat(5000)), "Rome");
                it.tasks = (0..500).map(far).collect();
            },
            &["the facts of a batch have", "give smaller batches"],
        ),
        (
            &|it| {
                for n in [0, 1] {
                    it.tasks[n].request.as_mut().unwrap().id = Some("7".into());
                }
            },
            &["record 7", "has the id '7' too"],
        ),
    ];
    for (change, what) in cases {
        let said = said(change);
        assert!(
            what.iter().all(|part| said.contains(part)),
            "{said} {what:?}"
        );
    }
}

#[test]
fn facts_in_an_object_are_those_of_the_request() {
    let (first, items) = job(spec(facts()));
    let mut asked = v1::MassEditSpec {
        tasks_object: "ab".repeat(32),
        ..spec(Vec::new())
    };
    let list = v1::MassEditSpec {
        tasks: facts(),
        ..Default::default()
    };
    let taken = asked.take_object(Items::parse(list.encode_to_vec().into()).unwrap());
    assert_eq!(taken, items);
    assert_eq!(Some(&asked), work::spec(&first));

    let mut bytes = list.encode_to_vec();
    bytes.extend([1 << 3 | 2, 1, 0xff]);
    let taken = asked.take_object(Items::parse(bytes.into()).unwrap());
    let mut wrong = Wrong::default();
    asked.check(&taken, &mut wrong);
    let said = format!("{:?}", wrong.into_result());
    assert!(
        said.contains("tasks[8]") && said.contains("no serialised")
            || said.contains("not a serialised"),
        "{said}"
    );
}

#[test]
fn an_edit_that_may_leave_facts_out_has_the_others_in_their_order() {
    let (job, items) = job(v1::MassEditSpec {
        keep_going: true,
        ..spec(facts())
    });
    let spec = work::spec::<v1::MassEditSpec>(&job).unwrap();
    let requests: Vec<v1::EditRequest> = items
        .messages::<v1::EditTask>()
        .filter_map(|task| task.request)
        .collect();
    let said = |keep_going, requests: &[v1::EditRequest]| {
        let spec = v1::MassEditSpec {
            keep_going,
            ..spec.clone()
        };
        let factor = |layer| v1::LowRankFactor {
            layer,
            ..Default::default()
        };
        let edit = v1::Edit {
            requests: requests.to_vec(),
            factors: vec![factor(3), factor(4)],
            ..Default::default()
        };
        let outcome = Outcome::Edit(v1::EditOutcome {
            edit: Some(edit),
            ..Default::default()
        });
        spec.accept(&items, 0, &outcome, &Default::default())
    };
    let mut turned = requests.clone();
    turned.swap(0, 1);
    for (keep_going, requests, fits) in [
        (false, &requests[..], true),
        (false, &requests[1..], false),
        (true, &requests[1..], true),
        (true, &requests[..0], false),
        (true, &turned, false),
    ] {
        assert_eq!(said(keep_going, requests).is_ok(), fits, "{keep_going}");
    }
    for stage in work::stages(&job, &items) {
        let left_out = matches!(stage.name, "check keys" | "targets" | "keys" | "measure");
        assert_eq!(spec.leaves_out_failures(&stage), left_out, "{}", stage.name);
    }
}

#[test]
fn a_later_batch_may_write_a_fact_again() {
    let mut tasks = facts();
    tasks.push(task("{} is in", "Tower 1", "Oslo"));
    let (mut job, items) = job(v1::MassEditSpec {
        batch: Some(8),
        ..spec(tasks)
    });
    work::check(&mut job, &items).unwrap();
}

#[test]
fn contexts_that_every_later_lease_would_carry_have_a_bound() {
    let (job, items) = job(spec(facts()));
    let work = work::of(&job).unwrap();
    let unit = work.stages("", &items)[0].first_unit;
    let drawn = |contexts: Vec<String>| {
        let outcome = Outcome::MassEditContexts(v1::MassEditContexts { contexts });
        work.accept(&items, unit, &outcome, &Default::default())
    };
    drawn(vec!["{}".to_owned(), "It is. {}".to_owned()]).unwrap();
    let long = format!("{} {{}}", "a".repeat(CONTEXTS_BYTES));
    for contexts in [vec!["{}".to_owned(); CONTEXTS_LIMIT + 1], vec![long]] {
        let said = drawn(contexts).unwrap_err();
        assert!(said.contains("at most"), "{said}");
    }
}

#[test]
fn a_target_answers_for_any_job_that_asks_for_the_same_search() {
    let tasks = || vec![task("{} is in", "Tower 1", "Rome")];
    let key = |version: &str, contexts: &[&str], change: &dyn Fn(&mut v1::MassEditSpec)| {
        let mut asked = spec(tasks());
        change(&mut asked);
        let (mut job, items) = job(asked);
        job.version = version.to_owned();
        let found = Found {
            contexts: contexts.iter().map(|&text| text.to_owned()).collect(),
            ..Found::default()
        };
        let spec = work::spec::<v1::MassEditSpec>(&job).unwrap();
        let unit = spec.plan(&items).first_target() as u64;
        let keys = work::keys(4, "files", &job).unwrap();
        let key = spec.reuse_key(&keys, &job.version, &items, unit, &found);
        key.unwrap().finish()
    };
    let number = |key: &str, value: f64| v1::NamedNumber {
        key: key.to_owned(),
        value,
    };
    let drawn = ["{}", "So. {}"];
    let first = key("v", &drawn, &|_| {});
    type Change<'a> = &'a dyn Fn(&mut v1::MassEditSpec);
    let alike: [Change<'_>; 6] = [
        &|it| it.parameters = vec![number("lambda", 7.0)],
        &|it| it.method = "alphaedit".into(),
        &|it| it.layers = vec![1, 4],
        &|it| it.tasks[0].request.as_mut().unwrap().id = Some("9".into()),
        &|it| it.tasks[0].paraphrases = vec!["Tower 1 stands in".into()],
        &|it| it.contexts = vec!["So. {}".into()],
    ];
    for (n, change) in alike.into_iter().enumerate() {
        assert_eq!(key("v", &drawn, change), first, "{n}");
    }
    let others: [Change<'_>; 7] = [
        &|it| it.parameters = vec![number("steps", 7.0)],
        &|it| it.parameters = vec![number("clamp", 7.0)],
        &|it| it.method = "encore".into(),
        &|it| it.layers = vec![3, 5],
        &|it| it.dtype = v1::Dtype::Bf16 as i32,
        &|it| it.tasks[0].request.as_mut().unwrap().target_new = "Oslo".into(),
        &|it| it.contexts = vec!["Now. {}".into()],
    ];
    for (n, change) in others.into_iter().enumerate() {
        assert_ne!(key("v", &drawn, change), first, "{n}");
    }
    assert_ne!(key("w", &drawn, &|_| {}), first);
    assert_ne!(key("v", &["{}", "Now. {}"], &|_| {}), first);
}
