//! The feed-forward half of a block.

use tch::Tensor;

use super::config::Activation;
use super::weights::{Linear, Loader};
use super::{Config, Error, families};

/// `down(act(up(x)))`, or `down(act(gate(x)) * up(x))` (Shazeer 2020).
#[derive(Debug)]
pub struct Mlp {
    /// Up, or gate and up in one product.
    up: Linear,
    gated: bool,
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
        Ok(Self {
            up: loader.up(&layer.up)?,
            gated: config.gated,
            activation: config.activation,
            down: loader.linear(&layer.down)?,
        })
    }

    /// `[.., width]` to the input of `down`, `[.., inner]`: the key of an edit.
    pub fn key(&self, x: &Tensor) -> Tensor {
        let up = self.up.forward(x);
        if !self.gated {
            return self.activation.forward(&up);
        }
        let inner = up.size().last().copied().unwrap_or_default() / 2;
        let (gate, up) = (up.narrow(-1, 0, inner), up.narrow(-1, inner, inner));
        self.activation.forward(&gate) * up
    }
}

impl Activation {
    fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Gelu => x.gelu("none"),
            Activation::GeluTanh => x.gelu("tanh"),
            Activation::Silu => x.silu(),
            Activation::Relu => x.relu(),
        }
    }
}
