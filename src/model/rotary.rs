//! Applying rotary position embeddings (Su et al. 2021).

use std::cell::RefCell;

use tch::{Device, Kind, Tensor};

use super::config::Rope;

/// The rotations of one layer, for heads whose channels are in the order of [`Rope::channels`].
#[derive(Debug)]
pub struct Rotary {
    /// Radians a token of channel `i`, and of its partner `i + head_dim / 2`; zero where nothing
    /// turns.
    frequencies: Vec<f32>,
    /// How long what is turned gets, channel by channel of the first half: 1 where nothing turns.
    amplitudes: Vec<f32>,
    device: Device,
    kind: Kind,
    /// Cosines and signed sines of positions `0 .. n`, `[n, 1, head_dim]` each; grown when a longer
    /// text comes.
    table: RefCell<Option<(Tensor, Tensor)>>,
}

impl Rotary {
    pub fn new(rope: &Rope, head_dim: usize, device: Device, kind: Kind) -> Self {
        let mut frequencies = rope.frequencies();
        let mut amplitudes = vec![rope.scaling.amplitude() as f32; frequencies.len()];
        frequencies.resize(head_dim / 2, 0.0);
        amplitudes.resize(head_dim / 2, 1.0);
        Self {
            frequencies,
            amplitudes,
            device,
            kind,
            table: RefCell::new(None),
        }
    }

    /// Turns the heads of `x`, `[rows, tokens, heads, head_dim]`, whose first token stands at
    /// `position`.
    pub fn forward(&self, x: &Tensor, position: i64) -> Tensor {
        let (_, tokens, _, head_dim) = x.size4().unwrap_or_default();
        let (cos, sin) = self.rows(position, tokens);
        // Channel i of the first half pairs with channel i of the second: (a, b) -> (a cos - b sin,
        // b cos + a sin).
        let partners = x.roll([head_dim / 2], [3]);
        (x * cos).addcmul(&partners, &sin)
    }

    /// Turns heads that were turned already, `[rows, tokens, heads, head_dim]`, as if all their
    /// tokens stood `by` places later.
    pub fn later(&self, x: &Tensor, by: i64) -> Tensor {
        let (cos, sin) = self.rows(by, 1);
        let half = x.size().last().map_or(0, |head_dim| head_dim / 2);
        let turned = (x * cos).addcmul(&x.roll([half], [3]), &sin);
        match self.amplitudes.iter().all(|amplitude| *amplitude == 1.0) {
            true => turned,
            // They have their length already.
            false => {
                let amplitudes = Tensor::from_slice(&self.amplitudes).repeat([2]);
                turned / amplitudes.to_device(self.device).to_kind(self.kind)
            }
        }
    }

    fn rows(&self, position: i64, tokens: i64) -> (Tensor, Tensor) {
        let mut table = self.table.borrow_mut();
        let end = position + tokens;
        let (cos, sin) = match table.take() {
            Some((cos, sin)) if cos.size()[0] >= end => (cos, sin),
            _ => self.compute((end as usize).next_power_of_two()),
        };
        let rows = (
            cos.narrow(0, position, tokens),
            sin.narrow(0, position, tokens),
        );
        *table = Some((cos, sin));
        rows
    }

    fn compute(&self, positions: usize) -> (Tensor, Tensor) {
        let angles = (0..positions)
            .flat_map(|position| self.frequencies.iter().map(move |f| position as f32 * f));
        let angles: Vec<f32> = angles.collect();
        let sizes = [positions as i64, 1, self.frequencies.len() as i64];
        let angles = Tensor::from_slice(&angles).view(sizes);
        let amplitudes = Tensor::from_slice(&self.amplitudes);
        let (cos, sin) = (angles.cos() * &amplitudes, angles.sin() * amplitudes);
        let place = |t: Tensor| t.to_device(self.device).to_kind(self.kind);
        (
            place(Tensor::cat(&[&cos, &cos], -1)),
            place(Tensor::cat(&[&sin.neg(), &sin], -1)),
        )
    }
}
