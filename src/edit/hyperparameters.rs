//! The numbers of a method, by model family.

use std::fmt;

use super::{Error, Method};
use crate::model::{Config, Family};

/// What values a number may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Whole numbers, the ends included.
    Whole(u32, u32),
    /// Numbers above 0.
    Positive,
    /// 0 and numbers above it.
    NotNegative,
    /// From 0 on and below 1.
    Part,
    /// All numbers.
    Finite,
}

impl Range {
    /// Whether `value` is one of its numbers. What is not finite is none.
    pub fn contains(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Range::Whole(least, most) => {
                    value.fract() == 0.0 && (f64::from(least)..=f64::from(most)).contains(&value)
                }
                Range::Positive => value > 0.0,
                Range::NotNegative => value >= 0.0,
                Range::Part => (0.0..1.0).contains(&value),
                Range::Finite => true,
            }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Whole(least, most) => write!(f, "a whole number, {least} to {most}"),
            Range::Positive => f.write_str("a number above 0"),
            Range::NotNegative => f.write_str("0 or more"),
            Range::Part => f.write_str("0 or more and less than 1"),
            Range::Finite => f.write_str("a number"),
        }
    }
}

/// A number of an edit that a request may set.
#[derive(Debug, Clone, Copy)]
pub struct Number {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub range: Range,
    /// The methods that have it.
    pub methods: &'static [Method],
    get: fn(&Hyperparameters) -> f64,
    set: fn(&mut Hyperparameters, f64),
}

impl Number {
    /// Its value.
    pub fn of(&self, hyper: &Hyperparameters) -> f64 {
        (self.get)(hyper)
    }

    fn check(&self, value: f64) -> Result<(), Error> {
        match self.range.contains(value) {
            true => Ok(()),
            false => Err(Error::Setting {
                field: self.name,
                value: value.to_string(),
                remedy: format!("give {}", self.range),
            }),
        }
    }
}

const ALL: &[Method] = &Method::ALL;
/// Those that seek a value.
const VALUE: &[Method] = &[
    Method::RRome,
    Method::Rome,
    Method::Memit,
    Method::AlphaEdit,
    Method::Emmet,
    Method::Encore,
];
const MASS: &[Method] = &Method::MASS;
/// Those that factorise the key statistics as they are.
const RIDGE: &[Method] = &[Method::RRome, Method::Rome, Method::Memit, Method::Emmet];

/// The numbers that decide the target of a mass edit, of those that a request may set.
pub const TARGET_NUMBERS: [&str; 7] = [
    "clamp",
    "early_stop",
    "kl_factor",
    "learning_rate",
    "steps",
    "stop_loss",
    "weight_decay",
];

/// The one list of them: each number's name, type, range and methods.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $type:ty, $range:expr, $methods:expr;)*) => {
        /// Every number of an edit.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct Hyperparameters {
            /// The layer whose MLP's second matrix is edited, from 0; of several the last.
            pub layer: usize,
            $($(#[$doc])* pub $name: $type,)*
        }

        /// The numbers that a request may set, in the order of their names.
        pub const NUMBERS: &[Number] = &[$(Number {
            name: stringify!($name),
            range: $range,
            methods: $methods,
            get: |hyper| hyper.$name as f64,
            set: |hyper, value| hyper.$name = value as $type,
        },)*];
    };
}

numbers! {
    /// FT+L: most change of any one weight.
    bound: f64, Range::Positive, &[Method::FtL];
    /// Most length of the value's change, in lengths of the clean value.
    clamp: f64, Range::Positive, VALUE;
    /// Ends the search for a value after so many steps at which every token of the target is the
    /// likeliest; 0: never.
    early_stop: usize, Range::Whole(0, 10_000), MASS;
    /// AlphaEdit: the leading directions that hold this part of the statistics' trace are left
    /// alone; 0: by `threshold`.
    energy: f64, Range::Part, &[Method::AlphaEdit];
    /// ENCORE: added to the diagonal, which bounds the norm of the change.
    eta: f64, Range::NotNegative, &[Method::Encore];
    /// Factor of the drift of what is said of the subject alone.
    kl_factor: f64, Range::NotNegative, VALUE;
    /// AlphaEdit: added to the diagonal within the kept directions.
    l2: f64, Range::Positive, &[Method::AlphaEdit];
    /// MEMIT and ENCORE: weight of the key statistics, in tokens.
    lambda: f64, Range::Positive, &[Method::Memit, Method::Encore];
    /// Learning rate of Adam (Kingma and Ba 2015).
    learning_rate: f64, Range::Positive, ALL;
    /// EMMET: how far each fact may stay from its target; 0 for none. One fact alone is always
    /// written whole.
    mu: f64, Range::NotNegative, &[Method::Emmet];
    /// AlphaEdit: so many of the least used directions are kept; 0: by `threshold`.
    rank: usize, Range::Whole(0, 10_000_000), &[Method::AlphaEdit];
    /// Added to the diagonal of the key statistics' mean.
    ridge: f64, Range::NotNegative, RIDGE;
    /// EMMET: weight of the key statistics.
    statistics_weight: f64, Range::Positive, &[Method::Emmet];
    /// Most steps of the optimisation; there is one update less.
    steps: usize, Range::Whole(1, 10_000), ALL;
    /// The optimisation ends below this loss.
    stop_loss: f64, Range::Finite, ALL;
    /// AlphaEdit: directions with a smaller eigenvalue of the key statistics' mean are kept.
    threshold: f64, Range::Positive, &[Method::AlphaEdit];
    /// Factor of `|delta| / |v0|^2` in the loss.
    weight_decay: f64, Range::NotNegative, VALUE;
}

