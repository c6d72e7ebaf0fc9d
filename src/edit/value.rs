//! The value that makes the model say the new object.

use tch::{Kind, Tensor};

use super::adam::Adam;
use super::rows::Row;
use super::stage::{Group, stage, values};
use super::{Error, Hyper, Step, Watch};
use crate::model::Model;

/// Seeks what to add to the MLP output at the subject's last token.
///
/// Minimises `mean over contexts of NLL(target) / target tokens + kl_factor * KL(now || at the start)` of what is said of
/// the subject alone `+ weight_decay * |delta| / |v0|^2`, by Adam from `delta = 0`, with `|delta| <= clamp * |v0|` after
/// every update.
#[derive(Debug)]
pub struct Optimiser<'a> {
    model: &'a Model,
    hyper: Hyper,
    /// The sentence in its contexts, and the targets to read in each group, `[rows, reads, 1]`.
    rewriting: Vec<(Group, Tensor)>,
    /// The rows whose continuation is to stay.
    essence: Vec<Group>,
    /// Their log-probabilities at the start.
    start: Vec<Tensor>,
    /// Length of the clean value of the bare sentence.
    length: f64,
    /// `[width]` in float32.
    delta: Tensor,
    adam: Adam,
    step: usize,
}

/// A measured step, with its loss still on the graph.
struct Measured {
    loss: Tensor,
    step: Step,
}

impl<'a> Optimiser<'a> {
    /// From rows already staged: `rewriting` with each row's target, and `clean`, the bare sentence's MLP output,
    /// `[width]`.
    pub(super) fn new(
        model: &'a Model,
        hyper: &Hyper,
        rewriting: Vec<Group>,
        targets: &[Vec<u32>],
        essence: Vec<Group>,
        clean: &Tensor,
    ) -> Result<Self, Error> {
        let with_targets = |group: Group| -> Result<(Group, Tensor), Error> {
            let ids: Vec<i64> = group
                .rows
                .iter()
                .flat_map(|&row| &targets[row])
                .map(|&id| i64::from(id))
                .collect();
            let ids = Tensor::from_slice(&ids)
                .view([group.rows.len() as i64, group.reads, 1])
                .to_device(model.device());
            Ok((group, ids))
        };
        let rewriting = rewriting.into_iter().map(with_targets);
        let width = model.config().width as i64;
        let delta = Tensor::zeros([width], (Kind::Float, model.device())).set_requires_grad(true);
        Ok(Self {
            model,
            hyper: *hyper,
            rewriting: rewriting.collect::<Result<_, _>>()?,
            essence,
            start: Vec::new(),
            length: clean.norm().double_value(&[]),
            adam: Adam::new(&delta, hyper.learning_rate),
            delta,
            step: 0,
        })
    }

    /// Steps until the loss is low or the steps are used up, and gives `delta`, `[width]` in float32. The last step is
    /// only measured.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::Diverged`].
    pub fn run(mut self, watch: &dyn Watch) -> Result<(Tensor, Vec<Step>), Error> {
        let mut steps = Vec::with_capacity(self.hyper.steps);
        loop {
            let measured = self.measure(watch)?;
            watch.step(&measured.step);
            steps.push(measured.step);
            let last = self.step + 1 == self.hyper.steps;
            if last || measured.step.loss < self.hyper.stop_loss {
                return Ok((self.delta.detach(), steps));
            }
            self.update(&measured.loss);
        }
    }

    /// Measures and updates once, whatever the loss: what a step costs.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::Diverged`].
    pub fn step(&mut self, watch: &dyn Watch) -> Result<Step, Error> {
        let measured = self.measure(watch)?;
        self.update(&measured.loss);
        Ok(measured.step)
    }

    fn measure(&mut self, watch: &dyn Watch) -> Result<Measured, Error> {
        let (model, layer) = (self.model, self.hyper.layer);
        let mut losses = Vec::with_capacity(self.rewriting.len());
        for (group, targets) in &self.rewriting {
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            let log = group.log_probabilities(model, layer, &self.delta);
            let wanted = log.gather(2, targets, false).squeeze_dim(2);
            losses.push(wanted.mean_dim([1i64].as_slice(), false, Kind::Float).neg());
        }
        let losses = Tensor::cat(&losses, 0);
        let nll = losses.mean(Kind::Float);
        let mut drift = Tensor::zeros([], (Kind::Float, model.device()));
        for (n, group) in self.essence.iter().enumerate() {
            let now = group.log_probabilities(model, layer, &self.delta);
            if self.start.len() == n {
                self.start.push(now.detach());
            }
            let divergence = now.exp() * (&now - &self.start[n]);
            drift += divergence.sum(Kind::Float) * self.hyper.kl_factor;
        }
        let decay = self.delta.norm() * (self.hyper.weight_decay / self.length.powi(2));
        let loss = &nll + &drift + &decay;
        let number = |x: &Tensor| x.double_value(&[]);
        let step = Step {
            number: self.step,
            loss: number(&loss),
            nll: number(&nll),
            drift: number(&drift),
            decay: number(&decay),
            probability: number(&losses.detach().neg().exp().mean(Kind::Float)),
        };
        if !step.loss.is_finite() {
            return Err(Error::Diverged {
                step: step.number,
                loss: step.loss,
            });
        }
        Ok(Measured { loss, step })
    }

    fn update(&mut self, loss: &Tensor) {
        loss.backward();
        self.adam.update(&mut self.delta);
        let _no_grad = tch::no_grad_guard();
        let most = self.hyper.clamp * self.length;
        let length = self.delta.norm().double_value(&[]);
        if length > most {
            self.delta *= most / length;
        }
        self.step += 1;
    }
}

/// The rows of an edit, staged: the sentence in its contexts, the bare sentence, and the subject alone.
#[derive(Debug)]
pub(super) struct Staged {
    pub rewriting: Vec<Group>,
    pub targets: Vec<Vec<u32>>,
    pub essence: Vec<Group>,
    /// The bare sentence's key, `[inner]` in float64.
    pub bare_key: Tensor,
    /// Its MLP output, `[width]` in float64.
    pub bare_value: Tensor,
}

/// Stages the rows of an edit.
pub(super) fn staged(
    model: &Model,
    layer: usize,
    rows: Vec<(Row, Vec<u32>)>,
    bare: &Row,
    essence: &Row,
    watch: &dyn Watch,
) -> Result<Staged, Error> {
    let (rows, targets): (Vec<Row>, Vec<Vec<u32>>) = rows.into_iter().unzip();
    let rewriting = stage(model, layer, &rows, watch)?;
    let bare = stage(model, layer, std::slice::from_ref(bare), watch)?;
    let essence = stage(model, layer, std::slice::from_ref(essence), watch)?;
    Ok(Staged {
        bare_key: super::stage::keys(&bare).select(0, 0),
        bare_value: values(&bare).select(0, 0),
        rewriting,
        targets,
        essence,
    })
}
