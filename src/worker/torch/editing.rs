//! The units of an editing lease: a fact computed, made into a matrix as a version would have it, and measured.

use std::cell::RefCell;
use std::fs::File;
use std::io::BufReader;

use tch::Device;

use super::super::engine::{Sink, failure, result};
use super::Loaded;
use crate::edit::measured::{self, Gates, Measured, ProbeChange};
use crate::edit::{
    self, ContextPlan, Effect, Error, Hyperparameters, KeyCovariance, Method, NextTokens,
    Overrides, Probe, Request, Step, Update,
};
use crate::model;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, FailureClass, leased_unit::Spec};
use crate::stats::Moment;
use crate::version::{self, Factor, Matrix};

/// Factors up to this many bytes travel in the result; larger ones as objects.
const INLINE: usize = 1 << 20;

/// Text that has nothing to do with any edit: its drift is what the edit did to everything else.
const GENERIC: [&str; 3] = [
    "Once upon a time there was a farmer who had three daughters, and every morning they walked to the well.",
    "The committee met on Tuesday to discuss the budget for the next year, but no decision was reached.",
    "To make the dough, mix the flour with water and salt, knead it well and let it rest for an hour.",
];

/// Key statistics that were factorised, with what they were made of.
#[derive(Debug)]
pub(super) struct Factorised {
    digest: String,
    ridge: f64,
    covariance: KeyCovariance,
}

/// The facts of a lease, in order.
pub(super) struct Editing<'a> {
    pub loaded: &'a mut Loaded,
    pub device: Device,
    pub lease: &'a v1::Lease,
    pub spec: &'a v1::EditSpec,
    pub fingerprint: v1::Fingerprint,
    pub factorised: &'a mut Option<Factorised>,
}

/// Why a unit gave no edit.
pub(super) enum Stopped {
    Cancelled,
    /// It asks for what cannot be done.
    Unit(String),
    /// The worker cannot go on.
    Here(v1::Failure),
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

/// Everything that is the same for all facts of a lease.
pub(super) struct Plan {
    method: Method,
    hyper: Hyperparameters,
    contexts: Vec<String>,
}

impl Editing<'_> {
    pub fn run(mut self, sink: &mut dyn Sink) -> Result<(), v1::Failure> {
        let plan = match self.plan(sink) {
            Ok(plan) => Ok(plan),
            Err(Stopped::Cancelled) => return Ok(()),
            Err(Stopped::Here(failure)) => return Err(failure),
            Err(Stopped::Unit(what)) => Err(what),
        };
        for unit in &self.lease.units {
            let Some(Spec::Edit(task)) = &unit.spec else {
                continue;
            };
            let made = match &plan {
                Ok(plan) => self.edit(plan, unit.unit, task, sink),
                Err(what) => Err(Stopped::Unit(what.clone())),
            };
            let outcome = match made {
                Ok(outcome) => Outcome::Edit(outcome),
                Err(Stopped::Cancelled) => break,
                Err(Stopped::Here(failure)) => return Err(failure),
                Err(Stopped::Unit(what)) => Outcome::Failure(failure(FailureClass::Invalid, what)),
            };
            sink.commit(result(unit.unit, outcome), self.fingerprint.clone());
        }
        Ok(())
    }

