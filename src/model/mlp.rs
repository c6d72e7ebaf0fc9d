//! The feed-forward half of a block.

use tch::Tensor;

use super::config::Activation;
use super::weights::{Linear, Loader};
use super::{Config, Error, families};

/// `down(act(up(x)))`, or `down(act(gate(x)) * up(x))` (Shazeer 2020).
#[derive(Debug)]
pub struct Mlp {
    /// None where it is not gated.
    gate: Option<Linear>,
    up: Linear,
    activation: Activation,
    /// The matrix edits change, `[width, inner]`.
    pub down: Linear,
}

impl Mlp {
    pub fn load(
        loader: &Loader<'_>,
        config: &Config,
        layer: &families::Layer,
    ) -> Result<Self, Error> {
        let up = loader.up(&layer.up)?;
        let inner = config.inner as i64;
        Ok(Self {
            gate: config.gated.then(|| up.rows(0, inner)),
            up: match config.gated {
                true => up.rows(inner, inner),
                false => up,
            },
            activation: config.activation,
            down: loader.linear(&layer.down)?,
        })
    }

    /// `[.., width]` to the input of `down`, `[.., inner]`: the key of an edit.
    pub fn key(&self, x: &Tensor) -> Tensor {
        match &self.gate {
            Some(gate) => gate.activated(x, self.activation) * self.up.forward(x),
            None => self.up.activated(x, self.activation),
        }
    }
}

impl Activation {
    pub(super) fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Gelu => x.gelu("none"),
            Activation::GeluTanh => x.gelu("tanh"),
            Activation::Silu => x.silu(),
            Activation::Relu => x.relu(),
        }
    }
}
