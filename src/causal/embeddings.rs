//! Statistics of a model's token embeddings, in their own units: the scale of the noise.

use std::sync::Arc;

use tch::{Device, Kind as Dtype, Tensor};

use super::error::Error;
use super::noise::{EmbeddingGaussian, Law, Noise, Rule};
use super::rows::to_f64;
use crate::model::Model;

/// Turns `rule` into noise for a sweep: measures what it needs over the `subjects` of the whole
/// fact set (`s<k>`) or over the `corpus` (`m`, `t<df>`), and nothing else.
///
/// # Errors
/// Too few subjects or texts, or a text that the tokenizer cannot read.
pub fn resolve_noise(
    model: &Model,
    rule: &Rule,
    subjects: &[impl AsRef<str>],
    corpus: &[impl AsRef<str>],
) -> Result<Noise, Error> {
    match rule.law {
        Law::Spread(_) => rule.resolve(Some(noise_level(model, subjects)?), None),
        Law::Multivariate | Law::Student(_) => {
            rule.resolve(None, Some(Arc::new(embedding_gaussian(model, corpus)?)))
        }
        Law::Gaussian(_) | Law::Uniform(_) => rule.resolve(None, None),
    }
}

/// The unbiased standard deviation of all scalars of the token embeddings of `subjects`, each
/// tokenised alone: one `s`, of which noise rule `s<k>` takes `k`.
///
/// # Errors
/// Fewer than two scalars, or embeddings that are not finite.
pub fn noise_level(model: &Model, subjects: &[impl AsRef<str>]) -> Result<f64, Error> {
    let _no_grad = tch::no_grad_guard();
    // Count, mean and squared deviations, joined as by Chan, Golub and LeVeque.
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for subject in subjects {
        let scalars = to_f64(&embed(model, subject.as_ref())?.flatten(0, -1));
        if scalars.is_empty() {
            continue;
        }
        let n = scalars.len() as f64;
        let its_mean = scalars.iter().sum::<f64>() / n;
        let its_squares: f64 = scalars.iter().map(|x| (x - its_mean).powi(2)).sum();
        let delta = its_mean - mean;
        squares += its_squares + delta * delta * count * n / (count + n);
        mean += delta * n / (count + n);
        count += n;
    }
    if count < 2.0 {
        return Err(Error::TooFewEmbeddings {
            what: "the spread of the subjects' embeddings",
            least: 1,
            found: 0,
        });
    }
    let value = (squares / (count - 1.0)).sqrt();
    match value.is_finite() {
        true => Ok(value),
        false => Err(Error::StatisticNotFinite {
            what: "the spread of the subjects' embeddings",
            value,
        }),
    }
}

/// Mean and unbiased covariance of the token embeddings of `texts`, each cut to the model's
/// context, for the noise rules `m` and `t<df>`.
///
/// The covariance's square root is the symmetric one, which is unique, so the same texts give the
/// same noise whatever signs an eigenvector comes with. Float64 throughout, on the CPU.
///
/// # Errors
/// Fewer than two tokens, or embeddings that are not finite.
pub fn embedding_gaussian(
    model: &Model,
    texts: &[impl AsRef<str>],
) -> Result<EmbeddingGaussian, Error> {
    let _no_grad = tch::no_grad_guard();
    let width = model.config().width as i64;
    let float = (Dtype::Double, Device::Cpu);
    let (mut count, mut mean, mut squares) = (
        0.0,
        Tensor::zeros([width], float),
        Tensor::zeros([width, width], float),
    );
    for text in texts {
        let rows = embed(model, text.as_ref())?
            .to_device(Device::Cpu)
            .to_kind(Dtype::Double);
        let n = rows.size()[0] as f64;
        if n == 0.0 {
            continue;
        }
        let its_mean = rows.mean_dim([0i64].as_slice(), false, Dtype::Double);
        let centred = &rows - &its_mean;
        let delta = its_mean - &mean;
        squares += centred.tr().matmul(&centred) + delta.outer(&delta) * (count * n / (count + n));
        mean += delta * (n / (count + n));
        count += n;
    }
    if count < 2.0 {
        return Err(Error::TooFewEmbeddings {
            what: "the covariance of the embeddings",
            least: 2,
            found: count as usize,
        });
    }
    let (values, vectors) = Tensor::linalg_eigh(&(squares / (count - 1.0)), "L");
    let lowest = values.min().double_value(&[]);
    let highest = values.max().double_value(&[]);
    // Rounding leaves eigenvalues of zero a little below it; anything else is no covariance.
    if !highest.is_finite() || lowest < -1e-9 * highest.abs() {
        return Err(Error::Covariance { eigenvalue: lowest });
    }
    let root = (&vectors * values.clamp_min(0.0).sqrt()).matmul(&vectors.tr());
    Ok(EmbeddingGaussian::new(
        to_f64(&mean),
        to_f64(&root.flatten(0, -1)),
    ))
}

/// Token embeddings of a text alone, `[tokens, width]`, without its tokens beyond the model's
/// context.
fn embed(model: &Model, text: &str) -> Result<Tensor, Error> {
    let mut ids = model.tokenizer().encode(text)?.ids;
    ids.truncate(model.config().context);
    Ok(model.embed(&model.ids(&ids)?).squeeze_dim(0))
}
