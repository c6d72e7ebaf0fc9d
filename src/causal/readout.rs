//! All metrics of a row, from one computation of its logits at every token that is read.

use std::ops::Range;

use tch::{Kind as Dtype, Tensor};

use super::metric::Metric;
use super::rows::{mean, to_f64};
use crate::model::Model;

/// The most probable tokens after a prompt, and the probability of the first.
pub(super) struct Answer {
    /// One behind each state that metrics are read from.
    pub ids: Vec<u32>,
    pub high: f64,
}

impl Answer {
    /// Of `[rows, read, width]` states, equal in all rows.
    pub fn of(model: &Model, hidden: &Tensor) -> Self {
        let probabilities = model.logits(&hidden.select(1, 0)).softmax(-1, Dtype::Float);
        let first = probabilities.get(0).argmax(-1, false).int64_value(&[]);
        let high = mean(&to_f64(&probabilities.select(-1, first)));
        let rest = (1..hidden.size()[1]).map(|at| {
            let logits = model.logits(&hidden.select(1, at));
            logits.get(0).argmax(-1, false).int64_value(&[])
        });
        let ids = std::iter::once(first).chain(rest);
        Self {
            ids: ids.map(|id| id as u32).collect(),
            high,
        }
    }
}

/// What is read of the states behind the last block: of the prompt's last token; where an answer is
/// read whole, of each token that one of the answer's follows on, and the mean over them. A
/// probability is then that with the mean logarithm.
pub(super) struct Readout {
    metrics: Vec<Metric>,
    /// What is read of each position; where there are several, with the logarithm in the place of
    /// the probability.
    positions: Vec<Position>,
    /// Read from whole logits by libtorch's own functions, as any other program on it would: what
    /// the slices are measured against.
    whole: bool,
}

/// What is read of one token's state.
struct Position {
    answer: i64,
    /// The token that the answer is compared with; the answer itself where nothing compares.
    foil: i64,
    metrics: Vec<Metric>,
    /// The logarithm of the sum of the clean run's exponentials, `[1, 1]`, and its logits,
    /// `[1, vocabulary]`, both in float64, where a metric compares with its distribution.
    clean: Option<(Tensor, Tensor)>,
}

impl Readout {
    /// Of `metrics`, the first of which is the probability, of the tokens of an `answer`. `clean`
    /// are `[rows, read, width]` states of the clean run, equal in all rows. With a `foil` the
    /// answer has one token.
    pub fn new(
        model: &Model,
        clean: &Tensor,
        answer: &[u32],
        foil: Option<u32>,
        metrics: Vec<Metric>,
        whole: bool,
    ) -> Self {
        let inner: Vec<Metric> = match answer.len() {
            1 => metrics.clone(),
            _ => metrics
                .iter()
                .map(|metric| match metric {
                    Metric::Probability => Metric::LogProbability,
                    metric => *metric,
                })
                .collect(),
        };
        let position = |(at, &answer): (usize, &u32)| Position {
            answer: i64::from(answer),
            foil: i64::from(foil.unwrap_or(answer)),
            clean: metrics.contains(&Metric::Kl).then(|| {
                let clean = clean.select(1, at as i64);
                let normed = model.normed(&clean.narrow(0, 0, 1));
                let slices = model.logit_slices();
                let slices: Vec<Tensor> = slices.map(|it| model.logits_in(&normed, &it)).collect();
                let logits = Tensor::cat(&slices, 1).to_kind(Dtype::Double);
                (log_sum(&logits), logits)
            }),
            metrics: inner.clone(),
        };
        Self {
            positions: answer.iter().enumerate().map(position).collect(),
            metrics,
            whole,
        }
    }

    /// Metrics of a row.
    pub fn count(&self) -> usize {
        self.metrics.len()
    }

