//! The units of an editing lease: a fact computed, made into a matrix as a version would have it, and measured.

use std::cell::RefCell;
use std::fs::File;
use std::io::BufReader;

use tch::Device;

use super::super::engine::{Sink, failure, result};
use super::Loaded;
use crate::edit::{
    self, ContextPlan, Effect, Error, Hyper, Method, Metric, Overrides, Probe, Request, Sayings,
    Step, Update,
};
use crate::model;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, FailureClass, leased_unit::Spec};
use crate::stats::Moment;
use crate::version::{self, Factor, Matrix};

/// Factors up to this many bytes travel in the result; larger ones as objects.
const INLINE: usize = 1 << 20;

/// A change of more than this part of its matrix is worth a warning, where nobody says otherwise.
const LARGE: f64 = 0.5;

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
    metric: Metric,
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
    hyper: Hyper,
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
        let number = |name: &str| {
            let named = self.spec.parameters.iter().find(|p| p.key == name);
            named.map(|p| p.value)
        };
        let overrides = Overrides {
            layer: self.spec.layer.map(|layer| layer as usize),
            steps: number("steps").map(|steps| steps as usize),
            learning_rate: number("learning_rate"),
            clamp: number("clamp"),
            weight_decay: number("weight_decay"),
            kl_factor: number("kl_factor"),
            stop_loss: number("stop_loss"),
            ridge: number("ridge"),
            bound: number("bound"),
        };
        let hyper = Hyper::new(method, self.loaded.model.config(), &overrides)?;
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
            metric: Metric::new(&moment, ridge, self.device)?,
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
        let measured = self.measure(&request, task, &update)?;
        let gates = self.spec.gates.unwrap_or_default();
        let failed_gates = measured.failed_gates(&gates);
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
            figures: measured.figures(),
            based_on: self.lease.version.clone(),
            state: match failed_gates.is_empty() {
                true => v1::EditState::Accepted,
                false => v1::EditState::Rejected,
            } as i32,
            failed_gates,
            job: task_name
                .split("/tasks/")
                .next()
                .unwrap_or_default()
                .to_owned(),
            fingerprint: describe(&self.fingerprint),
            layer_choice: self.spec.layer_choice.clone(),
            warnings: measured.warnings(&gates),
            ..Default::default()
        };
        Ok(v1::EditOutcome {
            edit: Some(edit),
            probes: measured.probes,
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
                    &factorised.metric,
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
    ) -> Result<Measured, Stopped> {
        let asked = Asked::new(request, task);
        let norm = self.relative_norm(update);
        let first = asked.answers(&self.loaded.model)?;
        let second = self.with(update, |model| asked.answers(model))?;
        Ok(Measured::new(&asked, &first, &second?, norm))
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
    neighbours: Sayings,
    generic: Sayings,
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
            neighbours: Sayings::of(model, &self.neighbours, false)?,
            generic: Sayings::of(model, &generic, true)?,
        })
    }
}

/// What an edit did.
struct Measured {
    probes: Vec<v1::EditProbe>,
    neighbour_drift: Option<f64>,
    text_drift: Option<f64>,
    norm: f64,
}

impl Measured {
    fn new(asked: &Asked, first: &Answers, second: &Answers, norm: f64) -> Self {
        let effects = first.effects.iter().zip(&second.effects);
        let prompts = asked.kinds.iter().zip(&asked.probes);
        let probes = prompts
            .zip(effects)
            .map(|((&kind, probe), (before, after))| v1::EditProbe {
                kind: kind as i32,
                prompt: probe.prompt.clone(),
                new_before: before.new,
                new_after: after.new,
                true_before: before.old,
                true_after: after.old,
            });
        Self {
            probes: probes.collect(),
            neighbour_drift: mean(first.neighbours.drift(&second.neighbours)),
            text_drift: mean(first.generic.drift(&second.generic)),
            norm,
        }
    }

