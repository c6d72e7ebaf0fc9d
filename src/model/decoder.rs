//! A model on one or several devices, run block by block.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::block::{Block, FeedForward};
use super::hook::{BlockOutput, Hook, Pass};
use super::key_value::KeyValue;
use super::mlp::Mlp;
use super::norm::Norm;
use super::placed::Placed;
use super::weights::{Linear, Loader};
use super::{Checkpoint, Config, Error, Tokenizer};

/// Logits of a row that are made at a time where only their sum is asked for.
const SLICE: i64 = 8192;

/// A model on a device, or with its blocks spread over several of a kind: then the embeddings and
/// the vocabulary projection are on the first, and whatever goes into a method or comes out of one
/// is there, wherever the block is that makes it.
///
/// Gradients flow through every method; who needs none wraps calls in [`tch::no_grad`]. Rows of one
/// call have the same number of tokens: there is no padding anywhere, so no row's result depends on
/// its neighbours' lengths.
#[derive(Debug)]
pub struct Model {
    config: Config,
    tokenizer: Tokenizer,
    device: Device,
    dtype: Kind,
    /// `[vocab, width]`.
    embedding: Tensor,
    embedding_norm: Option<Norm>,
    /// `[context, width]`, behind rows that stand for no token.
    positions: Option<Tensor>,
    blocks: Vec<Placed>,
    final_norm: Norm,
    head: Linear,
}

impl Model {
    /// Reads every weight of a checkpoint to a device, in a type: `Float`, `BFloat16` or `Half`.
    ///
    /// # Errors
    /// [`Error::NotFinite`], [`Error::Malformed`], and [`Error::Torch`] when memory does not suffice.
    pub fn load(checkpoint: &Checkpoint, device: Device, dtype: Kind) -> Result<Self, Error> {
        Self::load_over(checkpoint, &[device], dtype)
    }

    /// The same, in about equal parts of its weights over several devices, of which the first has
    /// the embeddings, too. It computes the same bytes as on one of them.
    ///
    /// # Errors
    /// Those of [`Model::load`], and [`Error::Argument`] for no device.
    pub fn load_over(
        checkpoint: &Checkpoint,
        devices: &[Device],
        dtype: Kind,
    ) -> Result<Self, Error> {
        let Some(&device) = devices.first() else {
            return Err(Error::Argument {
                argument: "device",
                found: "none".into(),
                remedy: "name one".into(),
            });
        };
        tch::no_grad(|| {
            let config = checkpoint.config();
            let layout = checkpoint.layout();
            let on = |device: Device| Loader {
                checkpoint,
                device,
                kind: dtype,
            };
            let loader = on(device);
            let embedding = loader.tensor(&layout.embedding)?;
            let positions = layout.positions.as_ref();
            let places = places(checkpoint, devices.len());
            let blocks = (0..).zip(places).map(|(layer, place)| {
                let there = devices[place];
                Ok(Placed {
                    block: Block::load(&on(there), config, layer)?,
                    device: there,
                    home: (place > 0).then_some(device),
                })
            });
            Ok(Self {
                embedding_norm: loader.maybe_norm(layout.embedding_norm.as_ref())?,
                positions: positions.map(|p| loader.tensor(p)).transpose()?,
                blocks: blocks.collect::<Result<_, Error>>()?,
                final_norm: loader.norm(&layout.final_norm)?,
                head: match &layout.head {
                    Some(head) => loader.linear(head)?,
                    None => Linear {
                        weight: embedding.shallow_clone(),
                        bias: (layout.head_bias.as_ref())
                            .map(|bias| loader.tensor(bias))
                            .transpose()?,
                    },
                },
                embedding,
                config: config.clone(),
                tokenizer: checkpoint.tokenizer().clone(),
                device,
                dtype,
            })
        })
    }

    /// The model's shape and options.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Where the weights are; of several devices the first.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The type the weights have and the hidden states are computed in.
    pub fn dtype(&self) -> Kind {
        self.dtype
    }

