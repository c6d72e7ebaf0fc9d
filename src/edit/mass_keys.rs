//! Keys of a mass edit, and what the last edited layer gives.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::rows::{self, Row};
use super::{Error, Request, Watch};
use crate::model::{Hook, Model, Pass};

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

/// Reads the keys of a fact at some layers, rising, and the output of layer `last`, on the model as
/// it is.
///
/// # Errors
/// A request or a context that cannot be used; [`Error::Setting`] for layers that the model does
/// not have;
/// [`Error::Cancelled`]; [`Error::Model`] for texts that do not fit the model.
pub fn mass_keys(
    model: &Model,
    request: &Request,
    contexts: &[String],
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
    let tokenizer = model.tokenizer();
    let row = |context: &str| {
        super::check_context(context)?;
        rows::reading(tokenizer, &request.prompt, &request.subject, context)
    };
    let _no_grad = tch::no_grad_guard();
    let bare_row = row(BARE)?;
    let at_first_token = bare_row.lookup == 0;
    let (bare, output) = run(
        model,
        &[&bare_row],
        layers,
        top.max(last),
        Some(last),
        watch,
    )?;
    let mut by_length: BTreeMap<usize, Vec<Row>> = BTreeMap::new();
    for context in contexts.iter().filter(|context| *context != BARE) {
        let row = row(context)?;
        by_length.entry(row.ids.len()).or_default().push(row);
    }
    let mut others: Vec<Vec<Tensor>> = layers.iter().map(|_| Vec::new()).collect();
    for rows in by_length.values() {
        let rows: Vec<&Row> = rows.iter().collect();
        let (keys, _) = run(model, &rows, layers, top, None, watch)?;
        for (all, keys) in others.iter_mut().zip(keys) {
            all.push(keys);
        }
    }
    let first = [0i64];
    let mean = |keys: Tensor| keys.mean_dim(first.as_slice(), false, Kind::Double);
    let keys = bare.into_iter().zip(others).map(|(bare, others)| {
        let bare = mean(bare);
        match others.is_empty() {
            true => bare,
            false => bare * 0.5 + mean(Tensor::cat(&others, 0)) * 0.5,
        }
    });
    Ok(MassKeys {
        keys: keys.collect(),
        output: match output {
            Some(output) => output.select(0, 0),
            None => return Err(Error::NoDirection), // it was asked for
        },
        at_first_token,
    })
}

/// Runs rows of one length up to layer `top`: the keys of each layer, `[rows, inner]`, and the
/// output of layer `output`, `[rows, width]`, all of the last token and in float64.
fn run(
    model: &Model,
    rows: &[&Row],
    layers: &[usize],
    top: usize,
    output: Option<usize>,
    watch: &dyn Watch,
) -> Result<(Vec<Tensor>, Option<Tensor>), Error> {
    let ids = rows.iter().map(|row| model.ids(&row.ids));
    let ids: Vec<Tensor> = ids.collect::<Result<_, _>>()?;
    let mut x = model.add_positions(&model.embed(&Tensor::cat(&ids, 0)), 0);
    let mut found = Keys {
        layers,
        keys: Vec::new(),
    };
    let mut given = None;
    for layer in 0..=top {
        if watch.cancelled() {
            return Err(Error::Cancelled);
        }
        x = model.block(layer, &x, Pass::default(), &mut found).hidden;
        if output == Some(layer) {
            given = Some(x.select(1, -1).to_kind(Kind::Double));
        }
    }
    Ok((found.keys, given))
}

/// Takes what the edited layers' MLPs read at the last token.
struct Keys<'a> {
    layers: &'a [usize],
    keys: Vec<Tensor>,
}

impl Hook for Keys<'_> {
    fn key(&mut self, layer: usize, key: &Tensor) {
        if self.layers.contains(&layer) {
            self.keys.push(key.select(1, -1).to_kind(Kind::Double));
        }
    }
}
