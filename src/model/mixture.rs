//! A mixture of experts (Shazeer et al. 2017) in the place of an MLP: a router sends each token to
//! few of many MLPs.

use tch::{Device, Kind, Tensor};

use super::config::Routing;
use super::mlp::Mlp;
use super::weights::{Linear, Loader};
use super::{Config, Error, families};

/// The router and the experts of one block.
#[derive(Debug)]
pub struct Mixture {
    /// `[experts, width]`.
    router: Linear,
    experts: Vec<Mlp>,
    /// Experts that a token goes to.
    chosen: i64,
    routing: Routing,
}

impl Mixture {
    pub fn load(
        loader: &Loader<'_>,
        config: &Config,
        layout: &families::Mixture,
    ) -> Result<Self, Error> {
        let options = config.experts.as_ref().ok_or_else(|| Error::MissingField {
            field: "num_experts".to_owned(),
            family: config.family.model_type(),
        })?;
        let expert = |(up, down)| Mlp::new(config, options.clamped, up, down);
        let experts = loader.experts(&layout.experts)?;
        Ok(Self {
            router: loader.linear(&layout.router)?,
            experts: experts.into_iter().map(expert).collect(),
            chosen: options.chosen as i64,
            routing: options.routing,
        })
    }

    /// `[.., width]` to the same. What a token gets does not depend on the tokens beside it: its
    /// experts are added up in their order.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let x = x.reshape([-1, size[size.len() - 1]]);
        let (weights, chosen) = self.route(&x);
        let (weights, chosen) = (weights.flatten(0, 1), chosen.flatten(0, 1));
        // Those that go to one expert lie side by side then.
        let by_expert = chosen.argsort_stable(true, 0, false);
        let counts = chosen.bincount(None::<&Tensor>, self.experts.len() as i64);
        let counts = counts.to_device(Device::Cpu);
        let mut out = x.zeros_like();
        let mut from = 0;
        for (n, expert) in (0..).zip(&self.experts) {
            let count = counts.int64_value(&[n]);
            if count == 0 {
                continue;
            }
            let places = by_expert.narrow(0, from, count);
            let tokens = places.floor_divide_scalar(self.chosen);
            let given = expert.forward(&x.index_select(0, &tokens));
            let weights = weights.index_select(0, &places).unsqueeze(1);
            // A token is there once at most, so nothing is added in an order of chance.
            out = out.index_add_(0, &tokens, &(given * weights));
            from += count;
        }
        out.view(size.as_slice())
    }

    /// Of each row of `[rows, width]` the experts that it goes to and their weights, `[rows,
    /// chosen]` each: first the weights.
    fn route(&self, x: &Tensor) -> (Tensor, Tensor) {
        let scores = self.router.forward(x);
        let scores = match self.routing {
            Routing::Softmax | Routing::Normalised => scores.softmax(-1, Kind::Float),
            Routing::AmongChosen => scores,
        };
        // All are sorted, for a search of the highest alone takes any of equal ones, by chance of
        // the device and of the number of rows; this takes the first.
        let (scores, order) = scores.sort_stable(true, -1, true);
        let [scores, chosen] = [scores, order].map(|x| x.narrow(-1, 0, self.chosen));
        let weights = match self.routing {
            Routing::Softmax => scores,
            Routing::Normalised => {
                let along = [-1i64];
                &scores / scores.sum_dim_intlist(along.as_slice(), true, Kind::Float)
            }
            Routing::AmongChosen => scores.softmax(-1, scores.kind()),
        };
        (weights.to_kind(x.kind()), chosen)
    }
}
