//! Units that need not be computed: what decides a unit's value, as a digest, and the results that
//! the store has under it.
//!
//! A result answers again when the same unit was asked of the same model (by the digest of its
//! files) with the same settings, and the engine has the same revision. It may come from another
//! device, or another number of threads: bytes are promised equal for equal fingerprints only, and
//! an answer carries the fingerprint of the device that computed it. Failures never answer, and
//! neither does what an engine without a revision made.

use super::event::NewJob;
use crate::causal::ENGINE_REVISION;
use crate::objects::Digest;
use crate::proto::v1;
use crate::store::{self, CachedResult, Store};
use crate::work::{self, Found, Items, Keys};

/// The keys of a job's units; none when the values of its units do not follow from what is asked.
pub(super) fn keys(job: &v1::Job, model: &v1::Model) -> Option<Keys> {
    work::keys(ENGINE_REVISION, &model.digest, job)
}

/// The key of a unit that runs on a version; `found` is what the stages before it told.
pub(super) fn key_of(
    keys: &Keys,
    job: &v1::Job,
    items: &Items,
    unit: u64,
    found: &Found,
) -> Option<Digest> {
    let key = work::of(job)?.reuse_key(keys, &job.version, items, unit, found)?;
    Some(key.finish())
}

/// Whether a result that was computed so may answer later.
pub(super) fn may_answer(fingerprint: Option<&v1::Fingerprint>) -> bool {
    fingerprint.is_some_and(|fingerprint| fingerprint.engine_revision == ENGINE_REVISION)
}

