//! Key statistics: whose are used, in which order they are listed, and how they are withdrawn.

use tonic::{Code, Request, Status};

use super::*;
use crate::api::jobs::Jobs;
use crate::api::statistics::StatisticsOf;
use crate::auth::{Caller, Role, role};
use crate::client::PRINCIPAL;
use crate::npz::Npz;
use crate::proto::v1::create_statistics_request::{File, Source};
use crate::proto::v1::job_service_server::JobService as _;
use crate::proto::v1::statistics_service_server::StatisticsService as _;
use crate::version::digest_of;

const MODEL: &str = "models/tiny";

/// A coordinator with a model of three layers, whose keys have two channels.
struct Kept {
    coordinator: Coordinator,
    statistics: StatisticsOf,
    jobs: Jobs,
    _folder: tempfile::TempDir,
}

impl Kept {
    fn new() -> Self {
        Self::with("llama", &[])
    }

    /// With a model of a family that has tensors of these names.
    fn with(family: &str, tensors: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let shape = v1::model::Shape {
            layers: 3,
            width: 1,
            ..Default::default()
        };
        let model = v1::Model {
            name: MODEL.to_owned(),
            family: family.to_owned(),
            shape: Some(shape),
            tensors: (tensors.iter())
                .map(|name| v1::model::Tensor {
                    tensor_name: (*name).to_owned(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let change = Change::Model("tiny".to_owned(), model);
        store.commit(&[change]).unwrap();
        let (coordinator, _actor) = Coordinator::start(store, Limits::default()).unwrap();
        Self {
            statistics: StatisticsOf::new(coordinator.clone()),
            jobs: Jobs::new(coordinator.clone()),
            coordinator,
            _folder: folder,
        }
    }

    /// Takes a file of a diagonal matrix over so many tokens, and gives its name.
    async fn import(&self, by: Role, layer: u32, tokens: i64) -> Result<String, Status> {
        let sum = [1.0, 0.0, 0.0, 1.0];
        self.import_sum(by, layer, &sum, tokens).await
    }

    async fn import_sum(
        &self,
        by: Role,
        layer: u32,
        sum: &[f64],
        tokens: i64,
    ) -> Result<String, Status> {
        let mut npz = Npz::new();
        npz.f64("mom2.mom2", &[2, 2], sum).unwrap();
        npz.i64("mom2.count", &[], &[tokens]).unwrap();
        let bytes = npz.to_bytes().unwrap();
        let digest = self.coordinator.store().objects().put(&bytes).unwrap();
        let file = File {
            model: MODEL.to_owned(),
            layer,
            digest: digest.to_string(),
            source: format!("{tokens}.npz"),
        };
        let request = v1::CreateStatisticsRequest {
            source: Some(Source::File(file)),
        };
        let made = self.statistics.create_statistics(asked(by, request)).await;
        Ok(made?.into_inner().statistics.remove(0).name)
    }

    /// The digest of the statistics that an editor's job is computed with.
    async fn used(&self, layer: u32, named: &str) -> Result<String, Status> {
        let job = self.edit(layer, named, "").await?;
        let Some(Spec::Edit(spec)) = job.spec else {
            panic!("no edit");
        };
        Ok(spec.statistics.unwrap().digest)
    }

    async fn edit(&self, layer: u32, named: &str, request_id: &str) -> Result<v1::Job, Status> {
        let task = v1::EditTask {
            request: Some(v1::EditRequest {
                prompt: "{} is in".to_owned(),
                subject: "The Eiffel Tower".to_owned(),
                target_new: "Rome".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let spec = v1::EditSpec {
            tasks: vec![task],
            layer: Some(layer),
            statistics_name: named.to_owned(),
            ..Default::default()
        };
        let request = v1::CreateJobRequest {
            job: Some(v1::Job {
                model: MODEL.to_owned(),
                spec: Some(Spec::Edit(spec)),
                ..Default::default()
            }),
            request_id: request_id.to_owned(),
            ..Default::default()
        };
        let made = self.jobs.create_job(asked(Role::Editor, request)).await?;
        Ok(made.into_inner().job.unwrap())
    }

    /// The digests of the statistics that an editor's job of many facts is computed with.
    async fn used_by_many(&self, layers: &[u32], named: &[&str]) -> Result<Vec<String>, Status> {
        let request = v1::EditRequest {
            prompt: "{} is in".to_owned(),
            subject: "The Eiffel Tower".to_owned(),
            target_new: "Rome".to_owned(),
            ..Default::default()
        };
        let spec = v1::MassEditSpec {
            tasks: vec![v1::EditTask {
                request: Some(request),
                ..Default::default()
            }],
            layers: layers.to_vec(),
            statistics_names: named.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        let request = v1::CreateJobRequest {
            job: Some(v1::Job {
                model: MODEL.to_owned(),
                spec: Some(spec.into()),
                ..Default::default()
            }),
            validate_only: true,
            ..Default::default()
        };
        let made = self.jobs.create_job(asked(Role::Editor, request)).await?;
        let Some(Spec::MassEdit(spec)) = made.into_inner().job.unwrap().spec else {
            panic!("no edit of many facts");
        };
        let used = spec.statistics.into_iter();
        Ok(used.map(|one| one.digest).collect())
    }

    async fn page(&self, size: u32, token: &str) -> Result<v1::ListStatisticsResponse, Status> {
        let request = v1::ListStatisticsRequest {
            parent: MODEL.to_owned(),
            page_size: size,
            page_token: token.to_owned(),
        };
        let page = self
            .statistics
            .list_statistics(asked(Role::Viewer, request))
            .await;
        Ok(page?.into_inner())
    }

    async fn delete(&self, name: &str, why: &str) -> Result<Vec<v1::Statistics>, Status> {
        let request = v1::DeleteStatisticsRequest {
            name: name.to_owned(),
            why: why.to_owned(),
        };
        let request = asked(Role::Editor, request);
        let gone = self.statistics.delete_statistics(request).await?;
        Ok(gone.into_inner().statistics)
    }
}

/// A request as the gate lets it through.
fn asked<T>(role: Role, message: T) -> Request<T> {
    let principal = format!("a-{role}");
    let mut request = Request::new(message);
    let named = principal.parse().unwrap();
    request.metadata_mut().insert(PRINCIPAL, named);
    request.extensions_mut().insert(Caller { role, principal });
    request
}

fn reason(refused: &Status) -> String {
    refused.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn statistics_of_those_who_may_not_edit_are_used_only_where_an_editor_names_them() {
    let kept = Kept::new();
    let theirs = kept.import(Role::Submitter, 1, 9_000_000).await.unwrap();
    let refused = kept.used(1, "").await.unwrap_err();
    assert_eq!(reason(&refused), "STATISTICS_MISSING");
    let ours = kept.import(Role::Editor, 1, 1000).await.unwrap();
    assert_eq!(kept.used(1, "").await.unwrap(), digest_of(&ours));
    assert_eq!(kept.used(1, &theirs).await.unwrap(), digest_of(&theirs));
    // Those of another layer are not to be had by their name.
    assert!(kept.used(2, &theirs).await.is_err());
    // The same file, taken again by somebody who may not edit, stays an editor's.
    kept.import(Role::Submitter, 1, 1000).await.unwrap();
    assert_eq!(kept.used(1, "").await.unwrap(), digest_of(&ours));
    let listed = kept.page(0, "").await.unwrap().statistics;
    let of = |name: &str| listed.iter().find(|it| it.name == name).unwrap();
    assert_eq!(
        (of(&ours).submitted, &*of(&ours).author),
        (false, "a-editor")
    );
    assert_eq!(
        (of(&theirs).submitted, &*of(&theirs).author),
        (true, "a-submitter")
    );
    // And an editor who takes theirs, answers for them.
    kept.import(Role::Admin, 1, 9_000_000).await.unwrap();
    assert_eq!(kept.used(1, "").await.unwrap(), digest_of(&theirs));
}

#[tokio::test]
async fn withdrawn_statistics_are_used_by_no_job_from_then_on_and_what_used_them_keeps_them() {
    let kept = Kept::new();
    let name = kept.import(Role::Editor, 1, 1000).await.unwrap();
    kept.import(Role::Editor, 2, 1000).await.unwrap();
    let used = kept.used(1, "").await.unwrap();
    let long = "w".repeat(5000);
    assert_eq!(
        kept.delete(&name, &long).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let gone = kept
        .delete(&name, "the corpus was the wrong one")
        .await
        .unwrap();
    let layers: Vec<u32> = gone.iter().map(|it| it.layer).collect();
    assert_eq!(layers, [1, 2], "of every layer");
    for layer in [1, 2] {
        let refused = kept.used(layer, "").await.unwrap_err();
        assert_eq!(reason(&refused), "STATISTICS_MISSING");
        assert!(kept.used(layer, &name).await.is_err());
    }
    assert!(kept.page(0, "").await.unwrap().statistics.is_empty());
    let again = kept.delete(&name, "").await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    let spelled = kept.delete(&name.to_uppercase(), "").await.unwrap_err();
    assert_eq!(spelled.code(), Code::NotFound);
    // Who did it and why is on record, and so is who tried.
    let entries: Vec<v1::AuditEntry> = (kept.coordinator.store().audit_entries(0))
        .map(|(_, bytes)| v1::AuditEntry::decode(&*bytes.unwrap()).unwrap())
        .filter(|entry| entry.action == "statistics.delete")
        .collect();
    let done: Vec<_> = entries.iter().filter(|it| it.refusal.is_empty()).collect();
    let [entry] = done[..] else {
        panic!("{entries:?}");
    };
    assert_eq!((&*entry.principal, &*entry.resource), ("a-editor", &*name));
    assert_eq!(entry.why, "the corpus was the wrong one");
    assert!(entry.detail.contains("layer 1, 1000 tokens"), "{entry:?}");
    assert_eq!(entries.len(), 4);
    // The job that was asked for before has them: they are not collected under it.
    let store = kept.coordinator.store();
    let grace = crate::store::Grace {
        before: std::time::SystemTime::now() + Duration::from_secs(3600),
    };
    store.sweep(store.garbage(grace).unwrap()).unwrap();
    assert!(
        store
            .objects()
            .durable_size(&used.parse().unwrap())
            .unwrap()
            .is_some()
    );
    // The same numbers can be taken again.
    kept.import(Role::Editor, 1, 1000).await.unwrap();
    assert_eq!(kept.used(1, "").await.unwrap(), used);
}

#[test]
fn statistics_are_withdrawn_by_those_who_may_edit() {
    let who = role::who("/palimpsest.v1.StatisticsService/DeleteStatistics").unwrap();
    let may = |role: &Role| who.includes(*role);
    let may: Vec<Role> = Role::ALL.into_iter().filter(may).collect();
    assert_eq!(may, [Role::Editor, Role::Admin]);
}

#[tokio::test]
async fn statistics_are_listed_by_layer_the_newest_first_in_pages_that_lose_and_repeat_none() {
    let kept = Kept::new();
    let mut expected = Vec::new();
    for layer in [2, 0] {
        let mut of_layer = Vec::new();
        for n in 0..7 {
            of_layer.push(kept.import(Role::Editor, layer, 100 + n).await.unwrap());
            // A date of its own.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        of_layer.reverse();
        expected.splice(0..0, of_layer.into_iter().map(|name| (layer, name)));
    }
    for size in [1, 3, 7, 14, 0] {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let page = kept.page(size, &token).await.unwrap();
            assert!(size == 0 || page.statistics.len() <= size as usize);
            found.extend(page.statistics.into_iter().map(|it| (it.layer, it.name)));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(found, expected, "{size} a page");
    }
    for token in [
        crate::api::pages::token("jobs", "1"),
        crate::api::pages::token("statistics", "x"),
    ] {
        let refused = kept.page(0, &token).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN");
    }
    assert_eq!(
        kept.page(1001, "").await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn those_who_may_not_edit_do_not_fill_a_layers_list_for_those_who_may() {
    let kept = Kept::new();
    let digest = |n: u64| format!("{n:064x}");
    let filled: Vec<Change> = (0..500)
        .map(|n| v1::Statistics {
            name: format!("{MODEL}/statistics/{}", digest(n)),
            layer: 1,
            submitted: true,
            ..Default::default()
        })
        .map(|one| Change::Record(crate::store::Record::statistics("tiny", &one)))
        .collect();
    kept.coordinator.store().commit(&filled).unwrap();
    let refused = kept.import(Role::Submitter, 1, 1000).await.unwrap_err();
    assert_eq!(reason(&refused), "TOO_MANY_STATISTICS");
    assert!(refused.message().contains("stats delete"), "{refused:?}");
    kept.import(Role::Submitter, 2, 1000).await.unwrap();
    let ours = kept.import(Role::Editor, 1, 1000).await.unwrap();
    kept.delete(&format!("{MODEL}/statistics/{}", digest(7)), "")
        .await
        .unwrap();
    kept.import(Role::Submitter, 1, 1001).await.unwrap();
    assert_eq!(kept.used(1, "").await.unwrap(), digest_of(&ours));
}

#[tokio::test]
async fn what_no_keys_can_add_up_to_is_refused_where_it_comes_in() {
    let kept = Kept::new();
    for (sum, tokens, what) in [
        ([0.0; 4], 1000, "every sum is 0"),
        ([1.0, 0.0, 0.0, -1.0], 1000, "cannot be below 0"),
        ([1.0, 2.0, 2.0, 1.0], 1000, "squares allow"),
        ([1.0, 0.5, -0.5, 1.0], 1000, "not symmetric"),
        ([1.0, 0.0, f64::NAN, 1.0], 1000, "NaN"),
        ([1.0, 0.0, 0.0, 1.0], 0, "1 or more and at most"),
        ([1.0, 0.0, 0.0, 1.0], i64::MAX, "1 or more and at most"),
    ] {
        let refused = kept.import_sum(Role::Admin, 1, &sum, tokens).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(what), "{refused:?}");
    }
    assert!(kept.page(0, "").await.unwrap().statistics.is_empty());
}

#[tokio::test]
async fn a_request_that_is_repeated_gets_its_job_whatever_statistics_came_or_went_meanwhile() {
    let kept = Kept::new();
    let first = kept.import(Role::Editor, 1, 1000).await.unwrap();
    let made = kept.edit(1, "", "once").await.unwrap().name;
    kept.import(Role::Editor, 1, 9000).await.unwrap();
    assert_eq!(kept.edit(1, "", "once").await.unwrap().name, made);
    let more = kept.page(0, "").await.unwrap().statistics;
    for one in more {
        kept.delete(&one.name, "").await.unwrap();
    }
    assert_eq!(kept.edit(1, "", "once").await.unwrap().name, made);
    // Another request of that id is another.
    let reused = kept.edit(1, &first, "once").await.unwrap_err();
    assert_ne!(reused.code(), Code::Ok);
    kept.import(Role::Editor, 1, 1000).await.unwrap();
    let reused = kept.edit(1, &first, "once").await.unwrap_err();
    assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn an_edit_of_many_facts_takes_the_statistics_that_it_names_and_those_of_the_same_text() {
    let kept = Kept::new();
    let mut names = Vec::new();
    for (layer, tokens) in [(0, 100), (0, 200), (1, 100), (1, 300)] {
        names.push(kept.import(Role::Editor, layer, tokens).await.unwrap());
    }
    let digests: Vec<&str> = names.iter().map(|name| digest_of(name)).collect();
    let used = kept.used_by_many(&[0, 1], &[]).await.unwrap();
    assert_eq!(used, [digests[1], digests[3]], "those of the most tokens");
    let both = [names[0].as_str(), names[3].as_str()];
    // The same file is of both layers: it is known by its digest there too.
    assert_eq!(names[0], names[2]);
    let used = kept.used_by_many(&[0, 1], &both[..1]).await.unwrap();
    assert_eq!(used, [digests[0], digests[2]], "those of the same text");
    let used = kept.used_by_many(&[0, 1], &both).await.unwrap();
    assert_eq!(used, [digests[0], digests[3]]);

    // A submitter's statistics are used where they are named, and only there.
    let theirs = kept.import(Role::Submitter, 0, 900).await.unwrap();
    let used = kept.used_by_many(&[0], &[]).await.unwrap();
    assert_eq!(used, [digests[1]]);
    let used = kept.used_by_many(&[0], &[&theirs]).await.unwrap();
    assert_eq!(used, [digest_of(&theirs)]);
    for (named, what) in [
        (
            vec![theirs.as_str()],
            "no key statistics of layer 1 over the same text",
        ),
        (
            vec![names[1].as_str(), names[0].as_str()],
            "name one a layer",
        ),
        (
            vec!["models/tiny/statistics/none"],
            "'palimpsest stats list'",
        ),
    ] {
        let refused = kept.used_by_many(&[0, 1], &named).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let said = format!("{refused:?}");
        assert!(said.contains(what), "{said}");
    }

    // What was collected on another version knows other keys.
    let store = kept.coordinator.store();
    let mut other = store.statistics("tiny", 0, digests[1]).unwrap().unwrap();
    other.version = "cd".repeat(32);
    let record = crate::store::Record::statistics("tiny", &other);
    store.commit(&[Change::Record(record)]).unwrap();
    let used = kept.used_by_many(&[0], &[]).await.unwrap();
    assert_eq!(used, [digests[0]], "not those of another version");
    let refused = kept.used_by_many(&[0], &[&names[1]]).await.unwrap_err();
    let said = format!("{refused:?}");
    assert!(said.contains("is of version cdcdcdcdcdcd"), "{said}");
}

/// Before anything is collected, and not as statistics that are missing.
#[tokio::test]
async fn a_layer_of_experts_is_refused_wherever_a_key_is_needed() {
    let names = [
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.2.mlp.experts.0.down_proj.weight",
    ];
    let kept = Kept::with("qwen3_moe", &names);
    let stats = v1::StatsSpec {
        pieces: vec![v1::StatsUnit {
            self_sample: 100,
            ..Default::default()
        }],
        layers: vec![1, 2],
        ..Default::default()
    };
    let request = v1::CreateJobRequest {
        job: Some(v1::Job {
            model: MODEL.to_owned(),
            spec: Some(Spec::Stats(stats)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let collected = kept.jobs.create_job(asked(Role::Editor, request)).await;
    let refused = [
        collected.unwrap_err(),
        kept.edit(2, "", "").await.unwrap_err(),
        kept.used_by_many(&[1, 2], &[]).await.unwrap_err(),
        kept.import(Role::Editor, 2, 10).await.unwrap_err(),
    ];
    for refused in refused {
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        let said = format!("{refused:?}");
        let what = "layer 2 of this qwen3_moe model is a mixture of experts";
        assert!(said.contains(what), "{said}");
    }
    kept.import(Role::Editor, 1, 10).await.unwrap();
    assert!(kept.used(1, "").await.is_ok());
}