    fn of(&self, kind: v1::EditProbeKind) -> impl Iterator<Item = &v1::EditProbe> {
        self.probes.iter().filter(move |probe| probe.kind() == kind)
    }

    /// The margin of the new target over the true one after the edit.
    fn margin(&self) -> f64 {
        let rewritten = self.of(v1::EditProbeKind::Rewrite);
        let margins = rewritten.map(|p| p.new_after - p.true_after.unwrap_or_default());
        margins.fold(f64::INFINITY, f64::min)
    }

    fn failed_gates(&self, gates: &v1::EditGates) -> Vec<String> {
        // What is not a number passes no gate.
        let fails =
            |larger: f64, smaller: f64| larger.is_nan() || smaller.is_nan() || larger < smaller;
        let mut failed = Vec::new();
        if let Some(least) = gates.efficacy.filter(|&least| fails(self.margin(), least)) {
            failed.push(format!(
                "efficacy: the new target's margin is {:.3}, the gate asks for {least}",
                self.margin()
            ));
        }
        let drift = self.neighbour_drift.unwrap_or_default();
        if let Some(most) = gates.neighbour_drift.filter(|&most| fails(most, drift)) {
            failed.push(format!(
                "neighbours: they drift by {drift:.3} nats, the gate allows {most}"
            ));
        }
        if let Some(most) = gates.norm.filter(|&most| fails(most, self.norm)) {
            failed.push(format!(
                "norm: the change has {:.3} of the matrix's norm, the gate allows {most}",
                self.norm
            ));
        }
        failed
    }

    fn warnings(&self, gates: &v1::EditGates) -> Vec<String> {
        let most = gates.norm_warning.unwrap_or(LARGE);
        let large = self.norm.is_nan() || self.norm > most;
        let warning = format!(
            "the change has {:.3} of the matrix's norm, more than {most}: so large a change may wreck the model; try \
             another layer, more key statistics, or a lower clamp",
            self.norm
        );
        large.then_some(warning).into_iter().collect()
    }

    fn figures(&self) -> Vec<v1::NamedNumber> {
        let mut figures = Vec::new();
        let mut add = |key: String, value: Option<f64>| {
            figures.extend(value.map(|value| v1::NamedNumber { key, value }));
        };
        for (name, kind) in [
            ("rewrite", v1::EditProbeKind::Rewrite),
            ("paraphrases", v1::EditProbeKind::Paraphrase),
            ("neighbours", v1::EditProbeKind::Neighbour),
        ] {
            let all = || self.of(kind);
            add(
                format!("{name}.new.before"),
                mean(all().map(|p| p.new_before)),
            );
            add(
                format!("{name}.new.after"),
                mean(all().map(|p| p.new_after)),
            );
            add(
                format!("{name}.true.before"),
                mean(all().filter_map(|p| p.true_before)),
            );
            add(
                format!("{name}.true.after"),
                mean(all().filter_map(|p| p.true_after)),
            );
        }
        add("neighbours.drift".into(), self.neighbour_drift);
        add("text.drift".into(), self.text_drift);
        add("update_norm".into(), Some(self.norm));
        figures.sort_by(|a, b| a.key.cmp(&b.key));
        figures
    }
}

fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

fn parameters(plan: &Plan) -> Vec<v1::NamedNumber> {
    let hyper = &plan.hyper;
    let mut numbers = vec![
        ("layer", hyper.layer as f64),
        ("learning_rate", hyper.learning_rate),
        ("steps", hyper.steps as f64),
        ("stop_loss", hyper.stop_loss),
    ];
    match plan.method {
        Method::FtL => numbers.push(("bound", hyper.bound)),
        Method::RRome | Method::Rome => numbers.extend([
            ("clamp", hyper.clamp),
            ("kl_factor", hyper.kl_factor),
            ("ridge", hyper.ridge),
            ("weight_decay", hyper.weight_decay),
        ]),
    }
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
    hyper: Hyper,
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
