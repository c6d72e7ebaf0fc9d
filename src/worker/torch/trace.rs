//! Tracing units: the scale of a sweep's noise, and grids.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::super::engine::{Sink, failure};
use super::super::prepare::Prepared;
use super::loaded::Loaded;
use super::units::{Kind, Stopped, mixed};
use crate::causal::noise::{Law, Rule};
use crate::causal::{self, Corruption, EmbeddingGaussian, Error, Settings};
use crate::model::Model;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, FailureClass, leased_unit::Spec as Unit};
use crate::wire;

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Stopped::Cancelled,
            Error::OutOfMemory { .. } => {
                Stopped::Here(failure(FailureClass::OutOfMemory, error.to_string()))
            }
            error => Stopped::Unit(error.to_string()),
        }
    }
}

/// The tracing units of a lease.
pub(super) struct Sweep<'a> {
    model: &'a Model,
    spec: &'a v1::TraceSpec,
    ready: &'a Prepared,
    /// How noise is drawn; none where another prompt corrupts.
    rule: Option<Rule>,
    /// What the rules over a corpus draw from.
    gaussian: Option<Arc<EmbeddingGaussian>>,
    memory: u64,
}

impl<'a> Sweep<'a> {
    pub fn new(
        loaded: &'a mut Loaded,
        spec: &'a v1::TraceSpec,
        ready: &'a Prepared,
        memory: u64,
    ) -> Result<Self, v1::Failure> {
        let rule: Option<Rule> = match spec.corruption() {
            v1::Corruption::Unspecified | v1::Corruption::Noise => Some(spec.noise.parse()),
            v1::Corruption::Counterfactual | v1::Corruption::Pairs => None,
        }
        .transpose()
        .map_err(|error: Error| failure(FailureClass::Invalid, error.to_string()))?;
        let gaussian = match (&spec.noise_corpus, &ready.corpus) {
            (Some(named), Some(path)) if rule.is_some_and(|it| it.needs_corpus()) => {
                Some(loaded.gaussian(named, path)?)
            }
            _ => None,
        };
        Ok(Self {
            model: &loaded.model,
            spec,
            ready,
            rule,
            gaussian,
            memory,
        })
    }

    fn noise_level(&self, unit: u64, noise: &v1::NoiseUnit) -> Result<f64, Error> {
        match &self.gaussian {
            Some(gaussian) => Ok(gaussian.scale()),
            None => {
                let subjects = self.ready.subjects.get(&unit).unwrap_or(&noise.subjects);
                causal::noise_level(self.model, subjects).map(|spread| noise.factor * spread)
            }
        }
    }

    /// The noise of every fact, and its scale.
    fn noise(&self, rule: Rule) -> Result<(Corruption, f64), Error> {
        let (scale, law) = match (rule.law, self.ready.lease.noise_scale) {
            (Law::Spread(_), Some(scale)) => (scale, Law::Gaussian(scale)),
            (Law::Gaussian(scale) | Law::Uniform(scale), _) => (scale, rule.law),
            (law, scale) => (scale.unwrap_or_default(), law),
        };
        let noise = Rule {
            law,
            replace: rule.replace,
        };
        let noise = noise.resolve(None, self.gaussian.clone())?;
        Ok((noise.into(), scale))
    }