/// Numbers to use instead of the family's: those of [`NUMBERS`], each at most once, and the layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    layer: Option<usize>,
    numbers: Vec<(&'static str, f64)>,
}

impl Overrides {
    /// Another layer than the family's, where one is given.
    pub fn at(layer: Option<usize>) -> Self {
        Self {
            layer,
            ..Self::default()
        }
    }

    /// Takes one more number.
    ///
    /// # Errors
    /// [`Error::Number`] for a name that `method` does not have or a number that was set before, [`Error::Setting`] for
    /// one out of its range.
    pub fn set(&mut self, method: Method, name: &str, value: f64) -> Result<(), Error> {
        let wrong = |what: String| Error::Number {
            name: name.to_owned(),
            what,
        };
        let of_method = NUMBERS.iter().filter(|it| it.methods.contains(&method));
        let Some(number) = of_method.clone().find(|it| it.name == name) else {
            let names: Vec<&str> = of_method.map(|it| it.name).collect();
            let what = format!(
                "is no number of an edit by {method}: use one of {}",
                names.join(", ")
            );
            return Err(wrong(what));
        };
        if self.numbers.iter().any(|(set, _)| *set == name) {
            return Err(wrong("is set twice: give it once".to_owned()));
        }
        number.check(value)?;
        self.numbers.push((number.name, value));
        Ok(())
    }

    /// With one more number.
    ///
    /// # Errors
    /// As [`Overrides::set`].
    pub fn with(mut self, method: Method, name: &str, value: f64) -> Result<Self, Error> {
        self.set(method, name, value)?;
        Ok(self)
    }
}

