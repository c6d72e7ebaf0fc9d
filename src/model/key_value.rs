//! What attention keeps of tokens.

use tch::{Device, Tensor};

/// Keys and values of a run of tokens, each `[rows, kv_heads, tokens, head_dim]`, keys after
/// rotary. The order of a key's channels is the attention's own.
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

    /// The same numbers in memory of their own on a device.
    pub(super) fn copied_to(&self, device: Device) -> Self {
        Self {
            k: copied(&self.k, device),
            v: copied(&self.v, device),
        }
    }

    /// These tokens, then those of `next`, for the same rows.
    pub fn then(&self, next: &KeyValue) -> Self {
        Self {
            k: Tensor::cat(&[&self.k, &next.k], 2),
            v: Tensor::cat(&[&self.v, &next.v], 2),
        }
    }

    /// These tokens, then those of `next`, each of whose rows `r` follows row `r % rows()` of
    /// these. The copy of a past row for every row that reads it is under a hundredth of the
    /// products of a causal trace at any length of prompt, as few rows have much past; products of
    /// one past row with many rows' queries need as many copies, of the scores.
    pub(super) fn before_all(&self, next: &KeyValue) -> Self {
        let (rows, shared) = (next.rows(), next.rows() / self.rows());
        let join = |past: &Tensor, next: &Tensor| {
            let by_row = |x: &Tensor| [&[shared, self.rows()], &x.size()[1..]].concat();
            let past = past.unsqueeze(0).expand(by_row(past), false);
            let next = next.view(by_row(next).as_slice());
            let joined = Tensor::cat(&[past, next], 3);
            let sizes = [&[rows], &joined.size()[2..]].concat();
            joined.view(sizes.as_slice())
        };
        Self {
            k: join(&self.k, &next.k),
            v: join(&self.v, &next.v),
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

/// The same numbers in memory of their own on a device, with the way of gradients back. A copy also
/// where they are there already: so what a model does on one device, named twice, is what it does
/// on two.
pub fn copied(x: &Tensor, device: Device) -> Tensor {
    x.to_device_(device, x.kind(), false, true)
}
