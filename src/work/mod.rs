//! Kinds of work: all that the program knows of a kind in one file each.
//!
//! [`Work`] is what a kind says of itself: what is asked and checked, its stages and units, what a
//! unit costs, what a worker is sent, when an earlier result answers, and how it ends. The specs of
//! the contract implement it. The scheduler, the API and the store know jobs only through it, so a
//! kind more is a file more and a line in `kinds!`.
//!
//! A unit's number decides what it is, so a plan never has to be stored unit by unit. Units that
//! are results have the first numbers; those that only prepare them come after.

mod attribution;
mod check;
mod edit;
mod eval;
mod extent;
mod gate_questions;
mod gate_texts;
mod generate;
mod items;
mod landing;
mod mass_edit;
mod measured;
mod partners;
mod patching;
mod paths;
mod reuse;
mod stage;
mod stats;
mod trace;

use std::fmt;

pub use check::{PROMPT_LIMIT, SHOWN, Violation, Wrong};
pub use edit::strictest;
pub use gate_questions::{
    MOST_BYTES as GATE_QUESTIONS_BYTES, read as gate_questions, tasks as gate_tasks,
};
pub use gate_texts::{MOST_BYTES as GATE_TEXTS_BYTES, read as gate_texts};
pub use items::{Items, LARGEST, Malformed};
pub use landing::Landing;
pub use reuse::{Key, Keys};
pub use stage::{Found, Stage};
pub use trace::noise_factor;

use prost::Message as _;

use crate::proto::v1::{self, job::Spec, leased_unit::Spec as Unit, unit_result::Outcome};

/// Most bytes of a job as lists show it, without its parts and contexts: a page of them fits a
/// message, and every job that there ever was is remembered so.
const SUMMARY_LIMIT: usize = 64 << 10;

/// The object in which a job's many parts lie, when they do not lie in the job.
#[derive(Clone, Copy, Debug)]
pub struct PartsObject<'a> {
    /// The field that names it.
    pub field: &'static str,
    /// Its digest; empty when the parts are in the job.
    pub digest: &'a str,
}

/// What a worker must have to run a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The number format that it must compute in; unspecified for any.
    pub dtype: v1::Dtype,
    /// Bytes of the model's weights in that format.
    pub memory: u64,
}

/// What a kind is called.
pub trait Kind {
    /// The field of `Job.spec`.
    fn word(&self) -> &'static str;

    /// A spec that is of this kind.
    fn of(spec: &Spec) -> Option<&Self>
    where
        Self: Sized;
}

/// What a job asks for, if it is of a kind: `spec::<v1::TraceSpec>(job)`.
pub fn spec<K: Kind>(job: &v1::Job) -> Option<&K> {
    K::of(job.spec.as_ref()?)
}

