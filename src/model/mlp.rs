//! The feed-forward half of a block.

use tch::{Kind, Tensor};

use super::config::Activation;
use super::weights::{Linear, Loader};
use super::{Config, Error, families};

/// Where gate and up are cut, and the factor within the sigmoid, where they are clamped.
const LIMIT: f64 = 7.0;
const SLOPE: f64 = 1.702;

/// `down(act(up(x)))`, or `down(act(gate(x)) * up(x))` (Shazeer 2020).
#[derive(Debug)]
pub struct Mlp {
    /// None where it is not gated.
    gate: Option<Linear>,
    up: Linear,
    activation: Activation,
    /// Whether gate and up are clamped: [`config::Experts::clamped`](super::config::Experts).
    clamped: bool,
    /// The matrix edits change, `[width, inner]`.
    pub down: Linear,
}

impl Mlp {
    pub fn load(
        loader: &Loader<'_>,
        config: &Config,
        layout: &families::Dense,
    ) -> Result<Self, Error> {
        let (up, down) = (loader.up(&layout.up)?, loader.linear(&layout.down)?);
        Ok(Self::new(config, false, up, down))
    }

    /// With `up`, `[inner, width]`, or where it is gated both, `[2 * inner, width]`, and `down`,
    /// `[width, inner]`.
    pub fn new(config: &Config, clamped: bool, up: Linear, down: Linear) -> Self {
        let inner = down.weight.size()[1];
        Self {
            gate: config.gated.then(|| up.rows(0, inner)),
            up: match config.gated {
                true => up.rows(inner, inner),
                false => up,
            },
            activation: config.activation,
            clamped,
            down,
        }
    }

    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.down.forward(&self.key(x))
    }

    /// `[.., width]` to the input of `down`, `[.., inner]`: the key of an edit.
    pub fn key(&self, x: &Tensor) -> Tensor {
        match &self.gate {
            Some(gate) if self.clamped => {
                let gate = gate.forward(x).clamp_max(LIMIT);
                let up = self.up.forward(x).clamp(-LIMIT, LIMIT);
                (up + 1.0) * (&gate * sigmoid(&(&gate * SLOPE)))
            }
            Some(gate) => gate.activated(x, self.activation) * self.up.forward(x),
            None => self.up.activated(x, self.activation),
        }
    }
}

/// By tanh, which libtorch computes alike wherever a number stands in a tensor. Its own sigmoid gives
/// other last bits at the end of one, so that a row would depend on how many there are.
fn sigmoid(x: &Tensor) -> Tensor {
    let half = x.to_kind(Kind::Float) * 0.5;
    ((half.tanh() + 1.0) * 0.5).to_kind(x.kind())
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
