//! Causal self-attention (Vaswani et al. 2017) with grouped key and value heads (Ainslie et al. 2023).

use tch::{Kind, Tensor};

use super::config::LayerAttention;
use super::norm::Norm;
use super::rotary::Rotary;
use super::weights::{Linear, Loader};
use super::{Config, Error, families};

/// Keys and values of a run of tokens, each `[rows, kv_heads, tokens, head_dim]`, keys after rotary. The order of a
/// key's channels is this module's own.
#[derive(Debug)]
pub struct KeyValue {
    /// Keys.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
}

impl KeyValue {
    /// Rows held.
    pub fn rows(&self) -> i64 {
        self.k.size()[0]
    }

    /// Tokens held.
    pub fn tokens(&self) -> i64 {
        self.k.size()[2]
    }

    /// The same memory again.
    pub fn shallow_clone(&self) -> Self {
        Self {
            k: self.k.shallow_clone(),
            v: self.v.shallow_clone(),
        }
    }

    /// These tokens, then those of `next`, for the same rows.
    pub fn then(&self, next: &KeyValue) -> Self {
        Self {
            k: Tensor::cat(&[&self.k, &next.k], 2),
            v: Tensor::cat(&[&self.v, &next.v], 2),
        }
    }

    /// Tokens `from .. from + tokens`, in the same memory.
    pub fn narrow(&self, from: i64, tokens: i64) -> Self {
        Self {
            k: self.k.narrow(2, from, tokens),
            v: self.v.narrow(2, from, tokens),
        }
    }
}

/// The attention of one block.
#[derive(Debug)]
pub struct Attention {
    /// Query, key and value in one product.
    qkv: Linear,
    /// The query's part of `qkv`, for when few tokens ask.
    q: Linear,
    /// The key's and value's part.
    kv: Linear,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    rotary: Option<Rotary>,
    o: Linear,
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
    /// Scores are `scale * q.k`.
    scale: f64,
    cap: Option<f64>,
    window: Option<i64>,
}

impl Attention {
    pub fn load(
        loader: &Loader<'_>,
        config: &Config,
        layer: &families::Layer,
        options: &LayerAttention,
    ) -> Result<Self, Error> {
        let (heads, kv_heads) = (config.heads as i64, config.kv_heads as i64);
        let head_dim = config.head_dim as i64;
        let channels = match &options.rope {
            Some(rope) => rope.channels(config.head_dim),
            None => (0..config.head_dim).collect(),
        };
        let order: Vec<i64> = channels.iter().map(|&channel| channel as i64).collect();
        let order = Tensor::from_slice(&order).to_device(loader.device);
        let head_norm = |norm: Option<&families::Norm>| -> Result<Option<Norm>, Error> {
            let norm = loader.maybe_norm(norm)?;
            Ok(norm.map(|norm| norm.reordered(&order)))
        };
        let qkv = loader.qkv(&layer.qkv, &channels)?;
        Ok(Self {
            q: qkv.rows(0, heads * head_dim),
            kv: qkv.rows(heads * head_dim, 2 * kv_heads * head_dim),
            qkv,
            q_norm: head_norm(layer.q_norm.as_ref())?,
            k_norm: head_norm(layer.k_norm.as_ref())?,
            rotary: options
                .rope
                .as_ref()
                .map(|rope| Rotary::new(rope, config.head_dim, loader.device, loader.kind)),
            o: loader.linear(&layer.o)?,
            heads,
            kv_heads,
            head_dim,
            scale: config.score_scale,
            cap: config.score_cap,
            window: options.window.map(|window| window as i64),
        })
    }

    /// From normed states `[rows, tokens, width]` the output of the last `queries` tokens,
    /// `[rows, queries, width]`, and the keys and values of all.
    pub fn forward(&self, x: &Tensor, past: Option<&KeyValue>, queries: i64) -> (Tensor, KeyValue) {
        let size = x.size();
        let (rows, tokens) = (size[0], size[1]);
        let before = past.map_or(0, KeyValue::tokens);
        let (q, kv) = if queries == tokens {
            let all = self.qkv.forward(x);
            let width = self.heads * self.head_dim;
            let rest = 2 * self.kv_heads * self.head_dim;
            (all.narrow(2, 0, width), all.narrow(2, width, rest))
        } else {
            let last = x.narrow(1, tokens - queries, queries);
            (self.q.forward(&last), self.kv.forward(x))
        };
        let q = q.view([rows, queries, self.heads, self.head_dim]);
        let kv = kv.view([rows, tokens, 2 * self.kv_heads, self.head_dim]);
        let k = kv.narrow(2, 0, self.kv_heads);
        let v = kv.narrow(2, self.kv_heads, self.kv_heads);
        let q = self.place(q, self.q_norm.as_ref(), before + tokens - queries);
        let k = self.place(k, self.k_norm.as_ref(), before);
        let kv = KeyValue {
            k: k.transpose(1, 2).contiguous(),
            v: v.transpose(1, 2).contiguous(),
        };
        let mixed = self.mix(&q.transpose(1, 2), &kv, past);
        let mixed = mixed.transpose(1, 2).reshape([rows, queries, -1]);
        (self.o.forward(&mixed), kv)
    }

