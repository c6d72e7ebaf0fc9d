//! FT+L: gradient descent on the one matrix, every weight bounded. The baseline of the papers.

use tch::{Device, Kind, Tensor};

use super::adam::Adam;
use super::{Error, Hyperparameters, Request, Step, Update, Watch, rows};
use crate::model::{Hook, Model, Pass, Plain};

/// Fine-tunes the matrix of [`Hyperparameters::layer`] on the bare sentence and its new target,
/// with no weight moved by more than
/// [`Hyperparameters::bound`]. The model is not changed.
///
/// The change has full rank, so its factors are the identity and the change itself: `left` is
/// `[width, width]` and `right` `[inner, width]`.
///
/// # Errors
/// A request or a number that cannot be used; [`Error::Cancelled`]; [`Error::Diverged`];
/// [`Error::Model`] for texts that do not fit the model.
pub fn fine_tune(
    model: &Model,
    request: &Request,
    hyper: &Hyperparameters,
    watch: &dyn Watch,
) -> Result<(Update, Vec<Step>), Error> {
    hyper.check(model.config().layers)?;
    model.config().has_key(hyper.layer)?;
    request.check()?;
    let (row, target) = rows::rewriting(model.tokenizer(), request, "{}")?;
    let (layers, layer) = (model.config().layers, hyper.layer);
    let (width, inner) = (model.config().width, model.config().inner);
    // What is below does not change.
    let below = tch::no_grad(|| -> Result<Tensor, Error> {
        let mut x = model.add_positions(&model.embed(&model.ids(&row.ids)?), 0);
        for below in 0..layer {
            x = model.block(below, &x, Pass::default(), &mut Plain).hidden;
        }
        Ok(x)
    })?;
    let ids: Vec<i64> = target.iter().map(|&id| i64::from(id)).collect();
    let ids = Tensor::from_slice(&ids)
        .view([1, -1, 1])
        .to_device(model.device());
    let reads = target.len() as i64;
    let shape = [width as i64, inner as i64];
    let change = Tensor::zeros(shape, (Kind::Float, model.device())).set_requires_grad(true);
    let mut hook = Changed {
        layer,
        change,
        key: None,
    };
    let mut adam = Adam::new(&hook.change, hyper.learning_rate);
    let mut steps = Vec::new();
    for number in 0..hyper.steps {
        let mut x = below.shallow_clone();
        for above in layer..layers {
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            let pass = Pass {
                past: None,
                queries: (above + 1 == layers).then_some(reads),
            };
            x = model.block(above, &x, pass, &mut hook).hidden;
        }
        let log = model.logits(&x).log_softmax(-1, Kind::Float);
        let nll = log.gather(2, &ids, false).mean(Kind::Float).neg();
        let loss = nll.double_value(&[]);
        let step = Step {
            number,
            loss,
            nll: loss,
            drift: 0.0,
            decay: 0.0,
            probability: (-loss).exp(),
        };
        if !loss.is_finite() {
            return Err(Error::Diverged { step: number, loss });
        }
        watch.step(&step);
        steps.push(step);
        if loss < hyper.stop_loss {
            break;
        }
        nll.backward();
        adam.update(&mut hook.change);
        let _no_grad = tch::no_grad_guard();
        let _ = hook.change.clamp_(-hyper.bound, hyper.bound);
    }
    let change = hook.change.detach().to_device(Device::Cpu);
    let mut identity = vec![0.0; width * width];
    identity
        .iter_mut()
        .step_by(width + 1)
        .for_each(|x| *x = 1.0);
    let update = Update {
        layer,
        rank: width,
        left: identity,
        right: Vec::try_from(&change.tr().contiguous().view([-1]))?,
    };
    Ok((update, steps))
}

/// Adds the change of the matrix to what its layer's MLP gives.
struct Changed {
    layer: usize,
    change: Tensor,
    key: Option<Tensor>,
}

impl Hook for Changed {
    fn sees(&self, layer: usize) -> bool {
        layer == self.layer
    }

    fn key(&mut self, layer: usize, key: Tensor) -> Tensor {
        if layer == self.layer {
            self.key = Some(key.shallow_clone());
        }
        key
    }

    fn mlp(&mut self, layer: usize, out: Tensor) -> Tensor {
        match self.key.take().filter(|_| layer == self.layer) {
            Some(key) => {
                let kind = out.kind();
                let more = key.to_kind(Kind::Float).matmul(&self.change.tr());
                out + more.to_kind(kind)
            }
            None => out,
        }
    }
}
