//! The numbers of a method, by model family.

use super::{Error, Method};
use crate::model::{Config, Family};

/// Every number of an edit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hyper {
    /// The layer whose MLP's second matrix is edited, from 0.
    pub layer: usize,
    /// Most steps of the optimisation; there is one update less. At least 1.
    pub steps: usize,
    /// Learning rate of Adam (Kingma and Ba 2015). Above 0.
    pub learning_rate: f64,
    /// ROME: most length of the value's change, in lengths of the clean value. Above 0.
    pub clamp: f64,
    /// ROME: factor of `|delta| / |v0|^2` in the loss. At least 0.
    pub weight_decay: f64,
    /// ROME: factor of the drift of what is said of the subject alone. At least 0.
    pub kl_factor: f64,
    /// The optimisation ends below this loss.
    pub stop_loss: f64,
    /// ROME: added to the diagonal of the key statistics' mean. At least 0.
    pub ridge: f64,
    /// FT+L: most change of any one weight. Above 0.
    pub bound: f64,
}

/// Numbers to use instead of the family's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Overrides {
    /// See [`Hyper::layer`].
    pub layer: Option<usize>,
    /// See [`Hyper::steps`].
    pub steps: Option<usize>,
    /// See [`Hyper::learning_rate`].
    pub learning_rate: Option<f64>,
    /// See [`Hyper::clamp`].
    pub clamp: Option<f64>,
    /// See [`Hyper::weight_decay`].
    pub weight_decay: Option<f64>,
    /// See [`Hyper::kl_factor`].
    pub kl_factor: Option<f64>,
    /// See [`Hyper::stop_loss`].
    pub stop_loss: Option<f64>,
    /// See [`Hyper::ridge`].
    pub ridge: Option<f64>,
    /// See [`Hyper::bound`].
    pub bound: Option<f64>,
}

impl Hyper {
    /// The published numbers where the method's authors give some for such a model, and those of the nearest one
    /// otherwise, with the layer at the same depth.
    pub fn of(method: Method, family: Family, layers: usize, width: usize) -> Self {
        let (layer, clamp, steps, weight_decay) = match (family, layers, width) {
            // Meng et al. 2022 and their release.
            (Family::Gpt2, 24, 1024) => (8, 3.0, 20, 0.5),
            (Family::Gpt2, 36, 1280) => (12, 4.0, 20, 0.5),
            (Family::Gpt2, 48, 1600) => (17, 4.0, 20, 0.5),
            (Family::Gpt2, ..) => (layers / 3, 3.0, 20, 0.5),
            (Family::GptJ, ..) => (scaled(5, 28, layers), 4.0, 20, 0.5),
            (Family::GptNeoX, ..) => (scaled(15, 44, layers), 4.0, 20, 0.5),
            // Wang et al. 2024 (EasyEdit) for Llama, Mistral and Qwen of 7B.
            _ => (scaled(5, 32, layers), 4.0, 25, 1e-3),
        };
        let rome = Self {
            layer,
            steps,
            learning_rate: 0.5,
            clamp,
            weight_decay,
            kl_factor: 0.0625,
            stop_loss: 0.05,
            ridge: 0.0,
            bound: 5e-4,
        };
        match method {
            Method::RRome | Method::Rome => rome,
            Method::FtL => Self {
                layer: match family {
                    // The published search for GPT-2 XL.
                    Family::Gpt2 if layers == 48 => 0,
                    _ => layer,
                },
                steps: 25,
                learning_rate: 5e-4,
                stop_loss: 1e-2,
                ..rome
            },
        }
    }

