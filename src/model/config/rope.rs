//! Rotary position embedding: its parameters and its table of frequencies.
//!
//! Su et al. 2021, *RoFormer*. Frequencies are computed in float32, as transformers does: models
//! were trained with those roundings.

use serde_json::Value;

use super::super::Error;
use super::fields::{Fields, unsupported};

/// The rotary embedding of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Leading channels of a head that are rotated; even.
    pub dims: usize,
    /// Whether channel `2i` is paired with `2i + 1` (GPT-J); otherwise `i` with `i + dims / 2`.
    pub interleaved: bool,
    /// How the context was stretched.
    pub scaling: RopeScaling,
}

/// What a configuration says of rotary embeddings outside their object.
struct Around {
    /// Base of the wavelengths where the object names none.
    theta: f64,
    /// Which part of a head is turned.
    part: Part,
    /// `partial_rotary_factor` beside the object.
    factor: f64,
    /// Width of a head.
    head_dim: usize,
    /// Tokens of context before stretching: counts before the object's.
    original: Option<f64>,
    /// The model's context, where nothing says how long it was.
    context: Option<f64>,
    /// Whether kinds of layer have objects of their own: transformers reads no `truncate` there.
    of_kind: bool,
}

/// Which part of every head a family turns, as transformers (5.23) computes it. What the file says
/// of `partial_rotary_factor` counts for the families that look at it, and for no other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Part {
    /// All of it, whatever the file says: the frequencies of Llama and its kin are those of the
    /// whole head. Those of a stretched embedding would be of a part, and the model then stops at
    /// its first text with shapes that do not fit: so that is refused.
    Whole,
    /// What the object of rotary parameters says; else this, which stands under a name of the
    /// family's own (GPT-NeoX).
    Own(f64),
    /// What the object says; else the field of that name beside it; else this (Phi, StableLM).
    Either(f64),
}

impl Around {
    /// The part of a head that is turned, where the object says `factor`.
    fn of_a_head(&self, factor: Option<f64>) -> f64 {
        match self.part {
            Part::Whole => 1.0,
            Part::Own(own) => factor.unwrap_or(own),
            Part::Either(_) => factor.unwrap_or(self.factor),
        }
    }
}

/// How the frequencies were changed for contexts longer than those first trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all. `dynamic` scaling too is read as this: it differs only beyond the model's
    /// context, where nothing here goes.
    None,
    /// Every frequency divided by the factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3: long wavelengths divided by the factor, short ones kept, a ramp between.
    Llama3 {
        /// Divisor of the long wavelengths.
        factor: f64,
        /// `original / low` is the wavelength beyond which the factor holds.
        low: f64,
        /// `original / high` is the wavelength up to which nothing changes.
        high: f64,
        /// Tokens of context before stretching.
        original: f64,
    },
    /// Yarn (Peng et al. 2023): slow channel pairs divided by the factor, fast ones kept, a ramp
    /// between; and what is turned gets longer.
    Yarn {
        /// Divisor of the slow pairs.
        factor: f64,
        /// The pair up to which nothing changes.
        kept: f64,
        /// The pair from which the factor holds.
        slow: f64,
        /// How long what is turned gets, in lengths of what it was.
        amplitude: f64,
    },
}

impl Rope {
    /// Reads `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (4 and before).
    /// `theta` holds where the file says nothing. Where the parameters differ by kind of layer
    /// (Gemma 3), `kind` says which to read.
    pub(crate) fn read(
        fields: &Fields<'_>,
        theta: f64,
        head_dim: usize,
        part: Part,
        kind: Option<&str>,
    ) -> Result<Self, Error> {
        let named = fields.positive("rope_theta", theta)?;
        let default = match part {
            Part::Either(default) => default,
            Part::Whole | Part::Own(_) => 1.0,
        };
        let factor = fields.positive("partial_rotary_factor", default)?;
        let around = Around {
            // GPT-NeoX has names of its own for both, and reads no others.
            theta: match part {
                Part::Own(_) => theta,
                Part::Whole | Part::Either(_) => named,
            },
            part,
            factor,
            head_dim,
            original: fields.maybe_number("original_max_position_embeddings")?,
            context: fields.maybe_number("max_position_embeddings")?,
            of_kind: kind.is_some(),
        };
        // Where a file has both, the old name counts, as in every transformers: 4 reads nothing
        // else, and 5 puts it in the place of the new one (`convert_rope_params_to_dict`). An empty
        // object is none.
        let given = |name| {
            let object = fields.get(name)?;
            let empty = object.as_object().is_some_and(|map| map.is_empty());
            (!empty).then_some((name, object))
        };
        let new = given("rope_parameters");
        let object = given("rope_scaling").or(new);
        match object {
            Some((name, value)) => {
                let of_kind = |value: &Value| kind.and_then(|kind| value.get(kind)).cloned();
                // Gemma 3 lays the old object over the new one of its kind of layer.
                let below = new.filter(|(of, _)| *of != name);
                let below = below.and_then(|(_, value)| of_kind(value));
                let mut value = of_kind(value).unwrap_or_else(|| value.clone());
                if let (Some(Value::Object(below)), Value::Object(over)) = (below, &mut value) {
                    let over = std::mem::replace(over, below);
                    value
                        .as_object_mut()
                        .into_iter()
                        .for_each(|map| map.extend(over.clone()));
                }
                Self::from_object(name, &value, &around)
            }
            None => Ok(Self::plain(around.theta, head_dim, around.of_a_head(None))),
        }
    }