    /// The metrics of `[rows, read, width]` states, one row after another.
    pub fn read(&self, model: &Model, hidden: &Tensor) -> Vec<f64> {
        if self.whole {
            let columns: Vec<Vec<f64>> = self.columns(model, hidden).iter().map(to_f64).collect();
            return by_row(&columns);
        }
        let found: Vec<Vec<f64>> = self
            .states(hidden)
            .map(|(position, hidden)| position.read(model, &hidden))
            .collect();
        let [first, rest @ ..] = found.as_slice() else {
            return Vec::new();
        };
        if rest.is_empty() {
            return first.clone();
        }
        let mean = |n: usize| found.iter().map(|of| of[n]).sum::<f64>() / found.len() as f64;
        let finished = |n: usize| match self.metrics[n % self.count()] {
            Metric::Probability => mean(n).exp(),
            _ => mean(n),
        };
        (0..first.len()).map(finished).collect()
    }

    /// The metrics of `[rows, read, width]` states from whole logits, one tensor of `[rows]` each.
    /// Gradients flow through all but the rank.
    pub fn columns(&self, model: &Model, hidden: &Tensor) -> Vec<Tensor> {
        let found: Vec<Vec<Tensor>> = self
            .states(hidden)
            .map(|(position, hidden)| position.columns(&model.logits(&hidden)))
            .collect();
        let metric = |(n, metric): (usize, &Metric)| match found.as_slice() {
            [only] => only[n].shallow_clone(),
            found => {
                let each: Vec<&Tensor> = found.iter().map(|of| &of[n]).collect();
                let mean = Tensor::stack(&each, 0).mean_dim([0i64].as_slice(), false, None);
                match metric {
                    Metric::Probability => mean.exp(),
                    _ => mean,
                }
            }
        };
        self.metrics.iter().enumerate().map(metric).collect()
    }

    /// The states of every position, `[rows, width]` each.
    fn states(&self, hidden: &Tensor) -> impl Iterator<Item = (&Position, Tensor)> {
        let positions = self.positions.iter().enumerate();
        positions.map(|(at, position)| (position, hidden.select(1, at as i64)))
    }
}

impl Position {
    /// The metrics of `[rows, width]` states, one row after another.
    fn read(&self, model: &Model, hidden: &Tensor) -> Vec<f64> {
        if self.metrics == [Metric::Probability] {
            return to_f64(&model.probability(hidden, self.answer));
        }
        let normed = model.normed(hidden);
        // The rank takes the answer's logit before all others; what is made for it is kept.
        let mut made: Vec<(Range<i64>, Tensor)> = Vec::new();
        let mut logit = |token: i64| {
            let known = made.iter().find(|(slice, _)| slice.contains(&token));
            let (from, logits) = match known {
                Some((slice, logits)) => (slice.start, logits.shallow_clone()),
                None => {
                    let mut slices = model.logit_slices();
                    let slice = slices.find(|it| it.contains(&token)).unwrap_or(0..1);
                    let logits = model.logits_in(&normed, &slice);
                    made.push((slice.clone(), logits.shallow_clone()));
                    (slice.start, logits)
                }
            };
            logits.select(1, token - from)
        };
        let (answer, foil) = (logit(self.answer), logit(self.foil));
        let along = [-1i64];
        let (mut sums, mut divergence) = (Vec::new(), Divergence::default());
        let mut above = answer.zeros_like().to_kind(Dtype::Int64);
        for slice in model.logit_slices() {
            let known = made.iter().find(|(known, _)| *known == slice);
            let logits = match known {
                Some((_, logits)) => logits.shallow_clone(),
                None => model.logits_in(&normed, &slice),
            };
            sums.push(logits.logsumexp(along.as_slice(), false));
            if self.metrics.contains(&Metric::Rank) {
                let higher = logits.greater_tensor(&answer.unsqueeze(1));
                above += higher.sum_dim_intlist(along.as_slice(), false, Dtype::Int64);
            }
            if let Some((sum, clean)) = &self.clean {
                divergence.add(
                    sum,
                    &clean.narrow(1, slice.start, logits.size()[1]),
                    &logits,
                );
            }
        }
        // As in `Model::probability`, to the bit.
        let sum = Tensor::stack(&sums, 1).logsumexp(along.as_slice(), false);
        let columns: Vec<Vec<f64>> = self
            .metrics
            .iter()
            .map(|metric| match metric {
                Metric::Probability => to_f64(&(&answer - &sum).exp()),
                Metric::LogProbability => to_f64(&(&answer - &sum)),
                Metric::LogitDifference => to_f64(&(&answer - &foil)),
                Metric::Kl => divergence.value(self.clean.as_ref().map(|(sum, _)| sum)),
                Metric::Rank => to_f64(&(&above + 1)),
            })
            .collect();
        by_row(&columns)
    }