    /// Token ids as a `[1, tokens]` tensor on the model's device.
    ///
    /// # Errors
    /// [`Error::TokenId`], and [`Error::Context`] where there are more than the model has positions for. The methods
    /// below rely on both.
    pub fn ids(&self, ids: &[u32]) -> Result<Tensor, Error> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.config.vocab) {
            return Err(Error::TokenId {
                id: id.into(),
                vocab: self.config.vocab,
            });
        }
        if ids.len() > self.config.context {
            return Err(Error::Context {
                tokens: ids.len(),
                context: self.config.context,
            });
        }
        let ids: Vec<i64> = ids.iter().map(|&id| id.into()).collect();
        Ok(Tensor::from_slice(&ids).unsqueeze(0).to_device(self.device))
    }

    /// The token embedding: ids `[rows, tokens]` to `[rows, tokens, width]`, before any position
    /// embedding. This is what the family's embedding module gives, so Gemma's scale is in it;
    /// noise is added here.
    pub fn embed(&self, ids: &Tensor) -> Tensor {
        let embeddings = Tensor::embedding(&self.embedding, ids, -1, false, false);
        match self.config.embedding_scale {
            // The factor is rounded to the model's type first, as in training.
            Some(scale) => {
                embeddings
                    * Tensor::from(scale)
                        .to_kind(self.dtype)
                        .to_device(self.device)
            }
            None => embeddings,
        }
    }

    /// The input of block 0: embeddings `[rows, tokens, width]`, scaled or normalised where the
    /// family does so behind its embedding module, with learned positions added, if the family has any, from
    /// position `offset` on.
    pub fn add_positions(&self, embeddings: &Tensor, offset: i64) -> Tensor {
        let scaled = match self.config.input_scale {
            Some(scale) => embeddings * scale,
            None => embeddings.shallow_clone(),
        };
        let scaled = match &self.embedding_norm {
            Some(norm) => norm.forward(&scaled),
            None => scaled,
        };
        let first = self.config.position_offset as i64 + offset;
        match &self.positions {
            Some(positions) => scaled + positions.narrow(0, first, embeddings.size()[1]),
            None => scaled,
        }
    }

    /// One block on the tokens of `x`, `[rows, tokens, width]`, which stand at the positions after
    /// those of `pass.past`.
    pub fn block(
        &self,
        layer: usize,
        x: &Tensor,
        pass: Pass<'_>,
        hook: &mut dyn Hook,
    ) -> BlockOutput {
        self.blocks[layer].forward(layer, x, pass, None, hook)
    }

    /// What the attention heads of a layer give, `[rows, queries, heads * head_dim]`, for `queries`,
    /// `[rows, queries, heads, head_dim]` as [`Hook::queries`] sees them, of the last of the tokens
    /// whose keys and values are `seen`.
    pub fn heads(&self, layer: usize, queries: &Tensor, seen: &KeyValue) -> Tensor {
        self.blocks[layer].heads(queries, seen)
    }

    /// How the queries of a layer are spread over its keys, behind the softmax of
    /// [`Model::attention_scores`] and of whatever else takes part in it, in float32, in that
    /// shape.
    pub fn attention_patterns(&self, layer: usize, queries: &Tensor, keys: &Tensor) -> Tensor {
        self.blocks[layer].attention_patterns(queries, keys)
    }

    /// The attention scores of a layer before their softmax, `[rows, kv_heads, heads of a group,
    /// queries, keys]`, of all queries, `[rows, tokens, heads, head_dim]` as [`Hook::queries`] sees
    /// them, with the keys of the same tokens, `[rows, tokens, kv_heads, head_dim]` as
    /// [`Hook::keys`] does; minus infinity where a query does not see a key.
    pub fn attention_scores(&self, layer: usize, queries: &Tensor, keys: &Tensor) -> Tensor {
        self.blocks[layer].attention_scores(queries, keys)
    }

    /// What a block gives at tokens whose input is `x`, `[rows, tokens, width]`, and whose attention
    /// heads give `z`, `[rows, tokens, heads * head_dim]`, as [`Hook::heads`] sees it: behind the
    /// heads a token sees itself only. `hook` sees what lies between.
    pub fn behind_heads(
        &self,
        layer: usize,
        x: &Tensor,
        z: &Tensor,
        hook: &mut dyn Hook,
    ) -> Tensor {
        self.blocks[layer].behind_heads(layer, x, z, hook)
    }

    /// [`Model::block`] for rows with pasts of different lengths, each filled up at its beginning. `padding`,
    /// `[rows, tokens of the past]` in the model's type, is 0 where a row has a token and minus
    /// infinity where it was filled up. A row's tokens stand so much later, which no family minds
    /// behind block 0: positions are either in the embeddings or relative.
    pub fn block_padded(
        &self,
        layer: usize,
        x: &Tensor,
        pass: Pass<'_>,
        padding: &Tensor,
        hook: &mut dyn Hook,
    ) -> BlockOutput {
        self.blocks[layer].forward(layer, x, pass, Some(padding), hook)
    }

    /// Attention keys of a layer, `[rows, kv_heads, tokens, head_dim]`, as if their tokens stood
    /// `by` places later.
    pub fn keys_later(&self, layer: usize, keys: &Tensor, by: i64) -> Tensor {
        self.blocks[layer].keys_later(keys, by)
    }

    /// What a block adds to the residual stream for an MLP output, `[.., width]`: the output
    /// itself, behind its post-norm and times the residual's factor in the families that have them.
    pub fn mlp_contribution(&self, layer: usize, out: &Tensor) -> Tensor {
        self.blocks[layer].mlp_contribution(out)
    }

    /// The MLP output of a layer for keys `[.., inner]`: `[.., width]`, bias included, computed in
    /// float32.
    ///
    /// # Errors
    /// [`Error::Mixture`].
    pub fn mlp_output(&self, layer: usize, key: &Tensor) -> Result<Tensor, Error> {
        let down = self.down(layer)?;
        Ok(self.blocks[layer].away(key, |key| down.forward_wide(key)))
    }

    /// Final norm and vocabulary projection: `[.., width]` to `[.., vocab]`, in float32.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.logits_of(self.head.forward(&self.final_norm.forward(hidden)))
    }

    /// Refuses what is read from logits that are no numbers: `values` made from them, after a text
    /// of `tokens`.
    ///
    /// # Errors
    /// [`Error::Overflow`].
    pub(super) fn check_finite(&self, values: &Tensor, tokens: usize) -> Result<(), Error> {
        match values.isfinite().all().int64_value(&[]) {
            0 => Err(Error::Overflow {
                tokens,
                dtype: format!("{:?}", self.dtype),
            }),
            _ => Ok(()),
        }
    }

    /// Logits as they come from the head, in float32, scaled and soft-capped where the family does
    /// so.
    fn logits_of(&self, logits: Tensor) -> Tensor {
        let logits = logits.to_kind(Kind::Float);
        let logits = match self.config.logit_scale {
            Some(scale) => logits * scale,
            None => logits,
        };
        match self.config.logit_cap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }

    /// The probability of one token of the vocabulary to come next: hidden states `[rows, width]`
    /// behind the last block to `[rows]` in float32. The logits, by far the widest of all states,
    /// are made and summed up in slices of the vocabulary that stay in the processor's cache; they
    /// are never held together.
    pub fn probability(&self, hidden: &Tensor, token: i64) -> Tensor {
        let normed = self.normed(hidden);
        let (mut logit, mut sums) = (None, Vec::new());
        for slice in self.logit_slices() {
            let logits = self.logits_in(&normed, &slice);
            if slice.contains(&token) {
                logit = Some(logits.select(1, token - slice.start));
            }
            sums.push(logits.logsumexp([-1i64].as_slice(), false));
        }
        let sum = Tensor::stack(&sums, 1).logsumexp([-1i64].as_slice(), false);
        match logit {
            Some(logit) => (logit - sum).exp(),
            None => sum.zeros_like(),
        }
    }

    /// The slices of the vocabulary in which [`Model::probability`] makes its logits, in order.
    pub fn logit_slices(&self) -> impl Iterator<Item = Range<i64>> + use<> {
        let vocab = self.config.vocab as i64;
        let starts = (0..vocab).step_by(SLICE as usize);
        starts.map(move |from| from..vocab.min(from + SLICE))
    }

    /// Hidden states `[rows, width]` behind the last block, as the vocabulary projection takes
    /// them.
    pub fn normed(&self, hidden: &Tensor) -> Tensor {
        self.final_norm.forward(hidden)
    }

    /// The logits of one slice of the vocabulary, `[rows, slice]` in float32, of what
    /// [`Model::normed`] gave.
    pub fn logits_in(&self, normed: &Tensor, slice: &Range<i64>) -> Tensor {
        let length = slice.end - slice.start;
        self.logits_of(self.head.rows(slice.start, length).forward(normed))
    }

    /// The whole computation: ids `[rows, tokens]` to logits `[rows, tokens, vocab]` in float32.
    pub fn forward(&self, ids: &Tensor, hook: &mut dyn Hook) -> Tensor {
        let mut hidden = self.add_positions(&self.embed(ids), 0);
        for layer in 0..self.config.layers {
            hidden = self.block(layer, &hidden, Pass::default(), hook).hidden;
        }
        self.logits(&hidden)
    }

    /// The MLP's second matrix of a layer, which edits change: `[width, inner]` in the model's
    /// type, whatever the orientation in the checkpoint. It is on the device of its layer.
    ///
    /// # Errors
    /// [`Error::Mixture`].
    pub fn down_projection(&self, layer: usize) -> Result<&Tensor, Error> {
        Ok(&self.down(layer)?.weight)
    }

    fn down(&self, layer: usize) -> Result<&Linear, Error> {
        match &self.blocks[layer].block.mlp {
            FeedForward::Dense(mlp) => Ok(&mlp.down),
            FeedForward::Mixture(_) => Err(self.config.no_key(layer)),
        }
    }

    /// Puts another matrix in that place, `[width, inner]`; it is copied to its layer's device and
    /// to the model's type if need be.
    ///
    /// # Errors
    /// [`Error::Argument`] for another shape, [`Error::Mixture`], [`Error::Torch`] when memory does
    /// not suffice.
    pub fn set_down_projection(&mut self, layer: usize, weight: &Tensor) -> Result<(), Error> {
        let placed = &mut self.blocks[layer];
        let FeedForward::Dense(Mlp { down, .. }) = &mut placed.block.mlp else {
            return Err(self.config.no_key(layer));
        };
        if weight.size() != down.weight.size() {
            return Err(Error::Argument {
                argument: "weight",
                found: format!("of shape {:?}", weight.size()),
                remedy: format!("layer {layer} needs {:?}", down.weight.size()),
            });
        }
        down.weight = weight.f_to_device(placed.device)?.f_to_kind(self.dtype)?;
        Ok(())
    }
}

