//! The engine of the simulated workers: the fake one, with a time of its own for every unit.

use std::sync::Arc;
use std::time::Duration;

use palimpsest::proto::v1::{self, FailureClass, job::Spec, leased_unit};
use palimpsest::worker::{Engine, Fake, Prepared, Sink};
use prost::Message;

use super::dice::Dice;
use super::site::{SHAPE, Site};

const FAKE: Fake = Fake {
    unit_time: Duration::ZERO,
};

/// An engine whose results are those of the fake one, at a pace of its own.
pub struct Paced {
    pub site: Arc<Site>,
    pub worker: String,
    pub dice: Dice,
    /// Milliseconds that a unit takes, at most.
    pub slowest: u64,
}

impl Engine for Paced {
    fn capabilities(&self) -> v1::Capabilities {
        FAKE.capabilities()
    }

    fn pretends(&mut self) -> Option<Duration> {
        let mut time = self.dice.among(5..=self.slowest);
        if self.dice.once_in(40) {
            time += 3_000; // longer than a worker may be silent, while heartbeats go on
        }
        Some(Duration::from_millis(time))
    }

    fn loaded(&self) -> Vec<String> {
        Vec::new()
    }

    fn run(
        &mut self,
        ready: &Prepared,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<(), v1::Failure> {
        let numbers: Vec<u64> = units.iter().map(|unit| unit.unit).collect();
        // Classes that are not counted, at any time; counted ones where there is patience.
        if !self.site.is_peaceful() && self.dice.once_in(25) {
            let class = match self.dice.below(4) {
                0 if self.site.theme.liars() => FailureClass::Transient,
                1 if self.site.theme.liars() => FailureClass::OutOfMemory,
                2 => FailureClass::Backpressure,
                _ => FailureClass::Preempted,
            };
            self.site
                .say(&self.worker, format!("fails {numbers:?} as {class:?}"));
            return Err(v1::Failure {
                failure_class: class as i32,
                message: "the dice said so".to_owned(),
            });
        }
        self.site.say(&self.worker, format!("computes {numbers:?}"));
        let mut fake = FAKE;
        fake.run(ready, units, sink)
    }
}

/// What an honest worker commits for the units of a lease.
pub fn results(lease: &v1::Lease) -> Vec<v1::UnitResult> {
    struct Kept(Vec<v1::UnitResult>);
    impl Sink for Kept {
        fn commit(&mut self, result: v1::UnitResult, _: v1::Fingerprint) {
            self.0.push(result);
        }
        fn advance(&mut self, _: u64) {}
        fn cancelled(&self) -> bool {
            false
        }
        fn put(&mut self, _: &[u8]) -> Result<String, v1::Failure> {
            panic!("the fake engine stores nothing");
        }
    }
    let mut kept = Kept(Vec::new());
    let mut fake = FAKE;
    let ready = Prepared::new(lease.clone());
    fake.run(&ready, &lease.units, &mut kept)
        .expect("the fake engine does not fail");
    kept.0
}

/// The bytes that a unit of a job must have as its result.
pub fn expected(job: &v1::Job, unit: u64) -> Vec<u8> {
    let mut lease = v1::Lease {
        model: Some(v1::Model {
            shape: Some(SHAPE),
            ..Default::default()
        }),
        ..Default::default()
    };
    let spec = match &job.spec {
        Some(Spec::Trace(trace)) => {
            let kinds = trace.kinds.len() as u64;
            // The fake engine finds an eighth of the factor.
            lease.noise_scale = trace
                .noise
                .strip_prefix('s')
                .map(|factor| factor.parse::<f64>().expect("a factor") / 8.0);
            lease.settings = Some(v1::lease::Settings::Trace(v1::TraceSpec {
                facts: Vec::new(),
                ..trace.clone()
            }));
            leased_unit::Spec::Trace(v1::TraceUnit {
                fact: trace.facts.get((unit / kinds) as usize).cloned(),
                kind: trace.kinds[(unit % kinds) as usize],
                ..Default::default()
            })
        }
        Some(Spec::Generate(generate)) => {
            lease.settings = Some(v1::lease::Settings::Generate(v1::GenerateSpec {
                prompts: Vec::new(),
                ..generate.clone()
            }));
            leased_unit::Spec::Generate(v1::GenerateUnit {
                prompt: generate.prompts[unit as usize].clone(),
            })
        }
        other => panic!("no client asks for {other:?}"),
    };
    lease.units = vec![v1::LeasedUnit {
        unit,
        spec: Some(spec),
    }];
    results(&lease)[0].encode_to_vec()
}
