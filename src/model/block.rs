//! One block of a decoder, as every family has it: norms, attention, MLP, and the sum.

use tch::{Kind, Tensor};

use super::attention::Attention;
use super::config::Residual;
use super::hook::{BlockOutput, Hook, Pass};
use super::key_value::KeyValue;
use super::mlp::Mlp;
use super::norm::Norm;
use super::weights::Loader;
use super::{Config, Error, families};

/// A block with its weights.
#[derive(Debug)]
pub struct Block {
    /// `None` where attention reads the residual stream itself.
    attn_norm: Option<Norm>,
    attention: Attention,
    attn_post_norm: Option<Norm>,
    /// `None` where the MLP reads what attention reads, or the residual stream itself.
    mlp_norm: Option<Norm>,
    pub mlp: Mlp,
    mlp_post_norm: Option<Norm>,
    residual: Residual,
    /// Factor on what attention and MLP add.
    scale: Option<f64>,
}

impl Block {
    pub fn load(loader: &Loader<'_>, config: &Config, index: usize) -> Result<Self, Error> {
        let layer: &families::Layer = &loader.checkpoint.layout().layers[index];
        let attention = Attention::load(loader, config, layer, &config.attention[index])?;
        Ok(Self {
            attn_norm: loader.maybe_norm(layer.attn_norm.as_ref())?,
            attention,
            attn_post_norm: loader.maybe_norm(layer.attn_post_norm.as_ref())?,
            mlp_norm: loader.maybe_norm(layer.mlp_norm.as_ref())?,
            mlp: Mlp::load(loader, config, layer)?,
            mlp_post_norm: loader.maybe_norm(layer.mlp_post_norm.as_ref())?,
            residual: config.residual,
            scale: config.residual_scale,
        })
    }

    pub fn forward(
        &self,
        layer: usize,
        x: &Tensor,
        pass: Pass<'_>,
        padding: Option<&Tensor>,
        hook: &mut dyn Hook,
    ) -> BlockOutput {
        let x = &hook.resid_pre(layer, x.shallow_clone());
        let tokens = x.size()[1];
        let queries = pass.queries.unwrap_or(tokens);
        let last = |x: &Tensor| x.narrow(1, tokens - queries, queries);
        let normed = self.attended(x);
        let seen = (pass.past, padding);
        let (z, kv): (Tensor, KeyValue) =
            self.attention.forward(layer, &normed, seen, queries, hook);
        let z = hook.heads(layer, z);
        let hidden = self.behind(layer, &last(x), &last(&normed), &z, hook);
        BlockOutput {
            hidden: hook.hidden(layer, hidden),
            kv,
        }
    }

    /// What its heads give: [`Attention::heads`].
    pub fn heads(&self, queries: &Tensor, seen: &KeyValue) -> Tensor {
        self.attention.heads(queries, seen)
    }

    /// The scores of queries with keys: [`Attention::all_scores`].
    pub fn attention_scores(&self, queries: &Tensor, keys: &Tensor) -> Tensor {
        self.attention.all_scores(queries, keys)
    }

    /// What the block gives at tokens whose input is `x`, `[rows, tokens, width]`, and whose heads
    /// give `z`, `[rows, tokens, heads * head_dim]`. Behind the heads a token sees itself only.
    pub fn behind_heads(
        &self,
        layer: usize,
        x: &Tensor,
        z: &Tensor,
        hook: &mut dyn Hook,
    ) -> Tensor {
        self.behind(layer, x, &self.attended(x), z, hook)
    }

    fn behind(
        &self,
        layer: usize,
        x: &Tensor,
        normed: &Tensor,
        z: &Tensor,
        hook: &mut dyn Hook,
    ) -> Tensor {
        let attn = hook.attn(layer, self.attention.output(z));
        let attn = self.added(self.attn_post_norm.as_ref(), attn);
        match self.residual {
            Residual::Serial => {
                let middle = hook.resid_mid(layer, x + attn);
                let mlp = self.mlp(layer, &middle, hook);
                middle + mlp
            }
            Residual::Parallel => {
                let mlp = match &self.mlp_norm {
                    Some(_) => self.mlp(layer, x, hook),
                    None => self.mlp(layer, normed, hook),
                };
                mlp + attn + x
            }
        }
    }

    pub fn keys_later(&self, keys: &Tensor, by: i64) -> Tensor {
        self.attention.later(keys, by)
    }

    pub fn mlp_contribution(&self, out: &Tensor) -> Tensor {
        self.added(self.mlp_post_norm.as_ref(), out.shallow_clone())
    }

    pub fn mlp_output(&self, key: &Tensor) -> Tensor {
        let down = &self.mlp.down;
        let bias = down.bias.as_ref().map(|bias| bias.to_kind(Kind::Float));
        key.to_kind(Kind::Float)
            .linear(&down.weight.to_kind(Kind::Float), bias.as_ref())
    }

    fn mlp(&self, layer: usize, x: &Tensor, hook: &mut dyn Hook) -> Tensor {
        let key = match &self.mlp_norm {
            Some(norm) => self.mlp.key(&norm.forward(x)),
            None => self.mlp.key(x),
        };
        let key = hook.key(layer, key);
        let out = hook.mlp(layer, self.mlp.down.forward(&key));
        self.added(self.mlp_post_norm.as_ref(), out)
    }

    /// What attention reads.
    fn attended(&self, x: &Tensor) -> Tensor {
        match &self.attn_norm {
            Some(norm) => norm.forward(x),
            None => x.shallow_clone(),
        }
    }

    /// What an output adds to the residual stream: itself, behind its post-norm and the factor.
    fn added(&self, norm: Option<&Norm>, out: Tensor) -> Tensor {
        let out = match norm {
            Some(norm) => norm.forward(&out),
            None => out,
        };
        match self.scale {
            Some(scale) => out * scale,
            None => out,
        }
    }
}