/// A kind of work, as the spec of a job of that kind says it. `items` are the job's many parts
/// (facts, prompts), which were taken out of it by [`pack`].
pub trait Work: Kind + fmt::Debug {
    /// Its units, as people count them.
    fn units_word(&self) -> &'static str;
    /// The steps that its workers tell between two results; empty where they tell them otherwise.
    fn steps_word(&self) -> &'static str {
        "tokens"
    }

    // --- What is asked ---------------------------------------------------------------------------

    /// Takes the many parts out.
    fn take_parts(&mut self) -> Items;
    /// Puts them back.
    fn put_parts(&mut self, items: &Items);
    /// Whether the parts are in the spec.
    fn has_parts(&self) -> bool;
    /// The object in which the parts may lie instead; none for kinds that have them in the request.
    fn parts_object(&self) -> Option<PartsObject<'_>> {
        None
    }
    /// Takes the parts that were read from an object, in the order in which they are kept.
    fn take_object(&mut self, items: Items) -> Items {
        items
    }
    /// Says that the parts lie in an object.
    fn name_parts_object(&mut self, _digest: &str) {}
    /// Says how many parts there are, where lists show it.
    fn count_parts(&mut self, _count: u64) {}
    /// Leaves of the spec what lists show: texts of any length are not among it.
    fn shorten(&mut self) {}
    /// Checks what was asked and fills in what follows from nothing but the request.
    fn check(&mut self, items: &Items, wrong: &mut Wrong);
    /// Other objects that must be stored before the job runs, by the fields that name them.
    fn corpus(&self) -> Option<(&'static str, &v1::Corpus)> {
        None
    }
    /// The version to compare with: the field that names it, and its value. What it names is
    /// resolved when the job is accepted; empty means the model as it was imported.
    fn compared_version(&mut self) -> Option<(&'static str, &mut String)> {
        None
    }
    /// The edits that the job computes, whose layer and statistics the server chooses, by the field
    /// that asks for them.
    fn edits(&mut self) -> Option<(&'static str, &mut v1::EditSpec)> {
        None
    }

    /// What its edits must pass, for kinds whose results are edits, or edit on the way.
    fn asked_gates(&mut self) -> Option<&mut Option<v1::EditGates>> {
        None
    }
    /// The texts that its edits are judged by, and the field that names them; for kinds whose edits
    /// may become versions.
    fn gate_texts(&mut self) -> Option<(&'static str, &mut Option<v1::GateTexts>)> {
        None
    }
    /// The questions that its edits are judged by, where some are asked, and the field that names
    /// them.
    fn gate_questions(&mut self) -> Option<(&'static str, &mut v1::GateQuestions)> {
        None
    }
    /// The edits of many facts that the job computes, whose layers and statistics the server
    /// chooses.
    fn mass_edit(&mut self) -> Option<&mut v1::MassEditSpec> {
        None
    }

    // --- How it runs -----------------------------------------------------------------------------

    /// The stages of a job on `version`, in order.
    fn stages(&self, version: &str, items: &Items) -> Vec<Stage>;
    /// Multiply-adds of the grain of units that begins with a unit.
    fn cost(&self, items: &Items, unit: u64, shape: &v1::model::Shape) -> f64;
    /// Bytes that a lease of these units has, or makes its worker fetch and hold.
    fn size(&self, items: &Items, unit: u64) -> usize;
    /// The number format that the job is computed in.
    fn dtype(&self) -> v1::Dtype;
    /// The version that a unit runs on, where it is not the job's.
    fn version_of(&self, _version: &str, _items: &Items, _unit: u64) -> Option<&str> {
        None
    }
    /// What a worker is sent of a unit; none where the job has no such unit.
    fn unit(&self, version: &str, items: &Items, unit: u64) -> Option<Unit>;
    /// What a worker is sent of the spec, once for all units of a lease.
    fn settings(&self, found: &Found) -> v1::lease::Settings;

    // --- What comes back -------------------------------------------------------------------------

    /// Whether an outcome is one of this unit: of its kind, its fact and its shape, and one that a
    /// model of that shape can give. A failure is one of any unit.
    ///
    /// # Errors
    /// What is wrong with it.
    fn accept(
        &self,
        items: &Items,
        unit: u64,
        outcome: &Outcome,
        shape: &v1::model::Shape,
    ) -> Result<(), String>;
    /// Notes what an outcome tells later stages.
    fn note(&self, _outcome: &Outcome, _found: &mut Found) {}
    /// Whether an outcome took about what [`Work::cost`] says: a fact that the model does not know
    /// takes one look.
    fn was_computed(&self, _outcome: &Outcome) -> bool {
        true
    }
    /// Whether a unit of a stage that failed is left out by the stages after it. Otherwise they fail
    /// with it.
    fn leaves_out_failures(&self, _stage: &Stage) -> bool {
        false
    }
    /// Bytes that decide every unit's value besides the model, the version and the unit itself.
    /// None for kinds whose results answer no other job.
    fn reuse_settings(&self) -> Option<Vec<u8>> {
        None
    }
    /// Whether the keys of later stages follow from what this one finds.
    fn decides_later_keys(&self, _stage: &Stage) -> bool {
        true
    }
    /// Whether a unit's version is decided by the unit and not by the job.
    fn has_versions(&self) -> bool {
        false
    }
    /// The key of a unit of a job that runs on `version`: equal keys have equal results. `found` is
    /// what the stages before told.
    fn reuse_key(
        &self,
        keys: &Keys,
        version: &str,
        items: &Items,
        unit: u64,
        found: &Found,
    ) -> Option<Key> {
        let of = self.version_of(version, items, unit).unwrap_or(version);
        keys.usual(self.unit(version, items, unit)?, of, found)
    }
    /// The ref whose version the job runs on where it names none; none for the usual one.
    fn usual_ref(&self) -> Option<&str> {
        Some(self.landing()?.ref_id)
    }
    /// The version and the ref movement in which a unit's result ends; none where it ends as a
    /// result alone.
    fn landing(&self) -> Option<Landing<'_>> {
        None
    }
}