    /// The grids of one fact, in the order of the kinds.
    fn fact(
        &self,
        fact: &v1::Fact,
        partners: &[v1::Fact],
        kinds: &[v1::Kind],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Outcome>, Stopped> {
        let (corruption, scale) = match self.rule {
            Some(rule) => self.noise(rule)?,
            None => {
                let partners = partners.iter().cloned().map(Into::into).collect();
                (Corruption::Counterfactual(partners), 0.0)
            }
        };
        let mut settings = Settings::new(corruption);
        settings.direction = wire::direction(self.spec.direction());
        for metric in self.spec.metrics() {
            let known = wire::metric(metric).ok_or_else(|| {
                let what = format!("metric {} is not known here", metric as i32);
                Stopped::Unit(format!("{what}: upgrade the worker"))
            })?;
            settings.metrics.push(known);
        }
        settings.kinds.clear();
        for &kind in kinds {
            match wire::kind(kind) {
                Some((_, Some(severed))) => settings.severed.push(severed),
                Some((kind, None)) => settings.kinds.push(kind),
                None => {
                    let what =
                        format!("kind {} is not known here: upgrade the worker", kind as i32);
                    return Err(Stopped::Unit(what));
                }
            }
        }
        if let Some(paths) = &self.spec.paths {
            let unknown = || {
                let what = "an input of a head is not known here: upgrade the worker";
                Stopped::Unit(what.to_owned())
            };
            settings.paths = Some(wire::paths(paths).ok_or_else(unknown)?);
        }
        settings.whole_answers = self.spec.whole_answers;
        settings.samples = self.spec.samples as usize;
        settings.seed = self.spec.seed();
        settings.window = self.spec.window as usize;
        let spec = self.spec;
        settings.engine = wire::engine(spec.engine(), spec.attribution_steps, spec.grad_drop);
        settings.verify = spec.verify as usize;
        settings.compat = wire::compat(self.spec.compat());
        settings.memory_bytes = self.memory;

        let watch = Watched {
            sink: RefCell::new(sink),
            done: Cell::new(0),
        };
        let traced = causal::trace(self.model, &fact.clone().into(), &settings, &watch)?;
        let mut grids: Vec<v1::Grid> = traced
            .into_iter()
            .map(|grid| wire::SweptGrid::of(grid, self.spec, scale).into())
            .collect();
        let in_order = kinds.iter().map(|&kind| {
            let at = grids.iter().position(|grid| grid.kind() == kind)?;
            Some(Outcome::Grid(grids.swap_remove(at)))
        });
        let none = || Stopped::Unit("the lease asks for a kind of grid twice".to_owned());
        in_order.collect::<Option<_>>().ok_or_else(none)
    }
}

impl Kind for Sweep<'_> {
    /// The kinds of a fact share its clean and corrupted runs.
    fn together(&self, units: &[v1::LeasedUnit]) -> usize {
        let fact = |unit: &v1::LeasedUnit| match &unit.spec {
            Some(Unit::Trace(trace)) => trace.fact.clone(),
            _ => None,
        };
        match units.first().map(fact) {
            Some(Some(first)) => {
                let same = |unit: &&v1::LeasedUnit| fact(unit).as_ref() == Some(&first);
                units.iter().take_while(same).count()
            }
            _ => 1,
        }
    }

    fn compute(
        &mut self,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Outcome>, Stopped> {
        match units.first().and_then(|unit| unit.spec.as_ref()) {
            Some(Unit::Noise(noise)) => {
                let scale = self.noise_level(units[0].unit, noise)?;
                Ok(vec![Outcome::NoiseLevel(v1::NoiseLevel { scale })])
            }
            Some(Unit::Trace(first)) => {
                let kinds: Vec<v1::Kind> = units
                    .iter()
                    .filter_map(|unit| match &unit.spec {
                        Some(Unit::Trace(trace)) => Some(trace.kind()),
                        _ => None,
                    })
                    .collect();
                let fact = first.fact.clone().unwrap_or_default();
                self.fact(&fact, &first.partners, &kinds, sink)
            }
            _ => Err(mixed(&units[0])),
        }
    }
}

struct Watched<'a> {
    sink: RefCell<&'a mut dyn Sink>,
    done: Cell<u64>,
}

impl causal::Watch for Watched<'_> {
    fn cancelled(&self) -> bool {
        self.sink.borrow().cancelled()
    }

    fn cells(&self, done: u64, _total: u64) {
        let before = self.done.replace(done);
        self.sink.borrow_mut().advance(done.saturating_sub(before));
    }
}
