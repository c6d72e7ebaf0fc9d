//! Units of a mass edit: contexts, targets, keys, solves, measures, and the edit that is made of
//! them.

use tch::{Device, Tensor};

use super::super::engine::Sink;
use super::super::prepare::Prepared;
use super::edit::{Asked, job_of};
use super::gates::Readings;
use super::kept::Kept;
use super::loaded::Loaded;
use super::mass_figures::{
    largest, named, of_batch, of_left_out, of_targets, parted, scores, share, spread, summed_up,
};
use super::mass_metric::{Made, Making};
use super::mass_parts::{
    NAMED, Statistics, Watched, bytes, first_request, in_words, of_fact, requests, tensor,
};
use super::units::{Kind, Stopped, mixed};
use crate::edit::measured;
use crate::edit::{
    self, Contexts, Error, Hyperparameters, Method, NextTokens, Overrides, Request, Solved,
};
use crate::model::Model;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, MassEditStep, leased_unit::Spec as Unit};
use crate::version::Factor;
use crate::wire;

/// The units of a lease.
pub(super) struct MassEdits<'a> {
    loaded: &'a mut Loaded,
    pub(super) device: Device,
    kept: Kept,
    pub(super) ready: &'a Prepared,
    pub(super) spec: &'a v1::MassEditSpec,
    fingerprint: v1::Fingerprint,
    pub(super) method: Method,
    pub(super) hyper: Hyperparameters,
    /// Texts with one `{}` for the sentence, the bare one first.
    contexts: Vec<String>,
    /// What stands before the sentence in them, on the model as the lease's step has it.
    shared: Option<Contexts>,
    /// The layers that are written so far in the batch, with their matrices before and after; none
    /// before they are asked for.
    written: Option<Vec<Written>>,
}

/// A layer that the batch has written.
struct Written {
    layer: usize,
    tensor: String,
    before: Tensor,
    after: Tensor,
}

impl<'a> MassEdits<'a> {
    /// For a model in memory at the lease's version.
    ///
    /// # Errors
    /// [`Stopped::Unit`] for numbers that the model cannot be edited with.
    pub fn new(
        loaded: &'a mut Loaded,
        (device, kept): (Device, Kept),
        ready: &'a Prepared,
        spec: &'a v1::MassEditSpec,
        fingerprint: v1::Fingerprint,
    ) -> Result<Self, Error> {
        let method: Method = spec.method.parse()?;
        let last = spec.layers.last().map(|&layer| layer as usize);
        let mut overrides = Overrides::at(last);
        for number in &spec.parameters {
            overrides.set(method, &number.key, number.value)?;
        }
        let config = loaded.model.config();
        let hyper = Hyperparameters::new(method, config, &overrides)?;
        (spec.layers.iter()).try_for_each(|&layer| config.has_key(layer as usize))?;
        let others = spec.contexts.iter().filter(|context| *context != "{}");
        Ok(Self {
            contexts: std::iter::once("{}".to_owned())
                .chain(others.cloned())
                .collect(),
            loaded,
            device,
            kept,
            ready,
            spec,
            fingerprint,
            method,
            hyper,
            shared: None,
            written: None,
        })
    }

    /// Runs something on the version with what the batch has written so far. The model has the
    /// version's matrices again afterwards.
    pub(super) fn on_written<T>(&mut self, run: impl FnOnce(&Self) -> T) -> Result<T, Stopped> {
        self.prepare_written()?;
        let written = self.written.take().unwrap_or_default();
        let mut lent = Vec::with_capacity(written.len());
        for one in &written {
            lent.push(self.loaded.lend(one.layer, &one.tensor));
        }
        for one in &written {
            let put = self.loaded.model.set_down_projection(one.layer, &one.after);
            put.map_err(Stopped::transient)?;
        }
        let done = run(self);
        for one in &written {
            let put = self
                .loaded
                .model
                .set_down_projection(one.layer, &one.before);
            put.map_err(Stopped::transient)?;
        }
        while let Some(lent) = lent.pop() {
            self.loaded.give_back(lent);
        }
        self.written = Some(written);
        Ok(done)
    }