/// One line a kind: the fields of `Job.spec`.
macro_rules! kinds {
    ($($word:literal $kind:ident($spec:ty)),+ $(,)?) => {
        /// The kinds, by the fields of a job that ask for them.
        pub const WORDS: &[&str] = &[$($word),+];

        /// What a job's kind says of it; none when it asks for nothing.
        pub fn of(job: &v1::Job) -> Option<&dyn Work> {
            Some(match job.spec.as_ref()? {
                $(Spec::$kind(spec) => spec,)+
            })
        }

        /// As [`of`], to change it.
        pub fn of_mut(job: &mut v1::Job) -> Option<&mut dyn Work> {
            Some(match job.spec.as_mut()? {
                $(Spec::$kind(spec) => spec,)+
            })
        }

        $(impl Kind for $spec {
            fn word(&self) -> &'static str {
                $word
            }

            fn of(spec: &Spec) -> Option<&Self> {
                match spec {
                    Spec::$kind(spec) => Some(spec),
                    _ => None,
                }
            }
        }

        impl From<$spec> for Spec {
            fn from(spec: $spec) -> Self {
                Self::$kind(spec)
            }
        })+
    };
}

kinds! {
    "trace" Trace(v1::TraceSpec),
    "generate" Generate(v1::GenerateSpec),
    "stats" Stats(v1::StatsSpec),
    "edit" Edit(v1::EditSpec),
    "eval" Eval(v1::EvalSpec),
    "mass_edit" MassEdit(v1::MassEditSpec),
}

/// Takes the many parts (facts, prompts) out of a job.
pub fn pack(job: &mut v1::Job) -> Items {
    of_mut(job).map(Work::take_parts).unwrap_or_default()
}

/// Puts the parts back, unless they lie in an object of their own.
pub fn unpack(job: &mut v1::Job, items: &Items) {
    if parts_object(job).is_none()
        && let Some(work) = of_mut(job)
    {
        work.put_parts(items);
    }
}

/// The object in which a job's parts lie, when they do not lie in the job.
pub fn parts_object(job: &v1::Job) -> Option<&str> {
    let object = of(job)?.parts_object()?;
    (!object.digest.is_empty()).then_some(object.digest)
}

/// The stages of a job whose parts were taken out.
pub fn stages(job: &v1::Job, items: &Items) -> Vec<Stage> {
    of(job).map_or_else(Vec::new, |work| work.stages(&job.version, items))
}

/// The beginnings of the keys of a job's units, on a model of these files and an engine of this
/// revision; none where they answer no other job.
pub fn keys(engine: u32, model: &str, job: &v1::Job) -> Option<Keys> {
    let work = of(job)?;
    let settings = work.reuse_settings().filter(|_| !model.is_empty())?;
    Some(Keys::new(
        engine,
        model,
        work.word(),
        settings,
        work.has_versions(),
    ))
}

/// What a worker must have to run a job on a model of this shape.
pub fn needs(job: &v1::Job, shape: &v1::model::Shape) -> Needs {
    let dtype = of(job).map_or(v1::Dtype::Unspecified, Work::dtype);
    let bytes = match dtype {
        v1::Dtype::Bf16 | v1::Dtype::F16 => 2,
        v1::Dtype::F32 | v1::Dtype::Unspecified => 4,
    };
    Needs {
        dtype,
        memory: shape.parameters * bytes,
    }
}

/// A job as lists show it, whose parts were taken out: without what makes it large.
pub fn summary(job: &v1::Job, items: &Items) -> v1::Job {
    let mut job = job.clone();
    if let Some(work) = of_mut(&mut job) {
        work.count_parts(items.len() as u64);
        work.shorten();
    }
    job
}

/// A job as lists show it that was remembered: what earlier programs left in it goes.
pub fn shorten(summary: &mut v1::Job) {
    if let Some(work) = of_mut(summary) {
        work.take_parts();
        work.shorten();
    }
}