/// On which of so many devices each block goes: runs of about equal weights, where the first device
/// has what is no block's, too.
fn places(checkpoint: &Checkpoint, devices: usize) -> Vec<usize> {
    let layers = checkpoint.config().layers;
    let layout = checkpoint.layout();
    let numbers = |name: &str| -> usize {
        let tensor = checkpoint.tensors().find(|tensor| tensor.name == name);
        tensor.map_or(0, |tensor| tensor.shape.iter().product())
    };
    let shared = [
        Some(&layout.embedding),
        layout.positions.as_ref(),
        layout.head.as_ref().map(|head| &head.weight),
    ];
    let shared: usize = shared
        .iter()
        .flatten()
        .map(|tensor| numbers(&tensor.name))
        .sum();
    let all: usize = checkpoint
        .tensors()
        .map(|it| it.shape.iter().product::<usize>())
        .sum();
    spread(
        layers,
        shared,
        all.saturating_sub(shared) / layers.max(1),
        devices,
    )
}

/// So many blocks of one size over devices, the first of which has `shared` already.
fn spread(layers: usize, shared: usize, block: usize, devices: usize) -> Vec<usize> {
    let block = block.max(1);
    let share = (shared + layers * block) / devices;
    let first = share.saturating_sub(shared) / block;
    let place = |layer: usize| match layer.checked_sub(first) {
        None => 0,
        Some(beyond) => 1 + beyond * (devices - 1) / (layers - first),
    };
    (0..layers).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn blocks_go_to_devices_in_runs_of_about_equal_weights() {
        assert_eq!(spread(4, 100, 10, 1), [0; 4]);
        assert_eq!(spread(4, 0, 10, 2), [0, 0, 1, 1]);
        assert_eq!(spread(7, 20, 10, 3), [0, 1, 1, 1, 2, 2, 2]);
        // The embeddings alone are more than a share.
        assert_eq!(spread(3, 100, 10, 2), [1, 1, 1]);
        assert_eq!(spread(2, 0, 10, 4), [1, 2]);
        assert_eq!(spread(0, 10, 0, 2), [0usize; 0]);
    }
}
