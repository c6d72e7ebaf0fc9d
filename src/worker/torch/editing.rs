//! What edits of a lease have in common: their numbers, contexts and statistics, and how a change
//! is found, made into a matrix as a version would have it, and taken out again.

use std::cell::RefCell;
use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use tch::Device;

use super::super::engine::Sink;
use super::super::prepare::Prepared;
use super::loaded::Loaded;
use super::units::Stopped;
use crate::edit::{
    self, ContextPlan, Error, Hyperparameters, KeyCovariance, Method, Overrides, Request, Step,
    Update,
};
use crate::model;
use crate::objects::Digest;
use crate::proto::v1;
use crate::stats::{self, Moment};
use crate::version::{self, Factor, Matrix};

/// Key statistics that were factorised, with what they were made of.
#[derive(Debug)]
pub(super) struct Factorised {
    digest: String,
    ridge: f64,
    covariance: KeyCovariance,
}

/// What the edits of a lease are computed with.
pub(super) struct Editing<'a> {
    pub loaded: &'a mut Loaded,
    pub device: Device,
    pub ready: &'a Prepared,
    pub spec: &'a v1::EditSpec,
    pub factorised: &'a mut Option<Factorised>,
    /// What is the same for all of them, once the first has asked for it; or what is wrong with all
    /// of them.
    pub plan: Option<Result<Arc<Plan>, String>>,
}

/// Everything that is the same for all facts of a lease.
pub(super) struct Plan {
    pub method: Method,
    pub hyper: Hyperparameters,
    pub contexts: Vec<String>,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Stopped::Cancelled,
            error => Stopped::Unit(error.to_string()),
        }
    }
}

impl From<model::Error> for Stopped {
    fn from(error: model::Error) -> Self {
        Stopped::Unit(error.to_string())
    }
}

impl From<version::Error> for Stopped {
    fn from(error: version::Error) -> Self {
        Stopped::Unit(error.to_string())
    }
}

