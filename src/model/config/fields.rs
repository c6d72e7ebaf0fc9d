//! Reading a JSON object so that no field of it is passed over.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::Error;
use super::options::{Activation, Family};
use super::unused;

/// Sizes multiply into shapes: a bound keeps those products inside 64 bits.
pub(crate) const LARGEST: usize = 1 << 28;
/// Ten times those of any model that there is.
const MOST_LAYERS: usize = 2000;

/// A JSON object that remembers which of its fields were asked for. `null` counts as absent.
pub(crate) struct Fields<'a> {
    family: &'static str,
    map: &'a Map<String, Value>,
    /// Names asked for, so that [`Fields::finish`] can tell the rest.
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    pub fn new(family: &'static str, map: &'a Map<String, Value>) -> Self {
        Self {
            family,
            map,
            read: RefCell::default(),
        }
    }

    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(field.to_owned());
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// Whether the field is written down, be it as `null`.
    pub fn has(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    fn required<T>(&self, field: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| Error::MissingField {
            field: field.to_owned(),
            family: self.family,
        })
    }

    pub fn maybe_size(&self, field: &str) -> Result<Option<usize>, Error> {
        self.get(field)
            .map(|value| {
                let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
                size.filter(|n| *n <= LARGEST).ok_or_else(|| {
                    unsupported(field, value, &format!("a whole number, 0 to {LARGEST}"))
                })
            })
            .transpose()
    }

    pub fn size(&self, field: &str) -> Result<usize, Error> {
        let value = self.maybe_size(field)?;
        self.required(field, value)
    }

    /// A number of blocks, for each of which there is a description.
    pub fn layers(&self, field: &str) -> Result<usize, Error> {
        let layers = self.size(field)?;
        if (1..=MOST_LAYERS).contains(&layers) {
            return Ok(layers);
        }
        let supported = format!("1 to {MOST_LAYERS}");
        Err(unsupported(field, &layers.into(), &supported))
    }

    pub fn maybe_number(&self, field: &str) -> Result<Option<f64>, Error> {
        self.get(field)
            .map(|value| {
                value
                    .as_f64()
                    .filter(|x| x.is_finite())
                    .ok_or_else(|| unsupported(field, value, "a number"))
            })
            .transpose()
    }

    /// A number above zero.
    pub fn positive(&self, field: &str, default: f64) -> Result<f64, Error> {
        let value = self.maybe_number(field)?.unwrap_or(default);
        if value > 0.0 {
            Ok(value)
        } else {
            Err(unsupported(field, &value.into(), "a number above 0"))
        }
    }

    pub fn flag(&self, field: &str, default: bool) -> Result<bool, Error> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(unsupported(field, other, "true or false")),
        }
    }

    /// A size that has a default where the file does not name it, and is none where it says `null`.
    pub fn size_or(&self, field: &str, default: Option<usize>) -> Result<Option<usize>, Error> {
        match self.has(field) {
            true => self.maybe_size(field),
            false => Ok(default),
        }
    }

    /// Another family's names of what was read already: written down beside it, they must say the
    /// same.
    pub fn same(&self, names: &[(&str, usize)]) -> Result<(), Error> {
        for (field, read) in names {
            if let Some(found) = self.maybe_size(field)?.filter(|found| found != read) {
                return Err(unsupported(field, &found.into(), &read.to_string()));
            }
        }
        Ok(())
    }

    /// Refuses any value but `value`, which is also the default.
    pub fn fixed(&self, field: &str, value: &Value) -> Result<(), Error> {
        match self.get(field) {
            None => Ok(()),
            Some(found) if found == value => Ok(()),
            Some(found) => Err(unsupported(field, found, &value.to_string())),
        }
    }

    /// The activation named by `field`.
    pub fn activation(&self, field: &str, default: Activation) -> Result<Activation, Error> {
        let Some(value) = self.get(field) else {
            return Ok(default);
        };
        match value.as_str() {
            Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
            // Names for one function: they differ in how the polynomial is written down.
            Some(
                "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh"
                | "gelu_accurate",
            ) => Ok(Activation::GeluTanh),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("relu") => Ok(Activation::Relu),
            _ => Err(unsupported(
                field,
                value,
                "gelu, gelu_python, gelu_new, gelu_fast, gelu_accurate, gelu_pytorch_tanh, gelu_python_tanh, silu, \
                 swish, relu",
            )),
        }
    }

    /// `eos_token_id`: one id, a list, or none. A file that does not name it means the family's
    /// own, as in transformers; `null` means none.
    pub fn eos(&self, family: Family) -> Result<Vec<u32>, Error> {
        let field = "eos_token_id";
        match self.get(field) {
            Some(value) => token_ids(value)
                .ok_or_else(|| unsupported(field, value, "a token id or a list of them")),
            None if self.has(field) => Ok(Vec::new()),
            None => Ok(family.eos().into_iter().collect()),
        }
    }

    /// The list `layer_types` as "is this layer's attention sliding", if it is there.
    pub fn sliding_layers(&self, layers: usize) -> Result<Option<Vec<bool>>, Error> {
        let Some(value) = self.get("layer_types") else {
            return Ok(None);
        };
        let sliding = value
            .as_array()
            .filter(|list| list.len() == layers)
            .and_then(|list| {
                list.iter()
                    .map(|kind| match kind.as_str() {
                        Some("sliding_attention") => Some(true),
                        Some("full_attention") => Some(false),
                        _ => None,
                    })
                    .collect()
            });
        sliding.map(Some).ok_or_else(|| {
            unsupported(
                "layer_types",
                value,
                &format!("{layers} times sliding_attention or full_attention"),
            )
        })
    }

    /// Call last: refuses what nobody asked for and nobody may ignore.
    pub fn finish(&self) -> Result<(), Error> {
        let read = self.read.borrow();
        for (field, value) in self.map.iter().filter(|(field, _)| !read.contains(*field)) {
            match unused::allowed(field) {
                Some(allowed) if allowed.holds(value) => {}
                Some(allowed) => return Err(unsupported(field, value, &allowed.supported())),
                None => {
                    return Err(Error::UnknownField {
                        field: field.clone(),
                        found: value.to_string(),
                        family: self.family,
                    });
                }
            }
        }
        Ok(())
    }
}

/// One token id or a list of them. -1, as some files have it, is none.
pub(crate) fn token_ids(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let none = |value: &&Value| value.as_i64() != Some(-1);
    match value {
        Value::Array(list) => list.iter().filter(none).map(id).collect(),
        one if !none(&one) => Some(Vec::new()),
        one => Some(vec![id(one)?]),
    }
}

/// An [`Error::UnsupportedValue`].
pub(crate) fn unsupported(field: &str, found: &Value, supported: &str) -> Error {
    Error::UnsupportedValue {
        field: field.to_owned(),
        found: found.to_string(),
        supported: supported.to_owned(),
    }
}
