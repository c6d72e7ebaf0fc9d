//! A block on a device of its own, which nobody else needs to know: what goes in and what comes out
//! is on the model's first device, what hooks see included.

use tch::{Device, Tensor};

use super::block::Block;
use super::hook::{BlockOutput, Hook, Pass};
use super::key_value::{KeyValue, copied};

/// A block, and where it is.
#[derive(Debug)]
pub struct Placed {
    pub block: Block,
    pub device: Device,
    /// The model's first device, where the block is not among those on it.
    pub home: Option<Device>,
}

impl Placed {
    pub fn forward(
        &self,
        layer: usize,
        x: &Tensor,
        pass: Pass<'_>,
        padding: Option<&Tensor>,
        hook: &mut dyn Hook,
    ) -> BlockOutput {
        let Some(home) = self.home else {
            return self.block.forward(layer, x, pass, padding, hook);
        };
        let past = pass.past.map(|past| past.copied_to(self.device));
        let pass = Pass {
            past: past.as_ref(),
            queries: pass.queries,
        };
        let padding = padding.map(|padding| copied(padding, self.device));
        let mut hook = self.at_home(home, layer, hook);
        let x = copied(x, self.device);
        let output = self
            .block
            .forward(layer, &x, pass, padding.as_ref(), &mut hook);
        BlockOutput {
            hidden: copied(&output.hidden, home),
            kv: output.kv.copied_to(home),
        }
    }

    pub fn behind_heads(
        &self,
        layer: usize,
        x: &Tensor,
        z: &Tensor,
        hook: &mut dyn Hook,
    ) -> Tensor {
        let Some(home) = self.home else {
            return self.block.behind_heads(layer, x, z, hook);
        };
        let (x, z) = (copied(x, self.device), copied(z, self.device));
        let mut hook = self.at_home(home, layer, hook);
        copied(&self.block.behind_heads(layer, &x, &z, &mut hook), home)
    }

    pub fn heads(&self, queries: &Tensor, seen: &KeyValue) -> Tensor {
        match self.home {
            None => self.block.heads(queries, seen),
            Some(_) => {
                let seen = seen.copied_to(self.device);
                self.away(queries, |queries| self.block.heads(queries, &seen))
            }
        }
    }

    pub fn attention_scores(&self, queries: &Tensor, keys: &Tensor) -> Tensor {
        self.away_both(queries, keys, |queries, keys| {
            self.block.attention_scores(queries, keys)
        })
    }

    pub fn attention_patterns(&self, queries: &Tensor, keys: &Tensor) -> Tensor {
        self.away_both(queries, keys, |queries, keys| {
            self.block.attention_patterns(queries, keys)
        })
    }

    pub fn keys_later(&self, keys: &Tensor, by: i64) -> Tensor {
        self.away(keys, |keys| self.block.keys_later(keys, by))
    }

    pub fn mlp_contribution(&self, out: &Tensor) -> Tensor {
        self.away(out, |out| self.block.mlp_contribution(out))
    }

    /// Does something on the block's device with a tensor of the first.
    pub fn away(&self, x: &Tensor, work: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        match self.home {
            None => work(x),
            Some(home) => copied(&work(&copied(x, self.device)), home),
        }
    }

    /// The same with two tensors.
    fn away_both(
        &self,
        x: &Tensor,
        y: &Tensor,
        work: impl FnOnce(&Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        match self.home {
            None => work(x, y),
            Some(_) => {
                let y = copied(y, self.device);
                self.away(x, |x| work(x, &y))
            }
        }
    }

    fn at_home<'a>(&self, home: Device, layer: usize, hook: &'a mut dyn Hook) -> AtHome<'a> {
        AtHome {
            hook: hook.sees(layer).then_some(hook),
            home,
            away: self.device,
        }
    }
}

/// Shows a hook of the first device what a block computes on another.
struct AtHome<'a> {
    /// None where it does not look at this layer: then nothing is copied for it.
    hook: Option<&'a mut dyn Hook>,
    home: Device,
    away: Device,
}

impl AtHome<'_> {
    fn passed(
        &mut self,
        x: Tensor,
        through: impl FnOnce(&mut dyn Hook, Tensor) -> Tensor,
    ) -> Tensor {
        match &mut self.hook {
            Some(hook) => copied(&through(*hook, copied(&x, self.home)), self.away),
            None => x,
        }
    }
}

impl Hook for AtHome<'_> {
    fn resid_pre(&mut self, layer: usize, x: Tensor) -> Tensor {
        self.passed(x, |hook, x| hook.resid_pre(layer, x))
    }

    fn resid_mid(&mut self, layer: usize, x: Tensor) -> Tensor {
        self.passed(x, |hook, x| hook.resid_mid(layer, x))
    }

    fn queries(&mut self, layer: usize, q: Tensor) -> Tensor {
        self.passed(q, |hook, q| hook.queries(layer, q))
    }

    fn keys(&mut self, layer: usize, k: Tensor) -> Tensor {
        self.passed(k, |hook, k| hook.keys(layer, k))
    }

    fn values(&mut self, layer: usize, v: Tensor) -> Tensor {
        self.passed(v, |hook, v| hook.values(layer, v))
    }

    fn pattern(&mut self, layer: usize, weights: &Tensor) {
        let Some(hook) = &mut self.hook else {
            return;
        };
        let here = copied(weights, self.home);
        hook.pattern(layer, &here);
        // Where gradients flow, nothing may be written.
        if !weights.requires_grad() {
            weights.shallow_clone().copy_(&here);
        }
    }

    fn heads(&mut self, layer: usize, z: Tensor) -> Tensor {
        self.passed(z, |hook, z| hook.heads(layer, z))
    }

    fn attn(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.passed(out, |hook, out| hook.attn(layer, out))
    }

    fn mlp(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.passed(out, |hook, out| hook.mlp(layer, out))
    }

    fn hidden(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.passed(out, |hook, out| hook.hidden(layer, out))
    }

    fn key(&mut self, layer: usize, key: Tensor) -> Tensor {
        self.passed(key, |hook, key| hook.key(layer, key))
    }
}