    /// Makes the matrices of the layers that are written, as a version would have them.
    fn prepare_written(&mut self) -> Result<(), Stopped> {
        if self.written.is_some() {
            return Ok(());
        }
        let mut written = Vec::with_capacity(self.ready.mass.added.len());
        for factor in &self.ready.mass.added {
            let with = self.with_change(factor)?;
            let matrix = self.loaded.base.grow(&factor.tensor, &with)?;
            let lent = self.loaded.lend(factor.layer, &factor.tensor);
            let before = self.loaded.model.down_projection(factor.layer)?;
            let before = before.shallow_clone();
            let put = self.loaded.put(factor.layer, &factor.tensor, &matrix);
            put.map_err(Stopped::transient)?;
            let after = self.loaded.model.down_projection(factor.layer)?;
            let after = after.shallow_clone();
            let back = self.loaded.model.set_down_projection(factor.layer, &before);
            back.map_err(Stopped::transient)?;
            self.loaded.give_back(lent);
            written.push(Written {
                layer: factor.layer,
                tensor: factor.tensor.clone(),
                before,
                after,
            });
        }
        self.written = Some(written);
        Ok(())
    }

    pub(super) fn model(&self) -> &Model {
        &self.loaded.model
    }

    fn contexts(&self, sink: &mut dyn Sink) -> Result<v1::MassEditContexts, Stopped> {
        let contexts = edit::sample_openings(self.model(), self.spec.seed, || {
            sink.advance(1);
            !sink.cancelled()
        })?;
        Ok(v1::MassEditContexts { contexts })
    }

    /// The contexts as the model reads them in its first `layers` layers, with what is written so
    /// far: once a lease, whose units are all of one step.
    fn shared(&mut self, layers: usize, sink: &mut dyn Sink) -> Result<Contexts, Stopped> {
        match self.shared.take() {
            Some(shared) if shared.layers() == layers => Ok(shared),
            _ => {
                let watch = Watched::new(sink);
                let read =
                    self.on_written(|it| Contexts::read(it.model(), &it.contexts, layers, &watch))?;
                Ok(read?)
            }
        }
    }

    fn target(
        &mut self,
        asked: &v1::MassEditUnit,
        sink: &mut dyn Sink,
    ) -> Result<v1::MassEditTarget, Stopped> {
        let read = asked.keys.first().map_or(0, |range| range.first_unit);
        if let Some(Outcome::Failure(failure)) = self.ready.mass.results.get(&read) {
            return Err(Stopped::Unit(failure.message.clone()));
        }
        let requests: Vec<Request> = requests(asked).collect();
        let shared = self.shared(self.model().config().layers, sink)?;
        let watch = Watched::new(sink);
        let found = edit::target(self.model(), &requests, &shared, &self.hyper, &watch);
        self.shared = Some(shared);
        let found = found.map_err(|error| of_fact(error, asked))?;
        let last = found.steps.last();
        Ok(v1::MassEditTarget {
            value: bytes(&found.value)?,
            steps: found.steps.len() as u32,
            loss: last.map_or(0.0, |step| step.loss),
            probability: last.map_or(0.0, |step| step.probability),
            length: found.length,
            at_first_token: found.at_first_token,
        })
    }

    pub(super) fn layers(&self) -> Vec<usize> {
        self.spec
            .layers
            .iter()
            .map(|&layer| layer as usize)
            .collect()
    }

    fn layer(&self, asked: &v1::MassEditUnit) -> Result<usize, Stopped> {
        let layer = self.spec.layers.get(asked.layer_index as usize);
        let layer = layer.ok_or_else(|| Stopped::transient("the unit is of no edited layer"))?;
        Ok(*layer as usize)
    }

    /// The keys of a group at some layers, and what the last edited layer gives, with what is
    /// written so far.
    pub(super) fn read(
        &mut self,
        asked: &v1::MassEditUnit,
        layers: &[usize],
        sink: &mut dyn Sink,
    ) -> Result<edit::MassKeys, Stopped> {
        let request = first_request(asked)?;
        let top = layers.iter().copied().max().unwrap_or(0);
        let shared = self.shared(top + 1, sink)?;
        let watch = Watched::new(sink);
        let last = self.hyper.layer;
        let read = self.on_written(|it| {
            edit::mass_keys(it.model(), &request, &shared, layers, last, &watch)
        })?;
        self.shared = Some(shared);
        read.map_err(|error| of_fact(error, asked))
    }

