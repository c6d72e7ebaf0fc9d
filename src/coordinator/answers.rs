//! Units that need not be computed: what decides a unit's value, as a digest, and the results that
//! the store has under it.
//!
//! A result answers again when the same unit was asked of the same model (by the digest of its
//! files) with the same settings, and the engine has the same revision. It may come from another
//! device, or another number of threads: bytes are promised equal for equal fingerprints only, and
//! an answer carries the fingerprint of the device that computed it. Failures never answer, and
//! neither does what an engine without a revision made.

use prost::Message;

use super::event::NewJob;
use super::items::Items;
use super::plan;
use crate::causal::ENGINE_REVISION;
use crate::objects::Digest;
use crate::proto::v1::{self, job::Spec, leased_unit};
use crate::store::{self, CachedResult, Store};
use crate::version::digest_of;

/// The digests of a job's units.
#[derive(Clone, Debug)]
pub(super) struct UnitDigests {
    /// Has seen the model and the engine's revision.
    model: blake3::Hasher,
    /// Has seen the settings too.
    settings: blake3::Hasher,
}

impl UnitDigests {
    /// None when the values of the job's units do not follow from what is asked.
    pub(super) fn of(job: &v1::Job, model: &v1::Model) -> Option<Self> {
        if model.digest.is_empty() {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        part(&mut hasher, b"palimpsest unit 1");
        part(&mut hasher, &ENGINE_REVISION.to_be_bytes());
        part(&mut hasher, model.digest.as_bytes());
        // Which version of it: two models with the same files have the same versions. The units of an
        // evaluation are of one version or another, each says which.
        if !matches!(job.spec, Some(Spec::Eval(_))) {
            part(&mut hasher, digest_of(&job.version).as_bytes());
        }
        let mut settings = hasher.clone();
        match job.spec.as_ref()? {
            Spec::Trace(trace) => {
                part(&mut settings, b"trace");
                // What is traced is told by each unit, wherever the list of it lies.
                let asked = v1::TraceSpec {
                    facts: Vec::new(),
                    kinds: Vec::new(),
                    facts_object: String::new(),
                    fact_count: 0,
                    ..trace.clone()
                };
                part(&mut settings, &asked.encode_to_vec());
            }
            Spec::Generate(generate) => {
                part(&mut settings, b"generate");
                let asked = v1::GenerateSpec {
                    prompts: Vec::new(),
                    ..generate.clone()
                };
                part(&mut settings, &asked.encode_to_vec());
            }
            Spec::Eval(eval) => {
                part(&mut settings, b"eval");
                let asked = v1::EvalSpec {
                    records: Vec::new(),
                    against: String::new(),
                    left_out: 0,
                    records_object: String::new(),
                    record_count: 0,
                    // Why a layer was chosen decides nothing.
                    edit_each: eval.edit_each.clone().map(|each| v1::EditSpec {
                        layer_choice: String::new(),
                        ..each
                    }),
                    ..eval.clone()
                };
                part(&mut settings, &asked.encode_to_vec());
            }
            // Their results name objects that nothing else keeps, and the job that computed them.
            Spec::Stats(_) | Spec::Edit(_) => return None,
        }
        Some(Self {
            model: hasher,
            settings,
        })
    }

    /// The digest of a unit; `scale` is that of the sweep's noise, where a unit before finds it.
    pub(super) fn unit(
        &self,
        job: &v1::Job,
        items: &Items,
        unit: u64,
        scale: Option<f64>,
    ) -> Option<Digest> {
        let spec = plan::unit_spec(job, items, unit)?;
        let mut hasher;
        match (&spec, &job.spec) {
            // The scale follows from the embeddings of a corpus or of the subjects alone, in the
            // format they are held.
            (leased_unit::Spec::Noise(noise), Some(Spec::Trace(trace))) => {
                hasher = self.model.clone();
                part(&mut hasher, &trace.dtype.to_be_bytes());
                part(&mut hasher, &noise.factor.to_bits().to_be_bytes());
                let corpus = noise.corpus.as_ref().map(|corpus| corpus.digest.as_str());
                part(&mut hasher, corpus.unwrap_or_default().as_bytes());
                let subjects = if corpus.is_some() { 0 } else { items.len() };
                for n in 0..subjects {
                    let fact: v1::Fact = items.message(n)?;
                    part(&mut hasher, fact.subject.as_bytes());
                }
            }
            _ => {
                hasher = self.settings.clone();
                if let leased_unit::Spec::Eval(_) = spec {
                    let version = plan::version_of(job, items, unit);
                    part(&mut hasher, digest_of(version).as_bytes());
                }
                let scale = scale.map_or([0; 8], |scale| scale.to_bits().to_be_bytes());
                part(&mut hasher, &scale);
                let spec = v1::LeasedUnit {
                    unit: 0,
                    spec: Some(spec),
                };
                part(&mut hasher, &spec.encode_to_vec());
            }
        }
        Some(hasher.finalize().into())
    }
}

/// Whether a result that was computed so may answer later.
pub(super) fn may_answer(fingerprint: Option<&v1::Fingerprint>) -> bool {
    fingerprint.is_some_and(|fingerprint| fingerprint.engine_revision == ENGINE_REVISION)
}

/// The units of a new job that the store has results for.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn find(store: &Store, new: &NewJob) -> Result<Vec<(u64, CachedResult)>, store::Error> {
    let mut answers = Vec::new();
    let mut job = new.job.clone();
    let inline = plan::pack(&mut job);
    let items = if inline.is_empty() {
        &new.items
    } else {
        &inline
    };
    let Some(digests) = UnitDigests::of(&job, &new.model) else {
        return Ok(answers);
    };
    let answer = |unit, scale| match digests.unit(&job, items, unit, scale) {
        Some(digest) => store.answer(&digest, unit),
        None => Ok(None),
    };
    let mut scale = None;
    if let Some(preparatory) = new.tasks.iter().find(|task| task.preparatory) {
        let unit = preparatory.first_unit;
        match answer(unit, None)? {
            Some(found) if found.noise_scale.is_some() => {
                scale = found.noise_scale;
                answers.push((unit, found));
            }
            // As long as the scale is not known, nothing else of the sweep is.
            _ => return Ok(answers),
        }
    }
    for unit in 0..plan::units(&job, items) {
        if let Some(found) = answer(unit, scale)? {
            answers.push((unit, found));
        }
    }
    Ok(answers)
}

/// Adds a part with its length, so that no two lists of parts are alike.
fn part(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
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
            spec: Some(Spec::Trace(v1::TraceSpec {
                facts: (0..3).map(fact).collect(),
                kinds: kinds.to_vec(),
                noise: noise.to_owned(),
                samples: 10,
                ..Default::default()
            })),
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
        let items = plan::pack(&mut job);
        UnitDigests::of(&job, model)?.unit(&job, &items, unit, Some(scale))
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

        let mut seeded = job.clone();
        let mut other_version = job.clone();
        other_version.version = "models/m/versions/1".to_owned();
        if let Some(Spec::Trace(trace)) = &mut seeded.spec {
            trace.seed = Some(2);
        }
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

        let over = |corpus: &str| {
            let mut job = sweep("m", &[1, 2]);
            if let Some(Spec::Trace(trace)) = &mut job.spec {
                trace.noise_corpus = Some(v1::Corpus {
                    digest: corpus.to_owned(),
                    size: 3,
                });
            }
            job
        };
        for unit in [1, 6] {
            let [one, other] = ["one", "other"].map(|it| digest(&over(it), &files, unit, 0.5));
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
            spec: Some(Spec::Eval(v1::EvalSpec {
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
            })),
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
