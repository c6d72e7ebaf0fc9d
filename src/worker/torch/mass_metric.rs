//! The metric of keys that a layer of a mass edit is solved in. What takes long to make of the key
//! statistics alone is made once on this machine (`kept.rs`).

use tch::{Device, Tensor};

use super::kept::{Kept, Numbers};
use super::mass_parts::Statistics;
use super::units::Stopped;
use crate::edit::{
    Damping, Error, Hyperparameters, Keep, KeyCovariance, Method, Metric, Projector,
};
use crate::proto::v1;

/// What a metric is made of.
pub(super) struct Making<'a> {
    pub method: Method,
    pub hyper: &'a Hyperparameters,
    pub device: Device,
    pub kept: &'a Kept,
    pub made_by: &'a v1::Fingerprint,
    pub statistics: &'a Statistics<'a>,
}

/// A metric, and what is said of it.
pub(super) struct Made {
    pub metric: Metric,
    pub damping: Damping,
    /// What makes a leverage of a key's share of its weight.
    pub weight: f64,
    pub figures: Vec<(&'static str, f64)>,
    pub warning: Option<String>,
}

impl Making<'_> {
    /// The metric of the method for so many facts, with the keys of earlier edits, `[inner, ..]`.
    pub fn metric(&self, past: Option<&Tensor>, facts: u64) -> Result<Made, Stopped> {
        let hyper = self.hyper;
        let made = |metric, damping, weight| Made {
            metric,
            damping,
            weight,
            figures: Vec::new(),
            warning: None,
        };
        let weighted = |weight| -> Result<Metric, Stopped> {
            Ok(Metric::weighted(&self.covariance()?, weight))
        };
        Ok(match self.method {
            Method::AlphaEdit => {
                let projector = self.projector()?;
                let metric = Metric::projected(&projector, hyper.l2, past)?;
                Made {
                    figures: vec![
                        ("kept_rank", projector.kept() as f64),
                        ("kept_trace", projector.trace()),
                    ],
                    warning: projector.keeps_all().then(|| self.keeps_all()),
                    ..made(metric, Damping::Unit, 1.0)
                }
            }
            Method::Encore => {
                let (lambda, eta) = (hyper.lambda, hyper.eta);
                let moment = self.statistics.moment()?;
                let metric = Metric::guarded(moment, lambda, eta, past, self.device)?;
                made(metric, Damping::Unit, lambda)
            }
            Method::Emmet if facts == 1 || hyper.mu == 0.0 => {
                made(weighted(1.0)?, Damping::None, 1.0)
            }
            Method::Emmet => {
                let weight = hyper.mu * hyper.statistics_weight;
                made(weighted(weight)?, Damping::Unit, weight)
            }
            _ => made(weighted(hyper.lambda)?, Damping::Unit, hyper.lambda),
        })
    }

    fn keeps_all(&self) -> String {
        let Statistics {
            channels, layer, ..
        } = self.statistics;
        format!(
            "{} keeps all {channels} directions of layer {layer}: none that ordinary text uses is left alone; give a \
             smaller `threshold`, or a `rank` or an `energy` instead of it",
            self.method
        )
    }

    /// The key statistics, factorised once on this machine.
    fn covariance(&self) -> Result<KeyCovariance, Stopped> {
        let ridge = self.hyper.ridge;
        let make = || {
            let made = KeyCovariance::in_place(self.statistics.moment()?, ridge, self.device)?;
            let made = match made {
                Some(made) => made,
                None => KeyCovariance::new(self.statistics.moment()?, ridge, self.device)?,
            };
            Ok::<_, Stopped>(Numbers {
                matrix: made.factor().shallow_clone(),
                list: None,
            })
        };
        let name = self
            .statistics
            .name(&format!("factor, ridge {ridge:?},"), self.made_by);
        let shape = (self.statistics.channels, false);
        let factor = self.kept.or_make(&name, shape, self.device, make)?;
        Ok(KeyCovariance::of_factor(factor.matrix, ridge))
    }

    /// The directions that are left alone, by the eigenvectors that are found once on this machine.
    fn projector(&self) -> Result<Projector, Stopped> {
        let make = || {
            let found = Projector::directions(self.statistics.moment()?, self.device)?;
            Ok::<_, Stopped>(Numbers {
                matrix: found.1,
                list: Some(found.0),
            })
        };
        let name = self.statistics.name("eigenvectors", self.made_by);
        let shape = (self.statistics.channels, true);
        let found = self.kept.or_make(&name, shape, self.device, make)?;
        let values = found.list.ok_or(Error::NoDirection)?; // it was asked for
        Ok(Projector::of(&values, found.matrix, Keep::of(self.hyper))?)
    }
}
