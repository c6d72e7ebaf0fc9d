//! Causal self-attention (Vaswani et al. 2017) with grouped key and value heads (Ainslie et al.
//! 2023).

use tch::{Device, Kind, Tensor};

use super::config::{LayerAttention, QkNorm};
use super::hook::Hook;
use super::key_value::KeyValue;
use super::norm::Norm;
use super::rotary::Rotary;
use super::weights::{Linear, Loader};
use super::{Config, Error, families};

/// Numbers of two bytes as float32 on a CPU. Products of a batch of them go one of two ways through
/// libtorch, by how large the batch is, to other last bits: a row would depend on the rows beside it.
fn wide(x: &Tensor) -> Tensor {
    match x.kind() {
        Kind::Half | Kind::BFloat16 if x.device() == Device::Cpu => x.to_kind(Kind::Float),
        _ => x.shallow_clone(),
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
    qk_norm: QkNorm,
    rotary: Option<Rotary>,
    o: Linear,
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
    /// Scores are `scale * q.k`.
    scale: f64,
    cap: Option<f64>,
    window: Option<i64>,
    /// `[kv_heads, 1, heads of a group, 1]`: how much a score falls with each token that a key
    /// stands before its query.
    slopes: Option<Tensor>,
    /// `[kv_heads, heads of a group]`: of every head the score of a key without a value, which every
    /// query sees.
    sinks: Option<Tensor>,
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
            qk_norm: config.qk_norm,
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
            slopes: config.alibi.then(|| {
                let slopes = Tensor::from_slice(&slopes(config.heads)).to_device(loader.device);
                slopes.view([kv_heads, 1, heads / kv_heads, 1])
            }),
            sinks: match &layer.sinks {
                Some(sinks) => {
                    let sinks = loader.tensor(sinks)?;
                    Some(sinks.f_view([kv_heads, heads / kv_heads])?)
                }
                None => None,
            },
        })
    }

    /// From normed states `[rows, tokens, width]` what the heads give at the last `queries` tokens,
    /// `[rows, queries, heads * head_dim]`, and the keys and values of all. `padding`, `[rows, past
    /// tokens]`, is added to the scores of the past.
    pub fn forward(
        &self,
        layer: usize,
        x: &Tensor,
        (past, padding): (Option<&KeyValue>, Option<&Tensor>),
        queries: i64,
        hook: &mut dyn Hook,
    ) -> (Tensor, KeyValue) {
        let size = x.size();
        let (rows, tokens) = (size[0], size[1]);
        let before = past.map_or(0, KeyValue::tokens);
        let first = before + tokens - queries;
        let (heads, kv_heads) = (self.heads, self.kv_heads);
        let (q, k, v) = if queries == tokens {
            let all = self.qkv.forward(x);
            let all = all.view([rows, tokens, heads + 2 * kv_heads, self.head_dim]);
            let v = all.narrow(2, heads + kv_heads, kv_heads);
            let asking = |x: &Tensor| x.narrow(2, 0, heads);
            let keys = |x: &Tensor| x.narrow(2, heads, kv_heads);
            match (&self.q_norm, &self.k_norm) {
                // Turned together: half as many calls for the same numbers.
                (None, None) => {
                    let both = self.place(all.narrow(2, 0, heads + kv_heads), None, before);
                    (asking(&both), keys(&both), v)
                }
                (q_norm, k_norm) => (
                    self.place(asking(&all), q_norm.as_ref(), before),
                    self.place(keys(&all), k_norm.as_ref(), before),
                    v,
                ),
            }
        } else {
            let last = x.narrow(1, tokens - queries, queries);
            let q = self.q.forward(&last);
            let kv = self.kv.forward(x);
            let kv = kv.view([rows, tokens, 2 * kv_heads, self.head_dim]);
            (
                self.place(
                    q.view([rows, queries, heads, self.head_dim]),
                    self.q_norm.as_ref(),
                    first,
                ),
                self.place(kv.narrow(2, 0, kv_heads), self.k_norm.as_ref(), before),
                kv.narrow(2, kv_heads, kv_heads),
            )
        };
        let q = hook.queries(layer, q);
        let kv = KeyValue {
            k: hook.keys(layer, k).transpose(1, 2).contiguous(),
            v: hook.values(layer, v).transpose(1, 2).contiguous(),
        };
        let mut pattern = |weights: &Tensor| hook.pattern(layer, weights);
        let z = self.mix(&q.transpose(1, 2), &kv, (past, padding), &mut pattern);
        (z, kv)
    }

    /// What the heads give, `[rows, queries, heads * head_dim]`, for the `queries`, `[rows, queries,
    /// heads, head_dim]`, of the last of the tokens of `seen`.
    pub fn heads(&self, queries: &Tensor, seen: &KeyValue) -> Tensor {
        self.mix(&queries.transpose(1, 2), seen, (None, None), &mut |_| {})
    }

    /// The scores of `queries`, `[rows, tokens, heads, head_dim]`, with `keys`, `[rows, tokens,
    /// kv_heads, head_dim]`, of the same tokens: `[rows, kv_heads, heads of a group, queries,
    /// keys]`. Minus infinity where a query does not see a key.
    pub fn all_scores(&self, queries: &Tensor, keys: &Tensor) -> Tensor {
        let size = queries.size();
        let (rows, tokens) = (size[0], size[1]);
        let (kv_heads, group) = (self.kv_heads, self.heads / self.kv_heads);
        let flat = |x: &Tensor, each: i64| {
            let x = x.transpose(1, 2);
            x.reshape([rows * kv_heads, each * tokens, self.head_dim])
        };
        let (q, k) = (flat(queries, group), flat(keys, 1));
        let mask = self.mask(&q, tokens, tokens, 0);
        let scores = self.scores(&q, &k, mask.map(|mask| self.of_rows(mask, rows)));
        let scores = scores.view([rows, kv_heads, tokens, group, tokens]);
        scores.permute([0, 1, 3, 4, 2])
    }

    /// How those queries are spread over the keys: the softmax of [`Attention::all_scores`], in
    /// float32.
    pub fn all_patterns(&self, queries: &Tensor, keys: &Tensor) -> Tensor {
        let scores = self.all_scores(queries, keys);
        match &self.sinks {
            Some(sinks) => {
                let mut size = scores.size();
                let keys = std::mem::replace(&mut size[4], 1);
                let sinks = sinks.unsqueeze(-1).unsqueeze(-1).expand(size, false);
                let with = Tensor::cat(&[scores, sinks], -1).softmax(-1, Kind::Float);
                with.narrow(-1, 0, keys)
            }
            None => scores.softmax(-1, Kind::Float),
        }
    }

    /// The output projection: what the heads give, `[rows, queries, heads * head_dim]`, to `[rows,
    /// queries, width]`.
    pub fn output(&self, z: &Tensor) -> Tensor {
        self.o.forward(z)
    }

    /// Keys, `[rows, kv_heads, tokens, head_dim]`, as if their tokens stood `by` places later.
    pub fn later(&self, keys: &Tensor, by: i64) -> Tensor {
        match &self.rotary {
            Some(rotary) => {
                let turned = rotary.later(&keys.transpose(1, 2), by);
                turned.transpose(1, 2).contiguous()
            }
            None => keys.shallow_clone(),
        }
    }

    /// Norm and rotary of query or key heads, `[rows, tokens, heads, head_dim]`.
    fn place(&self, x: Tensor, norm: Option<&Norm>, position: i64) -> Tensor {
        let x = match (norm, self.qk_norm) {
            (Some(norm), QkNorm::Whole) => norm.forward(&x.flatten(2, 3)).view(x.size().as_slice()),
            (Some(norm), _) => norm.forward(&x),
            (None, _) => x,
        };
        match &self.rotary {
            Some(rotary) => rotary.forward(&x, position),
            None => x,
        }
    }

    /// Values weighted by the softmax of the scores: from queries `[rows, heads, queries,
    /// head_dim]` to `[rows, queries, heads * head_dim]`.
    fn mix(
        &self,
        q: &Tensor,
        own: &KeyValue,
        (past, padding): (Option<&KeyValue>, Option<&Tensor>),
        pattern: &mut dyn FnMut(&Tensor),
    ) -> Tensor {
        let size = q.size();
        let (rows, queries) = (size[0], size[2]);
        let (kv_heads, head_dim) = (self.kv_heads, self.head_dim);
        let seen = match past.filter(|past| past.tokens() > 0) {
            Some(past) => past.before_all(own),
            None => own.shallow_clone(),
        };
        let tokens = seen.tokens();
        // The heads that share keys lie side by side, so they are taken as more queries of one
        // head.
        let asked = self.heads / kv_heads * queries;
        let mut batch = [
            q.reshape([rows * kv_heads, asked, head_dim]),
            seen.k.view([rows * kv_heads, tokens, head_dim]),
            seen.v.view([rows * kv_heads, tokens, head_dim]),
        ];
        let single = rows * kv_heads == 1;
        if single {
            // A batch of one goes another way through libtorch, to other last bits than in larger
            // company.
            batch = batch.map(|x| x.repeat([2, 1, 1]));
        }
        let [q, k, v] = &batch;
        let mask = self.mask(q, queries, tokens, tokens - queries);
        let mask = mask.map(|mask| self.of_rows(mask, if single { 2 } else { rows }));
        let mask = match padding {
            Some(padding) => {
                let own = Tensor::zeros([rows, own.tokens()], (padding.kind(), padding.device()));
                let padding = Tensor::cat(&[padding, &own], 1)
                    .unsqueeze(1)
                    .expand([rows, kv_heads, tokens], false)
                    .reshape([rows * kv_heads, tokens, 1]);
                Some(match mask {
                    Some(mask) => mask + padding,
                    None => padding.expand([rows * kv_heads, tokens, asked], false),
                })
            }
            None => mask,
        };
        let weights = self.softmax(&self.scores(q, k, mask));
        let group = self.heads / kv_heads;
        let of_rows = weights.narrow(0, 0, rows * kv_heads);
        let by_query = of_rows.view([rows, kv_heads, tokens, group, queries]);
        pattern(&by_query.permute([0, 1, 3, 4, 2]));
        let mut out = wide(&weights).transpose(1, 2).bmm(&wide(v));
        out = out.to_kind(q.kind());
        if single {
            out = out.narrow(0, 0, 1);
        }
        out.view([rows, self.heads, queries, head_dim])
            .transpose(1, 2)
            .reshape([rows, queries, self.heads * head_dim])
    }

    /// `[batch, asked, head_dim]` with `[batch, tokens, head_dim]` to `[batch, tokens, asked]`: the
    /// keys come first, so that a softmax over them goes through many queries at a time. Over the
    /// few keys of a prompt, side by side, it takes six times as long.
    fn scores(&self, q: &Tensor, k: &Tensor, mask: Option<Tensor>) -> Tensor {
        let kind = q.kind();
        let (q, k, mask) = (
            wide(q).transpose(1, 2),
            wide(k),
            mask.map(|mask| wide(&mask)),
        );
        let scores = match (self.cap, mask) {
            (None, Some(mask)) => mask.baddbmm(&k, &q, 1.0, self.scale),
            (None, None) => k.bmm(&q) * self.scale,
            (Some(cap), mask) => {
                let capped = (k.bmm(&q) * (self.scale / cap)).tanh() * cap;
                match mask {
                    Some(mask) => capped + mask,
                    None => capped,
                }
            }
        };
        scores.to_kind(kind)
    }

    /// Over the keys of scores of [`Attention::scores`], in float32.
    fn softmax(&self, scores: &Tensor) -> Tensor {
        let weights = match &self.sinks {
            Some(sinks) => {
                let size = scores.size();
                let (batch, keys, asked) = (size[0], size[1], size[2]);
                let queries = asked * self.kv_heads / self.heads;
                let sinks = sinks
                    .repeat_interleave_self_int(queries, 1, None)
                    .unsqueeze(1);
                let sinks = sinks.repeat([batch / self.kv_heads, 1, 1]);
                let with = Tensor::cat(&[scores, &sinks], 1).softmax(1, Kind::Float);
                with.narrow(1, 0, keys)
            }
            None => scores.softmax(1, Kind::Float),
        };
        weights.to_kind(scores.kind())
    }

    /// A mask of [`Attention::mask`] for all key heads of so many rows.
    fn of_rows(&self, mask: Tensor, rows: i64) -> Tensor {
        match mask.size()[0] {
            1 => mask,
            _ => mask.repeat([rows, 1, 1]),
        }
    }

    /// Zero, or minus what the slopes say, where query `i`, standing `first + i` tokens after key
    /// 0, sees key `j`, and minus infinity where it does not; `[1 or kv_heads, keys, heads of a
    /// group * queries]`, for scores like `like`. `None` where all is seen alike.
    fn mask(&self, like: &Tensor, queries: i64, keys: i64, first: i64) -> Option<Tensor> {
        let ahead = first + 1 < keys;
        let behind = self.window.is_some_and(|window| first + queries > window);
        if !ahead && !behind && self.slopes.is_none() {
            return None;
        }
        let options = (like.kind(), like.device());
        let hidden = Tensor::full([keys, queries], f64::NEG_INFINITY, options);
        let mut mask = hidden.tril(-first - 1);
        if let Some(window) = self.window.filter(|_| behind) {
            mask += hidden.triu(window - first);
        }
        let group = self.heads / self.kv_heads;
        let Some(slopes) = &self.slopes else {
            return Some(mask.repeat([1, group]).unsqueeze(0));
        };
        // Distances, and not places, so that they are small where scores are large.
        let wide = (Kind::Float, like.device());
        let place = Tensor::arange(keys, wide).unsqueeze(1);
        let behind = place - (Tensor::arange(queries, wide) + first as f64).unsqueeze(0);
        let fallen = slopes * behind.unsqueeze(1) + mask.unsqueeze(1);
        Some(
            fallen
                .view([self.kv_heads, keys, group * queries])
                .to_kind(like.kind()),
        )
    }
}

/// The slopes of heads (Press et al. 2022): a geometric series, `2^(-8/n)` on, for a power of two;
/// else that of the power below, then every second of twice as many.
fn slopes(heads: usize) -> Vec<f32> {
    let power = 1usize << heads.max(1).ilog2();
    let slope = |of: usize, step: usize| {
        let base = (-8.0 / of as f64).exp2() as f32;
        base.powi(step as i32)
    };
    let rest = (0..heads - power).map(|i| slope(2 * power, 2 * i + 1));
    (1..=power).map(|i| slope(power, i)).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn slopes_are_a_geometric_series_and_what_lies_between() {
        assert_eq!(super::slopes(2), [0.0625, 0.003_906_25]);
        let six = super::slopes(6);
        assert_eq!(six[..4], [0.25, 0.0625, 0.015_625, 0.003_906_25]);
        assert_eq!(six[4..], [0.5, 0.125]);
    }
}