/// The units of a new job that the store has results for, stage by stage: a stage is looked at when
/// all units of those before that decide its keys have theirs.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn find(store: &Store, new: &NewJob) -> Result<Vec<(u64, CachedResult)>, store::Error> {
    let mut earlier = Vec::new();
    let Some(keys) = keys(&new.job, &new.model) else {
        return Ok(earlier);
    };
    let work = work::of(&new.job);
    let mut found = Found::default();
    for stage in work::stages(&new.job, &new.items) {
        let before = earlier.len() as u64;
        for unit in stage.range() {
            let Some(key) = key_of(&keys, &new.job, &new.items, unit, &found) else {
                continue;
            };
            if let Some(result) = store.answer(&key, unit)? {
                if let (Some(work), Some(told)) = (work, &result.told) {
                    work.note(told, &mut found);
                }
                earlier.push((unit, result));
            }
        }
        let whole = earlier.len() as u64 - before == stage.units;
        if !whole && work.is_none_or(|work| work.decides_later_keys(&stage)) {
            break;
        }
    }
    Ok(earlier)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(noise: &str, kinds: &[i32]) -> v1::Job {
        let fact = |n| v1::Fact {
            prompt: format!("fact {n} is"),
            subject: format!("fact {n}"),
            ..Default::default()
        };
        v1::Job {
            model: "models/m".to_owned(),
            spec: Some(
                v1::TraceSpec {
                    facts: (0..3).map(fact).collect(),
                    kinds: kinds.to_vec(),
                    noise: noise.to_owned(),
                    samples: 10,
                    ..Default::default()
                }
                .into(),
            ),
            ..Default::default()
        }
    }

    fn model(digest: &str) -> v1::Model {
        v1::Model {
            digest: digest.to_owned(),
            ..Default::default()
        }
    }

    fn digest(job: &v1::Job, model: &v1::Model, unit: u64, scale: f64) -> Option<Digest> {
        let mut job = job.clone();
        let items = work::pack(&mut job);
        let found = Found {
            noise_scale: Some(scale),
            ..Found::default()
        };
        key_of(&keys(&job, model)?, &job, &items, unit, &found)
    }

    #[test]
    fn a_units_digest_follows_from_all_that_decides_its_value_and_from_nothing_else() {
        let (job, files) = (sweep("s3", &[1, 2]), model("abc"));
        let first = digest(&job, &files, 1, 0.5);
        assert!(first.is_some());
        // The same fact and kind in a sweep of other kinds, under another number.
        assert_eq!(first, digest(&sweep("s3", &[2]), &files, 0, 0.5));
        let mut named = job.clone();
        named.display_name = "again".to_owned();
        named.priority = 7;
        assert_eq!(first, digest(&named, &files, 1, 0.5));

        let with = |job: &v1::Job, change: fn(&mut v1::TraceSpec)| {
            let mut job = job.clone();
            match &mut job.spec {
                Some(v1::job::Spec::Trace(trace)) => change(trace),
                _ => panic!("a sweep was made"),
            }
            job
        };
        let seeded = with(&job, |trace| trace.seed = Some(2));
        let mut other_version = job.clone();
        other_version.version = "models/m/versions/1".to_owned();
        for other in [
            digest(&job, &files, 0, 0.5),
            digest(&job, &files, 3, 0.5),
            digest(&job, &files, 1, 0.25),
            digest(&job, &model("abd"), 1, 0.5),
            digest(&sweep("s2", &[1, 2]), &files, 1, 0.5),
            digest(&seeded, &files, 1, 0.5),
            digest(&other_version, &files, 1, 0.5),
        ] {
            assert!(other.is_some());
            assert_ne!(first, other);
        }
        // The scale of the noise does not depend on what is done with it.
        assert_eq!(
            digest(&job, &files, 6, 0.5),
            digest(&sweep("s3", &[1]), &files, 3, 0.25)
        );
        assert_eq!(digest(&job, &model(""), 1, 0.5), None);

        let one = with(&sweep("m", &[1, 2]), |trace| {
            let digest = "one".to_owned();
            trace.noise_corpus = Some(v1::Corpus { digest, size: 3 });
        });
        let other = with(&one, |trace| {
            let digest = "other".to_owned();
            trace.noise_corpus = Some(v1::Corpus { digest, size: 3 });
        });
        for unit in [1, 6] {
            let [one, other] = [&one, &other].map(|it| digest(it, &files, unit, 0.5));
            assert_ne!(one, other, "unit {unit}");
            assert_ne!(one, digest(&job, &files, unit, 0.5), "unit {unit}");
        }
    }

    #[test]
    fn a_record_on_a_version_is_the_same_unit_whatever_it_is_compared_with() {
        let files = model("abc");
        let job = |version: &str, against: &str, each: Option<&str>| v1::Job {
            model: "models/m".to_owned(),
            version: format!("models/m/versions/{version}"),
            spec: Some(
                v1::EvalSpec {
                    records: ["one", "two"]
                        .map(|subject| v1::EvalRecord {
                            request: Some(v1::EditRequest {
                                subject: subject.to_owned(),
                                ..Default::default()
                            }),
                            ..Default::default()
                        })
                        .to_vec(),
                    against: format!("models/m/versions/{against}"),
                    edit_each: each.map(|method| v1::EditSpec {
                        method: method.to_owned(),
                        ..Default::default()
                    }),
                    left_out: version.len() as u64,
                    ..Default::default()
                }
                .into(),
            ),
            ..Default::default()
        };
        let unit = |job: &v1::Job, unit| digest(job, &files, unit, 0.0);
        let compared = job("edited", "base", None);
        let alone = job("base", "base", None);
        assert!(unit(&alone, 1).is_some());
        assert_eq!(unit(&compared, 3), unit(&alone, 1));
        assert_eq!(unit(&compared, 1), unit(&job("edited", "other", None), 1));
        for other in [
            unit(&compared, 1),
            unit(&alone, 0),
            unit(&job("base", "base", Some("rome")), 1),
            unit(&job("base", "base", Some("ft-l")), 1),
        ] {
            assert!(other.is_some());
            assert_ne!(other, unit(&alone, 1));
        }
        assert_eq!(unit(&alone, 2), None);
    }

    #[test]
    fn only_results_of_this_engine_answer() {
        let of = |engine_revision| {
            Some(v1::Fingerprint {
                engine_revision,
                ..Default::default()
            })
        };
        assert!(may_answer(of(ENGINE_REVISION).as_ref()));
        assert!(!may_answer(of(ENGINE_REVISION + 1).as_ref()));
        assert!(!may_answer(of(0).as_ref()));
        assert!(!may_answer(None));
    }
}