    fn keys(
        &mut self,
        asked: &v1::MassEditUnit,
        sink: &mut dyn Sink,
    ) -> Result<v1::MassEditKeys, Stopped> {
        let layer = self.layer(asked)?;
        let target = self.target_of(asked)?;
        let read = self.read(asked, &[layer], sink)?;
        sink.advance(1);
        let _no_grad = tch::no_grad_guard();
        let wanted = tensor(&target.value).to_device(self.device);
        Ok(v1::MassEditKeys {
            keys: read.keys.iter().map(bytes).collect::<Result<_, _>>()?,
            residual: bytes(&(wanted - read.output))?,
            at_first_token: read.at_first_token,
        })
    }

    /// The target of a unit's group. A group whose target was not found is left out.
    fn target_of(&self, asked: &v1::MassEditUnit) -> Result<&'a v1::MassEditTarget, Stopped> {
        let unit = asked.targets.map_or(0, |range| range.first_unit);
        match self.ready.mass.results.get(&unit) {
            Some(Outcome::MassEditTarget(target)) => Ok(target),
            Some(Outcome::Failure(failure)) => Err(Stopped::Unit(failure.message.clone())),
            _ => Err(Stopped::transient(format!("unit {unit} is no target"))),
        }
    }

    fn keys_after(
        &mut self,
        asked: &v1::MassEditUnit,
        sink: &mut dyn Sink,
    ) -> Result<v1::MassEditKeys, Stopped> {
        if asked.targets.is_some() {
            self.target_of(asked)?;
        }
        let layers = self.layers();
        let read = self.read(asked, &layers, sink)?;
        sink.advance(1);
        Ok(v1::MassEditKeys {
            keys: read.keys.iter().map(bytes).collect::<Result<_, _>>()?,
            residual: Vec::new(),
            at_first_token: read.at_first_token,
        })
    }

    /// The keys that units of a range have of a layer, and their residuals, one a column and in
    /// their order; without those of groups that were left out.
    fn columns(&self, range: &v1::UnitRange, layer: usize) -> Result<(Tensor, Tensor), Stopped> {
        let inner = self.model().down_projection(layer)?.size()[1];
        let (mut keys, mut residuals) = (Vec::new(), Vec::new());
        for unit in range.first_unit..range.first_unit + range.units {
            let read = match self.ready.mass.results.get(&unit) {
                Some(Outcome::MassEditKeys(read)) => read,
                Some(Outcome::Failure(_)) => continue,
                _ => return Err(Stopped::transient(format!("unit {unit} has no keys"))),
            };
            let key = tensor(read.keys.first().map_or(&[][..], Vec::as_slice));
            // The coordinator knows the model's width, and not how long a key is.
            if key.size() != [inner] {
                let found = key.size()[0];
                return Err(Stopped::Unit(format!(
                    "the key of unit {unit} has {found} numbers, those of layer {layer} have {inner}: \
                     edit these facts in another job"
                )));
            }
            keys.push(key);
            residuals.push(tensor(&read.residual));
        }
        if keys.is_empty() {
            return Err(Stopped::Unit(
                "every fact of the batch was left out: the job's results say why".to_owned(),
            ));
        }
        let stack = |columns: &[Tensor]| Tensor::stack(columns, 1).to_device(self.device);
        Ok((stack(&keys), stack(&residuals)))
    }

    fn solve(
        &mut self,
        asked: &v1::MassEditUnit,
        sink: &mut dyn Sink,
    ) -> Result<v1::MassEditSolved, Stopped> {
        let _no_grad = tch::no_grad_guard();
        let layer = self.layer(asked)?;
        let (groups, (keys, missing)) = match asked.keys.first() {
            Some(range) => (self.read_places(range), self.columns(range, layer)?),
            // Facts are taken out: the others' are kept.
            None => (Vec::new(), self.kept_columns(asked, layer)?),
        };
        let left = self.spec.layers.len() - asked.layer_index as usize;
        let statistics = Statistics::of(self.ready.statistics.as_deref(), self.spec, layer)?;
        let inner = keys.size()[0];
        if statistics.channels as i64 != inner {
            return Err(Stopped::from(Error::StatisticsSize {
                found: statistics.channels,
                expected: inner as usize,
            }));
        }
        let mut figures: Vec<(&'static str, f64)> = Vec::new();
        let mut warnings = Vec::new();
        if self.ready.mass.without_keys > 0 {
            warnings.push(format!(
                "{} earlier edits of layer {layer} keep no keys, and are not protected by {}",
                self.ready.mass.without_keys, self.method
            ));
        }
        let past = (!self.ready.mass.past.is_empty())
            .then(|| tensor(&self.ready.mass.past).view([-1, inner]).tr())
            .map(|past| past.to_device(self.device));
        let facts = keys.size()[1] as u64;
        let Made {
            metric,
            damping,
            weight,
            figures: of_metric,
            .. // the pre-flight said what is unusual
        } = self.making(&statistics).metric(past.as_ref(), facts)?;
        figures.extend(of_metric);
        let residuals = edit::residuals(self.model().config(), &missing, left);
        let solved = edit::solve(&metric, &keys, &residuals, damping)?;
        sink.advance(facts);
        let shares = solved.leverage.iter().map(|it| share(damping, *it));
        let leverage = solved.leverage.iter().map(|it| it * weight);
        spread(&mut figures, ["leverage.least", "leverage.mean"], leverage);
        spread(&mut figures, ["share.least", "share.mean"], shares);
        let lengths = Vec::<f64>::try_from(
            &missing
                .norm_scalaropt_dim(2.0, [0i64].as_slice(), false)
                .to_device(Device::Cpu),
        );
        let lengths = lengths.map_err(Error::from)?;
        spread(&mut figures, ["missing.least", "missing.mean"], lengths);
        let norm = solved.norm();
        let weight = self
            .model()
            .down_projection(layer)?
            .norm()
            .double_value(&[]);
        figures.extend([("norm", norm), ("relative_norm", norm / weight)]);
        figures.sort_by_key(|(key, _)| *key);
        let factor = self.stored(layer, &solved, sink)?;
        let (solve, protected) = self.kept(asked, &factor, (&keys, &missing), sink)?;
        let all = asked.keys.first().map_or(0, |range| range.units);
        Ok(v1::MassEditSolved {
            factor: Some(factor),
            figures: figures.into_iter().map(named).collect(),
            warnings,
            solve,
            keys: protected,
            groups: match groups.len() as u64 == all {
                true => Vec::new(),
                false => groups,
            },
        })
    }

    /// What the metric of a layer is made of.
    pub(super) fn making<'b>(&'b self, statistics: &'b Statistics<'b>) -> Making<'b> {
        Making {
            method: self.method,
            hyper: &self.hyper,
            device: self.device,
            kept: &self.kept,
            made_by: &self.fingerprint,
            statistics,
        }
    }

    /// A change as versions keep it, with its numbers in an object.
    fn stored(
        &self,
        layer: usize,
        solved: &Solved,
        sink: &mut dyn Sink,
    ) -> Result<v1::LowRankFactor, Stopped> {
        let (rank, left, right) = solved.stored()?;
        let down = self.loaded.base.checkpoint().down_projection(layer)?;
        let factor = Factor {
            tensor: down.weight.name.clone(),
            layer,
            width: solved.left.size()[0] as usize,
            inner: solved.right.size()[0] as usize,
            rank,
            left,
            right,
        };
        let mut described = factor.to_proto();
        described.digest = sink.put(&described.data).map_err(Stopped::Here)?;
        described.data.clear();
        Ok(described)
    }

    fn measure(
        &mut self,
        asked: &v1::MassEditUnit,
        sink: &mut dyn Sink,
    ) -> Result<v1::MassEditFact, Stopped> {
        if asked.targets.is_some() {
            self.target_of(asked)?;
        }
        let task = asked.tasks.first().cloned().unwrap_or_default();
        let fact = task.request.clone().unwrap_or_default();
        let of_prompts = Asked::new(&Request::from(fact.clone()), &task, false);
        let first = of_prompts.answers(self.model());
        let first = first.map_err(|error| of_fact(error, asked))?;
        let second = self.on_written(|it| of_prompts.answers(it.model()))?;
        let second = second.map_err(|error| of_fact(error, asked))?;
        sink.advance(1);
        let measured = of_prompts.measured(&first, &second, 0.0);
        Ok(v1::MassEditFact {
            request: Some(fact),
            probes: of_prompts.probes(&measured),
            neighbour_drifts: measured.neighbour_drifts,
            batch: asked.batch,
        })
    }

    /// The edit of a batch, with what was measured of it.
    fn edit(
        &mut self,
        asked: &v1::MassEditUnit,
        sink: &mut dyn Sink,
    ) -> Result<v1::EditOutcome, Stopped> {
        let solved =
            asked.solved.iter().map(
                |range| match self.ready.mass.results.get(&range.first_unit) {
                    Some(Outcome::MassEditSolved(solved)) => Ok(solved),
                    _ => Err(Stopped::transient(format!(
                        "unit {} is no change",
                        range.first_unit
                    ))),
                },
            );
        let solved: Vec<&v1::MassEditSolved> = solved.collect::<Result<_, _>>()?;
        let range = asked.measured.unwrap_or_default();
        let (mut facts, mut has) = (Vec::<&v1::MassEditFact>::new(), Vec::new());
        for unit in range.first_unit..range.first_unit + range.units {
            let result = self.ready.mass.results.get(&unit);
            has.push(matches!(result, Some(Outcome::MassEditFact(_))));
            match result {
                Some(Outcome::MassEditFact(fact)) => facts.push(fact),
                Some(Outcome::Failure(_)) if self.spec.keep_going => {}
                _ => {
                    let what = format!("unit {unit} is no measured fact");
                    return Err(Stopped::transient(what));
                }
            }
        }
        let without = self.spec.without.as_ref();
        let (facts, taken_out) = parted(facts, without);
        has.truncate(asked.tasks.len());
        let left_out = asked.tasks.len() - facts.len().min(asked.tasks.len());
        let none = v1::MassEditChecked::default();
        let checked = match asked.checked {
            Some(range) => match self.ready.mass.results.get(&range.first_unit) {
                Some(Outcome::MassEditChecked(checked)) => checked,
                _ => {
                    let what = format!("unit {} is no check", range.first_unit);
                    return Err(Stopped::transient(what));
                }
            },
            // What facts are taken out of was checked when it was written.
            None => &none,
        };
        let overwritten = self.overwritten(checked)?;
        let mut measured = summed_up(&facts);
        measured.update_norm = largest(&solved, "relative_norm");
        let generic = Asked::generic(self.model());
        let drift = |model: &Model| NextTokens::of(model, &generic);
        let before = drift(self.model())?;
        let after = self.on_written(|it| drift(it.model()))??;
        measured.text_drifts = before.drift(&after);
        let inputs = &self.ready.gate_inputs;
        let read = |model: &Model| Readings::of(model, inputs, sink);
        let before = read(self.model())?;
        let after = self.on_written(|it| read(it.model()))??;
        before.note(&after, inputs, &mut measured);
        if let Some((name, value)) = measured.not_finite() {
            return Err(Stopped::from(Error::NotFinite { name, value }));
        }
        let keys = self.kept_keys(asked, &solved, sink)?;
        let mut columns = self.facts_of_columns(asked, &solved, &has);
        if keys.iter().any(|it| it.columns as usize != columns.len()) {
            columns.clear();
        }
        let gates = wire::gates(&self.spec.gates.unwrap_or_default());
        let verdict = measured::judge(&measured.figures(), &gates);
        let mut figures: Vec<v1::NamedNumber> = (measured.named().into_iter())
            .map(|(key, value)| v1::NamedNumber { key, value })
            .chain(scores(&facts).into_iter().map(named))
            .chain(of_left_out(&taken_out, without))
            .collect();
        if without.is_none() {
            let count = checked.overwritten_count as f64;
            figures.extend(of_batch(self.spec, asked, facts.len()).map(named));
            figures.push(named(("overwritten", count)));
        }
        for solved in &solved {
            let layer = solved.factor.as_ref().map_or(0, |factor| factor.layer);
            figures.extend(solved.figures.iter().map(|figure| v1::NamedNumber {
                key: format!("layer.{layer}.{}", figure.key),
                value: figure.value,
            }));
        }
        let targets = asked.targets.unwrap_or_default();
        let targets =
            (targets.first_unit..targets.first_unit + targets.units).filter_map(|unit| match self
                .ready
                .mass
                .results
                .get(&unit)
            {
                Some(Outcome::MassEditTarget(target)) => Some(target),
                _ => None,
            });
        let targets: Vec<&v1::MassEditTarget> = targets.collect();
        figures.extend(of_targets(&targets).into_iter().map(named));
        let mut parameters = wire::parameters(self.method, &self.hyper);
        // All of them are in the factors.
        parameters.retain(|number| number.key != "layer");
        let mut warnings = checked.warnings.clone();
        warnings.extend(solved.iter().flat_map(|solved| solved.warnings.clone()));
        warnings.extend(overwritten.iter().take(NAMED).filter_map(in_words));
        if left_out > 0 {
            warnings.push(format!(
                "{left_out} of {} facts were left out: the job's results say why",
                asked.tasks.len()
            ));
        }
        warnings.extend(verdict.warnings);
        let lease = &self.ready.lease;
        let edit = v1::Edit {
            requests: facts.iter().filter_map(|it| it.request.clone()).collect(),
            method: self.method.to_string(),
            parameters,
            contexts: self.contexts.clone(),
            seed: Some(self.spec.seed),
            statistics: self
                .spec
                .statistics
                .iter()
                .map(|one| one.digest.clone())
                .collect(),
            factors: solved
                .iter()
                .filter_map(|solved| solved.factor.clone())
                .collect(),
            figures,
            based_on: lease.version.clone(),
            state: match verdict.failed.is_empty() {
                true => v1::EditState::Accepted,
                false => v1::EditState::Rejected,
            } as i32,
            failed_gates: verdict.failed,
            job: job_of(lease),
            fingerprint: wire::describe(&self.fingerprint),
            layer_choice: self.spec.layer_choice.clone(),
            warnings,
            keys,
            solves: match columns.is_empty() || solved.iter().any(|it| it.solve.is_none()) {
                true => Vec::new(),
                false => solved.iter().filter_map(|it| it.solve.clone()).collect(),
            },
            columns,
            ..Default::default()
        };
        Ok(v1::EditOutcome {
            edit: Some(edit),
            overwritten,
            ..Default::default()
        })
    }

    /// The keys that the edit keeps for later ones, each layer's an object. Where facts are taken
    /// out they are of the solves.
    fn kept_keys(
        &self,
        asked: &v1::MassEditUnit,
        solved: &[&v1::MassEditSolved],
        sink: &mut dyn Sink,
    ) -> Result<Vec<v1::EditKeys>, Stopped> {
        let mut kept = Vec::new();
        if asked.keys.is_empty() {
            kept.extend(solved.iter().filter_map(|solved| solved.keys.clone()));
            return Ok(kept);
        }
        for (at, solved) in solved.iter().enumerate() {
            // One range for all layers, or one a layer.
            let range = asked
                .keys
                .get(at)
                .or(asked.keys.first())
                .copied()
                .unwrap_or_default();
            let (mut all, mut columns) = (Vec::new(), 0);
            for unit in range.first_unit..range.first_unit + range.units {
                let read = match self.ready.mass.results.get(&unit) {
                    Some(Outcome::MassEditKeys(read)) => read,
                    Some(Outcome::Failure(_)) => continue,
                    _ => return Err(Stopped::transient(format!("unit {unit} has no keys"))),
                };
                columns += 1;
                let key = read.keys.get(at).or(read.keys.first());
                all.extend_from_slice(key.map_or(&[][..], Vec::as_slice));
            }
            let factor = solved.factor.clone().unwrap_or_default();
            kept.push(v1::EditKeys {
                digest: sink.put(&all).map_err(Stopped::Here)?,
                tensor_name: factor.tensor_name,
                layer: factor.layer,
                inner: factor.inner,
                columns,
            });
        }
        Ok(kept)
    }
}

impl Kind for MassEdits<'_> {
    fn compute(
        &mut self,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Outcome>, Stopped> {
        let Some(Unit::MassEdit(asked)) = &units[0].spec else {
            return Err(mixed(&units[0]));
        };
        let outcome = match asked.step() {
            MassEditStep::Contexts => Outcome::MassEditContexts(self.contexts(sink)?),
            MassEditStep::CheckKeys => Outcome::MassEditKeys(self.check_keys(asked, sink)?),
            MassEditStep::Check => Outcome::MassEditChecked(self.check(asked, sink)?),
            MassEditStep::Target => Outcome::MassEditTarget(self.target(asked, sink)?),
            MassEditStep::Keys => Outcome::MassEditKeys(self.keys(asked, sink)?),
            MassEditStep::Solve => Outcome::MassEditSolved(self.solve(asked, sink)?),
            MassEditStep::KeysAfter => Outcome::MassEditKeys(self.keys_after(asked, sink)?),
            MassEditStep::Measure => Outcome::MassEditFact(self.measure(asked, sink)?),
            MassEditStep::Edit => Outcome::Edit(self.edit(asked, sink)?),
            MassEditStep::Unspecified => return Err(mixed(&units[0])),
        };
        Ok(vec![outcome])
    }
}