    /// The embedding of one kind of layer, where `rope_parameters` has an object of its own for each.
    /// `theta` holds where it has none; `context` is the model's.
    pub(crate) fn of_kind(
        fields: &Fields<'_>,
        kind: &str,
        theta: f64,
        head_dim: usize,
        context: usize,
    ) -> Result<Self, Error> {
        let by_kind = fields.get("rope_parameters");
        let Some(object) = by_kind.and_then(|kinds| kinds.get(kind)) else {
            return Ok(Self::plain(theta, head_dim, 1.0));
        };
        let around = Around {
            theta,
            part: Part::Whole,
            // Where the kinds of layer have objects of their own, what stands beside is read by none.
            factor: 1.0,
            head_dim,
            original: None,
            context: Some(context as f64),
            of_kind: true,
        };
        Self::from_object(&format!("rope_parameters.{kind}"), object, &around)
    }

    /// The embedding without any scaling.
    pub(crate) fn plain(theta: f64, head_dim: usize, partial: f64) -> Self {
        Rope {
            theta,
            dims: (head_dim as f64 * partial) as usize,
            interleaved: false,
            scaling: RopeScaling::None,
        }
    }

    /// Reads one object of rope parameters, called `name` in messages.
    fn from_object(name: &str, value: &Value, around: &Around) -> Result<Self, Error> {
        let map = value
            .as_object()
            .ok_or_else(|| unsupported(name, value, "an object"))?;
        let fields = Fields::new("rotary", map);
        // Old files write the kind as `type`, some under both names.
        let old_kind = fields.get("type");
        let kind = fields.get("rope_type").or(old_kind);
        let theta = fields.positive("rope_theta", around.theta)?;
        let factor = fields.get("partial_rotary_factor");
        let factor = factor
            .map(|_| fields.positive("partial_rotary_factor", 1.0))
            .transpose()?;
        let mut rope = Self::plain(theta, around.head_dim, around.of_a_head(factor));
        // The outer field first, then the object's, then the context (`standardize_rope_params`).
        let original = || match (around.original, around.context) {
            (Some(outer), _) => {
                fields.get("original_max_position_embeddings");
                Ok(outer)
            }
            (None, Some(context)) => fields.positive("original_max_position_embeddings", context),
            _ => required(name, &fields, "original_max_position_embeddings"),
        };
        rope.scaling = match kind.map(|kind| kind.as_str()) {
            None | Some(Some("default")) => {
                // What it would be of another kind: a factor of 1 stretches nothing.
                if let Some(factor) = fields.maybe_number("factor")?.filter(|it| *it != 1.0) {
                    return Err(unsupported(
                        &format!("{name}.factor"),
                        &factor.into(),
                        "1 where nothing is stretched: name the rope_type, or leave it out",
                    ));
                }
                fields.get("original_max_position_embeddings");
                RopeScaling::None
            }
            Some(Some("dynamic")) => {
                fields.positive("factor", 1.0)?;
                fields.get("original_max_position_embeddings");
                RopeScaling::None
            }
            Some(Some("linear")) => RopeScaling::Linear {
                factor: required(name, &fields, "factor")?,
            },
            Some(Some("llama3")) => RopeScaling::Llama3 {
                factor: required(name, &fields, "factor")?,
                low: required(name, &fields, "low_freq_factor")?,
                high: required(name, &fields, "high_freq_factor")?,
                original: original()?,
            },
            Some(Some("yarn")) => rope.yarn(name, &fields, original()?, around)?,
            Some(_) => {
                return Err(unsupported(
                    &format!("{name}.rope_type"),
                    kind.unwrap_or(&Value::Null),
                    "default, linear, dynamic, llama3, yarn",
                ));
            }
        };
        fields.finish()?;
        // `rope_type` may be there and name no scaling.
        let stretched = !matches!(kind.and_then(Value::as_str), None | Some("default"));
        if let (Part::Whole, true) = (around.part, stretched)
            && let Some(factor) = factor.or(Some(around.factor)).filter(|it| *it != 1.0)
        {
            return Err(unsupported(
                "partial_rotary_factor",
                &factor.into(),
                "1 where positions are stretched: this family turns whole heads, and transformers \
                 cannot run anything else",
            ));
        }
        Ok(rope)
    }

