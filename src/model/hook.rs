//! What a block is asked for, what it gives, and a hand in what lies between.

use tch::Tensor;

use super::key_value::KeyValue;

/// What one call of [`super::Model::block`] is to do. The default: all tokens, nothing before them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass<'a> {
    /// Keys and values of the tokens before `x`'s. Its rows divide `x`'s: row `r` of `x` attends to
    /// past row `r % past.rows()`.
    pub past: Option<&'a KeyValue>,
    /// Compute outputs only for the last so many tokens of `x`, 1 or more; keys and values are made
    /// for all.
    pub queries: Option<i64>,
}

/// What one block gives.
#[derive(Debug)]
pub struct BlockOutput {
    /// `[rows, queries, width]`.
    pub hidden: Tensor,
    /// Of `x`'s own tokens only.
    pub kv: KeyValue,
}

/// Sees, and may replace, what a block computes. Everything passes through unless a method is
/// overridden.
pub trait Hook {
    /// Whether anything of a layer is looked at. Where it is not, nothing is brought here from a
    /// layer on another device.
    fn sees(&self, _layer: usize) -> bool {
        true
    }

    /// Input of the block: `[rows, tokens, width]`. The tensor is the caller's: what changes it
    /// changes a copy.
    fn resid_pre(&mut self, _layer: usize, x: Tensor) -> Tensor {
        x
    }

    /// The residual between attention and MLP: `[rows, queries, width]`. Never called where a block
    /// adds the two at once.
    fn resid_mid(&mut self, _layer: usize, x: Tensor) -> Tensor {
        x
    }

    /// Queries of the attention, after norms and rotary: `[rows, queries, heads, head_dim]`.
    fn queries(&mut self, _layer: usize, q: Tensor) -> Tensor {
        q
    }

    /// Keys of the block's own tokens, likewise: `[rows, tokens, kv_heads, head_dim]`.
    fn keys(&mut self, _layer: usize, k: Tensor) -> Tensor {
        k
    }

    /// Values of the block's own tokens: `[rows, tokens, kv_heads, head_dim]`.
    fn values(&mut self, _layer: usize, v: Tensor) -> Tensor {
        v
    }

    /// How each query is spread over the keys, behind the softmax, to be written into where it shall
    /// be another and no gradient flows: `[rows, kv_heads, heads of a group, queries, keys]`.
    fn pattern(&mut self, _layer: usize, _weights: &Tensor) {}

    /// What the attention heads give, their weighted sums of values side by side, before the output
    /// projection: `[rows, queries, heads * head_dim]`.
    fn heads(&mut self, _layer: usize, z: Tensor) -> Tensor {
        z
    }

    /// Output of the attention, before any post-norm and the residual sum: `[rows, queries,
    /// width]`.
    fn attn(&mut self, _layer: usize, out: Tensor) -> Tensor {
        out
    }

    /// Output of the MLP, or the sum of its experts', before any post-norm and the residual sum:
    /// `[rows, queries, width]`.
    fn mlp(&mut self, _layer: usize, out: Tensor) -> Tensor {
        out
    }

    /// Output of the block: `[rows, queries, width]`.
    fn hidden(&mut self, _layer: usize, out: Tensor) -> Tensor {
        out
    }

    /// Input of the MLP's second matrix, an edit's key: `[rows, queries, inner]`. Never called for a
    /// mixture of experts.
    fn key(&mut self, _layer: usize, key: Tensor) -> Tensor {
        key
    }
}

/// The hook that sees nothing and changes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Hook for Plain {
    fn sees(&self, _layer: usize) -> bool {
        false
    }
}