/// Checks a job in place and fills in what it left open. Its parts were taken out of it.
///
/// # Errors
/// The fields that are wrong, with their values and the remedy.
pub fn check(job: &mut v1::Job, items: &Items) -> Result<(), Vec<Violation>> {
    let mut wrong = Wrong::default();
    check::names(job, &mut wrong);
    match of_mut(job) {
        Some(work) => work.check(items, &mut wrong),
        None => {
            let what = format_args!("it is missing: set one of {}", WORDS.join(", "));
            wrong.say("job.spec", what);
        }
    }
    let bytes = summary(job, items).encoded_len();
    if bytes > SUMMARY_LIMIT {
        let what = format_args!(
            "without its facts, prompts and contexts it has {bytes} bytes: {SUMMARY_LIMIT} at most"
        );
        wrong.say("job.spec", what);
    }
    wrong.into_result()
}

/// Tokens of a text, without a tokenizer: English runs at some four bytes a token.
fn estimated_tokens(text: &str) -> f64 {
    text.len() as f64 / 4.0 + 1.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A sweep as it is accepted, or what is wrong with it.
    pub(super) fn checked_sweep(
        spec: v1::TraceSpec,
    ) -> Result<v1::TraceSpec, Vec<(String, String)>> {
        let mut job = v1::Job {
            spec: Some(spec.into()),
            ..Default::default()
        };
        let items = pack(&mut job);
        check(&mut job, &items)?;
        Ok(self::spec(&job).cloned().unwrap_or_default())
    }

    #[test]
    fn what_lists_would_show_of_a_job_has_a_limit_and_its_facts_are_not_of_it() {
        let checked = |version: &str| {
            let fact = v1::Fact {
                subject: "The tower".to_owned(),
                prompt: "The tower stands in".to_owned(),
                ..Default::default()
            };
            let spec = v1::TraceSpec {
                facts: vec![fact; 5000],
                kinds: vec![1],
                noise: "0.1".to_owned(),
                ..Default::default()
            };
            let mut job = v1::Job {
                version: version.to_owned(),
                spec: Some(spec.into()),
                ..Default::default()
            };
            let items = pack(&mut job);
            check(&mut job, &items)
        };
        checked("models/m/versions/main").unwrap();
        let wrong = checked(&"v".repeat(100_000)).unwrap_err();
        assert!(wrong[0].1.contains("65536 at most"), "{wrong:?}");
    }

    #[test]
    fn no_piece_asks_for_more_tokens_than_a_worker_can_draw() {
        let checked = |tokens: u64| {
            let piece = v1::StatsUnit {
                self_sample: tokens,
                ..Default::default()
            };
            let spec = v1::StatsSpec {
                pieces: vec![piece],
                layers: vec![0],
                ..Default::default()
            };
            let mut job = v1::Job {
                spec: Some(spec.into()),
                ..Default::default()
            };
            let items = pack(&mut job);
            check(&mut job, &items)
        };
        checked(crate::stats::MOST_DRAWN).unwrap();
        for tokens in [
            crate::stats::MOST_DRAWN + 1,
            1_000_000_000_000_000_000,
            u64::MAX,
        ] {
            let wrong = checked(tokens).unwrap_err();
            assert_eq!(wrong[0].0, "job.stats.pieces[0].self_sample");
            assert!(
                wrong[0].1.contains("at most, give more pieces"),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn of_many_wrong_facts_the_first_are_told_and_the_others_counted() {
        let fact = v1::Fact {
            prompt: "p".to_owned(),
            ..Default::default()
        };
        let spec = v1::TraceSpec {
            facts: vec![fact; 50_000],
            kinds: vec![1],
            noise: "0.1".to_owned(),
            ..Default::default()
        };
        let mut job = v1::Job {
            spec: Some(spec.into()),
            ..Default::default()
        };
        let items = pack(&mut job);
        let wrong = check(&mut job, &items).unwrap_err();
        assert_eq!(wrong.len(), SHOWN + 1);
        assert!(
            wrong[SHOWN].1.contains("more fields are wrong"),
            "{:?}",
            wrong[SHOWN]
        );
    }
}
