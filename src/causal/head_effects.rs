//! Estimated effects of parts of attention heads, all from the gradient at what the heads give.
//!
//! A head gives `z[t] = sum_s a[t, s] v[s]`, values weighted by its pattern. So the gradient of a
//! metric at its pattern is `g[t, s] = dz[t] . v[s]`, and at a value `sum_t a[t, s] dz[t]`. What a
//! query or a key does is not linear even in small steps, as it goes through a softmax: the pattern
//! is computed again with the other one, and its change is taken times `g` (the query-key fix of
//! AtP*, Kramar et al. 2024). With one key `s` changed, of a row of the pattern only the weight of
//! `s` moves freely: with `r` the exponential of its score's change, the row's effect is
//! `a (r - 1) (g[s] - G) / (1 + a (r - 1))`, where `G = sum_u a[u] g[u]`.

use tch::{Kind as Dtype, Tensor};

use super::kind::{Kind, Part};
use super::runs::Source;
use crate::model::Model;

/// Largest change of a score of which an exponential is taken: that of a larger one is no number,
/// and the effect is the same.
const MOST_CHANGE: f64 = 60.0;

/// What the heads of one layer have in a run, in float32.
pub(super) struct Heads {
    /// What they give, `[rows, tokens, heads * head_dim]`.
    pub z: Tensor,
    /// `[rows, tokens, heads, head_dim]`.
    pub queries: Tensor,
    /// `[rows, tokens, kv_heads, head_dim]`.
    pub keys: Tensor,
    /// Likewise.
    pub values: Tensor,
    /// Their pattern, `[rows, kv_heads, heads of a group, queries, keys]`.
    pub pattern: Tensor,
}

impl Heads {
    /// From states in the model's number format.
    pub fn of(
        model: &Model,
        layer: usize,
        (z, queries, keys, values): (&Tensor, &Tensor, &Tensor, &Tensor),
    ) -> Self {
        let pattern = model.attention_patterns(layer, queries, keys);
        let wide = |state: &Tensor| state.detach().to_kind(Dtype::Float);
        Self {
            z: wide(z),
            queries: queries.detach(),
            keys: keys.detach(),
            values: wide(values),
            pattern,
        }
    }

    /// Those of the run whose states are put in.
    pub fn of_source(model: &Model, layer: usize, source: &Source) -> Self {
        let kv = &source.kv[layer];
        let (keys, values) = (kv.k.transpose(1, 2), kv.v.transpose(1, 2));
        let states = (&source.heads[layer], &source.queries[layer], &keys, &values);
        Self::of(model, layer, states)
    }
}

/// What putting a part of heads in changes before any gradient is known.
pub(super) enum Change {
    /// What they give, `[rows, tokens, heads * head_dim]`.
    Output(Tensor),
    /// Their values, `[rows, tokens, kv_heads, head_dim]`.
    Value(Tensor),
    /// Their pattern, as [`Heads::pattern`], each row by itself.
    Pattern(Tensor),
    /// One key at a time: how far a row's weight of it moves, and the row before.
    Key { moved: Tensor, before: Tensor },
}

impl Change {
    pub fn of(model: &Model, layer: usize, kind: Kind, own: &Heads, source: &Heads) -> Self {
        let rows = own.z.size()[0];
        let wide = |state: &Tensor| {
            let mut size = state.size();
            size[0] = rows;
            state.expand(size, false)
        };
        let scores = |queries: &Tensor, keys: &Tensor| {
            model.attention_scores(layer, &wide(queries), &wide(keys))
        };
        let pattern = |queries: &Tensor, keys: &Tensor| {
            model.attention_patterns(layer, &wide(queries), &wide(keys))
        };
        match kind.of_head().map(|(part, _)| part) {
            Some(Part::Value) => Self::Value(&source.values - &own.values),
            Some(Part::Pattern) => Self::Pattern(&source.pattern - &own.pattern),
            Some(Part::Query) => {
                let moved = pattern(&source.queries, &own.keys);
                Self::Pattern(moved - &own.pattern)
            }
            Some(Part::Key) if kind.is_over_tokens() => {
                let moved = pattern(&own.queries, &source.keys);
                Self::Pattern(moved - &own.pattern)
            }
            Some(Part::Key) => {
                let before = scores(&own.queries, &own.keys).to_kind(Dtype::Float);
                let behind = scores(&own.queries, &source.keys).to_kind(Dtype::Float);
                // Where nothing is seen both are minus infinity.
                let change = (behind - before).nan_to_num(0.0, MOST_CHANGE, -MOST_CHANGE);
                let factor = change.clamp_max(MOST_CHANGE).expm1() * &own.pattern;
                Self::Key {
                    moved: &factor / (&factor + 1.0),
                    before: own.pattern.shallow_clone(),
                }
            }
            _ => Self::Output(&source.z - &own.z),
        }
    }

    /// The effects of a kind's cells of one layer, summed over rows, from the gradient at what the
    /// heads give, `[rows, tokens, heads * head_dim]`, in the run of `at`: `[tokens][heads]`, or
    /// `[heads]` where every token is patched at once, of keys and values those that there are of
    /// them.
    pub fn effect(&self, kind: Kind, at: &Heads, gradient: &Tensor) -> Tensor {
        let size = at.pattern.size();
        let (rows, kv_heads, group, tokens) = (size[0], size[1], size[2], size[3]);
        let by_group = |states: &Tensor| {
            let states = states.to_kind(Dtype::Float);
            let states = states.view([rows, tokens, kv_heads, group, -1]);
            states.permute([0, 2, 3, 1, 4])
        };
        let dz = by_group(gradient);
        let of_keys = |states: &Tensor| states.permute([0, 2, 3, 1]).unsqueeze(2);
        // `[rows, kv_heads, heads of a group, queries, keys]`
        let at_pattern = || dz.matmul(&of_keys(&at.values));
        let sum =
            |effects: &Tensor, axes: &[i64]| effects.sum_dim_intlist(axes, false, Dtype::Double);
        // Last the tokens that are patched, before them the heads.
        let by_head = match self {
            Self::Output(change) => {
                let effects = sum(&(by_group(change) * &dz), &[0, 4]);
                effects.reshape([kv_heads * group, tokens])
            }
            Self::Pattern(change) => {
                let effects = sum(&(change * at_pattern()), &[0, 4]);
                match kind.of_head() {
                    // A key is that of its group.
                    Some((Part::Key, _)) => sum(&effects, &[1]),
                    _ => effects.reshape([kv_heads * group, tokens]),
                }
            }
            Self::Value(change) => {
                let each = &at.pattern * dz.matmul(&of_keys(change));
                sum(&each, &[0, 2, 3])
            }
            Self::Key { moved, before } => {
                let gradient = at_pattern();
                let along = [-1i64];
                let mean = (before * &gradient).sum_dim_intlist(along.as_slice(), true, None);
                sum(&(moved * (gradient - mean)), &[0, 2, 3])
            }
        };
        match kind.is_over_tokens() {
            true => sum(&by_head, &[1]),
            false => by_head.transpose(0, 1).reshape([-1]),
        }
    }
}