impl Hyperparameters {
    /// The published numbers where the method's authors give some for such a model, and those of
    /// the nearest one otherwise, with the layer at the same depth.
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
            early_stop: 0,
            energy: 0.0,
            eta: 10.0,
            l2: 10.0,
            lambda: 15_000.0,
            mu: 0.1,
            rank: 0,
            statistics_weight: 1.0,
            threshold: 2e-2,
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
            method => Self::of_many(method, family, (layers, width), rome),
        }
    }

    /// The numbers of the methods for many facts, as their authors' releases and EasyEdit have
    /// them.
    fn of_many(
        method: Method,
        family: Family,
        (layers, width): (usize, usize),
        rome: Self,
    ) -> Self {
        let layer = match method {
            Method::Emmet => rome.layer,
            _ => Self::layers_of(method, family, layers, width)
                .last()
                .copied()
                .unwrap_or(rome.layer),
        };
        let gpt2 = family == Family::Gpt2;
        // EasyEdit's clamp of a block's output; all others have MEMIT's own.
        let wide = matches!(family, Family::Mistral | Family::Qwen2 | Family::Qwen3);
        Self {
            layer,
            steps: if gpt2 { 20 } else { 25 },
            clamp: if wide { 4.0 } else { 0.75 },
            weight_decay: if wide { 1e-3 } else { 0.5 },
            lambda: if gpt2 || family == Family::GptNeoX {
                20_000.0
            } else {
                15_000.0
            },
            l2: if wide { 1.0 } else { 10.0 },
            eta: match family {
                Family::Gpt2 | Family::GptJ | Family::GptNeoX => 10.0,
                _ => 20.0,
            },
            early_stop: match (method, family) {
                (Method::Encore, Family::Gpt2 | Family::GptJ | Family::GptNeoX) => 4,
                (Method::Encore, _) => 2,
                _ => 0,
            },
            statistics_weight: if gpt2 { 1000.0 } else { 1.0 },
            ..rome
        }
    }

    /// The layers that models of a family are edited at, rising: one for the methods of one fact,
    /// and for EMMET.
    pub fn layers_of(method: Method, family: Family, layers: usize, width: usize) -> Vec<usize> {
        let range = |from: usize, to: usize, of: usize| {
            let most = layers.saturating_sub(1);
            let (from, to) = (scaled(from, of, layers), scaled(to, of, layers));
            (from.min(most)..=to.min(most)).collect()
        };
        match (method, family) {
            (Method::Memit | Method::AlphaEdit | Method::Encore, family) => match family {
                Family::Gpt2 => range(13, 17, 48),
                Family::GptJ => range(3, 8, 28),
                Family::GptNeoX => range(6, 10, 44),
                _ => range(4, 8, 32),
            },
            (method, family) => vec![Self::of(method, family, layers, width).layer],
        }
    }

    /// The numbers for a model, with some replaced.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first number out of its range; [`Error::Model`] for a layer that is
    /// a mixture of experts.
    pub fn new(method: Method, config: &Config, overrides: &Overrides) -> Result<Self, Error> {
        let base = Self::of(method, config.family, config.layers, config.width);
        let mut hyper = Self {
            layer: overrides.layer.unwrap_or(base.layer),
            ..base
        };
        for (name, value) in &overrides.numbers {
            if let Some(number) = NUMBERS.iter().find(|it| it.name == *name) {
                (number.set)(&mut hyper, *value);
            }
        }
        hyper.check(config.layers)?;
        config.has_key(hyper.layer)?;
        Ok(hyper)
    }

    /// The numbers that a method has, with their values.
    pub fn named(&self, method: Method) -> Vec<(&'static str, f64)> {
        let of_method = NUMBERS.iter().filter(|it| it.methods.contains(&method));
        of_method.map(|it| (it.name, it.of(self))).collect()
    }

    /// Checks every number against its range, for a model of so many layers.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self, layers: usize) -> Result<(), Error> {
        if self.layer >= layers {
            return Err(Error::Setting {
                field: "layer",
                value: self.layer.to_string(),
                remedy: format!("the model has layers 0 to {}", layers.saturating_sub(1)),
            });
        }
        for number in NUMBERS {
            number.check(number.of(self))?;
        }
        if self.rank > 0 && self.energy > 0.0 {
            return Err(Error::Setting {
                field: "rank",
                value: self.rank.to_string(),
                remedy: "give one of `rank` and `energy`".to_owned(),
            });
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
            let hyper = Hyperparameters::of(Method::RRome, family, layers, width);
            assert_eq!(
                (hyper.layer, hyper.clamp, hyper.steps),
                (layer, clamp, steps)
            );
            assert_eq!((hyper.learning_rate, hyper.kl_factor), (0.5, 0.0625));
        }
        let tuned = Hyperparameters::of(Method::FtL, Family::Gpt2, 48, 1600);
        assert_eq!((tuned.layer, tuned.steps, tuned.bound), (0, 25, 5e-4));
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let base = Hyperparameters::of(Method::RRome, Family::Gpt2, 12, 768);
        base.check(12).unwrap();
        for (hyper, what) in [
            (Hyperparameters { layer: 12, ..base }, "layers 0 to 11"),
            (Hyperparameters { steps: 0, ..base }, "`steps` is 0"),
            (Hyperparameters { clamp: 0.0, ..base }, "`clamp` is 0"),
            (
                Hyperparameters {
                    ridge: -1.0,
                    ..base
                },
                "`ridge` is -1",
            ),
            (
                Hyperparameters {
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

    #[test]
    fn a_number_is_set_once_within_its_range_and_only_where_the_method_has_it() {
        let none = Overrides::default;
        let said = |overrides: Result<Overrides, Error>| overrides.unwrap_err().to_string();
        let steps = said(none().with(Method::Rome, "steps", 2.7));
        assert!(
            steps.contains("`steps` is 2.7: give a whole number, 1 to 10000"),
            "{steps}"
        );
        let twice = none().with(Method::Rome, "steps", 2.0).unwrap();
        let twice = said(twice.with(Method::Rome, "steps", 9.0));
        assert!(twice.contains("'steps' is set twice"), "{twice}");
        let unknown = said(none().with(Method::FtL, "clamp", 3.0));
        assert!(
            unknown.contains(
                "'clamp' is no number of an edit by ft-l: use one of bound, learning_rate, steps, stop_loss"
            ),
            "{unknown}"
        );
        for value in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            assert!(none().with(Method::RRome, "clamp", value).is_err());
        }
        let overrides = none().with(Method::RRome, "clamp", 7.0).unwrap();
        assert_eq!(overrides.numbers, [("clamp", 7.0)]);
    }

    #[test]
    fn numbers_are_in_the_order_of_their_names() {
        assert!(NUMBERS.is_sorted_by_key(|it| it.name));
    }
}