    /// Reads the numbers of Yarn, as transformers computes with them.
    fn yarn(
        &self,
        name: &str,
        fields: &Fields<'_>,
        original: f64,
        around: &Around,
    ) -> Result<RopeScaling, Error> {
        let factor = required(name, fields, "factor")?;
        // By how much scores are to grow with the context.
        let grown = |by: f64| match factor > 1.0 {
            true => 0.1 * by * factor.ln() + 1.0,
            false => 1.0,
        };
        let given = |field| fields.maybe_number(field);
        let scales = (given("mscale")?, given("mscale_all_dim")?);
        let amplitude = match (given("attention_factor")?, scales) {
            (Some(amplitude), _) => amplitude,
            (None, (Some(one), Some(all))) if one != 0.0 && all != 0.0 => grown(one) / grown(all),
            _ => grown(1.0),
        };
        // The pair that makes so many turns within the context.
        let pair = |turns: f64| {
            let wavelength = original / (turns * std::f64::consts::TAU);
            self.dims as f64 * wavelength.ln() / (2.0 * self.theta.ln())
        };
        // Whether the ramp is from one whole pair to another.
        let whole = match around.of_kind {
            true => {
                fields.fixed("truncate", &Value::Bool(true))?;
                true
            }
            false => fields.flag("truncate", true)?,
        };
        let fast = fields.positive("beta_fast", 32.0)?;
        let slow = fields.positive("beta_slow", 1.0)?;
        let (kept, slow) = match (pair(fast), pair(slow)) {
            (kept, slow) if whole => (kept.floor(), slow.ceil()),
            bounds => bounds,
        };
        let (kept, slow) = (kept.max(0.0), slow.min(self.dims as f64 - 1.0));
        Ok(RopeScaling::Yarn {
            factor,
            kept,
            slow: if slow == kept { kept + 1e-3 } else { slow },
            amplitude,
        })
    }

    pub(super) fn check(&self, head_dim: usize) -> Result<(), Error> {
        let even = self.dims.is_multiple_of(2) && head_dim.is_multiple_of(2);
        if self.dims == 0 || self.dims > head_dim || !even {
            return Err(unsupported(
                "rotary dimensions",
                &self.dims.into(),
                &format!("an even number up to the head's {head_dim}, which must be even too"),
            ));
        }
        if let RopeScaling::Llama3 { low, high, .. } = self.scaling
            && high <= low
        {
            return Err(unsupported(
                "high_freq_factor",
                &high.into(),
                &format!("more than low_freq_factor, {low}"),
            ));
        }
        if let RopeScaling::Yarn {
            kept,
            slow,
            amplitude,
            ..
        } = self.scaling
            && !(kept < slow && amplitude.is_finite())
        {
            return Err(unsupported(
                "rope_type",
                &"yarn".into(),
                "another one with these numbers: no channel pair is between the fast and the slow",
            ));
        }
        Ok(())
    }

    /// The order of a head's channels in which every family's rotation is the same: channel `i`
    /// turns with channel `i + head_dim / 2`, and pairs that do not turn come last in each half.
    /// Queries and keys reordered alike have the same scores.
    pub fn channels(&self, head_dim: usize) -> Vec<usize> {
        let rotated = (0..self.dims / 2).map(|i| match self.interleaved {
            true => (2 * i, 2 * i + 1),
            false => (i, i + self.dims / 2),
        });
        let still = (self.dims..head_dim).step_by(2).map(|c| (c, c + 1));
        let (first, second): (Vec<_>, Vec<_>) = rotated.chain(still).unzip();
        [first, second].concat()
    }

    /// Radians a token for each of the `dims / 2` channel pairs.
    pub fn frequencies(&self) -> Vec<f32> {
        (0..self.dims / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / self.dims as f32;
                let frequency = 1.0 / (self.theta as f32).powf(exponent);
                frequency / self.scaling.divisor(i, frequency)
            })
            .collect()
    }
}

impl RopeScaling {
    /// How long what is turned gets, in lengths of what it was.
    pub fn amplitude(&self) -> f64 {
        match *self {
            RopeScaling::Yarn { amplitude, .. } => amplitude,
            _ => 1.0,
        }
    }

    /// What `frequency` (radians a token) of a channel pair is divided by.
    pub(crate) fn divisor(&self, pair: usize, frequency: f32) -> f32 {
        match *self {
            RopeScaling::None => 1.0,
            RopeScaling::Linear { factor } => factor as f32,
            RopeScaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                let (factor, low, high) = (factor as f32, low as f32, high as f32);
                let turns = original as f32 * frequency / std::f32::consts::TAU;
                let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
            RopeScaling::Yarn {
                factor, kept, slow, ..
            } => {
                let ramp = (pair as f32 - kept as f32) / (slow - kept) as f32;
                let slow = ramp.clamp(0.0, 1.0);
                1.0 / (slow / factor as f32 + (1.0 - slow))
            }
        }
    }
}

fn required(name: &str, fields: &Fields<'_>, field: &str) -> Result<f64, Error> {
    match fields.maybe_number(field)? {
        Some(value) if value > 0.0 => Ok(value),
        found => Err(unsupported(
            &format!("{name}.{field}"),
            &found.map_or(Value::Null, Value::from),
            "a number above 0",
        )),
    }
}