    /// The numbers for a model, with some replaced.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first number out of its range.
    pub fn new(method: Method, config: &Config, overrides: &Overrides) -> Result<Self, Error> {
        let base = Self::of(method, config.family, config.layers, config.width);
        let hyper = Self {
            layer: overrides.layer.unwrap_or(base.layer),
            steps: overrides.steps.unwrap_or(base.steps),
            learning_rate: overrides.learning_rate.unwrap_or(base.learning_rate),
            clamp: overrides.clamp.unwrap_or(base.clamp),
            weight_decay: overrides.weight_decay.unwrap_or(base.weight_decay),
            kl_factor: overrides.kl_factor.unwrap_or(base.kl_factor),
            stop_loss: overrides.stop_loss.unwrap_or(base.stop_loss),
            ridge: overrides.ridge.unwrap_or(base.ridge),
            bound: overrides.bound.unwrap_or(base.bound),
        };
        hyper.check(config.layers)?;
        Ok(hyper)
    }

    /// Checks every number against its range, for a model of so many layers.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self, layers: usize) -> Result<(), Error> {
        let wrong = |field, value: String, remedy: String| {
            Err(Error::Setting {
                field,
                value,
                remedy,
            })
        };
        if self.layer >= layers {
            let remedy = format!("the model has layers 0 to {}", layers.saturating_sub(1));
            return wrong("layer", self.layer.to_string(), remedy);
        }
        if self.steps == 0 || self.steps > 10_000 {
            return wrong("steps", self.steps.to_string(), "give 1 to 10000".into());
        }
        for (field, value, above_zero) in [
            ("learning_rate", self.learning_rate, true),
            ("clamp", self.clamp, true),
            ("bound", self.bound, true),
            ("weight_decay", self.weight_decay, false),
            ("kl_factor", self.kl_factor, false),
            ("ridge", self.ridge, false),
        ] {
            if !value.is_finite() || value < 0.0 || (above_zero && value == 0.0) {
                let least = if above_zero {
                    "a number above 0"
                } else {
                    "0 or more"
                };
                return wrong(field, value.to_string(), format!("give {least}"));
            }
        }
        if !self.stop_loss.is_finite() {
            return wrong(
                "stop_loss",
                self.stop_loss.to_string(),
                "give a number".into(),
            );
        }
        Ok(())
    }
}

/// The layer at the same depth in a model of another number of layers.
fn scaled(layer: usize, of: usize, layers: usize) -> usize {
    (layer * layers + of / 2) / of
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn models_of_the_papers_get_the_papers_numbers() {
        for (family, layers, width, layer, clamp, steps) in [
            (Family::Gpt2, 24, 1024, 8, 3.0, 20),
            (Family::Gpt2, 36, 1280, 12, 4.0, 20),
            (Family::Gpt2, 48, 1600, 17, 4.0, 20),
            (Family::GptJ, 28, 4096, 5, 4.0, 20),
            (Family::GptNeoX, 44, 6144, 15, 4.0, 20),
            (Family::Llama, 32, 4096, 5, 4.0, 25),
            (Family::Mistral, 32, 4096, 5, 4.0, 25),
        ] {
            let hyper = Hyper::of(Method::RRome, family, layers, width);
            assert_eq!(
                (hyper.layer, hyper.clamp, hyper.steps),
                (layer, clamp, steps)
            );
            assert_eq!((hyper.learning_rate, hyper.kl_factor), (0.5, 0.0625));
        }
        let tuned = Hyper::of(Method::FtL, Family::Gpt2, 48, 1600);
        assert_eq!((tuned.layer, tuned.steps, tuned.bound), (0, 25, 5e-4));
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let base = Hyper::of(Method::RRome, Family::Gpt2, 12, 768);
        base.check(12).unwrap();
        for (hyper, what) in [
            (Hyper { layer: 12, ..base }, "layers 0 to 11"),
            (Hyper { steps: 0, ..base }, "`steps` is 0"),
            (Hyper { clamp: 0.0, ..base }, "`clamp` is 0"),
            (
                Hyper {
                    ridge: -1.0,
                    ..base
                },
                "`ridge` is -1",
            ),
            (
                Hyper {
                    learning_rate: f64::NAN,
                    ..base
                },
                "`learning_rate` is NaN",
            ),
        ] {
            let said = hyper.check(12).unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
    }
}
