//! One block of a decoder, as every family has it: norms, attention, MLP, and the sum.

use tch::Tensor;

use super::attention::Attention;
use super::config::Residual;
use super::hook::{BlockOutput, Hook, Pass};
use super::key_value::KeyValue;
use super::mixture::Mixture;
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
    pub mlp: FeedForward,
    mlp_post_norm: Option<Norm>,
    residual: Residual,
    /// Factor on what attention and MLP add.
    scale: Option<f64>,
}

/// What a block has behind its attention.
#[derive(Debug)]
pub enum FeedForward {
    /// One MLP for all tokens.
    Dense(Mlp),
    /// Several, of which each token goes to some.
    Mixture(Mixture),
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
            mlp: match &layer.mlp {
                families::Mlp::Dense(dense) => {
                    FeedForward::Dense(Mlp::load(loader, config, dense)?)
                }
                families::Mlp::Mixture(mixture) => {
                    FeedForward::Mixture(Mixture::load(loader, config, mixture)?)
                }
            },
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

    /// How they are spread over keys: [`Attention::all_patterns`].
    pub fn attention_patterns(&self, queries: &Tensor, keys: &Tensor) -> Tensor {
        self.attention.all_patterns(queries, keys)
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

    fn mlp(&self, layer: usize, x: &Tensor, hook: &mut dyn Hook) -> Tensor {
        let normed = self.mlp_norm.as_ref().map(|norm| norm.forward(x));
        let x = normed.as_ref().unwrap_or(x);
        let out = match &self.mlp {
            FeedForward::Dense(mlp) => {
                let key = hook.key(layer, mlp.key(x));
                mlp.down.forward(&key)
            }
            FeedForward::Mixture(mixture) => mixture.forward(x),
        };
        let out = hook.mlp(layer, out);
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
