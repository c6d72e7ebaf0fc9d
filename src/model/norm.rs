//! Layer norm (Ba et al. 2016) and root-mean-square norm (Zhang and Sennrich 2019) over the last
//! dimension.

use tch::{Kind, Tensor};

/// A normalisation with its weights.
#[derive(Debug)]
pub struct Norm {
    /// `[width]`; in float32 for Gemma and OLMo 2, which round after scaling.
    weight: Tensor,
    /// `[width]`; of layer norms only.
    bias: Option<Tensor>,
    /// Whether the mean is subtracted: a layer norm.
    centred: bool,
    eps: f64,
}

impl Norm {
    pub fn layer(weight: Tensor, bias: Option<Tensor>, eps: f64) -> Self {
        Self {
            weight,
            bias,
            centred: true,
            eps,
        }
    }

    pub fn rms(weight: Tensor, eps: f64) -> Self {
        Self {
            weight,
            bias: None,
            centred: false,
            eps,
        }
    }

    /// RMS norm that is rounded after scaling.
    pub fn rms_scaled_wide(weight: &Tensor, eps: f64) -> Self {
        Self::rms(weight.to_kind(Kind::Float), eps)
    }

    /// RMS norm scaled by `1 + weight`.
    pub fn rms_plus_one(weight: Tensor, eps: f64) -> Self {
        Self::rms(weight.to_kind(Kind::Float) + 1.0, eps)
    }

    /// Takes the channels of every head in another order; of one head or of several.
    pub fn reordered(mut self, channels: &Tensor) -> Self {
        let heads = |x: &Tensor| x.view([-1, channels.size()[0]]).index_select(1, channels);
        self.weight = heads(&self.weight).flatten(0, 1);
        self.bias = self.bias.map(|bias| heads(&bias).flatten(0, 1));
        self
    }

    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if self.centred {
            let width = self.weight.size();
            let (weight, bias) = (Some(&self.weight), self.bias.as_ref());
            return x.layer_norm(width, weight, bias, self.eps, true);
        }
        if x.kind() == self.weight.kind() {
            return x.rms_norm(self.weight.size(), Some(&self.weight), self.eps);
        }
        // Scaled in float32 and rounded once, after it.
        let wide = x.to_kind(Kind::Float);
        let scaled = wide.rms_norm(self.weight.size(), Some(&self.weight), self.eps);
        scaled.to_kind(x.kind())
    }
}