impl Editing<'_> {
    /// What the lease's edits have in common.
    pub fn plan(&mut self, sink: &mut dyn Sink) -> Result<Arc<Plan>, Stopped> {
        if self.plan.is_none() {
            self.plan = Some(match self.made_plan(sink) {
                Ok(plan) => Ok(Arc::new(plan)),
                Err(Stopped::Unit(what)) => Err(what),
                Err(stopped) => return Err(stopped),
            });
        }
        match &self.plan {
            Some(Ok(plan)) => Ok(plan.clone()),
            Some(Err(what)) => Err(Stopped::Unit(what.clone())),
            None => Err(Stopped::transient("there is no plan")),
        }
    }

    fn made_plan(&mut self, sink: &mut dyn Sink) -> Result<Plan, Stopped> {
        let method: Method = self.spec.method.parse()?;
        let mut overrides = Overrides::at(self.spec.layer.map(|layer| layer as usize));
        for number in &self.spec.parameters {
            overrides.set(method, &number.key, number.value)?;
        }
        let hyper = Hyperparameters::new(method, self.loaded.model.config(), &overrides)?;
        if method.needs_statistics() {
            self.factorise(hyper.ridge)?;
        }
        let contexts = match self.spec.contexts.as_slice() {
            [] if method.needs_statistics() => self.drawn_contexts(sink)?,
            given => given.to_vec(),
        };
        Ok(Plan {
            method,
            hyper,
            contexts,
        })
    }

    /// Contexts drawn from the version by the seed of the lease, unless they are those of the last
    /// one.
    fn drawn_contexts(&mut self, sink: &mut dyn Sink) -> Result<Vec<String>, Stopped> {
        let (version, seed) = (&self.ready.lease.version, self.spec.seed);
        if let Some((of, by, contexts)) = &self.loaded.contexts
            && (of, *by) == (version, seed)
        {
            return Ok(contexts.clone());
        }
        let plan = ContextPlan {
            seed,
            ..ContextPlan::default()
        };
        let drawn = edit::sample_contexts(&self.loaded.model, &plan, || !sink.cancelled())?;
        self.loaded.contexts = Some((version.clone(), seed, drawn.clone()));
        Ok(drawn)
    }

    /// The statistics of the lease, factorised unless they are those of the last one.
    fn factorise(&mut self, ridge: f64) -> Result<(), Stopped> {
        let statistics = self.spec.statistics.clone().unwrap_or_default();
        let known = self.factorised.as_ref();
        if known.is_some_and(|f| f.digest == statistics.digest && f.ridge == ridge) {
            return Ok(());
        }
        *self.factorised = None;
        let unreadable =
            |what: String| Stopped::transient(format!("the key statistics cannot be read: {what}"));
        let Some(path) = &self.ready.statistics else {
            return Err(unreadable("the lease names none".to_owned()));
        };
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let moment = Moment::from_npz(BufReader::new(file)).map_err(|error| match error {
            // So it is for every worker.
            stats::Error::Malformed { problem } => Stopped::Unit(format!(
                "the key statistics are none: {problem}; withdraw them with 'palimpsest stats \
                 delete', and collect or import others"
            )),
            error => unreadable(error.to_string()),
        })?;
        *self.factorised = Some(Factorised {
            covariance: KeyCovariance::new(moment, ridge, self.device)?,
            digest: statistics.digest,
            ridge,
        });
        Ok(())
    }

    /// The change that writes a fact, and how it was found.
    pub fn compute(
        &self,
        plan: &Plan,
        unit: u64,
        request: &Request,
        sink: &mut dyn Sink,
    ) -> Result<(Update, Vec<Step>), Stopped> {
        let watch = Watched {
            sink: RefCell::new(sink),
            unit,
            hyper: plan.hyper,
        };
        let model = &self.loaded.model;
        Ok(match (plan.method, self.factorised.as_ref()) {
            (Method::FtL, _) | (_, None) => edit::fine_tune(model, request, &plan.hyper, &watch)?,
            (method, Some(factorised)) => {
                let found = edit::rank_one(
                    model,
                    request,
                    &plan.contexts,
                    method,
                    &plan.hyper,
                    &factorised.covariance,
                    &watch,
                )?;
                (found.update, found.steps)
            }
        })
    }

    /// What an edit adds to its matrix, as versions keep it.
    ///
    /// # Errors
    /// [`Stopped::Unit`] for a layer that is a mixture of experts.
    pub fn factor(&self, update: &Update) -> Result<Factor, Stopped> {
        let down = self
            .loaded
            .base
            .checkpoint()
            .down_projection(update.layer)?;
        Ok(Factor {
            tensor: down.weight.name.clone(),
            layer: update.layer,
            width: update.width(),
            inner: update.inner(),
            rank: update.rank,
            left: update.left.clone(),
            right: update.right.clone(),
        })
    }

    /// The norm of an edit in norms of the matrix that it changes.
    ///
    /// # Errors
    /// As [`Editing::factor`].
    pub fn relative_norm(&self, update: &Update) -> Result<f64, Stopped> {
        let weight = self.loaded.model.down_projection(update.layer)?;
        Ok(update.norm() / weight.norm().double_value(&[]))
    }

    /// Runs something on what the version would be with an edit, whose matrix is made as any worker
    /// or export makes it. The model has the version's matrices again afterwards.
    pub fn with<T>(
        &mut self,
        update: &Update,
        run: impl FnOnce(&model::Model) -> T,
    ) -> Result<T, Stopped> {
        let factor = self.factor(update)?;
        let mut with = self.ready.version.on(&factor.tensor);
        let pristine = self.loaded.base.grow(&factor.tensor, &with)?;
        with.push((Digest::of(&factor.data()), &factor));
        let edited = self.loaded.base.grow(&factor.tensor, &with)?;
        let lent = self.loaded.lend(update.layer, &factor.tensor);
        let put = |loaded: &mut Loaded, matrix: &Matrix| {
            let put = loaded.put(update.layer, &factor.tensor, matrix);
            put.map_err(Stopped::transient)
        };
        put(self.loaded, &edited)?;
        let done = run(&self.loaded.model);
        put(self.loaded, &pristine)?;
        self.loaded.give_back(lent);
        Ok(done)
    }
}

struct Watched<'a> {
    sink: RefCell<&'a mut dyn Sink>,
    unit: u64,
    hyper: Hyperparameters,
}

impl edit::Watch for Watched<'_> {
    fn cancelled(&self) -> bool {
        self.sink.borrow().cancelled()
    }

    fn step(&self, step: &Step) {
        let mut sink = self.sink.borrow_mut();
        sink.advance(1);
        let told = v1::edit_progress::Step {
            number: step.number as u32,
            loss: step.loss,
            probability: step.probability,
            kl: match self.hyper.kl_factor > 0.0 {
                true => step.drift / self.hyper.kl_factor,
                false => 0.0,
            },
        };
        sink.step(self.unit, self.hyper.steps as u32, told);
    }
}