    /// The metrics of whole logits, `[rows, vocabulary]`, one tensor of `[rows]` each.
    fn columns(&self, logits: &Tensor) -> Vec<Tensor> {
        let log = logits.log_softmax(-1, Dtype::Float);
        self.metrics
            .iter()
            .map(|metric| match (metric, &self.clean) {
                (Metric::Probability, _) => {
                    logits.softmax(-1, Dtype::Float).select(-1, self.answer)
                }
                (Metric::LogProbability, _) => log.select(-1, self.answer),
                (Metric::LogitDifference, _) => {
                    logits.select(-1, self.answer) - logits.select(-1, self.foil)
                }
                (Metric::Kl, clean) => {
                    // Kept where this is asked for.
                    let clean = clean.as_ref().map_or(logits, |(_, logits)| logits);
                    let clean = clean.log_softmax(-1, Dtype::Double);
                    let log = logits.log_softmax(-1, Dtype::Double);
                    let all = clean.exp() * (clean - log);
                    all.sum_dim_intlist([-1i64].as_slice(), false, Dtype::Double)
                }
                (Metric::Rank, _) => {
                    let answer = logits.narrow(-1, self.answer, 1);
                    let above = logits.greater_tensor(&answer).to_kind(Dtype::Double);
                    let above = above.sum_dim_intlist([-1i64].as_slice(), false, Dtype::Double);
                    above + 1
                }
            })
            .collect()
    }
}

/// Columns of equal length, row after row.
fn by_row(columns: &[Vec<f64>]) -> Vec<f64> {
    let rows = columns.first().map_or(0, Vec::len);
    (0..rows)
        .flat_map(|row| columns.iter().map(move |column| column[row]))
        .collect()
}

/// `KL(clean || row)` in nats, slice by slice: the mean under the clean distribution of the logits'
/// difference, in float64, so that equal logits give 0.
#[derive(Default)]
struct Divergence {
    /// Logarithms of the rows' sums of exponentials.
    sums: Vec<Tensor>,
    /// The mean difference so far, `[rows]`.
    difference: Option<Tensor>,
}

impl Divergence {
    fn add(&mut self, clean_sum: &Tensor, clean: &Tensor, logits: &Tensor) {
        let logits = logits.to_kind(Dtype::Double);
        let weights = (clean - clean_sum).exp();
        let part =
            ((clean - &logits) * weights).sum_dim_intlist([-1i64].as_slice(), false, Dtype::Double);
        self.sums.push(log_sum(&logits));
        self.difference = Some(match self.difference.take() {
            Some(before) => before + part,
            None => part,
        });
    }

    /// One a row; rounding alone would be below 0.
    fn value(&self, clean_sum: Option<&Tensor>) -> Vec<f64> {
        let (Some(difference), Some(clean)) = (&self.difference, clean_sum) else {
            return Vec::new();
        };
        let sum = log_sum(&Tensor::cat(&self.sums, 1)).squeeze_dim(1);
        to_f64(&(difference + sum - clean.squeeze_dim(1)).clamp_min(0.0))
    }
}

/// The logarithm of the sum of exponentials, `[rows, 1]`.
fn log_sum(logits: &Tensor) -> Tensor {
    logits.logsumexp([-1i64].as_slice(), true)
}
