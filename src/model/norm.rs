//! Layer norm (Ba et al. 2016) and root-mean-square norm (Zhang and Sennrich 2019) over the last
//! dimension.

use tch::{Kind, Tensor};

/// A normalisation with its weights.
#[derive(Debug)]
pub struct Norm {
    /// `[width]`; in float32 for Gemma, which rounds after scaling.
    weight: Tensor,
    /// `[width]`; present exactly for layer norm.
    bias: Option<Tensor>,
    eps: f64,
}

impl Norm {
    pub fn layer(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self {
            weight,
            bias: Some(bias),
            eps,
        }
    }

    pub fn rms(weight: Tensor, eps: f64) -> Self {
        Self {
            weight,
            bias: None,
            eps,
        }
    }

    /// RMS norm scaled by `1 + weight`.
    pub fn rms_plus_one(weight: Tensor, eps: f64) -> Self {
        Self::rms(weight.to_kind(Kind::Float) + 1.0, eps)
    }

    /// Takes the channels in another order.
    pub fn reordered(mut self, channels: &Tensor) -> Self {
        self.weight = self.weight.index_select(0, channels);
        self.bias = self.bias.map(|bias| bias.index_select(0, channels));
        self
    }

    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if self.bias.is_some() {
            let width = self.weight.size();
            let (weight, bias) = (Some(&self.weight), self.bias.as_ref());
            return x.layer_norm(width, weight, bias, self.eps, true);
        }
        if x.kind() == self.weight.kind() {
            return x.rms_norm(self.weight.size(), Some(&self.weight), self.eps);
        }
        // Gemma scales in float32 and rounds once, after it.
        let wide = x.to_kind(Kind::Float);
        let scaled = wide.rms_norm(self.weight.size(), Some(&self.weight), self.eps);
        scaled.to_kind(x.kind())
    }
}