    /// Norm and rotary of query or key heads, `[rows, tokens, heads, head_dim]`.
    fn place(&self, x: Tensor, norm: Option<&Norm>, position: i64) -> Tensor {
        let x = norm.map_or(x.shallow_clone(), |norm| norm.forward(&x));
        match &self.rotary {
            Some(rotary) => rotary.forward(&x, position),
            None => x,
        }
    }

    /// Values weighted by the softmax of the scores: from queries `[rows, heads, queries, head_dim]` to the same.
    fn mix(&self, q: &Tensor, own: &KeyValue, past: Option<&KeyValue>) -> Tensor {
        let size = q.size();
        let (rows, queries) = (size[0], size[2]);
        let (tokens, kv_heads, head_dim) = (own.tokens(), self.kv_heads, self.head_dim);
        // The heads that share keys lie side by side, so they are taken as more queries of one head.
        let asked = self.heads / kv_heads * queries;
        let q = q.reshape([rows * kv_heads, asked, head_dim]);
        let k = own.k.view([rows * kv_heads, tokens, head_dim]);
        let v = own.v.view([rows * kv_heads, tokens, head_dim]);
        let first = past.map_or(0, KeyValue::tokens) + tokens - queries;
        let own_mask = self.mask(q.kind(), &q, queries, tokens, tokens - queries);
        let scores = self.scores(&q, &k, own_mask);
        let Some(past) = past.filter(|past| past.tokens() > 0) else {
            let out = self.softmax(&scores).bmm(&v);
            return out.view([rows, self.heads, queries, head_dim]);
        };
        // Row r reads past row r % past_rows: all rows that read one past row become more queries of it.
        let (past_rows, before) = (past.rows(), past.tokens());
        let shared = rows / past_rows;
        let gathered = |x: &Tensor| {
            let last = x.size()[2];
            x.view([shared, past_rows, kv_heads, asked, last])
                .permute([1, 2, 0, 3, 4])
                .reshape([past_rows * kv_heads, shared * asked, last])
        };
        let scattered = |x: &Tensor| {
            let last = x.size()[2];
            x.view([past_rows, kv_heads, shared, asked, last])
                .permute([2, 0, 1, 3, 4])
                .reshape([rows * kv_heads, asked, last])
        };
        let past_k = past.k.reshape([past_rows * kv_heads, before, head_dim]);
        let past_v = past.v.reshape([past_rows * kv_heads, before, head_dim]);
        // Every past token is before every query: only a window can hide one.
        let past_mask = match self.window {
            Some(_) => self.mask(q.kind(), &q, queries, before, first),
            None => None,
        };
        let past_mask = past_mask.map(|mask| mask.repeat([shared, 1]));
        let past_scores = scattered(&self.scores(&gathered(&q), &past_k, past_mask));
        let weights = self.softmax(&Tensor::cat(&[past_scores, scores], 2));
        let from_past = gathered(&weights.narrow(2, 0, before).contiguous()).bmm(&past_v);
        let from_own = weights.narrow(2, before, tokens);
        let out = scattered(&from_past).baddbmm(&from_own, &v, 1.0, 1.0);
        out.view([rows, self.heads, queries, head_dim])
    }

    /// `[batch, asked, head_dim]` with `[batch, tokens, head_dim]` to `[batch, asked, tokens]`.
    fn scores(&self, q: &Tensor, k: &Tensor, mask: Option<Tensor>) -> Tensor {
        let k = k.transpose(1, 2);
        match (self.cap, mask) {
            (None, Some(mask)) => mask.unsqueeze(0).baddbmm(q, &k, 1.0, self.scale),
            (None, None) => q.bmm(&k) * self.scale,
            (Some(cap), mask) => {
                let capped = (q.bmm(&k) * (self.scale / cap)).tanh() * cap;
                match mask {
                    Some(mask) => capped + mask,
                    None => capped,
                }
            }
        }
    }

    fn softmax(&self, scores: &Tensor) -> Tensor {
        scores.softmax(-1, Kind::Float).to_kind(scores.kind())
    }

    /// Zero where query `i`, standing `first + i` tokens after key 0, sees key `j`, and minus infinity where it does
    /// not; `[heads of a group * queries, keys]`. `None` where all is seen.
    fn mask(
        &self,
        kind: Kind,
        like: &Tensor,
        queries: i64,
        keys: i64,
        first: i64,
    ) -> Option<Tensor> {
        let ahead = first + 1 < keys;
        let behind = self.window.is_some_and(|window| first + queries > window);
        if !ahead && !behind {
            return None;
        }
        let hidden = Tensor::full([queries, keys], f64::NEG_INFINITY, (kind, like.device()));
        let mut mask = hidden.triu(first + 1);
        if let Some(window) = self.window.filter(|_| behind) {
            mask += hidden.tril(first - window);
        }
        Some(mask.repeat([self.heads / self.kv_heads, 1]))
    }
}