    /// What the lease's edits have in common: their numbers, contexts and key statistics.
    pub(super) fn plan(&mut self, sink: &mut dyn Sink) -> Result<Plan, Stopped> {
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

    /// Contexts drawn from the version by the seed of the lease, unless they are those of the last one.
    fn drawn_contexts(&mut self, sink: &mut dyn Sink) -> Result<Vec<String>, Stopped> {
        let (version, seed) = (&self.lease.version, self.spec.seed);
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
        let unreadable = |what: String| {
            let what = format!("the key statistics cannot be read: {what}");
            Stopped::Here(failure(FailureClass::Transient, what))
        };
        let file = File::open(&statistics.path).map_err(|error| unreadable(error.to_string()))?;
        let moment = Moment::from_npz(BufReader::new(file))
            .map_err(|error| unreadable(error.to_string()))?;
        *self.factorised = Some(Factorised {
            covariance: KeyCovariance::new(&moment, ridge, self.device)?,
            digest: statistics.digest,
            ridge,
        });
        Ok(())
    }

    fn edit(
        &mut self,
        plan: &Plan,
        unit: u64,
        task: &v1::EditTask,
        sink: &mut dyn Sink,
    ) -> Result<v1::EditOutcome, Stopped> {
        let fact = task.request.clone().unwrap_or_default();
        let request = Request::from(fact.clone());
        let (update, steps) = self.compute(plan, unit, &request, sink)?;
        let (measured, probes) = self.measure(&request, task, &update)?;
        if let Some((name, value)) = measured.not_finite() {
            let error = Error::NotFinite { name, value };
            return Err(Stopped::Unit(error.to_string()));
        }
        let gates = gates(&self.spec.gates.unwrap_or_default());
        let verdict = measured::judge(&measured.figures(), &gates);
        let mut factor = self.factor(&update).to_proto();
        if factor.data.len() > INLINE {
            factor.digest = sink.put(&factor.data).map_err(Stopped::Here)?;
            factor.data.clear();
        }
        let statistics = self.spec.statistics.iter().map(|s| s.digest.clone());
        let task_name = self.lease.key.clone().unwrap_or_default().task;
        let edit = v1::Edit {
            requests: vec![fact],
            method: plan.method.to_string(),
            parameters: parameters(plan),
            contexts: plan.contexts.clone(),
            seed: self.spec.contexts.is_empty().then_some(self.spec.seed),
            statistics: statistics
                .filter(|_| plan.method.needs_statistics())
                .collect(),
            factors: vec![factor],
            figures: (measured.named().into_iter())
                .map(|(key, value)| v1::NamedNumber { key, value })
                .collect(),
            based_on: self.lease.version.clone(),
            state: match verdict.accepted() {
                true => v1::EditState::Accepted,
                false => v1::EditState::Rejected,
            } as i32,
            failed_gates: verdict.failed,
            job: task_name
                .split("/tasks/")
                .next()
                .unwrap_or_default()
                .to_owned(),
            fingerprint: describe(&self.fingerprint),
            layer_choice: self.spec.layer_choice.clone(),
            warnings: verdict.warnings,
            ..Default::default()
        };
        Ok(v1::EditOutcome {
            edit: Some(edit),
            probes,
            steps: steps.iter().map(step_to_proto).collect(),
        })
    }

    /// The change that writes a fact, and how it was found.
    pub(super) fn compute(
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

    fn factor(&self, update: &Update) -> Factor {
        let layout = self.loaded.base.checkpoint().layout();
        Factor {
            tensor: layout.layers[update.layer].down.weight.name.clone(),
            layer: update.layer,
            width: update.width(),
            inner: update.inner(),
            rank: update.rank,
            left: update.left.clone(),
            right: update.right.clone(),
        }
    }

    /// Runs the prompts on the version and on what it would be with the edit.
    fn measure(
        &mut self,
        request: &Request,
        task: &v1::EditTask,
        update: &Update,
    ) -> Result<(Measured, Vec<v1::EditProbe>), Stopped> {
        let asked = Asked::new(request, task);
        let norm = self.relative_norm(update);
        let first = asked.answers(&self.loaded.model)?;
        let second = self.with(update, |model| asked.answers(model))?;
        let measured = asked.measured(&first, &second?, norm);
        let probes = asked.probes(&measured);
        Ok((measured, probes))
    }

    /// The norm of an edit in norms of the matrix that it changes.
    pub(super) fn relative_norm(&self, update: &Update) -> f64 {
        let weight = self.loaded.model.down_projection(update.layer);
        update.norm() / weight.norm().double_value(&[])
    }

    /// Runs something on what the version would be with an edit, whose matrix is made as any worker or export makes it.
    /// The model has the version's matrices again afterwards.
    pub(super) fn with<T>(
        &mut self,
        update: &Update,
        run: impl FnOnce(&model::Model) -> T,
    ) -> Result<T, Stopped> {
        let factor = self.factor(update);
        let before = self.factors_of(&factor.tensor)?;
        let mut with: Vec<&Factor> = before.iter().collect();
        let pristine = self.loaded.base.matrix(&factor.tensor, &with)?;
        with.push(&factor);
        let edited = self.loaded.base.matrix(&factor.tensor, &with)?;
        self.put(update.layer, &factor.tensor, &edited)?;
        let done = run(&self.loaded.model);
        self.put(update.layer, &factor.tensor, &pristine)?;
        Ok(done)
    }

    /// The version's factors of a matrix.
    fn factors_of(&self, tensor: &str) -> Result<Vec<Factor>, Stopped> {
        let version = self.lease.leased_version.as_ref();
        let all = version.map_or(&[][..], |version| &version.factors);
        let of_tensor = all.iter().filter(|factor| factor.tensor_name == tensor);
        let factors = of_tensor.map(|factor| Factor::from_proto(factor, &factor.data));
        Ok(factors.collect::<Result<_, _>>()?)
    }

    fn put(&mut self, layer: usize, tensor: &str, matrix: &Matrix) -> Result<(), Stopped> {
        self.loaded.put(layer, tensor, matrix).map_err(|error| {
            // It may be between two versions now.
            self.loaded.version = "unknown".to_owned();
            Stopped::Here(failure(FailureClass::Transient, error.to_string()))
        })
    }
}

/// What is asked of the model before and after.
struct Asked {
    kinds: Vec<v1::EditProbeKind>,
    probes: Vec<Probe>,
    neighbours: Vec<String>,
    generic: Vec<String>,
}

struct Answers {
    effects: Vec<Effect>,
    neighbours: NextTokens,
    generic: NextTokens,
}

impl Asked {
    fn new(request: &Request, task: &v1::EditTask) -> Self {
        let mut kinds = vec![v1::EditProbeKind::Rewrite];
        let mut prompts = vec![request.text()];
        for (kind, texts) in [
            (v1::EditProbeKind::Paraphrase, &task.paraphrases),
            (v1::EditProbeKind::Neighbour, &task.neighbours),
        ] {
            kinds.extend(texts.iter().map(|_| kind));
            prompts.extend(texts.iter().cloned());
        }
        let probe = |prompt| Probe {
            prompt,
            target_new: request.target_new.clone(),
            target_true: request.target_true.clone(),
        };
        Self {
            kinds,
            probes: prompts.into_iter().map(probe).collect(),
            neighbours: task.neighbours.clone(),
            generic: GENERIC.map(str::to_owned).to_vec(),
        }
    }

    fn answers(&self, model: &model::Model) -> Result<Answers, Error> {
        let context = model.config().context;
        let fits = |text: &&String| {
            let encoded = model.tokenizer().encode(text);
            encoded.is_ok_and(|encoding| encoding.ids.len() <= context)
        };
        let generic: Vec<String> = self.generic.iter().filter(fits).cloned().collect();
        Ok(Answers {
            effects: edit::probe(model, &self.probes)?,
            neighbours: NextTokens::of(model, &self.neighbours, false)?,
            generic: NextTokens::of(model, &generic, true)?,
        })
    }
}

impl Asked {
    /// What an edit did, from the answers before and after it.
    fn measured(&self, first: &Answers, second: &Answers, norm: f64) -> Measured {
        let mut measured = Measured {
            neighbour_drifts: first.neighbours.drift(&second.neighbours),
            text_drifts: first.generic.drift(&second.generic),
            update_norm: norm,
            ..Measured::default()
        };
        let effects = first.effects.iter().zip(&second.effects);
        for (kind, (before, after)) in self.kinds.iter().zip(effects) {
            let of_kind = match kind {
                v1::EditProbeKind::Paraphrase => &mut measured.paraphrases,
                v1::EditProbeKind::Neighbour => &mut measured.neighbours,
                _ => &mut measured.rewrites,
            };
            of_kind.push(ProbeChange {
                new_before: before.new,
                new_after: after.new,
                true_before: before.old,
                true_after: after.old,
            });
        }
        measured
    }

    /// The prompts with what was measured of them, in the order in which they were asked.
    fn probes(&self, measured: &Measured) -> Vec<v1::EditProbe> {
        let all = (measured.rewrites.iter())
            .chain(&measured.paraphrases)
            .chain(&measured.neighbours);
        let prompts = self.kinds.iter().zip(&self.probes);
        let probes = prompts
            .zip(all)
            .map(|((&kind, probe), change)| v1::EditProbe {
                kind: kind as i32,
                prompt: probe.prompt.clone(),
                new_before: change.new_before,
                new_after: change.new_after,
                true_before: change.true_before,
                true_after: change.true_after,
            });
        probes.collect()
    }
}

fn gates(asked: &v1::EditGates) -> Gates {
    Gates {
        efficacy: asked.efficacy,
        neighbour_drift: asked.neighbour_drift,
        norm: asked.norm,
        norm_warning: asked.norm_warning,
    }
}

fn parameters(plan: &Plan) -> Vec<v1::NamedNumber> {
    let mut numbers = plan.hyper.named(plan.method);
    numbers.push(("layer", plan.hyper.layer as f64));
    numbers.sort_by_key(|(key, _)| *key);
    let named = |(key, value): (&str, f64)| v1::NamedNumber {
        key: key.to_owned(),
        value,
    };
    numbers.into_iter().map(named).collect()
}

fn step_to_proto(step: &Step) -> v1::EditStep {
    v1::EditStep {
        loss: step.loss,
        nll: step.nll,
        probability: step.probability,
        drift: step.drift,
    }
}

/// A fingerprint in words, as an edit keeps it.
fn describe(fingerprint: &v1::Fingerprint) -> String {
    format!(
        "{}, {}, {} threads, libtorch {}, engine {}",
        fingerprint.device,
        fingerprint.dtype,
        fingerprint.threads,
        fingerprint.libtorch,
        fingerprint.engine_revision
    )
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
