//! What lists give, and leave out, and the averages of a sweep.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::causal::Averages;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{JobKind, Kind, ResultView, TaskState};
use crate::wire::{self, SweptGrid};

fn named(name: &str, owner: &str) -> v1::Job {
    v1::Job {
        display_name: name.to_owned(),
        owner: owner.to_owned(),
        ..sweep(facts(1, 0), "0.5")
    }
}

async fn listed(site: &Site, request: v1::ListJobsRequest) -> (Vec<String>, u64) {
    let answer = site.client.jobs().list_jobs(request).await.unwrap();
    let answer = answer.into_inner();
    let names = answer.jobs.into_iter().map(|job| job.display_name);
    (names.collect(), answer.total_size)
}

#[tokio::test]
async fn jobs_are_listed_by_what_they_are_and_counted_whatever_the_page() {
    let site = Site::new(Limits::default()).await;
    let first = site.create(named("The Louvre", "ada")).await.unwrap();
    site.create(named("the louvre again", "bob")).await.unwrap();
    let third = site.create(named("Prado", "ada")).await.unwrap();
    let cancel = v1::CancelJobRequest {
        name: third.name.clone(),
    };
    site.client.jobs().cancel_job(cancel).await.unwrap();
    let ask = v1::ListJobsRequest::default;
    for (request, names) in [
        (ask(), &["Prado", "the louvre again", "The Louvre"][..]),
        (
            v1::ListJobsRequest {
                text: "LOUVRE".to_owned(),
                ..ask()
            },
            &["the louvre again", "The Louvre"],
        ),
        (
            v1::ListJobsRequest {
                owner: "ada".to_owned(),
                states: vec![JobState::Queued as i32, JobState::Running as i32],
                ..ask()
            },
            &["The Louvre"],
        ),
        (
            v1::ListJobsRequest {
                states: vec![JobState::Cancelled as i32],
                ..ask()
            },
            &["Prado"],
        ),
        (
            v1::ListJobsRequest {
                kind: JobKind::Trace as i32,
                model: "models/none".to_owned(),
                text: first.name[first.name.len() - 6..].to_owned(),
                ..ask()
            },
            &["The Louvre"],
        ),
        (
            v1::ListJobsRequest {
                kind: JobKind::Edit as i32,
                ..ask()
            },
            &[],
        ),
        (
            v1::ListJobsRequest {
                model: "models/other".to_owned(),
                ..ask()
            },
            &[],
        ),
    ] {
        let (found, total) = listed(&site, request.clone()).await;
        assert_eq!(
            (
                found.iter().map(String::as_str).collect::<Vec<_>>(),
                total as usize
            ),
            (names.to_vec(), names.len()),
            "{request:?}"
        );
    }
    // Pages of one, with a job between that does not pass.
    let mut request = v1::ListJobsRequest {
        page_size: 1,
        owner: "ada".to_owned(),
        ..ask()
    };
    let mut found = Vec::new();
    loop {
        let answer = site.client.jobs().list_jobs(request.clone()).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!(answer.total_size, 2);
        found.extend(answer.jobs.into_iter().map(|job| job.display_name));
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, ["Prado", "The Louvre"]);
    for (request, field) in [
        (
            v1::ListJobsRequest {
                states: vec![77],
                ..ask()
            },
            "states",
        ),
        (v1::ListJobsRequest { kind: 77, ..ask() }, "kind"),
    ] {
        let refused = site.client.jobs().list_jobs(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(field), "{refused}");
    }
    let tasks = |states: Vec<i32>| v1::ListTasksRequest {
        parent: third.name.clone(),
        states,
        ..Default::default()
    };
    for (states, count) in [
        (vec![], 1),
        (vec![TaskState::Cancelled as i32], 1),
        (vec![TaskState::Done as i32, TaskState::Leased as i32], 0),
    ] {
        let answer = site.client.jobs().list_tasks(tasks(states)).await.unwrap();
        assert_eq!(answer.into_inner().tasks.len(), count);
    }
    let refused = site.client.jobs().list_tasks(tasks(vec![0])).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn results_are_listed_by_what_they_are_and_grids_by_their_peaks() {
    let site = Site::new(Limits::default()).await;
    let stop = site.work("w", 0);
    let mut asked = facts(6, 0);
    for (n, fact) in asked.iter_mut().enumerate() {
        fact.relation = ["P17", "P36"].get(n % 3).map(|it| (*it).to_owned());
    }
    let mut job = sweep(asked, "0.5");
    if let Some(Spec::Trace(spec)) = &mut job.spec {
        spec.kinds = vec![Kind::Hidden as i32, Kind::Mlp as i32];
    }
    let job = site.create(job).await.unwrap();
    site.watch(&job.name, 0).await;
    let ask = || v1::ListResultsRequest {
        parent: job.name.clone(),
        ..Default::default()
    };
    let list = async |request: v1::ListResultsRequest| {
        let mut request = request;
        let mut found: Vec<v1::UnitResult> = Vec::new();
        loop {
            let answer = site.client.jobs().list_results(request.clone()).await?;
            let answer = answer.into_inner();
            found.extend(answer.results);
            request.page_token = answer.next_page_token;
            if request.page_token.is_empty() {
                return Ok::<_, tonic::Status>(found);
            }
        }
    };
    let all = list(ask()).await.unwrap();
    assert_eq!(all.len(), 12);
    let few = v1::ListResultsRequest {
        page_size: 5,
        kind: Kind::Mlp as i32,
        ..ask()
    };
    let few = site.client.jobs().list_results(few).await.unwrap();
    let [count] = &few.into_inner().fingerprints[..] else {
        panic!("one worker computed all");
    };
    assert_eq!(count.results, 5);
    assert_ne!(count.fingerprint, None);
    let units = |found: &[v1::UnitResult]| found.iter().map(|it| it.unit).collect::<Vec<_>>();
    let paged = list(v1::ListResultsRequest {
        page_size: 1,
        kind: Kind::Mlp as i32,
        ..ask()
    });
    assert_eq!(units(&paged.await.unwrap()), [1, 3, 5, 7, 9, 11]);
    for (relation, of) in [("P36", [2, 3, 8, 9]), ("", [4, 5, 10, 11])] {
        let found = list(v1::ListResultsRequest {
            relation: Some(relation.to_owned()),
            correct: Some(true),
            ..ask()
        });
        assert_eq!(units(&found.await.unwrap()), of, "{relation:?}");
    }
    let rest = list(v1::ListResultsRequest {
        first_unit: 10,
        ..ask()
    });
    assert_eq!(units(&rest.await.unwrap()), [10, 11]);
    let failures = v1::ListResultsRequest {
        failures_only: true,
        ..ask()
    };
    assert!(list(failures.clone()).await.unwrap().is_empty());
    for request in [
        v1::ListResultsRequest {
            kind: Kind::Mlp as i32,
            ..failures
        },
        v1::ListResultsRequest { kind: 99, ..ask() },
        v1::ListResultsRequest { view: 99, ..ask() },
    ] {
        assert_eq!(
            list(request).await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    let peaks = list(v1::ListResultsRequest {
        view: ResultView::Peaks as i32,
        ..ask()
    });
    for (short, full) in peaks.await.unwrap().iter().zip(&all) {
        let (Some(Outcome::Grid(short)), Some(Outcome::Grid(full))) =
            (&short.outcome, &full.outcome)
        else {
            panic!("no grids");
        };
        assert!(short.scores.is_empty() && short.tokens.is_empty() && full.peak.is_none());
        let peak = short.peak.clone().unwrap();
        let cell = (peak.token * full.layers + peak.layer) as usize;
        assert!((full.scores[cell] - full.low - peak.effect).abs() < 1e-12);
        assert_eq!(full.tokens[peak.token as usize], peak.text);
        let highest = full.scores.iter().copied().fold(f64::MIN, f64::max);
        assert_eq!(full.scores[cell], highest);
    }

    // The summary is the averages of the grids that the list gives.
    let sum = async |request: v1::GetSweepSummaryRequest| {
        let answer = site.client.jobs().get_sweep_summary(request).await;
        answer.map(tonic::Response::into_inner)
    };
    let whole = v1::GetSweepSummaryRequest {
        name: job.name.clone(),
        ..Default::default()
    };
    let summary = sum(whole.clone()).await.unwrap();
    assert_eq!((summary.units, summary.averages.len()), (12, 2));
    for sent in &summary.averages {
        let grids = all.iter().filter_map(|result| match &result.outcome {
            Some(Outcome::Grid(grid)) if grid.kind == sent.kind => {
                Some(SweptGrid::try_from(grid).unwrap().grid)
            }
            _ => None,
        });
        let grids: Vec<_> = grids.collect();
        let averages = Averages::over(&grids).unwrap().unwrap();
        assert_eq!(*sent, wire::averages_to_proto(&averages, None));
    }
    assert_eq!(sum(whole.clone()).await.unwrap(), summary);
    let by_relation = sum(v1::GetSweepSummaryRequest {
        by_relation: true,
        kinds: vec![Kind::Mlp as i32],
        ..whole.clone()
    });
    let by_relation = by_relation.await.unwrap();
    let relations = by_relation
        .averages
        .iter()
        .map(|it| it.relation.clone().unwrap());
    assert_eq!(relations.collect::<Vec<_>>(), ["", "P17", "P36"]);
    let rows = |it: &v1::KindAverages| it.total_effect.unwrap().rows;
    assert!(by_relation.averages.iter().all(|it| rows(it) == 2));
    let one = sum(v1::GetSweepSummaryRequest {
        relation: Some("P17".to_owned()),
        kinds: vec![Kind::Mlp as i32],
        ..whole.clone()
    });
    assert_eq!(one.await.unwrap().averages[0], by_relation.averages[1]);
    let wrong = sum(v1::GetSweepSummaryRequest {
        kinds: vec![99],
        ..whole
    });
    assert_eq!(wrong.await.unwrap_err().code(), Code::InvalidArgument);
    stop.cancel();
}

#[tokio::test]
async fn the_audit_log_is_read_from_either_end_and_no_page_turns_round() {
    let site = Site::new(Limits::default()).await;
    for n in 0..7 {
        site.create(named(&n.to_string(), "ada")).await.unwrap();
    }
    let read = async |newest_first: bool, action: &str| {
        let (mut sequences, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListAuditEntriesRequest {
                page_size: 3,
                action: action.to_owned(),
                newest_first,
                page_token,
                ..Default::default()
            };
            let answer = site.client.audit().list_audit_entries(request).await;
            let answer = answer.unwrap().into_inner();
            sequences.extend(
                answer
                    .leaves
                    .iter()
                    .map(|it| it.entry.as_ref().unwrap().sequence),
            );
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return sequences;
            }
        }
    };
    for action in ["", "jobs"] {
        let mut forth = read(false, action).await;
        assert!(forth.len() >= 7, "{forth:?}");
        forth.reverse();
        assert_eq!(read(true, action).await, forth, "{action}");
    }
    let ask = |newest_first, page_token| v1::ListAuditEntriesRequest {
        page_size: 2,
        newest_first,
        page_token,
        ..Default::default()
    };
    let mut log = site.client.audit();
    let first = log.list_audit_entries(ask(true, String::new())).await;
    let token = first.unwrap().into_inner().next_page_token;
    let turned = log.list_audit_entries(ask(false, token)).await;
    assert_eq!(turned.unwrap_err().code(), tonic::Code::InvalidArgument);
}
