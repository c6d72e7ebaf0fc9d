//! The value that makes the model say the new object.

use tch::{Kind, Tensor};

use super::adam::Adam;
use super::rows::Row;
use super::stage::{Batch, stage, values};
use super::{Error, Hyperparameters, Step, Watch};
use crate::model::Model;

/// Seeks what to add to the MLP output, or to a block's output, at the subject's last token.
///
/// Minimises `mean over contexts of NLL(target) / target tokens + kl_factor * KL(now || at the
/// start)` of what is said of the subject alone `+ weight_decay * |delta| / |v0|^2`, by Adam from
/// `delta = 0`, with `|delta| <= clamp * |v0|` after every update.
#[derive(Debug)]
pub struct Optimiser<'a> {
    model: &'a Model,
    hyper: Hyperparameters,
    /// The sentence in its contexts, and the subject alone, whose continuation is to stay.
    batch: Batch,
    /// Of the positions that are read those of the sentence, `[positions]`.
    rewriting: Tensor,
    /// The token that is wanted at each, `[positions, 1]`.
    targets: Tensor,
    /// What each counts in the mean of its row, `[positions]`, and its row, `[positions]`.
    shares: (Tensor, Tensor),
    /// Contexts.
    contexts: i64,
    /// The positions of the subject alone, `[1]`; of more than one where facts share their key and
    /// not their subject.
    essence: Tensor,
    /// The log-probabilities there at the start, `[1, vocab]`.
    start: Option<Tensor>,
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
    /// Whether every token of the target is the likeliest in every row; looked at where the search
    /// may end by it.
    likeliest: bool,
}

impl<'a> Optimiser<'a> {
    /// From rows already staged: `batch` with each row's target, and behind them the subject alone,
    /// which has none; and `clean`, what is moved of the bare sentence, `[width]`.
    pub(super) fn new(
        model: &'a Model,
        hyper: &Hyperparameters,
        batch: Batch,
        targets: &[Vec<u32>],
        clean: &Tensor,
    ) -> Self {
        let (mut rewriting, mut ids, mut essence) = (Vec::new(), Vec::new(), Vec::new());
        let (mut shares, mut rows) = (Vec::new(), Vec::new());
        let mut before = None;
        let mut nth = 0;
        for (at, row) in batch.reads().into_iter().enumerate() {
            nth = if before == Some(row) { nth + 1 } else { 0 };
            before = Some(row);
            match targets.get(row) {
                Some(target) => {
                    rewriting.push(at as i64);
                    ids.push(i64::from(target[nth]));
                    shares.push(1.0 / target.len() as f32);
                    rows.push(row as i64);
                }
                None => essence.push(at as i64),
            }
        }
        let whole = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(model.device());
        let width = model.config().width as i64;
        let delta = Tensor::zeros([width], (Kind::Float, model.device())).set_requires_grad(true);
        Self {
            model,
            hyper: *hyper,
            batch,
            rewriting: whole(&rewriting),
            targets: whole(&ids).unsqueeze(1),
            shares: (
                Tensor::from_slice(&shares).to_device(model.device()),
                whole(&rows),
            ),
            contexts: targets.len() as i64,
            essence: whole(&essence),
            start: None,
            length: clean.norm().double_value(&[]),
            adam: Adam::new(&delta, hyper.learning_rate),
            delta,
            step: 0,
        }
    }

    /// What a step has to compute: tokens through the layers above, those left out that only fill
    /// up, and positions whose logits are read.
    pub fn work(&self) -> (usize, usize) {
        (self.batch.tokens(), self.batch.reads().len())
    }

    /// Steps until the loss is low or the steps are used up, and gives `delta`, `[width]` in
    /// float32. The last step is only measured.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::Diverged`].
    pub fn run(mut self, watch: &dyn Watch) -> Result<(Tensor, Vec<Step>), Error> {
        let mut steps = Vec::with_capacity(self.hyper.steps);
        let mut likeliest = 0;
        loop {
            let measured = self.measure(watch)?;
            watch.step(&measured.step);
            steps.push(measured.step);
            likeliest += usize::from(measured.likeliest);
            let last = self.step + 1 == self.hyper.steps
                || (self.hyper.early_stop > 0 && likeliest >= self.hyper.early_stop);
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
        if watch.cancelled() {
            return Err(Error::Cancelled);
        }
        let (model, layer) = (self.model, self.hyper.layer);
        let log = self.batch.log_probabilities(model, layer, &self.delta);
        let wanted = log.index_select(0, &self.rewriting);
        let likeliest = self.hyper.early_stop > 0 && {
            let best = wanted.argmax(1, true);
            best.equal(&self.targets)
        };
        let wanted = wanted.gather(1, &self.targets, false).squeeze_dim(1).neg();
        let (shares, rows) = &self.shares;
        let losses = Tensor::zeros([self.contexts], (Kind::Float, model.device()));
        let losses = losses.index_add(0, rows, &(wanted * shares));
        let nll = losses.mean(Kind::Float);
        let now = log.index_select(0, &self.essence);
        let start = self.start.get_or_insert_with(|| now.detach());
        let divergence = now.exp() * (&now - &*start);
        let subjects = self.essence.size()[0].max(1) as f64;
        let drift = divergence.sum(Kind::Float) * (self.hyper.kl_factor / subjects);
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
        Ok(Measured {
            loss,
            step,
            likeliest,
        })
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

/// The rows of an edit, staged: the sentence in its contexts, the bare sentence, and the subject
/// alone.
#[derive(Debug)]
pub(super) struct Staged {
    /// The contexts' rows, and behind them the subject alone.
    pub batch: Batch,
    /// The contexts' targets.
    pub targets: Vec<Vec<u32>>,
    /// The contexts' keys, `[contexts, inner]` in float64.
    pub keys: Tensor,
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
    essence: Row,
    watch: &dyn Watch,
) -> Result<Staged, Error> {
    let (mut rows, targets): (Vec<Row>, Vec<Vec<u32>>) = rows.into_iter().unzip();
    rows.push(essence);
    let groups = stage(model, layer, &rows, watch)?;
    let bare = stage(model, layer, std::slice::from_ref(bare), watch)?;
    Ok(Staged {
        keys: super::stage::keys(&groups).narrow(0, 0, targets.len() as i64),
        batch: Batch::new(model, layer, groups, watch)?,
        bare_key: super::stage::keys(&bare).select(0, 0),
        bare_value: values(&bare).select(0, 0),
        targets,
    })
}
