//! Keys of a mass edit, and what the last edited layer gives.

use tch::{Kind, Tensor};

use super::prefix::Reading;
use super::{Contexts, Error, Request, Watch, rows};
use crate::model::{Config, Hook, Model};

/// The sentence with nothing before it.
const BARE: &str = "{}";

/// What is read of a fact.
#[derive(Debug)]
pub struct MassKeys {
    /// Of each layer asked for the input of the edited matrix at the subject's last token: half of
    /// the bare sentence's, half of the other contexts' mean. `[inner]` in float64.
    pub keys: Vec<Tensor>,
    /// The output of the last layer there, of the bare sentence: `[width]` in float64.
    pub output: Tensor,
    /// Whether that is the text's first token, which sees nothing but itself.
    pub at_first_token: bool,
}

/// What a layer is to add to its MLP's output, in the shape of `missing`, which is what the last
/// layer's output lacks: an equal share for each of the `left` layers that are still to be written,
/// divided by the factor with which a block adds (Granite).
pub fn residuals(config: &Config, missing: &Tensor, left: usize) -> Tensor {
    missing / (left as f64 * config.residual_scale.unwrap_or(1.0))
}

/// Reads the keys of a fact at some layers, rising, and the output of layer `last`, on the model as
/// it is, on which the contexts were read too, up to the highest of these layers. All rows go up to
/// there in one pass, and the bare sentence on to `last` alone.
///
/// # Errors
/// A request or a context that cannot be used; [`Error::Setting`] for layers that the model does
/// not have;
/// [`Error::Cancelled`]; [`Error::Model`] for texts that do not fit the model.
pub fn mass_keys(
    model: &Model,
    request: &Request,
    contexts: &Contexts,
    layers: &[usize],
    last: usize,
    watch: &dyn Watch,
) -> Result<MassKeys, Error> {
    request.check()?;
    let top = layers.iter().copied().max().unwrap_or(0);
    if last.max(top) >= model.config().layers {
        return Err(Error::Setting {
            field: "layers",
            value: last.max(top).to_string(),
            remedy: format!("the model has layers 0 to {}", model.config().layers - 1),
        });
    }
    layers
        .iter()
        .try_for_each(|&layer| model.config().has_key(layer))?;
    contexts.covers(top + 1)?;
    let tokenizer = model.tokenizer();
    let _no_grad = tch::no_grad_guard();
    let of = |context: &str| rows::reading(tokenizer, &request.prompt, &request.subject, context);
    let bare = of(BARE)?;
    let at_first_token = bare.lookup == 0;
    let mut all = vec![(bare, None)];
    for (n, context) in contexts.texts().iter().enumerate() {
        if context != BARE {
            all.push((of(context)?, Some(n)));
        }
    }
    let mut reading = Reading::new(model, contexts, &all)?;
    let mut found = Keys {
        layers,
        lookups: reading.lookups(),
        keys: Vec::new(),
    };
    let mut output = None;
    for layer in 0..=top.max(last) {
        if layer == top + 1 {
            // Only what the bare sentence gives is wanted of the layers above.
            reading.only_first();
        }
        reading.next(&mut found, watch)?;
        if layer == last {
            output = Some(reading.at_lookups(reading.output()).select(0, 0));
        }
    }
    let first = [0i64];
    let others = all.len() as i64 - 1;
    let keys = found.keys.iter().map(|keys| {
        let bare = keys.select(0, 0);
        match others {
            0 => bare,
            _ => {
                let others = keys.narrow(0, 1, others);
                bare * 0.5 + others.mean_dim(first.as_slice(), false, Kind::Double) * 0.5
            }
        }
    });
    Ok(MassKeys {
        keys: keys.collect(),
        output: output.ok_or(Error::NoDirection)?, // the layer was run
        at_first_token,
    })
}

/// Takes what the edited layers' MLPs read at the last token.
struct Keys<'a> {
    layers: &'a [usize],
    /// Where each row's subject ends.
    lookups: Vec<i64>,
    /// `[rows, inner]` in float64 of each layer.
    keys: Vec<Tensor>,
}

impl Hook for Keys<'_> {
    fn sees(&self, layer: usize) -> bool {
        self.layers.contains(&layer)
    }

    fn key(&mut self, layer: usize, key: Tensor) -> Tensor {
        if self.layers.contains(&layer) {
            let each = (0..).zip(&self.lookups);
            let each = each.map(|(n, &lookup)| key.select(0, n).select(0, lookup));
            let each: Vec<Tensor> = each.collect();
            self.keys
                .push(Tensor::stack(&each, 0).to_kind(Kind::Double));
        }
        key
    }
}
